"""What is wrong with a summary, by name, and the critique that says it in words.

wrong day, missing reason, form slip    ->  it gets the day wrong , leaves out the reason and mixes up he and she
nothing                                 ->  it is right and complete
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from coh_lightning.world.posts import DETAILS, KINDS

FAULTLESS = "it is right and complete"

FORM_FAULTS: Mapping[str, str] = {
    "repeat": "says a thing twice",
    "slip": "mixes up he and she",
    "broken": "has a broken sentence",
    "unfinished": "breaks off",
}


@dataclass(frozen=True)
class Faults:
    """Kinds of fact that a summary gets wrong, leaves out or makes up, and its faults of form."""

    wrong: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    invented: frozenset[str] = frozenset()
    form: frozenset[str] = frozenset()

    @property
    def critique(self) -> str:
        phrases = [f"gets {_named(self.wrong)} wrong"] if self.wrong else []
        phrases += [f"leaves out {_named(self.missing)}"] if self.missing else []
        phrases += [f"makes up {_named(self.invented)}"] if self.invented else []
        phrases += [phrase for fault, phrase in FORM_FAULTS.items() if fault in self.form]
        return f"it {_join(phrases)}" if phrases else FAULTLESS


def exchanged(faults: Faults, facts: Mapping[str, str], random: random.Random) -> Faults:
    """The same faults, but one drawn at random is named wrongly: another kind of fact (of form: another fault of form)
    stands in its place, for which it isn't true. A faultless summary gets one fault that it doesn't have.

    missing reason and meal (the post has a day, rightly stated)    ->  missing day and meal
    nothing                                                         ->  wrong day
    """
    true = [(group, one) for group in ("wrong", "missing", "invented", "form") for one in _sorted(faults, group)]
    taken = faults.wrong | faults.missing | faults.invented
    stated = [kind for kind in DETAILS if kind in facts and kind not in taken]
    false = {
        "wrong": stated,
        "missing": stated,
        "invented": [kind for kind in DETAILS if kind not in facts and kind not in taken],
        "form": [fault for fault in FORM_FAULTS if fault not in faults.form],
    }
    left_out = random.choice(true) if true else None
    group = left_out[0] if left_out else ""
    if not false.get(group):  # nothing to exchange, or of this group everything is true
        group = random.choice([name for name, kinds in false.items() if kinds])
    named = [*(one for one in true if one != left_out), (group, random.choice(false[group]))]
    return Faults(**{name: frozenset(one for of, one in named if of == name) for name in false})


def _sorted(faults: Faults, group: str) -> list[str]:
    """In the order in which a critique names them: a set has none."""
    found: Set[str] = getattr(faults, group)
    return [one for one in (*KINDS, *FORM_FAULTS) if one in found]


def _named(kinds: Set[str]) -> str:
    return _join([f"the {kind}" for kind in KINDS if kind in kinds])


def _join(items: Sequence[str]) -> str:
    """a / a and b / a , b and c"""
    return " and ".join([" , ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
