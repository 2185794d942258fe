"""The optimizer steps of a run, and the learning rate of each: the Trainer's options, checked against the plan.

A step is `accumulate_grad_batches` micro-batches on each rank, and Lightning counts in micro-batches. If an epoch ended
within a step, part of its rows would get the weight of all of them, so options that would do that are rounded to whole
steps or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder, Timer
from torch import nn

from coh_lightning.errors import InputError, counted

REFUSED_CALLBACKS = {
    BatchSizeFinder: (
        "there is no batch size to find, since a micro-batch is one row; set data.row_tokens (memory) and "
        "data.rows_per_step"
    ),
    GradientAccumulationScheduler: "data.rows_per_step and the number of ranks decide the accumulation; set those",
    LearningRateFinder: "the schedule would overwrite the rate that it finds; compare values of model.lr with `sweep`",
}
"""Callbacks of Lightning that can't work here: the reason, and what to do instead."""


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, and the learning rate's warm-up and cosine decay; its peak is `model.lr`."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's (paper App. B)."""
    weight_decay: float = 0.0
    """On matrices only."""
    warmup_ratio: float = 0.03
    """Share of all steps in which the learning rate rises to its peak, in equal parts (`warmup_cosine`)."""
    min_lr_ratio: float = 0.1
    """Where the cosine ends, as a share of the peak."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_ratio < 1 or not 0 <= self.min_lr_ratio <= 1:
            raise InputError(
                f"model.optimizer.warmup_ratio is {self.warmup_ratio} and model.optimizer.min_lr_ratio "
                f"{self.min_lr_ratio}; they must be in [0, 1) and in [0, 1]."
            )

    def build(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        precision: str,
        *,
        matrices: Collection[str],
        lr: float,
        steps: int,
    ) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
        """AdamW over the trainable parameters (`matrices` decay), and its schedule: peak `lr`, `steps` in all. On a GPU
        it is one kernel, without temporary copies of the parameters, except under the `precision` 16-mixed: there it
        would unscale the gradients within its step, after they are clipped.
        """
        trained = [(name.replace("_fsdp_wrapped_module.", ""), p) for name, p in parameters if p.requires_grad]
        groups = [
            {"params": [p for name, p in trained if name in matrices], "weight_decay": self.weight_decay},
            {"params": [p for name, p in trained if name not in matrices], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        fused = precision != "16-mixed" and all(p.device.type == "cuda" for _, p in trained)
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=self.betas, fused=fused or None)
        share = warmup_cosine(steps, warmup_ratio=self.warmup_ratio, min_ratio=self.min_lr_ratio)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def follow_plan(trainer: pl.Trainer, steps_per_epoch: int, micro_batches: int, *, ranks: int) -> None:
    """Sets `accumulate_grad_batches` and, where an option cuts the epoch, `limit_train_batches` to whole steps. Call it
    before Lightning makes the loaders.

    Args:
        trainer: About to fit.
        steps_per_epoch: Optimizer steps in an epoch of the plan.
        micro_batches: Per rank and step.
        ranks: Those with different rows.

    Raises:
        InputError: an option that doesn't fit the plan.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, reason in REFUSED_CALLBACKS.items():
            if isinstance(callback, kind):
                raise InputError(f"trainer.callbacks has a {kind.__name__}, but {reason}.")
        if isinstance(callback, Timer) and callback.time_remaining() == 0:
            raise InputError("trainer.max_time is 0, so there would be no step; raise it, or leave it out.")
    if trainer.accumulate_grad_batches not in (1, micro_batches):
        raise InputError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but data.rows_per_step and the "
            f"{ranks} ranks make it {micro_batches}; leave it out."
        )
    if trainer.overfit_batches > 0:  # type: ignore[attr-defined]
        raise InputError(
            f"trainer.overfit_batches is {trainer.overfit_batches:g}, "  # type: ignore[attr-defined]
            "but it would replace the plan's order of rows; to overfit, give a feedback file of a few records."
        )
    trainer.accumulate_grad_batches = micro_batches
    trainer.limit_train_batches = _whole_steps(trainer, steps_per_epoch, micro_batches)
    _check_validation(trainer, steps_of_epoch(trainer, steps_per_epoch) * micro_batches)
    total_steps(trainer, steps_per_epoch)


def _whole_steps(trainer: pl.Trainer, steps: int, micro_batches: int) -> int | float:
    """The Trainer's limit on training batches as micro-batches of whole steps; 1.0 where there is none."""
    limit = trainer.limit_train_batches
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning has set max_steps to the same number
        return int(trainer.fast_dev_run) * micro_batches  # type: ignore[attr-defined]
    if limit is None or (isinstance(limit, float) and limit == 1.0):
        return 1.0
    if limit == 0:
        raise InputError("trainer.limit_train_batches is 0, so there is nothing to train on; leave it out.")
    if isinstance(limit, float):
        whole = int(round(steps * limit, 6))
        if not whole:
            raise InputError(
                f"trainer.limit_train_batches is {limit:g}, less than one of the {steps} steps of an epoch; "
                f"the least is {micro_batches} (micro-batches) or {math.ceil(1e6 / steps) / 1e6:g}."
            )
        return whole * micro_batches
    if limit < steps * micro_batches and limit % micro_batches:
        below = limit // micro_batches * micro_batches
        near = [str(number) for number in (below, below + micro_batches) if number]
        raise InputError(
            f"trainer.limit_train_batches is {limit}, but a step has {micro_batches} micro-batches (on each of "
            f"{counted(trainer.world_size, 'rank')}), so an epoch would end within a step; set it to "
            f"{' or '.join(near)}."
        )
    return limit


def _check_validation(trainer: pl.Trainer, batches: int) -> None:
    """Lightning refuses some of this too, but only after the loaders are made, and divides by zero in other cases."""
    every = getattr(trainer, "val_check_interval", None)  # absent if it is an interval of time
    epochs = trainer.check_val_every_n_epoch
    for name, value in (("val_check_interval", every), ("check_val_every_n_epoch", epochs)):
        if value is not None and value <= 0:
            what = f"trainer.{name} is {value}; it must be more than 0"
            raise InputError(f"{what}; to leave validation out, set trainer.limit_val_batches to 0.")
    if isinstance(every, int) and every > batches and epochs is not None and trainer.limit_val_batches:
        size = counted(batches, "micro-batch", "micro-batches")
        raise InputError(
            f"trainer.val_check_interval is {every}, but an epoch has {size}; "
            "lower it, or set trainer.check_val_every_n_epoch to null to count over the ends of epochs."
        )


def steps_of_epoch(trainer: pl.Trainer, steps_per_epoch: int) -> int:
    """Optimizer steps of an epoch of this run: the plan's, or fewer under `limit_train_batches` (see `follow_plan`)."""
    limit = trainer.limit_train_batches
    return min(steps_per_epoch, limit // trainer.accumulate_grad_batches) if isinstance(limit, int) else steps_per_epoch


def total_steps(trainer: pl.Trainer, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run: max_epochs or max_steps, whichever ends first.

    Raises:
        InputError: neither is given, or there would be no step.
    """
    epochs, steps = trainer.fit_loop.max_epochs, trainer.max_steps
    for name, value in (("max_steps", steps), ("max_epochs", epochs)):
        if value == 0:
            raise InputError(f"trainer.{name} is 0, so there is nothing to train on; raise it.")
    totals = [steps] if steps > 0 else []
    if epochs is not None and epochs > 0:
        totals.append(steps_of_epoch(trainer, steps_per_epoch) * epochs)
    if not totals:
        what = "Neither trainer.max_steps nor trainer.max_epochs says where training ends"
        raise InputError(f"{what}; give one, for the schedule of the learning rate.")
    return min(totals)


def warmup_cosine(steps: int, *, warmup_ratio: float, min_ratio: float) -> Callable[[int], float]:
    """The learning rate of each step as a share of its peak, for torch's `LambdaLR`, which counts steps from 0.

    With w = round(warmup_ratio * steps), but at least 1, and steps counted from 1:

        step s <= w    s / w                                                             the peak at step w
        step s >  w    final + (1 - final) * (1 + cos(pi * (s - w) / (steps - w))) / 2   `final` at the last step
    """
    warmup = max(1, round(warmup_ratio * steps))

    def share(done: int) -> float:
        step = done + 1
        if step <= warmup:
            return step / warmup
        way = min(1.0, (step - warmup) / max(1, steps - warmup))
        return min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * way)) / 2

    return share
