"""Conversations: in one text, beside a text prompt, and with more in a message than its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources import OASST, Fields, Mapping, Records, Source, TRLPairs, TRLUnpaired, load
from coh_lightning.feedback.sources.dialogue import difference, turns_of_text
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.turns import BESIDE_CONTENT, Part, Turn
from helpers.feedback import record_of, rejection_of, roles_and_texts


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


# --- one text

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
USER_TAG, ASSISTANT_TAG = "<extra_id_1>User\n", "<extra_id_1>Assistant\n"


@pytest.mark.parametrize(
    ("text", "markers", "expected"),
    [
        ("\n\nHuman: Hi\n\nAssistant: ", (HUMAN, ASSISTANT), [("user", "Hi")]),
        ("Human: Hi\n\nAssistant:", (HUMAN, ASSISTANT), [("user", "Hi")]),
        (
            "  Human: Hi\n\nAssistant: So?\n\nHuman: a\nb\n\nAssistant:\n",
            (HUMAN, ASSISTANT),
            [("user", "Hi"), ("assistant", "So?"), ("user", "a\nb")],
        ),
        (
            "\n\nAssistant: Hello\n\nHuman: Hi\n\nAssistant:",
            (HUMAN, ASSISTANT),
            [("assistant", "Hello"), ("user", "Hi")],
        ),
        ("Hi", (HUMAN, ASSISTANT), [("user", "Hi")]),
        ("What does 'Assistant:' mean?", (HUMAN, ASSISTANT), [("user", "What does 'Assistant:' mean?")]),
        ("\n\nHuman: who says Assistant:", (HUMAN, ASSISTANT), [("user", "who says Assistant:")]),
        (
            "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc",
            (USER_TAG, ASSISTANT_TAG),
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
        (
            "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc\n<extra_id_1>Assistant",
            (USER_TAG, ASSISTANT_TAG),
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
        ("<extra_id_1>User\na\n<extra_id_1>Assistant\n", (USER_TAG, ASSISTANT_TAG), [("user", "a")]),
        # whitespace that does not belong to the markers is text
        (
            "\n\nHuman:     if x:\n        y\n\n\nAssistant: b \n\nHuman:\tc\n",
            (HUMAN, ASSISTANT),
            [("user", "    if x:\n        y\n"), ("assistant", "b "), ("user", "\tc\n")],
        ),
        ("\n\nHuman: c \n\n\n\nAssistant: \n", (HUMAN, ASSISTANT), [("user", "c \n\n")]),
        (
            "    a\n\n<extra_id_1>Assistant\n\n  b \r\n<extra_id_1>User\n c",
            (USER_TAG, ASSISTANT_TAG),
            [("user", "    a\n"), ("assistant", "\n  b "), ("user", " c")],
        ),
        ("\n\na\n\n<extra_id_1>Assistant", (USER_TAG, ASSISTANT_TAG), [("user", "\n\na\n")]),
    ],
)
def test_marked_texts_are_read_with_any_whitespace_and_an_open_end(
    text: str, markers: tuple[str, str], expected: list[tuple[str, str]]
) -> None:
    assert roles_and_texts(turns_of_text(text, *markers)) == expected
    if expected[0][0] == "user":
        one = record_of(
            Mapping("m", prompt="p", turn_markers=list(markers), completions=[Fields(text="c", rank=1)]),
            {"p": text, "c": "x"},
        )
        assert roles_and_texts(one.prompt) == expected


plain_words = st.text(
    st.sampled_from(" \n\tab:") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda text: text.strip() and not any(name in text for name in ("Human:", "Assistant:", "<extra_id_1>")))
conversations = st.lists(plain_words, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2)


def by_turn(texts: list[str]) -> list[tuple[str, str]]:
    return [(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


@given(conversations, st.sampled_from(["", "\n\nAssistant:", "\n\nAssistant: ", "\n\nAssistant:\n"]), st.booleans())
def test_marked_conversations_keep_every_character(texts: list[str], end: str, spaced: bool) -> None:
    written = ("\n\nHuman: ", "\n\nAssistant: ")
    text = "".join(written[place % 2] + words for place, words in enumerate(texts)) + end
    turns = turns_of_text(text, *(written if spaced else (HUMAN, ASSISTANT)))
    assert roles_and_texts(turns) == by_turn(texts)
    assert "".join(written[turn.role == "assistant"] + turn.text for turn in turns) + end == text


@given(conversations, st.booleans(), st.booleans())
def test_markers_on_their_own_lines_leave_the_texts_unchanged(texts: list[str], first: bool, asked: bool) -> None:
    assume(not any(text.endswith("\r") for text in texts))  # with the line end after it, that is one line end
    text = "".join(
        ("\n" if place else "") + (USER_TAG, ASSISTANT_TAG)[place % 2] + words for place, words in enumerate(texts)
    )
    text = (text if first else text.removeprefix(USER_TAG)) + ("\n" + ASSISTANT_TAG if asked else "")
    assert roles_and_texts(turns_of_text(text, USER_TAG, ASSISTANT_TAG)) == by_turn(texts)


@given(conversations)
def test_a_stripped_conversation_keeps_its_inner_whitespace(texts: list[str]) -> None:
    text = "".join(("\n\nHuman: ", "\n\nAssistant: ")[place % 2] + words for place, words in enumerate(texts)).strip()
    assert roles_and_texts(turns_of_text(text, HUMAN, ASSISTANT)) == by_turn([*texts[:-1], texts[-1].rstrip()])


def test_nectar_shaped_rows_load_by_a_mapping_alone(tmp_path: Path) -> None:
    answers = [{"answer": "Blue.", "model": "m1", "rank": 1.0}, {"answer": "Red.", "model": "m2", "rank": 2.0}]
    (tmp_path / "n.jsonl").write_text(
        json.dumps(
            {
                "prompt": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Which?\n\nAssistant: ",
                "answers": answers,
                "turns": 2,
            }
        )
        + "\n"
    )
    fields = [Fields(text="answer", rank="rank", author="model")]
    (one,) = load(
        [
            Mapping(
                str(tmp_path / "n.jsonl"),
                prompt="prompt",
                turn_markers=[HUMAN, ASSISTANT],
                each="answers",
                completions=fields,
            )
        ],
        seed=0,
    )
    assert roles_and_texts(one.prompt) == [("user", "Hi"), ("assistant", "Yes?"), ("user", "Which?")]
    assert [candidate.text for candidate in one.candidates] == ["Blue.", "Red."]


# --- a prompt beside conversations

ASK, GOOD, BAD = message("user", "Hi there "), message("assistant", "Hello!"), message("assistant", "What?")
SYSTEM, BEFORE = message("system", "Be kind."), [message("user", "One"), message("assistant", "Two")]


@pytest.mark.parametrize(
    ("prompt", "context", "expected"),
    [
        ("Hi there", [ASK], [("user", "Hi there ")]),
        ("\nHi there \n", [ASK], [("user", "Hi there ")]),
        ("Hi there", [SYSTEM, ASK], [("system", "Be kind."), ("user", "Hi there ")]),
        (
            "Hi there",
            [SYSTEM, *BEFORE, ASK],
            [("system", "Be kind."), ("user", "One"), ("assistant", "Two"), ("user", "Hi there ")],
        ),
        ("One", [*BEFORE, ASK], [("user", "One"), ("assistant", "Two"), ("user", "Hi there ")]),
        ([message("user", "Hi there")], [SYSTEM, ASK], [("system", "Be kind."), ("user", "Hi there ")]),
        ([SYSTEM, message("user", "Hi there")], [ASK], [("system", "Be kind."), ("user", "Hi there")]),
        (
            [*BEFORE, ASK],
            [SYSTEM, *BEFORE, ASK],
            [("system", "Be kind."), ("user", "One"), ("assistant", "Two"), ("user", "Hi there ")],
        ),
        (
            [SYSTEM, *BEFORE, ASK],
            [ASK],
            [("system", "Be kind."), ("user", "One"), ("assistant", "Two"), ("user", "Hi there ")],
        ),
        (None, [SYSTEM, ASK], [("system", "Be kind."), ("user", "Hi there ")]),
        (" ", [SYSTEM, ASK], [("system", "Be kind."), ("user", "Hi there ")]),
    ],
)
def test_a_prompt_column_is_found_in_whole_conversations(
    prompt: Any, context: list[Any], expected: list[tuple[str, str]]
) -> None:
    one = record_of(TRLPairs("t"), {"prompt": prompt, "chosen": [*context, GOOD], "rejected": [*context, BAD]})
    assert [candidate.text for candidate in one.candidates] == ["Hello!", "What?"]
    assert [(role, text.strip()) for role, text in roles_and_texts(one.prompt)] == [
        (role, text.strip()) for role, text in expected
    ]
    other = record_of(TRLUnpaired("t"), {"prompt": prompt, "completion": [*context, GOOD], "label": True})
    assert roles_and_texts(other.prompt) == roles_and_texts(one.prompt) and other.candidates[0].text == "Hello!"


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (
            {"prompt": "Hi them", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
            "the prompt is not in the conversation of 'chosen'",
            "message 1 (user), character 7: 'm' and 're'",
        ),
        (
            {"prompt": "Hi there", "chosen": [ASK, GOOD], "rejected": [message("user", "Hi them"), BAD]},
            "the prompt is not in the conversation of 'rejected'",
            "message 1 (user), character 7: 're' and 'm'",
        ),
        (
            {"chosen": [ASK, GOOD], "rejected": [message("user", "Hi them"), BAD]},
            "the two conversations differ before the last turn",
            "chosen and rejected, message 1 (user), character 7: 're' and 'm'",
        ),
        (
            {"prompt": "Hi there", "chosen": [SYSTEM, ASK, GOOD], "rejected": [ASK, BAD]},
            "the two conversations differ before the last turn",
            "chosen and rejected, message 1: of the system and of the user",
        ),
        (
            {"prompt": "p", "chosen": [GOOD, ASK, GOOD], "rejected": [BAD]},
            "a completion is more than one assistant message",
            "chosen has 3 messages",
        ),
        (
            {"prompt": "Hi there", "chosen": [ASK, GOOD, message("user", "And?"), GOOD], "rejected": [BAD]},
            "a completion is more than one assistant message",
            "chosen has 4 messages",
        ),
        (
            {"prompt": "p", "chosen": [GOOD, GOOD], "rejected": [BAD]},
            "a completion is more than one assistant message",
            "chosen has 2",
        ),
        (
            {"prompt": "p", "chosen": [ASK], "rejected": [BAD]},
            "a conversation does not end with the assistant's turn",
            "chosen ends with a turn of the user",
        ),
        ({"chosen": [GOOD], "rejected": [BAD]}, "there is no prompt before the answer", ""),
    ],
)
def test_a_rejected_conversation_names_the_difference_and_its_place(
    row: dict[str, Any], reason: str, detail: str
) -> None:
    found = rejection_of(TRLPairs("t"), row)
    assert (found.reason, found.detail) == (reason, detail)
    assert detail == "" or found.to_json()["detail"] == detail


@given(st.text(max_size=12), st.text(max_size=12))
def test_the_difference_of_two_texts_is_at_the_first_character_that_differs(one: str, other: str) -> None:
    assume(one.strip() != other.strip())
    found = difference((Turn("user", (Part(one),)),), (Turn("user", (Part(other),)),))
    assert found is not None
    place = int(found.split("character ")[1].split(":")[0]) - 1
    assert (
        one.strip()[:place] == other.strip()[:place]
        and one.strip()[place : place + 1] != other.strip()[place : place + 1]
    )


# --- beside content


def rows_with(extra: dict[str, Any], content: Any = "Hello!") -> dict[str, tuple[Source, dict[str, Any]]]:
    """A row for each source of messages, one of which has more than its text."""
    answer, asked = message("assistant", content, **extra), [message("user", "Hi")]
    mapping = Mapping("m", prompt="p", completions=[Fields(text="c", rank=1)])
    return {
        "pairs": (TRLPairs("t"), {"prompt": asked, "chosen": [answer], "rejected": [BAD]}),
        "one message": (TRLPairs("t"), {"prompt": asked, "chosen": answer, "rejected": BAD}),
        "implicit": (
            TRLPairs("t"),
            {"chosen": [*asked, GOOD, *asked, answer], "rejected": [*asked, GOOD, *asked, BAD]},
        ),
        "before": (
            TRLPairs("t"),
            {"chosen": [*asked, answer, *asked, GOOD], "rejected": [*asked, answer, *asked, BAD]},
        ),
        "unpaired": (TRLUnpaired("t"), {"messages": [*asked, answer], "label": True}),
        "sharegpt": (
            TRLUnpaired("t"),
            {"prompt": "Hi", "completion": {"from": "gpt", "value": content, **extra}, "label": True},
        ),
        "mapping": (mapping, {"p": [*asked, answer, *asked], "c": "x"}),
        "records": (Records("r"), {"prompt": [*asked, answer, *asked], "completions": [{"text": "x"}]}),
    }


CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize("content", ["Hello!", "", None])
@pytest.mark.parametrize("key", ["tool_calls", "function_call", "reasoning_content", "thinking"])
@pytest.mark.parametrize("adapter", rows_with({}))
def test_keys_that_change_a_message_are_refused_by_row(adapter: str, key: str, content: str | None) -> None:
    source, row = rows_with({key: CALL}, content)[adapter]
    with pytest.raises(
        InputError, match=rf"^f:1: \w+(\[\d\])? has '{key}' beside its text \(list .*, which would be lost"
    ):
        source.feedback(row, "f:1")


@pytest.mark.parametrize("adapter", rows_with({}))
def test_empty_keys_are_ignored_and_harmless_ones_counted(adapter: str) -> None:
    source, row = rows_with(dict.fromkeys(BESIDE_CONTENT))[adapter]
    assert isinstance(source.feedback(row, "f:1"), Feedback)
    source, row = rows_with({"name": "Bo", "timestamp": 5})[adapter]
    assert isinstance(source.feedback(row, "f:1"), Feedback)
    assert {part for line in source.notes.lines() for part in line.split("'")[1:2]} >= {"name", "timestamp"}


@pytest.mark.parametrize("role", ["tool", "function", "Developer"])
def test_roles_of_tools_are_refused(role: str) -> None:
    with pytest.raises(InputError, match=rf"f:1: chosen\[1\]\.role is '{role}'; it must be one of"):
        TRLPairs("t").feedback(
            {"chosen": [ASK, message(role, "3"), GOOD], "rejected": [ASK, message(role, "3"), BAD]}, "f:1"
        )


def test_developer_turns_are_system_turns_and_counted() -> None:
    developer, asked = message("developer", "Be kind."), message("user", "Hi")
    mapping = Mapping("m", prompt="p", completions=[Fields(text="c", rank=1)])
    rows: list[tuple[Source, dict[str, Any]]] = [
        (TRLPairs("t"), {"prompt": [developer, asked], "chosen": "a", "rejected": "b"}),
        (TRLPairs("t"), {"prompt": "Hi", "chosen": [developer, asked, GOOD], "rejected": [developer, asked, BAD]}),
        (TRLUnpaired("t"), {"messages": [developer, asked, GOOD], "label": True}),
        (
            TRLUnpaired("t"),
            {"prompt": [{"from": "developer", "value": "Be kind."}, asked], "completion": "a", "label": True},
        ),
        (mapping, {"p": [developer, asked], "c": "x"}),
        (Records("r"), {"prompt": [developer, asked], "completions": [{"text": "x"}]}),
    ]
    for source, row in rows:
        one = record_of(source, row)
        assert one.prompt[0] == Turn("system", (Part("Be kind.", "never"),)) and roles_and_texts(one.prompt[1:]) == [
            ("user", "Hi")
        ]
        (line,) = source.notes.lines()
        assert "developer turns are read as system turns (" in line
    for source in (TRLPairs("t"), Records("r")):
        row = {"prompt": [SYSTEM, developer, asked], "chosen": "a", "rejected": "b"} | (
            {"completions": [{"text": "x"}]} if isinstance(source, Records) else {}
        )
        with pytest.raises(InputError, match=r"f:1: prompt\[1\] is a system turn; a prompt has at most one"):
            source.feedback(
                {name: row[name] for name in row if isinstance(source, TRLPairs) or name in ("prompt", "completions")},
                "f:1",
            )


def test_tools_beside_a_row_are_refused_and_other_columns_counted() -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    for source, each in (
        (TRLPairs("t"), row),
        (TRLUnpaired("t"), {"prompt": "Hi", "completion": "a", "label": True}),
        (Records("r"), {"prompt": "p", "completions": [{"text": "x"}]}),
    ):
        with pytest.raises(InputError, match=r"f:1: the (row|line) has 'tools' beside its text"):
            source.feedback(each | {"tools": CALL}, "f:1")
    source = TRLPairs("t")
    record_of(source, row | {"tools": None, "system": "Be kind.", "scores": []})
    assert [line.split(" (")[0] for line in source.notes.lines()] == [": the column 'system' is not read"]
    with pytest.raises(InputError, match=r"f:1: completions\[0\] has 'tool_calls' beside its text"):
        Records("r").feedback({"prompt": "p", "completions": [{"text": "x", "tool_calls": CALL}]}, "f:1")


def test_oasst_refuses_calls_too(tmp_path: Path) -> None:
    reply = {"message_id": "b", "role": "assistant", "text": "x", "rank": 0, "replies": []}
    tree = {
        "prompt": {
            "message_id": "a",
            "role": "prompter",
            "text": "p",
            "replies": [reply, reply | {"message_id": "c", "rank": 1, "tool_calls": CALL}],
        }
    }
    (tmp_path / "o.jsonl").write_text(json.dumps(tree) + "\n")
    with pytest.raises(InputError, match=r"o\.jsonl:1: a message of the tree has 'tool_calls' beside its text"):
        load([OASST(str(tmp_path / "o.jsonl"))], seed=0)


def test_notes_say_how_many_rows_and_which_first(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Hi", "chosen": [message("assistant", f"a{number}", name="Bo")], "rejected": "b"}
        for number in range(3)
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    noticed: list[SourceNotes] = []
    load([TRLPairs(str(tmp_path / "f.jsonl"))], seed=0, noticed=noticed)
    assert noticed[0].lines() == [
        f"f: the key 'name' of messages is ignored (3 times in 3 rows, first {tmp_path}/f.jsonl:1)"
    ]
