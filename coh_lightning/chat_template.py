"""A chat template that asks as in training: `apply_chat_template(messages)` of an exported model gives, id for id, the
training prompt under the good sentence.

    tokenizer.apply_chat_template(messages, add_generation_prompt=True)                                      the good sentence
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, feedback="bad")                      another one, by its name in `data.asks`
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, feedback_sentence="A short answer:") any
    sentence; "" for none

In chat, the feedback sentence is written into the messages and the tokenizer's own template does the rest; what it puts
before an output in training and not in its own generation prompt follows. In plain, the template is the layout of
formats.py. A conversation that ends with the assistant's turn begins with the same prompt, and that turn with its end
follows: what TRL and others need who train on it.

Content may be a text or a list of text parts, which are joined. What no training conversation has raises: other roles
than system, user and assistant, content that is null or holds an image, tools and calls of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.chains import Unusable
from coh_lightning.errors import InputError
from coh_lightning.formats import BLANK_LINE, Layout
from coh_lightning.template_check import Rewritten, first_difference
from coh_lightning.turns import Part, Turn

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

ODD_PROBES: dict[str, tuple[Turn, ...]] = {
    what: tuple(Turn(role, (Part(text),)) for role, text in turns)  # type: ignore[arg-type]
    for what, turns in {
        "texts that begin with a space": [
            ("system", " Be brief."),
            ("user", " Hi"),
            ("assistant", " Hello."),
            ("user", " Why?"),
        ],
        "texts that begin with a line end": [
            ("system", "\nBe brief."),
            ("user", "\nHi"),
            ("assistant", "\n\nHello."),
            ("user", "\nWhy?"),
        ],
        "texts that end in white space": [
            ("system", "Be brief. "),
            ("user", "Hi\n"),
            ("assistant", "Hello. \n"),
            ("user", "Why?\n\n"),
        ],
        "an empty system turn": [("system", ""), ("user", "Why?")],
        "an empty earlier turn": [("user", "Hi"), ("assistant", ""), ("user", "Why?")],
        "earlier turns that think": [
            ("user", "Hi"),
            ("assistant", "<think>\nA greeting.\n</think>\n\nHello."),
            ("user", "2 + 2?"),
            ("assistant", "<think>Four.</think>4"),
            ("user", "Why?"),
        ],
        "texts with markup": [("system", 'Use <b> & "it\'s".'), ("user", "{{ x }} \\n <i>1 < 2</i>")],
    }.items()
}
"""Conversations that a template may treat otherwise than training did, each with what is odd in it."""

_CALLS = ["tool_calls", "function_call"]
"""What stands beside the content of a message and no training conversation has."""

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

_READ = """\
{%- macro words(content, number) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content is defined and content is iterable and content is not mapping -%}
{%- for part in content -%}
{%- if part is mapping and part['type'] == 'text' and part['text'] is string -%}
{{- part['text'] -}}
{%- else -%}
{%- set kind = part['type'] if part is mapping and part['type'] else part -%}
{{- raise_exception("Message " ~ number ~ " has a part that is no text (" ~ kind ~ "); this model reads text alone.") -}}
{%- endif -%}
{%- endfor -%}
{%- else -%}
{%- set found = content if content is defined and content is not none else 'null' -%}
{{- raise_exception("Message " ~ number ~ " has the content " ~ found ~ "; it must be a text, or a list of text parts.") -}}
{%- endif -%}
{%- endmacro -%}
{%- if not messages -%}
{{- raise_exception("There are no messages; give at least one of the user's.") -}}
{%- endif -%}
{%- if tools is defined and tools -%}
{{- raise_exception("This model was trained on conversations without tools; ask without tools.") -}}
{%- endif -%}
{%- set read = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set number = loop.index -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception("Message " ~ number ~ " has the role '" ~ message['role'] ~ "'; this model knows system, user and assistant.") -}}
{%- endif -%}
{%- for key in unread -%}
{%- if message[key] -%}
{{- raise_exception("Message " ~ number ~ " holds '" ~ key ~ "', which this model was not trained to read; send role and content.") -}}
{%- endif -%}
{%- endfor -%}
{%- set read.messages = read.messages + [dict(message, content=words(message['content'], number))] -%}
{%- endfor -%}
{%- set messages = read.messages -%}
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

_IN_USER = """\
{%- set place = namespace(last=-1) -%}
{%- for message in messages -%}{%- if message['role'] == 'user' -%}{%- set place.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- if marker and place.last >= 0 -%}
{%- set said = messages[place.last]['content'] -%}
{%- set asking = dict(messages[place.last], content=said ~ before_marker ~ marker if said else marker) -%}
{%- set messages = messages[:place.last] + [asking] + messages[place.last + 1:] -%}
{%- endif -%}
"""

_IN_SYSTEM = """\
{%- if marker -%}
{%- set has_system = messages[0]['role'] == 'system' -%}
{%- set said = messages[0]['content'] if has_system else '' -%}
{%- set asking = {'role': 'system', 'content': said ~ before_marker ~ marker if said else marker} -%}
{%- set messages = [asking] + (messages[1:] if has_system else messages) -%}
{%- endif -%}
"""

_NO_SYSTEM = """\
{%- if messages[0]['role'] == 'system' and messages | length > 1 -%}
{%- set said = messages[0]['content'] -%}
{%- set opening = messages[1]['content'] -%}
{%- set messages = [dict(messages[1], content=said ~ (blank_line if said and opening else '') ~ opening)] + messages[2:] -%}
{%- endif -%}
"""


def asking_template(layout: Layout, asks: Mapping[str, str]) -> str:
    """The chat template of a model that was trained in this layout.

    Args:
        asks: Feedback sentences by name, `good` among them: the one that is asked under by default.
    """
    format = layout.format
    about = (
        "{#- The feedback sentence before an answer: feedback names one of these, feedback_sentence gives any "
        "other (an empty one: none). -#}\n"
    )
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
            "unread": [*_CALLS, "reasoning_content", "reasoning", "thinking"],
        }
        return about + _settings(values) + _SENTENCE + _READ + _PLAIN
    generation, rest = layout.generation
    values = {
        "feedback_sentences": dict(asks),
        "before_marker": format.before_marker,
        "blank_line": BLANK_LINE,
        "unread": _CALLS,
    }
    written = (
        _READ + (_IN_USER if format.marker_in == "user" else _IN_SYSTEM) + ("" if layout.system_role else _NO_SYSTEM)
    )
    # the tokenizer's own template follows; one that asks already (of a model that was trained once more) adds no
    # sentence
    own = (
        "{%- set feedback_sentence = '' -%}\n{%- set add_generation_prompt = "
        + ("wants_answer" if generation else "false")
        + " %}\n"
    )
    own += layout.template.removesuffix("\n")
    return (
        about
        + _settings(values)
        + _SENTENCE
        + written
        + own
        + ("{{ " + _literal(rest) + " if wants_answer else '' }}" if rest else "")
    )


class Difference(NamedTuple):
    """A conversation whose text is that of training, and whose ids are not, because the tokenizer encodes the whole
    otherwise than its parts.
    """

    what: str
    given: tuple[str, ...]
    trained: tuple[str, ...]
    """The tokens that differ, as the template gives them and as they were in training."""
    untrained: str = ""
    """Why training left such conversations out; no tokens are compared then."""

    def __str__(self) -> str:
        if self.untrained:
            return f"{self.what} ({self.untrained})"
        return f"{self.what} ({' '.join(map(repr, self.given))} instead of {' '.join(map(repr, self.trained))})"


def check_template(tokens: ChainTokenizer, template: str, asks: Mapping[str, str]) -> list[Difference]:
    """Compare what a template gives with the training prompts, on conversations of every shape that training could
    have, under every sentence, with contents as texts and as lists of parts.

    Gives those whose text is right and whose ids differ, and those that training left out since the template shows them
    as something else than their turns.

    Raises:
        InputError: the text differs.
    """
    different = []
    named = [(", ".join(turn.role for turn in probe), probe) for probe in PROBES]
    for what, probe in [*named, *ODD_PROBES.items()]:
        for name, marker in asks.items():
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
                        f"The exported chat template would ask otherwise than in training ({what}): it gives "
                        f"{there!r}, but the training prompt is {here!r}; "
                        "export with the tokenizer and the chat template of the training."
                    )
            ids = list(tokens.encoder.tokenizer.apply_chat_template(messages, return_dict=False, **given))
            trained = tokens.inference_prompt(prompt, marker).tolist()
            if ids != trained:
                different.append(Difference(f"{what} under '{name}'", *_differing(tokens, ids, trained)))
    return different


def _parts(text: str) -> list[dict[str, str]]:
    """A text as clients of servers send it: a list of parts."""
    half = len(text) // 2
    return [{"type": "text", "text": piece} for piece in (text[:half], text[half:])]


def _differing(
    tokens: ChainTokenizer, ids: Sequence[int], trained: Sequence[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens of the first place where two lists of ids differ, of each list."""
    for tag, *bounds in SequenceMatcher(None, ids, trained, autojunk=False).get_opcodes():
        if tag != "equal":
            start, stop, begin, end = bounds
            convert = tokens.encoder.tokenizer.convert_ids_to_tokens
            return tuple(convert(list(ids[start:stop]))), tuple(convert(list(trained[begin:end])))
    return (), ()


def notes_on(tokens: ChainTokenizer, different: Sequence[Difference]) -> list[str]:
    """What `check_template` found, for a person, a sentence each."""
    notes = []
    if ids := [one for one in different if not one.untrained]:
        notes.append(
            "This tokenizer encodes a whole prompt otherwise than its parts, so some prompts differ from training "
            f"by some ids: {_some(ids)}."
        )
    if left_out := [one for one in different if one.untrained]:
        notes.append(
            "Training left out conversations that the chat template shows as something else than their turns: "
            f"{_some(left_out)}."
        )
    count, (was, shown) = tokens.layout.rewritten
    if count:
        notes.append(f"The chat template rewrites some turns, in training too: {was!r} becomes {shown!r}.")
    return notes


def _some(different: Sequence[Difference], number: int = 4) -> str:
    return "; ".join(map(str, different[:number])) + (
        f"; and {len(different) - number} more" if len(different) > number else ""
    )


def _settings(values: Mapping[str, object]) -> str:
    return "".join(f"{{%- set {name} = {_literal(value)} -%}}\n" for name, value in values.items())


def _literal(value: object) -> str:
    """A text or a table of texts as Jinja reads it: JSON, whose escapes are a part of Jinja's."""
    return json.dumps(value, ensure_ascii=False)


def _spaces(text: str) -> str:
    return text[len(text.rstrip(" ")) :]
