"""What a finished `fit` says: where the run is, which figures moved, the samples, the next commands.

finished: runs/quickstart/20260101-120000-1a2b3c4d (400 steps)
figures:  train/loss 0.752 → 0.498, val/nll 0.61 → 0.48, val/gap_overall −0.010 → +0.041
samples:  runs/quickstart/20260101-120000-1a2b3c4d/samples.html (open it in a browser)
ask it:   coh chat runs/quickstart/20260101-120000-1a2b3c4d
test it:  coh test --config ...
"""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from coh_lightning.generation.figures import headline
from coh_lightning.generation.sample_means import short_number
from coh_lightning.runs.run_folder import CHECKPOINTS, CONFIG, LAST

METRICS = "metrics.csv"
SAMPLES = "samples.html"
HELD_OUT = ("val/nll", "val/preference_accuracy_sum")
"""The figures that are shown; the control gap, where there is one, takes the second place."""


def closing_lines(folder: Path, size: str) -> list[str]:
    """The lines, each whole: a path or a command to copy is never broken. `size`: how long the run was."""
    lines = [f"finished: {folder} ({size})"]
    if figures := moved(folder / METRICS):
        lines.append(f"figures:  {', '.join(figures)}")
    samples = folder / SAMPLES
    lines.append(f"samples:  {samples} (open it in a browser)" if samples.is_file() else "samples:  test writes some")
    if (checkpoint := folder / CHECKPOINTS / LAST).exists():
        quoted = shlex.quote(str(folder))
        config, weights = shlex.quote(str(folder / CONFIG)), shlex.quote(str(checkpoint))
        lines.append(f"ask it:   coh chat {quoted}")
        lines.append(f"test it:  coh test --config {config} --ckpt_path={weights} --run.folder={quoted}")
    return lines


def moved(file: Path) -> list[str]:
    """The run's main figures in its metrics.csv, each with its first and its last value (one: only that)."""
    if not file.is_file():
        return []
    columns: dict[str, list[float]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            for name, value in row.items():
                if value:
                    columns.setdefault(name, []).append(float(value))
    gaps = headline({name.removeprefix("val/"): 0.0 for name in columns if name.startswith("val/gap_")})
    names = [*HELD_OUT[:1], *(f"val/{gap}" for gap in gaps)] if gaps else [*HELD_OUT]
    names = [name for name in names if name in columns] or [name for name in ("train/loss",) if name in columns]
    return [f"{name} {_way(columns[name], signed='/gap_' in name)}" for name in names]


def _way(values: list[float], *, signed: bool) -> str:
    ends = values if len(values) == 1 else [values[0], values[-1]]
    return " → ".join(("+" if signed and value > 0 else "") + short_number(value) for value in ends)
