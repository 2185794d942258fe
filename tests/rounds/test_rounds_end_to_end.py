"""Rounds with real commands: raters in code, people, a run that is stopped and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.world.feedback import world_prompts
from coh_lightning.world.simulated_raters import main as fill

ROOT = Path(__file__).parents[2]

COMMON = """\
config: conf/experiment/world_critiques.yaml
settings: {trainer.limit_val_batches: 0, model.generation.generate_every_n_validations: 0}
prompts: world
test: {prompts: world, count: 6}
rounds: 2
prompts_per_round: 8
steps: 3
"""
CODE = COMMON + "samples: 3\nrate: {scorers: [world], critic: world, thumb: overall=1}\nability: world\n"
PEOPLE = (
    COMMON.replace("\nprompts: world", "\nprompts: prompts.jsonl")
    + "samples: 2\nstudy: {raters: 1, overlap: 0, attributes: [overall], swaps: 0, identical: 0}\n"
)


def command(folder: Path, text: str, *words: str) -> list[str]:
    (folder / "mine.yaml").write_text(text)
    return [sys.executable, "-m", "coh_lightning", "rounds", "mine.yaml", "--folder=r", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def rounds(folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    run = {"cwd": folder, "env": environment(), "capture_output": True, "text": True, "timeout": 1500}
    return subprocess.run(command(folder, text, *words), **run)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    return tmp_path


@pytest.mark.slow
def test_rounds_are_learned_from_and_a_run_that_was_stopped_gives_the_same(checkout: Path) -> None:
    done = rounds(checkout, CODE, "--jobs=2")
    assert done.returncode == 0, done.stderr + done.stdout
    whole = json.loads((checkout / "r" / "rounds.json").read_text())
    assert [one["label"] for one in whole["rows"]] == ["base model", "round 1", "round 2", "offline"]
    assert [one["records"] for one in whole["rows"][1:]] == [
        {"new": 8, "older": 0, "given": 0}, {"new": 8, "older": 8, "given": 0}, {"new": 16, "older": 0, "given": 0}
    ]  # fmt: skip
    learned = list(read_jsonl(checkout / "r" / "seed0" / "round2" / "feedback.jsonl", Feedback))
    assert all(one.critique and one.ratings for record in learned for one in record.candidates)
    sha = {path.name: path.read_bytes() for path in (checkout / "r" / "seed0" / "round2").glob("*.jsonl")}
    again = rounds(checkout, CODE)
    assert again.returncode == 0 and "seed0-round1-fit" not in again.stdout, "nothing is run twice"
    other = rounds(checkout, CODE.replace("steps: 3", "steps: 4"))
    assert other.returncode == 2 and "has rounds with other values of steps; give another --folder" in other.stderr
    # stopped in the middle, it goes on with the same result
    shutil.move(checkout / "r", checkout / "whole")
    process = subprocess.Popen(command(checkout, CODE), cwd=checkout, env=environment(), stderr=subprocess.PIPE)
    while not list((checkout / "r" / "steps").glob("*round1-write*")) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    assert not (checkout / "r" / "rounds.json").exists()
    done = rounds(checkout, CODE)
    assert done.returncode == 0, done.stderr
    assert json.loads((checkout / "r" / "rounds.json").read_text()) == whole
    assert {name: (checkout / "r" / "seed0" / "round2" / name).read_bytes() for name in sha} == sha


@pytest.mark.slow
def test_with_people_it_waits_for_their_sheets(checkout: Path) -> None:
    lines = [{"prompt": one.prompt[-1].text, "task": "summary"} for one in world_prompts(20, split="train")]
    (checkout / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    done = rounds(checkout, PEOPLE)
    assert done.returncode == 0, done.stderr
    study = checkout / "r" / "seed0" / "round1" / "study"
    assert f"waiting: {study}: 0 of " in done.stdout and f"into {study / 'returned'}" in done.stdout
    assert fill([str(study), "--comments"]) == 0
    for sheet in (study / "filled").iterdir():
        shutil.copy(sheet, study / "returned")
    done = rounds(checkout, PEOPLE)
    assert done.returncode == 0, done.stderr
    assert "seed0-round1-fit" in done.stdout and "waiting: " in done.stdout and "round2/study" in done.stdout
    learned = list(read_jsonl(checkout / "r" / "seed0" / "round1" / "new.jsonl", Feedback))
    assert learned and all(one.rank is not None for one in learned[0].candidates)
    assert any(one.critique for record in learned for one in record.candidates)
