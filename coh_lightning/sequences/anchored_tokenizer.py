"""Text -> ids as in the middle of a document, whatever the tokenizer does at the beginning of a text.

Many tokenizers treat the beginning of a text differently from its middle. So a text is encoded behind an anchor whose
ids are known, and these are dropped after checking that they are there:

    SentencePiece:   tokenizer("Apple") = [▁Apple]              a space that isn't in the text
                     tokenizer("\\nApple") = [▁, \\n, Apple]    minus the anchor [▁, \\n]    ->    [Apple]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from coh_lightning.errors import InputError
from coh_lightning.sequences.prompt_format import At, describe

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_LEFT = ("\n", "a", ".", "0", ":", "Q")  # anchors before a text; the first that keeps its ids is used
_RIGHT = ("A", "x", "0", "The", "5", "Q")
"""Anchors after white space that continues: many tokenizers encode "\\n\\n" alone and before a letter differently."""
_PROBES = "a|Hello| hello|\nhello|The cat.|7|日本|é|...|(x)| |  two|\t|A good answer:".split("|")
"""A tokenizer that gives each of these the same ids alone and in the middle of a text needs no anchors."""


class Field(NamedTuple):
    """A text to encode and its place: the key of memory and cache. `Segment` explains `at` and `more`."""

    text: str
    at: At = "mid"
    more: bool = False


class AnchoredTokenizer:
    """A `tokenizers` back end that encodes each text as it occurs in its place.

    Attributes:
        direct: This tokenizer encodes texts alone as in the middle of a document, so no anchors are needed.
        after_special: Whether a text right after a special token is encoded as at the head or as in the middle.
        unanchored: Number of texts encoded alone because no anchor worked (rare: they begin with a combining mark).

    Raises:
        InputError: the tokenizer knows none of the anchors, or doesn't keep them apart from the text.
    """

    def __init__(self, backend: Tokenizer, tokenizer: PreTrainedTokenizerBase) -> None:
        self.backend = backend
        self._unknown: int | None = tokenizer.unk_token_id
        self._right: list[tuple[str, list[int]]] = []
        self.direct = False
        self.after_special: At = "mid"
        self.unanchored = 0
        heads = dict(zip(_LEFT, self.alone(_LEFT), strict=True))
        self._left = [(anchor, ids) for anchor, ids in heads.items() if ids and self._unknown not in ids]
        if not self._left:
            raise InputError(
                f"{describe(tokenizer)} knows none of the characters {', '.join(map(repr, _LEFT))}, so outputs can't "
                "be encoded separately; choose another tokenizer."
            )
        known = [text for text, ids in zip(_RIGHT, self.alone(_RIGHT), strict=True) if self._unknown not in ids]
        self._right = list(zip(known, self.encode([Field(text) for text in known]), strict=True)) or [("", [])]
        if self.unanchored:
            raise InputError(
                f"{describe(tokenizer)} doesn't keep a text apart from what precedes it, so outputs can't be encoded "
                "separately; choose another tokenizer."
            )
        middle = self.encode([Field(text) for text in _PROBES])
        # probes of white space alone may merge with every anchor; they show nothing
        self.direct = self.alone(_PROBES) == middle and not self.unanchored
        self.unanchored = 0
        if self.direct:
            return
        tokens = tokenizer.added_tokens_decoder
        special = {number for number, token in tokens.items() if token.special} | {*tokenizer.all_special_ids}
        plain = [
            tokens[number].content
            for number in sorted(special)
            if number in tokens and not (tokens[number].lstrip or tokens[number].rstrip)
        ]
        if plain:
            self.backend.encode_special_tokens = False
            after = [ids[1:] for ids in self.alone([plain[0] + "Hello", plain[0] + "a"])]
            self.backend.encode_special_tokens = True
            self.after_special = "head" if after == self.alone(["Hello", "a"]) else "mid"

    def alone(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text alone."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode(self, fields: Sequence[Field]) -> list[list[int]]:
        """The ids of each field in its place; where one anchor doesn't keep its ids, the next one is tried."""
        found: list[list[int]] = [[] for _ in fields]
        waiting = [index for index, field in enumerate(fields) if field.text]
        for attempt in range(len(self._left)):
            if not waiting:
                return found
            around = [self._around(fields[index], attempt) for index in waiting]
            texts = [
                left + fields[index].text + right
                for index, ((left, _), (right, _)) in zip(waiting, around, strict=True)
            ]
            again: list[int] = []
            for index, ids, ((_, head), (_, tail)) in zip(waiting, self.alone(texts), around, strict=True):
                stop = len(ids) - len(tail)
                if stop > len(head) and ids[: len(head)] == head and ids[stop:] == tail:
                    found[index] = ids[len(head) : stop]
                else:
                    again.append(index)
            waiting = again
        self.unanchored += len(waiting)
        for index, ids in zip(waiting, self.alone([fields[index].text for index in waiting]), strict=True):
            found[index] = ids
        return found

    def offsets(self, field: Field, ids: list[int]) -> list[tuple[int, int]]:
        """The characters [start, stop) of a field's text that each of its ids comes from."""
        for attempt in range(len(self._left) if field.text else 0):
            (left, head), (right, tail) = self._around(field, attempt)
            encoding = self.backend.encode(left + field.text + right, add_special_tokens=False)
            stop = len(encoding.ids) - len(tail)
            if encoding.ids[:stop] == [*head, *ids] and encoding.ids[stop:] == tail:
                return [
                    (max(begin - len(left), 0), min(end - len(left), len(field.text)))
                    for begin, end in encoding.offsets[len(head) : stop]
                ]
        return list(self.backend.encode(field.text, add_special_tokens=False).offsets)

    def _around(self, field: Field, attempt: int) -> tuple[tuple[str, list[int]], tuple[str, list[int]]]:
        """The anchors (text, ids) on the left and on the right of a field."""
        left = ("", []) if field.at == "head" or (self.direct and attempt == 0) else self._left[attempt]
        right = self._right[attempt % len(self._right)] if field.more and field.text[-1].isspace() else ("", [])
        return left, right
