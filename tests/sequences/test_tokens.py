"""Ids of chains: exact lists over the character tokenizer; over tokenizers of the real kinds, properties."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Role, Turn
from coh_lightning.sequences import field_cache
from coh_lightning.sequences.anchored_tokenizer import AnchoredTokenizer, Field
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt, LinkLength
from coh_lightning.sequences.chains import Chain, Link, Unusable
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.template_check import Rewritten
from coh_lightning.sequences.tokens import OutputSpan, Tokens
from helpers.tokenizers import (
    CHATML,
    GEMMA,
    MAKERS,
    SPECIALS,
    TEMPLATES,
    byte_level,
    character,
    sentencepiece,
    unigram,
)

GOOD = Link("A good answer:", "An apple is a fruit.", learned=1.0, kind="good")
BAD = Link("A bad answer:", "no idea", learned=0.5, unlearned=0.25, kind="bad")
FORMATS = {
    "plain": PromptFormat(),
    "user": PromptFormat(kind="chat"),
    "system": PromptFormat(kind="chat", marker_in="system"),
}
ROLES: tuple[Role, ...] = ("user", "assistant")


def user(text: str) -> tuple[Turn, ...]:
    return (Turn("user", (Part(text),)),)


def talk(*texts: str, system: str | None = None) -> tuple[Turn, ...]:
    head = [] if system is None else [Turn("system", (Part(system),))]
    return (*head, *(Turn(ROLES[i % 2], (Part(text),)) for i, text in enumerate(texts)))


def characters(text: str) -> list[int]:
    return [3 if char == "\n" else ord(char) - 28 for char in text]


def builder(
    tokenizer: Any, format: PromptFormat | None = None, *, limit: int = 1000, marked: bool = True
) -> ChainTokenizer:
    return ChainTokenizer(Encoder(tokenizer), format or PromptFormat(), max_prompt_tokens=limit, marked=marked)


def every_builder() -> list[Any]:
    """Each kind of tokenizer in the plain format and in every chat format."""
    plain = [pytest.param(make, None, FORMATS["plain"], id=f"{name}-plain") for name, make in MAKERS.items()]
    chat = [
        pytest.param(make, template, FORMATS[place], id=f"{name}-{style}-{place}")
        for name, make in MAKERS.items()
        for style, template in TEMPLATES.items()
        for place in ("user", "system")
    ]
    return [*plain, *chat]


# --- chains


def test_a_plain_chain_in_characters() -> None:
    build = builder(character())
    chain = build.chain(
        build.cut_prompt(user("Why?")),
        (Link("G:", "yes", learned=1.0, kind="good"), Link("B:", "no", unlearned=0.5, kind="bad")),
    )
    assert chain.ids.tolist() == [1, *characters("Why?\n\nG:\nyes"), 2, *characters("\n\nB:\nno"), 2]
    assert chain.learned.tolist() == [0.0] * 10 + [1.0] * 4 + [0.0] * 8
    assert chain.unlearned.tolist() == [0.0] * 19 + [0.5] * 3
    assert chain.spans == (OutputSpan(10, 14, "good", 0), OutputSpan(19, 22, "bad", 1))


def test_a_plain_chain_without_bos_and_without_markers() -> None:
    build = builder(character(bos=False))
    chain = build.chain(build.cut_prompt(user("Why?")), (Link("", "yes", learned=1.0),))
    assert chain.ids.tolist() == [*characters("Why?\nyes"), 2]
    assert chain.learned.tolist() == [0.0] * 5 + [1.0] * 4


@pytest.mark.parametrize("make, template, format", every_builder())
def test_learned_tokens_are_exactly_the_outputs_and_one_end_each(
    make: Any, template: str | None, format: PromptFormat
) -> None:
    build = builder(make(template), format)
    outputs = ["An apple is a fruit.", "yes </s> no", "", " two\n\nlines\n", "I am well. "]
    chain = tuple(Link("A good answer:", text, learned=1.0 + i, kind="good") for i, text in enumerate(outputs))
    made = build.chain(build.cut_prompt(talk("hi", "hello there", "What is a fruit?", system="Be kind.")), chain)
    lead = build.output_lead("A good answer:")
    decoded = []
    for i, span in enumerate(made.spans):
        assert set(made.learned[span.start : span.stop]) == {1.0 + i}
        decoded.append(build.encoder.decode(made.ids[span.start : span.stop - 1]))
        assert made.ids[span.stop - 1] == build.stop_ids[0]
    between = np.ones(len(made), dtype=bool)
    for span in made.spans:
        between[span.start : span.stop] = False
    assert not made.learned[between].any() and not made.unlearned.any()
    expected = [lead + text for text in outputs]
    if make is unigram:  # its decoder takes white space for a sign of the word's beginning only
        decoded, expected = [text.replace(" ", "") for text in decoded], [text.replace(" ", "") for text in expected]
    assert decoded == expected


@pytest.mark.parametrize("make, template, format", every_builder())
def test_train_ids_begin_with_exactly_the_ids_of_inference(
    make: Any, template: str | None, format: PromptFormat
) -> None:
    build = builder(make(template), format)
    for prompt in (
        user("What is a fruit?"),
        talk("hi", "hello", "Why? ", system="Be kind."),
        user(" two\n\nlines\n\n"),
    ):
        cut = build.cut_prompt(prompt)
        for chain in ((GOOD,), (GOOD, BAD), (BAD, GOOD, GOOD)):
            ids = build.inference_prompt(cut, chain[0].marker)
            made = build.chain(cut, chain)
            assert made.ids[: len(ids)].tolist() == ids.tolist() and made.spans[0].start == len(ids)
        ids = build.inference_prompt(cut, "")
        assert build.chain(cut, (Link("", "yes"),)).ids[: len(ids)].tolist() == ids.tolist()


@pytest.mark.parametrize("make, template, format", every_builder())
def test_a_shorter_chain_is_the_beginning_of_a_longer_one(
    make: Any, template: str | None, format: PromptFormat
) -> None:
    build = builder(make(template), format)
    cut = build.cut_prompt(user("What is a fruit?"))
    one, two = build.chain(cut, (GOOD,)), build.chain(cut, (GOOD, BAD))
    assert two.ids[: len(one)].tolist() == one.ids.tolist()


@pytest.mark.parametrize("make", [character, byte_level, sentencepiece, unigram])
@pytest.mark.parametrize("style", TEMPLATES)
@pytest.mark.parametrize("place", ["user", "system"])
@pytest.mark.parametrize("system", [None, "You are a helpful assistant"])
@pytest.mark.parametrize("texts", [("What is a fruit?",), ("hello there", "I am well, thank you", "What is a fruit")])
def test_apply_chat_template_gives_the_inference_prompt_id_for_id(
    make: Any, style: str, place: str, system: str | None, texts: tuple[str, ...]
) -> None:
    tokenizer = make(TEMPLATES[style])
    build = builder(tokenizer, FORMATS[place])
    contents = list(texts)
    head = system
    if place == "user":
        contents[-1] += "\n\nA good answer:"
    else:
        head = "A good answer:" if system is None else system + "\n\nA good answer:"
    if head is not None and style == "gemma":
        contents[0], head = head + "\n\n" + contents[0], None
    messages = [] if head is None else [{"role": "system", "content": head}]
    messages += [{"role": ROLES[i % 2], "content": content} for i, content in enumerate(contents)]
    expected = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert build.inference_prompt(build.cut_prompt(talk(*texts, system=system)), "A good answer:").tolist() == expected


@pytest.mark.parametrize("make", [character, byte_level, sentencepiece])
def test_a_plain_prompt_is_what_the_tokenizer_itself_makes_of_the_text(make: Any) -> None:
    tokenizer = make()
    build = builder(tokenizer)
    prompt = build.inference_prompt(
        build.cut_prompt(talk("hello there", "I am well", "What is a fruit?", system="You are kind.")), "A good answer:"
    )
    text = "You are kind.\n\nUser: hello there\n\nAssistant: I am well\n\nUser: What is a fruit?\n\nA good answer:\n"
    assert prompt.tolist() == tokenizer(text)["input_ids"]


def test_nothing_before_the_first_output_is_refused() -> None:
    build = builder(character(bos=False), PromptFormat(before_output=""))
    with pytest.raises(Unusable, match="nothing precedes the first output"):
        build.chain(build.cut_prompt(user("")), (Link("", "yes"),))


def test_segments_and_link_lengths_are_those_of_the_chain_and_reserve_room_for_the_longest_wording() -> None:
    for format, template in ((FORMATS["plain"], None), (FORMATS["user"], CHATML), (FORMATS["system"], GEMMA)):
        build = builder(sentencepiece(template), format)
        cut = build.cut_prompt(talk("hi", "hello", "Why?", system="Be kind."))
        lengths = build.link_lengths(cut, (GOOD, BAD, GOOD))
        made = build.chain(cut, (GOOD, BAD, GOOD))
        separate = [
            int(i) for segment in build.segments(cut, (GOOD, BAD, GOOD)) for i in build.encoder.segment_ids(segment)
        ]
        assert separate == made.ids.tolist()
        assert sum(map(sum, lengths)) == len(made)
        assert [length.output for length in lengths] == [span.stop - span.start for span in made.spans]
    build = builder(character())
    cut = build.cut_prompt(user("Why?"))
    link = Link("G:", "yes", alternatives=("G:", "Good answer:", "Go:"))
    assert build.link_lengths(cut, (link, link)) == [LinkLength(7, 13, 4), LinkLength(0, 15, 4)]
    assert build.link_lengths(cut, (Link("", "yes"),)) == [LinkLength(6, 0, 4)]


def test_tokens_refuse_unequal_lengths_and_other_types() -> None:
    ids, weights = np.zeros(3, dtype=np.int32), np.zeros(3)
    with pytest.raises(ValueError, match="of equal length"):
        Tokens(ids, weights, np.zeros(2), ())
    with pytest.raises(ValueError, match="must be int32"):
        Tokens(ids.astype(np.int64), weights, weights, ())


# --- the encoder


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_no_special_token_comes_out_of_peoples_text(make: Any) -> None:
    tokenizer = make()
    encoder = Encoder(tokenizer)
    specials = {tokenizer.convert_tokens_to_ids(text) for text in SPECIALS}
    texts = [
        around.replace("@", text) for text in SPECIALS for around in ("@", "a@b", "a @ b", "@@", "\n@\n", "x @", "@ x")
    ]
    for at in ("head", "special", "mid"):
        for text, ids in zip(texts, encoder.encode_texts(texts, at=at), strict=True):  # type: ignore[arg-type]
            assert not specials & set(ids.tolist()), text
            assert encoder.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_a_special_token_of_one_character_in_peoples_text_is_refused() -> None:
    tokenizer = character()
    tokenizer.eos_token = "$"
    with pytest.raises(InputError, match=r"has '\$', a special token"):
        Encoder(tokenizer).encode_texts(["5 $ each"])


def test_sentencepiece_text_gets_no_false_leading_space() -> None:
    tokenizer = sentencepiece()
    encoder = Encoder(tokenizer)
    [bare], [led] = encoder.encode_texts(["answer"]), encoder.encode_texts([" answer"])
    assert (
        tokenizer.convert_ids_to_tokens(bare.tolist())[0][0] != "▁"
        and tokenizer.convert_ids_to_tokens(led.tolist())[0][0] == "▁"
    )
    assert encoder.decode(bare) == "answer" and encoder.decode(led) == " answer"
    assert tokenizer.convert_ids_to_tokens(encoder.encode_texts(["answer"], at="head")[0].tolist())[0][0] == "▁"


@pytest.mark.parametrize("make", [character, byte_level, sentencepiece])
@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.one_of(st.sampled_from("ab .\n:'é7"), st.characters(exclude_categories=["Cs"])), max_size=12),
    more=st.booleans(),
)
def test_decoding_gives_the_text_back(make: Any, text: str, more: bool) -> None:
    if make is character:
        text = "".join(char for char in text if char in "ab .\n:'é7")
    elif make is sentencepiece:
        text = text.replace("▁", "")  # its own sign for a space
    encoder = Encoder(make())
    [ids] = encoder.encode_fields([Field(text, "mid", more)])
    assert encoder.decode(ids) == text


def test_line_ends_before_text_are_encoded_as_before_text() -> None:
    tokenizer = byte_level()
    encoder = Encoder(tokenizer)
    alone, before = encoder.encode_fields([Field("a.\n\n"), Field("a.\n\n", "mid", True)])
    assert tokenizer.convert_ids_to_tokens(alone.tolist()) == ["a", ".", "ĊĊ"]
    assert tokenizer.convert_ids_to_tokens(before.tolist()) == ["a", ".", "Ċ", "Ċ"]


def test_each_distinct_text_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    build = builder(byte_level())
    cut = build.cut_prompt(user("What is a fruit?"))
    build.chain(cut, (GOOD, BAD))

    def refuse(*_: object) -> None:
        raise AssertionError("a text was tokenized again")

    monkeypatch.setattr(AnchoredTokenizer, "encode", refuse)
    for chain in ((GOOD, BAD), (GOOD,)):
        build.chain(build.cut_prompt(user("What is a fruit?")), chain)
        build.inference_prompt(cut, chain[0].marker)


def test_other_uses_of_the_tokenizer_change_nothing() -> None:
    tokenizer = byte_level()
    before = Encoder(tokenizer)
    tokenizer(["a long text to cut", "b"], truncation=True, max_length=1)
    after = Encoder(tokenizer)
    assert before.tokenizer_hash == after.tokenizer_hash
    for encoder in (before, after):
        assert len(encoder.encode_texts(["a long text that is not cut"])[0]) > 2
    assert before.tokenizer_hash != Encoder(sentencepiece()).tokenizer_hash


@pytest.mark.parametrize("make", [byte_level, sentencepiece, character])
@pytest.mark.parametrize("text", [" hello", "  hello", "hello", " ", "\n\nhello"])
def test_line_ends_before_a_text_that_begins_with_white_space_are_encoded_as_before_it(make: Any, text: str) -> None:
    """A blank line and " hello" are other ids to most tokenizers than a blank line and "hello"."""
    tokenizer = make()
    build = builder(tokenizer)
    ids = build.inference_prompt(
        build.cut_prompt((Turn("system", (Part("Be kind."),)), *user(text + "?"))), "A good answer:"
    ).tolist()
    joint = tokenizer(f"Be kind.\n\n{text}?\n\nA good answer:\n")["input_ids"]
    if make is byte_level and text.startswith(("  ", "\n")):  # which joins the line ends with what follows them
        assert build.encoder.decode(ids) == build.encoder.decode(joint)
    else:
        assert ids == joint


# --- truncation

WORDS = st.lists(st.sampled_from(["a", "dog", "rain", "é", "日本", "</s>", "answer:", "\n", "x" * 9]), max_size=12).map(
    " ".join
)
PARTS = st.tuples(WORDS, st.sampled_from(["never", "front", "back"])).map(lambda pair: Part(pair[0], pair[1]))  # type: ignore[arg-type]


@cache
def kept_builder(
    make: Any, template: str | None, format: PromptFormat, limit: int, marked: bool = True
) -> ChainTokenizer:
    return builder(make(template), format, limit=limit, marked=marked)


@st.composite
def prompts(draw: st.DrawFn) -> tuple[Turn, ...]:
    number = draw(st.sampled_from([1, 1, 3, 5]))
    made = [Turn(ROLES[i % 2], tuple(draw(st.lists(PARTS, min_size=1, max_size=3)))) for i in range(number)]
    system = [Turn("system", (Part(draw(WORDS)),))] if draw(st.booleans()) else []
    return (*system, *made)


@pytest.mark.parametrize(
    "make, template, format",
    [
        p
        for p in every_builder()
        if p.id and "character" not in p.id and ("chatml" in p.id or "gemma-u" in p.id or "plain" in p.id)
    ],
)
@settings(max_examples=40, deadline=None)
@given(prompt=prompts(), limit=st.integers(10, 80))
@example(
    prompt=(Turn("system", (Part("a"),)), Turn("user", (Part("a", cut="front"), Part("\n")))), limit=10
)  # white space that is never cut
def test_truncation_keeps_the_budget_and_all_that_is_never_cut(
    make: Any, template: str | None, format: PromptFormat, prompt: tuple[Turn, ...], limit: int
) -> None:
    free, build = kept_builder(make, template, format, 100_000), kept_builder(make, template, format, limit)
    try:
        whole = free.cut_prompt(prompt)
    except Rewritten:  # a template that trims a turn of white space alone
        return
    try:
        cut = build.cut_prompt(prompt)
    except Unusable:
        # all that may go has gone, and the rest is too long
        bare = [turn for turn in prompt if turn.role == "system"] + [
            Turn("user", tuple(part for part in prompt[-1].parts if part.cut == "never"))
        ]
        try:
            least = free.cut_prompt(bare).tokens
        except Rewritten:  # what may never go is white space alone, and is trimmed where it stands alone
            assert not bare[-1].text.strip()
            return
        assert least + 3 * len(prompt[-1].parts) + 3 > limit
        return
    assert cut == build.cut_prompt(prompt)
    assert cut.tokens <= limit and cut.tokens + cut.cut == whole.tokens
    assert (cut == whole) == (whole.tokens <= limit)
    kept = [turn.role for turn in cut.turns if turn.role != "system"]
    assert kept[0] == kept[-1] == "user" and [turn.text for turn in cut.turns if turn.role == "system"] == [
        turn.text for turn in prompt if turn.role == "system"
    ]
    assert cut.turns[-1].text == prompt[-1].text
    ids = build.inference_prompt(cut, "A good answer:")
    assert [build.chain(cut, chain).ids[: len(ids)].tolist() for chain in ((GOOD,), (GOOD, BAD))] == [ids.tolist()] * 2
    markers = [segment for segment in build.segments(cut, (GOOD,)) if segment.kind == "marker"]
    assert len(ids) == cut.tokens + sum(len(build.encoder.segment_ids(segment)) for segment in markers)
    text = build.encoder.decode(ids)
    for part in prompt[-1].parts:
        if part.cut == "never" and make is not unigram:  # which knows no 日本
            assert part.text.strip().replace(" ", "") in text.replace(" ", "")
    assert "�" not in text


def before_the_sentence(build: ChainTokenizer, cut: CutPrompt, marker: str) -> int:
    """Tokens that a chain really has before its first feedback sentence, or before its first output where there is
    none.
    """
    segments = build.segments(cut, (Link(marker, "yes"),))
    assert sum(len(build.encoder.segment_ids(segment)) for segment in segments) == len(
        build.chain(cut, (Link(marker, "yes"),))
    )
    return sum(len(build.encoder.segment_ids(segment)) for segment in segments if segment.kind == "prompt")


@pytest.mark.parametrize("marker", ["A good answer:", ""], ids=["marked", "unmarked"])
@pytest.mark.parametrize("make, template, format", every_builder())
@settings(max_examples=25, deadline=None)
@given(prompt=prompts(), less=st.integers(1, 6))
def test_a_prompt_is_cut_by_exactly_what_is_too_long(
    make: Any, template: str | None, format: PromptFormat, marker: str, prompt: tuple[Turn, ...], less: int
) -> None:
    marked = marker != ""
    free = builder(make(template), format, limit=100_000, marked=marked)
    try:
        whole = free.cut_prompt(prompt)
    except Rewritten:  # a template that trims a turn of white space alone
        return
    tokens = before_the_sentence(free, whole, marker)
    assert whole.tokens == tokens
    free.max_prompt_tokens = tokens
    assert free.cut_prompt(prompt) == whole, "it fits"
    free.max_prompt_tokens = tokens - less
    try:
        cut = free.cut_prompt(prompt)
    except Unusable:
        return
    assert cut.tokens == before_the_sentence(free, cut, marker)
    if not cut.dropped:  # else a whole old turn has gone
        widest = max(
            [1, *(len(char.encode()) for part in prompt[-1].parts for char in part.text)]
        )  # a character of several bytes goes whole
        assert less <= cut.cut < less + widest


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("text", ["\nhello there", "7 dogs", "The dog sleeps.", "Q?"])
@pytest.mark.parametrize("side", ["front", "back"])
def test_a_space_that_the_tokenizer_adds_at_the_head_is_a_token_of_its_own(make: Any, text: str, side: Any) -> None:
    prompt = (Turn("user", (Part(text, side),)),)
    build = builder(make())
    whole = build.cut_prompt(prompt).tokens
    cuttable = (
        len(build.encoder.encode_texts([text], at="head")[0]) - 1
    )  # a tokenizer may join the last one with the line ends that follow
    for limit in range(whole - cuttable, whole):
        build.max_prompt_tokens = limit
        assert build.cut_prompt(prompt).tokens == limit


def test_old_turns_are_dropped_in_pairs_before_anything_is_cut() -> None:
    prompt = talk("one", "two", "three", "four", "five", system="Be kind.")
    whole = builder(character()).cut_prompt(prompt)
    assert whole == CutPrompt(
        whole.turns,
        1 + len("Be kind.\n\nUser: one\n\nAssistant: two\n\nUser: three\n\nAssistant: four\n\nUser: five\n\n"),
    )
    once = builder(character(), limit=whole.tokens - 1).cut_prompt(prompt)
    assert [turn.text for turn in once.turns] == ["Be kind.", "three", "four", "five"] and (once.dropped, once.cut) == (
        2,
        len("User: one\n\nAssistant: two\n\n"),
    )
    twice = builder(character(), limit=20).cut_prompt(prompt)
    assert [turn.text for turn in twice.turns] == ["Be kind.", "five"] and twice.tokens == 1 + len(
        "Be kind.\n\nfive\n\n"
    )


def test_parts_are_cut_from_their_own_side_the_first_part_first() -> None:
    parts = (Part("Title: "), Part("abcdef", "front"), Part("\nPost: "), Part("uvwxyz", "back"), Part("\nTL;DR"))
    prompt = (Turn("user", parts),)
    fixed = 1 + len("Title: \nPost: \nTL;DR\n\n")

    def left(limit: int) -> str:
        build = builder(character(), limit=limit)
        cut = build.cut_prompt(prompt)
        assert cut.tokens == limit
        return build.encoder.decode(build.inference_prompt(cut, "Good:")[1:])

    assert left(fixed + 12) == "Title: abcdef\nPost: uvwxyz\nTL;DR\n\nGood:\n"
    assert left(fixed + 9) == "Title: def\nPost: uvwxyz\nTL;DR\n\nGood:\n"
    assert left(fixed + 4) == "Title: \nPost: uvwx\nTL;DR\n\nGood:\n"
    assert left(fixed) == "Title: \nPost: \nTL;DR\n\nGood:\n"
    with pytest.raises(
        Unusable,
        match=(
            rf"the prompt has {fixed + 12} tokens, {fixed} of them in parts that are never cut, and "
            rf"max_prompt_tokens is {fixed - 1}"
        ),
    ):
        left(fixed - 1)


def test_a_character_of_several_bytes_is_cut_whole() -> None:
    build = builder(byte_level(), limit=12)
    prompt = (Turn("user", (Part("日本日本日本日本", "front"), Part(" now"))),)
    cut = build.cut_prompt(prompt)
    text = build.encoder.decode(build.inference_prompt(cut, "Good:"))
    assert cut.tokens <= 12 and "�" not in text and text.endswith("日本 now\n\nGood:\n")


# --- the cache


FIELDS = [Field(text) for text in ("An apple", "no idea", "", "日本 </s>", " two\n\nlines\n")] + [
    Field("An apple\n\n", "head", True)
]


def unread(encoder: Encoder) -> dict[Field, list[int]]:
    return {field: ids.tolist() for field, ids in zip(FIELDS, encoder.encode_fields(FIELDS), strict=True)}


def test_the_cache_gives_the_same_ids_without_the_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = unread(Encoder(sentencepiece()))
    path = cache_fields(Encoder(sentencepiece()), FIELDS, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    fresh = Encoder(sentencepiece())
    monkeypatch.setattr(
        AnchoredTokenizer, "encode", lambda self, fields: [] if not fields else pytest.fail("encoded again")
    )
    assert cache_fields(fresh, reversed(FIELDS), tmp_path) == path
    assert unread(fresh) == expected


@pytest.mark.parametrize("damage", ["cut short", "empty", "foreign bytes", "another's", "changed ids"])
def test_a_damaged_cache_is_built_again_and_never_trusted(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache_fields(Encoder(sentencepiece()), FIELDS, tmp_path)
    good = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(good[: len(good) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign bytes":
        path.write_bytes(b"\x93NUMPY not at all")
    elif damage == "another's":
        path.write_bytes(cache_fields(Encoder(sentencepiece()), FIELDS[:2], tmp_path / "other").read_bytes())
    else:
        with np.load(path) as file:
            arrays = dict(file)
        arrays["ids"][0] += 1
        np.savez(path, **arrays)
    fresh = Encoder(sentencepiece())
    with caplog.at_level(logging.WARNING):
        cache_fields(fresh, FIELDS, tmp_path)
    assert "is built again" in caplog.text
    assert unread(fresh) == unread(Encoder(sentencepiece()))
    caplog.clear()
    cache_fields(Encoder(sentencepiece()), FIELDS, tmp_path)
    assert not caplog.text


def test_what_is_forgotten_is_found_again_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.sequences.encoder._REMEMBERED", 4)
    encoder, other = Encoder(byte_level()), Encoder(byte_level())
    texts = [f"text number {number}" for number in range(90)]

    def right(some: list[str]) -> bool:
        return all(encoder.encode_texts([text])[0].tolist() == other.encode_texts([text])[0].tolist() for text in some)

    assert right(texts[:30])
    children, own = [], encoder._own
    for start in (30, 50):
        if not (child := os.fork()):
            found = right(texts[start : start + 20]) and right(texts[:30]) and right(texts[40:60])
            os._exit(0 if found and encoder._own is not own else 1)  # which its parent goes on to fill
        children.append(child)
    assert right(texts[30:90]) and right(texts)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert right(texts)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", interrupt)
        cache_fields(Encoder(byte_level()), FIELDS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_cache_follows_the_tokenizer_the_texts_and_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        cache_fields(Encoder(byte_level()), FIELDS, tmp_path),
        cache_fields(Encoder(sentencepiece()), FIELDS, tmp_path),
    ]
    paths.append(cache_fields(Encoder(byte_level()), FIELDS[1:], tmp_path))
    monkeypatch.setattr(field_cache, "VERSION", field_cache.VERSION + 1)

    paths.append(cache_fields(Encoder(byte_level()), FIELDS, tmp_path))
    assert len(set(paths)) == 4


@pytest.mark.parametrize("make, template, format", every_builder())
@pytest.mark.parametrize("marked", [True, False])
def test_the_fields_of_a_record_are_all_that_its_chains_need_but_markers(
    make: Any, template: str | None, format: PromptFormat, marked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = Feedback(
        "r1",
        talk("hi", "hello", "Why?", system="Be kind."),
        (RatedCompletion("yes", revision="yes, well"), RatedCompletion("no")),
    )
    build = builder(make(template), format, marked=marked)
    marker = "A good answer:" if marked else ""
    chains: list[Chain] = [(Link(marker, text),) for text in ("yes", "yes, well", "no")]
    build.encoder.encode_fields(
        [
            *build.fields(feedback),
            Field(marker),
            Field(marker + "\n"),
            Field(marker, "special"),
            Field(" " + marker, "special"),
        ]
    )
    build.encoder.encode_fields(
        [Field(marker + "\n\n", at, True) for at in ("mid", "special")]
        + [Field(" " + marker + "\n\n", "special", True)]
    )
    encode = AnchoredTokenizer.encode

    def only_templates(self: AnchoredTokenizer, fields: Sequence[Field]) -> list[list[int]]:
        if fields and self.backend.encode_special_tokens:
            pytest.fail(f"not among the fields: {fields}")
        return encode(self, fields)

    monkeypatch.setattr(AnchoredTokenizer, "encode", only_templates)
    for chain in chains:
        build.chain(build.cut_prompt(feedback.prompt), chain)


def test_a_record_that_the_template_refuses_has_no_fields_and_is_rejected_with_its_reason() -> None:
    build = builder(byte_level(GEMMA), FORMATS["user"])
    prompt = (Turn("user", (Part("hi"),)), *user("Why?"))
    assert build.fields(Feedback("r1", prompt, (RatedCompletion("yes"),))) == []
    with pytest.raises(Unusable, match="refuses a conversation of the roles user, user, assistant"):
        build.cut_prompt(prompt)


# --- joint and separate


def test_the_boundary_report_counts_what_joint_tokenization_would_change() -> None:
    build = builder(byte_level())
    plain = build.cut_prompt(user("What is a fruit?"))
    assert str(build.boundary_report([(plain, (GOOD, BAD)), (plain, (BAD,))])).startswith(
        "joint tokenization differs in 0 of 2 chains, 0.00%"
    )
    glued = builder(byte_level(), PromptFormat(before_marker="", before_output=""))
    report = glued.boundary_report([(glued.cut_prompt(user("What is a f")), (Link("ruit", "s"),))])
    assert report.chains_that_differ == 1 and 0 < report.tokens_that_differ < report.tokens
    chat = builder(sentencepiece(CHATML), FORMATS["user"])
    assert chat.boundary_report([(chat.cut_prompt(user("What is a fruit?")), (GOOD, BAD))]).chains_that_differ == 0


# --- a real tokenizer


@pytest.mark.realdata
def test_the_tokenizer_of_stories260k() -> None:
    folder = os.environ.get("COH_REAL_DATA")
    if not folder:
        pytest.skip("COH_REAL_DATA, the folder of real data, is not set")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "stories260k")
    build = builder(tokenizer)
    cut = build.cut_prompt(user("Once upon a time there was a dog."))
    made = build.chain(cut, (GOOD, BAD))
    text = "Once upon a time there was a dog.\n\nA good answer:\n"
    assert build.inference_prompt(cut, GOOD.marker).tolist() == tokenizer(text)["input_ids"]
    assert [build.encoder.decode(made.ids[s.start : s.stop]) for s in made.spans] == [
        "An apple is a fruit.</s>",
        "no idea</s>",
    ]
    assert build.boundary_report([(cut, (GOOD, BAD))]).chains_that_differ == 0
