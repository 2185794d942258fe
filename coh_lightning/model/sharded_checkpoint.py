"""Reads a checkpoint that is a folder of shards, as torch's distributed checkpoint writes it, whole and in one process.

    .metadata           which tensors there are, their sizes, and where each chunk lies: file, offset, length (a pickle)
    __0_0.distcp, ...   the chunks

The metadata is untrusted: it is read as plain data, and checked against the files before any memory is allocated.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from coh_lightning.errors import InputError, first_line

METADATA = ".metadata"


def read_shards(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder of shards, whole and on the CPU, without optimizer states.

    Raises:
        InputError: the metadata is damaged or holds more than plain data, or the files don't match it.
    """
    reader = _Reader(folder)
    metadata = reader.read_metadata()
    with _explained(folder):
        # `state_dict.` is ModelParallelStrategy's, `model.` FSDPStrategy's
        weights = {key: one for key, one in _tensors(metadata).items() if key.startswith(("state_dict.", "model."))}
        _compare_with_files(folder, metadata, weights)
        whole: dict[str, Any] = {key: torch.empty(one.size, dtype=one.properties.dtype) for key, one in weights.items()}
        load(whole, storage_reader=reader, no_dist=True)
        return {key.split(".", 1)[1]: value for key, value in whole.items()}


def check_shards(folder: Path) -> None:
    """Compare the metadata with the files, for all tensors, without reading any. Raises like `read_shards`."""
    metadata = _Reader(folder).read_metadata()
    with _explained(folder):
        _compare_with_files(folder, metadata, _tensors(metadata))


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns whatever torch or Python raises for a damaged folder into one sentence."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, CheckpointException) as error:
        if "allocate memory" in str(error):  # the folder is fine
            raise
        cause: BaseException = error
        if isinstance(error, CheckpointException) and error.failures:
            cause = next(iter(error.failures.values()))[0]
        raise _unreadable(folder, f"{type(cause).__name__}: {first_line(cause)}") from error


def _unreadable(folder: Any, reason: str) -> InputError:
    return InputError(f"{folder} can't be read as a checkpoint ({reason}); it may be damaged.")


def _tensors(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    stored = metadata.state_dict_metadata
    return {key: one for key, one in stored.items() if isinstance(one, TensorStorageMetadata)}


def _compare_with_files(folder: Path, metadata: Metadata, tensors: dict[str, TensorStorageMetadata]) -> None:
    """Chunks must cover their tensors, fit into the bytes stored for them, and lie in the files without overlap."""
    stored = metadata.storage_data
    for key, one in tensors.items():
        item = one.properties.dtype.itemsize
        distinct = len({chunk.offsets for chunk in one.chunks}) == len(one.chunks)
        if not distinct or sum(prod(chunk.sizes) for chunk in one.chunks) != prod(one.size):
            what = f"the chunks of '{key}' don't add up to its size {list(one.size)}"
            raise InputError(f"{folder}: {what}; a file of the checkpoint is missing or damaged.")
        for chunk in one.chunks:
            beyond = any(
                not 0 <= start <= start + size <= end
                for start, size, end in zip(chunk.offsets, chunk.sizes, one.size, strict=True)
            )
            place = stored.get(MetadataIndex(key, chunk.offsets))
            if place is None or beyond:
                raise InputError(
                    f"{folder}: a chunk of '{key}' is stored nowhere or lies outside the tensor; it is damaged."
                )
            if place.transform_descriptors:
                how = ", ".join(place.transform_descriptors)
                raise InputError(f"{folder}: '{key}' is compressed ({how}); write the checkpoint without compression.")
            if (named := prod(chunk.sizes) * item) > place.length:
                what = f"the metadata names {named:,} bytes of '{key}' where {place.length:,} are stored"
                raise InputError(f"{folder}: {what}; the checkpoint is damaged.")
    held: Counter[str] = Counter()
    needed: dict[str, int] = {}
    for place in stored.values():
        if place.length < 0 or place.offset < 0 or Path(place.relative_path).name != place.relative_path:
            raise InputError(f"{folder}: the metadata names an impossible place ({place.relative_path!r}).")
        held[place.relative_path] += place.length
        needed[place.relative_path] = max(needed.get(place.relative_path, 0), place.offset + place.length)
    for name, end in needed.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder}: the file {name} is missing; copy the checkpoint again, with all its files.")
        size, named = path.stat().st_size, max(end, held[name])
        if named > size:
            raise InputError(
                f"{path} has {size:,} bytes, but the metadata names {named:,} in it; it is truncated, so copy it again."
            )


_PLAIN = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},
}
"""Everything that torch itself pickles into the metadata, by module."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _PLAIN.get(module, ()):
            what = f"its metadata names {f'{module}.{name}'!r}, which torch never writes there"
            raise InputError(f"{what} and which could run any code; it is not read.")
        return PurePosixPath if module.startswith("pathlib") else super().find_class(module, name)


class _Reader(FileSystemReader):
    """Refuses metadata (a pickle) with anything but what torch writes. torch reads the shards as plain data."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        try:
            with (Path(self.path) / METADATA).open("rb") as file:
                metadata = _Unpickler(file).load()
        except InputError as error:
            raise InputError(f"{self.path} can't be read as a checkpoint: {error}") from error
        except Exception as error:
            raise _unreadable(self.path, f"{type(error).__name__}: {first_line(error)}") from error
        if not isinstance(metadata, Metadata):
            raise _unreadable(self.path, f"its metadata is a {type(metadata).__name__}")
        return metadata
