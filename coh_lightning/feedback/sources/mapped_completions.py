"""How a mapping reads the completions of a row, each with its feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.errors import InputError, a_kind, did_you_mean
from coh_lightning.feedback.records import RatedCompletion
from coh_lightning.feedback.sources.fields import BESIDE, DOWN, ITSELF, KEY, PLACES, UP, paths_of
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.paths import value_at
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.sources.values import ValueTable

if TYPE_CHECKING:
    from coh_lightning.feedback.sources.mapping import Mapping as Settings


class Element(NamedTuple):
    """An element of `each` (or the row, if `each` is None), from which the completion at this place is read."""

    row: SourceRow
    value: Any
    place: int
    where: str
    each: str | None = None
    key: str | None = None
    total: int = 0
    """The number of elements."""

    def at(self, path: str) -> Any:
        """The value at a path inside the element. Raises InputError as `value_at` does; also for `.key` in a list, and
        for a parallel list of another length.
        """
        if self.each is None:
            return value_at(self.value, path, self.where)
        if path == ITSELF:
            return self.value
        if path in PLACES:
            return str(self.place + 1)
        if path == KEY:
            if self.key is None:
                raise InputError(f"{self.where}: {self.each} is a list, which has no {KEY}; use {PLACES[0]}.")
            return self.key
        if not path.startswith(BESIDE):
            return value_at(self.value, path, self.where)
        path = path.removeprefix(BESIDE)
        other = value_at(self.row, path, self.where)
        if isinstance(other, Mapping) and self.key is not None:
            if self.key not in other:
                near = did_you_mean(self.key, map(str, other))
                raise InputError(f"{self.where}: {path} has no {self.key!r:.60}{near}")
            return other[self.key]
        if not isinstance(other, list) or len(other) != self.total:
            wanted = f"one entry for each of the {self.total} elements of {self.each}"
            raise InputError(f"{self.where}: {path} is {a_kind(other)}; it must have {wanted}.")
        return other[self.place]


class CompletionReader:
    """Reads completions. Raises InputError for settings that contradict each other."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self.completions, self.each, self.reader, owner = settings.completions, settings.each, reader, reader.owner
        self.drop_prompt = settings.drop_prompt
        if self.each is not None and len(self.completions) != 1:
            raise InputError(f"{owner}: with 'each' give one entry of 'completions', for all elements alike.")
        inside = [path for one in self.completions for path in one.paths()]
        if self.each is None and any(path in (ITSELF, KEY, *PLACES) or path.startswith(BESIDE) for path in inside):
            names = f"{ITSELF}, {KEY}, {' and '.join(PLACES)}"
            raise InputError(f"{owner}: {names} mean elements of a list; name the list in 'each'.")
        self._thumbs: list[tuple[ValueTable, ValueTable]] = []
        for place, one in enumerate(self.completions):
            up, down = ValueTable("up", one.up, owner), ValueTable("down", one.down, owner)
            for entry in one.up:
                if entry in down:
                    raise InputError(f"{owner}: {entry!r} is in 'up' and in 'down' of completions[{place}]; keep one.")
            down.never_found()  # forget the lookups above
            self._thumbs.append((up, down))

    def columns(self) -> list[str]:
        """The paths that every row has."""
        return [one.text for one in self.completions] if self.each is None else [self.each]

    def rated(self) -> set[str]:
        """The attributes of the ratings."""
        return {name for one in self.completions for name in one.rating_paths()}

    def tables(self) -> list[ValueTable]:
        """The tables of thumbs that a mapping sets itself."""
        return [
            table
            for one, (up, down) in zip(self.completions, self._thumbs, strict=True)
            for table, given, usual in ((up, one.up, UP), (down, one.down, DOWN))
            if one.thumb is not None and given != usual
        ]

    def elements(self, row: SourceRow, where: str) -> list[Element]:
        """The elements of `each`, or the row once per completion. Raises InputError if `each` is neither a list nor an
        object.
        """
        each = self.each
        if each is None:
            return [Element(row, row, place, where) for place in range(len(self.completions))]
        elements = value_at(row, each, where)
        if not isinstance(elements, Mapping | list):
            raise InputError(f"{where}: {each} is {a_kind(elements)}; it must be a list of completions, or an object.")
        items = elements.items() if isinstance(elements, Mapping) else [(None, one) for one in elements]
        names = [f"{where}, {each}[{place if key is None else repr(key)}]" for place, (key, _) in enumerate(items)]
        return [
            Element(row, one, place, names[place], each, key, len(elements)) for place, (key, one) in enumerate(items)
        ]

    def of(self, elements: Sequence[Element], fronts: Sequence[str]) -> list[RatedCompletion]:
        """The completions; `drop_prompt` removes the texts `fronts` from their front."""
        return [self._candidate(one, 0 if self.each is not None else one.place, fronts) for one in elements]

    def _candidate(self, element: Element, number: int, fronts: Sequence[str]) -> RatedCompletion:
        fields, reader, where = self.completions[number], self.reader, element.where

        def text(path: str | None) -> str | None:
            return None if path is None else reader.text(element.at(path), path, where)

        def thumb(path: str | None) -> bool | None:
            return None if path is None else reader.thumb(element.at(path), path, *self._thumbs[number], where)

        written = text(fields.text) or ""
        paths = fields.rating_paths()
        ratings = {attribute: reader.number(element.at(path), path, where) for attribute, path in paths.items()}
        critiques = [one for path in paths_of(fields.critique) for one in reader.texts(element.at(path), path, where)]
        return RatedCompletion(
            text=self._without_prompt(written, fronts, where) if self.drop_prompt else written,
            rank=self._rank(element, fields.rank),
            ratings={attribute: value for attribute, value in ratings.items() if value is not None},
            thumb=thumb(fields.thumb),
            critique=" ".join(critiques) or None,
            revision=text(fields.revision),
            author=text(fields.author),
        )

    def _rank(self, element: Element, rank: float | str | None) -> float | None:
        if isinstance(rank, str):
            return self.reader.number(element.at(rank), rank, element.where, only_words=True)
        return None if rank is None else float(rank)

    def _without_prompt(self, text: str, fronts: Sequence[str], where: str) -> str:
        count = self.reader.notes.count
        for front in fronts:
            for words in (front, front.strip()):
                if text.startswith(words):
                    count("drop_prompt: the prompt was removed from the front of a completion", where)
                    return text[len(words) :]
        count("drop_prompt: a completion does not begin with the prompt, and was kept as it is", where)
        return text
