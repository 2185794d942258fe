"""How raters are asked: the questions by task, the language of the page's own words, and what else an author sets.

questions/summary.yaml    attribute: the sentence that raters read        summary, dialogue, instruction, code
words/en.yaml             name: words of the page                         en, de, es, zh; another file is a language
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.yaml_text import load

QUESTION_SETS = ("summary", "dialogue", "instruction", "code")
TASKS = {"summary": "summary", "response": "dialogue", "code": "code", "program": "code"}
"""Noun for a completion in the data (`task`) -> the questions about it; `instruction` for every other one."""


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

    @property
    def words(self) -> Mapping[str, str]:
        return page_words(self.language)

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults."""
        given = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value != getattr(DEFAULT_FORM, name)}

    @classmethod
    def from_json(cls, obj: object, where: str) -> RatingForm:
        """Raises InputError naming `where` for anything that `to_json` doesn't write."""
        names = {entry.name for entry in dataclasses.fields(cls)}
        if (
            not isinstance(obj, dict)
            or not set(obj) <= names
            or not all(isinstance(value, str) for value in obj.values())
        ):
            raise InputError(f"{where}: its form is not one that export wrote; restore the file.")
        if obj.get("language", "en") not in languages():
            raise InputError(f"{where}: there are no words in the language {obj['language']!r:.40}; restore the file.")
        return cls(**obj)


DEFAULT_FORM = RatingForm()


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
