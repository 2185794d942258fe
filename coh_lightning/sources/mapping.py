"""Any other format, by a mapping of fields: where in a row the prompt, the completions and what people said of them stand. `conf/data/` has worked examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Cut, Feedback, Part, Rejected, Turn, did_you_mean, shown
from coh_lightning.sources.base import Source, column
from coh_lightning.sources.dialogue import is_messages, turns_of_messages, turns_of_text, user_turn
from coh_lightning.sources.files import Row

TIE = "tie"
PLACE = "#"
ITSELF = "."


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
    """Where one completion stands, and what people said of it. All are paths inside the row, or inside an element of `each`.

    Args:
        text: the completion; "." is the element of `each` itself.
        rank: path of a rank, a number for all rows (1 for the chosen column, 2 for the rejected one), or "#", the place in the list `each`. Smaller is better.
        rating: path of a rating (it gets the name "overall").
        ratings: attribute -> path of its rating.
        thumb: path of a value that is one of `up` or of `down`.
        up: the values that mean a thumb up.
        down: the values that mean a thumb down.
        critique: path, or several, of what somebody said; several texts are joined by a blank.
        revision: path of a better text.
        author: path of who wrote the completion.
    """

    text: str
    rank: float | str | None = None
    rating: str | None = None
    ratings: dict[str, str] = field(default_factory=dict)
    thumb: str | None = None
    up: list[bool | int | str] = field(default_factory=lambda: [True])
    down: list[bool | int | str] = field(default_factory=lambda: [False])
    critique: str | list[str] | None = None
    revision: str | None = None
    author: str | None = None


@dataclass(frozen=True)
class Mapping(Source):
    """Rankings, ratings, critiques, thumbs and votes in files of any shape.

    A path is a column's name, or names and list places with dots between: `annotations.helpfulness.Rating`, `references.0`. A name that a row lacks is refused
    with the nearest one; a value that is null, blank or one of `missing` means that nobody said this. A list of several raters' ratings counts with its mean,
    a list of their critiques is joined by blanks::

        {"question": "q", "answers": [{"text": "a", "stars": 4}, {"text": "b", "stars": "N/A"}]}

        prompt: question                                          user turn "q"
        each: answers                                             completions "a" (overall 4 of 1 to 5), "b" (no rating)
        completions: [{text: text, rating: stars}]
        scales: {overall: [1, 5]}
        missing: [N/A]

    Args:
        prompt: path of a text or of a list of messages; or the pieces that make up the user's turn.
        system: path of a system prompt.
        turn_markers: [user's, assistant's] marker of a prompt that holds a whole conversation in one text.
        completions: the completions, one by one; with `each` a single one, for all its elements.
        each: path of a list of completions.
        votes: paths of votes on two or more completions; the most votes win, and no majority is a tie.
        vote_for: vote (as text) -> the place of the completion it is for, counted from 0, or "tie".
        id: path of an id; without it one is made from the content.
        reference: path of a text to compare with (ROUGE).
        scales: attribute -> [worst, best] of its ratings.
        values: a rating in words -> its number.
        missing: values that mean "not given".
        equal: paths that must hold the same in a row; a row where they differ is rejected and counted.
        keep: paths whose values are kept in the record's `extra`.
        scalars_as_text: write true, 3 and the like as text where a text is asked for (some files have lost the quotes); otherwise they are errors.
    """

    prompt: str | list[Piece] = ""
    system: str | None = None
    turn_markers: list[str] | None = None
    completions: list[Fields] = field(default_factory=list)
    each: str | None = None
    votes: list[str] = field(default_factory=list)
    vote_for: dict[str, int | str] = field(default_factory=dict)
    id: str | None = None
    reference: str | None = None
    scales: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    missing: list[bool | int | float | str] = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    scalars_as_text: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompt or not self.completions:
            raise InputError(f"Mapping of {self.path}: 'prompt' and 'completions' must say where they stand in a row.")
        if self.each is not None and (len(self.completions) != 1 or self.votes):
            raise InputError(f"Mapping of {self.path}: with 'each' give one entry of 'completions', for all elements alike, and no 'votes'.")
        if self.each is None and any(PLACE == one.rank or ITSELF == one.text for one in self.completions):
            raise InputError(f"Mapping of {self.path}: {PLACE!r} and {ITSELF!r} mean elements of a list; name the list by 'each'.")
        if self.turn_markers is not None and len(self.turn_markers) != 2:
            raise InputError(f"Mapping of {self.path}: turn_markers has {len(self.turn_markers)} entries; give the user's and the assistant's marker.")
        for vote, place in self.vote_for.items():
            if place != TIE and not (isinstance(place, int) and 0 <= place < len(self.completions)):
                raise InputError(f"Mapping of {self.path}: vote_for[{vote!r}] is {place!r}; give {TIE!r} or a place, 0 to {len(self.completions) - 1}.")
        if bool(self.votes) != bool(self.vote_for):
            raise InputError(f"Mapping of {self.path}: 'votes' and 'vote_for' go together.")
        for attribute, scale in self.scales.items():
            if len(scale) != 2:
                raise InputError(f"Mapping of {self.path}: the scale of {attribute!r} has {len(scale)} entries; give [worst, best].")

    def columns(self) -> Sequence[str]:
        """The paths of the prompt and the completions, which every row has."""
        pieces = [self.prompt] if isinstance(self.prompt, str) else [piece.field for piece in self.prompt if piece.field and not piece.optional]
        return [*pieces, *([one.text for one in self.completions] if self.each is None else [self.each])]

    def structured(self) -> set[str]:
        """Where a path leads into a column, and the list `each`."""
        paths = [*self.columns(), *self.votes, *self.equal, self.system, self.reference, self.id]
        for one in self.completions if self.each is None else ():
            paths += [one.rating, one.thumb, one.revision, one.author, *one.ratings.values(), one.rank if isinstance(one.rank, str) else None]
        inner = {path.split(".")[0].strip("\"'`") for path in paths if path and "." in path.strip(ITSELF)}
        return inner if self.each is None else inner | {self.each}

    def fits(self, header: Sequence[str]) -> bool:
        return all(path in header or path.split(".")[0].strip("\"'`") in header for path in self.columns())

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        if self.equal and any(value_at(row, path, where) != value_at(row, self.equal[0], where) for path in self.equal):
            return self.rejected(f"{', '.join(self.equal)} differ", where)
        if self.each is None:
            candidates = [self._candidate(row, fields, place, where) for place, fields in enumerate(self.completions)]
        else:
            elements = value_at(row, self.each, where)
            if not isinstance(elements, list):
                raise InputError(f"{where}: {self.each} is a {type(elements).__name__}; it must be a list of completions.")
            if not elements:
                return self.rejected("no completions", where)
            candidates = [self._candidate(element, self.completions[0], place, f"{where}, {self.each}[{place}]") for place, element in enumerate(elements)]
        extra = {path: value_at(row, path, where) for path in self.keep}
        if self.votes:
            votes = [str(value_at(row, path, where)) for path in self.votes]
            candidates = [Candidate(**(vars(one) | {"rank": rank})) for one, rank in zip(candidates, self._ranks_by_vote(votes, where), strict=True)]
            extra["votes"] = votes
        return self.record(
            self._prompt(row, where),
            candidates,
            where=where,
            task="answer",
            id="" if self.id is None else self._id(value_at(row, self.id, where), where),
            scales={attribute: (float(worst), float(best)) for attribute, (worst, best) in self.scales.items()},
            reference=None if self.reference is None else self._text(value_at(row, self.reference, where), self.reference, where),
            extra=extra,
        )

    def _id(self, value: Any, where: str) -> str:
        if self._is_missing(value):
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{where}: {self.id} is {shown(value)}; an id is a text or a whole number.")
        return str(value)

    def _prompt(self, row: Row, where: str) -> tuple[Turn, ...]:
        turns: tuple[Turn, ...]
        if not isinstance(self.prompt, str):
            turns = (Turn("user", tuple(part for piece in self.prompt for part in self._parts(piece, row, where))),)
        else:
            value = value_at(row, self.prompt, where)
            if is_messages(value):
                turns = turns_of_messages(value, self.prompt, where, self.notes)
            elif self.turn_markers is not None and isinstance(value, str) and not self._is_missing(value):
                turns = turns_of_text(value, self.turn_markers[0], self.turn_markers[1])
            else:
                text = self._text(value, self.prompt, where) or ""
                turns = (user_turn(text.strip()),)
        system = None if self.system is None else self._text(value_at(row, self.system, where), self.system, where)
        return turns if system is None else (Turn("system", (Part(system, "never"),)), *turns)

    def _parts(self, piece: Piece, row: Row, where: str) -> list[Part]:
        fixed = [Part(piece.text, "never")] if piece.text else []
        if piece.field is None:
            return fixed
        if piece.optional and piece.field.split(".")[0] not in row and piece.field not in row:
            return []
        text = self._text(value_at(row, piece.field, where), piece.field, where)
        if text is None:
            if not piece.optional:
                raise InputError(f"{where}: {piece.field} is empty; mark the piece of the prompt as optional if it may be.")
            return []
        return [*fixed, Part(text.strip(), piece.cut)]

    def _candidate(self, item: Any, fields: Fields, place: int, where: str) -> Candidate:
        text = self._text(item if fields.text == ITSELF else value_at(item, fields.text, where), fields.text, where)
        paths = ({} if fields.rating is None else {"overall": fields.rating}) | fields.ratings
        ratings = {attribute: self._number(value_at(item, path, where), path, where) for attribute, path in paths.items()}
        critiques = [fields.critique] if isinstance(fields.critique, str) else fields.critique or []
        said = [words for path in critiques for words in self._texts(value_at(item, path, where), path, where)]
        return Candidate(
            text=(text or "").strip(),
            rank=self._rank(item, fields.rank, place, where),
            ratings={attribute: value for attribute, value in ratings.items() if value is not None},
            thumb=None if fields.thumb is None else self._thumb(value_at(item, fields.thumb, where), fields, where),
            critique=" ".join(said) or None,
            revision=None if fields.revision is None else self._text(value_at(item, fields.revision, where), fields.revision, where),
            author=None if fields.author is None else self._text(value_at(item, fields.author, where), fields.author, where),
        )

    def _rank(self, item: Any, rank: float | str | None, place: int, where: str) -> float | None:
        if rank == PLACE:
            return float(place + 1)
        return self._number(value_at(item, rank, where), rank, where) if isinstance(rank, str) else None if rank is None else float(rank)

    def _ranks_by_vote(self, votes: list[str], where: str) -> list[float]:
        """1 for the completion with the most votes and 2 for the others; a tie, 1 for all, where "tie" has the most votes or nothing has more than the rest."""
        for vote in votes:
            if vote not in self.vote_for:
                raise InputError(f"{where}: a vote is {vote!r:.60}; vote_for knows {', '.join(self.vote_for)}.")
        (winner, most), *others = Counter(self.vote_for[vote] for vote in votes).most_common()
        if winner == TIE or (others and others[0][1] == most):
            return [1.0] * len(self.completions)
        return [1.0 if place == winner else 2.0 for place in range(len(self.completions))]

    def _thumb(self, value: Any, fields: Fields, where: str) -> bool | None:
        if self._is_missing(value):
            return None
        for thumb, meaning in ((True, fields.up), (False, fields.down)):
            if value in meaning:
                return thumb
        raise InputError(f"{where}: {fields.thumb} is {value!r:.60}; 'up' has {fields.up} and 'down' has {fields.down}.")

    def _is_missing(self, value: Any) -> bool:
        return value is None or (isinstance(value, str) and not value.strip()) or (not isinstance(value, list | dict) and value in self.missing)

    def _text(self, value: Any, path: str, where: str) -> str | None:
        if self._is_missing(value):
            return None
        if isinstance(value, str):
            return value.strip()
        if self.scalars_as_text and isinstance(value, bool | int | float):
            return str(value)
        hint = " (scalars_as_text: true writes it as text)" if isinstance(value, bool | int | float) else ""
        raise InputError(f"{where}: {path} is {value!r:.60}, a {type(value).__name__}; it must be text{hint}.")

    def _texts(self, value: Any, path: str, where: str) -> list[str]:
        texts = [self._text(one, path, where) for one in (value if isinstance(value, list) else [value])]
        return [text for text in texts if text is not None]

    def _number(self, value: Any, path: str, where: str) -> float | None:
        if isinstance(value, list):
            numbers = [number for one in value if (number := self._number(one, path, where)) is not None]
            return sum(numbers) / len(numbers) if numbers else None
        if self._is_missing(value):
            return None
        if isinstance(value, str) and value.strip() in self.values:
            return float(self.values[value.strip()])
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            known = f"; 'values' knows {', '.join(self.values)}" if self.values else ""
            raise InputError(f"{where}: {path} is {value!r:.60}; it must be a number, or a word that 'values' or 'missing' explains{known}.")
        return number


def value_at(item: Any, path: str, where: str) -> Any:
    """What stands at a path: `a.b.0` is item["a"]["b"][0]; a column whose own name has dots in it comes first; nothing is below a null.

    Raises:
        InputError: a name or a place that is not there, with the nearest name.
    """
    if isinstance(item, AnyMapping) and path in item:
        return item[path]
    value = item
    steps = path.split(".")
    for depth, step in enumerate(steps):
        if value is None:
            return None
        if isinstance(value, Sequence) and not isinstance(value, str) and step.isdigit():
            if int(step) >= len(value):
                raise InputError(f"{where}: {'.'.join(steps[:depth])} has {len(value)} elements; {path} asks for number {step} (counted from 0).")
            value = value[int(step)]
        elif isinstance(value, AnyMapping):
            if step not in value and depth:
                raise InputError(f"{where}: {'.'.join(steps[:depth])} has no {step!r}{did_you_mean(step, map(str, value))}")
            value = column(value, step, where)
        else:
            raise InputError(f"{where}: {'.'.join(steps[:depth]) or 'the row'} is a {type(value).__name__}; there is no {step!r} in it.")
    return value
