"""Sheets as workbooks (xlsx) with drop-downs, whose texts are locked and never formulas; any workbook read as text."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.compressed import check_unpacked
from coh_lightning.human_eval.sheets import AFTER, BEFORE, CELL_LIMIT, CHOICES, ROW_LIMIT, instructions, sheet_cells
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS
from coh_lightning.io import atomic_write

ILLEGAL = "\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff"
"""Characters that XML can't have, for a character class."""
_ESCAPED = re.compile(f"[{ILLEGAL}]|_(?=x[0-9A-Fa-f]{{4}}[_{ILLEGAL}])")
"""What XML can't have or changes (CR), and an underscore that would begin an escape."""

WIDTHS = dict(zip((*BEFORE, *AFTER), (15, 15, 10, 18, 60, 60, 60, 40, 10), strict=True))
"""Widths in characters; a column of choices has 14."""


def escaped(text: str) -> str:
    """A text as a cell of a workbook has it: control characters as `_x0007_`, and a text that looks like such an escape
    as `_x005F_x0007_` (OOXML's convention). `unescaped(escaped(text)) == text` for every text.
    """
    return _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def unescaped(cell: str) -> str:
    """The text that `escaped` turned into this cell."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), cell)


def write_xlsx(study: Study, folder: Path) -> None:
    """Write RATER.xlsx for each rater: the columns of the CSV sheets, with drop-downs for the choices. All cells but
    choices, comment and seconds are locked. Raises InputError if a text is longer than a cell may be.
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
                where = f"Item '{item.item}' (row '{row.row}' of {rater})"
                fact = f"{name} has {length:,} characters, and a cell has room for {CELL_LIMIT:,}"
                raise InputError(f"{where}: {fact}; leave out that prompt, or use another form than xlsx.")


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
        sheet.column_dimensions[letter].width = WIDTHS.get(name, 14)
        sheet.column_dimensions[letter].hidden = name in ("study_id", "rater", "text_hash")
        if name in study.definitions and len(cells) > 1:
            sentence = study.definitions[name]
            choices, show = f'"{",".join(CHOICES)}"', {"showErrorMessage": True, "showInputMessage": True}
            rule = DataValidation(type="list", formula1=choices, allow_blank=True, **show)
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
    """For each worksheet the rows that are not empty: (number of the row, its cells as text)."""
    openpyxl = _openpyxl()
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
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{path}: the workbook can't be read ({why}); save it again, or as CSV UTF-8.") from error


def check_workbook(path: Path) -> None:
    """Raises InputError if a workbook is not a zip archive, or unpacks to far too much for its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: the workbook can't be read ({first_line(error)}); save it again as xlsx or ods."
        ) from error
    check_unpacked(path, size)


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            "Workbooks need openpyxl: pip install 'coh_lightning[study]', or use the CSV sheets."
        ) from error
    return openpyxl
