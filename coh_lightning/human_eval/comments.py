"""Raters' comments on a pair -> critiques of its two answers, where the words speak of one side.

    A: wrong day; B: too long       labels: "wrong day" is about A, "too long" about B
    Answer B invents a place.       names one side: "This answer invents a place." is about B
    I prefer B because it is short  "I prefer this answer because it is short" is about B
    A is shorter than B             names both, without labels: left out
    too long                        names none: left out
    A good answer                   "A" is the article: left out

A label begins the comment, a line, or what follows a sentence mark: A or B (in English also Left or Right), perhaps
with "Answer" before it, and then a colon. Without labels, the words must be English: a side is a capital letter that
follows "answer" (response, summary, ...) or a word such as "prefer" or "than", or that stands before a verb such as
"is" or "has". What is in doubt is left out: the comments of another language need labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Critiques = tuple[str | None, str | None]
"""The words about A and about B, as the rater saw the pair."""

_NOUN = r"(?:answer|response|summary|completion|reply|text|option|version)s?"
_BEFORE = frozenset(
    "prefer prefers preferred choose chose pick picked like liked find found think thought than and but or because "
    "since that in for with only while whereas both over though although if from between so versus vs vs.".split()
)
_AFTER = frozenset(
    "is was has had does did gets got says said tells gives gave leaves left misses missed invents invented makes made "
    "contains includes mentions lacks omits sounds reads seems looks feels adds explains covers uses ignores repeats "
    "states claims fails isn't wasn't doesn't didn't hasn't can't would should might wins".split()
)
_LABEL = re.compile(
    rf"(?:^|(?<=[\n.!?;,|])|(?<=[.!?;,|] ))[ \t]*(?:{_NOUN}[ \t]+)?(A|B|left|right|both|neither)[ \t]*:", re.IGNORECASE
)
_SIDES = {"a": 0, "left": 0, "b": 1, "right": 1}
_LETTER = re.compile(r"(?<![\w'’+-])[AB](?![\w+-])")
_NOUN_BEFORE = re.compile(rf"(?:\bthe[ \t]+)?\b{_NOUN}[ \t]+$", re.IGNORECASE)


def critiques_of(comment: str, noun: str = "answer") -> Critiques:
    """What a comment says of A and of B; None where it says nothing of that side alone. The side's name becomes "this
    answer", with the record's own noun for a completion.
    """
    labels = list(_LABEL.finditer(comment))
    if not labels:
        return _about_one(comment, noun)
    words: tuple[list[str], list[str]] = ([], [])
    if comment[: labels[0].start()].endswith("\n"):  # whole lines before the labels may speak of one side
        for own, said in zip(words, _about_one(comment[: labels[0].start()], noun), strict=True):
            own.extend([said] if said else [])
    ends = [label.start() for label in labels[1:]] + [len(comment)]
    for label, end in zip(labels, ends, strict=True):
        side = _SIDES.get(label[1].lower())
        text = _trimmed(comment[label.end() : end])
        named = {one for _, _, one, _ in _letters(text)}
        if side is not None and text and not named - {side}:
            words[side].append(_renamed(text, noun))
    return (" ".join(words[0]) or None, " ".join(words[1]) or None)


def _about_one(comment: str, noun: str) -> Critiques:
    letters = list(_letters(comment))
    sides = {side for _, _, side, sure in letters if sure}
    # the other letter in doubt ("A good answer, but B is wrong") may name the other side
    if len(sides) != 1 or any(side not in sides for _, _, side, _ in letters):
        return None, None
    text = _trimmed(_renamed(comment, noun))
    if text.lower().strip(" .!?") == f"this {noun}".lower():  # the name alone
        return None, None
    return (text, None) if sides == {0} else (None, text)


def _letters(text: str) -> Iterator[tuple[int, int, int, bool]]:
    """(start, end, side, whether it surely names the side) of each letter A or B that stands alone; the start is that
    of a noun before it.
    """
    for found in _LETTER.finditer(text):
        before, after = text[: found.start()], text[found.end() :]
        noun = _NOUN_BEFORE.search(before)
        last = (before.split() or [""])[-1].strip("(\"'").lower()
        following = (after.split() or [""])[0].rstrip(".,;!?)").lower().replace("’", "'")
        sure = noun is not None or last in _BEFORE or (after[:1].isspace() and following in _AFTER) or following == "'s"
        yield (noun.start() if noun else found.start()), found.end(), "AB".index(found[0]), sure


def _renamed(text: str, noun: str) -> str:
    """The text with "this answer" for the sides that it surely names."""
    for start, end, _, sure in reversed(list(_letters(text))):
        if sure:
            begins = not text[:start].strip() or text[:start].rstrip()[-1] in ".!?\n"
            text = f"{text[:start]}{'This' if begins else 'this'} {noun}{text[end:]}"
    return text


def _trimmed(text: str) -> str:
    return text.strip().rstrip(";,|/ \t\n")
