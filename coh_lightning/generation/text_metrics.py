"""Numbers about texts that a model wrote, and `WeightedMeans`, which adds numbers up over batches and ranks.

A number for a whole test set is a mean of numbers per completion, so that it adds over ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score

from coh_lightning.errors import did_you_mean
from coh_lightning.words import words

ROUGE = ("rouge1", "rouge2", "rougeL")
"""Exactly these: torchmetrics' own default has rougeLsum beside them, which downloads a sentence splitter."""


def rouge(text: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, -2 and -L (Lin 2004) against one reference, in 0 to 1, and `rouge`, their mean.

    Words are those of `words`, without stemming: on ASCII text this equals Google's rouge_score, and in scripts without
    spaces (Chinese, Japanese, Thai, ...) it counts characters.
    """
    scores = rouge_score(text, reference, rouge_keys=ROUGE, normalizer=str, tokenizer=words)
    values = {key: float(scores[f"{key}_fmeasure"]) for key in ROUGE}
    return {**values, "rouge": sum(values.values()) / len(values)}


def repetition(text: str, n: int = 3) -> float:
    """The share of n-grams that occurred earlier in the text: 1 of 4 in `a b c a b c`; 0 if there are none."""
    grams = _grams(text, n)
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Distinct n-grams of all texts, as a share of all their n-grams (Li et al. 2016); 0 if there are none.

    It doesn't add over ranks, so give it the samples of one prompt, and average over prompts.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def copied(second: str, first: str, n: int = 3) -> float:
    """The share of the n-grams of `second` that occur in `first`; a text of fewer than n words is one gram."""
    size = min(n, len(words(second)))
    if not size:
        return 0.0
    known = set(_grams(first, size))
    grams = _grams(second, size)
    return sum(gram in known for gram in grams) / len(grams)


def completion_values(text: str, *, tokens: int, ended: bool, reference: str | None = None) -> dict[str, float]:
    """All numbers of one completion, with ROUGE if there is a reference; `ended` is 1 if it stopped by itself."""
    values = {
        "tokens": float(tokens),
        "words": float(len(words(text))),
        "repetition": repetition(text),
        "ended": float(ended),
        "empty": float(not text.strip()),
    }
    return values if reference is None else {**values, **rouge(text, reference)}


class WeightedMeans(Metric):
    """Means of named numbers that are exact over ranks: each name's sum and count are added up, and divided once.

    The names are fixed, because all ranks must have the same state. It is one tensor, so one all-reduce:

        WeightedMeans(["good/words", "bad/words"])              sum    count
        add({"good/words": [3, 5]})            good/     8        2
        update({"bad/words": (9., 1.)})        bad/      9        1
        compute()                              {"good/words": 4., "bad/words": 9.}
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
        """Adds one value or several, each of weight 1, to each of the names given."""
        numbers = {name: np.asarray(value, dtype=np.float64).reshape(-1) for name, value in values.items()}
        self.update({name: (float(array.sum()), float(len(array))) for name, array in numbers.items()})

    def update(self, totals: Mapping[str, tuple[float, float]]) -> None:
        """Adds (sum, count) or (weighted sum, weights). Raises KeyError for an unknown name, ValueError for NaN."""
        table = torch.zeros(self.table.shape, dtype=self.table.dtype)
        for name, total in totals.items():
            if name not in self._rows:
                raise KeyError(f"no sum is kept for '{name}'{did_you_mean(name, self.names, '')}")
            if not np.isfinite(total).all():
                raise ValueError(f"'{name}' was given a value that is not finite: sum {total[0]}, count {total[1]}")
            table[self._rows[name]] = torch.tensor(total, dtype=table.dtype)
        self.table = self.table + table.to(self.table.device)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each name that has any weight, the same on all ranks."""
        counts = self.table[:, 1].tolist()
        return {name: self.table[row, 0] / self.table[row, 1] for name, row in self._rows.items() if counts[row] > 0}


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    items = words(text)
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
