"""Studies in potato: the task it reads, and the answers that it writes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.jsonl import read_values
from coh_lightning.human_eval.annotation_tools import as_seconds, guidance, read_form, submitted_form
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import SubmittedRow
from coh_lightning.io import atomic_write

SCHEME, COMMENT = "comparison", "comment"
"""Names of the annotation schemes: of the choices, one dimension for each attribute, and of the comment."""
STATE, LINES = "user_state.json", "annotated_instances.jsonl"
"""What potato writes for each user: since version 2, and before."""


def write_potato(study: Study, folder: Path) -> None:
    """Write potato/config.yaml and potato/data.jsonl, one task for all raters: they log in under their names (rater-1,
    ...) and get their own rows. potato renders the prompt as HTML, remote images included, so the prompt is escaped.
    """
    import yaml

    config = {
        "annotation_task_name": study.title,
        # as HTML, because other texts would be read as Markdown
        "annotation_instructions": "".join(f"<p>{html.escape(text)}</p>" for text in (study.title, *guidance(study))),
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
                "description": study.title,
                "label_requirement": {"required": True},
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
                "name": COMMENT,
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
    """The answers in potato's output: a user_state.json, an annotated_instances.jsonl, or a folder with those of
    several raters below it. An instance that a folder has in several files is read from the user_state.json of a
    rater, or else from a rater's annotated_instances.jsonl, or else from that of all raters.
    """
    if not path.is_dir():
        return list(_read_lines(path, study) if path.suffix.lower() == ".jsonl" else _read_user_state(path, study))
    files = sorted([*path.rglob(STATE), *path.rglob(LINES)], key=lambda file: (_rank(file), file))
    if not files:
        raise InputError(f"{path}: the folder has no {STATE} and no {LINES}; give potato's output_annotation_dir.")
    rows: list[SubmittedRow] = []
    for _, several in groupby(files, key=_rank):
        known = {row.row_id for row in rows}
        for file in several:
            read = _read_user_state if file.name == STATE else _read_lines
            rows += [row for row in read(file, study) if row.row_id not in known]
    return rows


def _rank(file: Path) -> int:
    """A rater's user_state.json first, then lines of one rater, which lie deeper than those of all raters."""
    return -1000 if file.name == STATE else -len(file.parts)


def _read_user_state(path: Path, study: Study) -> Iterator[SubmittedRow]:
    state = read_form(path)
    labels = state.get("instance_id_to_label_to_value") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not isinstance(labels, dict):
        raise InputError(f"{path}: no 'instance_id_to_label_to_value' in it; give a {STATE} of potato.")
    behavior = state.get("instance_id_to_behavioral_data")
    for row, values in labels.items():
        if isinstance(values, dict):  # as some versions write them: scheme -> name -> value
            values = _pairs(values)
        if not isinstance(values, list):
            raise InputError(f"{path}: the value of instance {row!r:.60} is not a list; give potato's own file.")
        timed = behavior.get(row) if isinstance(behavior, dict) else None
        yield from _answer(f"{path}, instance {named(row)}", row, values, timed, study)


def _read_lines(path: Path, study: Study) -> Iterator[SubmittedRow]:
    """The rows of an annotated_instances.jsonl. A rater who came back to an instance has a line for each visit, of
    which the last one holds.
    """
    last: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, line in read_values(path):
        match line:
            case {"id": str() | int() as row, "label_annotations": {**labels}}:
                last.pop(str(row), None)
                last[str(row)] = (str(where), {"labels": labels, "timed": line.get("behavioral_data")})
            case _:
                raise InputError(f"{where}: no 'id' and 'label_annotations' in the line; give potato's own {LINES}.")
    for row, (where, found) in last.items():
        yield from _answer(where, row, _pairs(found["labels"]), found["timed"], study)


def _pairs(labels: Mapping[str, Any]) -> list[Any]:
    """Scheme -> name -> value, as the list that a user_state.json has."""
    return [
        [{"schema": scheme, "name": name}, value]
        for scheme, values in labels.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]


def _answer(where: str, row: str, values: Sequence[Any], timed: object, study: Study) -> Iterator[SubmittedRow]:
    """The row of one instance, if there is an answer. Of several values of one name the last holds, as for potato
    itself: the rater came back to the instance.
    """
    choices: dict[str, list[str]] = {}
    comments: dict[str, str] = {}
    for each in values:
        match each:
            case [{"schema": str(scheme), "name": str(name)}, str(value)] if (
                scheme == SCHEME and name in study.attributes and value
            ):
                choices[name] = [value]
            case [{"schema": "comment", **rest}, str(value)] if value:
                comments[str(rest.get("name", ""))] = value
    if choices or comments:
        yield submitted_form(where, row, choices, comments.values(), seconds=_seconds(timed))


def _seconds(timed: object) -> float | None:
    """The time that potato measured: 'total_time_ms', or before 'time_string', such as 0d 0h 1m 12s."""
    if not isinstance(timed, dict):
        return None
    milliseconds = as_seconds(timed.get("total_time_ms"))
    if milliseconds:  # potato writes 0 if it has not timed it
        return milliseconds / 1000
    spent = re.search(r"(\d+)d (\d+)h (\d+)m (\d+)s", str(timed.get("time_string", ""))[:100])
    if not spent:
        return None
    days, hours, minutes, seconds = map(int, spent.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds) or None
