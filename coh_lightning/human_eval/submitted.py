"""One row of a study as a rater sent it back, in whichever form; nothing of it is verified yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.jsonl import parse_json

TEXTS = {"prompt": "prompt", "answer_a": "answer A", "answer_b": "answer B"}
"""The columns of texts -> their names in messages."""


@dataclass(frozen=True)
class SubmittedRow:
    where: str
    """File and line (of a workbook: row; of a form: task or instance)."""
    row_id: str
    choices: Mapping[str, str]
    """Attribute -> what was written; without the attributes that the file doesn't have."""
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Attribute -> the different answers that one annotation gives to it; none of them counts."""
    comment: str = ""
    seconds: str = ""
    study_id: str = ""
    rater: str = ""
    text_hash: str | None = None
    """None if the form has none."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Those of prompt, answer_a and answer_b that the form shows."""


def submitted_form(
    where: str,
    row_id: str,
    written: Mapping[str, Iterable[str]],
    comments: Iterable[str],
    *,
    seconds: float | None,
    text_hash: str | None = None,
) -> SubmittedRow:
    """A row from an annotation tool. `written` holds every answer to each attribute; the same answer given twice is
    one.
    """
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
