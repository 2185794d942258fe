"""How raters are asked: the questions by task, the language of the page's own words, and what else an author sets.

questions/summary.yaml    attribute: the sentence that raters read        summary, dialogue, instruction, code
words/en.yaml             name: words of the page                         en, de, es, zh; another file is a language
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.jsonl import read_values
from coh_lightning.yaml_text import load

QUESTION_SETS = ("summary", "dialogue", "instruction", "code")
TASKS = {"summary": "summary", "response": "dialogue", "code": "code", "program": "code"}
"""Noun for a completion in the data (`task`) -> the questions about it; `instruction` for every other one."""


@dataclass(frozen=True)
class PracticeItem:
    """Two answers whose right judgments are known and explained."""

    prompt: str
    a: str
    b: str
    answers: Mapping[str, str]
    """Attribute -> A, tie or B."""
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "a": self.a, "b": self.b, "answers": dict(self.answers), "why": self.why}

    @classmethod
    def from_json(cls, obj: object, where: str) -> PracticeItem:
        """Raises InputError naming `where` and the key."""
        keys = ("prompt", "a", "b", "answers", "why")
        if isinstance(obj, dict) and set(obj) == set(keys) and isinstance(obj["answers"], dict):
            texts = {key: checked_text(obj[key], key, where) for key in keys if key != "answers"}
            for name, choice in obj["answers"].items():
                if choice not in ("A", "tie", "B"):
                    raise InputError(f"{where}: the answer to {name!r:.40} is {choice!r:.40}; give A, tie or B.")
            return cls(**texts, answers=obj["answers"])
        raise InputError(f"{where}: a practice item has prompt, a, b, answers and why, and nothing else.")


def read_practice(path: Path, attributes: Sequence[str]) -> tuple[PracticeItem, ...]:
    """Practice items from JSON lines. Raises InputError naming file and line."""
    items = []
    for where, value in read_values(path):
        item = PracticeItem.from_json(value, str(where))
        unknown = [name for name in item.answers if name not in attributes]
        if unknown or not item.answers:
            fact = f"it answers {unknown[0]!r:.40}" if unknown else "it answers nothing"
            raise InputError(f"{where}: {fact}, but the study asks {', '.join(attributes)}; answer some of these.")
        items.append(item)
    return tuple(items)


@dataclass(frozen=True)
class RatingForm:
    """What a study's author set about the asking. The defaults are those of studies that don't say."""

    language: str = "en"
    """Of the page's own words."""
    questions: str = ""
    """The set that the questions were taken from; "" if it is not one of ours."""
    instructions: str = ""
    """The author's own, shown before the questions."""
    contact: str = ""
    """Whom raters can ask, shown on the page."""
    ranking: int = 0
    """How many answers are ranked on one screen; 0: two are compared."""
    strength: bool = False
    """Whether a preference is slight or clear."""
    reasons: tuple[str, ...] = ()
    """Categories of what is wrong with an answer, of which at least one is required where the choice is not a tie."""
    min_comment: int = 0
    """The least characters of a comment; 0: a comment is not required."""
    render: str = "raw"
    """How the page shows answers: raw, as they were written, or as markdown."""
    practice: tuple[PracticeItem, ...] = ()
    """Items before the study, whose answers are explained and never counted."""

    @property
    def words(self) -> Mapping[str, str]:
        return page_words(self.language)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        given = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        given = {name: value for name, value in given.items() if value != getattr(DEFAULT_FORM, name)}
        if "practice" in given:
            given["practice"] = [one.to_json() for one in self.practice]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, obj: object, where: str) -> RatingForm:
        """Raises InputError naming `where` for anything that `to_json` doesn't write."""
        kinds = {entry.name: type(getattr(DEFAULT_FORM, entry.name)) for entry in dataclasses.fields(cls)}
        given: dict[str, Any] = dict(obj) if isinstance(obj, dict) else {"": obj}
        for name in ("reasons", "practice"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        wrong = any(type(value) is not kinds.get(name) for name, value in given.items())
        if wrong or not all(isinstance(reason, str) for reason in given.get("reasons", ())):
            raise InputError(f"{where}: its form is not one that export wrote; restore the file.")
        ranking, least = given.get("ranking", 0), given.get("min_comment", 0)
        if given.get("render", "raw") not in RENDERED or ranking not in (0, 3, 4, 5) or least < 0:
            raise InputError(f"{where}: its form is not one that export wrote; restore the file.")
        if given.get("language", "en") not in languages():
            raise InputError(
                f"{where}: there are no words in the language {given['language']!r:.40}; restore the file."
            )
        given["practice"] = tuple(PracticeItem.from_json(one, where) for one in given.get("practice", ()))
        return cls(**given)


DEFAULT_FORM = RatingForm()
RENDERED = ("raw", "markdown")
"""How a page may show answers."""


# --- words and questions


def languages() -> tuple[str, ...]:
    folder = resources.files("coh_lightning.human_eval").joinpath("words")
    return tuple(sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml")))


def checked_language(name: str) -> str:
    known = languages()
    if name not in known:
        raise InputError(
            f"There are no words in the language {name!r:.40}, only in {', '.join(known)}{did_you_mean(name, known)}"
        )
    return name


@lru_cache(maxsize=8)
def _catalogue(kind: str, name: str) -> Mapping[str, Any]:
    text = resources.files("coh_lightning.human_eval").joinpath(kind, f"{name}.yaml").read_text(encoding="utf-8")
    return dict(load(text))


def page_words(language: str) -> Mapping[str, str]:
    """Name -> words of the page in a language."""
    return {name: words for name, words in _catalogue("words", language).items() if isinstance(words, str)}


def names_of(attributes: Iterable[str], language: str) -> dict[str, str]:
    """Attribute -> what the page calls it: in the language where its file has a name for it, else its own name."""
    known = _catalogue("words", language).get("names", {})
    return {name: known.get(name, f"{name[:1].upper()}{name[1:]}".replace("_", " ")) for name in attributes}


def set_of_tasks(tasks: Iterable[str], *, dialogues: bool) -> str:
    """The set of questions for data of these tasks."""
    sets = {TASKS.get(task, "instruction") for task in tasks}
    return "dialogue" if dialogues else sets.pop() if len(sets) == 1 else "instruction"


def question_set(name: str, language: str = "en") -> dict[str, str]:
    """Attribute -> question of one of our sets, or of a YAML file. Raises InputError if there is neither, or the file
    is no mapping of names to sentences.
    """
    if name in QUESTION_SETS:
        translated = _catalogue("words", language).get("definitions", {})
        return dict(translated.get(name) or _catalogue("questions", name))
    path = Path(name)
    if not path.is_file():
        known = ", ".join(QUESTION_SETS) + did_you_mean(name, QUESTION_SETS)
        raise InputError(f"{name!r:.80} is neither a file nor one of our question sets, {known}")
    questions = load(path.read_text(encoding="utf-8-sig"))
    if not isinstance(questions, dict) or not questions:
        raise InputError(f"{path}: it has no questions; give lines of NAME: SENTENCE.")
    for attribute, sentence in questions.items():
        if not isinstance(attribute, str) or not isinstance(sentence, str) or not sentence.strip():
            raise InputError(f"{path}: {attribute!r:.40} has no sentence; give lines of NAME: SENTENCE.")
        checked_text(sentence, attribute, str(path))
    return dict(questions)


def every_definition() -> dict[str, str]:
    """Attribute -> our question; of several sets with one name the summary's first, then the dialogue's."""
    return {
        name: sentence
        for set_name in ("code", "instruction", "dialogue", "summary")
        for name, sentence in question_set(set_name).items()
    }


def about_the_prompt(definitions: Mapping[str, str], language: str) -> list[str]:
    """The attributes whose question compares an answer with what its prompt says."""
    asked = question_set("summary", language)
    return [name for name in ("accuracy", "coverage") if definitions.get(name) == asked.get(name)]
