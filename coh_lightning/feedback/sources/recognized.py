"""The source of a single feedback file, by its first row: our own records, dialogues of HH, or one of TRL's formats."""

from __future__ import annotations

from itertools import islice

from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.hh import HH, HUMAN
from coh_lightning.feedback.sources.own import Records
from coh_lightning.feedback.sources.trl import TRLPairs, TRLUnpaired

LOOKED_AT = 20
"""Rows among which the first readable one decides."""


def recognized(path: str) -> tuple[Source, str | None]:
    """The source that reads a file, and a sentence about it unless it is `Records`. Raises InputError if the file is
    missing, empty or damaged as a whole.
    """
    for kind, form in (
        (Records, None),
        (TRLPairs, "pairs of TRL (chosen, rejected)"),
        (TRLUnpaired, "unpaired rows of TRL (label)"),
    ):
        source = kind(path)
        row = next((row for _, row in islice(source.all_rows(), LOOKED_AT) if isinstance(row, dict)), {})
        if source.fits(list(row)):
            if "prompt" not in row and str(row.get("chosen")).lstrip().startswith(HUMAN.lstrip()):
                return HH(path), f"{path} is read as dialogues of HH, by the first row's '{HUMAN.strip()}'."
            return source, None if form is None else f"{path} is read as {form}, by the columns of its first row."
    return Records(path), None
