"""A method: which chains are made of a record, in which order, with which feedback sentences, and what is learned.

A method is a value: supervised fine-tuning, C-SFT, Chain of Hindsight, rankings, ratings and critiques are other orders
and other sentences (conf/method/), and nothing after chains.py depends on the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from coh_lightning.errors import InputError

Order = Literal["p", "n", "pn", "np", "each", "ascending", "descending", "shuffled", "revised", "reviewed"]
REVIEWED: Order = "reviewed"
Sentences = Literal["none", "polarity", "ranking", "rating", "critique"]
Judge = Literal["auto", "rank", "rating", "thumb", "revision"]


@dataclass(frozen=True)
class Method:
    """The defaults are Chain of Hindsight on comparisons (paper section 2; all outputs learned, as in its code)."""

    name: str = "coh"
    orders: tuple[Order, ...] = ("p", "n", "pn", "np")
    """p: a good output; n: a bad one; pn, np: both. each: every output alone. ascending, descending, shuffled: all
    outputs in one chain, by quality. revised: an output, its critique, and its revision (else a better output).
    reviewed: an output under no sentence, the question for a review, the critique as the answer, the request for a
    better output, and its revision (else a better output).
    """
    sentences: Sentences = "polarity"
    """What the feedback sentences are about; none: no sentences (SFT)."""
    preference_from: Judge = "auto"
    """Which feedback decides what is better; auto: the first of rank, rating, thumb, revision that the record has."""
    pairs: Literal["best_vs_worst", "all"] = "best_vs_worst"
    """Of more than two outputs: the best against the worst, or every strictly ordered pair."""
    ties: Literal["skip", "sentence"] = "skip"
    """A record whose outputs all tie: skipped, or each output under the tie sentence."""
    loss_on: Literal["all", "last"] = "all"
    """Equation 2 of the paper and its code: all outputs; its section on training: the last one."""
    good_above: float = 0.5
    """A single completion is good if its rating is strictly above this fraction of its scale, ..."""
    bad_below: float = 0.5
    """... and bad if strictly below this one."""
    unlikelihood: float = 0.0
    """Weight of the unlikelihood loss on bad outputs, then without likelihood loss (SFT-U; Welleck et al. 2019)."""
    feedback_weight: float = 0.0
    """Weight of the loss on feedback that follows what it judges: the reviews of `reviewed`. 0, as in the paper: the
    model reads them and doesn't learn to write them."""

    def __post_init__(self) -> None:
        if not self.orders:
            raise InputError("method.orders is empty; give at least one of " + ", ".join(get_args(Order)) + ".")
        for order in self.orders:
            if order not in get_args(Order):
                raise InputError(f"method.orders has '{order}'; known are {', '.join(get_args(Order))}.")
        joined = [order for order in self.orders if order not in ("p", "n", "each", REVIEWED)]
        if self.sentences == "none" and joined:
            raise InputError(
                f"method.orders has '{joined[0]}', a chain of several outputs, but method.sentences is none; "
                "sentences keep the outputs of a chain apart."
            )
        if not 0 <= self.bad_below <= self.good_above <= 1:
            found = f"method.bad_below is {self.bad_below} and method.good_above {self.good_above}"
            raise InputError(f"{found}; they must satisfy 0 <= bad_below <= good_above <= 1.")
        for name in ("unlikelihood", "feedback_weight"):
            if (weight := getattr(self, name)) < 0:
                raise InputError(f"method.{name} is {weight}; a weight can't be negative (0: off).")
        if self.feedback_weight and REVIEWED not in self.orders:
            raise InputError(
                f"method.feedback_weight is {self.feedback_weight}, but method.orders has no '{REVIEWED}', the only "
                "order with feedback to learn; add it, or set the weight to 0."
            )

    @property
    def reviews(self) -> bool:
        """Whether there are reviews in its chains."""
        return REVIEWED in self.orders
