"""Our own JSON lines, in the form that `records.Feedback` documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from coh_lightning.errors import named
from coh_lightning.feedback.records import Feedback, Rejected, content_id
from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.dialogue import READ_AS_SYSTEM
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.turns import DEVELOPER


@dataclass(frozen=True)
class Records(Source):
    """Feedback records as JSON lines (or a JSON list), read strictly: an empty completion is an error, not rejected."""

    def columns(self) -> Sequence[str]:
        return ("prompt", "completions")

    def structured(self) -> Sequence[str]:
        return ("completions", "scale", "extra")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        feedback = Feedback.from_json(row, where)
        if isinstance(row["prompt"], list) and any(message.get("role") == DEVELOPER for message in row["prompt"]):
            self.notes.count(READ_AS_SYSTEM, where)
        unused = feedback.extra.keys() - row.get("extra", {}).keys()
        for place in sorted(one for one in unused if one.startswith(("prompt[", "completions["))):
            for name in feedback.extra[place] if isinstance(feedback.extra[place], dict) else ():
                message = f"the key {named(name)!r} of {place.split('[')[0]} is kept in the record and not used"
                self.notes.count(message, where)
        bare = self.stripped(feedback)
        if self.strip and feedback.id == content_id(feedback):  # it was made from the content, which has changed
            bare = dataclasses.replace(bare, id=content_id(bare))
        task, aspect = self.task or feedback.task, self.aspect or feedback.aspect
        return dataclasses.replace(bare, source=self.label, task=task, aspect=aspect)
