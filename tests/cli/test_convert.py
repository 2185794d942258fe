"""Feedback in TRL's formats and back: what fits a format comes back exactly, the rest is counted; DPO and KTO train
on it and are tested like our models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from coh_lightning.__main__ import main
from coh_lightning.cli.convert import Report, read_file, rows
from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.method import Method
from helpers.feedback import CONF, EVERY_KIND, IDENTICAL, TIE, write

PAIRS: list[dict[str, Any]] = [
    {
        "id": "a",
        "prompt": " Why? \n",
        "completions": [{"text": " yes\n", "rank": 1}, {"text": "no</s>\u2028", "rank": 2}],
        "task": "summary",
    },
    {
        "id": "b",
        "system": "Be kind.",
        "prompt": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": " Hm."},
            {"role": "user", "content": "日本"},
        ],
        "completions": [{"text": "ok", "rank": 1}, {"text": "ok.", "rank": 2}],
        "aspect": "harmless",
        "reference": "fine ",
    },
]
"""All that the form of pairs can hold."""
THUMBS: list[dict[str, Any]] = [
    {
        "id": str(number),
        **{key: value for key, value in one.items() if key not in ("id", "completions")},
        "completions": [{"text": " so\t", "thumb": thumb}],
    }
    for number, (one, thumb) in enumerate([(PAIRS[0], True), (PAIRS[1], False)])
]


def converted(
    records: Sequence[Mapping[str, Any]],
    form: str,
    method: Method = Method(),  # noqa: B008
) -> tuple[list[dict[str, Any]], Report]:
    report = Report()
    return [
        row.to_json() for row in rows([Feedback.from_json(one, "here") for one in records], form, method, report)
    ], report


def command(*words: str) -> int:
    return main(["convert", *words])


def of_file(path: Path) -> list[dict[str, Any]]:
    return [one.to_json() | {"source": ""} for one in read_jsonl(path, Feedback)]


@pytest.mark.parametrize(("form", "records"), [("trl-pairs", PAIRS), ("trl-unpaired", THUMBS)])
def test_feedback_that_fits_a_format_survives_the_round_trip_exactly(
    form: str, records: list[dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = write(tmp_path / "feedback.jsonl", records)
    assert command(start, "--to", form, "--output", str(tmp_path / "train.jsonl")) == 0
    assert capfd.readouterr().err == f"2 rows in {tmp_path / 'train.jsonl'}\n", "nothing is lost"
    assert command(str(tmp_path / "train.jsonl"), "--to", "records", "--output", str(tmp_path / "again.jsonl")) == 0
    assert of_file(tmp_path / "again.jsonl") == of_file(Path(start))
    assert command(str(tmp_path / "again.jsonl"), "--to", form, "--output", str(tmp_path / "second.jsonl")) == 0
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "train.jsonl").read_bytes()


def test_every_strict_preference_becomes_a_pair_of_messages() -> None:
    record = {
        "id": "r",
        "prompt": "P",
        "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}, {"text": "c", "rank": 2}, {"text": "d"}],
    }
    found, report = converted([record], "trl-pairs")
    assert found[0] == {
        "prompt": [{"role": "user", "content": "P"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
        "id": "r#1",
        "task": "answer",
    }
    assert [(row["id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in found] == [
        ("r#1", "a", "b"),
        ("r#2", "a", "c"),
    ]
    assert report.lost == Counter({"ties of two outputs": 1})


def test_unpaired_rows_use_thumbs_if_any_else_best_and_worst() -> None:
    liked = {
        "id": "t",
        "prompt": "P",
        "completions": [
            {"text": "a", "rank": 1},
            {"text": "b", "rank": 2, "thumb": True},
            {"text": "c", "thumb": False},
        ],
    }
    ranked = {
        "id": "r",
        "prompt": "P",
        "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}, {"text": "c", "rank": 3}],
    }
    rated = {"id": "s", "prompt": "P", "scale": [1, 5], "completions": [{"text": "a", "rating": 4}]}
    found, report = converted([liked, ranked, rated], "trl-unpaired")
    assert [(row["id"], row["completion"][0]["content"], row["label"]) for row in found] == [
        ("t#1", "b", True),
        ("t#2", "c", False),
        ("r#1", "a", True),
        ("r#2", "c", False),
        ("s", "a", True),
    ]
    assert report.lost == Counter({"orders of two outputs": 4, "ratings": 1})
    assert converted([rated], "trl-unpaired", Method(good_above=0.9))[1].left_out == Counter(
        {"one completion without a clear polarity": 1}
    )


def test_lost_feedback_and_records_without_rows_are_counted() -> None:
    found, report = converted([*EVERY_KIND, TIE, IDENTICAL], "trl-pairs")
    assert report.left_out == Counter(
        {"one completion, and these orders compare several": 2, "tie": 1, "identical completions": 1}
    )
    assert report.lost == Counter(
        {"ratings": 7, "critiques": 3, "revisions": 2, "ties of two outputs": 1, "limits of truncation": 1}
    )
    assert len(found) == len({row["id"] for row in found}) == 5 + 5 + 3 + 1 + 1
    revised = next(row for row in found if row["id"] == "revised")
    assert (revised["chosen"][0]["content"], revised["rejected"][0]["content"]) == ("dog", "dgo"), (
        "a revision is better than what it revises"
    )


def test_foreign_trl_rows_become_records_with_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"prompt": "Hi", "chosen": " Hello!", "rejected": " What?", "score": 3}])
    [record] = read_file(path)
    assert [(one.text, one.rank) for one in record.candidates] == [(" Hello!", 1.0), (" What?", 2.0)]
    assert (record.task, record.source) == ("response", "pairs")


def test_held_out_records_are_not_converted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    many = [PAIRS[0] | {"id": str(number), "prompt": f"Why {number}?"} for number in range(40)]
    feedback, out = write(tmp_path / "feedback.jsonl", many), tmp_path / "train.jsonl"
    config = {
        "data": {
            "feedback": feedback,
            "test_share": 0.3,
            "validation_share": 0,
            "method": str(CONF / "method" / "sft.yaml"),
        }
    }
    config |= {
        "seed_everything": 0,
        "trainer": {},
        "run": {},
        "ckpt_path": None,
        "weights_only": None,
    }  # as in a run folder
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert command("--to", "trl-pairs", "--output", str(out), "--config", str(tmp_path / "config.yaml")) == 0
    written = [json.loads(line) for line in out.read_bytes().splitlines()]
    printed = capfd.readouterr().err
    assert (
        20 < len(written) < 40
        and f"held out and not converted: 0 for validation, {40 - len(written)} for test; left out: 0" in printed
    )


def test_unconvertible_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feedback = write(tmp_path / "feedback.jsonl", PAIRS)
    broken = write(tmp_path / "broken.jsonl", [{"prompt": "Hi", "chosen": "a", "rejected": ""}])
    for words, message in (
        ([feedback, "--to", "trl-pair", "--output", "x"], "invalid choice: 'trl-pair'"),
        ([feedback, "--output", "x"], "--to is missing"),
        ([feedback, "--to", "records", "--output", feedback], "is the input file"),
        ([feedback, "--to", "records", "--output", "x", "--data.seed=1"], "both say what to convert"),
        ([feedback, "--too", "records"], "convert has no option --too; did you mean '--to'?"),
        ([broken, "--to", "records", "--output", str(tmp_path / "x")], "broken.jsonl:1: a completion is empty"),
        ([str(tmp_path / "none.jsonl"), "--to", "records", "--output", "x"], "there is no such file"),
    ):
        assert command(*words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"feedback.jsonl:2: the id 'a' was already used"):
        list(read_file(write(tmp_path / "feedback.jsonl", [PAIRS[0], PAIRS[1] | {"id": "a"}])))
