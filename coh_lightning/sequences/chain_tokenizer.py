"""Prompts and chains -> Tokens, in one format, with one tokenizer; and the truncation of prompts.

Training and inference share it, so the prompt of inference is what a training chain begins with:

    chain               <s> Name a fruit. | A good answer: | Apple </s>
    inference_prompt    <s> Name a fruit. | A good answer: |
"""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.turns import Turn
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.chains import Chain, TooLong, Unusable
from coh_lightning.sequences.chat_layout import make_layout
from coh_lightning.sequences.encoder import Encoder, Remembered
from coh_lightning.sequences.prompt_format import CutTurn, PromptFormat, Segment, describe
from coh_lightning.sequences.template_check import shown_turns
from coh_lightning.sequences.tokens import Ids, OutputSpan, Tokens


class CutPrompt(NamedTuple):
    """A prompt after truncation, the same for all chains of its record and at inference."""

    turns: tuple[CutTurn, ...]
    tokens: int  # everything before the first output but the feedback sentence, with BOS and template pieces
    cut: int = 0  # tokens that were removed, with those of dropped turns
    dropped: int = 0  # old turns that were dropped whole


class LinkLength(NamedTuple):
    """The most tokens that a link takes, whichever wording its feedback sentence has."""

    before: int  # of the prompt, before the first feedback sentence (and without one); 0 in further links
    marker: int  # the feedback sentence and everything else up to the output
    output: int  # the output with its end token


class BoundaryReport(NamedTuple):
    """How far the ids of separate segments are from those of the joint text."""

    chains: int
    chains_that_differ: int
    tokens: int
    tokens_that_differ: int

    def __str__(self) -> str:
        share = f"{self.tokens_that_differ / max(self.tokens, 1):.2%} of their tokens"
        return f"joint tokenization differs in {self.chains_that_differ} of {self.chains} chains, {share}"


class ChainTokenizer:
    """Prompts and chains as token ids. Raises `InputError` if the tokenizer doesn't suit the format.

    Args:
        marked: Whether the method has feedback sentences; the text around a prompt, and so its length, depends on it.
        reviews: Whether the method has reviews, whose chains begin without a sentence.
    """

    def __init__(
        self,
        encoder: Encoder,
        format: PromptFormat,
        *,
        max_prompt_tokens: int,
        marked: bool = True,
        reviews: bool = False,
    ) -> None:
        if encoder.added.kept != format.kept_tokens:
            raise ValueError(f"the encoder keeps {encoder.added.kept}, the prompt format {format.kept_tokens}")
        self.encoder = encoder
        # any sentence will do: it isn't counted, and the prompt's ids don't depend on it
        self._any_markers = (*(["x"] if marked else []), *([""] if reviews or not marked else []))
        self._reviews = reviews
        self.layout = make_layout(format, encoder.tokenizer)
        self.max_prompt_tokens = max_prompt_tokens
        self._prompt: CutPrompt | None = None
        self._sized_prompt: CutPrompt | None = None
        self._sized: dict[str, tuple[int, int, str]] = {}  # of the first link after that prompt
        self._sized_further: dict[str, tuple[int, int, str]] = Remembered()
        self._after_prompt: dict[str, tuple[int, str]] = Remembered()
        self._first: dict[str, tuple[Ids, str]] = {}
        self._further: dict[str, tuple[Ids, str]] = Remembered()
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
        """What the user should know about this tokenizer's template."""
        return self.layout.notes

    def notes_on_texts(self) -> list[str]:
        """Notes on the texts so far: added tokens in them, turns that the chat template shows differently."""
        return self.encoder.added.notes() + self.layout.notes_on_turns()

    def cut_prompt(self, prompt: Sequence[Turn]) -> CutPrompt:
        """The prompt within `max_prompt_tokens`. Old turns go first, whole, from the front (a user turn stays first, a
        system turn is kept); then tokens of the last turn's cuttable parts, in order, each from its own side.
        Nothing else is ever cut.

            system, user 1, assistant 1, user 2   ->   system, user 2   ->   system, user 2 with a shorter post

        Raises:
            TooLong: that is not enough.
            Unusable: a chat template refuses the sequence of roles.
        """
        cut = self._cut_to(prompt, self.max_prompt_tokens)
        if cut.tokens > self.max_prompt_tokens:
            raise TooLong(
                f"the prompt has {cut.tokens + cut.cut} tokens, {cut.tokens} of them in parts that are never cut, and "
                f"max_prompt_tokens is {self.max_prompt_tokens}"
            )
        return cut

    def prompt_bounds(self, prompt: Sequence[Turn]) -> tuple[CutPrompt, CutPrompt]:
        """The prompt with nothing cut, and with all cut that may be. Raises `Unusable` like `cut_prompt`."""
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
        """The chain as text; the `encoder.segment_ids` of all of them in order are the ids of `chain`."""
        return self.layout.segments(prompt.turns, chain)

    def chain(self, prompt: CutPrompt, chain: Chain) -> Tokens:
        """The ids and weights of one chain. Raises `Unusable` if nothing precedes its first output."""
        pieces: list[Ids] = []
        spans: list[OutputSpan] = []
        stop = 0
        for place, link in enumerate(chain):
            before, lead = self._before_output(prompt, link.marker, place)
            output = self.encoder.segment_ids(Segment(lead + link.text))
            pieces += (before, output, self._end)
            start = stop + len(before)
            stop = start + len(output) + len(self._end)
            spans.append(OutputSpan(start, stop, link.kind, place))
        if not spans or spans[0].start == 0:
            raise Unusable("nothing precedes the first output: the prompt is empty and the tokenizer adds no BOS token")
        learned, unlearned = np.zeros(stop), np.zeros(stop)
        for link, span in zip(chain, spans, strict=True):
            learned[span.start : span.stop] = link.learned
            unlearned[span.start : span.stop] = link.unlearned
        return Tokens(np.concatenate(pieces), learned, unlearned, tuple(spans))

    def inference_prompt(self, prompt: CutPrompt, marker: str) -> Ids:
        """All ids up to the first output: exactly those that a training chain under this marker begins with."""
        return self._before_output(prompt, marker, 0)[0]

    def continued_prompt(self, prompt: CutPrompt, chain: Chain, marker: str) -> Ids:
        """All ids up to the output after `chain`: those of a training chain with one more link, under this marker."""
        return np.concatenate([self.chain(prompt, chain).ids, self._before_output(prompt, marker, len(chain))[0]])

    def output_lead(self, marker: str, place: int = 0) -> str:
        """The spaces that outputs under this marker begin with in training (mostly none), for stripping."""
        return self.layout.before_output((CutTurn("user", "x", ()),), marker, place)[1]

    def link_lengths(self, prompt: CutPrompt, chain: Chain) -> list[LinkLength]:
        """The most tokens that each link of the chain takes; no arrays are made."""
        return [
            self.link_length(prompt, {link.marker, *link.alternatives}, link.text, place == 0)
            for place, link in enumerate(chain)
        ]

    def link_length(self, prompt: CutPrompt, markers: Collection[str], text: str, leads: bool) -> LinkLength:
        """The most tokens that an output takes under any of the sentences, as the first link of a chain or not."""
        before = marked = output = 0
        for marker in markers:
            shared, rest, lead = self._size_before_output(prompt, marker, leads)
            before = max(before, shared)
            marked = max(marked, rest)
            output = max(output, len(self.encoder.segment_ids(Segment(lead + text))) + len(self._end))
        return LinkLength(before, marked, output)

    def fields(self, feedback: Feedback) -> list[Field]:
        """The texts of a record to encode beforehand: turns, outputs, revisions (feedback sentences at run time)."""
        turns = [CutTurn.whole(turn) for turn in feedback.prompt]
        try:
            shapes = [self.layout.before_output(turns, marker) for marker in self._any_markers]
        except Unusable:  # cut_prompt raises it again, where rejected records are counted
            return []
        texts = [text for candidate in feedback.candidates for text in (candidate.text, candidate.revision)]
        if self._reviews:
            texts += [one.critique.strip() for one in feedback.candidates if one.critique is not None]
        found = [
            field
            for segments, lead in shapes
            for field in (
                *(Field(it.text, it.at, it.more) for it in segments if it.kind == "prompt" and not it.special),
                *(Field(lead + text) for text in texts if text is not None),
            )
        ]
        return list(dict.fromkeys(found)) if len(shapes) > 1 else found

    def boundary_report(self, chains: Iterable[tuple[CutPrompt, Chain]]) -> BoundaryReport:
        """Compare with joint tokenization: of the whole text in chat, of the text between special tokens in plain. Cut
        prompts are left out.
        """
        compared = differing = tokens = tokens_that_differ = 0
        for prompt, chain in chains:
            if prompt.cut:
                continue
            segments = self.layout.segments(prompt.turns, chain)
            separate = [int(number) for segment in segments for number in self.encoder.segment_ids(segment)]
            joint = self._joint(segments)
            matching = difflib.SequenceMatcher(None, separate, joint, autojunk=False).get_matching_blocks()
            compared += 1
            differing += separate != joint
            tokens += len(separate)
            tokens_that_differ += len(separate) - sum(block.size for block in matching)
        return BoundaryReport(compared, differing, tokens, tokens_that_differ)

    def _joint(self, segments: Sequence[Segment]) -> list[int]:
        if self.layout.format.kind == "chat":
            return self.encoder.template_ids("".join(segment.text for segment in segments), "head").tolist()
        ids: list[int] = []
        for special, group in itertools.groupby(segments, key=lambda segment: segment.special):
            listed = list(group)
            if special:
                ids += [int(number) for segment in listed for number in self.encoder.segment_ids(segment)]
            else:
                text = "".join(segment.text for segment in listed)
                ids += self.encoder.encode_texts([text], at=listed[0].at)[0].tolist()
        return ids

    def _before_output(self, prompt: CutPrompt, marker: str, place: int) -> tuple[Ids, str]:
        """The ids that link `place` adds before its output (memory: the last prompt), and the output's first spaces."""
        if place == 0 and prompt is not self._prompt:
            self._prompt, self._first = prompt, {}
        memory = self._first if place == 0 else self._further
        if marker not in memory:
            segments, lead = self.layout.before_output(prompt.turns, marker, place)
            ids = np.concatenate([np.zeros(0, dtype=np.int32), *map(self.encoder.segment_ids, segments)])
            ids.flags.writeable = False
            memory[marker] = ids, lead
        return memory[marker]

    def _count(self, turns: Sequence[CutTurn]) -> int:
        """Tokens before the first output without the feedback sentence; of chains with and without one, the more."""
        return max(self._count_of(marker, turns) for marker in self._any_markers)

    def _count_of(self, marker: str, turns: Sequence[CutTurn]) -> int:
        segments, _ = self.layout.before_output(turns, marker)
        return sum(len(self.encoder.segment_ids(segment)) for segment in segments if segment.kind == "prompt")

    def _shortened(self, turns: Sequence[CutTurn], excess: int) -> CutTurn:
        """The last turn with `excess` tokens removed, or as many as may be."""
        marked = turns[-1]._replace(taken=(0,) * len(turns[-1].parts))
        longest = max(self._any_markers, key=lambda marker: self._count_of(marker, turns))
        segments, _ = self.layout.before_output([*turns[:-1], marked], longest)
        counts = iter([count for segment in segments if segment.cut for count in self.encoder.cuttable(segment)])
        taken: list[int] = []
        for part in marked.parts:
            taken.append(min(excess - sum(taken), next(counts, 0)) if part.cut != "never" else 0)
        return marked._replace(taken=tuple(taken))

    def _size_before_output(self, prompt: CutPrompt, marker: str, leads: bool) -> tuple[int, int, str]:
        """Tokens of the prompt, those from there up to the output, and the output's first spaces."""
        alike = (marker != "",) == tuple(other != "" for other in self._any_markers)  # no other text around the prompt
        if leads and alike and self.layout.ends_alike and prompt.turns and prompt.turns[-1].text:
            if marker not in self._after_prompt:
                self._after_prompt[marker] = self._counted_before_output(prompt, marker, 0)[1:]
            rest, lead = self._after_prompt[marker]
            return prompt.tokens, rest, lead
        if leads and prompt is not self._sized_prompt:
            self._sized_prompt, self._sized = prompt, {}
        memory = self._sized if leads else self._sized_further
        if marker not in memory:
            memory[marker] = self._counted_before_output(prompt, marker, 0 if leads else 1)
        return memory[marker]

    def _counted_before_output(self, prompt: CutPrompt, marker: str, place: int) -> tuple[int, int, str]:
        segments, lead = self.layout.before_output(prompt.turns, marker, place)
        lengths = [len(self.encoder.segment_ids(segment)) for segment in segments]
        first = next((index for index, segment in enumerate(segments) if segment.place >= 0), len(segments))
        shared = sum(lengths[:first])
        if place == 0 and len(self._any_markers) > 1:
            shared = self._shared(prompt)
        return shared, sum(lengths) - shared, lead

    def _shared(self, prompt: CutPrompt) -> int:
        """Tokens that chains of this prompt with and without a sentence begin with: around a prompt, the text differs.

        <s>|Name a fruit.\\n\\n|A good answer:\\n|Apple        <s>|Name a fruit.\\n|Apple        ->  <s>|Name a fruit.
        """
        found = []
        for marker in self._any_markers:
            segments, _ = self.layout.before_output(prompt.turns, marker)
            before = itertools.takewhile(lambda segment: segment.place < 0, segments)
            found.append([int(number) for segment in before for number in self.encoder.segment_ids(segment)])
        return sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*found, strict=False)))


def _next_user(turns: Sequence[CutTurn], start: int) -> int:
    """Index of the next user turn from `start` on; 0 if there is none."""
    return next((index for index in range(start, len(turns)) if turns[index].role == "user"), 0)
