"""A run can stop early and resume, on any number of ranks: checkpoints are complete or absent (`RunTrainer`), signals
end the run (`StopOnSignal`), and counters are saved as of the end of an optimizer step.

Lightning counts the micro-batches of a rank. The plan gives every step the same rows on any number of ranks, so
these are the same place:

    2 ranks, 4 rows a step: 2 micro-batches      step 3 is over after micro-batch  6 of each rank
    1 rank,  4 rows a step: 4 micro-batches      step 3 is over after micro-batch 12

A checkpoint keeps Lightning's counters at the end of a step (`to_step_start`), and a run that resumes from it counts
them in its own micro-batches (`recount`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from coh_lightning.errors import InputError
from coh_lightning.io import PART, explain_os_error, put_in_place, remove

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send to a run before they end it; SLURM's `--signal` is usually SIGUSR1."""


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes straight to the file; Lightning's own serializes the whole checkpoint in memory first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


class RunTrainer(pl.Trainer):
    """Lightning's Trainer, with checkpoints (a file or a folder of shards) that are complete or absent."""

    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool | None = None, storage_options: Any = None
    ) -> None:
        """Writes to a temporary name and renames. Raises InputError if the disk is full, or read-only, ..."""
        path = Path(self.strategy.broadcast(str(filepath)))
        if "://" in str(filepath):  # not a file of this machine
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        if type(self.strategy.checkpoint_io) is TorchCheckpointIO:
            self.strategy.checkpoint_io = DirectCheckpointIO()
        aside = path.with_name(f".{path.name}{PART}")  # the same on all ranks
        try:
            if self.is_global_zero:
                remove(aside)  # left by a process that was killed
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
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):  # torch may wrap it
                cause = cause.__cause__ or cause.__context__
            raise (error if cause is None else explain_os_error(path, cause)) from error


class StopOnSignal(pl.Callback):
    """SIGTERM and SIGUSR1 end `fit` after the current step (and its validation), on all ranks, with a checkpoint
    `step=N.ckpt` in `folder` of the run folder. SIGTERM ends `validate`, `test` and `predict` at once, which have
    nothing to keep; Lightning alone would go on to their end.

    Lightning alone stops within a step and saves nothing on SIGTERM, and dies of SIGUSR1. What it does on SIGUSR1 under
    SLURM (a checkpoint `hpc_ckpt_N.ckpt`, and the job queued again) is left to it, at the end of the step too.
    """

    def __init__(self, folder: str = "checkpoints") -> None:
        self.folder = folder
        self.received: int | None = None
        """The signal that ended the run."""
        self._noted = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # at the end, Lightning restores the handlers that were there before its own
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _end_at_once()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _end_at_once()

    def _note(self, number: int, frame: object) -> None:
        self._noted = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        if trainer.world_size > 1:  # whichever rank got the signal, all stop after the same step
            noted = torch.tensor(self._noted, device=trainer.strategy.root_device)
            self._noted = int(trainer.strategy.reduce(noted, reduce_op="max"))
        if not self._noted or trainer.global_step == trainer.max_steps:
            return
        self.received = self._noted
        if self.received == signal.SIGUSR1 and callable(self._before.get(signal.SIGUSR1)):
            self._before[signal.SIGUSR1](self.received, None)
        else:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / self.folder / f"step={trainer.global_step}.ckpt")
        # Lightning ends the run once the metrics of this step are written
        self._before[signal.SIGTERM](signal.SIGTERM, None)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.received is not None:
            raise SIGTERMException
        if trainer.validating and trainer.state.fn != "fit":
            _end_at_once()


def _end_at_once() -> None:
    """SIGTERM raises an exception wherever the run is. At the end, Lightning restores the handler of before."""

    def end(number: int, frame: object) -> None:
        raise SIGTERMException

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def to_step_start(loops: dict[str, Any], micro_batches: int) -> None:
    """Moves the counters of a checkpoint that was saved within a step back to the end of the step before, in place.

    Lightning may save within a step: after an interval of time, at a validation there, and once more after the first
    micro-batch of a resumed run. A checkpoint has no gradients, and its weights are those of the step's beginning.
    What is left is what Lightning saves when a step's last micro-batch is over: all counters at a whole step, except
    `completed` and `_batches_that_stepped`, which it raises later.

    Args:
        loops: `checkpoint["loops"]["fit_loop"]`.
        micro_batches: Micro-batches of a rank in one step.
    """
    batches = loops["epoch_loop.batch_progress"]
    extra = batches["current"]["ready"] % micro_batches
    if not extra:
        return
    for counts in (batches["total"], batches["current"]):
        whole = counts["ready"] - extra
        counts.update(ready=whole, started=whole, processed=whole, completed=whole - 1)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def recount(checkpoint: dict[str, Any], micro_batches: int) -> None:
    """Counts a checkpoint's progress in this run's micro-batches (`micro_batches` per step and rank), in place; steps,
    epochs and rows stay the same.

    How many micro-batches its own steps had follows from its totals. A second call changes nothing.
    """
    batches, steps = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], checkpoint["global_step"]
    before = batches["total"]["ready"] // steps if steps else micro_batches
    for counts in (batches["total"], batches["current"]):
        ready = counts["ready"]
        whole = ready // before * micro_batches
        # `completed` may lag behind by one
        counts.update({name: whole - (ready - count) for name, count in counts.items()})


def check_same_plan(saved: Mapping[str, Any] | None, now: Mapping[str, Any], micro_batches: int) -> None:
    """Refuses to resume with other rows than those that a checkpoint was trained on.

    Args:
        saved: Of the checkpoint's run: `CoHDataModule.plan_settings`, and `steps_of_epoch`. None for weights only.
        now: The same of this run.
        micro_batches: Micro-batches of a rank in one step of this run.

    Raises:
        InputError: they differ; names the first difference.
    """
    if saved is None:
        raise InputError("ckpt_path: this checkpoint has only weights; start from them with model.name_or_path.")
    for key, value in now.items():
        was = saved[key]
        if was == value:
            continue
        if key == "steps_of_epoch":
            raise InputError(
                f"trainer.limit_train_batches leaves {value} steps in an epoch, but the checkpoint's run had {was}; "
                f"set it to {was * micro_batches}, which is as many steps of {micro_batches} micro-batches."
            )
        changed = f"data.{key} has changed from {was!r} to {value!r}"
        changed = "the training records or their tokens have changed" if key == "rows" else changed
        raise InputError(
            f"ckpt_path: {changed} since the checkpoint was written, so the rows that come next can't be found; set "
            "it back, or start from the checkpoint's weights with model.name_or_path."
        )
