"""Structure in cells of text: messages are parsed, other lists and objects stay text and are counted, in every kind of
file.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources import Fields, Mapping, Records, Source, TRLPairs, load
from coh_lightning.feedback.sources.cells import decoded
from coh_lightning.feedback.sources.notes import SourceNotes

MESSAGES = [
    {"role": "user", "content": 'it\'s "so"\nor :( ['},
    {"role": "assistant", "content": "Hm"},
    {"role": "user", "content": "Hi"},
]
KINDS = ("csv", "tsv", "json", "jsonl", "parquet")


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(source: Source) -> tuple[list[Feedback], list[str]]:
    noticed: list[SourceNotes] = []
    return load([source], seed=0, noticed=noticed), noticed[0].lines()


@pytest.mark.parametrize("written", [json.dumps, repr, lambda value: "\n " + json.dumps(value, indent=1) + "\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_messages_is_read_as_messages(tmp_path: Path, kind: str, written: Any) -> None:
    path = write(
        tmp_path / f"f.{kind}", [{"prompt": written(MESSAGES), "chosen": '{"answer": 42}', "rejected": "[1, 2]"}]
    )
    (one,), notes = read(TRLPairs(path))
    assert [(turn.role, turn.text) for turn in one.prompt] == [
        (message["role"], message["content"]) for message in MESSAGES
    ]
    assert [candidate.text for candidate in one.candidates] == ['{"answer": 42}', "[1, 2]"]  # an output may be JSON
    assert sorted(note.split(" (")[0] for note in notes) == [
        "f: cells of 'chosen' are objects",
        "f: cells of 'prompt' are lists of messages and were parsed",
        "f: cells of 'rejected' are lists",
    ]
    (one,), notes = read(TRLPairs(path, decode=False))
    assert one.prompt[0].text.strip() == written(MESSAGES).strip() and notes == []


def test_lists_in_text_cells_are_counted_and_parsed_only_with_decode(tmp_path: Path) -> None:
    rows = [
        {"q": f"Name a fruit {number}.", "answer": "['A pear.']" if number % 2 else '["A plum."]'}
        for number in range(4)
    ]
    path = write(tmp_path / "f.csv", rows)
    records, notes = read(Mapping(path, prompt="q", completions=[Fields(text="answer", rank=1)]))
    assert {one.candidates[0].text for one in records} == {"['A pear.']", '["A plum."]'}
    assert notes == [
        "f: cells of 'answer' are lists (JSON or Python) and stay text (`decode: true` parses them) (4 times in 4 "
        f"rows, first {path}:2)"
    ]
    records, _ = read(Mapping(path, prompt="q", completions=[Fields(text="answer.0", rank=1)], decode=True))
    assert {one.candidates[0].text for one in records} == {"A pear.", "A plum."}


@pytest.mark.parametrize("decode", [None, True])
def test_columns_that_must_be_lists_are_read_from_any_file(tmp_path: Path, decode: bool | None) -> None:
    answers = [{"text": "a", "stars": 4}, {"text": "b", "stars": 2}]
    path = write(tmp_path / "f.csv", [{"q": "p", "answers": json.dumps(answers), "notes": "{}"}])
    source = Mapping(
        path,
        prompt="q",
        each="answers",
        completions=[Fields(text="text", rating="stars")],
        scales={"overall": [1, 5]},
        decode=decode,
    )
    assert [candidate.ratings["overall"] for candidate in read(source)[0][0].candidates] == [4, 2]
    path = write(tmp_path / "r.csv", [{"prompt": "p", "completions": json.dumps([{"text": "a", "thumb": True}])}])
    assert read(Records(path, decode=decode))[0][0].candidates[0].thumb is True


def test_cells_inside_lists_and_objects_are_parsed_for_a_mapping(tmp_path: Path) -> None:
    row = {"x": {"p": json.dumps(MESSAGES)}, "a": [{"t": "[1]", "by": "me"}, {"t": "b", "by": "you"}]}
    source = Mapping(
        write(tmp_path / "f.jsonl", [row]), prompt="x.p", each="a", completions=[Fields(text="t", rank="#")]
    )
    (one,), notes = read(source)
    assert len(one.prompt) == 3 and one.candidates[0].text == "[1]"
    assert [note.split(" (")[0] for note in notes] == [
        "f: cells of 'x.p' are lists of messages and were parsed",
        "f: cells of 'a.*.t' are lists",
    ]


def test_texts_of_messages_and_of_our_own_completions_stay_text(tmp_path: Path) -> None:
    """A prompt may ask for a conversation as JSON."""
    text = json.dumps(MESSAGES)
    talk = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    (one,), notes = read(
        TRLPairs(
            write(
                tmp_path / "f.jsonl", [{"chosen": talk, "rejected": [talk[0], {"role": "assistant", "content": "No."}]}]
            )
        )
    )
    assert (one.prompt[0].text, one.candidates[0].text, notes) == (text, text, [])
    mapped = Mapping(
        write(tmp_path / "g.jsonl", [{"x": {"p": talk[:1]}, "c": "a"}]),
        prompt="x.p",
        completions=[Fields(text="c", rank=1)],
    )
    assert read(mapped)[0][0].prompt[0].text == text
    (one,), notes = read(Records(write(tmp_path / "r.jsonl", [{"prompt": "p", "completions": [{"text": text}]}])))
    assert (one.candidates[0].text, notes) == (text, [])


def test_one_message_in_a_cell_is_read_too(tmp_path: Path) -> None:
    row = {
        "prompt": "Hi",
        "chosen": json.dumps({"role": "assistant", "content": "Hello!"}),
        "rejected": repr({"from": "gpt", "value": "What?"}),
    }
    assert [candidate.text for candidate in read(TRLPairs(write(tmp_path / "f.csv", [row])))[0][0].candidates] == [
        "Hello!",
        "What?",
    ]
    path = write(tmp_path / "g.jsonl", [{"q": "p", "c": json.dumps(MESSAGES)}])
    with pytest.raises(
        InputError,
        match=r"g\.jsonl:1: c is \[.*must be text \('c\.-1\.content' is the text of its last message\)",
    ):
        read(Mapping(path, prompt="q", completions=[Fields(text="c", rank=1)]))


def test_messages_without_commas_are_refused_by_row(tmp_path: Path) -> None:
    """As pandas writes a column of arrays to CSV."""
    path = write(
        tmp_path / "f.csv",
        [
            {
                "prompt": "[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'assistant'}]",
                "chosen": "c",
                "rejected": "r",
            }
        ],
    )
    with pytest.raises(
        InputError,
        match=rf"{path}:2: the cell of 'prompt' begins like a list of messages, but is neither JSON",
    ):
        read(TRLPairs(path))
    assert len(read(TRLPairs(path, decode=False))[0]) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["'", '"', "\\'", "]}", "[{'role': 'user'}]", "it's", "a\nb", "None"]
)


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": "a"}, {"role": "user"}],
        [{"role": "user", "content": "a"}, "b"],
        [],
        [[{"role": "u", "content": "c"}]],
    ],
)
def test_a_list_that_is_not_all_messages_stays_text(value: list[Any]) -> None:
    for text in (json.dumps(value), repr(value)):
        assert decoded({"a": text}, None, "f:1", SourceNotes()) == {"a": text}


@given(
    st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_messages_in_cells_keep_every_character(messages: list[dict[str, str]], python: bool, indent: bool) -> None:
    text = repr(messages) if python else json.dumps(messages, indent=1 if indent else None)
    assert decoded({"a": text}, None, "f:1", SourceNotes()) == {"a": messages}


@given(
    st.text(st.characters(codec=None), max_size=40) | st.from_regex(r"\A[\[{][\[\]{}'\":,a1 \\-]{0,40}\Z"),
    st.sampled_from([None, True, False]),
)
def test_any_cell_is_text_or_parsed_or_refused(text: str, decode: bool | None) -> None:
    try:
        (value,) = decoded({"a": text}, decode, "f:1", SourceNotes()).values()
    except InputError:
        return
    if value != text:
        assert decode is not False and isinstance(value, list | dict) and text.strip()[0] in "[{"
        json.dumps(value)


@pytest.mark.parametrize(
    "text",
    [
        "[1," + "-" * 200_000 + "1]",
        "[1" + "+1" * 100_000 + "]",
        "['" + "\\'" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "['a', " + "[" * 5000 + "]" * 5000 + "]",
        "{'a':" * 300 + "1" + "}" * 300,
        "{1: 2}",
        "[(1,)]",
        "[b'x']",
        "[print(1)]",
    ],
)
def test_a_hostile_cell_stays_text(text: str) -> None:
    assert decoded({"a": text}, True, "f:1", SourceNotes()) == {"a": text}
