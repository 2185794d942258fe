"""The content of a message as clients of chat models write it: a text, or a list of text parts.

Text parts are joined with nothing between them, as the exported chat template joins them::

    [{"type": "text", "text": "Name "}, {"type": "text", "text": "a fruit."}]     "Name a fruit."
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coh_lightning.errors import InputError


def is_parts(value: object) -> bool:
    """Whether a value is a list of parts of a content: objects with a type and without a role."""
    return isinstance(value, list) and bool(value) and all(_is_part(one) for one in value)


def joined_parts(value: list[Any], key: str, where: str) -> str:
    """The text of a list of text parts. Other keys of a part are passed over, as the exported chat template does.

    Raises:
        InputError: a part that is no text, naming its type, `key` and the row (`where`).
    """
    return "".join(_text_of(one, f"{key}[{place}]", where) for place, one in enumerate(value))


def _text_of(part: object, key: str, where: str) -> str:
    """The text of one part. Raises InputError for a part that is no text, naming its type."""
    if not isinstance(part, Mapping) or part.get("type") is None:
        raise InputError(f"{where}: {key} is {part!r:.60}; a part of a content is an object with 'type' and 'text'.")
    if part["type"] != "text":
        raise InputError(
            f"{where}: {key} is a part of the type {part['type']!r:.60}; only text parts can be read, so write what "
            "it says as text, or leave the row out."
        )
    if not isinstance(part.get("text"), str):
        raise InputError(f"{where}: {key}.text is {part.get('text')!r:.60}; it must be text.")
    return str(part["text"])


def _is_part(value: object) -> bool:
    return isinstance(value, Mapping) and value.get("type") is not None and not {"role", "from"} & value.keys()
