"""The result of a judge: wins of each system, and how often the side decided instead of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.judge.prompts import SWAP
from coh_lightning.judge.run import EQUAL, Outcome


@dataclass(frozen=True)
class Tally:
    """One attribute of one pair of systems."""

    attribute: str
    systems: tuple[str, str]
    wins: tuple[int, int]
    """Pairs that each won in both orders."""
    ties: int
    """Pairs that were a tie in both orders."""
    split: int
    """Pairs on which the orders disagree; they count as ties."""
    left: int
    """Verdicts for the left side, of `decided`."""
    decided: int
    """Verdicts other than ties, counting both orders."""

    @property
    def pairs(self) -> int:
        return sum(self.wins) + self.ties + self.split

    @property
    def agreed(self) -> int:
        return self.pairs - self.split


def tally(judgments: Iterable[Judgment]) -> list[Tally]:
    """Counts by attribute and pair of systems, from pairs with a verdict in both orders; equal texts are left out."""
    orders: dict[tuple[str, tuple[str, str], str], dict[str, Judgment]] = {}
    for one in judgments:
        first, second = sorted(one.systems)
        orders.setdefault((one.attribute, (first, second), one.item), {})[one.check] = one
    groups: dict[tuple[str, tuple[str, str]], list[tuple[Judgment, Judgment]]] = {}
    for (attribute, systems, _), by_check in orders.items():
        if set(by_check) == {"", SWAP} and by_check[""].comment != EQUAL:
            groups.setdefault((attribute, systems), []).append((by_check[""], by_check[SWAP]))
    tallies = []
    for (attribute, systems), pairs in groups.items():
        agreed = Counter(one.choice for one, other in pairs if one.choice == other.choice)
        decided = [one for pair in pairs for one in pair if one.choice != TIE]
        tallies.append(
            Tally(
                attribute,
                systems,
                wins=(agreed[systems[0]], agreed[systems[1]]),
                ties=agreed[TIE],
                split=len(pairs) - agreed.total(),
                left=sum(one.choice == one.systems[0] for one in decided),
                decided=len(decided),
            )
        )
    return tallies


def _share(part: int, whole: int) -> str:
    from coh_lightning.human_eval.statistics import wilson

    if not whole:
        return "-"
    found = wilson(part, whole)
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def show(outcome: Outcome) -> str:
    """The outcome in words, with three lines for each attribute."""
    lines = []
    for one in tally(outcome.judgments):
        first, second = one.systems
        lines += [
            f"{one.attribute}: {first} {one.wins[0]}, {second} {one.wins[1]}, tie {one.ties}, orders disagree "
            f"{one.split} (of {one.pairs} pairs)",
            f"  {first} wins {_share(one.wins[0], sum(one.wins))} of the pairs on which both orders agree",
            f"  both orders agree on {_share(one.agreed, one.pairs)}; the left side wins "
            f"{_share(one.left, one.decided)} of the verdicts other than ties",
        ]
        if one.pairs >= 10 and one.agreed < one.pairs / 2:
            lines.append("  the side decides more often than the answers: don't trust this judge on this attribute")
    equal = len({one.item for one in outcome.judgments if one.comment == EQUAL})
    if equal:
        lines.append(f"{equal} pairs of equal texts count as ties and were not asked.")
    if outcome.unusable:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(outcome.unusable.items()))
        lines.append(f"without a verdict: {counts} (their text is in the file of replies)")
    if outcome.left:
        lines.append(f"{outcome.left} questions got no answer: {outcome.why}. The same command asks them again.")
    return "\n".join(lines)
