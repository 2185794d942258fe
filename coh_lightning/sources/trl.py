"""The preference formats of TRL: pairs (`prompt`, `chosen`, `rejected`) and unpaired thumbs (`prompt`, `completion`, `label`), as text or as messages.

Texts are kept to the character. The forms have no separator of their own: in a pair without `prompt` the blanks where the two begin to differ begin the
completions, so that prompt and completion together are the text that stands in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Feedback, Rejected, Turn
from coh_lightning.sources.base import Source, column
from coh_lightning.sources.dialogue import is_messages, turn_of_message, turns_of_messages, user_turn
from coh_lightning.sources.files import Row

DIFFERENT = "the two conversations differ before the last turn"


@dataclass(frozen=True)
class TRLPairs(Source):
    """Pairs: `chosen` before `rejected`. Without a `prompt` column it is what the two have in common at their beginning (TRL's "implicit prompt")::

    {"prompt": "Hi", "chosen": " Hello!", "rejected": " What?"}                                      text
    {"prompt": [user "Hi"], "chosen": [assistant "Hello!"], "rejected": [assistant "What?"]}         messages
    {"chosen": [user "Hi", assistant "Hello!"], "rejected": [user "Hi", assistant "What?"]}          implicit prompt

    Beside a `prompt`, `chosen` and `rejected` may be whole conversations that repeat it; what they have before it (a system turn, earlier turns) belongs to the
    prompt then. A row whose conversation has another prompt is rejected, with the first character that differs.
    """

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        sides = [column(row, name, where) for name in ("chosen", "rejected")]
        if "prompt" in row:
            given = _prompt(row["prompt"], "prompt", where)
            said: list[_Said] = []
            for name, side in zip(("chosen", "rejected"), sides, strict=True):
                one = _said(side, name, where, given)
                if isinstance(one, _Difference):
                    return self.rejected(one.reason, one.where)
                said.append(one)
            if not _same(said[0].prompt, said[1].prompt):
                return self.rejected(DIFFERENT, where)
            prompt, texts = said[0].prompt, [one.text for one in said]
        elif all(isinstance(side, str) for side in sides):
            # The common beginning, back to the last blank: a word that both begin alike belongs to the completions, and so do the blanks before it.
            begin = sides[0][: _first_difference(*sides)]
            common = len(begin[: max(begin.rfind(" "), begin.rfind("\n")) + 1].rstrip(" \n"))
            prompt, texts = (user_turn(sides[0][:common]),), [side[common:] for side in sides]
        elif all(is_messages(side) for side in sides):
            turns = [turns_of_messages(side, name, where) for name, side in zip(("chosen", "rejected"), sides, strict=True)]
            if not _same(turns[0][:-1], turns[1][:-1]):
                return self.rejected(DIFFERENT, where)
            if any(side[-1].role != "assistant" for side in turns):
                return self.rejected("a conversation does not end with the assistant's turn", where)
            prompt, texts = turns[0][:-1], [side[-1].text for side in turns]
        else:
            raise InputError(f"{where}: 'chosen' and 'rejected' must both be text or both be lists of messages.")
        candidates = [Candidate(text, rank=rank) for text, rank in zip(texts, (1.0, 2.0), strict=True)]
        return self.record(prompt, candidates, where=where, task="response")


@dataclass(frozen=True)
class TRLUnpaired(Source):
    """One completion with a thumb: `prompt`, `completion`, `label`; or `messages` that end with the completion, and `label`."""

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        label = column(row, "label", where)
        if not isinstance(label, bool):
            named = {"true": True, "false": False, "1": True, "0": False}.get(str(label).lower())
            if named is None:
                raise InputError(f"{where}: label is {label!r:.60}; it must be true or false.")
            label = named
        if "messages" in row and "completion" not in row:
            turns = turns_of_messages(row["messages"], "messages", where)
            if turns[-1].role != "assistant":
                return self.rejected("the conversation does not end with the assistant's turn", where)
            prompt, text = turns[:-1], turns[-1].text
        else:
            prompt = _prompt(column(row, "prompt", where), "prompt", where)
            said = _said(column(row, "completion", where), "completion", where, prompt)
            if isinstance(said, _Difference):
                return self.rejected(said.reason, said.where)
            prompt, text = said
        return self.record(prompt, [Candidate(text, thumb=label)], where=where, task="response")


class _Said(NamedTuple):
    """A completion and the prompt that it follows."""

    prompt: tuple[Turn, ...]
    text: str


class _Difference(NamedTuple):
    """Why a side of a row is no completion of its prompt."""

    reason: str
    where: str


def _prompt(value: object, key: str, where: str) -> tuple[Turn, ...]:
    return (user_turn(value),) if isinstance(value, str) else turns_of_messages(value, key, where)


def _said(value: object, key: str, where: str, prompt: tuple[Turn, ...]) -> _Said | _Difference:
    """A completion: text, one message, or a list of messages that ends with it and before that repeats the prompt, with the turns before it or without.

        prompt user "Hi"      [system "Be brief.", user "Hi", assistant "Hello!"]   ->   prompt system "Be brief.", user "Hi"; text "Hello!"

    Turns that differ in the blanks at their ends alone are the same; those of the prompt count.
    """
    if isinstance(value, str):
        return _Said(prompt, value)
    if isinstance(value, dict):
        return _Said(prompt, turn_of_message(value, key, where).text)
    *before, last = turns_of_messages(value, key, where)
    if last.role != "assistant":
        return _Difference("a conversation does not end with the assistant's turn", where)
    shared = min(len(before), len(prompt))
    if _same(before[len(before) - shared :], prompt[len(prompt) - shared :]):
        return _Said((*before[: len(before) - len(prompt)], *prompt) if len(before) > len(prompt) else prompt, last.text)
    if before[0].role == "assistant" or (len(before) > len(prompt) and _same(before[: len(prompt)], prompt)):
        return _Difference("a completion is more than one assistant message", where)
    one, other = next((one.text, other.text) for one, other in zip(before[::-1], prompt[::-1], strict=False) if not _same([one], [other]))
    place = _first_difference(one.strip(), other.strip()) + 1
    return _Difference("the prompt is not what stands before the completion's turn", f"{where}, {key}, character {place} of the turn that differs")


def _same(turns: Sequence[Turn], others: Sequence[Turn]) -> bool:
    return [(turn.role, turn.text.strip()) for turn in turns] == [(turn.role, turn.text.strip()) for turn in others]


def _first_difference(one: str, other: str) -> int:
    """The place of the first character in which two texts differ; the length of the shorter one where it is the other's beginning."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
