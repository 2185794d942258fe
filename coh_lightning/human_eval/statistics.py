"""Statistics of a human study: intervals, tests, agreement. Pure functions of counts, on numpy and scipy.

Raters of one prompt don't answer independently, so it matters what counts as one observation:

* a rate over all votes gets a **cluster bootstrap over prompts** (`bootstrap_sums`): whole prompts are drawn, with all
  votes on them; statistics are functions of sums over prompts, so thousands of resamples are one matrix product;
* the **Wilson interval** and the **sign test** assume independent observations: one vote per prompt (`majority`).

The percentile interval of a bootstrap is too narrow by about sqrt(n / (n - 1)) and by the normal's lighter tails;
`expanded_percentile` corrects both (Hesterberg, "What Teachers Should Know About the Bootstrap", The American
Statistician 69, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coh_lightning.errors import InputError
from coh_lightning.intervals import UNKNOWN, Floats, Interval

Statistic = Callable[[Floats], Floats]
"""Sums over prompts, shape (..., columns) -> values, shape (...); nan where the denominator is 0."""

LEVEL = 0.95
RESAMPLES = 4000


def needed(module: str) -> Any:
    """A module of the extra `study`. Raises InputError with the remedy if it isn't installed."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise InputError(
            f"{name} is not installed; human-eval and compare need it: pip install 'coh_lightning[study]'."
        ) from error


# --- independent observations


def wilson(wins: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share of n independent observations (Wilson, JASA 22, 1927).

    By hand, because scipy's binomtest accepts whole numbers of wins only and a tie counts as half a win here.

    >>> [round(x, 4) for x in wilson(60, 100)]
    [0.6, 0.502, 0.6906]
    >>> [round(x, 4) for x in wilson(0, 10)]  # never an empty interval at the edge
    [0.0, 0.0, 0.2775]
    """
    if n <= 0:
        return UNKNOWN
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = wins / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # exactly 0 and 1 at the edges, whatever the rounding
    return Interval(share, 0.0 if wins == 0 else middle - half, 1.0 if wins == n else middle + half)


def sign_test(wins: int, losses: int) -> float:
    """p of the exact two-sided sign test: the chance of a split at least this uneven between equal sides, without ties.

    >>> round(sign_test(9, 1) * 2**10, 9)  # 2 * (1 + 10)
    22.0
    >>> sign_test(5, 5), sign_test(0, 0)
    (1.0, 1.0)
    """
    return float(needed("scipy.stats").binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order of the tests; they control the family-wise error rate however the tests
    depend on each other (Holm, Scandinavian Journal of Statistics 6, 1979). scipy has no such function.

    >>> holm([0.01, 0.04, 0.03])  # 3 x 0.01; 2 x 0.03; never smaller than the one before
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p)
    so_far = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        so_far = max(so_far, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = so_far
    return adjusted


def majority(votes: ArrayLike) -> NDArray[np.int64]:
    """One vote per prompt: votes (prompts, 3), columns baseline, tie, model -> counts of prompts, same columns. A
    prompt goes to the side with more votes, and is a tie if both have the same number; votes for "tie" take no side.

    >>> majority([[0, 1, 2], [1, 0, 1], [0, 2, 1], [3, 0, 0], [0, 1, 0]])  # model, even, model, baseline, tie
    array([1, 2, 2])
    """
    table = np.asarray(votes).reshape(-1, 3)
    side = np.sign(table[:, 2] - table[:, 0])[table.sum(axis=1) > 0]
    return np.array([(side < 0).sum(), (side == 0).sum(), (side > 0).sum()])


# --- prompts as clusters


def expanded_percentile(values: ArrayLike, point: float, clusters: int, level: float = LEVEL) -> Interval:
    """The percentile interval of a bootstrap, its tails widened like those of a t interval (Hesterberg 2015).

    `values` are the statistic's resamples; nan ones are left out. The bounds are nan with fewer than two clusters, and
    if all resamples agree: then the bootstrap can't tell how uncertain the value is.

    >>> expanded_percentile(np.linspace(0, 1, 1001), 0.5, clusters=10**9).low.round(3)
    np.float64(0.025)
    >>> expanded_percentile(np.linspace(0, 1, 1001), 0.5, clusters=10).low.round(3)
    np.float64(0.009)
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if clusters < 2 or not len(finite) or not math.isfinite(point) or np.ptp(finite) < 1e-12:
        return Interval(point, math.nan, math.nan)
    special = needed("scipy.special")
    tail = special.ndtr(-math.sqrt(clusters / (clusters - 1)) * special.stdtrit(clusters - 1, (1 + level) / 2))
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(point, low, high)


def rate_interval(values: ArrayLike, rate: float, clusters: int, level: float = LEVEL) -> Interval:
    """`expanded_percentile` for a rate; Wilson's interval over the prompts if all resamples agree.

    >>> [round(float(x), 3) for x in rate_interval([1.0, 1.0, 1.0], 1.0, clusters=50)]
    [1.0, 0.929, 1.0]
    """
    interval = expanded_percentile(values, rate, clusters, level)
    if math.isnan(interval.low) and clusters and math.isfinite(rate):
        return wilson(rate * clusters, clusters, level)
    return interval


def ties_as_half(sums: Floats) -> Floats:
    """Win rate of the model with a tie as half a win; the last axis is baseline, tie, model.

    >>> float(ties_as_half(np.array([2.0, 2.0, 6.0])))
    0.7
    """
    return (sums[..., 2] + sums[..., 1] / 2) / sums.sum(axis=-1)


def ties_excluded(sums: Floats) -> Floats:
    """Win rate of the model among decided votes; the last axis is baseline, tie, model.

    >>> float(ties_excluded(np.array([2.0, 2.0, 6.0])))
    0.75
    """
    return sums[..., 2] / (sums[..., 0] + sums[..., 2])


def share_of(side: int) -> Statistic:
    """One side's share of all votes: 0 baseline, 1 tie, 2 model.

    >>> float(share_of(1)(np.array([2.0, 2.0, 6.0])))
    0.2
    """
    return lambda sums: sums[..., side] / sums.sum(axis=-1)


# --- agreement


def agreement_totals(counts: ArrayLike) -> Floats:
    """What each item adds to alpha and raw agreement: counts of raters, shape (items, categories) -> columns to sum,
    shape (items, 3 + categories): agreeing pairs of votes / (votes - 1), agreeing pairs, pairs, then the counts. Items
    with fewer than two votes add nothing.

    >>> agreement_totals([[2, 1], [1, 0]])
    array([[1., 2., 6., 2., 1.],
           [0., 0., 0., 0., 0.]])
    """
    table = np.asarray(counts, dtype=np.float64)
    votes = table.sum(axis=1)
    table = table * (votes > 1)[:, None]
    agreeing = (table * (table - 1)).sum(axis=1)
    pairs = np.where(votes > 1, votes * (votes - 1), 0.0)
    return np.column_stack([agreeing / np.maximum(votes - 1, 1), agreeing, pairs, table])


def alpha_of_sums(sums: Floats) -> Floats:
    """Krippendorff's nominal alpha, 1 - observed / expected disagreement (Krippendorff, Content Analysis, 2018), from
    sums of `agreement_totals`: any number of raters, missing answers allowed. nan if all votes fall into one category.

    >>> totals = agreement_totals([[2, 0], [1, 1], [0, 2]])
    >>> alpha_of_sums(totals.sum(axis=0)).round(4)  # observed 2 of 6 votes disagree; expected 18 of 30
    np.float64(0.4444)
    """
    agreeing, counts = sums[..., 0], sums[..., 3:]
    votes = counts.sum(axis=-1)
    expected = votes * votes - (counts * counts).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (votes - 1) * (votes - agreeing) / expected, math.nan)


def raw_agreement_of_sums(sums: Floats) -> Floats:
    """Share of the pairs of raters of one item who chose the same, from sums of `agreement_totals`.

    >>> raw_agreement_of_sums(agreement_totals([[2, 0], [1, 1], [3, 0]]).sum(axis=0))  # 1 + 0 + 3 of 1 + 1 + 3 pairs
    np.float64(0.8)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 1] / sums[..., 2]


def cohen_kappa(table: ArrayLike) -> float:
    """Cohen's kappa of two raters: table[i][j] counts the items that the first put into i and the second into j (Cohen,
    1960). nan if both use the same single category.

    >>> round(cohen_kappa([[20, 5], [10, 15]]), 10)  # agree 0.7, by chance 0.5
    0.4
    """
    share = np.asarray(table, dtype=np.float64)
    share = share / share.sum() if share.sum() else share
    chance = float((share.sum(axis=1) * share.sum(axis=0)).sum())
    return (float(np.trace(share)) - chance) / (1 - chance) if share.any() and chance < 1 else math.nan


# --- length


def terciles(differences: ArrayLike) -> NDArray[np.int64]:
    """0, 1 or 2 for each difference: lowest, middle, highest third. Equal differences stay together.

    >>> terciles([-30, -20, -1, 0, 5, 40])
    array([0, 0, 1, 1, 2, 2])
    >>> terciles([0, 0, 0, 7])
    array([0, 0, 0, 2])
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    return (values > low).astype(np.int64) + (values > high)
