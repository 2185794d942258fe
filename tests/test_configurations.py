"""The configurations that come with the package are found in any folder, and those of the current folder come first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coh_lightning import configurations
from coh_lightning.__main__ import main

CONF = Path(__file__).parent.parent / "conf"


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_configuration_that_is_not_here_is_the_packages_and_one_line_says_so(
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


def test_a_configuration_of_the_current_folder_comes_first(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_nothing_else_is_replaced(word: str, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_mistyped_name_is_answered_with_the_nearest_of_the_packages(
    words: str, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words.split()) == 2
    assert "did you mean conf/method/coh.yaml?" in capsys.readouterr().err


def test_a_file_of_the_package_is_found_from_inside_another_and_a_mistyped_one_is_answered(
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


def test_the_processes_of_other_ranks_are_started_with_what_was_found(call: Callable[..., int]) -> None:
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
