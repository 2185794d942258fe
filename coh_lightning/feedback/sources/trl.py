"""The preference formats of TRL: pairs (`prompt`, `chosen`, `rejected`) and unpaired thumbs (`prompt`, `completion`,
`label`), as text or as messages.

Texts are kept exactly. In a pair without `prompt` the whitespace before the first difference belongs to the
completions, so prompt and completion together are the text of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources.base import Source, column
from coh_lightning.feedback.sources.dialogue import (
    Unlike,
    common_beginning,
    is_messages,
    prompt_and_answers,
    turn_of_message,
    turns_of_messages,
)
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.turns import BESIDE_PROMPT, Turn, plain_turn, refuse_beside_content, user_turn


@dataclass(frozen=True)
class TRLPairs(Source):
    """Pairs: `chosen` is better than `rejected`. Without a `prompt` column their common beginning is the prompt (TRL's
    "implicit prompt")::

    {"prompt": "Hi", "chosen": " Hello!", "rejected": " What?"}                                      text
    {"prompt": [user "Hi"], "chosen": [assistant "Hello!"], "rejected": [assistant "What?"]}         messages
    {"chosen": [user "Hi", assistant "Hello!"], "rejected": [user "Hi", assistant "What?"]}          implicit prompt

    With a `prompt`, `chosen` and `rejected` may be whole conversations that repeat it; their turns before it (a system
    turn, earlier turns) then belong to the prompt (`dialogue.prompt_and_answers`). A row whose conversations have
    another prompt is rejected, naming the first character that differs.
    """

    def columns(self) -> Sequence[str]:
        return ("chosen", "rejected")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        _count_others(self, row, ("prompt", *self.columns()), where)
        sides = {name: column(row, name, where) for name in self.columns()}
        given = row.get("prompt")
        if given is not None and all(isinstance(side, str) for side in sides.values()):
            prompt, texts = _prompt(given, where, self.notes), [*sides.values()]
        elif all(isinstance(side, str) for side in sides.values()):
            # the common beginning up to the last space: a word that both begin alike belongs to the completions, and
            # so does the whitespace before it
            begin = common_beginning(*sides.values())
            begin = begin[: max(begin.rfind(" "), begin.rfind("\n")) + 1].rstrip(" \n")
            prompt, texts = (user_turn(begin),), [side[len(begin) :] for side in sides.values()]
        elif given is None and not all(is_messages(side) for side in sides.values()):
            raise InputError(f"{where}: 'chosen' and 'rejected' must both be text or both be lists of messages.")
        else:
            turns = {name: _turns(side, name, where, self.notes) for name, side in sides.items()}
            try:
                prompt, texts = prompt_and_answers(_given(given, where, self.notes), turns)
            except Unlike as unlike:
                return self.rejected(unlike.reason, where, unlike.detail)
        candidates = [RatedCompletion(text, rank=rank) for text, rank in zip(texts, (1.0, 2.0), strict=True)]
        return self.record(prompt, candidates, where=where, task="response")


@dataclass(frozen=True)
class TRLUnpaired(Source):
    """One completion with a thumb: `prompt`, `completion`, `label`; or `messages` that end with the completion and
    `label`.
    """

    def columns(self) -> Sequence[str]:
        return ("label",)

    def fits(self, header: Sequence[str]) -> bool:
        return "label" in header and ("messages" in header or {"prompt", "completion"} <= set(header))

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        label = column(row, "label", where)
        thumb = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}.get(str(label).lower())
        if thumb is None:
            raise InputError(f"{where}: label is {label!r:.60}; it must be true or false.")
        messages = "messages" if row.get("messages") is not None and row.get("completion") is None else "completion"
        _count_others(self, row, ("prompt", messages, "label"), where)
        given = row.get("prompt") if messages == "messages" else column(row, "prompt", where)
        value = column(row, messages, where)
        read = turns_of_messages if messages == "messages" else _turns
        turns = read(value, messages, where, self.notes)
        try:
            prompt, (text,) = prompt_and_answers(_given(given, where, self.notes), {messages: turns})
        except Unlike as unlike:
            return self.rejected(unlike.reason, where, unlike.detail)
        return self.record(prompt, [RatedCompletion(text, thumb=thumb)], where=where, task="response")


def _prompt(value: object, where: str, notes: SourceNotes) -> tuple[Turn, ...]:
    return (user_turn(value),) if isinstance(value, str) else turns_of_messages(value, "prompt", where, notes)


def _given(value: object, where: str, notes: SourceNotes) -> tuple[Turn, ...] | None:
    """The turns of the prompt column, or None if it is null or blank."""
    blank = value is None or (isinstance(value, str) and not value.strip())
    return None if blank else _prompt(value, where, notes)


def _turns(value: object, key: str, where: str, notes: SourceNotes) -> tuple[Turn, ...]:
    """A side as turns: a text or one message is the answer; a list of messages may be the whole conversation."""
    if isinstance(value, str):
        return (plain_turn("assistant", value),)
    if isinstance(value, dict):
        return (turn_of_message(value, key, where, notes),)
    return turns_of_messages(value, key, where, notes)


def _count_others(source: Source, row: SourceRow, read: Sequence[str], where: str) -> None:
    """Count the columns that are not read; refuse a row with tools, which a template would put into the prompt."""
    refuse_beside_content(row, "the row", where, BESIDE_PROMPT)
    for name, value in row.items():
        if name not in read and value not in (None, "", [], {}):
            source.notes.count(f"the column {named(str(name))!r} is not read", where)
