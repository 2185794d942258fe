"""The comparisons of `make bench`: what a figure says, what is kept, and that the docs show what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "benchmarks"))
import bench  # noqa: E402 - a folder of scripts
from figures import figure, in_child, in_turn  # noqa: E402

KEYS = {"name", "ours", "other", "ratio", "low", "high", "reps", "unit", "equal"}


def entry(name: str, comparison: str = "hh", **changes: Any) -> dict[str, Any]:
    found = {"group": "a step", "name": name, "ours": 1.25, "other": 7604.0, "ratio": 6.1, "low": 5.9, "high": 6.4}
    found |= {"reps": 5, "unit": "CPU s", "equal": True, "comparison": comparison}
    return found | {"measured": "2026-01-01, 1.0 minutes, load 1", "versions": "Python 3", "machine": "m"} | changes


def test_a_figure_is_the_median_of_the_ratios_of_repetitions() -> None:
    found = figure("a step", "TRL", [1.0, 2.0, 4.0], [3.0, 8.0, 4.0], unit="s")
    assert (found.ours, found.other, found.ratio, found.low, found.high, found.reps) == (2.0, 4.0, 3.0, 1.0, 4.0, 3)


def test_ways_run_in_turn_each_in_a_process_of_its_own() -> None:
    seen: list[str] = []

    def way(name: str) -> int:
        seen.append(name)
        return len(seen)

    assert in_turn({"one": lambda: way("one"), "two": lambda: way("two")}, reps=3) == {"one": [1] * 3, "two": [1] * 3}
    assert seen == []


def test_what_fails_in_a_measuring_process_fails_here() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        in_child(lambda: 1 // 0)


def test_a_comparison_takes_the_place_of_the_same_one_in_the_order_of_the_list() -> None:
    old = [entry("old", "tldr"), entry("gone", "hh"), entry("renamed since", "unknown")]
    found = bench.merged(old, [entry("new", "hh"), entry("second", "hh")])
    assert [one["name"] for one in found] == ["new", "second", "old", "renamed since"]


def test_the_table_fits_80_columns_and_says_what_is_not_the_same() -> None:
    figures = [entry("TRL best found (sorted by length, batch 2), without checkpointing"), entry("b", equal=False)]
    lines = bench.table(figures).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2] == "a step, CPU s"
    assert lines[-2].split() == ["batch", "2),", "without", "checkpointing", "1.25", "7,604", "6.10", "[5.90,", "6.40]"]
    assert "b (not the same results)" in lines[-1]


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["hhh"]) == 2
    assert capsys.readouterr().err.startswith("There is no comparison named hhh; there are hh, tldr,")


def test_the_page_shows_what_was_measured() -> None:
    figures = json.loads((ROOT / "bench.json").read_text())
    assert figures and all(one.keys() >= KEYS and one["reps"] >= 5 for one in figures)
    assert all(one["equal"] for one in figures if one["comparison"] != "setup")
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in figures)
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert bench.page(text, figures) == text
    assert bench.markdown(figures) in text


def test_the_readme_shows_what_was_measured() -> None:
    found = json.loads((ROOT / "bench.json").read_text(encoding="utf-8"))
    steps = {
        (one["comparison"], one["name"].partition(" (")[0]): f"{one['ratio']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
        for one in found
        if one["group"].startswith("a step")
    }
    names = {
        "as installed": "TRL as installed",
        "its best settings found": "TRL best found",
        "packed (bfd)": "TRL packed",
        "one chain a batch, head at loss places only": "TRL one chain, head at loss places",
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row, name in names.items():
        assert f"| {row} | {steps['hh', name]} | {steps['tldr', name]} |" in readme
    memory = {
        one["comparison"]: one for one in found if one["group"].startswith("memory") and "one chain" in one["name"]
    }
    shares = [memory[name]["ours"] / memory[name]["other"] for name in ("hh", "tldr")]
    assert "takes\n{:.2f} and {:.2f} times the memory".format(*shares) in readme
    for name in ("hh", "tldr"):
        tokens = next(one["group"] for one in found if one["comparison"] == name).split(", ")[-1]
        assert tokens.split(" ")[0] in readme
