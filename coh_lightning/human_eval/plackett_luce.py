"""Strict rankings of several systems: the Plackett-Luce model (Plackett 1975), fitted by choix, with intervals over
prompts. The chance that system i is put first among those left is p_i over the sum of their p.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coh_lightning.human_eval.rankings import rankings_of
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import LEVEL, needed
from coh_lightning.intervals import Floats
from coh_lightning.rng import key64

RESAMPLES = 500
FEWEST = 10
"""Prompts below which no intervals over prompts are given, and so no ranking."""

Ranking = tuple[str, tuple[str, ...]]
"""Prompt id, systems from best to worst."""


def plackett_luce_numbers(results: StudyResults, raters: Sequence[str]) -> dict[str, Any]:
    """Attribute -> the systems by strength, or why they can't be ranked; {} without rankings."""
    votes = [one for one in results.judgments if not one.check and one.rater in raters]
    return {
        attribute: plackett_luce(rankings, results.systems, seed=key64(results.seed, "plackett-luce", attribute))
        for attribute, rankings in rankings_of(votes).items()
    }


def plackett_luce(rankings: Sequence[Ranking], systems: Sequence[str], *, seed: int) -> Mapping[str, Any]:
    """Log strengths (mean 0) with intervals, best first; or {"refused": why}."""
    by_prompt: dict[str, list[list[int]]] = defaultdict(list)
    for prompt, order in rankings:
        by_prompt[prompt].append([systems.index(name) for name in order])
    if len(by_prompt) < FEWEST:
        return {"refused": f"{len(by_prompt)} prompts are too few for a ranking; it needs {FEWEST}."}
    if apart := _always_above(rankings, systems):
        return {"refused": f"{apart} was always ranked above the others, so no finite strengths fit; collect more."}
    groups = list(by_prompt.values())
    point = _fit([order for group in groups for order in group], len(systems))
    random, drawn, failed = np.random.default_rng(seed % 2**63), [], 0
    for _ in range(RESAMPLES):
        chosen = random.integers(len(groups), size=len(groups))
        sample = [order for place in chosen for order in groups[place]]
        try:
            drawn.append(_fit(sample, len(systems)))
        except (RuntimeError, ValueError, np.linalg.LinAlgError):  # a resample in which a system always wins
            failed += 1
    if failed > RESAMPLES // 20:
        return {"refused": "Too many resamples of the prompts have no finite strengths; collect more rankings."}
    low, high = np.quantile(np.array(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    places: list[int] = np.argsort(-point).tolist()
    return {
        "rankings": len(rankings),
        "prompts": len(groups),
        "systems": [
            {
                "rank": rank,
                "system": systems[place],
                "log_strength": {"value": float(point[place]), "low": float(low[place]), "high": float(high[place])},
                "first": _share(rankings, systems[place]),
            }
            for rank, place in enumerate(places, start=1)
        ],
    }


def _fit(orders: Sequence[Sequence[int]], systems: int) -> Floats:
    """The maximum-likelihood log strengths, mean 0. Raises RuntimeError or ValueError where none is finite."""
    fitted: Floats = needed("choix").ilsr_rankings(systems, orders, max_iter=200)
    if not np.isfinite(fitted).all() or np.abs(fitted).max() > 12:
        raise ValueError("the strengths diverge")
    return fitted - fitted.mean()


def _always_above(rankings: Sequence[Ranking], systems: Sequence[str]) -> str:
    """Systems that were always ranked above all others ("" if there are none): then no finite estimate exists."""
    beats = {name: set[str]() for name in systems}
    for _, order in rankings:
        for place, name in enumerate(order):
            beats[name] |= set(order[place + 1 :])
    for start in systems:
        reached, waiting = {start}, [start]
        while waiting:
            for name in beats[waiting.pop()] - reached:
                reached.add(name)
                waiting.append(name)
        if len(reached) < len(systems):  # nobody below ever beat one of the others
            return " and ".join(name for name in systems if name not in reached)
    return ""


def _share(rankings: Sequence[Ranking], system: str) -> float:
    """Share of the rankings that have the system first."""
    return sum(order[0] == system for _, order in rankings) / len(rankings)
