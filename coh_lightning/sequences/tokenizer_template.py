"""A tokenizer's own chat template as a function: messages in, text out; split into slots and the pieces between them.

user: [turn], assistant: [output]    ->    [<|user|>\\n | turn | <|end|>\\n<|bot|>\\n | output], <|end|>\\n
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Role
from coh_lightning.sequences.layout import Slot, split_spaces
from coh_lightning.sequences.prompt_format import At, Segment, describe
from coh_lightning.sequences.sentinels import awkward, first_difference, sentinel, spaces_after, spaces_before

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizerTemplate:
    """The chat template of a tokenizer. Raises `InputError` where there is none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise InputError(f"{describe(tokenizer)} has no chat template; set one, or use prompt_format plain.")
        self.text = str(tokenizer.get_chat_template())

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def writes_date(self) -> bool:
        return "strftime_now" in self.text

    def takes_system(self) -> bool:
        """Whether it shows a system turn."""
        from jinja2.exceptions import TemplateError

        messages = [
            {"role": "system", "content": "Sys0"},
            {"role": "user", "content": "Usr1"},
            {"role": "assistant", "content": "Ast2"},
        ]
        try:
            text = str(self.tokenizer.apply_chat_template(messages, tokenize=False, feedback_sentence=""))
        except TemplateError:
            return False
        return "sys0" in text.lower()  # `split` refuses a template that changes the case

    def render(self, messages: Sequence[tuple[str, str]], *, generation: bool = False) -> str:
        """The text of messages (role, text). Raises `InputError` where the template refuses them."""
        from jinja2.exceptions import TemplateError

        listed = [{"role": role, "content": content} for role, content in messages]
        try:
            # the template of a model that we exported would add a feedback sentence (chat_template.py)
            return str(
                self.tokenizer.apply_chat_template(
                    listed, tokenize=False, add_generation_prompt=generation, feedback_sentence=""
                )
            )
        except TemplateError as error:
            roles = ", ".join(role for role, _ in messages)
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} refuses a conversation of the roles {roles} "
                f"({error}); use prompt_format plain."
            ) from error

    def split(self, messages: Sequence[tuple[Role, list[Slot]]]) -> tuple[list[Slot], str]:
        """Render with a sentinel for each slot and split there: pieces and slots in the order of the rendering, and the
        text that is left. Raises `InputError` for a template that doesn't show each text once and unchanged.
        """
        slots = [slot for _, listed in messages for slot in listed]
        bounds = list(pairwise(accumulate((len(listed) for _, listed in messages), initial=0)))
        named = [
            (role, "".join(map(sentinel, range(*bound)))) for (role, _), bound in zip(messages, bounds, strict=True)
        ]
        text = self.render(named)
        self._check(text, named, len(slots))
        # a template may strip white space in one place and not in another, so each is tried: a space more that doesn't
        # show was stripped
        left = self.render([(role, content and " " + content) for role, content in named])
        right = self.render([(role, content and content + " ") for role, content in named])
        stripped = list(slots)
        for first, stop in bounds:
            if first == stop:  # an empty turn
                continue
            if spaces_before(left, first) == spaces_before(text, first):
                stripped[first] = stripped[first]._replace(strip=(True, False))
            if spaces_after(right, stop - 1) == spaces_after(text, stop - 1):
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
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} shows the texts of {roles} {counts} times instead "
                "of once each; use prompt_format plain."
            )
        expected = awkward(text, slots)
        given = self.render([(role, awkward(content, slots)) for role, content in named])
        if expected != given:
            was, shown = first_difference(expected, given)
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} changes the texts of {roles}: it shows {was!r} as "
                f"{shown!r}; remove the filter that does so from the template, or use prompt_format plain."
            )
