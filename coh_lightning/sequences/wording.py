"""Feedback -> sentences. A `Wording` is data: every set of feedback sentences is a YAML file in conf/wording/, and the
checkpoint stores the one it was trained with.

Placeholders: `{task}` (the record's noun: answer, summary, ...), `{ratings}`, `{level}`, `{attribute}`, `{critique}`.
People's words are inserted verbatim and never searched for placeholders.

    good, bad                  "A helpful answer:", "An unhelpful answer:"       (the paper's pair, Figure 5)
    rating, 5 levels of 0-1    {"accuracy": .9, "coverage": .1}
                               "An answer with excellent accuracy and very poor coverage:"
    critique                   "it gets the day wrong"
                               "An answer of which people say that it gets the day wrong:"
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.records import Feedback, RatedCompletion, place_on_scale
from coh_lightning.sequences.method import Sentences


@dataclass(frozen=True)
class MarkerPair:
    """A good sentence and the bad one that goes with it."""

    good: str
    bad: str


@dataclass(frozen=True)
class Wording:
    """The sentences of each kind of feedback. One of a list is drawn per record and epoch; the first at inference."""

    name: str = "default"
    pairs: tuple[MarkerPair, ...] = (MarkerPair("A helpful answer:", "An unhelpful answer:"),)
    """Polarity: thumbs, pairs, the two ends of a ranking."""
    tasks: Mapping[str, tuple[MarkerPair, ...]] = field(default_factory=dict)
    """Pairs for the records of one task (summary, response, ...), instead of `pairs`."""
    aspects: Mapping[str, tuple[MarkerPair, ...]] = field(default_factory=dict)
    """Pairs for the records whose feedback is about one aspect (helpful, harmless, ...), instead of `tasks`."""
    tie: str = "One of two equally good answers:"
    best: str = "The best answer:"
    middle: str = "A fair answer:"
    """In a ranking: an output that is neither the best nor the worst and has none before it to compare with."""
    better: str = "A better answer:"
    equal: str = "An equally good answer:"
    worse: str = "A worse answer:"
    worst: str = "The worst answer:"
    rating: str = "An answer with {ratings}:"
    rating_item: str = "{level} {attribute}"
    levels: tuple[str, ...] = ("very poor", "poor", "fair", "good", "excellent")
    """From worst to best; the scale of a rating is divided into as many equal parts."""
    critique: str = "An answer of which people say that {critique}:"
    praise: str = "it is right and complete"
    """The critique at inference for a good output, ..."""
    blame: str = "it is wrong and leaves much out"
    """... and for a bad one."""
    revise: str = "People say of it that {critique}. A better answer:"
    """Before a revision (or a better output): the critique of the output just before."""
    review: str = "What do people say of this answer?"
    """Asks for a review: people's words on the output just before it, which follow as they are, ..."""
    improve: str = "Please write a better answer."
    """... and asks after the review for a better output."""
    attributes: tuple[str, ...] = ()
    """Attributes named at inference; empty: those rated in the training data."""

    def __post_init__(self) -> None:
        every = [self.pairs, *self.tasks.values(), *self.aspects.values()]
        if not all(every):
            raise InputError(f"The wording '{self.name}' has an empty list of pairs; give at least one pair.")
        if len(self.levels) < 2:
            raise InputError(
                f"The wording '{self.name}' has {counted(len(self.levels), 'level')} of rating; it needs at least 2."
            )
        for pair in (pair for pairs in every for pair in pairs):
            self._check("pairs", pair.good)
            self._check("pairs", pair.bad)
        for name in ("tie", "best", "middle", "better", "equal", "worse", "worst", "review", "improve"):
            self._check(name, getattr(self, name))
        self._check("rating", self.rating, "ratings")
        self._check("rating_item", self.rating_item, "attribute", "level")
        self._check("critique", self.critique, "critique")
        self._check("revise", self.revise, "critique")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Wording:
        """The wording in a checkpoint or a file of conf/wording/ (the inverse of `dataclasses.asdict`)."""

        def pairs(listed: Sequence[Mapping[str, str]]) -> tuple[MarkerPair, ...]:
            return tuple(MarkerPair(**pair) for pair in listed)

        named = {key: {name: pairs(listed) for name, listed in settings[key].items()} for key in ("tasks", "aspects")}
        listed = {key: tuple(settings[key]) for key in ("levels", "attributes")}
        return cls(**{**settings, **named, **listed, "pairs": pairs(settings["pairs"])})

    def _check(self, key: str, text: str, *needed: str) -> None:
        """A sentence has text, its braces match, and it has the placeholders it needs and no others but {task}."""
        what = f"wording.{key} of '{self.name}'"
        if not text.strip():
            raise InputError(f"{what} is empty; for no sentences use the method 'sft'.")
        try:
            found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        except ValueError as error:
            raise InputError(
                f"{what} is {text!r}, whose braces do not match ({error}); double braces of text."
            ) from error
        if found - {"task"} != {*needed}:
            allowed = f"it must have {list(needed)} (and may have 'task')"
            raise InputError(f"{what} is {text!r} with the placeholders {sorted(found)}; {allowed}.")

    def pairs_for(self, record: Feedback) -> tuple[MarkerPair, ...]:
        """The pairs for this record: those of its aspect, else of its task, else the general ones."""
        if record.aspect is not None and record.aspect in self.aspects:
            return self.aspects[record.aspect]
        return self.tasks.get(record.task, self.pairs)

    def polarity(self, record: Feedback, good: bool) -> tuple[str, ...]:
        """All wordings of the good (bad) sentence for this record, in the order of its pairs."""
        return tuple(_fill(pair.good if good else pair.bad, task=record.task) for pair in self.pairs_for(record))

    def rated(self, record: Feedback, candidate: RatedCompletion) -> str:
        """The sentence of a candidate's ratings."""
        values = candidate.ratings.items()
        return self.levelled(record, {name: self.level(value, *record.scales[name]) for name, value in values})

    def levelled(self, record: Feedback, levels: Mapping[str, str]) -> str:
        """The sentence with a level for each attribute; the rating without a name ("overall") is called quality."""
        items = [
            _fill(self.rating_item, level=level, attribute="quality" if name == "overall" else name)
            for name, level in sorted(levels.items())
        ]
        listed_items = items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
        return _fill(self.rating, task=record.task, ratings=listed_items)

    def level(self, value: float, worst: float, best: float) -> str:
        """The word for a value on the scale worst..best."""
        place = int(round(place_on_scale(value, worst, best) * len(self.levels), 6))
        return self.levels[min(place, len(self.levels) - 1)]

    def criticized(self, record: Feedback, critique: str) -> str:
        """The sentence with people's words before an output, without the full stop at their end."""
        return _fill(self.critique, task=record.task, critique=_clause(critique))

    def revised(self, record: Feedback, critique: str) -> str:
        """The sentence between an output and its revision."""
        return _fill(self.revise, task=record.task, critique=_clause(critique))

    def question(self, record: Feedback) -> str:
        """What asks for a review of the output just before it."""
        return _fill(self.review, task=record.task)

    def request(self, record: Feedback) -> str:
        """What asks for a better output after a review."""
        return _fill(self.improve, task=record.task)


def _clause(text: str) -> str:
    """People's words without white space and a single full stop at the end, so that the sentence can continue."""
    text = text.strip()
    return text[:-1] if text.endswith(".") and not text.endswith("..") else text


def _fill(template: str, **values: str) -> str:
    """`str.format`, once: inserted text is never formatted again."""
    return template.format(**values)


def conditions_for(wording: Wording, sentences: str, record: Feedback, attributes: Sequence[str]) -> dict[str, str]:
    """The feedback sentences for inference, by name: "good" and "bad" (only "good", and empty, for a method without
    sentences); with ratings also one for each attribute: "good accuracy", "bad accuracy", ...
    """
    if sentences == "none":
        return {"good": ""}
    if sentences == "polarity":
        return {"good": wording.polarity(record, True)[0], "bad": wording.polarity(record, False)[0]}
    if sentences == "ranking":
        return {"good": _fill(wording.best, task=record.task), "bad": _fill(wording.worst, task=record.task)}
    if sentences == "critique":
        return {"good": wording.criticized(record, wording.praise), "bad": wording.criticized(record, wording.blame)}
    if sentences != "rating":
        raise InputError(f"There is no kind of sentences '{sentences}'; known are {', '.join(get_args(Sentences))}.")
    names = tuple(wording.attributes or attributes)
    if not names:
        raise InputError("The records have no ratings, so no attribute is known; name some under wording.attributes.")
    ends = {"good": wording.levels[-1], "bad": wording.levels[0]}
    sentences_of = {end: wording.levelled(record, dict.fromkeys(names, level)) for end, level in ends.items()}
    if len(names) > 1:
        for name in names:
            sentences_of |= {f"{end} {name}": wording.levelled(record, {name: level}) for end, level in ends.items()}
    return sentences_of


def markers(
    wording: Wording, sentences: str, record: Feedback, attributes: Sequence[str], *, reviews: bool = False
) -> tuple[str, ...]:
    """The sentences that may precede a record's outputs (of critiques, their head), and so follow a model's output.
    With `reviews` also the question for a review and the request after it.
    """
    say, task = wording, record.task
    found = [] if sentences == "none" else list(conditions_for(wording, sentences, record, attributes).values())
    if sentences in ("polarity", "critique"):
        found += [*say.polarity(record, True), *say.polarity(record, False), _fill(say.tie, task=task)]
    if sentences == "ranking":
        ranked = (say.best, say.middle, say.better, say.equal, say.worse, say.worst, say.tie)
        found += [_fill(text, task=task) for text in ranked]
    if sentences == "critique":
        heads = (template.split("{critique}")[0] for template in (say.critique, say.revise))
        found += [head.replace("{task}", task).strip() for head in heads]
    if reviews:
        found += [say.question(record), say.request(record)]
    return tuple(dict.fromkeys(text for text in found if text))
