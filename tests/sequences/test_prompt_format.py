"""The text of prompts and chains: which segments, in which order, what is learned. Exact lists."""

from __future__ import annotations

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Part, Role, Turn
from coh_lightning.sequences.chains import Chain, Link, Unusable
from coh_lightning.sequences.chat_layout import make_layout
from coh_lightning.sequences.prompt_format import CutRange, CutTurn, PromptFormat, Segment
from helpers.tokenizers import CHATML, GEMMA, LLAMA2, LLAMA3, MISTRAL, TEMPLATES, THINKING, byte_level, character

GOOD = Link("Good:", "yes", learned=1.0, kind="good")
BAD = Link("Bad:", "no", learned=0.5, unlearned=0.25, kind="bad")
CHAT = PromptFormat(kind="chat")
SYSTEM = PromptFormat(kind="chat", marker_in="system")


def turns(*texts: str, system: str | None = None) -> tuple[CutTurn, ...]:
    """Turns of the user and the assistant by turns, after a system turn."""
    roles: list[Role] = ["user", "assistant"]
    head = [] if system is None else [Turn("system", (Part(system),))]
    return tuple(
        CutTurn.whole(turn) for turn in [*head, *(Turn(roles[i % 2], (Part(text),)) for i, text in enumerate(texts))]
    )


def shown(segments: list[Segment]) -> list[str]:
    return [segment.text for segment in segments]


def plain(
    chain: Chain, *texts: str, system: str | None = None, format: PromptFormat | None = None, bos: bool = False
) -> list[str]:
    return shown(
        make_layout(format or PromptFormat(), character(bos=bos)).segments(turns(*texts, system=system), chain)
    )


def test_a_plain_chain_is_prompt_marker_output_and_end() -> None:
    assert make_layout(PromptFormat(), character()).segments(turns("Why?"), (GOOD, BAD)) == [
        Segment("<s>", special=True, at="head"),
        Segment("Why?\n\n", at="head", more=True),
        Segment("Good:\n", kind="marker", place=0),
        Segment("yes", learned=1.0, kind="good", place=0),
        Segment("</s>", special=True, learned=1.0, kind="end", place=0),
        Segment("\n\nBad:\n", kind="marker", place=1),
        Segment("no", learned=0.5, unlearned=0.25, kind="bad", place=1),
        Segment("</s>", special=True, learned=0.5, unlearned=0.25, kind="end", place=1),
    ]


def test_without_a_marker_only_the_separator_before_the_output_is_left() -> None:
    assert plain((Link("", "yes"), Link("", "no")), "Why?") == ["Why?\n", "yes", "</s>", "\n", "no", "</s>"]


def test_a_plain_conversation_is_labelled_and_a_system_turn_is_a_paragraph() -> None:
    assert plain((GOOD,), "hi", "hello", "Why?") == [
        "User: hi\n\n",
        "Assistant: hello\n\n",
        "User: Why?\n\n",
        "Good:\n",
        "yes",
        "</s>",
    ]
    assert plain((GOOD,), "Why?", system="Be kind.") == ["Be kind.\n\n", "Why?\n\n", "Good:\n", "yes", "</s>"]


def test_spaces_before_an_output_or_a_marker_belong_to_it() -> None:
    format = PromptFormat(before_marker="\n ", before_output=" ")
    assert plain((GOOD, BAD), "Why?", format=format) == ["Why?\n", " Good:", " yes", "</s>", "\n Bad:", " no", "</s>"]
    assert plain((Link("", "yes"),), "Why?", format=format) == ["Why?", " yes", "</s>"]
    assert plain((Link("Good: ", "yes"),), "Why?", format=PromptFormat(before_output="")) == [
        "Why?\n\n",
        "Good:",
        " yes",
        "</s>",
    ]


def test_an_empty_prompt_leaves_no_separator_behind() -> None:
    assert plain((GOOD,), "", bos=True) == ["<s>", "Good:\n", "yes", "</s>"]
    assert plain((GOOD,), "Why?", system="") == ["Why?\n\n", "Good:\n", "yes", "</s>"]
    assert shown(make_layout(CHAT, byte_level(CHATML)).segments(turns(""), (GOOD,)))[:3] == [
        "<|im_start|>user\n",
        "Good:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_a_chat_chain_follows_the_template_and_ends_with_its_end_of_turn() -> None:
    assert make_layout(CHAT, byte_level(CHATML)).segments(turns("Why?"), (GOOD, BAD)) == [
        Segment("<|im_start|>user\n", special=True, at="head", more=True),
        Segment("Why?\n\n", more=True),
        Segment("Good:", kind="marker", place=0),
        Segment("<|im_end|>\n<|im_start|>assistant\n", special=True),
        Segment("yes", learned=1.0, kind="good", place=0),
        Segment("<|im_end|>", special=True, learned=1.0, kind="end", place=0),
        Segment("\n<|im_start|>user\n", special=True, kind="marker", place=1, at="special", more=True),
        Segment("Bad:", kind="marker", place=1),
        Segment("<|im_end|>\n<|im_start|>assistant\n", special=True, kind="marker", place=1),
        Segment("no", learned=0.5, unlearned=0.25, kind="bad", place=1),
        Segment("<|im_end|>", special=True, learned=0.5, unlearned=0.25, kind="end", place=1),
    ]


def test_a_space_of_the_template_belongs_to_the_text_after_it_and_places_after_special_tokens_are_marked() -> None:
    segments = make_layout(CHAT, byte_level(MISTRAL)).segments(turns("Why?", system="Be kind."), (GOOD, BAD))
    assert shown(segments) == [
        "<s>[INST]",
        " Be kind.",
        "\n\n",
        "Why?\n\n",
        "Good:",
        "[/INST]",
        " yes",
        "</s>",
        "[INST]",
        " Bad:",
        "[/INST]",
        " no",
        "</s>",
    ]
    assert [segment.at for segment in segments if not segment.special] == [
        "special",
        "mid",
        "mid",
        "mid",
        "special",
        "mid",
    ]


def test_a_marker_in_the_system_turn() -> None:
    layout = make_layout(SYSTEM, byte_level(CHATML))
    head, tail = (
        "<|im_start|>system\n",
        ["<|im_end|>\n<|im_start|>user\n", "Why?", "<|im_end|>\n<|im_start|>assistant\n", "yes", "<|im_end|>"],
    )
    assert shown(layout.segments(turns("Why?"), (GOOD,))) == [head, "Good:", *tail]
    both = layout.segments(turns("Why?", system="Be kind."), (GOOD, BAD))
    assert shown(both)[:-5] == [head, "Be kind.\n\n", "Good:", *tail]
    assert shown(both)[-5:] == [
        "\n<|im_start|>user\n",
        "Bad:",
        "<|im_end|>\n<|im_start|>assistant\n",
        "no",
        "<|im_end|>",
    ]


def test_where_a_template_takes_no_system_turn_its_text_opens_the_first_user_turn() -> None:
    layout = make_layout(CHAT, byte_level(GEMMA))
    assert shown(layout.segments(turns("Why?", system="Be kind."), (GOOD,)))[:4] == [
        "<s><start_of_turn>user\n",
        "Be kind.\n\n",
        "Why?\n\n",
        "Good:",
    ]
    assert layout.notes == ["The chat template takes no system turn: system text is put before the first user turn."]
    system = make_layout(SYSTEM, byte_level(GEMMA))
    assert shown(system.segments(turns("Why?", system="Be kind."), (GOOD,)))[1:4] == [
        "Be kind.\n\n",
        "Good:\n\n",
        "Why?",
    ]
    assert shown(system.segments(turns("Why?"), (GOOD,)))[1:3] == ["Good:\n\n", "Why?"]


def test_what_a_template_strips_is_stripped_and_outputs_never_are() -> None:
    chain = (Link("Good: ", " yes\n"),)
    stripping = make_layout(CHAT, byte_level(LLAMA3)).segments(turns(" hi ", " hello\n", "\nWhy? "), chain)
    assert [segment.text for segment in stripping if not segment.special] == [
        "hi",
        "hello",
        "Why? \n\n",
        "Good:",
        " yes\n",
    ]
    keeping = make_layout(CHAT, byte_level(CHATML)).segments(turns(" hi ", " hello\n", "\nWhy? "), chain)
    assert [segment.text for segment in keeping if not segment.special] == [
        " hi ",
        " hello\n",
        "\nWhy? \n\n",
        "Good: ",
        " yes\n",
    ]


@pytest.mark.parametrize("system", [None, " Be kind. "])
def test_white_space_is_stripped_exactly_where_the_template_strips_it(
    system: str | None,
) -> None:
    """Llama-2's strips system and first user turn together, so that with a system turn the first user turn keeps its
    leading space and a later one doesn't.
    """
    layout = make_layout(CHAT, character(LLAMA2))
    texts = [" one ", " two ", " three "]
    segments, _ = layout.before_output(turns(*texts, system=system), " Good: ")
    messages = [("system", system)] if system else []
    messages += [
        (role, text)
        for role, text in zip(("user", "assistant", "user"), (*texts[:2], " three \n\n Good: "), strict=True)
    ]
    assert "".join(shown(segments)) == layout.template.render(messages, generation=True)


def test_a_template_that_shows_the_last_output_differently_is_used_as_for_earlier_ones_and_noted() -> None:
    layout = make_layout(CHAT, byte_level(THINKING))
    segments = shown(layout.segments(turns("Why?"), (GOOD, BAD)))
    assert segments[3] == segments[8] == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert len(layout.notes) == 2 and "generation prompt" in layout.notes[0] and "earlier outputs" in layout.notes[1]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_the_joint_text_of_a_chain_is_what_the_template_renders(template: str) -> None:
    tokenizer = byte_level(template)
    layout = make_layout(CHAT, tokenizer)
    text = "".join(shown(layout.segments(turns("hi", "hello", "Why?"), (GOOD, BAD))))
    contents = ["hi", "hello", "Why?\n\nGood:", "yes", "Bad:", "no"]
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    assert rendered.startswith(text) and rendered[len(text) :] in ("", "\n")


def test_stop_ids_are_the_learned_end_and_the_tokenizers_own() -> None:
    tokenizer = byte_level(CHATML)
    numbers = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert list(make_layout(CHAT, tokenizer).stop_ids) == numbers
    assert make_layout(PromptFormat(), tokenizer).stop_ids == (numbers[1],)
    assert make_layout(CHAT, byte_level(MISTRAL)).stop_ids == (numbers[1],)


def test_cut_ranges_are_those_of_the_parts() -> None:
    parts = (Part("Sum: "), Part("a post", "front"), Part("\nTL;DR", "never"), Part(" or so ", "back"))
    turn = CutTurn("user", "".join(part.text for part in parts), parts, (0, 2, 0, 1))
    [prompt, *_] = make_layout(PromptFormat(), character(bos=False)).segments([turn], (GOOD,))
    assert prompt.cut == (CutRange(5, 11, "front", 2), CutRange(17, 24, "back", 1))
    stripped = make_layout(CHAT, byte_level(LLAMA3)).segments(
        [turn._replace(text=" " + turn.text, parts=(Part(" Sum: "), *parts[1:]))], (Link("", "x"),)
    )[1]
    assert (stripped.text, stripped.cut) == (
        "Sum: a post\nTL;DR or so",
        (CutRange(5, 11, "front", 2), CutRange(17, 23, "back", 1)),
    )


def test_chains_that_cannot_be_laid_out_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="did you mean 'chat'"):
        PromptFormat(kind="chta")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no chat template"):
        make_layout(CHAT, byte_level())
    without_end = byte_level()
    without_end.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        make_layout(PromptFormat(), without_end)
    with pytest.raises(InputError, match="no special token after an output"):
        make_layout(CHAT, byte_level("{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"))
    with pytest.raises(InputError, match="instead of once each"):
        make_layout(
            CHAT, byte_level("{% for m in messages %}{{ m['content'] + m['content'] + eos_token }}{% endfor %}")
        )
    with pytest.raises(InputError, match="Link 2 of a chain has no feedback sentence"):
        make_layout(CHAT, byte_level(CHATML)).segments(turns("Why?"), (GOOD, Link("", "no")))


def test_a_prompt_that_the_template_refuses_is_an_unusable_record() -> None:
    with pytest.raises(Unusable, match="refuses a conversation of the roles assistant, user, assistant"):
        make_layout(CHAT, byte_level(GEMMA)).segments([turns("a", "b")[1], *turns("Why?")], (GOOD,))
    with pytest.raises(Unusable, match="must end with a user turn, and this one has the roles user, assistant"):
        make_layout(CHAT, byte_level(CHATML)).segments(turns("Why?", "So."), (GOOD,))
