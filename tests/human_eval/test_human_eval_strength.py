"""Strength of preference: counts, the sign test on clear preferences, the odds ratio of a simulated truth; and what is
too thin is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import exp
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.report import write_report
from coh_lightning.human_eval.report_method import method_paragraph
from coh_lightning.human_eval.strength import odds_ratio
from helpers.studies import BASELINE, MODEL, TIE, write_study

WORDS = {
    -2: ("old", "clearly"),
    -1: ("old", "slightly"),
    0: ("tie", None),
    1: ("new", "slightly"),
    2: ("new", "clearly"),
}


def vote(prompt: int, grade: int, *, left: str = "new") -> Judgment:
    """A vote from -2 (old clearly) to 2 (new clearly)."""
    choice, strength = WORDS[grade]
    systems = (left, "old" if left == "new" else "new")
    return Judgment(f"i{prompt}", f"r{prompt}", f"p{prompt}", "r", "overall", choice, systems, strength=strength)


def simulated(b: float, prompts: int, *, raters: int = 2, side: float = 0.3, seed: int = 1) -> list[Judgment]:
    """Votes of the model itself: latent = b * (model's side) + side + logistic noise, cut at -1.5, -0.5, 0.5, 1.5."""
    random, votes = np.random.default_rng(seed), []
    for prompt in range(prompts):
        for _ in range(raters):
            sign = random.choice([1, -1])
            latent = b * sign + side + random.logistic()
            grade = int(np.searchsorted([-1.5, -0.5, 0.5, 1.5], latent)) - 2
            votes.append(vote(prompt, grade * sign, left="new" if sign == 1 else "old"))
    return votes


@pytest.mark.parametrize("b", [0.0, 0.5, -1.0])
def test_the_odds_ratio_is_that_of_the_simulated_truth(b: float) -> None:
    found = odds_ratio(simulated(b, 400), "new")
    assert found["low"] < exp(2 * b) < found["high"] and found["high"] / found["low"] < 2
    assert (found["p"] < 0.001) == (b != 0) and found["prompts"] == 400


def test_the_odds_ratio_turns_around_with_the_systems() -> None:
    votes = simulated(0.4, 100)
    one, other = odds_ratio(votes, "new"), odds_ratio(votes, "old")
    assert one["value"] == pytest.approx(1 / other["value"], rel=1e-3)
    assert one["low"] == pytest.approx(1 / other["high"], rel=1e-3)


def test_votes_repeated_by_prompt_make_the_interval_no_narrower() -> None:
    votes = simulated(0.4, 150, raters=1)
    one, thrice = odds_ratio(votes, "new"), odds_ratio(votes * 3, "new")
    assert one["value"] == pytest.approx(thrice["value"], rel=1e-3)
    assert thrice["high"] / thrice["low"] == pytest.approx(one["high"] / one["low"], rel=0.03)


@pytest.mark.parametrize(
    ("votes", "says"),
    [
        ([vote(n, n % 5 - 2, left=("new", "old")[n % 2]) for n in range(19)], "19 prompts are too few"),
        ([vote(n, n % 3, left=("new", "old")[n % 2]) for n in range(40)], "No vote prefers the one side or the other"),
        ([vote(n, 0) for n in range(40)], "No vote prefers the one side or the other"),
        ([vote(n, n % 5 - 2) for n in range(40)], "The model stood on one side in all rows"),
    ],
)
def test_votes_that_are_too_thin_are_refused(votes: Sequence[Judgment], says: str) -> None:
    assert says in odds_ratio(votes, "new")["refused"]


def test_the_report_counts_strengths_and_tests_clear_preferences_by_prompt(tmp_path: Path) -> None:
    table = np.array([[MODEL, MODEL], [MODEL, BASELINE], [BASELINE, BASELINE], [TIE, MODEL], [MODEL, MODEL]])
    left = np.array([[True, False]] * 5)
    folder = write_study(tmp_path, {"overall": [("old", "new", table, left)]})
    strengths = iter(
        ["clearly", "clearly", "slightly", "clearly", "clearly", "slightly", "clearly", "slightly", "clearly"]
    )
    lines = [json.loads(line) for line in (folder / "judgments.jsonl").read_text().splitlines()]
    for line in lines:
        if line["choice"] != "tie":
            line["strength"] = next(strengths)
    del lines[-1]["strength"]  # given without its strength: in no number here
    (folder / "judgments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    numbers = write_report(folder)
    (one,) = numbers["strength"]
    assert (one["votes"], one["without_strength"]) == (9, 1)
    assert one["levels"] == {
        "baseline clearly": 2,
        "baseline slightly": 1,
        "tie": 1,
        "model slightly": 2,
        "model clearly": 3,
    }
    assert one["clear"] == {"model": 2, "baseline": 2, "p": pytest.approx(binomtest(2, 4).pvalue)}
    assert "too few" in one["odds_ratio"]["refused"]
    page = (folder / "report.html").read_text()
    assert "Strength of preference" in page and "new vs old, overall: 5 prompts are too few" in page
    assert "cumulative-link model" in method_paragraph(numbers)


def test_without_strengths_the_report_says_nothing_of_them(tmp_path: Path) -> None:
    table = np.array([[MODEL], [BASELINE]])
    numbers = write_report(write_study(tmp_path, {"overall": [("old", "new", table, table > 0)]}))
    assert numbers["strength"] == [] and "Strength" not in (tmp_path / "report.html").read_text()
