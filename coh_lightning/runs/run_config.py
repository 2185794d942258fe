"""What a run keeps besides Lightning's files: the resolved configuration, last.ckpt, and the mark of a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write
from coh_lightning.runs.run_folder import (
    CHECKPOINTS,
    CONFIG,
    FILES_OF_SETUP,
    FINISHED,
    LAST,
    Run,
    code_versions,
    with_versions,
)
from coh_lightning.yaml_text import load


class RunConfig(pl.Callback):
    """Writes the resolved configuration `text` (YAML) as `file` of the run folder, and what this module names.

    Without `keep` (a `fast_dev_run`) nothing is written.
    """

    def __init__(self, run: Run, text: str, file: str, *, keep: bool) -> None:
        self.run = run
        self.text = text
        self.file = file
        self.keep = keep
        self._log_every: int | None = None
        self._is_new = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # ranks that were not started by rank 0 (torchrun, SLURM) learn only here which folder it chose
        folder = trainer.strategy.broadcast(str(self.run.folder))
        trainer._default_root_dir = folder  # type: ignore[attr-defined]
        if trainer.is_global_zero and self.keep:
            file = Path(folder) / self.file
            self._is_new = not file.exists()
            with atomic_write(file) as aside:
                aside.write_text(with_versions(self.text, file), encoding="utf-8")
            for logger in trainer.loggers:
                logger.log_hyperparams({**load(self.text), "versions": code_versions()})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """A new run that fails before its first step (no such model, too little memory, ...) leaves nothing behind, so
        that the corrected command may be given again; an interrupted one keeps its folder. A refused `test` or
        `predict` leaves no file of its own either.
        """
        refused = self.file != CONFIG and self._is_new and isinstance(exception, InputError)
        if trainer.is_global_zero and refused:
            (Path(trainer.default_root_dir) / self.file).unlink(missing_ok=True)
        begun = self.file == CONFIG and self.run.resume is None and trainer.global_step == 0
        if trainer.is_global_zero and begun and isinstance(exception, Exception):
            for name in (self.file, *FILES_OF_SETUP):
                (Path(trainer.default_root_dir) / name).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the last step is always logged: a run shorter than log_every_n_steps has a metrics.csv too
        last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch):
            self._log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            trainer.log_every_n_steps = min(1, self._log_every)  # type: ignore[attr-defined]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._log_every is not None:
            trainer.log_every_n_steps = self._log_every  # type: ignore[attr-defined]
        if trainer.checkpoint_callbacks and self.keep:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / LAST)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.keep:
            return
        folder = Path(trainer.default_root_dir)
        last = folder / CHECKPOINTS / LAST
        if self.run.resume is not None and not last.exists():  # it had stopped after its last step
            with atomic_write(last) as aside:
                (shutil.copytree if self.run.resume.is_dir() else shutil.copyfile)(self.run.resume, aside)
        with atomic_write(folder / FINISHED) as aside:
            aside.write_text(f"{trainer.global_step} steps\n", encoding="utf-8")
