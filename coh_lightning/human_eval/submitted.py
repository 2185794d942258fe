"""A row of a study as a rater sent it back, compared with the row that was exported.

A vote belongs to the row that its `row_id` names. It counts if study and rater, where they are given, are that row's,
and one of these holds:

    text_hash is the row's    and no changed text stands elsewhere in the study (nobody sorted or moved the texts alone)
    all texts are the row's   whatever the text_hash is
    neither is there          as in potato's files, which have only ids

So a text that a spreadsheet changed costs no vote as long as the text_hash is there: it is counted as changed. What
spreadsheets usually do (`same_text`, values) is not even a change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import regex

from coh_lightning.errors import named
from coh_lightning.human_eval.sheets import texts_of, unguard
from coh_lightning.human_eval.study import HASH_LETTER, RatingRow, Study, StudyItem

TEXTS = {"prompt": "prompt", "answer_a": "answer A", "answer_b": "answer B"}
"""The columns of texts -> their names in messages."""


@dataclass(frozen=True)
class SubmittedRow:
    where: str
    """File and line (or row of a workbook, task, instance)."""
    row_id: str
    choices: Mapping[str, str]
    """Attribute -> what was written, if the file has the attribute."""
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute -> the different answers of one annotation; none counts."""
    comment: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Side (A, B) -> its cell of reasons."""
    seconds: str = ""
    study_id: str = ""
    rater: str = ""
    text_hash: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    """Those of prompt, answer_a and answer_b that the form shows."""


@dataclass(frozen=True)
class Mismatch:
    """Why a row is not counted, worded for one row, and for several rows of one file with the same `several`."""

    one: str
    several: str
    """Follows "N rows ..."."""


class ExportedRows:
    """The rows of a study as they were exported."""

    def __init__(self, study: Study) -> None:
        self.rows: Mapping[str, RatingRow] = {row.row: row for row in study.rows}
        self.items: Mapping[str, StudyItem] = {item.item: item for item in study.items}
        self._study = study.id
        self._columns = texts_of(study.form)
        self._texts = {_bare(text) for item in study.items for text in (item.prompt, *item.texts)} - {""}

    def changed(self, answer: SubmittedRow) -> list[str]:
        """The columns whose text is not the exported one, apart from what spreadsheets usually do to a text."""
        expected = self._expected(answer)
        hashed = self._hashed(answer)
        return [
            name
            for name, cell in answer.texts.items()
            if not same_text(cell, expected[name])
            and (self._moved(expected[name], cell) or not (hashed and _converted(expected[name], cell)))
        ]

    def mismatch(self, answer: SubmittedRow, changed: Sequence[str]) -> Mismatch | None:
        """Why the answer can't be to its row as it was exported; None if it can."""
        row = self.rows[answer.row_id]
        this, study = f"row '{row.row}'", self._study
        if answer.study_id and answer.study_id != study:
            other = named(answer.study_id)
            return Mismatch(
                f"{this} is of study {study}, but the file says {other}; it is not counted.",
                f"have ids of study {study}, but their study_id says {other}; none of them is counted.",
            )
        if answer.rater and answer.rater.casefold() != row.rater.casefold():
            other = f"{answer.rater[:40]!r}"
            return Mismatch(
                f"{this} was given to {row.rater}, but the file says {other}; it is not counted.",
                f"were given to {row.rater}, but their rater says {other}; none of them is counted. If {row.rater} "
                "filled in the sheet, restore the column rater.",
            )
        expected, hashed = self._expected(answer), self._hashed(answer)
        moved = [name for name in changed if self._moved(expected[name], answer.texts[name])]
        restore = "Restore the texts, or leave out their columns."
        if moved:
            return Mismatch(
                f"{moved[0]} of {this} is another text of the study: texts were moved; it is not counted. {restore}",
                f"show texts of other rows or columns: texts were moved; none of them is counted. {restore}",
            )
        if changed and not hashed:
            return Mismatch(
                f"{changed[0]} of {this} differs from the exported text; it is not counted. {restore}",
                f"have other texts than were exported, and no text_hash of theirs; none of them is counted. {restore}",
            )
        if len(answer.texts) < len(self._columns) and answer.text_hash is not None and not hashed:
            other = f"{answer.text_hash[:40]!r}, not {row.text_hash(self.items[row.item])}"
            return Mismatch(
                f"the text_hash of {this} is {other}: other texts were rated; it is not counted.",
                "have another text_hash than was exported: other texts were rated; none of them is counted.",
            )
        return None

    def _moved(self, text: str, cell: str) -> bool:
        """Whether a cell that should have this text has another text of the study, which is not the same value."""
        cell = _bare(cell)
        return cell in self._texts and not _same_value(_bare(text), cell)

    def _expected(self, answer: SubmittedRow) -> dict[str, str]:
        row = self.rows[answer.row_id]
        item = self.items[row.item]
        return dict(zip(self._columns, (item.prompt, *row.shown(item)), strict=True))

    def _hashed(self, answer: SubmittedRow) -> bool:
        row = self.rows[answer.row_id]
        return answer.text_hash is not None and _same_hash(answer.text_hash, row.text_hash(self.items[row.item]))


def _same_hash(cell: str, text_hash: str) -> bool:
    """Whether a cell still has the hash. Sheets of earlier versions lack the letter, so that a spreadsheet may have
    read digits as a number and shown fewer of them: 1234567890123456 as 1.23E+15, 0012... as 12...
    """
    cell, digits = cell.strip().casefold().removeprefix(HASH_LETTER), text_hash.removeprefix(HASH_LETTER)
    if cell == digits:
        return True
    shown = re.fullmatch(r"(\d+)(?:[.,](\d+))?(?:e[+-]?\d+)?", cell)
    if not shown or not re.fullmatch(r"\d+(e\d+)?", digits):
        return False
    value = min(float(digits), sys.float_info.max)  # which LibreOffice shows for 577437e474959026
    given = float(cell.replace(",", "."))
    precision = min(len(shown[1] + (shown[2] or "")), 15)  # spreadsheets keep 15 digits
    rounded = float(f"{value:.{precision - 1}e}")
    return given == rounded or (precision == 15 and abs(given - value) <= value * 1e-14)


def same_text(cell: str, text: str) -> bool:
    """Whether a cell still has a text, guarded or not, after what spreadsheets do: other, more or fewer line ends, tabs
    and spaces (LibreOffice breaks a paragraph after 16,384 characters, and its ods drops tabs), no control
    characters, no apostrophes at the start, question marks for what Windows-1252 lacks.
    """
    if cell == text or unguard(cell) == text or _bare(cell) == _bare(text):
        return True
    narrow = text.encode("cp1252", "replace").decode("cp1252")
    return narrow != text and re.sub(r"\?+", "?", _bare(cell)) == re.sub(r"\?+", "?", _bare(narrow))


def _converted(text: str, cell: str) -> bool:
    """Whether a spreadsheet may have turned the text into a value: 42.0 to 42, 1/2 or May 5 to a date, true to TRUE."""
    text, cell = _visible(text).strip(), cell.strip()
    return (_like_value(text) and _like_value(cell)) or (text.casefold() in ("true", "false") and cell != "")


def _like_value(text: str) -> bool:
    """Digits with at most one short word (a month, an exponent) among them."""
    marks = r"[\d\s.,:/+\-%$€£()]*"
    return regex.fullmatch(rf"{marks}[\p{{L}}\p{{M}}]{{0,9}}{marks}", text) is not None and any(
        letter.isdigit() for letter in text
    )


def _same_value(text: str, cell: str) -> bool:
    """Whether a cell is what a spreadsheet shows for a text that it took for a number or a truth value."""
    try:
        return float(text.replace(",", ".")) == float(cell.replace(",", "."))
    except ValueError:
        return text.casefold() == cell.casefold()


def _bare(text: str) -> str:
    """A text without whitespace, and without apostrophes at its start."""
    return re.sub(r"\s+", "", _visible(text))


def _visible(text: str) -> str:
    # workbooks write control characters as _x000D_; what a cell can't have is dropped on both sides
    text = re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]", lambda f: "\n" if f[0] == "\r" else "", text)
    return re.sub(r"^[\s']+", "", text)
