"""Studies in potato and Label Studio: the files they read, and their answers read back."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.jsonl import parse_json
from coh_lightning.human_eval.sheets import CHOICES
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import TEXTS, SubmittedRow
from coh_lightning.human_eval.workbook import ILLEGAL
from coh_lightning.io import atomic_write

# --- shared


def submitted_form(
    where: str,
    row_id: str,
    written: Mapping[str, Iterable[str]],
    comments: Iterable[str],
    *,
    seconds: float | None,
    text_hash: str | None = None,
) -> SubmittedRow:
    """A row from an annotation tool. `written` has all answers to each attribute; equal ones count once."""
    different = {
        name: list({each.strip().casefold(): each for each in answers}.values()) for name, answers in written.items()
    }
    return SubmittedRow(
        where,
        row_id,
        choices={name: answers[0] for name, answers in different.items() if len(answers) == 1},
        unclear={name: answers for name, answers in different.items() if len(answers) > 1},
        comment="\n".join(dict.fromkeys(comments)),
        seconds="" if seconds is None else str(seconds),
        text_hash=text_hash,
    )


def as_seconds(value: object) -> float | None:
    """A number of seconds, or None."""
    try:
        return float(str(value)[:40].replace(",", "."))
    except ValueError:
        return None


def read_form(path: Path) -> Any:
    """The JSON that an annotation tool wrote."""
    try:
        return parse_json(read_text(path), str(path), whole=True, unique=True)
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('.')}; export it again as JSON.") from error


# --- potato

SCHEME = "comparison"
"""Name of the annotation scheme of the choices, one dimension for each attribute."""


def write_potato(study: Study, folder: Path) -> None:
    """Write potato/config.yaml and potato/data.jsonl, one task for all raters: they log in under their names (rater-1,
    ...) and get their own rows. potato renders the prompt as HTML, remote images included, so the prompt is escaped.
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
    for name, text in (
        ("data.jsonl", "".join(lines)),
        ("config.yaml", yaml.safe_dump(config, allow_unicode=True, sort_keys=False, width=1000)),
    ):
        with atomic_write(folder / "potato" / name) as aside:
            aside.write_bytes(text.encode("utf-8"))


def read_potato(path: Path, study: Study) -> list[SubmittedRow]:
    """The answers in potato's output: a user_state.json, or a folder with those of several raters below it."""
    files = sorted(path.rglob("user_state.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: the folder has no user_state.json; give potato's output_annotation_dir.")
    return [row for file in files for row in _read_user_state(file, study)]


def _read_user_state(path: Path, study: Study) -> Iterator[SubmittedRow]:
    state = read_form(path)
    labels = state.get("instance_id_to_label_to_value") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(labels, dict):
        raise InputError(f"{path}: no 'instance_id_to_label_to_value' in it; give a user_state.json of potato.")
    behavior = state.get("instance_id_to_behavioral_data")
    for row, values in labels.items():
        choices: dict[str, list[str]] = {}
        comments: list[str] = []
        if not isinstance(values, list):
            raise InputError(f"{path}: the value of instance {row!r:.60} is not a list; give potato's own file.")
        for each in values:
            match each:
                case [{"schema": str(scheme), "name": str(name)}, str(value)] if (
                    scheme == SCHEME and name in study.attributes and value
                ):
                    choices.setdefault(name, []).append(value)
                case [{"schema": "comment"}, str(value)] if value:
                    comments.append(value)
        if choices or comments:
            timed = behavior.get(row) if isinstance(behavior, dict) else None
            milliseconds = as_seconds(timed.get("total_time_ms") if isinstance(timed, dict) else None)
            seconds = milliseconds / 1000 if milliseconds else None  # potato writes 0 if it has not timed it
            yield submitted_form(f"{path}, instance {named(row)}", row, choices, comments, seconds=seconds)


# --- Label Studio


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
    """The labeling interface: the texts, three choices for each attribute in the rater's order, a comment."""

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
    """Quoted, without characters that XML can't have."""
    return quoteattr(re.sub(f"[{ILLEGAL}]", " ", text))


def read_label_studio(path: Path, study: Study) -> list[SubmittedRow]:
    """The answers in a JSON export (`annotations[].result[]`, without skipped annotations)."""
    tasks = read_form(path)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise InputError(f"{path}: it is not a list of Label Studio's tasks with 'data'; export it as JSON.")
    submitted = []
    for number, task in enumerate(tasks, start=1):
        if "annotations" not in task:
            raise InputError(f"{path}, task {number}: it has no 'annotations'; export as JSON, not as JSON-MIN.")
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
