"""Ids of texts on disk, found by the text and its place: a store in files without a name, which grows, and a file that
keeps one (field_cache.py).

    field ── digest (128 bits) ── its number ── ids[bounds[number] : bounds[number + 1]]
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.tokens import Ids
from coh_lightning.tables import Column, HashTable

_WORDS = struct.Struct("<QQ").unpack


class Digest(NamedTuple):
    """128 bits of a hash of a field: equal ones are the same field."""

    first: int
    second: int


def packed(field: Field) -> bytes:
    text, at, more = field
    return f"{at}|{more:d}|{text}".encode("utf-8", "surrogatepass")


def unpacked(content: bytes) -> Field:
    at, more, text = content.decode("utf-8", "surrogatepass").split("|", 2)
    return Field(text, at, more == "1")  # type: ignore[arg-type]


def digest_of(content: bytes) -> Digest:
    """Of a packed field."""
    return Digest(*_WORDS(hashlib.blake2b(content, digest_size=16).digest()))


class FieldStore:
    """Fields and their ids. `arrays`: those of a store before, which can then only be read."""

    def __init__(self, folder: Path | None = None, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
        if arrays is None:
            self._table = HashTable(folder)
            self._seconds, self._ends, self._ids = Column("Q", folder), Column("q", folder), Column("i", folder)
            self._read: dict[str, NDArray[Any]] | None = None
        else:
            self._table = HashTable(slots=arrays["slots"])
            self._read = dict(arrays)

    def add(self, digests: Sequence[Digest], ids: Sequence[Ids]) -> None:
        """Fields that aren't in the store."""
        for number, digest in enumerate(digests, start=len(self._seconds)):
            self._table.add(digest.first, number)
        self._seconds.extend([digest.second for digest in digests])
        self._ends.extend(np.cumsum([len(one) for one in ids], dtype=np.int64) + len(self._ids))
        self._ids.extend(np.concatenate([np.zeros(0, np.int32), *ids]))
        self._read = None

    def ids(self, digest: Digest) -> Ids | None:
        """The ids of a field, not to be written to; None: it isn't in the store."""
        for number in self._table.find(digest.first):
            if self._read is None:
                self._read = self.arrays()
            if int(self._read["seconds"][number]) == digest.second:
                ends = self._read["ends"]
                return self._read["ids"][int(ends[number - 1]) if number else 0 : int(ends[number])]
        return None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """slots: of the hash table. seconds: (n,) uint64. ends: (n,) int64. ids: int32."""
        return {
            "slots": self._table.slots,
            "seconds": self._seconds.numbers,
            "ends": self._ends.numbers,
            "ids": self._ids.numbers,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_arrays, ({name: array.copy() for name, array in (self._read or self.arrays()).items()},)


def _from_arrays(arrays: dict[str, NDArray[Any]]) -> FieldStore:
    made, slots = FieldStore(), arrays["slots"].reshape(-1, 2)
    slots = slots[slots[:, 1] > 0]
    firsts = slots[np.argsort(slots[:, 1]), 0].tolist()
    made.add(list(map(Digest, firsts, arrays["seconds"].tolist())), np.split(arrays["ids"], arrays["ends"][:-1]))
    return made
