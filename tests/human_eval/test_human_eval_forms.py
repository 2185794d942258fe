"""Workbooks, Label Studio and potato: what is written, and that what comes back from them is read as it was
answered.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openpyxl
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from openpyxl.cell.cell import Cell

from coh_lightning.errors import InputError
from coh_lightning.human_eval.form import page_words
from coh_lightning.human_eval.label_studio import label_studio_interface, read_label_studio, write_label_studio
from coh_lightning.human_eval.potato import SCHEME, read_potato, write_potato
from coh_lightning.human_eval.rating_files import read_rating_file
from coh_lightning.human_eval.sheets import sheet_cells
from coh_lightning.human_eval.study import RatingRow, Study, StudyItem, digest
from coh_lightning.human_eval.submitted import SubmittedRow
from coh_lightning.human_eval.workbook import escaped, unescaped, write_xlsx

ASKED, JUDGING = (page_words("en")[name] for name in ("asked", "judging"))

TEXTS = (
    ("Name a fruit.", "=HYPERLINK(\"http://x\",\"Apple\")", "- pear\r\n- fig\rand \x07bell _x0007_"),
    ("  +1+1 ", "#N/A", "42"),
    ("<b>bold</b> & <img src=//x.invalid/y>", "", "TRUE"),
    ("日本語 😀 \0 nul", "@SUM(A1)", "\ufffe\uffff \u202e end"),
)  # fmt: skip


def study_of(texts: tuple[tuple[str, str, str], ...] = TEXTS) -> Study:
    """Two raters, who see every item, A on either side in turn, with the attributes in different orders."""
    items = tuple(
        StudyItem(f"i{number}", prompt, (one, other), digest(prompt, one, other))
        for number, (prompt, one, other) in enumerate(texts)
    )
    rows = tuple(
        RatingRow(f"r{rater}{number}", f"i{number}", f"rater-{rater}", (number + rater) % 2)
        for rater in (1, 2)
        for number in range(len(texts))
    )
    definitions = {
        "accuracy": 'Which answer says "what is so" & <nothing> else?',
        "overall": "Which answer is better? " * 20,
    }
    orders = {"rater-1": ("accuracy", "overall"), "rater-2": ("overall", "accuracy")}
    return Study(
        "s1",
        271828,
        "Fruit & more",
        ("accuracy", "overall"),
        definitions,
        orders,
        items,
        rows,
        {"systems": ["SYSTEM-ONE", "SYSTEM-TWO"]},
    )


def shown(study: Study, rater: str) -> list[tuple[str, str, str]]:
    """Prompt, A and B of each row."""
    return [(item.prompt, *row.shown(item)) for row, item in study.rater_rows(rater)]


def test_forms_do_not_reveal_systems_or_the_seed(tmp_path: Path) -> None:
    for write in (write_xlsx, write_label_studio, write_potato):
        write(study_of(), tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "label_studio/rater-1.json",
        "label_studio/rater-1.xml",
        "label_studio/rater-2.json",
        "label_studio/rater-2.xml",
        "potato/config.yaml",
        "potato/data.jsonl",
        "rater-1.xlsx",
        "rater-2.xlsx",
    ]
    for path in files:
        parts = [path.read_bytes()]
        if path.suffix == ".xlsx":
            with zipfile.ZipFile(path) as book:
                parts = [book.read(name) for name in book.namelist()]
        assert not any(secret in part for part in parts for secret in (b"SYSTEM", b"271828"))


# --- workbooks


@given(
    st.text()
    | st.lists(
        st.sampled_from(["_", "x", "_x", "0007", "_x0007_", "_x005F_", "\x07", "\r", "\ufffe", "A", "\ud800"])
    ).map("".join)
)
@example("_x0041\x07")
@example("__x000D_\r")
def test_escapes_of_workbooks_are_reversible_and_xml(text: str) -> None:
    cell = escaped(text)
    assert unescaped(cell) == text
    assert ElementTree.fromstring(f"<t>{cell.translate({38: '&amp;', 60: '&lt;'})}</t>").text in (cell, cell or None)


def sheet_of(path: Path) -> Any:
    return openpyxl.load_workbook(path)["ratings"]


def cells_of(path: Path) -> list[list[Cell]]:
    """The header and the items, below the instructions."""
    return [list(row) for row in sheet_of(path).iter_rows(min_row=2)]


def test_a_workbook_holds_the_sheet_as_strings_and_never_as_formulas(tmp_path: Path) -> None:
    study = study_of()
    write_xlsx(study, tmp_path)
    for rater in study.raters:
        cells = cells_of(tmp_path / f"{rater}.xlsx")
        head = [cell.value for cell in cells[0]]
        found = [dict(zip(head, (unescaped(cell.value or "") for cell in row), strict=True)) for row in cells]
        columns, *rows = sheet_cells(study, rater)
        assert found[1:] == [dict(zip(columns, row, strict=True)) for row in rows]
        assert {cell.data_type for row in cells for cell in row if cell.value is not None} == {"s"}
        with zipfile.ZipFile(tmp_path / f"{rater}.xlsx") as book:
            sheet = book.read("xl/worksheets/sheet1.xml")
        assert b"<f>" not in sheet and b"<f " not in sheet and b"_x0007_bell _x005F_x0007_" in sheet


def test_only_answers_can_be_written_and_choices_come_from_a_list(tmp_path: Path) -> None:
    study = study_of()
    write_xlsx(study, tmp_path)
    sheet = sheet_of(tmp_path / "rater-2.xlsx")
    head = [cell.value for cell in sheet[2]]
    assert head == [
        *("row_id", "study_id", "rater", "text_hash"),
        *("overall", "accuracy"),
        *("prompt", "answer_a", "answer_b", "comment", "seconds"),
    ]
    assert sheet.protection.sheet
    open_cells = {
        (cell.column - 1, cell.row) for row in sheet.iter_rows() for cell in row if not cell.protection.locked
    }
    assert open_cells == {(column, row) for column in (4, 5, 9, 10) for row in range(3, 7)}
    rules = {str(rule.sqref): rule for rule in sheet.data_validations.dataValidation}
    assert set(rules) == {"E3:E6", "F3:F6"} and {rule.formula1 for rule in rules.values()} == {'"A,tie,B"'}
    assert rules["F3:F6"].prompt == study.definitions["accuracy"] and len(rules["E3:E6"].prompt) == 255
    assert all(cell.alignment.wrap_text for row in sheet.iter_rows(min_col=5, max_col=11) for cell in row[:1])


def width_of(sheet: Any) -> float:
    """Characters of the columns that are shown."""
    return sum(column.width for column in sheet.column_dimensions.values() if not column.hidden)


def test_instructions_and_questions_stand_on_top_and_stay_in_view_with_the_choices(tmp_path: Path) -> None:
    study = study_of()
    write_xlsx(study, tmp_path)
    sheet = sheet_of(tmp_path / "rater-2.xlsx")
    assert sheet.freeze_panes == "G3"  # the rows above the items, and the columns before the texts
    above = sheet["E1"].value.split("\n")
    assert above == [
        study.title,
        f"{ASKED} {JUDGING}",
        f"overall: {study.definitions['overall']}",
        f"accuracy: {study.definitions['accuracy']}",
    ]
    assert [str(each) for each in sheet.merged_cells.ranges] == ["E1:H1"]
    assert [sheet.column_dimensions[letter].hidden for letter in "ABCDE"] == [True, True, True, True, False]


def line_height(texts: tuple[str, str, str], folder: Path) -> float:
    write_xlsx(study_of((texts,)), folder)
    return sheet_of(folder / "rater-1.xlsx").row_dimensions[3].height


def test_rows_are_as_high_as_their_longest_text(tmp_path: Path) -> None:
    short, broken = line_height(("p", "a", "b"), tmp_path), line_height(("p", "a\r\nb\nc", "b"), tmp_path)
    assert broken - short == pytest.approx(2 * 12.75)
    assert line_height(("p", "word " * 44, "b"), tmp_path) - short == pytest.approx(4 * 12.75)
    assert line_height(("漢" * 44, "a", "b"), tmp_path) - short == pytest.approx(12.75)


@pytest.mark.parametrize(
    ("letters", "width", "clipped"), [(100, 44, False), (1_700, 56, False), (2_500, 90, False), (9_000, 90, True)]
)
def test_texts_get_the_width_they_need_within_two_screens(
    tmp_path: Path, letters: int, width: int, clipped: bool
) -> None:
    write_xlsx(study_of((("p", "x" * letters, "b"),)), tmp_path)
    sheet = sheet_of(tmp_path / "rater-1.xlsx")
    assert sheet.column_dimensions["H"].width == width and width_of(sheet) <= 370
    assert (sheet.row_dimensions[3].height == 409) is clipped
    assert ("Too long to be shown whole: row 3." in sheet["E1"].value) is clipped


def test_many_questions_leave_room_for_the_texts(tmp_path: Path) -> None:
    names = tuple(f"question number {n}" for n in range(12))
    study = replace(
        study_of((("p", "x" * 9_000, "b"),)),
        attributes=names,
        definitions=dict.fromkeys(names, "Which?"),
        orders={"rater-1": names, "rater-2": names},
    )
    write_xlsx(study, tmp_path)
    sheet = sheet_of(tmp_path / "rater-1.xlsx")
    assert width_of(sheet) <= 370 and sheet.freeze_panes == "E3"


def test_a_text_too_long_for_a_cell_is_refused_naming_the_item(tmp_path: Path) -> None:
    fits, long = "x" * 32_767, "😀" * 16_384
    write_xlsx(study_of((("p", fits, "b"),)), tmp_path / "fits")
    with pytest.raises(
        InputError,
        match=r"Item 'i1' \(row 'r11' of rater-1\): answer B has 32,768 characters, .* 32,767",
    ):
        write_xlsx(study_of((("p", fits, "b"), ("q", "c", long))), tmp_path / "long")
    assert not (tmp_path / "long").exists()


# --- Label Studio


def test_the_labelling_interface_has_a_block_of_three_choices_per_attribute_in_the_raters_order() -> None:
    study = study_of()
    view = ElementTree.fromstring(label_studio_interface(study, "rater-2"))
    texts = {each.get("name"): (each.get("value"), each.get("valueType")) for each in view.iter("Text")}
    assert texts == {name: (f"${name}", "text") for name in ("prompt", "answer_a", "answer_b")}
    assert [
        (each.get("name"), each.get("toName"), [choice.get("value") for choice in each])
        for each in view.iter("Choices")
    ] == [
        ("overall", "prompt", ["A", "tie", "B"]),
        ("accuracy", "prompt", ["A", "tie", "B"]),
    ]
    assert f"Accuracy: {study.definitions['accuracy']}" in [each.get("value") for each in view.iter("Header")]
    assert [each.get("name") for each in view.iter("TextArea")] == ["comment"]
    assert [each.get("value") for each in list(view)[1:4]] == [study.title, ASKED, JUDGING]
    assert [(each.get("required"), each.get("requiredMessage")) for each in view.iter("Choices")] == [
        ("true", "Please answer overall, or skip the task."),
        ("true", "Please answer accuracy, or skip the task."),
    ]
    assert [each.get("required") for each in view.iter("TextArea")] == [None]


def test_tasks_have_the_texts_with_nul_replaced(tmp_path: Path) -> None:
    study = study_of()
    write_label_studio(study, tmp_path)
    for rater in study.raters:
        tasks = json.loads((tmp_path / "label_studio" / f"{rater}.json").read_text(encoding="utf-8"))
        assert [set(task) for task in tasks] == [{"data"}] * 4
        found = [tuple(task["data"][name] for name in ("prompt", "answer_a", "answer_b")) for task in tasks]
        assert found == [tuple(text.replace("\0", "␀") for text in texts) for texts in shown(study, rater)]
        assert [task["data"]["row_id"] for task in tasks] == [row.row for row, _ in study.rater_rows(rater)]
        assert tasks[0]["data"]["text_hash"] == "h" + digest(*shown(study, rater)[0])


def result(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """One result as Label Studio exports it."""
    return {
        "value": value,
        "id": f"{name}-x1",
        "from_name": name,
        "to_name": "prompt",
        "type": kind,
        "origin": "manual",
    }


def annotation(*results: dict[str, Any], by: Any = 4, **more: Any) -> dict[str, Any]:
    dates = {
        "created_at": "2026-11-20T10:00:00.000000Z",
        "updated_at": "2026-11-20T10:00:31.000000Z",
        "draft_created_at": None,
    }
    about = {
        "id": 12,
        "completed_by": by,
        "was_cancelled": False,
        "ground_truth": False,
        "prediction": {},
        "result_count": len(results),
        "lead_time": 31.204,
    }
    return {**about, **dates, "result": list(results), "unique_id": "8f0c", "parent_prediction": None, **more}


def test_an_export_of_label_studio_is_read(tmp_path: Path) -> None:
    study = study_of()
    write_label_studio(study, tmp_path)
    tasks = json.loads((tmp_path / "label_studio" / "rater-1.json").read_text(encoding="utf-8"))
    accuracy, overall = (
        (lambda choice: result("accuracy", "choices", {"choices": [choice]})),
        (lambda choice: result("overall", "choices", {"choices": [choice]})),
    )
    annotations = [
        [annotation(accuracy("A"), overall("tie"), result("comment", "textarea", {"text": ["one line", "- another"]}))],
        [
            annotation(accuracy("B"), was_cancelled=True),
            annotation(overall("B"), by={"id": 7, "email": "someone@example.org"}, lead_time=None),
        ],
        [],
        [
            annotation(
                result("other", "choices", {"choices": ["A"]}),
                result("prompt", "labels", {"start": 0, "end": 3, "labels": ["x"]}),
            )
        ],
    ]
    export = [
        {
            "id": 90 + number,
            **task,
            "annotations": each,
            "predictions": [],
            "project": 3,
            "file_upload": "1-rater-1.json",
        }
        for number, (task, each) in enumerate(zip(tasks, annotations, strict=True))
    ]
    path = tmp_path / "project-3.json"
    path.write_text(json.dumps(export))
    hashes = [row.text_hash(item) for row, item in study.rater_rows("rater-1")]
    assert read_label_studio(path, study) == [
        SubmittedRow(
            f"{path}, task 1 by 4",
            "r10",
            {"accuracy": "A", "overall": "tie"},
            comment="one line\n- another",
            seconds="31.204",
            text_hash=hashes[0],
        ),
        SubmittedRow(f"{path}, task 2 by someone@example.org", "r11", {"overall": "B"}, text_hash=hashes[1]),
    ]


def test_different_answers_in_one_annotation_are_unclear_and_equal_ones_merge(tmp_path: Path) -> None:
    study = study_of()
    write_label_studio(study, tmp_path)
    tasks = json.loads((tmp_path / "label_studio" / "rater-1.json").read_text(encoding="utf-8"))[:2]
    said = (
        [("accuracy", ["A"]), ("accuracy", ["B"]), ("overall", ["tie"]), ("overall", ["tie"])],
        [("accuracy", ["B", "A"]), ("overall", ["B"])],
    )
    export = [
        {
            **task,
            "annotations": [annotation(*(result(name, "choices", {"choices": choices}) for name, choices in each))],
        }
        for task, each in zip(tasks, said, strict=True)
    ]
    path = tmp_path / "project.json"
    path.write_text(json.dumps(export))
    found = [(answer.choices, answer.unclear) for answer in read_label_studio(path, study)]
    assert found == [({"overall": "tie"}, {"accuracy": ["A", "B"]}), ({"overall": "B"}, {"accuracy": ["B", "A"]})]


def test_several_annotations_of_a_task_become_several_rows(tmp_path: Path) -> None:
    study = study_of()
    write_label_studio(study, tmp_path)
    task = json.loads((tmp_path / "label_studio" / "rater-1.json").read_text(encoding="utf-8"))[0]
    path = tmp_path / "project.json"
    path.write_text(
        json.dumps(
            [
                {
                    **task,
                    "annotations": [annotation(result("overall", "choices", {"choices": [choice]})) for choice in "AB"],
                }
            ]
        )
    )
    assert [(answer.where, answer.choices) for answer in read_label_studio(path, study)] == [
        (f"{path}, task 1, annotation 1 by 4", {"overall": "A"}),
        (f"{path}, task 1, annotation 2 by 4", {"overall": "B"}),
    ]


def test_a_small_export_of_label_studio_is_read(tmp_path: Path) -> None:
    study = study_of()
    write_label_studio(study, tmp_path)
    tasks = json.loads((tmp_path / "label_studio" / "rater-1.json").read_text(encoding="utf-8"))
    answers: list[dict[str, Any]] = [
        {"accuracy": "A", "overall": "tie", "comment": "so so"},
        {"accuracy": [{"choices": ["A", "B"]}], "overall": ["B"], "comment": {"text": ["one", "two"]}},
        {},
    ]
    export = [
        task["data"] | each | {"id": n, "annotator": 4, "annotation_id": 7, "created_at": "", "lead_time": 3.5}
        for n, (task, each) in enumerate(zip(tasks, answers, strict=False))
    ]
    path = tmp_path / "project-3-min.json"
    path.write_text(json.dumps(export))
    hashes = [row.text_hash(item) for row, item in study.rater_rows("rater-1")]
    assert read_rating_file(path, study) == [
        SubmittedRow(
            f"{path}, annotation 1 by 4",
            "r10",
            {"accuracy": "A", "overall": "tie"},
            comment="so so",
            seconds="3.5",
            text_hash=hashes[0],
        ),
        SubmittedRow(
            f"{path}, annotation 2 by 4",
            "r11",
            {"overall": "B"},
            {"accuracy": ["A", "B"]},
            comment="one\ntwo",
            seconds="3.5",
            text_hash=hashes[1],
        ),
    ]


# --- potato


def test_potato_gives_each_rater_their_rows_and_asks_for_each_attribute_with_ties(tmp_path: Path) -> None:
    study = study_of()
    write_potato(study, tmp_path)
    config = yaml.safe_load((tmp_path / "potato" / "config.yaml").read_text(encoding="utf-8"))
    scheme, comment = config["annotation_schemes"]
    assert (scheme["annotation_type"], scheme["mode"], scheme["items_key"]) == (
        "pairwise",
        "multi_dimension",
        "responses",
    )
    assert [(each["name"], each["description"], each["allow_tie"]) for each in scheme["dimensions"]] == [
        ("accuracy", study.definitions["accuracy"], True),
        ("overall", study.definitions["overall"], True),
    ]
    assert (comment["annotation_type"], comment["name"]) == ("text", "comment")
    assert (config["assignment_strategy"], config["batch_assignment"], config["item_properties"]) == (
        "batch",
        {"annotator_key": "annotators"},
        {"id_key": "id", "text_key": "text"},
    )
    assert "randomize_order" not in scheme  # sides are the study's
    assert scheme["label_requirement"] == {"required": True} and "label_requirement" not in comment
    assert config["annotation_instructions"] == f"<p>Fruit &amp; more</p><p>{ASKED}</p><p>{escape(JUDGING)}</p>"
    lines = [
        json.loads(line)
        for line in (tmp_path / "potato" / config["data_files"][0]).read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["id"], line["annotators"]) for line in lines] == [(row.row, [row.rater]) for row in study.rows]
    assert [tuple(line["responses"]) for line in lines] == [
        texts[1:] for rater in study.raters for texts in shown(study, rater)
    ]
    assert lines[2]["text"] == "&lt;b&gt;bold&lt;/b&gt; &amp; &lt;img src=//x.invalid/y&gt;"


def user_state(user: str, values: dict[str, list[tuple[str, str, Any]]], seconds: dict[str, float]) -> dict[str, Any]:
    """A user_state.json as potato 2.12 writes it, cut to what matters."""
    return {
        "user_id": user,
        "instance_id_ordering": list(values),
        "current_instance_index": 1,
        "current_phase_and_page": ["annotation", "annotation"],
        "instance_id_to_behavioral_data": {
            row: {
                "instance_id": row,
                "session_start": 1795489601.4,
                "session_end": 1795489601.9,
                "total_time_ms": int(1000 * time),
                "interactions": [],
            }
            for row, time in seconds.items()
        },
        "instance_id_to_label_to_value": {
            row: [[{"schema": scheme, "name": name}, value] for scheme, name, value in each]
            for row, each in values.items()
        },
        "instance_id_to_span_to_value": {},
        "phase_to_page_to_label_to_value": {},
    }


def test_potatos_output_is_read_of_one_rater_and_of_a_folder(tmp_path: Path) -> None:
    study = study_of()
    states = {
        "rater-1": user_state(
            "rater-1",
            {
                "r10": [(SCHEME, "accuracy", "A"), (SCHEME, "overall", "tie"), ("comment", "text_box", "so so")],
                "r11": [(SCHEME, "accuracy", ""), (SCHEME, "overall", "B"), ("other", "x", "A")],
                "r12": [],
            },
            {"r10": 3.256, "r11": 0},
        ),
        "rater-2": user_state("rater-2", {"r23": [("comment", "text_box", "neither")]}, {}),
    }
    for name, state in states.items():
        (tmp_path / "annotation_output" / name).mkdir(parents=True)
        (tmp_path / "annotation_output" / name / "user_state.json").write_text(json.dumps(state, indent=2))
    first, second = (tmp_path / "annotation_output" / name / "user_state.json" for name in states)
    expected = [
        SubmittedRow(
            f"{first}, instance r10",
            "r10",
            {"accuracy": "A", "overall": "tie"},
            comment="so so",
            seconds="3.256",
        ),
        SubmittedRow(f"{first}, instance r11", "r11", {"overall": "B"}),
        SubmittedRow(f"{second}, instance r23", "r23", {}, comment="neither"),
    ]
    assert read_potato(first, study) == expected[:2]
    assert read_potato(tmp_path / "annotation_output", study) == expected


def test_of_several_answers_to_a_potato_instance_the_last_holds(tmp_path: Path) -> None:
    values = [
        (SCHEME, "overall", "A"),
        (SCHEME, "accuracy", "B"),
        (SCHEME, "overall", "B"),
        (SCHEME, "accuracy", "B"),
        ("comment", "x", "one"),
        ("comment", "y", "two"),
    ]
    path = tmp_path / "user_state.json"
    path.write_text(json.dumps(user_state("rater-1", {"r10": values}, {})))
    (answer,) = read_potato(path, study_of())
    assert (answer.choices, answer.unclear, answer.comment) == ({"accuracy": "B", "overall": "B"}, {}, "one\ntwo")


def test_a_user_state_with_labels_by_scheme_is_read(tmp_path: Path) -> None:
    state = user_state("rater-1", {}, {})
    state["instance_id_to_label_to_value"] = {"r10": {SCHEME: {"overall": "tie"}, "comment": {"text_box": "so"}}}
    path = tmp_path / "user_state.json"
    path.write_text(json.dumps(state))
    (answer,) = read_potato(path, study_of())
    assert (answer.row_id, answer.choices, answer.comment) == ("r10", {"overall": "tie"}, "so")


def annotated(row: str, choice: str, spent: str = "Time spent: 0d 0h 1m 12s ") -> str:
    """A line of annotated_instances.jsonl."""
    line = {
        "id": row,
        "displayed_text": "Why?",
        "label_annotations": {SCHEME: {"overall": choice}, "comment": {"text_box": f"{choice}!"}, "x": {"y": "A"}},
        "span_annotations": [],
        "behavioral_data": {"time_string": spent},
    }
    return json.dumps(line) + "\n"


def test_annotated_instances_are_read_and_the_last_visit_of_an_instance_holds(tmp_path: Path) -> None:
    path = tmp_path / "annotated_instances.jsonl"
    path.write_text(annotated("r10", "A") + annotated("r11", "tie", "") + annotated("r10", "B"))
    assert read_rating_file(path, study_of()) == [
        SubmittedRow(f"{path}:2", "r11", {"overall": "tie"}, comment="tie!"),
        SubmittedRow(f"{path}:3", "r10", {"overall": "B"}, comment="B!", seconds="72.0"),
    ]


def test_a_folder_of_potato_counts_what_it_has_twice_once(tmp_path: Path) -> None:
    for rater in ("rater-1", "rater-2"):
        (tmp_path / rater).mkdir()
    (tmp_path / "rater-1/user_state.json").write_text(
        json.dumps(user_state("rater-1", {"r10": [(SCHEME, "overall", "tie")]}, {}))
    )
    (tmp_path / "rater-1/annotated_instances.jsonl").write_text(annotated("r10", "A") + annotated("r11", "A"))
    (tmp_path / "rater-2/annotated_instances.jsonl").write_text(annotated("r20", "B"))
    (tmp_path / "annotated_instances.jsonl").write_text("".join(annotated(f"r{n}", "A") for n in (10, 11, 12, 20)))
    found = {row.row_id: (row.where, row.choices["overall"]) for row in read_potato(tmp_path, study_of())}
    assert found == {
        "r10": (f"{tmp_path}/rater-1/user_state.json, instance r10", "tie"),
        "r11": (f"{tmp_path}/rater-1/annotated_instances.jsonl:2", "A"),
        "r12": (f"{tmp_path}/annotated_instances.jsonl:3", "A"),
        "r20": (f"{tmp_path}/rater-2/annotated_instances.jsonl:1", "B"),
    }
    assert len(read_potato(tmp_path, study_of())) == 4


def test_lines_without_answers_are_refused(tmp_path: Path) -> None:
    write_potato(study_of(), tmp_path)
    with pytest.raises(InputError, match=r"data\.jsonl:1: no 'id' and 'label_annotations' in the line"):
        read_rating_file(tmp_path / "potato/data.jsonl", study_of())


# --- all of them


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (read_label_studio, b"[{]", "broken JSON at column 3"),
        (read_label_studio, b'{"instance_id_to_label_to_value": {}}', "not a list of Label Studio's tasks"),
        (read_label_studio, b'[{"data": {"row_id": "r10"}}]', "task 1: it has no 'annotations'"),
        (
            read_label_studio,
            b'[{"data": {"row_id": "r10"}, "annotations": [], "annotations": []}]',
            "an object has the key 'annotations' twice",
        ),
        (
            read_potato,
            b'{"instance_id_to_label_to_value": {"r10": [], "r10": []}}',
            "an object has the key 'r10' twice",
        ),
        (read_potato, b"[]", "no 'instance_id_to_label_to_value'"),
        (read_potato, b"\xff", "not UTF-8"),
    ],
)
def test_a_file_of_another_tool_is_refused_by_name(
    tmp_path: Path, read: Callable[[Path, Study], Any], content: bytes, words: str
) -> None:
    path = tmp_path / "came-back.xlsx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        read(path, study_of())
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_a_folder_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no user_state\.json"):
        read_potato(tmp_path, study_of())
