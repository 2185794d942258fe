"""Rows of local files: JSON lines, JSON, CSV, TSV, Parquet, Arrow and plain text, each also compressed, with the file
and line of every row.

An unreadable row (broken JSON, not UTF-8) comes as an `InputError` in the row's place, so that the caller may skip and
count it; what breaks a whole file (missing, empty, damaged) is raised.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, a_kind, counted, first_line, named
from coh_lightning.feedback.compressed import PACKED, check_unpacked, open_bytes, read_text
from coh_lightning.feedback.jsonl import parse_json, read_lines
from coh_lightning.feedback.sources.arrow import ROWS, arrow_batches
from coh_lightning.feedback.sources.delimited import Fits, read_delimited
from coh_lightning.feedback.sources.dialogue import is_messages
from coh_lightning.feedback.sources.file_names import SUFFIXES, check_names, data_suffix
from coh_lightning.feedback.sources.folders import is_saved

SourceRow = dict[str, Any]
SourceRows = Iterator[tuple[str, SourceRow | InputError]]


@dataclass(frozen=True)
class Reading:
    """How a source wants its files to be read.

    Args:
        separator: of CSV and TSV.
        fits: whether these columns include all that the source needs; decides between separators, and between a row and
            an object of rows.
        say: gets a sentence about how a file was read.
    """

    separator: str | None = None
    fits: Fits | None = None
    say: Callable[[str], None] = lambda _: None


def read_rows(path: Path, reading: Reading = Reading()) -> SourceRows:
    """("file:line", row) of every row of one file, or of a folder saved by `datasets`; an unreadable row comes as an
    InputError. A plain text file gives rows {"text": line}. Raises InputError if the file is missing, empty, of an
    unknown kind, or damaged as a whole.
    """
    suffix = data_suffix(path)
    if path.is_dir() and is_saved(path):
        rows = _saved(path)
    elif suffix is None:
        ends = f"{', '.join(SUFFIXES)} (and {', '.join(PACKED)} after it)"
        raise InputError(f"{path}: the file has no known suffix; rename it to end in one of {ends}.")
    elif suffix in (".jsonl", ".ndjson"):
        rows = _json_lines(path)
    elif suffix == ".json":
        rows = _json(path, reading)
    elif suffix in (".csv", ".tsv"):
        rows = read_delimited(
            path, "," if suffix == ".csv" else "\t", separator=reading.separator, fits=reading.fits, say=reading.say
        )
    elif suffix == ".parquet":
        rows = _parquet(path)
    elif suffix in (".arrow", ".feather", ".ipc"):
        rows = _arrow(path)
    else:
        rows = converted(read_lines(path), lambda line, _: {"text": line})
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file has no rows.")
    yield first
    yield from rows


def hub_rows(arguments: Mapping[str, Any], *, split: str, revision: str | None = None) -> SourceRows:
    """("name[split]: row 1", row) of a dataset on the hub; `arguments` are those of `datasets.load_dataset`."""
    import datasets

    path = arguments["path"]
    try:
        table = datasets.load_dataset(**arguments, split=split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds of exceptions
        failed = f"loading it from the hub failed ({type(error).__name__}: {first_line(error)})"
        raise InputError(
            f"{path}: there is no such local file, and {failed}; check the name and the network, or give a local file "
            f"({', '.join(SUFFIXES)})."
        ) from error
    for number, row in enumerate(table, start=1):
        yield f"{path}[{split}]: row {number}", dict(row)


def converted(rows: Iterable[tuple[str, Any | InputError]], convert: Callable[[Any, str], SourceRow]) -> SourceRows:
    """Each row through `convert(row, where)`; its `InputError` comes in the row's place."""
    for where, row in rows:
        result = row
        if not isinstance(row, InputError):
            try:
                result = convert(row, where)
            except InputError as error:
                result = error
        yield where, result


def _as_row(value: object, where: str) -> SourceRow:
    if not isinstance(value, dict):
        raise InputError(f"{where}: this row is {a_kind(value)}; it must be a JSON object with named fields.")
    return value


def _json_lines(path: Path) -> SourceRows:
    return converted(read_lines(path), lambda line, where: _as_row(parse_json(line, where), where))


def _json(path: Path, reading: Reading) -> SourceRows:
    """A JSON list of objects, or one JSON object (see `_rows_of_object`). A .json file with one object per line is read
    as JSON lines, as the hub does.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    if text.lstrip()[0] != "[" and _is_lines(text):
        yield from _json_lines(path)
        return
    value = parse_json(text, str(path), whole=True)
    if isinstance(value, dict):
        yield from _rows_of_object(value, path, reading)
        return
    items = value if isinstance(value, list) else [value]
    yield from converted(((f"{path}: item {number}", item) for number, item in enumerate(items, start=1)), _as_row)


def _is_lines(text: str) -> bool:
    """Whether a text that begins with an object has one object per line, and more than one: its second line begins an
    object without indentation.
    """
    first, _, rest = text.lstrip().partition("\n")
    following = next((line for line in rest.split("\n") if line.strip()), None)
    return following is not None and (following.startswith("{") or first.rstrip().endswith("}"))


def _rows_of_object(value: SourceRow, path: Path, reading: Reading) -> SourceRows:
    """The rows of a file that is one object:

    {"prompt": "p", "chosen": "c", "rejected": "r"}     the row itself, if it has the source's columns or is none of:
    {"a": {"prompt": ...}, "b": {"prompt": ...}}        an object of rows; a row without "id" gets its key
    {"version": 1, "data": [{"prompt": ...}]}           an object with one list of rows
    """
    fits = reading.fits
    if fits is None or not fits(list(value)):
        rows = [row for row in value.values() if isinstance(row, Mapping)]
        if rows and len(rows) == len(value) and (fits is None or any(fits(list(row)) for row in rows)):
            reading.say(f"{path.name} is an object of {counted(len(value), 'row')}")
            for name, row in value.items():
                yield f"{path}: {named(name)}", {"id": name, **row}
            return
        lists = [name for name, inner in value.items() if is_messages(inner)]
        if len(lists) == 1 and (fits is not None or len(value) == 1):
            reading.say(f"the rows of {path.name} are its list {named(lists[0])}")
            for number, row in enumerate(value[lists[0]], start=1):
                yield f"{path}: {named(lists[0])}, item {number}", row
            return
    yield f"{path}: item 1", value


def _parquet(path: Path) -> SourceRows:
    import pyarrow.parquet

    with open_bytes(path) as file, _damage_refused(path, "Parquet"):
        # Parquet's footer is at the end, so a compressed file is decompressed in memory
        table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if path.suffix.lower() in PACKED else file)
        # of row groups: reading the columns of a damaged file crashes the process
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        check_unpacked(path, sum(group.total_byte_size for group in groups))
        check_names(table.schema_arrow.names, str(path))
        yield from _rows_of_batches(path, table.iter_batches(batch_size=ROWS))


def _arrow(path: Path) -> SourceRows:
    import pyarrow

    with open_bytes(path) as file, _damage_refused(path, "Arrow"):
        content = file.read() if path.suffix.lower() in PACKED else pyarrow.memory_map(str(path)).read_buffer()
        yield from _rows_of_batches(path, arrow_batches(path, content))


@contextmanager
def _damage_refused(path: Path, kind: str) -> Iterator[None]:
    """Turns the many kinds of exceptions that pyarrow raises for a damaged file into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: this is not a complete {kind} file ({first_line(error)}).") from error


def _saved(folder: Path) -> SourceRows:
    """The rows of a folder written by `save_to_disk`."""
    import datasets

    try:
        table = datasets.load_from_disk(str(folder)).with_format(None)
        for number in range(len(table)):
            where = f"{folder}: row {number + 1}"
            try:
                row = dict(table[number])
            except Exception as error:  # the other rows may be fine
                yield where, InputError(f"{where}: it has a value that can't be read ({first_line(error)}).")
                continue
            yield where, row
    except Exception as error:  # of many kinds
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{folder}: this folder of a saved dataset can't be read ({reason}).") from error


def _rows_of_batches(path: Path, batches: Iterator[Any]) -> SourceRows:
    number = size = 0
    for batch in batches:
        size += batch.nbytes
        check_unpacked(path, size)
        for row in _rows_of_batch(batch):
            number += 1
            where = f"{path}: row {number}"
            yield where, InputError(f"{where}: {row}") if isinstance(row, str) else row


def _rows_of_batch(batch: Any) -> list[SourceRow | str]:
    """The rows of a batch; the reason for a row that Python can't represent (not UTF-8, a date out of range)."""
    try:
        return batch.to_pylist()
    except Exception:  # find the bad rows one by one
        rows: list[SourceRow | str] = []
        for place in range(batch.num_rows):
            try:
                rows += batch.slice(place, 1).to_pylist()
            except Exception as error:
                rows.append(f"it has a value that can't be read ({first_line(error)}).")
        return rows
