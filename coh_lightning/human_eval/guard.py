r"""The guard against formulas in sheets (CWE-1236): one apostrophe before any text that a spreadsheet could run as a
formula, exactly reversible.

A text gets one leading apostrophe if what follows its leading apostrophes and whitespace is one of `DANGEROUS`::

    =1+1    ->  '=1+1           - a list item  ->  '- a list item
    '=1+1   ->  ''=1+1          'quoted'       ->  'quoted'          (not dangerous, no guard)
    Well.   ->  Well.           (blank)＝1     ->  '(blank)＝1

A dangerous text keeps its own apostrophes, so a guarded text can always be told from an unguarded one:
`unguard(guard(text)) == text` for every text. `PATTERN` means the same in Python and in JavaScript, so that the page
guards in the same way.
"""

from __future__ import annotations

import re

DANGEROUS = "=+-@\t\r\n\0＝＋－＠"
"""OWASP's list, and the full-width forms, which spreadsheets treat alike in East Asian locales."""

_BLANKS = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u180e\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""What spreadsheets may trim: Unicode whitespace and zero-width characters."""

_CODES = "".join(rf"\u{ord(character):04x}" for character in DANGEROUS)

PATTERN = f"^'*[{_BLANKS}]*[{_CODES}]"
"""Matches the texts that are guarded, before and after. ASCII: the same source is a JavaScript RegExp (without flags).
"""

_pattern = re.compile(PATTERN)


def guard(text: str) -> str:
    """The text as it may appear in a cell."""
    return f"'{text}" if _pattern.match(text) else text


def unguard(cell: str) -> str:
    """The text that `guard` turned into this cell. A text that was never guarded but looks guarded loses its first
    apostrophe.
    """
    return cell[1:] if cell.startswith("'") and _pattern.match(cell) else cell
