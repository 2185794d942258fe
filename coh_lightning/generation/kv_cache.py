"""A key-value cache whose rows are replaced one by one while the others continue, so that the next prompt starts when a
completion is finished.

All rows end at the same column; the columns before a row are masked (`.`), so each is a left-padded row of one batch.
Here the first row is done, and Q is prefilled alone and inserted so that it ends where the others end:

    . . P P P a b             . . Q Q Q Q x
    . P P P P a b      ->     . P P P P a b
    P P P P P a b             P P P P P a b

Keys keep the rotary positions they were computed with, so moving them to other columns changes nothing that attention
sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

MOVABLE = (DynamicLayer, DynamicSlidingWindowLayer)
"""Exactly these classes: those derived from them keep more than keys and values."""


class _SlotLayer(CacheLayerMixin):
    """The keys and values of one layer, (slots, heads, columns, size) each. The mask does sliding windows."""

    is_sliding = False

    def __init__(self, slots: int, columns: int, like: Any) -> None:
        super().__init__()
        # zeros: a masked column still takes part as 0 x value, and NaN would spread
        self.keys: Tensor = like.keys.new_zeros((slots, like.keys.shape[1], columns, like.keys.shape[3]))
        self.values: Tensor = like.values.new_zeros((slots, like.values.shape[1], columns, like.values.shape[3]))
        self.rows = self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        self.keys[: self.rows, :, self.length : end] = key_states
        self.values[: self.rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions of transformers

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0


class Slots(Cache):
    """At most `slots` rows and `columns` columns, with the layers and shapes of `like`, the cache of a prefill."""

    layers: list[_SlotLayer]  # type: ignore[assignment]

    def __init__(self, slots: int, columns: int, like: Cache) -> None:
        super().__init__(layers=[_SlotLayer(slots, columns, layer) for layer in like.layers])

    @staticmethod
    def hold(cache: object) -> bool:
        """Whether the rows of a model's own cache can be moved: it has keys and values only (no recurrent state)."""
        return isinstance(cache, Cache) and all(
            isinstance(layer, DynamicLayer) and type(layer) in MOVABLE and layer.is_initialized
            for layer in cache.layers
        )

    def admit(self, source: Any, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Append rows of a left-padded prefill, each with its last `lengths` columns. The longest must fit into the
        columns in use (`shift` adds some), unless there is no row yet.
        """
        for layer, given in zip(self.layers, source.layers, strict=True):
            if not layer.rows:
                layer.length = max(lengths)
            for row, length in zip(rows, lengths, strict=True):
                kept = min(length, given.keys.shape[2])  # a sliding window has dropped the rest
                layer.keys[layer.rows, :, layer.length - kept : layer.length] = given.keys[row, :, -kept:]
                layer.values[layer.rows, :, layer.length - kept : layer.length] = given.values[row, :, -kept:]
                layer.rows += 1

    def keep(self, order: Sequence[int]) -> None:
        """Keep these rows, in this order; `order[i] >= i`, and no row twice."""
        for layer in self.layers:
            for row, of in enumerate(order):
                if row != of:
                    layer.keys[row, :, : layer.length] = layer.keys[of, :, : layer.length]
                    layer.values[row, :, : layer.length] = layer.values[of, :, : layer.length]
            layer.rows = len(order)

    def shift(self, by: int) -> None:
        """Move all rows by this many columns: to the left over unused columns, or to the right to add some."""
        for layer in self.layers:
            start, length = max(0, -by), layer.length + by
            for held in (layer.keys, layer.values):
                held[: layer.rows, :, max(0, by) : length] = held[: layer.rows, :, start : layer.length].clone()
            layer.length = length
