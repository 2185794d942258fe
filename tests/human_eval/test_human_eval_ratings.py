"""Import: sheets come back as spreadsheets leave them; good answers are kept, each bad one is named by file and line,
and nothing counts twice.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.choices import WORDS
from coh_lightning.human_eval.ratings import ImportResult, import_ratings, summary
from coh_lightning.human_eval.sheets import DANGEROUS, guard, sheet_cells
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import _same_hash
from helpers.completions import Cells, filled, likes_x, lines_of, save, study_of_texts

ODD = (
    "Well.",
    "=1+1",
    "- a, b; c\td|e",
    "'=quoted",
    'say "no"\r\nand go',
    "- naïve “ﬁ” 漢字 😀",
    " \n",
    "1/2",
    "＝ｘ",
    "'",
)


def study_at(folder: Path, *, texts: tuple[str, ...] = ODD, **options: Any) -> Study:
    """Systems x and y; x wrote the odd texts, y something plain."""
    return study_of_texts(folder, texts, **({"raters": 2, "overlap": 99} | options))


def bring(folder: Path, *files: Path, replace: bool = False) -> ImportResult:
    return import_ratings(folder / "study", files, replace=replace)


def judgments(folder: Path) -> list[Judgment]:
    path = folder / "study" / "judgments.jsonl"
    return list(read_jsonl(path, Judgment)) if path.exists() and path.stat().st_size else []


def clean(imported: ImportResult) -> bool:
    return not (imported.duplicates or imported.foreign or imported.invalid or imported.conflicts or imported.refused)


def sheet(folder: Path, study: Study, rater: str = "rater-1") -> tuple[Path, Cells]:
    cells = filled(study, rater, likes_x)
    return save(folder / f"{rater}.csv", cells), cells


# ---------------------------------------------------------------------------------------------------------------- what
# is kept


def test_filled_sheets_become_judgments(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    imported = bring(tmp_path, *(sheet(tmp_path, study, rater)[0] for rater in study.raters))
    found = judgments(tmp_path)
    assert clean(imported) and imported.missing == ()
    assert imported.judgments == imported.added == imported.expected == len(found) == 2 * len(study.rows)
    assert [(one.row, one.attribute) for one in found] == [
        (row.row, attribute) for row in study.rows for attribute in study.attributes
    ]
    for one in found:
        about = study.key["items"][one.item]
        assert one.choice == ("x" if one.attribute == "accuracy" and about["kind"] == "pair" else "tie")
        assert (one.prompt_id, one.seconds, one.rater) == (
            about["prompt_id"],
            12.0,
            next(row.rater for row in study.rows if row.row == one.row),
        )
        assert one.check == study.key["rows"][one.row]["check"]
        assert one.passed is (None if not one.check else True)
    for row in study.rows:
        shown = [study.key["items"][row.item]["systems"][place] for place in (row.left, 1 - row.left)]
        assert {one.systems for one in found if one.row == row.row} == {tuple(shown)}


def test_checks_record_whether_they_were_passed(tmp_path: Path) -> None:
    gold = lines_of(tmp_path / "gold.jsonl", [{"id": "g", "prompt": "2 + 2?", "good": "4", "bad": "5"}])
    study = study_at(tmp_path, gold=gold, raters=1, attributes=("overall",))
    cells = filled(study, "rater-1", lambda attribute, prompt, a, b: "A")
    bring(tmp_path, save(tmp_path / "s.csv", cells))
    for one in judgments(tmp_path):
        if not one.check:
            assert one.passed is None
        else:
            assert one.passed is (one.check == "gold" and one.systems[0] == "gold: good")
    bring(tmp_path, save(tmp_path / "s.csv", filled(study, "rater-1", likes_x)), replace=True)
    assert {one.passed for one in judgments(tmp_path) if one.check in ("swap", "identical")} == {True}


def test_a_swapped_duplicate_waits_for_the_first_showing(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1, attributes=("overall",))
    swap = next(row.row for row in study.rows if study.key["rows"][row.row]["check"] == "swap")
    cells = filled(study, "rater-1", likes_x)
    bring(tmp_path, save(tmp_path / "s.csv", [cells[0], *(row for row in cells if row[0] == swap)]))
    assert [one.passed for one in judgments(tmp_path)] == [None]
    bring(tmp_path, save(tmp_path / "s.csv", cells))
    assert [one.passed for one in judgments(tmp_path) if one.row == swap] == [True]


@pytest.mark.parametrize(
    ("word", "choice"),
    [*WORDS.items(), ("A", "A"), (" Tie ", "tie"), ("TIE", "tie"), ("Answer  B", "B"), ("'=", "tie")],
)
def test_every_stated_word_is_a_choice(tmp_path: Path, word: str, choice: str) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    bring(tmp_path, save(tmp_path / "s.csv", filled(study, "rater-1", lambda *_: word)))
    (one,) = judgments(tmp_path)
    assert one.choice == {"A": one.systems[0], "tie": "tie", "B": one.systems[1]}[choice]


def test_comments_and_seconds_are_kept(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    cells = filled(study, "rater-1", likes_x, seconds="7,5")
    cells[1][-2] = "=hard; \nto say"
    assert clean(bring(tmp_path, save(tmp_path / "s.csv", cells)))
    assert [(one.comment, one.seconds) for one in judgments(tmp_path)] == [("=hard; \nto say", 7.5)]


# ---------------------------------------------------------------------------------------------------------------- what
# spreadsheets do


def written(cells: Cells, *, guarded: bool = True, **dialect: Any) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **({"lineterminator": "\r\n"} | dialect)).writerows(
        [[guard(cell) if guarded else cell for cell in row] for row in cells]
    )
    return out.getvalue()


def padded(cells: Cells) -> Cells:
    return [*cells, [""] * len(cells[0]), [" "] * 3]


def reordered(cells: Cells) -> Cells:
    wider = [[*row, "note" if n == 0 else f"mine {n}", ""] for n, row in enumerate(cells)]
    return [row[::-1] for row in (wider[0], *wider[:0:-1])]


SPREADSHEETS: dict[str, Callable[[Cells], bytes]] = {
    "as exported": lambda cells: written(cells).encode("utf-8-sig"),
    "without byte order mark": lambda cells: written(cells).encode(),
    "semicolons": lambda cells: written(cells, delimiter=";").encode("utf-8-sig"),
    "semicolons, said in the first line": lambda cells: b"sep=;\r\n" + written(cells, delimiter=";").encode(),
    "bars": lambda cells: written(cells, delimiter="|").encode(),
    "tabs in UTF-16, Excel's Unicode text": lambda cells: written(cells, delimiter="\t").encode("utf-16"),
    "tabs in UTF-16 big endian": lambda cells: b"\xfe\xff" + written(cells, delimiter="\t").encode("utf-16-be"),
    "single quotes": lambda cells: written(cells, quotechar="'").encode(),
    "single quotes everywhere": lambda cells: written(cells, quotechar="'", quoting=csv.QUOTE_ALL).encode(),
    "quotes only where needed, LF": lambda cells: written(
        [[cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in cells], lineterminator="\n"
    ).encode(),
    "line ends within cells changed": lambda cells: written(
        [[cell.replace("\r\n", "\n") for cell in row] for row in cells]
    ).encode(),
    "guards stripped": lambda cells: written(cells, guarded=False).encode("utf-8-sig"),
    "one apostrophe stripped": lambda cells: written(
        [[guard(cell).removeprefix("'") for cell in row] for row in cells], guarded=False
    ).encode(),
    "ends trimmed": lambda cells: written([[cell.strip() for cell in row] for row in cells]).encode(),
    "empty rows at the end": lambda cells: written(padded(cells)).encode(),
    "columns and rows moved, columns added": lambda cells: written(reordered(cells)).encode(),
    "header in capitals with blanks": lambda cells: written(
        [[name.replace("_", " ").upper() for name in cells[0]], *cells[1:]]
    ).encode(),
    "columns of texts left out": lambda cells: written([[*row[:4], *row[7:]] for row in cells]).encode(),
    "columns of hash, study and rater left out": lambda cells: written([[row[0], *row[4:]] for row in cells]).encode(),
    "short texts taken for values": lambda cells: written(
        [["1-Feb" if cell == "1/2" else cell for cell in row] for row in cells]
    ).encode(),
    "saved in the local code page": lambda cells: written(cells).encode("cp1252", "replace"),
}


@pytest.mark.parametrize("what", SPREADSHEETS)
def test_spreadsheet_changes_do_not_change_the_import(tmp_path: Path, what: str) -> None:
    study = study_at(tmp_path)
    cells = filled(study, "rater-1", likes_x)
    path = tmp_path / "sheet.csv"
    path.write_bytes(SPREADSHEETS[what](cells))
    assert clean(bring(tmp_path, path))
    found = judgments(tmp_path)
    bring(tmp_path, save(tmp_path / "as_exported.csv", cells))
    assert judgments(tmp_path) == found
    assert len(found) == 2 * (len(cells) - 1)


@pytest.mark.parametrize("text", ["5 May", "5 мая", "5 जनवरी", "5 มกราคม"])
def test_a_date_in_any_script_that_a_spreadsheet_rewrote_is_the_same_row(tmp_path: Path, text: str) -> None:
    study = study_at(tmp_path, texts=(text,))
    cells = [["05.01.2026" if cell == text else cell for cell in row] for row in filled(study, "rater-1", likes_x)]
    assert clean(bring(tmp_path, save(tmp_path / "sheet.csv", cells)))


@pytest.mark.parametrize("misread", ["", "\ufeff".encode().decode("cp1252")])
def test_a_workbook_is_read(tmp_path: Path, misread: str) -> None:
    """`misread`: the mark that begins a CSV, which a spreadsheet opened as Windows-1252 and saved as a workbook."""
    openpyxl = pytest.importorskip("openpyxl")
    study = study_at(tmp_path)
    cells = filled(study, "rater-1", likes_x)
    book = openpyxl.Workbook()
    book.active.append(["Read the instructions first."])
    rows = book.create_sheet("sheet")
    for number, row in enumerate(cells):
        rows.append([misread * (not number) + row[0], *row[1:-1], 12 if number else row[-1]])
        for cell in rows[number + 1]:
            cell.data_type = "n" if isinstance(cell.value, int) else "s"
    book.save(tmp_path / "s.xlsx")
    assert clean(bring(tmp_path, tmp_path / "s.xlsx"))
    found = judgments(tmp_path)
    assert len(found) == 2 * (len(cells) - 1)
    bring(tmp_path, save(tmp_path / "s.csv", cells))
    assert judgments(tmp_path) == found


any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(DANGEROUS + "'\",;|\r\n\t\0 \u2028\ufeff\x85_x0a"), max_size=12
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(any_text, min_size=1, max_size=4),
    st.sampled_from(sorted(set(SPREADSHEETS) - {"short texts taken for values"})),
    any_text,
)
@example(["_x000d_", "\r", "''\x00="], "guards stripped", "'")
@example(["ſ"], "saved in the local code page", "")
@example([""], "single quotes", ",")
def test_any_text_goes_through_any_spreadsheet(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], what: str, comment: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    study = study_at(folder, texts=tuple(texts), raters=1)
    cells = filled(study, "rater-1", likes_x)
    for row in cells[1:]:
        row[-2] = comment
    path = folder / "sheet.csv"
    path.write_bytes(SPREADSHEETS[what](cells))
    imported = bring(folder, path)
    assert clean(imported) and imported.judgments == imported.expected
    if what == "as exported":
        assert {one.comment for one in judgments(folder)} == {comment}


def test_a_text_longer_than_any_reader_expects_is_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    study = study_at(tmp_path, texts=("x" * 200_000,), raters=1)
    assert clean(bring(tmp_path, sheet(tmp_path, study)[0]))
    assert csv.field_size_limit() == limit


# ----------------------------------------------------------------------------------------------------------------
# again, in parts, otherwise


def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    path, _ = sheet(tmp_path, study)
    bring(tmp_path, path)
    first = (tmp_path / "study/judgments.jsonl").read_bytes()
    again = bring(tmp_path, path)
    assert clean(again) and again.added == 0
    assert (tmp_path / "study/judgments.jsonl").read_bytes() == first


def test_sheets_may_come_in_parts(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1)
    cells = filled(study, "rater-1", likes_x)
    empty = sheet_cells(study, "rater-1")
    place = cells[0].index("overall")
    half = [cells[0], *cells[1:4], *empty[4:]]
    half[2] = [*half[2][:place], "", *half[2][place + 1 :]]
    one = bring(tmp_path, save(tmp_path / "half.csv", half))
    assert (one.added, one.refused) == (5, 0)
    assert one.missing == (
        f"{tmp_path / 'half.csv'}:{line_of(tmp_path / 'half.csv', half[2][0])}: row '{half[2][0]}' has no answer for "
        "overall.",
        f"rater-1: {len(cells) - 4} of {len(cells) - 1} rows are not answered yet.",
    )
    whole = bring(tmp_path, save(tmp_path / "whole.csv", cells))
    assert whole.judgments == whole.expected == 2 * (len(cells) - 1)
    assert whole.added == whole.expected - 5
    assert clean(whole) and whole.missing == ()


def line_of(path: Path, row: str) -> int:
    """The line that a row of a sheet begins at."""
    return next(
        number
        for number, line in enumerate(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n"), start=1)
        if row in line
    )


def test_a_duplicate_answer_counts_once_and_is_reported(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    path, cells = sheet(tmp_path, study)
    copy = save(tmp_path / "copy.csv", cells)
    imported = bring(tmp_path, path, copy)
    assert imported.duplicates == (
        f"{copy}:2: overall of row '{cells[1][0]}' has the same answer at {path}:2; it counts once.",
    )
    assert (imported.judgments, imported.refused) == (1, 0)


def test_a_changed_answer_is_refused_without_replace(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    path, cells = sheet(tmp_path, study)
    bring(tmp_path, path)
    other = save(tmp_path / "other.csv", filled(study, "rater-1", lambda *_: "A"))
    refused = bring(tmp_path, other)
    says = (
        f"{other}:2: overall of row '{cells[1][0]}' was answered before, at an earlier import, with another choice "
        "(tie there, A here); "
    )
    assert (refused.conflicts, refused.refused) == ((f"{says}the first is kept (--replace takes this one).",), 1)
    assert [one.choice for one in judgments(tmp_path)] == ["tie"]
    replaced = bring(tmp_path, other, replace=True)
    assert (replaced.conflicts, replaced.refused, replaced.added) == ((f"{says}this one is taken.",), 0, 0)
    assert [one.choice for one in judgments(tmp_path)] == [judgments(tmp_path)[0].systems[0]]


def test_two_answers_in_one_annotation_count_for_none_and_are_both_named(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, swaps=0, identical=0, forms=("label-studio",))
    ((row, item),) = study.rater_rows("rater-1")
    results = [
        {"type": "choices", "from_name": name, "value": {"choices": [choice]}}
        for name, choice in (("overall", "A"), ("overall", "B"), ("accuracy", "tie"))
    ]
    path = tmp_path / "project.json"
    path.write_text(
        json.dumps(
            [
                {
                    "data": {"row_id": row.row, "text_hash": row.text_hash(item)},
                    "annotations": [{"result": results, "completed_by": 3}],
                }
            ]
        )
    )
    imported = bring(tmp_path, path)
    assert imported.invalid == (
        f"{path}, task 1 by 3: overall of row '{row.row}' has 2 answers, 'A' and 'B'; none is counted.",
    )
    assert (imported.refused, [(one.attribute, one.choice) for one in judgments(tmp_path)]) == (
        1,
        [("accuracy", "tie")],
    )


def test_two_annotations_of_one_task_that_differ_are_a_conflict_with_both_answers(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    ((row, item),) = study.rater_rows("rater-1")
    each = [
        {"result": [{"type": "choices", "from_name": "overall", "value": {"choices": [choice]}}], "completed_by": 3}
        for choice in ("A", "B")
    ]
    path = tmp_path / "project.json"
    path.write_text(json.dumps([{"data": {"row_id": row.row, "text_hash": row.text_hash(item)}, "annotations": each}]))
    imported = bring(tmp_path, path)
    assert imported.conflicts == (
        f"{path}, task 1, annotation 2 by 3: overall of row '{row.row}' was answered before, at {path}, task 1, "
        "annotation 1 by 3, with another choice "
        "(A there, B here); the first is kept (--replace takes this one).",
    )
    assert [one.choice for one in judgments(tmp_path)] == [judgments(tmp_path)[0].systems[0]]


def test_conflicting_answers_in_judgments_jsonl_are_refused(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    path, _ = sheet(tmp_path, study)
    bring(tmp_path, path)
    held = tmp_path / "study" / "judgments.jsonl"
    first = json.loads(held.read_text())
    held.write_text("".join(json.dumps(one) + "\n" for one in (first, first)))
    assert bring(tmp_path, path).judgments == 1
    held.write_text("".join(json.dumps(one) + "\n" for one in (first, {**first, "choice": "x"})))
    before = held.read_bytes()
    with pytest.raises(
        InputError,
        match=rf"judgments 1 and 2 give different choices, 'tie' and 'x', for 'overall' of row '{first['row']}'",
    ):
        bring(tmp_path, path)
    assert held.read_bytes() == before


def test_a_later_comment_is_added_and_a_different_one_is_a_conflict(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    path, cells = sheet(tmp_path, study)
    bring(tmp_path, path)
    for comment, conflicts in (("now", 0), ("", 0), ("never", 1)):
        cells[1][-2] = comment
        assert len(bring(tmp_path, save(path, cells)).conflicts) == conflicts
        assert judgments(tmp_path)[0].comment == "now"


# ---------------------------------------------------------------------------------------------------------------- what
# is named


def one_bad(folder: Path, change: Callable[[list[str], list[str]], None]) -> tuple[ImportResult, Path, str]:
    """A sheet of two rows, one of which is changed: (what import said, the file, the row's id). The other row is
    kept.
    """
    study = study_at(folder, texts=("one", "two"), raters=1, attributes=("overall",), swaps=0, identical=0)
    cells = filled(study, "rater-1", likes_x)
    row = cells[2][0]
    change(cells[2], cells[0])
    path = save(folder / "s.csv", cells)
    imported = bring(folder, path)
    assert row not in {one.row for one in judgments(folder)}
    assert imported.judgments == 1 and imported.refused == 1
    return imported, path, row


def put(column: str, text: str) -> Callable[[list[str], list[str]], None]:
    def change(row: list[str], header: list[str]) -> None:
        row[header.index(column)] = text

    return change


@pytest.mark.parametrize(
    ("column", "text", "says"),
    [
        ("overall", "C", "'C' is not a choice for overall; write A, tie or B."),
        ("overall", "1", "'1' is not a choice for overall; write A, tie or B."),
        ("overall", "A or B", "'A or B' is not a choice for overall; write A, tie or B."),
        ("study_id", "s0", "row '{row}' is of study {study}, but the file says s0; it is not counted."),
        ("rater", "rater-2", "row '{row}' was given to rater-1, but the file says 'rater-2'; it is not counted."),
        ("text_hash", "0", "answer_b of row '{row}' differs from the exported text; it is not counted"),
        ("text_hash", "", "answer_b of row '{row}' differs from the exported text; it is not counted"),
        ("answer_a", "Question 0?", "answer_a of row '{row}' is another text of the study: texts were moved; it is"),
        (
            "prompt",
            "plain 0",
            "prompt of row '{row}' is another text of the study: texts were moved; it is not counted",
        ),
    ],
)
def test_an_impossible_answer_is_named_and_the_others_are_kept(
    tmp_path: Path, column: str, text: str, says: str
) -> None:
    def change(row: list[str], header: list[str]) -> None:
        put(column, text)(row, header)
        if column == "text_hash":
            put("answer_b", "another text")(row, header)

    imported, path, row = one_bad(tmp_path, change)
    study_id = json.loads((tmp_path / "study/study.json").read_text())["id"]
    assert len(imported.invalid) == 1
    assert imported.invalid[0].startswith(f"{path}:3: {says.format(row=row, study=study_id)}")


def test_a_text_that_a_spreadsheet_takes_for_a_value_needs_its_hash(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("42.0",), raters=1, attributes=("overall",), swaps=0, identical=0)
    cells = [["42" if cell == "42.0" else cell for cell in row] for row in filled(study, "rater-1", likes_x)]
    assert clean(bring(tmp_path, save(tmp_path / "s.csv", cells)))
    put("text_hash", "0" * 16)(cells[1], cells[0])
    assert "differs from the exported text" in bring(tmp_path, save(tmp_path / "s.csv", cells)).invalid[0]


CHANGES = {
    "another text": ("answer_b", "another text"),
    "an emptied cell": ("answer_a", ""),
    "a prompt of no item": ("prompt", "Question 7?"),
    "a cut text": ("answer_b", "plai"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_text_costs_no_vote_and_is_counted_once_per_file(tmp_path: Path, what: str) -> None:
    study = study_at(tmp_path, texts=("one", "two", "three", "four", "five"), raters=1, swaps=0, identical=0)
    cells = filled(study, "rater-1", likes_x)
    bring(tmp_path, save(tmp_path / "right.csv", cells))
    right = judgments(tmp_path)
    (tmp_path / "study/judgments.jsonl").unlink()
    for row in cells[1:5]:
        put(*CHANGES[what])(row, cells[0])
    path = save(tmp_path / "s.csv", cells)
    imported = bring(tmp_path, path)
    assert imported.changed == (
        f"{path}: a text was changed in 4 of 5 rows (2, 3, 4, ...); their text_hash is right, so they count.",
    )
    assert (imported.refused, imported.invalid, imported.missing) == (0, (), ())
    assert judgments(tmp_path) == right and len(right) == 10


def swapped_answers(rows: Cells) -> None:
    for row in rows:
        row[5], row[6] = row[6], row[5]


def prompts_sorted_alone(rows: Cells) -> None:
    for row, prompt in zip(rows, [rows[-1][4], *(row[4] for row in rows[:-1])], strict=True):
        row[4] = prompt


def answers_of_the_next_row(rows: Cells) -> None:
    for row, texts in zip(rows, [*(row[5:7] for row in rows[1:]), rows[0][5:7]], strict=True):
        row[5:7] = texts


@pytest.mark.parametrize("move", [swapped_answers, prompts_sorted_alone, answers_of_the_next_row])
def test_texts_that_were_moved_are_refused_in_one_sentence(tmp_path: Path, move: Callable[[Cells], None]) -> None:
    study = study_at(tmp_path, texts=("one", "two", "three"), raters=1, swaps=0, identical=0)
    cells = filled(study, "rater-1", likes_x)
    move(cells[1:])
    path = save(tmp_path / "s.csv", cells)
    imported = bring(tmp_path, path)
    assert imported.invalid == (
        f"{path}: 3 of 3 rows (2, 3, 4) show texts of other rows or columns: texts were moved; none of them is "
        "counted. Restore the texts, or leave out their columns.",
    )
    assert (imported.judgments, imported.refused, imported.changed) == (0, 3, ())


def test_numbers_that_were_exchanged_are_refused_and_values_are_not(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("1990", "42.0", "true"), raters=1, swaps=0, identical=0)
    other = {"1990": "42", "42.0": "42", "true": "TRUE"}
    cells = filled(study, "rater-1", likes_x)
    values = [[other.get(cell, cell) if cell != "1990" else cell for cell in row] for row in cells]
    assert clean(bring(tmp_path, save(tmp_path / "values.csv", values)))
    moved = [["42.0" if cell == "1990" else "1990" if cell == "42.0" else cell for cell in row] for row in cells]
    imported = bring(tmp_path, save(tmp_path / "moved.csv", moved))
    assert imported.refused == 2 and "texts were moved" in imported.invalid[0]


def test_another_persons_sheet_under_the_same_name_is_one_sentence(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1, attributes=("overall",))
    first, cells = sheet(tmp_path, study)
    second = save(tmp_path / "again.csv", filled(study, "rater-1", lambda *_: "A"))
    rows = len(cells) - 1
    imported = bring(tmp_path, first, second)
    assert imported.conflicts == (
        f"{second}: {rows} of its {rows} answers to questions that were answered before differ, the first at "
        f"{second}:2 from {first}:2; is it another person's sheet under the same name? The first ones are kept "
        "(--replace takes these).",
    )
    assert imported.refused == rows and {one.choice for one in judgments(tmp_path)} == {"tie"}
    assert bring(tmp_path, second, replace=True).conflicts[0].endswith("These are taken.")
    assert "tie" not in {one.choice for one in judgments(tmp_path)}


def test_few_different_answers_among_many_are_named_one_by_one(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=tuple(f"text {n}" for n in range(20)), raters=1, swaps=0, identical=0)
    path, cells = sheet(tmp_path, study)
    bring(tmp_path, path)
    for row in cells[1:6]:
        row[cells[0].index("overall")] = "A"
    assert len(bring(tmp_path, save(path, cells)).conflicts) == 5


def test_a_sheet_given_to_another_rater_is_one_sentence(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    cells = [[("rater-1" if cell == "rater-2" else cell) for cell in row] for row in filled(study, "rater-2", likes_x)]
    path = save(tmp_path / "s.csv", cells)
    imported = bring(tmp_path, path)
    rows = len(cells) - 1
    assert imported.invalid == (
        f"{path}: {rows} of {rows} rows (2, 3, 4, ...) were given to rater-2, but their rater says 'rater-1'; none of "
        "them is counted. If rater-2 filled in the sheet, restore the column rater.",
    )
    assert (len(imported.invalid), imported.refused) == (1, rows)


@pytest.mark.parametrize(
    ("text_hash", "cell", "same"),
    [
        ("h00a4", "00a4", True),
        ("h00a4", "H00A4 ", True),
        ("h1234567890123456", "1.2E+15", True),
        ("h1234567890123456", "1,23456789012346E+015", True),
        ("h1234567890123456", "1234567890123450", True),
        ("h1234567890123456", "1.3E+15", False),
        ("h0000000000001234", "1234", True),
        ("h00000000000012e4", "120000", True),
        ("h12e4567890123456", "12", False),
        ("h577437e474959026", "1.79769313486232E+308", True),
        ("h577437e474959026", "1.79769313486232E+307", False),
        ("h00000000000000a1", "0", False),
        ("h1234567890123456", "", False),
    ],
)
def test_a_hash_without_its_letter_or_read_as_a_number_is_the_same(text_hash: str, cell: str, same: bool) -> None:
    assert _same_hash(cell, text_hash) is same


def test_sheets_without_the_letter_of_the_hash_are_imported(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1)
    cells = [[*row[:3], row[3].removeprefix("h"), *row[7:]] for row in filled(study, "rater-1", likes_x)]
    cells[0][3] = "text_hash"
    imported = bring(tmp_path, save(tmp_path / "s.csv", cells))
    assert clean(imported) and imported.judgments == imported.expected


def test_ids_and_hashes_of_a_sheet_are_never_numbers(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=tuple(f"text {n}" for n in range(50)))
    ids = {cell for rater in study.raters for row in sheet_cells(study, rater)[1:] for cell in (*row[:2], row[3])}
    assert {cell[0] for cell in ids} == {"r", "s", "h"}


def test_an_old_excel_file_is_refused_in_our_words(tmp_path: Path) -> None:
    study_at(tmp_path, texts=("one",))
    (tmp_path / "s.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(InputError, match=r"s\.xls: it is an old Excel file, or has a password; save it as xlsx"):
        bring(tmp_path, tmp_path / "s.xls")


def test_lines_above_the_header_are_passed_over(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1)
    cells = filled(study, "rater-1", likes_x)
    path = save(tmp_path / "s.csv", [["Judge, each row\non its own", *[""] * (len(cells[0]) - 1)], *cells])
    assert clean(bring(tmp_path, path))
    cells[3][cells[0].index("overall")] = "C"
    assert bring(tmp_path, save(path, [["Judge\nit"], *cells])).invalid[0].startswith(f"{path}:")


def test_a_row_of_another_study_is_named(tmp_path: Path) -> None:
    imported, path, _ = one_bad(tmp_path, put("row_id", "r123"))
    study_id = json.loads((tmp_path / "study/study.json").read_text())["id"]
    assert imported.foreign == (f"{path}:3: row 'r123' is not of study {study_id}; it is not counted.",)


def test_a_sheet_of_another_study_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    study, other = study_at(tmp_path / "a", seed=1), study_at(tmp_path / "b", seed=2)
    imported = bring(tmp_path / "a", sheet(tmp_path / "b", other)[0])
    rows = len(other.rater_rows("rater-1"))
    assert (imported.judgments, imported.refused) == (0, rows)
    assert imported.foreign == (
        f"{tmp_path / 'b/rater-1.csv'}: this file is not of study {study.id} but of {other.id}; none of its {rows} "
        "rows is counted. Import it into the folder of its own study.",
    )
    assert not (tmp_path / "a/study/judgments.jsonl").exists()


def test_a_wrong_hash_is_named_where_no_texts_show_what_was_rated(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    cells = [[*row[:4], *row[7:]] for row in filled(study, "rater-1", likes_x)]
    right = cells[1][3]
    cells[1][3] = "0" * 16
    path = save(tmp_path / "s.csv", cells)
    assert bring(tmp_path, path).invalid == (
        f"{path}:2: the text_hash of row '{cells[1][0]}' is '0000000000000000', not {right}: other texts were "
        "rated; it is not counted.",
    )


def test_seconds_that_are_no_number_are_named_and_the_answer_is_kept(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    for number, seconds in enumerate(("soon", "-1", "nan", "inf")):
        path = save(tmp_path / f"{number}.csv", filled(study, "rater-1", likes_x, seconds=seconds))
        assert bring(tmp_path, path).invalid == (
            f"{path}:2: '{seconds}' is not a number of seconds; the row counts without its time.",
        )
        assert judgments(tmp_path)[0].seconds is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf\r\n", "the file is empty"),
        (b"name,age\r\nx,3\r\n", "the first line, 'name,age', has no column row_id"),
        (b"row_id,overall\r\nr1,A\r\n", "s.csv:1: neither text_hash nor all of the texts are there"),
        (b"row_id,text_hash\r\nr1,0\r\n", "s.csv:1: none of the columns accuracy, overall is there"),
        (b"row_id,text_hash,overall,overall\r\nr1,0,A,A\r\n", "s.csv:1: 2 columns are named overall"),
        (b"\xff\xfea", "the file begins as utf-16 but is damaged"),
        (b"PK\x03\x04 no workbook", "s.csv: "),
    ],
)
def test_an_unreadable_file_is_refused_and_nothing_is_written(tmp_path: Path, content: bytes, says: str) -> None:
    study = study_at(tmp_path)
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        bring(tmp_path, sheet(tmp_path, study)[0], path)
    assert says in str(caught.value)
    assert judgments(tmp_path) == []


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    sheet(tmp_path, study)
    with pytest.raises(InputError, match=r"rater1\.csv: no such file; did you mean 'rater-1\.csv'\?"):
        bring(tmp_path, tmp_path / "rater1.csv")


def test_judgments_of_another_study_are_refused(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    path, _ = sheet(tmp_path, study)
    bring(tmp_path, path)
    lines = (tmp_path / "study/judgments.jsonl").read_text()
    (tmp_path / "study/judgments.jsonl").write_text(lines.replace(study.rows[0].row, "r0"))
    with pytest.raises(InputError, match="judgment 1 is of row 'r0', which study"):
        bring(tmp_path, path)


def test_the_summary_counts_and_names(tmp_path: Path) -> None:
    study = study_at(tmp_path, raters=1, attributes=("overall",))
    path = save(tmp_path / "s.csv", filled(study, "rater-1", lambda *_: "?"))
    lines = summary(bring(tmp_path, path)).splitlines()
    rows = len(study.rows)
    assert lines[:2] == [f"0 of {rows} judgments, 0 of them new", f"invalid: {rows}"]
    assert lines[2].endswith("'?' is not a choice for overall; write A, tie or B.")
    assert lines[10:] == [
        f"  and {rows - 8} more",
        "missing: 1",
        f"  rater-1: {rows} of {rows} rows are not answered yet.",
    ]


# ---------------------------------------------------------------------------------------------------------------- what
# nobody sends on purpose


def test_a_lone_surrogate_in_a_comment_is_replaced(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    labels = {
        study.rows[0].row: [
            [{"schema": "comparison", "name": "overall"}, "tie"],
            [{"schema": "comment", "name": "c"}, "so \ud83d"],
        ]
    }
    path = tmp_path / "user_state.json"
    path.write_text(json.dumps({"instance_id_to_label_to_value": labels}))
    assert clean(bring(tmp_path, path))
    assert [one.comment for one in judgments(tmp_path)] == ["so ?"]


def test_checks_come_from_the_key_not_from_the_judgments(tmp_path: Path) -> None:
    study = study_at(tmp_path, texts=("one",), raters=1, attributes=("overall",), swaps=0, identical=0)
    path, _ = sheet(tmp_path, study)
    bring(tmp_path, path)
    lines = (tmp_path / "study/judgments.jsonl").read_text()
    (tmp_path / "study/judgments.jsonl").write_text(lines.replace('"check": ""', '"check": "gold"'))
    bring(tmp_path, path)
    assert [(one.check, one.passed) for one in judgments(tmp_path)] == [("", None)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 5000 + "]" * 5000, "broken JSON (nested too deeply); export it again as JSON."),
        ('[{"data": {}, "annotations": 5}]', ", task 1: 'annotations' is not a list; export it again as JSON."),
        (
            '{"instance_id_to_label_to_value": {"r\\n1": 5}}',
            r": the value of instance 'r\n1' is not a list; give potato's own file.",
        ),
    ],
)
def test_json_that_is_not_a_form_is_refused(tmp_path: Path, content: str, says: str) -> None:
    study_at(tmp_path, texts=("one",))
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError) as caught:
        bring(tmp_path, tmp_path / "s.json")
    assert says in str(caught.value) and str(caught.value).startswith(str(tmp_path / "s.json"))


def workbook(path: Path, rows: str, *, dimension: str = "A1:XFD1048576") -> Path:
    """A workbook whose sheet is just this XML, and says that it is as large as can be."""
    openpyxl = pytest.importorskip("openpyxl")
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    head = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    parts["xl/worksheets/sheet1.xml"] = (
        f'{head}<dimension ref="{dimension}"/><sheetData>{rows}</sheetData></worksheet>'.encode()
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return path


def test_a_workbooks_claimed_size_is_ignored(tmp_path: Path) -> None:
    study_at(tmp_path, texts=("one",))
    far = workbook(
        tmp_path / "far.xlsx",
        '<row r="1"><c t="inlineStr"><is><t>x</t></is></c></row><row r="99999999999"><c><v>1</v></c></row>',
    )
    with pytest.raises(InputError, match=r"far\.xlsx: no worksheet has a column row_id in its first 40 rows"):
        bring(tmp_path, far)


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.feedback.compressed.FREELY_UNPACKED", 10_000)
    study_at(tmp_path, texts=("one",))
    bomb = workbook(tmp_path / "bomb.xlsx", f'<row r="1"><c t="inlineStr"><is><t>{"x" * 5_000_000}</t></is></c></row>')
    with pytest.raises(InputError, match=r"bomb\.xlsx: it decompresses to more than"):
        bring(tmp_path, bomb)


def test_an_import_keeps_what_a_judge_said_and_counts_people_alone(tmp_path: Path) -> None:
    study = study_at(tmp_path)
    _, item = study.rater_rows("rater-1")[0]
    about = study.key["items"][item.item]
    judged = Judgment(
        item=item.item,
        row="j1",
        prompt_id=about["prompt_id"],
        rater="judge:m",
        attribute="overall",
        choice="tie",
        systems=tuple(about["systems"]),
    )
    lines_of(tmp_path / "study/judgments.jsonl", [judged.to_json()])
    number = 2 * len(study.rater_rows("rater-1"))
    for added in (number, 0):
        imported = bring(tmp_path, sheet(tmp_path, study)[0])
        assert clean(imported) and (imported.added, imported.judgments) == (added, number)
        assert [one.rater for one in judgments(tmp_path)] == ["rater-1"] * number + ["judge:m"]
