"""What a completion is read from: the row, or an element of the list or object `each`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.sources.fields import BESIDE, ITSELF, KEY, PLACES
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.paths import value_at


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
        """The value at a path inside the element.

        Raises:
            InputError: as `value_at`; or `.key` of an element of a list, or a parallel list of another length.
        """
        if self.each is None:
            return value_at(self.value, path, self.where)
        if path == ITSELF:
            return self.value
        if path in PLACES:
            return str(self.place + 1)
        if path == KEY and self.key is None:
            raise InputError(
                f"{self.where}: {KEY} is the key in an object, and {self.each} is a list here; {PLACES[0]} is the "
                "place in it."
            )
        if path == KEY:
            return self.key
        return (
            self._beside(path.removeprefix(BESIDE))
            if path.startswith(BESIDE)
            else value_at(self.value, path, self.where)
        )

    def _beside(self, path: str) -> Any:
        other = value_at(self.row, path, self.where)
        if isinstance(other, Mapping) and self.key is not None:
            if self.key not in other:
                raise InputError(
                    f"{self.where}: {path} has no {self.key!r:.60}{did_you_mean(self.key, map(str, other))}"
                )
            return other[self.key]
        if not isinstance(other, list) or len(other) != self.total:
            what = f"a list of {len(other)}" if isinstance(other, list) else f"a {type(other).__name__}"
            raise InputError(
                f"{self.where}: {path} is {what}; it must have one entry for each of the {self.total} elements of "
                f"{self.each}."
            )
        return other[self.place]


def elements_of(row: SourceRow, each: str | None, count: int, where: str) -> list[Element]:
    """The elements of `each`, or `count` times the row. Raises InputError if `each` is neither a list nor an object."""
    if each is None:
        return [Element(row, row, place, where) for place in range(count)]
    elements = value_at(row, each, where)
    if isinstance(elements, Mapping):
        return [
            Element(row, one, place, f"{where}, {each}[{key!r}]", each, str(key), len(elements))
            for place, (key, one) in enumerate(elements.items())
        ]
    if not isinstance(elements, list):
        raise InputError(
            f"{where}: {each} is a {type(elements).__name__}; it must be a list of completions, or an object of them "
            "by name."
        )
    return [
        Element(row, one, place, f"{where}, {each}[{place}]", each, None, len(elements))
        for place, one in enumerate(elements)
    ]
