"""The records of a split that the method can use, in columns: what the plan needs of each is a few numbers on disk. A
record is read, and planned again, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.chain_tokenizer import CutPrompt
from coh_lightning.sequences.plan import Kinds, PlannedTrees
from coh_lightning.sequences.prompt_format import CutTurn
from coh_lightning.sequences.record_planner import PlannedRecord, RecordPlanner, UsableRecord
from coh_lightning.tables import Column

_CHANGED = -1
"""Instead of its tokens, for a prompt that is cut or that the chat template shows differently."""


T = TypeVar("T")


class _Some(Sequence[T]):
    """Numbered things, each made when it is asked for."""

    def __init__(self, make: Callable[[int], T], numbers: range) -> None:
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return _Some(self._make, self._numbers[index])
        return self._make(self._numbers[index])


class PlannedRecords(Sequence[PlannedRecord]):
    """The usable ones of `records`, in their order.

    Attributes:
        items: Their trees; `PlannedTree.record` is the place here.
        kinds: (kind, place in its chain) of every output.
    """

    def __init__(self, planner: RecordPlanner, records: Sequence[Feedback], folder: Path | None = None) -> None:
        self._planner, self._records = planner, records
        self._places, self._kept, self._prompts = (Column("i", folder) for _ in range(3))
        self._kinds_of_kept: Kinds[tuple[tuple[int, int], ...]] = Kinds()
        self._arrays: tuple[NDArray[Any], ...] | None = None
        self.items = PlannedTrees(folder=folder)
        self.kinds: set[tuple[str, int]] = set()

    def append(self, place: int, planned: PlannedRecord) -> None:
        """`place`: that of its record in `records`."""
        for item in self._planner.items(len(self), planned):
            self.items.append(item)
        self.kinds.update(planned.kinds)
        turns = planned.prompt.turns
        whole = not planned.prompt.cut and not planned.prompt.dropped and turns == _whole(planned.record)
        self._prompts.append(planned.prompt.tokens if whole else _CHANGED)
        self._places.append(place)
        self._kept.append(self._kinds_of_kept.number(planned.kept))
        self._arrays = None

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> PlannedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PlannedRecord]: ...
    def __getitem__(self, index: int | slice) -> PlannedRecord | Sequence[PlannedRecord]:
        if isinstance(index, slice):
            return _Some(self.__getitem__, range(len(self))[index])
        places, _, _ = self._read()
        return self._planner.plan(self._records[int(places[range(len(self))[index]])])

    @property
    def usable(self) -> Sequence[UsableRecord]:
        """The same records as far as trees are made of them, which is faster."""
        return _Some(self.usable_one, range(len(self)))

    def usable_one(self, index: int) -> UsableRecord:
        places, kept, prompts = self._read()
        record = self._records[int(places[index])]
        tokens = int(prompts[index])
        prompt = self._planner.tokens.cut_prompt(record.prompt) if tokens < 0 else CutPrompt(_whole(record), tokens)
        return UsableRecord(record, prompt, self._kinds_of_kept[int(kept[index])])

    def _read(self) -> tuple[NDArray[np.int32], ...]:
        if self._arrays is None:
            self._arrays = tuple(column.numbers for column in (self._places, self._kept, self._prompts))
        return self._arrays


def _whole(record: Feedback) -> tuple[CutTurn, ...]:
    return tuple([CutTurn.whole(turn) for turn in record.prompt])
