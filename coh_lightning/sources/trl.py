"""The preference formats of TRL: pairs (`prompt`, `chosen`, `rejected`) and unpaired thumbs (`prompt`, `completion`, `label`), as text or as messages.

Text stands in a layout of its maker's, so the blanks at its ends are taken off; the contents of messages are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Feedback, Rejected, Turn
from coh_lightning.sources.base import Source, column
from coh_lightning.sources.dialogue import is_messages, turn_of_message, turns_of_messages, user_turn
from coh_lightning.sources.files import Row


@dataclass(frozen=True)
class TRLPairs(Source):
    """Pairs: `chosen` before `rejected`. Without a `prompt` column it is what the two have in common at their beginning (TRL's "implicit prompt")::

    {"prompt": "Hi", "chosen": " Hello!", "rejected": " What?"}                                      text
    {"prompt": [user "Hi"], "chosen": [assistant "Hello!"], "rejected": [assistant "What?"]}         messages
    {"chosen": [user "Hi", assistant "Hello!"], "rejected": [user "Hi", assistant "What?"]}          implicit prompt
    """

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        sides = [column(row, name, where) for name in ("chosen", "rejected")]
        if "prompt" in row:
            prompt = _prompt(row["prompt"], "prompt", where)
            texts: list[str] = []
            for name, side in zip(("chosen", "rejected"), sides, strict=True):
                text = _completion(side, name, where, prompt)
                if text is None:
                    return self.rejected("a completion is more than one assistant message", where)
                texts.append(text)
        elif all(isinstance(side, str) for side in sides):
            # The common beginning, back to the last blank: a word that both begin alike belongs to the completions.
            alike = next((place for place, (one, other) in enumerate(zip(*sides, strict=False)) if one != other), min(map(len, sides)))
            common = max(sides[0].rfind(" ", 0, alike), sides[0].rfind("\n", 0, alike)) + 1
            prompt, texts = (user_turn(sides[0][:common].strip()),), [side[common:].strip() for side in sides]
        elif all(is_messages(side) for side in sides):
            turns = [turns_of_messages(side, name, where) for name, side in zip(("chosen", "rejected"), sides, strict=True)]
            if turns[0][:-1] != turns[1][:-1]:
                return self.rejected("the two conversations differ before the last turn", where)
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
            completion = _completion(column(row, "completion", where), "completion", where, prompt)
            if completion is None:
                return self.rejected("a completion is more than one assistant message", where)
            text = completion
        return self.record(prompt, [Candidate(text, thumb=label)], where=where, task="response")


def _prompt(value: object, key: str, where: str) -> tuple[Turn, ...]:
    if isinstance(value, str):
        return (user_turn(value.strip()),)
    return turns_of_messages(value, key, where)


def _completion(value: object, key: str, where: str, prompt: tuple[Turn, ...]) -> str | None:
    """The text of a completion: text, one message, or a list of messages of which the last is new (some files repeat the prompt); None for more than that."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict):
        return turn_of_message(value, key, where).text
    turns = turns_of_messages(value, key, where)
    new = turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns
    return new[0].text if len(new) == 1 and new[0].role == "assistant" else None
