"""Sheets as workbooks (xlsx): RATER.xlsx with drop-downs, whose texts are locked and never formulas; and any workbook
read back as text.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.compressed import check_unpacked
from coh_lightning.human_eval.sheets import BEFORE, CELL_LIMIT, CHOICES, ROW_LIMIT, instructions, sheet_cells
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS
from coh_lightning.io import atomic_write

ILLEGAL = "\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff"
"""Characters that XML can't hold, for a character class."""
_ESCAPED = re.compile(f"[{ILLEGAL}]|_(?=x[0-9A-Fa-f]{{4}}[_{ILLEGAL}])")
"""What XML can't hold or changes (CR), and an underscore that would begin an escape."""

COLUMNS = {
    "row_id": 15,
    "study_id": 15,
    "rater": 10,
    "text_hash": 18,
    "prompt": 60,
    "answer_a": 60,
    "answer_b": 60,
    "comment": 40,
    "seconds": 10,
}
"""Widths in characters; a column of choices has 14."""


def escaped(text: str) -> str:
    """A text as a cell of a workbook holds it: control characters as `_x0007_` (OOXML's convention).

    Text that already looks like such an escape gets its underscore escaped, `_x0007_` -> `_x005F_x0007_`, so that
    `unescaped(escaped(text)) == text` for every text.
    """
    return _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def unescaped(cell: str) -> str:
    """The text that `escaped` turned into this cell."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), cell)


def write_xlsx(study: Study, folder: Path) -> None:
    """Write RATER.xlsx for each rater: the columns of the CSV sheets, with drop-downs for the choices.

    Every text is a string cell, so none runs as a formula, and all but choices and comment are locked (without a
    password).

    Raises:
        InputError: a text is longer than a cell may be, or openpyxl isn't installed.
    """
    for rater in study.raters:
        _check_lengths(study, rater)
    for rater in study.raters:
        with atomic_write(folder / f"{rater}.xlsx") as aside:
            _workbook(study, rater).save(aside)


def _check_lengths(study: Study, rater: str) -> None:
    for row, item in study.rater_rows(rater):
        for name, text in zip(TEXTS.values(), (item.prompt, *row.shown(item)), strict=True):
            length = len(text.encode("utf-16-le", "surrogatepass")) // 2
            if length > CELL_LIMIT:
                raise InputError(
                    f"Item '{item.item}' (row '{row.row}' of {rater}): {name} has {length:,} characters, and a cell of "
                    f"a workbook holds {CELL_LIMIT:,}; leave out that prompt, or use another form than xlsx."
                )


def _workbook(study: Study, rater: str) -> Any:
    """An openpyxl.Workbook: the sheet `ratings`, and `instructions`."""
    openpyxl = _openpyxl()
    from openpyxl.styles import Alignment, Font, PatternFill, Protection
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "ratings"
    cells = sheet_cells(study, rater)
    head = cells[0]
    top = Alignment(wrap_text=True, vertical="top")
    for number, row in enumerate(cells, start=1):
        for name, place, text in zip(head, range(1, len(head) + 1), row, strict=True):
            cell = sheet.cell(row=number, column=place)
            if text:
                cell.value = escaped(text)
                cell.data_type = "s"  # never a formula, an error or a number, whatever it looks like
            cell.number_format = "@" if name != "seconds" else "General"
            cell.alignment = top
            cell.protection = Protection(locked=number == 1 or name in BEFORE)
            if number == 1:
                cell.font = Font(bold=True)
                cell.fill = PatternFill("solid", fgColor="E4F0F0")
    for place, name in enumerate(head, start=1):
        letter = get_column_letter(place)
        sheet.column_dimensions[letter].width = COLUMNS.get(name, 14)
        sheet.column_dimensions[letter].hidden = name in ("study_id", "rater", "text_hash")
        if name in study.definitions and len(cells) > 1:
            sentence = study.definitions[name]
            rule = DataValidation(
                type="list",
                formula1=f'"{",".join(CHOICES)}"',
                allow_blank=True,
                showErrorMessage=True,
                showInputMessage=True,
            )
            rule.errorTitle, rule.error = "A, tie or B", "Choose A, tie or B, or leave the cell empty."
            rule.promptTitle, rule.prompt = name[:32], (sentence if len(sentence) <= 255 else sentence[:254] + "…")
            rule.add(f"{letter}2:{letter}{len(cells)}")
            sheet.add_data_validation(rule)
    sheet.freeze_panes = "B2"
    sheet.protection.sheet = True
    sheet.protection.formatColumns = sheet.protection.formatRows = False  # widths and heights may be changed
    page = book.create_sheet("instructions")
    page.column_dimensions["A"].width = 110
    for line in re.split(r"\r\n?|\n", instructions(study).rstrip("\r\n")):
        page.append([""])
        cell = page.cell(row=page.max_row, column=1)
        cell.value, cell.data_type, cell.alignment = escaped(line), "s", top
    return book


def read_sheets(path: Path) -> Iterator[list[tuple[int, list[str]]]]:
    """For each worksheet the rows with anything in them: (number of the row, its cells as text). Raises InputError if
    the file is not a workbook, is damaged, or unpacks to far too much.
    """
    openpyxl = _openpyxl()
    check_workbook(path)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # the file's own claim is not trusted: rows would be filled up to it
            yield [
                (number, ["" if cell is None else unescaped(str(cell)) for cell in cells])
                for number, cells in enumerate(islice(sheet.iter_rows(values_only=True), ROW_LIMIT), start=1)
                if any(cell is not None and str(cell).strip() for cell in cells)
            ]
    except Exception as error:  # openpyxl raises anything on a damaged archive
        raise InputError(
            f"{path}: the workbook can't be read ({type(error).__name__}: {first_line(error)}); save it again, or as CSV "
            "UTF-8."
        ) from error


def check_workbook(path: Path) -> None:
    """Raises InputError if a workbook is not a zip archive, or unpacks to far too much for its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the workbook can't be read ({first_line(error)}); save it again as xlsx.") from error
    check_unpacked(path, size)


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            "Workbooks need openpyxl; install it with: pip install 'coh_lightning[study]', or use the CSV sheets."
        ) from error
    return openpyxl
