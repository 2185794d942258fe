"""Which words of a comment are about A, and which about B: only what surely speaks of one side."""

from __future__ import annotations

import pytest

from coh_lightning.human_eval.comments import critiques_of


@pytest.mark.parametrize(
    ("comment", "about_a", "about_b"),
    [
        # labels
        ("A: wrong day; B: too long", "wrong day", "too long"),
        ("B: too long.\nA: wrong day.", "wrong day.", "too long."),
        ("Answer A: ok, short. Answer B : lies", "ok, short.", "lies"),
        ("Left: nice\nRight: it lies", "nice", "it lies"),
        ("left: 很好", "很好", None),
        ("Both: fine. A: short", "short", None),
        ("I read it twice. B: dull", None, "dull"),
        ("A: nice; A: but long", "nice but long", None),
        ("A: answer A is kind", "This answer is kind", None),
        ("A: better than B. B: meh", None, "meh"),
        ("A:", None, None),
        # one side named
        ("Answer B invents a place.", None, "This answer invents a place."),
        ("the date in answer A's second line is wrong", "the date in this answer's second line is wrong", None),
        ("The response A is rude. I prefer A less.", "This answer is rude. I prefer this answer less.", None),
        ("I prefer B because it is short", None, "I prefer this answer because it is short"),
        ("A's day is wrong", "This answer's day is wrong", None),
        ("A has no period", "This answer has no period", None),
        ("A is a good answer", "This answer is a good answer", None),
        # both, none, or in doubt
        ("A is shorter than B", None, None),
        ("both A and B fail", None, None),
        ("too long", None, None),
        ("A good answer", None, None),
        ("A good answer, but B is wrong", None, None),
        ("answer a question", None, None),
        ("the right answer is three", None, None),
        ("Vitamin B helps", None, None),
        ("Hepatitis B. A-levels. A+", None, None),
        ("Antwort B ist falsch", None, None),
        ("Answer B.", None, None),
        ("B", None, None),
        ("A ", None, None),
        (" \n", None, None),
        ("", None, None),
    ],
)
def test_the_words_about_each_side(comment: str, about_a: str | None, about_b: str | None) -> None:
    assert critiques_of(comment) == (about_a, about_b)


@pytest.mark.parametrize(
    "comment",
    ["{0}: wrong", "{0}: wrong. {1}: right", "I prefer {0}.", "answer {0} lies", "{0} is long", "{0}{1}", "{0} or {1}"],
)
def test_both_sides_are_read_alike(comment: str) -> None:
    about_a, about_b = critiques_of(comment.format("A", "B"))
    assert critiques_of(comment.format("B", "A")) == (about_b, about_a)


def test_the_side_is_called_by_the_records_own_noun() -> None:
    assert critiques_of("Summary B is late, and I like B.", "summary") == (
        None,
        "This summary is late, and I like this summary.",
    )
