"""metrics.csv of a run: Lightning's CSV logger with one file in the run folder, continued when a run resumes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from coh_lightning.io import atomic_write, explain_os_error


class MetricsFile(CSVLogger):
    """Lightning's CSV logger with one file directly in the run folder, continued when a run resumes.

    Args:
        folder: The run folder.
        file: metrics.csv for fit, else test.csv, ...
        append: Keep the rows that are there, up to the step from which this process logs.
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
        """Nothing: config.yaml has them all."""


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
        """Raises InputError where the disk is full, or read-only, ..."""
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
        """Drops the rows of the steps that a resumed run repeats, and a last row that was cut short."""
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
