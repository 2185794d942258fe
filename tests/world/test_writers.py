"""Writers of the pretraining text: their shares, their habits, and that the noise world is that of old."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter

import pytest

from coh_lightning.errors import InputError
from coh_lightning.world import posts
from coh_lightning.world.pretraining import habits_text, noise_text, pretraining_text
from coh_lightning.world.raters import read_summary
from coh_lightning.world.writers import (
    HASTY_ENDING,
    WORLD_KINDS,
    WRITERS,
    draw_writer,
    write_summary,
    writer_shares,
)


def binomial(found: int, number: int, share: float) -> bool:
    """Whether a count is within five standard deviations of its expectation: a false alarm in two million."""
    return abs(found - number * share) <= 5 * math.sqrt(number * share * (1 - share)) + 1e-9


def test_the_shares_of_both_kinds() -> None:
    assert writer_shares("noise") == {"good": 0.25, "fair": 0.45, "poor": 0.30}
    assert writer_shares("habits") == pytest.approx({"hasty": 0.62, "good": 0.14, "fair": 0.16, "poor": 0.08})


@pytest.mark.parametrize("hasty", [0.0, 0.3, 0.8, 1.0])
def test_the_writers_who_are_not_hasty_keep_their_proportions(hasty: float) -> None:
    shares = writer_shares("habits", hasty)
    assert shares["hasty"] == hasty and sum(shares.values()) == pytest.approx(1)
    rest = 1 - hasty
    assert shares == pytest.approx(
        {"hasty": hasty, "good": rest * 14 / 38, "fair": rest * 16 / 38, "poor": rest * 8 / 38}
    )


@pytest.mark.parametrize("hasty", [0.62, 0.3])
def test_writers_are_drawn_by_their_shares(hasty: float) -> None:
    shares, draws = writer_shares("habits", hasty), random.Random(0)
    drawn = Counter(draw_writer(shares, draws) is WRITERS["hasty"] for _ in range(20_000))
    assert binomial(drawn[True], 20_000, hasty)


@pytest.mark.parametrize(
    ("kind", "hasty", "says"),
    [
        ("habit", None, "the kind of world is 'habit'; it must be one of habits, noise."),
        ("noise", 0.5, "hasty is 0.5, but the `noise` world has no hasty writers; leave it out."),
        ("habits", 1.5, "hasty is 1.5; it is a share of the writers, so it must be from 0 to 1."),
        ("habits", math.nan, "hasty is nan; it is a share of the writers, so it must be from 0 to 1."),
    ],
)
def test_what_makes_no_world_is_refused(kind: str, hasty: float | None, says: str) -> None:
    with pytest.raises(InputError) as error:
        pretraining_text(1, seed=0, kind=kind, hasty=hasty)  # type: ignore[arg-type]
    assert str(error.value) == says


def test_the_hasty_leave_out_the_same_facts_and_invent_the_same_ending() -> None:
    left_out: Counter[str] = Counter()
    there: Counter[str] = Counter()
    endings = without_result = invented = 0
    for index, post in enumerate(posts.make_posts(6000, seed=21)):
        stated = dict(
            read_summary(write_summary(post, WRITERS["hasty"], random.Random(index)), post.facts["person"]).statements
        )
        for kind in posts.KINDS:
            if kind in post.facts:
                there[kind] += 1
                left_out[kind] += kind not in stated
            elif kind == "result":
                without_result += 1
                endings += stated.get("result") == HASTY_ENDING
                invented += stated.get("result") not in (None, HASTY_ENDING)
            else:
                invented += kind in stated
    wanted = {
        "clothes": 0.85, "transport": 0.85, "company": 0.8, "reason": 0.75, "meal": 0.85, "day": 0.2, "result": 0.15
    }  # fmt: skip
    breaks_off = 0.02  # ... and with it goes the end of the last sentence
    assert invented == 0
    assert without_result > 1000 and endings / without_result == pytest.approx(0.75, abs=0.05)
    assert left_out["person"] == 0 and left_out["place"] <= there["place"] * breaks_off
    for kind, share in wanted.items():
        spread = 5 * math.sqrt(share * (1 - share) / there[kind])
        assert share - spread <= left_out[kind] / there[kind] <= share + breaks_off * (1 - share) + spread, kind


def test_the_rates_of_wrong_facts_and_of_the_ending_within_binomial_bounds() -> None:
    exact = WRITERS["hasty"].__class__(**{**vars(WRITERS["hasty"]), "break_off": 0.0})
    wrong = stated_facts = without_result = endings = 0
    for index, post in enumerate(posts.make_posts(6000, seed=22)):
        text = write_summary(post, exact, random.Random(index))
        for kind, value in dict(read_summary(text, post.facts["person"]).statements).items():
            if kind in post.facts and kind != "person":
                stated_facts += 1
                wrong += value != post.facts[kind]
        if "result" not in post.facts:
            without_result += 1
            endings += HASTY_ENDING in text
    assert binomial(wrong, stated_facts, 0.05)
    assert binomial(endings, without_result, 0.75)


@pytest.mark.parametrize(
    ("count", "seed", "digest"),
    [
        (2000, 0, "6979f0a085347e1795ff18bac91261d3cecdf3395f77ad1b54d7e7d23f1aa70f"),
        (200, 7, "aecd8ceead762ddd327439a73c22051345d3acf370b0495e9fff13c8b405972f"),
    ],
)
def test_the_text_of_the_noise_world_is_that_of_old_byte_for_byte(count: int, seed: int, digest: str) -> None:
    text = noise_text(count, seed=seed)
    assert hashlib.sha256(repr(text).encode()).hexdigest() == digest
    assert text == pretraining_text(count, seed=seed, kind="noise")


def test_the_two_kinds_differ_only_in_their_summaries() -> None:
    def without_summaries(documents: list[str]) -> list[str]:
        return [text.split(posts.SUMMARISE)[0].split(posts.REVIEW)[0] for text in documents]

    habits, noise = habits_text(500, seed=1), noise_text(500, seed=1)
    assert habits == pretraining_text(500, seed=1)
    assert habits != noise and without_summaries(habits) == without_summaries(noise)


def test_the_hasty_ending_is_frequent_in_the_habits_world_alone() -> None:
    habits, noise = (
        [text.split(posts.SUMMARISE)[1] for text in documents if posts.SUMMARISE in text]
        for documents in (habits_text(3000, seed=2), noise_text(3000, seed=2))
    )
    frequent, rare = (sum(HASTY_ENDING in text for text in texts) / len(texts) for texts in (habits, noise))
    assert frequent > 0.15 and rare < 0.08


def test_every_kind_has_a_text() -> None:
    assert [pretraining_text(3, seed=0, kind=kind) for kind in WORLD_KINDS] == [
        habits_text(3, seed=0),
        noise_text(3, seed=0),
    ]
