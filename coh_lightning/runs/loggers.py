"""The loggers of a run: metrics.csv, and W&B's record, kept in the run folder; nothing is sent without
`--run.wandb=online`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from coh_lightning.errors import first_line
from coh_lightning.io import atomic_write, explain_os_error
from coh_lightning.runs.run_folder import wandb_id


class MetricsFile(CSVLogger):
    """Lightning's CSV logger with one file (metrics.csv, test.csv, ...) directly in the run folder.

    With `append`, when a run resumes, the rows before the step from which it logs are kept.
    """

    def __init__(self, folder: Path, file: str, *, append: bool) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._file = file
        self._append = append

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if not isinstance(self._experiment, _MetricsWriter):
            self._experiment = _MetricsWriter(self.log_dir, self._file, append=self._append)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Does nothing: config.yaml has them all."""


class _MetricsWriter(ExperimentWriter):
    def __init__(self, log_dir: str, file: str, *, append: bool) -> None:
        self.NAME_METRICS_FILE = file
        self._append = append
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists() and not self._append:
            path.unlink()

    def save(self) -> None:
        """Raises InputError if the disk is full, or read-only, ..."""
        if not self.metrics:  # Lightning saves before it logs
            return
        if self._append and Path(self.metrics_file_path).exists():
            self._drop_rows_from(min(row["step"] for row in self.metrics))
        self._append = False
        try:
            super().save()
        except OSError as error:
            raise explain_os_error(self.metrics_file_path, error) from error

    def _drop_rows_from(self, step: float) -> None:
        """Drops the rows that a resumed run repeats, and a last row that was cut short."""
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(line for line in file if line.endswith("\n"))
            rows = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or [])
        self._write_anew(self.metrics_keys, rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._write_anew(fieldnames, rows)

    def _write_anew(self, fieldnames: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        with atomic_write(self.metrics_file_path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)


def wandb_logger(folder: Path, mode: Literal["offline", "online"]) -> WandbLogger:
    """The logger of `--run.wandb`: a resumed run is the same run for W&B. W&B's own variables come first."""
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "coh_lightning"),
        name=os.environ.get("WANDB_NAME", folder.name),
        id=os.environ.get("WANDB_RUN_ID") or wandb_id(folder),
        save_dir=folder,
        offline=mode == "offline",
    )


def keep_in(folder: Path, logger: object) -> None:
    """A W&B logger of the configuration that names no folder writes into the run folder, not the working folder."""
    if isinstance(logger, Namespace) and str(logger.get("class_path", "")).endswith("WandbLogger"):
        if logger.init_args.get("save_dir") in (None, "."):
            logger.init_args.save_dir = str(folder)


def connect(loggers: Iterable[Logger], folder: Path, say: Callable[[str], None]) -> None:
    """Begins the run on W&B, or offline (for `wandb sync` to send later) if W&B can't be reached."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        try:
            logger.experiment  # noqa: B018 - what begins a run of W&B
        except wandb.errors.CommError as error:
            wandb.teardown()
            os.environ["WANDB_MODE"] = "offline"
            later = f"wandb sync {folder}/wandb/offline-run-*"
            say(f"W&B can't be reached ({first_line(error)}); the run is logged offline: {later}")
