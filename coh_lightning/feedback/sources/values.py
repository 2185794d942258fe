"""Whether a value of a row equals an entry of a setting, whatever types YAML, JSON, CSV or a command line gave them."""

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
    """The normal form of a value, a hashable key: equal values have the same.

    * Text is stripped and in Unicode's NFC form; upper and lower case differ.
    * Numbers compare by value, and text that is a number is that number: 1, 1.0, "1", " 1.0 " and "1e0" are equal.
    * Booleans equal the words that YAML has for them: true equals the texts yes, true and on, and false no, false and
      off, in any case. So an entry `yes`, quoted or not, matches the cells "Yes", "TRUE" and true. A boolean is never a
      number: 1 is not true.
    * Null equals the texts null, ~ and "". NaN equals the texts nan and .nan in any case.
    * Lists and objects are equal if their contents are.
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
        except InvalidOperation:  # the exponent is out of range
            pass
    return ("text", text)


def is_number(value: object) -> bool:
    """Whether the value is a number or text that is one."""
    form = normal(value)
    return isinstance(form, tuple) and form[0] == "number"


class ValueTable:
    """Entries of a setting, looked up by `normal`; remembers which were found.

        ValueTable("values", {1: 5, "Good": 4}, owner)["1.0"]  ->  5

    Args:
        entries: value -> meaning; or a list of values, which all mean true.
        owner: whose setting it is, for messages.

    Raises:
        InputError: equal entries with different meanings, or an entry that is a list or an object.
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
                same = f"the entries {_shown(other)} and {_shown(entry)} of '{name}' are the same value"
                raise InputError(f"{owner}: {same}, but mean {known!r} and {meaning!r}; keep one of them.")

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
        return any(isinstance(form, tuple) and form[0] == "number" for form in self._by_form)

    def never_found(self) -> list[str]:
        """The entries that no value matched since the last call, for messages."""
        missed = [_shown(entry) for form, (entry, _) in self._by_form.items() if form not in self._found]
        self._found.clear()
        return missed


def object_of(value: Any, name: str, owner: str) -> Mapping[Any, Any]:
    """The setting. Raises InputError unless it is an object."""
    if not isinstance(value, Mapping):
        raise InputError(f"{owner}: '{name}' is {value!r:.60}; give an object, as in '{name}: {{value: meaning}}'.")
    return value


def _shown(entry: object) -> str:
    text = "null" if entry is None else str(entry).lower() if isinstance(entry, bool) else str(entry)
    return text if len(text) <= 60 and text.isprintable() else f"{text!r:.60}"
