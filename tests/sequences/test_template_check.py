"""What a chat template does to texts: changes are refused at set-up, rewritten turns are trained on as the template
shows them, and an export asks with the same.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from coh_lightning.errors import InputError
from coh_lightning.export.chat_template import exported_template
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Link, Unusable
from coh_lightning.sequences.chat_layout import make_layout
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.prompt_format import CutTurn, PromptFormat
from coh_lightning.sequences.template_check import Rewritten, shown_turns
from coh_lightning.sequences.tokenizer_template import first_difference
from helpers.feedback import data_of, pairs
from helpers.tokenizers import CHATML, LLAMA2, NO_EMPTY_SYSTEM, REASONING, REWRITING, TEMPLATES, byte_level, character

CHAT, SYSTEM = PromptFormat("chat"), PromptFormat("chat", marker_in="system")
FORMATS = {
    "plain": PromptFormat(),
    "spaces": PromptFormat(before_marker=" ", before_output=" "),
    "user": CHAT,
    "system": SYSTEM,
}
STYLES: dict[str, str | None] = {**TEMPLATES, "llama2": LLAMA2, **REWRITING}
ASKS = {"good": "A good answer:", "none": ""}


def talk(*texts: str, system: str | None = None) -> tuple[Turn, ...]:
    head = [] if system is None else [Turn("system", (Part(system),))]
    return (*head, *(Turn("assistant" if index % 2 else "user", (Part(text),)) for index, text in enumerate(texts)))


@cache
def built(make: Any, style: str | None, format: str) -> tuple[ChainTokenizer, str]:
    made = ChainTokenizer(Encoder(make(STYLES[style] if style else None)), FORMATS[format], max_prompt_tokens=10_000)
    return made, exported_template(made.layout, ASKS)


def prompted(made: ChainTokenizer, template: str, messages: Any, *, name: str = "good", tokenize: bool = False) -> Any:
    given_: dict[str, Any] = {
        "chat_template": template,
        "add_generation_prompt": True,
        "feedback": name,
        "return_dict": False,
    }
    return made.encoder.tokenizer.apply_chat_template(messages, tokenize=tokenize, **given_)


# An export asks as in training

PIECES = [
    "<think>",
    "</think>",
    "hm",
    " ",
    "\n",
    "\n\n",
    "a <b> & c",
    "'x'",
    '"',
    "{{ y }}",
    "/no_think",
    "\\n",
    "%",
    "Hi.",
    "\t",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
LAST = TEXTS.filter(lambda text: text.strip() != "")  # as in records


@pytest.mark.parametrize(
    ("style", "format"),
    [(None, "plain"), (None, "spaces"), *((style, place) for style in STYLES for place in ("user", "system"))],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_conversation_gives_the_text_and_ids_of_training(
    style: str | None, format: str, data: st.DataObject
) -> None:
    made, template = built(character, style, format)
    earlier = data.draw(st.lists(TEXTS, max_size=4).map(lambda texts: texts[: len(texts) // 2 * 2]))
    prompt = talk(*earlier, data.draw(LAST), system=data.draw(st.none() | TEXTS))
    try:
        cut = made.cut_prompt(prompt)
    except Rewritten:  # left out of training
        assert style in REWRITING or any(turn.text.isspace() for turn in prompt)
        return
    for name, marker in ASKS.items():
        messages = [{"role": turn.role, "content": turn.text} for turn in prompt]
        text = "".join(segment.text for segment in made.layout.before_output(cut.turns, marker)[0])
        assert prompted(made, template, messages, name=name) == text
        parts = [
            {"role": turn.role, "content": [{"type": "text", "text": letter} for letter in turn.text]}
            for turn in prompt
        ]
        assert prompted(made, template, parts, name=name) == text
        assert (
            prompted(made, template, messages, name=name, tokenize=True) == made.inference_prompt(cut, marker).tolist()
        )


def test_thinking_that_the_template_drops_is_not_trained_on_and_reported() -> None:
    made, template = built(byte_level, "reasoning", "user")
    prompt = talk("Hi", "<think>\nA greeting.\n</think>\n\nHello.", "Why?")
    cut = made.cut_prompt(prompt)
    assert cut.turns[1] == CutTurn("assistant", "Hello.", (Part("Hello."),)) and cut.turns[::2] == (
        CutTurn.whole(prompt[0]),
        CutTurn.whole(prompt[2]),
    )
    assert made.notes_on_texts() == [
        "The chat template rewrites 1 turn of prompts, and training shows them as it does, e.g. '<think>\\nA "
        "greeting.\\n</think>\\n\\nHello.' as 'Hello.'."
    ]
    messages = [{"role": turn.role, "content": turn.text} for turn in prompt]
    chain = made.chain(cut, (Link("A good answer:", "So."),))
    assert prompted(made, template, messages, tokenize=True) == chain.ids[: chain.spans[0].start].tolist()


def test_a_template_that_trims_is_followed_and_reported() -> None:
    made = ChainTokenizer(Encoder(byte_level(TEMPLATES["llama3"])), CHAT, max_prompt_tokens=100)
    made.cut_prompt(talk("Hi"))
    assert made.notes_on_texts() == []
    made.cut_prompt(talk(" Hi", "Yes.\n", "Why?"))
    assert made.notes_on_texts() == [
        "The chat template trims texts, and training does so too: 2 of the turns of prompts. Outputs are kept as "
        "they are."
    ]


def test_a_rewritten_turn_keeps_what_may_be_cut() -> None:
    made, _ = built(character, "flagged", "user")
    parts = (Part("Sum: "), Part("a long post", "back"), Part("/no_think"))
    turn = made.cut_prompt((Turn("user", parts),)).turns[0]
    assert turn.text == "Sum: a long post" and turn.parts == (Part("Sum: "), Part("a long post", "back"), Part(""))
    [only] = made.cut_prompt((Turn("user", (Part("a /no_think b", "front"),)),)).turns
    assert (only.text, only.parts) == ("a  b", (Part("a  b", "front"),))


def test_an_empty_system_turn_is_what_the_template_makes_of_it() -> None:
    tokenizer = byte_level(NO_EMPTY_SYSTEM)
    layout = make_layout(CHAT, tokenizer)
    empty, without = (
        layout.segments(shown_turns(layout, talk("Why?", system=system)), (Link("Good:", "yes"),))
        for system in ("", None)
    )
    assert [segment.text for segment in empty] == [segment.text for segment in without]


def test_a_conversation_that_can_not_be_followed_is_an_unusable_record() -> None:
    grouping = CHATML.replace("{% for m in messages %}", "{% for m in messages if 'secret' not in m['content'] %}")
    made = ChainTokenizer(Encoder(byte_level(grouping)), CHAT, max_prompt_tokens=100)
    assert made.cut_prompt(talk("Hi", "Yes.", "Why?")).dropped == 0
    with pytest.raises(
        Unusable,
        match=r"the chat template doesn't show this conversation turn by turn: '.*' instead of '.*secret",
    ):
        made.cut_prompt(talk("Hi", "a secret", "Why?"))


def test_a_template_that_writes_the_date_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = built(byte_level, "dated", "user")
    before = made.inference_prompt(made.cut_prompt(talk("Why?")), "Good:").tolist()
    made.layout.tokenizer.chat_template = made.layout.template.text.replace("Today is", "It is now")  # the next day
    assert made.inference_prompt(made.cut_prompt(talk("Why?")), "Good:").tolist() == before
    assert "today's date" in made.notes[0]


# What set-up says


@pytest.fixture
def reasoner(tmp_path: Path) -> str:
    tokenizer = byte_level(REASONING)
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_set_up_says_what_the_template_and_the_tokenizer_make_of_the_texts(reasoner: str, tmp_path: Path) -> None:
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>Hm.</think>Yes."},
        {"role": "user", "content": "Why?"},
    ]
    rows = [
        {"prompt": history, "completions": [{"text": "<think>A.</think>B.", "rank": 1}, {"text": "No.", "rank": 2}]},
        {"prompt": "Say </s>.", "completions": [{"text": "Good.", "rank": 1}, {"text": "Bad.", "rank": 2}]},
    ]
    data = data_of(rows, tmp_path, tokenizer=reasoner, prompt_format=CHAT)
    data.setup()
    assert data.notes[2:] == [
        "Special tokens in the data's texts are spelled out: '</s>' in 1 text.",
        "Added tokens in the data's texts are spelled out: '</think>' in 2 texts, '<think>' in 2 texts. Servers "
        "that use an exported model's chat template read them as tokens; if the model itself is to write them, keep "
        "them as tokens: data.prompt_format.kept_tokens=['</think>','<think>'].",
        "The chat template rewrites 1 turn of prompts, and training shows them as it does, e.g. "
        "'<think>Hm.</think>Yes.' as 'Yes.'.",
        "The chat template shows 2 of the first 8 outputs as something other than training learns, e.g. "
        "'sistant\\n<think>\\nA.\\n</think>\\n\\nB.<|' "
        "for 'sistant\\n<think>\\n\\n</think>\\n\\n<think>A.</think>B.<|'; give outputs as the template shows them, "
        "or use prompt_format plain.",
    ]
    assert all(note in dict.fromkeys(text for _, text in data.summary()) for note in data.notes)
    kept = data_of(
        rows, tmp_path, tokenizer=reasoner, prompt_format=PromptFormat("chat", kept_tokens=("<think>", "</think>"))
    )
    kept.setup()
    assert (
        "Added tokens in the data's texts are kept as tokens: '</think>' in 2 texts, '<think>' in 2 texts."
        in kept.notes
    )


def test_records_that_the_template_shows_differently_are_left_out_with_their_reason(tmp_path: Path) -> None:
    grouping = CHATML.replace("{% for m in messages %}", "{% for m in messages if 'secret' not in m['content'] %}")
    byte_level(grouping).save_pretrained(tmp_path / "tokenizer")
    rows = [
        *pairs(4),
        {
            "prompt": [{"role": "system", "content": "a secret"}, {"role": "user", "content": "Hi"}],
            "completions": pairs(1)[0]["completions"],
        },
    ]
    data = data_of(rows, tmp_path, tokenizer=str(tmp_path / "tokenizer"), prompt_format=CHAT)
    data.setup()
    [lost] = data.rejected
    assert lost.reason.startswith(
        "the chat template doesn't show this conversation turn by turn"
    ) and lost.where.endswith(":5")


def test_a_checkpoint_is_of_one_chat_template(tmp_path: Path) -> None:
    made = {}
    for name, template in (("one", CHATML), ("other", CHATML.replace("assistant", "model"))):
        byte_level(template).save_pretrained(tmp_path / name)
        made[name] = data_of(pairs(4), tmp_path, tokenizer=str(tmp_path / name), prompt_format=CHAT)
        made[name].setup()
    saved = made["one"].settings()
    made["one"].agree_with(saved)
    with pytest.raises(InputError, match=r"chat template of .*other' is not the one that the checkpoint was trained"):
        made["other"].agree_with(saved)
    kept = saved | {"prompt_format": saved["prompt_format"] | {"kept_tokens": ["<x>"]}}
    with pytest.raises(
        InputError, match=r"data.prompt_format.kept_tokens is \[\], but the checkpoint was trained with \['<x>'\]"
    ):
        made["one"].agree_with(kept)


# A template that changes texts

FILTERS = {
    "tojson": "instead of once each|changes the texts",
    "escape": "it shows '.*<b>.*' as '.*&lt;b&gt;",
    "e": "it shows '.*<b>.*' as '.*&lt;b&gt;",
    "forceescape": "changes the texts",
    "replace('<', '(')": r"it shows '.*<b>.*' as '.*\(b>",
    "replace('\\n', ' ')": "changes the texts",
    "striptags": "changes the texts",
    "urlencode": "changes the texts",
    "truncate(30)": "changes the texts",
    "wordwrap(20)": "changes the texts",
    "indent": "changes the texts",
    "upper": "instead of once each",
    "lower": "instead of once each",
    "title": "instead of once each",
    "replace('{', '[')": "changes the texts",
    "replace('\\\\n', '\\n')": "changes the texts",
}


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_template_that_changes_texts_is_refused_at_set_up(name: str, role: str) -> None:
    template = CHATML.replace("m['content']", f"(m['content'] | {name} if m['role'] == '{role}' else m['content'])")
    with pytest.raises(InputError, match=FILTERS[name]) as refused:
        make_layout(CHAT, byte_level(template))
    assert "use prompt_format plain" in str(refused.value)


@pytest.mark.parametrize("name", ["trim", "trim | trim", "string", "replace('<|im_start|>', '')"])
def test_a_template_that_trims_or_guards_its_own_tokens_is_accepted(name: str) -> None:
    make_layout(CHAT, byte_level(CHATML.replace("m['content']", f"m['content'] | {name}")))


def test_the_first_difference_is_shown_with_the_text_before_it() -> None:
    assert first_difference("a <b> c", "a &lt;b> c") == ("a <b> c", "a &lt;b> c")
    assert first_difference("same", "same, and more")[1].startswith("same, and")
    assert all(len(part) < 90 for part in first_difference("x" * 500, "x" * 100 + "y" * 400))
