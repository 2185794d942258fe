"""Rankings of three to five systems on one screen: from the export to judgments, feedback and the Plackett-Luce
model.
"""

from __future__ import annotations

import doctest
import json
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coh_lightning.__main__ import main
from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.feedback.records import Feedback
from coh_lightning.human_eval import rankings
from coh_lightning.human_eval.export import export_study
from coh_lightning.human_eval.plackett_luce import plackett_luce
from coh_lightning.human_eval.rankings import rankings_of
from coh_lightning.human_eval.ratings import import_ratings
from coh_lightning.human_eval.report import write_report
from coh_lightning.human_eval.report_method import method_paragraph
from coh_lightning.human_eval.sheets import columns
from coh_lightning.human_eval.study import Study, read_study
from coh_lightning.judge.prompts import comparisons_of_study
from helpers.browser import Browser
from helpers.completions import Cells, completions, save
from helpers.rating_page import Rating

NAMES = ("best", "middle", "worst")


def study_at(folder: Path, names: tuple[str, ...] = NAMES, number: int = 12, **options: Any) -> Study:
    files = [completions(folder, name, number) for name in names]
    return export_study(
        files,
        folder / "study",
        **({"raters": 2, "overlap": 99, "attributes": ("correct", "overall"), "ranking": True} | options),
    )


def ranked(study: Study, rater: str, order: tuple[str, ...] = NAMES, form: str = " > ") -> Cells:
    """The rater's sheet, with the systems in this order in every row."""
    head = columns(study, rater)
    rows = []
    for row, item in study.rater_rows(rater):
        systems = study.key["items"][item.item]["systems"]
        letters = {systems[place]: "ABCDE"[number] for number, place in enumerate(row.places)}
        cells = dict.fromkeys(head, "")
        cells |= {"row_id": row.row, "study_id": study.id, "rater": rater, "text_hash": row.text_hash(item)}
        cells |= dict.fromkeys(study.attributes, form.join(letters[name] for name in order))
        rows.append([*cells.values()])
    return [head, *rows]


def judgments(folder: Path) -> list[Judgment]:
    return list(read_jsonl(folder / "study/judgments.jsonl", Judgment))


def test_docstring_examples() -> None:
    assert doctest.testmod(rankings) == doctest.TestResults(failed=0, attempted=1)


@pytest.mark.parametrize("systems", [3, 4, 5])
def test_every_system_stands_equally_often_in_each_place(tmp_path: Path, systems: int) -> None:
    study = study_at(tmp_path, tuple("pqrst"[:systems]), 60, raters=1)
    assert read_study(tmp_path / "study") == study and study.form.ranking == systems
    shown: Counter[tuple[int, str]] = Counter()
    for row, item in study.rater_rows("rater-1"):
        names = study.key["items"][item.item]["systems"]
        assert sorted(row.places) == list(range(systems)) and len(item.texts) == systems
        for number, place in enumerate(row.places):
            shown[number, names[place]] += 1
            assert row.shown(item)[number].startswith(f"{names[place]}'s answer")
    assert set(shown.values()) == {60 // systems}
    assert columns(study, "rater-1")[4 : 5 + systems] == ["prompt", *(f"answer_{one}" for one in "abcde"[:systems])]
    orders = {item.item: study.key["items"][item.item]["systems"] for item in study.items}
    assert len({tuple(order) for order in orders.values()}) > 3  # the order of the texts reveals nothing


def test_a_ranking_becomes_a_judgment_for_each_two_answers(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    for form in (" > ", "", ", "):
        imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", ranked(study, "rater-1", form=form))])
        assert (imported.invalid, imported.foreign, imported.conflicts) == ((), (), ())
        assert (imported.judgments, imported.expected) == (12 * 2 * 3, 24 * 2 * 3)
    assert imported.added == 0 and "rater-2: 12 of 12 rows are not answered yet." in imported.missing
    found = judgments(tmp_path)
    for one in found:
        assert one.choice == min(one.systems, key=NAMES.index) and one.sheet_row in study.key["rows"]
    assert set(rankings_of(found)) == {"correct", "overall"}
    assert {order for _, order in rankings_of(found)["overall"]} == {NAMES} and len(rankings_of(found)["overall"]) == 12


@pytest.mark.parametrize("cell", ["A > B", "A > B > B", "A = B > C", "A > B > D", "best"])
def test_a_cell_that_ranks_not_all_is_refused(tmp_path: Path, cell: str) -> None:
    study = study_at(tmp_path, number=3)
    cells = ranked(study, "rater-1")
    cells[1][cells[0].index("overall")] = cell
    imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    assert imported.judgments == (3 * 2 - 1) * 3 and imported.refused == 1
    assert imported.invalid[0].endswith(
        f"{cell!r} is no ranking for overall; write each of A, B, C once, from best to worst, such as C > B > A."
    )


def test_a_required_comment_of_a_ranking_is_asked_once_a_row(tmp_path: Path) -> None:
    study = study_at(tmp_path, number=3, min_comment=4, raters=1)
    cells = ranked(study, "rater-1")
    cells[1][cells[0].index("comment")] = "long enough"
    imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    assert imported.missing == ("rater-1: 2 rows without the required reason or comment; the votes count.",)


def test_another_ranking_of_a_row_is_refused_or_replaces_it(tmp_path: Path) -> None:
    study = study_at(tmp_path, number=4)
    import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", ranked(study, "rater-1"))])
    other = save(tmp_path / "s.csv", ranked(study, "rater-1", NAMES[::-1]))
    assert import_ratings(tmp_path / "study", [other]).refused > 0
    assert {order for _, order in rankings_of(judgments(tmp_path))["overall"]} == {NAMES}
    import_ratings(tmp_path / "study", [other], replace=True)
    assert {order for _, order in rankings_of(judgments(tmp_path))["overall"]} == {NAMES[::-1]}


def test_the_report_and_the_feedback_take_rankings(tmp_path: Path) -> None:
    study = study_at(tmp_path, number=20)
    sheets = []
    for number, rater in enumerate(study.raters):
        cells = ranked(study, rater)
        for place in range(1, 9):  # some rows otherwise, or a system would always win
            other = ranked(study, rater, list(permutations(NAMES))[(place + number) % 6])
            cells[place] = other[place]
        sheets.append(save(tmp_path / f"{rater}.csv", cells))
    import_ratings(tmp_path / "study", sheets)
    numbers = write_report(tmp_path / "study")
    assert numbers["rows"] == {"asked": 40, "answered": 40} and numbers["raters"]["rater-1"]["rows"] == 20
    entry = numbers["plackett_luce"]["overall"]
    assert [each["system"] for each in entry["systems"]] == list(NAMES) and entry["rankings"] == 40
    assert len(numbers["analyses"]["all"]["pairs"]) == 3 and numbers["analyses"]["all"]["votes"] == 40 * 2 * 3
    page = (tmp_path / "study/report.html").read_text()
    assert "Ranking by whole orders" in page and "3 answers at once" in method_paragraph(numbers)
    assert main(["feedback", str(tmp_path / "study"), "--output", str(tmp_path / "f.jsonl"), "--no-exclusion"]) == 0
    records = list(read_jsonl(tmp_path / "f.jsonl", Feedback))
    orders = [
        [one.text.split("'")[0] for one in sorted(each.candidates, key=lambda it: it.rank or 0)] for each in records
    ]
    assert sum(order == list(NAMES) for order in orders) >= 20


def test_a_judge_refuses_a_ranking(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ranks 3 answers at once; a judge compares two"):
        comparisons_of_study(study_at(tmp_path))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": ("a", "b")}, "A ranking has 3 to 5 systems, but 2 were given (a, b)."),
        ({"names": tuple("abcdef")}, "A ranking has 3 to 5 systems, but 6 were given"),
        ({"strength": True}, "A ranking can't be combined with --forms, --strength, --reasons or --practice"),
        ({"forms": ["xlsx"]}, "A ranking can't be combined with"),
    ],
)
def test_what_can_not_be_ranked_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        study_at(tmp_path, **options)
    assert says in str(caught.value)


# --- the page


def test_answers_are_ranked_by_keys_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    study = study_at(tmp_path, tuple("pqrst"), 3, raters=1)
    rating = Rating(browser)
    browser.forget()
    with browser.screen(1366, 650):
        rating.open(study)
        assert "from best to worst" in rating.text("start")
        rating.keys("ENTER", "b", "a", "ENTER")
        assert "2 of 2 still open" in rating.text("said")
        rating.keys("5", "c", "d")  # whoever types the last place too answers no other question with it
        rating.keys("a", "a", "d", "e", "b")
        rating.js(
            "[...document.querySelectorAll('.question:nth-of-type(2) button')][2].click()"
        )  # the last needs no click
        assert browser.faint_texts() == [] and rating.js("return document.documentElement.scrollWidth <= innerWidth")
        marks = rating.js("return [...document.querySelectorAll('.question small')].map(each => each.textContent)")
        assert marks == ["2.", "1.", "4.", "5.", "3.", "5.", "3.", "4.", "1.", "2."]
        rating.keys("ENTER", "a")
        assert rating.text("count").startswith("Item 2 of 3 · 1 rated")
    assert rating.js("return document.querySelectorAll('.answers .answer').length") == 5
    first, second = study.orders["rater-1"]
    content = rating.saved()
    rows = rating.rows()
    assert (rows[0][first], rows[0][second]) == ("B > A > E > C > D", "D > E > B > C > A")
    assert (rows[1][first], rows[2][first]) == ("", "")  # half a ranking is none
    assert rows[0]["answer_e"] == study.rater_rows("rater-1")[0][0].shown(study.rater_rows("rater-1")[0][1])[4]
    (tmp_path / "s.csv").write_bytes(content)
    assert import_ratings(tmp_path / "study", [tmp_path / "s.csv"]).judgments == 2 * 10
    rating.open(study)
    rating.keys("ENTER")
    rating.driver.find_element("id", "file").send_keys(str(tmp_path / "s.csv"))
    browser.waited("document.getElementById('said').textContent", "Rated items loaded: 1")
    assert rating.rows()[0][second] == "D > E > B > C > A" and browser.console() == []


# --- the model


def simulated(strengths: list[float], prompts: int, seed: int = 3) -> list[tuple[str, tuple[str, ...]]]:
    """Rankings by the model itself: the order of strength plus Gumbel noise (Yellott 1977)."""
    noise = np.random.default_rng(seed).gumbel(size=(prompts, len(strengths)))
    orders = np.argsort(-(np.array(strengths) + noise), axis=1)
    return [(f"p{number}", tuple("abcd"[place] for place in order)) for number, order in enumerate(orders)]


def test_the_strengths_are_those_of_the_simulated_truth() -> None:
    truth = np.array([0.8, 0.1, -0.3, -0.6])
    found = plackett_luce(simulated(truth.tolist(), 300), "abcd", seed=1)
    by_name = {each["system"]: each["log_strength"] for each in found["systems"]}
    inside = [by_name[name]["low"] < value < by_name[name]["high"] for name, value in zip("abcd", truth, strict=True)]
    assert sum(inside) >= 3 and [each["system"] for each in found["systems"]] == list("abcd")
    assert sum(each["value"] for each in by_name.values()) == pytest.approx(0, abs=1e-9)
    assert sum(each["first"] for each in found["systems"]) == pytest.approx(1)


def test_of_rankings_of_two_kinds_the_odds_are_those_counted() -> None:
    found = plackett_luce([(f"p{n}", ("a", "b") if n % 3 else ("b", "a")) for n in range(30)], "ab", seed=1)
    one, other = (each["log_strength"]["value"] for each in found["systems"])
    assert one - other == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (simulated([0.1, 0, 0, 0], 9), "9 prompts are too few for a ranking; it needs 10."),
        ([(f"p{n}", ("a", *"bcd")) for n in range(20)], "was always ranked above the others"),
        ([(f"p{n}", tuple("abcd" if n % 2 else "acbd")) for n in range(20)], "was always ranked above the others"),
    ],
)
def test_rankings_that_are_too_thin_are_refused(given: list[tuple[str, tuple[str, ...]]], says: str) -> None:
    assert says in plackett_luce(given, "abcd", seed=1)["refused"]


def test_a_study_of_pairs_has_no_rankings(tmp_path: Path) -> None:
    study = study_at(tmp_path, ranking=False, number=4)
    assert all(not row.order for row in study.rows)
    assert "order" not in json.loads((tmp_path / "study/study.json").read_text())["rows"][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"order": [0, 1]}, "doesn't show the texts of its item"),
        ({"order": [0, 1, 1], "left": 0}, "doesn't show the texts of its item"),
        ({"order": [1, 0, 2], "left": 0}, "doesn't show the texts of its item"),
        ({"order": ["0", 1, 2], "left": 0}, "doesn't show the texts of its item"),
        ({"order": {"0": 1}}, "doesn't show the texts of its item"),
        ({"left": "0"}, "lacks row, item or rater, or its left is not 0 or 1"),
    ],
)
def test_a_damaged_order_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    study_at(tmp_path, number=3)
    path = tmp_path / "study/study.json"
    content = json.loads(path.read_text())
    content["rows"][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"study\.json: rows\[1\].*{says}"):
        read_study(tmp_path / "study")


@pytest.mark.parametrize(
    "form",
    [
        {"ranking": 2},
        {"ranking": True},
        {"min_comment": -1},
        {"reasons": [1]},
        {"render": "html"},
        {"wit": 1},
        [],
        {"reasons": "a"},
    ],
)
def test_a_damaged_form_is_refused(tmp_path: Path, form: object) -> None:
    study_at(tmp_path, number=3)
    path = tmp_path / "study/study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"form": form}))
    with pytest.raises(InputError, match=r"study\.json: its form is not one that export wrote"):
        read_study(tmp_path / "study")
