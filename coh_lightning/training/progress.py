"""One line of progress on stderr, for the whole of a run; it fits into 80 columns:

    ━━━━━━━━━━━━━━━━━━━━ step 120 of 400 · 0:34 left · loss 0.747
    ━━━━━━━━━━━━━━━━━━━━ step 200 of 400 · 0:24 left · validation 12 of 42
    ━━━━━━━━━━━━━━━━━━━━ writing 30 of 256 · 1:02 left                             test and predict

Where stderr isn't a terminal (a log, a notebook), a tenth of the way is a plain line, at most one in ten seconds.
"""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

BAR = 20
"""Width of the bar."""
PAUSE = 10.0
"""Seconds between two lines of a log, at least."""


class RunProgress(ProgressBar):
    """The progress of `fit`, in optimizer steps, or of `validate`, `test` and `predict`, in batches of each loader."""

    def __init__(self) -> None:
        super().__init__()
        self._on = True
        self._line: ProgressLine | None = None
        self._steps, self._first_step, self._loader = 0, 0, -1

    def disable(self) -> None:
        """Called by Lightning, on all ranks but the first."""
        self._on = False

    def enable(self) -> None:
        self._on = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        steps = trainer.estimated_stepping_batches  # -1 or inf: the run has no end
        self._steps, self._first_step = (int(steps) if 0 < steps < float("inf") else 0), trainer.global_step
        self._end()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._line is None:  # not before: the module's own hook shows the summary of the run first
            self._begin(transient=False)
            self._show_step(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            self._show_step(trainer)

    def _show_step(self, trainer: pl.Trainer, at_work: str | None = None) -> None:
        if self._line is None:
            return
        step, total, metrics = trainer.global_step, self._steps, trainer.progress_bar_metrics
        loss = metrics.get("train/loss", metrics.get("loss"))
        at_work = at_work or (f"loss {loss:.3f}" if isinstance(loss, float) else None)
        done = f"step {step:,} of {total:,}" if total else f"step {step:,}"
        self._line.show(done, step, total, since=self._first_step, at_work=at_work)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        every: Any = {
            TrainerFn.FITTING: trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches,
            TrainerFn.VALIDATING: trainer.num_val_batches,
            TrainerFn.TESTING: trainer.num_test_batches,
            TrainerFn.PREDICTING: trainer.num_predict_batches,
        }[TrainerFn(trainer.state.fn)]
        total = int(every[dataloader_idx] if isinstance(every, list) else every)
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._show_step(trainer, f"validation {batch_idx + 1:,} of {total:,}")
            return
        if dataloader_idx != self._loader:
            self._loader = dataloader_idx
            self._begin(transient=True)
        if self._line is not None:
            name = "first check" if trainer.sanity_checking else _work(batch)
            self._line.show(f"{name} {batch_idx:,} of {total:,}", batch_idx, total)

    on_validation_batch_start = on_predict_batch_start = on_test_batch_start

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        writes = getattr(getattr(pl_module, "generation", None), "generate_every_n_validations", 0)
        if writes and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._show_step(trainer, "writing completions")  # which the module does next

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._show_step(trainer)
        else:
            self._end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end()

    on_test_end = on_predict_end = on_train_end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._end()

    def _begin(self, *, transient: bool) -> None:
        if self._line is not None:
            self._line.stop()
        self._line = ProgressLine(transient=transient) if self._on else None

    def _end(self) -> None:
        if self._line is not None:
            self._line.stop()
        self._line, self._loader = None, -1


def _work(batch: Any) -> str:
    """What is done with a batch of CoHDataModule."""
    keys = batch if isinstance(batch, dict) else ()
    return "writing" if "requests" in keys else "comparisons" if "pairs" in keys else "losses"


class ProgressLine:
    """The line on the terminal, or the lines of a log; a `transient` one vanishes at its end."""

    def __init__(self, *, transient: bool) -> None:
        console = Console(stderr=True)
        self._begun = self._printed = monotonic()
        self._tenth = 0
        self._progress: Progress | None = None
        if sys.stderr.isatty() and not console.is_dumb_terminal:  # not rich's word: FORCE_COLOR is no terminal
            text = TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            )
            self._progress = Progress(
                BarColumn(BAR), text, console=console, transient=transient, redirect_stdout=sys.stdout.isatty()
            )
            self._task = self._progress.add_task("", total=None)
            self._progress.start()

    def show(self, words: str, done: int, total: int, *, since: int = 0, at_work: str | None = None) -> None:
        """`done` of `total` (0: it has no end), of which this process began at `since`."""
        parts = [words]
        if total and done > since:
            seconds = (monotonic() - self._begun) / (done - since) * (total - done)
            parts += [f"{duration(seconds)} left"] if done < total else []
        text = " · ".join([*parts, *([at_work] if at_work else [])])
        if self._progress is not None:
            self._progress.update(self._task, description=text, completed=done, total=total or None)
            return
        tenth = 10 * done // total if total else done
        if tenth > self._tenth and (monotonic() - self._printed >= PAUSE):
            self._tenth, self._printed = tenth, monotonic()
            print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def duration(seconds: float) -> str:
    """0:07, 12:30, 3:05:00"""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
