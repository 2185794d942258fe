"""Tables in files without a name, mapped into memory: a data set takes disk space and page cache, which the system may
drop at any time, and no memory of the process by its size.

    Column      numbers of one type, appended and then read as an array of numpy
    Blobs       byte strings, appended and read by number
    HashTable   64-bit keys -> numbers

A small table stays in memory and opens no file, so that many small data sets use up no file descriptors. A folder is
needed only for its disk; the files have no names there and end with the process. A forked process (a worker
of a loader) can read them, and must add nothing to them.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BUFFERED = 1 << 18  # bytes that wait to be written


def nameless_file(folder: Path | None) -> IO[bytes]:
    """A file without a name, in the folder or, where that can't be written, among the system's temporary files."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


def _put(file: IO[bytes], content: bytes | memoryview, at: int) -> None:
    """Writes at a place of its own, not where the file stands: a forked process has the same file, and what waits to
    be written in both is the same.
    """
    while len(content):
        at += (done := os.pwrite(file.fileno(), content, at))
        content = content[done:]


def _mapped(file: IO[bytes] | None, size: int) -> mmap.mmap | bytes:
    return mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) if file is not None and size else b""


class Column:
    """Numbers of one type, as `array.array` names it (i: int32, q: int64, Q: uint64, d: float64)."""

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        self.kind = kind
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._waiting = array(kind)
        self._most = _BUFFERED // self._waiting.itemsize
        self._written = 0  # bytes

    def append(self, number: float) -> None:
        self._waiting.append(number)  # type: ignore[arg-type]
        if len(self._waiting) >= self._most:
            self._flush()

    def extend(self, numbers: NDArray[Any] | Iterable[float]) -> None:
        import numpy as np

        if isinstance(numbers, np.ndarray):
            content = np.ascontiguousarray(numbers, np.dtype(self.kind))
            if len(self._waiting) + len(content) >= self._most:
                self._flush()
                self._write(content.data)
            else:
                self._waiting.frombytes(content.tobytes())
            return
        self._waiting.extend(numbers)  # type: ignore[arg-type]
        if len(self._waiting) >= self._most:
            self._flush()

    def __len__(self) -> int:
        return self._written // self._waiting.itemsize + len(self._waiting)

    @property
    def numbers(self) -> NDArray[Any]:
        """All numbers so far, not to be written to."""
        import numpy as np

        if self._file is None:
            return np.frombuffer(self._waiting.tobytes(), np.dtype(self.kind))
        self._flush()
        return np.frombuffer(_mapped(self._file, self._written), np.dtype(self.kind))

    def _flush(self) -> None:
        if self._waiting:
            self._write(memoryview(self._waiting).cast("B"))
            self._waiting = array(self.kind)

    def _write(self, content: memoryview) -> None:
        self._file = self._file or nameless_file(self._folder)
        _put(self._file, content.cast("B"), self._written)
        self._written += content.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _column, (self.kind, self.numbers.tobytes())


class Blobs:
    """Byte strings by number, in the order in which they were appended."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._ends = Column("q", folder)
        self._waiting: list[bytes] = []
        self._first = 0  # the number of the first one that waits
        self._size = self._wait = 0  # bytes of all, and of those that wait
        self._bytes: mmap.mmap | bytes = b""
        self._bounds: Sequence[int] = ()

    def append(self, content: bytes) -> int:
        """Returns its number."""
        self._waiting.append(content)
        self._size += len(content)
        self._wait += len(content)
        self._ends.append(self._size)
        if self._wait > _BUFFERED:
            self._file = self._file or nameless_file(self._folder)
            _put(self._file, b"".join(self._waiting), self._size - self._wait)
            self._first += len(self._waiting)
            self._waiting, self._wait = [], 0
        return self._first + len(self._waiting) - 1

    def __len__(self) -> int:
        return self._first + len(self._waiting)

    def __getitem__(self, number: int) -> bytes:
        if number >= self._first:
            return self._waiting[number - self._first]
        if number >= len(self._bounds):
            self._bytes = _mapped(self._file, self._size - self._wait)
            self._bounds = memoryview(self._ends.numbers[: self._first])  # type: ignore[arg-type]
        start = self._bounds[number - 1] if number else 0
        return self._bytes[start : self._bounds[number]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _blobs, ([self[number] for number in range(len(self))],)


class HashTable:
    """64-bit keys -> numbers of at least 0. A key may be added several times; `find` gives all its numbers.

    Open addressing by the first bits of the key: what is full goes to the next place, without a way around the end. So
    the places are nearly in the order of the keys, and the table is doubled piece by piece.
    """

    def __init__(self, folder: Path | None = None, slots: NDArray[np.uint64] | None = None) -> None:
        """`slots`: those of another table, to be read only."""
        self._folder = folder
        self._count = 0
        if slots is None:
            self._make(10)
        else:
            self._shift = 65 - ((len(slots) // 2) - _BEYOND).bit_length()
            self._slots = memoryview(slots).cast("B").cast("Q")  # type: ignore[arg-type]

    @property
    def slots(self) -> NDArray[np.uint64]:
        """(2 n,) uint64: key and number + 1 of each place; 0: the place is empty."""
        import numpy as np

        return np.frombuffer(self._slots, np.uint64)

    def find(self, key: int) -> Iterator[int]:
        """The numbers of a key, in the order in which they were added."""
        slots, at = self._slots, 2 * (key >> self._shift)
        while found := slots[at + 1]:
            if slots[at] == key:
                yield found - 1
            at += 2

    def add(self, key: int, number: int) -> None:
        slots, at = self._slots, 2 * (key >> self._shift)
        while slots[at + 1]:
            at += 2
        slots[at], slots[at + 1] = key, number + 1
        self._count += 1
        # the places beyond the last home must never be used up
        if self._count * 2 > 1 << (64 - self._shift) or at > 2 * ((1 << (64 - self._shift)) + _BEYOND - 8):
            self._double()

    def _make(self, bits: int) -> None:
        self._shift = 64 - bits
        size = 16 * ((1 << bits) + _BEYOND)
        self._map: mmap.mmap | bytearray = bytearray(size) if size <= _BUFFERED else self._in_file(size)
        self._slots = memoryview(self._map).cast("Q")

    def _in_file(self, size: int) -> mmap.mmap:
        file = nameless_file(self._folder)
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)

    def _double(self) -> None:
        import numpy as np

        old = np.frombuffer(self._map, np.uint64).reshape(-1, 2)
        bits = 65 - self._shift
        while True:
            self._make(bits)
            if self._move(old):
                return
            bits += 1

    def _move(self, old: NDArray[Any]) -> bool:
        """Puts all into the new places; False: there is no room beyond the last one."""
        import numpy as np

        new = np.frombuffer(self._map, np.uint64).reshape(-1, 2)
        free, start = 0, 0
        while start < len(old):
            stop = min(start + _PIECE, len(old))
            while stop < len(old) and old[stop, 1]:  # a piece ends before an empty place
                stop += 1
            piece = old[start:stop]
            piece = piece[piece[:, 1] != 0]
            # equal keys keep their order: each of them stands after those added before
            piece = piece[np.argsort(piece[:, 0], kind="stable")]
            own = np.arange(len(piece))
            home = (piece[:, 0] >> np.uint64(self._shift)).astype(np.int64)
            at = np.maximum.accumulate(np.maximum(home, free) - own) + own
            if len(at):
                if at[-1] >= len(new) - 8:
                    return False
                new[at] = piece
                free = int(at[-1]) + 1
            start = stop
        return True


_BEYOND = 1 << 10  # places after the last home
_PIECE = 1 << 16  # places that are moved at once


def _column(kind: str, content: bytes) -> Column:
    import numpy as np

    made = Column(kind)
    made.extend(np.frombuffer(content, np.dtype(kind)))
    return made


def _blobs(contents: list[bytes]) -> Blobs:
    made = Blobs()
    for content in contents:
        made.append(content)
    return made
