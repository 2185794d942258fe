"""Starts ranks as a cluster would, defines the run that all tests of several ranks compare, and ends a rank."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.data import CoHDataModule
from coh_lightning.generation.sampling import Sampling
from coh_lightning.module import CoHModule
from coh_lightning.runs.preemption import RunTrainer
from helpers.feedback import data_of, grouped, merged, method, pairs, wording

ROOT = Path(__file__).parents[2]
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 520,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.2,
}
STEPS = 10
CLIP = 0.05
"""Below the norm of every gradient here, so that each step is clipped."""


# One run


def rows(folder: Path) -> CoHDataModule:
    """Steps of 8 rows each, two of them pretraining text; epochs whose last step is not full."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"Plain text, number {i}{' and on' * (i % 5)}." for i in range(40)), encoding="utf-8")
    return data_of(
        pairs(44),
        folder,
        train_only=False,
        validation_share=0.1,
        test_share=0.15,
        wording=wording("varied"),
        method=method("coh"),
        rows_per_step=6,
        pretraining_text=[str(text)],
        pretraining_rows_per_step=2,
    )


def module(**settings: Any) -> CoHModule:
    """A small model whose gradients are large; GPT-2 can run wholly in float64."""
    start = {} if "name_or_path" in settings else {"from_config": GPT2}
    return CoHModule(
        **grouped(
            start
            | {"lr": 1e-2, "warmup_ratio": 0.0, "sampling": Sampling(max_new_tokens=4, temperature=1.0)}
            | settings
        )
    )


def whole(value: Tensor) -> Tensor:
    """A copy of all of a tensor, of which this rank may hold a part; all ranks must call it."""
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


class Steps(pl.Callback):
    """This rank's part of the loss of each step, the first step's gradients, and the norm of every gradient before it
    is clipped.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.gradients: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.losses.append(0.0)
        self.losses[-1] += float(outputs["loss"]) / trainer.world_size  # Lightning has divided it by the micro-batches

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = {name: whole(p.grad) for name, p in pl_module.lm.named_parameters() if p.requires_grad}
        self.gradients = self.gradients or gradients
        self.norms.append(float(torch.stack([value.norm() for value in gradients.values()]).norm()))


def trainer(
    folder: Path, *callbacks: pl.Callback, devices: int = 1, strategy: Any = "auto", **settings: Any
) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    shape = {
        "accelerator": "cpu",
        "devices": devices,
        "strategy": strategy,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
    }
    clipped = {"gradient_clip_val": CLIP, "max_steps": STEPS, "limit_val_batches": 0, "default_root_dir": str(folder)}
    return RunTrainer(**(quiet | shape | clipped | settings), callbacks=list(callbacks))


def trained(
    folder: Path,
    *,
    write: bool = False,
    devices: int = 1,
    strategy: Any = "auto",
    settings: Any = None,
    **of_trainer: Any,
) -> dict[str, Any]:
    """The run, over more than one epoch, and what this rank saw of it."""
    data, model = (
        rows(folder),
        module(**({"generate_every_n_validations": 1, "refine": 1} if write else {}), **(settings or {})),
    )
    pl.seed_everything(0, verbose=False)
    seen = Steps()
    run = trainer(
        folder,
        seen,
        CompletionWriter(),
        devices=devices,
        strategy=strategy,
        limit_val_batches=1.0 if write else 0,
        **of_trainer,
    )
    run.fit(model, datamodule=data)
    weights = {name: whole(value) for name, value in model.lm.state_dict().items()}
    found = {
        "losses": seen.losses,
        "norms": seen.norms,
        "gradients": seen.gradients,
        "weights": weights,
        "epochs": run.current_epoch,
    }
    found["uneven"] = data.plan.num_rows % 6
    if write:
        found["metrics"] = {
            name: float(value) for name, value in merged(run.test(model, datamodule=data, verbose=False)).items()
        }
    return found


def losses(of_ranks: Sequence[dict[str, Any]]) -> list[float]:
    """The loss of each step, summed over the ranks."""
    return [sum(parts) for parts in zip(*(one["losses"] for one in of_ranks), strict=True)]


def relative(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """L2 norm of the difference, relative to the norm of the first."""
    assert one.keys() == other.keys()
    difference = torch.stack([(one[name].double() - other[name].double()).norm() for name in one]).norm()
    return float(difference / torch.stack([value.double().norm() for value in one.values()]).norm())


# Processes


def started(script: str, folder: Path, what: str, **settings: Any) -> list[str]:
    """What the processes of a run of `script FOLDER WHAT` print."""
    return commanded([script, str(folder), what], folder, **settings)


def rank_of() -> tuple[int, int]:
    """(own rank, ranks) of a process that `started` has started."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("RANKS", "1"))


def commanded(
    command: Sequence[str], folder: Path, *, ranks: int = 1, threads: int = 1, seconds: float = 120
) -> list[str]:
    """What the processes of a Python command print, each started as a cluster would start it; all of them are ended
    when one fails or the time is up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as errors:
        try:
            for rank in range(ranks):
                inherited = {
                    key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PYTEST_"))
                }
                of_rank = (
                    {
                        "LOCAL_RANK": str(rank),
                        "NODE_RANK": "0",
                        "WORLD_SIZE": str(ranks),
                        "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": str(port),
                    }
                    if ranks > 1
                    else {}
                )
                environment = (
                    inherited
                    | of_rank
                    | {
                        "RANKS": str(ranks),
                        "OMP_NUM_THREADS": str(threads),
                        "OMP_WAIT_POLICY": "PASSIVE",
                        "GLOO_SOCKET_IFNAME": "lo",
                        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                    }
                )
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        env=environment,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                        start_new_session=True,
                        cwd=folder,
                    )
                )
            end = time.monotonic() + seconds
            while any(process.poll() is None for process in processes):
                if time.monotonic() > end or any(process.poll() for process in processes):
                    break
                time.sleep(0.1)
            codes = [process.poll() for process in processes]
            errors.seek(0)
            assert codes == [0] * ranks, (
                f"exit codes {codes} (None: still running after {seconds} s)\n{errors.read()[-4000:]}"
            )
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return [process.stdout.read() for process in processes if process.stdout is not None]


def end_rank() -> None:
    """Leaves the process with exit code 0, once all ranks have come here. To be called last, so that a rank that raises
    before ends with a failure.

    Gloo and autograd keep threads. At Python's normal exit these are destroyed in an undefined order, and
    now and then a rank whose work was done and written died in it ("terminate called without an active exception",
    SIGABRT). Nothing is destroyed here.
    """
    if dist.is_initialized():
        dist.barrier()  # a rank that is still exchanging something would miss this one
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
