"""Spreadsheets in the OpenDocument format (ods), as LibreOffice and Google Sheets save them, read as text."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from coh_lightning.errors import InputError, first_line

CONTENT = "content.xml"
MOST_COLUMNS = 256
"""Cells of a row that are read: a file may claim that a cell is repeated up to its last column."""

_SPACE = {"text:tab": "\t", "text:line-break": "\n"}
_UNSEEN = ("office:annotation", "table:tracked-changes", "text:ruby-text")
"""Elements within a sheet whose text is not what a cell shows."""


def is_opendocument(path: Path) -> bool:
    """Whether a zip archive is an OpenDocument file."""
    with zipfile.ZipFile(path) as archive:
        return CONTENT in archive.namelist()


def read_opendocument(path: Path) -> Iterator[list[tuple[int, list[str]]]]:
    """For each sheet the rows that are not empty: (number of the row, its cells as they are shown). A row said to be
    repeated is given once. Raises InputError for a damaged file, one with a password, or one that defines entities
    (which may expand without limit).
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = reader.characters, reader.doctype
    try:
        with zipfile.ZipFile(path) as archive, archive.open(CONTENT) as content:
            parser.ParseFile(content)
    except (
        expat.ExpatError,
        ValueError,
        IndexError,
        OSError,
        RuntimeError,
        NotImplementedError,
        zipfile.BadZipFile,
    ) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{path}: the ods can't be read ({why}); save it again, or as CSV UTF-8.") from error
    yield from reader.sheets


class _Reader:
    """Handlers of the XML parser; `sheets` fills while it reads."""

    def __init__(self) -> None:
        self.sheets: list[list[tuple[int, list[str]]]] = []
        self._number = 0
        self._row: list[str] = []
        self._paragraphs: list[list[str]] = []
        self._repeated = 1
        self._rows_repeated = 1
        self._within = False
        """Whether a paragraph is open."""
        self._unseen = 0

    def doctype(self, *_: object) -> None:
        raise ValueError("it has a document type declaration")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._unseen or name in _UNSEEN:
            self._unseen += 1
        elif name == "table:table":
            self.sheets.append([])
            self._number = 0
        elif name == "table:table-row":
            self._row, self._rows_repeated = [], int(attributes.get("table:number-rows-repeated", 1))
        elif name in ("table:table-cell", "table:covered-table-cell"):
            self._paragraphs, self._repeated = [], int(attributes.get("table:number-columns-repeated", 1))
        elif name == "text:p":
            self._paragraphs.append([])
            self._within = True
        elif self._within:
            if name == "text:s":
                self._paragraphs[-1].append(" " * min(int(attributes.get("text:c", 1)), 1_000))
            else:
                self._paragraphs[-1].append(_SPACE.get(name, ""))

    def characters(self, text: str) -> None:
        if self._within and not self._unseen:
            self._paragraphs[-1].append(text)

    def end(self, name: str) -> None:
        if self._unseen:
            self._unseen -= 1
        elif name == "text:p":
            self._within = False
        elif name in ("table:table-cell", "table:covered-table-cell"):
            text = "\n".join("".join(pieces) for pieces in self._paragraphs)
            self._row += [text] * min(self._repeated, MOST_COLUMNS - len(self._row))
        elif name == "table:table-row":
            if any(cell.strip() for cell in self._row):
                self.sheets[-1].append((self._number + 1, self._row))
            self._number += self._rows_repeated
