"""A checkpoint that is a folder of shards, as torch's distributed checkpoint writes it: its weights, whole, in one
process.

    .metadata           which tensors there are, their sizes, and where each chunk lies: file, offset, length (a pickle)
    __0_0.distcp, ...   the chunks

The metadata is untrusted: it is read as plain data, and compared with the files before any memory is allocated.
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
    """The weights in a folder of shards, whole and on the CPU, however many processes wrote it. Optimizer states are
    left out.

    Raises:
        InputError: the metadata is damaged or holds more than plain data, or the files don't match it.
    """
    reader = _Reader(folder)
    metadata = reader.read_metadata()
    with _explained(folder):
        weights = _weights(metadata)
        _compare_with_files(folder, metadata, weights)
        whole: dict[str, Any] = {key: torch.empty(one.size, dtype=one.properties.dtype) for key, one in weights.items()}
        load(whole, storage_reader=reader, no_dist=True)
        return {key.split(".", 1)[1]: value for key, value in whole.items()}


def check_shards(folder: Path) -> None:
    """Compare the metadata with the files, for all tensors, without reading any.

    Raises:
        InputError: as `read_shards`.
    """
    metadata = _Reader(folder).read_metadata()
    with _explained(folder):
        tensors = {
            key: one for key, one in metadata.state_dict_metadata.items() if isinstance(one, TensorStorageMetadata)
        }
        _compare_with_files(folder, metadata, tensors)


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
        cause: BaseException = (
            next(iter(error.failures.values()))[0]
            if isinstance(error, CheckpointException) and error.failures
            else error
        )
        raise InputError(
            f"{folder} can't be read as a checkpoint ({type(cause).__name__}: {first_line(cause)}); it may be damaged."
        ) from error


def _weights(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    # `state_dict.` is ModelParallelStrategy's, `model.` FSDPStrategy's
    stored = metadata.state_dict_metadata
    return {
        key: one
        for key, one in stored.items()
        if key.startswith(("state_dict.", "model.")) and isinstance(one, TensorStorageMetadata)
    }


def _compare_with_files(folder: Path, metadata: Metadata, tensors: dict[str, TensorStorageMetadata]) -> None:
    """Every tensor is covered by its chunks, every chunk fits into the bytes stored for it, and those lie in the files
    without overlap.
    """
    stored = metadata.storage_data
    for key, one in tensors.items():
        item = torch.empty((), dtype=one.properties.dtype).element_size()
        if sum(prod(chunk.sizes) for chunk in one.chunks) != prod(one.size) or len(
            {chunk.offsets for chunk in one.chunks}
        ) != len(one.chunks):
            raise InputError(
                f"{folder}: the chunks of '{key}' don't add up to its size {list(one.size)}; a file of the "
                "checkpoint is missing or damaged."
            )
        for chunk in one.chunks:
            beyond = any(
                not 0 <= start <= start + size <= end
                for start, size, end in zip(chunk.offsets, chunk.sizes, one.size, strict=True)
            )
            place = stored.get(MetadataIndex(key, chunk.offsets))
            if place is None or beyond:
                raise InputError(
                    f"{folder}: a chunk of '{key}' is stored nowhere or lies outside the tensor; the metadata is "
                    "damaged."
                )
            if place.transform_descriptors:
                raise InputError(
                    f"{folder}: '{key}' is compressed ({', '.join(place.transform_descriptors)}); write the checkpoint "
                    "without compression."
                )
            if prod(chunk.sizes) * item > place.length:
                raise InputError(
                    f"{folder}: the metadata names {prod(chunk.sizes) * item:,} bytes of '{key}' where "
                    f"{place.length:,} are stored; the checkpoint is damaged."
                )
    held: Counter[str] = Counter()
    needed: dict[str, int] = {}
    for place in stored.values():
        if place.length < 0 or place.offset < 0 or Path(place.relative_path).name != place.relative_path:
            raise InputError(
                f"{folder}: the metadata names an impossible place ({place.relative_path!r}); it is damaged."
            )
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
            raise InputError(
                f"its metadata names {f'{module}.{name}'!r}, which torch never writes there and which could run any "
                "code; it is not read."
            )
        return PurePosixPath if module.startswith("pathlib") else super().find_class(module, name)


class _Reader(FileSystemReader):
    """Refuses metadata, which is pickled, that holds anything but what torch writes. torch itself reads the shards as
    plain data.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / METADATA
        try:
            with path.open("rb") as file:
                metadata = _Unpickler(file).load()
        except InputError as error:
            raise InputError(f"{self.path} can't be read as a checkpoint: {error}") from error
        except Exception as error:
            raise InputError(
                f"{self.path} can't be read as a checkpoint ({type(error).__name__}: {first_line(error)}); it may be "
                "damaged."
            ) from error
        if not isinstance(metadata, Metadata):
            raise InputError(
                f"{self.path} can't be read as a checkpoint: its metadata is a {type(metadata).__name__}; it may be "
                "damaged."
            )
        return metadata
