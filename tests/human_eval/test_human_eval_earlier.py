"""A study that an earlier version exported, before studies had forms: its sheets give the same judgments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coh_lightning.human_eval.form import RatingForm
from coh_lightning.human_eval.ratings import import_ratings
from coh_lightning.human_eval.report import write_report
from coh_lightning.human_eval.study import JUDGMENTS, read_study

EARLIER = Path(__file__).parent / "earlier_study"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(EARLIER, tmp_path / "study")
    return tmp_path / "study"


def test_its_sheets_give_the_same_judgments_byte_for_byte(folder: Path) -> None:
    (folder / JUDGMENTS).unlink()
    imported = import_ratings(folder, [folder / "rater-1.csv", folder / "rater-2.csv"])
    assert (imported.judgments, imported.expected, imported.refused) == (56, 56, 0)
    assert (folder / JUDGMENTS).read_bytes() == (EARLIER / JUDGMENTS).read_bytes()


def test_an_import_into_it_adds_nothing_twice(folder: Path) -> None:
    assert import_ratings(folder, [folder / "rater-2.csv"]).added == 0
    assert (folder / JUDGMENTS).read_bytes() == (EARLIER / JUDGMENTS).read_bytes()


def test_it_is_read_with_the_default_form_and_reported(folder: Path) -> None:
    study = read_study(folder)
    assert study.form == RatingForm() and all(row.order == () for row in study.rows)
    numbers = write_report(folder)
    assert numbers["rows"] == {"asked": 14, "answered": 14} and numbers["strength"] == []
