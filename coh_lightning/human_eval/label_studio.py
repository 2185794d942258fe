"""Label Studio: one project per rater, label_studio/RATER.json (tasks) and RATER.xml (labeling interface), and its JSON
export read back.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.sax.saxutils import quoteattr

from coh_lightning.errors import InputError, named
from coh_lightning.human_eval.sheets import CHOICES
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS, SubmittedRow, as_seconds, read_form, submitted_form
from coh_lightning.human_eval.workbook import ILLEGAL
from coh_lightning.io import atomic_write


def write_label_studio(study: Study, folder: Path) -> None:
    """Write label_studio/RATER.json (tasks to import) and label_studio/RATER.xml (the labeling interface) for each
    rater.

    NUL becomes U+2400 in the tasks, because Label Studio on PostgreSQL refuses it.
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
        for ending, text in (
            ("json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"),
            ("xml", label_studio_interface(study, rater)),
        ):
            with atomic_write(folder / "label_studio" / f"{rater}.{ending}") as aside:
                aside.write_bytes(text.encode("utf-8"))


def label_studio_interface(study: Study, rater: str) -> str:
    """The labeling interface: the texts, three choices per attribute in the rater's order, a comment."""

    def view(name: str, title: str) -> str:
        # valueType text: a text that is a URL must not be fetched
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
    """Quoted, without characters that XML can't hold."""
    return quoteattr(re.sub(f"[{ILLEGAL}]", " ", text))


def read_label_studio(path: Path, study: Study) -> list[SubmittedRow]:
    """The answers in a JSON export (`annotations[].result[]`, without skipped annotations). Raises InputError if the
    file is no such export.
    """
    tasks = read_form(path)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise InputError(
            f"{path}: this is not an export of Label Studio, a list of tasks with 'data' and 'annotations'; export it "
            "as JSON."
        )
    submitted = []
    for number, task in enumerate(tasks, start=1):
        if "annotations" not in task:
            raise InputError(
                f"{path}, task {number}: the task has no 'annotations'; export as JSON, not as JSON-MIN and not the "
                "tasks alone."
            )
        if not isinstance(task["annotations"], list):
            raise InputError(f"{path}, task {number}: 'annotations' is not a list; export it again as JSON.")
        counted = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
        for place, annotation in enumerate(counted, start=1):
            choices, comments = _label_studio_results(annotation.get("result"), study)
            if choices or comments:
                which = f", annotation {place}" if len(counted) > 1 else ""
                text_hash = task["data"].get("text_hash")
                submitted.append(
                    submitted_form(
                        f"{path}, task {number}{which}{_by(annotation.get('completed_by'))}",
                        str(task["data"].get("row_id", "")),
                        choices,
                        comments,
                        seconds=as_seconds(annotation.get("lead_time")),
                        text_hash=None if text_hash is None else str(text_hash),
                    )
                )
    return submitted


def _label_studio_results(results: object, study: Study) -> tuple[dict[str, list[str]], list[str]]:
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
