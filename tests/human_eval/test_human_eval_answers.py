"""Stronger answers: strength of preference, required reasons and comments, practice items that explain the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from coh_lightning.__main__ import main
from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.choices import choice_words, choices_of
from coh_lightning.human_eval.comments import critiques_of
from coh_lightning.human_eval.form import RatingForm
from coh_lightning.human_eval.label_studio import label_studio_interface
from coh_lightning.human_eval.ratings import import_ratings, summary
from coh_lightning.human_eval.sheets import columns
from coh_lightning.human_eval.study import Study, read_study
from helpers.browser import Browser
from helpers.completions import Cells, filled, lines_of, save, study_of_texts
from helpers.rating_page import Rating

TEXTS = ("one", "two", "three", "four")
REASONS = ("makes things up", "leaves out the reason", "is too long")
PRACTICE = [
    {"prompt": "2 + 2?", "a": "4", "b": "5", "answers": {"accuracy": "A", "overall": "A"}, "why": "Four is right."},
    {"prompt": "Hi!", "a": "Hi!", "b": "Hello!", "answers": {"overall": "tie"}, "why": "<b>Both</b> greet."},
]


def study_at(folder: Path, **options: Any) -> Study:
    return study_of_texts(folder, TEXTS, **({"raters": 1, "overlap": 9, "swaps": 0, "identical": 0} | options))


def judgments(folder: Path) -> list[Judgment]:
    return list(read_jsonl(folder / "study/judgments.jsonl", Judgment))


# --- strength


def test_strength_gives_five_choices_in_every_form_and_old_sheets_three(tmp_path: Path) -> None:
    study = study_at(tmp_path, strength=True, forms=["xlsx", "label-studio"])
    five = ("A clearly", "A slightly", "tie", "B slightly", "B clearly")
    assert choices_of(study.form) == five and choices_of(RatingForm()) == ("A", "tie", "B")
    assert read_study(tmp_path / "study") == study
    assert all(f'value="{choice}"' in label_studio_interface(study, "rater-1") for choice in five)
    sheet = openpyxl.load_workbook(tmp_path / "study/forms/rater-1.xlsx").worksheets[0]
    assert {rule.formula1 for rule in sheet.data_validations.dataValidation} == {f'"{",".join(five)}"'}
    told = (tmp_path / "study/sheets/instructions.txt").read_text()
    assert "A clearly   answer A is clearly better" in told and "tie         both are about equally good" in told


@pytest.mark.parametrize(
    ("written", "choice", "strength"),
    [
        ("A clearly", 0, "clearly"),
        ("Slightly  left", 0, "slightly"),
        ("answer b CLEARLY", 1, "clearly"),
        ("B", 1, None),
        ("=", "tie", None),
    ],
)
def test_the_strength_of_a_choice_is_imported(
    tmp_path: Path, written: str, choice: int | str, strength: str | None
) -> None:
    study = study_at(tmp_path, strength=True)
    imported = import_ratings(
        tmp_path / "study", [save(tmp_path / "s.csv", filled(study, "rater-1", lambda *_: written))]
    )
    assert imported.judgments == 8 and imported.invalid == ()
    for one in judgments(tmp_path):
        assert one.choice == (choice if isinstance(choice, str) else one.systems[choice]) and one.strength == strength


def test_another_strength_is_another_choice_and_strength_unasked_is_none(tmp_path: Path) -> None:
    study = study_at(tmp_path, strength=True)

    def sheet(written: str) -> Path:
        return save(tmp_path / "s.csv", filled(study, "rater-1", lambda *_: written))

    import_ratings(tmp_path / "study", [sheet("A clearly")])
    again = import_ratings(tmp_path / "study", [sheet("A slightly")])
    assert again.refused == 8 and "differ" in again.conflicts[0]
    import_ratings(tmp_path / "study", [sheet("A slightly")], replace=True)
    assert {one.strength for one in judgments(tmp_path)} == {"slightly"}
    wrong = import_ratings(tmp_path / "study", [sheet("A very")], replace=True)
    assert "'A very' is not a choice for " in wrong.invalid[0]
    assert wrong.invalid[0].endswith("write A clearly, A slightly, tie, B slightly or B clearly.")
    assert "a clearly" not in choice_words(RatingForm())


def test_strength_and_reasons_go_on_into_feedback(tmp_path: Path) -> None:
    study = study_at(tmp_path, strength=True, reasons=REASONS, attributes=("overall",))
    cells = with_reasons(study, *[("is too long", "makes things up", "")] * 4)
    for row in cells[1:]:
        row[cells[0].index("overall")] = "B clearly"
    import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    assert main(["feedback", str(tmp_path / "study"), "--output", str(tmp_path / "f.jsonl"), "--no-exclusion"]) == 0
    records = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert len(records) == 4
    for record in records:
        (vote,) = record["extra"]["votes"]
        b, a = (record["completions"][place] for place in (vote["choice"], 1 - vote["choice"]))  # B was chosen
        assert vote["strength"] == "clearly" and (a["rank"], b["rank"]) == (2, 1)
        assert (a["critique"], b["critique"]) == ("is too long", "makes things up")


def test_strength_is_chosen_by_keys_and_saved_and_loaded(browser: Browser, tmp_path: Path) -> None:
    study = study_at(tmp_path, strength=True)
    rating = Rating(browser)
    rating.open(study)
    with rating.browser.screen(1366, 650):
        rating.keys("ENTER", "1", "5", "ENTER", "2", "3", "ENTER", "4", "a", "ENTER", "b", "t")
        assert browser.faint_texts() == [] and rating.js("return document.documentElement.scrollWidth <= innerWidth")
        assert rating.js("return document.querySelector('[aria-pressed=true]').getAttribute('aria-label')").endswith(
            ": answer B is slightly better"
        )
    content = rating.saved()
    (tmp_path / "s.csv").write_bytes(content)
    first, second = study.orders["rater-1"]
    chosen = [(row[first], row[second]) for row in rating.rows()]
    assert chosen == [
        ("A clearly", "B clearly"),
        ("A slightly", "tie"),
        ("B slightly", "A slightly"),
        ("B slightly", "tie"),
    ]
    assert import_ratings(tmp_path / "study", [tmp_path / "s.csv"]).judgments == 8
    rating.open(study)
    rating.keys("ENTER")
    rating.driver.find_element("id", "file").send_keys(str(tmp_path / "s.csv"))
    rating.browser.waited("document.getElementById('said').textContent", "Rated items loaded: 4")
    assert [(row[first], row[second]) for row in rating.rows()] == chosen


def test_potato_refuses_strength_and_forms_refuse_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="potato can't ask how strong a preference is; leave out --strength"):
        study_at(tmp_path, strength=True, forms=["potato"])
    with pytest.raises(InputError, match="The form xlsx can't ask for reasons"):
        study_at(tmp_path, reasons=REASONS, forms=["xlsx"])


# --- reasons and comments


def with_reasons(study: Study, *rows: tuple[str, str, str]) -> Cells:
    """A filled sheet with (reasons of A, reasons of B, comment) in its rows."""
    cells = filled(study, "rater-1", lambda *_: "A")
    head = cells[0]
    for row, given in zip(cells[1:], rows, strict=True):
        for name, cell in zip(("reasons_a", "reasons_b", "comment"), given, strict=True):
            row[head.index(name)] = cell
    return cells


def test_reasons_become_labels_below_the_comment_and_then_critiques(tmp_path: Path) -> None:
    study = study_at(tmp_path, reasons=REASONS)
    assert columns(study, "rater-1")[-4:] == ["reasons_a", "reasons_b", "comment", "seconds"]
    cells = with_reasons(
        study,
        ("", "Is too long; makes things up", "Answer B wanders."),
        ("is too long", "leaves out the reason;", ""),
        ("", "", "A good one."),
        ("", "is ugly; is too long", ""),
    )
    imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    by_row = {one.row: one.comment for one in judgments(tmp_path)}
    found = [by_row[row.row] for row, _ in study.rater_rows("rater-1")]
    assert found == [
        "Answer B wanders.\nB: is too long, makes things up",
        "A: is too long\nB: leaves out the reason",
        "A good one.",
        "B: is too long",
    ]
    assert [sentence.split(": ", 1)[1] for sentence in imported.invalid] == [
        "'is ugly' is not one of the study's reasons, makes things up, leaves out the reason, is too long; the row "
        "counts without it."
    ]
    assert "rater-1: 1 row without the required reason or comment; the votes count." in imported.missing
    assert imported.judgments == 8 and imported.refused == 1
    assert critiques_of(found[0]) == (None, "This answer wanders. is too long, makes things up")
    assert critiques_of(found[1]) == ("is too long", "leaves out the reason")


def test_a_comment_that_is_too_short_is_counted_and_its_votes_count(tmp_path: Path) -> None:
    study = study_at(tmp_path, min_comment=5)
    cells = filled(study, "rater-1", lambda *_: "tie")
    for row, comment in zip(cells[1:], ("", "four", "fives", " 1234 "), strict=True):
        row[cells[0].index("comment")] = comment
    imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    assert imported.missing == ("rater-1: 3 rows without the required reason or comment; the votes count.",)
    assert imported.judgments == 8 and "3 rows without the required reason" in summary(imported)


def test_the_page_asks_for_a_reason_unless_all_is_a_tie_and_for_a_long_enough_comment(
    browser: Browser, tmp_path: Path
) -> None:
    study = study_at(tmp_path, reasons=REASONS, min_comment=4)
    rating = Rating(browser)
    rating.open(study)
    rating.keys("ENTER", "2", "2", "ENTER")
    assert rating.text("count").startswith("Item 1 of 4 · 0") and "still missing" in rating.text("said")
    rating.keys("c", "f", "o", "u", "r", "ESCAPE", "ENTER")  # a tie needs no reason
    assert rating.text("count").startswith("Item 2 of 4 · 1")
    rating.keys("1", "2", "c", "w", "o", "r", "d", "ESCAPE", "ENTER")
    assert rating.text("count").startswith("Item 2") and rating.text("next").startswith("Skip")
    button = rating.driver.find_element("css selector", "#reasons [data-side=B][data-reason='is too long']")
    button.click()
    assert button.get_attribute("aria-pressed") == "true" and rating.text("next").startswith("Next")
    assert browser.faint_texts() == []
    rating.driver.refresh()
    rating.painted()
    assert rating.text("next").startswith("Next")
    content = rating.saved()
    (tmp_path / "s.csv").write_bytes(content)
    assert [(row["reasons_a"], row["reasons_b"]) for row in rating.rows()][:2] == [("", ""), ("", "is too long")]
    imported = import_ratings(tmp_path / "study", [tmp_path / "s.csv"])
    assert imported.judgments == 4 and not [line for line in imported.missing if "required" in line]
    rating.open(study)
    rating.keys("ENTER")
    rating.driver.find_element("id", "file").send_keys(str(tmp_path / "s.csv"))
    rating.browser.waited("document.getElementById('said').textContent", "Rated items loaded: 2")
    assert [row["reasons_b"] for row in rating.rows()][1] == "is too long"


@pytest.mark.parametrize(
    ("reasons", "says"),
    [
        (["a; b"], "The reason 'a; b' can't stand in a cell"),
        (["Twice", "twice"], "The reason 'twice' is given twice"),
        ([" "], "can't stand in a cell"),
        (["x is best"], "The reason 'x is best' mentions the system 'x'"),
    ],
)
def test_reasons_that_cannot_stand_in_a_cell_are_refused(tmp_path: Path, reasons: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        study_at(tmp_path, reasons=reasons)
    assert says in str(caught.value)


# --- practice


def test_practice_comes_first_explains_its_answers_and_counts_nothing(browser: Browser, tmp_path: Path) -> None:
    study = study_at(
        tmp_path, practice=lines_of(tmp_path / "practice.jsonl", PRACTICE), attributes=("accuracy", "overall")
    )
    assert read_study(tmp_path / "study") == study
    told = (tmp_path / "study/sheets/instructions.txt").read_text()
    assert "2 + 2?" in told and "Expected: accuracy: A, overall: A. Four is right." in told
    rating = Rating(browser)
    rating.open(study)
    rating.keys("ENTER")
    assert rating.text("count") == "Practice 1 of 2" and rating.text("prompt") == "2 + 2?"
    assert not rating.shows("explained") and not rating.driver.find_element("id", "save").is_enabled()
    rating.keys("3", "2")
    assert rating.shows("explained")
    assert rating.text("explained") == (
        "Expected: Accuracy: answer A is better; Overall: answer A is better. Four is right."
    )
    rating.keys("ENTER", "1", "1")
    assert rating.text("explained") == "Expected: Overall: tie. <b>Both</b> greet."
    assert browser.faint_texts() == []
    rating.keys("ENTER")
    assert rating.text("count") == "Item 1 of 4 · 0 rated" and not rating.shows("explained")
    rating.keys("1", "3")
    assert not rating.shows("explained")
    rating.driver.refresh()
    rating.painted()
    assert rating.text("count").startswith("Item 1 of 4")  # practice is done once
    assert len(rating.rows()) == 4 and "2 + 2?" not in rating.saved().decode()


def test_practice_can_be_interrupted_by_a_reload(browser: Browser, tmp_path: Path) -> None:
    study = study_at(tmp_path, practice=lines_of(tmp_path / "practice.jsonl", PRACTICE))
    rating = Rating(browser)
    rating.open(study)
    rating.keys("ENTER", "3", "2")
    rating.driver.refresh()
    rating.painted()
    assert rating.shows("start")
    rating.keys("ENTER")
    assert rating.text("count") == "Practice 1 of 2"
    assert rating.js("return document.querySelectorAll('[aria-pressed=true]').length") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"why": None}, "practice.jsonl:1: why is NoneType"),
        ({"more": 1}, "practice.jsonl:1: a practice item has prompt, a, b, answers and why, and nothing else."),
        ({"answers": {}}, "practice.jsonl:1: it answers nothing, but the study asks accuracy, overall"),
        ({"answers": {"wit": "A"}}, "practice.jsonl:1: it answers 'wit', but the study asks accuracy, overall"),
        ({"answers": {"overall": "C"}}, "practice.jsonl:1: the answer to 'overall' is 'C'; give A, tie or B."),
        ({"why": "y is worse"}, "The explanation of practice item 1 mentions the system 'y'"),
    ],
)
def test_a_practice_item_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "practice.jsonl"
    path.write_text(json.dumps(PRACTICE[0] | change) + "\n")
    with pytest.raises(InputError) as caught:
        study_at(tmp_path, practice=path)
    assert says in str(caught.value)
