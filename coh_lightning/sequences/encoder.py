"""Pieces of text -> token ids, each encoded as it occurs in its place, and remembered.

People's text never becomes a special token, nor an added token in brackets, except `keep` (added_tokens.py):

    "Ends in </s>."   ->   Ends| in| <|/|s|>|.        spelled out; the id of </s> ends documents
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coh_lightning.errors import InputError
from coh_lightning.sequences.added_tokens import AddedTokens
from coh_lightning.sequences.anchored_tokenizer import AnchoredTokenizer, Field
from coh_lightning.sequences.field_store import FieldStore, digest_of, packed
from coh_lightning.sequences.prompt_format import At, CutRange, Segment, bos_ids, describe
from coh_lightning.sequences.tokens import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_REMEMBERED = 16_384
"""Fields that are remembered as objects; more of them go to a store on disk."""


class Remembered(dict[Any, Any]):
    """What can be made again, forgotten as a whole when there is too much of it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= _REMEMBERED:
            self.clear()
        super().__setitem__(key, value)


class Encoder:
    """A tokenizer that encodes segments and remembers them; the added tokens `keep` stay tokens in people's text.

    Raises:
        InputError: the tokenizer has no fast back end, or can't keep a text apart from what precedes it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, keep: Sequence[str] = ()) -> None:
        from tokenizers import Tokenizer

        if not tokenizer.is_fast:
            raise InputError(
                f"{describe(tokenizer)} has no fast version (tokenizer.json); convert it or choose another."
            )
        self.tokenizer = tokenizer
        given = tokenizer.backend_tokenizer.to_str()
        settings = json.loads(given)
        as_given = settings["truncation"] is None and settings["padding"] is None
        settings["truncation"] = settings["padding"] = None  # left over from other calls
        frozen = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        self.tokenizer_hash = hashlib.sha256(frozen.encode("utf-8", "surrogatepass")).hexdigest()
        self.added = AddedTokens(tokenizer, describe(tokenizer), keep)
        # our own copy: other code may switch truncation, padding or splitting on and off on the original
        backend = Tokenizer.from_str(given if as_given and not self.added.control else self.added.unmatched(settings))
        backend.encode_special_tokens = True
        added = tokenizer.added_tokens_decoder
        own_specials = {number for number, token in added.items() if token.special} | {*tokenizer.all_special_ids}
        self._specials = own_specials | self.added.spelled_ids
        self._unknown: int | None = tokenizer.unk_token_id
        self._memory: dict[Field, Ids] = {}
        self._found: dict[Field, Ids] = Remembered()  # the latest of the stores
        self._stores: list[FieldStore] = []
        self._own: FieldStore | None = None  # what no longer fits the memory
        self._process = 0  # whose own store it is
        self._template_memory: dict[Field, Ids] = {}
        self._cut_memory: dict[tuple[Field, tuple[CutRange, ...]], tuple[Ids, tuple[int, ...]]] = Remembered()
        self._anchored = AnchoredTokenizer(backend, tokenizer)

    @property
    def bos_ids(self) -> tuple[int, ...]:
        return bos_ids(self.tokenizer)

    def encode_texts(self, texts: Sequence[str], *, at: At = "mid") -> list[Ids]:
        """The ids of each text, in one call of the tokenizer; texts seen before cost nothing."""
        return self.encode_fields([Field(text, at) for text in texts])

    def encode_fields(self, fields: Sequence[Field]) -> list[Ids]:
        """The ids of each field, in one call of the tokenizer; fields seen before cost nothing."""
        keys = [self.place(field) for field in fields]
        known = {key: self._known(key) for key in dict.fromkeys(keys)}
        new = [key for key, ids in known.items() if ids is None]
        found = dict(zip(new, self.ids_of(new), strict=True))
        for key, ids in found.items():
            self._remember(key, ids)
        return [found.get(key, known[key]) for key in keys]  # type: ignore[misc]

    def ids_of(self, fields: Sequence[Field]) -> list[Ids]:
        """The ids of each field, a key of `place`, in one call of the tokenizer; nothing is remembered."""
        found = self._anchored.encode(fields)
        for index, ids in enumerate(found):  # some vocabularies have special tokens and find them in any text
            if not self._specials.isdisjoint(ids):
                found[index] = self._spell_out(fields[index])[0]
        arrays = [np.array(ids, dtype=np.int32) for ids in found]
        for array in arrays:
            array.flags.writeable = False
        return arrays

    def place(self, field: Field) -> Field:
        """The same field under its simplest name: texts whose ids don't depend on their place share one."""
        text, at, more = field
        if at == "special":
            at = self._anchored.after_special
        return Field(text, "mid" if self._anchored.direct else at, more and text[-1:].isspace())

    def read_from(self, store: FieldStore) -> None:
        """Take ids that were made before from a store (the cache)."""
        self._stores.append(store)

    def _known(self, key: Field) -> Ids | None:
        if (ids := self._memory.get(key)) is not None or (ids := self._found.get(key)) is not None:
            return ids
        if self._stores:
            digest = digest_of(packed(key))
            for store in self._stores:
                if (ids := store.ids(digest)) is not None:
                    self._found[key] = ids
                    return ids
        return None

    def _remember(self, key: Field, ids: Ids) -> None:
        if len(self._memory) >= _REMEMBERED:
            if self._own is None or self._process != os.getpid():  # a worker adds to no file of its parent
                self._own, self._process = FieldStore(), os.getpid()
                self._stores.append(self._own)
            digests = [digest_of(packed(old)) for old in self._memory]
            self._own.add(digests, list(self._memory.values()))
            self._memory.clear()
        self._memory[key] = ids

    def segment_ids(self, segment: Segment) -> Ids:
        """The ids of a segment without those that truncation takes away."""
        key = Field(segment.text, segment.at, segment.more)
        if segment.special:
            return self.template_ids(*key)
        if segment.cut:
            return self._cut(key, segment.cut)[0]
        key = self.place(key)
        known = self._known(key)
        return self.encode_fields([key])[0] if known is None else known

    def template_ids(self, text: str, at: At = "mid", more: bool = False) -> Ids:
        """The ids of a piece of a template, with its special tokens."""
        key = Field(text, at, more)
        if key not in self._template_memory:
            self._anchored.backend.encode_special_tokens = False
            ids = np.array(self._anchored.encode([self.place(key)])[0], dtype=np.int32)
            self._anchored.backend.encode_special_tokens = True
            ids.flags.writeable = False
            self._template_memory[key] = ids
        return self._template_memory[key]

    def cuttable(self, segment: Segment) -> tuple[int, ...]:
        """How many tokens lie wholly in each cuttable range of a segment."""
        uncut = tuple(item._replace(tokens=0) for item in segment.cut)
        return self._cut(Field(segment.text, segment.at, segment.more), uncut)[1]

    def decode(self, ids: Sequence[int] | Ids, *, skip_special_tokens: bool = False) -> str:
        """The text of ids in the middle of a text, with a leading space that SentencePiece drops at the beginning."""
        head = self._anchored.alone(["a"])[0]
        backend = self.tokenizer.backend_tokenizer  # which calls special what the tokenizer does
        text = str(backend.decode([*head, *map(int, ids)], skip_special_tokens=skip_special_tokens))
        return text[len(backend.decode(head)) :]

    def _spell_out(self, field: Field) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of one field, special tokens in it spelled out character by character, and the characters
        [start, stop) of its text that each id comes from.
        """
        ids = self._anchored.encode([field])[0]
        offsets = self._anchored.offsets(field, ids)
        for number, (start, stop) in zip(ids, offsets, strict=True):
            literal = field.text[start:stop]
            if number not in self._specials or (number == self._unknown and self.tokenizer.unk_token not in literal):
                continue
            if len(literal) < 2:
                around = field.text[max(start - 20, 0) : stop + 20]
                raise InputError(
                    f"The text {around!r} has {literal!r}, a special token of this tokenizer that can't be spelled "
                    "otherwise; remove it from the data."
                )
            bounds = [0, *range(start, stop + 1), len(field.text)]
            spelled: tuple[list[int], list[tuple[int, int]]] = ([], [])
            for begin, end in itertools.pairwise(bounds):
                if begin < end:
                    at, more = field.at if begin == 0 else "mid", field.more and end == len(field.text)
                    numbers, places = self._spell_out(Field(field.text[begin:end], at, more))
                    spelled[0].extend(numbers)
                    spelled[1].extend((begin + first, begin + last) for first, last in places)
            return spelled
        return ids, offsets

    def _cut(self, field: Field, cut: tuple[CutRange, ...]) -> tuple[Ids, tuple[int, ...]]:
        """The ids of a field without the tokens that `cut` takes, and how many tokens lie wholly in each range.

        A character of several tokens (bytes) is never split: its other tokens go too. A space that the tokenizer itself
        adds at the head counts as a token, though its offsets are those of the first character.

            text  Sum this: It rained a lot.       range [9, 25) front, 2 tokens
            ids   Sum| this|:| It| rained| a| lot|.     ->     Sum| this|:| a| lot|.
        """
        if (field, cut) in self._cut_memory:
            return self._cut_memory[field, cut]
        numbers, offsets = self._spell_out(self.place(field))
        keep = np.ones(len(numbers), dtype=bool)
        counts: list[int] = []
        in_text = self.place(field._replace(at="mid"))
        added_space = self.place(field).at == "head" and numbers[1:] == self._spell_out(in_text)[0]
        ends = [(0, 0), *offsets[1:]] if added_space else offsets
        for item in cut:
            inside = [index for index, (start, stop) in enumerate(offsets) if item.start <= start < stop <= item.stop]
            counts.append(len(inside))
            taken = min(item.tokens, len(inside))
            if item.side == "front":
                while 0 < taken < len(inside) and ends[inside[taken]][0] < ends[inside[taken - 1]][1]:
                    taken += 1
                keep[inside[:taken]] = False
            else:
                while 0 < taken < len(inside) and ends[inside[-taken - 1]][1] > ends[inside[-taken]][0]:
                    taken += 1
                keep[inside[len(inside) - taken :]] = False
        ids = np.array(numbers, dtype=np.int32)[keep]
        ids.flags.writeable = False
        self._cut_memory[field, cut] = ids, tuple(counts)
        return ids, tuple(counts)
