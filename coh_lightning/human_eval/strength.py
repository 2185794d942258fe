"""How strong preferences are: counts by strength, the sign test on clear ones, and a cumulative-link model.

The model (McCullagh 1980, proportional odds; statsmodels' OrderedModel) has an ordinal answer for each vote, from
"right clearly" to "left clearly", thresholds that take up a liking for one side, and one coefficient b for where the
model stands (1 left, -1 right). exp(2 b) is the odds ratio of at least a given preference for the model to the same
preference for the baseline. Standard errors are clustered by prompt.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.choices import STRENGTHS
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import LEVEL, needed, sign_test

FEWEST = 20
"""Prompts below which the model is refused: its standard errors, clustered by prompt, would be too small."""


def strength_numbers(results: StudyResults, raters: Sequence[str]) -> list[dict[str, Any]]:
    """For each pair and attribute with strengths: levels, clear preferences by prompt, odds ratio; [] without any."""
    votes = [one for one in results.judgments if not one.check and one.rater in raters]
    if all(one.strength is None for one in votes):
        return []
    rows = []
    for baseline, model in results.pairs:
        for attribute in results.attributes:
            own = [one for one in votes if one.attribute == attribute and set(one.systems) == {baseline, model}]
            graded = [one for one in own if one.choice == TIE or one.strength is not None]
            if graded:
                names = {"baseline": baseline, "model": model, "attribute": attribute}
                counts = {"votes": len(graded), "without_strength": len(own) - len(graded)}
                rows.append(
                    names
                    | counts
                    | {
                        "levels": _levels(graded, baseline, model),
                        "clear": _clear(graded, baseline, model),
                        "odds_ratio": odds_ratio(graded, model),
                    }
                )
    return rows


def _levels(votes: Sequence[Judgment], baseline: str, model: str) -> dict[str, int]:
    """Votes from "baseline clearly" to "model clearly"."""
    order = [("baseline", "clearly"), ("baseline", "slightly"), ("model", "slightly"), ("model", "clearly")]
    names = {"baseline": baseline, "model": model}
    counts = {
        f"{side} {strength}": sum(one.choice == names[side] and one.strength == strength for one in votes)
        for side, strength in order
    }
    ties = sum(one.choice == TIE for one in votes)
    return {**dict(list(counts.items())[:2]), TIE: ties, **dict(list(counts.items())[2:])}


def _clear(votes: Sequence[Judgment], baseline: str, model: str) -> dict[str, Any]:
    """One vote per prompt, that of the majority of its clear preferences, and the exact sign test on them."""
    lead: dict[str, int] = defaultdict(int)
    for one in votes:
        if one.strength == STRENGTHS[1]:
            lead[one.prompt_id] += 1 if one.choice == model else -1
    won, lost = sum(value > 0 for value in lead.values()), sum(value < 0 for value in lead.values())
    return {"model": won, "baseline": lost, "p": sign_test(won, lost)}


def odds_ratio(votes: Sequence[Judgment], model: str) -> Mapping[str, Any]:
    """The odds ratio of the cumulative-link model with its interval and p, or why the votes are too thin for it.

    Votes have a strength or are ties.
    """
    sides = np.array([1.0 if one.systems[0] == model else -1.0 for one in votes])
    grades = np.array([_grade(one) for one in votes])
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(one.prompt_id for one in votes))}
    toward = set(np.sign(grades * sides).tolist()) - {0}
    if len(prompts) < FEWEST:
        return {"refused": f"{len(prompts)} prompts are too few for a model of strength; it needs {FEWEST}."}
    if len(toward) < 2:
        return {"refused": "No vote prefers the one side or the other, so that the odds have no bound."}
    if len(set(sides.tolist())) < 2:
        return {"refused": "The model stood on one side in all rows, so that side and model can't be told apart."}
    ordered = needed("statsmodels.miscmodels.ordinal_model").OrderedModel
    used = sorted(set(grades.tolist()))
    groups = np.array([prompts[one.prompt_id] for one in votes])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps on the way; whether it converged is checked below
        fit = ordered(np.searchsorted(used, grades), sides[:, None], distr="logit").fit(
            method="bfgs", maxiter=500, disp=0, cov_type="cluster", cov_kwds={"groups": groups}
        )
    b, error = float(fit.params[0]), float(fit.bse[0])
    if not fit.mle_retvals["converged"] or not math.isfinite(error) or error <= 0:
        return {"refused": "The model of strength doesn't converge on these votes; look at the counts."}
    width = float(needed("scipy.stats").norm.ppf((1 + LEVEL) / 2)) * error
    low, high = (math.exp(2 * (b + sign * width)) for sign in (-1, 1))
    return {"value": math.exp(2 * b), "low": low, "high": high, "p": float(fit.pvalues[0]), "prompts": len(prompts)}


def _grade(one: Judgment) -> int:
    """-2 (right clearly) to 2 (left clearly)."""
    if one.choice == TIE or one.strength is None:
        return 0
    size = 1 + STRENGTHS.index(one.strength)
    return size if one.choice == one.systems[0] else -size
