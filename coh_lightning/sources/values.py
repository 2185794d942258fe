"""When a value of a row and an entry of a setting are the same, whatever types YAML, JSON, CSV or the parser made of
them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from coh_lightning.errors import InputError

TRUE_WORDS = frozenset(("yes", "true", "on"))
FALSE_WORDS = frozenset(("no", "false", "off"))
NULL_WORDS = frozenset(("null", "~", ""))
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def normal(value: object) -> Hashable:
    """What two equal values have in common; it can be a key.

    * Text goes without the blanks at its ends and in Unicode's NFC form; upper and lower case differ.
    * Numbers go by value, and text that is a number is that number: 1, 1.0, "1", " 1.0 " and "1e0" are all the same.
    * Booleans go by the words that YAML writes them with: true is the same as the texts yes, true and on, and false as
      no, false and off, in upper or lower case. So an entry `yes`, whether quoted or not, means a cell "Yes", a cell
      "TRUE" and a cell true. A boolean is never a number: 1 is not true.
    * Nothing is the same as the texts null, ~ and "". NaN is the same as the texts nan and .nan in upper or lower case.
    * Lists and objects are the same where all that is in them is.
    """
    if value is None or isinstance(value, bool):
        return (value,)
    if isinstance(value, str):
        return _of_text(unicodedata.normalize("NFC", value.strip()))
    if isinstance(value, int):
        return ("number", Decimal(value))
    if isinstance(value, float | Decimal):
        return ("text", "nan") if math.isnan(value) else ("number", Decimal(str(value)))
    if isinstance(value, list | tuple):
        return ("list", tuple(normal(one) for one in value))
    if isinstance(value, Mapping):
        return ("object", frozenset((normal(key), normal(one)) for key, one in value.items()))
    return _of_text(str(value))


def _of_text(text: str) -> Hashable:
    word = text.casefold()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return (word in TRUE_WORDS,)
    if word in NULL_WORDS:
        return (None,)
    if word in ("nan", ".nan"):
        return ("text", "nan")
    if _NUMBER.fullmatch(text):
        try:
            return ("number", Decimal(text))
        except InvalidOperation:  # an exponent beyond all numbers
            pass
    return ("text", text)


def is_number(value: object) -> bool:
    """Whether the value is a number, or text that is one."""
    form = normal(value)
    return isinstance(form, tuple) and form[0] == "number"


class Table:
    """Entries of a setting, looked up by `normal`; it remembers which were found.

        Table("values", {1: 5, "Good": 4})["1.0"]  ->  5

    Args:
        name: of the setting, for messages.
        entries: value -> what it means; a list of values means true for each.
        owner: whose setting it is, for messages.

    Raises:
        InputError: two entries are the same value and mean different things, or an entry is a list or an object; or
            the entries are no list.
    """

    def __init__(self, name: str, entries: Mapping[Any, Any] | Iterable[Any], owner: str) -> None:
        self.name = name
        if not isinstance(entries, Mapping | list | tuple):
            raise InputError(f"{owner}: '{name}' is {entries!r:.60}; give a list of values.")
        pairs = list(entries.items()) if isinstance(entries, Mapping) else [(entry, True) for entry in entries]
        self.shown = ", ".join(_shown(entry) for entry, _ in pairs)
        self._found: set[Hashable] = set()
        self._by_form: dict[Hashable, tuple[Any, Any]] = {}
        for entry, meaning in pairs:
            if isinstance(entry, list | Mapping):
                raise InputError(f"{owner}: an entry of '{name}' is {entry!r:.60}; give a text, a number or a boolean.")
            other, known = self._by_form.setdefault(normal(entry), (entry, meaning))
            if known != meaning:
                raise InputError(
                    f"{owner}: the entries {_shown(other)} and {_shown(entry)} of '{name}' are the same value, but "
                    f"mean {known!r} and {meaning!r}; "
                    "keep one of them."
                )

    def __contains__(self, value: object) -> bool:
        """Whether there is an entry for the value, which then counts as found."""
        form = normal(value)
        found = form in self._by_form
        if found:
            self._found.add(form)
        return found

    def __getitem__(self, value: object) -> Any:
        return self._by_form[normal(value)][1]

    def __bool__(self) -> bool:
        return bool(self._by_form)

    @property
    def has_numbers(self) -> bool:
        """Whether some entry is a number."""
        return any(isinstance(form, tuple) and form[0] == "number" for form in self._by_form)

    def never_found(self) -> list[str]:
        """The entries that no value was equal to, for messages; asking begins the next count."""
        missed = [_shown(entry) for form, (entry, _) in self._by_form.items() if form not in self._found]
        self._found.clear()
        return missed


def object_of(value: Any, name: str, owner: str) -> Mapping[Any, Any]:
    """A setting that must be an object. Raises InputError for another value."""
    if not isinstance(value, Mapping):
        raise InputError(
            f"{owner}: '{name}' is {value!r:.60}; give an object, as in '{name}: {{a value: what it means}}'."
        )
    return value


def _shown(entry: object) -> str:
    text = "null" if entry is None else str(entry).lower() if isinstance(entry, bool) else str(entry)
    return text if len(text) <= 60 and text.isprintable() else f"{text!r:.60}"
