"""potato: one task for all raters, potato/config.yaml and data.jsonl, and its output read back."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path

from coh_lightning.errors import InputError, named
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import SubmittedRow, as_seconds, read_form, submitted_form
from coh_lightning.io import atomic_write

SCHEME = "comparison"
"""Name of the annotation scheme that holds the choices, one dimension per attribute."""


def write_potato(study: Study, folder: Path) -> None:
    """Write potato/config.yaml and potato/data.jsonl: raters log in under their names (rater-1, ...) and get their own
    rows.

    potato has one order of attributes for all raters. It renders the prompt as HTML, remote images included, so the
    prompt is escaped.
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
    """The answers in potato's output: a user_state.json, or a folder with those of several raters below it. Raises
    InputError if there is no such file, or another program wrote it.
    """
    files = sorted(path.rglob("user_state.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: the folder has no user_state.json; give potato's output_annotation_dir.")
    return [row for file in files for row in _read_user_state(file, study)]


def _read_user_state(path: Path, study: Study) -> Iterator[SubmittedRow]:
    state = read_form(path)
    labels = state.get("instance_id_to_label_to_value") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(labels, dict):
        raise InputError(
            f"{path}: the file has no 'instance_id_to_label_to_value', so potato didn't write it; give a "
            "user_state.json of potato, or the folder above it."
        )
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
            seconds = _potato_seconds(behavior.get(row) if isinstance(behavior, dict) else None)
            yield submitted_form(f"{path}, instance {named(row)}", row, choices, comments, seconds=seconds)


def _potato_seconds(behavior: object) -> float | None:
    """Seconds spent on an instance; potato writes 0 if it has not timed it."""
    milliseconds = behavior.get("total_time_ms") if isinstance(behavior, dict) else None
    seconds = as_seconds(milliseconds)
    return seconds / 1000 if seconds else None
