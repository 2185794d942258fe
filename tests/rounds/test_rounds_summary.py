"""The figures of rounds, computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from coh_lightning.errors import InputError
from coh_lightning.rounds.rounds_file import RoundsFile, TestPrompts
from coh_lightning.rounds.summary import picture, show, summary, write_report

FILE = RoundsFile("mine", "c.yaml", "p", TestPrompts("t", 2), steps=7, rounds=1, prompts_per_round=10, samples=4)
GOOD = {"a": 0.8, "b": 0.6}
SCORES = {"base": {"": {"a": 0.5, "b": 0.5}}, "round1": {"good": GOOD, "bad": {"a": 0.2, "b": 0.4}}}
SCORES["offline1"] = {"good": {"a": 0.7, "b": 0.7}, "bad": {"a": 0.7, "b": 0.7}}


def finished(folder: Path, name: str, mixture: dict[str, int] | None, ability: float | None = None) -> None:
    stage = folder / "seed0" / name
    (stage / "test").mkdir(parents=True)
    lines = [
        {"id": f"{id}:{ask}:0", "prompt_id": id, "system": "s", "prompt": "x", "prompt_sha": "x", "ask": ask,
         "marker": "", "text": "t", "scores": {"overall": score}}
        for ask, each in SCORES[name].items() for id, score in reversed(each.items())
    ]  # fmt: skip
    (stage / "test" / "completions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    if mixture:
        (stage / "mixture.json").write_text(json.dumps(mixture))
    if ability is not None:
        (stage / "ability.json").write_text(json.dumps({"questions": ability}))
    mark = folder / "steps" / f"seed0-{name}-test.json"
    mark.parent.mkdir(exist_ok=True)
    mark.write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finished(tmp_path, "base", None, ability=0.9)
    finished(tmp_path, "round1", {"new": 30, "older": 60, "given": 10}, ability=0.85)
    finished(tmp_path, "offline1", {"new": 100, "older": 0, "given": 0}, ability=0.8)
    return tmp_path


def test_scores_gaps_shares_and_differences(folder: Path) -> None:
    found = summary(FILE, folder)
    base, first, offline = found["rows"]
    assert [one["label"] for one in found["rows"]] == ["base model", "round 1", "offline"]
    assert (base["score"]["mean"], first["score"]["mean"], offline["score"]["mean"]) == (0.5, 0.7, 0.7)
    assert (base["gap"], first["gap"]["mean"], offline["gap"]["mean"]) == (None, pytest.approx(0.4), 0.0)
    assert (base["new"], first["new"], offline["new"]) == (None, 0.3, 1.0)
    assert [one["ability"] for one in found["rows"]] == [0.9, 0.85, 0.8]
    assert (first["answers"], first["steps"], offline["answers"], offline["steps"]) == (40, 7, 40, 7)
    against_base, against_offline = found["comparisons"]
    assert against_base["mean"] == pytest.approx(0.2) and against_offline["mean"] == pytest.approx(0.0)


def test_the_table_fits_80_columns_and_the_page_has_the_picture(folder: Path) -> None:
    found = summary(FILE, folder)
    console = Console(width=80, record=True, file=(folder / "log").open("w"))
    show(found, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "round 1 - base model: .200" in text
    page = write_report(found, folder / "report.html").read_text()
    assert "<svg" in page and "offline" in page
    drawn = picture(found)
    assert drawn is not None and [line["name"] for line in drawn["lines"]] == ["rounds", "offline"]


def test_what_is_not_finished_is_left_out_and_counted(folder: Path) -> None:
    (folder / "steps" / "seed0-offline1-test.json").unlink()
    found = summary(FILE, folder)
    assert (found["finished"], found["expected"], len(found["rows"]), len(found["comparisons"])) == (2, 3, 2, 1)


def test_a_score_that_nobody_gave_is_refused(folder: Path) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match=r"has no score wit; its scores: overall\. score: null shows none\."):
        summary(replace(FILE, score="wit"), folder)
    assert summary(replace(FILE, score=None), folder)["rows"][1]["score"] is None
