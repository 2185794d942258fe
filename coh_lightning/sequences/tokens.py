"""One chain as tokens: ids and loss weights of equal length, and where its outputs lie. Numpy only.

Each segment is tokenized alone, not the joined text: a loss weight can't straddle a token, and the prompt at
inference has exactly the ids of training.

    segments   <s> | Name a fruit.\\n\\n | A good answer:\\n | Apple   | </s>
    ids        1   | 37 8 91 4         | 12 55 61 3       | 70 9    | 2
    learned    0   | 0  0 0  0         | 0  0  0  0       | 1  1    | 1       one OutputSpan(9, 12, "good", 0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Weights = NDArray[np.float64]


class OutputSpan(NamedTuple):
    """The tokens [start, stop) of one output, its end token included."""

    start: int
    stop: int
    kind: str
    place: int  # index of the link in its chain


@dataclass(frozen=True)
class Tokens:
    """One chain as tokens. Raises `ValueError` for unequal lengths or other types."""

    ids: Ids  # (n,) int32
    learned: Weights  # (n,) float64: weight of the likelihood loss
    unlearned: Weights  # (n,) float64: weight of the unlikelihood loss
    spans: tuple[OutputSpan, ...]

    def __post_init__(self) -> None:
        weights = (self.learned, self.unlearned)
        if self.ids.ndim != 1 or any(array.shape != self.ids.shape for array in weights):
            shapes = [array.shape for array in (self.ids, *weights)]
            raise ValueError(f"ids, learned and unlearned must be one-dimensional and of equal length, not {shapes}.")
        if self.ids.dtype != np.int32 or any(array.dtype != np.float64 for array in weights):
            types = [str(array.dtype) for array in (self.ids, *weights)]
            raise ValueError(f"ids must be int32, learned and unlearned float64, not {types}.")

    def __len__(self) -> int:
        return len(self.ids)
