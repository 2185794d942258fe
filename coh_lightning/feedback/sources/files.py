"""Rows of local files: JSON lines, JSON, CSV, TSV, Parquet, Arrow and plain text, each also compressed, with the file
and line of every row.

An unreadable row (broken JSON, not UTF-8) comes as an `InputError` in the row's place, so that the caller may skip and
count it; what breaks a whole file (missing, empty, damaged) is raised.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, first_line, named
from coh_lightning.feedback.compressed import PACKED, check_unpacked, open_bytes, read_text
from coh_lightning.feedback.jsonl import parse_json, read_lines
from coh_lightning.feedback.sources.arrow import arrow_batches
from coh_lightning.feedback.sources.delimited import Fits, read_delimited
from coh_lightning.feedback.sources.file_names import SUFFIXES, data_suffix
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
    InputError. A plain text file gives rows {"text": line}.

    Raises:
        InputError: the file is missing, empty, of an unknown kind, or damaged as a whole.
    """
    suffix = data_suffix(path)
    if path.is_dir() and is_saved(path):
        rows = _saved(path)
    elif suffix is None:
        ends = f"{', '.join(SUFFIXES)} (or with {', '.join(PACKED)} behind)"
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
        rows = ((where, line if isinstance(line, InputError) else {"text": line}) for where, line in read_lines(path))
    any_row = False
    for where, row in rows:
        any_row = True
        yield where, row
    if not any_row:
        raise InputError(f"{path}: the file holds no rows.")


def _as_row(value: object, where: str) -> SourceRow | InputError:
    if isinstance(value, dict):
        return value
    return InputError(f"{where}: this row is a {type(value).__name__}; it must be a JSON object with named fields.")


def _json_lines(path: Path) -> SourceRows:
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            yield where, line
            continue
        try:
            value = parse_json(line, where)
        except InputError as error:
            yield where, error
            continue
        yield where, _as_row(value, where)


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
    for number, item in enumerate(value if isinstance(value, list) else [value], start=1):
        where = f"{path}: item {number}"
        yield where, _as_row(item, where)


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
    known = reading.fits is not None
    lists = [
        name
        for name, held in value.items()
        if isinstance(held, list) and held and all(isinstance(one, dict) for one in held)
    ]
    if reading.fits is None or not reading.fits(list(value)):
        if (
            value
            and all(isinstance(held, Mapping) for held in value.values())
            and (reading.fits is None or any(map(reading.fits, map(list, value.values()))))
        ):
            reading.say(f"{path.name} is an object of {len(value):,} rows")
            for name, row in value.items():
                yield f"{path}: {named(name)}", {"id": name, **row}
            return
        if len(lists) == 1 and (known or len(value) == 1):
            reading.say(f"the rows of {path.name} are its list {named(lists[0])}")
            for number, row in enumerate(value[lists[0]], start=1):
                yield f"{path}: {named(lists[0])}, item {number}", row
            return
    yield f"{path}: item 1", value


def _parquet(path: Path) -> SourceRows:
    import pyarrow.parquet

    with open_bytes(path) as file:
        try:
            # Parquet's footer is at the end, so a compressed file is decompressed in memory
            table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if path.suffix.lower() in PACKED else file)
            # of row groups: asking a damaged file for its columns crashes the process
            check_unpacked(
                path, sum(table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups))
            )
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                raise InputError(f"{path}: two columns have the same name ({named(', '.join(names))}).")
            yield from _rows_of_batches(path, table.iter_batches(batch_size=64))
        except InputError:
            raise
        except Exception as error:  # pyarrow raises many kinds of exceptions for a damaged file
            raise InputError(f"{path}: this is not a complete Parquet file ({first_line(error)}).") from error


def _arrow(path: Path) -> SourceRows:
    import pyarrow

    with open_bytes(path) as file:
        try:
            content = file.read() if path.suffix.lower() in PACKED else pyarrow.memory_map(str(path)).read_buffer()
            yield from _rows_of_batches(path, arrow_batches(path, content))
        except InputError:
            raise
        except Exception as error:  # as above
            raise InputError(f"{path}: this is not a complete Arrow file ({first_line(error)}).") from error


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
        raise InputError(
            f"{folder}: this folder of a saved dataset can't be read ({type(error).__name__}: {first_line(error)})."
        ) from error


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
    """The rows of a batch; for a row without a Python value (text that is not UTF-8, a date out of range) the reason."""
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
