"""Intervals over base models, seeds and prompts, against arithmetic and simulation; Holm against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest

from coh_lightning.compare.statistics import (
    Runs,
    estimate,
    p_value,
    paired,
    resampled,
    variance_of_mean,
)
from coh_lightning.compare.summary import FAILS, HOLDS, MARGIN, OPEN, verdict
from coh_lightning.human_eval.statistics import holm

RANDOM = np.random.default_rng(0)


def runs(values: np.ndarray, bases: int = 1, prompts: str = "") -> Runs:
    """Runs in order of base models, all with the same prompts unless `prompts` has a letter for each."""
    count = len(values)
    return Runs(values, tuple(np.repeat(range(bases), count // bases).tolist()), tuple(prompts or "x" * count))


def test_one_run_is_a_mean_over_prompts() -> None:
    values = RANDOM.normal(0.8, 0.1, (1, 200))
    found = estimate(runs(values))
    variance, degrees = variance_of_mean(runs(values)) or (0, 0)
    assert variance == pytest.approx(values.var(ddof=1) / 200)
    assert degrees == 199
    half = 1.972 * np.sqrt(variance)  # t with 199 degrees
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_variance_is_that_of_two_crossed_effects() -> None:
    """3 runs, 4 prompts: mean squares by hand."""
    values = np.array([[1.0, 2, 3, 4], [2, 4, 3, 5], [0, 2, 1, 6]])
    of_run, of_prompt = values.mean(axis=1), values.mean(axis=0)
    run = 4 * of_run.var(ddof=1)
    prompt = 3 * of_prompt.var(ddof=1)
    left = ((values - of_run[:, None] - of_prompt + values.mean()) ** 2).sum() / 6
    variance, degrees = variance_of_mean(runs(values)) or (0, 0)
    assert variance == pytest.approx(max(run + prompt - left, run, prompt) / 12)
    assert degrees == pytest.approx((run + prompt) ** 2 / (run**2 / 2 + prompt**2 / 3))


def test_base_models_that_differ_widen_the_interval() -> None:
    values = RANDOM.normal(0, 0.01, (6, 50))
    apart = values + np.repeat([0.0, 1.0], 3)[:, None]
    alike, differing = (estimate(runs(each, bases=2)) for each in (values, apart))
    assert differing.high - differing.low > 10 * (alike.high - alike.low)


def test_runs_with_prompts_of_their_own_are_the_only_level() -> None:
    values = RANDOM.normal(0, 1, (4, 30))
    variance, degrees = variance_of_mean(runs(values, prompts="abcd")) or (0, 0)
    assert (variance, degrees) == (pytest.approx(values.mean(axis=1).var(ddof=1) / 4), 3)


def test_resamples_have_the_mean_of_the_data() -> None:
    data = runs(RANDOM.normal(0.5, 0.1, (6, 40)), bases=2)
    draws = resampled(data, seed=0, resamples=4000)
    assert draws.mean() == pytest.approx(data.values.mean(), abs=4 * draws.std() / np.sqrt(4000))


def test_equal_values_and_single_ones() -> None:
    same = estimate(runs(np.full((2, 5), 0.5)))
    assert (same.mean, same.low, same.high, same.p) == (0.5, 0.5, 0.5, 0.0)
    assert estimate(runs(np.zeros((2, 5)))).p == 1.0
    single = estimate(runs(np.array([[0.5]])))
    assert np.isnan([single.low, single.high, single.p]).all()
    with pytest.raises(ValueError, match="bases"):
        estimate(Runs(np.zeros((2, 2)), (0,), ("x",)))


def test_the_same_seed_gives_the_same_interval() -> None:
    data = runs(RANDOM.normal(0, 1, (3, 20)))
    assert estimate(data) == estimate(data)
    assert estimate(data, seed=1).low != estimate(data).low


@pytest.mark.parametrize("shift", [-0.06, -0.025, 0.0, 0.02, 0.05])
def test_p_and_interval_agree(shift: float) -> None:
    """p is below .05 exactly where the 95 % interval leaves 0 out."""
    values = np.random.default_rng(5).normal(0, 0.1, (3, 60))
    found = estimate(runs(values - values.mean() + shift))
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_p_is_that_of_t() -> None:
    from scipy import stats

    draws = np.random.default_rng(0).normal(2, 1, 100_000)
    assert p_value(draws, 9) == pytest.approx(2 * stats.t.sf(2, 9), rel=0.05)


def test_pairs_are_runs_and_prompts_that_both_have() -> None:
    a = Runs(np.array([[1.0, 2], [3, 4], [5, 6]]), (0, 0, 1), ("x", "x", "x"))
    b = Runs(np.array([[1.0, 1], [9, 9]]), (1, 0), ("x", "x"))
    found = paired(a, b, ([(0, 0), (0, 1), (1, 0)], [(1, 0), (0, 1)]))
    assert found is not None
    assert found.values.tolist() == [[-6, -5], [4, 5]]
    assert found.bases == (0, 1)
    assert paired(a, Runs(b.values, b.bases, ("y", "y")), ([(0, 0), (0, 1), (1, 0)], [(1, 0), (0, 1)])) is None


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for size in (1, 2, 6, 15):
        p = RANDOM.uniform(0, 0.2, size).tolist()
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.001, 0.02, HOLDS),
        (0.001, MARGIN / 2, HOLDS),
        (-0.03, -0.01, FAILS),
        (-0.03, MARGIN / 2, FAILS),
        (-0.01, 2 * MARGIN, OPEN),
        (np.nan, np.nan, OPEN),
    ],
)
def test_a_verdict_follows_from_the_interval(low: float, high: float, says: str) -> None:
    found = estimate(runs(RANDOM.normal(0, 1, (2, 5))))
    assert verdict(type(found)(0.0, low, high, 0.5, 2, 5)) == says
    assert verdict(None) == OPEN


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bases", "seeds", "of_base", "of_seed", "of_prompt", "least"),
    [
        (1, 1, 0.0, 0.0, 0.1, 0.91),
        (1, 3, 0.0, 0.01, 0.05, 0.90),
        (1, 5, 0.0, 0.02, 0.02, 0.89),
        (2, 5, 0.0, 0.008, 0.05, 0.92),
        (2, 5, 0.01, 0.008, 0.05, 0.87),
    ],
)
def test_the_interval_covers_the_truth(
    bases: int, seeds: int, of_base: float, of_seed: float, of_prompt: float, least: float
) -> None:
    """400 studies of 200 prompts whose true mean is 0; at .95 the standard error of a share is .011."""
    random, hits = np.random.default_rng(1), 0
    for study in range(400):
        values = np.repeat(random.normal(0, of_base, bases), seeds)[:, None] + random.normal(0, of_prompt, 200)
        values = values + random.normal(0, of_seed, (bases * seeds, 1)) + random.normal(0, 0.1, (bases * seeds, 200))
        found = estimate(runs(values, bases=bases), seed=study, resamples=1000)
        hits += found.low <= 0 <= found.high
    assert least <= hits / 400 <= 0.985
