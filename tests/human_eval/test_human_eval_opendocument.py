"""Spreadsheets in the OpenDocument format: what a cell shows is read, and no file takes more memory than it should."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import pytest
from test_human_eval_forms import study_of

from coh_lightning.errors import InputError
from coh_lightning.human_eval.opendocument import MOST_COLUMNS, read_opendocument
from coh_lightning.human_eval.rating_files import read_rating_file

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>{doctype}<office:document-content '
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>'
)
TAIL = "</office:spreadsheet></office:body></office:document-content>"


def ods(path: Path, tables: str, *, doctype: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", HEAD.format(doctype=doctype) + tables + TAIL)
    return path


def table(*rows: str) -> str:
    return f"<table:table>{''.join(f'<table:table-row>{row}</table:table-row>' for row in rows)}</table:table>"


def cell(content: str, attributes: str = "") -> str:
    return f"<table:table-cell {attributes}>{content}</table:table-cell>"


def test_cells_are_read_as_they_are_shown(tmp_path: Path) -> None:
    row = (
        cell('<text:p>a<text:tab/>b<text:s text:c="3"/>c<text:s/><text:line-break/><text:span>d</text:span></text:p>')
        + cell("<text:p>one</text:p><text:p/><text:p>&lt;two&gt;</text:p>")
        + cell("<text:p>1.2E+15</text:p>", 'office:value-type="float" office:value="1.23E+15"')
        + cell("<office:annotation><text:p>a note</text:p></office:annotation><text:p>x</text:p>")
        + "<table:covered-table-cell/>"
        + cell("<text:p>A</text:p>", 'table:number-columns-repeated="2"')
        + cell("", 'table:number-columns-repeated="16000"')
    )
    ((number, cells),) = next(read_opendocument(ods(tmp_path / "a.ods", table(row))))
    assert number == 1
    assert cells[:7] == ["a\tb   c \nd", "one\n\n<two>", "1.2E+15", "x", "", "A", "A"]
    assert len(cells) == MOST_COLUMNS and not any(cells[7:])


def test_sheets_and_rows_are_counted_as_the_program_numbers_them(tmp_path: Path) -> None:
    rows = (
        '<table:table-row table:number-rows-repeated="3"><table:table-cell/></table:table-row>'
        f"<table:table-row>{cell('<text:p>x</text:p>')}</table:table-row>"
        '<table:table-row table:number-rows-repeated="1048572"><table:table-cell/></table:table-row>'
    )
    tables = f"<table:table>{rows}</table:table>" + table(cell("<text:p>y</text:p>"))
    assert list(read_opendocument(ods(tmp_path / "a.ods", tables))) == [[(4, ["x"])], [(1, ["y"])]]


def test_what_is_said_to_be_repeated_takes_no_memory(tmp_path: Path) -> None:
    wide = cell("<text:p>x</text:p>", 'table:number-columns-repeated="1000000000"')
    rows = f'<table:table-row table:number-rows-repeated="1000000000">{wide}{wide}</table:table-row>'
    path = ods(tmp_path / "a.ods", f"<table:table>{rows}</table:table>")
    tracemalloc.start()
    (found,) = read_opendocument(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(number, len(cells)) for number, cells in found] == [(1, MOST_COLUMNS)]
    assert peak < 2**22


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("tables", "doctype", "says"),
    [
        (
            table(cell("<text:p>&l9;</text:p>")),
            f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>',
            "it has a document type declaration",
        ),
        (table(cell("<text:p>&f;</text:p>")), '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>', "declaration"),
        ("<table:table>", "", "mismatched tag"),
        (table(cell("", 'table:number-columns-repeated="many"')), "", "invalid literal for int"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused(tmp_path: Path, tables: str, doctype: str, says: str) -> None:
    path = ods(tmp_path / "a.ods", tables, doctype=doctype)
    with pytest.raises(InputError, match=r"a\.ods: the ods can't be read") as refused:
        read_rating_file(path, study_of())
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.feedback.compressed.FREELY_UNPACKED", 10_000)
    bomb = ods(tmp_path / "bomb.ods", table(cell(f"<text:p>{'x' * 5_000_000}</text:p>")))
    with pytest.raises(InputError, match=r"bomb\.ods: it decompresses to more than"):
        read_rating_file(bomb, study_of())


def test_an_ods_without_our_header_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.ods: no worksheet has a column row_id in its first 40 rows"):
        read_rating_file(ods(tmp_path / "a.ods", table(cell("<text:p>x</text:p>"))), study_of())


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sheets.xlsx", "w") as archive:
        archive.writestr("rater-1.csv", "row_id")
    with pytest.raises(InputError, match=r"sheets\.xlsx: the workbook can't be read"):
        read_rating_file(tmp_path / "sheets.xlsx", study_of())
