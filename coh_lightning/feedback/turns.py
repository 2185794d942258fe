"""The turns of a prompt, and the content of a message as chat clients write it: a text, or a list of parts.

"Name a fruit."                                                                  one part
[{"text": "Summarize:\\n"}, {"text": "<the post>", "cut": "back"}]                 two parts, the second may be cut
[{"type": "text", "text": "Name "}, {"type": "text", "text": "a fruit."}]        joined: "Name a fruit."
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from coh_lightning.checks import checked_text, known_keys
from coh_lightning.errors import InputError, did_you_mean, shown

Role = Literal["system", "user", "assistant"]
Cut = Literal["never", "front", "back"]

ROLES: tuple[str, ...] = get_args(Role)
CUTS: tuple[str, ...] = get_args(Cut)
DEVELOPER = "developer"
"""The newer name of the system role in OpenAI's clients."""

_PART = ("text", "cut")
_MESSAGE = ("role", "content")

BESIDE_COMPLETION = frozenset(
    "tool_calls tool_call function_call function_calls reasoning_content reasoning_details thinking_blocks".split()
)
"""Keys of a completion that change what it says and that a text can't have: without them a model would learn to stop
where it should call a tool or think. `reasoning` is not one of them, since a rater may have written it.
"""
BESIDE_CONTENT = BESIDE_COMPLETION | frozenset(
    "tool_call_id tools functions reasoning thinking thoughts refusal audio image images image_url video videos".split()
)
"""The same of a message."""
BESIDE_PROMPT = frozenset("tools functions image images video videos audio".split())
"""The same of a whole row."""


@dataclass(frozen=True)
class Part:
    """A piece of a turn's text, and the end from which truncation may shorten it (a task sentence: never)."""

    text: str
    cut: Cut = "never"


@dataclass(frozen=True)
class Turn:
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        if self.is_plain:
            return {"role": self.role, "content": self.text}
        return {"role": self.role, "content": [{"text": part.text, "cut": part.cut} for part in self.parts]}

    @property
    def is_plain(self) -> bool:
        """Whether it is one part that is cut as a turn of this role usually is."""
        return len(self.parts) == 1 and self.parts[0].cut == usual_cut(self.role)


def usual_cut(role: Role) -> Cut:
    """How a turn of plain text is cut: a system turn never, others from the front."""
    return "never" if role == "system" else "front"


def plain_turn(role: Role, text: str) -> Turn:
    """A turn of one text, cut as usual for the role."""
    return Turn(role, (Part(text, usual_cut(role)),))


def user_turn(text: str) -> Turn:
    """A prompt that is one plain text."""
    return plain_turn("user", text)


def read_prompt(turns: Sequence[Turn]) -> str:
    """A prompt as people read it: a single turn bare, a conversation with the role before each turn."""
    return turns[0].text if len(turns) == 1 else "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in turns)


def as_messages(turns: Sequence[Turn]) -> tuple[Mapping[str, str], ...]:
    return tuple({"role": turn.role, "content": turn.text} for turn in turns)


def read_messages(value: Sequence[object], key: str, where: str) -> tuple[Mapping[str, str], ...]:
    """Chat messages of `role` and `content` alone. Raises InputError naming `where` and the key."""
    for index, message in enumerate(value):
        if not isinstance(message, dict) or message.keys() != {"role", "content"} or message["role"] not in ROLES:
            wanted = f"only a 'role' ({', '.join(ROLES)}) and a 'content'"
            raise InputError(f"{where}: {key}[{index}] is {shown(message)}; a message has {wanted}.")
        checked_text(message["content"], f"{key}[{index}].content", where)
    return tuple(cast("Mapping[str, str]", message) for message in value)


def check_prompt(prompt: Sequence[Turn], where: str) -> None:
    """Raises InputError unless the prompt has known roles, at most one system turn (the first), and ends with a user
    turn that is not blank.
    """
    roles, cuts = ", ".join(ROLES), ", ".join(CUTS)
    if not any(turn.role == "user" for turn in prompt):
        raise InputError(f"{where}: prompt has no user turn; its last turn must be the user's.")
    for index, turn in enumerate(prompt):
        if turn.role not in ROLES:
            raise InputError(f"{where}: prompt[{index}].role is {turn.role!r:.60}; it must be one of {roles}.")
        if turn.role == "system" and index:
            raise InputError(f"{where}: prompt[{index}] is a system turn; a prompt has at most one, at the beginning.")
        for part in turn.parts:
            checked_text(part.text, f"prompt[{index}]", where)
            if part.cut not in CUTS:
                raise InputError(f"{where}: prompt[{index}] has the cut {part.cut!r:.60}; it must be one of {cuts}.")
    if prompt[-1].role != "user":
        raise InputError(f"{where}: prompt ends with the {prompt[-1].role}'s turn; its last turn must be the user's.")
    if not prompt[-1].text.strip():
        raise InputError(f"{where}: prompt ends with an empty user turn.")


def refuse_beside_content(message: Mapping[Any, Any], key: str, where: str, names: Set[str] = BESIDE_CONTENT) -> None:
    """Raises InputError if a message (or a completion, or a row: `names`) has more than text, such as a tool call."""
    for name in message:
        if name in names and message[name] not in (None, False, "", [], {}):
            found = f"{name!r} beside its text ({shown(message[name])}), which would be lost"
            raise InputError(f"{where}: {key} has {found}; write it into the text, or leave the row out.")


def prompt_from_json(value: object, where: str) -> tuple[tuple[Turn, ...], dict[str, Any]]:
    """The turns of a text, a list of parts, or a list of messages; and the unknown keys of messages by their place."""
    if isinstance(value, str) or _is_bare_parts(value) or is_typed_parts(value):
        return (Turn("user", _parts_from_json(value, "prompt", "front", where)),), {}
    if not isinstance(value, list):
        raise InputError(f"{where}: prompt is {shown(value)}; it must be text or a list of messages.")
    turns = []
    unknown_by_turn: dict[str, Any] = {}
    for index, item in enumerate(value):
        key = f"prompt[{index}]"
        if isinstance(item, dict):
            refuse_beside_content(item, key, where)
        message, unknown = known_keys(item, _MESSAGE, key, where)
        for name in _MESSAGE:
            if name not in message:
                raise InputError(f"{where}: {key} has no {name!r}; a message has 'role' and 'content'.")
        role: Any = "system" if message["role"] == DEVELOPER else message["role"]
        if role not in ROLES:
            near = did_you_mean(str(role), ROLES)
            raise InputError(f"{where}: {key}.role is {shown(role)}; it must be one of {', '.join(ROLES)}{near}")
        turns.append(Turn(role, _parts_from_json(message["content"], f"{key}.content", usual_cut(role), where)))
        if unknown:
            unknown_by_turn[key] = unknown
    return tuple(turns), unknown_by_turn


def _parts_from_json(value: object, key: str, cut: Cut, where: str) -> tuple[Part, ...]:
    if isinstance(value, str):
        return (Part(value, cut),)
    if not isinstance(value, list):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be text or a list of parts.")
    if is_typed_parts(value):
        for index, item in enumerate(value):
            others = [name for name in item if name not in ("type", "text") and item[name] is not None]
            if others and item["type"] == "text":
                known = "a part with a 'type' has only 'type' and 'text'"
                raise InputError(f"{where}: unknown key {others[0]!r:.60} in {key}[{index}]; {known}.")
        return (Part(joined_parts(value, key, where), cut),)
    parts = []
    for index, item in enumerate(value):
        at = f"{key}[{index}]"
        part, unknown = known_keys(item, _PART, at, where)
        if unknown:
            raise InputError(f"{where}: unknown key {next(iter(unknown))!r:.60} in {at}; a part has 'text' and 'cut'.")
        if "text" not in part:
            raise InputError(f"{where}: {at} has no 'text'.")
        parts.append(Part(checked_text(part["text"], f"{at}.text", where), part.get("cut", cut)))
    return tuple(parts)


def _is_bare_parts(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, dict) and "text" in item and "role" not in item for item in value)


def is_typed_parts(value: object) -> bool:
    """Whether a value is a list of content parts: objects with a type and without a role."""
    return isinstance(value, list) and bool(value) and all(_is_typed_part(one) for one in value)


def _is_typed_part(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("type") is not None and not {"role", "from"} & value.keys()


def joined_parts(value: list[Any], key: str, where: str) -> str:
    """The text of a list of typed text parts, joined with nothing between them, as the exported chat template does;
    other keys of a part are ignored. Raises InputError for a part that is not text.
    """
    texts = []
    for place, part in enumerate(value):
        at = f"{where}: {key}[{place}]"
        if not isinstance(part, Mapping) or part.get("type") is None:
            raise InputError(f"{at} is {part!r:.60}; a content part is an object with 'type' and 'text'.")
        if part["type"] != "text":
            remedy = "only text parts can be read; write it as text, or leave the row out"
            raise InputError(f"{at} is a part of type {part['type']!r:.60}; {remedy}.")
        if not isinstance(part.get("text"), str):
            raise InputError(f"{at}.text is {part.get('text')!r:.60}; it must be text.")
        texts.append(part["text"])
    return "".join(texts)
