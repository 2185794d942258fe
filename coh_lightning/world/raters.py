"""Raters of the world: parse a post and any text about it, score the text, and write a critique.

    post      post : Anna went to the market . it was Monday . she wanted bread .
    text      Anna went to the market on Friday .
    accuracy  2/3   of the three stated facts (person, place, day) two are right
    coverage  2/4   of the four facts of the post two are stated correctly
    coherence 1     every sentence is complete, none repeats a fact, the pronouns fit, the text ends with a period
    critique  it gets the day wrong and leaves out the reason

The grammar of a summary (of a sentence that does not fit, the beginning still counts):

    summary  := (sentence ".")*
    sentence := (name | "he" | "she") verb ("and" verb)*
    verb     := "went" phrase+ | "had" meal | result
    phrase   := "to the" place | "with" companions | "in" color | "by" vehicle | "on" day | "for" wish
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coh_lightning.errors import InputError
from coh_lightning.rng import generator
from coh_lightning.world.faults import FAULTLESS, Faults
from coh_lightning.world.posts import FORMS, HEADER, KINDS, PHRASES, PRONOUNS, QUESTION, REVIEW, SUMMARISE, VALUES

ATTRIBUTES = ("accuracy", "coverage", "coherence", "overall")
RATER_NOISE = 0.05
"""Standard deviation of the noise in the noisy rater's overall score."""


@dataclass(frozen=True)
class Rating:
    """Scores in 0..1, and a critique, of one text."""

    accuracy: float
    coverage: float
    coherence: float
    critique: str
    faults: Faults

    @property
    def overall(self) -> float:
        return (self.accuracy + self.coverage + self.coherence) / 3

    @property
    def faultless(self) -> bool:
        return self.critique == FAULTLESS

    def scores(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ATTRIBUTES}


@dataclass(frozen=True)
class Reading:
    """The statements of a text, as (kind, value) in order, and the faults of form of each sentence."""

    statements: tuple[tuple[str, str], ...]
    sentence_faults: tuple[frozenset[str], ...]


Patterns = Mapping[tuple[str, ...], tuple[str, str | None, str]]
"""Words of a sentence or phrase -> (kind, subject, value)."""


def _patterns(templates: Mapping[str, Iterable[str]], subjects: Sequence[str] = ()) -> Patterns:
    return {
        tuple(template.format(s=subject, v=value).split()): (kind, subject, value)
        for kind, forms in templates.items()
        for template in forms
        for value in VALUES[kind]
        for subject in (subjects if "{s}" in template else (None,))
    }


_POST_SENTENCES = _patterns(FORMS, (*PRONOUNS, "he", "she"))
_PHRASES = _patterns({kind: (phrase,) for kind, phrase in PHRASES.items()})
_VERBS = _patterns({"meal": ("had {v}",), "result": ("{v}",)})
_LONGEST = max(map(len, (*_PHRASES, *_VERBS)))


def read_post(prompt: str) -> dict[str, str]:
    """The facts of a post, from its text or a prompt with it. Raises InputError if it is not a post of the world."""
    text = prompt
    for cue in (SUMMARISE, REVIEW, QUESTION):
        text = text.split(cue)[0]
    if not text.startswith(f"{HEADER} "):
        found = f"the prompt {prompt[:60]!r} does not begin with {HEADER!r}"
        raise InputError(f"{found}, so it is not a post of the embedded world; use other scorers.")
    facts: dict[str, str] = {}
    for clause in text[len(HEADER) :].split(" ."):
        meaning = _POST_SENTENCES.get(tuple(clause.split()))
        if meaning is None:
            continue
        kind, subject, value = meaning
        if "person" not in facts and subject is not None and subject in PRONOUNS:
            facts["person"] = subject
        if subject in (None, "he", "she", facts.get("person")):
            facts[kind] = value
    if not {"person", "place"} <= facts.keys():
        found = f"the post {text[:60]!r} has no person or no place"
        raise InputError(f"{found}, so the embedded world's raters can't judge it; use other scorers.")
    return {kind: facts[kind] for kind in KINDS if kind in facts}


def read_summary(text: str, person: str) -> Reading:
    """What any text states about the person of the post, and its faults of form.

    "Anna went to the lake . she went to"  ->  (person Anna, place lake), no faults in sentence 1, sentence 2 unfinished
    """
    words = text.split()
    statements: list[tuple[str, str]] = []
    faults: list[frozenset[str]] = []
    name = person  # the referent of the next pronoun
    start = 0
    while start < len(words):
        stop = words.index(".", start) if "." in words[start:] else len(words)
        sentence = words[start:stop]
        found, whole, subject = _read_sentence(sentence)
        here: set[str] = set()
        if not whole:
            here.add("broken" if stop < len(words) else "unfinished")
        elif stop == len(words):
            here.add("unfinished")
        if subject is not None and subject in PRONOUNS:
            name = subject
        elif subject in ("he", "she") and PRONOUNS[name] != subject:
            here.add("slip")
        if any(statement in statements or statement in found[:place] for place, statement in enumerate(found)):
            here.add("repeat")
        if subject == name and ("person", name) not in statements:
            statements.append(("person", name))
        statements.extend(statement for statement in found if statement not in statements)
        faults.append(frozenset(here))
        start = stop + 1
    return Reading(statements=tuple(dict.fromkeys(statements)), sentence_faults=tuple(faults))


def _read_sentence(words: Sequence[str]) -> tuple[list[tuple[str, str]], bool, str | None]:
    """(statements, whether all words fit the grammar, subject) of one sentence without its period."""
    if not words or (words[0] not in PRONOUNS and words[0] not in ("he", "she")):
        return [], False, None
    found: list[tuple[str, str]] = []
    place = 1
    while True:
        went = words[place : place + 1] == ["went"]
        place += went
        begin = place
        while (part := _longest(words, place, _PHRASES if went else _VERBS)) is not None:
            found.append(part[0])
            place = part[1]
            if not went:
                break
        whole = place == len(words)
        if place == begin or whole or words[place] != "and":
            return found, whole and place > begin, words[0]
        place += 1


def _longest(words: Sequence[str], place: int, patterns: Patterns) -> tuple[tuple[str, str], int] | None:
    """((kind, value), place after it) of the longest pattern at this place."""
    for length in range(_LONGEST, 0, -1):
        pattern = patterns.get(tuple(words[place : place + length]))
        if pattern is not None and place + length <= len(words):
            return (pattern[0], pattern[2]), place + length
    return None


def rate(prompt: str, text: str) -> Rating:
    """The rating of any text as a summary of the post in the prompt."""
    return rate_facts(read_post(prompt), text)


def rate_facts(facts: Mapping[str, str], text: str) -> Rating:
    """The rating of any text as a summary of a post with these facts."""
    reading = read_summary(text, facts["person"])
    right = {kind for kind, value in reading.statements if facts.get(kind) == value}
    wrong = {kind for kind, value in reading.statements if kind in facts and facts[kind] != value}
    faults = Faults(
        wrong=frozenset(wrong),
        missing=frozenset(facts.keys() - right - wrong),
        invented=frozenset(kind for kind, _ in reading.statements if kind not in facts),
        form=frozenset(fault for of_sentence in reading.sentence_faults for fault in of_sentence),
    )
    supported = sum(facts.get(kind) == value for kind, value in reading.statements)
    sentences = len(reading.sentence_faults)
    return Rating(
        accuracy=supported / len(reading.statements) if reading.statements else 0.0,
        coverage=len(right) / len(facts),
        coherence=sum(not of_sentence for of_sentence in reading.sentence_faults) / sentences if sentences else 0.0,
        critique=faults.critique if text.split() else "it says nothing",
        faults=faults,
    )


def noisy_overall(
    ratings: Sequence[Rating], texts: Sequence[str], *, seed: int, record: str, noise: float = RATER_NOISE
) -> list[float]:
    """Overall scores with N(0, noise) added, keyed by (seed, record, text), so that equal texts get equal scores."""
    errors = [generator(seed, "rater", record, text).gauss(0.0, noise) for text in texts]
    return [rating.overall + error for rating, error in zip(ratings, errors, strict=True)]
