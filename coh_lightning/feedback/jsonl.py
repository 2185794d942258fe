"""JSON lines, read strictly: errors name file, line and key, a bad line may be skipped, and no line or nesting exhausts
the memory.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar, cast

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.compressed import PACKED, UNREADABLE, not_utf8, open_bytes
from coh_lightning.feedback.records import Feedback, unique
from coh_lightning.io import atomic_write

LONGEST_LINE = 32 * 2**20
"""Bytes of one line; a longer one is refused, since as Python objects it takes many times as much memory."""
MOST_VALUES = 10_000_000
"""Values in a JSON file that is read at once: a string of two letters takes 60 bytes in Python."""
DEEPEST = 200
"""Levels of objects and lists in JSON; a tree of messages has two for each message."""


class JsonRecord(Protocol):
    """What `read_jsonl` returns: Feedback, Completion, Judgment."""

    @classmethod
    def from_json(cls, obj: object, where: str) -> Self: ...


class Writable(Protocol):
    """What `write_jsonl` writes."""

    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=JsonRecord)


def read_jsonl(path: Path | str, kind: type[R]) -> Iterator[R]:
    """The records of a JSON-lines file, compressed or not, one by one.

    Equal records without an id of their own are kept as id, id#2, ...; an id that a file gives twice is refused.

    Raises:
        InputError: a missing or empty file, bytes that are not UTF-8, broken JSON, anything off schema, a repeated id;
            naming file and line.
    """
    seen: dict[str, str] = {}
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        record = kind.from_json(parse_json(line, where), where)
        yield cast("R", unique(record, seen, where)) if isinstance(record, Feedback) else record


def write_jsonl(path: Path | str, records: Iterable[Writable]) -> int:
    """Write the records atomically and return how many there were. A name that ends in .gz is compressed. Raises
    InputError if the name asks for another compression, or the file can't be written.
    """
    if Path(path).suffix.lower() in PACKED[1:]:
        raise InputError(f"{path}: files are written plain or as .gz; give a name that ends in .jsonl or .jsonl.gz.")
    count = 0
    with atomic_write(path) as aside, aside.open("wb") as plain:
        # neither time nor name in a compressed file: the same records give the same bytes
        compressed = gzip.GzipFile("", "wb", mtime=0, fileobj=plain) if Path(path).suffix.lower() == ".gz" else None
        file = cast("IO[bytes]", compressed or plain)
        for record in records:
            file.write((json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))
            count += 1
        if compressed is not None:
            compressed.close()
    return count


def read_lines(path: Path | str) -> Iterator[tuple[str, str | InputError]]:
    """("file:line", text) of each line that is not blank. A line that is not UTF-8 or far too long comes as an
    InputError, so that a caller may skip it.

    Lines end at "\\n" alone: U+2028 and the like are ordinary characters.

    Raises:
        InputError if the file is missing, empty, or damaged.
    """
    path = Path(path)
    any_line = False
    number = 0
    with open_bytes(path) as file:
        try:
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                where = f"{path}:{number}"
                if len(raw) > LONGEST_LINE:
                    any_line = True
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(LONGEST_LINE)
                    limit = f"{LONGEST_LINE >> 20} MiB"
                    yield where, InputError(f"{where}: the line is longer than {limit}; put each record on a line.")
                    continue
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if not raw.strip():
                    continue
                any_line = True
                try:
                    yield where, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield where, not_utf8(where, error)
        except UNREADABLE as error:
            reason = f"the rest of the file can't be read ({first_line(error)})"
            raise InputError(f"{path}:{number + 1}: {reason}; is it complete?") from error
    if not any_line:
        raise InputError(f"{path}: the file is empty.")


def read_values(path: Path | str) -> Iterator[tuple[str, Any]]:
    """("file:line", value) of each line of a JSON-lines file. Raises InputError for a line that can't be read or
    has an object with a key twice.
    """
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        yield where, parse_json(line, where, unique=True)


def parse_json(text: str, where: str, *, whole: bool = False, unique: bool = False) -> Any:
    """The value of one line of JSON, or of a `whole` file.

    Args:
        where: The file and, of one line, the line.
        unique: Refuse an object that has a key twice, of which Python's reader takes the last.

    Raises:
        InputError: broken JSON, with line and column; JSON nested too deeply; too many values to read at once.
    """
    if whole and (values := text.count(",") + text.count("[") + text.count("{")) > MOST_VALUES:
        most = f"at most {MOST_VALUES:,} are read at once"
        raise InputError(f"{where}: it has about {values:,} values, and {most}; split it, or use JSON lines.")

    def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise InputError(f"{where}: an object has the key {key!r:.60} twice; keep one of them.")
            values[key] = value
        return values

    try:
        value = json.loads(text, object_pairs_hook=unique_keys if unique else None)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if whole else ""
        raise InputError(f"{where}{line}: broken JSON at column {error.colno} ({error.msg}).") from error
    except RecursionError as error:
        raise InputError(f"{where}: broken JSON (nested too deeply).") from error
    except ValueError as error:  # Python reads no integer of more than 4300 digits
        raise InputError(f"{where}: broken JSON (a number of too many digits).") from error
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise InputError(f"{where}: broken JSON (nested more than {DEEPEST} deep).")
    return value


def _is_deep(value: object) -> bool:
    """Whether a value is nested so deeply that recursive code could reach Python's recursion limit."""
    level: list[Any] = [[value]]
    for _ in range(DEEPEST + 1):
        inside = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        level = [inner for inner in inside if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
