"""The feedback record: one prompt, its completions, and the feedback on each. One JSON line, read strictly: an error
names file, line and key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from coh_lightning.checks import LINE, checked_object, checked_text, known_keys, number, optional_text
from coh_lightning.errors import InputError, named, shown
from coh_lightning.feedback.turns import (
    BESIDE_COMPLETION,
    BESIDE_PROMPT,
    Turn,
    check_prompt,
    plain_turn,
    prompt_from_json,
    refuse_beside_content,
)

OVERALL = "overall"
"""The attribute of a rating without a name."""

_RECORD = ("id", "prompt", "system", "completions", "scale", "task", "aspect", "reference", "source", "extra")
_TEXTS = ("critique", "revision", "author")
_COMPLETION = ("text", "rank", "rating", "thumb", *_TEXTS)


@dataclass(frozen=True)
class RatedCompletion:
    """One completion of a prompt, with any mix of the kinds of feedback."""

    text: str
    rank: float | None = None
    """Smaller is better, equal is a tie; None: not ranked."""
    ratings: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> value on its scale; a plain number has the attribute `OVERALL`."""
    thumb: bool | None = None
    critique: str | None = None
    """Feedback in words."""
    revision: str | None = None
    """A better text, written to replace it."""
    author: str | None = None

    @classmethod
    def from_json(cls, obj: object, key: str, where: str) -> tuple[RatedCompletion, dict[str, Any]]:
        """Read one entry of `completions`; returns its unknown keys too."""
        if isinstance(obj, dict):
            refuse_beside_content(obj, key, where, BESIDE_COMPLETION)
        values, unknown = known_keys(obj, _COMPLETION, key, where)
        if "text" not in values:
            raise InputError(f"{where}: {key} has no 'text'.")
        rating = values.get("rating")
        if rating is None:
            ratings: dict[str, float] = {}
        elif isinstance(rating, dict):
            ratings = {
                checked_text(name, f"{key}.rating", where): number(value, f"{key}.rating.{named(name)}", where)
                for name, value in rating.items()
            }
        else:
            ratings = {OVERALL: number(rating, f"{key}.rating", where)}
        candidate = cls(
            text=checked_text(values["text"], f"{key}.text", where),
            rank=None if values.get("rank") is None else number(values["rank"], f"{key}.rank", where),
            ratings=ratings,
            thumb=values.get("thumb"),
            **{name: optional_text(values.get(name), f"{key}.{name}", where) for name in _TEXTS},
        )
        return candidate, unknown

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"text": self.text}
        if self.rank is not None:
            out["rank"] = self.rank
        if self.ratings:
            out["rating"] = dict(self.ratings)
        for name in ("thumb", *_TEXTS):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        return out


@dataclass(frozen=True)
class Feedback:
    """One prompt, k >= 1 completions of it, and the feedback on each.

    The constructor checks what later stages rely on: the prompt ends with a user turn, no text is blank, ranks are
    finite, ratings are inside their scales, and texts can be written as UTF-8.

    Raises:
        InputError: naming `where`, the key of the JSON form, and the value.

    As one JSON line (only `prompt` and `completions[].text` are required)::

        {"id": "7", "system": "Be brief.", "prompt": "Why is the sky blue?", "scale": [1, 5], "task": "answer",
         "aspect": "helpful",
         "completions": [{"text": "Air scatters blue light most.", "rank": 1, "rating": 5},
                         {"text": "It mirrors the sea.", "rank": 2, "rating": 1, "critique": "That is a myth.",
                          "revision": "Air scatters blue."}],
         "reference": "Because of Rayleigh scattering."}

    `prompt` may also be a list of messages, `[{"role": "user", "content": "..."}, ...]`. A prompt or a content may be a
    list of parts, `{"text": ..., "cut": ...}`, or of text parts as chat clients write them,
    `{"type": "text", "text": ...}`, which are joined. The role `developer` is read as `system`.
    """

    id: str
    prompt: tuple[Turn, ...]
    """An optional system turn first; the last turn is the user's."""
    candidates: tuple[RatedCompletion, ...]
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Attribute -> (worst, best) value of its ratings."""
    task: str = "answer"
    """The noun for a completion (answer, summary, response, ...); a wording may have sentences for each."""
    aspect: str | None = None
    """What rank and thumb judge (helpful, harmless, ...); None is overall quality."""
    reference: str | None = None
    """A text by a person to compare completions with (ROUGE); never trained on."""
    source: str = ""
    where: str = ""
    """File and line it came from, for messages."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    copy: int = 1
    """The number of this copy if a source's weight repeats the record, else 1; not in the JSON form."""

    def __post_init__(self) -> None:
        where = self.where or f"record {self.id or '(no id)'}"
        for name in ("id", "task"):
            checked_text(getattr(self, name), name, where)
        for name in ("aspect", "reference"):
            optional_text(getattr(self, name), name, where)
        check_prompt(self.prompt, where)
        if not self.candidates:
            raise InputError(f"{where}: completions is empty; a record needs at least one completion.")
        for attribute, (worst, best) in self.scales.items():
            if not math.isfinite(best - worst) or worst == best:
                found = f"the scale of {attribute!r:.60} is [{worst:g}, {best:g}]"
                raise InputError(f"{where}: {found}; give two different finite numbers, [worst, best].")
        for index, candidate in enumerate(self.candidates):
            _check_candidate(candidate, f"completions[{index}]", self.scales, where)

    def under(self, *, id: str, source: str) -> Feedback:
        """The same record under another id and source, which isn't checked again."""
        other = object.__new__(Feedback)
        vars(other).update(vars(self) | {"id": id, "source": source})
        return other

    @classmethod
    def from_json(cls, obj: object, where: str) -> Feedback:
        """Read the JSON form (see the class). Unknown keys are kept in `extra`; a record without an id gets one made
        from its content. Raises InputError naming `where`, the key, the value, and the nearest known key.
        """
        refuse_beside_content(checked_object(obj, LINE, where), LINE, where, BESIDE_PROMPT)
        record, unknown = known_keys(obj, _RECORD, LINE, where)
        extra = dict(checked_object(record.get("extra", {}), "extra", where)) | unknown
        for name in ("prompt", "completions"):
            if name not in record:
                raise InputError(f"{where}: the key {name!r} is missing; a line needs 'prompt' and 'completions'.")
        turns, unknown_by_turn = prompt_from_json(record["prompt"], where)
        extra |= unknown_by_turn
        if record.get("system") is not None:
            if turns and turns[0].role == "system":
                raise InputError(
                    f"{where}: both 'system' and the first message of 'prompt' are a system turn; keep one."
                )
            turns = (plain_turn("system", checked_text(record["system"], "system", where)), *turns)
        given = record["completions"]
        if not isinstance(given, list):
            raise InputError(f"{where}: completions is {shown(given)}; give a list of objects, each with 'text'.")
        candidates = []
        for index, item in enumerate(given):
            candidate, unknown = RatedCompletion.from_json(item, f"completions[{index}]", where)
            candidates.append(candidate)
            if unknown:
                extra[f"completions[{index}]"] = unknown
        rated = {name for candidate in candidates for name in candidate.ratings}
        feedback = cls(
            id=checked_text(record.get("id", ""), "id", where),
            prompt=turns,
            candidates=tuple(candidates),
            scales=_scales_from_json(record.get("scale"), rated, where),
            task=checked_text(record.get("task", "answer"), "task", where),
            aspect=optional_text(record.get("aspect"), "aspect", where),
            reference=optional_text(record.get("reference"), "reference", where),
            source=checked_text(record.get("source", ""), "source", where),
            where=where,
            extra=extra,
        )
        return feedback if feedback.id else dataclasses.replace(feedback, id=content_id(feedback))

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which `from_json` reads back as an equal record, except for `where`."""
        out: dict[str, Any] = {"id": self.id, "prompt": [turn.to_json() for turn in self.prompt]}
        out["completions"] = [candidate.to_json() for candidate in self.candidates]
        if self.scales:
            out["scale"] = {attribute: list(scale) for attribute, scale in self.scales.items()}
        out["task"] = self.task
        for name in ("aspect", "reference"):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        if self.source:
            out["source"] = self.source
        if self.extra:
            out["extra"] = dict(self.extra)
        return out


@dataclass(frozen=True)
class Rejected:
    """A row or record that was left out, and why: one line of `rejected.jsonl`."""

    reason: str
    where: str = ""
    source: str = ""
    id: str = ""
    detail: str = ""
    """What differs between rows of the same `reason`: which message, which character."""
    unreadable: bool = False
    """Whether the row was bad input (skipped by `on_bad_record: skip`), and not only unusable here."""

    def to_json(self) -> dict[str, Any]:
        """Lone surrogates, which a message may quote from a bad row, are escaped: UTF-8 can't represent them."""
        values = {
            name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
            for name, value in vars(self).items()
        }
        return {name: value for name, value in values.items() if value not in ("", False)}


def place_on_scale(value: float, worst: float, best: float) -> float:
    """Where a rating lies between the worst (0) and the best (1) value; rounded, so that binary fractions don't move it
    off a bound: 2.8 on a scale of 1 to 10 is 0.2.
    """
    return round((value - worst) / (best - worst), 9)


def prompt_sha(record: Feedback) -> str:
    """A hash of a record's whole prompt, roles included: the same in the completions of all systems for this prompt."""
    turns = json.dumps([(turn.role, turn.text) for turn in record.prompt])
    return hashlib.sha256(turns.encode("utf-8", "surrogatepass")).hexdigest()


def content_id(feedback: Feedback) -> str:
    """An id made from prompt, completions, feedback and task: the same in every file, different for other content."""
    content = feedback.to_json()
    for name in ("id", "source", "extra"):
        content.pop(name, None)
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode("ascii"), digest_size=8).hexdigest()


def content_hash(feedback: Feedback) -> int:
    """A 64-bit number of this process: records of equal content have equal ones, as they have an equal `content_id`."""
    one = feedback
    prompt = tuple([(turn.role, *[(part.text, part.cut) for part in turn.parts]) for turn in one.prompt])
    candidates = tuple(
        [
            (it.text, it.rank, *sorted(it.ratings.items()), it.thumb, it.critique, it.revision, it.author)
            for it in one.candidates
        ]
    )
    scales = tuple([(name, *ends) for name, ends in sorted(one.scales.items())])
    return hash((prompt, candidates, scales, one.task, one.aspect, one.reference)) & ((1 << 64) - 1)


def unique(record: Feedback, seen: dict[str, str], where: str) -> Feedback:
    """The record under an id that is not in `seen` (id -> where), which is added to it. If the id is taken,
    one made from the content gets #2, #3, ...; the record's own raises InputError.
    """
    id = record.id
    if id in seen:
        if id != content_id(record):
            remedy = "give every record its own id, or none (one is made from the content)"
            raise InputError(f"{where}: the id {id!r:.60} was already used at {seen[id]}; {remedy}.")
        copy = 2
        while (id := f"{record.id}#{copy}") in seen:
            copy += 1
        record = dataclasses.replace(record, id=id)
    seen[id] = where
    return record


def _check_candidate(one: RatedCompletion, key: str, scales: Mapping[str, tuple[float, float]], where: str) -> None:
    if not checked_text(one.text, f"{key}.text", where).strip():
        raise InputError(f"{where}: {key}.text is empty; a completion needs words.")
    if one.rank is not None:
        number(one.rank, f"{key}.rank", where)
    for attribute, value in one.ratings.items():
        name = f"{key}.rating" if attribute == OVERALL else f"{key}.rating.{named(attribute)}"
        number(value, name, where)
        if attribute not in scales:
            remedy = "add 'scale': [worst, best], or one by attribute (in a Mapping, scales: {overall: [worst, best]})"
            raise InputError(f"{where}: {name} is {value:g}, and its scale is not given; {remedy}.")
        worst, best = scales[attribute]
        if not min(worst, best) <= value <= max(worst, best):
            raise InputError(f"{where}: {name} is {value:g}, outside its scale {worst:g} to {best:g}.")
    if one.thumb is not None and not isinstance(one.thumb, bool):
        raise InputError(f"{where}: {key}.thumb is {shown(one.thumb)}; it must be true or false.")
    for name, words in (("critique", one.critique), ("revision", one.revision)):
        if words is not None and not checked_text(words, f"{key}.{name}", where).strip():
            raise InputError(f"{where}: {key}.{name} is empty; leave the key out.")
    optional_text(one.author, f"{key}.author", where)


def _scales_from_json(value: object, rated: Set[str], where: str) -> dict[str, tuple[float, float]]:
    """A scale for each attribute; a single one, given without names, is that of all rated attributes."""
    if value is None:
        return {}
    by_attribute = value if isinstance(value, dict) else dict.fromkeys(sorted(rated) or [OVERALL], value)
    scales = {}
    for attribute, ends in by_attribute.items():
        if not isinstance(ends, list) or len(ends) != 2:
            raise InputError(f"{where}: the scale of {attribute!r:.60} is {shown(ends)}; give [worst, best].")
        key = f"scale.{named(attribute)}"
        worst, best = (number(end, key, where) for end in ends)
        scales[checked_text(attribute, "scale", where)] = (worst, best)
    return scales
