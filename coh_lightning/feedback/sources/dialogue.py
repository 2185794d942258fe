"""Conversations in other formats: one text with a marker before each turn, or a list of messages with the keys of
OpenAI or ShareGPT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from coh_lightning.errors import InputError, a_kind, did_you_mean, named
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.turns import (
    DEVELOPER,
    Role,
    Turn,
    is_typed_parts,
    joined_parts,
    plain_turn,
    refuse_beside_content,
)

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", DEVELOPER), "system"),
}

READ_AS_SYSTEM = "developer turns are read as system turns"
"""Counted in a source's notes."""


class TurnSpan(NamedTuple):
    """One turn inside a text: its role, and where its words begin and end."""

    role: Role
    start: int
    stop: int


def spans_of(text: str, user_marker: str, assistant_marker: str) -> list[TurnSpan]:
    """The turns of a marked text, which alternate and begin with the user (whose first marker may be missing).

    Only the marker of the *other* speaker ends a turn, so a message that contains its own speaker's marker, or a marker
    inside a line, stays whole; splitting at every occurrence breaks 1.7 % of the conversations of HH::

        "\\n\\nHuman: Hi\\n\\nAssistant: Human: hello\\n\\nAssistant: hm\\n\\nHuman: Bye"
         user:       "Hi"
         assistant:  "Human: hello\\n\\nAssistant: hm"   "Human:" begins no paragraph, and a second "Assistant:" no turn
         user:       "Bye"
    """
    start = len(user_marker) if text.startswith(user_marker) else 0
    role: Role = "user"
    spans = []
    while True:
        other = assistant_marker if role == "user" else user_marker
        stop = text.find(other, start)
        if stop < 0:
            spans.append(TurnSpan(role, start, len(text)))
            return spans
        spans.append(TurnSpan(role, start, stop))
        start = stop + len(other)
        role = "assistant" if role == "user" else "user"


def turns_of_text(text: str, user_marker: str, assistant_marker: str) -> tuple[Turn, ...]:
    """The turns of a marked text, exact to the character. Only the markers and their whitespace are removed:

    * the marker as given, and one space after it, unless the marker itself ends with whitespace: "Human:" and "Human: "
      read "Human: Hi" alike;
    * one line end before the marker, unless the marker itself begins with whitespace: "a\\n<user>b" ends the turn "a";
    * the whitespace before the first marker of the text. If the whole text was stripped, its first and last marker also
      match without their outer whitespace;
    * an assistant marker at the end with only whitespace after it: the completion goes there, so it is not a turn.

    All other whitespace is text (a source's `strip: true` removes it from the ends of turns). A conversation may begin
    with the assistant::

        "\\n\\nHuman: Hi\\n\\nAssistant:"                  ->  user "Hi"
        "\\n\\nHuman:     if x:\\n\\n\\nAssistant: Yes "     ->  user "    if x:\\n", assistant "Yes "
        "\\n\\nAssistant: Hi\\n\\nHuman: Hello"            ->  assistant "Hi", user "Hello"
    """
    for marker in (user_marker, assistant_marker):
        bare = marker.lstrip()
        if bare and text.lstrip().startswith(bare):
            text = marker + text.lstrip()[len(bare) :]
            break
    open_end = assistant_marker.rstrip()
    if open_end and text.rstrip().endswith(open_end):
        text = _before_marker(text.rstrip().removesuffix(open_end), assistant_marker)
    markers: dict[Role, str] = {"user": user_marker, "assistant": assistant_marker}
    turns = []
    for span in spans_of(text, user_marker, assistant_marker):
        words = text[span.start : span.stop]
        if span.start and not markers[span.role][-1:].isspace():  # at 0 there is no marker before it
            words = words.removeprefix(" ")
        if span.stop < len(text):
            words = _before_marker(words, markers["assistant" if span.role == "user" else "user"])
        turns.append((span.role, words))
    if len(turns) > 1 and not turns[0][1].strip():
        del turns[0]
    if len(turns) > 1 and turns[-1][0] == "assistant" and not turns[-1][1].strip():
        del turns[-1]
    return tuple(plain_turn(role, words) for role, words in turns)


def _before_marker(words: str, marker: str) -> str:
    """The words without the line end before the marker."""
    if marker[:1].isspace() or not words.endswith("\n"):
        return words
    return words.removesuffix("\n").removesuffix("\r")


def is_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def is_message(value: object) -> bool:
    """Whether a value is one message: an object with a known role and a text or a list of parts."""
    if not isinstance(value, Mapping):
        return False
    for who, words in (("role", "content"), ("from", "value")):
        role, content = value.get(who), value.get(words)
        if isinstance(role, str) and role in _ROLES and (isinstance(content, str) or is_typed_parts(content)):
            return True
    return False


def turn_of_message(message: object, key: str, where: str, notes: SourceNotes | None = None) -> Turn:
    """One message, {"role", "content"} or {"from", "value"}, as a turn; a list of text parts is joined.

    Args:
        notes: Count other keys, and developer turns, which are read as system turns.

    Raises:
        InputError: a key is missing, the role is unknown, the content or one of its parts is not text, or another key
            changes what the message says; naming the key.
    """
    if not isinstance(message, Mapping):
        wanted = "an object with 'role' and 'content' (or 'from' and 'value')"
        raise InputError(f"{where}: {key} is {a_kind(message)}; a message is {wanted}.")
    who, words = ("from", "value") if "from" in message and "role" not in message else ("role", "content")
    refuse_beside_content(message, key, where)
    for name in (who, words):
        if name not in message:
            raise InputError(f"{where}: {key} has no {name!r}{did_you_mean(name, map(str, message))}")
    role: Any = message[who]
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"{where}: {key}.{who} is {role!r:.60}; it must be one of {', '.join(_ROLES)}.")
    content = message[words]
    if isinstance(content, list):
        content = joined_parts(content, f"{key}.{words}", where)
    if not isinstance(content, str):
        raise InputError(f"{where}: {key}.{words} is {a_kind(content)}; it must be text or a list of text parts.")
    if notes is not None:
        if role == DEVELOPER:
            notes.count(READ_AS_SYSTEM, where)
        for name, value in message.items():
            if name not in (who, words) and value not in (None, "", [], {}):
                notes.count(f"the key {named(str(name))!r} of messages is ignored", where)
    return plain_turn(_ROLES[role], content)


def turns_of_messages(value: object, key: str, where: str, notes: SourceNotes | None = None) -> tuple[Turn, ...]:
    """A list of messages as turns. Raises InputError naming the message."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} is not a list of messages.")
    return tuple(turn_of_message(message, f"{key}[{index}]", where, notes) for index, message in enumerate(value))


class Unlike(Exception):
    """Two places that should be the same differ: `reason` for counting, `detail` with the message and the character."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def prompt_and_answers(
    prompt: tuple[Turn, ...] | None, sides: Mapping[str, tuple[Turn, ...]]
) -> tuple[tuple[Turn, ...], list[str]]:
    """The prompt and one answer per side; a side is an answer alone, or a conversation that ends with it.

    The turns of a conversation before its answer are the prompt: they have the system turn and earlier turns that a
    column `prompt` often lacks. That column must be their end, or one of their user turns; whitespace at the ends of
    texts is ignored, and the column's own text is used::

        prompt "Hi "    chosen [system "Be kind.", user "Hi", assistant "Hello!"]
        ->              system "Be kind.", user "Hi "       answer "Hello!"

    Args:
        prompt: The turns of the column, if there is one.
        sides: Name of the column -> its turns.

    Raises:
        Unlike: the sides differ before their last turn, the prompt is not in them, or a side does not end with one
            answer.
    """
    contexts: dict[str, tuple[Turn, ...]] = {}
    for name, turns in sides.items():
        if turns[-1].role != "assistant":
            ends = f"{name} ends with a turn of the {turns[-1].role}"
            raise Unlike("a conversation does not end with the assistant's turn", ends)
        if any(turn.role != "assistant" for turn in turns):
            contexts[name] = turns[:-1]
        elif len(turns) > 1:
            raise Unlike("a completion is more than one assistant message", f"{name} has {len(turns)}")
    answers = [turns[-1].text for turns in sides.values()]
    if not contexts:
        if prompt is None:
            raise Unlike("there is no prompt before the answer")
        return prompt, answers
    first, *others = contexts
    if prompt is not None:
        for name, context in contexts.items():
            contexts[name] = _with_prompt(context, prompt, name, alone=len(contexts) == len(sides))
    for other in others:
        if (unlike := difference(contexts[first], contexts[other])) is not None:
            raise Unlike("the two conversations differ before the last turn", f"{first} and {other}, {unlike}")
    return contexts[first], answers


def _with_prompt(context: tuple[Turn, ...], prompt: tuple[Turn, ...], name: str, *, alone: bool) -> tuple[Turn, ...]:
    """The turns before a side's answer, from the prompt column and the side's own turns.

    Args:
        alone: Every side has turns of its own; otherwise the prompt must be the end of them.
    """
    own, wanted = ([(turn.role, turn.text.strip()) for turn in turns] for turns in (context, prompt))
    if own[-len(wanted) :] == wanted:
        return (*context[: len(context) - len(prompt)], *prompt)
    if wanted[-len(own) :] == own:
        return prompt
    if len(wanted) == 1 and wanted[0] in own and alone:
        return context
    # the assistant's words in a completion of several turns are not part of the prompt
    if context[0].role == "assistant" or own[: len(wanted)] == wanted:
        raise Unlike("a completion is more than one assistant message", f"{name} has {len(context) + 1} messages")
    same = [turn for turn in context if turn.role == "user"] if len(prompt) == 1 else context
    raise Unlike(f"the prompt is not in the conversation of {name!r}", difference(prompt, same[-len(prompt) :]) or "")


def common_beginning(one: str, other: str) -> str:
    size = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return min(one, other, key=len) if size is None else one[:size]


def difference(one: Sequence[Turn], other: Sequence[Turn]) -> str | None:
    """Where two conversations first differ: "message 2 (user), character 14: 'pear' and 'plum'"; None if they don't.
    Whitespace at the ends of texts is ignored.
    """
    for number, (left, right) in enumerate(zip(one, other, strict=False), start=1):
        if left.role != right.role:
            return f"message {number}: of the {left.role} and of the {right.role}"
        texts = left.text.strip(), right.text.strip()
        if texts[0] != texts[1]:
            place = len(common_beginning(*texts))
            shown_there = " and ".join(repr(text[place : place + 20]) for text in texts)
            return f"message {number} ({left.role}), character {place + 1}: {shown_there}"
    return None if len(one) == len(other) else f"{len(one)} messages and {len(other)}"
