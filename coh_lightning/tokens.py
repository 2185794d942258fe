"""Segments -> token ids: each text encoded on its own as it stands in its place, ids of distinct texts remembered and
cached, and the one truncation.

Concatenated ids, not a joint encoding: a loss weight can't straddle a token, and the prompt at inference has the very
ids of training.

    segments   <s> | Name a fruit.\\n\\n | A good answer:\\n | Apple   | </s>
    ids        1   | 37 8 91 4         | 12 55 61 3       | 70 9    | 2
    learned    0   | 0  0 0  0         | 0  0  0  0       | 1  1    | 1       one Span(9, 12, "good", 0)
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import logging
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coh_lightning.added_tokens import AddedTokens
from coh_lightning.chains import Chain, Link, TooLong, Unusable
from coh_lightning.errors import InputError, counted
from coh_lightning.files import written_aside
from coh_lightning.formats import At, CutRange, CutTurn, Layout, PromptFormat, Segment, bos_ids, describe
from coh_lightning.records import Feedback
from coh_lightning.template_check import shown_turns
from coh_lightning.turns import Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

VERSION = 2
"""Of the encoding below. Raise it when the ids of any text may change: caches of another version are built again."""

Ids = NDArray[np.int32]
Weights = NDArray[np.float64]

_LEFT = ("\n", "a", ".", "0", ":", "Q")
"""Anchors that are put before a text to encode it as in the middle of a text; the first that survives is used."""
_RIGHT = ("A", "x", "0", "The", "5", "Q")
"""Likewise after a text that ends in white space and goes on: "\\n\\n" alone and before a letter are different tokens
to many tokenizers.
"""
_PROBES = (
    "a",
    "Hello",
    " hello",
    "\nhello",
    "The cat.",
    "7",
    "日本",
    "é",
    "...",
    "(x)",
    " ",
    "  two",
    "\t",
    "A good answer:",
)
"""A tokenizer that gives each of these the same ids alone and in the middle of a text adds no false space, and needs no
anchors.
"""


class Span(NamedTuple):
    """The tokens [start, stop) of one output, its end token included."""

    start: int
    stop: int
    kind: str
    place: int
    """Index of the link in its chain."""


@dataclass(frozen=True)
class Tokens:
    """One chain as tokens: `ids` int32 (n,), `learned` and `unlearned` float64 (n,) weights, the span of each output.
    Refuses unequal lengths, other types.
    """

    ids: Ids
    learned: Weights
    unlearned: Weights
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        shape = self.ids.shape
        if len(shape) != 1 or self.learned.shape != shape or self.unlearned.shape != shape:
            raise ValueError(
                f"ids {shape}, learned {self.learned.shape} and unlearned {self.unlearned.shape} must be "
                "one-dimensional and of equal length."
            )
        if self.ids.dtype != np.int32 or self.learned.dtype != np.float64 or self.unlearned.dtype != np.float64:
            raise ValueError(
                f"ids must be int32, weights float64, not {self.ids.dtype}, {self.learned.dtype}, "
                f"{self.unlearned.dtype}."
            )

    def __len__(self) -> int:
        return len(self.ids)


class Field(NamedTuple):
    """A text to encode and its place: what is remembered and cached. See `Segment` for `at` and `more`."""

    text: str
    at: At = "mid"
    more: bool = False


class Encoder:
    """A tokenizer that encodes pieces of text as they stand in their place, and remembers them.

    People's text never becomes a special token, nor an added token in brackets that `keep` doesn't name
    (added_tokens.py): `</s>` and `<think>` in it are spelt out. Raises `InputError` for a tokenizer without a fast back
    end, or one that can't keep a text apart from what stands before it.

        SentencePiece:   tokenizer("Apple") = [▁Apple]          a space that isn't there
                         encode("\\nApple") = [▁, \\n, Apple]    minus the anchor encode("\\n") = [▁, \\n]    ->    [Apple]
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, keep: Sequence[str] = ()) -> None:
        from tokenizers import Tokenizer

        if not tokenizer.is_fast:
            raise InputError(
                f"{describe(tokenizer)} has no fast version (tokenizer.json); convert it, or take a tokenizer that "
                "has one."
            )
        self.tokenizer = tokenizer
        settings = json.loads(tokenizer.backend_tokenizer.to_str())
        settings["truncation"] = settings["padding"] = None  # left over from other calls; no part of the tokenizer
        frozen = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        self.tokenizer_hash = hashlib.sha256(frozen.encode("utf-8", "surrogatepass")).hexdigest()
        self.added = AddedTokens(tokenizer, describe(tokenizer), keep)
        # A copy of our own: other code may switch truncation, padding or splitting on and off on the original.
        self._backend = Tokenizer.from_str(self.added.unmatched(settings))
        self._backend.encode_special_tokens = True
        added = tokenizer.added_tokens_decoder
        self._own_specials = frozenset(number for number, token in added.items() if token.special) | frozenset(
            tokenizer.all_special_ids
        )
        self._specials = self._own_specials | self.added.spelled_ids
        self._unknown: int | None = tokenizer.unk_token_id
        self._memory: dict[tuple[str, At, bool], Ids] = {}
        self._template_memory: dict[tuple[str, At, bool], Ids] = {}
        self._cut_memory: dict[tuple[Field, tuple[CutRange, ...]], tuple[Ids, tuple[int, ...]]] = {}
        self.unanchored = 0
        """Texts that no anchor kept apart, encoded as if they stood alone (rare: texts that begin with a combining
        character).
        """
        self._read_tokenizer()

    @property
    def bos_ids(self) -> tuple[int, ...]:
        return bos_ids(self.tokenizer)

    def encode_texts(self, texts: Sequence[str], *, at: At = "mid") -> list[Ids]:
        """The ids of each text, in one call of the tokenizer; texts seen before cost nothing."""
        return self.encode_fields([Field(text, at) for text in texts])

    def encode_fields(self, fields: Sequence[Field]) -> list[Ids]:
        """The ids of each field, in one call of the tokenizer; fields seen before cost nothing."""
        keys = [self.place(field) for field in fields]
        new = [key for key in dict.fromkeys(keys) if key not in self._memory]
        self.remember(new, [np.array(ids, dtype=np.int32) for ids in self._encode(new)])
        return [self._memory[key] for key in keys]

    def place(self, field: Field) -> Field:
        """The same field under its simplest name: texts whose ids don't depend on their place share one."""
        text, at, more = field
        if at == "special":
            at = self._after_special
        return Field(text, "mid" if self._direct else at, more and text[-1:].isspace())

    def remember(self, fields: Sequence[Field], ids: Sequence[Ids]) -> None:
        """Take over ids that were made before (from the cache)."""
        for array in ids:
            array.flags.writeable = False
        self._memory.update(zip(fields, ids, strict=True))

    def segment_ids(self, segment: Segment) -> Ids:
        """The ids of a segment, what truncation takes from it left out."""
        key = (segment.text, segment.at, segment.more)
        if segment.special:
            return self.template_ids(*key)
        if segment.cut:
            return self._cut(Field(*key), segment.cut)[0]
        ids = self._memory.get(key)
        if ids is None:
            ids = self._memory[key] = self.encode_fields([Field(*key)])[0]
        return ids

    def template_ids(self, text: str, at: At = "mid", more: bool = False) -> Ids:
        """The ids of a piece of a template, with its special tokens."""
        key = (text, at, more)
        ids = self._template_memory.get(key)
        if ids is None:
            self._backend.encode_special_tokens = False
            found = self._anchored([self.place(Field(*key))])[0]
            self._backend.encode_special_tokens = True
            ids = self._template_memory[key] = np.array(found, dtype=np.int32)
            ids.flags.writeable = False
        return ids

    def cuttable(self, segment: Segment) -> tuple[int, ...]:
        """How many tokens lie wholly in each cuttable range of a segment."""
        return self._cut(
            Field(segment.text, segment.at, segment.more), tuple(item._replace(tokens=0) for item in segment.cut)
        )[1]

    def decode(self, ids: Sequence[int] | Ids, *, skip_special_tokens: bool = False) -> str:
        """The text of ids in the middle of a text; nothing is stripped (decoders of the SentencePiece kind take a
        leading space away otherwise).
        """
        anchor = "a"
        head = self._alone([anchor])[0]
        backend = self.tokenizer.backend_tokenizer  # which calls special what the tokenizer does
        text = str(backend.decode([*head, *map(int, ids)], skip_special_tokens=skip_special_tokens))
        return text[len(backend.decode(head)) :]

    # --- how this tokenizer treats the beginning of a text

    def _read_tokenizer(self) -> None:
        heads = dict(zip(_LEFT, self._alone(_LEFT), strict=True))
        usable = [anchor for anchor in _LEFT if heads[anchor] and self._unknown not in heads[anchor]]
        self._left = [(anchor, heads[anchor]) for anchor in usable]
        self._right: list[tuple[str, list[int]]] = []
        self._direct = False
        self._after_special: At = "mid"
        if not self._left:
            raise InputError(
                f"{describe(self.tokenizer)} knows none of the characters {', '.join(map(repr, _LEFT))}, so texts "
                "can't be told from what precedes them."
            )
        known = [text for text, ids in zip(_RIGHT, self._alone(_RIGHT), strict=True) if self._unknown not in ids]
        self._right = list(zip(known, self._anchored([Field(text) for text in known]), strict=True)) or [("", [])]
        if self.unanchored:
            raise InputError(
                f"{describe(self.tokenizer)} doesn't keep a text apart from what precedes it, so outputs can't be "
                "encoded separately; take another one."
            )
        alone = self._alone(_PROBES)
        middle = self._anchored([Field(text) for text in _PROBES])
        # White space alone may be merged with any anchor: such probes tell nothing.
        self._direct = alone == middle and not self.unanchored
        self.unanchored = 0
        tokens = self.tokenizer.added_tokens_decoder
        plain = [
            number
            for number in sorted(self._own_specials)
            if number in tokens and not (tokens[number].lstrip or tokens[number].rstrip)
        ]
        if plain and not self._direct:
            special = tokens[plain[0]].content
            self._backend.encode_special_tokens = False
            after = [ids[1:] for ids in self._alone([special + "Hello", special + "a"])]
            self._backend.encode_special_tokens = True
            self._after_special = "head" if after == self._alone(["Hello", "a"]) else "mid"

    def _alone(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    # --- encoding

    def _encode(self, fields: Sequence[Field]) -> list[list[int]]:
        """People's text. Some tokenizers hold their special tokens in the vocabulary itself and find them in any text:
        those are spelt out.
        """
        found = self._anchored(fields)
        for index, ids in enumerate(found):
            if not self._specials.isdisjoint(ids):
                found[index] = self._one(fields[index])[0]
        return found

    def _anchored(self, fields: Sequence[Field]) -> list[list[int]]:
        """The ids of each field: encoded between anchors, whose ids are dropped after checking that they are there;
        with other anchors where they are not.
        """
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
            for index, ids, ((_, head), (_, tail)) in zip(waiting, self._alone(texts), around, strict=True):
                stop = len(ids) - len(tail)
                if stop > len(head) and ids[: len(head)] == head and ids[stop:] == tail:
                    found[index] = ids[len(head) : stop]
                else:
                    again.append(index)
            waiting = again
        self.unanchored += len(waiting)
        for index, ids in zip(waiting, self._alone([fields[index].text for index in waiting]), strict=True):
            found[index] = ids
        return found

    def _around(self, field: Field, attempt: int) -> tuple[tuple[str, list[int]], tuple[str, list[int]]]:
        """The anchors (text, ids) on the left and on the right of a field."""
        left = ("", []) if field.at == "head" or (self._direct and attempt == 0) else self._left[attempt]
        right = self._right[attempt % len(self._right)] if field.more and field.text[-1].isspace() else ("", [])
        return left, right

    def _one(self, field: Field) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of one field and the characters [start, stop) of its text that each comes from, special tokens spelt
        out character by character.
        """
        ids = self._anchored([field])[0]
        offsets = self._offsets(field, ids)
        for number, (start, stop) in zip(ids, offsets, strict=True):
            literal = field.text[start:stop]
            if number not in self._specials or (number == self._unknown and self.tokenizer.unk_token not in literal):
                continue
            if len(literal) < 2:
                around = field.text[max(start - 20, 0) : stop + 20]
                raise InputError(
                    f"The text {around!r} holds {literal!r}, a special token of this tokenizer that can't be spelt "
                    "otherwise; take it out of the data."
                )
            bounds = [0, *range(start, stop + 1), len(field.text)]
            spelt: tuple[list[int], list[tuple[int, int]]] = ([], [])
            for begin, end in itertools.pairwise(bounds):
                if begin < end:
                    piece = Field(
                        field.text[begin:end], field.at if begin == 0 else "mid", field.more and end == len(field.text)
                    )
                    numbers, places = self._one(piece)
                    spelt[0].extend(numbers)
                    spelt[1].extend((begin + first, begin + last) for first, last in places)
            return spelt
        return ids, offsets

    def _offsets(self, field: Field, ids: list[int]) -> list[tuple[int, int]]:
        for attempt in range(len(self._left) if field.text else 0):
            (left, head), (right, tail) = self._around(field, attempt)
            encoding = self._backend.encode(left + field.text + right, add_special_tokens=False)
            stop = len(encoding.ids) - len(tail)
            if encoding.ids[:stop] == [*head, *ids] and encoding.ids[stop:] == tail:
                return [
                    (max(begin - len(left), 0), min(end - len(left), len(field.text)))
                    for begin, end in encoding.offsets[len(head) : stop]
                ]
        return list(self._backend.encode(field.text, add_special_tokens=False).offsets)

    # --- truncation

    def _cut(self, field: Field, cut: tuple[CutRange, ...]) -> tuple[Ids, tuple[int, ...]]:
        """The ids of a field without the tokens that `cut` takes, and how many tokens lie wholly in each range.

        A character of several tokens (bytes) is never cut in two: its other tokens go too. A space that the tokenizer
        itself adds at the head counts as a token of its own, though its offsets are those of the first character.

            text  Sum this: It rained a lot.       range [9, 25) front, 2 tokens
            ids   Sum| this|:| It| rained| a| lot|.     ->     Sum| this|:| a| lot|.
        """
        known = self._cut_memory.get((field, cut))
        if known is not None:
            return known
        numbers, offsets = self._one(self.place(field))
        keep = np.ones(len(numbers), dtype=bool)
        counts: list[int] = []
        added = self.place(field).at == "head" and numbers[1:] == self._one(self.place(field._replace(at="mid")))[0]
        ends = [(0, 0), *offsets[1:]] if added else offsets
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
        return self._cut_memory[field, cut]


# --- the cache on disk


def cache_fields(encoder: Encoder, fields: Iterable[Field], cache_dir: Path, *, progress: bool = True) -> Path:
    """Let `encoder` remember the ids of all `fields`: read from a file under `cache_dir`, or encoded and written there.
    Gives the file's path.

    The name of the file is a hash of the tokenizer, of the added tokens that are kept, of VERSION and of all texts; it
    holds neither wording nor method. It is written aside and renamed; one that is cut short, unreadable or another's is
    built again, never trusted.
    """
    ordered = sorted(set(map(encoder.place, fields)))
    encoder.added.count({field.text for field in ordered})
    key = _cache_key(" ".join([encoder.tokenizer_hash, *sorted(encoder.added.kept)]), ordered)
    path = cache_dir / f"fields-{key[:32]}.npz"
    ids = _read_cache(path, key, len(ordered)) if path.exists() else None
    if ids is None:
        ids = _encode_all(encoder, ordered, progress=progress)
        _write_cache(path, key, ids)
    encoder.remember(ordered, ids)
    return path


def _cache_key(tokenizer_hash: str, fields: Sequence[Field]) -> str:
    digest = hashlib.sha256(f"{VERSION} {tokenizer_hash} {len(fields)}".encode())
    for text, at, more in fields:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"|{len(encoded)} {at} {more}|".encode())
        digest.update(encoded)
    return digest.hexdigest()


def _encode_all(encoder: Encoder, fields: Sequence[Field], *, progress: bool, batch: int = 2048) -> list[Ids]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress or len(fields) <= batch) as bar:
        ids: list[Ids] = []
        for start in bar.track(range(0, len(fields), batch), description="tokenising, batches"):
            ids += encoder.encode_fields(fields[start : start + batch])
    return ids


def _read_cache(path: Path, key: str, number: int) -> list[Ids] | None:
    """The ids of each field, or None for a file that is not whole or not this key's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, bounds, stored, checksum = file["ids"], file["bounds"], str(file["key"]), str(file["checksum"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        log.warning("The cache %s is not whole (%s: %s) and is built again.", path, type(error).__name__, error)
        return None
    if stored != key or checksum != _checksum(ids, bounds) or bounds.shape != (number + 1,) or ids.dtype != np.int32:
        log.warning("The cache %s holds something else than its name says and is built again.", path)
        return None
    ends = bounds.tolist()
    return [ids[start:stop] for start, stop in itertools.pairwise(ends)]


def _write_cache(path: Path, key: str, ids: Sequence[Ids]) -> None:
    joint = np.concatenate([np.zeros(0, dtype=np.int32), *ids])
    bounds = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, ids=joint, bounds=bounds, key=np.array(key), checksum=np.array(_checksum(joint, bounds)))


def _checksum(ids: NDArray[Any], bounds: NDArray[Any]) -> str:
    return hashlib.sha256(ids.tobytes() + bounds.tobytes()).hexdigest()


# --- chains


class CutPrompt(NamedTuple):
    """A prompt after the one truncation: the same for all chains of its record and at inference."""

    turns: tuple[CutTurn, ...]
    tokens: int
    """All that stands before the first output but the feedback sentence (for a method without one: all): BOS and the
    pieces of a template count.
    """
    cut: int = 0
    """Tokens that were taken away, those of dropped turns included."""
    dropped: int = 0
    """Old turns that were dropped whole."""


class LinkLength(NamedTuple):
    """Tokens that a link takes at most, whatever wording its feedback sentence has."""

    before: int
    """Of the prompt, before the first feedback sentence; 0 in further links."""
    marker: int
    """The feedback sentence and all else up to the output."""
    output: int
    """The output with its end token."""


class BoundaryReport(NamedTuple):
    """How far the ids of separate segments are from those of the joint text."""

    chains: int
    chains_that_differ: int
    tokens: int
    tokens_that_differ: int

    def __str__(self) -> str:
        share = self.tokens_that_differ / max(self.tokens, 1)
        return (
            f"joint tokenisation differs in {self.chains_that_differ} of {self.chains} chains, {share:.2%} of "
            "their tokens"
        )


class ChainTokenizer:
    """Prompts and chains -> ids, in one format, with one tokenizer: training and inference both go through it.

    `marked`: whether the method has feedback sentences; what stands around the prompt, and so its length, depends on
    it. Raises `InputError` where the tokenizer doesn't suit the format (see `Layout`).
    """

    def __init__(self, encoder: Encoder, format: PromptFormat, *, max_prompt_tokens: int, marked: bool = True) -> None:
        if encoder.added.kept != format.kept_tokens:
            raise ValueError(
                f"the encoder keeps the tokens {encoder.added.kept}, the prompt format {format.kept_tokens}; make it "
                "as Encoder(tokenizer, keep=format.kept_tokens)"
            )
        self.encoder = encoder
        self._any_marker = (
            "x" if marked else ""
        )  # whatever it says: it is not counted, and the prompt's ids don't depend on it
        self.layout = Layout(format, encoder.tokenizer)
        self.max_prompt_tokens = max_prompt_tokens
        self._prompt: CutPrompt | None = None
        self._first: dict[str, tuple[Ids, str]] = {}
        self._further: dict[str, tuple[Ids, str]] = {}
        self._end = end = encoder.template_ids(self.layout.end)
        if not len(end) or end[-1] != self.layout.end_id:
            raise InputError(
                f"{describe(encoder.tokenizer)} encodes its end token '{self.layout.end}' as {end.tolist()}, not "
                f"{self.layout.end_id}; make it a special token."
            )

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an output."""
        return self.layout.stop_ids

    @property
    def notes(self) -> list[str]:
        """What the user should know of this tokenizer's template."""
        return self.layout.notes

    def notes_on_texts(self) -> list[str]:
        """What became of texts so far: added tokens in those of `cache_fields`, turns of prompts that the chat template
        shows otherwise than they were given.
        """
        notes = self.encoder.added.notes()
        if self.layout.trimmed:
            notes.append(
                f"The chat template trims texts, and training does so too: {self.layout.trimmed:,} of the turns of "
                "prompts. Outputs are kept as they are."
            )
        count, (was, shown) = self.layout.rewritten
        if count:
            turns = counted(count, "turn")
            notes.append(
                f"The chat template rewrites {turns} of prompts, and training shows them as it does, e.g. "
                f"{was[:80]!r} as {shown[:80]!r}."
            )
        return notes

    def cut_prompt(self, prompt: Sequence[Turn]) -> CutPrompt:
        """The prompt within `max_prompt_tokens`: old turns go first, whole, from the front, so that a user turn stays
        first (the system turn is kept); then tokens of the last turn's cuttable parts, the first part first, each from
        its own side. Nothing else is ever cut.

            system, user 1, assistant 1, user 2   ->   system, user 2   ->   system, user 2 with a shorter post

        Raises `TooLong` if that is not enough, `Unusable` if a chat template refuses the sequence of roles.
        """
        cut = self._cut_to(prompt, self.max_prompt_tokens)
        if cut.tokens > self.max_prompt_tokens:
            whole = cut.tokens + cut.cut
            raise TooLong(
                f"the prompt has {whole} tokens, {cut.tokens} of them in parts that are never cut, and "
                f"max_prompt_tokens is {self.max_prompt_tokens}"
            )
        return cut

    def prompt_bounds(self, prompt: Sequence[Turn]) -> tuple[CutPrompt, CutPrompt]:
        """The prompt with nothing cut, and with everything cut that may be. Raises `Unusable` if a chat template
        refuses the sequence of roles.
        """
        return self._cut_to(prompt, sys.maxsize), self._cut_to(prompt, 0)

    def _cut_to(self, prompt: Sequence[Turn], limit: int) -> CutPrompt:
        """The prompt within `limit` tokens, or as short as it can be."""
        turns = shown_turns(self.layout, prompt)
        whole = tokens = self._count(turns)
        first = 1 if turns and turns[0].role == "system" else 0
        while tokens > limit and (next_user := _next_user(turns, first + 1)):
            turns = turns[:first] + turns[next_user:]
            tokens = self._count(turns)
        if tokens > limit:
            turns[-1] = self._shortened(turns, tokens - limit)
            tokens = self._count(turns)
        return CutPrompt(tuple(turns), tokens, whole - tokens, len(prompt) - len(turns))

    def segments(self, prompt: CutPrompt, chain: Chain) -> list[Segment]:
        """The chain as text; `encoder.segment_ids` gives the ids of each, and all in a row are those of `chain`."""
        return self.layout.segments(prompt.turns, chain)

    def chain(self, prompt: CutPrompt, chain: Chain) -> Tokens:
        """The ids and weights of one chain. Raises `Unusable` if nothing stands before its first output (an empty
        prompt, no BOS).
        """
        pieces: list[Ids] = []
        spans: list[Span] = []
        stop = 0
        for place, link in enumerate(chain):
            before, lead = self._before_output(prompt, link.marker, place)
            output = self.encoder.segment_ids(Segment(lead + link.text))
            pieces += (before, output, self._end)
            start = stop + len(before)
            stop = start + len(output) + len(self._end)
            spans.append(Span(start, stop, link.kind, place))
        if not spans or spans[0].start == 0:
            raise Unusable(
                "nothing stands before the first output: the prompt is empty, and the tokenizer adds no BOS token"
            )
        learned, unlearned = np.zeros(stop), np.zeros(stop)
        for link, (start, stop, _, _) in zip(chain, spans, strict=True):
            if link.learned:
                learned[start:stop] = link.learned
            if link.unlearned:
                unlearned[start:stop] = link.unlearned
        return Tokens(np.concatenate(pieces), learned, unlearned, tuple(spans))

    def inference_prompt(self, prompt: CutPrompt, marker: str) -> Ids:
        """All ids up to the first output: exactly those that a training chain with this marker begins with."""
        return self._before_output(prompt, marker, 0)[0]

    def continued_prompt(self, prompt: CutPrompt, chain: Chain, marker: str) -> Ids:
        """All ids up to the output after `chain`: exactly those that a training chain of one more link, under this
        marker, has before its last output.
        """
        return np.concatenate([self.chain(prompt, chain).ids, self._before_output(prompt, marker, len(chain))[0]])

    def output_lead(self, marker: str, place: int = 0) -> str:
        """The spaces that an output under this marker begins with in training (for most formats none): to be taken off
        a completion.
        """
        return self.layout.before_output((CutTurn("user", "x", ()),), marker, place)[1]

    def link_lengths(self, prompt: CutPrompt, chain: Chain) -> list[LinkLength]:
        """What each link of the chain takes at most; no arrays are made."""
        return [self._link_length(prompt, link, place) for place, link in enumerate(chain)]

    def fields(self, feedback: Feedback) -> list[Field]:
        """The texts of a record to encode beforehand: turns, outputs, revisions. Feedback sentences are encoded at run
        time.
        """
        try:
            segments, lead = self.layout.before_output(
                [CutTurn.whole(turn) for turn in feedback.prompt], self._any_marker
            )
        except Unusable:  # cut_prompt says so again, where rejected records are counted
            return []
        texts = [
            text
            for candidate in feedback.candidates
            for text in (candidate.text, candidate.revision)
            if text is not None
        ]
        prompt = [
            Field(segment.text, segment.at, segment.more)
            for segment in segments
            if segment.kind == "prompt" and not segment.special
        ]
        return [*prompt, *[Field(lead + text) for text in texts]]

    def boundary_report(self, chains: Iterable[tuple[CutPrompt, Chain]]) -> BoundaryReport:
        """Compare with joint tokenisation: of the whole rendered text in chat, of what stands between special tokens in
        plain. Cut prompts are left out.
        """
        compared = differing = tokens = tokens_that_differ = 0
        for prompt, chain in chains:
            if prompt.cut:
                continue
            segments = self.layout.segments(prompt.turns, chain)
            separate = [int(number) for segment in segments for number in self.encoder.segment_ids(segment)]
            joint = self._joint(segments)
            same = sum(
                block.size
                for block in difflib.SequenceMatcher(None, separate, joint, autojunk=False).get_matching_blocks()
            )
            compared += 1
            differing += separate != joint
            tokens += len(separate)
            tokens_that_differ += len(separate) - same
        return BoundaryReport(compared, differing, tokens, tokens_that_differ)

    def _before_output(self, prompt: CutPrompt, marker: str, place: int) -> tuple[Ids, str]:
        """The ids that link `place` adds before its output, and the spaces that the output begins with. The last prompt
        is kept.
        """
        if place == 0 and prompt is not self._prompt:
            self._prompt, self._first = prompt, {}
        memory = self._first if place == 0 else self._further
        found = memory.get(marker)
        if found is None:
            segments, lead = self.layout.before_output(prompt.turns, marker, place)
            ids = np.concatenate([np.zeros(0, dtype=np.int32), *map(self.encoder.segment_ids, segments)])
            ids.flags.writeable = False
            found = memory[marker] = ids, lead
        return found

    def _count(self, turns: Sequence[CutTurn]) -> int:
        """Tokens before the first output without the feedback sentence."""
        segments, _ = self.layout.before_output(turns, self._any_marker)
        return sum(len(self.encoder.segment_ids(segment)) for segment in segments if segment.kind == "prompt")

    def _shortened(self, turns: Sequence[CutTurn], excess: int) -> CutTurn:
        """The last turn with `excess` tokens taken away, or as many as may be."""
        marked = turns[-1]._replace(taken=(0,) * len(turns[-1].parts))
        segments, _ = self.layout.before_output([*turns[:-1], marked], self._any_marker)
        counts = iter([count for segment in segments if segment.cut for count in self.encoder.cuttable(segment)])
        taken: list[int] = []
        for part in marked.parts:
            share = min(excess - sum(taken), next(counts, 0)) if part.cut != "never" else 0
            taken.append(share)
        return marked._replace(taken=tuple(taken))

    def _link_length(self, prompt: CutPrompt, link: Link, place: int) -> LinkLength:
        before = marked = output = 0
        for marker in {link.marker, *link.alternatives}:
            segments, lead = self.layout.before_output(prompt.turns, marker, place)
            lengths = [len(self.encoder.segment_ids(segment)) for segment in segments]
            first = next((index for index, segment in enumerate(segments) if segment.place >= 0), len(segments))
            before = max(before, sum(lengths[:first]))
            marked = max(marked, sum(lengths[first:]))
            output = max(output, len(self.encoder.segment_ids(Segment(lead + link.text))) + len(self._end))
        return LinkLength(before, marked, output)

    def _joint(self, segments: Sequence[Segment]) -> list[int]:
        if self.layout.format.kind == "chat":
            return self.encoder.template_ids("".join(segment.text for segment in segments), "head").tolist()
        ids: list[int] = []
        for special, group in itertools.groupby(segments, key=lambda segment: segment.special):
            listed = list(group)
            if special:
                ids += [int(number) for segment in listed for number in self.encoder.segment_ids(segment)]
            else:
                ids += self.encoder.encode_texts(["".join(segment.text for segment in listed)], at=listed[0].at)[
                    0
                ].tolist()
        return ids


def _next_user(turns: Sequence[CutTurn], start: int) -> int:
    """Index of the next turn, from `start` on, that is the user's; 0 if there is none."""
    return next((index for index in range(start, len(turns)) if turns[index].role == "user"), 0)
