"""What was left out or merged, and why: counted, each reason with the first place that it happened at."""

from __future__ import annotations

from coh_lightning.errors import visible


class Counts:
    """Reasons, with how often each occurred and where first."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, where: str) -> None:
        """Count one occurrence of a reason, which is a phrase without place or number."""
        self._times[reason] = self._times.get(reason, 0) + 1
        self._first.setdefault(reason, where)

    def __getitem__(self, reason: str) -> int:
        return self._times.get(reason, 0)

    def lines(self) -> list[str]:
        """One printable line for each reason, most frequent first."""
        ordered = sorted(self._times.items(), key=lambda item: -item[1])
        return [visible(f"{reason}: {times:,} (first: {self._first[reason]})") for reason, times in ordered]
