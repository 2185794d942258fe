"""Notes on a source that are not errors, for the screen and data.json: values without an entry, ignored keys, ...

notes.count("the key 'id' of messages is ignored", "f.csv:3")
-> "f: the key 'id' of messages is ignored (12 times in 500 rows, first f.csv:3)"
"""

from __future__ import annotations

from dataclasses import dataclass

from coh_lightning.errors import counted, visible

MOST_LINES = 40
"""Different notes of one source that are shown; free text taken for categories would give thousands."""
MOST_KEPT = 10_000


@dataclass
class _Count:
    times: int
    first: str


class SourceNotes:
    def __init__(self) -> None:
        self.start("")

    def start(self, label: str) -> None:
        """Clear the notes before the source is read, under this name in reports."""
        self.label = label
        self.rows = 0
        """Rows read."""
        self.files: list[str] = []
        """Files read, in order."""
        self.passed_over: dict[str, str] = {}
        """Files that were not read -> why."""
        self._said: list[str] = []
        self._counts: dict[str, _Count] = {}
        self._others = 0

    def count(self, message: str, where: str) -> None:
        """Count one occurrence of a message, which is a clause without place or number, at the row `where`."""
        found = self._counts.get(message)
        if found is not None:
            found.times += 1
        elif len(self._counts) < MOST_KEPT:
            self._counts[message] = _Count(1, where)
        else:
            self._others += 1

    def say(self, message: str) -> None:
        """Add a note on the whole source."""
        if message not in self._said:
            self._said.append(message)

    def lines(self) -> list[str]:
        """The notes, most frequent first, one printable line each."""
        by_times = sorted(self._counts.items(), key=lambda item: -item[1].times)
        lines = list(self._said)
        for message, found in by_times[:MOST_LINES]:
            times = f"{counted(found.times, 'time')} in {counted(self.rows, 'row')}"
            lines.append(f"{message} ({times}, first {found.first})")
        rest = sum(found.times for _, found in by_times[MOST_LINES:]) + self._others
        if rest:
            lines.append(f"and other notes of this kind ({counted(rest, 'time')})")
        return [visible(f"{self.label}: {line}") for line in lines]
