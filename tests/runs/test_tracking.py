"""What is recorded of a run, and where: the code that it was made with, W&B's own files, and nothing that leaves the
machine unasked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coh_lightning.__main__ import main
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.runs import run_folder as runs
from helpers.stand_ins import SIX, Data, Model, Source, names

ROOT = Path(__file__).parents[2]
TINY = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=3",
    "--trainer.limit_val_batches=12",
    "--data.max_validation_prompts=2",
]
"""The quickstart, cut to two steps, with validations of rows and pairs."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Call the command line in this process, with the stand-ins, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "ours", lambda: (Model, Data, (Source,)))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["coh_lightning", *words])
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        return main()

    return call


def run(code: str, *words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, in a folder from which the repository's files are reached as from its
    top.
    """
    if not (folder / "conf").exists():
        (folder / "conf").symlink_to(ROOT / "conf")
    (folder / "script.py").write_text(code)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", cli.RUN_FOLDER))}
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "script.py", *words],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def test_the_configuration_names_the_versions_that_ran_it(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "code_versions", lambda: {"coh_lightning": "1.0", "commit": "abc"})
    assert call("fit", *SIX, "--run.folder=r") == 0
    text = Path("r/config.yaml").read_text()
    assert text.startswith("# run with coh_lightning 1.0, commit abc\n")
    assert yaml.safe_load(text)["model"]["lr"] == 0.01


def test_a_run_resumed_with_other_code_names_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.yaml"
    for commit in ("abc", "abc", "def"):
        monkeypatch.setattr(runs, "code_versions", lambda commit=commit: {"coh_lightning": "1.0", "commit": commit})
        file.write_text(runs.with_versions("lr: 1\n", file))
    assert (
        file.read_text()
        == "# run with coh_lightning 1.0, commit abc\n# run with coh_lightning 1.0, commit def\nlr: 1\n"
    )


def test_the_commit_is_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed in a virtual environment within somebody's checkout must not give that checkout's
    commit for its own.
    """

    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *author, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "site" / "runs.py"
    package.parent.mkdir()
    package.write_text("")
    (tmp_path / "theirs.txt").write_text("")
    git("init", "-q")
    git("add", "theirs.txt")
    git("commit", "-qm", "theirs")
    monkeypatch.setattr(runs, "__file__", str(package))
    assert "commit" not in runs.code_versions()
    git("add", "site")
    git("commit", "-qm", "ours")
    assert runs.code_versions()["commit"] == git("rev-parse", "--short=12", "HEAD")
    package.write_text("changed")
    assert runs.code_versions()["commit"] == git("rev-parse", "--short=12", "HEAD") + "-dirty"


def test_a_run_keeps_its_id_with_wandb(tmp_path: Path) -> None:
    assert runs.wandb_id(tmp_path) is None
    for name in ("offline-run-20260102_120000-later", "run-20260101_120000-early", "latest-run", "debug.log"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert runs.wandb_id(tmp_path) == "later"
    (tmp_path / "wandb" / "run-20260103_120000-with-dashes").mkdir()
    assert runs.wandb_id(tmp_path) == "with-dashes"


def test_wandb_is_off_by_default(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fit", *SIX, "--run.folder=r") == 0
    assert names(Path("r")) == ["checkpoints/last.ckpt", "config.yaml", "finished", "metrics.csv"]
    assert call("fit", *SIX, "--run.wandb=of-line") == 2
    assert "error: run.wandb is 'of-line'; it must be one of offline, online" in capsys.readouterr().err


def test_a_configured_logger_writes_into_the_run_folder(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: made.extend(self.trainer.loggers))
    logger = "{class_path: WandbLogger, init_args: {project: mine, offline: true%s}}"
    assert call("fit", *SIX, "--run.folder=r", f"--trainer.logger={logger % ''}") == 0
    assert call("fit", *SIX, "--run.folder=s", f"--trainer.logger=[{logger % ', save_dir: elsewhere'}]") == 0
    assert [(type(one).__name__, one.save_dir, one.name) for one in made[1::2]] == [
        ("WandbLogger", "r", "mine"),
        ("WandbLogger", "elsewhere", "mine"),
    ]


GUARD = """
import os, socket, sys

def guarded(real):
    def connect(self, address, *rest):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            refuse(address)
        return real(self, address, *rest)
    return connect

def refuse(address, *rest, **more):
    with open("touched.txt", "a") as file:
        file.write(f"{address}\\n")
    raise OSError(f"the network was touched: {address}")

real_lookup = socket.getaddrinfo
LOCAL = (None, "127.0.0.1", "localhost", "::1")
socket.getaddrinfo = lambda host, *rest, **more: (real_lookup if host in LOCAL else refuse)(host, *rest, **more)
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
from coh_lightning.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""The command line in a process that records and refuses every connection to another machine."""


@pytest.mark.slow
def test_offline_wandb_keeps_samples_config_and_versions_without_the_network(tmp_path: Path) -> None:
    fit = ["fit", "--config=conf/quickstart.yaml", *TINY]
    run(GUARD, *fit, "--run.folder=plain", folder=tmp_path)
    run(GUARD, *fit, "--run.folder=tracked", "--run.wandb=offline", folder=tmp_path, WANDB_PROJECT="mine")
    run(
        GUARD,
        "predict",
        "--config=plain/config.yaml",
        "--ckpt_path=plain/checkpoints/last.ckpt",
        "--run.folder=plain",
        folder=tmp_path,
    )
    assert not (tmp_path / "touched.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"conf", "script.py", "plain", "tracked"}
    [kept] = (tmp_path / "tracked" / "wandb").glob("offline-run-*")
    [table, *_] = sorted((kept / "files" / "media" / "table").glob("completions*.json"))
    assert len(json.loads(table.read_text())["data"]) == 4  # two prompts, each under the good and the bad sentence
    [binary] = kept.glob("*.wandb")
    record = binary.read_bytes()
    for word in (b"rows_per_step", b"versions", b"val/preference_accuracy_sum", b"mine"):
        assert word in record
    assert (tmp_path / "plain" / "metrics.csv").read_text().splitlines()[0] == (
        tmp_path / "tracked" / "metrics.csv"
    ).read_text().splitlines()[0]


@pytest.mark.slow
def test_the_network_guard_sees_lookups_and_connections(tmp_path: Path) -> None:
    code = """
import socket
connect = lambda: socket.create_connection(("192.0.2.1", 80), timeout=1)
look_up = lambda: socket.getaddrinfo("example.invalid", 443)
for attempt in (connect, look_up):
    try:
        attempt()
    except OSError:
        pass
"""
    run(GUARD.split("from coh_lightning")[0] + code, folder=tmp_path)
    assert (tmp_path / "touched.txt").read_text() == "192.0.2.1\nexample.invalid\n"


RANKS = """
import os, sys
if os.environ.get("LOCAL_RANK", "0") != "0":
    sys.modules["wandb"] = None  # to import it is an ImportError from now on
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.__main__ import main
from helpers.stand_ins import Data, Model, Source
cli.ours = lambda: (Model, Data, (Source,))
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.slow
def test_only_rank_zero_uses_wandb(tmp_path: Path) -> None:
    words = ["fit", *SIX, "--trainer.devices=2", "--trainer.strategy=ddp", "--run.folder=r", "--run.wandb=offline"]
    run(RANKS, *words, folder=tmp_path)
    assert len(list((tmp_path / "r" / "wandb").glob("offline-run-*"))) == 1
    assert (tmp_path / "r" / "finished").exists()


@pytest.mark.slow
def test_a_resumed_run_keeps_its_wandb_run(tmp_path: Path) -> None:
    words = [
        "fit",
        *SIX,
        "--run.folder=r",
        "--run.wandb=offline",
        "--trainer.callbacks+={class_path: ModelCheckpoint, init_args: {every_n_train_steps: 1}}",
    ]
    stopped = RANKS.replace(
        "if __name__", "def stop():\n    raise RuntimeError('stop')\nModel.break_at = stop\nif __name__"
    )
    with pytest.raises(AssertionError, match="RuntimeError: stop"):
        run(stopped, *words, folder=tmp_path)
    run(RANKS, *words, folder=tmp_path)
    kept = [re.sub(r".*run-\d+_\d+-", "", path.name) for path in (tmp_path / "r" / "wandb").glob("offline-run-*")]
    assert len(kept) == 2 and kept[0] == kept[1]
