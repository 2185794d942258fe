"""Which files a path means: one file, those that match a pattern, or those of one split in a folder.

folder/README.md                      passed over: no kind of file that is read
folder/.cache/train.jsonl             passed over: the name begins with a dot
folder/dataset_info.json              passed over: it describes the data
folder/train-00000-of-00002.parquet   read for the split "train"
folder/train-00001-of-00002.parquet   read for the split "train"; without it the folder is refused
folder/test.parquet                   passed over: another split
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from coh_lightning.compressed import PACKED
from coh_lightning.errors import InputError, did_you_mean, named

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".ipc", ".txt")
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
"""Names of splits that are known by themselves."""
SAME_SPLIT = {
    "training": "train",
    **dict.fromkeys(("valid", "val", "dev"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}
DESCRIPTIONS = frozenset(
    "dataset_info.json dataset_infos.json dataset_dict.json state.json config.json metadata.json croissant.json "
    "generation_config.json "
    "tokenizer.json tokenizer_config.json special_tokens_map.json package.json".split()
)
"""Files of JSON that describe data or models and hold no rows."""
SAVED = "state.json"
"""Stands in a folder that `datasets` has written with `save_to_disk`."""
MOST_NAMES = 8
_GLOB = re.compile(r"[*?\[]")
_SHARD = re.compile(r"(?P<stem>.*?)[-_.]?(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]{6,})?")


@dataclass
class Chosen:
    """The files of a path, in order of their names, and what stands beside them and is not read (path -> why)."""

    files: list[Path]
    passed_over: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def data_suffix(path: Path) -> str | None:
    """The suffix that says how to read the file (".jsonl" for a.jsonl.gz), or None for a name that is no data file."""
    name = unpacked_name(path.name.lower())
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def unpacked_name(name: str) -> str:
    """The name without the ending of a compressed file."""
    return next((name[: -len(end)] for end in PACKED if name.lower().endswith(end)), name)


def is_local(path: str) -> bool:
    """Whether `path` means files of this machine: something that exists, a pattern, a name with a data suffix, or no
    possible name on the hub.
    """
    here = Path(path).expanduser()
    looks_local = (
        path.startswith(("/", "./", "../", "~")) or _GLOB.search(path) is not None or data_suffix(here) is not None
    )
    return looks_local or here.exists() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is None


def chosen_files(path: str, *, subset: str | None = None, split: str = "train", plain_text: bool = False) -> Chosen:
    """The data files that `path` names.

    A file or a pattern means just that, and `split` plays no part. A folder means its data files, or those of its
    subfolder `subset`, of one split where their names tell splits apart (train-00000.parquet, data/test.jsonl.gz,
    train/part-1.csv). A folder that `datasets` has saved counts as one file. Names that begin with a dot are passed
    over, and so is plain text beside files of rows, unless it is what is wanted (`plain_text`).

    Raises:
        InputError: nothing is there, no file of this split, several that could be meant, a name that says two splits, a
            missing part, or the same rows in two kinds of files.
    """
    here = Path(path).expanduser()
    if _GLOB.search(path) and not here.exists():
        return _of_pattern(path, here)
    if not here.is_dir():
        return Chosen([here])
    folder = here / subset if subset else here
    if not folder.is_dir():
        inside = [entry.name for entry in here.iterdir() if entry.is_dir()]
        raise InputError(f"{path}: there is no subfolder {subset!r}{did_you_mean(str(subset), inside)}")
    chosen = _listed(folder, plain_text)
    if not chosen.files:
        raise InputError(
            f"{folder}: no data file in this folder ({', '.join(SUFFIXES)}, also with {', '.join(PACKED)})."
        )
    _keep_split(chosen, folder, split)
    _refuse_missing_parts(chosen, folder)
    _refuse_two_kinds(chosen, folder)
    return chosen


def _of_pattern(path: str, here: Path) -> Chosen:
    anchor = Path(here.anchor) if here.is_absolute() else Path()
    pattern = here.relative_to(anchor) if here.is_absolute() else here
    hidden_wanted = any(part.startswith(".") and _GLOB.search(part) for part in pattern.parts)
    plain = [part for part in pattern.parts if not _GLOB.search(part)]
    chosen = Chosen([])
    for file in sorted(file for file in anchor.glob(str(pattern)) if file.is_file()):
        hidden = any(part.startswith(".") and part not in plain for part in file.relative_to(anchor).parts)
        if hidden and not hidden_wanted:
            chosen.passed_over[str(file)] = "the name begins with a dot"
        else:
            chosen.files.append(file)
    if not chosen.files:
        raise InputError(f"{path}: no file matches this pattern.")
    for name, first, count, total in _missing_parts(chosen.files):
        chosen.notes.append(
            f"the pattern takes {total - count} of the {total} parts of {name} (not {_parts(first, count)})"
        )
    return chosen


def _listed(folder: Path, plain_text: bool) -> Chosen:
    """All data files below a folder, and what else is there."""
    chosen = Chosen([])
    saved: list[Path] = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            if file.is_file():
                chosen.passed_over[str(file)] = "the name begins with a dot"
        elif file.is_file() and not any(file.is_relative_to(other) for other in saved):
            if file.name == SAVED and is_saved(file.parent):
                saved.append(file.parent)
                chosen.files = [other for other in chosen.files if not other.is_relative_to(file.parent)] + [
                    file.parent
                ]
            elif file.name.lower() in DESCRIPTIONS:
                chosen.passed_over[str(file)] = "it describes data or a model"
            elif data_suffix(file) is None:
                chosen.passed_over[str(file)] = "no kind of file that is read"
            else:
                chosen.files.append(file)
    chosen.passed_over = {
        name: why
        for name, why in chosen.passed_over.items()
        if not any(Path(name).is_relative_to(other) for other in saved)
    }
    rows = [file for file in chosen.files if data_suffix(file) != ".txt"]
    if rows and not plain_text:
        chosen.passed_over |= {
            str(file): "plain text beside files of rows"
            for file in chosen.files
            if data_suffix(file) == ".txt" and file not in rows
        }
        chosen.files = rows
    return chosen


def is_saved(folder: Path) -> bool:
    """Whether `datasets` has written this folder with `save_to_disk`."""
    if not (folder / SAVED).is_file() or not (folder / "dataset_info.json").is_file():
        return False
    try:
        return "_data_files" in json.loads((folder / SAVED).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _keep_split(chosen: Chosen, folder: Path, split: str) -> None:
    labels = {file: _label(file, folder, split.lower()) for file in chosen.files}
    known = [split.lower(), *SPLITS]
    there = sorted(
        {label for label in labels.values() if label is not None},
        key=lambda label: (known.index(label) if label in known else len(known), label),
    )
    if not there:
        return
    wanted = [label for label in there if label == split.lower()]
    if not wanted:
        wanted = [label for label in there if _says(label, split.lower())]
    if not wanted and split.lower() == "train":
        wanted = [label for label in there if _says(label, "training")]
    if len(wanted) > 1:
        first = next(file for file in chosen.files if labels[file] == wanted[0])
        raise InputError(
            f"{folder}: the split {split!r} could be {' or '.join(wanted)}; set split to one of them, or give "
            f"{_pattern(first, wanted[0])}."
        )
    if not wanted:
        unread = [Path(name).name for name in chosen.passed_over if _says(Path(name).name.lower(), split.lower())]
        beside = f" ({', '.join(unread[:MOST_NAMES])} can't be read)" if unread else ""
        silent = [file for file in chosen.files if labels[file] is None]
        names = ", ".join(named(str(file.relative_to(folder))) for file in silent[:MOST_NAMES])
        hint = (
            f"; {names} {'says' if len(silent) == 1 else 'say'} no split, give "
            f"{'it' if len(silent) == 1 else 'one of them'} or a pattern"
            if silent
            else ""
        )
        raise InputError(f"{folder}: no file of the split {split!r}; there is {', '.join(there)}{beside}{hint}.")
    others = _splits_in(wanted[0]) - _splits_in(split.lower())
    if wanted[0] != split.lower() and _splits_in(split.lower()) and others:
        named_so = sorted(str(file.relative_to(folder)) for file, label in labels.items() if label == wanted[0])
        raise InputError(
            f"{folder}: the name {wanted[0]} says the split {split!r} and also {' and '.join(sorted(others))} "
            f"({_names(named_so, '')}); "
            f"give one of these files or a pattern as path, or set split to {wanted[0]!r} to read all of them as one "
            "split."
        )
    for file, label in labels.items():
        if label != wanted[0]:
            chosen.passed_over[str(file)] = (
                f"of the split {label}" if label else f"its name says no split, and others are of {wanted[0]}"
            )
    chosen.files = [file for file in chosen.files if labels[file] == wanted[0]]


def _pattern(file: Path, label: str) -> str:
    """Words for what to give in place of a folder, to read the files of the split that this one belongs to."""
    if file.is_dir():
        return f"the folder {file}"
    if label in file.name.lower():
        end = file.name.lower().index(label) + len(label)
        return f"a pattern such as {file.parent / file.name[:end]}*"
    return f"a pattern such as {file.parent}/*"


def _label(file: Path, folder: Path, split: str) -> str | None:
    """The split that a file's name tells, or the name of the nearest folder above it that tells one: train_prefs of
    data/train_prefs-00000-of-00002.parquet.
    """
    if (file.parent / "dataset_dict.json").is_file() and file.is_dir():
        return file.name.lower()
    parts = list(file.relative_to(folder).parts)
    if parts and not file.is_dir():
        parts[-1] = unpacked_name(parts[-1])
        parts[-1] = parts[-1][: -len(data_suffix(file) or "")]
    for part in reversed(parts):
        match = _SHARD.fullmatch(part)
        stem = (match["stem"] if match else part).lower()
        stem = (
            stem if stem == split else re.sub(r"((?<=[a-z]{2})\d+|[-_. ]+\d+)+$", "", stem)
        )  # train2, train_1, train-2024-05; not train-v2
        if any(_says(stem, known) for known in (split, *SPLITS)):
            return stem
    return None


def _splits_in(name: str) -> set[str]:
    """The splits that a name says: train and test of "train_test_split". Names of the same split count as one."""
    return {SAME_SPLIT.get(known, known) for known in SPLITS if _says(name, known)}


def _says(name: str, split: str) -> bool:
    """Whether a name has the split's name in it as a word of its own."""
    return re.search(rf"(^|[^a-z]){re.escape(split)}([^a-z]|$)", name) is not None


def _missing_parts(files: Iterable[Path]) -> list[tuple[str, list[int], int, int]]:
    """(name, the first numbers that are missing, how many are, number of parts) of each set NAME-00000-of-00003 that is
    not whole; counted from 0 or from 1.
    """
    sets: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        match = _SHARD.fullmatch(_stem(file))
        if match is not None:
            sets.setdefault((file.parent, match["stem"], int(match["total"])), set()).add(int(match["number"]))
    missing = []
    for (_, stem, total), numbers in sets.items():
        first = 0 if 0 in numbers or total not in numbers else 1
        gone = list(islice((number for number in range(first, total + first) if number not in numbers), MOST_NAMES))
        if gone:
            missing.append((f"{stem or 'the files'}-*-of-{total}", gone, total - len(numbers), total))
    return missing


def _stem(file: Path) -> str:
    name = unpacked_name(file.name)
    return name[: len(name) - len(data_suffix(file) or "")]


def _parts(first: Sequence[int], count: int) -> str:
    return ", ".join(map(str, first)) + (f" and {count - len(first)} more" if count > len(first) else "")


def _refuse_missing_parts(chosen: Chosen, folder: Path) -> None:
    totals: dict[tuple[Path, str], set[int]] = {}
    for file in chosen.files:
        if match := _SHARD.fullmatch(_stem(file)):
            totals.setdefault((file.parent, match["stem"]), set()).add(int(match["total"]))
    for (parent, stem), several in totals.items():
        if len(several) > 1:
            listed = " and ".join(f"of {total}" for total in sorted(several))
            raise InputError(
                f"{parent}: {stem} is there in two sets of parts, {listed}; take one away, or give a pattern."
            )
    for name, first, count, total in _missing_parts(chosen.files):
        unread = [other for other in chosen.passed_over if re.search(rf"\d-of-0*{total}\b", other)]
        hint = f" ({named(Path(unread[0]).name)} is there, but {chosen.passed_over[unread[0]]})" if unread else ""
        raise InputError(
            f"{folder}: {count} of the {total} parts of {name} {'is' if count == 1 else 'are'} missing, number "
            f"{_parts(first, count)}{hint}; "
            "fetch what is missing, or give a pattern to read what is there."
        )


def _refuse_two_kinds(chosen: Chosen, folder: Path) -> None:
    """The same rows often stand in a folder twice, as .jsonl and as .parquet, or packed and not."""
    by_folder: dict[Path, dict[str, list[str]]] = {}
    stems: dict[tuple[Path, str], str] = {}
    for file in chosen.files:
        kind = "a saved dataset" if file.is_dir() else str(data_suffix(file))
        by_folder.setdefault(file.parent, {}).setdefault(kind, []).append(file.name)
        twin = stems.setdefault((file.parent, _stem(file) if not file.is_dir() else file.name + "/"), file.name)
        if twin != file.name:
            raise InputError(
                f"{file.parent}: {twin} and {file.name} look like the same rows twice; take one away, or give a "
                "pattern or one file."
            )
    for parent, kinds in by_folder.items():
        if len(kinds) > 1:
            listed = "; ".join(
                f"{kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" for kind, names in kinds.items()
            )
            raise InputError(
                f"{parent}: files of several kinds could be meant ({listed}); give a pattern such as "
                f"{parent}/*{next(iter(kinds))}."
            )


def file_notes(chosen: Chosen, path: str) -> list[str]:
    """What was read and what was passed over, in some lines; nothing where a path is one file."""
    lines = list(chosen.notes)
    if len(chosen.files) > 1 or chosen.passed_over:
        files = "1 file was read" if len(chosen.files) == 1 else f"{len(chosen.files)} files were read"
        lines.append(f"{files}: {_names(map(str, chosen.files), path)}")
    by_reason: dict[str, list[str]] = {}
    for name, why in chosen.passed_over.items():
        by_reason.setdefault(why, []).append(name)
    lines += [f"{len(names)} passed over ({why}): {_names(names, path)}" for why, names in by_reason.items()]
    return lines


def _names(paths: Iterable[str], base: str) -> str:
    """The first of some names, without the part of their paths that is known."""
    folder = Path(base).expanduser()
    names = [
        named(
            str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) and path != str(folder) else path
        )
        for path in paths
    ]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
