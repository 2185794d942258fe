"""The tables at the end of `test`: few digits, 80 columns, the conditions as rows."""

from __future__ import annotations

from typing import Any

import pytest

from coh_lightning.feedback.completions import Completion
from coh_lightning.training.result_tables import ResultTable, held_out_tables, means_table, narrowed, show_tables

FIGURES = {
    "test/nll": 0.35123456789,
    "test/nll_good_1": 0.29,
    "test/nll_bad_1": 1.4061,
    "test/nll_records": 1039.0,
    "test/preference_accuracy_sum": 0.454,
    "test/preference_accuracy_marker": 0.5,
    "test/preference_pairs": 215.0,
    "test/preference_records": 39.0,
    "test/overall_good": 0.9,
    "test/gap_overall": 0.1,
}


def written(prompt: str, ask: str, score: float, **more: Any) -> Completion:
    return Completion.from_json(
        {
            "id": f"{prompt}:{ask}:0",
            "prompt_id": prompt,
            "system": "mine",
            "prompt": f"{prompt}?",
            "prompt_sha": prompt,
            "ask": ask,
            "marker": ask,
            "text": "So.",
            "sampling": {},
            "scores": {"reward": score},
            "completion_tokens": 3,
            "stop": "end",
            **more,
        },
        "here",
    )


def test_losses_and_preference_accuracy_are_one_row_each() -> None:
    losses, ranked = held_out_tables(FIGURES, "test")
    assert losses == (
        ["", "nll", "nll_good_1", "nll_bad_1", "records"],
        [["loss per token", "0.351", "0.290", "1.41", "1,039"]],
    )
    assert ranked == (["", "sum", "marker", "pairs", "records"], [["ranked right", "0.454", "0.500", "215", "39"]])
    assert held_out_tables({"val/nll": 1.0}, "test") == []


def test_means_are_those_of_samples_html_with_their_gaps() -> None:
    table = means_table(
        [written("a", "bad", 0.25), written("a", "good", 1.0), written("b", "good", 0.5), written("b", "bad", 0.25)]
    )
    assert table.head == ["sentence", "reward", "tokens", "ended by itself"]
    assert table.rows == [
        ["good", "0.750", "3.00", "1.000"],
        ["bad", "0.250", "3.00", "1.000"],
        ["good − bad", "+0.500", "0.000", "0.000"],
    ]


def test_a_model_without_sentences_has_one_row() -> None:
    assert [row[0] for row in means_table([written("a", "", 0.5)]).rows] == ["none"]


def test_a_wide_table_is_broken_between_columns() -> None:
    table = ResultTable(["name", *(f"measure {n}" for n in range(9))], [["row", *("0.123" for _ in range(9))]])
    parts = narrowed(table, 40)
    assert [part.head[1:] for part in parts] == [
        ["measure 0", "measure 1", "measure 2"],
        ["measure 3", "measure 4", "measure 5"],
        ["measure 6", "measure 7", "measure 8"],
    ]
    assert all(part.head[0] == "name" and part.rows[0][0] == "row" for part in parts)
    assert narrowed(table, 400) == [table]
    assert len(narrowed(table, 1)) == 9  # at least one column at a time


def test_tables_fit_into_80_columns_and_hide_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = ResultTable(["sentence", "s\x1b[2Jcore"], [["good [red]", "0.5"]])
    wide = ResultTable(["", *(f"measure number {n}" for n in range(9))], [["row", *("−0.123" for _ in range(9))]])
    show_tables([*held_out_tables(FIGURES, "test"), hostile, wide])
    said = capsys.readouterr().out
    assert max(map(len, said.split("\n"))) <= 80 and "…" not in said and "\x1b" not in said
    assert "good [red]" in said and said.count("−0.123") == 9 and "\\x1b[2Jcore" in said
