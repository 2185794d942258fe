"""Texts that stand in the place of people's texts while a chat template is rendered, and where two renderings
differ.
"""

from __future__ import annotations

_AWKWARD = 'Zq{0} <b>&amp;</b> "it\'s" \\n {{{{ x }}}} 5%\n\n  \u00e9\u65e5\U0001f600 [a](b) qZ{0}'
"""Everything that templates escape, collapse or cut, with no white space at its ends: templates may trim."""


def sentinel(number: int) -> str:
    """Letters and digits only, so that no template treats it specially."""
    return f"Zq{number}Slot{number}qZ"


def awkward(text: str, count: int) -> str:
    """`text` with an awkward text in the place of each of its first `count` sentinels."""
    for number in range(count):
        text = text.replace(sentinel(number), _AWKWARD.format(number))
    return text


def spaces_before(text: str, number: int) -> int:
    """Spaces in front of a sentinel."""
    head = text[: text.index(sentinel(number))]
    return len(head) - len(head.rstrip(" "))


def spaces_after(text: str, number: int) -> int:
    """Spaces behind a sentinel."""
    tail = text[text.index(sentinel(number)) + len(sentinel(number)) :]
    return len(tail) - len(tail.lstrip(" "))


def first_difference(expected: str, given: str, context: int = 16) -> tuple[str, str]:
    """The part in which two texts differ, as an excerpt of each with a few characters of context before it.

    "a <b> c", "a &lt;b> c"    ->    "a <b> c", "a &lt;b> c"
    """
    start = next(
        (i for i, (a, b) in enumerate(zip(expected, given, strict=False)) if a != b), min(len(expected), len(given))
    )
    end = 0
    while end < min(len(expected), len(given)) - start and expected[-1 - end] == given[-1 - end]:
        end += 1

    def excerpt(text: str) -> str:
        stop = min(len(text) - end + 4, start + 60, len(text))
        return text[max(start - context, 0) : stop]

    return excerpt(expected), excerpt(given)
