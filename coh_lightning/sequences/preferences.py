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
    """A candidate (or a revision) as the feedback chosen by `Method.judge` sees it."""

    candidate: RatedCompletion
    score: float | None
    """Higher is better, comparable within the record; None: no feedback."""
    good: bool | None
    """Whether it is good by itself; None: unknown."""
    is_revision: bool = False


def scored_outputs(record: Feedback, method: Method) -> list[ScoredOutput]:
    """The candidates of a record, each followed by its revision where revisions decide."""
    judge = method.preference_from if method.preference_from != "auto" else _first_judge(record)
    outputs: list[ScoredOutput] = []
    for candidate in record.candidates:
        score, good = _score(record, candidate, judge, method)
        outputs.append(ScoredOutput(candidate, score, good))
        if judge == "revision" and candidate.revision is not None:
            outputs.append(ScoredOutput(RatedCompletion(candidate.revision), 1.0, True, is_revision=True))
    return outputs


def _first_judge(record: Feedback) -> Judge:
    """The first of rank, rating, thumb, revision that any completion of the record has."""
    if sum(c.rank is not None for c in record.candidates) > 1:
        return "rank"
    if any(c.ratings for c in record.candidates):
        return "rating"
    if any(c.thumb is not None for c in record.candidates):
        return "thumb"
    return "revision"


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
    """All (better, worse) index pairs of the record's candidates with different scores and texts, for preference
    accuracy.
    """
    outputs = [output for output in scored_outputs(record, method) if not output.is_revision]
    return [
        (i, j)
        for i, a in enumerate(outputs)
        for j, b in enumerate(outputs)
        if a.score is not None and b.score is not None and a.score > b.score and a.candidate.text != b.candidate.text
    ]


def ordered_pairs(outputs: Sequence[ScoredOutput], which: str) -> list[tuple[ScoredOutput, ScoredOutput]]:
    """Strictly ordered (better, worse) pairs with different texts: all of them, or the best against the worst.

    If the best and the worst have the same text (one person liked it, another didn't), it is the pair with the largest
    difference in score whose texts differ; of two such pairs, the one with the better best output.
    """
    judged = [output for output in outputs if output.score is not None]
    pairs = [
        (a, b)
        for a in judged
        for b in judged
        if (a.score or 0.0) > (b.score or 0.0) and a.candidate.text != b.candidate.text
    ]
    if which == "all" or not pairs:
        return pairs
    return [
        max(
            pairs,
            key=lambda pair: ((pair[0].score or 0.0) - (pair[1].score or 0.0), pair[0].score, -(pair[1].score or 0.0)),
        )
    ]


def distinct_outputs(outputs: Sequence[ScoredOutput]) -> list[ScoredOutput]:
    """The scored outputs, each text once; a text with two different scores is left out, since it would be better than
    itself.
    """
    scores: dict[str, set[float]] = {}
    for output in outputs:
        if output.score is not None:
            scores.setdefault(output.candidate.text, set()).add(output.score)
    once = {
        output.candidate.text: output
        for output in reversed(outputs)
        if output.score is not None and len(scores[output.candidate.text]) == 1
    }
    return [output for output in outputs if once.get(output.candidate.text) is output]
