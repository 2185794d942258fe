"""What the name of a data file says: how to read it, and which part of a set it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from coh_lightning.errors import named
from coh_lightning.feedback.compressed import PACKED

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc", ".txt")
NUMBERED = re.compile(r"(?P<stem>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]{6,})?")
"""The stem of one file of a set: train-00000-of-00002."""
MOST_NAMES = 8
"""Names that a message lists."""


def data_suffix(path: Path) -> str | None:
    """The suffix that says how to read the file (".jsonl" for a.jsonl.gz), or None if it is no data file."""
    name = unpacked_name(path.name.lower())
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def unpacked_name(name: str) -> str:
    """The name without the suffix of a compressed file."""
    return next((name[: -len(end)] for end in PACKED if name.lower().endswith(end)), name)


def stem_of(file: Path) -> str:
    """The name without its suffixes: a.v2 of a.v2.jsonl.gz."""
    name = unpacked_name(file.name)
    return name[: len(name) - len(data_suffix(file) or "")]


def first_names(paths: Iterable[str], base: str) -> str:
    """The first of some paths for a message, relative to the folder `base` if they are in it."""
    folder = Path(base).expanduser()
    inside = (
        str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) and path != str(folder) else path
        for path in paths
    )
    names = [named(path) for path in inside]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
