"""The name of a data file: how to read it, the set it is a part of, and its split.

data/train-00000-of-00002.parquet     train, and the first of two parts
data/train_prefs-2024-05.parquet      train_prefs; read for "train" if no other name has "train" in it
test/part-1.csv                       test, by its folder
readme.jsonl                          no split: not read if other files have one
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.compressed import PACKED

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc", ".txt")
NUMBERED = re.compile(r"(?P<stem>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]{6,})?")
"""The stem of one file of a set: train-00000-of-00002."""
MOST_NAMES = 8
"""Names that a message lists."""
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""Names of splits that are always recognized."""
SAME_SPLIT = {
    "training": "train",
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}


def data_suffix(path: Path) -> str | None:
    """The suffix that tells how to read the file (".jsonl" for a.jsonl.gz); None if it is not a data file."""
    name = unpacked_name(path.name.lower())
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def unpacked_name(name: str) -> str:
    return next((name[: -len(end)] for end in PACKED if name.lower().endswith(end)), name)


def stem_of(file: Path) -> str:
    """The name without its suffixes: a.v2 of a.v2.jsonl.gz."""
    name = unpacked_name(file.name)
    return name[: len(name) - len(data_suffix(file) or "")]


def check_names(names: Sequence[str], where: str) -> None:
    """Raises InputError if two columns have the same name."""
    if len(set(names)) < len(names):
        raise InputError(f"{where}: two columns have the same name ({named(', '.join(names))}).")


def first_names(paths: Iterable[str], base: str) -> str:
    """The first of some paths for a message, relative to the folder `base` if they are in it."""
    folder = Path(base).expanduser()
    inside = (
        str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) and path != str(folder) else path
        for path in paths
    )
    names = [named(path) for path in inside]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def files_of_split(
    files: Sequence[Path], folder: Path, split: str, unread: Collection[str]
) -> tuple[list[Path], dict[str, str]]:
    """The files of one split, and the others with the reason; all files if no name has a split.

    Args:
        unread: names of further files that can't be read, for messages.

    Raises:
        InputError: no file of this split, several splits that it could mean, or two splits in one name.
    """
    split_name = split.lower()
    labels = {file: _label(file, folder, split_name) for file in files}
    known = [split_name, *SPLITS]
    found = {label for label in labels.values() if label is not None}
    if not found:
        return list(files), {}
    there = sorted(found, key=lambda label: (known.index(label) if label in known else len(known), label))
    wanted = [label for label in there if label == split_name] or [one for one in there if _says(one, split_name)]
    if not wanted and split_name == "train":
        wanted = [label for label in there if _says(label, "training")]
    if len(wanted) > 1:
        remedy = f"set split to one of them, or give {_pattern(files[[*labels.values()].index(wanted[0])], wanted[0])}"
        raise InputError(f"{folder}: the split {split!r} could be {' or '.join(wanted)}; {remedy}.")
    if not wanted:
        names = [Path(name).name for name in unread if _says(Path(name).name.lower(), split_name)]
        beside = f" ({', '.join(names[:MOST_NAMES])} can't be read)" if names else ""
        silent = [str(file.relative_to(folder)) for file in files if labels[file] is None]
        hint = f"; without a split: {first_names(silent, '')} (give one, or a pattern)" if silent else ""
        raise InputError(f"{folder}: no file of the split {split!r}; there is {', '.join(there)}{beside}{hint}.")
    [label] = wanted
    others = _splits_in(label) - _splits_in(split_name)
    if label != split_name and _splits_in(split_name) and others:
        named_so = first_names(sorted(str(file.relative_to(folder)) for file in files if labels[file] == label), "")
        raise InputError(
            f"{folder}: the name {label} has the split {split!r} and also {' and '.join(sorted(others))} ({named_so}); "
            f"give one of these files or a pattern as path, or set split to {label!r} to read all of them."
        )
    passed_over = {
        str(file): f"of the split {other}" if other else f"no split in its name, and others are of {label}"
        for file, other in labels.items()
        if other != label
    }
    return [file for file in files if labels[file] == label], passed_over


def _pattern(file: Path, label: str) -> str:
    """What to give instead of a folder, to read the files of this file's split."""
    if file.is_dir():
        return f"the folder {file}"
    if label in file.name.lower():
        end = file.name.lower().index(label) + len(label)
        return f"a pattern such as {file.parent / file.name[:end]}*"
    return f"a pattern such as {file.parent}/*"


def _label(file: Path, folder: Path, split: str) -> str | None:
    """The split in the file's name, or in the name of the nearest folder above it that has one."""
    if (file.parent / "dataset_dict.json").is_file() and file.is_dir():
        return file.name.lower()
    parts = list(file.relative_to(folder).parts)
    if parts and not file.is_dir():
        parts[-1] = stem_of(file)
    for part in reversed(parts):
        match = NUMBERED.fullmatch(part)
        stem = (match["stem"] if match else part).lower()
        if stem != split:  # train2, train_1, train-2024-05 are train; train-v2 is another name
            stem = re.sub(r"((?<=[a-z]{2})\d+|[-_. ]+\d+)+$", "", stem)
        if any(_says(stem, known) for known in (split, *SPLITS)):
            return stem
    return None


def _splits_in(name: str) -> set[str]:
    """The splits in a name: train and test in "train_test_split"; synonyms count as one."""
    return {SAME_SPLIT.get(known, known) for known in SPLITS if _says(name, known)}


def _says(name: str, split: str) -> bool:
    """Whether the split is a word of this name."""
    return re.search(rf"(^|[^a-z]){re.escape(split)}([^a-z]|$)", name) is not None
