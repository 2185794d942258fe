"""Which added tokens of a tokenizer may appear in people's text.

    special         </s>, <|im_end|>             never: spelled out
    control         <think>, <tool_call>         added, not special, written in brackets: spelled out, unless
                                                 `prompt_format.kept_tokens` names it
    word, spaces    "COVID-19", "\\n\\n", "  "     added to the vocabulary as text: a token wherever it occurs

The second kind is ordinary text to `split_special_tokens`, and decoders show it, since models write it (the thinking of
an answer); but in most people's texts it would be an instruction that nobody gave.
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
_SHOWN = 6
"""Most tokens that a note names."""


class AddedTokens:
    """The added tokens of a tokenizer, by kind.

    Args:
        keep: Control tokens that stay tokens in people's text.

    Raises:
        InputError: one of `keep` is not an added token, or a special one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, keep: Sequence[str] = ()) -> None:
        added = tokenizer.added_tokens_decoder
        self.special = frozenset(token.content for token in added.values() if token.special) | frozenset(
            tokenizer.all_special_tokens
        )
        self.kept = tuple(keep)
        self.control = frozenset(
            token.content for token in added.values() if not token.special and is_control(token.content)
        ) - frozenset(keep)
        known = [token.content for token in added.values() if not token.special]
        for content in keep:
            if content in self.special:
                raise InputError(
                    f"prompt_format.kept_tokens names '{content}', a special token of {name}, which no text may "
                    "become; "
                    "remove it from the list."
                )
            if content not in known:
                raise InputError(
                    f"prompt_format.kept_tokens names '{content}', which is not an added token of {name}"
                    + did_you_mean(content, known, "; remove it from the list.")
                )
        self.spelled_ids = frozenset(number for number, token in added.items() if token.content in self.control)
        named = sorted({*self.special, *self.control, *keep} - {""}, key=lambda content: (-len(content), content))
        # there may be hundreds, most of one form ("<unused7>"): a look at the first letters rules out most places
        heads = sorted({content[:3] for content in named})
        self._named = (
            re.compile(f"(?={'|'.join(map(re.escape, heads))})(?:{'|'.join(map(re.escape, named))})") if named else None
        )
        self.found: Counter[str] = Counter()
        """The number of counted texts with each special, control or kept token."""

    def unmatched(self, settings: Mapping[str, Any]) -> str:
        """The settings of a tokenizer (its JSON) with control tokens as special ones, so that one switch of
        `tokenizers` leaves all of them unmatched.
        """
        tokens = [
            {**token, "special": token["special"] or token["content"] in self.control}
            for token in settings["added_tokens"]
        ]
        return json.dumps({**settings, "added_tokens": tokens})

    def count(self, texts: Iterable[str]) -> None:
        """Add to `found` the tokens in these texts."""
        if self._named is not None:
            for text in texts:
                self.found.update(set(self._named.findall(text)))

    def notes(self) -> list[str]:
        """What was found in the texts and what becomes of it, a sentence each."""
        found = {
            kind: {one: self.found[one] for one in self.found if one in names}
            for kind, names in (("s", self.special), ("c", self.control), ("k", self.kept))
        }
        lines = []
        if found["s"]:
            lines.append(f"Special tokens in the data's texts are spelled out: {_listed(found['s'])}.")
        if found["c"]:
            several = ",".join(f"'{content}'" for content in list(_most(found["c"]))[:_SHOWN])
            lines.append(
                f"Added tokens in the data's texts are spelled out: {_listed(found['c'])}. Servers that use an "
                "exported "
                "model's chat template read them as tokens; if the model itself is to write them, keep them as tokens: "
                f"data.prompt_format.kept_tokens=[{several}]."
            )
        if found["k"]:
            lines.append(f"Added tokens in the data's texts are kept as tokens: {_listed(found['k'])}.")
        return lines


def is_control(content: str) -> bool:
    """Whether an added token looks like a control token: in brackets, with a letter or digit between them."""
    return _CONTROL.fullmatch(content) is not None and any(char.isalnum() for char in content)


def _most(found: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _listed(found: Mapping[str, int]) -> str:
    most = list(_most(found).items())
    listed = ", ".join(f"'{content}' in {counted(count, 'text')}" for content, count in most[:_SHOWN])
    return listed + (f", and {len(most) - _SHOWN} others" if len(most) > _SHOWN else "")
