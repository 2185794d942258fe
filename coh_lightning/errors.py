"""The exception for everything that a user can fix, and the pieces of its messages.

did_you_mean("promt", ["prompt", "task"])   "; did you mean 'prompt'?"
shown([1, 2])                               "list [1, 2]"
named("a\\nb")                               "'a\\\\nb'"
counted(3, "prompt")                        "3 prompts"
listed(["a", "b", "c"])                     "a, b and c"
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

NEAR = 0.75
"""Least likeness of a file's name that is proposed (difflib's ratio): a misspelling, not another word."""
LONGEST = 60
"""Characters of a value or a name that a message quotes."""


class InputError(ValueError):
    """Bad input or settings. The command line prints it as one line without a traceback and exits with 2.

    The message is one sentence: the place (file and line, or the setting), the fact with its numbers, the remedy.
    """


def first_line(error: BaseException) -> str:
    """The first line of a library's exception, printable and at most 300 characters long; its class if it is empty."""
    line = (str(error).strip().splitlines() or [""])[0]
    return visible(line[:300]) or type(error).__name__


def did_you_mean(name: str, known: Iterable[str], otherwise: str = ".") -> str:
    """The end of a sentence: "; did you mean 'X'?" with the nearest known name, or `otherwise` if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {nearest[0]!r}?" if nearest else otherwise


def near_file(path: Path, fits: Callable[[Path], bool]) -> str:
    """The end of a sentence about a file that is missing, as `did_you_mean`: the nearest name beside it, of a file that
    fits there.
    """
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    names = [one.name for one in beside if one.is_file() and fits(one)]
    nearest = difflib.get_close_matches(path.name, names, n=1, cutoff=NEAR)
    return f"; did you mean {nearest[0]!r}?" if nearest else "."


def same_kind(one: Path, other: Path) -> bool:
    """Whether two names share an ending: a.jsonl and b.jsonl.gz, but not a.jsonl and a.log."""
    return bool({*one.suffixes} & {*other.suffixes}) or one.suffixes == other.suffixes


def shown(value: object) -> str:
    """A value for a message: its type and the start of its repr."""
    return f"{type(value).__name__} {_shortened(repr(value))}"


def a_kind(value: object) -> str:
    """What kind of value it is, for a message: "a list of 3", "a str", "an int"."""
    name = type(value).__name__
    return f"a list of {len(value)}" if isinstance(value, list) else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def named(name: str) -> str:
    """A name for a message: as it is, or quoted and shortened if it is long or not printable."""
    return name if name.isprintable() and len(name) <= LONGEST else _shortened(repr(name))


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """1 row, 2 rows; `nouns` where the plural isn't the noun with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def visible(text: str, *, line_ends: bool = False) -> str:
    """Text with control characters, direction marks and the like escaped, so that it can't move the cursor or reverse
    the line. With `line_ends`, newlines stay.
    """
    harmless = "\u200c\u200d" + ("\n" if line_ends else "")  # the two joiners of letters and emoji
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "".join(
        ascii(one)[1:-1] if unicodedata.category(one) in hidden and one not in harmless else one for one in text
    )


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
