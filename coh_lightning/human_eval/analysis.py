"""All numbers about the votes of a study. What counts as one observation, everywhere:

* a **vote** is one answer of one rater on one attribute of one item, at its first showing; checks (swapped duplicates,
  identical pairs, gold items) are not votes;
* percentages and win rates are over votes, their intervals from a bootstrap over **prompts**;
* Wilson's interval and the sign test use **one vote per prompt** (`majority`);
* the left-win rate uses single votes, since sides are drawn for each rater and item; its summary over attributes uses
  one vote per row, because all attributes of a row share its sides.

Intervals cover other prompts rated by these raters, not other raters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.ranking import rank_systems
from coh_lightning.human_eval.rater_checks import left_by_row, seconds_per_row
from coh_lightning.human_eval.results import StudyResults, rater_order
from coh_lightning.human_eval.statistics import (
    RESAMPLES,
    Statistic,
    agreement_totals,
    alpha_of_sums,
    cohen_kappa,
    expanded_percentile,
    holm,
    majority,
    rate_interval,
    raw_agreement_of_sums,
    share_of,
    sign_test,
    terciles,
    ties_as_half,
    ties_excluded,
    wilson,
)
from coh_lightning.intervals import UNKNOWN, Floats, bootstrap_sums
from coh_lightning.rng import key64

SIDES = ("baseline", "tie", "model")
TERCILES = ("shorter", "alike", "longer")
"""Names of the thirds of items by (length of the model's answer - length of the baseline's)."""

Json = dict[str, Any]


def analyze(results: StudyResults, raters: Sequence[str]) -> Json:
    """All numbers of the votes of these raters: pairs of systems, position, ranking of three or more systems."""
    allowed = set(raters)
    votes = [one for one in results.judgments if not one.check and one.rater in allowed]
    pairs = [_pair(results, votes, baseline, model) for baseline, model in results.pairs]
    pairs = [pair for pair in pairs if pair["votes"]]
    tests = [entry["sign_test"] for pair in pairs for entry in pair["attributes"].values()]
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = adjusted
    return {
        "raters": list(raters),
        "votes": len(votes),
        "prompts": len({vote.prompt_id for vote in votes}),
        "tests": len(tests),
        "pairs": pairs,
        "position": _position(results, votes),
        "seconds": seconds_per_row(votes),
        "ranking": rank_systems(results, votes) if len(results.systems) > 2 else None,
    }


def _pair(results: StudyResults, all_votes: Sequence[Judgment], baseline: str, model: str) -> Json:
    """Two systems compared. All statistics share one bootstrap over one table with a row for each prompt."""
    votes = [vote for vote in all_votes if set(vote.systems) == {baseline, model}]
    attributes = [name for name in results.attributes if any(vote.attribute == name for vote in votes)]
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(vote.prompt_id for vote in votes))}
    lengths = {
        item: (len(results.text(item, baseline)), len(results.text(item, model)))
        for item in dict.fromkeys(vote.item for vote in votes)
    }
    longer_by = {item: of_model - of_baseline for item, (of_baseline, of_model) in lengths.items()}
    third = dict(zip(longer_by, terciles(list(longer_by.values())).tolist(), strict=True))

    # groups of votes: each attribute, each tercile, and last the votes for the shorter (0) and longer (2) answer
    table = np.zeros((len(prompts), len(attributes) + 4, 3))
    for vote in votes:
        counts, side = table[prompts[vote.prompt_id]], 1 if vote.choice == TIE else 2 if vote.choice == model else 0
        counts[attributes.index(vote.attribute), side] += 1
        counts[len(attributes) + third[vote.item], side] += 1
        if side != 1 and longer_by[vote.item]:
            counts[-1, 2 if (side == 2) == (longer_by[vote.item] > 0) else 0] += 1
    seed = key64(results.seed, "report", baseline, model)
    sums = bootstrap_sums(table.reshape(len(prompts), -1), seed=seed, resamples=RESAMPLES)
    sums = sums.reshape(-1, len(attributes) + 4, 3)
    totals = table.sum(axis=0)

    def rate(statistic: Statistic, group: int) -> Json:
        clusters = int(table[:, group].any(axis=1).sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            return rate_interval(statistic(sums[:, group]), float(statistic(totals[group])), clusters).to_json()

    def both_rates(group: int) -> Json:
        return {"ties_as_half": rate(ties_as_half, group), "ties_excluded": rate(ties_excluded, group)}

    entries = {}
    for place, attribute in enumerate(attributes):
        entry = _shares(totals[place]) | both_rates(place)
        entry["share"] = {side: rate(share_of(number), place) for number, side in enumerate(SIDES)}
        entry["difference"] = _difference(entry["ties_as_half"])
        entry |= _by_prompt(table[:, place])
        entry["agreement"] = _agreement([vote for vote in votes if vote.attribute == attribute], baseline, model, seed)
        entries[attribute] = entry
    medians = np.median(list(lengths.values()), axis=0).tolist() if lengths else (None, None)
    return {
        "baseline": baseline,
        "model": model,
        "votes": len(votes),
        "prompts": len(prompts),
        "items": len(lengths),
        "attributes": entries,
        "average": _average(entries, sums[:, : len(attributes)], len(prompts)),
        "length": {
            "unit": "characters",
            "median_baseline": medians[0],
            "median_model": medians[1],
            "chose_longer": rate(ties_excluded, len(attributes) + 3) | {"votes": int(totals[-1].sum())},
            "terciles": [
                {
                    "name": name,
                    "items": len(inside := [longer_by[item] for item in third if third[item] == number]),
                    "longer_by": [min(inside), max(inside)] if inside else None,
                    "votes": int(totals[len(attributes) + number].sum()),
                    **both_rates(len(attributes) + number),
                }
                for number, name in enumerate(TERCILES)
            ],
        },
    }


def _shares(counts: Floats) -> Json:
    """Counts and percentages of votes, and the row as the paper's tables have it."""
    percent = [float(100 * count / counts.sum()) for count in counts]
    return {
        "votes": int(counts.sum()),
        "counts": dict(zip(SIDES, (int(count) for count in counts), strict=True)),
        "percent": dict(zip(SIDES, percent, strict=True)),
        "row": paper_row(*percent),
    }


def paper_row(baseline: float, tie: float, model: float) -> str:
    """Percentages as in the paper's tables.

    >>> paper_row(24.5, 26.8, 48.7)
    '24.5/26.8/48.7 (24.2)'
    """
    return f"{baseline:.1f}/{tie:.1f}/{model:.1f} ({model - baseline:.1f})"


def _average(entries: Mapping[str, Json], sums: Floats, prompts: int) -> Json:
    """The plain mean over attributes, as in the paper's last column; its interval draws prompts once for all."""
    percent = {side: float(np.mean([entry["percent"][side] for entry in entries.values()])) for side in SIDES}

    def mean(statistic: Statistic, intervals: Sequence[Json]) -> Json:
        values = [math.nan if interval["value"] is None else interval["value"] for interval in intervals]
        with np.errstate(invalid="ignore", divide="ignore"):
            return rate_interval(statistic(sums).mean(axis=-1), float(np.mean(values)), prompts).to_json()

    half = mean(ties_as_half, [entry["ties_as_half"] for entry in entries.values()])
    return {
        "percent": percent,
        "row": paper_row(**percent),
        "ties_as_half": half,
        "ties_excluded": mean(ties_excluded, [entry["ties_excluded"] for entry in entries.values()]),
        "share": {
            side: mean(share_of(number), [entry["share"][side] for entry in entries.values()])
            for number, side in enumerate(SIDES)
        },
        "difference": _difference(half),
    }


def _difference(half: Mapping[str, float | None]) -> Json:
    """Percent of the model minus percent of the baseline: twice the win rate with ties as half, minus one."""
    return {name: None if value is None else 200 * value - 100 for name, value in half.items()}


def _by_prompt(counts: Floats) -> Json:
    """One vote per prompt: split, Wilson's interval of the decided, sign test (Holm's p is filled in later)."""
    lost, even, won = (int(count) for count in majority(counts))
    return {
        "by_prompt": {"baseline": lost, "tie": even, "model": won, "win_rate": wilson(won, won + lost).to_json()},
        "sign_test": {"p": sign_test(won, lost), "p_holm": None, "decided": won + lost},
    }


def _agreement(votes: Sequence[Judgment], baseline: str, model: str, seed: int) -> Json:
    """Alpha and raw agreement over items with two or more raters, with intervals; kappa if exactly two share items."""
    sides = {baseline: 0, TIE: 1, model: 2}
    by_item: dict[str, dict[str, int]] = defaultdict(dict)
    prompt_of = {vote.item: vote.prompt_id for vote in votes}
    for vote in votes:
        by_item[vote.item][vote.rater] = sides[vote.choice]
    shared = {item: given for item, given in by_item.items() if len(given) > 1}
    raters = sorted({rater for given in shared.values() for rater in given}, key=rater_order)
    out: Json = {"items": len(shared), "raters": len(raters)}
    if not shared:
        return out | {"alpha": UNKNOWN.to_json(), "raw": UNKNOWN.to_json(), "kappa": None}
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompt_of[item] for item in shared))}
    per_item = agreement_totals([np.bincount(list(given.values()), minlength=3) for given in shared.values()])
    per_prompt = np.zeros((len(prompts), per_item.shape[1]))
    np.add.at(per_prompt, [prompts[prompt_of[item]] for item in shared], per_item)
    sums = bootstrap_sums(per_prompt, seed=key64(seed, "agreement"), resamples=RESAMPLES)
    for name, statistic in (("alpha", alpha_of_sums), ("raw", raw_agreement_of_sums)):
        point = float(statistic(per_prompt.sum(axis=0)))
        out[name] = expanded_percentile(statistic(sums), point, len(prompts)).to_json()
    table = np.zeros((3, 3))
    for given in shared.values() if len(raters) == 2 else ():
        table[given[raters[0]], given[raters[1]]] += 1
    kappa = cohen_kappa(table)
    return out | {"kappa": None if math.isnan(kappa) else kappa}


def _position(results: StudyResults, votes: Sequence[Judgment]) -> Json:
    """How often the left answer won: of the decided votes on each attribute, and of rows."""
    by_attribute: dict[str, tuple[int, int]] = {}
    for name in results.attributes:
        decided = [vote for vote in votes if vote.attribute == name and vote.choice != TIE]
        by_attribute[name] = (sum(vote.choice == vote.systems[0] for vote in decided), len(decided))

    def rate(left: int, decided: int) -> Json:
        return wilson(left, decided).to_json() | {"decided": decided}

    return {
        "rows": rate(*left_by_row(votes)),
        "attributes": {name: rate(*counts) for name, counts in by_attribute.items()},
    }
