"""Feedback that is already in memory: `CoHDataModule(records=[...])`, or a Hugging Face `Dataset`.

[{"prompt": "Name a fruit.", "completions": [{"text": "An apple.", "thumb": true}]}, ...]     our own records
[{"prompt": "Name a fruit.", "chosen": "An apple.", "rejected": "A stone."}, ...]             pairs of TRL
[{"prompt": "Name a fruit.", "completion": "A stone.", "label": false}, ...]                  unpaired rows of TRL
[Feedback(...), ...]                                                                          records as objects
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from coh_lightning.errors import InputError, a_kind, named
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.files import SourceRow, SourceRows
from coh_lightning.feedback.sources.own import Records
from coh_lightning.feedback.sources.recognized import LOOKED_AT
from coh_lightning.feedback.sources.trl import TRLPairs, TRLUnpaired

NAME = "records"
"""The source's name in reports, and the prefix of the ids."""
FORMATS = (Records, TRLPairs, TRLUnpaired)


@dataclass(frozen=True)
class _InMemory(Source):
    """Rows that are given, read as `form` reads those of a file; by its name no class that a configuration may have."""

    given: Any = field(default=(), repr=False, compare=False)
    form: Source = field(default=Records(NAME), kw_only=True)

    def all_rows(self) -> SourceRows:
        return _rows(self.given)

    def columns(self) -> Sequence[str]:
        return self.form.columns()

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        return self.form.feedback(row, where)

    def after_rows(self) -> None:
        for message in self.form.notes.lines():
            self.notes.say(message.removeprefix(f"{self.form.notes.label}: "))


def in_memory(given: Any) -> Source:
    """The source of rows in memory, in the format that the columns of the first row tell.

    Args:
        given: A list of rows or of `Feedback`, or a Dataset (not a dictionary of them).

    Raises:
        InputError: it is something else, or its first row has the columns of no format.
    """
    if isinstance(given, Mapping):
        splits = ", ".join(named(str(name)) for name in given)
        raise InputError(
            f"records has the splits {splits}; give one of them, such as records[{next(iter(given), '')!r}]."
        )
    if isinstance(given, str) or not hasattr(given, "__iter__") or not hasattr(given, "__len__"):
        file = f"; a file is given as feedback={given!r:.60}" if isinstance(given, str) else ""
        raise InputError(f"records is {a_kind(given)}; give a list of records, or a Dataset{file}.")
    if not len(given):
        raise InputError("records is empty; give at least one record.")
    first = [row for _, row in islice(_rows(given), LOOKED_AT)]
    row = next((row for row in first if not isinstance(row, InputError)), None)
    if row is None:
        raise next(row for row in first if isinstance(row, InputError))
    for kind in FORMATS:
        form = kind(NAME)
        if form.fits(list(row)):
            form.notes.start(NAME)
            return _InMemory(NAME, given, form=form)
    there = ", ".join(named(str(name)) for name in row) or "none"
    raise InputError(
        f"records[0] has the columns {there}; give prompt and completions, chosen and rejected, or prompt, completion "
        "and label."
    )


def _rows(given: Any) -> Iterator[tuple[str, SourceRow | InputError]]:
    for number, row in enumerate(given):
        where = f"{NAME}[{number}]"
        if isinstance(row, Feedback):
            yield where, row.to_json()
        elif isinstance(row, Mapping):
            yield where, dict(row)
        else:
            yield where, InputError(f"{where} is {a_kind(row)}; it must be a dictionary or a Feedback.")
