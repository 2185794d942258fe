"""Planned rows -> rows of trees -> batches, of training and of held-out data, each built when it is asked for.

plan.step(epoch, step)[k] ── trees in this epoch's words ── Row ── hidden tokens (FCM) ── batch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from coh_lightning.dataset.batch_table import BatchTable
from coh_lightning.dataset.held_out import Comparer, comparisons, losses
from coh_lightning.dataset.pretraining import TEXT, text_tree
from coh_lightning.dataset.splits import Stage
from coh_lightning.rng import key64
from coh_lightning.sequences.plan import Plan, PlannedRow, PlannedTree, PlannedTrees
from coh_lightning.sequences.planned_records import PlannedRecords
from coh_lightning.sequences.record_planner import RecordPlanner
from coh_lightning.sequences.rows import Row, RowTable, hide, lay_out, lay_out_alone, pack
from coh_lightning.sequences.tokens import Ids, Tokens
from coh_lightning.sequences.trees import Tree

if TYPE_CHECKING:
    from coh_lightning.model.losses import Batch


def to_batch(row: Row) -> Batch:
    """The row as tensors."""
    from coh_lightning.model import losses as loss_terms  # torch

    return loss_terms.to_batch(row)


@dataclass(frozen=True)
class RowBuilder:
    """Rows of one plan, by the seed, the epoch and the records alone."""

    planner: RecordPlanner
    records: Mapping[Stage, PlannedRecords]
    texts: Sequence[Ids]  # pieces of pretraining text
    _: KW_ONLY
    row_tokens: int
    rows_per_step: int
    pretraining_rows_per_step: int
    pretraining_weight: float
    fcm_range: tuple[float, float]
    fcm_on_pretraining: bool
    pad_id: int

    @cached_property
    def items(self) -> dict[Stage, PlannedTrees]:
        """The trees of each split."""
        return {stage: records.items for stage, records in self.records.items()}

    @cached_property
    def plan(self) -> Plan:
        return Plan(
            self.items["train"],
            seed=self.planner.seed,
            row_tokens=self.row_tokens,
            rows_per_step=self.rows_per_step,
            separate=self.planner.row_tokens is None,
            documents=[len(ids) for ids in self.texts],
            pretraining_rows_per_step=self.pretraining_rows_per_step,
            weigh=self._weight if self.planner.weight_varies else None,
        )

    def _weight(self, item: PlannedTree, epoch: int) -> float:
        return self.planner.weight(self.records["train"].usable[item.record], item, epoch)

    @cached_property
    def kinds(self) -> dict[tuple[str, int], int]:
        """(kind, place in the chain) of an output -> its number in the loss curves."""
        kinds = {kind for records in self.records.values() for kind in records.kinds}
        ordered = [*sorted(kinds, key=lambda kind: (kind[1], kind[0])), TEXT]
        return {kind: number for number, kind in enumerate(ordered)}

    def tree(self, item: PlannedTree, stage: Stage, epoch: int = 0) -> Tree:
        """The tree of an item in the words of this epoch."""
        return self.planner.tree(self.records[stage].usable[item.record], item, epoch)

    # Training

    def train_row(self, planned: PlannedRow, epoch: int) -> Row:
        """A row of the plan with its final coefficients, and what is hidden in it."""
        weight = self.pretraining_weight if planned.pretraining else 1.0
        scale = weight / (planned.total or 1.0)  # an empty row may belong to a step without weight
        keys: list[tuple[object, ...]]
        if planned.pretraining:
            trees = [text_tree(self.texts[number]) for number in planned.members]
            keys = [("text", number) for number in planned.members]
        else:
            items = [self.plan.items[number] for number in planned.members]
            records = [self.records["train"].usable[item.record] for item in items]
            trees = [self.planner.tree(one, item, epoch) for one, item in zip(records, items, strict=True)]
            keys = [(one.record.id, *item.chains) for one, item in zip(records, items, strict=True)]
        row = self._row(trees, [scale] * len(trees))
        if self.fcm_range[1] == 0 or row.causal or (planned.pretraining and not self.fcm_on_pretraining):
            return row
        seed = self.plan.seed
        return hide(row, self.fcm_range, [np.random.default_rng(key64(seed, "hiding", epoch, *key)) for key in keys])

    def train_batch(self, planned: PlannedRow, epoch: int) -> Batch:
        """The row as tensors, and `feedback_tokens`: how many tokens are feedback, not padding or pretraining text."""
        import torch

        row = self.train_row(planned, epoch)
        return to_batch(row) | {"feedback_tokens": torch.tensor(0 if planned.pretraining else int(row.bounds[-1]))}

    def names(self, planned: PlannedRow) -> list[str]:
        """What is in a row, for a message: ids of records, numbers of pretraining texts."""
        if planned.pretraining:
            return [f"text {number} of the pretraining text" for number in planned.members]
        items = [self.plan.items[number] for number in planned.members]
        return [f"record '{self.records['train'].usable[item.record].record.id}'" for item in items]

    # Held-out data: no hiding, the wording of epoch 0

    def held_out(self, stage: Stage, comparer: Comparer, *, ranks: int) -> list[BatchTable]:
        """Rows of chains for the losses and, where there are any, comparisons for the preference accuracy."""
        rows = losses(
            self.held_out_rows(stage),
            self.items[stage].records,
            lambda members: self._held_out_row(stage, members),
        )
        compared = comparisons(comparer, self.records[stage].usable, self._scored_batch, ranks=ranks)
        return [rows, compared] if compared.count else [rows]

    def held_out_rows(self, stage: Stage) -> RowTable:
        """Items of a held-out split by row, shuffled: packing begins with the longest, limits on batches shouldn't."""
        lengths = self.items[stage].lengths
        alone = np.arange(len(lengths), dtype=np.int32)
        rows = RowTable(alone, alone + np.int64(1)) if self.plan.separate else pack(lengths, self.row_tokens)
        return rows.taken(np.random.default_rng(key64(self.plan.seed, "held out", stage)).permutation(len(rows)))

    def _held_out_row(self, stage: Stage, members: Sequence[int]) -> Row:
        return self._row([self.tree(self.items[stage][number], stage) for number in members], [1.0] * len(members))

    def scored(self, chains: Sequence[Tokens]) -> list[dict[str, Any]]:
        """Rows of chains of one prompt, whose outputs are scored in their order; of no chains, an empty row."""
        if len(chains) > 1:
            tree = None if self.plan.separate else Tree.from_chains(chains)
            if tree is None or tree.tokens > self.row_tokens:
                return self.scored(chains[: len(chains) // 2]) + self.scored(chains[len(chains) // 2 :])
        trees = [Tree.from_chains(chains)] if chains else []
        return [self._scored_batch(trees, sum(tree.tokens for tree in trees) or None)]

    def _scored_batch(self, trees: Sequence[Tree], row_tokens: int | None) -> dict[str, Any]:
        """A row whose outputs are scored and nothing else, and how many there are (`outputs`)."""
        row = self._row(trees, [0.0] * len(trees), scored=True, row_tokens=row_tokens)
        return to_batch(row) | {"outputs": row.outputs}

    def largest_batches(self, comparer: Comparer) -> list[tuple[Batch, bool]]:
        """The rows that take the most memory, one of each kind (feedback, pretraining text, held out, compared),
        and whether it is trained on. The same on all ranks.
        """
        trained = [next(row for row in self.plan.step(0, 0) if not row.pretraining)]
        if self.plan.pretraining_rows_per_step:
            trained.append(self.plan.largest_text())
        found = [(self.train_batch(planned, 0), True) for planned in trained]
        stages: tuple[Stage, ...] = ("validation", "test")
        for stage in stages:
            if len(rows := self.held_out_rows(stage)):
                most = max(rows, key=lambda row: self.plan.size([self.items[stage][number] for number in row]))
                found.append((to_batch(self._held_out_row(stage, most)), False))
            if (tree := comparer.largest(self.records[stage].usable)) is not None:
                found.append((self._scored_batch([tree], tree.tokens), False))
        return found

    def _row(
        self, trees: Sequence[Tree], coefficients: Sequence[float], scored: bool = False, row_tokens: int | None = None
    ) -> Row:
        if self.plan.separate and trees:
            return lay_out_alone(trees[0], coefficients[0], kinds=self.kinds, scored=scored)
        if self.plan.separate:
            return replace(lay_out([], [], row_tokens=2, pad_id=self.pad_id), causal=True)
        length = row_tokens or self.row_tokens
        return lay_out(trees, coefficients, row_tokens=length, pad_id=self.pad_id, kinds=self.kinds, scored=scored)
