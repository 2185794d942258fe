"""Parts of a mapping's settings: what a prompt is put together from; where a completion and what was said of it
stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coh_lightning.turns import Cut

ITSELF = "."
"""In place of a path: the element of `each` itself."""
PLACES = (".place", "#")
"""In place of a path: the place in `each`, counted from 1. "#" needs quotes in YAML, where it begins a comment."""
KEY = ".key"
"""In place of a path: the key under which the element stands in `each`."""
BESIDE = ".beside."
"""Before a path of the row: the value of a list (or object) beside `each`, at the place (or under the key) of the
element.
"""

UP: list[bool | int] = [True, 1]
DOWN: list[bool | int] = [False, 0]
"""What a thumb is where a mapping does not say."""


@dataclass(frozen=True)
class Piece:
    """A piece of a prompt that is put together: the words `text`, which are never cut, then what stands in `field`.

    Args:
        text: fixed words.
        field: path of a text of the row, behind them.
        cut: from which end truncation may shorten the field's text: never, front or back.
        optional: whether an empty or missing field leaves out the piece and its words (otherwise it is an error).
    """

    text: str = ""
    field: str | None = None
    cut: Cut = "back"
    optional: bool = False


@dataclass(frozen=True)
class Fields:
    """Where one completion stands, and what people said of it: paths inside the row, or inside an element of `each`.

    Where the row has several lists of the same length, one is `each`, and `.beside.` leads to the others::

        {"answers": ["A", "B"], "scores": [5, 3]}        each: answers        {text: ., rating: .beside.scores}

    Args:
        text: the completion; "." is the element of `each` itself.
        rank: path of a rank, a number for all rows (1 for the chosen column, 2 for the rejected one), or ".place", the
            place in the list `each` ("#", in quotes, is the same). Smaller is better.
        rating: path of a rating (it gets the name "overall").
        ratings: attribute -> path of its rating.
        thumb: path of a value that is one of `up` or of `down`.
        up: the values that mean a thumb up (compared as `Mapping` says); without it true and 1.
        down: the values that mean a thumb down; without it false and 0.
        critique: path, or several, of what somebody said; several texts are joined by a blank.
        revision: path of a better text.
        author: path of who wrote the completion; ".key" is the key under which the element stands, where `each` is an
            object, and ".place" its place.
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
        given = [
            self.text,
            self.rank,
            self.rating,
            *self.ratings.values(),
            self.thumb,
            *paths_of(self.critique),
            self.revision,
            self.author,
        ]
        return [path for path in given if isinstance(path, str)]


def paths_of(paths: str | list[str] | None) -> list[str]:
    """One path, several or none, as a list."""
    return [paths] if isinstance(paths, str) else paths or []
