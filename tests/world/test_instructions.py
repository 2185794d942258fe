"""Instructions with constraints, and the feedback on a model's own answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources.prompts import feedback_key
from coh_lightning.world import instructions
from coh_lightning.world.constraints import RULES, rate, read_constraints
from coh_lightning.world.instructions import (
    APART,
    SUBJECTS,
    answer_by_rule,
    held_out_records,
    main,
    make_instructions,
    rated,
)
from helpers.training import chat_model

EVERY = [one for split in ("train", "test") for one in make_instructions(400, seed=1, split=split)]


def test_instructions_depend_on_the_seed_alone() -> None:
    code = "from coh_lightning.world.instructions import *; print([i.text for i in make_instructions(5, seed=3)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([one.text for one in make_instructions(5, seed=3)])
    assert make_instructions(5, seed=3) == make_instructions(9, seed=3)[:5] != make_instructions(5, seed=4)


def test_train_and_test_share_neither_subjects_nor_prompts() -> None:
    train, test = (make_instructions(400, seed=seed, split=split) for seed, split in ((1, "train"), (2, "test")))
    subjects = [{subject for subject in SUBJECTS for one in made if subject in one.request} for made in (train, test)]
    assert not subjects[0] & subjects[1] and subjects[0] | subjects[1] == SUBJECTS.keys()
    assert len({one.text for one in train}) == len({one.text for one in test}) == 400
    assert not {one.text for one in train} & {one.text for one in test}


def test_the_constraints_can_be_read_from_the_text_and_agree_with_each_other() -> None:
    assert {kind for one in EVERY for kind, _ in one.constraints} == RULES.keys()
    for one in EVERY:
        kinds = {kind for kind, _ in one.constraints}
        assert read_constraints(one.text) == one.constraints and len(kinds) == len(one.constraints) in (2, 3)
        assert not any(pair <= kinds for pair in APART)


def test_every_instruction_can_be_met() -> None:
    failed = [(one.text, answer_by_rule(one)) for one in EVERY if not rate(one.text, answer_by_rule(one)).faultless]
    assert failed == []


def test_a_record_ranks_by_the_constraints_met_and_says_why() -> None:
    one = next(one for one in EVERY if [kind for kind, _ in one.constraints] == ["lower_case", "keywords"])
    words = one.constraints[1].value.replace("'", "").split(" and ")
    texts = [f"{words[0]} {words[1]}", "Nothing", f"{words[1]} {words[0]}", words[0]]
    record = rated(one, texts, record="r")
    assert [each.rank for each in record.candidates] == [1, 3, 1, 2]
    assert [each.thumb for each in record.candidates] == [True, False, True, False]
    assert record.candidates[3].ratings == {"lower_case": 1, "keywords": 0, "overall": 0.5}
    assert record.candidates[3].critique == f"it lacks the word '{words[1]}'"
    assert Feedback.from_json(record.to_json(), "r").to_json() == record.to_json()


def test_held_out_records_have_one_faultless_answer() -> None:
    records = held_out_records(30, seed=5)
    assert all(len(one.candidates) == 1 and one.candidates[0].thumb for one in records)
    assert len({feedback_key(one) for one in records}) == 30


def test_a_model_answers_and_its_answers_are_rated(tmp_path: Path) -> None:
    words = [
        str(chat_model(tmp_path / "model")),
        "--prompts=3",
        "--samples=2",
        "--test-prompts=2",
        "--max-new-tokens=8",
    ]
    assert main([*words, f"--output={tmp_path / 'a'}"]) == main([*words, f"--output={tmp_path / 'b'}"]) == 0
    for name, count in (("train", 3), ("test", 2)):
        records = list(read_jsonl(tmp_path / "a" / f"{name}.jsonl", Feedback))
        assert len(records) == count
        assert (tmp_path / "a" / f"{name}.jsonl").read_bytes() == (tmp_path / "b" / f"{name}.jsonl").read_bytes()
    train = list(read_jsonl(tmp_path / "a" / "train.jsonl", Feedback))
    assert [one.prompt[-1].text for one in train] == [one.text for one in make_instructions(3, seed=0)]
    assert all(len(one.candidates) == 2 for one in train)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts=0"], "--prompts is 0; it must be at least 1"),
        (["--samples=0"], "sampling.samples is 0; it must be at least 1."),
        (["--temperature=0"], "set samples to 1 or a temperature"),
        ([], "The tokenizer 'nowhere' can't be loaded"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nowhere", f"--output={tmp_path}", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_the_endings_have_no_forbidden_word() -> None:
    assert not {word for ending in instructions.ENDINGS for word in ending.split()} & {*instructions.COMMON_WORDS}
