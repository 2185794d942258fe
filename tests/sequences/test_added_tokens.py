"""What people's text makes of a tokenizer's added tokens, of every kind: special, in brackets, words, white space."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from coh_lightning.errors import InputError
from coh_lightning.export.chat_template import check_template, exported_template
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.sequences.added_tokens import is_control
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Link
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.tokenizers import CHATML, MAKERS, REASONING, byte_level, character, sentencepiece

FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")
THINK = ("<think>", "</think>")
KEPT = PromptFormat("chat", kept_tokens=THINK)


def with_added(make: Any, *contents: str, template: str | None = None, **flags: bool) -> Any:
    tokenizer = make(template)
    tokenizer.add_tokens([AddedToken(content, **({"normalized": False} | flags)) for content in contents])
    return tokenizer


def builder(tokenizer: Any, format: PromptFormat) -> ChainTokenizer:
    return ChainTokenizer(Encoder(tokenizer, keep=format.kept_tokens), format, max_prompt_tokens=1000)


def user(text: str) -> tuple[Turn, ...]:
    return (Turn("user", (Part(text),)),)


@pytest.mark.parametrize(
    "flags",
    list(itertools.product([False, True], repeat=len(FLAGS))),
    ids=lambda flags: "+".join(itertools.compress(FLAGS, flags)) or "none",
)
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_no_control_token_of_any_kind_comes_out_of_peoples_text(make: Any, flags: tuple[bool, ...]) -> None:
    contents = ("<tool_call>", "[TOOL]", "<|x y|>")
    tokenizer = with_added(make, *contents, **dict(zip(FLAGS, flags, strict=True)))
    encoder = Encoder(tokenizer)
    numbers = set(tokenizer.convert_tokens_to_ids(list(contents)))
    texts = [
        around.replace("@", content)
        for content in contents
        for around in ("@", "a@b", "a @ b", "@@", "\n@\n", "x @", "@ x", ". @ .")
    ]
    for at in ("head", "special", "mid"):
        for text, ids in zip(texts, encoder.encode_texts(texts, at=at), strict=True):  # type: ignore[arg-type]
            assert numbers.isdisjoint(ids.tolist()), text
            assert encoder.decode(ids).replace(" ", "") == text.replace(" ", "")
    own = dict(zip(FLAGS, flags, strict=True))
    if own["single_word"] or own["normalized"]:
        return  # such tokens are found in some places only
    for content, number in zip(contents, tokenizer.convert_tokens_to_ids(list(contents)), strict=True):
        assert encoder.template_ids(content).tolist() == [number], "a template's own stays what it is"


@pytest.mark.parametrize(
    "flags",
    list(itertools.product([False, True], repeat=4)),
    ids=lambda flags: "+".join(itertools.compress(FLAGS[1:], flags)) or "none",
)
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_kept_token_is_where_the_tokenizer_itself_puts_it(make: Any, flags: tuple[bool, ...]) -> None:
    tokenizer = with_added(make, "<think>", **dict(zip(FLAGS[1:], flags, strict=True)))
    encoder = Encoder(tokenizer, keep=["<think>"])
    texts = [around.replace("@", "<think>") for around in ("@", "a@b", "a @ b", "@@", "x @", "@ x", ". @ .", "@a. b")]
    assert [ids.tolist() for ids in encoder.encode_texts(texts, at="head")] == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    ]


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_a_kept_token_is_one_id_and_a_token_next_to_it_is_spelled_out(make: Any) -> None:
    tokenizer = with_added(make, *THINK, "<tool_call>")
    think, end, call = tokenizer.convert_tokens_to_ids([*THINK, "<tool_call>"])
    encoder = Encoder(tokenizer, keep=THINK)
    text = "<think>a b.</think>\n\nyes <tool_call>"
    ids = encoder.encode_texts([text])[0].tolist()
    assert (ids[0], ids.count(think), ids.count(end), ids.count(call)) == (think, 1, 1, 0)
    assert encoder.decode(ids).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("make", [byte_level, sentencepiece, character])
def test_added_words_and_white_space_are_vocabulary(make: Any) -> None:
    tokenizer = with_added(make, "apple", "\n\n", "  ")
    numbers = tokenizer.convert_tokens_to_ids(["apple", "\n\n", "  "])
    ids = Encoder(tokenizer).encode_texts(["an apple\n\nor  two"])[0].tolist()
    assert [ids.count(number) for number in numbers] == [1, 1, 1]


@pytest.mark.parametrize(
    ("content", "control"),
    [
        *(
            (content, True)
            for content in (
                "<think>",
                "</think>",
                "<|fim_prefix|>",
                "<｜User｜>",
                "[TOOL_CALLS]",
                "{{user}}",
                "<extra_id_0>",
                "▁<x>",
                "<s> ",
            )
        ),
        *(
            (content, False)
            for content in (
                "apple",
                "\n\n",
                "  ",
                "▁▁",
                "<",
                "<>",
                "[]",
                ">>>",
                "->",
                "C++",
                "Human:",
                "<unclosed",
                "1",
                "日",
            )
        ),
    ],
)
def test_control_tokens_are_known_by_their_brackets(content: str, control: bool) -> None:
    assert is_control(content) == control


@cache
def two_encoders(make: Any) -> tuple[Encoder, Encoder]:
    return Encoder(make()), Encoder(with_added(make, "<think>", "[TOOL]", "<|x|>"))


@pytest.mark.parametrize("make", [byte_level, sentencepiece, character])
@settings(max_examples=200, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(["<think>", "<think", "think>", "[TOOL]", "<|x|>", "<", " ", "\n", "apple", "a", "."]),
        max_size=8,
    ).map("".join)
)
def test_spelled_out_means_the_ids_of_the_tokenizer_without_the_token(make: Any, text: str) -> None:
    without, having = two_encoders(make)
    assert having.encode_texts([text])[0].tolist() == without.encode_texts([text])[0].tolist()


def test_what_models_write_is_shown_with_its_control_tokens_and_without_the_special_ones() -> None:
    tokenizer = with_added(byte_level, *THINK)
    encoder = Encoder(tokenizer)
    ids = encoder.template_ids("<think>a</think>yes<|im_end|>")
    assert encoder.decode(ids, skip_special_tokens=True) == "<think>a</think>yes"


def test_what_can_not_be_kept_is_refused_in_one_sentence() -> None:
    tokenizer = with_added(byte_level, *THINK)
    for keep, message in (
        (
            ["<thnk>"],
            "prompt_format.kept_tokens names '<thnk>', which is not an added token of the tokenizer; did you mean "
            "'<think>'",
        ),
        (["yes"], "names 'yes', which is not an added token of the tokenizer; remove it from the list"),
        (["<|im_end|>"], "names '<|im_end|>', a special token of the tokenizer, which no text may become"),
    ):
        with pytest.raises(InputError) as refused:
            Encoder(tokenizer, keep=keep)
        assert message in str(refused.value)
    with pytest.raises(ValueError, match=r"keeps \(\), the prompt format \('<think>'"):
        ChainTokenizer(Encoder(tokenizer), KEPT, max_prompt_tokens=10)


def test_added_tokens_in_texts_are_counted_and_reported(tmp_path: Path) -> None:
    tokenizer = with_added(byte_level, *THINK, "<tool_call>", template=CHATML)
    fields = [
        Field("<think>a<think></think>"),
        Field("<think>b"),
        Field("<think>b", "special"),
        Field("</s> and <tool_call>"),
        Field("plain"),
    ]
    made = builder(tokenizer, PromptFormat("chat"))
    cache_fields(made.encoder, fields, tmp_path)
    special, control = made.notes_on_texts()
    assert special == "Special tokens in the data's texts are spelled out: '</s>' in 1 text."
    assert control.startswith(
        "Added tokens in the data's texts are spelled out: '<think>' in 2 texts, '</think>' in 1 text, '<tool_call>' "
        "in 1 text. "
    )
    assert control.endswith("data.prompt_format.kept_tokens=['<think>','</think>','<tool_call>'].")
    again = builder(tokenizer, KEPT)
    cache_fields(again.encoder, fields, tmp_path)
    assert (
        again.notes_on_texts()[2]
        == "Added tokens in the data's texts are kept as tokens: '<think>' in 2 texts, '</think>' in 1 text."
    )
    assert len(list(tmp_path.iterdir())) == 2, "other ids are another cache"
    assert (
        again.encoder.encode_fields(fields[:1])[0].tolist()
        == Encoder(tokenizer, keep=THINK).encode_fields(fields[:1])[0].tolist()
    )


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_with_kept_tokens_training_inference_and_the_exported_template_have_the_same_ids(make: Any) -> None:
    tokenizer = with_added(make, *THINK, template=CHATML)
    made = builder(tokenizer, KEPT)
    prompt = made.cut_prompt(user("Say <think> to me."))
    chain = made.chain(prompt, (Link("Good:", "<think>hm</think>yes", learned=1.0),))
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert chain.ids.tolist().count(think) == 2 and chain.ids[chain.spans[0].start] == think
    template = exported_template(made.layout, {"good": "Good:"})
    messages = [{"role": "user", "content": "Say <think> to me."}]
    asked = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    assert asked == made.inference_prompt(prompt, "Good:").tolist() == chain.ids[: len(asked)].tolist()
    assert made.boundary_report([(prompt, (Link("Good:", "yes"),))]).chains_that_differ == 0
    assert "earlier turns that think under 'good'" not in [
        one.what for one in check_template(made, template, {"good": "Good:"})
    ]


def test_line_ends_before_a_kept_token_are_encoded_as_before_it() -> None:
    tokenizer = with_added(byte_level, *THINK)
    made = builder(tokenizer, PromptFormat(kept_tokens=THINK))
    prompt = made.cut_prompt((Turn("system", (Part("Be kind."),)), *user("<think> is a word?")))
    assert (
        made.inference_prompt(prompt, "Good:").tolist()
        == tokenizer("Be kind.\n\n<think> is a word?\n\nGood:\n")["input_ids"]
    )


def test_spelled_out_tokens_are_in_the_comparison_of_an_exported_template() -> None:
    made = builder(with_added(byte_level, *THINK, template=CHATML), PromptFormat("chat"))
    found = {
        one.what: one
        for one in check_template(made, exported_template(made.layout, {"good": "Good:"}), {"good": "Good:"})
    }
    assert found["earlier turns that think under 'good'"].given == ("<think>",)
    dropping = builder(with_added(byte_level, *THINK, template=REASONING), PromptFormat("chat"))
    found = {
        one.what: one
        for one in check_template(dropping, exported_template(dropping.layout, {"good": "Good:"}), {"good": "Good:"})
    }
    assert "earlier turns that think under 'good'" not in found


def test_a_tokenizer_without_a_fast_version_is_refused() -> None:
    tokenizer = byte_level()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="has no fast version"):
        patch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
        Encoder(tokenizer)
