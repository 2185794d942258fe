"""Cells of text that are lists or objects: messages in JSON or as a Python literal are parsed; others stay text, and
are counted.

"[{'role': 'user', 'content': 'Hi'}]"    messages (pandas writes columns of lists so)
'["A pear.", "A plum."]'                 text, counted; with `decode: true` a list
'{"answer": 42}'                         text, counted: an output may well be JSON
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection
from typing import Any

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.jsonl import DEEPEST
from coh_lightning.feedback.sources.dialogue import is_message
from coh_lightning.feedback.sources.notes import SourceNotes

LONGEST_LITERAL = 2**18
"""Characters of a Python literal that is parsed; its syntax tree takes about a hundred times as much memory."""
_KEYS = ({"role", "content"}, {"from", "value"})
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*["'](role|content|from|value|name|id|weight|tool_calls)["']\s*:""")
_NOTHING = object()


def decoded(
    row: dict[str, Any],
    decode: bool | None,
    where: str,
    notes: SourceNotes,
    structured: Collection[str] = (),
    *,
    nested: bool = False,
) -> dict[str, Any]:
    """The row with its cells parsed; `notes` count what was parsed and what was not.

    Args:
        decode: True parses every cell that is a list or an object as a whole, None only messages, False nothing.
        structured: Columns that the source reads as lists or objects, never as text.
        nested: Texts inside lists and objects are cells too, except inside messages.

    Raises:
        InputError: a cell begins like messages and can't be parsed.
    """
    if decode is False:
        return row

    def read(value: Any, name: str) -> Any:
        if isinstance(value, str):
            return _read(value, True if name in structured else decode, named(name), where, notes)
        if nested and isinstance(value, dict) and not any(keys <= value.keys() for keys in _KEYS):
            return {key: read(one, f"{name}.{key}") for key, one in value.items()}
        if nested and isinstance(value, list):
            return [read(one, f"{name}.*") for one in value]
        return value

    return {name: read(value, str(name)) for name, value in row.items()}


def _read(text: str, decode: bool | None, name: str, where: str, notes: SourceNotes) -> Any:
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    found = structure(text)
    if found is _NOTHING:
        if _MESSAGES.match(text) and text.rstrip().endswith("}]"):
            found = f"the cell of {name!r} begins like a list of messages, but is neither JSON nor a Python literal"
            cause = "pandas writes arrays to CSV without commas: write JSON lines or Parquet"
            raise InputError(f"{where}: {found} ({cause}); `decode: false` takes it as text.")
        return text
    if decode or is_message_list(found) or is_message(found):
        notes.count(f"cells of {name!r} are {_kind(found)} and were parsed", where)
        return found
    notes.count(f"cells of {name!r} are {_kind(found)} and stay text (`decode: true` parses them)", where)
    return text


def structure(text: str) -> Any:
    """The list or object that the whole text is, in JSON or as a Python literal; else (or too deep) `_NOTHING`."""
    try:
        value = json.loads(text)
    except RecursionError:
        return _NOTHING
    except ValueError:
        value = _literal(text)
    return value if isinstance(value, list | dict) and _is_plain(value) else _NOTHING


def _literal(text: str) -> Any:
    if len(text) > LONGEST_LITERAL or not re.match(r"""\s*[\[{]\s*(["'\[{\]}]|-?\d|None|True|False)""", text):
        return _NOTHING
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown escapes
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return _NOTHING


def _is_plain(value: Any) -> bool:
    """Whether JSON has such values (a Python literal may have tuples, bytes, other keys), not nested too deeply."""
    level = [value]
    for _ in range(DEEPEST):
        keys = [key for one in level if isinstance(one, dict) for key in one]
        if not all(isinstance(one, dict | list | str | int | float | None) for one in level):
            return False
        if not all(isinstance(key, str) for key in keys):
            return False
        nested = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [inner for one in nested for inner in one]
        if not level:
            return True
    return False


def is_message_list(value: Any) -> bool:
    """Whether a value is a list of objects with role and content (or from and value)."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, dict) and any(keys <= one.keys() for keys in _KEYS) for one in value)


def _kind(value: Any) -> str:
    if is_message_list(value):
        return "lists of messages"
    if is_message(value):
        return "a message"
    return "lists (JSON or Python)" if isinstance(value, list) else "objects (JSON or Python)"
