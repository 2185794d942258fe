"""Rows of CSV and TSV. The separator is the one set, that of a first line `sep=;`, or the one that gives the header all
needed columns.

prompt;chosen;rejected        read with ";" even from a .csv file, if the source needs these three columns
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, counted, first_line
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.jsonl import LONGEST_LINE
from coh_lightning.feedback.sources.file_names import check_names

SEPARATORS = (",", ";", "\t", "|")
Fits = Callable[[Sequence[str]], bool]
"""Whether these columns include all that a source needs."""
_SEP = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)


def read_delimited(
    path: Path,
    usual: str,
    *,
    separator: str | None = None,
    fits: Fits | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, dict[str, Any] | InputError]]:
    """("file:line", row) with the names of the header; the line is the first of the row (a quoted cell may span lines).

    Args:
        usual: The separator that the file's suffix implies.
        separator: The one that is set, if any; otherwise `fits` decides.
        say: Gets a sentence if another separator than the usual one is found.

    Raises:
        InputError if the file is empty or broken, a column name is repeated, or two separators fit.
    """
    csv.field_size_limit(LONGEST_LINE)  # the default limit of 128 kB is too short for some conversations
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    lines = _lines_of(text, path)
    first = next(lines)
    named_there = _SEP.fullmatch(first)
    if named_there is None:
        lines = chain([first], lines)
    skipped = int(named_there is not None)
    found = separator or (named_there[1] if named_there else None) or _fitting(path, text, usual, fits)
    if found != usual and separator is None:
        say(f"the separator of {path.name} is {found!r}")
    reader = csv.reader(lines, delimiter=found, strict=True)
    begin = 1 + skipped
    try:
        header = next(reader, [])
        check_names(header, f"{path}:{begin}")
        begin = reader.line_num + 1 + skipped
        for cells in reader:
            where = f"{path}:{begin}"
            begin = reader.line_num + 1 + skipped
            if not cells:
                continue
            if len(cells) != len(header):
                sizes = f"{counted(len(cells), 'cell')} for {counted(len(header), 'column')}"
                yield where, InputError(f"{where}: {sizes}; quote cells with {found!r} or a line end.")
                continue
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        kind = "TSV" if usual == "\t" else "CSV"
        raise InputError(f"{path}:{begin}: broken {kind} ({first_line(error)}).") from error


def _fitting(path: Path, text: str, usual: str, fits: Fits | None) -> str:
    """The separator that gives the header all columns; the usual one if none does, or all give the same header."""
    if fits is None:
        return usual
    headers = {separator: _header(text, separator) for separator in dict.fromkeys((usual, *SEPARATORS))}
    fitting = [separator for separator, header in headers.items() if header is not None and fits(header)]
    if len({tuple(headers[separator] or ()) for separator in fitting}) > 1:
        listed = " and ".join(map(repr, fitting))
        raise InputError(f"{path}:1: the separators {listed} both give all columns; set the source's separator.")
    return fitting[0] if fitting and usual not in fitting else usual


def _header(text: str, separator: str) -> list[str] | None:
    try:
        return next(csv.reader(io.StringIO(text[: 2**20], newline=""), delimiter=separator, strict=True))
    except (csv.Error, StopIteration):
        return None


def _lines_of(text: str, path: Path) -> Iterator[str]:
    """The lines of a text with their ends: LF, CRLF or CR."""
    for number, line in enumerate(re.finditer(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+", text), start=1):
        if line.end() - line.start() > LONGEST_LINE:
            raise InputError(f"{path}:{number}: the line is longer than {LONGEST_LINE >> 20} MiB.")
        yield line[0]
