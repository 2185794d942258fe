"""A chat template that asks as in training: `apply_chat_template(messages)` of an exported model gives, id for id, the training prompt under the good sentence.

    tokenizer.apply_chat_template(messages, add_generation_prompt=True)                                      the good sentence
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, feedback="bad")                      another one, by its name in `data.asks`
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, feedback_sentence="A short answer:") any sentence; "" for none

In chat, the feedback sentence is written into the messages and the tokenizer's own template does the rest; what it puts before an output in training and not in its own
generation prompt follows. In plain, the template is the layout of formats.py. A conversation that ends with the assistant's turn begins with the same prompt, and that
turn with its end follows: what TRL and others need who train on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coh_lightning.chains import Unusable
from coh_lightning.errors import InputError
from coh_lightning.formats import BLANK_LINE, CutTurn, Layout, describe
from coh_lightning.records import Part, Turn

if TYPE_CHECKING:
    from coh_lightning.tokens import ChainTokenizer

PROBES: tuple[tuple[Turn, ...], ...] = tuple(
    tuple(Turn(role, (Part(text),)) for role, text in turns)  # type: ignore[arg-type]
    for turns in (
        [("user", "Name a fruit.")],
        [("system", "Be brief."), ("user", "Why?\nAnd how? ")],
        [("user", "Hi"), ("assistant", "Hello, you."), ("user", "How are you?")],
        [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!\n"), ("user", "7 of 8 (or so)...")],
    )
)
"""Conversations of every shape, on which a new template is compared with the training prompts."""

_SENTENCE = """\
{%- if feedback_sentence is defined and feedback_sentence is not none -%}
{%- set marker = feedback_sentence -%}
{%- elif feedback is not defined or feedback is none -%}
{%- set marker = feedback_sentences['good'] -%}
{%- elif feedback in feedback_sentences -%}
{%- set marker = feedback_sentences[feedback] -%}
{%- else -%}
{{- raise_exception("There is no feedback '" ~ feedback ~ "'; known are " ~ (feedback_sentences | join(', ')) ~ "; or give a feedback_sentence.") -}}
{%- endif -%}
{%- set wants_answer = add_generation_prompt is defined and add_generation_prompt -%}
"""

_PLAIN = """\
{%- set answered = messages[-1]['role'] == 'assistant' -%}
{%- set prompt = messages[:-1] if answered else messages -%}
{%- set alone = prompt | rejectattr('role', 'equalto', 'system') | list | length == 1 -%}
{%- set labels = {'system': '', 'user': '' if alone else user_label, 'assistant': assistant_label} -%}
{%- set before = namespace(marker='') -%}
{{- bos -}}
{%- for message in prompt -%}
{%- set text = labels[message['role']] ~ message['content'] -%}
{%- set before.marker = marker_spaces if text else '' -%}
{%- if text or loop.last and not marker -%}
{{- text ~ (blank_line if not loop.last else marker_ends if marker else output_ends) -}}
{%- endif -%}
{%- endfor -%}
{%- set asked = before.marker ~ marker ~ before_output if marker else output_spaces -%}
{%- if answered -%}
{{- asked ~ messages[-1]['content'] ~ end -}}
{%- elif wants_answer -%}
{{- asked.rstrip(' ') -}}
{%- endif -%}"""

_WORDS = """\
{%- macro words(content) -%}
{%- if content is string -%}{{- content -}}{%- else -%}{%- for part in content -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
"""

_IN_USER = """\
{%- set place = namespace(last=-1) -%}
{%- for message in messages -%}{%- if message['role'] == 'user' -%}{%- set place.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- if marker and place.last >= 0 -%}
{%- set said = words(messages[place.last]['content']) -%}
{%- set asking = dict(messages[place.last], content=said ~ before_marker ~ marker if said else marker) -%}
{%- set messages = messages[:place.last] + [asking] + messages[place.last + 1:] -%}
{%- endif -%}
"""

_IN_SYSTEM = """\
{%- if marker -%}
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set said = words(messages[0]['content']) if has_system else '' -%}
{%- set asking = {'role': 'system', 'content': said ~ before_marker ~ marker if said else marker} -%}
{%- set messages = [asking] + (messages[1:] if has_system else messages) -%}
{%- endif -%}
"""

_NO_SYSTEM = """\
{%- if messages[0]['role'] == 'system' and messages | length > 1 -%}
{%- set said = words(messages[0]['content']) -%}
{%- set opening = words(messages[1]['content']) -%}
{%- set messages = [dict(messages[1], content=said ~ blank_line ~ opening if said else opening)] + messages[2:] -%}
{%- endif -%}
"""


def asking_template(layout: Layout, asks: Mapping[str, str]) -> str:
    """The chat template of a model that was trained in this layout.

    Args:
        asks: Feedback sentences by name, `good` among them: the one that is asked under by default.

    Raises:
        InputError: the tokenizer's own template can't be made to end where an output begins.
    """
    format = layout.format
    about = "{#- The feedback sentence before an answer: feedback names one of these, feedback_sentence gives any other (an empty one: none). -#}\n"
    if format.kind == "plain":
        values = {
            "feedback_sentences": dict(asks),
            "bos": "".join(layout.tokenizer.convert_ids_to_tokens(list(layout.bos_ids))),
            "user_label": f"{format.user_label} ",
            "assistant_label": f"{format.assistant_label} ",
            "blank_line": BLANK_LINE,
            "marker_ends": format.before_marker.rstrip(" "),
            "marker_spaces": _spaces(format.before_marker),
            "before_output": format.before_output,
            "output_ends": format.before_output.rstrip(" "),
            "output_spaces": _spaces(format.before_output),
            "end": layout.end,
        }
        return about + _settings(values) + _SENTENCE + _PLAIN
    generation, rest = _generation(layout)
    values = {"feedback_sentences": dict(asks), "before_marker": format.before_marker, "blank_line": BLANK_LINE}
    written = _WORDS + (_IN_USER if format.marker_in == "user" else _IN_SYSTEM) + ("" if layout.system_role else _NO_SYSTEM)
    # the tokenizer's own template follows; one that asks already (of a model that was trained once more) adds no sentence
    own = "{%- set feedback_sentence = '' -%}\n{%- set add_generation_prompt = " + ("wants_answer" if generation else "false") + " %}\n"
    own += layout.tokenizer.get_chat_template().removesuffix("\n")
    return about + _settings(values) + _SENTENCE + written + own + ("{{ " + _literal(rest) + " if wants_answer else '' }}" if rest else "")


def _generation(layout: Layout) -> tuple[bool, str]:
    """Whether the template's own generation prompt is asked for, and what has to follow so that the text ends where outputs begin in training."""
    turn = CutTurn.whole(PROBES[0][0])
    trained = "".join(segment.text for segment in layout.before_output([turn], "")[0])
    for generation in (True, False):
        rendered = layout.render([("user", turn.text)], generation=generation)
        if trained.startswith(rendered):
            return generation, trained.removeprefix(rendered)
    raise InputError(
        f"The chat template of {describe(layout.tokenizer)} ends a prompt with {rendered[-40:]!r}, but outputs were trained after {trained[-40:]!r}, "
        "so no template can ask as in training; export with a tokenizer whose template agrees with itself, or train with prompt_format plain."
    )


def check_template(tokens: ChainTokenizer, template: str, asks: Mapping[str, str]) -> list[str]:
    """Compare what a template gives with the training prompts, on conversations of every shape that training could have, under every sentence.

    Gives the shapes (roles, sentence) whose text is right and whose ids differ, because this tokenizer encodes joint text otherwise than its parts.

    Raises:
        RuntimeError: the text differs.
    """
    different = []
    for probe in PROBES:
        for name, marker in asks.items():
            try:
                prompt = tokens.cut_prompt(probe)
                wanted = "".join(segment.text for segment in tokens.layout.before_output(prompt.turns, marker)[0])
            except Unusable:  # this shape was never trained on
                continue
            if prompt.cut:
                continue
            given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, "feedback": name}
            messages = [{"role": turn.role, "content": turn.text} for turn in probe]
            text = tokens.encoder.tokenizer.apply_chat_template(messages, tokenize=False, **given)
            if text != wanted:
                raise RuntimeError(f"the exported chat template gives {text!r}, but the training prompt is {wanted!r}")
            ids = tokens.encoder.tokenizer.apply_chat_template(messages, return_dict=False, **given)
            if list(ids) != tokens.inference_prompt(prompt, marker).tolist():
                different.append(f"{', '.join(turn.role for turn in probe)} under '{name}'")
    return different


def _settings(values: Mapping[str, object]) -> str:
    return "".join(f"{{%- set {name} = {_literal(value)} -%}}\n" for name, value in values.items())


def _literal(value: object) -> str:
    """A text or a table of texts as Jinja reads it: JSON, whose escapes are a part of Jinja's."""
    return json.dumps(value, ensure_ascii=False)


def _spaces(text: str) -> str:
    return text[len(text.rstrip(" ")) :]
