"""A fixed number of held-out batches, each built when it is needed, and shared out over the ranks: every rank has the
same number of batches, filled up with empty ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class BatchTable:
    """`count` batches; `build` gives an empty one for an index beyond `count`, so that all ranks have as many."""

    build: Callable[[int], Any]
    count: int

    def loader(self, ranks: int, rank: int) -> DataLoader[Any]:
        """This rank's share: batch i goes to rank i % ranks."""
        from torch.utils.data import DataLoader

        from coh_lightning.dataset.loaders import Built

        indices = range(rank, -(-self.count // ranks) * ranks, ranks)
        return DataLoader(Built(self.build), batch_size=None, sampler=indices)
