"""How a prompt and a chain become segments: slots for turns, markers and outputs, filled with texts.

A layout is a list of slots for each shape (a sequence of roles, with a feedback sentence or without):

    roles (user), with a sentence, plain     [piece <s>] [turn 0 + \\n\\n] [marker + \\n] [output]

`PlainLayout` writes it down; `ChatLayout` (chat_layout.py) reads it off the tokenizer's chat template.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from coh_lightning.errors import InputError
from coh_lightning.sequences import prompt_format
from coh_lightning.sequences.prompt_format import BLANK_LINE, At, CutRange, CutTurn, PromptFormat, Segment, describe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.sequences.chains import Chain


class Slot(NamedTuple):
    """A place of a layout: a fixed piece, or where a turn, a marker or an output goes and the text around it."""

    what: Literal["piece", "turn", "marker", "output"]
    piece: Segment | None = None
    turn: int = -1
    lead: str = ""
    tail: str = ""
    optional: bool = False  # the tail separates this text from the next: it is left out without this text
    at: At = "mid"
    more: bool = False
    strip: tuple[bool, bool] = (False, False)  # the template strips white space (left, right), so this must too


class Layout(ABC):
    """A `PromptFormat` for one tokenizer: `segments(turns, chain)` is the text of a chain.

    Attributes:
        end: The text that ends an output: the end token; in chat, what follows an output up to its first special token.
        end_id: The id of the special token in it.
        stop_ids: End an output at inference: the learned one, then the tokenizer's own end token if it is another.
        bos_ids: Begin a plain document, as the tokenizer itself adds them. Empty in chat: the template has its own.
        notes: What the user should know about the chat template, a sentence each.

    Raises:
        InputError: the tokenizer doesn't suit the format.
    """

    bos_ids: tuple[int, ...] = ()
    end: str
    end_id: int
    template_hash = ""  # of the chat template; empty in the plain format
    ends_alike = False
    """Whether the text between a prompt and its first output is the same after any prompt that ends with some text."""
    _next: tuple[Slot, ...]  # the slots of a further link

    def __init__(self, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> None:
        self.format = format
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self._prefixes: dict[Hashable, tuple[Slot, ...]] = {}
        self._specials = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.content)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        own = self.tokenizer.eos_token_id
        return (self.end_id,) if own is None or own == self.end_id else (self.end_id, int(own))

    def segments(self, turns: Sequence[CutTurn], chain: Chain) -> list[Segment]:
        """The segments of `chain` under the prompt `turns`, as drawn in prompt_format.py.

        An output is one segment with its link's weights and kind (and the spaces before it); its end follows with the
        same weights. It is encoded as in the middle of a text even right after a special token, without added space.

        Raises:
            InputError: an empty marker in a further link of a chat, where it would be an empty user turn.
            Unusable: a chat template refuses the sequence of roles.
        """
        filled: list[Segment] = []
        for place, link in enumerate(chain):
            lead = self._fill(filled, turns, link.marker, place)
            filled.append(Segment(lead + link.text, False, link.learned, link.unlearned, link.kind, place))
            filled.append(Segment(self.end, True, link.learned, link.unlearned, "end", place))
        return filled

    def before_output(self, turns: Sequence[CutTurn], marker: str, place: int = 0) -> tuple[list[Segment], str]:
        """What link `place` adds before its output (the first: the inference prompt), and the output's first spaces."""
        filled: list[Segment] = []
        lead = self._fill(filled, turns, marker, place)
        return filled, lead

    def notes_on_turns(self) -> list[str]:
        """What the layout changed in the turns of the prompts so far, a sentence each."""
        return []

    @abstractmethod
    def _slots(self, turns: Sequence[CutTurn], marked: bool) -> tuple[Slot, ...]:
        """The slots of a first link."""

    def _marker_text(self, text: str) -> tuple[str, str]:
        """The text of a marker slot, and the spaces at its end that become the output's."""
        return text, ""

    def _fill(self, filled: list[Segment], turns: Sequence[CutTurn], marker: str, place: int) -> str:
        """Append what precedes the output of link `place` to `filled`; return the spaces that belong to that output."""
        start = len(filled)
        slots = self._slots(turns, marker != "") if place == 0 else self._next
        skipped: Slot | None = None  # an empty text: the next text takes its place in the template
        spaces = ""
        for slot in slots:
            if slot.what == "piece":
                assert slot.piece is not None
                filled.append(slot.piece if place == 0 else slot.piece._replace(kind="marker", place=place))
                skipped = None
                continue
            lead, at = slot.lead, slot.at
            if skipped is not None:
                lead, at = (skipped.lead if slot.what == "marker" else skipped.lead + lead), skipped.at
                skipped = None
            if slot.what == "turn":
                turn = turns[slot.turn]
                text = _stripped(turn.text, slot.strip)
                if not text and slot.optional and not lead.strip():
                    skipped = slot._replace(lead=lead, at=at)
                elif lead or text or slot.tail:
                    cut = _ranges(turn, slot.strip, len(lead)) if turn.taken else ()
                    filled.append(Segment(lead + text + slot.tail, at=at, more=slot.more, cut=cut))
            elif slot.what == "marker":
                text = lead + _stripped(marker, slot.strip) + slot.tail if marker else slot.tail
                text, spaces = self._marker_text(text)
                if text:
                    filled.append(Segment(text, kind="marker", place=place, at=at, more=slot.more))
            else:
                self._look_ahead(filled, start)
                return spaces + lead
        raise AssertionError("a layout ends with an output")

    def _look_ahead(self, filled: list[Segment], start: int) -> None:
        """Line ends at the end of a segment are encoded as before text only where the next text begins with neither
        white space nor an added token: mostly "\\n\\n" and " x" have other ids than "\\n\\n" and "x".
        """
        for index in range(start, len(filled) - 1):
            segment, following = filled[index], filled[index + 1]
            tokens = self._specials if following.special else self.format.kept_tokens
            apart = following.text[:1].isspace() or following.text.startswith(tokens)
            if segment.more and following.kind == "prompt" and apart:
                filled[index] = segment._replace(more=False)


class PlainLayout(Layout):
    """Paragraphs: turns with labels, a blank line between them, the feedback sentence, the output, the end token."""

    ends_alike = True

    def __init__(self, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(format, tokenizer)
        if tokenizer.eos_token_id is None:
            raise InputError(f"{describe(tokenizer)} has no end token, so outputs would never end; set its eos_token.")
        self.end, self.end_id = str(tokenizer.eos_token), int(tokenizer.eos_token_id)
        self.bos_ids = prompt_format.bos_ids(tokenizer)
        self._next = (Slot("marker", lead=format.before_marker, tail=format.before_output), Slot("output"))

    def _slots(self, turns: Sequence[CutTurn], marked: bool) -> tuple[Slot, ...]:
        roles = tuple([turn.role for turn in turns])
        if (roles, marked) not in self._prefixes:
            self._prefixes[roles, marked] = tuple(self._prefix(roles, marked))
        return self._prefixes[roles, marked]

    def _prefix(self, roles: Sequence[str], marked: bool) -> Iterator[Slot]:
        if self.bos_ids:
            bos = "".join(self.tokenizer.convert_ids_to_tokens(list(self.bos_ids)))
            yield Slot("piece", Segment(bos, True, at="head"))
        labels = {"system": "", "user": self.format.user_label + " ", "assistant": self.format.assistant_label + " "}
        if sum(role != "system" for role in roles) == 1:
            labels["user"] = ""
        last, spaces = split_spaces(self.format.before_marker if marked else self.format.before_output)
        for index, role in enumerate(roles):
            final = index == len(roles) - 1
            yield Slot(
                "turn",
                turn=index,
                lead=labels[role],
                tail=last if final else BLANK_LINE,
                optional=marked or not final,
                at="mid" if index else "head",
                more=marked and not spaces if final else True,
            )
        if marked:
            yield Slot("marker", lead=spaces, tail=self.format.before_output)
        yield Slot("output", lead="" if marked else spaces)

    def _marker_text(self, text: str) -> tuple[str, str]:
        return split_spaces(text)  # the output follows at once, and spaces belong to it


def split_spaces(text: str) -> tuple[str, str]:
    """A text without the spaces at its end, and these."""
    body = text.rstrip(" ")
    return body, text[len(body) :]


def _stripped(text: str, strip: tuple[bool, bool]) -> str:
    if strip[0]:
        text = text.lstrip()
    return text.rstrip() if strip[1] else text


def _ranges(turn: CutTurn, strip: tuple[bool, bool], lead: int) -> tuple[CutRange, ...]:
    """Where a turn's cuttable parts are in its segment, after `lead` more characters and without what is stripped."""
    begin = len(turn.text) - len(turn.text.lstrip()) if strip[0] else 0
    end = begin + len(_stripped(turn.text, strip))
    ranges: list[CutRange] = []
    start = 0
    for part, taken in zip(turn.parts, turn.taken, strict=True):
        stop = start + len(part.text)
        if part.cut != "never":
            first, last = (max(min(place, end), begin) - begin + lead for place in (start, stop))
            ranges.append(CutRange(first, last, part.cut, taken))
        start = stop
    return tuple(ranges)
