"""Whole commands that can be killed: one process imports everything once, and forks for each command a child that runs
`coh_lightning.__main__.main`, as a user's process would.

A child is killed after some time, or some time after it has touched its n-th file (opened it to write, renamed it,
removed it), so that every moment of writing has its turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""Time that one command has at most."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (-9: killed), what it printed, the seconds that it took, and how many files
    it touched (0 where it was killed).
    """

    status: int
    printed: str
    seconds: float
    touched: int

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def error(self) -> str:
        """The single error line; fails if there is a traceback or no such line."""
        assert "Traceback" not in self.printed, self.printed[-4000:]
        [line] = [line for line in self.printed.splitlines() if line.startswith("error: ")]
        return line


class Commands:
    """The client of the process that forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("COH_RUN_FOLDER", None)
        self._server = subprocess.Popen(  # -P: this folder has a tokenizers.py
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def begin(self, *words: str, signals: Sequence[tuple[float, int]] = (), event: int = 0, **more: Any) -> None:
        """Begin a command without waiting for its end. See `run`."""
        asked = {"words": words, "cwd": str(self.folder), "signals": signals, "event": event, **more}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()

    def end(self) -> Ended:
        assert self._server.stdout is not None
        return Ended(**json.loads(self._server.stdout.readline()))

    def run(self, *words: str, signals: Sequence[tuple[float, int]] = (), event: int = 0, **more: Any) -> Ended:
        """Run a command to its end, whichever that is.

        Args:
            signals: (seconds, signal): sent so long after the start, or after the n-th file was touched where `event`
                is n, or after the file `once` is there.
            more: `once`; `environment`: variables; `disk`: {"at": folder, "size": bytes, "read_only": whether} for a
                small disk of the command's own.
        """
        self.begin(*words, signals=signals, event=event, **more)
        return self.end()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)


def serve() -> None:
    import torch

    import coh_lightning.callbacks
    import coh_lightning.cli.lightning_cli
    import coh_lightning.data
    import coh_lightning.human_eval.main
    import coh_lightning.module  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)
    os._exit(0)


def _forked(asked: Mapping[str, Any]) -> dict[str, Any]:
    printed, (touched, told) = Path(asked["cwd"]) / f"printed.{time.time_ns()}", os.pipe()
    printed.touch()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(touched)
        _child(asked, printed, told)
    os.close(told)
    with contextlib.closing(os.fdopen(touched, "rb", buffering=0)) as pipe:
        count = 0
        while asked["event"] and count < asked["event"]:
            if not (found := pipe.read(1)):
                break  # it came to its end before
            count += len(found)
        while (
            "once" in asked
            and not Path(asked["once"]).exists()
            and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.01)
        begun = time.monotonic() if asked["event"] or "once" in asked else start
        for after, number in asked["signals"]:
            while (left := begun + after - time.monotonic()) > 0 and os.waitid(
                os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ) is None:
                if select.select([pipe], [], [], min(left, 0.01))[0]:
                    count += len(pipe.read(4096) or b"")
                    if left < 0.001:
                        break
            os.kill(child, number)  # it is not waited for yet, so the number is its own
        while found := pipe.read(4096):
            count += len(found)
            if time.monotonic() > start + SECONDS:
                os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = printed.read_text(encoding="utf-8", errors="replace")
    printed.unlink()
    return {
        "status": status,
        "printed": text,
        "seconds": time.monotonic() - start,
        "touched": 0 if status < 0 else count,
    }


def _child(asked: Mapping[str, Any], printed: Path, told: int) -> None:
    status = 1
    try:
        with printed.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(asked.get("environment", {}))
        if "disk" in asked:
            _small_disk(**asked["disk"])
        os.chdir(asked["cwd"])
        sys.argv = ["coh_lightning", *asked["words"]]
        sys.addaudithook(lambda event, args: _tell(event, args, asked["cwd"], told))
        from coh_lightning.__main__ import main

        status = main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _tell(event: str, args: tuple[Any, ...], folder: str, told: int) -> None:
    """One byte for each file below the folder that is about to be written, renamed or removed."""
    writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
        event == "open" and len(args) > 2 and args[2] and args[2] & (os.O_WRONLY | os.O_RDWR)
    )
    if writes and isinstance(args[0], str | os.PathLike) and str(Path(args[0]).absolute()).startswith(folder):
        os.write(told, b".")


def _small_disk(at: str, size: int, read_only: bool = False) -> None:
    """Mount a disk of this size at a folder, for this process alone. Raises OSError where that isn't allowed."""
    library = ctypes.CDLL(None, use_errno=True)
    new_mounts, new_user, private, recursive, remount, only_read = 0x20000, 0x10000000, 1 << 18, 0x4000, 32, 1

    def call(name: str, *args: Any) -> None:
        if getattr(library, name)(*args):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    call("unshare", new_mounts | (new_user if os.getuid() else 0))
    call("mount", None, b"/", None, private | recursive, None)
    call("mount", b"tmpfs", at.encode(), b"tmpfs", 0, f"size={size}".encode())
    if read_only:
        call("mount", None, at.encode(), None, remount | only_read, None)


@contextlib.contextmanager
def commands_in(folder: Path) -> Iterator[Commands]:
    commands = Commands(folder)
    try:
        yield commands
    finally:
        commands.close()


if __name__ == "__main__":
    serve()
