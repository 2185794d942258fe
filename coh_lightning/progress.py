"""How far a run has come, in its checkpoint: whole optimizer steps, so that it can go on under any number of ranks.

Lightning counts the micro-batches of a rank. The plan gives every step the same rows whatever the ranks, so the same
place is

    2 ranks, 4 rows a step: 2 micro-batches      step 3 is over after micro-batch  6 of each rank
    1 rank,  4 rows a step: 4 micro-batches      step 3 is over after micro-batch 12

A checkpoint keeps Lightning's counters at the end of a step (`to_step_start`), and they are counted anew when a run
goes on from it (`recount`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coh_lightning.errors import InputError


def to_step_start(loops: dict[str, Any], micro_batches: int) -> None:
    """Moves the counters of a checkpoint that was saved within a step back to the end of the step before, in place.

    Lightning may save within a step: after an interval of time, at a validation there, and once more after the first
    micro-batch of a run that goes on. A checkpoint holds no gradients, and its weights are those of the step's
    beginning. What is left is what Lightning saves when a step's last micro-batch is over: all counters at a whole
    step, but for `completed` and `_batches_that_stepped`, which it raises later.

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
    """Counts a checkpoint's progress in this run's micro-batches, in place; the steps, epochs and rows stay what they
    are.

    How many micro-batches its own steps had follows from its totals. A second call changes nothing.

    Args:
        checkpoint: As Lightning loads it, of any number of ranks.
        micro_batches: Micro-batches of a rank in one step of this run.

    Raises:
        InputError: its progress is no whole number of steps.
    """
    loops, steps = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
    batches = loops["epoch_loop.batch_progress"]
    before = batches["total"]["ready"] // steps if steps else micro_batches
    if not before or batches["total"]["ready"] != before * steps or batches["current"]["ready"] % before:
        raise InputError(
            f"ckpt_path: the checkpoint stands at micro-batch {batches['total']['ready']} of {steps} steps, which is within a step; "
            "go on from another one, or start from its weights with model.model."
        )
    for counts in (batches["total"], batches["current"]):
        ready = counts["ready"]
        whole = ready // before * micro_batches
        counts.update(
            {name: whole - (ready - count) for name, count in counts.items()}
        )  # `completed` may lag behind by one
    for loader in loops["state_dict"].get("combined_loader", []):
        if "handed_out" in loader:  # of an older version, in micro-batches
            loader["step"] = loader.pop("handed_out") // before


def check_same_plan(saved: Mapping[str, Any], now: Mapping[str, Any], micro_batches: int) -> None:
    """Refuses to go on with other rows than those that a checkpoint was trained on.

    Args:
        saved: Of the checkpoint's run: `CoHDataModule.plan_settings`, and `steps_of_epoch`, how many steps of an epoch
            it made.
        now: The same of this run.
        micro_batches: Micro-batches of a rank in one step of this run.

    Raises:
        InputError: they differ; the message names the first difference.
    """
    for key, value in now.items():
        was = saved.get(key)
        if was == value:
            continue
        if key == "steps_of_epoch":
            raise InputError(
                f"trainer.limit_train_batches leaves {value} steps in an epoch, but the checkpoint's run had {was}; set it to {was * micro_batches}, "  # type: ignore[operator]
                f"which is as many steps of {micro_batches} micro-batches."
            )
        changed = (
            "the training records or their tokens have changed"
            if key == "rows"
            else f"data.{key} has changed from {was!r} to {value!r}"
        )
        raise InputError(
            f"ckpt_path: {changed} since the checkpoint was written, so the rows that come next can't be found; "
            "set it back, or start from the checkpoint's weights with model.model."
        )
