"""Faults as words, and critiques with one fault exchanged."""

from __future__ import annotations

import random

import pytest

from coh_lightning.world import feedback, posts, raters
from coh_lightning.world.faults import FAULTLESS, FORM_FAULTS, Faults, exchanged
from coh_lightning.world.writers import WRITERS, write_summary

FACTS = {"person": "Anna", "place": "market", "day": "Monday", "reason": "bread", "meal": "soup"}


def pairs(faults: Faults) -> set[tuple[str, str]]:
    return {(group, one) for group in ("wrong", "missing", "invented", "form") for one in getattr(faults, group)}


@pytest.mark.parametrize(
    ("faults", "critique"),
    [
        (Faults(), "it is right and complete"),
        (
            Faults(wrong=frozenset({"day"}), missing=frozenset({"reason"}), form=frozenset({"slip"})),
            "it gets the day wrong , leaves out the reason and mixes up he and she",
        ),
        (Faults(invented=frozenset({"result", "clothes"})), "it makes up the clothes and the result"),
        (Faults(form=frozenset(FORM_FAULTS)), f"it {' , '.join([*FORM_FAULTS.values()][:3])} and breaks off"),
    ],
)
def test_faults_in_words(faults: Faults, critique: str) -> None:
    assert faults.critique == critique


def test_an_exchange_names_one_fault_that_is_not_true_in_the_place_of_one_that_is() -> None:
    for index, post in enumerate(posts.make_posts(400, seed=3)):
        text = write_summary(post, WRITERS[("poor", "hasty", "fair")[index % 3]], random.Random(index))
        true = raters.rate_facts(post.facts, text).faults
        named = exchanged(true, post.facts, random.Random(index))
        lost, added = pairs(true) - pairs(named), pairs(named) - pairs(true)
        assert len(added) == 1 and len(lost) == bool(pairs(true))
        [(group, one)] = added
        if group != "form":  # a fact that the critique doesn't name, and of the right sort
            assert one not in true.wrong | true.missing | true.invented
            assert (one in post.facts) == (group != "invented")
        assert named.critique not in (true.critique, FAULTLESS)
        assert exchanged(true, post.facts, random.Random(index)) == named


def test_the_exchanged_fault_is_of_the_same_group_where_that_has_another() -> None:
    true = Faults(missing=frozenset({"meal"}))
    assert {exchanged(true, FACTS, random.Random(i)).critique for i in range(50)} == {
        "it leaves out the day",
        "it leaves out the reason",
    }
    all_missing = Faults(missing=frozenset({"day", "reason", "meal"}))
    groups = {
        next(iter(pairs(exchanged(all_missing, FACTS, random.Random(i))) - pairs(all_missing)))[0] for i in range(50)
    }
    assert groups == {"invented", "form"}


def test_wrong_words_are_a_share_of_the_critiques_and_leave_all_else_as_it_is() -> None:
    made = posts.make_posts(400, seed=4)
    texts = [[write_summary(post, WRITERS[name], random.Random(i)) for name in WRITERS] for i, post in enumerate(made)]
    exact, noisy, all_wrong = (
        [
            feedback.rated(post, of_post, record=str(i), seed=0, wrong_words=share)
            for i, (post, of_post) in enumerate(zip(made, texts, strict=True))
        ]
        for share in (0.0, 0.1, 1.0)
    )
    before, after, worst = (
        [candidate for record in records for candidate in record.candidates] for records in (exact, noisy, all_wrong)
    )
    changed = [one.critique != other.critique for one, other in zip(before, after, strict=True)]
    assert abs(sum(changed) - 160) <= 5 * (1600 * 0.1 * 0.9) ** 0.5
    assert not any(one.critique == other.critique for one, other in zip(before, worst, strict=True))
    for one, other in zip(before, after, strict=True):
        assert (one.text, one.rank, one.ratings) == (other.text, other.rank, other.ratings)
        assert other.thumb == (other.critique == FAULTLESS)
    # the critiques that are wrong at 10 % are among those at 100 %, in the same words
    assert all(
        other.critique == last.critique for is_wrong, other, last in zip(changed, after, worst, strict=True) if is_wrong
    )


def test_the_same_text_of_a_record_gets_the_same_wrong_words() -> None:
    [post] = posts.make_posts(1, seed=0)
    texts = [posts.gold_summary(post)] * 2
    one, other = feedback.rated(post, texts, record="r", seed=0, wrong_words=1.0).candidates
    assert one == other and one.critique != FAULTLESS and one.thumb is False
