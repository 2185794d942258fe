"""The `monitor` of EarlyStopping and ModelCheckpoint: one that nothing logs is refused before training if that is known
by then, else when Lightning first misses it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import lightning.pytorch as pl

from coh_lightning.errors import InputError, did_you_mean

MISSED = re.compile(
    r"Early stopping conditioned on metric `(?P<early>[^`]*)` which is not available.*"
    r"any of the following: (?P<known>.*)"
    r"|`ModelCheckpoint\(monitor=(?P<checkpoint>'[^']*'|\"[^\"]*\")\)` could not find the monitored key in the "
    r"returned metrics: (?P<list>\[.*?\])\.",
    re.DOTALL,
)
"""Lightning's messages about a missing metric."""

WRITTEN = re.compile(r"val/.+_.+")
"""Metrics of completions (val/VALUE_CONDITION, val/gap_VALUE, ...); scorers choose the names of their values."""


class MonitorsKnown(pl.Callback):
    """Refuses, before training, a `monitor` that isn't among the module's `figures()`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = getattr(pl_module, "figures", lambda: None)()
        own = ("lightning.", "coh_lightning.")
        if figures is None or not all(type(callback).__module__.startswith(own) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            return  # others may log anything
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = getattr(callback, "monitor", None)
            if not isinstance(monitor, str) or monitor in {*figures, "epoch", "step"}:
                continue
            writes = bool(getattr(getattr(pl_module, "generation", None), "generate_every_n_validations", 0))
            if not (writes and WRITTEN.fullmatch(monitor)):
                raise InputError(unlogged(type(callback).__name__, monitor, figures, writes=writes))


def unlogged(callback: str, monitor: str, figures: Iterable[str], *, writes: bool = False) -> str:
    """The message about a metric that is not logged."""
    known = sorted(set(figures) - {"epoch", "step", ""})
    near = did_you_mean(monitor, known, "")
    there = f"; there are {', '.join(known)}." if len(known) <= 12 else "; metrics.csv of a run has their names."
    more = " Metrics of completions need model.generation.generate_every_n_validations=1."
    more = more if monitor.startswith("val/") and not near and not writes else ""
    return f"trainer.callbacks: the monitor of {callback} is '{monitor}', which nothing logs{near or there}{more}"


def missed(error: BaseException) -> str | None:
    """Our message for Lightning's exception about a missing metric; None for any other exception."""
    found = MISSED.search(str(error))
    if found is None:
        return None
    if found["early"] is not None:
        return unlogged("EarlyStopping", found["early"], found["known"].strip().strip("`").split("`, `"))
    known = re.findall(r"['\"]([^'\"]+)['\"]", found["list"])
    return unlogged("ModelCheckpoint", ast.literal_eval(found["checkpoint"]), known)
