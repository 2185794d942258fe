"""Ranks from votes: on all completions at once, or on pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coh_lightning.feedback.judgments import TIE


@dataclass(frozen=True)
class PairVotes:
    """Votes on pairs of completions::

        {"battles": [{"left": "gpt-4", "right": "llama", "winner": "left"}, ...]}

        pairs: [{each: battles, sides: [left, right], vote: winner, vote_for: {left: 0, right: 1, draw: tie}}]

    Args:
        vote: path of the vote, or of a list of votes, in an element of `each` if that is given, else in the row.
        sides: the two completions: for each the path of its author or place, or the place itself, counted from 0.
        vote_for: vote -> 0 for the first side, 1 for the second, or "tie". A vote without an entry may be the author of
            a side.
        each: path of a list (or an object) of comparisons.
    """

    vote: str
    sides: list
    vote_for: dict = field(default_factory=dict)
    each: str | None = None


def ranks_by_votes(votes: Iterable[int | str], count: int) -> list[float]:
    """1 for the completion with the most votes and 2 for the others; 1 for all if "tie" or no completion has the most.

        votes 0 0 1       -> ranks 1 2            votes 0 1      -> ranks 1 1
        votes tie tie 1   -> ranks 1 1

    Args:
        votes: places of completions, or "tie"; at least one.
        count: the number of completions.
    """
    (winner, most), *others = Counter(votes).most_common()
    if winner == TIE or (others and others[0][1] == most):
        return [1.0] * count
    return [1.0 if place == winner else 2.0 for place in range(count)]


def ranks_by_wins(wins: Mapping[tuple[int, int], float], count: int) -> tuple[list[float | None], bool]:
    """The ranks of completions that were compared in pairs, and whether all pairs of the compared ones were.

    A completion's balance is the number of others it beat (by most votes between the two) minus the number it lost to.
    The highest balance ranks first, equal balances tie, and a completion that nobody compared has no rank::

        wins (0,1): 2   (1,0): 1   (0,2): 1   (1,2): 1       balances 2 0 -2       ranks 1 2 3

    Args:
        wins: (place, other place) -> how often, or how strongly, the first was preferred to the second.
        count: the number of completions.
    """
    compared = {(min(pair), max(pair)) for pair in wins}
    balance: dict[int, int] = {place: 0 for pair in compared for place in pair}
    for one, other in compared:
        margin = wins.get((one, other), 0.0) - wins.get((other, one), 0.0)
        balance[one] += (margin > 0) - (margin < 0)
        balance[other] -= (margin > 0) - (margin < 0)
    order = {value: float(rank) for rank, value in enumerate(sorted(set(balance.values()), reverse=True), start=1)}
    ranks = [order[balance[place]] if place in balance else None for place in range(count)]
    return ranks, len(compared) == len(balance) * (len(balance) - 1) // 2


def best_and_worse(ranks: Sequence[float | None]) -> tuple[set[int], set[int]]:
    """The places of the best ranked completions and of the other ranked ones; both empty if all are equal."""
    given = [rank for rank in ranks if rank is not None]
    if len(set(given)) < 2:
        return set(), set()
    best = {place for place, rank in enumerate(ranks) if rank == min(given)}
    return best, {place for place, rank in enumerate(ranks) if rank is not None} - best
