"""Studies in Label Studio: the tasks and the interface that it reads, and the answers that it exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from coh_lightning.errors import InputError, named
from coh_lightning.human_eval.annotation_tools import as_seconds, guidance, read_form, submitted_form
from coh_lightning.human_eval.choices import choices_of
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS, SubmittedRow
from coh_lightning.human_eval.workbook import ILLEGAL
from coh_lightning.io import atomic_write


def write_label_studio(study: Study, folder: Path) -> None:
    """Write label_studio/RATER.json (tasks) and RATER.xml (the labeling interface), one project for each rater. NUL
    becomes U+2400 in the tasks, because Label Studio on PostgreSQL refuses it.
    """
    for rater in study.raters:
        tasks = []
        for row, item in study.rater_rows(rater):
            texts = (text.replace("\0", "\u2400") for text in (item.prompt, *row.shown(item)))
            ids = {"row_id": row.row, "study_id": study.id, "rater": rater, "text_hash": row.text_hash(item)}
            tasks.append({"data": ids | dict(zip(TEXTS, texts, strict=True))})
        for ending, text in (
            ("json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"),
            ("xml", label_studio_interface(study, rater)),
        ):
            with atomic_write(folder / "label_studio" / f"{rater}.{ending}") as aside:
                aside.write_bytes(text.encode("utf-8"))


def label_studio_interface(study: Study, rater: str) -> str:
    """The labeling interface: the instructions, the texts, three choices for each attribute in the rater's order, of
    which each must be answered (or the task skipped), a comment.
    """

    def view(name: str, title: str) -> str:
        # valueType text: a text that is a URL must not be fetched
        text = f'<Text name="{name}" value="${name}" valueType="text" selectionEnabled="false"/>'
        return f'<View style="flex: 1 1 0; min-width: 0"><Header value="{title}" size="5"/>{text}</View>'

    blocks = []
    for name in study.orders[rater]:
        title = f"{name.capitalize()}: {study.definitions[name]}"
        missing = f"Please answer {name}, or skip the task."
        choices = "".join(f"<Choice value={quoteattr(choice)}/>" for choice in choices_of(study.form))
        blocks.append(f'  <Header value={_attribute(title)} size="5"/>')
        blocks.append(
            f'  <Choices name={_attribute(name)} toName="prompt" choice="single-radio" '
            f'showInline="true" required="true" requiredMessage={_attribute(missing)}>{choices}</Choices>'
        )
    lines = [
        "<View>",
        "  <Style>.htx-text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext }</Style>",
        f'  <Header value={_attribute(study.title)} size="4"/>',
        *(f'  <Header value={_attribute(text)} size="6"/>' for text in guidance(study)),
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
    """Quoted, without characters that XML can't have."""
    return quoteattr(re.sub(f"[{ILLEGAL}]", " ", text))


def read_label_studio(path: Path, study: Study) -> list[SubmittedRow]:
    """The answers in a JSON export (`annotations[].result[]`, without skipped annotations) or a JSON-MIN export (one
    object for each annotation, with the task's data and the answers side by side).
    """
    tasks = read_form(path)
    if isinstance(tasks, list) and tasks and all(isinstance(task, dict) and "row_id" in task for task in tasks):
        return list(_read_small(path, tasks, study))
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise InputError(f"{path}: it is not a list of Label Studio's tasks with 'data'; export it as JSON.")
    submitted: list[SubmittedRow] = []
    for number, task in enumerate(tasks, start=1):
        if "annotations" not in task:
            raise InputError(f"{path}, task {number}: it has no 'annotations'; export it as JSON or JSON-MIN.")
        if not isinstance(task["annotations"], list):
            raise InputError(f"{path}, task {number}: 'annotations' is not a list; export it again as JSON.")
        counted = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
        for place, annotation in enumerate(counted, start=1):
            which = f", annotation {place}" if len(counted) > 1 else ""
            where = f"{path}, task {number}{which}{_by(annotation.get('completed_by'))}"
            answers = _label_studio_results(annotation.get("result"), study)
            submitted += _answer(where, task["data"], answers, annotation.get("lead_time"))
    return submitted


Answers = tuple[dict[str, list[str]], list[str]]
"""All choices of each attribute, and all comments."""


def _answer(where: str, data: Mapping[str, Any], answers: Answers, seconds: object) -> Iterator[SubmittedRow]:
    choices, comments = answers
    if choices or comments:
        text_hash = data.get("text_hash")
        yield submitted_form(
            where,
            str(data.get("row_id", "")),
            choices,
            comments,
            seconds=as_seconds(seconds),
            text_hash=None if text_hash is None else str(text_hash),
        )


def _read_small(path: Path, lines: list[dict[str, Any]], study: Study) -> Iterator[SubmittedRow]:
    """The rows of a JSON-MIN export. An answer alone is a text; several are a list, or an object with a list."""
    for number, line in enumerate(lines, start=1):
        choices = {name: _strings(line[name], "choices") for name in study.attributes if name in line}
        answers = {name: written for name, written in choices.items() if written}, _strings(line.get("comment"), "text")
        where = f"{path}, annotation {number}{_by(line.get('annotator'))}"
        yield from _answer(where, line, answers, line.get("lead_time"))


def _strings(value: object, key: str) -> list[str]:
    match value:
        case str(text):
            return [text] if text else []
        case [*several]:
            return [text for each in several for text in _strings(each, key)]
        case {**one} if key in one:
            return _strings(one[key], key)
    return []


def _label_studio_results(results: object, study: Study) -> Answers:
    """All choices of each attribute and all comments among an annotation's results."""
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
    """Who made an annotation: a number, or an object in some exports."""
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    return "" if annotator is None else f" by {named(str(annotator)[:60])}"
