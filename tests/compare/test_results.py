"""The results file: scores packed and unpacked, lines appended, cut lines, and how large a line is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coh_lightning.compare.results import append_result, pack, read_results, unpack
from coh_lightning.errors import InputError


def test_scores_are_kept_to_a_thousandth() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, 500)
    assert np.abs(unpack(pack(scores.tolist())) - scores).max() <= 0.0005 + 1e-12
    assert pack([0.0, 0.5, 1.0]) == "00dwrs"
    assert unpack(pack([-3.0, 5.0, 1.0], -3, 5), -3, 5).tolist() == [-3.0, 5.0, 1.0]
    assert unpack(pack([2.0, 2.0], 2, 2), 2, 2).tolist() == [2.0, 2.0]


def test_lines_are_found_by_key_and_the_first_one_counts(tmp_path: Path) -> None:
    file = tmp_path / "a" / "results.jsonl"
    assert read_results(file) == {}
    for number, key in enumerate(["x", "y", "x"]):
        append_result(file, {"key": key, "number": number})
    assert {key: line["number"] for key, line in read_results(file).items()} == {"x": 0, "y": 1}


def test_a_cut_last_line_is_left_out_and_then_replaced(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append_result(file, {"key": "x"})
    with file.open("a") as out:
        out.write('{"key": "y", "sco')
    assert list(read_results(file)) == ["x"]
    append_result(file, {"key": "z"})
    assert list(read_results(file)) == ["x", "z"]
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["x", "z"]


@pytest.mark.parametrize("text", ["no json", "[1]", "{}", "3"])
def test_another_line_that_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f'{{"key":"x"}}\n{text}\n{{"key":"y"}}\n')
    with pytest.raises(InputError, match=rf"{file}:2 is no line of results"):
        read_results(file)


def test_a_line_is_small() -> None:
    """200 prompts at three temperatures: the scores take 1,200 bytes."""
    scores: dict[str, Any] = {
        one: pack(np.random.default_rng(0).uniform(0, 1, 200).tolist()) for one in ("1", "0.7", "0")
    }
    assert sum(map(len, scores.values())) == 1200
