"""A row of a study as a rater sent it back, and whether it shows the texts that were exported."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import regex

from coh_lightning.errors import named
from coh_lightning.human_eval.sheets import unguard
from coh_lightning.human_eval.study import RatingRow, Study, StudyItem

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
    seconds: str = ""
    study_id: str = ""
    rater: str = ""
    text_hash: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    """Those of prompt, answer_a and answer_b that the form shows."""


def mismatch(answer: SubmittedRow, row: RatingRow, item: StudyItem, study: Study) -> str | None:
    """Why the answer can't be to this row as it was exported; None if it can."""
    if answer.study_id and answer.study_id != study.id:
        return f"row '{row.row}' is of study {study.id}, but the file says {named(answer.study_id)}; it is not counted."
    if answer.rater and answer.rater.casefold() != row.rater.casefold():
        return f"row '{row.row}' was given to {row.rater}, but the file says {answer.rater[:40]!r}; it is not counted."
    hashed = answer.text_hash == row.text_hash(item)
    expected = dict(zip(TEXTS, (item.prompt, *row.shown(item)), strict=True))
    for name, cell in answer.texts.items():
        if not same_text(cell, expected[name]) and not (hashed and _converted(expected[name], cell)):
            differs = f"{name} of row '{row.row}' differs from the exported text; it is not counted"
            return f"{differs}. Restore it, or leave out the columns of texts."
    if len(answer.texts) < len(TEXTS) and answer.text_hash is not None and not hashed:
        other = f"{answer.text_hash[:40]!r}, not {row.text_hash(item)}"
        return f"the text_hash of row '{row.row}' is {other}: other texts were rated; it is not counted."
    return None


def same_text(cell: str, text: str) -> bool:
    """Whether a cell still has a text, guarded or not, after what spreadsheets do: other line ends, no control
    characters, no whitespace or apostrophes at the ends, question marks for what Windows-1252 lacks.
    """
    if cell == text or unguard(cell) == text or _normalized(cell) == _normalized(text):
        return True
    narrow = text.encode("cp1252", "replace").decode("cp1252")
    return narrow != text and re.sub(r"\?+", "?", _normalized(cell)) == re.sub(r"\?+", "?", _normalized(narrow))


def _converted(text: str, cell: str) -> bool:
    """Whether a spreadsheet may have turned the text into a value: 42.0 to 42, 1/2 or May 5 to a date, true to TRUE."""
    text = _normalized(text)
    value = regex.fullmatch(r"[\d\s.,:/+\-%$€£()]*[\p{L}\p{M}]{0,9}[\d\s.,:/+\-%$€£()]*", text) and any(
        letter.isdigit() for letter in text
    )
    return (bool(value) and any(letter.isdigit() for letter in cell)) or (
        text.casefold() in ("true", "false") and cell.strip() != ""
    )


def _normalized(text: str) -> str:
    # workbooks write control characters as _x000D_; what a cell can't have is dropped on both sides
    text = re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]", "", text)
    return re.sub(r"^[\s']+|\s+$", "", text)
