"""Batches of held-out data (held_out.py) -> losses by kind, the share of pairs that the model ranks right, and the
number of records behind each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from coh_lightning.generation.text_metrics import WeightedMeans
from coh_lightning.model.attention import row_logits
from coh_lightning.model.losses import output_log_likelihoods, row_loss
from coh_lightning.model.sharding import from_replicas

PREFERENCES = (
    "preference_accuracy_sum",
    "preference_accuracy_mean",
    "preference_accuracy_swapped_sum",
    "preference_accuracy_swapped_mean",
    "preference_accuracy_marker",
)
"""Share of the strictly ordered pairs of a record that the model ranks right, ties counted out; chance is 0.5. y is an
output with its end token.

* sum, mean: by log p(y | good sentence), summed over its tokens or averaged.
* swapped: with the sentences' sides swapped, the worse output should be the likelier one under the bad sentence.
* marker: by log p(y | good sentence) - log p(y | bad sentence), which by Bayes' rule orders outputs as
  p(good sentence | y) does.
"""


class LossFigures:
    """Mean nll per token (nats) of each kind of segment and of all together (`nll`), and the number of records behind
    them (`nll_records`).

    Args:
        kinds: Names of the kinds of segments, in the order of their numbers.
    """

    def __init__(self, kinds: Sequence[str], device: torch.device) -> None:
        self._names = [f"nll_{name}" for name in kinds]
        self._sums = WeightedMeans(["nll", *self._names]).to(device)
        self._records: set[int] = set()

    def add(self, lm: nn.Module, batch: Mapping[str, Any]) -> None:
        """One row of chains."""
        _, stats = row_loss(row_logits(lm, batch), batch, kinds=len(self._names))
        nll, weight = stats["kind_nll"].tolist(), stats["kind_weight"].tolist()
        self._sums.update(
            {name: (nll[i], weight[i]) for i, name in enumerate(self._names)} | {"nll": (sum(nll), sum(weight))}
        )
        self._records.update(batch["records"])

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """The figures of all ranks, on each of them."""
        records = set().union(*from_replicas(trainer, self._records))
        figures = self._sums.compute()
        figures |= {"nll_records": torch.tensor(len(records))} if figures else {}
        return {name: value.float() for name, value in figures.items()}


class PreferenceFigures:
    """The accuracies of `PREFERENCES`, and the numbers of pairs and records compared (`preference_pairs`,
    `preference_records`). Each record weighs the same.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = WeightedMeans(PREFERENCES).to(device)
        self._pairs: dict[int, int] = {}

    def add(self, lm: nn.Module, batch: Mapping[str, Any]) -> None:
        """One comparison: all rows run, the empty ones too, since ranks that share a model must make the same
        passes.
        """
        scored = [output_log_likelihoods(row_logits(lm, row), row, outputs=row["outputs"]) for row in batch["rows"]]
        total, tokens = (torch.cat(parts) for parts in zip(*scored, strict=True))
        self._sums.add(preferences(batch["pairs"], total, total / tokens))
        self._pairs.update(dict.fromkeys(batch["records"], len(batch["pairs"])))

    def compute(self, trainer: pl.Trainer) -> dict[str, Tensor]:
        """The figures of all ranks, on each of them."""
        pairs = {number: count for part in from_replicas(trainer, self._pairs) for number, count in part.items()}
        counts = {"preference_pairs": sum(pairs.values()), "preference_records": len(pairs)}
        figures = self._sums.compute() | {name: torch.tensor(count) for name, count in counts.items()} if pairs else {}
        return {name: value.float() for name, value in figures.items()}


def preferences(pairs: Sequence[tuple[int, int]], total: Tensor, mean: Tensor) -> dict[str, float]:
    """The share of a record's pairs (better, worse) that are ranked right, by each of `PREFERENCES`.

    `total` and `mean` are log p of the outputs under the good sentence and, if there is one, of the same outputs under
    the bad sentence.
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
        decided = [(better, worse) for better, worse in pairs if by[better] != by[worse]]
        if decided:
            found[f"preference_accuracy_{name}"] = sum(by[better] > by[worse] for better, worse in decided) / len(
                decided
            )
    return found
