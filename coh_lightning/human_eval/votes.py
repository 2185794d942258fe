"""Votes on pairs of answers, and what they say together: the order of the answers to one prompt, or why there is none.

raters A A B            -> A          the answer that more raters chose than the other, and than called them equal
raters A tie tie        -> a tie      most raters
raters A B              -> a tie      nobody has the most; raters chose opposite sides: a contradiction
A > B, B > C, A > C     -> ranks 1 2 3
A > B, A > C            -> two pairs: nobody compared B with C
A = B, B = C, A > C     -> three pairs: no ranks say all three
A > B, B > C, C > A     -> a cycle: no order at all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coh_lightning.feedback.judgments import TIE
from coh_lightning.feedback.sources.votes import ranks_by_votes, ranks_by_wins
from coh_lightning.feedback.turns import Turn

PEOPLE = "people"
"""Who voted, if it was not a judge."""


@dataclass(frozen=True)
class Prompt:
    """What was answered. Equal ids with other messages are other prompts."""

    id: str
    turns: tuple[Turn, ...]
    task: str = field(default="answer", compare=False)


@dataclass(frozen=True)
class Vote:
    """One rater's choice between two different texts for one prompt, on one attribute."""

    prompt: Prompt
    attribute: str
    by: str
    """`PEOPLE`, or the name of the judge: never counted together."""
    rater: str
    study: str
    row: str
    """With `rater` and `attribute`, what makes it unique."""
    texts: tuple[str, str]
    """As shown: left, right."""
    authors: tuple[str, str]
    choice: int | str
    """0 (left), 1 (right) or `TIE`."""
    seconds: float | None = None
    comment: str = ""
    strength: str | None = None

    def to_json(self, places: Mapping[str, int]) -> dict[str, Any]:
        """As a record keeps it; `places`: text -> its place among the completions."""
        shown = [places[text] for text in self.texts]
        out: dict[str, Any] = {"rater": self.rater, "study": self.study, "row": self.row, "shown": shown}
        out["choice"] = TIE if isinstance(self.choice, str) else shown[self.choice]
        more = {"seconds": self.seconds, "strength": self.strength}
        return out | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True)
class PairOutcome:
    """What all raters said of one pair of texts."""

    texts: tuple[str, str]
    ranks: tuple[float, float]
    """1 2, 2 1, or 1 1 for a tie."""
    votes: tuple[Vote, ...]

    @property
    def is_tie(self) -> bool:
        return self.ranks[0] == self.ranks[1]

    @property
    def contradicted(self) -> bool:
        """Whether raters chose opposite sides."""
        return len({vote.texts[vote.choice] for vote in self.votes if isinstance(vote.choice, int)}) == 2


@dataclass(frozen=True)
class Order:
    """Texts with their ranks, from votes that agree with them."""

    texts: tuple[str, ...]
    ranks: tuple[float, ...]
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Orders:
    """What the votes on the answers to one prompt say, on one attribute."""

    pairs: tuple[PairOutcome, ...]
    orders: tuple[Order, ...]
    """One over all texts if their pairs allow it, else one for each pair."""
    cyclic: tuple[PairOutcome, ...] = ()
    """Pairs on a cycle of wins; they are in no order."""


def pair_outcomes(votes: Sequence[Vote]) -> list[PairOutcome]:
    """The votes by pair of texts, and the choice with the most votes; a tie where none has the most."""
    by_pair: dict[frozenset[str], list[Vote]] = {}
    for vote in votes:
        by_pair.setdefault(frozenset(vote.texts), []).append(vote)
    outcomes = []
    for own in by_pair.values():
        one, other = texts = own[0].texts
        places = {one: 0, other: 1}
        chosen = [TIE if isinstance(vote.choice, str) else places[vote.texts[vote.choice]] for vote in own]
        first, second = ranks_by_votes(chosen, 2)
        outcomes.append(PairOutcome(texts, (first, second), tuple(own)))
    return outcomes


def orders(votes: Sequence[Vote]) -> Orders:
    """The order of the texts for one prompt that all these votes give, or one for each pair."""
    pairs = pair_outcomes(votes)
    texts = tuple(dict.fromkeys(text for pair in pairs for text in pair.texts))
    cyclic = _on_cycles(pairs)
    if not cyclic:
        places = {text: place for place, text in enumerate(texts)}
        wins: dict[tuple[int, int], float] = {}
        for pair in pairs:
            one, other = (places[text] for text in pair.texts)
            better, worse = (one, other) if pair.ranks[0] <= pair.ranks[1] else (other, one)
            wins[better, worse] = 0.0 if pair.is_tie else 1.0
        found, complete = ranks_by_wins(wins, len(texts))
        ranks = tuple(rank for rank in found if rank is not None)
        if complete and all(_agrees(pair, places, ranks) for pair in pairs):
            return Orders(tuple(pairs), (Order(texts, ranks, tuple(votes)),))
    kept = [pair for pair in pairs if pair not in cyclic]
    return Orders(tuple(pairs), tuple(Order(pair.texts, pair.ranks, pair.votes) for pair in kept), cyclic)


def _agrees(pair: PairOutcome, places: Mapping[str, int], ranks: Sequence[float]) -> bool:
    one, other = (ranks[places[text]] for text in pair.texts)
    return (one > other) - (one < other) == (pair.ranks[0] > pair.ranks[1]) - (pair.ranks[0] < pair.ranks[1])


def _on_cycles(pairs: Sequence[PairOutcome]) -> tuple[PairOutcome, ...]:
    """The pairs whose loser leads back to their winner through wins."""
    beats: dict[str, set[str]] = {}
    for pair in pairs:
        if not pair.is_tie:
            better, worse = _sorted(pair)
            beats.setdefault(better, set()).add(worse)

    def reached(start: str) -> Iterator[str]:
        waiting, seen = [start], {start}
        while waiting:
            for text in beats.get(waiting.pop(), set()) - seen:
                seen.add(text)
                waiting.append(text)
                yield text

    return tuple(pair for pair in pairs if not pair.is_tie and _sorted(pair)[0] in reached(_sorted(pair)[1]))


def _sorted(pair: PairOutcome) -> tuple[str, str]:
    """(better, worse)."""
    one, other = pair.texts
    return (one, other) if pair.ranks[0] < pair.ranks[1] else (other, one)
