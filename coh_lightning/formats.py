"""How a prompt and a chain become one text: `plain` (paragraphs) or `chat` (the tokenizer's own chat template). No
torch; the tokenizer is passed in.

The text is a list of `Segment`s, each tokenised on its own (tokens.py), so that a loss weight never straddles a token:

    plain   <s>|Name a fruit.\\n\\n|A good answer:\\n|Apple|</s>|\\n\\nA bad answer:\\n|Stone|</s>
            bos|prompt          |marker         |good |end |marker            |bad  |end

    chat    <|user|>\\n|Name a fruit.\\n\\n|A good answer:|<|end|>\\n<|bot|>\\n|Apple|<|end|>|\\n<|user|>\\n|A bad answer:|<|end|>\\n<|bot|>\\n|Stone|<|end|>
            prompt    |prompt          |marker        |prompt           |good |end    |marker      |marker       |marker           |bad  |end

Where two segments meet, one rule holds in both formats, because it keeps the ids those of the joint text under nearly
all tokenizers: line ends belong to the segment before them, spaces to the one after them (tokenizers glue a space to
the word that follows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from coh_lightning.chains import Unusable
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.template_check import awkward, first_difference, sentinel
from coh_lightning.turns import Part, Role, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.chains import Chain

Kind = Literal["plain", "chat"]
MarkerIn = Literal["user", "system"]
At = Literal["head", "special", "mid"]
"""Where a segment begins: at the head of the document, right after a special token, in the middle of text. Some
tokenizers add a space in the first two.
"""

BLANK_LINE = "\n\n"
"""Between the turns of a plain conversation, and between system text and user text where a template knows no system
role.
"""


@dataclass(frozen=True)
class PromptFormat:
    """The settings of a format. They are stored in the checkpoint: training and inference share them."""

    kind: Kind = "plain"
    marker_in: MarkerIn = "user"
    """Chat only: the feedback sentence ends the last user turn, or stands in the system turn."""
    before_marker: str = BLANK_LINE
    before_output: str = "\n"
    """Plain only: a chat template has its own. Spaces at its end become the first characters of the output."""
    user_label: str = "User:"
    """Plain only, and only in conversations of several turns: a single user turn stands bare."""
    assistant_label: str = "Assistant:"
    kept_tokens: tuple[str, ...] = ()
    """Added tokens (`<think>`, `<tool_call>`) that people's texts hold as tokens, since the model itself writes them;
    all others are spelled out.
    """

    def __post_init__(self) -> None:
        for key, value, known in (
            ("kind", self.kind, get_args(Kind)),
            ("marker_in", self.marker_in, get_args(MarkerIn)),
        ):
            if value not in known:
                raise InputError(
                    f"The prompt format has {key}: '{value}', known are {' and '.join(known)}"
                    + did_you_mean(value, known)
                )
        object.__setattr__(self, "kept_tokens", tuple(self.kept_tokens))  # a list where it was read from a checkpoint


class CutRange(NamedTuple):
    """Characters [start, stop) of a segment's text that may lose tokens, from which side, and how many they lose."""

    start: int
    stop: int
    side: Literal["front", "back"]
    tokens: int


class Segment(NamedTuple):
    """A piece of a chain's text that is tokenised on its own."""

    text: str
    special: bool = False
    """A piece of a template: special tokens in it are meant. In people's text (False) they are spelt out."""
    learned: float = 0.0
    unlearned: float = 0.0
    kind: str = "prompt"
    """prompt, marker, end, or the kind of the link whose output it is."""
    place: int = -1
    """Index of the link in its chain; -1 for the prompt."""
    at: At = "mid"
    more: bool = False
    """What follows is text that begins with no space: it decides how line ends at the end of this segment are
    tokenised. Never before an output, where the prompt of inference ends."""
    cut: tuple[CutRange, ...] = ()


class CutTurn(NamedTuple):
    """A turn of the prompt after truncation: its text is whole, and `taken` says how many tokens each part loses
    (empty: none).
    """

    role: Role
    text: str
    parts: tuple[Part, ...]
    taken: tuple[int, ...] = ()

    @classmethod
    def whole(cls, turn: Turn) -> CutTurn:
        return cls(turn.role, turn.text, turn.parts)


class _Slot(NamedTuple):
    """A place of the layout: a piece of the template as it stands, or where a turn, a marker or an output goes and what
    surrounds it there.
    """

    what: Literal["piece", "turn", "marker", "output"]
    piece: Segment | None = None
    turn: int = -1
    lead: str = ""
    tail: str = ""
    optional: bool = False
    """The tail only separates this text from the next: without this text it is left out."""
    at: At = "mid"
    more: bool = False
    strip: tuple[bool, bool] = (False, False)
    """The template takes white space away (on the left, on the right), so this must too."""


class Layout:
    """A `PromptFormat` for one tokenizer: `segments(turns, chain)` is the text of a chain.

    Raises `InputError` for a tokenizer without an end token (plain), without a chat template, or with a template that
    can't be split (chat).

    `end` is the text that ends an output: the end token, or what the template has after an output up to its first
    special token, whose id is `end_id`. `stop_ids` end an output at inference: the learned one first, then the
    tokenizer's own end token where that is another. `bos_ids` begin a plain document: what the tokenizer itself adds in
    front, once. Empty in chat, whose template has its own. `notes` is what the user should know of this template, a
    sentence each. `system_role` (chat): the template takes a system turn. `generation` (chat): whether the template's
    own generation prompt is asked for, and what has to follow so that the text ends where outputs begin in training.
    `trims` (chat): the template takes white space off the texts of turns; `trimmed`: how many turns of prompts were
    found to have some. `rewritten` (chat): how many turns of prompts the template was found to show otherwise than they
    are, and the first: its text, and what is shown.
    """

    def __init__(self, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> None:
        self.format = format
        self.tokenizer = tokenizer
        self.notes: list[str] = []
        self.template = ""
        self.generation = (False, "")
        self.trims = False
        self.trimmed = 0
        self.rewritten: tuple[int, tuple[str, str]] = (0, ("", ""))
        self._prefixes: dict[tuple[tuple[Role, ...], tuple[bool, ...], bool], tuple[_Slot, ...]] = {}
        self._specials = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.content)
        own = tokenizer.eos_token_id
        if format.kind == "plain":
            if own is None:
                raise InputError(
                    f"{describe(tokenizer)} has no end token, so outputs would never end; set its eos_token."
                )
            self.end, self.end_id = str(tokenizer.eos_token), int(own)
            self.bos_ids = bos_ids(tokenizer)
            self._next: tuple[_Slot, ...] = (
                _Slot("marker", lead=format.before_marker, tail=format.before_output),
                _Slot("output"),
            )
        else:
            self.bos_ids = ()
            self._read_template()
        self.stop_ids = (self.end_id,) if own is None or own == self.end_id else (self.end_id, int(own))

    @property
    def template_hash(self) -> str:
        """Of the chat template; empty in the plain format."""
        return hashlib.sha256(self.template.encode()).hexdigest() if self.template else ""

    # --- filling the layout with texts

    def segments(self, turns: Sequence[CutTurn], chain: Chain) -> list[Segment]:
        """The segments of `chain` under the prompt `turns`, as drawn at the head of this file.

        An output is one segment with the weights and kind of its link (and the spaces before it); right after it comes
        its end, of the same weights. It is encoded as in the middle of a text even right after a special token, so that
        what is learned is its text and no false space. Raises `InputError` for an empty marker in a further link of a
        chat, where it would be an empty user turn, and `Unusable` for a prompt whose sequence of roles a chat template
        refuses.
        """
        filled: list[Segment] = []
        for place, link in enumerate(chain):
            lead = self._fill(filled, turns, link.marker, place)
            filled.append(Segment(lead + link.text, False, link.learned, link.unlearned, link.kind, place))
            filled.append(Segment(self.end, True, link.learned, link.unlearned, "end", place))
        return filled

    def before_output(self, turns: Sequence[CutTurn], marker: str, place: int = 0) -> tuple[list[Segment], str]:
        """What link `place` adds before its output (for the first link: the prompt of inference), and the spaces that
        the output then begins with.
        """
        filled: list[Segment] = []
        lead = self._fill(filled, turns, marker, place)
        return filled, lead

    def _fill(self, filled: list[Segment], turns: Sequence[CutTurn], marker: str, place: int) -> str:
        """Add what stands before the output of link `place` to `filled`; give the spaces that belong to that output."""
        start = len(filled)
        if place == 0:
            # templates may treat an empty turn as none; the plain layout doesn't
            worded = tuple([turn.text != "" for turn in turns]) if self.format.kind == "chat" else ()
            shape = (tuple([turn.role for turn in turns]), worded, marker != "")
            slots = self._prefixes.get(shape) or self._prefix(*shape)
        else:
            slots = self._next
            if not marker and self.format.kind == "chat":
                raise InputError(
                    f"Link {place + 1} of a chain has no feedback sentence, and in chat that would be an empty user "
                    "turn; use prompt_format plain."
                )
        skipped: _Slot | None = None  # an empty text, whose place in the template the next text takes
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
                if self.format.kind == "plain":  # the output follows at once, and its spaces are its own
                    body = text.rstrip(" ")
                    text, spaces = body, text[len(body) :]
                if text:
                    filled.append(Segment(text, kind="marker", place=place, at=at, more=slot.more))
            else:
                self._look_ahead(filled, start)
                return spaces + lead
        raise AssertionError("a layout ends with an output")

    def _look_ahead(self, filled: list[Segment], start: int) -> None:
        """Line ends at the end of a segment are encoded as before text only where the text of the prompt that follows
        begins with no white space and no added token: "\\n\\n" and " x" are other ids in most tokenizers than "\\n\\n"
        and "x"."""
        for index in range(start, len(filled) - 1):
            one, following = filled[index], filled[index + 1]
            apart = following.text[:1].isspace() or following.text.startswith(
                self._specials if following.special else self.format.kept_tokens
            )
            if one.more and following.kind == "prompt" and apart:
                filled[index] = one._replace(more=False)

    # --- the layout of a shape: a sequence of roles, with a feedback sentence or without

    def _prefix(self, roles: tuple[Role, ...], worded: tuple[bool, ...], marked: bool) -> tuple[_Slot, ...]:
        slots = tuple(
            self._plain_prefix(roles, marked)
            if self.format.kind == "plain"
            else self._chat_prefix(roles, worded, marked)
        )
        self._prefixes[roles, worded, marked] = slots
        return slots

    def _plain_prefix(self, roles: tuple[Role, ...], marked: bool) -> Iterator[_Slot]:
        if self.bos_ids:
            yield _Slot(
                "piece", Segment("".join(self.tokenizer.convert_ids_to_tokens(list(self.bos_ids))), True, at="head")
            )
        labels = {"system": "", "user": self.format.user_label + " ", "assistant": self.format.assistant_label + " "}
        if sum(role != "system" for role in roles) == 1:
            labels["user"] = ""
        last, spaces = _split_spaces(self.format.before_marker if marked else self.format.before_output)
        for index, role in enumerate(roles):
            final = index == len(roles) - 1
            yield _Slot(
                "turn",
                turn=index,
                lead=labels[role],
                tail=last if final else BLANK_LINE,
                optional=marked or not final,
                at="mid" if index else "head",
                more=marked and not spaces if final else True,
            )
        if marked:
            yield _Slot("marker", lead=spaces, tail=self.format.before_output)
        yield _Slot("output", lead="" if marked else spaces)

    def _chat_prefix(self, roles: tuple[Role, ...], worded: tuple[bool, ...], marked: bool) -> Iterator[_Slot]:
        messages: list[tuple[Role, list[_Slot]]] = [
            (role, [_Slot("turn", turn=index)] if worded[index] else []) for index, role in enumerate(roles)
        ]
        if not messages or messages[-1][0] != "user":
            raise Unusable(
                "a prompt for chat must end with a user turn, and this one has the roles "
                f"{', '.join(roles) or '(none)'}"
            )
        if marked and self.format.marker_in == "user":
            messages[-1] = ("user", _joined(messages[-1][1], [_Slot("marker")], self.format.before_marker))
        elif marked:
            system = messages.pop(0)[1] if roles[0] == "system" else []
            messages.insert(0, ("system", _joined(system, [_Slot("marker")], self.format.before_marker)))
        if messages[0][0] == "system" and not self.system_role:
            system = messages.pop(0)[1]
            messages[0] = (messages[0][0], _joined(system, messages[0][1], BLANK_LINE))
        try:
            slots, _ = self._split([*messages, ("assistant", [_Slot("output")])])
        except (
            InputError
        ) as error:  # the template took simple conversations, so it is this record that does not suit it
            raise Unusable(str(error)) from error
        yield from slots

    # --- reading a chat template

    def _read_template(self) -> None:
        """What all shapes share: does it know a system role, what ends an output, what stands between two links."""
        if self.tokenizer.chat_template is None:
            raise InputError(f"{describe(self.tokenizer)} has no chat template; set one, or use prompt_format plain.")
        self.template = str(self.tokenizer.get_chat_template())
        self.system_role = self._knows_system()
        if not self.system_role:
            self.notes.append("The chat template takes no system turn: system text is put before the first user turn.")
        slots, after = self._split([("user", [_Slot("turn", turn=0)]), ("assistant", [_Slot("output")])])
        self.trims = any(any(slot.strip) for slot in slots if slot.what == "turn")
        specials = {
            token.content: number
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.special and token.content in after
        }
        if not specials:
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} has no special token after an output, so outputs "
                "would never end; use prompt_format plain."
            )
        first = min(specials, key=lambda content: (after.index(content), -len(content)))
        self.end = after[: after.index(first) + len(first)]
        self.end_id = specials[first]
        links: list[tuple[Role, list[_Slot]]] = [("user", [_Slot("turn", turn=0)]), ("assistant", [_Slot("output")])]
        links += [("user", [_Slot("marker")]), ("assistant", [_Slot("output")])]
        slots, _ = self._split(links)
        number = next(index for index, slot in enumerate(slots) if slot.what == "output")
        self._next = tuple(self._after_end(slots[number + 1 :]))
        if self.system_role:  # what a template does to system text, too, is found out now
            self._split(
                [
                    ("system", [_Slot("turn", turn=0)]),
                    ("user", [_Slot("turn", turn=1)]),
                    ("assistant", [_Slot("output")]),
                ]
            )
        self.generation = self._generation()
        self._compare()

    def _generation(self) -> tuple[bool, str]:
        turn = CutTurn("user", "Question", (Part("Question"),))
        trained = "".join(segment.text for segment in self.before_output([turn], "")[0])
        for generation in (True, False):
            rendered = self.render([("user", turn.text)], generation=generation)
            if trained.startswith(rendered):
                return generation, trained.removeprefix(rendered)
        raise InputError(
            f"The chat template of {describe(self.tokenizer)} ends a prompt with {rendered[-40:]!r}, but puts "
            f"outputs after {trained[-40:]!r}, so an exported "
            "model could not be asked as it was trained; take a tokenizer whose template agrees with itself, or use "
            "prompt_format plain."
        )

    def messages(self, turns: Sequence[tuple[Role, str]], marker: str) -> list[tuple[Role, str]]:
        """The conversation (role, text) that the tokenizer's own template is given, with the feedback sentence in its
        place (chat_template.py does the same).
        """
        said = list(turns)
        if marker and self.format.marker_in == "user":
            said[-1] = ("user", _with(said[-1][1], self.format.before_marker, marker))
        elif marker:
            system = said.pop(0)[1] if said[0][0] == "system" else ""
            said.insert(0, ("system", _with(system, self.format.before_marker, marker)))
        if said[0][0] == "system" and not self.system_role and len(said) > 1:
            system = said.pop(0)[1]
            said[0] = (said[0][0], _with(system, BLANK_LINE, said[0][1]))
        return said

    def asked(self, turns: Sequence[tuple[Role, str]], marker: str) -> str:
        """What the tokenizer's own template makes of a prompt, up to the place where outputs begin. Raises Unusable
        where it refuses the conversation.
        """
        generation, rest = self.generation
        try:
            return self.render(self.messages(turns, marker), generation=generation) + rest
        except InputError as error:
            raise Unusable(str(error)) from error

    def _after_end(self, slots: Sequence[_Slot]) -> Iterator[_Slot]:
        """The slots of a further link without the end of the output before it, which is a segment of its own."""
        first = slots[0].piece
        if first is None or not first.text.startswith(self.end):
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} ends an earlier output otherwise than the last one "
                f"('{self.end}'); use prompt_format plain."
            )
        rest = first.text[len(self.end) :]
        if rest:
            yield _Slot("piece", first._replace(text=rest, at="special"))
            yield from slots[1:]
        else:
            yield slots[1]._replace(at="special")
            yield from slots[2:]

    def _knows_system(self) -> bool:
        from jinja2.exceptions import TemplateError

        messages = [
            {"role": "system", "content": "Sys0"},
            {"role": "user", "content": "Usr1"},
            {"role": "assistant", "content": "Ast2"},
        ]
        try:
            # in whatever case: a template that changes it is refused below
            return (
                "sys0"
                in str(self.tokenizer.apply_chat_template(messages, tokenize=False, feedback_sentence="")).lower()
            )
        except TemplateError:
            return False

    def render(self, messages: Sequence[tuple[str, str]], *, generation: bool = False) -> str:
        """What the tokenizer's own template makes of messages (role, text).

        Raises InputError where it refuses them.
        """
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

    def _split(self, messages: Sequence[tuple[Role, list[_Slot]]]) -> tuple[list[_Slot], str]:
        """Render the template with a sentinel for each slot and split there: pieces and slots in the order of the
        rendering, and the text that is left.

        user: [turn], assistant: [output]    ->    [<|user|>\\n | turn | <|end|>\\n<|bot|>\\n | output], <|end|>\\n
        """
        slots = [slot for _, listed in messages for slot in listed]
        bounds = list(pairwise(accumulate((len(listed) for _, listed in messages), initial=0)))
        named = [
            (role, "".join(map(sentinel, range(*bound)))) for (role, _), bound in zip(messages, bounds, strict=True)
        ]
        text = self.render(named)
        counts = [text.count(sentinel(i)) for i in range(len(slots))]
        roles = ", ".join(role for role, _ in messages)
        if set(counts) != {1}:
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} shows the texts of {roles} {counts} times instead "
                "of once each; use prompt_format plain."
            )
        expected, given = (
            awkward(text, len(slots)),
            self.render([(role, awkward(content, len(slots))) for role, content in named]),
        )
        if expected != given:
            was, shown = first_difference(expected, given)
            raise InputError(
                f"The chat template of {describe(self.tokenizer)} changes the texts of {roles}: it shows {was!r} as "
                f"{shown!r}; take the filter that does so out of the "
                "template, or use prompt_format plain."
            )
        # a template that takes white space away may do so in one place and not in another, so it is tried in each: a
        # space more that does not show was taken
        left = self.render([(role, content and " " + content) for role, content in named])
        right = self.render([(role, content and content + " ") for role, content in named])
        stripped = list(slots)
        for first, stop in bounds:
            if first == stop:  # an empty turn
                continue
            if _spaces_before(left, first) == _spaces_before(text, first):
                stripped[first] = stripped[first]._replace(strip=(True, False))
            if _spaces_after(right, stop - 1) == _spaces_after(text, stop - 1):
                stripped[stop - 1] = stripped[stop - 1]._replace(strip=(stripped[stop - 1].strip[0], True))
        placed: list[_Slot] = []
        begin = 0
        for number in sorted(range(len(stripped)), key=lambda i: text.index(sentinel(i))):
            slot, stop = stripped[number], text.index(sentinel(number))
            body, spaces = _split_spaces(text[begin:stop])
            at: At = "mid" if begin else "head"
            if body:
                placed.append(_Slot("piece", Segment(body, True, at=at, more=not spaces and slot.what != "output")))
                at = (
                    "special"
                    if self.tokenizer(body, add_special_tokens=False)["input_ids"][-1]
                    in self.tokenizer.added_tokens_decoder
                    else "mid"
                )
            placed.append(slot._replace(lead=spaces + slot.lead, at=at))
            begin = stop + len(sentinel(number))
        return placed, text[begin:]

    def _compare(self) -> None:
        """Note where the template itself would render otherwise than our chains, which must begin with the prompt of
        inference whatever follows.
        """
        from coh_lightning.chains import Link

        turn = CutTurn("user", "Question", (Part("Question"),))
        segments = self.segments([turn], (Link("", "Answer"), Link("More", "Other")))
        prompt = "".join(segment.text for segment in self.before_output([turn], "")[0])
        if prompt.rstrip(" ") != self.render([("user", "Question")], generation=True).rstrip(" "):
            self.notes.append(
                "The chat template's generation prompt differs from what it puts before an output; training and "
                "inference both use the latter."
            )
        whole = self.render([("user", "Question"), ("assistant", "Answer"), ("user", "More"), ("assistant", "Other")])
        if not whole.startswith("".join(segment.text for segment in segments)):
            self.notes.append(
                "The chat template shows earlier outputs otherwise than the last one; in a chain each output stands "
                "as the last one does."
            )
        if "strftime_now" in self.template:
            self.notes.append(
                "The chat template writes today's date into the prompt, so that prompts differ from day to day."
            )


def describe(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer's name for messages, at whatever place of a sentence."""
    return f"the tokenizer '{tokenizer.name_or_path}'" if tokenizer.name_or_path else "the tokenizer"


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer itself adds in front of a text; often one id, for some tokenizers none."""
    whole = list(tokenizer("a")["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
    return tuple(whole[: starts[0]]) if starts else ()


def _with(text: str, separator: str, added: str) -> str:
    """Two texts of one turn with a separator between them, or the one that is not empty."""
    return text + separator + added if text and added else text + added


def _spaces_before(text: str, number: int) -> int:
    head = text[: text.index(sentinel(number))]
    return len(head) - len(head.rstrip(" "))


def _spaces_after(text: str, number: int) -> int:
    tail = text[text.index(sentinel(number)) + len(sentinel(number)) :]
    return len(tail) - len(tail.lstrip(" "))


def _split_spaces(text: str) -> tuple[str, str]:
    body = text.rstrip(" ")
    return body, text[len(body) :]


def _joined(before: list[_Slot], after: list[_Slot], separator: str) -> list[_Slot]:
    """Two texts of one turn with a separator between them, whose line ends go to the first and whose spaces to the
    second.
    """
    if not before or not after:
        return before or after
    ends, spaces = _split_spaces(separator)
    return [
        *before[:-1],
        before[-1]._replace(tail=ends, optional=True, more=not spaces),
        after[0]._replace(lead=spaces),
        *after[1:],
    ]


def _stripped(text: str, strip: tuple[bool, bool]) -> str:
    if strip[0]:
        text = text.lstrip()
    return text.rstrip() if strip[1] else text


def _ranges(turn: CutTurn, strip: tuple[bool, bool], lead: int) -> tuple[CutRange, ...]:
    """Where the cuttable parts of a turn lie in the text of its segment, which begins with `lead` characters more and
    lacks what is stripped.
    """
    begin = len(turn.text) - len(turn.text.lstrip()) if strip[0] else 0
    end = begin + len(_stripped(turn.text, strip))
    ranges: list[CutRange] = []
    start = 0
    for part, taken in zip(turn.parts, turn.taken, strict=True):
        stop = start + len(part.text)
        if part.cut != "never":
            ranges.append(
                CutRange(
                    max(min(start, end), begin) - begin + lead,
                    max(min(stop, end), begin) - begin + lead,
                    part.cut,
                    taken,
                )
            )
        start = stop
    return tuple(ranges)
