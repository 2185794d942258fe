"""No cell of a sheet runs as a formula, and every text comes back as it was."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coh_lightning.human_eval.sheets import DANGEROUS, PATTERN, guard, unguard

any_text = st.text() | st.text(st.sampled_from(DANGEROUS + "' \u00a0\ufeff\u3000\x0b\ud800a1"))
"""Any Unicode string, lone surrogates included; and the ones that the guard is about, thickly."""


@given(any_text)
@example("'=1")
@example("''")
@example(" '=1")
def test_unguard_reverses_guard(text: str) -> None:
    assert unguard(guard(text)) == text


@given(any_text, any_text)
def test_guard_is_injective(one: str, other: str) -> None:
    assert (guard(one) == guard(other)) == (one == other)


@given(any_text)
def test_a_guarded_cell_is_never_a_formula_even_with_blanks_trimmed(text: str) -> None:
    cell = guard(text)
    assert not cell or cell[0] not in DANGEROUS
    bare = cell.strip().lstrip("\ufeff\u200b\u180e").strip()
    assert not bare or bare[0] not in "=+-@＝＋－＠"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("- a list item", "'- a list item"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\nx", "'\nx"),
        ("\0x", "'\0x"),
        ("＝1", "'＝1"),
        ("＋1", "'＋1"),
        ("－1", "'－1"),
        ("＠x", "'＠x"),
        ("  =1", "'  =1"),
        ("\u00a0\ufeff=1", "'\u00a0\ufeff=1"),
        ("'=1", "''=1"),
        ("''  -1", "'''  -1"),
    ],
)
def test_a_possible_formula_gets_one_apostrophe(text: str, cell: str) -> None:
    assert guard(text) == cell


@pytest.mark.parametrize("text", ["", "Well.", "'quoted'", "'", "a=b", "1-2", " '=1", "  a", "“=1”", "\u2212"])
def test_other_text_is_not_guarded(text: str) -> None:
    assert guard(text) == text
    assert unguard(text) == text


def test_the_guard_pattern_is_ascii_for_the_page() -> None:
    assert PATTERN.isascii()
    assert "/" not in PATTERN and "<" not in PATTERN
