"""What an export is asked for, checked: attributes and their definitions, exclusion rules, forms, words that raters
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.human_eval.items import System
from coh_lightning.human_eval.sheets import AFTER, BEFORE
from coh_lightning.human_eval.study import DEFINITIONS
from coh_lightning.words import mentions

FORMS = ("xlsx", "label-studio", "potato")
ATTRIBUTES = ("accuracy", "coherence", "coverage", "overall")
EXCLUSION: Mapping[str, float] = {
    "min_consistency": 0.4,
    "min_identical": 0.5,
    "min_gold": 0.8,
    "min_median_seconds": 3.0,
    "min_check_answers": 12,
}
"""Which raters the report excludes in its second set of numbers, fixed before anyone knows which system is which: those
below one of these shares of swapped duplicates answered the same way, identical pairs called a tie, and gold items
answered correctly (each only with at least `min_check_answers` answers), or below this median of seconds per row.
Random answers are consistent in a third of the cases, an honest but unsure rater's often in little more than half: few
answers prove nothing.
"""


def checked_forms(forms: Sequence[str]) -> tuple[str, ...]:
    for name in forms:
        if name not in FORMS:
            raise InputError(
                f"There is no form '{name}'; it must be one of {', '.join(FORMS)}{did_you_mean(name, FORMS)}"
            )
    return tuple(dict.fromkeys(forms))


def checked_attributes(attributes: Sequence[str]) -> tuple[str, ...]:
    """Attributes that can be columns of a sheet."""
    seen = {name.casefold() for name in (*BEFORE, *AFTER)}
    for name in attributes:
        if not regex.fullmatch(r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_ \u200c\u200d-]*[\p{L}\p{M}\p{N}_])?", name):
            raise InputError(
                f"The attribute {name!r} can't be the name of a column; use letters, digits, spaces and hyphens."
            )
        if name.casefold() in seen:
            raise InputError(
                f"The attribute '{name}' is given twice, or has the name of another column of the sheets; give each "
                "attribute its own name."
            )
        seen.add(name.casefold())
    if not attributes:
        raise InputError("No attribute is given, so nothing would be asked; give at least one, such as overall.")
    return tuple(attributes)


def definitions_of(attributes: Sequence[str], define: Mapping[str, str]) -> dict[str, str]:
    """Attribute -> the sentence that raters read: the one in `define`, or else ours."""
    for name, sentence in define.items():
        if name not in attributes:
            raise InputError(
                f"'{name}' is defined but not among the attributes "
                f"{', '.join(attributes)}{did_you_mean(name, attributes)}"
            )
        if not sentence.strip():
            raise InputError(f"The definition of '{name}' is empty; give a sentence that says what to judge.")
    definitions = DEFINITIONS | dict(define)
    for name in attributes:
        if name not in definitions:
            raise InputError(
                f"Raters need a sentence for the attribute '{name}'; give --define '{name}=Which answer ...?' (there "
                f"are definitions of {', '.join(DEFINITIONS)})."
            )
    return {name: definitions[name] for name in attributes}


def exclusion_rules(changes: Mapping[str, float | None]) -> dict[str, float]:
    """`EXCLUSION` with changes; None switches a rule off."""
    rules: dict[str, float | None] = {**EXCLUSION}
    for name, bound in changes.items():
        if name not in EXCLUSION:
            raise InputError(
                f"There is no exclusion rule '{name}'; the rules are "
                f"{', '.join(EXCLUSION)}{did_you_mean(name, EXCLUSION)}"
            )
        is_share = name in ("min_consistency", "min_identical", "min_gold")
        if bound is not None and not 0 <= bound <= (1 if is_share else float("inf")):
            limits = "at least 0 and at most 1" if is_share else "at least 0"
            raise InputError(f"The exclusion rule {name} is {bound:g}; it must be {limits}.")
        rules[name] = bound
    return {name: bound for name, bound in rules.items() if bound is not None}


def check_blind(title: str, define: Mapping[str, str], systems: Sequence[System]) -> None:
    """Raises InputError if the name of a system occurs in what every rater reads."""
    given = {"title": title, **{f"definition of '{name}'": sentence for name, sentence in define.items()}}
    for where, text in given.items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"The {where} holds a lone surrogate, which can't be written as UTF-8; retype it."
            ) from error
        for system in systems:
            if mentions(text, system.name):
                raise InputError(
                    f"The {where} mentions the system '{system.name}', which raters must not know; use other words."
                )
