"""Ranking of three or more systems: Davidson's Bradley-Terry model with ties, with intervals over prompts.

By hand, because the bootstrap over prompts fits 2,000 tables in one batch of Newton steps; evalica, the library with
this model, resamples single votes and fits one table at a time. The tests compare with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import expanded_percentile
from coh_lightning.intervals import Floats, bootstrap_sums
from coh_lightning.rng import key64

LARGEST_LOG_STRENGTH = 12.0
"""An estimate beyond this (odds of 160,000 against the average) is diverging to infinity."""


@dataclass(frozen=True)
class Strengths:
    log_strengths: Floats
    """One for each system, mean 0: a difference d means odds of exp(d) among decided comparisons."""
    tie: float
    """Davidson's nu: between equals, tie : win = nu : 1."""

    def win_rates(self) -> Floats:
        """See `expected_win_rates`."""
        return expected_win_rates(self.log_strengths, np.asarray(self.tie))


def bradley_terry(wins: ArrayLike, ties: ArrayLike, systems: Sequence[str]) -> Strengths:
    """The maximum-likelihood strengths of Davidson's model (JASA 65, 1970)::

        P(i beats j) = p_i / (p_i + p_j + nu sqrt(p_i p_j))
        P(tie)       = nu sqrt(p_i p_j) / (p_i + p_j + nu sqrt(p_i p_j))

    wins[i][j] is how often i was chosen over j, ties[i][j] = ties[j][i] how often they tied. Raises InputError if the
    comparison graph is not connected, or no finite estimate exists.

    >>> fitted = bradley_terry([[0, 6], [3, 0]], [[0, 1], [1, 0]], ["a", "b"])
    >>> round(float(np.exp(fitted.log_strengths[0] - fitted.log_strengths[1])), 9)  # of two: the odds of the decided
    2.0
    """
    won, tied = np.asarray(wins, dtype=np.float64), np.asarray(ties, dtype=np.float64)
    parts = components(won + tied > 0)
    refused = None
    if len(parts) > 1:
        named = "; ".join(", ".join(systems[index] for index in part) for part in parts)
        refused = f"the comparisons fall into {len(parts)} parts ({named}); compare across them."
    elif not won.any():
        refused = f"all {tied.sum() / 2:g} votes are ties; collect more votes."
    else:
        reach = _reachable((won + tied) > 0)
        for index, name in enumerate(systems):
            reaches_all, reached_by_all = reach[index].all(), reach[:, index].all()
            if not (reaches_all and reached_by_all):
                why = (
                    "never won or tied"
                    if reached_by_all
                    else "never lost or tied"
                    if reaches_all
                    else "is between them"
                )
                refused = f"against at least one group of the others, {name} {why}; collect more votes."
                break
    if refused is None:
        strengths, tie = davidson(won[None], tied[None])
        if np.isfinite(strengths).all():
            return Strengths(strengths[0], float(tie[0]))
        refused = "no finite strengths fit these wins and ties; collect more votes."
    raise InputError(f"the systems can't be ranked: {refused}")


def components(met: ArrayLike) -> list[list[int]]:
    """The groups of systems connected by comparisons; met[i][j]: i and j were compared.

    >>> components([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    [[0, 1], [2]]
    """
    reach = _reachable(np.asarray(met, dtype=bool) | np.asarray(met, dtype=bool).T)
    return sorted({tuple(np.flatnonzero(row).tolist()): np.flatnonzero(row).tolist() for row in reach}.values())


def _reachable(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each node can be reached from each, itself included; edges of shape (nodes, nodes)."""
    reach = edges | np.eye(len(edges), dtype=bool)
    for through in range(len(edges)):
        reach = reach | (reach[:, through, None] & reach[None, through, :])
    return reach


def davidson(wins: Floats, ties: Floats) -> tuple[Floats, Floats]:
    """Fits Davidson's model to many tables at once by Newton's method (log-linear: one maximum). `wins` and `ties` have
    shape (tables, systems, systems); returns log strengths (tables, systems) with mean 0, and nu (tables,): nan for a
    table without a finite estimate.
    """
    tables, systems = wins.shape[:2]
    first, second = np.triu_indices(systems, 1)
    outcomes = [wins[:, first, second], wins[:, second, first], ties[:, first, second]]
    counts = np.stack(outcomes, axis=-1)  # (tables, pairs, 3 outcomes)
    total = counts.sum(axis=(1, 2))
    some = (counts[..., 2].sum(axis=1) > 0).astype(np.float64)  # without ties, nu is 0 and no parameter
    counts = counts / np.maximum(total, 1)[:, None, None]
    # the exponent of each outcome is features @ (log strengths, log nu)
    features = np.zeros((len(first), 3, systems + 1))
    pairs = np.arange(len(first))
    features[pairs, 0, first] = features[pairs, 1, second] = 1
    features[pairs, 2, first] = features[pairs, 2, second] = 0.5
    features[pairs, 2, systems] = 1
    gauge = np.zeros((systems + 1, systems + 1))
    gauge[:systems, :systems] = 1  # keeps the sum of the log strengths at 0

    def fit(x: Floats) -> tuple[Floats, Floats]:
        logits = np.einsum("mok,bk->bmo", features, x)
        logits[..., 2] = np.where(some[:, None] > 0, logits[..., 2], -np.inf)
        top = logits.max(axis=-1, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        with np.errstate(invalid="ignore"):
            likelihood = np.where(counts > 0, counts * (logits - log_sum), 0.0).sum(axis=(1, 2))
        return likelihood, np.exp(logits - log_sum)

    x = np.zeros((tables, systems + 1))
    likelihood, chances = fit(x)
    met = counts.sum(axis=-1)
    for _ in range(100):
        expected = met[..., None] * chances
        gradient = np.einsum("bmo,mok->bk", counts - expected, features)
        mean = np.einsum("bmo,mok->bmk", chances, features)
        curvature = (
            np.einsum("bmo,mok,mol->bkl", expected, features, features)
            - np.einsum("bm,bmk,bml->bkl", met, mean, mean)
            + gauge
        )
        curvature[:, systems, systems] += 1 - some
        curvature += 1e-14 * np.eye(systems + 1)  # diverging tables stay solvable
        step = np.clip(np.linalg.solve(curvature, gradient[..., None])[..., 0], -5, 5)
        inside = np.abs(x).max(axis=1) < LARGEST_LOG_STRENGTH
        if np.abs(step[inside]).max(initial=0.0) < 1e-13:
            break
        length = np.ones(tables)
        while ((worse := fit(x + length[:, None] * step)[0] < likelihood - 1e-14) & (length > 1e-9)).any():
            length = np.where(worse, length / 2, length)
        x = np.clip(x + length[:, None] * step, -2 * LARGEST_LOG_STRENGTH, 2 * LARGEST_LOG_STRENGTH)
        likelihood, chances = fit(x)
    strengths = x[:, :systems] - x[:, :systems].mean(axis=1, keepdims=True)
    tie = np.where(some > 0, np.exp(x[:, systems]), 0.0)
    lost = ~inside | (total == 0) | (np.abs(gradient).max(axis=1) > 1e-9)
    return np.where(lost[:, None], math.nan, strengths), np.where(lost, math.nan, tie)


def expected_win_rates(log_strengths: Floats, tie: Floats) -> Floats:
    """Expected win rate of each system against each of the others equally often, a tie as half, shape (..., systems).

    >>> expected_win_rates(np.log([2.0, 1.0]), np.array(0.0)).round(3)
    array([0.667, 0.333])
    """
    strength = np.exp(log_strengths)
    one, other = strength[..., :, None], strength[..., None, :]
    drawn = np.asarray(tie)[..., None, None] * np.sqrt(one * other)
    rates = (one + drawn / 2) / (one + other + drawn)
    systems = log_strengths.shape[-1]
    return (rates.sum(axis=-1) - 0.5) / max(1, systems - 1)  # minus the half against itself


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

    def interval(resampled: Floats, points: Floats, place: int) -> dict[str, Any]:
        return expanded_percentile(resampled[:, place], float(points[place]), clusters).to_json()

    return {
        "model": "Bradley-Terry with ties (Davidson 1970)",
        "votes": int(wins.sum() + ties.sum() / 2),
        "tie_parameter": fitted.tie,
        "resamples_without_estimate": int(np.isnan(tie).sum()),
        "systems": [
            {
                "rank": rank,
                "system": systems[place],
                "log_strength": interval(strengths, fitted.log_strengths, place),
                "win_rate": interval(rates, fitted.win_rates(), place),
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
