"""What was noticed while a source was read and is no error: values without an entry, keys that were passed over, files
that were not read.

Adapters call `source.notes.count(...)` or `source.notes.say(...)`; `load` hands the notes on, and they are shown on the
screen and kept in data.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from coh_lightning.errors import visible

MOST_LINES = 40
"""Different notes of one source that are shown; a column of free text taken for a table of values would give
thousands.
"""
MOST_KEPT = 10_000


@dataclass
class _Count:
    times: int
    first: str


class SourceNotes:
    """The notes of one source.

    notes.count("value 'x' of 'stars' is in no entry of 'values'", "f.csv:3")   ->   f: value 'x' of 'stars' is in no entry of 'values' (12 times in 500 rows, first f.csv:3)
    """

    def __init__(self) -> None:
        self.start("")

    def start(self, label: str) -> None:
        """Forget everything: the source is about to be read, under this name in reports."""
        self.label = label
        self.rows = 0
        """Rows that were read."""
        self.files: list[str] = []
        """Files that were read, in order."""
        self.passed_over: dict[str, str] = {}
        """Files beside them that were not read -> why."""
        self._said: list[str] = []
        self._counts: dict[str, _Count] = {}
        self._others = 0

    def count(self, message: str, where: str) -> None:
        """Count this once more. The message is a clause without place or number, the same for every row that it is said
        of; `where` is the row's place.
        """
        found = self._counts.get(message)
        if found is not None:
            found.times += 1
        elif len(self._counts) < MOST_KEPT:
            self._counts[message] = _Count(1, where)
        else:
            self._others += 1

    def say(self, message: str) -> None:
        """A note on the whole source, said once."""
        if message not in self._said:
            self._said.append(message)

    def lines(self) -> list[str]:
        """The notes, most frequent first, each as one printable line that begins with the source's name."""
        counted = sorted(self._counts.items(), key=lambda item: -item[1].times)
        said = [
            f"{message} ({found.times:,} {'time' if found.times == 1 else 'times'} in {self.rows:,} rows, first "
            f"{found.first})"
            for message, found in counted[:MOST_LINES]
        ]
        rest = sum(found.times for _, found in counted[MOST_LINES:]) + self._others
        if rest:
            said.append(f"and other notes of this kind ({rest:,} times)")
        lines = [f"{self.label}: {message}" for message in [*self._said, *said]]
        return [visible(line) for line in lines]
