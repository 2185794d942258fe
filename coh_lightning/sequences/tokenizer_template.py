"""A tokenizer's own chat template as a function: messages in, text out; split into slots and the pieces between them.

user: [turn], assistant: [output]    ->    [<|user|>\\n | turn | <|end|>\\n<|bot|>\\n | output], <|end|>\\n
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Role
from coh_lightning.sequences.layout import Slot, split_spaces
from coh_lightning.sequences.prompt_format import At, Segment, describe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AWKWARD = 'Zq{0} <b>&amp;</b> "it\'s" \\n {{{{ x }}}} 5%\n\n  \u00e9\u65e5\U0001f600 [a](b) qZ{0}'
"""Everything that templates escape, collapse or cut, with no white space at its ends: templates may trim."""


class TokenizerTemplate:
    """The chat template of a tokenizer. Raises `InputError` where there is none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise InputError(f"{describe(tokenizer)} has no chat template; set one, or use prompt_format plain.")
        self.text = str(tokenizer.get_chat_template())
        self.hash = hashlib.sha256(self.text.encode()).hexdigest()
        self.writes_date = "strftime_now" in self.text

    def unsuited(self, why: str) -> InputError:
        """The error for a template that can't be trained with."""
        return InputError(f"The chat template of {describe(self.tokenizer)} {why}; use prompt_format plain.")

    def takes_system(self) -> bool:
        """Whether it shows a system turn."""
        try:
            text = self.render([("system", "Sys0"), ("user", "Usr1"), ("assistant", "Ast2")])
        except InputError:
            return False
        return "sys0" in text.lower()  # `split` refuses a template that changes the case

    def render(self, messages: Sequence[tuple[str, str]], *, generation: bool = False) -> str:
        """The text of messages (role, text). Raises `InputError` where the template refuses them."""
        from jinja2.exceptions import TemplateError

        listed = [{"role": role, "content": content} for role, content in messages]
        # the template of a model that we exported would add a feedback sentence
        settings: dict[str, Any] = {"add_generation_prompt": generation, "feedback_sentence": ""}
        try:
            return str(self.tokenizer.apply_chat_template(listed, tokenize=False, **settings))
        except TemplateError as error:
            roles = ", ".join(role for role, _ in messages)
            raise self.unsuited(f"refuses a conversation of the roles {roles} ({error})") from error

    def split(self, messages: Sequence[tuple[Role, list[Slot]]]) -> tuple[list[Slot], str]:
        """Render with a sentinel for each slot and split there: pieces and slots in order, and the text that is left.

        Raises `InputError` for a template that doesn't show each text once and unchanged.
        """
        slots = [slot for _, listed in messages for slot in listed]
        bounds = list(pairwise(accumulate((len(listed) for _, listed in messages), initial=0)))
        texts = ("".join(map(sentinel, range(*bound))) for bound in bounds)
        named = [(role, text) for (role, _), text in zip(messages, texts, strict=True)]
        text = self.render(named)
        self._check(text, named, len(slots))
        # a template may strip white space in one place and not in another; an added space that doesn't show is stripped
        left = self.render([(role, content and " " + content) for role, content in named])
        right = self.render([(role, content and content + " ") for role, content in named])
        stripped = list(slots)
        for first, stop in bounds:
            if first == stop:  # an empty turn
                continue
            if _spaces(left, first)[0] == _spaces(text, first)[0]:
                stripped[first] = stripped[first]._replace(strip=(True, False))
            if _spaces(right, stop - 1)[1] == _spaces(text, stop - 1)[1]:
                stripped[stop - 1] = stripped[stop - 1]._replace(strip=(stripped[stop - 1].strip[0], True))
        placed: list[Slot] = []
        begin = 0
        for number in sorted(range(len(stripped)), key=lambda i: text.index(sentinel(i))):
            slot, stop = stripped[number], text.index(sentinel(number))
            body, spaces = split_spaces(text[begin:stop])
            at: At = "mid" if begin else "head"
            if body:
                placed.append(Slot("piece", Segment(body, True, at=at, more=not spaces and slot.what != "output")))
                last_id = self.tokenizer(body, add_special_tokens=False)["input_ids"][-1]
                at = "special" if last_id in self.tokenizer.added_tokens_decoder else "mid"
            placed.append(slot._replace(lead=spaces + slot.lead, at=at))
            begin = stop + len(sentinel(number))
        return placed, text[begin:]

    def _check(self, text: str, named: Sequence[tuple[str, str]], slots: int) -> None:
        """Refuse a template that leaves a text out, repeats it, or escapes, cuts or rewrites it."""
        counts = [text.count(sentinel(i)) for i in range(slots)]
        roles = ", ".join(role for role, _ in named)
        if set(counts) != {1}:
            raise self.unsuited(f"shows the texts of {roles} {counts} times instead of once each")
        expected = _awkward(text, slots)
        given = self.render([(role, _awkward(content, slots)) for role, content in named])
        if expected != given:
            was, shown = first_difference(expected, given)
            why = f"changes the texts of {roles}: it shows {was!r} as {shown!r}"
            raise self.unsuited(f"{why}; remove the filter that does so from the template")


def sentinel(number: int) -> str:
    """A text in place of people's: letters and digits only, so that no template treats it specially."""
    return f"Zq{number}Slot{number}qZ"


def _awkward(text: str, count: int) -> str:
    """`text` with an awkward text instead of each of its first `count` sentinels."""
    for number in range(count):
        text = text.replace(sentinel(number), _AWKWARD.format(number))
    return text


def _spaces(text: str, number: int) -> tuple[int, int]:
    """Spaces before and after a sentinel."""
    head, _, tail = text.partition(sentinel(number))
    return len(head) - len(head.rstrip(" ")), len(tail) - len(tail.lstrip(" "))


def first_difference(expected: str, given: str, context: int = 16) -> tuple[str, str]:
    """The part in which two texts differ, as an excerpt of each with a few characters of context before it.

    "a <b> c", "a &lt;b> c"    ->    "a <b> c", "a &lt;b> c"
    """

    def shared(one: str, other: str) -> int:
        return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

    def excerpt(text: str) -> str:
        return text[max(start - context, 0) : min(len(text) - end + 4, start + 60, len(text))]

    start = shared(expected, given)
    end = shared(expected[start:][::-1], given[start:][::-1])
    return excerpt(expected), excerpt(given)
