"""Rows of each format exactly as in the original files, and the records made from them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources import (
    HH,
    OASST,
    Fields,
    Mapping,
    Piece,
    Records,
    Summarize,
    TRLPairs,
    TRLUnpaired,
    WebGPT,
    load,
)
from coh_lightning.feedback.sources.hh import split_transcript
from coh_lightning.feedback.sources.webgpt import renumbered
from coh_lightning.feedback.turns import Part, Turn
from helpers.feedback import record_of, rejection_of, roles_and_texts


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# --- HH


def test_hh_shares_the_context_and_compares_the_last_answers() -> None:
    context = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    one = record_of(HH("hh", subset="harmless-base"), {"chosen": context + " good", "rejected": context + " bad"})
    assert roles_and_texts(one.prompt) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert one.candidates == (RatedCompletion("good", rank=1.0), RatedCompletion("bad", rank=2.0))
    assert (one.task, one.aspect, one.source) == ("response", "harmless", "hh-harmless-base")
    assert {part.cut for turn in one.prompt for part in turn.parts} == {"front"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # text inside a message that looks like a marker
        ("\n\nHuman: Hi\n\nAssistant: Human: hello", ([("user", "Hi")], "Human: hello")),
        ("\n\nHuman: q: Assistant: x?\n\nAssistant: a", ([("user", "q: Assistant: x?")], "a")),
        # the same speaker twice in a row
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: c", ([("user", "a\n\nHuman: b")], "c")),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: e",
            ([("user", "a"), ("assistant", "b\n\nAssistant: c"), ("user", "d")], "e"),
        ),
        ("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c", ([("user", "a")], "b\n\nAssistant: c")),
        # the answer continues as the human
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", ([("user", "a")], "b\n\nHuman: c")),
        # whitespace: one space after a marker belongs to it, the rest is text
        ("Human: a \n\nAssistant:   b\n", ([("user", "a ")], "  b\n")),
        ("\n\nHuman:     if x:\n\n\nAssistant:\tb", ([("user", "    if x:\n")], "\tb")),
        (" \n\nHuman:a\n\nAssistant:b", ([("user", "a")], "b")),
        ("\n\nHuman: a\n\nAssistant: ", ([("user", "a")], "")),
        # no dialogue
        ("\n\nAssistant: a", None),
        ("\n\nHuman: a", None),
        ("", None),
    ],
)
def test_hh_transcripts_are_split_robustly(text: str, expected: Any) -> None:
    split = split_transcript(text)
    assert (split and ([(turn.role, turn.text) for turn in split[0]], split[1])) == expected


words = st.text(st.sampled_from("ab :\n") | st.characters(exclude_categories=["Cs"]), min_size=1).map(
    lambda text: text if text.strip() else " x\n"
)
messages = st.lists(
    words | st.sampled_from(["Human: hi", "a Assistant: b", "Assistant:", "Human:"]), min_size=1, max_size=5
).filter(lambda texts: len(texts) % 2)


@given(messages, words)
def test_prompt_and_answer_together_are_the_original(before: list[str], answer: str) -> None:
    speakers = ["\n\nHuman: ", "\n\nAssistant: "]
    text = "".join(speakers[place % 2] + words for place, words in enumerate(before)) + speakers[1] + answer
    assume(all(marker not in words for marker in ("\n\nHuman:", "\n\nAssistant:") for words in [*before, answer]))
    split = split_transcript(text)
    assert split is not None
    assert [turn.text for turn in split[0]] == before
    assert split[1] == answer


@given(st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " a", " b c", "\n\n", "Human:", " "]), max_size=12))
def test_no_word_of_any_transcript_is_lost(pieces: list[str]) -> None:
    text = "\n\nHuman: q" + "".join(pieces)
    split = split_transcript(text)
    if split is None:
        assert "\n\nAssistant:" not in text
    else:
        names = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
        again = "".join(names[turn.role] + turn.text for turn in split[0]) + names["assistant"] + split[1]
        spaced = re.sub(r"(Human|Assistant):(?! )", r"\1: ", text)  # one space after each marker, as in the data
        assert re.sub(r"(Human|Assistant):(?! )", r"\1: ", again) == spaced
        assert split[0][-1].role == "user"


def test_hh_prompts_are_equal_up_to_whitespace_at_the_ends_of_turns() -> None:
    chosen, rejected = "\n\nHuman: a \n\nAssistant:  b\n\nHuman: c", "\n\nHuman: a\n\nAssistant: b\n\n\nHuman: c "
    one = record_of(HH("hh"), {"chosen": chosen + "\n\nAssistant: x ", "rejected": rejected + "\n\nAssistant: y"})
    assert roles_and_texts(one.prompt) == [("user", "a "), ("assistant", " b"), ("user", "c")]
    assert [candidate.text for candidate in one.candidates] == ["x ", "y"]
    one = record_of(
        HH("hh", strip=True), {"chosen": chosen + "\n\nAssistant: x ", "rejected": rejected + "\n\nAssistant: y"}
    )
    assert roles_and_texts(one.prompt) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert [candidate.text for candidate in one.candidates] == ["x", "y"]


def test_hh_rejects_with_a_reason() -> None:
    one = "\n\nHuman: a\n\nAssistant: "
    other = "\n\nHuman: b\n\nAssistant: "
    assert (
        rejection_of(HH("hh"), {"chosen": one + "x", "rejected": other + "y"}).reason
        == "the two dialogues differ before the last answer"
    )
    assert rejection_of(HH("hh"), {"chosen": one + "x", "rejected": one}).reason == "a completion is empty"
    assert (
        rejection_of(HH("hh"), {"chosen": "x", "rejected": one}).reason
        == "no answer of the assistant after a human turn"
    )


def test_hh_takes_its_folder_from_the_hub() -> None:
    assert HH("Anthropic/hh-rlhf", subset="helpful-base").hub_arguments() == {
        "path": "Anthropic/hh-rlhf",
        "data_dir": "helpful-base",
    }


# --- summaries,
# WebGPT


def summary_row(**info: Any) -> dict[str, Any]:
    return {
        "info": {"id": "t3_x", "post": None, "title": None, "subreddit": None, "site": None, "article": None} | info,
        "summaries": [
            {"text": " First.", "policy": "sup1", "note": ""},
            {"text": " Second.", "policy": "ref", "note": ""},
        ],
        "choice": 1,
        "worker": "w1",
        "batch": "b",
        "split": "train",
        "extra": {"confidence": 7},
    }


def test_summaries_of_posts_keep_the_head_and_the_beginning_of_the_post() -> None:
    one = record_of(Summarize("s"), summary_row(post="The post.", title="T", subreddit="aww"))
    assert one.prompt == (
        Turn(
            "user",
            (
                Part("Write a summary of the following post.\n\nSubreddit: r/aww\nTitle: T\n\n", "never"),
                Part("The post.", "back"),
            ),
        ),
    )
    assert one.candidates == (
        RatedCompletion("First.", rank=2.0, author="sup1"),
        RatedCompletion("Second.", rank=1.0, author="ref"),
    )
    assert one.task == "summary"
    assert one.extra == {"worker": "w1", "batch": "b", "confidence": 7, "post": "t3_x"}


def test_summaries_of_articles_read_the_article() -> None:
    one = record_of(Summarize("s"), summary_row(article="News.", title="T") | {"extra": {"confidence": None}})
    assert [part.text for part in one.prompt[0].parts] == [
        "Write a summary of the following article.\n\nTitle: T\n\n",
        "News.",
    ]
    assert "confidence" not in one.extra
    assert (
        record_of(Summarize("s"), summary_row(article="News.")).prompt[0].parts[0].text
        == "Write a summary of the following article.\n\n"
    )


def test_summaries_without_a_text_to_summarise_are_rejected_and_a_bad_choice_refused() -> None:
    assert rejection_of(Summarize("s"), summary_row()).reason == "neither a post nor an article"
    with pytest.raises(InputError, match="f:1: choice is 2; it must be 0 or 1"):
        Summarize("s").feedback(summary_row(post="p") | {"choice": 2}, "f:1")
    with pytest.raises(InputError, match=r"f:1: the column 'choice' is missing .*; did you mean 'choices'\?"):
        Summarize("s").feedback({"info": {}, "summaries": [], "choices": 1}, "f:1")


def webgpt_row(score: float = 0.5, question: str = "Why?") -> dict[str, Any]:
    return {
        "question": {"dataset": "eli5", "id": "q1", "full_text": question},
        "quotes_0": {"title": ["A (a.org)", "B (b.org)"], "extract": ["aa", "bb"]},
        "answer_0": "x [1][2].",
        "tokens_0": {"prefix": [1], "completion": [2]},
        "score_0": score,
        "quotes_1": {"title": ["B (b.org)", "C (c.org)"], "extract": ["bb", "cc"]},
        "answer_1": "y [1, 2] and [7].",
        "tokens_1": {"prefix": [1], "completion": [2]},
        "score_1": -score,
    }


def test_webgpt_lists_both_answers_sources_and_renumbers_citations() -> None:
    one = record_of(WebGPT("w"), webgpt_row())
    assert one.prompt[0].parts == (
        Part("Why?", "never"),
        Part("\n\nYou may use the following sources:", "never"),
        Part("\n[1] A (a.org)\naa", "back"),
        Part("\n[2] B (b.org)\nbb", "back"),
        Part("\n[3] C (c.org)\ncc", "back"),
    )
    assert one.candidates == (RatedCompletion("x [1][2].", rank=1.0), RatedCompletion("y [2, 3] and [7].", rank=2.0))
    assert one.extra == {"scores": [0.5, -0.5]}


def test_webgpt_knows_ties_and_can_leave_the_sources_out() -> None:
    one = record_of(WebGPT("w", quotes="none"), webgpt_row(score=0.0))
    assert [candidate.rank for candidate in one.candidates] == [1.0, 1.0]
    assert one.prompt[0].text == "Why?"
    assert one.candidates[1].text == "y [1, 2] and [7]."


def test_webgpt_without_quotes_has_no_list() -> None:
    none: dict[str, list[str]] = {"title": [], "extract": []}
    assert record_of(WebGPT("w"), webgpt_row() | {"quotes_0": none, "quotes_1": none}).prompt[0].text == "Why?"


def test_citations_of_unknown_numbers_stay() -> None:
    a, b = ("A", "a"), ("B", "b")
    assert renumbered("[1] [2] [1, 3] [x] [0]", [b], [a, b]) == "[2] [2] [1, 3] [x] [0]"


def test_webgpt_holds_out_questions_by_a_hash(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "w.jsonl", [webgpt_row(question=f"Why {number // 2}?") for number in range(400)])

    def questions(**options: Any) -> list[str]:
        return [row["question"]["full_text"] for _, row in WebGPT(path, **options).rows() if isinstance(row, dict)]

    train, validation = questions(), questions(split="validation")
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 400
    assert 4 <= len(validation) <= 40
    assert questions(split="validation", held_out_seed=1) != validation
    assert questions(limit=3) == train[:3]
    with pytest.raises(InputError, match=r"WebGPT\.split is 'test'"):
        WebGPT(path, split="test")


# --- own, TRL


def test_our_own_lines_are_read_strictly() -> None:
    one = record_of(Records("my.jsonl", task="story"), {"prompt": "p", "completions": [{"text": "a", "thumb": True}]})
    assert (one.source, one.task, one.candidates) == ("my", "story", (RatedCompletion("a", thumb=True),))
    with pytest.raises(InputError, match=r"f:1: completions\[0\]\.text is empty"):
        Records("my.jsonl").feedback({"prompt": "p", "completions": [{"text": ""}]}, "f:1")


user, good, bad = (
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "assistant", "content": "What?"},
)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi there", "chosen": "Hello!", "rejected": "What?"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"prompt": [user], "chosen": good, "rejected": bad},
        {"prompt": [user], "chosen": [user, good], "rejected": [user, bad]},
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "Hi there", "chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "Hi there", "chosen": [{"role": "user", "content": " Hi there\n"}, good], "rejected": [user, bad]},
        {
            "prompt": [{"from": "human", "value": "Hi there"}],
            "chosen": {"from": "gpt", "value": "Hello!"},
            "rejected": {"from": "gpt", "value": "What?"},
        },
    ],
)
def test_trl_pairs_in_every_form_are_one_record(row: dict[str, Any]) -> None:
    one = record_of(TRLPairs("t"), row)
    assert roles_and_texts(one.prompt) == [("user", "Hi there")]
    assert one.candidates == (RatedCompletion("Hello!", rank=1.0), RatedCompletion("What?", rank=2.0))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "texts"),
    [
        ("Say it: well done", "Say it: welcome", "Say it:", [" well done", " welcome"]),
        ("Hi there Hello!", "Hi there What?", "Hi there", [" Hello!", " What?"]),
        ("def f():\n    return y\n", "def f():\n    pass\n", "def f():", ["\n    return y\n", "\n    pass\n"]),
        ("Q a", "Q a b", "Q", [" a", " a b"]),
    ],
)
def test_an_implicit_prompt_ends_before_the_whitespace_before_the_difference(
    chosen: str, rejected: str, prompt: str, texts: list[str]
) -> None:
    one = record_of(TRLPairs("t"), {"chosen": chosen, "rejected": rejected})
    assert (roles_and_texts(one.prompt), [candidate.text for candidate in one.candidates]) == (
        [("user", prompt)],
        texts,
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_implicit_prompt_and_its_completions_are_the_exact_texts(chosen: str, rejected: str) -> None:
    result = TRLPairs("t").feedback({"chosen": chosen, "rejected": rejected}, "f:1")
    if isinstance(result, Feedback):
        assert [result.prompt[0].text + candidate.text for candidate in result.candidates] == [chosen, rejected]


def test_a_text_prompt_takes_earlier_turns_from_the_conversations() -> None:
    system, before = (
        {"role": "system", "content": "Be kind."},
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    )
    whole = [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", "Hi there")]
    assert (
        roles_and_texts(
            record_of(
                TRLPairs("t"),
                {
                    "prompt": "Hi there",
                    "chosen": [system, *before, user, good],
                    "rejected": [system, *before, user, bad],
                },
            ).prompt
        )
        == whole
    )
    assert (
        roles_and_texts(
            record_of(
                TRLUnpaired("t"), {"prompt": "Hi there", "completion": [system, *before, user, good], "label": True}
            ).prompt
        )
        == whole
    )
    assert (
        roles_and_texts(
            record_of(
                TRLPairs("t"), {"prompt": [system, *before, user], "chosen": [user, good], "rejected": [bad]}
            ).prompt
        )
        == whole
    )
    assert (
        rejection_of(
            TRLPairs("t"), {"prompt": "Hi there", "chosen": [system, user, good], "rejected": [user, bad]}
        ).reason
        == "the two conversations differ before the last turn"
    )


def test_a_text_prompt_of_another_conversation_is_rejected_at_the_first_difference() -> None:
    result = TRLPairs("t").feedback({"prompt": "Hi then", "chosen": [user, good], "rejected": [user, bad]}, "f:1")
    assert result == Rejected(
        "the prompt is not in the conversation of 'chosen'",
        "f:1",
        "t",
        detail="message 1 (user), character 7: 'n' and 're'",
    )


def test_trl_pairs_keep_system_turns_and_reject_unlike_conversations() -> None:
    more = {"role": "user", "content": "And?"}
    system = {"role": "system", "content": "Be kind."}
    assert record_of(TRLPairs("t"), {"chosen": [system, user, good], "rejected": [system, user, bad]}).prompt[
        0
    ] == Turn("system", (Part("Be kind.", "never"),))
    assert (
        rejection_of(TRLPairs("t"), {"chosen": [user, good], "rejected": [system, bad]}).reason
        == "the two conversations differ before the last turn"
    )
    assert (
        rejection_of(TRLPairs("t"), {"chosen": [user, user], "rejected": [user, bad]}).reason
        == "a conversation does not end with the assistant's turn"
    )
    assert (
        rejection_of(TRLPairs("t"), {"prompt": "p", "chosen": [good, user, good], "rejected": [bad]}).reason
        == "a completion is more than one assistant message"
    )
    assert (
        rejection_of(TRLPairs("t"), {"prompt": [user], "chosen": [user, good, more, good], "rejected": [bad]}).reason
        == "a completion is more than one assistant message"
    )
    assert rejection_of(TRLPairs("t"), {"chosen": "same", "rejected": "other"}).reason == "the prompt is empty"
    with pytest.raises(InputError, match="must both be text or both be lists of messages"):
        TRLPairs("t").feedback({"chosen": "a", "rejected": [bad]}, "f:1")
    with pytest.raises(
        InputError,
        match=r"f:1: the column 'rejected' is missing \(the row has chosen, reject\); did you mean 'reject'\?",
    ):
        TRLPairs("t").feedback({"chosen": "a", "reject": "b"}, "f:1")
    with pytest.raises(InputError, match=r"f:1: chosen\[1\]\.role is 'robot'; it must be one of user, human,"):
        TRLPairs("t").feedback({"chosen": [user, {"role": "robot", "content": "x"}], "rejected": [user, bad]}, "f:1")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi there", "completion": "Hello!", "label": True},
        {"prompt": [user], "completion": [good], "label": 1},
        {"prompt": "Hi there", "completion": "Hello!", "label": "True"},
        {"messages": [user, good], "label": True},
    ],
)
def test_trl_unpaired_is_a_thumb(row: dict[str, Any]) -> None:
    one = record_of(TRLUnpaired("t"), row)
    assert (roles_and_texts(one.prompt), one.candidates) == (
        [("user", "Hi there")],
        (RatedCompletion("Hello!", thumb=True),),
    )
    with pytest.raises(InputError, match="f:1: label is 'yes'; it must be true or false"):
        TRLUnpaired("t").feedback(row | {"label": "yes"}, "f:1")


# --- OASST


def node(id: str, role: str, replies: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "message_id": id,
        "text": f"text {id}",
        "role": role,
        "deleted": False,
        "review_result": True,
        "synthetic": False,
        "replies": replies,
    } | more


def oasst_tree() -> dict[str, Any]:
    below = [
        node("d", "assistant", [], rank=1),
        node("e", "assistant", [], rank=0, emojis={"+1": 1}),
        node("f", "assistant", [], rank=2, deleted=True),
    ]
    first = node("b", "assistant", [node("c", "prompter", below)], rank=0, emojis={"+1": 1, "-1": 2})
    return {
        "message_tree_id": "a",
        "prompt": node("a", "prompter", [first, node("g", "assistant", [node("h", "prompter", [])], rank=1)]),
    }


def test_every_human_message_with_answers_is_a_ranking(tmp_path: Path) -> None:
    source = OASST(write_rows(tmp_path / "o.jsonl", [oasst_tree()]))
    records = [source.feedback(row, where) for where, row in source.rows() if isinstance(row, dict)]
    assert all(isinstance(one, Feedback) for one in records)
    one, two = [one for one in records if isinstance(one, Feedback)]
    assert one.id == "a" and roles_and_texts(one.prompt) == [("user", "text a")]
    assert one.candidates == (
        RatedCompletion("text b", rank=0.0, thumb=False, author="human"),
        RatedCompletion("text g", rank=1.0, author="human"),
    )
    assert two.id == "c" and roles_and_texts(two.prompt) == [
        ("user", "text a"),
        ("assistant", "text b"),
        ("user", "text c"),
    ]
    assert two.candidates == (
        RatedCompletion("text d", rank=1.0, author="human"),
        RatedCompletion("text e", rank=0.0, thumb=True, author="human"),
    )
    assert two.where == f"{source.path}:1 (c)"


def test_answers_without_judgments_are_rejected() -> None:
    source = OASST("o")
    row = {
        "id": "a",
        "messages": [{"role": "prompter", "content": "p"}],
        "replies": [node("b", "assistant", [], emojis={"+1": 1, "-1": 1})],
    }
    assert rejection_of(source, row).reason == "answers without a rank and without a clear thumb"
    assert (
        rejection_of(source, row | {"replies": [node("b", "assistant", [], rank=0, deleted=True)]}).reason
        == "all answers were deleted or failed review"
    )


@pytest.mark.parametrize("removed", [{"deleted": True}, {"review_result": False}])
@pytest.mark.parametrize(("message", "kept"), [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["a", "c"])])
def test_a_removed_message_of_a_tree_is_in_no_prompt(
    tmp_path: Path, removed: dict[str, Any], message: str, kept: list[str]
) -> None:
    def changed(one: dict[str, Any]) -> dict[str, Any]:
        more = {**removed, "text": "REMOVED"} if one["message_id"] == message else {}
        return one | more | {"replies": [changed(reply) for reply in one["replies"]]}

    tree = oasst_tree()
    rejected: list[Rejected] = []
    path = write_rows(tmp_path / "o.jsonl", [tree | {"prompt": changed(tree["prompt"])}])
    records = load([OASST(path)], seed=0, rejected=rejected, max_unusable_fraction=1)
    assert sorted(one.id for one in records) == [f"o/{id}" for id in kept]
    assert len(rejected) == 2 - len(kept) and {one.reason for one in rejected} <= {
        "a message of the prompt was deleted or failed review"
    }
    assert not any(
        "REMOVED" in text
        for one in records
        for text in [*(turn.text for turn in one.prompt), *(c.text for c in one.candidates)]
    )


# --- -
# mappings


def test_a_mapping_reads_a_list_of_rated_completions() -> None:
    source = Mapping(
        "m",
        prompt="question",
        each="answers",
        completions=[Fields(text="text", rating="stars", author="by")],
        scales={"overall": [1, 5]},
        missing=["N/A"],
        reference="gold.0",
        id="key",
        keep=["topic"],
    )
    row = {
        "question": " q ",
        "answers": [{"text": "a", "stars": "4", "by": "m"}, {"text": "b", "stars": "N/A", "by": None}],
        "gold": ["r"],
        "key": 7,
        "topic": "t",
    }
    assert record_of(source, row) == Feedback(
        id="7",
        prompt=(Turn("user", (Part(" q ", "front"),)),),
        candidates=(RatedCompletion("a", ratings={"overall": 4.0}, author="m"), RatedCompletion("b")),
        scales={"overall": (1.0, 5.0)},
        reference="r",
        source="m",
        where="f:1",
        extra={"topic": "t"},
    )


def test_a_mapping_reads_a_list_that_is_a_ranking() -> None:
    source = Mapping("m", prompt="q", each="best_first", completions=[Fields(text=".", rank="#")])
    assert record_of(source, {"q": "p", "best_first": ["a", "b", "c"]}).candidates == (
        RatedCompletion("a", rank=1.0),
        RatedCompletion("b", rank=2.0),
        RatedCompletion("c", rank=3.0),
    )
    assert rejection_of(source, {"q": "p", "best_first": []}).reason == "no completions"


def test_a_mapping_puts_a_prompt_together_and_leaves_out_empty_pieces() -> None:
    pieces = [
        Piece(text="Do it: ", field="what", cut="never"),
        Piece(text="\n\n", field="on", optional=True),
        Piece(text="!"),
    ]
    source = Mapping("m", prompt=pieces, system="sys", completions=[Fields(text="out")])
    one = record_of(source, {"what": "sum", "on": "1 2", "out": "3", "sys": "Count."})
    assert one.prompt == (
        Turn("system", (Part("Count.", "never"),)),
        Turn(
            "user",
            (
                Part("Do it: ", "never"),
                Part("sum", "never"),
                Part("\n\n", "never"),
                Part("1 2", "back"),
                Part("!", "never"),
            ),
        ),
    )
    for row in ({"what": "sum", "on": " ", "out": "3", "sys": None}, {"what": "sum", "out": "3", "sys": None}):
        assert roles_and_texts(record_of(source, row).prompt) == [("user", "Do it: sum!")]
    with pytest.raises(InputError, match="f:1: what is empty; mark the piece of the prompt as optional"):
        source.feedback({"what": "", "out": "3", "sys": None}, "f:1")


def test_a_mapping_reads_messages_and_marked_conversations() -> None:
    marked = Mapping("m", prompt="p", turn_markers=["<1>User\n", "<1>Assistant\n"], completions=[Fields(text="out")])
    assert roles_and_texts(record_of(marked, {"p": "a\n<1>Assistant\nb\n<1>User\nc", "out": "x"}).prompt) == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert roles_and_texts(
        record_of(
            Mapping("m", prompt="p", completions=[Fields(text="out")]), {"p": [user, good, user], "out": "x"}
        ).prompt
    ) == [
        ("user", "Hi there"),
        ("assistant", "Hello!"),
        ("user", "Hi there"),
    ]


def test_several_raters_give_mean_ratings_and_joined_critiques() -> None:
    source = Mapping(
        "m",
        prompt="p",
        completions=[Fields(text="out", rating="grade", critique=["why", "how"])],
        values={"Good": 4, "Bad": 1},
        scales={"overall": [1, 4]},
    )
    one = record_of(source, {"p": "q", "out": "x", "grade": ["Good", "Bad"], "why": ["a.", " ", "b."], "how": "c."})
    assert one.candidates == (RatedCompletion("x", ratings={"overall": 2.5}, critique="a. b. c."),)


@pytest.mark.parametrize(
    ("votes", "ranks"),
    [
        ("112", [1, 2]),
        ("122", [2, 1]),
        ("000", [1, 1]),
        ("011", [1, 2]),
        ("001", [1, 1]),
        ("012", [1, 1]),
        ("12", [1, 1]),
    ],
)
def test_the_most_votes_win_and_no_majority_is_a_tie(votes: str, ranks: list[float]) -> None:
    columns = [f"v{number}" for number in range(len(votes))]
    source = Mapping(
        "m",
        prompt="p",
        completions=[Fields(text="a"), Fields(text="b")],
        votes=columns,
        vote_for={"0": "tie", "1": 0, "2": 1},
    )
    row = {"p": "q", "a": "x", "b": "y"} | {column: int(vote) for column, vote in zip(columns, votes, strict=True)}
    assert [candidate.rank for candidate in record_of(source, row).candidates] == ranks
    with pytest.raises(InputError, match="f:1: a vote is 9; vote_for has 0, 1, 2"):
        source.feedback(row | {"v0": 9}, "f:1")


def test_thumbs_are_read_by_the_lists_of_the_mapping() -> None:
    source = Mapping("m", prompt="p", completions=[Fields(text="out", thumb="wrong", up=[False], down=[True])])
    assert [
        record_of(source, {"p": "q", "out": "x", "wrong": wrong}).candidates[0].thumb for wrong in (False, True, None)
    ] == [True, False, None]
    with pytest.raises(InputError, match=r"f:1: wrong is 'maybe'; 'up' has false and 'down' has true"):
        source.feedback({"p": "q", "out": "x", "wrong": "maybe"}, "f:1")


def test_scalars_are_text_only_with_scalars_as_text() -> None:
    row = {"p": "q", "out": True}
    with pytest.raises(
        InputError, match=r"f:1: out is True, a bool; it must be text \(scalars_as_text: true converts it\)"
    ):
        Mapping("m", prompt="p", completions=[Fields(text="out")]).feedback(row, "f:1")
    assert record_of(
        Mapping("m", prompt="p", completions=[Fields(text="out")], scalars_as_text=True), row
    ).candidates == (RatedCompletion("True"),)


def test_unusable_rows_are_rejected_with_the_reason() -> None:
    source = Mapping("m", prompt="p", equal=["p", "p2"], completions=[Fields(text="out")])
    assert rejection_of(source, {"p": "q", "p2": "r", "out": "x"}).reason == "p, p2 differ"
    assert rejection_of(source, {"p": "q", "p2": "q", "out": " "}).reason == "a completion is empty"
    assert rejection_of(source, {"p": "", "p2": "", "out": "x"}).reason == "the prompt is empty"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"q": "p", "answer": [{"txt": "a"}]},
            "f:1: the column 'answers' is missing (the row has q, answer); did you mean 'answer'?",
        ),
        (
            {"q": "p", "answers": [{"txt": "a", "at": {"r": 1}}]},
            "f:1, answers[0]: the column 'text' is missing (the row has txt, at); did you mean 'txt'?",
        ),
        (
            {"q": "p", "answers": [{"text": "a", "at": {"rate": 1}}]},
            "f:1, answers[0]: at has no 'rates'; did you mean 'rate'?",
        ),
        (
            {"q": "p", "answers": [{"text": "a", "at": {"rates": [1]}}]},
            "f:1, answers[0]: at.rates has 1 elements; at.rates.1 needs element 1 (counted from 0).",
        ),
        (
            {"q": "p", "answers": [{"text": "a", "at": {"rates": [1, "x"]}}]},
            "f:1, answers[0]: at.rates.1 is 'x'; it must be a number, or an entry of 'values' or ",
        ),
        (
            {"q": "p", "answers": [{"text": "a", "at": {"rates": [1, 9]}}]},
            "f:1: completions[0].rating is 9, outside its scale 1 to 5.",
        ),
        ({"q": "p", "answers": [{"text": "a", "at": 3}]}, "f:1, answers[0]: at is an int, which has no 'rates'."),
        ({"q": "p", "answers": {"text": "a"}}, "f:1, answers['text']: the element is a str, which has no 'text'."),
        (
            {"q": "p", "answers": "a"},
            "f:1: answers is a str; it must be a list of completions, or an object.",
        ),
    ],
)
def test_a_wrong_path_is_refused_with_the_nearest_name(row: dict[str, Any], says: str) -> None:
    source = Mapping(
        "m",
        prompt="q",
        each="answers",
        completions=[Fields(text="text", rating="at.rates.1")],
        scales={"overall": [1, 5]},
    )
    with pytest.raises(InputError) as caught:
        source.feedback(row, "f:1")
    assert str(caught.value).startswith(says)


def test_a_null_ends_a_path() -> None:
    source = Mapping("m", prompt="q", completions=[Fields(text="a.b", rating="c.d")])
    assert record_of(source, {"q": "p", "a": {"b": "x"}, "c": None}).candidates == (RatedCompletion("x"),)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "set 'prompt' and 'completions'"),
        ({"completions": [Fields("a"), Fields("b")], "each": "x"}, "with 'each' give one entry"),
        ({"completions": [Fields(".")]}, "mean elements of a list"),
        ({"completions": [Fields("a")], "votes": ["v"]}, "'votes' and 'vote_for' go together"),
        ({"completions": [Fields("a")], "votes": ["v"], "vote_for": {"1": 1}}, "give 'tie' or a place, 0 to 0"),
        ({"completions": [Fields("a")], "turn_markers": ["x"]}, "turn_markers has 1 entries"),
        ({"completions": [Fields("a")], "scales": {"x": [1]}}, "the scale of 'x' has 1 entries"),
    ],
)
def test_an_inconsistent_mapping_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Mapping("m", prompt="p", **options)


def test_the_label_comes_from_the_name_or_the_path() -> None:
    assert [
        source.label
        for source in (
            HH("Anthropic/hh-rlhf"),
            HH("Anthropic/hh-rlhf", subset="x"),
            HH("a/train-*.jsonl.gz"),
            HH("a/b.JSON"),
            HH("a/*.csv"),
            HH("x", name="mine"),
        )
    ] == ["hh-rlhf", "hh-rlhf-x", "train", "b", "hh", "mine"]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"weight": 0.0}, "weight is 0"), ({"limit": 0}, "limit is 0"), ({"path": ""}, "path is empty")],
)
def test_invalid_settings_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        HH(**({"path": "x"} | options))


# --- broken
# values


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"replies": 5}, "replies is int 5; it must be a list of messages"),
        ({"emojis": [1]}, r"emojis is list \[1\]; it must be an object"),
        ({"emojis": {"+1": "x"}}, r"emojis\.\+1 is str 'x'; it must be a number"),
        ({"rank": "first"}, "rank is str 'first'; it must be a number"),
        ({"rank": math.nan}, "rank is nan; it must be a finite number"),
    ],
)
def test_oasst_names_what_is_wrong_in_an_answer(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    tree = {
        "prompt": node(
            "a", "prompter", [node("b", "assistant", [], rank=0) | changes, node("c", "assistant", [], rank=1)]
        )
    }
    path = write_rows(tmp_path / "o.jsonl", [tree])
    with pytest.raises(InputError, match=rf"o\.jsonl:1.*: {says}"):
        load([OASST(path)], seed=0)


def test_an_oasst_tree_without_answers_is_counted(tmp_path: Path) -> None:
    rejected: list[Rejected] = []
    path = write_rows(tmp_path / "o.jsonl", [oasst_tree(), {"prompt": node("x", "prompter", [])}])
    assert len(load([OASST(path)], seed=0, rejected=rejected)) == 2
    assert (rejected[0].reason, rejected[0].where) == ("no message of the tree has answers", f"{path}:2")


def test_webgpt_scores_must_be_finite_and_quotes_texts() -> None:
    with pytest.raises(InputError, match="f:1: score_1 is nan; it must be a finite number"):
        WebGPT("w").feedback(webgpt_row() | {"score_1": math.nan}, "f:1")
    with pytest.raises(InputError, match="f:1: the lists 'title' and 'extract' of quotes_0 must have only texts"):
        WebGPT("w").feedback(webgpt_row() | {"quotes_0": {"title": [None], "extract": ["a"]}}, "f:1")


def test_a_citation_of_thousands_of_digits_stays() -> None:
    answer = f"[{'7' * 5000}]"
    assert renumbered(answer, [("A", "a")], [("A", "a")]) == answer


def test_the_head_of_a_post_must_be_text() -> None:
    with pytest.raises(InputError, match=r"f:1: info\.title is list \['T'\]; it must be text"):
        Summarize("s").feedback(summary_row(post="p", title=["T"]), "f:1")


def test_a_mapping_reads_ids_that_are_texts_or_numbers_and_makes_those_that_are_missing() -> None:
    source = Mapping(
        "m.jsonl", prompt="p", completions=[Fields(text="c", rating="r")], scales={"overall": [0, 9]}, id="i"
    )
    ids = [record_of(source, {"p": "q", "c": "a", "r": 1, "i": id}).id for id in ("x", 7, None)]
    assert ids[:2] == ["x", "7"] and re.fullmatch("[0-9a-f]{16}", ids[2])
    with pytest.raises(InputError, match=r"f:1: i is dict \{\}; an id is a text or an integer"):
        source.feedback({"p": "q", "c": "a", "r": 1, "i": {}}, "f:1")
    with pytest.raises(InputError, match=r"f:1: r is 1000.*; it must be a number"):
        source.feedback({"p": "q", "c": "a", "r": 10**400, "i": "x"}, "f:1")


def test_the_names_of_columns_never_break_a_message() -> None:
    with pytest.raises(InputError) as caught:
        TRLPairs("t").feedback({"a\nb": 1, "k" * 3000: 2, "\ud800": 3}, "f:1")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400
