"""Our own JSON lines: every form of feedback, in the shape that `records.Feedback` documents."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from coh_lightning.records import Feedback, Rejected
from coh_lightning.sources.base import Source
from coh_lightning.sources.files import Row


@dataclass(frozen=True)
class Records(Source):
    """Feedback records as JSON lines (or as a JSON list). Read strictly: an empty completion here is an error, not a counted rejection."""

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        feedback = Feedback.from_json(row, where)
        return dataclasses.replace(feedback, source=self.label, task=self.task or feedback.task, aspect=self.aspect or feedback.aspect)
