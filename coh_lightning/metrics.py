"""Numbers about what a model wrote: pure functions of texts, and `Sums`, which adds them up over batches and ranks and
divides once.

Items of a text are its words (`words`) unless ids are given: every function that takes `Items` counts either.
A number for a whole test set is a mean of numbers per completion, so that it adds over ranks; intervals are over
prompts, never over completions, because several completions of one prompt are not independent.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score

from coh_lightning.errors import did_you_mean
from coh_lightning.words import words

Items = str | Sequence[Hashable]

ROUGE = ("rouge1", "rouge2", "rougeL")
"""Exactly these: torchmetrics' own default has rougeLsum beside them, which downloads a sentence splitter."""


def rouge(text: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, -2 and -L (Lin 2004) of one text against one reference, in 0 to 1, and `rouge`, the mean of the
    three.

    Words are those of `words`, in any script, without stemming: on ASCII text this equals Google's rouge_score, and on
    texts in scripts without blanks (Chinese, Japanese, Thai, ...) it counts characters.
    """
    scores = rouge_score(text, reference, rouge_keys=ROUGE, normalizer=str, tokenizer=words)
    values = {key: float(scores[f"{key}_fmeasure"]) for key in ROUGE}
    return {**values, "rouge": sum(values.values()) / len(values)}


def repetition(text: Items, n: int = 3) -> float:
    """The share of n-grams that stood in the text before; 0 in a text without any n-gram. `a b c a b c` has 1 of 4:
    0.25.
    """
    grams = list(_grams(text, n))
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def distinct(texts: Sequence[Items], n: int = 2) -> float:
    """Distinct n-grams of all texts over all their n-grams (Li et al. 2016); 0 where there are none.

    It doesn't add over ranks. Take the samples of one prompt as `texts` (how unlike they are), and the mean of that
    over prompts.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def copied(second: Items, first: Items, n: int = 3) -> float:
    """The share of the n-grams of `second` that stand in `first`: how much of a second answer is the first one over
    again.

    Of a second text shorter than n, its words together count as one gram; an empty one copies nothing.
    """
    size = min(n, len(_items(second)))
    if not size:
        return 0.0
    known = set(_grams(first, size))
    grams = list(_grams(second, size))
    return sum(gram in known for gram in grams) / len(grams)


def completion_values(text: str, *, tokens: int, ended: bool, reference: str | None = None) -> dict[str, float]:
    """All numbers of one completion: tokens, words, repetition, ended (1 where it stopped by itself), empty, and ROUGE
    where there is a reference.

    `Sums` gives their means: mean length, the share that stops properly, ...
    """
    values = {
        "tokens": float(tokens),
        "words": float(len(words(text))),
        "repetition": repetition(text),
        "ended": float(ended),
        "empty": float(not text.strip()),
    }
    return values if reference is None else {**values, **rouge(text, reference)}


VALUES = ("tokens", "words", "repetition", "ended", "empty", *ROUGE, "rouge")
"""The names that `completion_values` may give."""


class Sums(Metric):
    """Means of named numbers that are exact over ranks: each name's sum and count are added up, and divided once.

    The names are fixed when it is made, as all ranks must hold the same state, which is one tensor, so one all-reduce,
    whatever the number of names:

        Sums(["good/words", "bad/words"])              sum    count
        add({"good/words": [3, 5]})            good/     8        2
        update({"bad/words": (9., 1.)})        bad/      9        1      compute() -> {"good/words": 4., "bad/words": 9.}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    table: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self._rows = {name: row for row, name in enumerate(self.names)}
        if len(self._rows) < len(self.names):
            raise ValueError(f"the names of sums must differ, but are {', '.join(self.names)}")
        # float32 would lose counts beyond 16.7 million and digits of sums; Apple's GPUs have nothing better
        precise = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("table", torch.zeros((len(self.names), 2), dtype=precise), dist_reduce_fx="sum")

    def add(self, values: Mapping[str, ArrayLike]) -> None:
        """Adds one value or several, each of weight 1, to each of the names given; the other names stay as they are."""
        numbers = {name: np.asarray(value, dtype=np.float64).reshape(-1) for name, value in values.items()}
        self.update({name: (float(array.sum()), float(len(array))) for name, array in numbers.items()})

    def update(self, totals: Mapping[str, tuple[float, float]]) -> None:
        """Adds a (sum, count) to each of the names given. The count may be a sum of weights: padding that repeats a
        prompt adds nothing to either.

        Raises:
            KeyError: a name that this object wasn't made with.
            ValueError: a number that is not finite, which would spoil the mean for good.
        """
        table = torch.zeros(self.table.shape, dtype=self.table.dtype)
        for name, total in totals.items():
            if name not in self._rows:
                raise KeyError(f"no sum is kept for '{name}'{did_you_mean(name, self.names, '')}")
            if not np.isfinite(total).all():
                raise ValueError(f"'{name}' was given a value that is not finite: sum {total[0]}, count {total[1]}")
            table[self._rows[name]] = torch.tensor(total, dtype=table.dtype)
        self.table = self.table + table.to(self.table.device)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each name that has any weight, on all ranks alike; names without are left out."""
        counts = self.table[:, 1].tolist()
        return {name: self.table[row, 0] / self.table[row, 1] for name, row in self._rows.items() if counts[row] > 0}


def _items(text: Items) -> Sequence[Hashable]:
    return words(text) if isinstance(text, str) else text


def _grams(text: Items, n: int) -> Iterator[tuple[Hashable, ...]]:
    items = _items(text)
    return (tuple(items[i : i + n]) for i in range(len(items) - n + 1))
