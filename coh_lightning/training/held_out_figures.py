"""Batches of held-out data (held_out.py) -> losses by kind, and the share of pairs that the model ranks right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from coh_lightning.generation.scoring import output_scores
from coh_lightning.generation.text_metrics import WeightedMeans
from coh_lightning.model.head import row_losses
from coh_lightning.model.losses import row_loss
from coh_lightning.model.sharding import from_replicas

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule

PREFERENCES = (
    "preference_accuracy_sum",
    "preference_accuracy_mean",
    "preference_accuracy_swapped_sum",
    "preference_accuracy_swapped_mean",
    "preference_accuracy_marker",
)
"""Share of the strictly ordered pairs of a record that the model ranks right, without ties; chance is 0.5. y is an
output with its end token.

* sum, mean: by log p(y | good sentence), summed over its tokens or averaged.
* swapped: by -log p(y | bad sentence), under which the worse output should be the likelier one.
* marker: by log p(y | good sentence) - log p(y | bad sentence), the order of p(good sentence | y) by Bayes' rule.
"""

UNDER_BAD = ("_swapped_sum", "_swapped_mean", "_marker")
"""How the names of those that need the bad sentence end."""


def names_in_fit(kinds: Sequence[str], *, under_bad: bool = True) -> list[str]:
    """What `CoHModule` logs in `fit`, except of what it writes. `under_bad`: outputs are scored under that sentence."""
    losses = ["nll", *(f"nll_{name}" for name in kinds)]
    preferences = [name for name in PREFERENCES if under_bad or not name.endswith(UNDER_BAD)]
    held_out = [*losses, "nll_records", *preferences, "preference_pairs", "preference_records"]
    training = [f"train/{name}" for name in ("loss", "learned_share", *losses)]
    return [*(f"val/{name}" for name in held_out), *training, "lr"]


class LossFigures:
    """Mean nll per token (nats) of each kind of segment and of all outputs (`nll`), and the number of records. `data`
    has the names of the kinds, and which of them are outputs.
    """

    def __init__(self, data: CoHDataModule, device: torch.device) -> None:
        self._names, self._outputs = [f"nll_{name}" for name in data.kinds], data.output_kinds
        self._sums = WeightedMeans(["nll", *self._names]).to(device)
        self._records: set[int] = set()

    def add(self, lm: nn.Module, batch: Mapping[str, Any]) -> None:
        _, stats = row_loss(row_losses(lm, batch), batch, kinds=len(self._names))
        nll, weight = stats["kind_nll"].tolist(), stats["kind_weight"].tolist()
        self._sums.update(
            {name: (nll[i], weight[i]) for i, name in enumerate(self._names)}
            | {"nll": (sum(nll[i] for i in self._outputs), sum(weight[i] for i in self._outputs))}
        )
        self._records.update(batch["records"])

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """The figures of all ranks, on each of them."""
        records = set().union(*from_replicas(trainer, self._records))
        figures = self._sums.compute()
        figures |= {"nll_records": torch.tensor(len(records))} if figures else {}
        return {name: value.float() for name, value in figures.items()}


class PreferenceFigures:
    """`PREFERENCES`, with the same weight for each record, and the numbers of pairs and records."""

    def __init__(self, device: torch.device, *, at_once: int = 0) -> None:
        """`at_once`: as for `output_scores`; records then wait for others to share a pass with."""
        self._sums = WeightedMeans(PREFERENCES).to(device)
        self._pairs: dict[int, int] = {}
        self._at_once = at_once
        self._waiting: list[Mapping[str, Any]] = []
        self._lm: nn.Module | None = None

    def add(self, lm: nn.Module, batch: Mapping[str, Any]) -> None:
        """One record's comparison. Empty rows run too: ranks that share a model must make the same passes."""
        self._lm = lm
        self._waiting.append(batch)
        if sum(row["input_ids"].shape[1] for one in self._waiting for row in one["rows"]) >= self._at_once:
            self._score()

    def _score(self) -> None:
        """Of what waits."""
        waiting, self._waiting = self._waiting, []
        if self._lm is None or not waiting:
            return
        with torch.compiler.set_stance("force_eager"):
            rows = [row for batch in waiting for row in batch["rows"]]
            scores = output_scores(self._lm, rows, at_once=self._at_once)
            for batch in waiting:
                total, tokens = (torch.cat(parts) for parts in zip(*islice(scores, len(batch["rows"])), strict=True))
                self._sums.add(preferences(batch["pairs"], total, total / tokens))
                self._pairs.update(dict.fromkeys(batch["records"], len(batch["pairs"])))

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """The figures of all ranks, on each of them."""
        self._score()
        self._lm = None
        pairs = {number: count for part in from_replicas(trainer, self._pairs) for number, count in part.items()}
        counts = {"preference_pairs": sum(pairs.values()), "preference_records": len(pairs)}
        figures = self._sums.compute() | {name: torch.tensor(count) for name, count in counts.items()} if pairs else {}
        return {name: value.float() for name, value in figures.items()}


def preferences(pairs: Sequence[tuple[int, int]], total: Tensor, mean: Tensor) -> dict[str, float]:
    """The share of a record's pairs (better, worse) that are ranked right, by each of `PREFERENCES`. `total` and `mean`
    are log p of the outputs under the good sentence, then (if there is one) under the bad sentence.
    """
    if not pairs:
        return {}
    outputs = 1 + max(number for pair in pairs for number in pair)
    scores = {"sum": total[:outputs], "mean": mean[:outputs]}
    if len(total) == 2 * outputs:
        scores |= {
            "swapped_sum": -total[outputs:],
            "swapped_mean": -mean[outputs:],
            "marker": total[:outputs] - total[outputs:],
        }
    found = {}
    for name, score_of in scores.items():
        by = score_of.tolist()
        right = [by[better] > by[worse] for better, worse in pairs if by[better] != by[worse]]
        if right:
            found[f"preference_accuracy_{name}"] = sum(right) / len(right)
    return found
