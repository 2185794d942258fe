"""Loaders of batches that are built when they are needed: nothing is kept.

    TrainLoader    one rank's rows of one epoch after another; resumes at the very next step

Held-out batches: batch_table.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler


class Built(Dataset[Any]):
    """A map-style data set whose index is any key that `build` takes."""

    def __init__(self, build: Callable[[Any], Any]) -> None:
        self.build = build

    def __getitem__(self, key: Any) -> Any:
        return self.build(key)


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, start), (epoch, start + 1), ...; Lightning sets the epoch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(itertools.repeat(self.epoch), range(self.start, self.count), strict=False)

    def __len__(self) -> int:
        return self.count


class TrainLoader(DataLoader[Any]):
    """One rank's rows of one epoch after another; `row` takes (epoch, index). Its state is (epoch, whole steps done),
    so a resumed run gets the very next row, whatever workers had built ahead and however many ranks there are now.

    torchdata's StatefulDataLoader lets workers build rows before Lightning has set the epoch of a resumed run, and
    takes an epoch that was used up for one that is still to come.
    """

    sampler: EpochSampler

    def __init__(self, row: Callable[[tuple[int, int]], Any], steps: int, micro_batches: int, *, num_workers: int):
        sampler = EpochSampler(steps * micro_batches)
        super().__init__(Built(row), batch_size=None, sampler=sampler, num_workers=num_workers)
        self._micro_batches = micro_batches
        self._handed_out = 0
        self._stopped_at: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """A generator: nothing is built before the first row is needed, when Lightning has set the epoch."""
        (epoch, step), self._stopped_at = self._stopped_at or (0, 0), None
        self.sampler.start = self._handed_out = step * self._micro_batches if epoch == self.sampler.epoch else 0
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """An unfinished step counts as not begun, since a checkpoint has no gradients."""
        return {"epoch": self.sampler.epoch, "step": self._handed_out // self._micro_batches}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._stopped_at = (state["epoch"], state["step"])
