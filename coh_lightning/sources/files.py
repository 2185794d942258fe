"""Rows out of local files: JSON lines, JSON, CSV, TSV, Parquet and plain text, each also as .gz, with the file and line of every row.

A row that can't be read (broken JSON, bytes that are no text) comes as an `InputError` in the row's place, so that the caller decides whether to stop or to
skip and count it; what breaks a whole file (missing, empty, a damaged archive) is raised.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, words_of
from coh_lightning.records import LONGEST_LINE, check_unpacked, did_you_mean, named, open_bytes, parse_json, read_lines, read_text

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | InputError]]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
_GLOB = re.compile(r"[*?\[]")


def data_suffix(path: Path) -> str | None:
    """The suffix that says how to read the file (".jsonl" for a.jsonl.gz), or None for a name that is no data file."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def is_local(path: str) -> bool:
    """Whether `path` means files of this machine: something that exists, a pattern, a name with a data suffix, or no possible name on the hub."""
    here = Path(path).expanduser()
    looks_local = path.startswith(("/", "./", "../", "~")) or _GLOB.search(path) is not None or data_suffix(here) is not None
    return looks_local or here.exists() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is None


def local_files(path: str, *, subset: str | None = None, split: str = "train") -> list[Path]:
    """The data files that `path` names, in order of their names.

    A file or a pattern means just that, and `split` plays no part. A folder means its data files, or those of its subfolder `subset`; where their names tell
    splits apart (train-00000.parquet, data/test.jsonl.gz), those of `split` alone.

    Raises:
        InputError: nothing is there, or no file of this split.
    """
    here = Path(path).expanduser()
    if _GLOB.search(path) and not here.exists():
        anchor = Path(here.anchor) if here.is_absolute() else Path()
        found = sorted(file for file in anchor.glob(str(here.relative_to(anchor))) if file.is_file())
        if not found:
            raise InputError(f"{path}: no file matches this pattern.")
        return found
    if not here.is_dir():
        return [here]
    folder = here / subset if subset else here
    if not folder.is_dir():
        inside = [entry.name for entry in here.iterdir() if entry.is_dir()]
        raise InputError(f"{path}: there is no subfolder {subset!r}{did_you_mean(str(subset), inside)}")
    files = sorted(file for file in folder.rglob("*") if file.is_file() and data_suffix(file) is not None)
    if not files:
        raise InputError(f"{folder}: no data file in this folder ({', '.join(SUFFIXES)}, also with .gz).")
    of_split = {name: [file for file in files if re.search(rf"(^|[^a-z]){name}([^a-z]|$)", str(file.relative_to(folder)).lower())] for name in _splits(split)}
    if of_split[split]:
        return of_split[split]
    if any(of_split.values()):
        raise InputError(f"{folder}: no file of the split {split!r}; there is {', '.join(name for name, found in of_split.items() if found)}.")
    return files


def _splits(split: str) -> list[str]:
    return list(dict.fromkeys([split, "train", "validation", "valid", "dev", "test"]))


def read_rows(path: Path) -> Rows:
    """("file:line", row) of every row of one file; a row that can't be read comes as an InputError.

    A plain text file gives rows {"text": line}.

    Raises:
        InputError: the file is missing, empty, of no known kind, or damaged as a whole.
    """
    suffix = data_suffix(path)
    if suffix is None:
        raise InputError(f"{path}: the name does not say what kind of file this is; end it in one of {', '.join(SUFFIXES)} (or with .gz behind).")
    if suffix in (".jsonl", ".ndjson"):
        rows = _json_lines(path)
    elif suffix == ".json":
        rows = _json(path)
    elif suffix in (".csv", ".tsv"):
        rows = _csv(path, "," if suffix == ".csv" else "\t")
    elif suffix == ".parquet":
        rows = _parquet(path)
    else:
        rows = ((where, line if isinstance(line, InputError) else {"text": line}) for where, line in read_lines(path))
    any_row = False
    for where, row in rows:
        any_row = True
        yield where, row
    if not any_row:
        raise InputError(f"{path}: the file holds no rows.")


def _as_row(value: object, where: str) -> Row | InputError:
    if isinstance(value, dict):
        return value
    return InputError(f"{where}: this row is a {type(value).__name__}; it must be a JSON object with named fields.")


def _json_lines(path: Path) -> Rows:
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


def _json(path: Path) -> Rows:
    """A JSON list of objects; a file of this name that holds one object a line is read as JSON lines, as the hub does."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    if text.lstrip()[0] != "[":
        yield from _json_lines(path)
        return
    values = parse_json(text, str(path), whole=True)
    for number, value in enumerate(values, start=1):
        where = f"{path}: item {number}"
        yield where, _as_row(value, where)


def _csv(path: Path, delimiter: str) -> Rows:
    """Rows by the names of the first line; `where` is the line on which a row begins (a quoted cell may run over several)."""
    csv.field_size_limit(LONGEST_LINE)  # the module's own limit of 128 kB is shorter than some conversations
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    reader = csv.reader(_lines_of(text, path), delimiter=delimiter, strict=True)
    begin = 1
    try:
        header = next(reader)
        if len(set(header)) < len(header):
            raise InputError(f"{path}:1: two columns have the same name ({named(', '.join(header))}).")
        begin = reader.line_num + 1
        for cells in reader:
            where = f"{path}:{begin}"
            begin = reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                yield where, InputError(f"{where}: {len(cells)} cells under {len(header)} column names; quote cells that hold a {delimiter!r} or a line end.")
                continue
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}:{begin}: broken {'CSV' if delimiter == ',' else 'TSV'} ({words_of(error)}).") from error


def _lines_of(text: str, path: Path) -> Iterator[str]:
    """The lines of a text with their ends: of LF, CRLF or CR, and no other."""
    for number, line in enumerate(re.finditer(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+", text), start=1):
        if line.end() - line.start() > LONGEST_LINE:
            raise InputError(f"{path}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB, so it is no row.")
        yield line[0]


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet

    with open_bytes(path) as file:
        try:
            # A packed file can't be read from its end, where Parquet keeps its table of contents, so it is unpacked in memory.
            table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if path.suffix == ".gz" else file)
            # of a row group alone: asking a damaged file for its columns ends the process
            check_unpacked(path, sum(table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups)))
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                raise InputError(f"{path}: two columns have the same name ({named(', '.join(names))}).")
            number = size = 0
            for batch in table.iter_batches(batch_size=64):
                size += batch.nbytes
                check_unpacked(path, size)
                for row in _rows_of_batch(batch):
                    number += 1
                    where = f"{path}: row {number}"
                    yield where, InputError(f"{where}: {row}") if isinstance(row, str) else row
        except InputError:
            raise
        except Exception as error:  # pyarrow raises whatever it meets in a damaged file
            raise InputError(f"{path}: this is no whole Parquet file ({words_of(error)}).") from error


def _rows_of_batch(batch: Any) -> list[Row | str]:
    """The rows of a batch; one that Python has no value for (bytes that are no text, a date beyond the calendar) as the reason."""
    try:
        return batch.to_pylist()
    except Exception:  # whichever value it was, its row is found one by one
        rows: list[Row | str] = []
        for place in range(batch.num_rows):
            try:
                rows += batch.slice(place, 1).to_pylist()
            except Exception as error:
                rows.append(f"it holds what can't be read ({words_of(error)}).")
        return rows
