"""`python -m coh_lightning human-eval import DIR FILES...`: what raters send back -> `judgements.jsonl`, with every
answer that can't be used named by file and line.

Sheets come back as spreadsheets leave them, and are read all the same: separated by commas, semicolons, tabs or bars;
in UTF-8, UTF-16 or Windows-1252; with other quotes, other line ends, columns moved or added, rows sorted, guards
stripped, empty rows at the end; or as xlsx. A row counts where its `row_id` is of this study, its texts are those that
were exported (or, where the sheet holds none, its `text_hash` is), and each choice is one of the words below.

    A, a, left, answer a      tie, t, =, neutral, equal, same, both, draw      B, b, right, answer b

Import builds `judgements.jsonl` anew from what it holds and the files: files may be partial, and importing one again
changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import regex

from coh_lightning.errors import InputError, did_you_mean, named, words_of
from coh_lightning.human_eval.guard import unguard
from coh_lightning.human_eval.sheets import BEFORE, ROW_LIMIT
from coh_lightning.human_eval.study import Item, Row, Study, read_study
from coh_lightning.jsonl import read_jsonl, write_jsonl
from coh_lightning.judgements import TIE, Judgement

JUDGEMENTS = "judgements.jsonl"
Choice = Literal["A", "tie", "B"]

WORDS: Mapping[str, Choice] = {
    **dict.fromkeys(("a", "left", "answer a", "answer_a"), "A"),
    **dict.fromkeys(("tie", "t", "=", "neutral", "equal", "same", "both", "draw"), "tie"),
    **dict.fromkeys(("b", "right", "answer b", "answer_b"), "B"),
}
"""What a rater may write for each choice, in any case."""
SEPARATORS = ",;\t|"
QUOTES = "\"'"
TEXTS = ("prompt", "answer_a", "answer_b")
SHOWN = 8
"""Sentences of one kind that the terminal shows."""


@dataclass(frozen=True)
class Answer:
    """One row as a rater sent it, nothing of it believed yet."""

    where: str
    """File and line (of a workbook: row)."""
    row_id: str
    choices: Mapping[str, str]
    """Attribute -> what was written; attributes that the file doesn't have are not in it."""
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute -> the different answers that one annotation gives to it; none of them counts."""
    comment: str = ""
    seconds: str = ""
    study_id: str = ""
    rater: str = ""
    text_hash: str | None = None
    """None where the form has none."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Those of prompt, answer_a and answer_b that the form shows."""


@dataclass(frozen=True)
class Imported:
    """What an import did. The lists are sentences, each naming file and line where there is one."""

    judgements: int
    """Judgements of the study now."""
    added: int
    """Those of them that were not there before."""
    expected: int
    """Judgements of the study when everything is answered."""
    missing: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    """The same answer sent twice: counted once."""
    foreign: tuple[str, ...] = ()
    """Rows of no row of this study."""
    impossible: tuple[str, ...] = ()
    """Answers that can't be understood or don't belong to what was exported."""
    conflicts: tuple[str, ...] = ()
    """Other answers to what was answered before; refused, or with `replace` taken."""
    refused: int = 0
    """Sentences above that stand for something not counted."""


def import_ratings(folder: Path, files: Sequence[Path], *, replace: bool = False) -> Imported:
    """Read the raters' files into `judgements.jsonl` of the study in `folder`. Good answers are kept, bad ones are
    named in what is returned.

    Args:
        folder: what export wrote.
        files: sheets (csv, tsv, txt, xlsx), Label Studio's JSON export, potato's output; a folder is potato's.
        replace: where a file says other than what was imported before, take the file's word. By default what came first
            stays.

    Raises:
        InputError: a file that is missing or no rating of any known form, or a damaged study; nothing is written then.
    """
    folder = Path(folder)
    study = read_study(folder)
    path = folder / JUDGEMENTS
    before = {(one.row, one.attribute): one for one in _standing(path, study)}
    merge = _Merge(study, before, replace=replace)
    for file in files:
        for answer in answers_of(Path(file), study):
            merge.take(answer)
    judgements = _checked(study, merge.standing)
    if judgements or path.exists():
        write_jsonl(path, judgements)
    return Imported(
        judgements=len(judgements),
        added=len(merge.standing.keys() - before.keys()),
        expected=len(study.rows) * len(study.attributes),
        missing=tuple(merge.missing()),
        doubled=tuple(merge.doubled),
        foreign=tuple(merge.foreign),
        impossible=tuple(merge.impossible),
        conflicts=tuple(merge.conflicts),
        refused=len(merge.foreign) + len(merge.impossible) + (0 if replace else len(merge.conflicts)),
    )


def _standing(path: Path, study: Study) -> Iterator[Judgement]:
    if not path.exists() or not path.stat().st_size:
        return
    rows = {row.row for row in study.rows}
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for number, judgement in enumerate(read_jsonl(path, Judgement), start=1):
        if judgement.row not in rows:
            raise InputError(
                f"{path}: judgement {number} is of row {judgement.row!r:.60}, which study {study.id} doesn't have; "
                "is the file of another study?"
            )
        first, choice = seen.setdefault((judgement.row, judgement.attribute), (number, judgement.choice))
        if choice != judgement.choice:
            raise InputError(
                f"{path}: judgement {number} says {judgement.choice!r:.60} to '{judgement.attribute}' of row "
                f"'{judgement.row}', and judgement {first} {choice!r:.60}; "
                "keep one of the two."
            )
        yield judgement


# ---------------------------------------------------------------------------------------------------------------- what
# stands


class _Merge:
    """The judgements that stand, by (row, attribute), and all that was said against answers on the way."""

    def __init__(self, study: Study, before: Mapping[tuple[str, str], Judgement], *, replace: bool) -> None:
        self.study = study
        self.standing = dict(before)
        self.doubled: list[str] = []
        self.foreign: list[str] = []
        self.impossible: list[str] = []
        self.conflicts: list[str] = []
        self._replace = replace
        self._items = {item.item: item for item in study.items}
        self._rows = {row.row: row for row in study.rows}
        self._came: dict[tuple[str, str], str] = {}
        self._blank: dict[tuple[str, str], str] = {}

    def take(self, answer: Answer) -> None:
        """Put the answers of a row among what stands, or name what is wrong with them."""
        row = self._rows.get(answer.row_id)
        if row is None:
            of = (
                f"but of {named(answer.study_id)}"
                if answer.study_id not in ("", self.study.id)
                else "nor of any known one"
            )
            self.foreign.append(
                f"{answer.where}: row {answer.row_id[:40]!r} is not of study {self.study.id}, {of}; it is not counted."
            )
            return
        wrong = _mismatch(answer, row, self._items[row.item], self.study)
        if wrong:
            self.impossible.append(f"{answer.where}: {wrong}")
            return
        seconds = self._seconds(answer)
        about = self.study.key["items"][row.item]
        systems = tuple(about["systems"][place] for place in (row.left, 1 - row.left))
        for attribute, several in answer.unclear.items():
            both = " and ".join(f"{written[:40]!r}" for written in several)
            self.impossible.append(
                f"{answer.where}: {attribute} of row '{row.row}' has {len(several)} answers, {both}; none of them is "
                "counted."
            )
        for attribute, written in answer.choices.items():
            word = _plain(unguard(written)).lstrip("'").casefold()
            if not word:
                self._blank.setdefault((row.row, attribute), answer.where)
                continue
            if word not in WORDS:
                self.impossible.append(
                    f"{answer.where}: {written[:40]!r} is no choice for {attribute}; write A, tie or B."
                )
                continue
            choice = {"A": systems[0], "tie": TIE, "B": systems[1]}[WORDS[word]]
            new = Judgement(
                item=row.item,
                row=row.row,
                prompt_id=about["prompt_id"],
                rater=row.rater,
                attribute=attribute,
                choice=choice,
                systems=systems,
                check=self.study.key["rows"][row.row]["check"],
                seconds=seconds,
                comment=answer.comment.encode(
                    "utf-8", "replace"
                ).decode(),  # half of a picture sign, which no file can hold
            )
            self._stand(new, answer.where)

    def _stand(self, new: Judgement, where: str) -> None:
        place = (new.row, new.attribute)
        old = self.standing.get(place)
        if old is None:
            self.standing[place] = new
            self._came[place] = where
            return
        came = self._came.get(place)
        if old.choice == new.choice and (not new.comment or not old.comment or new.comment == old.comment):
            if came is not None:
                self.doubled.append(
                    f"{where}: {new.attribute} of row '{new.row}' was answered before, at {came}, and alike; it "
                    "counts once."
                )
            self.standing[place] = replace(
                old, comment=old.comment or new.comment, seconds=new.seconds if old.seconds is None else old.seconds
            )
        else:
            sides = {TIE: "tie", **dict(zip(new.systems, ("A", "B"), strict=True))}
            given = f"{sides.get(old.choice, old.choice)} there, {sides[new.choice]} here"
            what = f"with another choice ({given})" if old.choice != new.choice else "with another comment"
            self.conflicts.append(
                f"{where}: {new.attribute} of row '{new.row}' was answered before, at {came or 'an earlier import'}, "
                f"{what}; "
                + ("this one is taken." if self._replace else "the first stands (--replace takes this one).")
            )
            if self._replace:
                self.standing[place] = new
        self._came[place] = where

    def _seconds(self, answer: Answer) -> float | None:
        text = _plain(unguard(answer.seconds)).replace(",", ".")
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            self.impossible.append(
                f"{answer.where}: {unguard(answer.seconds)[:40]!r} is no number of seconds; the row counts without "
                "its time."
            )
            return None
        return seconds

    def missing(self) -> Iterator[str]:
        """One sentence for each row that is answered in part, then one for each rater with rows that are not answered
        at all.
        """
        for row in self.study.rows:
            lacking = [name for name in self.study.attributes if (row.row, name) not in self.standing]
            if 0 < len(lacking) < len(self.study.attributes):
                where = next(
                    (self._blank[row.row, name] for name in lacking if (row.row, name) in self._blank), row.rater
                )
                yield f"{where}: row '{row.row}' has no answer for {', '.join(lacking)}."
        answered = {row for row, _ in self.standing}
        for rater in self.study.raters:
            rows = [row.row for row, _ in self.study.rater_rows(rater)]
            empty = sum(row not in answered for row in rows)
            if empty:
                yield f"{rater}: {empty} of {len(rows)} rows are not answered yet."


def _mismatch(answer: Answer, row: Row, item: Item, study: Study) -> str | None:
    """Why the answer can't be to this row as it was exported; None where it can."""
    if answer.study_id and answer.study_id != study.id:
        return f"row '{row.row}' is of study {study.id}, but the file says {named(answer.study_id)}; it is not counted."
    if answer.rater and answer.rater.casefold() != row.rater.casefold():
        return f"row '{row.row}' was given to {row.rater}, but the file says {answer.rater[:40]!r}; it is not counted."
    hashed = answer.text_hash == row.text_hash(item)
    expected = dict(zip(TEXTS, (item.prompt, *row.shown(item)), strict=True))
    for name, cell in answer.texts.items():
        if not same_text(cell, expected[name]) and not (hashed and _taken_for_a_value(expected[name], cell)):
            return (
                f"{name} of row '{row.row}' is not the text that was exported; it is not counted. Put the text "
                "back, or leave the columns of texts out."
            )
    if len(answer.texts) < len(TEXTS) and answer.text_hash is not None and not hashed:
        return (
            f"the text_hash of row '{row.row}' is {answer.text_hash[:40]!r}, not {row.text_hash(item)}, so other "
            "texts were rated; it is not counted."
        )
    return None


def same_text(cell: str, text: str) -> bool:
    """Whether a cell still holds a text, guarded or not, after what spreadsheets do.

    That is: other line ends, no control characters, no blanks or apostrophes at the ends, and question marks for what
    Windows-1252 doesn't have.
    """
    if cell == text or unguard(cell) == text or _settled(cell) == _settled(text):
        return True
    narrow = text.encode("cp1252", "replace").decode("cp1252")
    return narrow != text and re.sub(r"\?+", "?", _settled(cell)) == re.sub(r"\?+", "?", _settled(narrow))


def _taken_for_a_value(text: str, cell: str) -> bool:
    """Whether a spreadsheet may have made the cell of the text without anybody's doing: 42 of 42.0, a date of 1/2 or of
    May 5, TRUE of true.
    """
    text = _settled(text)
    value = regex.fullmatch(r"[\d\s.,:/+\-%$€£()]*[\p{L}\p{M}]{0,9}[\d\s.,:/+\-%$€£()]*", text) and any(
        letter.isdigit() for letter in text
    )
    return (bool(value) and any(letter.isdigit() for letter in cell)) or (
        text.casefold() in ("true", "false") and cell.strip() != ""
    )


def _settled(text: str) -> str:
    # Workbooks write control characters as _x000D_; what no cell can hold is dropped on both sides.
    text = re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]", "", text)
    return re.sub(r"^[\s']+|\s+$", "", text)


def _plain(text: str) -> str:
    return re.sub(r"[\s\u200b\ufeff]+", " ", text).strip()


def _checked(study: Study, standing: Mapping[tuple[str, str], Judgement]) -> list[Judgement]:
    """The judgements in the order of the study's rows and attributes, with `passed` of the checks."""
    about = study.key["rows"]
    judgements = []
    for row in study.rows:
        for attribute in study.attributes:
            one = standing.get((row.row, attribute))
            if one is None:
                continue
            passed: bool | None = None
            check = about[row.row]["check"]
            if check == "swap":
                first = standing.get((about[row.row].get("of", ""), attribute))
                passed = None if first is None else first.choice == one.choice
            elif check:
                key = study.key["items"][row.item]
                passed = one.choice == (key["expected"] if key["expected"] == TIE else key["systems"][key["expected"]])
            judgements.append(replace(one, check=check, passed=passed))
    return judgements


# ---------------------------------------------------------------------------------------------------------------- files


def answers_of(path: Path, study: Study) -> list[Answer]:
    """The rows of one file of a rater, of whichever form. Raises InputError where it is missing, empty, or of no known
    form.
    """
    if path.is_dir():
        return _from_form("potato", path, study)
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: there is no such file{did_you_mean(path.name, beside)}")
    content = path.read_bytes()
    if content[:4] == b"PK\x03\x04":
        return _answers(_workbook(path), study)
    text = _decoded(content, path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty.")
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip()[:1] in ("[", "{"):
        return _from_form("label_studio" if text.lstrip().startswith("[") else "potato", path, study)
    return _read_table(text, path, study)


def _from_form(form: str, path: Path, study: Study) -> list[Answer]:
    from coh_lightning.human_eval import forms

    read: Callable[[Path, Study], Sequence[Mapping[str, Any]]] = {
        "label_studio": forms.read_label_studio,
        "potato": forms.read_potato,
    }[form]
    return [
        Answer(
            where=str(one["where"]),
            row_id=str(one["row_id"]),
            choices={name: str(choice) for name, choice in one["choices"].items() if name in study.attributes},
            unclear=one.get("unclear", {}),
            comment=str(one.get("comment") or ""),
            seconds="" if one.get("seconds") is None else str(one["seconds"]),
            text_hash=None if one.get("text_hash") is None else str(one["text_hash"]),
        )
        for one in read(path, study)
    ]


def _decoded(content: bytes, path: Path) -> str:
    """The text of a file in UTF-8, in UTF-16 with its mark, or else in Windows-1252."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            try:
                return content.decode(name)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: the file begins as {name} but is damaged at byte {error.start + 1}; save it again as "
                    "CSV UTF-8."
                ) from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


@dataclass(frozen=True)
class _Line:
    where: str
    cells: Sequence[str]


def _read_table(text: str, path: Path, study: Study) -> list[Answer]:
    """The rows of separated text, under whichever separator and quote the most rows are whole."""
    marked = re.match(r"sep=(.)\r?\n", text)
    skipped, separators = 0, SEPARATORS
    if marked:
        text, skipped, separators = text[marked.end() :], 1, marked[1]
    readings = []
    for quote in QUOTES:
        for separator in separators:
            lines = list(_lines(text, path, separator, quote, skipped))
            if lines and "row_id" in _header(lines[0].cells):
                answers = _answers(lines, study)
                readings.append((_whole(lines, answers, study), answers))
    if not readings:
        first = re.split(r"[\r\n]", text, maxsplit=1)[0]
        raise InputError(
            f"{path}: the first line, {first[:60]!r}, has no column row_id, so this is no sheet of a study; send the "
            "sheet back with its header."
        )
    return max(readings, key=lambda reading: reading[0])[1]


def _whole(lines: Sequence[_Line], answers: Sequence[Answer], study: Study) -> int:
    """How well a reading fits: rows that are as wide as the header, and rows that hold the texts of a row of the
    study.
    """
    items = {item.item: item for item in study.items}
    rows = {row.row: row for row in study.rows}
    held = (
        answer.row_id in rows and _mismatch(answer, rows[answer.row_id], items[rows[answer.row_id].item], study) is None
        for answer in answers
    )
    return sum(held) + sum(len(line.cells) == len(lines[0].cells) for line in lines)


def _lines(text: str, path: Path, separator: str, quote: str, skipped: int) -> Iterator[_Line]:
    # A cell may be longer than the reader's limit, which is one for the whole process.
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
        start = 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _Line(f"{path}:{start + skipped}", cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num + skipped}: the sheet can't be read on ({words_of(error)}); save it again as CSV."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _workbook(path: Path) -> list[_Line]:
    """The rows of the first worksheet with a column row_id."""
    from coh_lightning.human_eval.forms import check_workbook, unescaped

    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError(
            f"{path}: a workbook needs openpyxl: pip install 'coh_lightning[study]', or save the sheet as CSV UTF-8."
        ) from error
    check_workbook(path)
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what a file says of its size is not believed: rows would be filled up to it
            lines = [
                _Line(f"{path}:{number}", ["" if cell is None else unescaped(str(cell)) for cell in cells])
                for number, cells in enumerate(islice(sheet.iter_rows(values_only=True), ROW_LIMIT), start=1)
                if any(cell is not None and str(cell).strip() for cell in cells)
            ]
            if lines and "row_id" in _header(lines[0].cells):
                return lines
    except Exception as error:  # openpyxl raises whatever it meets in a damaged archive
        raise InputError(
            f"{path}: the workbook can't be read ({type(error).__name__}: {words_of(error)}); save it again, or as "
            "CSV UTF-8."
        ) from error
    raise InputError(
        f"{path}: no sheet of the workbook has a column row_id in its first row; send the sheet back with its header."
    )


def _header(cells: Iterable[str]) -> list[str]:
    """The names of columns as they are compared: in lower case, blanks as one underscore."""
    return [re.sub(r"[\s_]+", "_", unguard(cell).strip("\ufeff \t'\"")).casefold() for cell in cells]


def _answers(lines: Sequence[_Line], study: Study) -> list[Answer]:
    """The rows below the header. Raises InputError where the header lacks what a sheet needs, or has it twice."""
    header = _header(lines[0].cells)
    attributes = {name: _header([name])[0] for name in study.attributes}
    known = [*BEFORE, "comment", "seconds", *attributes.values()]
    for name in known:
        if header.count(name) > 1:
            raise InputError(
                f"{lines[0].where}: the column {name} stands {header.count(name)} times; keep the one that was "
                "filled in."
            )
    if not any(name in header for name in attributes.values()):
        raise InputError(
            f"{lines[0].where}: none of the columns {', '.join(attributes)} is there, so there are no answers; send "
            "the whole sheet."
        )
    if "text_hash" not in header and not all(name in header for name in TEXTS):
        raise InputError(
            f"{lines[0].where}: neither text_hash nor all of the texts are there, so nothing shows what was rated; "
            "send the whole sheet."
        )
    answers = []
    for line in lines[1:]:
        cells = dict(zip(header, line.cells, strict=False))

        def cell(name: str, cells: Mapping[str, str] = cells) -> str:
            return unguard(cells.get(name, "")).strip()

        answers.append(
            Answer(
                where=line.where,
                row_id=cell("row_id"),
                choices={name: cells.get(column, "") for name, column in attributes.items() if column in header},
                comment=unguard(cells.get("comment", "")),
                seconds=cells.get("seconds", ""),
                study_id=cell("study_id"),
                rater=cell("rater"),
                text_hash=cell("text_hash") if "text_hash" in header else "",
                texts={name: cells.get(name, "") for name in TEXTS if name in header},
            )
        )
    return answers


# ---------------------------------------------------------------------------------------------------------------- the
# command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval import`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that export wrote")
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="what raters sent: csv, xlsx, Label Studio's JSON, potato's output",
    )
    parser.add_argument(
        "--replace", action="store_true", help="where a file says other than before, take the file's word"
    )


def run(args: argparse.Namespace) -> int:
    """Import the files and say what came of it; gives the exit status: 1 where something was refused."""
    imported = import_ratings(args.folder, args.files, replace=args.replace)
    print(summary(imported))
    return 1 if imported.refused else 0


def summary(imported: Imported) -> str:
    """What an import did, in lines for the terminal."""
    lines = [f"{imported.judgements:,} of {imported.expected:,} judgements, {imported.added:,} of them new"]
    for name in ("impossible", "foreign", "conflicts", "doubled", "missing"):
        sentences = getattr(imported, name)
        if sentences:
            lines.append(f"{name}: {len(sentences):,}")
            lines += [f"  {sentence}" for sentence in sentences[:SHOWN]]
            if len(sentences) > SHOWN:
                lines.append(f"  and {len(sentences) - SHOWN:,} more")
    return "\n".join(lines)
