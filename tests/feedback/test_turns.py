"""Contents of messages that are lists of parts: text parts are joined everywhere, other parts are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources import Fields, Mapping, Records, Source, TRLPairs, TRLUnpaired, load
from coh_lightning.feedback.turns import Part, is_typed_parts, joined_parts


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in texts]


IMAGE = {"type": "image_url", "image_url": {"url": "x.png"}}


def rows_with(content: Any) -> dict[str, tuple[Source, dict[str, Any]]]:
    """A row for each form in which feedback has the content of a message: in the last user turn or the first
    completion.
    """
    asked, good, bad = (
        {"role": "user", "content": content},
        {"role": "assistant", "content": content},
        {"role": "assistant", "content": "b"},
    )
    mapped = Mapping("m", prompt="p", completions=[Fields(text="c", rank=1)])
    return {
        "pairs": (TRLPairs("t"), {"prompt": [asked], "chosen": [good], "rejected": [bad]}),
        "one message": (TRLPairs("t"), {"prompt": "q", "chosen": good, "rejected": bad}),
        "implicit": (TRLPairs("t"), {"chosen": [asked, good], "rejected": [asked, bad]}),
        "unpaired": (TRLUnpaired("t"), {"messages": [asked, good], "label": True}),
        "sharegpt": (TRLUnpaired("t"), {"prompt": "q", "completion": {"from": "gpt", "value": content}, "label": True}),
        "mapping": (mapped, {"p": [asked], "c": "x"}),
        "mapping, one message": (mapped, {"p": asked, "c": "x"}),
        "mapping, bare": (mapped, {"p": content, "c": "x"}),
        "mapping, completion": (
            Mapping("m", prompt="p", completions=[Fields(text="c.-1.content", rank=1)]),
            {"p": "q", "c": [good]},
        ),
        "mapping, critique": (
            Mapping("m", prompt="p", completions=[Fields(text="t", critique="c", rank=1)]),
            {"p": "q", "t": "x", "c": content},
        ),
        "history": (
            Mapping("m", prompt="p", history="h", completions=[Fields(text="c", rank=1)]),
            {"p": "q", "h": [asked, good], "c": "x"},
        ),
        "history, pairs": (
            Mapping("m", prompt="p", history="h", completions=[Fields(text="c", rank=1)]),
            {"p": "q", "h": [[content, content]], "c": "x"},
        ),
        "records": (Records("r"), {"prompt": [asked], "completions": [{"text": "x"}]}),
        "records, bare": (Records("r"), {"prompt": content, "completions": [{"text": "x"}]}),
    }


@pytest.mark.parametrize("way", rows_with(""))
def test_text_parts_are_read_as_their_joined_text(way: str) -> None:
    source, row = rows_with(parts(" Name", " a\n", "fruit "))[way]
    found = source.feedback(row, "f:1")
    source, row = rows_with(" Name a\nfruit ")[way]
    assert isinstance(found, Feedback) and found == source.feedback(row, "f:1")
    assert all(isinstance(part, Part) and part.cut == "front" for turn in found.prompt for part in turn.parts)


@pytest.mark.parametrize("way", rows_with(""))
def test_other_parts_are_refused_by_type_and_row(way: str) -> None:
    source, row = rows_with([*parts("What is this?"), IMAGE])[way]
    with pytest.raises(InputError, match=r"^f:1.*: .+\[1\] is a part of type 'image_url'; only text parts can be read"):
        source.feedback(row, "f:1")


@pytest.mark.parametrize(
    "part",
    [{"type": "text"}, {"type": "text", "text": None}, {"type": "text", "text": 3}, {"type": "text", "text": ["a"]}],
)
@pytest.mark.parametrize("way", rows_with(""))
def test_a_text_part_without_its_text_is_refused(way: str, part: dict[str, Any]) -> None:
    source, row = rows_with([*parts("a"), part])[way]
    with pytest.raises(InputError, match=r"^f:1.*\[1\]\.text is .+; it must be text\.$"):
        source.feedback(row, "f:1")


def test_invalid_parts_are_refused_and_nulls_beside_a_text_ignored() -> None:
    for content in (["a"], [{"text": "a"}], [*parts("a"), None]):
        with pytest.raises(
            InputError,
            match=r"f:1: prompt\[0\]\.content\[\d\] is .+; a content part is an object with 'type' and 'text'",
        ):
            TRLPairs("t").feedback(
                {"prompt": [{"role": "user", "content": content}], "chosen": "a", "rejected": "b"}, "f:1"
            )
    for way in ("records", "pairs"):
        source, row = rows_with([{"type": "text", "text": "a", "image_url": None, "cut": None}])[way]
        found = source.feedback(row, "f:1")
        assert isinstance(found, Feedback) and found.prompt[-1].text == "a"


def test_records_stay_strict_about_parts() -> None:
    for part in ({"type": "text", "text": "a", "cut": "never"}, {"type": "text", "text": "a", "name": "x"}):
        source, row = rows_with([part])["records"]
        with pytest.raises(
            InputError, match=r"f:1: unknown key '(cut|name)' in prompt\[0\]\.content\[0\]; a part with a 'type'"
        ):
            source.feedback(row, "f:1")
    source, row = rows_with([{"text": "a", "cut": "never"}, *parts("b")])["records"]
    with pytest.raises(InputError, match=r"f:1: unknown key 'type' in prompt\[0\]\.content\[1\]"):
        source.feedback(row, "f:1")


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_messages_of_parts_in_cells_are_read(tmp_path: Path, write: Any) -> None:
    good, bad = ({"role": "assistant", "content": parts("a ", text)} for text in "xy")
    with (tmp_path / "f.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["prompt", "chosen", "rejected"],
                [write([{"role": "user", "content": parts("q", "?")}]), write(good), write([bad])],
            ]
        )
    (one,) = load([TRLPairs(str(tmp_path / "f.csv"))], seed=0)
    assert (one.prompt[0].text, [candidate.text for candidate in one.candidates]) == ("q?", ["a x", "a y"])


@given(st.lists(st.text(max_size=5), min_size=1))
def test_parts_are_joined_with_nothing_between(texts: list[str]) -> None:
    assert is_typed_parts(parts(*texts))
    assert joined_parts(parts(*texts), "content", "f:1") == "".join(texts)
