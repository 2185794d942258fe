r"""A study's sheets: a CSV per rater with instructions, and `rate.html`, one offline page that saves the same CSV.

    row_id,study_id,rater,text_hash,prompt,answer_a,answer_b,coherence,accuracy,comment,seconds
    r3f...,s81...,rater-1,0c4...,"Why?","Because.","'- It is so.",,,,

RFC 4180 with CRLF, UTF-8 with a byte order mark (without it, Excel uses the local code page). All rows look alike: no
sheet and no page has systems or checks.

Every cell is quoted and guarded against formulas (CWE-1236): a text gets one leading apostrophe if the character after
its own leading apostrophes and whitespace is one of `DANGEROUS`::

    =1+1    ->  '=1+1           - a list item  ->  '- a list item
    '=1+1   ->  ''=1+1          'quoted'       ->  'quoted'          (not dangerous, no guard)
    Well.   ->  Well.           (blank)＝1     ->  '(blank)＝1
"""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.human_eval.choices import REASONS, choice_words, choices_of, in_words, letters_of
from coh_lightning.human_eval.form import RatingForm, names_of
from coh_lightning.human_eval.study import Study
from coh_lightning.io import atomic_write
from coh_lightning.pages.page import write_page

BEFORE = ("row_id", "study_id", "rater", "text_hash", "prompt", "answer_a", "answer_b")
AFTER = ("comment", "seconds")
"""The columns before and after the attributes."""
ROW_LIMIT = 1_048_576
"""Rows of a sheet in Excel."""
CELL_LIMIT = 32_767
"""UTF-16 units of a cell in Excel, which cuts off longer texts (50,000 in Google Sheets)."""
DANGEROUS = "=+-@\t\r\n\0＝＋－＠"
"""OWASP's list, and the full-width forms, which spreadsheets treat alike in East Asian locales."""

_BLANKS = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u180e\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""What spreadsheets may trim: Unicode whitespace and zero-width characters."""

_CODES = "".join(rf"\u{ord(character):04x}" for character in DANGEROUS)

PATTERN = f"^'*[{_BLANKS}]*[{_CODES}]"
"""Matches what is guarded, before and after. ASCII, and the same in JavaScript, so that the page guards alike."""

_pattern = re.compile(PATTERN)


def guard(text: str) -> str:
    """The text as it may appear in a cell: `unguard(guard(text)) == text` for every text."""
    return f"'{text}" if _pattern.match(text) else text


def unguard(cell: str) -> str:
    """The text that `guard` turned into this cell; one that only looks guarded loses an apostrophe too."""
    return cell[1:] if cell.startswith("'") and _pattern.match(cell) else cell


def columns(study: Study, rater: str) -> list[str]:
    """The columns of a rater's sheet, with the attributes in that rater's order."""
    return [*before(study.form), *study.orders[rater], *after(study.form)]


def texts_of(form: RatingForm) -> tuple[str, ...]:
    """The columns of texts: the prompt and each answer."""
    return ("prompt", *(f"answer_{letter.lower()}" for letter in letters_of(form)))


def before(form: RatingForm) -> tuple[str, ...]:
    """The columns before the attributes."""
    return ("row_id", "study_id", "rater", "text_hash", *texts_of(form))


def after(form: RatingForm) -> tuple[str, ...]:
    """The columns after the attributes."""
    return (*REASONS, *AFTER) if form.reasons else AFTER


def sheet_cells(study: Study, rater: str) -> list[list[str]]:
    """The cells of a rater's sheet, header first, without guards, unanswered."""
    empty = [""] * (len(study.attributes) + len(after(study.form)))
    rows = [
        [row.row, study.id, rater, row.text_hash(item), item.prompt, *row.shown(item), *empty]
        for row, item in study.rater_rows(rater)
    ]
    return [columns(study, rater), *rows]


def csv_text(cells: Sequence[Sequence[str]]) -> str:
    """Cells as RFC 4180 text, guarded, with CRLF after each row, without a byte order mark."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(
        [[guard(cell) for cell in row] for row in cells]
    )
    return out.getvalue()


def instructions(study: Study) -> str:
    """The instructions for raters, as plain text."""
    words = study.form.words
    names = names_of(study.attributes, study.form.language)
    asked = "\n".join(
        f"  {name}{f' ({names[name]})' if study.form.language != 'en' else ''}: {study.definitions[name]}"
        for name in study.attributes
    )
    own = f"{study.form.instructions.strip()}\n\n" if study.form.instructions else ""
    each_row = words["each_row_ranked" if study.form.ranking else "each_row"]
    asked_of = words["asked_ranked" if study.form.ranking else "asked"]
    contact = f"\n{words['contact'].format(contact=study.form.contact)}\n" if study.form.contact else ""
    options = [(choice, _meaning(choice, words)) for choice in choices_of(study.form) if not study.form.ranking]
    wide = max((len(choice) for choice, _ in options), default=0)
    choices = "\n".join(f"  {choice:<{wide}}  {meaning}" for choice, meaning in options)
    choices = choices or f"{words['rank']}: {in_words(study.form)}"
    return f"""{study.title}

{own}{textwrap.fill(f"{each_row} {asked_of}", 118)}

{asked}

{choices}

{textwrap.fill(f"{words['judging']} {words['keep_columns']}", 118)}
{_required(study.form)}{contact}{_practice(study)}"""


def _meaning(choice: str, words: Mapping[str, str]) -> str:
    side, _, strength = choice.partition(" ")
    return words["same"] if side == "tie" else words[f"better_{strength}" if strength else "better"].format(letter=side)


def _required(form: RatingForm) -> str:
    """What a rater must give beside the choices."""
    words, lines = form.words, []
    if form.reasons:
        lines.append(f"{' / '.join(REASONS)}: {words['reasons']} ({words['reasons_needed']})")
        lines += [f"  {reason}" for reason in form.reasons]
    if form.min_comment:
        lines.append(f"comment: {words['least'].format(count=form.min_comment)}")
    return "".join(f"\n{line}" for line in lines) + ("\n" if lines else "")


def _practice(study: Study) -> str:
    """The practice items with their answers."""
    words, parts = study.form.words, []
    for number, one in enumerate(study.form.practice, start=1):
        answers = ", ".join(f"{name}: {choice}" for name, choice in one.answers.items())
        parts.append(
            f"\n{words['practice'].format(number=number)}\n\n"
            f"{words['prompt']}: {one.prompt}\n\nA: {one.a}\n\nB: {one.b}\n\n"
            f"{words['expected'].format(answers=answers)} {one.why}\n"
        )
    return "".join(parts)


def utf16_units(text: str) -> int:
    """The length of a text as spreadsheets count it: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def write_sheets(study: Study, folder: Path) -> None:
    """Write RATER.csv for each rater, and instructions.txt, into the folder."""
    contents = {f"{rater}.csv": csv_text(sheet_cells(study, rater)).encode("utf-8-sig") for rater in study.raters}
    for name, content in {**contents, "instructions.txt": instructions(study).encode("utf-8")}.items():
        with atomic_write(folder / name) as aside:
            aside.write_bytes(content)


# --- the page


def write_rating_page(study: Study, path: Path | str) -> Path:
    """Write the page for all raters; returns its path. Raises InputError for a text with a lone surrogate."""
    path, data = Path(path), rating_data(study)
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        broken = ascii(error.object[error.start : error.end])
        raise InputError(f"{path}: a text has the lone surrogate {broken}; repair that completion.") from error
    form = study.form
    given: dict[str, Any] = {
        "words": form.words,
        "language": form.language,
        "instructions": form.instructions,
        "contact": form.contact,
    }
    given["letters"] = letters_of(form)
    given["ranking"] = form.ranking
    given["strength"] = form.strength
    given["rendered"] = [item.texts for item in study.items] if form.render == "markdown" else []
    return write_page(path, "rating.html.j2", data=data, **given)


def rating_data(study: Study) -> dict[str, Any]:
    """What the page gets: items [prompt, text 0, text 1]; rows [id, text hash, number of the item, index of text A]."""
    numbers = {item.item: number for number, item in enumerate(study.items)}
    raters = []
    for name, order in study.orders.items():
        rows = [
            [row.row, row.text_hash(item), numbers[item.item], list(row.order) or row.left]
            for row, item in study.rater_rows(name)
        ]
        raters.append({"name": name, "order": list(order), "rows": rows})
    return {
        "study": study.id,
        "title": study.title,
        "definitions": dict(study.definitions),
        "names": names_of(study.attributes, study.form.language),
        "words": study.form.words,
        "guard": PATTERN,
        "choices": choice_words(study.form),
        "rendered": study.form.render == "markdown",
        "code": study.form.questions == "code",
        "levels": choices_of(study.form),
        "ranking": study.form.ranking,
        "reasons": list(study.form.reasons),
        "least": study.form.min_comment,
        "practice": [one.to_json() for one in study.form.practice],
        "items": [[item.prompt, *item.texts] for item in study.items],
        "raters": raters,
    }
