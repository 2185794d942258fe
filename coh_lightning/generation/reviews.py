"""Answers in a file, by anybody, that the model reviews in `predict` (`model.generation.review_of`).

{"id": "p1", "prompt": "Why?", "completion": "Because."}  ──>  the test record with this prompt, under "review 1",
                                                               or "review 2", ... if the file has more answers to it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import read_outputs
from coh_lightning.feedback.records import Feedback, prompt_sha

REVIEW_ASK = "review "
"""What the ask of a review begins with; its number follows."""


class ReviewedAnswers(NamedTuple):
    """The answers of a file by the id of the record whose prompt they answer, and how many answer another prompt."""

    of_record: Mapping[str, list[str]]
    unknown: int


def read_answers(path: str, records: Iterable[Feedback]) -> ReviewedAnswers:
    """The answers of a completions file (completions.py), matched to records by their prompts.

    Raises:
        InputError: a broken line, by file and line; no line has the prompt of a record.
    """
    known = {prompt_sha(record): record.id for record in reversed(list(records))}
    found: dict[str, list[str]] = {}
    unknown = 0
    for _, output in read_outputs(Path(path), dialogues=False):
        if output.ask.startswith(REVIEW_ASK):
            continue
        id = next((known[sha] for sha in output.shas if sha in known), None)
        if id is None:
            unknown += 1
        else:
            found.setdefault(id, []).append(output.text)
    if not found:
        raise InputError(
            f"{path}: no answer is to a prompt of the test split ({counted(unknown, 'answer')} to others), so there is "
            "nothing to review; "
            "give those prompts as data.test_sources."
        )
    return ReviewedAnswers(found, unknown)
