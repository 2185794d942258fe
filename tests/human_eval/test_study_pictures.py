"""The pictures of docs/human_eval.md say what the commands of that page give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from study_pictures import make_study, study_commands

from coh_lightning.human_eval.report_blocks import facts, findings, title
from coh_lightning.human_eval.report_tables import votes_table
from coh_lightning.human_eval.study import read_study

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("pictures"))


def says(name: str) -> list[str]:
    with Image.open(ROOT / "docs" / f"{name}.png") as picture:
        texts: list[str] = json.loads(picture.text["says"])  # type: ignore[attr-defined]
    return texts


def test_the_picture_of_the_report_has_its_numbers(study: Path) -> None:
    numbers = json.loads((study / "report.json").read_text())
    analysis = numbers["analyses"]["all"]
    warnings = numbers["warnings"]
    (row,) = votes_table(numbers, analysis).rows
    assert says("report") == [title(numbers), facts(numbers), *findings(analysis), *warnings, *row]


def test_the_picture_of_the_rating_page_has_its_third_item(study: Path) -> None:
    rows = read_study(study).rater_rows("rater-1")
    row, item = rows[2]
    assert says("rate") == [f"Item 3 of {len(rows)} · 2 rated", item.prompt, *row.shown(item)]


def test_the_page_names_the_commands_that_the_pictures_come_from() -> None:
    words = study_commands()
    assert [each[:3] if each[0] == "coh" else each[2:3] for each in words] == [
        ["coh", "human-eval", "export"],
        ["coh_lightning.world.simulated_raters"],
        ["coh", "human-eval", "import"],
        ["coh", "human-eval", "report"],
    ]
    page = (ROOT / "docs" / "human_eval.md").read_text()
    assert "](rate.png)" in page and "](report.png)" in page
