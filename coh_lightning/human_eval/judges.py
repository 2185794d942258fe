"""What language models said in a study that people rated: beside people, never among them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import wilson


def judge_numbers(everyone: StudyResults, people: StudyResults) -> dict[str, Any]:
    """Judge -> pairs -> attributes -> its votes, its win rate, and how often it chose as most people did on the same
    item. A verdict that changed with the order of the answers counts as a tie.
    """
    from coh_lightning.human_eval.analysis import analyze

    if not everyone.judges:
        return {}
    majority = _majorities(people)
    numbers: dict[str, Any] = {}
    for judge in everyone.judges:
        own = replace(everyone, judgments=tuple(_in_both_orders(everyone.of([judge]).judgments)))
        pairs = []
        for pair in analyze(own, [judge])["pairs"] if own.judgments else ():
            names = {pair["baseline"], pair["model"]}
            attributes = {}
            for name, entry in pair["attributes"].items():
                alike = [
                    one.choice == majority[one.item, name]
                    for one in own.judgments
                    if one.attribute == name and set(one.systems) == names and (one.item, name) in majority
                ]
                kept = {key: entry[key] for key in ("votes", "row", "ties_as_half")}
                attributes[name] = kept | {"with_people": wilson(sum(alike), len(alike)).to_json() | {"of": len(alike)}}
            pairs.append({"baseline": pair["baseline"], "model": pair["model"], "attributes": attributes})
        numbers[judge] = pairs
    return numbers


def _in_both_orders(judgments: tuple[Judgment, ...]) -> list[Judgment]:
    """The verdicts that count, each a tie if the other order had another outcome."""
    swapped = {(one.item, one.attribute): one.choice for one in judgments if one.check == "swap"}
    return [
        one if swapped.get((one.item, one.attribute), one.choice) == one.choice else replace(one, choice=TIE)
        for one in judgments
        if not one.check
    ]


def _majorities(people: StudyResults) -> dict[tuple[str, str], str]:
    """(item, attribute) -> the system that more people chose than the other one, or a tie."""
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for vote in people.judgments:
        if not vote.check:
            for system in vote.systems:
                counts[vote.item, vote.attribute][system] += vote.choice == system
    found = {}
    for place, votes in counts.items():
        (one, first), (other, second) = votes.items()
        found[place] = TIE if first == second else one if first > second else other
    return found
