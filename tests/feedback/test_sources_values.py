"""Which values are equal, and how tables of settings are looked up."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources.values import ValueTable, normal


@pytest.mark.parametrize(
    "group",
    [
        [1, "1", 1.0, "1.0", " 1 ", "1e0", "+1", "01", Decimal(1)],
        [0.1, "0.1", ".1", "1e-1"],
        [-1, "-1", "-1.0"],
        [0, "0", -0.0, "-0"],
        [10**30, "1e30", str(10**30)],
        [True, "yes", "Yes", "YES", "true", "True", "on", " on\n"],
        [False, "no", "No", "false", "FALSE", "off"],
        [None, "null", "Null", "~", "", "  "],
        [math.nan, "nan", "NaN", ".nan", Decimal("NaN")],
        ["Good", " Good\t"],
        ["e\u0301", "\u00e9"],
        [date(2024, 1, 1), "2024-01-01"],
        [[1, "yes"], ["1", True], (1.0, "on")],
        [{"a": 1, "b": [None]}, {"b": ["null"], "a": "1.0"}],
    ],
)
def test_equal_values_have_the_same_normal_form(group: list[Any]) -> None:
    assert len({normal(value) for value in group}) == 1


def test_different_values_have_different_normal_forms() -> None:
    apart = [
        1,
        2,
        "1_0",
        10,
        "\u0663",
        3,
        True,
        False,
        None,
        math.nan,
        math.inf,
        "inf",
        "Good",
        "good",
        "y",
        "",
        "None",
        "1,5",
        1.5,
        "1.5.0",
        "0x1",
        [],
        {},
        [1],
    ]
    apart.remove("")  # nothing, as None is
    assert len({normal(value) for value in apart}) == len(apart)
    assert normal(10**400) != normal(10**400 + 1)
    assert normal("1e" + "9" * 30) == ("text", "1e" + "9" * 30)


@given(st.one_of(st.integers(), st.floats(allow_nan=True, allow_infinity=False), st.booleans(), st.none()))
def test_a_value_equals_its_text_in_yaml_and_in_a_cell(value: Any) -> None:
    assert normal(value) == normal(str(value)) or value is None
    assert normal(value) == normal(yaml.safe_dump(value).removesuffix("\n").removesuffix("...").strip())


@given(st.text())
def test_a_text_equals_its_quoted_form_in_yaml(text: str) -> None:
    assert normal(yaml.safe_load(yaml.safe_dump(text, allow_unicode=False))) == normal(text)


def test_a_table_is_looked_up_by_value_and_remembers_unused_entries() -> None:
    table = ValueTable("values", {1: 5, "2": 4, "yes": 3, "Good": 2}, "Mapping of f")
    assert [table[value] for value in ("1.0", 2, "yes", " Good") if value in table] == [5, 4, 3, 2]
    assert "3" not in table and "good" not in table and None not in table
    assert table.never_found() == []
    assert ("1" in table, table.never_found()) == (True, ["2", "yes", "Good"])


@pytest.mark.parametrize("entries", [{1: 5, "1.0": 4}, {True: 1, "yes": 0}, {"null": 1, None: 2}])
def test_equal_entries_with_different_meanings_are_refused(entries: dict[Any, Any]) -> None:
    with pytest.raises(
        InputError,
        match=r"Mapping of f: the entries .* and .* of 'values' are the same value, but mean . and .; keep one of them",
    ):
        ValueTable("values", entries, "Mapping of f")


def test_equal_entries_with_the_same_meaning_are_one() -> None:
    assert ValueTable("missing", ["-1", -1, -1.0], "o")[-1] is True
    with pytest.raises(InputError, match=r"o: an entry of 'missing' is \[1\]; give a text, a number or a boolean"):
        ValueTable("missing", [[1]], "o")
