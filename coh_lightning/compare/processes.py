"""Commands in processes of their own, one thread each, forked from one that has torch and Lightning loaded.

Starting Python, torch and Lightning takes seconds of a core for every command; a fork of a loaded process takes none.
The output of a command goes to its log; its mark (words, seconds) is written when it has ended with 0.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from coh_lightning.compare.steps import START, earlier
from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write
from coh_lightning.runs.commands import error_line, option_words
from coh_lightning.yaml_text import load

LOADED = ["coh_lightning.cli.lightning_cli", "coh_lightning.module", "coh_lightning.data", "coh_lightning.callbacks"]
"""What every command needs; by name, since the server imports it in its own process."""
TAIL = 20
"""Lines of a log that are shown when its command has failed."""
THREADS = "OMP_NUM_THREADS"
_ONE_AT_A_TIME = threading.Lock()
"""For starting a process and for asking how one ended: starting one asks all others, and of two threads that ask at the
same time one reads the exit status and the other, finding none left, takes it for 255."""


class Failed(InputError):
    """A command ended with an error; the message has the end of its log."""


def context() -> Any:
    """multiprocessing's fork server, with the heavy modules loaded once."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(LOADED)
    return made


@contextmanager
def one_thread() -> Iterator[None]:
    """The fork server, and so every command, computes with one thread."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


class Command:
    """A command that runs, until `finish`."""

    def __init__(self, words: Sequence[str], *, log: Path, mark: Path) -> None:
        for path in (log, mark):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.words, self.log = list(words), log
        self.process: BaseProcess = context().Process(target=_run, args=(self.words, str(log), str(mark)))
        with _ONE_AT_A_TIME:
            self.process.start()

    def finish(self) -> None:
        """Waits for its end. Raises Failed, with the end of its log, if it ended with an error."""
        wait([self.process.sentinel])
        with _ONE_AT_A_TIME:
            self.process.join()
            status = self.process.exitcode
        if status != 0:
            how = f"was killed by {signal.Signals(-status).name}" if status and status < 0 else f"ended with {status}"
            lines = self.log.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")[-TAIL:]
            tail = "\n".join(f"    {line}" for line in lines)
            raise Failed(
                f"{' '.join(self.words[:3])} {how}: {error_line(self.log)}; see {self.log}, which ends:\n{tail}"
            )

    def stop(self) -> None:
        """SIGTERM: a fit writes a checkpoint first. `finish` waits for its end."""
        self.process.terminate()


class Commands:
    """Commands that several threads run, each its own; all can be stopped at once."""

    def __init__(self) -> None:
        self.stopping = False
        self._lock = threading.Lock()
        self._running: set[Command] = set()

    def run(self, words: Sequence[str], *, log: Path, mark: Path) -> None:
        """Runs one to its end. Raises Failed, as `Command.finish` does."""
        command = Command(words, log=log, mark=mark)
        with self._lock:
            self._running.add(command)
        try:
            command.finish()
        finally:
            with self._lock:
                self._running.discard(command)

    def stop(self) -> None:
        self.stopping = True
        with self._lock:
            running = list(self._running)
        for command in running:
            command.stop()


def composed_configs(config: str, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | str]:
    """The configuration of `coh fit` under each of the settings, without what equals the defaults; or the error."""
    words = [["fit", "--config", config, *option_words(one), "--print_config=skip_default"] for one in settings]
    receiver, sender = context().Pipe(duplex=False)
    process = context().Process(target=_compose, args=(words, sender))
    process.start()
    sender.close()
    try:
        texts = receiver.recv()
    except EOFError as error:
        raise InputError(f"the process that composes the configurations of {config} was killed.") from error
    process.join()
    return [load(text) if ok else text for ok, text in texts]


def _compose(words: Sequence[Sequence[str]], sender: Any) -> None:
    main = import_module("coh_lightning.__main__").main
    found = []
    for one in words:
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                status = main(list(one))
            except SystemExit as stop:  # of --print_config
                status = int(stop.code or 0)
        said = [line for line in errors.getvalue().split("\n") if line.startswith("error: ")]
        text = "\n".join(said).removeprefix("error: ") or f"it ended with {status}"
        found.append((status == 0, out.getvalue() if status == 0 else text))
    sender.send(found)


def _run(words: Sequence[str], log: str, mark: str) -> None:
    """In the process of a command."""
    os.setpgrp()  # Ctrl-C goes to the comparison alone, which stops its commands
    _end_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    print(f"{START}{' '.join(words)}", flush=True)
    start = time.perf_counter()
    status = 1
    try:
        if words[0] == "-m":
            sys.argv = [words[1], *words[2:]]
            status = import_module(words[1]).main(list(words[2:]))
        else:
            status = import_module("coh_lightning.__main__").main(list(words))
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = round(used.ru_utime + used.ru_stime, 2)
        if status:
            with earlier(Path(mark)).open("a") as file_of_earlier:
                file_of_earlier.write(f"{cpu}\n")
    sys.stdout.flush()
    if status:
        sys.exit(status)
    with atomic_write(mark) as aside:
        seconds = {"cpu_seconds": cpu, "seconds": round(time.perf_counter() - start, 2)}
        aside.write_text(json.dumps({"words": list(words), **seconds}) + "\n", encoding="utf-8")


def _end_with_parent() -> None:
    """SIGTERM to this process if the comparison is killed, so that no fit is left behind."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
