"""The sheets: blind, guarded, RFC 4180, and the very texts again when read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.human_eval.assignment import Design, make_study
from coh_lightning.human_eval.items import AnswerPair, MatchedPairs
from coh_lightning.human_eval.sheets import (
    DANGEROUS,
    columns,
    csv_text,
    instructions,
    sheet_cells,
    unguard,
    write_sheets,
)
from coh_lightning.human_eval.study import DEFINITIONS, Study, digest


def study_of(*texts: str, prompt: str = "Why?") -> Study:
    pairs = tuple(
        AnswerPair(f"p{n}", "", prompt, ("secret one", "secret two"), (text, f"other {n}"))
        for n, text in enumerate(texts)
    )
    return make_study(
        MatchedPairs(pairs, {}),
        Design(2, 9, swaps=0, identical=0),
        seed=1,
        attributes=("accuracy", "overall"),
        definitions=DEFINITIONS,
        key={"systems": ["secret one"]},
    )


def test_a_sheet_has_the_stated_columns_with_the_raters_order_of_attributes() -> None:
    study = study_of("x")
    assert [columns(study, rater) for rater in study.raters] == [
        [
            "row_id",
            "study_id",
            "rater",
            "text_hash",
            "prompt",
            "answer_a",
            "answer_b",
            *study.orders[rater],
            "comment",
            "seconds",
        ]
        for rater in study.raters
    ]
    assert study.orders["rater-1"] != study.orders["rater-2"]


def test_a_row_holds_ids_hash_and_texts_and_nothing_else() -> None:
    study = study_of("x")
    (row,) = [row for row in study.rows if row.rater == "rater-1"]
    shown = ["x", "other 0"] if study.key["items"][row.item]["systems"][row.left] == "secret one" else ["other 0", "x"]
    assert sheet_cells(study, "rater-1")[1] == [
        row.row,
        study.id,
        "rater-1",
        "h" + digest("Why?", *shown),
        "Why?",
        *shown,
        "",
        "",
        "",
        "",
    ]


def test_sheets_are_utf8_with_bom_and_crlf(tmp_path: Path) -> None:
    study = study_of("=1,2", prompt='Say "é"')
    write_sheets(study, tmp_path)
    content = (tmp_path / "rater-1.csv").read_bytes()
    assert content.startswith(b'\xef\xbb\xbf"row_id","study_id","rater","text_hash","prompt","answer_a","answer_b",')
    assert content.endswith(b'"","","",""\r\n')
    assert b'"Say ""\xc3\xa9"""' in content
    assert b'"\'=1,2"' in content
    assert content.count(b"\r\n") == 2


any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from(DANGEROUS + "'\",;\r\n\t\0 \u2028\ufeffa")
)


@settings(deadline=None)
@given(
    st.lists(st.lists(any_text, min_size=1, max_size=4), min_size=1, max_size=4).filter(
        lambda rows: len({len(row) for row in rows}) == 1
    )
)
def test_any_text_round_trips_through_the_csv_without_formulas(cells: list[list[str]]) -> None:
    text = csv_text(cells).encode("utf-8-sig").decode("utf-8-sig")
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [[unguard(cell) for cell in row] for row in found] == cells
    assert not [
        cell
        for row in found
        for cell in row
        if cell and (cell[0] in DANGEROUS or cell.strip()[:1] in tuple("=+-@＝＋－＠"))
    ]


def test_a_rater_never_sees_a_systems_name(tmp_path: Path) -> None:
    write_sheets(study_of("x", "y", "z"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instructions.txt", "rater-1.csv", "rater-2.csv"]
    assert not [path for path in tmp_path.iterdir() if b"secret" in path.read_bytes()]


def test_instructions_define_each_attribute_and_the_tie() -> None:
    text = instructions(study_of("x"))
    assert f"accuracy: {DEFINITIONS['accuracy']}" in text and f"overall: {DEFINITIONS['overall']}" in text
    assert "tie  both are about equally good" in text
