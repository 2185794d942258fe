"""How many records each source gave, and what was left out: the counts of `data.json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coh_lightning.feedback.records import Feedback, Rejected


class SourceCounts:
    """By source, in the order in which they come first: records, copies, completions, and rows left out by reason."""

    def __init__(self) -> None:
        self.by_source: dict[str, dict[str, Any]] = {}

    def add(self, record: Feedback) -> None:
        of_source = self._entry(record.source)
        of_source["copies" if record.copy > 1 else "records"] += 1
        of_source["completions"] += len(record.candidates)

    def leave_out(self, row: Rejected) -> None:
        reasons = self._entry(row.source)["rejected"]
        reason = "unreadable" if row.unreadable else row.reason
        reasons[reason] = reasons.get(reason, 0) + 1

    def _entry(self, label: str) -> dict[str, Any]:
        return self.by_source.setdefault(label, {"records": 0, "copies": 0, "completions": 0, "rejected": {}})


def counts(feedback: Iterable[Feedback], rejected: Iterable[Rejected] = ()) -> dict[str, dict[str, Any]]:
    """Of all these records and rows."""
    found = SourceCounts()
    for record in feedback:
        found.add(record)
    for row in rejected:
        found.leave_out(row)
    return found.by_source
