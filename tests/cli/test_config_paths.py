"""The configurations that come with the package are found in any folder, and those of the current folder come first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coh_lightning.__main__ import main
from coh_lightning.cli import config_paths as configurations

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_conf_file_is_taken_from_the_package_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "fit",
        "--config",
        "conf/quickstart.yaml",
        "--data.method=conf/method/coh.yaml",
        "--config=conf/quickstart.yaml",
        "--model.lr=1",
    ]
    here = str(CONF / "quickstart.yaml")
    assert configurations.found(words) == [
        "fit",
        "--config",
        here,
        f"--data.method={CONF / 'method' / 'coh.yaml'}",
        f"--config={here}",
        "--model.lr=1",
    ]
    assert capsys.readouterr() == (
        "",
        f"not in this folder, so taken from {CONF}: conf/quickstart.yaml, conf/method/coh.yaml\n",
    )


def test_a_conf_file_in_the_current_folder_wins(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "conf").mkdir()
    (empty / "conf" / "quickstart.yaml").write_text("run: {name: mine}\n")
    words = ["fit", "--config", "conf/quickstart.yaml"]
    assert configurations.found(words) == words
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "word",
    [
        "conf/lost.yaml",
        "quickstart.yaml",
        "other/conf/quickstart.yaml",
        "/conf/quickstart.yaml",
        "conf",
        "conf/../pyproject.toml",
        "--conf",
    ],
)
def test_other_arguments_are_unchanged(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert configurations.found([word, f"--config={word}"]) == [word, f"--config={word}"]
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["coh_lightning", *words])
        return main()

    return call


@pytest.mark.parametrize(
    "words",
    ["fit --data.method=conf/method/cohh.yaml", "fit --data.method=coh", "preview --data.method=conf/method/cohh.yaml"],
)
def test_a_mistyped_conf_file_gets_the_nearest_name(
    words: str, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words.split()) == 2
    assert "did you mean conf/method/coh.yaml?" in capsys.readouterr().err


def test_a_package_config_is_found_from_another_file_and_a_typo_gets_the_nearest_name(
    empty: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "deep").mkdir()
    file = empty / "deep" / "mine.yaml"
    file.write_text("data: {method: conf/method/sft.yaml}\n")
    with pytest.raises(SystemExit):
        call("fit", "--config=deep/mine.yaml", "--print_config")
    assert "name: sft\n" in capsys.readouterr().out
    for written, where in (
        ("conf/method/sftt.yaml", "deep/conf/method/sftt.yaml"),
        ("method/sftt.yaml", "deep/method/sftt.yaml"),
    ):
        file.write_text(f"data: {{method: {written}}}\n")
        assert call("fit", "--config=deep/mine.yaml", "--print_config") == 2
        assert (
            capsys.readouterr().err
            == f"error: data.method: there is no file {where}; did you mean conf/method/sft.yaml?\n"
        )


def test_other_ranks_start_with_the_resolved_paths(call: Callable[..., int]) -> None:
    assert call("fit", "--config", "conf/quickstart.yaml", "--data.method=coh") == 2
    assert sys.argv[1:4] == ["fit", "--config", str(CONF / "quickstart.yaml")]


def test_a_command_reads_the_packages_configuration(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call("preview", "--config", "conf/quickstart.yaml", "--data.method=conf/method/sft.yaml", "--num=1", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[0])


# Paths of inputs


def settings(call: Callable[..., int], capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call("fit", *words, "--print_config")
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


SOURCES = """
    sources:
    - {class_path: Records, init_args: {path: mine.jsonl}}
    - {class_path: HH, init_args: {path: Anthropic/hh-rlhf}}
    - {class_path: Records, init_args: {path: 'part-*.jsonl'}}
"""


def test_paths_in_a_file_are_relative_to_it_and_saved_ones_absolute(
    empty: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "deep" / "model").mkdir(parents=True)
    for name in ("mine.jsonl", "part-1.jsonl", "text.txt"):
        (empty / "deep" / name).write_text("")
    model = "model: {name_or_path: model, generation: {reward_model: some/name}}\n"
    data = f"data:\n    pretraining_text: [text.txt, world, some/name]{SOURCES}"
    (empty / "deep" / "mine.yaml").write_text(model + data)
    found = settings(call, capsys, "--config=deep/mine.yaml")
    deep = empty / "deep"
    assert (found["model"]["name_or_path"], found["model"]["generation"]["reward_model"]) == (
        str(deep / "model"),
        "some/name",
    )
    assert found["data"]["pretraining_text"] == [str(deep / "text.txt"), "world", "some/name"]
    paths = [one["init_args"]["path"] for one in found["data"]["sources"]]
    assert paths == [str(deep / "mine.jsonl"), "Anthropic/hh-rlhf", str(deep / "part-*.jsonl")]
    (empty / "other").mkdir()
    (empty / "other" / "saved.yaml").write_text(yaml.safe_dump(found))
    assert settings(call, capsys, "--config=other/saved.yaml") == found


def test_paths_on_the_command_line_are_relative_to_the_working_folder(
    empty: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "deep").mkdir()
    (empty / "deep" / "mine.yaml").write_text("data: {feedback: mine.jsonl}\n")
    (empty / "deep" / "mine.jsonl").write_text("")
    (empty / "mine.jsonl").write_text("")
    words = ["--config=deep/mine.yaml", "--data.feedback=mine.jsonl"]
    assert settings(call, capsys, *words)["data"]["feedback"] == str(empty / "mine.jsonl")
    assert settings(call, capsys, *words[:1])["data"]["feedback"] == str(empty / "deep" / "mine.jsonl")


@pytest.mark.parametrize(
    ("text", "key", "name"),
    [
        ("data: {feedback: mine.jsonl}", "data.feedback", "mine.jsonl"),
        ("model: {name_or_path: folder}", "model.name_or_path", "folder"),
        ("data: {sources: [{class_path: Records, init_args: {path: mine.jsonl}}]}", "data.sources.path", "mine.jsonl"),
    ],
)
def test_a_path_relative_to_the_wrong_folder_gets_the_right_path(
    text: str, key: str, name: str, empty: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "deep").mkdir()
    (empty / "folder").mkdir()
    (empty / "mine.jsonl").write_text("")
    (empty / "deep" / "mine.yaml").write_text(text)
    assert call("fit", "--config=deep/mine.yaml") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {key} is '{name}', and a path in a file is relative to that file")
    assert f"write '../{name}'" in error


def test_world_is_a_name_and_output_paths_stay_relative(
    empty: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "world").mkdir()
    (empty / "mine.yaml").write_text("data: {feedback: world}\nrun: {folder: mine}\n")
    found = settings(call, capsys, "--config=mine.yaml", "--model.name_or_path=world", "--data.tokenizer=./world")
    assert (found["data"]["feedback"], found["model"]["name_or_path"]) == ("world", "world")
    assert (found["data"]["tokenizer"], found["run"]["folder"]) == (str(empty / "world"), "mine")
