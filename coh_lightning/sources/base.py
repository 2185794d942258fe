"""What every source of feedback shares: where its rows come from, and how a row becomes one `Feedback` or a counted
rejection.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from coh_lightning.errors import InputError, did_you_mean, named, words_of
from coh_lightning.records import Candidate, Feedback, Rejected, content_id
from coh_lightning.sources.cells import decoded
from coh_lightning.sources.files import Reading, Row, Rows, read_rows
from coh_lightning.sources.folders import SUFFIXES, chosen_files, data_suffix, file_notes, is_local
from coh_lightning.sources.notes import SourceNotes
from coh_lightning.turns import Turn


@dataclass(frozen=True)
class Source(ABC):
    """Rows of one format from the hub or from local files, each turned into one `Feedback`.

    Args:
        path: a data set's name on the hub, or a local file, pattern or folder (.jsonl, .json, .csv, .tsv, .parquet,
            .arrow, .feather, .txt, each also .gz, .bz2, .xz, .zst; a folder of `save_to_disk`).
        subset: the part of the data set: its configuration, or its folder.
        split: which split; means nothing for a single local file or a pattern.
        revision: branch or commit on the hub.
        name: what reports call this source, and the beginning of its records' ids; made from `path` if empty.
        weight: this source's share of the mixture, relative to the other sources' weights; None (for all sources alike)
            mixes by size.
        limit: read only the first so many rows.
        merge_prompts: gather all rows that have the same prompt into one record.
        task: the noun for a completion where the format's own does not fit.
        aspect: what ranks and thumbs judged (helpful, harmless, ...).
        separator: what stands between the cells of CSV and TSV; None: what a first line `sep=;` says, or the one under
            which the header has all columns.
        decode: whether a cell of text that is JSON or a Python literal is read as what it says: true, false, or None,
            which reads messages alone and counts the others.
        strip: take the blanks at the ends of every text away (turns of the prompt, completions, critiques, revisions,
            references); how many texts lost some is counted. Without it texts are kept to the character.
    """

    path: str
    _: KW_ONLY
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    name: str = ""
    weight: float | None = None
    limit: int | None = None
    merge_prompts: bool = False
    task: str | None = None
    aspect: str | None = None
    separator: str | None = None
    decode: bool | None = None
    strip: bool = False

    nested_cells: ClassVar[bool] = False
    """Whether texts within the lists and objects of a row are looked at for structure too: where a mapping may lead to
    them.
    """

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError(f"{type(self).__name__}.path is empty; give a data set's name on the hub or a local file.")
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight > 0):
            raise InputError(
                f"{type(self).__name__}.weight is {self.weight}; it must be above 0 (leave a source out by taking it "
                "off the list)."
            )
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise InputError(
                f"{type(self).__name__}.separator is {self.separator!r}; it must be one character, such as ';' (and "
                "no quote or line end)."
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(f"{type(self).__name__}.limit is {self.limit}; it must be at least 1.")

    @cached_property
    def label(self) -> str:
        """The name in reports and ids: `name`, or the end of `path`, with `subset` behind it."""
        if self.name:
            return self.name
        end = Path(self.path).name
        suffix = data_suffix(Path(end))
        stem = end if suffix is None else end[: end.lower().rindex(suffix)]
        stem = (
            "".join(character for character in stem if character not in "*?[]").strip("-_.")
            or type(self).__name__.lower()
        )
        return f"{stem}-{self.subset}" if self.subset else stem

    @cached_property
    def notes(self) -> SourceNotes:
        """What is noticed while the rows are read; `load` empties it first and shows it afterwards."""
        return SourceNotes()

    def after_rows(self) -> None:  # noqa: B027 - most sources have nothing to add
        """Called by `load` behind the last row: the place for notes on what no row had."""

    def rows(self) -> Rows:
        """(where, row) of every row, in order; a row that can't be read comes as an `InputError`.

        Raises:
            InputError: a file is missing, empty or damaged, or the hub does not give the data set.
        """
        return islice(self.all_rows(), self.limit)

    @abstractmethod
    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        """The row as one record, or why it is of no use (an empty completion, contexts that differ).

        Raises:
            InputError: the row is not in this source's format; it names `where` and the column.
        """

    def columns(self) -> Sequence[str]:
        """The columns that every row of this source has; none where that can't be said."""
        return ()

    def structured(self) -> Collection[str]:
        """The columns that are lists or objects and never text: where a file can hold only text (CSV), their cells are
        read as JSON.
        """
        return ()

    def fits(self, header: Sequence[str]) -> bool:
        """Whether a row with these columns has all that this source reads."""
        return set(self.columns()) <= set(header)

    def stored_split(self) -> str:
        """The split that is read; a source that makes its own splits reads another than `split`."""
        return self.split

    def hub_arguments(self) -> dict[str, Any]:
        """What `datasets.load_dataset` is called with, besides `split` and `revision`."""
        return {"path": self.path} if self.subset is None else {"path": self.path, "name": self.subset}

    def all_rows(self) -> Rows:
        """What `rows` gives, without its limit."""
        for where, row in self._local_rows() if is_local(self.path) else self._hub_rows():
            if isinstance(row, InputError):
                yield where, row
                continue
            try:
                row = decoded(row, self.decode, where, self.notes, self.structured(), nested=self.nested_cells)
            except InputError as error:
                yield where, error
                continue
            yield where, row

    def _local_rows(self) -> Rows:
        chosen = chosen_files(self.path, subset=self.subset, split=self.stored_split())
        self.notes.files, self.notes.passed_over = list(map(str, chosen.files)), chosen.passed_over
        for line in file_notes(chosen, self.path):
            self.notes.say(line)
        reading = Reading(separator=self.separator, fits=self.fits if self.columns() else None, say=self.notes.say)
        for file in chosen.files:
            yield from read_rows(file, reading)

    def _hub_rows(self) -> Rows:
        import datasets

        try:
            table = datasets.load_dataset(**self.hub_arguments(), split=self.stored_split(), revision=self.revision)
        # whatever the hub's client raises, of which there are many kinds, the user hears it with the remedy
        except Exception as error:
            raise InputError(
                f"{self.path}: this is no local file and it could not be had from the hub ({type(error).__name__}: "
                f"{words_of(error)}); "
                f"check the name and the network, or give a local file ({', '.join(SUFFIXES)}) as path."
            ) from error
        for number, row in enumerate(table, start=1):
            yield f"{self.path}[{self.stored_split()}]: row {number}", dict(row)

    def record(
        self,
        prompt: Sequence[Turn],
        candidates: Sequence[Candidate],
        *,
        where: str,
        task: str,
        id: str = "",
        aspect: str | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
        reference: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Feedback | Rejected:
        """The record, with this source's name, task and aspect; an empty prompt or completion makes it a rejection,
        since public data has some of both.

        Blank critiques and revisions count as none.
        """
        if any(isinstance(candidate.text, str) and not candidate.text.strip() for candidate in candidates):
            return self.rejected("a completion is empty", where)
        if prompt and prompt[-1].role == "user" and not prompt[-1].text.strip():
            return self.rejected("the prompt is empty", where)
        feedback = Feedback(
            id=id,
            prompt=tuple(prompt),
            candidates=tuple(
                dataclasses.replace(one, critique=_words(one.critique), revision=_words(one.revision))
                for one in candidates
            ),
            scales=scales or {},
            task=self.task or task,
            aspect=self.aspect or aspect,
            reference=reference if reference and reference.strip() else None,
            source=self.label,
            where=where,
            extra=extra or {},
        )
        feedback = self.stripped(feedback)
        return feedback if id else dataclasses.replace(feedback, id=content_id(feedback))

    def stripped(self, feedback: Feedback) -> Feedback:
        """The record as it is, or with `strip` without the blanks at the ends of its texts, which are counted in the
        notes.
        """
        if not self.strip:
            return feedback

        def bare(text: str | None) -> str | None:
            if text is None or text == text.strip():
                return text
            self.notes.count("strip: a text lost the blanks at its ends", feedback.where)
            return text.strip()

        return dataclasses.replace(
            feedback,
            prompt=tuple(self._stripped_turn(turn, feedback.where) for turn in feedback.prompt),
            candidates=tuple(
                dataclasses.replace(
                    one, text=bare(one.text) or one.text, critique=bare(one.critique), revision=bare(one.revision)
                )
                for one in feedback.candidates
            ),
            reference=bare(feedback.reference),
        )

    def _stripped_turn(self, turn: Turn, where: str) -> Turn:
        """The turn without the blanks at its two ends; those between its parts stay."""
        parts = list(turn.parts)
        before = turn.text
        for places, bare in ((range(len(parts)), str.lstrip), (range(len(parts) - 1, -1, -1), str.rstrip)):
            for place in places:
                parts[place] = dataclasses.replace(parts[place], text=bare(parts[place].text))
                if parts[place].text:
                    break
        if "".join(part.text for part in parts) != before:
            self.notes.count("strip: a text lost the blanks at its ends", where)
        return dataclasses.replace(turn, parts=tuple(parts))

    def rejected(self, reason: str, where: str, detail: str = "") -> Rejected:
        return Rejected(reason=reason, where=where, source=self.label, detail=detail)


def _words(text: str | None) -> str | None:
    """The text, or None where it is blank."""
    return None if isinstance(text, str) and not text.strip() else text


def column(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The row's value in a column. Raises InputError with the nearest name when it is missing."""
    if name not in row:
        raise InputError(
            f"{where}: the column {name!r} is missing (the row has {_names(row)}){did_you_mean(name, map(str, row))}"
        )
    return row[name]


def text_column(row: Mapping[str, Any], name: str, where: str) -> str:
    """The row's text in a column. Raises InputError when it is missing or no text."""
    value = column(row, name, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: the column {name!r} is {value!r:.60}, a {type(value).__name__}; it must be text.")
    return value


def _names(row: Mapping[str, Any]) -> str:
    names = [named(str(name)) for name in row]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
