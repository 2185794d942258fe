"""Intervals, tests, agreement and ranking: equal to independent implementations, and right about worlds whose truth is
known.
"""

from __future__ import annotations

import doctest
import subprocess
import sys

import evalica
import numpy as np
import pandas
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

import coh_lightning.human_eval.ranking as bradley_terry_module
import coh_lightning.human_eval.statistics as module
from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.analysis import analyze
from coh_lightning.human_eval.ranking import bradley_terry, components, davidson, expected_win_rates
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import (
    agreement_totals,
    alpha_of_sums,
    cohen_kappa,
    expanded_percentile,
    holm,
    majority,
    rate_interval,
    raw_agreement_of_sums,
    sign_test,
    terciles,
    ties_as_half,
    wilson,
)
from coh_lightning.human_eval.study import StudyItem
from coh_lightning.intervals import bootstrap_sums
from helpers.studies import World, draw

SAME = 1e-9
WORLDS = {
    "raters lean left and right": (World(0.3, 0.7, 0.4, (0.2, 0.0, -0.1)), 120, None),
    "some items shared, all lean left": (World(0.3, 0.7, 0.4, (0.2, 0.3, 0.1)), 120, 40),
    "no effect, prompts differ much": (World(0.0, 1.5, 0.3, (0.3, 0.3, 0.0)), 100, None),
    "large effect, few ties": (World(0.9, 0.7, 0.2, (0.1, 0.0, 0.0)), 100, None),
    "one rater": (World(0.3, 0.7, 0.4, (0.0,)), 100, None),
}


def test_docstring_examples() -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=19)
    assert doctest.testmod(bradley_terry_module) == doctest.TestResults(failed=0, attempted=4)


# ------------------------------------------------------------------------------------------------------------ one
# observation each


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_equals_statsmodels(n: int, level: float) -> None:
    for wins in sorted({0, 1, n // 3, n // 2, n}):
        low, high = proportion_confint(wins, n, alpha=1 - level, method="wilson")
        assert wilson(wins, n, level) == pytest.approx((wins / n, low, high), abs=SAME)


def test_wilson_without_observations_is_nan() -> None:
    assert np.isnan(wilson(0, 0)).all()


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (0, 1), (5, 5), (9, 1), (1, 9), (60, 40), (820, 700), (3000, 2800)]
)
def test_the_sign_test_equals_scipys_binomial_test(wins: int, losses: int) -> None:
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, abs=SAME, rel=SAME)


def test_holm_equals_statsmodels() -> None:
    random = np.random.default_rng(0)
    for tests in (1, 2, 4, 9):
        p = [*random.random(tests) ** 3, 0.01, 0.01]  # equal ones too
        assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=SAME)
    assert holm([]) == []


def test_a_prompt_goes_to_the_side_with_more_votes_and_ties_take_no_side() -> None:
    assert majority([[0, 2, 1]]).tolist() == [0, 0, 1]
    assert majority([[1, 3, 1]]).tolist() == [0, 1, 0]
    assert majority([[2, 0, 1]]).tolist() == [1, 0, 0]
    assert majority([[0, 0, 0]]).tolist() == [0, 0, 0]  # nobody was asked: no tie


# ------------------------------------------------------------------------------------------------------------ prompts
# as clusters


def test_the_bootstrap_equals_scipys() -> None:
    random = np.random.default_rng(0)
    votes = random.multinomial(3, [0.2, 0.3, 0.5], size=200).astype(float)
    mine = ties_as_half(bootstrap_sums(votes, seed=1, resamples=20_000))
    other = scipy.stats.bootstrap(
        (np.arange(200),),
        lambda index, axis: ties_as_half(votes[index].sum(axis=-2)),
        n_resamples=20_000,
        method="percentile",
        rng=random,
    )
    assert mine.std(ddof=1) == pytest.approx(other.standard_error, rel=0.03)
    assert np.quantile(mine, [0.025, 0.975]) == pytest.approx(other.confidence_interval, abs=0.002)


def test_the_tails_are_widened_as_in_hesterberg_2015() -> None:
    values = np.random.default_rng(0).standard_normal(10_000)
    tail = scipy.stats.norm.cdf(-np.sqrt(12 / 11) * scipy.stats.t.ppf(0.975, 11))
    assert expanded_percentile(values, 0.0, clusters=12) == pytest.approx(
        (0.0, *np.quantile(values, [tail, 1 - tail])), abs=SAME
    )


def test_if_all_prompts_agree_the_interval_is_wilsons() -> None:
    rates = ties_as_half(bootstrap_sums([[0, 0, 3]] * 20, seed=0, resamples=50))
    assert rate_interval(rates, 1.0, 20) == pytest.approx(wilson(20, 20), abs=SAME)
    assert np.isnan(expanded_percentile(rates, 1.0, 20)[1:]).all()
    assert rate_interval([0.75] * 9, 0.75, 6) == pytest.approx(wilson(4.5, 6), abs=SAME)


# ------------------------------------------------------------------------------------------------------------ agreement


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from([None, 0, 1, 2]), min_size=3, max_size=3), min_size=2, max_size=25))
def test_alpha_equals_evalica(answers: list[list[int | None]]) -> None:
    counts = [[sum(answer == choice for answer in item) for choice in range(3)] for item in answers]
    shared = [item for item in counts if sum(item) > 1]
    if len({choice for item in shared for choice, count in enumerate(item) if count}) < 2:
        assert np.isnan(alpha(counts))
        return
    frame = pandas.DataFrame([[np.nan if answer is None else answer for answer in item] for item in answers]).T
    assert alpha(counts) == pytest.approx(evalica.alpha(frame).alpha, abs=SAME)


def alpha(counts: list[list[int]]) -> float:
    return float(alpha_of_sums(agreement_totals(counts).sum(axis=0)))


def raw_agreement(counts: list[list[int]]) -> float:
    return float(raw_agreement_of_sums(agreement_totals(counts).sum(axis=0)))


def test_raw_agreement_counts_pairs_of_raters() -> None:
    assert raw_agreement([[3, 0, 0], [1, 1, 1], [2, 1, 0], [0, 0, 1]]) == pytest.approx((3 + 0 + 1) / 9, abs=SAME)
    assert np.isnan(raw_agreement([[1, 0, 0]]))


def test_kappa_equals_statsmodels() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        table = random.poisson(4, (3, 3)) + np.eye(3, dtype=int)
        assert cohen_kappa(table) == pytest.approx(cohens_kappa(table, return_results=False), abs=SAME)
    assert np.isnan(cohen_kappa([[5, 0], [0, 0]]))
    assert np.isnan(cohen_kappa(np.zeros((3, 3))))


def test_equal_length_differences_stay_in_one_third() -> None:
    assert terciles([5, 5, 5, 5]).tolist() == [0, 0, 0, 0]
    assert terciles(range(9)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert terciles([]).tolist() == []


# ------------------------------------------------------------------------------------------------------------ ranking


def votes_among(
    systems: int, number: int, seed: int, nu: float = 0.6
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, int]]]:
    """Wins, ties, and the votes themselves (one, other, outcome 0 one wins / 1 other wins / 2 tie) of a world after
    Davidson's model.
    """
    random = np.random.default_rng(seed)
    strengths = random.normal(0, 0.7, systems)
    wins, ties, votes = np.zeros((systems, systems)), np.zeros((systems, systems)), []
    for _ in range(number):
        one, other = random.choice(systems, 2, replace=False)
        weights = np.exp(
            [strengths[one], strengths[other], np.log(nu) + (strengths[one] + strengths[other]) / 2]
            if nu
            else [strengths[one], strengths[other]]
        )
        outcome = int(random.choice(len(weights), p=weights / weights.sum()))
        votes.append((int(one), int(other), outcome))
        if outcome == 2:
            ties[one, other] += 1
            ties[other, one] += 1
        else:
            wins[(one, other) if outcome == 0 else (other, one)] += 1
    return wins, ties, votes


NAMES = ["a", "b", "c", "d", "e"]
WINNERS = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]


@pytest.mark.parametrize(("systems", "number", "seed"), [(2, 50, 0), (3, 200, 1), (4, 600, 2), (5, 2000, 3)])
def test_strengths_equal_evalica(systems: int, number: int, seed: int) -> None:
    wins, ties, votes = votes_among(systems, number, seed)
    fitted = bradley_terry(wins, ties, NAMES[:systems])
    other = evalica.newman(
        [one for one, _, _ in votes],
        [two for _, two, _ in votes],
        [WINNERS[outcome] for *_, outcome in votes],
        tolerance=1e-15,
        limit=1_000_000,
    )
    logs = np.log(other.scores.sort_index().to_numpy())
    assert fitted.log_strengths == pytest.approx(logs - logs.mean(), abs=SAME)
    assert fitted.tie == pytest.approx(2 * other.v, abs=SAME)  # Newman writes 2 v where Davidson writes nu


def test_without_ties_it_is_the_plain_bradley_terry_model() -> None:
    wins, ties, votes = votes_among(4, 300, 5, nu=0)
    fitted = bradley_terry(wins, ties, NAMES[:4])
    other = evalica.bradley_terry(
        [one for one, _, _ in votes],
        [two for _, two, _ in votes],
        [WINNERS[outcome] for *_, outcome in votes],
        tolerance=1e-15,
        limit=1_000_000,
    )
    logs = np.log(other.scores.sort_index().to_numpy())
    assert fitted.tie == 0
    assert fitted.log_strengths == pytest.approx(logs - logs.mean(), abs=SAME)


@pytest.mark.parametrize("seed", range(5))
def test_the_likelihood_equations_hold(seed: int) -> None:
    wins, ties, _ = votes_among(4, 300, seed)
    fitted = bradley_terry(wins, ties, NAMES[:4])
    strength = np.exp(fitted.log_strengths)
    one, other = strength[:, None], strength[None, :]
    drawn = fitted.tie * np.sqrt(one * other)
    whole = one + other + drawn
    met = wins + wins.T + ties
    # wins and half the ties of each system, and all ties, are what the model expects
    assert (wins + ties / 2).sum(axis=1) == pytest.approx(
        (met * (one + drawn / 2) / whole * (1 - np.eye(4))).sum(axis=1), abs=SAME
    )
    assert ties.sum() == pytest.approx((met * drawn / whole).sum(), abs=SAME)
    assert fitted.log_strengths.sum() == pytest.approx(0, abs=SAME)


def test_tables_fitted_together_equal_tables_fitted_alone() -> None:
    tables = [votes_among(3, 150, seed)[:2] for seed in range(4)]
    tables.append(
        (np.array([[0, 5, 3], [0, 0, 2], [0, 0, 0]]), np.zeros((3, 3)))
    )  # no finite estimate: the others don't suffer
    strengths, tie = davidson(
        np.array([wins for wins, _ in tables], dtype=float), np.array([ties for _, ties in tables], dtype=float)
    )
    for place, (wins, ties) in enumerate(tables[:-1]):
        alone = bradley_terry(wins, ties, NAMES[:3])
        assert strengths[place] == pytest.approx(alone.log_strengths, abs=SAME)
        assert tie[place] == pytest.approx(alone.tie, abs=SAME)
    assert np.isnan(strengths[-1]).all() and np.isnan(tie[-1])


def test_expected_win_rates_follow_the_model_and_average_to_one_half() -> None:
    rates = expected_win_rates(np.log([4.0, 2.0, 1.0]), np.array(1.0))
    against_two = (4 + np.sqrt(8) / 2) / (6 + np.sqrt(8))
    against_one = (4 + 2 / 2) / (5 + 2)
    assert rates[0] == pytest.approx((against_two + against_one) / 2, abs=SAME)
    assert rates.mean() == pytest.approx(0.5, abs=SAME)


def test_systems_that_never_met_are_not_ranked() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 3
    assert components(wins > 0) == [[0, 1], [2, 3]]
    with pytest.raises(InputError) as caught:
        bradley_terry(wins, np.zeros((4, 4)), NAMES[:4])
    assert (
        str(caught.value)
        == "the systems can't be ranked: the comparisons fall into 2 parts (a, b; c, d); compare across them."
    )


@pytest.mark.parametrize(
    ("wins", "ties", "says"),
    [
        ([[0, 3], [0, 0]], [[0, 0], [0, 0]], "a never lost or tied"),
        ([[0, 0], [3, 0]], [[0, 0], [0, 0]], "a never won or tied"),
        ([[0, 0], [0, 0]], [[0, 4], [4, 0]], "all 4 votes are ties"),
        ([[0, 5, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 3], [0, 0, 4], [3, 4, 0]], "no finite strengths fit"),
    ],
)
def test_without_a_finite_estimate_the_error_says_why(wins: list[list[int]], ties: list[list[int]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        bradley_terry(wins, ties, NAMES[: len(wins)])


# ------------------------------------------------------------------------------------------------------------ coverage


def results_of(votes: np.ndarray, left: np.ndarray, seed: int) -> StudyResults:
    """One simulated study on one attribute, as the report reads it."""
    prompts, raters = votes.shape
    items = {f"i{place}": StudyItem(f"i{place}", "?", ("a", "bb"), "") for place in range(prompts)}
    judgments = [
        Judgment(
            item=f"i{place}",
            row=f"{place}-{rater}",
            prompt_id=f"p{place}",
            rater=f"rater-{rater}",
            attribute="overall",
            choice=("old", "tie", "new")[votes[place, rater]],
            systems=("new", "old") if left[place, rater] else ("old", "new"),
        )
        for place in range(prompts)
        for rater in range(raters)
        if votes[place, rater] >= 0
    ]
    key = {"seed": seed, "systems": ["old", "new"], "items": {item: {"systems": ["old", "new"]} for item in items}}
    return StudyResults(key, items, tuple(judgments), None)


def coverage(world: World, prompts: int, shared: int | None, studies: int) -> dict[str, float]:
    """Share of simulated studies whose reported interval contains the truth, for each kind of interval."""
    baseline, tie, model = world.chances()
    truth = {
        "half": model + tie / 2,
        "excluded": model / (model + baseline),
        "model": model,
        "difference": 100 * (model - baseline),
        "left": world.left_share(),
    }
    if shared is None:
        truth["majority"] = (
            world.majority_share()
        )  # one vote a prompt, all prompts alike: where Wilson's assumption holds
    if len(world.biases) > 1:
        truth["alpha"] = world.alpha()
    hits = dict.fromkeys(truth, 0)
    random = np.random.default_rng(11)
    for study in range(studies):
        votes, left = draw(world, random, prompts, shared)
        analysis = analyze(results_of(votes, left, study), [f"rater-{rater}" for rater in range(len(world.biases))])
        entry = analysis["pairs"][0]["attributes"]["overall"]
        intervals = {
            "half": entry["ties_as_half"],
            "excluded": entry["ties_excluded"],
            "model": entry["share"]["model"],
            "difference": entry["difference"],
            "left": analysis["position"]["attributes"]["overall"],
            "majority": entry["by_prompt"]["win_rate"],
            "alpha": entry["agreement"]["alpha"],
        }
        for name, value in truth.items():
            hits[name] += intervals[name]["low"] <= value <= intervals[name]["high"]
    return {name: count / studies for name, count in hits.items()}


def test_the_truth_lies_in_95_of_100_intervals_of_a_few_studies() -> None:
    # 250 studies: three standard errors are 4 points
    found = coverage(*WORLDS["raters lean left and right"], studies=250)
    assert {name: share for name, share in found.items() if not 0.91 <= share <= 0.99} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_lies_in_93_to_97_of_100_intervals_of_2000_studies(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = coverage(*WORLDS[name], studies=2000)
    with capsys.disabled():
        print(f"\n{name}: " + ", ".join(f"{kind} {share:.1%}" for kind, share in found.items()))
    assert {kind: share for kind, share in found.items() if not 0.93 <= share <= 0.97} == {}


def test_the_sign_test_errs_in_at_most_5_of_100_studies_without_an_effect() -> None:
    # votes on one prompt agree strongly: counted one by one, they would reject far too often
    random = np.random.default_rng(2)
    alone = together = 0
    for _ in range(1000):
        votes, _ = draw(World(0.0, 2.0, 0.2, (0.2, 0.2, 0.2, 0.2)), random, 100)
        lost, _, won = majority(np.stack([(votes == side).sum(axis=1) for side in range(3)], axis=1))
        together += sign_test(int(won), int(lost)) <= 0.05
        alone += sign_test(int((votes == 2).sum()), int((votes == 0).sum())) <= 0.05
    assert together <= 60
    assert alone > 150


# ------------------------------------------------------------------------------------------------------------ what is
# needed


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(InputError) as caught:
        sign_test(1, 2)
    assert "scipy is not installed" in str(caught.value)
    assert "pip install 'coh_lightning[study]'" in str(caught.value)


def test_importing_the_statistics_does_not_import_scipy() -> None:
    code = "import sys, coh_lightning.human_eval.statistics; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"scipy", "pandas", "matplotlib", "torch"} & set(done.stdout.split()) == set()
