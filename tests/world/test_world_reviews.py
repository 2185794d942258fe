"""Precision and recall of the faults that reviews name."""

from __future__ import annotations

from pathlib import Path

import pytest

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.world.posts import make_posts
from coh_lightning.world.raters import rate
from coh_lightning.world.reviews import Reviewed, by_ask, compared, faults, figures, intervals, main

POST = "post : Anna went to the market . it was Monday . she wanted bread . summarise :"


@pytest.mark.parametrize(
    ("critique", "expected"),
    [
        ("it is right and complete", set()),
        ("it gets the day wrong", {("wrong", "day")}),
        (
            "it gets the place and the day wrong , leaves out the reason and breaks off",
            {("wrong", "place"), ("wrong", "day"), ("missing", "reason"), ("form", "breaks off")},
        ),
        (
            "it leaves out the place , the day and the meal , makes up the result and says a thing twice .",
            {("missing", "place"), ("missing", "day"), ("missing", "meal"), ("invented", "result"),
             ("form", "says a thing twice")},
        ),
        ("it mixes up he and she and has a broken sentence",
         {("form", "mixes up he and she"), ("form", "has a broken sentence")}),
        ("it says nothing", {("form", "says nothing")}),
        ("it leaves out the the bread", set()),
        ("", set()),
    ],
)  # fmt: skip
def test_the_faults_of_a_critique(critique: str, expected: set[tuple[str, str]]) -> None:
    assert faults(critique) == expected


def test_every_critique_of_the_raters_is_read_whole() -> None:
    texts = ["Anna went to the lake on Friday", "she had soup . he had soup .", "", "Anna went in red by car for tea ."]
    for post in make_posts(40, seed=3):
        for text in (*texts, f"{post.facts['person']} went to the {post.facts['place']} ."):
            rating = rate(post.prompt, text)
            named = faults(rating.critique)
            # each kind and each phrase of form is named once in the words
            words = rating.critique.split()
            kinds = words.count("the")
            form = sum(words.count(verb) for verb in ("says", "mixes", "has", "breaks"))
            assert len(named) == kinds + form and (not named) == rating.faultless


def review(number: int, answer: str, text: str) -> Completion:
    return Completion(
        id=f"{number}:review 1:0", prompt_id=str(number), system="m", prompt="exact", prompt_sha="s", ask="review 1",
        marker="Q", text=text, shown=POST, answer=answer,
    )  # fmt: skip


def test_precision_and_recall_by_hand_beside_the_review_of_another_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = [
        review(0, "Anna went to the market on Friday .", "it gets the day wrong and leaves out the meal"),
        review(1, "Anna went to the market on Monday for bread .", "it is right and complete"),
        Completion("2", "2", "m", "P", "s", "good", "G", "an answer, not a review"),
    ]
    own, control = by_ask(written)["review 1"]
    assert (own.reviews, own.there, own.named, own.right, own.whole) == (2, 2, 2, 1, 1)
    assert (own.precision, own.recall) == (0.5, 0.5)
    assert (control.right, control.whole) == (0, 0)
    assert figures([], []).precision == 0.0
    write_jsonl(tmp_path / "c.jsonl", written)
    assert main([str(tmp_path / "c.jsonl")]) == 0
    assert capsys.readouterr().out.startswith(
        "review 1: 2 reviews, precision 0.500 (1 of 2 named faults), recall 0.500"
    )
    write_jsonl(tmp_path / "c.jsonl", written[:1])
    assert main([str(tmp_path / "c.jsonl")]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith("review 1: 1 review, ") and "another" not in alone, "one review has no other to compare"
    write_jsonl(tmp_path / "c.jsonl", written[2:])
    assert main([str(tmp_path / "c.jsonl")]) == 2 and "has no reviews" in capsys.readouterr().err


def test_intervals_are_over_prompts_and_hold_the_figures() -> None:
    day, place, meal = (frozenset({("missing", kind)}) for kind in ("day", "place", "meal"))
    # two reviews of each of twenty posts: one is right, the other names a fault that is not there
    reviews: list[Reviewed] = [
        row for number in range(20) for row in ((str(number), day | place, day), (str(number), day | place, meal))
    ]
    own, other = compared(reviews)
    found = intervals(reviews)
    assert (own.precision, own.recall) == (0.5, 0.25) and other.precision == 0.5
    assert found["precision"] == (0.5, 0.5) and found["recall"] == (0.25, 0.25)  # all posts are alike
    assert found["more precision"] == found["more recall"] == (0.0, 0.0)
    spread: list[Reviewed] = [(str(number), day, day if number % 2 else meal) for number in range(40)]
    own, _ = compared(spread)
    low, high = intervals(spread)["precision"]
    assert low < own.precision == 0.5 < high and 0.2 < high - low < 0.4  # four standard errors of 40 halves: .32
    turns: list[Reviewed] = [(str(number), fault, fault) for number, fault in enumerate([day, meal] * 20)]
    assert intervals(turns)["more precision"] == (1.0, 1.0)  # all right, and wrong with the next one's review
