"""Checks of single values read from JSON: each returns the value in its type, or raises InputError naming the place
(`where`: file and line) and the key.
"""

from __future__ import annotations

import math
from typing import Any

from coh_lightning.errors import InputError, shown


def checked_text(value: object, key: str, where: str) -> str:
    """The value as text that can be written as UTF-8 (a lone surrogate can't)."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        raise InputError(
            f"{where}: {key} holds the lone surrogate U+{code:04X} at character {error.start + 1}, which can't be "
            "written as UTF-8; correct the row."
        ) from error
    return value


def optional_text(value: object, key: str, where: str) -> str | None:
    """The value as text, or None."""
    return None if value is None else checked_text(value, key, where)


def number(value: object, key: str, where: str) -> float:
    """The value as a finite number; a boolean is none."""
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
    """The value as a JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be a JSON object.")
    return value
