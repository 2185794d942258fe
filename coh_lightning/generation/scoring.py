"""Log-likelihoods of the outputs of rows, several rows in one pass of the model: their trees stand side by side, as in
training, and see nothing of each other.

    two rows     P g a b        Q g c d           in one pass     P g a b Q g c d
    outputs      a: 0, b: 1     c: 0, d: 1                        a: 0, b: 1, c: 2, d: 3
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coh_lightning.model.attention import model_config
from coh_lightning.model.head import row_losses
from coh_lightning.model.losses import output_log_likelihoods
from coh_lightning.model.tree_attention import NAME

Row = Mapping[str, Any]
"""A row whose outputs are scored (`RowBuilder.scored`), with their number as `outputs`."""


def output_scores(lm: nn.Module, rows: Sequence[Row], *, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each row: log p of its outputs and their numbers of tokens, end included, float64, (outputs,) each.

    Args:
        at_once: Tokens of one pass, where rows can share one; 0: each row alone, for ranks that must make the same
            passes.
    """
    for together in _passes(lm, rows, at_once):
        row = together[0] if len(together) == 1 else joined(together)
        counts = [one["outputs"] for one in together]
        total, tokens = output_log_likelihoods(row_losses(lm, row), row, outputs=sum(counts))
        yield from zip(total.split(counts), tokens.split(counts), strict=True)


def _passes(lm: nn.Module, rows: Sequence[Row], at_once: int) -> Iterator[list[Row]]:
    """The rows in order, as many at a time as fit together."""
    waiting: list[Row] = []
    used = 0
    for row in rows:
        tokens = row["input_ids"].shape[1] if _joins(lm, row) else at_once + 1
        if waiting and used + tokens > at_once:
            yield waiting
            waiting, used = [], 0
        waiting.append(row)
        used += tokens
    if waiting:
        yield waiting


def _joins(lm: nn.Module, row: Row) -> bool:
    """Whether a row may share its pass: a dense mask over several rows costs a CPU more than passes do."""
    by_tree = model_config(lm).get_text_config()._attn_implementation == NAME
    whole = "seen_until" in row and len(row["parents"]) == row["input_ids"].shape[1]  # neither causal nor padded
    return whole and (by_tree or row["input_ids"].device.type != "cpu")


def joined(rows: Sequence[Row]) -> dict[str, Any]:
    """One row of the trees of several, which have no padding."""
    starts = _starts(row["input_ids"].shape[1] for row in rows)
    sources, outputs = _starts(len(row["keep"]) for row in rows), _starts(row["outputs"] for row in rows)
    width = max(row["children"].shape[1] for row in rows)
    cells = []
    for row, first in zip(rows, sources, strict=False):
        own = row["children"].shape[1]
        cells.append((first + row["score_cell"] // own) * width + row["score_cell"] % own)

    def moved(name: str, by: Sequence[int], dim: int = 0) -> Tensor:
        return torch.cat([row[name] + start for row, start in zip(rows, by, strict=False)], dim=dim)

    def widened(name: str) -> Tensor:
        return torch.cat([nn.functional.pad(row[name], (0, width - row[name].shape[1])) for row in rows])

    return dict(rows[0]) | {
        "input_ids": torch.cat([row["input_ids"] for row in rows], dim=1),
        "position_ids": torch.cat([row["position_ids"] for row in rows], dim=1),
        "seen_until": moved("seen_until", starts, dim=1),
        "parents": moved("parents", starts),
        "keep": moved("keep", starts),
        "children": widened("children"),
        "learned": widened("learned"),
        "score_cell": torch.cat(cells),
        "score_output": moved("score_output", outputs),
        "outputs": outputs[-1],
    }


def _starts(lengths: Iterator[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts
