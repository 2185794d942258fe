"""Arrow files in the file format (Feather 2, .arrow) and the stream format (which `datasets` writes), read in batches,
with a limit on what compressed buffers may decompress to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.compressed import check_unpacked
from coh_lightning.feedback.sources.file_names import check_names

MAGIC = b"ARROW1"
ROWS = 64
"""Rows that become Python objects at a time."""


def arrow_batches(path: Path, content: Any) -> Iterator[Any]:
    """The record batches of an Arrow file, in slices of `ROWS` rows.

    Args:
        path: Its name, for messages.
        content: Its bytes, or a buffer of pyarrow.

    Raises:
        InputError: it is truncated, of Feather's first version, a decompression bomb, or has a column name twice.
        Exception: any exception of pyarrow, for a damaged file.
    """
    import pyarrow
    import pyarrow.ipc

    buffer = pyarrow.py_buffer(content)
    start, end = bytes(buffer[:8]), bytes(buffer[-8:])
    if start.startswith(b"FEA1"):
        raise InputError(
            f"{path}: this is Feather's first version; write it again with a newer pyarrow, or as Parquet."
        )
    if start.startswith(MAGIC):  # the file format: the stream format between a header and a footer
        if not end.endswith(MAGIC):
            raise InputError(f"{path}: the end of this Arrow file is missing; is it complete?")
        buffer = buffer[8:]
    elif end != b"\xff\xff\xff\xff\0\0\0\0":
        raise InputError(f"{path}: the end of this Arrow stream is missing; is it complete?")
    unpacked = 0
    messages = pyarrow.ipc.MessageReader.open_stream(buffer)
    for message in messages:
        body = b"" if message.body is None else message.body.to_pybytes()
        unpacked += unpacked_size(message.metadata.to_pybytes(), body)
        check_unpacked(path, unpacked)
    reader = pyarrow.ipc.open_stream(buffer)
    check_names(reader.schema.names, str(path))
    for batch in reader:
        batch.validate(full=True)  # offsets outside their buffers would crash the process
        for begin in range(0, batch.num_rows, ROWS):
            yield batch.slice(begin, ROWS)


class _FlatTable:
    """A FlatBuffers table, the encoding of Arrow's message headers: its fields by number."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]

    def at(self, field: int) -> int | None:
        """The position of a field, or None if it has its default."""
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        place = 4 + 2 * field
        offset = struct.unpack_from("<H", self._data, self._fields + place)[0] if place < size else 0
        return self._at + offset if offset else None

    def inner(self, field: int) -> int | None:
        """The position of the table or vector in a field."""
        at = self.at(field)
        return None if at is None else at + struct.unpack_from("<I", self._data, at)[0]


def unpacked_size(head: bytes, body: bytes) -> int:
    """The decompressed size in bytes that the compressed buffers of one message declare; 0 if none is compressed.

    Message: header_type (1), header (2). DictionaryBatch: data (1). RecordBatch: buffers (2: pairs of offset and
    length), compression (3). A compressed buffer begins with its size as an int64, -1 if it is stored uncompressed.
    """
    message = _FlatTable(head, struct.unpack_from("<I", head, 0)[0])
    kind_at, batch_at = message.at(1), message.inner(2)
    kind = head[kind_at] if kind_at is not None else 0
    if kind == 2 and batch_at is not None:
        batch_at = _FlatTable(head, batch_at).inner(1)
    if kind not in (2, 3) or batch_at is None:
        return 0
    batch = _FlatTable(head, batch_at)
    buffers = batch.inner(2)
    if batch.at(3) is None or buffers is None:
        return 0
    total = 0
    for number in range(struct.unpack_from("<I", head, buffers)[0]):
        offset, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * number)
        if length >= 8:
            total += max(0, struct.unpack_from("<q", body, offset)[0])
    return total
