"""What the files of annotation tools (label_studio.py, potato.py) have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.jsonl import parse_json
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.submitted import SubmittedRow


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


def guidance(study: Study) -> list[str]:
    """What raters do with an item, in paragraphs: the author's own instructions, ours, whom to ask."""
    words, form = study.form.words, study.form
    contact = words["contact"].format(contact=form.contact) if form.contact else ""
    return [text for text in (form.instructions.strip(), words["asked"], words["judging"], contact) if text]


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
