"""Ranks from comparisons of a row's completions: votes, votes on pairs, a table of wins, a strength."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.errors import InputError, a_kind, named
from coh_lightning.feedback.judgments import TIE
from coh_lightning.feedback.records import RatedCompletion
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.paths import value_at
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.sources.values import ValueTable, is_number, normal, object_of
from coh_lightning.feedback.sources.votes import ranks_by_votes, ranks_by_wins

if TYPE_CHECKING:
    from coh_lightning.feedback.sources.mapping import Mapping as Settings
    from coh_lightning.feedback.sources.votes import PairVotes

Wins = dict[tuple[int, int], float]
"""(place, other place) -> how often, or how strongly, the first was preferred to the second."""


class Preference(NamedTuple):
    """The ranks of a row's completions, and what the record's `extra` keeps of the votes."""

    ranks: Sequence[float | None]
    extra: dict[str, Any]


class Preferences:
    """Reads which completion is better. Raises InputError for settings that contradict each other."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        owner, votes, strength = reader.owner, settings.votes, settings.strength
        count = None if settings.each is not None else len(settings.completions)
        ways = [name for name in ("votes", "pairs", "matrix", "strength") if getattr(settings, name)]
        if len(ways) > 1:
            raise InputError(f"{owner}: {' and '.join(map(repr, ways))} each rank the completions; give one of them.")
        if settings.vote_for and not votes:
            raise InputError(f"{owner}: 'votes' and 'vote_for' go together.")
        if votes and not settings.vote_for and count is not None:
            alone = "without it, votes are authors of the elements of 'each'"
            raise InputError(f"{owner}: 'votes' and 'vote_for' go together ({alone}).")
        if (settings.matrix or settings.pairs) and count == 1:
            raise InputError(f"{owner}: {ways[0]!r} needs two completions or more; 'completions' has 1.")
        if strength and (count not in (2, None) or settings.strength_for not in (0, 1)):
            found = f"there are {count or 'any number'}, and strength_for is {settings.strength_for}"
            raise InputError(f"{owner}: 'strength' compares two completions, 0 and 1; {found}.")
        self.vote_for = ValueTable("vote_for", _places(settings.vote_for, "vote_for", count, owner), owner)
        self.pairs: list[tuple[PairVotes, ValueTable]] = []
        for number, one in enumerate(settings.pairs):
            key = f"pairs[{number}]"
            if len(one.sides) != 2 or not all(isinstance(side, str) or _is_place(side, count) for side in one.sides):
                wanted = "give two, each the path of an author or the place of a completion, counted from 0"
                raise InputError(f"{owner}: {key}.sides is {one.sides!r:.80}; {wanted}.")
            key += ".vote_for"
            self.pairs.append((one, ValueTable(key, _places(one.vote_for, key, 2, owner), owner)))
        if settings.rater_preference and not (votes or strength):
            raise InputError(f"{owner}: 'rater_preference' needs 'votes' or a 'strength'; there is neither.")
        self.votes, self.matrix, self.reader = votes, settings.matrix, reader
        self.strength, self.strength_for = strength, settings.strength_for
        # without the setting, a row's own votes or strengths may be those of the raters
        self.rater_preference = settings.rater_preference or strength or (votes[0] if len(votes) == 1 else None)
        self.rater_preference_is_set = settings.rater_preference is not None
        self.given = bool(ways)
        self.tables = [self.vote_for, *(table for _, table in self.pairs)]

    def of(self, row: SourceRow, candidates: Sequence[RatedCompletion], where: str) -> Preference | None:
        """The preference of a row among these completions, if there is any. Raises InputError for a vote without an
        entry, a side that is not a completion, or a table that is not square.
        """
        if self.votes:
            return self._by_votes(row, candidates, where)
        if self.strength:
            return self._by_strength(row, len(candidates), where)
        wins = (self._wins_of_matrix if self.matrix else self._wins_of_pairs)(row, candidates, where)
        if not wins:
            return None
        ranks, complete = ranks_by_wins(wins, len(candidates))
        if not complete:
            message = "not all pairs of completions were compared; they are ranked by those that were"
            self.reader.notes.count(message, where)
        return Preference(ranks, {})

    def agree(
        self, row: SourceRow, candidates: Sequence[RatedCompletion], best: Collection[int], raters: int, where: str
    ) -> list[bool]:
        """Whether each rater preferred one of the completions at the places `best`; True for all if it is unknown.

        A rater who preferred another completion would otherwise praise or blame the wrong one.

        Raises:
            InputError: `rater_preference` does not have one value for each rater.
        """
        path = self.rater_preference
        own = None if path is None else value_at(row, path, where)
        if not isinstance(own, list) or len(own) != raters:
            if self.rater_preference_is_set:
                wanted = f"one preference for each of the {raters} raters"
                raise InputError(f"{where}: {path} is {a_kind(own)}; it must have {wanted}.")
            return [True] * raters
        if self.strength:
            strengths = [self.reader.number(one, str(path), where, only_words=True) for one in own]
            return [bool(one) and self._preferred(one or 0.0) in best for one in strengths]
        authors = _authors(candidates)
        return [
            bool(votes := self._given(one))
            and all(self._place(vote, self.vote_for, authors, where) in best for vote in votes)
            for one in own
        ]

    def _preferred(self, strength: float) -> int:
        return self.strength_for if strength > 0 else 1 - self.strength_for

    def _by_votes(self, row: SourceRow, candidates: Sequence[RatedCompletion], where: str) -> Preference | None:
        votes = [vote for path in self.votes for vote in self._given(value_at(row, path, where))]
        if not votes:
            return None
        count, authors = len(candidates), _authors(candidates)
        places = [self._place(vote, self.vote_for, authors, where) for vote in votes]
        for vote, place in zip(votes, places, strict=True):
            if place != TIE and not (isinstance(place, int) and place < count):
                found = f"the vote {vote!r:.60} is for completion {place} (counted from 0)"
                raise InputError(f"{where}: {found}; there are {count}.")
        return Preference(ranks_by_votes(places, count), {"votes": [str(vote) for vote in votes]})

    def _by_strength(self, row: SourceRow, count: int, where: str) -> Preference | None:
        path = str(self.strength)
        if count != 2:
            raise InputError(
                f"{where}: {path} says how strongly one of two completions was preferred; there are {count}."
            )
        strength = self.reader.number(value_at(row, path, where), path, where, only_words=True)
        if strength is None:
            return None
        ranks = [1.0 if not strength or place == self._preferred(strength) else 2.0 for place in range(2)]
        return Preference(ranks, {"margin": abs(strength)})

    def _wins_of_pairs(self, row: SourceRow, candidates: Sequence[RatedCompletion], where: str) -> Wins:
        wins: Wins = {}
        authors = _authors(candidates)
        for pair, table in self.pairs:
            for item, at in _comparisons(row, pair.each, where):
                votes = self._given(value_at(item, pair.vote, at))
                if not votes:
                    continue
                sides = [side if isinstance(side, int) else value_at(item, side, at) for side in pair.sides]
                one, other = (self._side(side, authors, len(candidates), at) for side in sides)
                if one == other:
                    raise InputError(f"{at}: both sides of a comparison are the completion {sides[0]!r:.60}.")
                by_name = {normal(side): place for place, side in enumerate(sides)}
                by_name |= {normal(candidates[side].author): place for place, side in enumerate((one, other))}
                for vote in votes:
                    place = self._place(vote, table, by_name, at)
                    wins[one, other] = wins.get((one, other), 0.0) + (place == 0)
                    wins[other, one] = wins.get((other, one), 0.0) + (place == 1)
        return wins

    def _wins_of_matrix(self, row: SourceRow, candidates: Sequence[RatedCompletion], where: str) -> Wins:
        path, count = str(self.matrix), len(candidates)
        table = value_at(row, path, where)
        if self.reader.is_missing(table):
            return {}
        numbers = [
            [
                self.reader.number(cell, path, where, only_words=True) if one != other else None
                for other, cell in enumerate(_in_order(line, candidates, path, where))
            ]
            for one, line in enumerate(_in_order(table, candidates, path, where))
        ]
        signed = any(number is not None and number < 0 for line in numbers for number in line)
        wins: Wins = {}
        for one in range(count):
            for other in range(one + 1, count):
                there, back = numbers[one][other], numbers[other][one]
                if (there is None and back is None) or (not signed and not there and not back):
                    continue  # counts of 0 and 0: nobody compared the two
                if there is None or back is None:
                    found = f"a number for completions {one} and {other} in only one direction"
                    raise InputError(f"{where}: {path} has {found}; give both.")
                wins[one, other], wins[other, one] = there, back
        return wins

    def _given(self, votes: Any) -> list[Any]:
        """The votes in a value that is one or a list of them, without missing ones."""
        if isinstance(votes, list):
            return [vote for one in votes for vote in self._given(one)]
        return [] if self.reader.is_missing(votes) else [votes]

    def _place(self, vote: Any, table: ValueTable, authors: Mapping[Any, int], where: str) -> int | str:
        if not isinstance(vote, Mapping):
            if vote in table:
                return table[vote]
            if normal(vote) in authors:
                return authors[normal(vote)]
            self.reader.notes.count(f"vote {vote!r:.60} is in no entry of {table.name!r} or 'missing'", where)
        known = table.shown or "none, and no completion has this author"
        raise InputError(f"{where}: a vote is {vote!r:.60}; {table.name} has {known}.")

    def _side(self, side: Any, authors: Mapping[Any, int], count: int, where: str) -> int:
        if not isinstance(side, list | Mapping):
            if (place := authors.get(normal(side))) is not None:
                return place
            if is_number(side) and float(side) in range(count):
                return int(float(side))
        wanted = f"the author of a completion, or a place, 0 to {count - 1}"
        raise InputError(f"{where}: a side of a comparison is {side!r:.60}; it must be {wanted}.")


def _authors(candidates: Sequence[RatedCompletion]) -> dict[Any, int]:
    """Author -> place, for authors of exactly one completion."""
    forms = [normal(one.author) for one in candidates]
    known = [place for place, one in enumerate(candidates) if one.author is not None]
    return {forms[place]: place for place in known if forms.count(forms[place]) == 1}


def _comparisons(row: SourceRow, path: str | None, where: str) -> Iterator[tuple[Any, str]]:
    if path is None:
        yield row, where
        return
    found = value_at(row, path, where)
    if not isinstance(found, list | Mapping) and found is not None:
        raise InputError(f"{where}: {path} is {a_kind(found)}; it must be a list of comparisons.")
    for key, item in found.items() if isinstance(found, Mapping) else enumerate(found or []):
        yield item, f"{where}, {path}[{named(str(key))}]"


def _in_order(line: Any, candidates: Sequence[RatedCompletion], path: str, where: str) -> list[Any]:
    """One value per completion, from a list of the same length or an object by author (None if it is missing)."""
    if isinstance(line, Mapping):
        by_author = {normal(key): value for key, value in line.items()}
        forms = [normal(one.author) for one in candidates]
        unknown = [key for key in line if normal(key) not in forms]
        if unknown:
            raise InputError(f"{where}: {path} is about {unknown[0]!r:.60}, which is the author of no completion.")
        return [by_author.get(form) for form in forms]
    if line is None:
        return [None] * len(candidates)
    if not isinstance(line, list) or len(line) != len(candidates):
        wanted = f"a line and a column for each of the {len(candidates)} completions"
        raise InputError(f"{where}: {path} has {a_kind(line)}; it must have {wanted}.")
    return line


def _is_place(value: object, count: int | None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (count or value + 1)


def _places(vote_for: Mapping[Any, Any], name: str, count: int | None, owner: str) -> dict[Any, int | str]:
    """vote -> place (quoted numbers too) or "tie". Raises InputError for anything else."""
    places: dict[Any, int | str] = {}
    for vote, place in object_of(vote_for, name, owner).items():
        found = int(place) if isinstance(place, str) and place.strip().isdecimal() else place
        if found != TIE and not _is_place(found, count):
            among = "a place, counted from 0" if count is None else f"a place, 0 to {count - 1}"
            raise InputError(f"{owner}: {name}[{vote!r:.60}] is {place!r:.60}; give {TIE!r} or {among}.")
        places[vote] = found
    return places
