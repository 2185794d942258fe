"""Statistics of a human study: intervals, tests, agreement, ranking. Pure functions on counts; numpy, and scipy's
special functions where they are called.

What counts as one observation is the whole point. Raters who read the same prompt don't answer independently, so:

* a rate over all votes gets a **cluster bootstrap over prompts** (`cluster_bootstrap`): whole prompts are drawn, with
all votes on them;
* the **Wilson interval** and the **sign test** get one vote a prompt (`majority`): they assume independent
observations, and prompts are;
* statistics are functions of sums over prompts, so that thousands of resamples are one matrix product.

The plain percentile interval of a bootstrap is too narrow by about sqrt(n / (n - 1)) and by the normal's lighter tails;
`expanded_percentile` mends both (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician
69, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coh_lightning.draws import key64
from coh_lightning.errors import InputError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Sums over prompts, shape (..., columns) -> values, shape (...); nan where there is nothing to divide by."""

LEVEL = 0.95
RESAMPLES = 4000
CELLS = 4_000_000
"""Cells of one block of resampling weights: 32 MB. Part of what a seed stands for: other blocks are other draws."""
LARGEST_LOG_STRENGTH = 12.0
"""A Bradley-Terry estimate beyond this (odds of 160,000 against the average) is on its way to infinity."""


class Interval(NamedTuple):
    """An estimate with its interval; low and high are nan where the data can't tell."""

    value: float
    low: float
    high: float


def needed(module: str) -> Any:
    """A module of the extra `study`. Raises InputError with the remedy where it isn't installed."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise InputError(
            f"{name} is not installed; plan and report of a human study need it: pip install 'coh_lightning[study]'."
        ) from error


# ---------------------------------------------------------------------------------------------------------------- one
# observation each


def wilson(wins: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval for a share of n independent observations (Wilson, JASA 22, 1927).

    >>> [round(x, 4) for x in wilson(60, 100)]
    [0.6, 0.502, 0.6906]
    >>> [round(x, 4) for x in wilson(0, 10)]  # never an empty interval at the edge
    [0.0, 0.0, 0.2775]
    """
    if n <= 0:
        return Interval(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = wins / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at the edges the exact bound is 0 or 1, which rounding could pass by
    return Interval(share, 0.0 if wins == 0 else middle - half, 1.0 if wins == n else middle + half)


def sign_test(wins: int, losses: int) -> float:
    """p of the exact two-sided sign test: chance of a split at least this uneven if both sides were equally likely;
    ties are left out beforehand.

    >>> sign_test(9, 1) == 2 * (1 + 10) / 2**10
    True
    >>> sign_test(5, 5), sign_test(0, 0)
    (1.0, 1.0)
    """
    if wins + losses == 0:
        return 1.0
    return min(1.0, 2 * float(needed("scipy.special").bdtr(min(wins, losses), wins + losses, 0.5)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several tests, in their order: rejecting where it is at most 5 % errs anywhere among them in
    at most 5 % of studies, however the tests depend on each other (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> holm([0.01, 0.04, 0.03])  # 3 x 0.01; 2 x 0.03; then never smaller than the one before
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p)
    so_far = 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        so_far = max(so_far, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = so_far
    return adjusted


def majority(votes: ArrayLike) -> NDArray[np.int64]:
    """One vote a prompt: votes of shape (prompts, 3), columns baseline, tie, model -> counts of prompts, same columns.

    A prompt goes to the side with more votes and is a tie when they are even; votes for "tie" take neither side.

    >>> majority([[0, 1, 2], [1, 0, 1], [0, 2, 1], [3, 0, 0], [0, 1, 0]])  # model, even, model, baseline, tie
    array([1, 2, 2])
    """
    table = np.asarray(votes).reshape(-1, 3)
    side = np.sign(table[:, 2] - table[:, 0])[table.sum(axis=1) > 0]
    return np.array([(side < 0).sum(), (side == 0).sum(), (side > 0).sum()])


# ----------------------------------------------------------------------------------------------------------------
# prompts as clusters


def bootstrap_sums(totals: ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Sums over prompts drawn with replacement: totals of shape (prompts, columns) -> (resamples, columns).

    Columns are drawn together, so statistics of different columns (attributes, terciles) stay as dependent as they are.

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


def expanded_percentile(values: ArrayLike, point: float, clusters: int, level: float = LEVEL) -> Interval:
    """A bootstrap's percentile interval, its tails widened as a t interval's are (Hesterberg 2015): for few clusters
    the plain one covers too little.

    `values` are a statistic's resamples; those without a value (nan) are left out. nan bounds where there are fewer
    than two clusters, or where all resamples agree: then resampling knows of no doubt, which is not the same as there
    being none.

    >>> expanded_percentile(np.linspace(0, 1, 1001), 0.5, clusters=10**9).low.round(3)
    np.float64(0.025)
    >>> expanded_percentile(np.linspace(0, 1, 1001), 0.5, clusters=10).low.round(3)
    np.float64(0.009)
    """
    there = np.asarray(values, dtype=np.float64)
    there = there[np.isfinite(there)]
    if clusters < 2 or not len(there) or not math.isfinite(point) or np.ptp(there) < 1e-12:
        return Interval(point, math.nan, math.nan)
    special = needed("scipy.special")
    tail = special.ndtr(-math.sqrt(clusters / (clusters - 1)) * special.stdtrit(clusters - 1, (1 + level) / 2))
    low, high = np.quantile(there, [tail, 1 - tail])
    return Interval(point, low, high)


def rate_interval(values: ArrayLike, rate: float, clusters: int, level: float = LEVEL) -> Interval:
    """`expanded_percentile` for a rate, and Wilson's interval over as many prompts where all resamples agree (every
    prompt said the same).

    >>> [round(float(x), 3) for x in rate_interval([1.0, 1.0, 1.0], 1.0, clusters=50)]
    [1.0, 0.929, 1.0]
    """
    interval = expanded_percentile(values, rate, clusters, level)
    if math.isnan(interval.low) and clusters and math.isfinite(rate):
        return wilson(rate * clusters, clusters, level)
    return interval


def cluster_bootstrap(
    totals: ArrayLike,
    statistic: Statistic,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    rate: bool = False,
) -> Interval:
    """A statistic of sums over prompts, with its interval over prompts; `rate` says that it is a share (see
    `rate_interval`).

    Args:
        totals: shape (prompts, columns): what each prompt adds to the sums. Prompts that add nothing at all are left
            out.

    >>> totals = [[1, 2]] * 30 + [[2, 2]] * 30 + [[0, 2]] * 40   # wins and votes of 100 prompts with two raters each
    >>> [round(float(x), 2) for x in cluster_bootstrap(totals, lambda sums: sums[..., 0] / sums[..., 1], seed=1)]
    [0.45, 0.37, 0.54]
    """
    table = np.asarray(totals, dtype=np.float64)
    table = table[table.any(axis=1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        point = float(statistic(table.sum(axis=0)))
        values = statistic(bootstrap_sums(table, seed=seed, resamples=resamples))
    return (rate_interval if rate else expanded_percentile)(values, point, len(table), level)


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
    """The share of all votes that one side has: 0 baseline, 1 tie, 2 model.

    >>> float(share_of(1)(np.array([2.0, 2.0, 6.0])))
    0.2
    """
    return lambda sums: sums[..., side] / sums.sum(axis=-1)


# ----------------------------------------------------------------------------------------------------------------
# agreement


def agreement_totals(counts: ArrayLike) -> Floats:
    """What each item adds to alpha and raw agreement, as columns to sum: counts of shape (items, categories) -> (items,
    3 + categories).

    Columns: agreeing pairs of votes over (votes - 1), agreeing pairs, pairs, then the counts; items with fewer than two
    votes add nothing.

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
    """Krippendorff's alpha of sums of `agreement_totals`; nan where all votes fall into one category."""
    agreeing, counts = sums[..., 0], sums[..., 3:]
    votes = counts.sum(axis=-1)
    expected = votes * votes - (counts * counts).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (votes - 1) * (votes - agreeing) / expected, math.nan)


def raw_agreement_of_sums(sums: Floats) -> Floats:
    """Share of the pairs of raters who chose the same, of sums of `agreement_totals`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 1] / sums[..., 2]


def krippendorff_alpha(counts: ArrayLike) -> float:
    """Nominal alpha: 1 - observed / expected disagreement, for any number of raters and with missing answers
    (Krippendorff, Content Analysis, 2018).

    Args:
        counts: shape (items, categories): how many raters chose each. Items with fewer than two votes say nothing.

    >>> krippendorff_alpha([[2, 0], [0, 2], [2, 0]])
    1.0
    >>> round(krippendorff_alpha([[2, 0], [1, 1], [0, 2]]), 4)  # observed 2 of 6 votes disagree; expected 18 of 30
    0.4444
    """
    return float(alpha_of_sums(agreement_totals(counts).sum(axis=0)))


def raw_agreement(counts: ArrayLike) -> float:
    """Share of the pairs of raters of one item who chose the same, over all such pairs.

    >>> raw_agreement([[2, 0], [1, 1], [3, 0]])  # 1 + 0 + 3 of 1 + 1 + 3 pairs
    0.8
    """
    return float(raw_agreement_of_sums(agreement_totals(counts).sum(axis=0)))


def cohen_kappa(table: ArrayLike) -> float:
    """Cohen's kappa of two raters: table[i][j] counts the items that the first put into i and the second into j (Cohen,
    1960).

    nan where both use a single category, the same one.

    >>> round(cohen_kappa([[20, 5], [10, 15]]), 10)  # agree 0.7, by chance 0.5
    0.4
    """
    share = np.asarray(table, dtype=np.float64)
    share = share / share.sum() if share.sum() else share
    chance = float((share.sum(axis=1) * share.sum(axis=0)).sum())
    return (float(np.trace(share)) - chance) / (1 - chance) if share.any() and chance < 1 else math.nan


# ----------------------------------------------------------------------------------------------------------------
# length


def terciles(differences: ArrayLike) -> NDArray[np.int64]:
    """0, 1 or 2 for each difference: the lowest, middle and highest third. Equal differences stay together, so thirds
    may be uneven.

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


# ---------------------------------------------------------------------------------------------------------------- more
# than two systems


@dataclass(frozen=True)
class Strengths:
    """Davidson's Bradley-Terry model with ties, fitted."""

    log_strengths: Floats
    """One per system, natural logarithm, mean 0: a difference d is odds of exp(d) among decided comparisons."""
    tie: float
    """Davidson's nu: between equals, tie : win = nu : 1."""

    def win_rates(self) -> Floats:
        """Of each system: its expected win rate, a tie as half, against each of the others equally often."""
        return expected_win_rates(self.log_strengths, np.asarray(self.tie))


def components(met: ArrayLike) -> list[list[int]]:
    """The groups of systems that were compared with each other, directly or through others; met[i][j]: i and j were
    compared.

    >>> components([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    [[0, 1], [2]]
    """
    reach = _reachable(np.asarray(met, dtype=bool) | np.asarray(met, dtype=bool).T)
    return sorted({tuple(np.flatnonzero(row).tolist()): np.flatnonzero(row).tolist() for row in reach}.values())


def _reachable(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which nodes can be reached from which, itself included; edges of shape (nodes, nodes)."""
    reach = edges | np.eye(len(edges), dtype=bool)
    for through in range(len(edges)):
        reach = reach | (reach[:, through, None] & reach[None, through, :])
    return reach


def bradley_terry(wins: ArrayLike, ties: ArrayLike, systems: Sequence[str]) -> Strengths:
    """The maximum-likelihood strengths of Davidson's model (JASA 65, 1970), for which Newman gives another iteration
    (JMLR 24, 2023)::

        P(i beats j) = p_i / (p_i + p_j + nu sqrt(p_i p_j))        P(tie) = nu sqrt(p_i p_j) / (p_i + p_j + nu sqrt(p_i p_j))

    Args:
        wins: wins[i][j], how often i was chosen over j.
        ties: ties[i][j] = ties[j][i], how often they tied.

    Raises:
        InputError: where the comparison graph is not connected, naming its parts, or no finite estimate exists, naming
            why.

    >>> fitted = bradley_terry([[0, 6], [3, 0]], [[0, 1], [1, 0]], ["a", "b"])
    >>> round(float(np.exp(fitted.log_strengths[0] - fitted.log_strengths[1])), 9)   # two systems: just the odds of the decided
    2.0
    """
    won, tied = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    parts = components(won + tied > 0)
    if len(parts) > 1:
        named = "; ".join(", ".join(systems[index] for index in part) for part in parts)
        raise InputError(
            f"the systems can't be ranked: the comparisons fall into {len(parts)} parts ({named}); compare across them."
        )
    if not won.any():
        raise InputError(f"the systems can't be ranked: all {tied.sum() / 2:g} votes are ties.")
    reach = _reachable((won + tied) > 0)
    for index, name in enumerate(systems):
        if not (reach[index].all() and reach[:, index].all()):
            beaten = (
                "never won or tied"
                if reach[:, index].all()
                else "never lost or tied"
                if reach[index].all()
                else "lies between such groups"
            )
            raise InputError(
                f"the systems can't be ranked: against at least one group of the others, {name} {beaten}, so no "
                "finite strength fits; collect more votes."
            )
    strengths, tie = davidson(won[None], tied[None])
    if not np.isfinite(strengths).all():
        raise InputError(
            "the systems can't be ranked: no finite strengths fit these wins and ties; collect more votes."
        )
    return Strengths(strengths[0], float(tie[0]))


def davidson(wins: Floats, ties: Floats) -> tuple[Floats, Floats]:
    """Fits Davidson's model to many tables at once by Newton's method: it is log-linear, so the likelihood is concave
    and the maximum the only one.

    Args:
        wins, ties: shape (tables, systems, systems), as in `bradley_terry`.

    Returns:
        log strengths (tables, systems) with mean 0, and nu (tables,); nan for a table without a finite estimate.
    """
    tables, systems = wins.shape[:2]
    first, second = np.triu_indices(systems, 1)
    counts = np.stack(
        [wins[:, first, second], wins[:, second, first], ties[:, first, second]], axis=-1
    )  # (tables, pairs, 3 outcomes)
    total = counts.sum(axis=(1, 2))
    some = (counts[..., 2].sum(axis=1) > 0).astype(np.float64)  # without ties nu is 0, and no parameter
    counts = counts / np.maximum(total, 1)[:, None, None]
    features = np.zeros(
        (len(first), 3, systems + 1)
    )  # the exponent of each outcome is features @ (log strengths, log nu)
    pairs = np.arange(len(first))
    features[pairs, 0, first] = features[pairs, 1, second] = 1
    features[pairs, 2, first] = features[pairs, 2, second] = 0.5
    features[pairs, 2, systems] = 1
    gauge = np.zeros((systems + 1, systems + 1))
    gauge[:systems, :systems] = 1  # holds the sum of the log strengths at 0

    def fit(x: Floats) -> tuple[Floats, Floats]:
        logits = np.einsum("mok,bk->bmo", features, x)
        logits[..., 2] = np.where(some[:, None] > 0, logits[..., 2], -np.inf)
        top = logits.max(axis=-1, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        with np.errstate(invalid="ignore"):
            likelihood = np.where(counts > 0, counts * (logits - log_sum), 0.0).sum(axis=(1, 2))
        return likelihood, np.exp(logits - log_sum)

    x = np.zeros((tables, systems + 1))
    likelihood, chances = fit(x)
    met = counts.sum(axis=-1)
    for _ in range(100):
        expected = met[..., None] * chances
        gradient = np.einsum("bmo,mok->bk", counts - expected, features)
        mean = np.einsum("bmo,mok->bmk", chances, features)
        curvature = (
            np.einsum("bmo,mok,mol->bkl", expected, features, features)
            - np.einsum("bm,bmk,bml->bkl", met, mean, mean)
            + gauge
        )
        curvature[:, systems, systems] += 1 - some
        curvature += 1e-14 * np.eye(systems + 1)  # tables on their way to infinity stay solvable
        step = np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -5, 5)
        inside = np.abs(x).max(axis=1) < LARGEST_LOG_STRENGTH
        if np.abs(step[inside]).max(initial=0.0) < 1e-13:
            break
        length = np.ones(tables)
        while ((worse := fit(x + length[:, None] * step)[0] < likelihood - 1e-14) & (length > 1e-9)).any():
            length = np.where(worse, length / 2, length)
        x = np.clip(x + length[:, None] * step, -2 * LARGEST_LOG_STRENGTH, 2 * LARGEST_LOG_STRENGTH)
        likelihood, chances = fit(x)
    strengths = x[:, :systems] - x[:, :systems].mean(axis=1, keepdims=True)
    tie = np.where(some > 0, np.exp(x[:, systems]), 0.0)
    lost = ~inside | (total == 0) | (np.abs(gradient).max(axis=1) > 1e-9)
    return np.where(lost[:, None], math.nan, strengths), np.where(lost, math.nan, tie)


def expected_win_rates(log_strengths: Floats, tie: Floats) -> Floats:
    """Of each system: its win rate, a tie as half, against each of the others equally often. (..., systems) and (...)
    -> (..., systems).

    >>> expected_win_rates(np.log([2.0, 1.0]), np.array(0.0)).round(3)
    array([0.667, 0.333])
    """
    strength = np.exp(log_strengths)
    one, other = strength[..., :, None], strength[..., None, :]
    drawn = np.asarray(tie)[..., None, None] * np.sqrt(one * other)
    rates = (one + drawn / 2) / (one + other + drawn)
    systems = log_strengths.shape[-1]
    return (rates.sum(axis=-1) - 0.5) / max(1, systems - 1)  # each meets itself at one half, which is taken out
