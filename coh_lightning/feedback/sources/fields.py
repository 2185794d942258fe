"""Settings of a mapping: the pieces of a prompt, and the paths of a completion and its feedback."""

from __future__ import annotations

from dataclasses import dataclass, field

from coh_lightning.feedback.records import OVERALL
from coh_lightning.feedback.turns import Cut

ITSELF = "."
"""As a path: the element of `each` itself."""
PLACES = (".place", "#")
"""As a path: the place in `each`, counted from 1. In YAML "#" needs quotes, as it begins a comment."""
KEY = ".key"
"""As a path: the key of the element in `each`."""
BESIDE = ".beside."
"""Before a path of the row: the value at the element's place (or key) in a list (or object) parallel to `each`."""

UP: list[bool | int] = [True, 1]
DOWN: list[bool | int] = [False, 0]
"""The values of a thumb if a mapping does not set them."""


@dataclass(frozen=True)
class Piece:
    """A piece of an assembled prompt: the words `text`, which are never cut, then the text in `field`.

    Args:
        text: fixed words.
        field: path of a text of the row, which follows them.
        cut: the end from which truncation may shorten the field's text: never, front or back.
        optional: an empty or missing field leaves out the piece with its words; otherwise it is an error.
    """

    text: str = ""
    field: str | None = None
    cut: Cut = "back"
    optional: bool = False


@dataclass(frozen=True)
class Fields:
    """The paths of one completion and its feedback, in the row or in an element of `each`.

    If the row has several parallel lists, one is `each`, and `.beside.` leads to the others::

        {"answers": ["A", "B"], "scores": [5, 3]}        each: answers        {text: ., rating: .beside.scores}

    Args:
        text: the completion; "." is the element of `each` itself.
        rank: path of a rank; or a number for all rows (1 for the chosen column, 2 for the rejected one); or ".place"
            (the same as "#"), the place in the list `each`. Smaller is better.
        rating: path of a rating (its attribute is "overall").
        ratings: attribute -> path of its rating.
        thumb: path of a value that is one of `up` or of `down`.
        up: the values that mean a thumb up (compared by value, see `Mapping`); by default true and 1.
        down: the values that mean a thumb down; by default false and 0.
        critique: path or paths of critiques; several texts are joined with spaces.
        revision: path of a better text.
        author: path of who wrote the completion; ".key" is the key in `each` if that is an object, ".place" the place.
    """

    text: str
    rank: float | str | None = None
    rating: str | None = None
    ratings: dict[str, str] = field(default_factory=dict)
    thumb: str | None = None
    up: list = field(default_factory=lambda: list(UP))
    down: list = field(default_factory=lambda: list(DOWN))
    critique: str | list[str] | None = None
    revision: str | None = None
    author: str | None = None

    def paths(self) -> list[str]:
        """All the paths."""
        given = [self.text, self.rank, *self.rating_paths().values(), self.thumb, *paths_of(self.critique)]
        return [path for path in (*given, self.revision, self.author) if isinstance(path, str)]

    def rating_paths(self) -> dict[str, str]:
        """Attribute -> path of its rating."""
        return ({} if self.rating is None else {OVERALL: self.rating}) | self.ratings


def paths_of(paths: str | list[str] | None) -> list[str]:
    """One path, several or none, as a list."""
    return [paths] if isinstance(paths, str) else paths or []
