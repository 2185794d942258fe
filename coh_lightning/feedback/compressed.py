"""Files that are read as bytes or as text, compressed or not, with a limit on what they may decompress to."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any, cast

from coh_lightning.errors import InputError, first_line, near_file, same_kind

PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files."""
LARGEST_WHOLE = 2**29
"""Bytes of a file that can't be read line by line (JSON, CSV, text)."""
FREELY_UNPACKED = 32 * 2**20
MOST_UNPACKED = 100
"""A compressed file may decompress to `FREELY_UNPACKED` bytes, or to `MOST_UNPACKED` times its size if that is more:
text compresses about tenfold, a decompression bomb a thousandfold.
"""
UNREADABLE = (EOFError, OSError, zlib.error)
"""What reading a damaged file may raise."""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed if its suffix is in `PACKED`. Raises InputError if it is not a file."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file{near_file(path, lambda it: same_kind(path, it))}")
    if not path.is_file():
        raise InputError(f"{path}: this is not a file.")
    return io.BufferedReader(_Decompressed(path), 2**16) if path.suffix.lower() in PACKED else path.open("rb")


def read_text(path: Path) -> str:
    """The text of a file without a byte order mark. Raises InputError if it is damaged, not UTF-8, or too large."""
    raw = bytearray()
    with open_bytes(path) as file:
        try:
            while piece := file.read(2**20):
                raw += piece
                if len(raw) > LARGEST_WHOLE:
                    size = f"larger than {LARGEST_WHOLE >> 20} MiB, and must be read at once"
                    raise InputError(f"{path}: it is {size}; split it, or use JSON lines.")
        except UNREADABLE as error:
            raise InputError(f"{path}: the file can't be read ({first_line(error)}); is it complete?") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise not_utf8(f"{path}:{line}", error) from error


def not_utf8(where: str, error: UnicodeDecodeError) -> InputError:
    bad = bytes(error.object[error.start : error.start + 1]).hex()
    return InputError(f"{where}: not UTF-8 (0x{bad} at byte {error.start + 1}); save the file as UTF-8.")


def check_unpacked(path: Path, count: int) -> None:
    """Raises InputError if a compressed file has decompressed to `count` bytes, and that is too many for its size."""
    size = path.stat().st_size
    most = max(FREELY_UNPACKED, MOST_UNPACKED * size)
    if count > most:
        found = f"it decompresses to more than {most:,} bytes, {most // max(size, 1)} times its size"
        raise InputError(f"{path}: {found}; decompress it yourself if that is right.")


class _Decompressed(io.RawIOBase):
    """The content of a compressed file; refuses a decompression bomb."""

    def __init__(self, path: Path) -> None:
        self._file = _decompressor(path)
        self._path = path
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._file.read(len(buffer))
        except UNREADABLE:
            raise
        except Exception as error:  # lzma and pyarrow have exceptions of their own for damaged data
            raise OSError(first_line(error)) from error
        buffer[: len(piece)] = piece
        self._count += len(piece)
        check_unpacked(self._path, self._count)
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressor(path: Path) -> IO[bytes]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".bz2":
            import bz2

            return cast("IO[bytes]", bz2.open(path, "rb"))
        if suffix == ".xz":
            import lzma

            return cast("IO[bytes]", lzma.open(path, "rb"))
        if suffix == ".zst":
            import pyarrow

            return cast("IO[bytes]", pyarrow.input_stream(str(path), compression="zstd"))
        return cast("IO[bytes]", gzip.open(path, "rb"))
    except (ImportError, NotImplementedError) as error:
        needs = {".bz2": "Python's bz2", ".xz": "Python's lzma"}.get(suffix, "pyarrow with zstd")
        raise InputError(f"{path}: {suffix} needs {needs}; install it, or decompress the file.") from error
