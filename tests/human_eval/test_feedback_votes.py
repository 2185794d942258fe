"""Votes on pairs -> ranks: the majority of a pair, one order of all texts where the pairs agree, never of a cycle."""

from __future__ import annotations

from itertools import count, permutations, product

import pytest

from coh_lightning.feedback.judgments import TIE
from coh_lightning.feedback.turns import user_turn
from coh_lightning.human_eval.votes import PEOPLE, Prompt, Vote, orders, pair_outcomes

PROMPT = Prompt("p", (user_turn("Q?"),))
NUMBERS = count()


def votes(*said: str) -> list[Vote]:
    """ "a>b", "b=c": one vote each."""
    found = []
    for words in said:
        sign = next(mark for mark in "><=" if mark in words)
        left, right = words.split(sign)
        choice: int | str = {">": 0, "<": 1, "=": TIE}[sign]
        row = f"r{next(NUMBERS)}"
        found.append(Vote(PROMPT, "overall", PEOPLE, f"rater of {row}", "s", row, (left, right), (left, right), choice))
    return found


def said_by(found: list[Vote]) -> list[dict[str, float]]:
    return [dict(zip(order.texts, order.ranks, strict=True)) for order in orders(found).orders]


@pytest.mark.parametrize(
    ("said", "ranks", "contradicted"),
    [
        (["a>b"], (1, 2), False),
        (["a<b"], (2, 1), False),
        (["a=b"], (1, 1), False),
        (["a>b", "b<a", "b>a"], (1, 2), True),
        (["a>b", "b>a"], (1, 1), True),
        (["a>b", "a=b"], (1, 1), False),
        (["a>b", "a=b", "b=a"], (1, 1), False),
        (["a>b", "b<a", "a=b"], (1, 2), False),
        (["a>b", "b>a", "a=b"], (1, 1), True),
        (["a<b", "a<b", "b<a", "a=b"], (2, 1), True),
    ],
)
def test_the_choice_of_most_raters_counts(said: list[str], ranks: tuple[int, int], contradicted: bool) -> None:
    [pair] = pair_outcomes(votes(*said))
    assert (pair.texts, pair.ranks, pair.contradicted) == (("a", "b"), ranks, contradicted)
    assert pair.is_tie == (ranks == (1, 1))
    for shuffled in permutations(said):
        [again] = pair_outcomes(votes(*shuffled))
        assert dict(zip(again.texts, again.ranks, strict=True)) == {"a": ranks[0], "b": ranks[1]}


@pytest.mark.parametrize(
    ("said", "ranks"),
    [
        (["a>b", "b>c", "a>c"], {"a": 1, "b": 2, "c": 3}),
        (["a=b", "b>c", "a>c"], {"a": 1, "b": 1, "c": 2}),
        (["a=b", "b=c", "c=a"], {"a": 1, "b": 1, "c": 1}),
        (["d<a", "b>c", "c<a", "b>d", "c=d", "b=a"], {"a": 1, "b": 1, "c": 2, "d": 2}),
    ],
)
def test_pairs_that_fit_one_order_become_ranks(said: list[str], ranks: dict[str, float]) -> None:
    found = orders(votes(*said))
    assert [dict(zip(one.texts, one.ranks, strict=True)) for one in found.orders] == [ranks]
    assert len(found.orders[0].votes) == len(said) and not found.cyclic


@pytest.mark.parametrize("said", [["a>b", "a>c"], ["a>b", "b>c"], ["a=b", "b=c", "a>c"], ["a>b", "b=c", "c>a"]])
def test_pairs_that_no_ranks_can_say_stay_pairs(said: list[str]) -> None:
    found = orders(votes(*said))
    expected = [{one[0]: {">": 1, "=": 1, "<": 2}[one[1]], one[2]: {">": 2, "=": 1, "<": 1}[one[1]]} for one in said]
    assert [dict(zip(one.texts, one.ranks, strict=True)) for one in found.orders] == expected
    assert not found.cyclic


def test_a_cycle_is_in_no_order_and_spares_the_others() -> None:
    found = orders(votes("a>b", "b>c", "c>a", "a>d", "d=e"))
    assert sorted("".join(sorted(pair.texts)) for pair in found.cyclic) == ["ab", "ac", "bc"]
    assert [(one.texts, one.ranks) for one in found.orders] == [(("a", "d"), (1, 2)), (("d", "e"), (1, 1))]
    longer = orders(votes("a>b", "b>c", "c>d", "d>a", "a>c", "b>d"))
    assert len(longer.cyclic) == 6 and longer.orders == (), "each pair is on one of the cycles"
    assert len(longer.pairs) == 6


def test_every_set_of_three_pairs_keeps_what_was_said() -> None:
    """Whatever the three outcomes, each pair is in one order that says the same of it, or on a cycle."""
    for signs in product("><=", repeat=3):
        said = [f"{one}{sign}{two}" for (one, two), sign in zip(("ab", "bc", "ca"), signs, strict=True)]
        found = orders(votes(*said))
        for pair in found.pairs:
            inside = [one for one in found.orders if set(pair.texts) <= set(one.texts)]
            assert len(inside) == (pair not in found.cyclic), said
            for order in inside:
                ranks = dict(zip(order.texts, order.ranks, strict=True))
                first, second = (ranks[text] for text in pair.texts)
                assert (first < second, first > second) == (
                    pair.ranks[0] < pair.ranks[1],
                    pair.ranks[0] > pair.ranks[1],
                )
        assert bool(found.cyclic) == (len(set(signs)) == 1 and signs[0] != "="), said
