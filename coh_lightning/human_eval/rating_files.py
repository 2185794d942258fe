"""Raters' files -> submitted rows, as spreadsheets and annotation tools save them: any common separator, encoding,
quote and line end; columns moved or added, rows sorted, guards stripped; as xlsx or ods; from Label Studio or potato.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coh_lightning.errors import InputError, did_you_mean, first_line
from coh_lightning.human_eval.choices import REASONS
from coh_lightning.human_eval.sheets import AFTER, before, texts_of, unguard
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import ExportedRows, SubmittedRow

HEADER_WITHIN = 40
"""Rows among which the header is looked for: instructions may stand above it."""
OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"
"""How xls begins, and a workbook with a password."""
SEPARATORS = ",;\t|"
QUOTES = "\"'"
MISREAD_BOM = "\ufeff".encode().decode("cp1252")
"""What a program makes of the mark at the beginning of a UTF-8 file that it opens as Windows-1252 (LibreOffice may)."""


def read_rating_file(path: Path, study: Study) -> list[SubmittedRow]:
    """The rows of one file of a rater (a folder is potato's output). Raises InputError if it is missing, empty, or of
    no known form.
    """
    from coh_lightning.human_eval.label_studio import read_label_studio
    from coh_lightning.human_eval.potato import read_potato

    if path.is_dir():
        return read_potato(path, study)
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file{did_you_mean(path.name, beside)}")
    content = path.read_bytes()
    if content[:4] == b"PK\x03\x04":
        return _submitted(_workbook(path), study)
    if content.startswith(OLD_WORKBOOK):
        raise InputError(f"{path}: it is an old Excel file, or has a password; save it as xlsx, ods or CSV UTF-8.")
    text = _decoded(content, path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    if text.lstrip().startswith("["):
        return read_label_studio(path, study)
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip().startswith("{"):
        return read_potato(path, study)
    return _read_table(text, path, study)


def _decoded(content: bytes, path: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with a byte order mark, or else in Windows-1252."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            try:
                return content.decode(name)
            except UnicodeDecodeError as error:
                where = f"the file begins as {name} but is damaged at byte {error.start + 1}"
                raise InputError(f"{path}: {where}; save it again as CSV UTF-8.") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


@dataclass(frozen=True)
class _SheetLine:
    where: str
    cells: Sequence[str]


def _read_table(text: str, path: Path, study: Study) -> list[SubmittedRow]:
    """The rows of separated text, with the separator and quote that keep the most rows intact."""
    marked = re.match(r"sep=(.)\r?\n", text)
    skipped, separators = 0, SEPARATORS
    if marked:
        text, skipped, separators = text[marked.end() :], 1, marked[1]
    exported = ExportedRows(study)
    readings = []
    for quote in QUOTES:
        for separator in separators:
            lines = _from_header(list(_lines(text, path, separator, quote, skipped)))
            if lines:
                rows = _submitted(lines, study)
                readings.append((_fit(lines, rows, exported), rows))
    if not readings:
        first = re.split(r"[\r\n]", text, maxsplit=1)[0]
        raise InputError(
            f"{path}: the first line, {first[:60]!r}, has no column row_id, nor has one of the next "
            f"{HEADER_WITHIN - 1}; send the sheet with its header."
        )
    return max(readings, key=lambda reading: reading[0])[1]


def _from_header(lines: Sequence[_SheetLine]) -> Sequence[_SheetLine]:
    """The lines from the first one with a column row_id; none if there is none."""
    for place, line in enumerate(lines[:HEADER_WITHIN]):
        if "row_id" in _header(line.cells):
            return lines[place:]
    return []


def _fit(lines: Sequence[_SheetLine], submitted: Sequence[SubmittedRow], exported: ExportedRows) -> int:
    """How well a reading fits: rows as wide as the header, plus rows with the texts of a row of the study."""
    matching = (
        one.row_id in exported.rows and not (changed := exported.changed(one)) and not exported.mismatch(one, changed)
        for one in submitted
    )
    return sum(matching) + sum(len(line.cells) == len(lines[0].cells) for line in lines)


def _lines(text: str, path: Path, separator: str, quote: str, skipped: int) -> Iterator[_SheetLine]:
    # a cell may be longer than the reader's limit, which is global
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
        start = 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _SheetLine(f"{path}:{start + skipped}", cells)
            start = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}:{reader.line_num + skipped}"
        raise InputError(f"{where}: the sheet can't be read ({first_line(error)}); save it again as CSV.") from error
    finally:
        csv.field_size_limit(limit)


def _workbook(path: Path) -> Sequence[_SheetLine]:
    """The rows of the first worksheet with a column row_id, from its header."""
    from coh_lightning.human_eval.opendocument import is_opendocument, read_opendocument
    from coh_lightning.human_eval.workbook import check_workbook, read_sheets

    check_workbook(path)
    for sheet in read_opendocument(path) if is_opendocument(path) else read_sheets(path):
        lines = _from_header([_SheetLine(f"{path}:{number}", cells) for number, cells in sheet])
        if lines:
            return lines
    raise InputError(
        f"{path}: no worksheet has a column row_id in its first {HEADER_WITHIN} rows; send the sheet with its header."
    )


def _header(cells: Iterable[str]) -> list[str]:
    """Names of columns in lower case, whitespace as one underscore."""
    bare = [unguard(cell).removeprefix(MISREAD_BOM).strip("\ufeff \t'\"") for cell in cells]
    return [re.sub(r"[\s_]+", "_", cell).casefold() for cell in bare]


def _submitted(lines: Sequence[_SheetLine], study: Study) -> list[SubmittedRow]:
    """The rows below the header, which must have what a sheet needs, once."""
    header, where = _header(lines[0].cells), lines[0].where
    attributes = {name: _header([name])[0] for name in study.attributes}
    for name in [*before(study.form), *REASONS, *AFTER, *attributes.values()]:
        if header.count(name) > 1:
            raise InputError(
                f"{where}: {header.count(name)} columns are named {name}; keep the one that was filled in."
            )
    if not any(name in header for name in attributes.values()):
        raise InputError(f"{where}: none of the columns {', '.join(attributes)} is there; send the whole sheet.")
    if "text_hash" not in header and not all(name in header for name in texts_of(study.form)):
        raise InputError(f"{where}: neither text_hash nor all of the texts are there; send the whole sheet.")
    submitted = []
    for line in lines[1:]:
        cells = dict(zip(header, line.cells, strict=False))
        submitted.append(
            SubmittedRow(
                where=line.where,
                row_id=_cell(cells, "row_id"),
                choices={name: cells.get(column, "") for name, column in attributes.items() if column in header},
                comment=unguard(cells.get("comment", "")),
                reasons={side: unguard(cells[name]) for name, side in REASONS.items() if cells.get(name)},
                seconds=cells.get("seconds", ""),
                study_id=_cell(cells, "study_id"),
                rater=_cell(cells, "rater"),
                text_hash=_cell(cells, "text_hash"),
                texts={name: cells.get(name, "") for name in texts_of(study.form) if name in header},
            )
        )
    return submitted


def _cell(cells: Mapping[str, str], name: str) -> str:
    return unguard(cells.get(name, "")).strip()
