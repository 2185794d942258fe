"""Sheets as workbooks (xlsx) with drop-downs, whose texts are locked and never formulas; any workbook read as text.

    row 1    the instructions, over several columns
    row 2    the names of the columns; rows 1 and 2 and the choices stay in view while the rest is scrolled
    row 3..  ids (hidden) | a choice for each attribute | prompt, answer A, answer B | comment, seconds

Rows are as high as their texts need, texts as wide as it takes that nearly all rows can be, within two screens.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.compressed import check_unpacked
from coh_lightning.human_eval.annotation_tools import guidance
from coh_lightning.human_eval.choices import choices_of, in_words
from coh_lightning.human_eval.sheets import (
    AFTER,
    BEFORE,
    CELL_LIMIT,
    ROW_LIMIT,
    instructions,
    sheet_cells,
    utf16_units,
)
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS
from coh_lightning.io import atomic_write

ILLEGAL = "\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff"
"""Characters that XML can't have, for a character class."""
_ESCAPED = re.compile(f"[{ILLEGAL}]|_(?=x[0-9A-Fa-f]{{4}}[_{ILLEGAL}])")
"""What XML can't have or changes (CR), and an underscore that would begin an escape."""

IDS = tuple(name for name in BEFORE if name not in TEXTS)
TOP = 2
"""Rows above the first item: the instructions and the header."""
SCREENS = 370
"""Characters that two screens of 1366 pixels are wide, at 7 pixels each."""
TEXT_WIDTHS = (44, 56, 70, 90)
"""Widths of a text that are tried, in characters."""
COMMENT, SECONDS = 34, 9
WIDEST_FROZEN = 90
"""Choices that are wider in all don't stay in view: texts would have no room beside them."""
FONT, SIZE, LINE = "Arial", 10, 12.75
"""Of all texts, and the points of a line: nearly the same in Excel and (as Liberation Sans) in LibreOffice."""
TALLEST = 409.0
"""Points that a row can be high in Excel."""


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
            length = utf16_units(text)
            if length > CELL_LIMIT:
                where = f"Item '{item.item}' (row '{row.row}' of {rater})"
                fact = f"{name} has {length:,} characters, and a cell has room for {CELL_LIMIT:,}"
                raise InputError(f"{where}: {fact}; leave out that prompt, or use another form than xlsx.")


def _workbook(study: Study, rater: str) -> Any:
    """An openpyxl.Workbook: the sheet `ratings`, and `instructions`."""
    openpyxl = _openpyxl()
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "ratings"
    order = study.orders[rater]
    columns, *rows = sheet_cells(study, rater)
    head = [*IDS, *order, *TEXTS, *AFTER]
    places = [columns.index(name) for name in head]
    cells = [[row[place] for place in places] for row in rows]
    widths = _widths(order, [row[len(IDS) + len(order) : -len(AFTER)] for row in cells])
    shown = range(len(IDS), len(head))
    heights = [max(_height(row[place], widths[head[place]]) for place in shown) for row in cells]
    _write_cells(sheet, head, cells)
    for place, name in enumerate(head, start=1):
        letter = get_column_letter(place)
        sheet.column_dimensions[letter].width = widths[name]
        sheet.column_dimensions[letter].hidden = name in IDS
        if name in order and cells:
            sentence = study.definitions[name]
            choices, show = (
                f'"{",".join(choices_of(study.form))}"',
                {"showErrorMessage": True, "showInputMessage": True},
            )
            rule = DataValidation(type="list", formula1=choices, allow_blank=True, **show)
            known = in_words(study.form)
            rule.errorTitle, rule.error = known[:32], f"Choose {known}, or leave the cell empty."
            rule.promptTitle, rule.prompt = name[:32], (sentence if len(sentence) <= 255 else sentence[:254] + "…")
            rule.add(f"{letter}{TOP + 1}:{letter}{TOP + len(cells)}")
            sheet.add_data_validation(rule)
    for number, height in enumerate(heights, start=TOP + 1):
        sheet.row_dimensions[number].height = min(height, TALLEST)
    first_text = len(IDS) + len(order)
    above = _above(study, order, [number for number, height in enumerate(heights, TOP + 1) if height > TALLEST])
    over = head[len(IDS) : first_text + 2]  # as wide as one screen: the choices, the prompt and answer A
    sheet.merge_cells(start_row=1, end_row=1, start_column=len(IDS) + 1, end_column=first_text + 2)
    _write_text(sheet.cell(row=1, column=len(IDS) + 1), above)
    sheet.row_dimensions[1].height = min(_height(above, sum(widths[name] for name in over)), TALLEST)
    frozen = first_text if sum(widths[name] for name in order) <= WIDEST_FROZEN else len(IDS)
    sheet.freeze_panes = f"{get_column_letter(frozen + 1)}{TOP + 1}"
    sheet.protection.sheet = True
    sheet.protection.formatColumns = sheet.protection.formatRows = False  # widths and heights may be changed
    sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0
    sheet.sheet_properties.pageSetUpPr = openpyxl.worksheet.properties.PageSetupProperties(fitToPage=True)
    page = book.create_sheet("instructions")
    page.column_dimensions["A"].width = 120
    for number, line in enumerate(re.split(r"\r\n?|\n", instructions(study).rstrip("\r\n")), start=1):
        _write_text(page.cell(row=number, column=1), line)
        page.row_dimensions[number].height = _height(line, 120)
    return book


def _above(study: Study, order: Sequence[str], clipped: Sequence[int]) -> str:
    """What stands above the items: the instructions, the questions, and which rows don't show the whole of a text."""
    questions = [f"{name}: {study.definitions[name]}" for name in order]
    lines = [study.title, " ".join(guidance(study)), *questions]
    if clipped:
        numbers = ", ".join(map(str, clipped[:10])) + (", ..." if len(clipped) > 10 else "")
        lines.append(
            f"Too long to be shown whole: row {numbers}. Select the text to read it in the line above the sheet."
        )
    return "\n".join(lines)


def _widths(order: Sequence[str], texts: Sequence[Sequence[str]]) -> Mapping[str, float]:
    """Column -> width in characters. The texts get the smallest width in which 19 of 20 rows show them whole."""
    choices = {name: min(max(len(name) + 4, 10), 18) for name in order}
    room = (SCREENS - sum(choices.values()) - COMMENT - SECONDS) // len(TEXTS)
    tried = [width for width in TEXT_WIDTHS if width <= room] or [max(room, 20)]
    width = tried[-1]
    for width in tried:
        if sum(_height(text, width) > TALLEST for row in texts for text in row) <= len(texts) / 20:
            break
    return {**dict.fromkeys(IDS, 15), **choices, **dict.fromkeys(TEXTS, width), "comment": COMMENT, "seconds": SECONDS}


def _height(text: str, width: float) -> float:
    """Points that a text needs in a column this many characters wide, estimated: letters of East Asian scripts are
    twice as wide as others.
    """
    lines = 0
    for paragraph in re.split(r"\r\n?|\n", text):
        wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in paragraph)
        lines += max(1, math.ceil((len(paragraph) + wide) / width))
    return LINE * lines + 3


def _write_cells(sheet: Any, head: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """The header and the items, all as text; what raters fill in is unlocked and tinted."""
    from openpyxl.styles import Alignment, Border, Font, PatternFill, Protection, Side

    top, middle = (
        Alignment(wrap_text=True, vertical="top"),
        Alignment(wrap_text=True, vertical="top", horizontal="center"),
    )
    fills = {True: PatternFill("solid", fgColor="FFFBE6"), False: PatternFill("solid", fgColor="E4F0F0")}
    line = Border(*[Side("thin", color="C8C8C8")] * 4)
    for number, row in enumerate((head, *cells), start=TOP):
        for place, (name, text) in enumerate(zip(head, row, strict=True), start=1):
            cell, answer = sheet.cell(row=number, column=place), number > TOP and name not in BEFORE
            _write_text(cell, text)
            cell.number_format = "@" if name != "seconds" else "General"
            cell.alignment = top if name in (*TEXTS, "comment") else middle
            cell.protection, cell.border = Protection(locked=not answer), line
            if number == TOP or answer:
                cell.fill = fills[answer]
            if number == TOP:
                cell.font = Font(name=FONT, size=SIZE, bold=True)


def _write_text(cell: Any, text: str) -> None:
    """Never a formula, an error or a number, whatever the text looks like."""
    from openpyxl.styles import Alignment, Font

    if text:
        cell.value = escaped(text)
        cell.data_type = "s"
    cell.number_format, cell.alignment = "@", Alignment(wrap_text=True, vertical="top")
    cell.font = Font(name=FONT, size=SIZE)


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
