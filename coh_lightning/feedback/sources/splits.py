"""Which files of a folder belong to a split, by their names.

data/train-00000-of-00002.parquet     train
data/train_prefs-2024-05.parquet      train_prefs: read for "train" if it is the only one that says so
test/part-1.csv                       test, by its folder
readme.jsonl                          none: not read if other files name a split
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources.file_names import MOST_NAMES, NUMBERED, first_names, stem_of

SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""Names of splits that are always recognized."""
SAME_SPLIT = {
    "training": "train",
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}


def files_of_split(
    files: Sequence[Path], folder: Path, split: str, unread: Collection[str]
) -> tuple[list[Path], dict[str, str]]:
    """The files of one split, and the others with the reason; all files if no name says a split.

    Args:
        unread: names of further files that can't be read, for messages.

    Raises:
        InputError: no file of this split, or several that it could mean, or a name that says two splits.
    """
    split_name = split.lower()
    labels = {file: _label(file, folder, split_name) for file in files}
    known = [split_name, *SPLITS]
    there = sorted(
        {label for label in labels.values() if label is not None},
        key=lambda label: (known.index(label) if label in known else len(known), label),
    )
    if not there:
        return list(files), {}
    wanted = [label for label in there if label == split_name]
    wanted = wanted or [label for label in there if _says(label, split_name)]
    if not wanted and split_name == "train":
        wanted = [label for label in there if _says(label, "training")]
    if len(wanted) > 1:
        first = next(file for file in files if labels[file] == wanted[0])
        raise InputError(
            f"{folder}: the split {split!r} could be {' or '.join(wanted)}; set split to one of them, or give "
            f"{_pattern(first, wanted[0])}."
        )
    if not wanted:
        names = [Path(name).name for name in unread if _says(Path(name).name.lower(), split_name)]
        beside = f" ({', '.join(names[:MOST_NAMES])} can't be read)" if names else ""
        hint = _silent_hint([file for file in files if labels[file] is None], folder)
        raise InputError(f"{folder}: no file of the split {split!r}; there is {', '.join(there)}{beside}{hint}.")
    [label] = wanted
    others = _splits_in(label) - _splits_in(split_name)
    if label != split_name and _splits_in(split_name) and others:
        named_so = first_names(sorted(str(file.relative_to(folder)) for file in files if labels[file] == label), "")
        raise InputError(
            f"{folder}: the name {label} says the split {split!r} and also {' and '.join(sorted(others))} "
            f"({named_so}); give one of these files or a pattern as path, or set split to {label!r} to read all of "
            "them as one split."
        )
    passed_over = {
        str(file): f"of the split {other}" if other else f"its name says no split, and others are of {label}"
        for file, other in labels.items()
        if other != label
    }
    return [file for file in files if labels[file] == label], passed_over


def _silent_hint(silent: Sequence[Path], folder: Path) -> str:
    if not silent:
        return ""
    names = first_names([str(file.relative_to(folder)) for file in silent[:MOST_NAMES]], "")
    verb, which = ("says", "it") if len(silent) == 1 else ("say", "one of them")
    return f"; {names} {verb} no split, give {which} or a pattern"


def _pattern(file: Path, label: str) -> str:
    """What to give instead of a folder, to read the files of the split that this one belongs to."""
    if file.is_dir():
        return f"the folder {file}"
    if label in file.name.lower():
        end = file.name.lower().index(label) + len(label)
        return f"a pattern such as {file.parent / file.name[:end]}*"
    return f"a pattern such as {file.parent}/*"


def _label(file: Path, folder: Path, split: str) -> str | None:
    """The split that the file's name says, or that of the nearest folder above it that says one."""
    if (file.parent / "dataset_dict.json").is_file() and file.is_dir():
        return file.name.lower()
    parts = list(file.relative_to(folder).parts)
    if parts and not file.is_dir():
        parts[-1] = stem_of(file)
    for part in reversed(parts):
        match = NUMBERED.fullmatch(part)
        stem = (match["stem"] if match else part).lower()
        if stem != split:  # train2, train_1, train-2024-05 say train; train-v2 is a name of its own
            stem = re.sub(r"((?<=[a-z]{2})\d+|[-_. ]+\d+)+$", "", stem)
        if any(_says(stem, known) for known in (split, *SPLITS)):
            return stem
    return None


def _splits_in(name: str) -> set[str]:
    """The splits that a name says: train and test in "train_test_split"; synonyms count as one."""
    return {SAME_SPLIT.get(known, known) for known in SPLITS if _says(name, known)}


def _says(name: str, split: str) -> bool:
    """Whether the split's name is a word of this name."""
    return re.search(rf"(^|[^a-z]){re.escape(split)}([^a-z]|$)", name) is not None
