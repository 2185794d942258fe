"""The ranking of three or more systems: Bradley-Terry with ties per attribute, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.bradley_terry import bradley_terry, davidson, expected_win_rates
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import expanded_percentile
from coh_lightning.intervals import Floats, bootstrap_sums
from coh_lightning.rng import key64


def rank_systems(results: StudyResults, votes: Sequence[Judgment]) -> dict[str, Any]:
    """For each attribute the systems in order of strength, or {"refused": why they can't be ranked}."""
    prompts = list(dict.fromkeys(vote.prompt_id for vote in votes))
    return {
        name: _ranked(results, [vote for vote in votes if vote.attribute == name], name, prompts)
        for name in results.attributes
    }


def _ranked(results: StudyResults, votes: Sequence[Judgment], attribute: str, prompts: Sequence[str]) -> dict[str, Any]:
    systems = results.systems
    table = _table(systems, votes, prompts)
    wins, ties = table.sum(axis=0)
    try:
        fitted = bradley_terry(wins, ties, systems)
    except InputError as error:
        return {"refused": str(error)}
    clusters = int(table.any(axis=(1, 2, 3)).sum())
    seed = key64(results.seed, "ranking", attribute)
    sums = bootstrap_sums(table.reshape(len(prompts), -1), seed=seed, resamples=2000)
    strengths, tie = davidson(*np.moveaxis(sums.reshape(-1, *table.shape[1:]), 1, 0))
    rates = expected_win_rates(strengths, tie)
    order = sorted(range(len(systems)), key=lambda place: -fitted.log_strengths[place])
    return {
        "model": "Bradley-Terry with ties (Davidson 1970)",
        "votes": int(wins.sum() + ties.sum() / 2),
        "tie_parameter": fitted.tie,
        "resamples_without_estimate": int(np.isnan(tie).sum()),
        "systems": [
            {
                "rank": rank,
                "system": systems[place],
                "log_strength": expanded_percentile(
                    strengths[:, place], float(fitted.log_strengths[place]), clusters
                ).to_json(),
                "win_rate": expanded_percentile(rates[:, place], float(fitted.win_rates()[place]), clusters).to_json(),
            }
            for rank, place in enumerate(order, start=1)
        ],
    }


def _table(systems: Sequence[str], votes: Sequence[Judgment], prompts: Sequence[str]) -> Floats:
    """Counts of shape (prompts, 2, systems, systems): wins (row over column), and ties (on both sides)."""
    place_of = {name: place for place, name in enumerate(systems)}
    prompt_of = {prompt: place for place, prompt in enumerate(prompts)}
    table = np.zeros((len(prompts), 2, len(systems), len(systems)))
    for vote in votes:
        one, other = (place_of[name] for name in vote.systems)
        counts = table[prompt_of[vote.prompt_id]]
        if vote.choice == TIE:
            counts[1, one, other] += 1
            counts[1, other, one] += 1
        else:
            winner = place_of[vote.choice]
            counts[0, winner, one + other - winner] += 1
    return table
