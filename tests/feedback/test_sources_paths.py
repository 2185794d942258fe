"""The grammar of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources.paths import value_at

ROW: dict[str, Any] = {
    "q": "Q",
    "a.b": "whole name",
    "No.": 7,
    "chat": [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ],
    "systems": {
        "gpt-3.5": {"text": "x", "scores": [1, 2]},
        "llama": {"text": "y", "scores": [3]},
        "*": 1,
        'say "hi"': 2,
        "7": 3,
    },
    "votes": [{"score": 1}, None, {"score": 3}],
    "nested": [[1, 2], [3]],
    "nothing": None,
    "empty": [],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("q", "Q"),
        ("a.b", "whole name"),
        ("No.", 7),
        ("chat.0.content", "one"),
        ("chat.-1.content", "three"),
        ("chat.:-1", ROW["chat"][:-1]),
        ("chat.1:", ROW["chat"][1:]),
        ("chat.0:2.*.content", ["one", "two"]),
        ("chat.:9", ROW["chat"]),
        ('systems."gpt-3.5".text', "x"),
        ("systems.'gpt-3.5'.scores.0", 1),
        ('systems."*"', 1),
        ('systems."say ""hi"""', 2),
        ('systems.say "hi"', 2),
        ("systems.7", 3),
        ("votes.*.score", [1, None, 3]),
        ("nested.*", [[1, 2], [3]]),
        ("nested.*.*", [1, 2, 3]),
        ("nothing.x.*.y", None),
        ("empty.*.x", []),
        ("empty.:-1", []),
        ('"a.b"', "whole name"),
    ],
)
def test_a_path_leads_to_its_value(path: str, expected: Any) -> None:
    assert value_at(ROW, path, "f:1") == expected


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("chats", r"f:1: the column 'chats' is missing \(the row has q, .*\); did you mean 'chat'\?"),
        ("chat.3", r"f:1: chat has 3 elements; chat\.3 needs element 3 \(counted from 0\)"),
        ("chat.-4.content", r"f:1: chat has 3 elements; chat\.-4\.content needs element -4"),
        ("chat.:", "f:1: chat is a list of 3, which has no ':'"),
        ("chat.content", "f:1: chat is a list of 3, which has no 'content'"),
        ('chat."0"', "f:1: chat is a list of 3, which has no '0'"),
        ("chat.*.contents", r"f:1: chat\.0 has no 'contents'; did you mean 'content'\?"),
        ("systems.gpt-3.5.text", r"f:1: systems has no 'gpt-3'; did you mean 'gpt-3\.5'\?"),
        ("q.*", r"f:1: q is a str, which has no '\*'"),
        ("q.0", "f:1: q is a str, which has no '0'"),
        (
            'systems."gpt-3.5',
            r"the path 'systems\.\"gpt-3\.5' has a quote at character 9 that is not closed",
        ),
        ('systems."gpt"-3', "has a quote at character 9 that is not closed"),
    ],
)
def test_a_wrong_path_is_refused_where_it_ends(path: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        value_at(ROW, path, "f:1")


@given(st.text(min_size=1), st.text(), st.integers())
def test_any_key_can_be_quoted(first: str, second: str, value: int) -> None:
    path = ".".join('"' + name.replace('"', '""') + '"' for name in (first, second))
    assert value_at({first: {second: value}}, path, "f:1") == value


@given(st.lists(st.integers(), min_size=1, max_size=8), st.integers(-12, 12))
def test_places_and_slices_work_as_in_python(values: list[int], place: int) -> None:
    assert value_at({"a": values}, f"a.:{place}", "f:1") == values[:place]
    assert value_at({"a": values}, f"a.{place}:", "f:1") == values[place:]
    if -len(values) <= place < len(values):
        assert value_at({"a": values}, f"a.{place}", "f:1") == values[place]
    assert value_at({"a": [{"b": one} for one in values]}, "a.*.b", "f:1") == values


@pytest.mark.parametrize(
    ("path", "inner"),
    [("a.*.x", False), ("a.*.x", {"y": 1}), ("a.*.4", [1])],
    ids=["no object", "another name", "too short a list"],
)
def test_a_name_of_the_data_that_has_control_characters_is_quoted_in_the_message(path: str, inner: Any) -> None:
    with pytest.raises(InputError) as refused:
        value_at({"a": {"\x1f": inner}}, path, "f.jsonl:1")
    assert str(refused.value).isprintable() and r"a.'\x1f' " in str(refused.value)
