"""Ranks that a test starts, each a process of its own: how it starts and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch.distributed as dist

SECONDS = 120
"""Time that the ranks of one test have."""


def started(script: str, folder: Path, what: str, *, ranks: int = 1, threads: int = 1) -> list[str]:
    """What the processes of a run of `script FOLDER WHAT` print; all of them are ended when one fails or the time is up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[1]
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as errors:
        try:
            for rank in range(ranks):
                inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))}
                of_rank = (
                    {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                    if ranks > 1
                    else {}
                )
                environment = (
                    inherited
                    | of_rank
                    | {"RANKS": str(ranks), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(root)}
                )
                command = [sys.executable, script, str(folder), what]
                processes.append(
                    subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, cwd=folder)
                )
            end = time.monotonic() + SECONDS
            while any(process.poll() is None for process in processes):
                if time.monotonic() > end or any(process.poll() for process in processes):
                    break
                time.sleep(0.1)
            codes = [process.poll() for process in processes]
            errors.seek(0)
            assert codes == [0] * ranks, f"exit codes {codes} (None: still running after {SECONDS} s)\n{errors.read()[-4000:]}"
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return [process.stdout.read() for process in processes if process.stdout is not None]


def rank_of() -> tuple[int, int]:
    """(own rank, ranks) of a process that `started` has started."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("RANKS", "1"))


def end_rank() -> None:
    """Leaves the process with exit code 0, once all ranks have come here. To be called last, so that a rank that raises before ends with a failure.

    Gloo and autograd keep threads. At Python's ordinary end these are taken apart in an order that nobody fixes, and once in a while a rank whose work was
    done and written died in it ("terminate called without an active exception", SIGABRT). Nothing is taken apart here.
    """
    if dist.is_initialized():
        dist.barrier()  # a rank that is still exchanging something would miss this one
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
