"""A study's sheets: one CSV per rater, and a page of instructions.

    row_id,study_id,rater,text_hash,prompt,answer_a,answer_b,coherence,accuracy,comment,seconds
    r3f...,s81...,rater-1,0c4...,"Why?","Because.","'- It is so.",,,,

RFC 4180 with CRLF, UTF-8 with a byte order mark (without it, Excel uses the local code page). Every cell is quoted
and guarded (guard.py). All rows look alike: nothing in them reveals a system or a check.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from coh_lightning.human_eval.guard import guard
from coh_lightning.human_eval.study import Study
from coh_lightning.io import atomic_write

BEFORE = ("row_id", "study_id", "rater", "text_hash", "prompt", "answer_a", "answer_b")
AFTER = ("comment", "seconds")
"""The columns before and after the attributes."""
CHOICES = ("A", "tie", "B")
ROW_LIMIT = 1_048_576
"""Rows of a sheet in Excel."""
CELL_LIMIT = 32_767
"""Characters of a cell in Excel, which cuts off longer texts (50,000 in Google Sheets)."""


def columns(study: Study, rater: str) -> list[str]:
    """The columns of a rater's sheet, with the attributes in that rater's order."""
    return [*BEFORE, *study.orders[rater], *AFTER]


def sheet_cells(study: Study, rater: str) -> list[list[str]]:
    """The cells of a rater's sheet, header first, without guards, unanswered."""
    empty = [""] * (len(study.attributes) + len(AFTER))
    rows = [
        [row.row, study.id, rater, row.text_hash(item), item.prompt, *row.shown(item), *empty]
        for row, item in study.rater_rows(rater)
    ]
    return [columns(study, rater), *rows]


def csv_text(cells: Sequence[Sequence[str]]) -> str:
    """Cells as RFC 4180 text, guarded, with CRLF after each row, without a byte order mark."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(
        [[guard(cell) for cell in row] for row in cells]
    )
    return out.getvalue()


def instructions(study: Study) -> str:
    """The instructions for raters, as plain text."""
    asked = "\n".join(f"  {name}: {study.definitions[name]}" for name in study.attributes)
    return f"""{study.title}

Each row holds a prompt and two answers, A and B. Read all three, then say for each question which answer is better:

{asked}

  {CHOICES[0]}    answer A is better
  {CHOICES[1]}  both are about equally good (or equally bad): choose it whenever they are
  {CHOICES[2]}    answer B is better

Each question stands for itself: an answer may be better in one and worse in another. Judge what is written, not its
length, and not what you guess about where it comes from; which of two answers stands on the left is chance. Some rows
may look familiar; answer each as if it were the first. A comment is welcome where a choice was hard. Don't change the
other columns; leave a row empty that you can't judge.
"""


def write_sheets(study: Study, folder: Path) -> None:
    """Write RATER.csv for each rater, and instructions.txt, into the folder."""
    contents = {f"{rater}.csv": csv_text(sheet_cells(study, rater)).encode("utf-8-sig") for rater in study.raters}
    for name, content in {**contents, "instructions.txt": instructions(study).encode("utf-8")}.items():
        with atomic_write(folder / name) as aside:
            aside.write_bytes(content)
