"""Feedback records on disk, and lists of them by number: a data set of any size takes no memory of the process.

RecordStore       records in the order in which they were read, in a file without a name
StoredRecords     some of them in an order, as a sequence of `Feedback`, each made when it is asked for
SeenIds           id -> where, for `records.unique`
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.tables import Blobs, HashTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MASK = (1 << 64) - 1


class RecordStore:
    """Records by number. What is read back was checked when the record was made, and isn't checked again."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._rows = Blobs(folder)

    def append(self, record: Feedback) -> int:
        """Returns its number."""
        return self._rows.append(_packed(record))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Feedback:
        # the file has no name and is written by this object alone, so it can be trusted
        return _unpacked(pickle.loads(self._rows[number]))


class StoredRecords(Sequence[Feedback]):
    """Records of a store by `numbers`, in this order. `copies`: the number of the copy, where weights repeat records;
    None: each is there once. `names`: the ids of copies that aren't "<id>~<copy>".
    """

    def __init__(
        self,
        store: RecordStore,
        numbers: NDArray[np.int64],
        copies: NDArray[np.int32] | None = None,
        names: dict[tuple[int, int], str] | None = None,
    ) -> None:
        self.store, self.numbers, self.copies, self.names = store, numbers, copies, names or {}

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Feedback: ...
    @overload
    def __getitem__(self, index: slice) -> StoredRecords: ...
    def __getitem__(self, index: int | slice) -> Feedback | StoredRecords:
        if isinstance(index, slice):
            copies = None if self.copies is None else self.copies[index]
            return StoredRecords(self.store, self.numbers[index], copies, self.names)
        number = int(self.numbers[index])
        record = self.store[number]
        copy = 1 if self.copies is None else int(self.copies[index])
        if copy > 1:
            name = self.names.get((number, copy)) or f"{record.id}~{copy}"
            vars(record).update(id=name, copy=copy)
        return record

    def __iter__(self) -> Iterator[Feedback]:
        return map(self.__getitem__, range(len(self)))

    def taken(self, places: NDArray[Any]) -> StoredRecords:
        """Those at some places of this list."""
        copies = None if self.copies is None else self.copies[places]
        return StoredRecords(self.store, self.numbers[places], copies, self.names)


class SeenIds:
    """The ids of the records that are put into a store from now on -> where they came from. A mapping as far as
    `records.unique` needs one; the value that it sets must be that of the next record of the store.
    """

    def __init__(self, store: RecordStore, prefix: str = "") -> None:
        self._store, self._prefix = store, prefix
        self._table = HashTable(store.folder)

    def __contains__(self, id: str) -> bool:
        return self.record(id) is not None

    def __getitem__(self, id: str) -> str:
        record = self.record(id)
        if record is None:
            raise KeyError(id)
        return record.where

    def __setitem__(self, id: str, where: str) -> None:
        self.add(id, len(self._store))

    def add(self, id: str, number: int) -> None:
        """The id of a record that is in the store, or of the next one."""
        self._table.add(hash(id) & _MASK, number)

    def record(self, id: str) -> Feedback | None:
        """The record with this id."""
        for number in self._table.find(hash(id) & _MASK):
            if (record := self._store[number]).id == self._prefix + id:
                return record
        return None


def _packed(one: Feedback) -> bytes:
    prompt = [(turn.role, [(part.text, part.cut) for part in turn.parts]) for turn in one.prompt]
    candidates = [
        (it.text, it.rank, it.ratings, it.thumb, it.critique, it.revision, it.author) for it in one.candidates
    ]
    texts = (one.id, one.task, one.aspect, one.reference, one.source, one.where)
    return pickle.dumps((prompt, candidates, one.scales, texts, one.extra, one.copy), pickle.HIGHEST_PROTOCOL)


def _unpacked(row: tuple[Any, ...]) -> Feedback:
    prompt, candidates, scales, texts, extra, copy = row
    id, task, aspect, reference, source, where = texts
    values = {
        "id": id,
        "prompt": tuple([Turn(role, tuple([Part(*part) for part in parts])) for role, parts in prompt]),
        "candidates": tuple([RatedCompletion(*one) for one in candidates]),
        "scales": scales,
        "task": task,
        "aspect": aspect,
        "reference": reference,
        "source": source,
        "where": where,
        "extra": extra,
        "copy": copy,
    }
    record = object.__new__(Feedback)
    vars(record).update(values)
    return record
