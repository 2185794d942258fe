"""Sheets that LibreOffice itself opened and saved again: every vote, comment and time comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.ratings import ImportResult, import_ratings
from coh_lightning.human_eval.study import JUDGMENTS, Study
from helpers.completions import Cells, filled, likes_x, save, study_of_texts
from helpers.office import Office, started

pytestmark = pytest.mark.slow

TEXTS = (
    "Well.",
    "=1+1",
    "- a, b; c\td|e",
    "'=quoted",
    'say "no"\r\nand go',
    "- naïve “ﬁ” 漢字 😀",
    " \n",
    "1/2",
    "'",
    "word " * 4_000,  # longer than the 16,384 characters after which LibreOffice breaks a paragraph
    "x" * 20_000,
    "def f(x):\n\tif x:\n\t\treturn   1\n\n\n",
    "TRUE",
    "42.0",
    "1e5",
    "5 May",
    "https://a.b/c",
    "half…—€",
    "00012",
)
CSV = "csv:Text - txt - csv (StarCalc)"
"""Then separator, quote and encoding: 76 is UTF-8, 1 Windows-1252, 65535 UTF-16."""
SAVED = {
    "xlsx": "xlsx",
    "ods": "ods",
    "CSV in UTF-8": f"{CSV}:44,34,76",
    "semicolons, Windows-1252": f"{CSV}:59,34,1",
    "tabs, UTF-16": f"{CSV}:9,34,65535",
}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    yield started(tmp_path_factory.mktemp("office"))


def study_at(folder: Path, texts: tuple[str, ...] = TEXTS, **options: Any) -> Study:
    return study_of_texts(folder, texts, **({"raters": 1, "forms": ("xlsx",)} | options))


def answers(study: Study) -> Cells:
    """A filled sheet, with comments that would be formulas."""
    cells = filled(study, "rater-1", likes_x, seconds="7.5")
    for number, row in enumerate(cells[1:]):
        row[cells[0].index("comment")] = f"=comment {number}\nüber"
    return cells


def brought(folder: Path, path: Path) -> tuple[ImportResult, list[Judgment]]:
    """What an import of this file alone gives."""
    (folder / "study" / JUDGMENTS).unlink(missing_ok=True)
    imported = import_ratings(folder / "study", [path])
    return imported, list(read_jsonl(folder / "study" / JUDGMENTS, Judgment))


def formulas(path: Path) -> int:
    return sum(cell.data_type == "f" for row in openpyxl.load_workbook(path).active.iter_rows() for cell in row)


@pytest.mark.parametrize("form", ["csv", "xlsx"])
@pytest.mark.parametrize("saved", SAVED)
def test_a_sheet_saved_by_libreoffice_gives_the_same_judgments(
    tmp_path: Path, office: Office, form: str, saved: str
) -> None:
    study = study_at(tmp_path)
    cells = answers(study)
    path = save(tmp_path / "filled.csv", cells)
    _, right = brought(tmp_path, path)
    assert len(right) == 2 * (len(cells) - 1)
    if form == "xlsx":
        path = fill(tmp_path / "study/forms/rater-1.xlsx", tmp_path / "filled.xlsx", cells)
    made = office.convert(path, SAVED[saved], tmp_path / "saved", read_as="CSV:44,34,76" if form == "csv" else "")
    imported, found = brought(tmp_path, made)
    assert (imported.refused, imported.changed, imported.missing) == (0, (), ())
    assert found == right
    if saved == "xlsx":
        assert formulas(made) == 0


def fill(form: Path, path: Path, cells: Cells) -> Path:
    """The answers written into a workbook as a person does."""
    book = openpyxl.load_workbook(form)
    sheet = book["ratings"]
    head = [cell.value for cell in sheet[2]]
    rows = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}
    for line in sheet.iter_rows(min_row=3):
        for name, cell in zip(head, line, strict=True):
            if not cell.protection.locked:
                text = rows[line[0].value][name]
                cell.value = float(text) if name == "seconds" else text
                cell.data_type = "n" if name == "seconds" else "s"
    book.save(path)
    return path


def test_ods_shows_the_instructions_above_the_header(tmp_path: Path, office: Office) -> None:
    study = study_at(tmp_path, ("one", "two"))
    path = fill(tmp_path / "study/forms/rater-1.xlsx", tmp_path / "filled.xlsx", answers(study))
    made = office.convert(path, "ods", tmp_path / "saved")
    imported, _ = brought(tmp_path, made)
    assert imported.judgments == imported.expected


def test_libreoffice_reads_heights_hidden_columns_and_choices(tmp_path: Path, office: Office) -> None:
    study_at(tmp_path)
    ours = tmp_path / "study/forms/rater-1.xlsx"
    before, after = (
        openpyxl.load_workbook(path)["ratings"] for path in (ours, office.convert(ours, "xlsx", tmp_path / "saved"))
    )
    for number in range(3, before.max_row + 1):
        assert after.row_dimensions[number].height == pytest.approx(before.row_dimensions[number].height, abs=0.5)
    assert [after.column_dimensions[letter].hidden for letter in "AE"] == [True, False]
    assert sorted(str(rule.sqref) for rule in after.data_validations.dataValidation) == sorted(
        str(rule.sqref) for rule in before.data_validations.dataValidation
    )


@pytest.mark.parametrize("saved", SAVED)
def test_hashes_without_a_letter_survive_being_read_as_numbers(tmp_path: Path, office: Office, saved: str) -> None:
    study = study_at(tmp_path, tuple(f"text {n}" for n in range(4_000)), swaps=0, identical=0, forms=())
    cells = filled(study, "rater-1", likes_x)
    numeric = [row for row in cells[1:] if re.fullmatch(r"h\d+(e\d+)?", row[3])]
    assert len(numeric) >= 3 and any(row[3][1:].isdigit() for row in numeric)
    for row in numeric:
        row[3] = row[3].removeprefix("h")  # as earlier versions wrote them
        row[5] += ", which somebody changed"  # so that the hash alone can decide
    path = save(tmp_path / "old.csv", [cells[0], *numeric])
    made = office.convert(path, SAVED[saved], tmp_path / "saved", read_as="CSV:44,34,76")
    imported, found = brought(tmp_path, made)
    assert (imported.refused, len(imported.changed), len(found)) == (0, 1, 2 * len(numeric))
