"""Failures from outside end in one sentence or are survived: signals, disks, memory, workers, W&B, and two runs at
once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.commands import ROOT, Commands, commands_in
from helpers.feedback import CONF, TINY, pairs, write

STEPS = 60
"""Of a run that is stopped by a signal; it is over in some seconds."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The commands, in a folder with feedback and the configuration of a small run."""
    folder = tmp_path_factory.mktemp("faults")
    write(folder / "feedback.jsonl", pairs(20))
    trainer = {
        "max_steps": 4,
        "max_epochs": -1,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    data = {
        "feedback": "feedback.jsonl",
        "tokenizer": "world",
        "max_prompt_tokens": 128,
        "max_chain_tokens": 256,
        "row_tokens": 512,
        "rows_per_step": 4,
        "cache_dir": "cache",
    }
    data |= {"method": str(CONF / "method" / "coh.yaml"), "validation_share": 0.2, "test_share": 0.2}
    config = {
        "trainer": trainer | quiet,
        "model": {"from_config": TINY, "lr": 0.01, "generation": {"sampling": {"max_new_tokens": 3}}},
        "data": data,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with commands_in(folder) as started:
        yield started


def fit(folder: str | Path, *more: str) -> list[str]:
    return ["fit", "--config", "config.yaml", f"--run.folder={folder}", *more]


def checkpoints(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.name: torch.load(path, weights_only=True) for path in sorted((folder / "checkpoints").glob("*.ckpt"))}


def logged(folder: Path) -> list[str]:
    """The column of losses, row by row."""
    lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("train/loss")
    return [line.split(",")[place] for line in lines[1:]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints(folder)["last.ckpt"]["state_dict"]


# Signals


@pytest.fixture(scope="module")
def long_run(commands: Commands) -> Path:
    """The folder of the run that no signal stopped."""
    ended = commands.run(*fit("long", f"--trainer.max_steps={STEPS}"))
    assert ended.status == 0, ended.printed[-3000:]
    return commands.folder / "long"


def stopped_and_gone_on_with(commands: Commands, long_run: Path, number: int, name: str, **more: Any) -> Path:
    """A run that a signal stopped at some step, and that then came to the same end."""
    folder, words = commands.folder / name, fit(name, f"--trainer.max_steps={STEPS}")
    ended = commands.run(*words, once=str(folder / "metrics.csv"), signals=[(0.0, number)], **more)
    assert ended.status == 128 + number, ended.printed[-3000:]
    assert f"stopped by {signal.Signals(number).name}: {name}" in ended.printed and "Traceback" not in ended.printed
    assert not (folder / "finished").exists()
    steps = len(logged(folder))
    assert 1 <= steps < STEPS
    ended = commands.run(*words)
    assert ended.status == 0 and f"resumed from {name}/" in ended.printed
    assert logged(folder) == logged(long_run)
    assert all(torch.equal(value, weights(folder)[key]) for key, value in weights(long_run).items())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_fit_after_its_step_with_a_checkpoint_and_no_step_is_lost(
    number: signal.Signals, commands: Commands, long_run: Path
) -> None:
    folder = stopped_and_gone_on_with(commands, long_run, number, number.name)
    assert {name for name in checkpoints(folder)} - {"last.ckpt"} and not list(folder.glob("hpc*"))


@pytest.mark.slow
def test_under_slurm_the_signal_requeues_the_job_which_resumes(commands: Commands, long_run: Path) -> None:
    tools = commands.folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tools}/asked\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NAME": "coh",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }
    environment = slurm | {"SLURM_NODELIST": "127.0.0.1", "PATH": f"{tools}:{os.environ['PATH']}"}
    folder = stopped_and_gone_on_with(commands, long_run, signal.SIGUSR1, "slurm", environment=environment)
    assert (tools / "asked").read_text() == "requeue 1234\n"
    assert [path.name for path in folder.glob("hpc*")] == ["hpc_ckpt_1.ckpt"]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(commands: Commands) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
    }
    words = [
        sys.executable,
        "-m",
        "coh_lightning",
        *fit("two", "--trainer.max_steps=100000", "--trainer.devices=2", "--trainer.strategy=ddp"),
    ]
    with subprocess.Popen(
        words,
        cwd=commands.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            end = time.monotonic() + 150
            while (
                not (commands.folder / "two" / "metrics.csv").exists() and run.poll() is None and time.monotonic() < end
            ):
                time.sleep(0.1)
            run.send_signal(signal.SIGTERM)
            printed, _ = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 128 + signal.SIGTERM, printed[-4000:]
    [(name, saved)] = checkpoints(commands.folder / "two").items()
    assert name == f"step={saved['global_step']}.ckpt" and len(logged(commands.folder / "two")) == saved["global_step"]


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_is_finished_by_the_same_command(
    commands: Commands,
) -> None:
    folder = commands.folder / "almost"
    assert commands.run(*fit("almost")).status == 0
    (folder / "finished").unlink()
    (folder / "checkpoints" / "last.ckpt").rename(folder / "checkpoints" / "step=4.ckpt")
    assert commands.run(*fit("almost")).status == 0
    assert (folder / "finished").read_text() == "4 steps\n" and checkpoints(folder)["last.ckpt"]["global_step"] == 4


# Disks


@pytest.fixture(scope="module")
def small_disk(commands: Commands) -> Path:
    """Where a small disk may be mounted; the test is left out where mounting isn't allowed."""
    at = commands.folder / "small"
    at.mkdir()
    tried = commands.run("--version", disk={"at": str(at), "size": 1 << 20})
    if tried.status != 0:
        pytest.skip(f"no small disk can be mounted here: {tried.printed.splitlines()[-1]}")
    return at


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "more", "what"),
    [
        (200_000, [], "small/run/checkpoints/last.ckpt"),
        (0, ["--data.cache_dir=small/cache"], "small/cache/"),
        (8192, [], "small/run/"),
    ],
)
def test_a_full_disk_ends_in_one_sentence_that_names_the_file(
    size: int, more: list[str], what: str, small_disk: Path, commands: Commands
) -> None:
    ended = commands.run(
        *fit("elsewhere" if more else "small/run", *more), disk={"at": str(small_disk), "size": max(size, 4096)}
    )
    assert ended.status == 2, ended.printed[-3000:]
    assert ended.error.startswith(f"error: {what}") and ended.error.endswith(
        "(No space left on device); free some space there, and run the same command again."
    )


@pytest.mark.slow
@pytest.mark.parametrize(("more", "what"), [([], "small/run"), (["--data.cache_dir=small/cache"], "small/cache/")])
def test_a_read_only_folder_ends_in_one_sentence(
    more: list[str], what: str, small_disk: Path, commands: Commands
) -> None:
    ended = commands.run(
        *fit("elsewhere2" if more else "small/run", *more),
        disk={"at": str(small_disk), "size": 1 << 20, "read_only": True},
    )
    assert ended.status == 2, ended.printed[-3000:]
    assert ended.error.startswith(f"error: {what}") and ended.error.endswith(
        "(Read-only file system); choose a writable folder, and run the same command again."
    )


# The rest of the world


@pytest.mark.slow
def test_without_a_connection_wandb_logs_offline(commands: Commands) -> None:
    unreachable = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "2"}
    ended = commands.run(*fit("offline", "--run.wandb=online"), environment=unreachable)
    assert ended.status == 0, ended.printed[-3000:]
    assert "W&B can't be reached (" in ended.printed
    assert (
        len(list((commands.folder / "offline" / "wandb").glob("offline-run-*/run-*.wandb"))) == 1
        and len(logged(commands.folder / "offline")) == 4
    )


@pytest.mark.slow
def test_two_runs_can_share_a_cache_folder(commands: Commands) -> None:
    with commands_in(commands.folder) as others:
        for number in range(3):
            both = [f"one{number}", f"other{number}"]
            for server, name in zip((commands, others), both, strict=True):
                server.begin(*fit(name, f"--data.cache_dir=shared{number}"))
            for server in (commands, others):
                ended = server.end()
                assert ended.status == 0 and "is built again" not in ended.printed, ended.printed[-3000:]
            one, other = (weights(commands.folder / name) for name in both)
            assert all(torch.equal(value, other[key]) for key, value in one.items())
            assert {path.suffix for path in (commands.folder / f"shared{number}").rglob("*") if path.is_file()} == {
                ".npz"
            }
