r"""Further forms of a study's sheets, for those who rate elsewhere, and how what comes back is read.

    DIR/forms/rater-1.xlsx                            a workbook with drop-downs; texts can't be changed and are never formulas
    DIR/forms/label_studio/rater-1.json, rater-1.xml  tasks and labelling interface of a Label Studio project for that rater
    DIR/forms/potato/config.yaml, data.jsonl          one potato task, in which each rater gets their own rows under their name

All are as blind as the sheets and hold the same row ids. What comes back in a workbook is read as a sheet is
(ratings.py); the other readers return a list of dictionaries, one for each row that somebody answered something in:

    {"row_id": "r3f...", "text_hash": "0c4...", "choices": {"overall": "A"}, "comment": "", "seconds": 12.5, "where":
    "project.json, task 1"}

`choices` holds what was written, as it was written; `text_hash` and `seconds` are None where the form doesn't tell
them. An attribute with two different answers in one annotation is not among the choices but in `unclear`, which is
there only then: {"overall": ["A", "B"]}.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from coh_lightning.compressed import check_unpacked, read_text
from coh_lightning.errors import InputError, named, words_of
from coh_lightning.files import written_aside
from coh_lightning.human_eval.sheets import BEFORE, CELL_LIMIT, CHOICES, instructions, sheet_cells
from coh_lightning.human_eval.study import Study
from coh_lightning.jsonl import parse_json

TEXTS = {"prompt": "prompt", "answer_a": "answer A", "answer_b": "answer B"}
"""The columns of texts, as messages name them."""

# --- workbooks

_ILLEGAL = "\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff"
_ESCAPED = re.compile(f"[{_ILLEGAL}]|_(?=x[0-9A-Fa-f]{{4}}[_{_ILLEGAL}])")
"""What XML can't hold or changes (CR), and an underscore that would read as the start of an escape."""

COLUMNS = {
    "row_id": 15,
    "study_id": 15,
    "rater": 10,
    "text_hash": 18,
    "prompt": 60,
    "answer_a": 60,
    "answer_b": 60,
    "comment": 40,
    "seconds": 10,
}
"""Widths, in characters; a column of choices has 14."""


def escaped(text: str) -> str:
    r"""A text as a cell of a workbook holds it: control characters as `_x0007_`, the convention of OOXML, which
    spreadsheets show as they are.

    What looks like such an escape already gets one for its underscore, so `unescaped(escaped(text)) == text` for every
    text: `_x0007_` -> `_x005F_x0007_`.
    """
    return _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def unescaped(cell: str) -> str:
    """The text that `escaped` made this cell of."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), cell)


def write_xlsx(study: Study, folder: Path) -> None:
    """Write RATER.xlsx for each rater: the columns of the CSV sheets, with drop-downs for the choices.

    Every text is a string cell, so none is run as a formula, and all but choices and comment are locked (without a
    password).

    Raises:
        InputError: a text is longer than a cell may be, or openpyxl isn't installed.
    """
    for rater in study.raters:
        _check_lengths(study, rater)
    for rater in study.raters:
        with written_aside(folder / f"{rater}.xlsx") as aside:
            _workbook(study, rater).save(aside)


def _check_lengths(study: Study, rater: str) -> None:
    for row, item in study.rater_rows(rater):
        for name, text in zip(TEXTS.values(), (item.prompt, *row.shown(item)), strict=True):
            length = len(text.encode("utf-16-le", "surrogatepass")) // 2
            if length > CELL_LIMIT:
                raise InputError(
                    f"Item '{item.item}' (row '{row.row}' of {rater}): {name} has {length:,} characters, and a cell "
                    f"of a workbook holds {CELL_LIMIT:,}; "
                    "leave that prompt out, or use another form than xlsx."
                )


def _workbook(study: Study, rater: str) -> Any:
    """An openpyxl.Workbook: the sheet `ratings`, and `instructions`."""
    Workbook = _openpyxl().Workbook
    from openpyxl.styles import Alignment, Font, PatternFill, Protection
    from openpyxl.utils import get_column_letter
    from openpyxl.worksheet.datavalidation import DataValidation

    book = Workbook()
    sheet = book.active
    sheet.title = "ratings"
    cells = sheet_cells(study, rater)
    head = cells[0]
    top = Alignment(wrap_text=True, vertical="top")
    for number, row in enumerate(cells, start=1):
        for name, place, text in zip(head, range(1, len(head) + 1), row, strict=True):
            cell = sheet.cell(row=number, column=place)
            if text:
                cell.value = escaped(text)
                cell.data_type = "s"  # and not a formula, an error or a number, whatever it looks like
            cell.number_format = "@" if name != "seconds" else "General"
            cell.alignment = top
            cell.protection = Protection(locked=number == 1 or name in BEFORE)
            if number == 1:
                cell.font = Font(bold=True)
                cell.fill = PatternFill("solid", fgColor="E4F0F0")
    for place, name in enumerate(head, start=1):
        letter = get_column_letter(place)
        sheet.column_dimensions[letter].width = COLUMNS.get(name, 14)
        sheet.column_dimensions[letter].hidden = name in ("study_id", "rater", "text_hash")
        if name in study.definitions and len(cells) > 1:
            words = study.definitions[name]
            rule = DataValidation(
                type="list",
                formula1=f'"{",".join(CHOICES)}"',
                allow_blank=True,
                showErrorMessage=True,
                showInputMessage=True,
            )
            rule.errorTitle, rule.error = "A, tie or B", "Choose A, tie or B, or leave the cell empty."
            rule.promptTitle, rule.prompt = name[:32], words if len(words) <= 255 else words[:254] + "…"
            rule.add(f"{letter}2:{letter}{len(cells)}")
            sheet.add_data_validation(rule)
    sheet.freeze_panes = "B2"
    sheet.protection.sheet = True
    sheet.protection.formatColumns = sheet.protection.formatRows = False  # widths and heights may be changed
    told = book.create_sheet("instructions")
    told.column_dimensions["A"].width = 110
    for line in re.split(r"\r\n?|\n", instructions(study).rstrip("\r\n")):
        told.append([""])
        cell = told.cell(row=told.max_row, column=1)
        cell.value, cell.data_type, cell.alignment = escaped(line), "s", top
    return book


def check_workbook(path: Path) -> None:
    """Raises InputError where a workbook, which is a zip archive, is none, or unpacks out of all proportion."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: the workbook can't be read ({words_of(error)}); save it again as xlsx.") from error
    check_unpacked(path, size)


def _openpyxl() -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            "Workbooks need openpyxl; install it with: pip install 'coh_lightning[study]', or use the CSV sheets."
        ) from error
    return openpyxl


# --- Label Studio


def write_label_studio(study: Study, folder: Path) -> None:
    """Write label_studio/RATER.json (tasks to import) and label_studio/RATER.xml (the labelling interface) for each
    rater: one project a rater.

    NUL stands as U+2400 in the tasks, since a Label Studio on PostgreSQL refuses it.
    """
    for rater in study.raters:
        tasks = [
            {
                "data": {
                    "row_id": row.row,
                    "study_id": study.id,
                    "rater": rater,
                    "text_hash": row.text_hash(item),
                    **{
                        name: text.replace("\0", "\u2400")
                        for name, text in zip(TEXTS, (item.prompt, *row.shown(item)), strict=True)
                    },
                }
            }
            for row, item in study.rater_rows(rater)
        ]
        _text(folder / "label_studio" / f"{rater}.json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
        _text(folder / "label_studio" / f"{rater}.xml", label_studio_interface(study, rater))


def label_studio_interface(study: Study, rater: str) -> str:
    """The labelling interface: the texts, one block of three choices per attribute in the rater's order, a comment."""

    def view(name: str, title: str) -> str:
        # valueType: a text that is an address must not be fetched
        text = f'<Text name="{name}" value="${name}" valueType="text" selectionEnabled="false"/>'
        return f'<View style="flex: 1 1 0; min-width: 0"><Header value="{title}" size="5"/>{text}</View>'

    blocks = []
    for name in study.orders[rater]:
        title = f"{name.capitalize()}: {study.definitions[name]}"
        choices = "".join(f"<Choice value={quoteattr(choice)}/>" for choice in CHOICES)
        blocks.append(f'  <Header value={_attribute(title)} size="5"/>')
        blocks.append(
            f'  <Choices name={_attribute(name)} toName="prompt" choice="single-radio" '
            f'showInline="true">{choices}</Choices>'
        )
    lines = [
        "<View>",
        "  <Style>.htx-text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext }</Style>",
        f"  {view('prompt', 'Prompt')}",
        '  <View style="display: flex; gap: 1.5rem">',
        f"    {view('answer_a', 'A')}",
        f"    {view('answer_b', 'B')}",
        "  </View>",
        *blocks,
        '  <Header value="Comment (optional)" size="5"/>',
        '  <TextArea name="comment" toName="prompt" rows="3" maxSubmissions="1" editable="true"/>',
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def _attribute(text: str) -> str:
    """Quoted, without what XML can't hold."""
    return quoteattr(re.sub(f"[{_ILLEGAL}]", " ", text))


def read_label_studio(path: Path, study: Study) -> list[dict[str, Any]]:
    """The answers in a JSON export of Label Studio (`annotations[].result[]`; skipped annotations don't count).

    Raises:
        InputError: the file is no such export.
    """
    tasks = _json(path)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise InputError(
            f"{path}: the file is no export of Label Studio, a list of tasks with 'data' and 'annotations'; export "
            "it as JSON."
        )
    answers = []
    for number, task in enumerate(tasks, start=1):
        if "annotations" not in task:
            raise InputError(
                f"{path}, task {number}: the task has no 'annotations'; export as JSON, not as JSON-MIN and not the "
                "tasks alone."
            )
        if not isinstance(task["annotations"], list):
            raise InputError(f"{path}, task {number}: 'annotations' is no list; export it again as JSON.")
        counted = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
        for place, annotation in enumerate(counted, start=1):
            choices, comments = _label_studio_results(annotation.get("result"), study)
            if choices or comments:
                data = task["data"]
                which = f", annotation {place}" if len(counted) > 1 else ""
                where = f"{path}, task {number}{which}{_by(annotation.get('completed_by'))}"
                seconds = _seconds(annotation.get("lead_time"))
                answers.append(
                    _answer(str(data.get("row_id", "")), data.get("text_hash"), choices, comments, seconds, where)
                )
    return answers


def _label_studio_results(results: object, study: Study) -> tuple[dict[str, list[str]], list[str]]:
    """The choices of each attribute and the comments among an annotation's results, as many as there are."""
    choices: dict[str, list[str]] = {}
    comments: list[str] = []
    for result in results if isinstance(results, list) else ():
        match result:
            case {"type": "choices", "from_name": str(name), "value": {"choices": [*written]}} if (
                name in study.attributes
            ):
                choices.setdefault(name, []).extend(choice for choice in written if isinstance(choice, str))
            case {"type": "textarea", "from_name": "comment", "value": {"text": [*texts]}}:
                comments += [str(text) for text in texts]
            case {"type": "textarea", "from_name": "comment", "value": {"text": str(text)}}:
                comments.append(text)
    return choices, comments


def _by(annotator: object) -> str:
    """Who made an annotation: a number, or with some exports an object."""
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    return "" if annotator is None else f" by {named(str(annotator)[:60])}"


# --- potato

SCHEME = "comparison"
"""Name of potato's scheme that holds the choices, a dimension per attribute."""


def write_potato(study: Study, folder: Path) -> None:
    """Write potato/config.yaml and potato/data.jsonl: one task for all raters, who log in under their names (rater-1,
    ...) and get their own rows.

    potato asks everybody in the same order of attributes. It renders the prompt as HTML, pictures from elsewhere
    included, so the prompt stands escaped.
    """
    import yaml

    config = {
        "annotation_task_name": study.title,
        "task_dir": ".",
        "output_annotation_dir": "annotation_output",
        "data_files": ["data.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"},
        "user_config": {"allow_all_users": False, "users": list(study.raters)},
        "require_password": False,
        "assignment_strategy": "batch",
        "batch_assignment": {"annotator_key": "annotators"},
        "num_annotators_per_item": 1,
        "annotation_schemes": [
            {
                "annotation_type": "pairwise",
                "name": SCHEME,
                "description": "Which response is better?",
                "mode": "multi_dimension",
                "items_key": "responses",
                "labels": ["A", "B"],
                "allow_tie": True,
                "tie_label": "tie",
                "dimensions": [
                    {"name": name, "description": study.definitions[name], "allow_tie": True, "tie_label": "tie"}
                    for name in study.attributes
                ],
            },
            {
                "annotation_type": "text",
                "name": "comment",
                "description": "Comment (optional)",
                "multiline": True,
                "rows": 3,
            },
        ],
    }
    lines = []
    for rater in study.raters:
        for row, item in study.rater_rows(rater):
            line = {
                "id": row.row,
                "text": html.escape(item.prompt),
                "responses": list(row.shown(item)),
                "annotators": [rater],
                "text_hash": row.text_hash(item),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    _text(folder / "potato" / "data.jsonl", "".join(lines))
    _text(folder / "potato" / "config.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=1000))


def read_potato(path: Path, study: Study) -> list[dict[str, Any]]:
    """The answers in potato's output: a user_state.json, or a folder with those of several raters below it.

    Raises:
        InputError: there is no such file, or it is none of potato's.
    """
    files = sorted(path.rglob("user_state.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: there is no user_state.json in the folder; give potato's output_annotation_dir.")
    return [answer for file in files for answer in _read_user_state(file, study)]


def _read_user_state(path: Path, study: Study) -> Iterator[dict[str, Any]]:
    state = _json(path)
    labels = state.get("instance_id_to_label_to_value") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(labels, dict):
        raise InputError(
            f"{path}: the file has no 'instance_id_to_label_to_value', so it is none of potato's; give its "
            "user_state.json or their folder."
        )
    behaviour = state.get("instance_id_to_behavioral_data")
    for row, values in labels.items():
        choices: dict[str, list[str]] = {}
        comments: list[str] = []
        if not isinstance(values, list):
            raise InputError(f"{path}: what stands under the instance {row!r:.60} is no list; give potato's own file.")
        for each in values:
            match each:
                case [{"schema": str(scheme), "name": str(name)}, str(value)] if (
                    scheme == SCHEME and name in study.attributes and value
                ):
                    choices.setdefault(name, []).append(value)
                case [{"schema": "comment"}, str(value)] if value:
                    comments.append(value)
        if choices or comments:
            seconds = _potato_seconds(behaviour.get(row) if isinstance(behaviour, dict) else None)
            yield _answer(row, None, choices, comments, seconds, f"{path}, instance {named(row)}")


def _potato_seconds(behaviour: object) -> float | None:
    """Seconds on an instance; potato writes 0 for one that it has not timed."""
    milliseconds = behaviour.get("total_time_ms") if isinstance(behaviour, dict) else None
    seconds = _seconds(milliseconds)
    return seconds / 1000 if seconds else None


# --- all of them


def _answer(
    row_id: str,
    text_hash: object,
    written: Mapping[str, Sequence[str]],
    comments: Iterable[str],
    seconds: float | None,
    where: str,
) -> dict[str, Any]:
    """One row that somebody answered. `written` holds every answer to each attribute; the same answer given twice is
    one.
    """
    different = {
        name: list({each.strip().casefold(): each for each in answers}.values()) for name, answers in written.items()
    }
    unclear = {name: answers for name, answers in different.items() if len(answers) > 1}
    answer: dict[str, Any] = {
        "row_id": row_id,
        "text_hash": text_hash,
        "choices": {name: answers[0] for name, answers in different.items() if len(answers) == 1},
        "comment": "\n".join(dict.fromkeys(comments)),
        "seconds": seconds,
        "where": where,
    }
    return answer | ({"unclear": unclear} if unclear else {})


def _seconds(value: object) -> float | None:
    """A number of seconds, or None for what is none."""
    try:
        return float(str(value)[:40].replace(",", "."))
    except ValueError:
        return None


def _json(path: Path) -> Any:
    try:
        return parse_json(read_text(path), str(path), whole=True, unique=True)
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; export it again as JSON.") from error


def _text(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(text.encode("utf-8"))
