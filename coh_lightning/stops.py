"""How a run stops before its end, so that it can be gone on with: checkpoints that are whole or not there
(`RunTrainer`), and signals (`StopOnSignal`).
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from coh_lightning.files import PART, put_in_place, remove, unwritten

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send to a run before they end it; SLURM's `--signal` is usually SIGUSR1."""


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes where it is told to. Lightning's own writes all of a checkpoint into memory, then into the folder of
    temporary files, and copies it from there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


class RunTrainer(pl.Trainer):
    """Lightning's Trainer, with checkpoints that are whole or not there, be it one file or a folder of shards."""

    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool | None = None, storage_options: Any = None
    ) -> None:
        """As Lightning's, but written aside and renamed.

        Raises:
            InputError: the disk is full, or read-only, ...
        """
        path = Path(self.strategy.broadcast(str(filepath)))
        if "://" in str(filepath):  # no file of this machine
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = DirectCheckpointIO()
        aside = path.with_name(f".{path.name}{PART}")  # the same on all ranks
        try:
            if self.is_global_zero:
                remove(aside)  # of a process that was killed
            self.strategy.barrier()
            super().save_checkpoint(aside, weights_only, storage_options)
            if self.is_global_zero:
                if path.exists() and path.is_dir() != aside.is_dir():
                    remove(path)
                put_in_place(aside, path)
            self.strategy.barrier()
        except (OSError, RuntimeError) as error:
            if self.is_global_zero:
                remove(aside)
            raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError | RuntimeError) -> Exception:
    """torch tells in words of its own, with the OSError as their context or not, that it couldn't write."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else unwritten(path, cause)


class StopOnSignal(pl.Callback):
    """SIGTERM and SIGUSR1 end `fit` after the step that is being made, on all ranks, with a checkpoint of it. A
    validation is finished first.

    Lightning alone stops within a step and saves nothing on SIGTERM, and dies of SIGUSR1. What it does on SIGUSR1 under
    SLURM (a checkpoint `hpc_ckpt_N.ckpt` in the run folder, and the job queued again) is left to it, but happens at the
    end of the step too.

    Args:
        folder: Name of the folder, in that of the run, for the checkpoint `step=N.ckpt`.

    Attributes:
        received: The signal that ended the run, None where none did.
    """

    def __init__(self, folder: str = "checkpoints") -> None:
        self.folder = folder
        self.received: int | None = None
        self._noted = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # Lightning puts back, at the end, what stood there before it came
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: object) -> None:
        self._noted = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        if trainer.world_size > 1:  # whichever of them was told, all stop after the same step
            noted = torch.tensor(self._noted, device=trainer.strategy.root_device)
            self._noted = int(trainer.strategy.reduce(noted, reduce_op="max"))
        if not self._noted or trainer.global_step == trainer.max_steps:
            return
        self.received = self._noted
        if self.received == signal.SIGUSR1 and callable(self._before.get(signal.SIGUSR1)):
            self._before[signal.SIGUSR1](self.received, None)
        else:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / self.folder / f"step={trainer.global_step}.ckpt")
        self._before[signal.SIGTERM](
            signal.SIGTERM, None
        )  # Lightning ends the run once the figures of this step are written

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.received is not None:
            raise SIGTERMException
