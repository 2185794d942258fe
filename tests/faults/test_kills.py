"""A command killed at any moment and started again: no partial file is ever taken for a complete one, and the result
equals that of a run that was never killed.

Moments are drawn in two ways: at any time, and just after any file was touched. `make test` kills five times,
`make test-all` more than fifty times.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from coh_lightning.human_eval.study import read_study
from coh_lightning.runs.run_folder import is_whole
from helpers.commands import Commands, Ended, commands_in
from helpers.feedback import CONF, TINY, pairs, write

SEED = 0
DONE = (
    "where a run has finished (6 steps); name another folder, or none.",
    "already exists and is not empty; name a new folder.",
)
LONGEST = 0.02
"""Seconds at most between the touch of a file and the kill."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The commands, in a folder with feedback and a configuration of a small run: 6 steps over two edges of epochs, a
    checkpoint every 2, two rounds of writing.
    """
    folder = tmp_path_factory.mktemp("kills")
    write(folder / "feedback.jsonl", pairs(20))
    (folder / "text.txt").write_text("\n".join(f"Plain text, number {i}." for i in range(40)), encoding="utf-8")
    keep = {"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 2, "filename": "{step}"}}
    trainer = {
        "max_steps": 6,
        "max_epochs": 100,
        "val_check_interval": 12,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    data = {
        "feedback": "feedback.jsonl",
        "tokenizer": "world",
        "validation_share": 0.2,
        "test_share": 0.2,
        "max_prompt_tokens": 128,
        "max_chain_tokens": 256,
        "row_tokens": 512,
    }
    data |= {
        "method": str(CONF / "method" / "coh.yaml"),
        "wording": str(CONF / "wording" / "varied.yaml"),
        "fcm_range": [0.0, 0.3],
    }
    data |= {"rows_per_step": 2, "pretraining_text": ["text.txt"], "pretraining_rows_per_step": 2, "cache_dir": "cache"}
    model = {
        "from_config": TINY,
        "lr": 0.01,
        "generation": {"generate_every_n_validations": 1, "sampling": {"max_new_tokens": 3}},
    }
    config = {"trainer": trainer | quiet | {"callbacks": [keep]}, "model": model, "data": data}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with commands_in(folder) as started:
        yield started


def fit(folder: str) -> list[str]:
    return ["fit", "--config", "config.yaml", f"--run.folder={folder}"]


def evaluate(folder: str) -> list[str]:
    return ["test", "--config", "config.yaml", f"--run.folder={folder}", "--ckpt_path=whole/checkpoints/last.ckpt"]


def export(folder: str) -> list[str]:
    return [
        "human-eval",
        "export",
        "tested/completions.jsonl",
        "--control",
        "bad",
        "good",
        "--raters",
        "2",
        "--overlap",
        "2",
        "--overwrite",
        "-o",
        folder,
    ]


def make_folder(folder: str) -> list[str]:
    return ["export", "whole/checkpoints/last.ckpt", folder]


@pytest.fixture(scope="module")
def whole(commands: Commands) -> Ended:
    """The uninterrupted fit, in the folder `whole`."""
    ended = commands.run(*fit("whole"))
    assert ended.status == 0, ended.printed[-3000:]
    return ended


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a file of figures, each of them whole."""
    with file.open(newline="", encoding="utf-8") as text:
        lines = list(text)
    rows = list(csv.DictReader(lines))
    assert all(line.endswith("\n") for line in lines) and all(
        None not in row and None not in row.values() for row in rows
    ), "".join(lines)
    return rows


def metrics(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(step, train or val) -> row of metrics.csv; no row is there twice."""
    rows = rows_of(folder / "metrics.csv")
    found = {(row["step"], "val" if row.get("val/nll") else "train"): row for row in rows}
    assert len(found) == len(rows)
    return found


def all_whole(folder: Path) -> None:
    """Every file of a run folder under its final name is complete; .part files and ranks' own parts are never read."""
    for path in folder.rglob("*"):
        if path.name.endswith(".part") or not path.is_file() or ".rank" in path.name:
            continue
        if path.suffix == ".ckpt":
            assert is_whole(path)
            torch.load(path, weights_only=True)
        elif path.suffix in (".yaml", ".json", ".jsonl"):
            text = path.read_text(encoding="utf-8")
            assert text.endswith("\n")
            yaml.safe_load(text) if path.suffix == ".yaml" else [
                json.loads(part) for part in (text.splitlines() if path.suffix == ".jsonl" else [text])
            ]
        elif path.suffix == ".csv":
            rows_of(path)
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        elif path.name == "finished":
            assert path.read_text() == "6 steps\n"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def killed(
    commands: Commands,
    words: Sequence[str],
    *,
    times: int,
    like: Ended,
    check: Callable[[], None],
    draws: random.Random,
) -> int:
    """Run and kill a command so often, then let it run to its end; how often it was killed indeed (not where it came to
    its end first).
    """
    kills = 0
    for _ in range(times):
        if draws.random() < 0.5:
            ended = commands.run(*words, signals=[(draws.uniform(0, like.seconds), signal.SIGKILL)])
        else:
            ended = commands.run(
                *words,
                event=draws.randint(1, like.touched),
                signals=[(draws.choice([0.0, draws.uniform(0, LONGEST)]), signal.SIGKILL)],
            )
        kills += ended.killed
        check()
        if not ended.killed:
            break
    else:
        ended = commands.run(*words)
    # killed after its end: all had been done, and what is done is not done again
    assert ended.status == 0 or ended.error.endswith(DONE), ended.printed[-3000:]
    return kills


def same_run(commands: Commands, name: str) -> None:
    """The run in this folder ended like the uninterrupted one."""
    of_whole, folder = commands.folder / "whole", commands.folder / name
    assert (folder / "finished").read_text() == "6 steps\n"
    for key, value in weights(of_whole).items():
        assert torch.equal(weights(folder)[key], value)
    expected, found = metrics(of_whole), metrics(folder)
    assert all(found[key] == expected[key] for key in found)
    # the row of a step is written after its checkpoint (steps 2, 4, 6), so a kill in between loses the row, and nothing
    # else
    assert {key for key in expected if key[1] == "train"} - set(found) <= {
        ("1", "train"),
        ("3", "train"),
        ("5", "train"),
    }
    for path in (of_whole / "completions").iterdir():  # a validation that was under way is not made again
        if (folder / "completions" / path.name).exists():
            assert _without_system(folder / "completions" / path.name) == _without_system(path)


def _without_system(path: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in json.loads(line).items() if key != "system"}
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def fits(commands: Commands, whole: Ended, name: str, *, times: int, draws: random.Random) -> int:
    """Kills of one run, from an empty cache on."""
    shutil.rmtree(commands.folder / "cache")
    kills = killed(
        commands, fit(name), times=times, like=whole, check=lambda: all_whole(commands.folder / name), draws=draws
    )
    same_run(commands, name)
    return kills


def test_a_run_killed_many_times_ends_like_an_uninterrupted_one(commands: Commands, whole: Ended) -> None:
    assert fits(commands, whole, "smoke", times=5, draws=random.Random(f"{SEED} smoke")) >= 3


@pytest.mark.slow
def test_fifty_kills_of_fit_test_and_both_exports_leave_no_partial_file(commands: Commands, whole: Ended) -> None:
    kills = {"fit": 0, "test": 0, "export": 0, "model": 0}
    for number in range(40):
        if kills["fit"] >= 30:
            break
        kills["fit"] += fits(commands, whole, f"fit{number}", times=6, draws=random.Random(f"{SEED} fit {number}"))
    tested = commands.run(*evaluate("tested"))
    assert tested.status == 0, tested.printed[-3000:]
    draws = random.Random(f"{SEED} test")
    for number in range(40):
        if kills["test"] >= 12:
            break
        folder = commands.folder / f"test{number}"
        count = killed(
            commands,
            evaluate(folder.name),
            times=3,
            like=tested,
            check=lambda folder=folder: all_whole(folder),
            draws=draws,
        )
        kills["test"] += count
        assert _without_system(folder / "completions.jsonl") == _without_system(
            commands.folder / "tested" / "completions.jsonl"
        )
        assert not list(folder.glob("*.rank*"))
    exported = commands.run(*export("study"))
    assert exported.status == 0, exported.printed[-3000:]
    for number in range(60):
        if kills["export"] >= 12:
            break
        folder = commands.folder / f"study{number}"
        check = lambda folder=folder: folder.exists() and read_study(folder)  # noqa: E731
        count = killed(commands, export(folder.name), times=3, like=exported, check=check, draws=draws)
        kills["export"] += count
        assert read_study(folder).id == read_study(commands.folder / "study").id
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in (commands.folder / "study").iterdir()
        )
    made = commands.run(*make_folder("model"))
    assert made.status == 0, made.printed[-3000:]
    expected = load_file(commands.folder / "model" / "model.safetensors")
    for number in range(40):
        if kills["model"] >= 6:
            break
        folder = commands.folder / f"model{number}"

        def check(folder: Path = folder) -> Any:
            read = folder.exists() and load_file(folder / "model.safetensors")
            return read and yaml.safe_load((folder / "config.json").read_text())

        kills["model"] += killed(commands, make_folder(folder.name), times=3, like=made, check=check, draws=draws)
        assert all(torch.equal(value, expected[key]) for key, value in load_file(folder / "model.safetensors").items())
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in (commands.folder / "model").iterdir()
        )
    print(kills)
    assert sum(kills.values()) >= 50 and min(kills.values()) >= 6
