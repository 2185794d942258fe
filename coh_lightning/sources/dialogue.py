"""Conversations as other people write them: one text with markers before the turns, or a list of messages in OpenAI's or ShareGPT's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from coh_lightning.errors import InputError
from coh_lightning.records import Part, Role, Turn, did_you_mean

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model"), "assistant"),
    "system": "system",
}


class Span(NamedTuple):
    """One turn inside a text: who speaks, and where its words begin and end."""

    role: Role
    start: int
    stop: int


def spans_of(text: str, user_marker: str, assistant_marker: str) -> list[Span]:
    """The turns of a marked text, which alternate, beginning with the user (whose first marker may be missing).

    Only the marker of the *other* speaker ends a turn, so a message that holds its own speaker's marker, or a marker inside a line, stays whole; splitting at
    every occurrence of a name breaks 1.7 % of the conversations of HH (method.md 1.4)::

        "\\n\\nHuman: Hi\\n\\nAssistant: Human: hello\\n\\nAssistant: hm\\n\\nHuman: Bye"
         user:       "Hi"
         assistant:  "Human: hello\\n\\nAssistant: hm"       ("Human:" does not begin a paragraph; a second "Assistant:" changes no speaker)
         user:       "Bye"
    """
    start = len(user_marker) if text.startswith(user_marker) else 0
    role: Role = "user"
    spans = []
    while True:
        other = assistant_marker if role == "user" else user_marker
        stop = text.find(other, start)
        if stop < 0:
            spans.append(Span(role, start, len(text)))
            return spans
        spans.append(Span(role, start, stop))
        start = stop + len(other)
        role = "assistant" if role == "user" else "user"


def user_turn(text: str) -> Turn:
    """A prompt that is one plain text: cut, where it must be, from its front."""
    return Turn("user", (Part(text, "front"),))


def turns_of_text(text: str, user_marker: str, assistant_marker: str) -> tuple[Turn, ...]:
    """The turns of a marked text, blanks around each taken off."""
    return tuple(Turn(span.role, (Part(text[span.start : span.stop].strip(), "front"),)) for span in spans_of(text, user_marker, assistant_marker))


def is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def turn_of_message(message: object, key: str, where: str) -> Turn:
    """One message, {"role", "content"} or {"from", "value"}, as a turn; a system turn is never cut. Raises InputError naming the key."""
    if not isinstance(message, Mapping):
        raise InputError(f"{where}: {key} is a {type(message).__name__}; a message is an object with 'role' and 'content' (or 'from' and 'value').")
    who, words = ("from", "value") if "from" in message and "role" not in message else ("role", "content")
    for name in (who, words):
        if name not in message:
            raise InputError(f"{where}: {key} has no {name!r}{did_you_mean(name, map(str, message))}")
    role: Any = message[who]
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"{where}: {key}.{who} is {role!r:.60}; it must be one of {', '.join(_ROLES)}.")
    content = message[words]
    if not isinstance(content, str):
        raise InputError(f"{where}: {key}.{words} is a {type(content).__name__}; it must be text.")
    return Turn(_ROLES[role], (Part(content, "never" if _ROLES[role] == "system" else "front"),))


def turns_of_messages(value: object, key: str, where: str) -> tuple[Turn, ...]:
    """A list of messages as turns. Raises InputError naming the message."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} is no list of messages.")
    return tuple(turn_of_message(message, f"{key}[{index}]", where) for index, message in enumerate(value))
