"""The figures of one optimizer step: sums over its micro-batches, then over ranks, divided once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from torch import Tensor

from coh_lightning.errors import InputError
from coh_lightning.model.sharding import from_replicas, replicas

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule

NAMED = 8
"""Records that a message names at most."""


class TrainingFigures:
    """Collects what `row_loss` gives for each micro-batch of one step. `data` has the names of kinds and records."""

    def __init__(self, data: CoHDataModule) -> None:
        self._data = data
        self._sums: dict[str, Tensor] = {}
        self._losses: list[tuple[int, Tensor]] = []  # (number of the micro-batch, its loss)

    def add(self, number: int, batch: Mapping[str, Tensor], loss: Tensor, stats: dict[str, Tensor]) -> None:
        """One micro-batch, by its number in the epoch."""
        learned = (batch["learned"] != 0).sum() * (batch["feedback_tokens"] > 0)
        counts = {"feedback_tokens": batch["feedback_tokens"].double(), "learned_tokens": learned.double()}
        for name, value in (stats | counts).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._losses.append((number, loss.detach()))

    def check_finite(self, trainer: pl.Trainer) -> None:
        """Raises InputError, with the step and the records or texts of the rows at fault, if the step's loss is
        non-finite; before the gradients reach the weights, and once a step, since it waits for the device. All ranks
        must call it.
        """
        total = sum_over_replicas(trainer, torch.stack([loss for _, loss in self._losses]).sum())
        if torch.isfinite(total):
            return
        epoch = trainer.current_epoch
        bad = [self._data.names(epoch, number) for number, loss in self._losses if not torch.isfinite(loss)]
        rows = [names for of_rank in from_replicas(trainer, bad) for names in of_rank]
        names = list(dict.fromkeys(name for row in rows for name in row))
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        raise InputError(
            f"The loss of step {trainer.global_step + 1} (epoch {epoch}) is {total.item()}: it is non-finite in "
            f"{len(rows)} of the step's {trainer.accumulate_grad_batches * replicas(trainer)[0]} rows, that of "
            f"{shown}; lower model.lr, or look at them with `preview`."
        )

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """The figures of all ranks, on each of them:

        loss            the step's loss
        learned_share   tokens with a weight in the loss, as a share of the feedback's tokens
        nll_KIND        mean nll per token (nats) of a kind of segment, and of the pretraining text
        nll             of all outputs together: pretraining text and reviews are left out
        """
        sums = {name: sum_over_replicas(trainer, value) for name, value in self._sums.items()}
        figures = {"loss": sums["learned"] + sums["unlearned"]}
        nll, weight = sums["kind_nll"], sums["kind_weight"]
        figures |= {f"nll_{name}": nll[i] / weight[i] for i, name in enumerate(self._data.kinds) if weight[i] > 0}
        outputs = self._data.output_kinds
        if weight[outputs].sum() > 0:
            figures["nll"] = nll[outputs].sum() / weight[outputs].sum()
        if sums["feedback_tokens"] > 0:
            figures["learned_share"] = sums["learned_tokens"] / sums["feedback_tokens"]
        return {name: value.float() for name, value in figures.items()}


def sum_over_replicas(trainer: pl.Trainer, value: Tensor) -> Tensor:
    """The sum over ranks; ranks that share their rows (tensor parallelism) count once."""
    if trainer.world_size == 1:
        return value
    total: Tensor = trainer.strategy.reduce(value, reduce_op="sum")
    return total * (replicas(trainer)[0] / trainer.world_size)
