"""How a mapping reads one value of a row: as text, number or thumb, or as missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError, shown
from coh_lightning.feedback.sources.dialogue import is_messages
from coh_lightning.feedback.sources.values import ValueTable, is_number, object_of
from coh_lightning.feedback.turns import is_typed_parts, joined_parts

if TYPE_CHECKING:
    from coh_lightning.feedback.sources.mapping import Mapping as Settings


class Reader:
    """Reads values by the tables of a mapping, and counts those without an entry. Raises InputError for entries that
    contradict each other, or a non-finite number in `values`.
    """

    def __init__(self, settings: Settings) -> None:
        self.owner = f"Mapping of {settings.path}"
        self.scalars_as_text, self.notes = settings.scalars_as_text, settings.notes
        self.missing = ValueTable("missing", settings.missing, self.owner)
        entries = object_of(settings.values, "values", self.owner)
        numbers = {entry: _finite(number, entry, self.owner) for entry, number in entries.items()}
        self.values = ValueTable("values", numbers, self.owner)

    def is_missing(self, value: Any) -> bool:
        """Whether a value is null, blank, or an entry of `missing`."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return True
        return bool(self.missing) and not isinstance(value, list | dict) and value in self.missing

    def text(self, value: Any, path: str, where: str) -> str | None:
        """The exact text (a list of text parts is joined); None if missing. Raises InputError if it is not text."""
        if is_typed_parts(value):
            value = joined_parts(value, path, where)
        if self.is_missing(value):
            return None
        if isinstance(value, str):
            return value
        scalar = isinstance(value, bool | int | float)
        if self.scalars_as_text and scalar and not _is_nan(value):
            return str(value)
        hint = f" ('{path}.-1.content' is the text of its last message)" if is_messages(value) else ""
        if _is_nan(value):
            hint = " ('missing: [.nan]' treats it as missing)"
        elif scalar:
            hint = " (scalars_as_text: true converts it)"
        raise InputError(f"{where}: {path} is {value!r:.60}, a {type(value).__name__}; it must be text{hint}.")

    def texts(self, value: Any, path: str, where: str) -> list[str]:
        """The texts of a list, or a single text; missing ones are left out."""
        several = isinstance(value, list) and not is_typed_parts(value)
        found = [self.text(one, path, where) for one in (value if several else [value])]
        return [text for text in found if text is not None]

    def number(self, value: Any, path: str, where: str, *, only_words: bool = False) -> float | None:
        """The number, by `values` if it has the value; the mean of a list. None if it is missing.

        Args:
            only_words: only words are looked up in `values`, which are ratings; for ranks.

        Raises:
            InputError: neither a number nor an entry; or a number without an entry in a table that has numbers.
        """
        if isinstance(value, list):
            read = [self.number(one, path, where, only_words=only_words) for one in value]
            numbers = [number for number in read if number is not None]
            return sum(numbers) / len(numbers) if numbers else None
        if self.is_missing(value):
            return None
        itself = is_number(value)
        if not (itself and only_words) and not isinstance(value, dict) and value in self.values:
            return float(self.values[value])
        number = math.nan
        if itself and (only_words or not self.values.has_numbers):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
        if math.isfinite(number):
            return number
        if self.values and not isinstance(value, dict):
            self.notes.count(f"value {value!r:.60} of {path!r} is in no entry of 'values' or 'missing'", where)
        known = f" ('values' has {self.values.shown})" if self.values else ""
        remedy = f"it must be a number, or an entry of 'values' or 'missing'{known}"
        if _is_nan(value):
            remedy = "that is not a number: 'missing: [.nan]' treats it as missing"
        raise InputError(f"{where}: {path} is {value!r:.60}; {remedy}.")

    def thumb(self, value: Any, path: str, up: ValueTable, down: ValueTable, where: str) -> bool | None:
        """Whether the thumb is up; None if it is missing. Raises InputError for a value in neither list."""
        if self.is_missing(value):
            return None
        if not isinstance(value, list | dict):
            for thumb, meaning in ((True, up), (False, down)):
                if value in meaning:
                    return thumb
            self.notes.count(f"value {value!r:.60} of {path!r} is in no entry of 'up', 'down' or 'missing'", where)
        raise InputError(f"{where}: {path} is {value!r:.60}; 'up' has {up.shown} and 'down' has {down.shown}.")

    def id(self, value: Any, path: str, where: str) -> str:
        """The id, or "" if there is none. Raises InputError unless it is text or an integer."""
        if self.is_missing(value):
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InputError(f"{where}: {path} is {shown(value)}; an id is a text or an integer.")
        return str(value)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _finite(number: Any, entry: Any, owner: str) -> float:
    try:
        found = math.nan if isinstance(number, bool) else float(number)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{owner}: values[{entry!r:.60}] is {number!r:.60}; give a number.")
    return found
