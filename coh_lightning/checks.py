"""Checks of values read from JSON: each returns the value in its type, or raises InputError naming the place (`where`:
file and line) and the key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from coh_lightning.errors import InputError, did_you_mean, shown

LINE = "the line"
"""The key of a whole line, for messages."""


def checked_text(value: object, key: str, where: str) -> str:
    """The value as text that can be written as UTF-8 (a lone surrogate can't)."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"the lone surrogate U+{ord(value[error.start]):04X} at character {error.start + 1}"
        raise InputError(f"{where}: {key} has {found}, which UTF-8 can't represent; correct the row.") from error
    return value


def optional_text(value: object, key: str, where: str) -> str | None:
    return None if value is None else checked_text(value, key, where)


def number(value: object, key: str, where: str) -> float:
    """The value as a finite number; a boolean is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be a number.")
    try:
        found = float(value)
    except OverflowError:  # an integer beyond the range of floats
        found = math.inf
    if not math.isfinite(found):
        raise InputError(f"{where}: {key} is {found}; it must be a finite number.")
    return found


def checked_object(value: object, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be a JSON object.")
    return value


def known_keys(obj: object, known: Collection[str], key: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The object's values by known key, and the others. A key that is nearly a known one is refused as a typo."""
    found: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in checked_object(obj, key, where).items():
        if name in known:
            found[name] = value
        elif nearest := difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.75):
            at = "" if key == LINE else f" in {key}"
            raise InputError(f"{where}: unknown key {name!r}{at}; did you mean {nearest[0]!r}?")
        else:
            unknown[checked_text(name, "a key", where)] = value
    return found, unknown


@cache
def _json_types(cls: type) -> dict[str, tuple[type, ...]]:
    """The types that the values of a dataclass have in JSON: dict for Mapping[...], list for tuple[...]."""
    in_json: dict[Any, tuple[type, ...]] = {Mapping: (dict,), tuple: (list,), float: (int, float)}
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = [get_origin(one) or one for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,))]
        found[name] = tuple(kind for one in kinds for kind in in_json.get(one, (one,)))
    return found


def flat_values(cls: type, obj: object, where: str) -> dict[str, Any]:
    """The values of a flat record, a dataclass, checked by its annotations; unknown and missing keys are refused."""
    types = _json_types(cls)
    values = checked_object(obj, LINE, where)
    for name, value in values.items():
        if name not in types:
            raise InputError(f"{where}: unknown key {name!r:.60} for a {cls.__name__}{did_you_mean(name, types)}")
        kinds = types[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{where}: {name} is {shown(value)}; it must be {wanted}.")
        if isinstance(value, str):
            checked_text(value, name, where)
        if isinstance(value, float):
            number(value, name, where)
    for entry in dataclasses.fields(cls):
        has_default = (entry.default, entry.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if not has_default and entry.name not in values:
            raise InputError(f"{where}: the key {entry.name!r} of a {cls.__name__} is missing.")
    return dict(values)
