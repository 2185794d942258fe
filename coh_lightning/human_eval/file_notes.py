"""What is wrong with a rater's file: a sentence for each row, but one for the file where the file itself is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from coh_lightning.errors import counted, named
from coh_lightning.human_eval.submitted import Mismatch

NAMED = 3
"""Places that a sentence about several rows names."""


class FileNotes:
    """What was noticed in one file, by kind; each place is that of a row, as `SubmittedRow.where` has it."""

    def __init__(self, file: Path, study: str) -> None:
        self.rows = 0
        self.repeated = 0
        """Answers to a question that was answered before."""
        self.refused = 0
        """Rows and answers that are not counted."""
        self._file = file
        self._study = study
        self._foreign: dict[str, list[tuple[str, str]]] = {}
        self._mismatched: dict[str, list[tuple[str, Mismatch]]] = {}
        self._changed: list[str] = []
        self._conflicts: list[tuple[str, str, str]] = []

    def foreign(self, where: str, row_id: str, study_id: str) -> None:
        """A row that the study doesn't have."""
        self.refused += 1
        self._foreign.setdefault("" if study_id == self._study else study_id, []).append((where, row_id))

    def mismatched(self, where: str, why: Mismatch) -> None:
        """A row of the study that is not counted."""
        self.refused += 1
        self._mismatched.setdefault(why.several, []).append((where, why))

    def changed(self, where: str) -> None:
        """A row that counts although a text of it was changed."""
        self._changed.append(where)

    def conflict(self, where: str, sentence: str, came_from: str) -> None:
        """An answer that differs from one that was given before, at `came_from`."""
        self._conflicts.append((where, sentence, came_from))

    def foreign_sentences(self) -> Iterator[str]:
        for study_id, rows in self._foreign.items():
            but = f" but of {named(study_id)}" if study_id else ""
            if len(rows) == 1:
                ((where, row_id),) = rows
                yield f"{where}: row {row_id[:40]!r} is not of study {self._study}{but}; it is not counted."
            elif len(rows) == self.rows:
                yield (
                    f"{self._file}: this file is not of study {self._study}{but}; none of its {self.rows} rows is "
                    "counted. Import it into the folder of its own study."
                )
            else:
                which = f"{len(rows)} of {self.rows} rows{self._places([where for where, _ in rows])}"
                yield f"{self._file}: {which} are not of study {self._study}{but}; none of them is counted."

    def mismatch_sentences(self) -> Iterator[str]:
        for several, rows in self._mismatched.items():
            if len(rows) == 1:
                yield f"{rows[0][0]}: {rows[0][1].one}"
            else:
                places = self._places([where for where, _ in rows])
                yield f"{self._file}: {len(rows)} of {self.rows} rows{places} {several}"

    def changed_sentences(self) -> Iterator[str]:
        if self._changed:
            yield (
                f"{self._file}: a text was changed in {len(self._changed)} of {counted(self.rows, 'row')}"
                f"{self._places(self._changed)}; their text_hash is right, so they count."
            )

    def conflict_sentences(self, outcome: str) -> Iterator[str]:
        """One sentence if at least four answers, and a quarter of those given before, differ."""
        number = len(self._conflicts)
        if number < 4 or 4 * number < self.repeated:
            yield from (f"{where}: {sentence}" for where, sentence, _ in self._conflicts)
            return
        where, _, came_from = self._conflicts[0]
        yield (
            f"{self._file}: {number} of its {self.repeated} answers to questions that were answered before differ, the "
            f"first at {where} from {came_from}; is it another person's sheet under the same name? {outcome}"
        )

    def _places(self, places: Sequence[str]) -> str:
        """The places in the file, without the file's name."""
        short = list(dict.fromkeys(where.removeprefix(str(self._file)).lstrip(":, /") for where in places))
        return f" ({', '.join(short[:NAMED])}{', ...' if len(short) > NAMED else ''})"
