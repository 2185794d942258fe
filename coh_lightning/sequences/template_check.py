"""What a chat template does to the turns of a conversation, found by rendering it.

A template that rewrites the turns of some conversations (drops the thinking of earlier answers, say) is followed:
training shows them as the template does, so that a server which applies the template to the same conversation gives the
ids of training. One that escapes, cuts or rewrites any text is refused earlier (tokenizer_template.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Part, Role, Turn
from coh_lightning.sequences.chains import Chain, Unusable
from coh_lightning.sequences.chat_layout import ChatLayout
from coh_lightning.sequences.layout import Layout
from coh_lightning.sequences.prompt_format import CutTurn
from coh_lightning.sequences.tokenizer_template import first_difference, sentinel

_MARKER = "A good answer:"


class Rewritten(Unusable):
    """The template shows a conversation as something other than its turns."""


def shown_turns(layout: Layout, turns: Sequence[Turn]) -> list[CutTurn]:
    """The turns of a prompt with the texts that the chat template shows for them; unchanged in the plain format.

        <think>Hm.</think>Yes.    in an earlier turn of a template that drops thinking    ->    Yes.

    Raises:
        Rewritten: the template does more than replace the text of a turn, so that training can't follow it.
        Unusable: it refuses the sequence of roles.
    """
    whole = [CutTurn.whole(turn) for turn in turns]
    if not isinstance(layout, ChatLayout):
        return whole
    if layout.trims:
        layout.trimmed += sum(turn.text != turn.text.strip() for turn in whole)
    given = [(turn.role, turn.text) for turn in whole]
    if _difference(layout, given, whole) is None:
        return whole
    names: list[tuple[Role, str]] = [(it.role, sentinel(index) if it.text else "") for index, it in enumerate(whole)]
    base = layout.rendered_prompt(names, _MARKER)
    if layout.template.writes_date:
        plain = [CutTurn(role, text, (Part(text),)) for role, text in names]
        if _difference(layout, names, plain):
            return whole  # the date has changed since the layout was made
    shown = []
    for index, turn in enumerate(whole):
        text = _shown(layout, names, index, turn.text, base) if turn.text else turn.text
        shown.append(turn if text is None or text == turn.text else CutTurn(turn.role, text, _parts_of(turn, text)))
    if (left := _difference(layout, given, shown)) is not None:
        found = f"{left[1]!r} instead of {left[0]!r}"
        raise Rewritten(f"the chat template doesn't show this conversation turn by turn: {found}")
    pairs = zip(whole, shown, strict=True)
    changed = [(turn.text, other.text) for turn, other in pairs if turn.text.strip() != other.text.strip()]
    if changed:
        count, first = layout.rewritten
        layout.rewritten = count + len(changed), first if count else changed[0]
    return shown


def note_on_outputs(layout: Layout, chains: Iterable[tuple[Sequence[CutTurn], Chain]]) -> str | None:
    """How many first outputs of some chains the template would show differently, with an example; None: none.

    White space around an output doesn't count: templates trim it, training never does.
    """
    if not isinstance(layout, ChatLayout):
        return None
    seen, different = 0, []
    for turns, chain in chains:
        link = replace(chain[0], text=chain[0].text.strip())
        laid_out = "".join(segment.text for segment in layout.segments(turns, (link,)))
        prompt = layout.messages([(turn.role, turn.text) for turn in turns], link.marker)
        try:
            given = layout.template.render([*prompt, ("assistant", link.text)])
        except InputError:  # a refused conversation is reported elsewhere
            continue
        seen += 1
        if not given.startswith(laid_out):
            different.append(first_difference(laid_out, given.rstrip()))
    if not different:
        return None
    here, there = different[0]
    return (
        f"The chat template shows {len(different):,} of the first {seen:,} outputs as something other than training "
        f"learns, e.g. {there!r} for {here!r}; give outputs as the template shows them, or use prompt_format plain."
    )


def _shown(layout: ChatLayout, names: Sequence[tuple[Role, str]], index: int, text: str, base: str) -> str | None:
    """What the template shows for one turn's text between the same other texts; None if its place can't be found."""
    before, _, after = base.partition(sentinel(index))
    rendered = layout.rendered_prompt([*names[:index], (names[index][0], text), *names[index + 1 :]], _MARKER)
    if not (rendered.startswith(before) and rendered.endswith(after) and len(rendered) >= len(before) + len(after)):
        return None
    return rendered[len(before) : len(rendered) - len(after)]


def _parts_of(turn: CutTurn, text: str) -> tuple[Part, ...]:
    """The parts of a turn shown as `text`: what is left of them if it is a piece of the turn's text."""
    begin = turn.text.rfind(text)
    if begin < 0:
        return (Part(text, turn.parts[0].cut if len(turn.parts) == 1 else "never"),)
    parts, start = [], 0
    for part in turn.parts:
        left = part.text[max(begin - start, 0) : max(begin + len(text) - start, 0)]
        parts.append(Part(left, part.cut))
        start += len(part.text)
    return tuple(parts)


def _difference(
    layout: ChatLayout, given: Sequence[tuple[Role, str]], turns: Sequence[CutTurn]
) -> tuple[str, str] | None:
    """Excerpts of the prompt where training differs from the template's; None: nowhere.

    Compared without a feedback sentence, too, where a turn is all white space: then it is trimmed with other text.
    """
    for marker in (_MARKER, "") if any(text.isspace() for _, text in given) else (_MARKER,):
        laid_out = "".join(segment.text for segment in layout.before_output(turns, marker)[0])
        rendered = layout.rendered_prompt(given, marker)
        if laid_out != rendered:
            return first_difference(laid_out, rendered)
    return None
