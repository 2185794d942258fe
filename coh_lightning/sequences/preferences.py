"""What the feedback of a record says about its completions: a score each, which is better, which is good.

ranks 1 2 2     ->   scores -1 -2 -2    strict pairs (0, 1), (0, 2)    no completion good or bad by itself
thumbs up down  ->   scores 1 0         strict pair (0, 1)             good, bad
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coh_lightning.feedback.records import Feedback, RatedCompletion, place_on_scale
from coh_lightning.sequences.method import Judge, Method


@dataclass(frozen=True)
class ScoredOutput:
    """A candidate (or a revision) as the feedback chosen by `Method.preference_from` sees it."""

    candidate: RatedCompletion
    score: float | None  # higher is better, comparable within the record; None: no feedback
    good: bool | None  # whether it is good by itself; None: unknown
    is_revision: bool = False


def scored_outputs(record: Feedback, method: Method) -> list[ScoredOutput]:
    """The candidates of a record, each followed by its revision where revisions decide."""
    found: dict[Judge, bool] = {
        "rank": sum(candidate.rank is not None for candidate in record.candidates) > 1,
        "rating": any(candidate.ratings for candidate in record.candidates),
        "thumb": any(candidate.thumb is not None for candidate in record.candidates),
        "revision": True,
    }
    first = next(judge for judge, present in found.items() if present)
    judge = method.preference_from if method.preference_from != "auto" else first
    outputs: list[ScoredOutput] = []
    for candidate in record.candidates:
        outputs.append(ScoredOutput(candidate, *_score(record, candidate, judge, method)))
        if judge == "revision" and candidate.revision is not None:
            outputs.append(ScoredOutput(RatedCompletion(candidate.revision), 1.0, True, is_revision=True))
    return outputs


def _score(
    record: Feedback, candidate: RatedCompletion, judge: Judge, method: Method
) -> tuple[float | None, bool | None]:
    if judge == "rank":
        return (None if candidate.rank is None else -candidate.rank), None
    if judge == "thumb":
        return (None if candidate.thumb is None else float(candidate.thumb)), candidate.thumb
    if judge == "revision":
        return (0.0, False) if candidate.revision is not None else (None, None)
    if not candidate.ratings:
        return None, None
    shares = {name: place_on_scale(value, *record.scales[name]) for name, value in candidate.ratings.items()}
    share = shares["overall"] if "overall" in shares else round(sum(shares.values()) / len(shares), 9)
    return share, True if share > method.good_above else False if share < method.bad_below else None


def strict_pairs(record: Feedback, method: Method) -> list[tuple[int, int]]:
    """All (better, worse) pairs of the record's candidates, by index, with different scores and texts."""
    outputs = [output for output in scored_outputs(record, method) if not output.is_revision]
    places = {id(output): place for place, output in enumerate(outputs)}
    return [(places[id(better)], places[id(worse)]) for better, worse in ordered_pairs(outputs, "all")]


def ordered_pairs(outputs: Sequence[ScoredOutput], which: str) -> list[tuple[ScoredOutput, ScoredOutput]]:
    """Strictly ordered (better, worse) pairs with different texts: all of them, or the best against the worst.

    If the best and the worst have the same text (one person liked it, another didn't), it is the pair with the largest
    difference in score whose texts differ; of two such pairs, the one with the better best output.
    """
    judged = [(output, output.score) for output in outputs if output.score is not None]
    scored = [
        (a, b, better, better - worse)
        for a, better in judged
        for b, worse in judged
        if better > worse and a.candidate.text != b.candidate.text
    ]
    if which != "all" and scored:
        scored = [max(scored, key=lambda pair: (pair[3], pair[2]))]
    return [(a, b) for a, b, _, _ in scored]


def distinct_outputs(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """The scored outputs, each text once; texts with two scores are left out: they would be better than themselves."""
    scores: dict[str, set[float]] = {}
    once: dict[str, ScoredOutput] = {}
    for output in outputs:
        if output.score is not None:
            scores.setdefault(output.candidate.text, set()).add(output.score)
            once.setdefault(output.candidate.text, output)
    return [output for text, output in once.items() if len(scores[text]) == 1]
