"""Which files a path means: one file, those that match a pattern, or those of one split in a folder.

folder/README.md                      passed over: not a data file
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

from coh_lightning.errors import InputError, did_you_mean, named
from coh_lightning.feedback.compressed import PACKED
from coh_lightning.feedback.sources.file_names import (
    MOST_NAMES,
    NUMBERED,
    SUFFIXES,
    data_suffix,
    files_of_split,
    first_names,
    stem_of,
)

DESCRIPTIONS = frozenset(
    "dataset_info.json dataset_infos.json dataset_dict.json state.json config.json metadata.json croissant.json "
    "generation_config.json tokenizer.json tokenizer_config.json special_tokens_map.json package.json".split()
)
"""JSON files that describe data or models and have no rows."""
SAVED = "state.json"
"""In every folder written by `datasets`' `save_to_disk`."""
_GLOB = re.compile(r"[*?\[]")


@dataclass
class Chosen:
    """The files of a path, sorted by name, and the files beside them that are not read (path -> why)."""

    files: list[Path]
    passed_over: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_local(path: str) -> bool:
    """Whether `path` means local files: it exists, is a pattern, has a data suffix, or can't be a name on the hub."""
    here = Path(path).expanduser()
    looks_local = (
        path.startswith(("/", "./", "../", "~")) or _GLOB.search(path) is not None or data_suffix(here) is not None
    )
    return looks_local or here.exists() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is None


def chosen_files(path: str, *, subset: str | None = None, split: str = "train", plain_text: bool = False) -> Chosen:
    """The data files that `path` names.

    A file or a pattern ignores `split`. A folder means its data files (or those of its subfolder `subset`), and only
    those of one split if their names have splits (train-00000.parquet, data/test.jsonl.gz, train/part-1.csv). A folder
    saved by `datasets` counts as one file. Hidden files are passed over, and, without `plain_text`, plain text beside
    files of rows.

    Raises:
        InputError: nothing is there, no file of this split, an ambiguous split, a missing part of a set, or the same
            rows in two kinds of files.
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
        raise InputError(f"{folder}: no data file here ({', '.join(SUFFIXES)}, also with {', '.join(PACKED)}).")
    chosen.files, others = files_of_split(chosen.files, folder, split, chosen.passed_over)
    chosen.passed_over |= others
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
        parts = f"{total - count} of the {total} parts of {name} (not {_parts(first, count)})"
        chosen.notes.append(f"the pattern takes {parts}")
    return chosen


def _listed(folder: Path, plain_text: bool) -> Chosen:
    """All data files below a folder, and the other files."""
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
                chosen.files = [one for one in chosen.files if not one.is_relative_to(file.parent)] + [file.parent]
            elif file.name.lower() in DESCRIPTIONS:
                chosen.passed_over[str(file)] = "it describes data or a model"
            elif data_suffix(file) is None:
                chosen.passed_over[str(file)] = "not a data file"
            else:
                chosen.files.append(file)
    for name in [one for one in chosen.passed_over if any(Path(one).is_relative_to(other) for other in saved)]:
        del chosen.passed_over[name]
    rows = [file for file in chosen.files if data_suffix(file) != ".txt"]
    if rows and not plain_text:
        texts = [file for file in chosen.files if file not in rows]
        chosen.passed_over |= dict.fromkeys(map(str, texts), "plain text beside files of rows")
        chosen.files = rows
    return chosen


def is_saved(folder: Path) -> bool:
    """Whether this folder was written by `datasets`' `save_to_disk`."""
    if not (folder / SAVED).is_file() or not (folder / "dataset_info.json").is_file():
        return False
    try:
        return "_data_files" in json.loads((folder / SAVED).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _missing_parts(files: Iterable[Path]) -> list[tuple[str, list[int], int, int]]:
    """(name, first missing numbers, number of missing ones, number of parts) of each incomplete set, numbered from 0 or
    1.
    """
    sets: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        match = NUMBERED.fullmatch(stem_of(file))
        if match is not None:
            sets.setdefault((file.parent, match["stem"], int(match["total"])), set()).add(int(match["number"]))
    missing = []
    for (_, stem, total), numbers in sets.items():
        first = 0 if 0 in numbers or total not in numbers else 1
        gone = list(islice((number for number in range(first, total + first) if number not in numbers), MOST_NAMES))
        if gone:
            missing.append((f"{stem or 'the files'}-*-of-{total}", gone, total - len(numbers), total))
    return missing


def _parts(first: Sequence[int], count: int) -> str:
    return ", ".join(map(str, first)) + (f" and {count - len(first)} more" if count > len(first) else "")


def _refuse_missing_parts(chosen: Chosen, folder: Path) -> None:
    totals: dict[tuple[Path, str], set[int]] = {}
    for file in chosen.files:
        if match := NUMBERED.fullmatch(stem_of(file)):
            totals.setdefault((file.parent, match["stem"]), set()).add(int(match["total"]))
    for (parent, stem), several in totals.items():
        if len(several) > 1:
            listed = " and ".join(f"of {total}" for total in sorted(several))
            raise InputError(f"{parent}: {stem} has two sets of parts, {listed}; remove one, or give a pattern.")
    for name, first, count, total in _missing_parts(chosen.files):
        unread = [other for other in chosen.passed_over if re.search(rf"\d-of-0*{total}\b", other)]
        hint = f" ({named(Path(unread[0]).name)} is there, but {chosen.passed_over[unread[0]]})" if unread else ""
        gone = f"{name} has {total - count} of its {total} parts, not number {_parts(first, count)}{hint}"
        raise InputError(f"{folder}: {gone}; download them, or give a pattern to read the others.")


def _refuse_two_kinds(chosen: Chosen, folder: Path) -> None:
    """A folder often has the same rows twice, as .jsonl and as .parquet, or compressed and not."""
    by_folder: dict[Path, dict[str, list[str]]] = {}
    stems: dict[tuple[Path, str], str] = {}
    for file in chosen.files:
        kind = "a saved dataset" if file.is_dir() else str(data_suffix(file))
        by_folder.setdefault(file.parent, {}).setdefault(kind, []).append(file.name)
        twin = stems.setdefault((file.parent, stem_of(file) if not file.is_dir() else file.name + "/"), file.name)
        if twin != file.name:
            same = f"{twin} and {file.name} look like the same rows twice"
            raise InputError(f"{file.parent}: {same}; remove one, or give a pattern or one file.")
    for parent, kinds in by_folder.items():
        if len(kinds) > 1:
            listed = "; ".join(f"{kind}: {first_names(names, '')}" for kind, names in kinds.items())
            pattern = f"{parent}/*{next(iter(kinds))}"
            raise InputError(
                f"{parent}: there are files of several kinds ({listed}); give a pattern such as {pattern}."
            )


def file_notes(chosen: Chosen, path: str) -> list[str]:
    """Notes on the files read and passed over; none if the path is one file."""
    lines = list(chosen.notes)
    if len(chosen.files) > 1 or chosen.passed_over:
        files = "1 file was read" if len(chosen.files) == 1 else f"{len(chosen.files)} files were read"
        lines.append(f"{files}: {first_names(map(str, chosen.files), path)}")
    by_reason: dict[str, list[str]] = {}
    for name, why in chosen.passed_over.items():
        by_reason.setdefault(why, []).append(name)
    lines += [f"{len(names)} passed over ({why}): {first_names(names, path)}" for why, names in by_reason.items()]
    return lines
