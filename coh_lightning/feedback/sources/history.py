"""The turns before a prompt, in their usual forms: pairs, objects, messages, or alternating texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources.base import column
from coh_lightning.feedback.sources.dialogue import turn_of_message
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.turns import Part, Role, Turn, is_typed_parts, joined_parts


def turns_of_history(
    value: Any, keys: Sequence[str], path: str, where: str, notes: SourceNotes | None = None
) -> tuple[Turn, ...]:
    """Earlier turns, the user's first; none for null or an empty list::

        [["Hi", "Hello!"], ["And?", "So."]]      [{"user": "Hi", "assistant": "Hello!"}, ...]      ["Hi", "Hello!", ...]

    Args:
        keys: the user's and the assistant's key in the objects.

    Raises:
        InputError: anything else, naming the entry.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(f"{where}: {path} is a {type(value).__name__}; it must be a list of earlier turns.")
    if value and all(isinstance(one, str) for one in value):
        if len(value) % 2:
            raise InputError(
                f"{where}: {path} has {len(value)} texts; texts of user and assistant alternate, so their number must "
                "be even."
            )
        return tuple(_turn(text, place % 2, f"{path}[{place}]", where) for place, text in enumerate(value))
    turns: list[Turn] = []
    for number, entry in enumerate(value):
        at = f"{path}[{number}]"
        if isinstance(entry, dict) and not ({"role", "from"} & set(entry)):
            turns += [
                _turn(column(entry, key, f"{where}, {at}"), side, f"{at}.{key}", where) for side, key in enumerate(keys)
            ]
        elif isinstance(entry, dict):
            turns.append(turn_of_message(entry, at, where, notes))
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            turns += [_turn(text, side, f"{at}[{side}]", where) for side, text in enumerate(entry)]
        else:
            raise InputError(
                f"{where}: {at} is {entry!r:.60}; give [user's text, assistant's text], an object of the two, or a "
                "message."
            )
    return tuple(turns)


def _turn(text: Any, side: int, key: str, where: str) -> Turn:
    if is_typed_parts(text):
        text = joined_parts(text, key, where)
    if not isinstance(text, str):
        raise InputError(f"{where}: {key} is {text!r:.60}, a {type(text).__name__}; it must be text.")
    role: Role = "assistant" if side else "user"
    return Turn(role, (Part(text, "front"),))
