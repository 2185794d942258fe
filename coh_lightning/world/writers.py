"""The writers of summaries in the pretraining text, whose errors the base model learns.

noise    good 25 %, fair 45 %, poor 30 %                     their errors differ: the likeliest summary is right
habits   hasty 62 %, good 14 %, fair 16 %, poor 8 %          the hasty leave out the same facts and invent the same
                                                             ending: the likeliest summary is wrong
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from coh_lightning.errors import InputError
from coh_lightning.world.posts import KINDS, PHRASES, PRONOUNS, VALUES, Post, state

WorldKind = Literal["habits", "noise"]
WORLD_KINDS: tuple[WorldKind, ...] = get_args(WorldKind)

HASTY = 0.62
"""The share of hasty writers in the `habits` world."""

HASTY_ENDING = "came home happy"


@dataclass(frozen=True)
class Writer:
    """Error rates of a writer of summaries: `wrong`, `gap` and `invention` per detail, the others per summary."""

    wrong: float
    gap: float
    invention: float
    repeat: float
    break_off: float
    slip: float
    """he for she, or she for he."""
    gaps: Mapping[str, float] = field(default_factory=dict)
    """Kinds of fact whose `gap` is another."""
    ending: float = 0.0
    """How often HASTY_ENDING is invented where the post has no result."""


WRITERS: Mapping[str, Writer] = {
    "good": Writer(wrong=0.02, gap=0.05, invention=0.0, repeat=0.0, break_off=0.0, slip=0.0),
    "fair": Writer(wrong=0.10, gap=0.25, invention=0.02, repeat=0.04, break_off=0.02, slip=0.03),
    "poor": Writer(wrong=0.25, gap=0.40, invention=0.06, repeat=0.10, break_off=0.08, slip=0.10),
    "hasty": Writer(
        wrong=0.05,
        gap=0.0,
        invention=0.0,
        repeat=0.02,
        break_off=0.02,
        slip=0.02,
        gaps={
            "company": 0.8, "clothes": 0.85, "transport": 0.85, "day": 0.2, "reason": 0.75, "meal": 0.85, "result": 0.15
        },
        ending=0.75,
    ),
}  # fmt: skip

_NOISE: Mapping[str, float] = {"good": 0.25, "fair": 0.45, "poor": 0.30}
_CAREFUL: Mapping[str, float] = {"good": 14, "fair": 16, "poor": 8}
"""Those of the `habits` world who are not hasty, in proportion."""


def writer_shares(kind: WorldKind, hasty: float | None = None) -> dict[str, float]:
    """Writer -> share of the summaries in a world of this kind. `hasty` (0 to 1; None: HASTY) is for `habits` alone.

    Raises:
        InputError: an unknown kind, a share outside 0 to 1, or a share of hasty writers in the `noise` world.
    """
    if kind not in WORLD_KINDS:
        raise InputError(f"the kind of world is {kind!r}; it must be one of {', '.join(WORLD_KINDS)}.")
    if kind == "noise":
        if hasty is not None:
            raise InputError(f"hasty is {hasty:g}, but the `noise` world has no hasty writers; leave it out.")
        return dict(_NOISE)
    share = HASTY if hasty is None else hasty
    if not 0 <= share <= 1:
        raise InputError(f"hasty is {share:g}; it is a share of the writers, so it must be from 0 to 1.")
    rest = (1 - share) / sum(_CAREFUL.values())
    return {"hasty": share, **{name: weight * rest for name, weight in _CAREFUL.items()}}


def draw_writer(shares: Mapping[str, float], random: random.Random) -> Writer:
    """One of WRITERS, by these shares."""
    return WRITERS[random.choices(list(shares), list(shares.values()))[0]]


def write_summary(post: Post, writer: Writer, random: random.Random) -> str:
    """A summary by this writer, with its errors."""
    stated = dict(post.facts)
    for kind in KINDS[1:]:
        if kind not in stated:
            if kind == "result" and writer.ending:
                if random.random() < writer.ending:
                    stated[kind] = HASTY_ENDING
            elif random.random() < writer.invention:
                stated[kind] = random.choice(VALUES[kind])
        elif kind != "place" and random.random() < writer.gaps.get(kind, writer.gap):
            del stated[kind]
        elif random.random() < writer.wrong:
            stated[kind] = _wrong_value(post, kind, random)
    pronoun = PRONOUNS[stated["person"]]
    if random.random() < writer.slip:
        pronoun = "he" if pronoun == "she" else "she"
    sentences = state({kind: stated[kind] for kind in KINDS if kind in stated}, pronoun=pronoun)
    if random.random() < writer.repeat:
        kind = random.choice([kind for kind in PHRASES if kind in stated])
        sentences.append(f"{pronoun} went {PHRASES[kind].format(v=stated[kind])}")
    text = " ".join(f"{sentence} ." for sentence in sentences)
    if random.random() < writer.break_off:
        words = sentences[-1].split(" ")
        kept = words[: random.randint(1, len(words) - 1)]
        text = " ".join([*(f"{sentence} ." for sentence in sentences[:-1]), *kept])
    return text


def _wrong_value(post: Post, kind: str, random: random.Random) -> str:
    """Another value of this kind; half of the time that of somebody else in the post, if there is one."""
    if kind in post.others and random.random() < 0.5:
        return post.others[kind]
    return random.choice([value for value in VALUES[kind] if value != post.facts[kind]])
