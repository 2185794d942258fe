r"""The guard against formulas in sheets (CWE-1236): one apostrophe before any text that a spreadsheet could run,
exactly reversible.

A text gets one leading apostrophe when what follows its leading apostrophes and blanks is one of `DANGEROUS`::

    =1+1    ->  '=1+1           - a list item  ->  '- a list item
    '=1+1   ->  ''=1+1          'quoted'       ->  'quoted'          (no danger, no guard)
    Well.   ->  Well.           (blank)＝1     ->  '(blank)＝1

Apostrophes that a dangerous text has of its own stay, so a guarded text is always told from an unguarded one:
`unguard(guard(text)) == text` for every text. `PATTERN` means the same in Python and in JavaScript, so that the page
mirrors it.
"""

from __future__ import annotations

import re

DANGEROUS = "=+-@\t\r\n\0＝＋－＠"
"""OWASP's list, and the full-width forms, which spreadsheets read alike where East Asian text is usual."""

_DANGEROUS = r"=+\-@\t\r\n\u0000\uff1d\uff0b\uff0d\uff20"
_BLANKS = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u180e\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""What spreadsheets may trim: white space of Unicode, and characters without width."""

PATTERN = f"^'*[{_BLANKS}]*[{_DANGEROUS}]"
"""Matches the texts that are guarded, before and after. ASCII: the very same source is a JavaScript RegExp (without
flags).
"""

_pattern = re.compile(PATTERN)


def guard(text: str) -> str:
    """The text as it may stand in a cell."""
    return f"'{text}" if _pattern.match(text) else text


def unguard(cell: str) -> str:
    """The text that `guard` made this cell of. A text that was never guarded and looks as if it were loses its first
    apostrophe.
    """
    return cell[1:] if cell.startswith("'") and _pattern.match(cell) else cell
