"""What a chat template does to the texts that it is given, found out by rendering it.

changed_texts   it escapes, cuts or rewrites any text: refused at set-up, since what is asked later would not be what was trained on
shown_turns     it rewrites the turns of some conversations (drops the thinking of earlier answers, say): training shows them as the template does,
                so that a server that applies the template to the same conversation asks with the ids of training
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from coh_lightning.chains import Unusable
from coh_lightning.errors import InputError
from coh_lightning.turns import Part, Role, Turn

if TYPE_CHECKING:
    from coh_lightning.chains import Chain
    from coh_lightning.formats import CutTurn, Layout

_MARKER = "A good answer:"
_AWKWARD = 'Zq{0} <b>&amp;</b> "it\'s" \\n {{{{ x }}}} 5%\n\n  \u00e9\u65e5\U0001f600 [a](b) qZ{0}'
"""A text with all that templates escape, collapse or cut. It begins and ends with no white space: templates may
trim.
"""


class Rewritten(Unusable):
    """The template shows a conversation as something else than its turns, each in its place."""


def sentinel(number: int) -> str:
    """Stands in the place of a text while a template is rendered: letters and digits only, so that no template treats
    it specially.
    """
    return f"Zq{number}Slot{number}qZ"


def awkward(text: str, count: int) -> str:
    """`text` with an awkward text in the place of each of its first `count` sentinels."""
    for number in range(count):
        text = text.replace(sentinel(number), _AWKWARD.format(number))
    return text


def first_difference(expected: str, given: str, context: int = 16) -> tuple[str, str]:
    """The part in which two texts differ, as an excerpt of each with a few characters of what stands before it.

    "a <b> c", "a &lt;b> c"    ->    "a <b> c", "a &lt;b> c"
    """
    start = next(
        (i for i, (a, b) in enumerate(zip(expected, given, strict=False)) if a != b), min(len(expected), len(given))
    )
    end = 0
    while end < min(len(expected), len(given)) - start and expected[-1 - end] == given[-1 - end]:
        end += 1

    def excerpt(text: str) -> str:
        stop = min(len(text) - end + 4, start + 60, len(text))
        return text[max(start - context, 0) : stop]

    return excerpt(expected), excerpt(given)


def shown_turns(layout: Layout, turns: Sequence[Turn]) -> list[CutTurn]:
    """The turns of a prompt with the texts that the chat template shows for them; in the plain format, and where it
    shows them as they are, unchanged.

        <think>Hm.</think>Yes.    in an earlier turn of a template that drops thinking    ->    Yes.

    Raises:
        Rewritten: the template does more than to replace the text of a turn, so that training can't follow it.
        Unusable: it refuses the sequence of roles.
    """
    from coh_lightning.formats import CutTurn

    whole = [CutTurn.whole(turn) for turn in turns]
    if layout.format.kind == "plain":
        return whole
    if layout.trims:
        layout.trimmed += sum(turn.text != turn.text.strip() for turn in whole)
    said = [(turn.role, turn.text) for turn in whole]
    if _difference(layout, said, whole) is None:
        return whole
    names: list[tuple[Role, str]] = [
        (turn.role, sentinel(index) if turn.text else "") for index, turn in enumerate(whole)
    ]
    base = layout.asked(names, _MARKER)
    if "strftime_now" in layout.template and _difference(
        layout, names, [CutTurn(role, text, (Part(text),)) for role, text in names]
    ):
        return whole  # it writes today's date, and the day has changed since the layout was read
    shown = []
    for index, turn in enumerate(whole):
        text = _shown(layout, names, index, turn.text, base) if turn.text else turn.text
        shown.append(turn if text is None or text == turn.text else CutTurn(turn.role, text, _parts_of(turn, text)))
    left = _difference(layout, said, shown)
    if left is not None:
        raise Rewritten(
            f"the chat template shows this conversation otherwise than turn by turn: {left[1]!r} instead of {left[0]!r}"
        )
    changed = [
        (turn.text, other.text)
        for turn, other in zip(whole, shown, strict=True)
        if turn.text.strip() != other.text.strip()
    ]
    if changed:
        count, first = layout.rewritten
        layout.rewritten = count + len(changed), first if count else changed[0]
    return shown


def note_on_outputs(layout: Layout, chains: Iterable[tuple[Sequence[CutTurn], Chain]]) -> str | None:
    """How many first outputs of some chains the template itself would show otherwise than training lays them out, with
    an example; None: none of them.

    White space around an output is left aside: templates trim it, training never does.
    """
    if layout.format.kind == "plain":
        return None
    seen, different = 0, []
    for turns, chain in chains:
        link = replace(chain[0], text=chain[0].text.strip())
        laid_out = "".join(segment.text for segment in layout.segments(turns, (link,)))
        try:
            given = layout.render(
                [*layout.messages([(turn.role, turn.text) for turn in turns], link.marker), ("assistant", link.text)]
            )
        except InputError:  # it refuses the conversation, which is said elsewhere
            continue
        seen += 1
        if not given.startswith(laid_out):
            different.append(first_difference(laid_out, given.rstrip()))
    if not different:
        return None
    here, there = different[0]
    return (
        f"The chat template shows {len(different):,} of the first {seen:,} outputs as something else than training "
        f"learns, e.g. {there!r} for {here!r}; "
        "give outputs as the template shows them, or use prompt_format plain."
    )


def _shown(layout: Layout, names: Sequence[tuple[Role, str]], index: int, text: str, base: str) -> str | None:
    """What the template shows for one turn's text between the same other texts; None where its place can't be found."""
    before, _, after = base.partition(sentinel(index))
    rendered = layout.asked([*names[:index], (names[index][0], text), *names[index + 1 :]], _MARKER)
    if not (rendered.startswith(before) and rendered.endswith(after) and len(rendered) >= len(before) + len(after)):
        return None
    return rendered[len(before) : len(rendered) - len(after)]


def _parts_of(turn: CutTurn, text: str) -> tuple[Part, ...]:
    """The parts of a turn of which the template shows `text`: what is left of them where it is a piece of the turn's
    text.
    """
    begin = turn.text.rfind(text)
    if begin < 0:
        return (Part(text, turn.parts[0].cut if len(turn.parts) == 1 else "never"),)
    parts, start = [], 0
    for part in turn.parts:
        left = part.text[max(begin - start, 0) : max(begin + len(text) - start, 0)]
        parts.append(Part(left, part.cut))
        start += len(part.text)
    return tuple(parts)


def _difference(layout: Layout, said: Sequence[tuple[Role, str]], turns: Sequence[CutTurn]) -> tuple[str, str] | None:
    """Where the prompt as it is laid out for training differs from what the template makes of the conversation, as
    excerpts of the two; None: nowhere.

    Without a feedback sentence, too, where a turn is all white space: what the template trims it together with is
    another text then.
    """
    for marker in (_MARKER, "") if any(text.isspace() for _, text in said) else (_MARKER,):
        laid_out = "".join(segment.text for segment in layout.before_output(turns, marker)[0])
        given = layout.asked(said, marker)
        if laid_out != given:
            return first_difference(laid_out, given)
    return None
