"""Which added tokens of a tokenizer may appear in people's text.

    special         </s>, <|im_end|>             never: spelled out
    control         <think>, <tool_call>         added, not special, written in brackets: spelled out, unless
                                                 `prompt_format.kept_tokens` names it
    word, spaces    "COVID-19", "\\n\\n", "  "     added to the vocabulary as text: a token wherever it occurs

The second kind is ordinary text to `split_special_tokens`, and decoders show it, since models write it (the thinking of
an answer); but in most people's texts it would be an instruction that no user gave.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError, counted, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = re.compile(r"[\s▁]*(?:<.*>|\[.*\]|\{.*\}|\|.*\||｜.*｜)[\s▁]*", re.DOTALL)
_SHOWN = 6  # most tokens that a note names


class AddedTokens:
    """The added tokens of a tokenizer, by kind; the control tokens `keep` stay tokens in people's text.

    Raises:
        InputError: one of `keep` is not an added token, or is a special one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, keep: Sequence[str] = ()) -> None:
        added = tokenizer.added_tokens_decoder
        known = [token.content for token in added.values() if not token.special]
        self.special = {token.content for token in added.values() if token.special} | {*tokenizer.all_special_tokens}
        self.kept = tuple(keep)
        self.control = {content for content in known if is_control(content)} - {*keep}
        for content in keep:
            what = f"prompt_format.kept_tokens names '{content}'"
            if content in self.special:
                raise InputError(f"{what}, a special token of {name}, which no text may become; remove it.")
            if content not in known:
                hint = did_you_mean(content, known, "; remove it from the list.")
                raise InputError(f"{what}, which is not an added token of {name}{hint}")
        self.spelled_ids = {number for number, token in added.items() if token.content in self.control}
        named = sorted({*self.special, *self.control, *keep} - {""}, key=lambda content: (-len(content), content))
        # there may be hundreds, most of one form ("<unused7>"): a look at the first letters rules out most places
        heads = "|".join(map(re.escape, sorted({content[:3] for content in named})))
        self._named = re.compile(f"(?={heads})(?:{'|'.join(map(re.escape, named))})") if named else None
        self.found: Counter[str] = Counter()
        """The number of counted texts with each special, control or kept token."""

    def unmatched(self, settings: Mapping[str, Any]) -> str:
        """A tokenizer's settings (its JSON) with control tokens made special: one switch leaves all unmatched."""
        added = [{**it, "special": it["special"] or it["content"] in self.control} for it in settings["added_tokens"]]
        return json.dumps({**settings, "added_tokens": added})

    def occur_in(self, text: str) -> bool:
        """Whether a text has a special, control or kept token."""
        return self._named is not None and self._named.search(text) is not None

    def count(self, texts: Iterable[str]) -> None:
        """Add to `found` the tokens in these texts."""
        if self._named is not None:
            for text in texts:
                self.found.update(set(self._named.findall(text)))

    def notes(self) -> list[str]:
        """What was found in the texts and what becomes of it, a sentence each."""
        special, control, kept = (
            Counter({token: self.found[token] for token in self.found if token in names})
            for names in (self.special, self.control, self.kept)
        )
        lines = []
        if special:
            lines.append(f"Special tokens in the data's texts are spelled out: {_listed(special)}.")
        if control:
            several = ",".join(f"'{token}'" for token, _ in _most(control)[:_SHOWN])
            lines.append(
                f"Added tokens in the data's texts are spelled out: {_listed(control)}. Servers that use an exported "
                "model's chat template read them as tokens; if the model itself is to write them, keep them as tokens: "
                f"data.prompt_format.kept_tokens=[{several}]."
            )
        if kept:
            lines.append(f"Added tokens in the data's texts are kept as tokens: {_listed(kept)}.")
        return lines


def is_control(content: str) -> bool:
    """Whether an added token looks like a control token: in brackets, with a letter or digit between them."""
    return _CONTROL.fullmatch(content) is not None and any(char.isalnum() for char in content)


def _most(found: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))


def _listed(found: Mapping[str, int]) -> str:
    listed = ", ".join(f"'{content}' in {counted(count, 'text')}" for content, count in _most(found)[:_SHOWN])
    return listed + (f", and {len(found) - _SHOWN} others" if len(found) > _SHOWN else "")
