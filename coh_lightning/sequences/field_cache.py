"""A file with the ids of all texts of a data set, so that a second run doesn't tokenize them again.

Its name is a hash of the tokenizer, the added tokens that are kept, VERSION and all texts; wording and method are not
in it. A file that is cut short, unreadable or another's is built again, never trusted.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.io import atomic_write
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.tokens import Ids

log = logging.getLogger(__name__)

VERSION = 2  # of the encoding. Raise it when the ids of any text may change: caches of other versions are ignored.
_BATCH = 2048  # texts per call of the tokenizer


def cache_fields(encoder: Encoder, fields: Iterable[Field], cache_dir: Path) -> Path:
    """Let `encoder` remember the ids of all `fields`, read from a file or encoded and written; returns the file."""
    ordered = sorted(set(map(encoder.place, fields)))
    encoder.added.count({field.text for field in ordered})
    key = _cache_key(" ".join([encoder.tokenizer_hash, *sorted(encoder.added.kept)]), ordered)
    path = cache_dir / f"fields-{key[:32]}.npz"
    ids = _read_cache(path, key, len(ordered)) if path.exists() else None
    if ids is None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=len(ordered) <= _BATCH) as bar:
            starts = bar.track(range(0, len(ordered), _BATCH), description="tokenizing, batches")
            ids = [array for start in starts for array in encoder.encode_fields(ordered[start : start + _BATCH])]
        _write_cache(path, key, ids)
    encoder.remember(ordered, ids)
    return path


def _cache_key(tokenizer_hash: str, fields: Sequence[Field]) -> str:
    digest = hashlib.sha256(f"{VERSION} {tokenizer_hash} {len(fields)}".encode())
    for text, at, more in fields:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"|{len(encoded)} {at} {more}|".encode())
        digest.update(encoded)
    return digest.hexdigest()


def _read_cache(path: Path, key: str, number: int) -> list[Ids] | None:
    """The ids of each field, or None for a file that is damaged or not this key's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, bounds, stored, checksum = file["ids"], file["bounds"], str(file["key"]), str(file["checksum"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("The cache %s is damaged (%s: %s) and is built again.", path, type(error).__name__, error)
        return None
    if stored != key or checksum != _checksum(ids, bounds) or bounds.shape != (number + 1,) or ids.dtype != np.int32:
        log.warning("The cache %s is not what its name says and is built again.", path)
        return None
    return [ids[start:stop] for start, stop in itertools.pairwise(bounds.tolist())]


def _write_cache(path: Path, key: str, ids: Sequence[Ids]) -> None:
    joint = np.concatenate([np.zeros(0, dtype=np.int32), *ids])
    bounds = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, ids=joint, bounds=bounds, key=np.array(key), checksum=np.array(_checksum(joint, bounds)))


def _checksum(ids: NDArray[Any], bounds: NDArray[Any]) -> str:
    return hashlib.sha256(ids.tobytes() + bounds.tobytes()).hexdigest()
