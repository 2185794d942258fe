"""Instructions with constraints that can be checked by rule, for a real language model: the rules, in the manner of
IFEval (Zhou et al. 2023, arXiv 2311.07911), and a rater that states in words what an answer fails at.

    prompt     Describe the sea. Use at most 40 words. Use the words 'salt' and 'boat'.
    answer     (61 words with 'salt', without 'boat')
    critique   it has 61 words where at most 40 were asked and lacks the word 'boat'
    overall    0 of the 2 constraints are met

The constraints are read from the prompt, so any text can be rated, whatever wrote it. The rules look at form alone: not
whether an answer is true, or about its subject.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from coh_lightning.errors import InputError, counted, listed
from coh_lightning.feedback.completions import Completion
from coh_lightning.words import mentions, words

FAULTLESS = "it does all that was asked"
EMPTY = "it has no words"

COMMON: dict[str, frozenset[str]] = {
    "English": frozenset(
        "the of and to a in is that it for was on are with as they be at this have from or by".split()
    ),
    "Spanish": frozenset("el la de que y en los se del las un por con una su para es al lo como más son está".split()),
    "French": frozenset("le la les de des et un une est en que du dans il qui pour pas au sur se ce sont avec".split()),
    "German": frozenset("der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als es".split()),
    "Italian": frozenset("di e il la che in un è per una sono del con le si della da i gli al non dei nel".split()),
}
"""The commonest words of the languages that can be asked for, and of English."""
ENOUGH = 0.15
"""Share of an answer's words that must be among the commonest ones of its language; in running text about .4 are."""


class Constraint(NamedTuple):
    """One thing that is asked for: its kind (a key of `RULES`), and the number, words or language."""

    kind: str
    value: str

    @property
    def sentence(self) -> str:
        return RULES[self.kind].sentence.format(self.value)

    def fault(self, answer: str) -> str | None:
        """What the answer fails at, as a verb phrase after "it"; None if it does what is asked."""
        return RULES[self.kind].fault(self.value, answer)


@dataclass(frozen=True)
class Rule:
    """A kind of constraint: its sentence in a prompt, with {} for the value, and the check of an answer."""

    sentence: str
    value: str
    """What a value looks like, as a regular expression."""
    fault: Callable[[str, str], str | None]

    @property
    def pattern(self) -> str:
        return re.escape(self.sentence).replace(r"\{\}", f"({self.value})")


def quoted(names: list[str]) -> str:
    """The value of a constraint on several words: 'salt' and 'boat'."""
    return listed([f"'{name}'" for name in names])


def _names(value: str) -> list[str]:
    return re.findall(r"'([^']+)'", value)


def _at_most(value: str, answer: str) -> str | None:
    found = len(words(answer))
    return f"has {counted(found, 'word')} where at most {value} were asked" if found > int(value) else None


def _at_least(value: str, answer: str) -> str | None:
    found = len(words(answer))
    return f"has {counted(found, 'word')} where at least {value} were asked" if found < int(value) else None


def _keywords(value: str, answer: str) -> str | None:
    missing = [name for name in _names(value) if not mentions(answer, name)]
    return f"lacks the word{'s' if len(missing) > 1 else ''} {quoted(missing)}" if missing else None


def _without(value: str, answer: str) -> str | None:
    return f"uses the word '{value}'" if mentions(answer, value) else None


def _bullets(value: str, answer: str) -> str | None:
    found = len(re.findall(r"^[ \t]*[-*•][ \t]+\S", answer, re.MULTILINE))
    number = counted(found, "bullet point") if found else "no bullet points"
    return f"has {number} where {value} were asked" if found != int(value) else None


def _json(value: str, answer: str) -> str | None:
    body = re.sub(r"^```(?:json)?\s*\n(.*)\n\s*```$", r"\1", answer.strip(), flags=re.DOTALL)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return "is not a JSON object"
    missing = [name for name in _names(value) if name not in found]
    return f"lacks the key{'s' if len(missing) > 1 else ''} {quoted(missing)}" if missing else None


def _language(value: str, answer: str) -> str | None:
    every = words(answer)
    counts = {language: sum(word in common for word in every) for language, common in COMMON.items()}
    own = counts.pop(value)
    return None if own > max(counts.values()) and own >= ENOUGH * len(every) else f"is not in {value}"


def _ending(value: str, answer: str) -> str | None:
    wanted = words(value)
    return None if words(answer)[-len(wanted) :] == wanted else f"does not end with '{value}'"


def _lower_case(value: str, answer: str) -> str | None:
    return "has capital letters" if any(letter.isupper() or letter.istitle() for letter in answer) else None


_NUMBER, _WORD = r"\d{1,6}", "[^'\n]+"
_NAMES = rf"'{_WORD}'(?:, '{_WORD}')*(?: and '{_WORD}')?"

RULES: dict[str, Rule] = {
    "at_most": Rule("Use at most {} words.", _NUMBER, _at_most),
    "at_least": Rule("Use at least {} words.", _NUMBER, _at_least),
    "keywords": Rule("Use the words {}.", _NAMES, _keywords),
    "without": Rule("Do not use the word '{}'.", _WORD, _without),
    "bullets": Rule("Give exactly {} bullet points, each on a line that begins with a hyphen.", _NUMBER, _bullets),
    "json": Rule("Answer with nothing but a JSON object that has the keys {}.", _NAMES, _json),
    "language": Rule("Answer in {}.", "|".join(COMMON), _language),
    "ending": Rule("End with the words: {}.", r"[^.\n]+", _ending),
    "lower_case": Rule("Write {} in lower case.", "everything", _lower_case),
}
"""Kind -> rule. No sentence can be read as that of another kind."""


@dataclass(frozen=True)
class Rating:
    """What is wrong with an answer, constraint by constraint."""

    faults: Mapping[Constraint, str | None]
    """In the order of the prompt; None: it is met."""
    empty: bool
    """Without a word, an answer meets nothing."""

    @property
    def overall(self) -> float:
        """The share of the constraints that are met."""
        return 0.0 if self.empty else sum(fault is None for fault in self.faults.values()) / len(self.faults)

    @property
    def faultless(self) -> bool:
        return self.overall == 1.0

    @property
    def met(self) -> dict[str, float]:
        """Kind -> 1 or 0."""
        return {one.kind: float(fault is None and not self.empty) for one, fault in self.faults.items()}

    @property
    def critique(self) -> str:
        """A sentence without a full stop."""
        faults = [fault for fault in self.faults.values() if fault is not None]
        return EMPTY if self.empty else f"it {listed(faults)}" if faults else FAULTLESS


def read_constraints(prompt: str) -> tuple[Constraint, ...]:
    """The constraints in a prompt, in order. Raises InputError if there are none."""
    found: dict[int, Constraint] = {}
    for kind, rule in RULES.items():
        for match in re.finditer(rule.pattern, prompt):
            found[match.start()] = Constraint(kind, match[1])
    if not found:
        what = f"the prompt {prompt[:60]!r} has no constraint that world:constraints knows"
        raise InputError(
            f"{what}; make prompts with `python -m coh_lightning.world.instructions`, or use other scorers."
        )
    return tuple(found[place] for place in sorted(found))


def rate(prompt: str, answer: str) -> Rating:
    """Each constraint of the prompt, met or not. Raises InputError if the prompt has none."""
    faults = {one: one.fault(answer) for one in read_constraints(prompt)}
    return Rating(faults, empty=not words(answer))


def score(completion: Completion) -> dict[str, float]:
    """overall and faultless (1 or 0), as a scorer (`scorers=["world:constraints"]`). Raises InputError as `rate`."""
    rating = _rating(completion)
    return {"overall": rating.overall, "faultless": float(rating.faultless)}


def critique(completion: Completion) -> str:
    """The critique, as a critic (`critic="world:constraints"`). Raises InputError as `rate`."""
    return _rating(completion).critique


def _rating(completion: Completion) -> Rating:
    return rate(completion.prompt if completion.shown is None else completion.shown, completion.text)
