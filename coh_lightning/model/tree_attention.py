"""Attention that computes only what a row of trees needs, for sdpa on a CPU.

A dense mask costs T * T for a row of T tokens, and most of it is masked. Here the row is cut into parts, each with the
earlier parts that it attends to:

    row       P P P P a a a b b Q Q c c        two trees: P with the branches a and b; Q, continued by c
    runs      0.....3 4...6 7.8 9....12        tokens that follow each other without a branch (rows.py)
    parts     P -> P, causal, no mask          Q c -> Q c, causal, no mask
              a -> P a     b -> P b            with a mask of 3 x 7 and of 2 x 6

Small trees aren't cut and small siblings stay together, since a call of its own costs more than masked pairs. A mask
within a part follows the one rule of attention.py, so random hiding and sliding windows (by depth) stay exact.

transformers calls `tree_attention` by its name in `config._attn_implementation`, which is never saved. The parts come
as a keyword of the model's forward pass. Each layer gets an empty mask whose last dimension is the number of its
window: a layer that the parts don't reach fails on it, and then the model keeps the dense mask (layout_check.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from coh_lightning.sequences.rows import Runs

NAME = "coh_trees"
"""In `config._attn_implementation` while a model computes its attention tree by tree."""

CALL = 2048
"""What one more call of sdpa costs, in pairs of a query and a key. Measured on a CPU: 80 to 150 us forward and back, of
45 to 70 ns a pair, for models 128 and 256 wide."""


@dataclass(frozen=True)
class Part:
    """Tokens of a row whose attention is one call."""

    start: int
    stop: int
    keys: tuple[int, ...]
    """The parts that it attends to, in order, its own number last."""
    causal: bool
    """Whether it attends as a plain sequence does, where nothing is hidden and no window ends."""


def parts_of(runs: Runs, call: int = CALL) -> list[Part]:
    """The row as parts, in order; with a `call` that costs nothing, each run is one."""
    cut = _Cut(runs, call)
    cut.emit(cut.grouped(cut.children[-1]), ())
    return cut.parts


class _Cut:
    """Decides by cost where a row is cut, from the leaves up, and then makes the parts, from the roots down."""

    def __init__(self, runs: Runs, call: int) -> None:
        self.call = call
        self.runs: list[tuple[int, int, int]] = [tuple(run) for run in runs.tolist()]
        self.children: dict[int, list[int]] = {number: [] for number in range(-1, len(self.runs))}
        self.above: list[int] = []  # tokens before a run in its chain
        for number, (_, _, before) in enumerate(self.runs):
            self.children[before].append(number)
            self.above.append(0 if before < 0 else self.above[before] + self.runs[before][1] - self.runs[before][0])
        self.stop = [stop for _, stop, _ in self.runs]  # of the run and all below it
        self.whole = [True] * len(self.runs)  # in one part, or the run is a part of its own
        self.cost = [0] * len(self.runs)
        for number in reversed(range(len(self.runs))):
            self._decide(number)
        self.parts: list[Part] = []

    def _decide(self, number: int) -> None:
        start, stop, _ = self.runs[number]
        below = self.children[number]
        self.cost[number] = self._one_call(stop - start, self.above[number], chain=True)
        if below:
            self.stop[number] = self.stop[below[-1]]
            cut = self.cost[number] + sum(cost for *_, cost in self.grouped(below))
            together = self._one_call(self.stop[number] - start, self.above[number])
            self.cost[number], self.whole[number] = min(cut, together), together <= cut

    def _one_call(self, tokens: int, above: int, *, chain: bool = False) -> int:
        pairs = tokens * (above + tokens)
        return self.call + (pairs // 2 if chain and not above else pairs)

    def grouped(self, siblings: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """Neighbors that are cheaper together: (first token, one past the last, the run if it is alone, cost)."""
        groups: list[tuple[int, int, int, int]] = []
        for number in siblings:
            start, stop = self.runs[number][0], self.stop[number]
            if groups:
                first, *_, cost = groups[-1]
                together = self._one_call(stop - first, self.above[number])
                if together <= cost + self.cost[number]:
                    groups[-1] = (first, stop, -1, together)
                    continue
            groups.append((start, stop, number, self.cost[number]))
        return groups

    def emit(self, groups: Sequence[tuple[int, int, int, int]], above: tuple[int, ...]) -> None:
        for start, stop, number, _ in groups:
            keys = (*above, len(self.parts))
            if number < 0 or self.whole[number]:
                alone = number >= 0 and not self.children[number]
                self.parts.append(Part(start, stop, keys, causal=alone and not above))
            else:
                self.parts.append(Part(start, self.runs[number][1], keys, causal=not above))
                self.emit(self.grouped(self.children[number]), keys)


def library_attention(config: PreTrainedConfig) -> str:
    """The name of the model's attention in transformers: outside rows, ours is sdpa."""
    name = config.get_text_config()._attn_implementation or "eager"
    return "sdpa" if name == NAME else name


class TreeParts:
    """The parts of one row and, for each window of the model (None: all of the past), their masks. A class that
    neither Lightning nor FSDP looks into.
    """

    def __init__(
        self,
        runs: Runs,
        seen_until: Tensor,
        depth: Tensor,
        windows: Sequence[int | None],
        *,
        dtype: torch.dtype,
        call: int = CALL,
    ) -> None:
        self.parts = parts_of(runs, call)
        self.lengths = [part.stop - part.start for part in self.parts]
        self.tokens = self.parts[-1].stop
        seen_until, depth = seen_until[: self.tokens], depth[: self.tokens]
        self._own = torch.arange(self.tokens, device=seen_until.device).split(self.lengths)
        deepest = int(depth.max())
        self.masks: list[list[Tensor | None]] = []
        for window in windows:
            within = None if window is None or deepest < window else window
            self.masks.append([self._mask(part, seen_until, depth, within, dtype) for part in self.parts])

    def _mask(
        self, part: Part, seen_until: Tensor, depth: Tensor, window: int | None, dtype: torch.dtype
    ) -> Tensor | None:
        """(1, 1, queries, keys): 0 where the query attends to the key; None where that is the causal half."""
        if part.causal and window is None and bool((seen_until[part.start : part.stop] >= part.stop).all()):
            return None
        queries = self._own[part.keys[-1]]
        keys = torch.cat([self._own[number] for number in part.keys]) if len(part.keys) > 1 else queries
        return additive_mask(seen_until, depth, window, dtype=dtype, queries=queries, keys=keys)


def additive_mask(
    seen_until: Tensor,
    depth: Tensor,
    window: int | None,
    *,
    dtype: torch.dtype,
    queries: Tensor | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    """(1, 1, queries, keys): 0 where q (row) attends to j (column), at least itself, else the type's lowest number.
    Without `queries` and `keys`, all tokens.
    """
    own = torch.arange(len(seen_until), device=seen_until.device)
    q, j = own if queries is None else queries, own if keys is None else keys
    sees = (j[None, :] <= q[:, None]) & (q[:, None] < seen_until[j][None, :])
    if window is not None:
        sees &= depth[q][:, None] - depth[j][None, :] < window
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, torch.finfo(dtype).min)[
        None, None
    ]


def window_number(number: int, device: torch.device) -> Tensor:
    """What a layer gets as its mask: the number of its window among those of `TreeParts`."""
    return torch.empty(1, 1, 0, number, device=device)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree_parts: TreeParts | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer, (1, heads, T, width) each -> (1, T, heads, width); without `tree_parts`, sdpa's."""
    if tree_parts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    assert attention_mask is not None
    masks = tree_parts.masks[attention_mask.shape[-1]]
    settings.pop("is_causal", None)
    queries, keys, values = (one.split(tree_parts.lengths, dim=2) for one in (query, key, value))
    outputs = []
    for number, (part, mask) in enumerate(zip(tree_parts.parts, masks, strict=True)):
        k, v = keys[number], values[number]
        if len(part.keys) > 1:
            k, v = (torch.cat([one[other] for other in part.keys], dim=2) for one in (keys, values))
        outputs.append(sdpa_attention_forward(module, queries[number], k, v, mask, is_causal=True, **settings)[0])
    return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0], None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # or a padded batch under this name would have no mask at all
