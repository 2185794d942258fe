"""Exported chat templates give the prompt ids of training, for every format, kind of tokenizer and sentence."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2.exceptions import TemplateError

from coh_lightning.errors import InputError
from coh_lightning.export.chat_template import PROBES, check_template, exported_template
from coh_lightning.feedback.turns import Part, Role, Turn
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Link
from coh_lightning.sequences.chat_layout import make_layout
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.tokenizers import CHATML, GEMMA, MAKERS, MISTRAL, TEMPLATES, THINKING, byte_level, character

ASKS = {
    "good": "A helpful answer:",
    "bad": 'An "unhelpful" answer \\ {{ x }} %} — é:',
    "good accuracy": "An answer with excellent accuracy:",
    "none": "",
}
FORMATS = {
    "plain": PromptFormat(),
    "spaces": PromptFormat(before_marker=" ", before_output=" "),
    "both": PromptFormat(before_marker="\n ", before_output=" \n ", user_label="Q {{", assistant_label="end"),
    "nothing": PromptFormat(before_output=""),
    "chat": PromptFormat("chat"),
    "system": PromptFormat("chat", marker_in="system"),
    "one line": PromptFormat("chat", before_marker=" "),
}


def tokens(tokenizer: Any, format: PromptFormat) -> ChainTokenizer:
    return ChainTokenizer(Encoder(tokenizer), format, max_prompt_tokens=1000)


def asking(tokenizer: Any, format: PromptFormat, asks: dict[str, str] = ASKS) -> tuple[ChainTokenizer, str]:
    made = tokens(tokenizer, format)
    return made, exported_template(made.layout, asks)


def turns(*texts: str, system: str | None = None) -> tuple[Turn, ...]:
    roles: list[Role] = ["user", "assistant"]
    return tuple(
        [
            *([] if system is None else [Turn("system", (Part(system),))]),
            *(Turn(roles[i % 2], (Part(text),)) for i, text in enumerate(texts)),
        ]
    )


def messages(prompt: tuple[Turn, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in prompt]


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.kind == "plain"])
@pytest.mark.parametrize("maker", MAKERS)
def test_plain_prompts_have_the_ids_of_training(maker: str, format: str) -> None:
    made, template = asking(MAKERS[maker](), FORMATS[format])
    assert check_template(made, template, ASKS) == []


@pytest.mark.parametrize("format", [name for name, one in FORMATS.items() if one.kind == "chat"])
@pytest.mark.parametrize("style", [*TEMPLATES, "thinking"])
@pytest.mark.parametrize("maker", ["byte_level", "sentencepiece"])
def test_chat_prompts_have_the_ids_of_training(maker: str, style: str, format: str) -> None:
    made, template = asking(MAKERS[maker]((TEMPLATES | {"thinking": THINKING})[style]), FORMATS[format])
    # byte-level tokenizers join the line end of "<|im_start|>user\n" with one that begins the text
    joined = (
        [f"texts that begin with a line end under '{name}'" for name in ASKS]
        if maker == "byte_level" and style in ("chatml", "thinking")
        else []
    )
    assert [one.what for one in check_template(made, template, ASKS)] == joined


def test_a_tokenizer_whose_joint_ids_differ_is_reported() -> None:
    made, template = asking(MAKERS["unigram"](MISTRAL), PromptFormat("chat"))
    assert "system, user under 'good'" in [one.what for one in check_template(made, template, ASKS)]


def test_a_template_that_differs_from_training_is_found() -> None:
    made, template = asking(byte_level(CHATML), PromptFormat("chat"))
    with pytest.raises(InputError, match=r"it gives '.*assi', but the training prompt is '.*assi'"):
        check_template(made, template.replace("<|im_start|>assistant", "<|im_start|> assistant"), ASKS)


@pytest.mark.parametrize("format", ["plain", "spaces", "chat", "system"])
def test_odd_prompts_have_the_text_of_training(format: str) -> None:
    tokenizer = character() if FORMATS[format].kind == "plain" else byte_level(GEMMA)
    made, template = asking(tokenizer, FORMATS[format])
    for prompt in (turns("x", system=""), turns("a", "", "b"), turns(" x ", " y ", "\nz\n", system=" s ")):
        cut = made.cut_prompt(prompt)
        wanted = "".join(segment.text for segment in made.layout.before_output(cut.turns, ASKS["bad"])[0])
        given: dict[str, Any] = {
            "chat_template": template,
            "feedback": "bad",
            "add_generation_prompt": True,
            "tokenize": False,
        }
        assert tokenizer.apply_chat_template(messages(prompt), **given) == wanted


def test_the_good_sentence_is_used_unless_another_is_named_or_given() -> None:
    tokenizer = character()
    _, template = asking(tokenizer, PromptFormat())

    def prompt(**variables: Any) -> str:
        given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, "tokenize": False}
        return str(tokenizer.apply_chat_template([{"role": "user", "content": "Why?"}], **given, **variables))

    assert prompt() == prompt(feedback=None) == "<s>Why?\n\nA helpful answer:\n"
    assert prompt(feedback="good accuracy") == "<s>Why?\n\nAn answer with excellent accuracy:\n"
    assert prompt(feedback_sentence="Some {{ words }}:") == "<s>Why?\n\nSome {{ words }}:\n"
    assert prompt(feedback_sentence="") == "<s>Why?\n"
    with pytest.raises(
        TemplateError,
        match="There is no feedback 'godo'; known are good, bad, good accuracy, none; or give a feedback_sentence",
    ):
        prompt(feedback="godo")


@pytest.mark.parametrize(
    ("style", "format"),
    [(None, "plain"), (None, "spaces"), *((style, "chat") for style in TEMPLATES), ("gemma", "system")],
)
def test_a_conversation_with_its_answer_is_a_training_chain_and_begins_with_its_prompt(
    style: str | None, format: str
) -> None:
    tokenizer = byte_level(TEMPLATES[style] if style else None)
    made, template = asking(tokenizer, FORMATS[format])
    for probe in PROBES:
        chain = made.segments(made.cut_prompt(probe), (Link(ASKS["good"], "yes"),))
        answered = [*messages(probe), {"role": "assistant", "content": "yes"}]
        text = str(tokenizer.apply_chat_template(answered, chat_template=template, tokenize=False))
        assert text.removesuffix("\n") == "".join(segment.text for segment in chain)
        prompt = str(
            tokenizer.apply_chat_template(
                messages(probe), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
        assert text.startswith(prompt)


EVERY = [(None, "plain"), (None, "spaces"), ("chatml", "chat"), ("gemma", "chat"), ("mistral", "system")]


@pytest.mark.parametrize(("style", "format"), EVERY)
def test_contents_in_parts_are_their_texts(style: str | None, format: str) -> None:
    tokenizer = byte_level(TEMPLATES[style] if style else None)
    _, template = asking(tokenizer, FORMATS[format])
    parts = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": []},
        {"role": "assistant", "content": [{"type": "text", "text": ""}, {"type": "text", "text": " Hello."}]},
        {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]},
    ]
    texts = [
        {"role": role, "content": content}
        for role, content in (("system", "Be brief."), ("user", ""), ("assistant", " Hello."), ("user", "Why?"))
    ]
    for answer in ([], [{"role": "assistant", "content": [{"type": "text", "text": "So."}]}]):
        given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": not answer, "tokenize": False}
        answered = [{"role": "assistant", "content": "So."}] if answer else []
        text = str(tokenizer.apply_chat_template(parts + answer, **given))  # type: ignore[operator]
        assert text == tokenizer.apply_chat_template(texts + answered, **given) and "[{" not in text


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            {"role": "tool", "content": "7"},
            "Message 2 has the role 'tool'; this model knows system, user and assistant.",
        ),
        (
            {"role": "developer", "content": "Be brief."},
            "Message 2 has the role 'developer'; this model knows system, user and assistant.",
        ),
        ({"role": "User", "content": "x"}, "Message 2 has the role 'User'"),
        ({"role": "", "content": "x"}, "Message 2 has the role ''"),
        ({"content": "x"}, "Message 2 has the role ''"),
        (
            {"role": "user", "content": None},
            "Message 2 has the content null; it must be a text or a list of text parts.",
        ),
        ({"role": "user"}, "Message 2 has the content null"),
        ({"role": "user", "content": 7}, "Message 2 has the content 7"),
        ({"role": "user", "content": {"text": "x"}}, "Message 2 has the content {'text': 'x'}"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "Message 2 has 'tool_calls', which this model was not trained on",
        ),
        (
            {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]},
            "Message 2 has 'tool_calls', which this model was not trained on",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
            "Message 2 has a part that is not text (image_url); this model reads text only.",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]},
            "Message 2 has a part that is not text (image)",
        ),
        ({"role": "user", "content": [{"type": "text", "text": None}]}, "Message 2 has a part that is not text (text)"),
        ({"role": "user", "content": ["x"]}, "Message 2 has a part that is not text (x)"),
        ({"role": "user", "content": [None]}, "Message 2 has a part that is not text (None)"),
    ],
)
@pytest.mark.parametrize(("style", "format"), EVERY)
def test_messages_unlike_training_raise(style: str | None, format: str, message: dict[str, Any], sentence: str) -> None:
    tokenizer = byte_level(TEMPLATES[style] if style else None)
    _, template = asking(tokenizer, FORMATS[format])
    listed: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, message, {"role": "user", "content": "Why?"}]
    for conversation in (listed, listed[:2]):
        with pytest.raises(TemplateError) as raised:
            tokenizer.apply_chat_template(
                conversation, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        assert sentence in str(raised.value)


@pytest.mark.parametrize(("style", "format"), EVERY)
def test_tools_and_empty_conversations_raise(style: str | None, format: str) -> None:
    tokenizer = byte_level(TEMPLATES[style] if style else None)
    _, template = asking(tokenizer, FORMATS[format])
    tool = {
        "type": "function",
        "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
    }
    asked = [{"role": "user", "content": "Hi"}]
    given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, "tokenize": False}
    with pytest.raises(TemplateError, match="trained on conversations without tools"):
        tokenizer.apply_chat_template(asked, tools=[tool], **given)
    with pytest.raises(
        (TemplateError, ValueError), match=r"There are no messages|empty conversation"
    ):  # newer transformers refuse it themselves
        tokenizer.apply_chat_template([], **given)
    assert tokenizer.apply_chat_template(asked, tools=[], **given) == tokenizer.apply_chat_template(asked, **given)


def test_thinking_beside_the_content_raises_where_it_would_be_dropped() -> None:
    tokenizer = byte_level()
    _, template = asking(tokenizer, PromptFormat())
    listed = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        {"role": "user", "content": "Why?"},
    ]
    with pytest.raises(TemplateError, match=r"Message 2 has 'reasoning_content'"):
        tokenizer.apply_chat_template(listed, chat_template=template, tokenize=False)


def test_an_answer_that_has_begun_is_continued() -> None:
    tokenizer = byte_level()
    made, template = asking(tokenizer, PromptFormat())
    begun = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": [{"type": "text", "text": "Since"}]}]
    text = str(
        tokenizer.apply_chat_template(begun, chat_template=template, continue_final_message=True, tokenize=False)
    )
    prompt = "".join(
        segment.text for segment in made.layout.before_output(made.cut_prompt(turns("Why?")).turns, ASKS["good"])[0]
    )
    assert text == prompt + "Since"


@pytest.mark.parametrize(
    ("style", "format"), [*((style, "chat") for style in TEMPLATES), ("gemma", "system"), (None, "plain")]
)
def test_training_on_an_exported_template_adds_no_second_sentence(style: str | None, format: str) -> None:
    tokenizer = byte_level(TEMPLATES[style] if style else None)
    first, template = asking(tokenizer, FORMATS[format])
    tokenizer.chat_template = template
    second, again = asking(tokenizer, FORMATS[format], {"good": "Second sentence:"})
    for probe in PROBES:
        assert (
            second.inference_prompt(second.cut_prompt(probe), "x y").tolist()
            == first.inference_prompt(first.cut_prompt(probe), "x y").tolist()
        )
    asks = {"good": "Second sentence:"}
    assert [one.what for one in check_template(second, again, asks)] == [
        one.what for one in check_template(first, exported_template(first.layout, asks), asks)
    ]


def test_a_template_that_can_not_end_where_outputs_begin_is_refused() -> None:
    odd = """{% for m in messages %}{{ m['role'] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}\
{{ 'assistant> ' if add_generation_prompt else '</s>' }}"""
    with pytest.raises(InputError, match=r"ends a prompt with .*, but puts outputs after .*; choose a tokenizer"):
        make_layout(PromptFormat("chat"), byte_level(odd))
