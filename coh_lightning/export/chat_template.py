"""A chat template that prompts as in training: `apply_chat_template(messages)` of an exported model gives, id for id,
the training prompt under the good sentence.

    apply = tokenizer.apply_chat_template
    apply(messages, add_generation_prompt=True)                                        the good sentence
    apply(messages, add_generation_prompt=True, feedback="bad")                        another name in `data.conditions`
    apply(messages, add_generation_prompt=True, feedback_sentence="A short answer:")   any sentence; "" for none

In chat, the feedback sentence is written into the messages and the tokenizer's own template does the rest; what it puts
before an output in training but not in its own generation prompt follows. In plain, the template is `PlainLayout`. If
the conversation ends with the assistant's turn, the same prompt comes first, then that turn with its end, as TRL needs.

Content may be a text or a list of text parts, which are joined. Everything that no training conversation has raises:
roles other than system, user and assistant, content that is null or has an image, tools and tool calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Part, Role, Turn
from coh_lightning.sequences.chains import Unusable
from coh_lightning.sequences.chat_layout import ChatLayout
from coh_lightning.sequences.layout import Layout, split_spaces
from coh_lightning.sequences.prompt_format import BLANK_LINE
from coh_lightning.sequences.template_check import Rewritten
from coh_lightning.sequences.tokenizer_template import first_difference

if TYPE_CHECKING:
    from coh_lightning.sequences.chain_tokenizer import ChainTokenizer


def _turns(roles: str, *texts: str) -> tuple[Turn, ...]:
    """A conversation; `roles` names each turn's role by its first letter."""
    named: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    return tuple(Turn(named[role], (Part(text),)) for role, text in zip(roles, texts, strict=True))


PROBES = (
    _turns("u", "Name a fruit."),
    _turns("su", "Be brief.", "Why?\nAnd how? "),
    _turns("uau", "Hi", "Hello, you.", "How are you?"),
    _turns("suau", "Be brief.", "Hi", "Hello!\n", "7 of 8 (or so)..."),
)
"""Conversations of every shape, on which a new template is compared with the training prompts."""

_THINKING = ("<think>\nA greeting.\n</think>\n\nHello.", "2 + 2?", "<think>Four.</think>4")
ODD_PROBES = {
    "texts that begin with a space": _turns("suau", " Be brief.", " Hi", " Hello.", " Why?"),
    "texts that begin with a line end": _turns("suau", "\nBe brief.", "\nHi", "\n\nHello.", "\nWhy?"),
    "texts that end in white space": _turns("suau", "Be brief. ", "Hi\n", "Hello. \n", "Why?\n\n"),
    "an empty system turn": _turns("su", "", "Why?"),
    "an empty earlier turn": _turns("uau", "Hi", "", "Why?"),
    "earlier turns that think": _turns("uauau", "Hi", *_THINKING, "Why?"),
    "texts with markup": _turns("su", 'Use <b> & "it\'s".', "{{ x }} \\n <i>1 < 2</i>"),
}
"""Conversations that a template may treat differently from training, each with what is odd about it."""

_ABOUT = """\
{#- The feedback sentence before an answer: `feedback` names one of these, `feedback_sentence` gives any other (an \
empty one: none). -#}
"""
Pair = tuple[tuple[str, ...], tuple[str, ...]]
_CALLS = ["tool_calls", "function_call"]  # keys of a message that no training conversation has


def exported_template(layout: Layout, conditions: Mapping[str, str]) -> str:
    """The chat template of a model trained in this layout; `conditions`: sentences by name, `good` by default."""
    format = layout.format
    settings: dict[str, object] = {
        "feedback_sentences": dict(conditions),
        "before_marker": format.before_marker,
        "blank_line": BLANK_LINE,
        "unread": _CALLS,
    }
    if isinstance(layout, ChatLayout):
        settings |= {"marker_in": format.marker_in, "takes_system": layout.system_role}
        return _ABOUT + _set(settings) + _part("chat_template") + _part("chat_template_chat") + _own_template(layout)
    settings |= {
        "bos": "".join(layout.tokenizer.convert_ids_to_tokens(list(layout.bos_ids))),
        "user_label": f"{format.user_label} ",
        "assistant_label": f"{format.assistant_label} ",
        "before_output": format.before_output,
        "end": layout.end,
        "unread": [*_CALLS, "reasoning_content", "reasoning", "thinking"],
    }
    settings["marker_ends"], settings["marker_spaces"] = split_spaces(format.before_marker)
    settings["output_ends"], settings["output_spaces"] = split_spaces(format.before_output)
    return _ABOUT + _set(settings) + _part("chat_template") + _part("chat_template_plain")


def _own_template(layout: ChatLayout) -> str:
    """The tokenizer's own template. One that we exported earlier (the model was trained again) adds no sentence."""
    generation, rest = layout.generation
    wanted = "wants_answer" if generation else "false"
    start = f"{{%- set feedback_sentence = '' -%}}\n{{%- set add_generation_prompt = {wanted} %}}\n"
    end = "{{ " + _literal(rest) + " if wants_answer else '' }}" if rest else ""
    return start + layout.template.text.removesuffix("\n") + end


def _part(name: str) -> str:
    return resources.files("coh_lightning.export").joinpath(f"{name}.jinja").read_text(encoding="utf-8")


class Difference(NamedTuple):
    """A conversation with other ids than in training: the tokenizer encodes the whole differently from its parts."""

    what: str
    given: tuple[str, ...]  # the tokens that differ, from the template ...
    trained: tuple[str, ...]  # ... and in training
    untrained: str = ""  # why training left such conversations out; no tokens are compared then

    def __str__(self) -> str:
        if self.untrained:
            return f"{self.what} ({self.untrained})"
        return f"{self.what} ({' '.join(map(repr, self.given))} instead of {' '.join(map(repr, self.trained))})"


def check_template(tokens: ChainTokenizer, template: str, conditions: Mapping[str, str]) -> list[Difference]:
    """Compare a template's prompts with the training prompts, on conversations of every shape that training could have,
    under every sentence, with contents as texts and as lists of parts.

    Returns:
        Conversations whose text is right and whose ids differ, and those that training left out because the template
        shows them as something other than their turns.

    Raises:
        InputError: the text differs.
    """
    different = []
    named = [(", ".join(turn.role for turn in probe), probe) for probe in PROBES]
    for what, probe in [*named, *ODD_PROBES.items()]:
        for name, marker in conditions.items():
            try:
                prompt = tokens.cut_prompt(probe)
                wanted = "".join(segment.text for segment in tokens.layout.before_output(prompt.turns, marker)[0])
            except Rewritten as rewritten:
                different.append(Difference(what, (), (), untrained=str(rewritten)))
                break
            except Unusable:  # this shape was never trained on
                continue
            if prompt.cut:
                continue
            given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, "feedback": name}
            for content in (_parts, str):
                messages: list[Any] = [{"role": turn.role, "content": content(turn.text)} for turn in probe]
                text = str(tokens.encoder.tokenizer.apply_chat_template(messages, tokenize=False, **given))
                if text != wanted:
                    here, there = first_difference(wanted, text)
                    raise InputError(
                        f"The exported chat template does not prompt as in training ({what}): it gives {there!r}, but "
                        f"the training prompt is {here!r}; export with the tokenizer and template of the training."
                    )
            ids = list(tokens.encoder.tokenizer.apply_chat_template(messages, return_dict=False, **given))
            trained = tokens.inference_prompt(prompt, marker).tolist()
            if ids != trained:
                different.append(Difference(f"{what} under '{name}'", *_differing(tokens, ids, trained)))
    return different


def _parts(text: str) -> list[dict[str, str]]:
    """A text as API clients send it: a list of parts."""
    half = len(text) // 2
    return [{"type": "text", "text": piece} for piece in (text[:half], text[half:])]


def _differing(tokens: ChainTokenizer, ids: Sequence[int], trained: Sequence[int]) -> Pair:
    """The tokens at the first place where two different lists of ids differ, from each list."""
    codes = SequenceMatcher(None, ids, trained, autojunk=False).get_opcodes()
    _, start, stop, begin, end = next(code for code in codes if code[0] != "equal")
    convert = tokens.encoder.tokenizer.convert_ids_to_tokens
    return tuple(convert(list(ids[start:stop]))), tuple(convert(list(trained[begin:end])))


def notes_on(tokens: ChainTokenizer, different: Sequence[Difference]) -> list[str]:
    """What `check_template` found, a sentence each."""
    notes = []
    if ids := [it for it in different if not it.untrained]:
        notes.append(
            "This tokenizer encodes a whole prompt differently from its parts, so some prompts differ from training by "
            f"some ids: {_some(ids)}."
        )
    if left_out := [it for it in different if it.untrained]:
        notes.append(
            "Training left out conversations that the chat template shows as something other than their turns: "
            f"{_some(left_out)}."
        )
    if isinstance(tokens.layout, ChatLayout) and tokens.layout.rewritten[0]:
        was, shown = tokens.layout.rewritten[1]
        notes.append(f"The chat template rewrites some turns, in training too: {was!r} becomes {shown!r}.")
    return notes


def _some(different: Sequence[Difference], number: int = 4) -> str:
    more = len(different) - number
    return "; ".join(map(str, different[:number])) + (f"; and {more} more" if more > 0 else "")


def _set(values: Mapping[str, object]) -> str:
    return "".join(f"{{%- set {name} = {_literal(value)} -%}}\n" for name, value in values.items())


def _literal(value: object) -> str:
    """A value as Jinja reads it: JSON, whose escapes are also Jinja's."""
    return json.dumps(value, ensure_ascii=False)
