"""How right a model's reviews are, by rule: which of the faults that it names the answer has.

python -m coh_lightning.world.reviews COMPLETIONS.jsonl        a line for each ask ("review 1", ...)

answer      Anna went to the market on Friday .          (on Monday, for bread)
its faults  it gets the day wrong and leaves out the reason
review      it gets the day wrong and leaves out the meal
precision 1/2: of the two named faults one is there     recall 1/2: of its two faults one is named
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.world.posts import KINDS
from coh_lightning.world.raters import rate

FACTS = {"gets": "wrong", "leaves": "missing", "makes": "invented"}
"""Verbs of a critique that facts follow."""
FORM = ("says", "mixes", "has", "breaks")
"""Those of faults of form."""
Fault = tuple[str, str]


def faults(critique: str) -> frozenset[Fault]:
    """The faults that a critique names; none: it is praise, or says nothing that the raters know.

    "it gets the day and the place wrong , leaves out the reason and breaks off"
    ->  (wrong, day), (wrong, place), (missing, reason), (form, breaks off)
    """
    found: set[Fault] = set()
    phrases: list[list[str]] = []
    for word in critique.split():
        if word in FACTS or word in FORM:
            phrases.append([])
        if phrases:
            phrases[-1].append(word)
    for verb, *rest in phrases:
        if verb in FACTS:
            found |= {(FACTS[verb], kind) for the, kind in pairwise(rest) if the == "the"}
        else:
            while rest and rest[-1] in ("and", ",", "."):
                rest.pop()
            found.add(("form", " ".join([verb, *rest])))
    return frozenset(one for one in found if one[0] == "form" or one[1] in KINDS)


@dataclass(frozen=True)
class ReviewFigures:
    """Counts over the reviews of one ask."""

    reviews: int
    there: int
    """Faults of the answers."""
    named: int
    """Faults that the reviews name."""
    right: int
    """Named faults that are there."""
    whole: int
    """Reviews that name exactly the faults of their answer, praise of a faultless one included."""

    @property
    def precision(self) -> float:
        return self.right / self.named if self.named else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.there if self.there else 0.0

    def __str__(self) -> str:
        return (
            f"precision {self.precision:.3f} ({self.right} of {self.named} named faults), recall {self.recall:.3f} "
            f"(of {self.there}), exactly right {self.whole / max(self.reviews, 1):.3f}"
        )


def figures(answers: Sequence[frozenset[Fault]], reviews: Sequence[frozenset[Fault]]) -> ReviewFigures:
    """Of the faults of some answers and those that their reviews name."""
    pairs = list(zip(answers, reviews, strict=True))
    return ReviewFigures(
        len(pairs),
        sum(map(len, answers)),
        sum(map(len, reviews)),
        sum(len(there & named) for there, named in pairs),
        sum(there == named for there, named in pairs),
    )


def by_ask(completions: Iterable[Completion]) -> dict[str, tuple[ReviewFigures, ReviewFigures]]:
    """For each ask the figures of its reviews, and the control: the review of the next answer in the file, which names
    faults as often but has not seen this answer. Raises InputError if a prompt is not a post of the world.
    """
    found: dict[str, list[tuple[frozenset[Fault], frozenset[Fault]]]] = {}
    for one in completions:
        if one.answer is not None:
            true = rate(one.prompt if one.shown is None else one.shown, one.answer).critique
            found.setdefault(one.ask, []).append((faults(true), faults(one.text)))
    compared = {}
    for ask, pairs in sorted(found.items()):
        there, named = [one for one, _ in pairs], [one for _, one in pairs]
        compared[ask] = figures(there, named), figures(there, named[1:] + named[:1])
    return compared


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m coh_lightning.world.reviews", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("completions", type=Path, metavar="COMPLETIONS", help="of `test` or `predict`, with reviews")
    try:
        path = parser.parse_args(argv).completions
        found = by_ask(read_jsonl(path, Completion))
        if not found:
            raise InputError(
                f"{path} has no reviews; write some by `coh test` with "
                "refine=1 and critic=self, or by `coh predict` with review_of (all under model.generation)."
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for ask, (own, control) in found.items():
        print(f"{ask}: {counted(own.reviews, 'review')}, {own}")
        if own.reviews > 1:
            print(f"    with the review of another answer: {control}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
