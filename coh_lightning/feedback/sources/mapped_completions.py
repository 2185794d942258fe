"""How a mapping reads the completions of a row, each with what people said of it."""

from __future__ import annotations

from collections.abc import Sequence

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import OVERALL, RatedCompletion
from coh_lightning.feedback.sources.elements import Element, elements_of
from coh_lightning.feedback.sources.fields import BESIDE, DOWN, ITSELF, KEY, PLACES, UP, Fields, paths_of
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.sources.values import ValueTable


class CompletionReader:
    """Reads completions; the arguments are `Mapping`'s settings of these names.

    Args:
        reader: reads the values.
        owner: whose settings these are, for messages.

    Raises:
        InputError: settings that contradict each other.
    """

    def __init__(
        self, completions: Sequence[Fields], *, each: str | None, drop_prompt: bool, reader: Reader, owner: str
    ) -> None:
        self.completions, self.each, self.drop_prompt, self.reader = completions, each, drop_prompt, reader
        if each is not None and len(completions) != 1:
            raise InputError(f"{owner}: with 'each' give one entry of 'completions', for all elements alike.")
        inside = [path for one in completions for path in one.paths()]
        if each is None and any(path in (ITSELF, KEY, *PLACES) or path.startswith(BESIDE) for path in inside):
            raise InputError(
                f"{owner}: {ITSELF}, {KEY}, {' and '.join(PLACES)} mean elements of a list; name the list in 'each'."
            )
        self._thumbs = [(ValueTable("up", one.up, owner), ValueTable("down", one.down, owner)) for one in completions]
        for place, (up, down) in enumerate(self._thumbs):
            for entry in completions[place].up:
                if entry in down:
                    raise InputError(
                        f"{owner}: {entry!r} is both in 'up' and in 'down' of completions[{place}]; keep it in one "
                        "of them."
                    )
            up.never_found(), down.never_found()

    def columns(self) -> list[str]:
        """The paths that every row has."""
        return [one.text for one in self.completions] if self.each is None else [self.each]

    def rated(self) -> set[str]:
        """The attributes of the ratings."""
        named = {name for one in self.completions for name in one.ratings}
        return named | {OVERALL for one in self.completions if one.rating is not None}

    def tables(self) -> list[ValueTable]:
        """The tables of thumbs that a mapping sets itself."""
        return [
            table
            for one, (up, down) in zip(self.completions, self._thumbs, strict=True)
            for table, given, usual in ((up, one.up, UP), (down, one.down, DOWN))
            if one.thumb is not None and given != usual
        ]

    def elements(self, row: SourceRow, where: str) -> list[Element]:
        """What the completions of a row are read from; none if `each` is empty."""
        return elements_of(row, self.each, len(self.completions), where)

    def of(self, elements: Sequence[Element], fronts: Sequence[str]) -> list[RatedCompletion]:
        """The completions.

        Args:
            fronts: the texts that `drop_prompt` removes from the front of a completion.
        """
        return [self._candidate(one, 0 if self.each is not None else one.place, fronts) for one in elements]

    def _candidate(self, element: Element, number: int, fronts: Sequence[str]) -> RatedCompletion:
        fields, reader, where = self.completions[number], self.reader, element.where

        def text(path: str | None) -> str | None:
            return None if path is None else reader.text(element.at(path), path, where)

        paths = ({} if fields.rating is None else {OVERALL: fields.rating}) | fields.ratings
        written = text(fields.text) or ""
        ratings = {attribute: reader.number(element.at(path), path, where) for attribute, path in paths.items()}
        critiques = [one for path in paths_of(fields.critique) for one in reader.texts(element.at(path), path, where)]
        return RatedCompletion(
            text=self._without_prompt(written, fronts, where) if self.drop_prompt else written,
            rank=self._rank(element, fields.rank),
            ratings={attribute: value for attribute, value in ratings.items() if value is not None},
            thumb=None
            if fields.thumb is None
            else reader.thumb(element.at(fields.thumb), fields.thumb, *self._thumbs[number], where),
            critique=" ".join(critiques) or None,
            revision=text(fields.revision),
            author=text(fields.author),
        )

    def _rank(self, element: Element, rank: float | str | None) -> float | None:
        if isinstance(rank, str):
            return self.reader.number(element.at(rank), rank, element.where, only_words=True)
        return None if rank is None else float(rank)

    def _without_prompt(self, text: str, fronts: Sequence[str], where: str) -> str:
        for front in fronts:
            for words in (front, front.strip()):
                if text.startswith(words):
                    self.reader.notes.count("drop_prompt: the prompt was removed from the front of a completion", where)
                    return text[len(words) :]
        self.reader.notes.count(
            "drop_prompt: a completion does not begin with the prompt, and was kept as it is", where
        )
        return text
