"""How a mapping reads the prompt of a row: its pieces, its system prompt, and the earlier turns."""

from __future__ import annotations

from collections.abc import Sequence

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources.dialogue import is_messages, turn_of_message, turns_of_messages, turns_of_text
from coh_lightning.feedback.sources.fields import Piece
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.history import turns_of_history
from coh_lightning.feedback.sources.paths import has_column, value_at
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.turns import Part, Turn, is_typed_parts, user_turn


class PromptReader:
    """Reads prompts; the arguments are `Mapping`'s settings of these names.

    Args:
        reader: reads the values.
        owner: whose settings these are, for messages.

    Raises:
        InputError: not two turn markers, or not two keys.
    """

    def __init__(
        self,
        prompt: str | list[Piece],
        *,
        system: str | None,
        history: str | None,
        history_keys: Sequence[str],
        turn_markers: Sequence[str] | None,
        reader: Reader,
        owner: str,
    ) -> None:
        if turn_markers is not None and (len(turn_markers) != 2 or not all(turn_markers)):
            raise InputError(
                f"{owner}: turn_markers has {len(turn_markers)} entries; give the user's and the assistant's marker."
            )
        if len(history_keys) != 2:
            raise InputError(
                f"{owner}: history_keys has {len(history_keys)} entries; give the user's and the assistant's key."
            )
        self.prompt, self.system, self.history, self.history_keys = prompt, system, history, history_keys
        self.turn_markers, self.reader = turn_markers, reader

    def columns(self) -> list[str]:
        """The paths that every row has."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [piece.field for piece in self.prompt if piece.field and not piece.optional]

    def of(self, row: SourceRow, where: str) -> tuple[tuple[Turn, ...], list[str]]:
        """The turns, and the texts that a completion may repeat at its front: the whole prompt, its last turn."""
        turns, raw = self._last_turns(row, where)
        fronts = [text for text in (raw, turns[-1].text if turns else "") if text.strip()]
        notes = self.reader.notes
        if self.history is not None:
            earlier = value_at(row, self.history, where)
            turns = (*turns_of_history(earlier, self.history_keys, self.history, where, notes), *turns)
        system = (
            None if self.system is None else self.reader.text(value_at(row, self.system, where), self.system, where)
        )
        return turns if system is None else (Turn("system", (Part(system, "never"),)), *turns), fronts

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
