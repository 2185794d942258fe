"""The choices of a sheet, and what raters may write for them:

    A, tie, B                                          without strength of preference
    A clearly, A slightly, tie, B slightly, B clearly  with it

and the reasons, of a list that the study's author gives, for what is wrong with A and with B.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coh_lightning.human_eval.form import RatingForm

WORDS = {
    **dict.fromkeys(("a", "left", "answer a", "answer_a"), "A"),
    **dict.fromkeys(("tie", "t", "=", "neutral", "equal", "same", "both", "draw"), "tie"),
    **dict.fromkeys(("b", "right", "answer b", "answer_b"), "B"),
}
"""What a rater may write for each choice, in any case."""
LETTERS = "ABCDE"
STRENGTHS = ("slightly", "clearly")
REASONS = {"reasons_a": "A", "reasons_b": "B"}
"""The columns of reasons -> the side that they speak of."""


def letters_of(form: RatingForm) -> str:
    """The letters of the answers on the page."""
    return LETTERS[: form.ranking or 2]


def choices_of(form: RatingForm) -> tuple[str, ...]:
    """The choices in the order of the page."""
    if form.ranking:
        return tuple(letters_of(form))
    if not form.strength:
        return ("A", "tie", "B")
    slightly, clearly = STRENGTHS
    return (f"A {clearly}", f"A {slightly}", "tie", f"B {slightly}", f"B {clearly}")


def in_words(form: RatingForm) -> str:
    """The choices for a message, such as "A, tie or B"."""
    if form.ranking:
        letters = letters_of(form)
        return f"each of {', '.join(letters)} once, from best to worst, such as {' > '.join(letters[::-1])}"
    *others, last = choices_of(form)
    return f"{', '.join(others)} or {last}"


def choice_words(form: RatingForm) -> Mapping[str, str]:
    """What may be written, in lower case -> the choice. A side alone is taken too where its strength is asked for."""
    if not form.strength:
        return WORDS
    strong = {
        words: f"{side} {strength}"
        for word, side in WORDS.items()
        if side != "tie"
        for strength in STRENGTHS
        for words in (f"{word} {strength}", f"{strength} {word}")
    }
    return WORDS | strong


def listed_reasons(cell: str, reasons: Sequence[str]) -> tuple[list[str], list[str]]:
    """The reasons in a cell, separated by semicolons, as the study has them; and those that it doesn't have."""
    known = {reason.casefold(): reason for reason in reasons}
    written = [part.strip() for part in cell.split(";") if part.strip()]
    return (
        [known[part.casefold()] for part in written if part.casefold() in known],
        [part for part in written if part.casefold() not in known],
    )
