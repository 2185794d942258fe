"""The base class of all sources: rows from the hub or local files, each one `Feedback` or a counted rejection."""

from __future__ import annotations

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from coh_lightning.errors import InputError, did_you_mean, named
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected, content_id
from coh_lightning.feedback.sources.cells import decoded
from coh_lightning.feedback.sources.file_names import data_suffix
from coh_lightning.feedback.sources.files import Reading, SourceRow, SourceRows, converted, hub_rows, read_rows
from coh_lightning.feedback.sources.folders import chosen_files, file_notes, is_local
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.turns import Turn


@dataclass(frozen=True)
class Source(ABC):
    """Rows of one format from the hub or local files, each turned into one `Feedback`.

    Args:
        path: a dataset's name on the hub, or a local file, pattern or folder (.jsonl, .json, .csv, .tsv, .parquet,
            .arrow, .feather, .txt, each also .gz, .bz2, .xz, .zst; a folder of `save_to_disk`).
        subset: the configuration of the dataset, or its folder.
        split: which split; ignored for a single local file or a pattern.
        revision: branch or commit on the hub.
        name: the name in reports and the prefix of record ids; made from `path` if empty.
        weight: this source's share of the mixture, relative to the other weights; None (for all sources) mixes by size.
        limit: read only this many rows.
        merge_prompts: merge all rows with the same prompt into one record.
        task: the noun for a completion, if the format's own does not fit.
        aspect: what ranks and thumbs judged (helpful, harmless, ...).
        separator: the separator of CSV and TSV; None: that of a first line `sep=;`, or the one that gives the header
            all needed columns.
        decode: whether cells of text that are JSON or a Python literal are parsed: true, false, or None, which parses
            only messages and counts the others.
        strip: strip leading and trailing whitespace of every text (turns, completions, critiques, revisions,
            references) and count the texts that changed. By default texts are kept exactly.
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
    """Whether texts inside the lists and objects of a row are parsed too, as a path may lead to them."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if not self.path:
            raise InputError(f"{kind}.path is empty; give a dataset's name on the hub or a local file.")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise InputError(f"{kind}.weight is {self.weight}; it must be above 0 (or leave the source out).")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            wanted = "one character, such as ';' (no quote or line end)"
            raise InputError(f"{kind}.separator is {self.separator!r}; it must be {wanted}.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"{kind}.limit is {self.limit}; it must be at least 1.")

    @cached_property
    def label(self) -> str:
        """The name in reports and ids: `name`, or the end of `path` with `subset` after it."""
        if self.name:
            return self.name
        end = Path(self.path).name
        suffix = data_suffix(Path(end))
        stem = end if suffix is None else end[: end.lower().rindex(suffix)]
        stem = re.sub(r"[*?\[\]]", "", stem).strip("-_.") or type(self).__name__.lower()
        return f"{stem}-{self.subset}" if self.subset else stem

    @cached_property
    def notes(self) -> SourceNotes:
        """What was noticed while reading; `load` clears it first and shows it afterwards."""
        return SourceNotes()

    def after_rows(self) -> None:  # noqa: B027 - most sources have nothing to add
        """Called by `load` after the last row, for notes on what no row had."""

    def rows(self) -> SourceRows:
        """(where, row) of every row, in order; an unreadable row comes as an `InputError`. Raises InputError for a
        missing, empty or damaged file, or a dataset that can't be downloaded.
        """
        return islice(self.all_rows(), self.limit)

    @abstractmethod
    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        """The row as one record, or the reason why it can't be used (an empty completion, contexts that differ). Raises
        InputError if the row is not in this source's format; it names `where` and the column.
        """

    def columns(self) -> Sequence[str]:
        """The columns that every row of this source has, if they are known."""
        return ()

    def structured(self) -> Collection[str]:
        """The columns that are lists or objects and never text; in files of text alone (CSV) they are parsed."""
        return ()

    def fits(self, header: Sequence[str]) -> bool:
        """Whether these columns include all that this source needs."""
        return set(self.columns()) <= set(header)

    def stored_split(self) -> str:
        """The split to read; a source that makes its own splits overrides it."""
        return self.split

    def hub_arguments(self) -> dict[str, Any]:
        """Arguments of `datasets.load_dataset`, besides `split` and `revision`."""
        return {"path": self.path} if self.subset is None else {"path": self.path, "name": self.subset}

    def all_rows(self) -> SourceRows:
        """As `rows`, without `limit`."""
        if is_local(self.path):
            rows = self._local_rows()
        else:
            rows = hub_rows(self.hub_arguments(), split=self.stored_split(), revision=self.revision)

        def parsed(row: SourceRow, where: str) -> SourceRow:
            return decoded(row, self.decode, where, self.notes, self.structured(), nested=self.nested_cells)

        return converted(rows, parsed)

    def _local_rows(self) -> SourceRows:
        chosen = chosen_files(self.path, subset=self.subset, split=self.stored_split())
        self.notes.files, self.notes.passed_over = list(map(str, chosen.files)), chosen.passed_over
        for line in file_notes(chosen, self.path):
            self.notes.say(line)
        reading = Reading(separator=self.separator, fits=self.fits if self.columns() else None, say=self.notes.say)
        for file in chosen.files:
            yield from read_rows(file, reading)

    def record(
        self,
        prompt: Sequence[Turn],
        candidates: Sequence[RatedCompletion],
        *,
        where: str,
        task: str = "answer",
        id: str = "",
        aspect: str | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
        reference: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Feedback | Rejected:
        """The record with this source's name, task and aspect. An empty prompt or completion is rejected, since public
        data has both; blank critiques and revisions count as missing.
        """
        if any(isinstance(candidate.text, str) and not candidate.text.strip() for candidate in candidates):
            return self.rejected("a completion is empty", where)
        if prompt and prompt[-1].role == "user" and not prompt[-1].text.strip():
            return self.rejected("the prompt is empty", where)
        feedback = Feedback(
            id=id,
            prompt=tuple(prompt),
            candidates=tuple(
                dataclasses.replace(one, critique=_unless_blank(one.critique), revision=_unless_blank(one.revision))
                for one in candidates
            ),
            scales=scales or {},
            task=self.task or task,
            aspect=self.aspect or aspect,
            reference=_unless_blank(reference),
            source=self.label,
            where=where,
            extra=extra or {},
        )
        feedback = self.stripped(feedback)
        return feedback if id else dataclasses.replace(feedback, id=content_id(feedback))

    def stripped(self, feedback: Feedback) -> Feedback:
        """The record, with `strip` without whitespace at the ends of its texts."""
        if not self.strip:
            return feedback

        def bare(text: str | None) -> str | None:
            if text is None or text == text.strip():
                return text
            self.notes.count("strip: whitespace was removed from the ends of a text", feedback.where)
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
        """The turn without whitespace at its ends; that between its parts stays."""
        parts = list(turn.parts)
        before = turn.text
        for places, bare in ((range(len(parts)), str.lstrip), (reversed(range(len(parts))), str.rstrip)):
            for place in places:
                parts[place] = dataclasses.replace(parts[place], text=bare(parts[place].text))
                if parts[place].text:
                    break
        if "".join(part.text for part in parts) != before:
            self.notes.count("strip: whitespace was removed from the ends of a text", where)
        return dataclasses.replace(turn, parts=tuple(parts))

    def rejected(self, reason: str, where: str, detail: str = "") -> Rejected:
        return Rejected(reason=reason, where=where, source=self.label, detail=detail)


def _unless_blank(text: str | None) -> str | None:
    return None if isinstance(text, str) and not text.strip() else text


def column(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The row's value in a column. Raises InputError with the nearest name if it is missing."""
    if name not in row:
        names = [named(str(one)) for one in row]
        there = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        near = did_you_mean(name, map(str, row))
        raise InputError(f"{where}: the column {name!r} is missing (the row has {there}){near}")
    return row[name]


def text_column(row: Mapping[str, Any], name: str, where: str) -> str:
    """The row's text in a column. Raises InputError if it is missing or not text."""
    value = column(row, name, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: the column {name!r} is {value!r:.60}, a {type(value).__name__}; it must be text.")
    return value
