"""What an export may be given: names, questions, rules and forms, checked before anything is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import regex

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.human_eval.choices import REASONS
from coh_lightning.human_eval.form import DEFAULT_FORM, RENDERED, RatingForm
from coh_lightning.human_eval.sheets import AFTER, before
from coh_lightning.human_eval.study import DEFINITIONS, RULES
from coh_lightning.human_eval.systems import System
from coh_lightning.words import mentions

FORMS = ("xlsx", "label-studio", "potato")
EXCLUSION: Mapping[str, float] = {
    "min_consistency": 0.4,
    "min_identical": 0.5,
    "min_gold": 0.8,
    "min_median_seconds": 3.0,
    "min_check_answers": 12,
}
"""Which raters the report leaves out in its second set of numbers, fixed before unblinding: those below one of these
shares of swapped duplicates answered the same way, identical pairs called a tie, and gold items answered correctly
(each with at least `min_check_answers` answers), or below this median of seconds per row. Random answers are consistent
in a third of the cases, an honest but unsure rater's often in little more than half.
"""


def checked_forms(forms: Sequence[str]) -> tuple[str, ...]:
    for name in forms:
        if name not in FORMS:
            raise InputError(f"There is no form '{name}'; give one of {', '.join(FORMS)}{did_you_mean(name, FORMS)}")
    return tuple(dict.fromkeys(forms))


def checked_attributes(attributes: Sequence[str]) -> tuple[str, ...]:
    """Attributes that can be columns of a sheet."""
    seen = {name.casefold() for name in (*before(RatingForm(ranking=5)), *REASONS, *AFTER)}
    for name in attributes:
        if not regex.fullmatch(r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_ \u200c\u200d-]*[\p{L}\p{M}\p{N}_])?", name):
            raise InputError(f"The attribute {name!r} can't name a column; use letters, digits, spaces and hyphens.")
        if name.casefold() in seen:
            raise InputError(f"The attribute '{name}' is given twice, or is another column of the sheets; rename it.")
        seen.add(name.casefold())
    if not attributes:
        raise InputError("No attribute is given; give at least one, such as overall.")
    return tuple(attributes)


def checked_raters(names: Sequence[str]) -> tuple[str, ...]:
    """Names that can be names of files and users, for people and not for judges."""
    seen: set[str] = set()
    for name in names:
        if not regex.fullmatch(r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_ .-]*[\p{L}\p{M}\p{N}_])?", name) or len(name) > 60:
            raise InputError(f"The rater {name!r:.80} can't name a sheet; use letters, digits, spaces, dots, hyphens.")
        if name.casefold() in seen or name.casefold() == "instructions":
            raise InputError(f"The rater '{name}' is given twice, or is the name of another file; rename one.")
        seen.add(name.casefold())
    return tuple(names)


def definitions_of(
    attributes: Sequence[str], define: Mapping[str, str], questions: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Attribute -> the sentence that raters read: the one in `define`, or in the set of questions, or else ours."""
    for name, sentence in define.items():
        if name not in attributes:
            others = ", ".join(attributes) + did_you_mean(name, attributes)
            raise InputError(f"'{name}' is defined but not among the attributes {others}")
        if not sentence.strip():
            raise InputError(f"The definition of '{name}' is empty; give a sentence that says what to judge.")
    definitions = DEFINITIONS | dict(questions) | dict(define)
    for name in attributes:
        if name not in definitions:
            raise InputError(
                f"Raters need a sentence for the attribute '{name}'; give --define '{name}=Which answer ...?' (known: "
                f"{', '.join(DEFINITIONS)})."
            )
    return {name: definitions[name] for name in attributes}


def exclusion_rules(changes: Mapping[str, float | None]) -> dict[str, float]:
    """`EXCLUSION` with changes; None switches a rule off."""
    rules: dict[str, float | None] = {**EXCLUSION}
    for name, bound in changes.items():
        if name not in EXCLUSION:
            known = ", ".join(EXCLUSION) + did_you_mean(name, EXCLUSION)
            raise InputError(f"There is no exclusion rule '{name}'; the rules are {known}")
        limits = "at least 0 and at most 1" if name in RULES else "at least 0"
        if bound is not None and not 0 <= bound <= (1 if name in RULES else math.inf):
            raise InputError(f"The exclusion rule {name} is {bound:g}; it must be {limits}.")
        rules[name] = bound
    return {name: bound for name, bound in rules.items() if bound is not None}


def checked_reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    """Reasons that can stand side by side in a cell, and after a label in a comment."""
    for reason in reasons:
        if not reason.strip() or reason != reason.strip() or set(reason) & set(";,:|\n\r") or len(reason) > 80:
            fact = f"The reason {reason!r:.100} can't stand in a cell"
            raise InputError(f"{fact}; give up to 80 characters without ; , : | and line ends.")
    twice = [reason for reason, number in Counter(map(str.casefold, reasons)).items() if number > 1]
    if twice:
        raise InputError(f"The reason '{twice[0]}' is given twice; leave one out.")
    return tuple(reasons)


def check_form(form: RatingForm, forms: Sequence[str]) -> None:
    """Raises InputError for what a form of the sheets can't ask."""
    if form.min_comment < 0:
        raise InputError(f"The least length of a comment is {form.min_comment}; give 0 or more characters.")
    if form.render not in RENDERED:
        raise InputError(f"Answers can't be shown as {form.render!r:.40}; give {' or '.join(RENDERED)}.")
    if form.strength and "potato" in forms:
        raise InputError("potato can't ask how strong a preference is; leave out --strength, or the form potato.")
    if form.ranking and (forms or form.strength or form.reasons or form.practice):
        raise InputError(
            "A ranking can't be combined with --forms, --strength, --reasons or --practice; leave these out."
        )
    if form.reasons and forms:
        raise InputError(
            f"The form {forms[0]} can't ask for reasons, as rate.html and the CSV sheets do; leave it out."
        )


def check_blind(
    title: str, define: Mapping[str, str], systems: Sequence[System], form: RatingForm = DEFAULT_FORM
) -> None:
    """Raises InputError if the name of a system occurs in what every rater reads."""
    given = {"title": title, **{f"definition of '{name}'": sentence for name, sentence in define.items()}}
    given |= {name: text for name in ("instructions", "contact") if (text := getattr(form, name))}
    given |= {f"reason '{reason}'": reason for reason in form.reasons}
    given |= {f"explanation of practice item {number}": one.why for number, one in enumerate(form.practice, start=1)}
    for key, text in given.items():
        checked_text(text, key, "What raters read")
        for system in systems:
            if mentions(text, system.name):
                raise InputError(
                    f"The {key} mentions the system '{system.name}', which raters must not know; reword it."
                )
