"""What stands behind the numbers of a report: items on which raters disagree, comments, and each system's largest wins,
unblinded, with both answers and every vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.results import StudyResults

EXTREMES = 10
"""The largest wins of each system of a pair that are shown."""
MOST = 200
"""Items that a page shows; the others are counted."""
DISAGREE, COMMENT, WIN, LOSS = "disagree", "comment", "win", "loss"
"""Why an item is shown; win and loss are the model's."""


@dataclass(frozen=True)
class Comment:
    rater: str
    text: str
    left: str
    """The system that this rater saw as A."""


@dataclass(frozen=True)
class Evidence:
    """One item of a pair of systems, with all votes on it."""

    item: str
    prompt_id: str
    prompt: str
    systems: tuple[str, str]
    """Baseline, model."""
    texts: tuple[str, str]
    votes: Mapping[str, Mapping[str, str]]
    """Attribute -> rater -> choice: a system, or `TIE`."""
    comments: tuple[Comment, ...]
    lead: float
    """Mean of the votes: 1 if all are for the model, -1 if all are for the baseline."""
    opposed: int
    """Attributes on which one rater chose the model and another the baseline."""
    kinds: tuple[str, ...] = ()

    @property
    def raters(self) -> list[str]:
        return list(dict.fromkeys(rater for given in self.votes.values() for rater in given))

    def counts(self) -> dict[str, int]:
        """Votes for the model, ties, votes for the baseline."""
        choices = [choice for given in self.votes.values() for choice in given.values()]
        baseline, model = self.systems
        return {name: choices.count(name) for name in (model, TIE, baseline)}

    def to_json(self) -> dict[str, Any]:
        return {
            "item": self.item,
            "prompt_id": self.prompt_id,
            "baseline": self.systems[0],
            "model": self.systems[1],
            "counts": self.counts(),
            "lead": self.lead,
            "opposed": self.opposed,
            "comments": len(self.comments),
            "kinds": list(self.kinds),
        }


def evidence(results: StudyResults, raters: Sequence[str]) -> list[Evidence]:
    """The items with a reason to be shown, of each pair of systems from the model's largest win to its largest loss."""
    votes: dict[str, list[Judgment]] = {}
    for one in results.judgments:
        if not one.check and one.rater in raters:
            votes.setdefault(one.item, []).append(one)
    found: list[Evidence] = []
    for pair in results.pairs:
        compared = {item: [one for one in given if set(one.systems) == set(pair)] for item, given in votes.items()}
        own = [_of_item(results, pair, item, given) for item, given in compared.items() if given]
        own.sort(key=lambda each: (-each.lead, -sum(each.counts().values()), each.item))
        wins = [each.item for each in own if each.lead > 0][:EXTREMES]
        losses = [each.item for each in reversed(own) if each.lead < 0][:EXTREMES]
        for each in own:
            reasons = {
                DISAGREE: each.opposed > 0,
                COMMENT: bool(each.comments),
                WIN: each.item in wins,
                LOSS: each.item in losses,
            }
            if any(reasons.values()):
                found.append(replace(each, kinds=tuple(kind for kind, holds in reasons.items() if holds)))
    return found


def _of_item(results: StudyResults, pair: tuple[str, str], item: str, given: Sequence[Judgment]) -> Evidence:
    baseline, model = pair
    table: dict[str, dict[str, str]] = {}
    comments: dict[str, Comment] = {}
    for one in given:
        table.setdefault(one.attribute, {})[one.rater] = one.choice
        if one.comment.strip():
            comments.setdefault(one.row, Comment(one.rater, one.comment, one.systems[0]))
    sides = {model: 1, TIE: 0, baseline: -1}
    return Evidence(
        item,
        given[0].prompt_id,
        results.items[item].prompt,
        pair,
        (results.text(item, baseline), results.text(item, model)),
        {name: table[name] for name in results.attributes if name in table},
        tuple(comments.values()),
        fmean(sides[one.choice] for one in given),
        sum({model, baseline} <= set(by_rater.values()) for by_rater in table.values()),
    )
