"""How a mapping reads the prompt of a row: its pieces, its system prompt, and the earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError, a_kind
from coh_lightning.feedback.sources.base import column
from coh_lightning.feedback.sources.dialogue import is_messages, turn_of_message, turns_of_messages, turns_of_text
from coh_lightning.feedback.sources.fields import Piece
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.sources.paths import has_column, value_at
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.turns import Part, Turn, is_typed_parts, joined_parts, plain_turn, user_turn

if TYPE_CHECKING:
    from coh_lightning.feedback.sources.mapping import Mapping as Settings


class PromptReader:
    """Reads prompts. Raises InputError unless there are two turn markers and two keys."""

    def __init__(self, settings: Settings, reader: Reader) -> None:
        self.prompt, self.system, self.history = settings.prompt, settings.system, settings.history
        self.turn_markers, self.history_keys, self.reader = settings.turn_markers, settings.history_keys, reader
        for name, pair in (("turn_markers", self.turn_markers), ("history_keys", self.history_keys)):
            if pair is not None and (len(pair) != 2 or not all(pair)):
                raise InputError(
                    f"{reader.owner}: {name} has {len(pair)} entries; give the user's and the assistant's."
                )

    def columns(self) -> list[str]:
        """The paths that every row has."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [piece.field for piece in self.prompt if piece.field and not piece.optional]

    def of(self, row: SourceRow, where: str) -> tuple[tuple[Turn, ...], list[str]]:
        """The turns, and the texts that a completion may repeat at its front: the whole prompt, its last turn."""
        turns, raw = self._last_turns(row, where)
        fronts = [text for text in (raw, turns[-1].text if turns else "") if text.strip()]
        if self.history is not None:
            earlier = value_at(row, self.history, where)
            turns = (*turns_of_history(earlier, self.history_keys, self.history, where, self.reader.notes), *turns)
        if self.system is not None:
            system = self.reader.text(value_at(row, self.system, where), self.system, where)
            turns = turns if system is None else (plain_turn("system", system), *turns)
        return turns, fronts

    def _last_turns(self, row: SourceRow, where: str) -> tuple[tuple[Turn, ...], str]:
        """The turns of `prompt`, and its text if it is one text."""
        if not isinstance(self.prompt, str):
            return (Turn("user", tuple(part for piece in self.prompt for part in self._parts(piece, row, where))),), ""
        value = value_at(row, self.prompt, where)
        if is_messages(value) and not is_typed_parts(value):
            return turns_of_messages(value, self.prompt, where, self.reader.notes), ""
        if isinstance(value, dict):
            return (turn_of_message(value, self.prompt, where, self.reader.notes),), ""
        raw = self.reader.text(value, self.prompt, where) or ""
        if self.turn_markers is None:
            return (user_turn(raw),), raw
        return turns_of_text(raw, self.turn_markers[0], self.turn_markers[1]), raw

    def _parts(self, piece: Piece, row: SourceRow, where: str) -> list[Part]:
        fixed = [Part(piece.text, "never")] if piece.text else []
        if piece.field is None:
            return fixed
        if piece.optional and not has_column(row, piece.field):
            return []
        text = self.reader.text(value_at(row, piece.field, where), piece.field, where)
        if text is not None:
            return [*fixed, Part(text, piece.cut)]
        if not piece.optional:
            raise InputError(f"{where}: {piece.field} is empty; mark the piece of the prompt as optional if it may be.")
        return []


def turns_of_history(value: Any, keys: Sequence[str], path: str, where: str, notes: SourceNotes) -> tuple[Turn, ...]:
    """Earlier turns, the user's first: pairs, objects with the two `keys`, messages, or alternating texts; none for
    null or an empty list::

        [["Hi", "Hello!"], ["And?", "So."]]      [{"user": "Hi", "assistant": "Hello!"}, ...]      ["Hi", "Hello!", ...]

    Raises:
        InputError: anything else, naming the entry.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(f"{where}: {path} is {a_kind(value)}; it must be a list of earlier turns.")
    if value and all(isinstance(one, str) for one in value):
        if len(value) % 2:
            raise InputError(
                f"{where}: {path} has {len(value)} texts; user and assistant alternate, so give an even number."
            )
        return tuple(_turn(text, place % 2, f"{path}[{place}]", where) for place, text in enumerate(value))
    turns: list[Turn] = []
    for number, entry in enumerate(value):
        at = f"{path}[{number}]"
        if isinstance(entry, dict) and not ({"role", "from"} & set(entry)):
            for side, key in enumerate(keys):
                turns.append(_turn(column(entry, key, f"{where}, {at}"), side, f"{at}.{key}", where))
        elif isinstance(entry, dict):
            turns.append(turn_of_message(entry, at, where, notes))
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            turns += [_turn(text, side, f"{at}[{side}]", where) for side, text in enumerate(entry)]
        else:
            raise InputError(f"{where}: {at} is {entry!r:.60}; give [user's text, assistant's text], or a message.")
    return tuple(turns)


def _turn(text: Any, side: int, key: str, where: str) -> Turn:
    if is_typed_parts(text):
        text = joined_parts(text, key, where)
    if not isinstance(text, str):
        raise InputError(f"{where}: {key} is {text!r:.60}, a {type(text).__name__}; it must be text.")
    return plain_turn("assistant" if side else "user", text)
