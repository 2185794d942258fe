"""A world as a folder of files, and the command that makes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coh_lightning import CoHDataModule, Method
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources.own import Records
from coh_lightning.feedback.sources.texts import read_texts
from coh_lightning.world import feedback
from coh_lightning.world.base_model import checksums
from coh_lightning.world.build import main
from coh_lightning.world.pretraining import pretraining_text

SMALL = ["--records", "6", "--base", "shipped"]


def records(path: Path) -> list[Feedback]:
    return list(read_jsonl(path, Feedback))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_has_model_feedback_held_out_posts_and_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made" / "world"
    assert main([str(folder), *SMALL, "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "feedback.jsonl", "model", "pretraining.txt", "test.jsonl", "tune.jsonl", "world.json"
    ]  # fmt: skip
    assert checksums(folder / "model") == checksums(feedback.HABITS_BASE)
    drawn = feedback.world_feedback(posts=6, seed=3, kind="habits")
    assert [(one.prompt, one.candidates) for one in records(folder / "feedback.jsonl")] == [
        (one.prompt, one.candidates) for one in drawn
    ]
    assert read_texts(str(folder / "pretraining.txt")) == pretraining_text(4000, seed=3)
    tune, test = ({one.prompt for one in records(folder / f"{name}.jsonl")} for name in ("tune", "test"))
    assert (len(tune), len(test)) == (200, 500) and not tune & test
    assert [one.prompt for one in records(folder / "test.jsonl")] == [one.prompt for one in feedback.world_prompts(500)]
    assert all(one.candidates[0].thumb for one in records(folder / "test.jsonl"))
    assert json.loads((folder / "world.json").read_text()) == {
        "kind": "habits", "hasty": 0.62, "seed": 3, "documents": None, "records": 6, "wrong_words": 0.0,
        "base": checksums(feedback.HABITS_BASE)["model.safetensors"], "version": 2, "rater_noise": 0.05
    }  # fmt: skip


def test_a_finished_folder_is_left_as_it_is_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "world"
    for _ in range(2):
        assert main([str(folder), *SMALL]) == 0
    assert capsys.readouterr().out == f"{folder}\n{folder} (was there already)\n"
    before = contents(folder)
    assert main([str(folder), "--records", "7", "--base", "shipped", "--wrong-words", "0.5"]) == 2
    says = f"{folder} is a world of other settings: records 6 (asked for: 7), wrong_words 0.0 (asked for: 0.5)"
    assert capsys.readouterr().err == f"error: {says}; give another folder, or delete this one.\n"
    assert contents(folder) == before


def test_the_same_settings_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main([str(tmp_path / name), "--records", "5", "--documents", "64", "--wrong-words", "0.3"]) == 0
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert main([str(tmp_path / "three"), "--records", "5", "--documents", "64", "--seed", "1", "--hasty", "0.3"]) == 0
    three = contents(tmp_path / "three")
    differ = {"feedback.jsonl", "pretraining.txt", "world.json", "model/model.safetensors", "model/checksums.txt"}
    assert {name for name in one if one[name] != three[name]} == differ
    assert read_texts(str(tmp_path / "three" / "pretraining.txt")) == pretraining_text(4000, seed=1, hasty=0.3)


def test_a_base_is_taken_from_another_world(tmp_path: Path) -> None:
    noise = ["--kind", "noise", "--records", "3"]
    assert main([str(tmp_path / "one"), *noise, "--base", "shipped"]) == 0
    assert main([str(tmp_path / "two"), *noise, "--base", str(tmp_path / "one" / "model")]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert checksums(tmp_path / "two" / "model") == checksums(feedback.NOISE_BASE)
    assert json.loads((tmp_path / "two" / "world.json").read_text())["hasty"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--doc", "3"], "world.build: unrecognized arguments: --doc 3; --help lists the options."),
        (
            ["--documents", "many"],
            "world.build: argument --documents: invalid int value: 'many'; --help lists the options.",
        ),
        (["--documents", "0"], "--documents is 0; it must be at least 1."),
        (["--records", "0"], "--records is 0; it must be at least 1."),
        (["--threads", "-1"], "world.build: --threads is -1; it must be at least 1; --help lists the options."),
        (["--wrong-words", "2"], "--wrong-words is 2; it is a share, so it must be from 0 to 1."),
        (["--hasty", "-0.1"], "hasty is -0.1; it is a share of the writers, so it must be from 0 to 1."),
        (
            ["--kind", "noise", "--hasty", "0.5"],
            "hasty is 0.5, but the `noise` world has no hasty writers; leave it out.",
        ),
        (
            ["--base", "shipped", "--documents", "9"],
            "--documents is 9, but with --base shipped no base model is trained; leave one of them out.",
        ),
        (
            ["--base", "shipped", "--hasty", "0.5"],
            "--hasty is 0.5, but the packaged base model was trained with 0.62; leave out --base shipped, and a base "
            "model is trained.",
        ),
        (
            ["--base", "nowhere"],
            "--base is nowhere, which has no model.safetensors; give the folder `model` of a world, or shipped.",
        ),
    ],
)
def test_mistakes_on_the_command_line_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main([str(tmp_path / "world"), *arguments]) == 2
    assert capsys.readouterr().err.replace("coh_lightning.world", "world") == f"error: {says}\n"
    assert not (tmp_path / "world").exists()


def test_a_folder_that_is_no_world_is_refused_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main([str(tmp_path), *SMALL]) == 2
    says = f"{tmp_path} exists and is not a world (it has no world.json); give another folder."
    assert capsys.readouterr().err == f"error: {says}\n"
    (tmp_path / "world.json").write_text("{")
    assert main([str(tmp_path), *SMALL]) == 2
    assert "is not JSON of a world" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "world.json"}


def test_the_files_of_a_world_are_the_data_of_any_method(tmp_path: Path) -> None:
    folder = tmp_path / "world"
    assert main([str(folder), "--records", "12", "--base", "shipped"]) == 0
    sft = Method(orders=("p",), sentences="none")
    for method, conditions in ((Method(), 2), (Method(sentences="critique"), 2), (sft, 1)):
        data = CoHDataModule(
            str(folder / "feedback.jsonl"),
            tokenizer=str(folder / "model"),
            validation_sources=[Records(str(folder / "tune.jsonl"))],
            test_sources=[Records(str(folder / "test.jsonl"))],
            method=method,
            pretraining_text=[str(folder / "pretraining.txt")],
            cache_dir=str(tmp_path / "cache"),
        )
        data.prepare_data()
        assert (len(data.splits["validation"]), len(data.splits["test"])) == (200, 500)
        assert len(data.splits["train"]) > 6 and len(data.requests("test")) == 500 * conditions
