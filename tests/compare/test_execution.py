"""Running a study: order, tuning, failures, the deadline, and a comparison that is killed and started again.

The commands are stand-ins of a few milliseconds; the last test runs real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coh_lightning.compare import execution, processes
from coh_lightning.compare.execution import Execution, Plan, estimate, tuned
from coh_lightning.compare.processes import Command, Failed
from coh_lightning.compare.results import pack
from coh_lightning.compare.rows import Row, row_key, rows_of
from coh_lightning.compare.steps import Places, Step
from coh_lightning.compare.steps import steps_of as real_steps
from coh_lightning.compare.study import Study
from coh_lightning.compare.study_file import read_study

ROOT = Path(__file__).parents[2]

TEXT = """\
config: conf/quickstart.yaml
worlds:
  w: {model: world, feedback: world, tune: tune.jsonl}
seeds: [0, 1]
evaluation: {temperatures: [1]}
methods:
  base: {command: none}
  sft: {rates: [0.001, 0.003]}
  bad: {fit: sft, evaluation: {condition: bad}}
baseline: base
"""

STUB = """
import os, sys, time
def main(words):
    with open("order.txt", "a") as file:
        file.write(words[0] + "\\n")
    if os.path.exists("fail") and open("fail").read() in words[0]:
        print("error: it can't be done", file=sys.stderr)
        return 2
    if os.path.exists("hang") and open("hang").read() in words[0]:
        os.remove("hang")
        open("hanging", "w").write(str(os.getpid()))
        time.sleep(60)
    return 0
"""
"""Stands in for `coh fit` and `coh test`: notes that it ran."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stub_command.py").write_text(STUB)
    (tmp_path / "tune.jsonl").write_text("")
    (tmp_path / "study.yaml").write_text(TEXT)
    stand_in(monkeypatch)
    return tmp_path


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOADED", [])
    monkeypatch.setattr(execution, "steps_of", steps)
    monkeypatch.setattr(execution, "result_of", result)


def steps(study: Study, row: Row, composed: Mapping[str, Any], folder: Path) -> list[Step]:
    return [replace(one, words=["-m", "stub_command", one.name]) for one in real_steps(study, row, composed, folder)]


def result(
    study: Study, row: Row, composed: Mapping[str, Any], steps: Sequence[Step], places: Places
) -> dict[str, Any]:
    """The higher rate is the better one."""
    assert all(places.is_done(one.name) for one in steps)
    score = 0.5 + 100 * (row.rate or 0)
    line = {"key": row_key(study, row, composed), "row": row.name, "method": row.method.name, "n": 1}
    return line | {"scores": {f"{one:g}": pack([score]) for one in row.evaluation.temperatures}, "base": row.base}


def plan(folder: Path, only: str | None = None) -> Plan:
    study = read_study(folder / "study.yaml")
    composed = {name: {"name": method.fit} for name, method in study.methods.items()}
    return Plan(study, composed, folder / "s", folder / "s" / "results.jsonl", rows_of(study, only))


def run(made: Plan, *, jobs: int = 1, hours: float | None = None) -> list[str]:
    return Execution(made, jobs=jobs, hours=hours, console=Console(quiet=True)).run()


def order(folder: Path) -> list[str]:
    """What ran: the names of steps without their keys."""
    lines = (folder / "order.txt").read_text().splitlines()
    return ["-".join(part for part in line.split("-") if len(part) != 12) for line in lines]


def finished(folder: Path) -> list[str]:
    return [json.loads(line)["row"] for line in (folder / "s" / "results.jsonl").read_text().splitlines()]


ALL = [
    "w/base/base0/seed0", "w/sft/base0/seed0/rate=0.001", "w/sft/base0/seed0/rate=0.003", "w/sft/base0/seed0",
    "w/bad/base0/seed0", "w/base/base0/seed1", "w/sft/base0/seed1", "w/bad/base0/seed1",
]  # fmt: skip


def test_rows_run_in_order_and_each_step_once(here: Path) -> None:
    assert run(plan(here)) == []
    assert finished(here) == ALL
    assert order(here) == [
        "w-base-base0-seed0-t1",
        "w-sft-base0-seed0", "w-sft-base0-seed0-t1",  # rate .001
        "w-sft-base0-seed0", "w-sft-base0-seed0-t1",  # rate .003, which wins: its fit is that of the row
        "w-sft-base0-seed0-t1",
        "w-bad-base0-seed0-t1",
        "w-base-base0-seed1-t1", "w-sft-base0-seed1", "w-sft-base0-seed1-t1", "w-bad-base0-seed1-t1",
    ]  # fmt: skip
    before = order(here)
    again = plan(here)
    assert again.waiting == [] and "left: 0 base models, 0 worlds, 0 fits, 0 tests" in estimate(again)
    assert run(again) == [] and order(here) == before


def test_two_at_a_time_never_run_one_step_twice(here: Path) -> None:
    assert run(plan(here), jobs=2) == []
    assert sorted(finished(here)) == sorted(ALL)
    lines = (here / "order.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 11


def test_commands_of_several_threads_each_end_with_their_own_status(here: Path) -> None:
    (here / "fail").write_text("even")

    def ended(number: int) -> bool:
        name = f"{'odd' if number % 2 else 'even'}{number}"
        command = Command(["-m", "stub_command", name], log=here / f"{name}.log", mark=here / f"{name}.json")
        try:
            command.finish()
        except Failed as failed:
            assert "ended with 2: error: it can't be done" in str(failed)
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ended, range(24))) == [False, True] * 12


def test_the_seconds_of_a_fit_are_those_of_all_its_processes_or_unknown(here: Path) -> None:
    """A process that stopped or failed says what it took; one that was killed can't."""
    places = Places(here / "study")
    command = Command(["-m", "stub_command", "one"], log=places.log("one"), mark=places.mark("one"))
    (here / "fail").write_text("one")
    with pytest.raises(Failed):
        command.finish()
    assert not places.is_done("one")
    (here / "fail").unlink()
    Command(["-m", "stub_command", "one"], log=places.log("one"), mark=places.mark("one")).finish()
    (before,) = (here / "study" / "steps" / "one.earlier").read_text().split()
    assert float(before) > 0 and places.starts("one") == 2
    assert places.all_seconds("one") == pytest.approx(float(before) + places.seconds("one"))
    with places.log("one").open("a") as log:
        log.write("$ coh -m stub_command one\n")  # started once more, and killed
    assert places.all_seconds("one") is None


def test_of_two_rates_with_the_same_score_the_smaller_wins(here: Path) -> None:
    made = plan(here)
    (row,) = [one for one in made.rows if one.name == "w/sft/base0/seed1"]
    trials = [one for one in made.waiting if one.tuning]
    results = {row_key(made.study, one, made.composed["sft"]): {"scores": {"1": "rs"}} for one in trials}
    found = tuned(made.study, row, made.composed, results)
    assert found is not None and found.rate == 0.001
    results.popitem()
    assert tuned(made.study, row, made.composed, results) is None


def test_finished_rows_of_another_machine_are_not_run(here: Path) -> None:
    run(plan(here))
    (here / "s" / "results.jsonl").rename(here / "results.jsonl")
    (here / "s").rename(here / "gone")
    (here / "order.txt").unlink()
    study = plan(here)
    other = Plan(study.study, study.composed, here / "s", here / "results.jsonl", study.rows)
    assert other.waiting == []
    assert run(other) == [] and not (here / "order.txt").exists()


def test_only_and_hours(here: Path) -> None:
    run(plan(here), hours=0)
    assert not (here / "order.txt").exists()
    run(plan(here, only="*/base/*/seed1"))
    assert finished(here) == ["w/base/base0/seed1"]


def test_a_failed_row_is_named_and_the_others_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "fail").write_text("w-base-base0-seed0")
    console = Console(width=200)
    assert Execution(plan(here), jobs=1, hours=None, console=console).run() == ["w/base/base0/seed0"]
    assert finished(here) == ALL[1:]
    said = capsys.readouterr().out
    assert "w/base/base0/seed0 failed: -m stub_command" in said and "ended with 2: error: it can't be done" in said
    (here / "fail").unlink()
    assert run(plan(here)) == []
    assert sorted(finished(here)) == sorted(ALL)


KILLED = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background hands on that it ignores it
sys.path.insert(0, {tests!r})
from pathlib import Path
import pytest
from test_execution import plan, run, stand_in
if __name__ == "__main__":
    stand_in(pytest.MonkeyPatch())
    run(plan(Path.cwd()))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_comparison_resumes_and_leaves_no_command_behind(how: signal.Signals, here: Path) -> None:
    (here / "hang").write_text("w-bad-base0-seed0")
    (here / "killed.py").write_text(KILLED.format(tests=str(Path(__file__).parent)))
    path = os.pathsep.join([str(here), str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "killed.py"], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (here / "hanging").exists() or not (here / "hanging").read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.05)
    command = int((here / "hanging").read_text())
    process.send_signal(how)
    process.wait(timeout=60)
    while Path(f"/proc/{command}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert finished(here) == ALL[:4]
    assert run(plan(here)) == []
    assert finished(here) == ALL
    lines = (here / "order.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) + 1, "only the interrupted step ran again"
