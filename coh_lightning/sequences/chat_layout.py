"""The layout that a tokenizer's own chat template gives: pieces of the template around turns, markers and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.turns import Part, Role
from coh_lightning.sequences.chains import Link, Unusable
from coh_lightning.sequences.layout import Layout, PlainLayout, Slot, split_spaces
from coh_lightning.sequences.prompt_format import BLANK_LINE, CutTurn, PromptFormat, Segment
from coh_lightning.sequences.tokenizer_template import TokenizerTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION = CutTurn("user", "Question", (Part("Question"),))


def make_layout(format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> Layout:
    """The layout of a format for one tokenizer. Raises `InputError` where the tokenizer doesn't suit the format."""
    return PlainLayout(format, tokenizer) if format.kind == "plain" else ChatLayout(format, tokenizer)


class ChatLayout(Layout):
    """A `PromptFormat` of kind chat for one tokenizer.

    Attributes:
        template: The tokenizer's own.
        system_role: The template takes a system turn.
        generation: Whether training prompts begin with the template's generation prompt, and the text that follows it.
        trims: The template strips white space from the texts of turns.
        trimmed: Turns of prompts that had some.
        rewritten: Number of turns of prompts that the template shows differently, and the first one: (text, shown).
    """

    def __init__(self, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(format, tokenizer)
        self.trimmed = 0
        self.rewritten: tuple[int, tuple[str, str]] = (0, ("", ""))
        self.template = TokenizerTemplate(tokenizer)
        self.template_hash = self.template.hash
        self.system_role = self.template.takes_system()
        if not self.system_role:
            self.notes.append("The chat template takes no system turn: system text is put before the first user turn.")
        self._read_end()
        self.generation = self._read_generation()
        self._compare()

    def notes_on_turns(self) -> list[str]:
        notes = []
        if self.trimmed:
            turns = f"{self.trimmed:,} of the turns of prompts. Outputs are kept as they are."
            notes.append(f"The chat template trims texts, and training does so too: {turns}")
        count, (was, shown) = self.rewritten
        if count:
            example = f"training shows them as it does, e.g. {was[:80]!r} as {shown[:80]!r}."
            notes.append(f"The chat template rewrites {counted(count, 'turn')} of prompts, and {example}")
        return notes

    def messages(self, turns: Sequence[tuple[Role, str]], marker: str) -> list[tuple[Role, str]]:
        """The conversation for the tokenizer's template, with the feedback sentence in it."""
        conversation = list(turns)
        if marker and self.format.marker_in == "user":
            conversation[-1] = ("user", _with(conversation[-1][1], self.format.before_marker, marker))
        elif marker:
            system = conversation.pop(0)[1] if conversation[0][0] == "system" else ""
            conversation.insert(0, ("system", _with(system, self.format.before_marker, marker)))
        if conversation[0][0] == "system" and not self.system_role and len(conversation) > 1:
            system = conversation.pop(0)[1]
            conversation[0] = (conversation[0][0], _with(system, BLANK_LINE, conversation[0][1]))
        return conversation

    def rendered_prompt(self, turns: Sequence[tuple[Role, str]], marker: str) -> str:
        """What the tokenizer's template makes of a prompt, up to the output. Raises `Unusable` if it refuses it."""
        generation, rest = self.generation
        try:
            return self.template.render(self.messages(turns, marker), generation=generation) + rest
        except InputError as error:
            raise Unusable(str(error)) from error

    def _fill(self, filled: list[Segment], turns: Sequence[CutTurn], marker: str, place: int) -> str:
        if place > 0 and not marker:
            raise InputError(
                f"Link {place + 1} of a chain has no feedback sentence, which would be an empty user turn in chat; use "
                "prompt_format plain."
            )
        return super()._fill(filled, turns, marker, place)

    def _slots(self, turns: Sequence[CutTurn], marked: bool) -> tuple[Slot, ...]:
        # templates may treat an empty turn as none, so whether a turn has text belongs to the shape
        shape = (tuple([turn.role for turn in turns]), tuple([turn.text != "" for turn in turns]), marked)
        if shape not in self._prefixes:
            self._prefixes[shape] = self._prefix(*shape)
        return self._prefixes[shape]

    def _prefix(self, roles: tuple[Role, ...], worded: tuple[bool, ...], marked: bool) -> tuple[Slot, ...]:
        messages: list[tuple[Role, list[Slot]]] = [
            (role, [Slot("turn", turn=index)] if worded[index] else []) for index, role in enumerate(roles)
        ]
        if not messages or messages[-1][0] != "user":
            found = ", ".join(roles) or "(none)"
            raise Unusable(f"a prompt for chat must end with a user turn, and this one has the roles {found}")
        if marked and self.format.marker_in == "user":
            messages[-1] = ("user", _joined(messages[-1][1], [Slot("marker")], self.format.before_marker))
        elif marked:
            system = messages.pop(0)[1] if roles[0] == "system" else []
            messages.insert(0, ("system", _joined(system, [Slot("marker")], self.format.before_marker)))
        if messages[0][0] == "system" and not self.system_role:
            system = messages.pop(0)[1]
            messages[0] = (messages[0][0], _joined(system, messages[0][1], BLANK_LINE))
        try:
            slots, _ = self.template.split([*messages, ("assistant", [Slot("output")])])
        except InputError as error:  # the template took simple conversations, so this record doesn't suit it
            raise Unusable(str(error)) from error
        return tuple(slots)

    def _read_end(self) -> None:
        """Find what ends an output, and what is between two links."""
        answered: list[tuple[Role, list[Slot]]] = [("user", [Slot("turn", turn=0)]), ("assistant", [Slot("output")])]
        slots, after = self.template.split(answered)
        self.trims = any(any(slot.strip) for slot in slots if slot.what == "turn")
        added = self.tokenizer.added_tokens_decoder.items()
        specials = {token.content: number for number, token in added if token.special and token.content in after}
        if not specials:
            raise self.template.unsuited("has no special token after an output, so outputs would never end")
        first = min(specials, key=lambda content: (after.index(content), -len(content)))
        self.end, self.end_id = after[: after.index(first) + len(first)], specials[first]
        slots, _ = self.template.split([*answered, ("user", [Slot("marker")]), ("assistant", [Slot("output")])])
        number = next(index for index, slot in enumerate(slots) if slot.what == "output")
        self._next = tuple(self._after_end(slots[number + 1 :]))
        if self.system_role:  # a template that changes system texts is found now
            self.template.split([("system", [Slot("turn", turn=1)]), *answered])

    def _after_end(self, slots: Sequence[Slot]) -> Iterator[Slot]:
        """The slots of a further link without the end of the output before it, which is its own segment."""
        first = slots[0].piece
        if first is None or not first.text.startswith(self.end):
            raise self.template.unsuited(f"ends an earlier output differently from the last one ('{self.end}')")
        rest = first.text[len(self.end) :]
        if rest:
            yield Slot("piece", first._replace(text=rest, at="special"))
            yield from slots[1:]
        else:
            yield slots[1]._replace(at="special")
            yield from slots[2:]

    def _read_generation(self) -> tuple[bool, str]:
        trained = "".join(segment.text for segment in self.before_output([_QUESTION], "")[0])
        for generation in (True, False):
            rendered = self.template.render([("user", _QUESTION.text)], generation=generation)
            if trained.startswith(rendered):
                return generation, trained.removeprefix(rendered)
        raise self.template.unsuited(
            f"ends a prompt with {rendered[-40:]!r}, but puts outputs after {trained[-40:]!r}, so an exported model "
            "could not be prompted as it was trained; choose a tokenizer whose template agrees with itself"
        )

    def _compare(self) -> None:
        """Note where the template renders differently from our chains, which all begin with the prompt of inference."""
        segments = self.segments([_QUESTION], (Link("", "Answer"), Link("More", "Other")))
        prompt = "".join(segment.text for segment in self.before_output([_QUESTION], "")[0])
        if prompt.rstrip(" ") != self.template.render([("user", "Question")], generation=True).rstrip(" "):
            self.notes.append(
                "The chat template's generation prompt differs from what it puts before an output; training and "
                "inference both use the latter."
            )
        turns = [("user", "Question"), ("assistant", "Answer"), ("user", "More"), ("assistant", "Other")]
        if not self.template.render(turns).startswith("".join(segment.text for segment in segments)):
            self.notes.append(
                "The chat template shows earlier outputs differently from the last one; in a chain each output is "
                "shown as the last one."
            )
        if self.template.writes_date:
            self.notes.append("The chat template writes today's date into prompts, so they differ from day to day.")


def _with(text: str, separator: str, added: str) -> str:
    """Two texts of one turn with a separator between them, or the one that is not empty."""
    return text + separator + added if text and added else text + added


def _joined(before: list[Slot], after: list[Slot], separator: str) -> list[Slot]:
    """Two texts of one turn with a separator: its line ends go to the first, its spaces to the second."""
    if not before or not after:
        return before or after
    ends, spaces = split_spaces(separator)
    first = before[-1]._replace(tail=ends, optional=True, more=not spaces)
    return [*before[:-1], first, after[0]._replace(lead=spaces), *after[1:]]
