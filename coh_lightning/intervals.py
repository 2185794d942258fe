"""Bootstrap intervals over prompts, for every interval of the package.

Several completions of one prompt, or several votes on it, are not independent, so whole prompts are drawn:

    prompts       p1  p2  p3           sums over a resample    p1 p1 p3 -> 2 a + c
    values         a   b   c                                   p2 p3 p3 -> b + 2 c    ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coh_lightning.rng import key64

Floats = NDArray[np.float64]

CELLS = 4_000_000
"""Resampling weights in one block: 32 MB. Another value gives other draws for the same seed."""


class Interval(NamedTuple):
    """An estimate with its interval; nan if the data has none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, Any]:
        """Its numbers by name; None instead of nan."""
        return {name: float(each) if math.isfinite(each) else None for name, each in self._asdict().items()}


UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Difference:
    """The mean of a minus b over the prompts that both have, with its interval."""

    mean: float
    low: float
    high: float
    prompts: int
    left_out: int
    """Prompts that only one side has."""


def bootstrap_sums(totals: ArrayLike, *, seed: int, resamples: int) -> Floats:
    """Sums over prompts drawn with replacement: totals of shape (prompts, columns) -> (resamples, columns). All columns
    share their draws, so they stay as dependent as in the data.

    >>> bootstrap_sums([[1.0, 10.0]] * 3, seed=0, resamples=2)
    array([[ 3., 30.],
           [ 3., 30.]])
    """
    table = np.asarray(totals, dtype=np.float64)
    prompts = len(table)
    sums = np.zeros((resamples, table.shape[1]))
    if not prompts:
        return sums
    random = np.random.default_rng(key64(seed, "bootstrap"))
    block = max(1, CELLS // prompts)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picks = random.integers(prompts, size=(rows, prompts)) + prompts * np.arange(rows)[:, None]
        weights = np.bincount(picks.ravel(), minlength=rows * prompts).reshape(rows, prompts)
        sums[start : start + rows] = weights @ table
    return sums


def mean_interval(values: ArrayLike, *, seed: int, level: float = 0.95, resamples: int = 2000) -> Interval:
    """The mean of one value per prompt (see `per_prompt`) with its percentile bootstrap interval (Efron 1979).

    Depends on the order of `values` and on the seed. The interval of a single value is that value.

    Raises:
        ValueError: no values, or non-finite ones.
    """
    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if not len(sample) or not np.isfinite(sample).all():
        finite = np.isfinite(sample).sum()
        raise ValueError(f"an interval needs at least one value, all finite; there are {len(sample)}, {finite} finite")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"an interval needs 0 < level < 1 and resamples >= 1; they are {level} and {resamples}")
    means = bootstrap_sums(sample[:, None], seed=seed, resamples=resamples)[:, 0] / len(sample)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def per_prompt(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    """(prompt id, value) of each completion -> prompt id -> mean, in order of first appearance."""
    groups: dict[str, list[float]] = {}
    for prompt, value in values:
        groups.setdefault(prompt, []).append(value)
    return {prompt: sum(group) / len(group) for prompt, group in groups.items()}


def paired_difference(
    a: Mapping[str, float], b: Mapping[str, float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Difference:
    """a - b, prompt by prompt, over the prompts of both; for example the control gap, good marker minus bad marker.
    Raises ValueError for no prompt in common, or non-finite values.
    """
    shared = sorted(a.keys() & b.keys())  # sorted: the interval doesn't depend on the order of either mapping
    found = mean_interval([a[prompt] - b[prompt] for prompt in shared], seed=seed, level=level, resamples=resamples)
    return Difference(*found, len(shared), len(a.keys() ^ b.keys()))


def compared_with(condition: str) -> str | None:
    """The condition whose mean is subtracted from that of `condition`: bad from good, fresh from refined.

    >>> compared_with("good"), compared_with("good accuracy"), compared_with("refined 2"), compared_with("bad")
    ('bad', 'bad accuracy', 'fresh 2', None)
    """
    head, _, rest = condition.partition(" ")
    other = {"good": "bad", "refined": "fresh"}.get(head)
    return other and f"{other} {rest}".strip()
