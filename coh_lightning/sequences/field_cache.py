"""A file with the ids of all texts of a data set, so that a second run doesn't tokenize them again.

Its name is a hash of the tokenizer, the added tokens that are kept, VERSION and all texts; wording and method are not
in it. A file that is cut short, unreadable or another's is built again, never trusted. Its ids are read from the mapped
file, text by text, so they take no memory of the process.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.io import atomic_write
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.field_store import Digest, FieldStore, digest_of, packed, unpacked
from coh_lightning.tables import Blobs, Column, HashTable

log = logging.getLogger(__name__)

VERSION = 3  # of the encoding and the file. Raise it when the ids of any text may change: others' caches are ignored.
_BATCH = 2048  # texts per call of the tokenizer
_TYPES = {"slots": np.uint64, "seconds": np.uint64, "ends": np.int64, "ids": np.int32}


def cache_fields(encoder: Encoder, fields: Iterable[Field], cache_dir: Path) -> Path:
    """Let `encoder` know the ids of all `fields`, read from a file or encoded and written; returns the file."""
    distinct = _Distinct(cache_dir)
    with_added: set[str] = set()  # texts with added tokens, each counted once in whatever places it comes
    for field in map(encoder.place, fields):
        if distinct.add(field) and encoder.added.occur_in(field.text) and field.text not in with_added:
            with_added.add(field.text)
            encoder.added.count([field.text])
    key = distinct.key(" ".join([encoder.tokenizer_hash, *sorted(encoder.added.kept)]))
    path = cache_dir / f"fields-{key[:32]}.npz"
    arrays = _read_cache(path, key, len(distinct)) if path.exists() else None
    if arrays is None:
        _write_cache(path, key, _encoded(encoder, distinct, cache_dir))
        arrays = _read_cache(path, key, len(distinct))
        if arrays is None:
            raise RuntimeError(f"the cache {path} can't be read after it was written")
    encoder.read_from(FieldStore(arrays=arrays))
    return path


class _Distinct:
    """The different fields of a data set, in the order in which they come first."""

    def __init__(self, folder: Path) -> None:
        self._table = HashTable(folder)
        self._digests = Column("Q", folder)
        self._fields = Blobs(folder)
        self._sum = 0

    def __len__(self) -> int:
        return len(self._fields)

    def add(self, field: Field) -> bool:
        """Whether it is a new one."""
        content = packed(field)
        digest = digest_of(content)
        for number in self._table.find(digest.first):
            if self._fields[number] == content:
                return False
        self._table.add(digest.first, len(self._fields))
        self._fields.append(content)
        self._digests.extend(digest)
        self._sum += digest.first << 64 | digest.second
        return True

    def __getitem__(self, number: int) -> Field:
        return unpacked(self._fields[number])

    def digests(self, numbers: range) -> list[Digest]:
        found = self._digests.numbers[2 * numbers.start : 2 * numbers.stop].tolist()
        return list(map(Digest, found[::2], found[1::2]))

    def key(self, tokenizer: str) -> str:
        """A hash of the fields, in whatever order they come. The file has a digest of each."""
        sum = self._sum % (1 << 128)
        return hashlib.sha256(f"{VERSION} {tokenizer} {len(self)} {sum}".encode()).hexdigest()


def _encoded(encoder: Encoder, fields: _Distinct, folder: Path) -> FieldStore:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    store = FieldStore(folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=len(fields) <= _BATCH) as bar:
        for start in bar.track(range(0, len(fields), _BATCH), description="tokenizing, batches"):
            numbers = range(start, min(start + _BATCH, len(fields)))
            store.add(fields.digests(numbers), encoder.ids_of([fields[number] for number in numbers]))
    return store


def _read_cache(path: Path, key: str, number: int) -> dict[str, NDArray[Any]] | None:
    """The arrays of a store, mapped; None for a file that is damaged or not this key's."""
    try:
        found = _mapped_arrays(path)
        stored, checksum = str(found.pop("key")), str(found.pop("checksum"))
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile) as error:
        log.warning("The cache %s is damaged (%s: %s) and is built again.", path, type(error).__name__, error)
        return None
    whole = {name: array.dtype.type for name, array in found.items()} == _TYPES
    if not whole or stored != key or len(found["ends"]) != number or checksum != _checksum(found):
        log.warning("The cache %s is not what its name says and is built again.", path)
        return None
    return found


def _mapped_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file as np.savez writes it, uncompressed, each a view of the mapped file."""
    arrays = {}
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            name, extra = struct.unpack("<HH", content[info.header_offset + 26 : info.header_offset + 30])
            file.seek(info.header_offset + 30 + name + extra)
            shape, dtype = _header(file)
            size = int(np.prod(shape))
            array = np.frombuffer(content, dtype, size, file.tell()) if size else np.zeros(0, dtype)
            arrays[info.filename.removesuffix(".npy")] = array.reshape(shape)
    return arrays


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return shape, dtype


def _write_cache(path: Path, key: str, store: FieldStore) -> None:
    arrays = store.arrays()
    with atomic_write(path) as aside, aside.open("wb") as file:
        named: dict[str, Any] = {**arrays, "key": np.array(key), "checksum": np.array(_checksum(arrays))}
        np.savez(file, **named)


def _checksum(arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in _TYPES:
        digest.update(arrays[name].view(np.uint8).data)
    return digest.hexdigest()
