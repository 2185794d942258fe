"""A key-value cache of which single rows are taken out and replaced while the others go on: what lets a finished text
make room for the next prompt at once.

All rows end at the same column and begin at their own; what stands before a row's beginning is masked (`.`), so each is
a left-padded row of one batch:

    . . P P P a b      the first row is done    . . Q Q Q Q x      `Q` is prefilled alone and set in so that it ends where the others end
    . P P P P a b                               . P P P P a b
    P P P P P a b                               P P P P P a b

Keys hold their rotary positions since they were computed, so moving them to other columns changes nothing that
attention sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

MOVABLE = (DynamicLayer, DynamicSlidingWindowLayer)
"""Exactly these, not what is derived from them: others keep more than keys and values."""


class _SlotLayer(CacheLayerMixin):
    """The keys and values of one layer, (slots, heads, columns, size) each, allocated once. A sliding window is left to
    the mask: all columns are kept.
    """

    is_sliding = False

    def __init__(self, slots: int, columns: int, like: Any) -> None:
        super().__init__()
        # zeros, not whatever memory holds: a masked column still takes part in 0 x value, and not-a-number would spread
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
    """See the top of the file.

    Args:
        slots: the most rows.
        columns: the most columns.
        like: the cache of a prefill; it says how many layers there are and what they hold.
    """

    layers: list[_SlotLayer]  # type: ignore[assignment]

    def __init__(self, slots: int, columns: int, like: Cache) -> None:
        super().__init__(layers=[_SlotLayer(slots, columns, layer) for layer in like.layers])

    @staticmethod
    def hold(cache: object) -> bool:
        """Whether a model's own cache is of the kind whose rows can be moved: keys and values of attention, and nothing
        else (no recurrent state).
        """
        return isinstance(cache, Cache) and all(
            isinstance(layer, DynamicLayer) and type(layer) in MOVABLE and layer.is_initialized
            for layer in cache.layers
        )

    def admit(self, source: Any, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Appends rows of a left-padded prefill, each with its last `lengths` columns; they end where the rows that are
        here end.

        There must be as many columns here as the longest of them has (`shift` makes some), unless there is no row yet.
        """
        for layer, given in zip(self.layers, source.layers, strict=True):
            if not layer.rows:
                layer.length = max(lengths)
            for row, length in zip(rows, lengths, strict=True):
                kept = min(length, given.keys.shape[2])  # a sliding window has dropped what it will never see again
                layer.keys[layer.rows, :, layer.length - kept : layer.length] = given.keys[row, :, -kept:]
                layer.values[layer.rows, :, layer.length - kept : layer.length] = given.values[row, :, -kept:]
                layer.rows += 1

    def keep(self, order: Sequence[int]) -> None:
        """Only these rows, in this order; each comes from its own place or from further back (`order[i] >= i`, no row
        twice).
        """
        for layer in self.layers:
            for row, of in enumerate(order):
                if row != of:
                    layer.keys[row, :, : layer.length] = layer.keys[of, :, : layer.length]
                    layer.values[row, :, : layer.length] = layer.values[of, :, : layer.length]
            layer.rows = len(order)

    def shift(self, by: int) -> None:
        """Moves all rows by this many columns: to the left over columns that no row uses, or to the right to make
        some.
        """
        for layer in self.layers:
            start, length = max(0, -by), layer.length + by
            for held in (layer.keys, layer.values):
                held[: layer.rows, :, max(0, by) : length] = held[: layer.rows, :, start : layer.length].clone()
            layer.length = length
