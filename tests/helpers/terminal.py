"""A command in a terminal of 80 columns (a pseudo-terminal), as a person sees and types it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x07|\x1b\][^\x07]*\x07")
"""Colors, cursor movements and the like."""
ROOT = Path(__file__).parents[2]


class Terminal:
    """A Python process whose standard streams are a terminal; `said` is all of its output so far."""

    def __init__(
        self, words: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None, columns: int = 80
    ) -> None:
        self.end, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **(environment or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "COH_RUN_FOLDER"):
            own.pop(name, None)
        own["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        # the terminal controls the process, so that Ctrl-C reaches it
        control = partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=cwd,
            env=own,
            start_new_session=True,
            preexec_fn=control,
        )
        os.close(other)
        self.said = ""

    def read(self, seconds: float) -> bool:
        """Whether anything came within that time."""
        waiting = select.poll()  # select.select takes no descriptor above 1,023
        waiting.register(self.end, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return False
        try:
            new = os.read(self.end, 65536)
        except OSError:  # the process has closed its end
            return False
        self.said += new.decode("utf-8", errors="replace")
        return bool(new)

    def until(self, words: str, *, seconds: float = 120) -> str:
        """What is said from now on until these words have come. Raises TimeoutError."""
        start, deadline = len(self.said), time.monotonic() + seconds
        while words not in CONTROL.sub("", self.said[start:]):
            if time.monotonic() > deadline or (not self.read(1) and self.process.poll() is not None):
                raise TimeoutError(f"{words!r} did not come; there was {self.said[start:]!r}")
        return CONTROL.sub("", self.said[start:])

    def type(self, text: str) -> None:
        os.write(self.end, text.encode("utf-8"))

    def pause(self) -> None:
        """Reads until nothing more comes: the process waits for input again."""
        while self.read(2):
            pass

    def wait(self, *, seconds: float = 120) -> int:
        """Reads to the end; returns the exit status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.read(0.2) and self.process.poll() is not None:
                break
        self.close()
        return self.process.wait(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    @property
    def lines(self) -> list[str]:
        """The lines, also those that were written over."""
        return [line for line in re.split(r"[\r\n]+", CONTROL.sub("", self.said)) if line.strip()]
