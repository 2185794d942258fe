"""How right a model's reviews are, by rule: which of the faults that it names the answer has.

python -m coh_lightning.world.reviews COMPLETIONS.jsonl        a line for each ask ("review 1", ...)

answer      Anna went to the market on Friday .          (on Monday, for bread)
its faults  it gets the day wrong and leaves out the reason
review      it gets the day wrong and leaves out the meal
precision 1/2: of the two named faults one is there     recall 1/2: of its two faults one is named
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.intervals import bootstrap_sums
from coh_lightning.world.posts import KINDS
from coh_lightning.world.raters import rate

FACTS = {"gets": "wrong", "leaves": "missing", "makes": "invented"}
"""Verbs of a critique that facts follow."""
LEVELS = (0.025, 0.975)
FORM = ("says", "mixes", "has", "breaks")
"""Those of faults of form."""
Fault = tuple[str, str]


def faults(critique: str) -> frozenset[Fault]:
    """The faults that a critique names; none: it is praise, or says nothing that the raters know.

    "it gets the day and the place wrong , leaves out the reason and breaks off"
    ->  (wrong, day), (wrong, place), (missing, reason), (form, breaks off)
    """
    found: set[Fault] = set()
    phrases: list[list[str]] = []
    for word in critique.split():
        if word in FACTS or word in FORM:
            phrases.append([])
        if phrases:
            phrases[-1].append(word)
    for verb, *rest in phrases:
        if verb in FACTS:
            found |= {(FACTS[verb], kind) for the, kind in pairwise(rest) if the == "the"}
        else:
            while rest and rest[-1] in ("and", ",", "."):
                rest.pop()
            found.add(("form", " ".join([verb, *rest])))
    return frozenset(one for one in found if one[0] == "form" or one[1] in KINDS)


@dataclass(frozen=True)
class ReviewFigures:
    """Counts over the reviews of one ask."""

    reviews: int
    there: int
    """Faults of the answers."""
    named: int
    """Faults that the reviews name."""
    right: int
    """Named faults that are there."""
    whole: int
    """Reviews that name exactly the faults of their answer, praise of a faultless one included."""

    @property
    def precision(self) -> float:
        return self.right / self.named if self.named else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.there if self.there else 0.0

    def __str__(self) -> str:
        return (
            f"precision {self.precision:.3f} ({self.right} of {self.named} named faults), recall {self.recall:.3f} "
            f"(of {self.there}), exactly right {self.whole / max(self.reviews, 1):.3f}"
        )


def figures(answers: Sequence[frozenset[Fault]], reviews: Sequence[frozenset[Fault]]) -> ReviewFigures:
    """Of the faults of some answers and those that their reviews name."""
    pairs = list(zip(answers, reviews, strict=True))
    return ReviewFigures(
        len(pairs),
        sum(map(len, answers)),
        sum(map(len, reviews)),
        sum(len(there & named) for there, named in pairs),
        sum(there == named for there, named in pairs),
    )


Reviewed = tuple[str, frozenset[Fault], frozenset[Fault]]
"""Of one review: the prompt, the faults of the answer, those that the review names."""


def reviewed(completions: Iterable[Completion]) -> dict[str, list[Reviewed]]:
    """The reviews of each ask. Raises InputError if a prompt is not a post of the world."""
    found: dict[str, list[Reviewed]] = {}
    for one in completions:
        if one.answer is not None:
            true = rate(one.prompt if one.shown is None else one.shown, one.answer).critique
            found.setdefault(one.ask, []).append((one.prompt_id, faults(true), faults(one.text)))
    return dict(sorted(found.items()))


def control(reviews: Sequence[Reviewed]) -> list[Reviewed]:
    """Each answer with the review of the next one, which names faults as often but has not seen this answer."""
    following = [*reviews[1:], *reviews[:1]]
    return [(prompt, there, other) for (prompt, there, _), (_, _, other) in zip(reviews, following, strict=True)]


def compared(reviews: Sequence[Reviewed]) -> tuple[ReviewFigures, ReviewFigures]:
    """The figures of some reviews and of their control."""
    own, other = (
        figures([there for _, there, _ in those], [named for _, _, named in those])
        for those in (reviews, control(reviews))
    )
    return own, other


def by_ask(completions: Iterable[Completion]) -> dict[str, tuple[ReviewFigures, ReviewFigures]]:
    """For each ask the figures of its reviews and of their control. Raises InputError as `reviewed`."""
    return {ask: compared(reviews) for ask, reviews in reviewed(completions).items()}


def intervals(reviews: Sequence[Reviewed], *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals over prompts: `precision`, `recall`, and `more precision`, `more recall` than the
    control has.
    """
    totals: dict[str, list[int]] = {}
    for (prompt, there, named), (_, _, other) in zip(reviews, control(reviews), strict=True):
        row = [len(there & named), len(named), len(there), len(there & other), len(other)]
        totals[prompt] = [a + b for a, b in zip(totals.get(prompt, [0] * 5), row, strict=True)]
    sums = bootstrap_sums(list(totals.values()), seed=seed, resamples=2000)
    right, named, there, right_of_other, other = sums.T
    precision, recall = right / np.maximum(named, 1), right / np.maximum(there, 1)
    values = {
        "precision": precision,
        "recall": recall,
        "more precision": precision - right_of_other / np.maximum(other, 1),
        "more recall": recall - right_of_other / np.maximum(there, 1),
    }
    return {name: (float(low), float(high)) for name, of in values.items() for low, high in [np.quantile(of, LEVELS)]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m coh_lightning.world.reviews", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("completions", type=Path, metavar="COMPLETIONS", help="of `test` or `predict`, with reviews")
    try:
        path = parser.parse_args(argv).completions
        found = reviewed(read_jsonl(path, Completion))
        if not found:
            raise InputError(
                f"{path} has no reviews; write some by `coh test` with "
                "refine=1 and critic=self, or by `coh predict` with review_of (all under model.generation)."
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for ask, reviews in found.items():
        own, other = compared(reviews)
        print(f"{ask}: {counted(own.reviews, 'review')}, {own}")
        if own.reviews > 1:
            print(f"    with the review of another answer: {other}")
            ranges = [f"{name} [{low:.3f}, {high:.3f}]" for name, (low, high) in intervals(reviews).items()]
            print(f"    95 % intervals over prompts (more: than with the other review): {', '.join(ranges)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
