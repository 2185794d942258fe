"""Intervals over prompts: keyed by the seed, close to theory, the same in every version."""

from __future__ import annotations

import doctest
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import coh_lightning.intervals as module
from coh_lightning.intervals import (
    Interval,
    bootstrap_sums,
    compared_with,
    mean_interval,
    paired_difference,
    per_prompt,
)


def bounds(values: Any, **settings: Any) -> tuple[float, float]:
    found = mean_interval(values, **settings)
    assert found.value == pytest.approx(np.mean(values))
    return found.low, found.high


def test_the_examples_in_docstrings_are_right() -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=2)


def test_resampling_depends_on_the_seed_alone_and_keeps_prompts_whole() -> None:
    votes = np.array([[1, 2], [3, 6], [0, 0], [5, 10]])
    sums = bootstrap_sums(votes, seed=4, resamples=50)
    assert (sums == bootstrap_sums(votes, seed=4, resamples=50)).all()
    assert (sums != bootstrap_sums(votes, seed=5, resamples=50)).any()
    assert (sums[:, 1] == 2 * sums[:, 0]).all()  # both columns of one prompt are drawn together


def test_large_studies_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS", 35)
    sums = bootstrap_sums(np.ones((10, 1)), seed=0, resamples=8)
    assert sums.tolist() == [[10.0]] * 8


def test_a_prompts_value_is_the_mean_of_its_completions() -> None:
    assert per_prompt([("x", 1.0), ("y", 5.0), ("x", 2.0)]) == {"x": 1.5, "y": 5.0}


def test_the_bootstrap_is_keyed_and_close_to_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=400)
    low, high = bounds(values, seed=5)
    assert (low, high) == bounds(list(values), seed=5) != bounds(values, seed=6)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03) and high == pytest.approx(
        values.mean() + half, abs=0.03
    )
    narrow = bounds(values, seed=5, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_an_interval_is_the_same_in_every_version() -> None:
    assert bounds([0.0, 1.0, 3.0, 7.0, 8.0], seed=1, resamples=50) == pytest.approx((0.935, 7.0))
    difference = paired_difference(
        {"a": 2.0, "b": 5.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 4.0}, seed=3, level=0.5, resamples=20
    )
    assert (difference.low, difference.high) == bounds([1.0, 4.0, -3.0], seed=3, level=0.5, resamples=20)
    values = [float(number**2 % 17) for number in range(30)]
    plain = paired_difference(
        {str(i).zfill(2): value for i, value in enumerate(values)},
        dict.fromkeys((str(i).zfill(2) for i in range(30)), 0.0),
        seed=3,
    )
    assert (plain.low, plain.high) == bounds(values, seed=3) == bounds(values, seed=3, level=0.95, resamples=2000)


@pytest.mark.parametrize("settings", [{"level": 0.0}, {"level": 1.0}, {"level": -0.1}, {"resamples": 0}])
def test_an_interval_without_a_level_or_resamples_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="0 < level < 1 and resamples >= 1"):
        bounds([1.0, 2.0], seed=0, **settings)
    assert bounds([1.0], seed=0, resamples=1) == (1.0, 1.0)


def test_an_interval_covers_the_truth_at_its_level() -> None:
    chance = np.random.default_rng(2)
    intervals = [bounds(chance.random(100), seed=i, resamples=300) for i in range(300)]
    assert 0.91 <= np.mean([low <= 0.5 <= high for low, high in intervals]) <= 0.98


def test_the_interval_of_one_value_is_that_value_and_of_none_an_error() -> None:
    assert bounds([0.25], seed=0) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one value"):
        bounds([], seed=0)
    with pytest.raises(ValueError, match="1 finite"):
        bounds([1.0, math.nan], seed=0)


def test_a_difference_is_taken_prompt_by_prompt() -> None:
    good = {f"p{i}": float(i) + 1 for i in range(10)}
    bad = {f"p{i}": float(i) for i in reversed(range(9))}
    difference = paired_difference(good, bad, seed=0)
    assert (difference.mean, difference.low, difference.high) == (1.0, 1.0, 1.0)  # prompts differ widely, the gap never
    assert (difference.prompts, difference.left_out) == (9, 1)
    with pytest.raises(ValueError, match="there are 0"):
        paired_difference({"x": 1.0}, {"y": 1.0}, seed=0)


def test_an_interval_is_printed_with_three_digits() -> None:
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_only_good_and_refined_answers_are_compared_with_others() -> None:
    asks = ["", "good", "bad", "fresh 2", "refined 3", "good two words"]
    assert list(map(compared_with, asks)) == [None, "bad", None, None, "fresh 3", "bad two words"]


def test_importing_the_intervals_imports_numpy_alone() -> None:
    code = "import sys, coh_lightning.intervals; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "lightning", "scipy", "transformers"} & set(done.stdout.split())
