"""Records whose chains differ in their texts alone: their chains are made once, with numbers in the place of texts.

    ranks 1 2, texts differ     p: 0    n: 1    pn: 0 1    np: 1 0        0, 1: the texts of the completions

Most records of a data set have one of a few such shapes. Where sentences have people's words in them, or the order of
outputs is drawn, there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.chains import Chain, Link, Unusable
from coh_lightning.sequences.method import Method, Order

_OWN_WORDS: tuple[Order, ...] = ("shuffled", "revised", "reviewed")
_MOST = 4096
"""Shapes that are remembered: with ratings of many values nearly every record has its own."""


class SizedLink(NamedTuple):
    """What decides the size of a link: its sentences, the name of its text, and whether it begins its chain."""

    alternatives: tuple[str, ...]
    text: str
    leads: bool


@dataclass(frozen=True)
class RecordShape:
    """What all records of one shape have in common, if none of their chains is too long."""

    links: tuple[SizedLink, ...]  # the different ones
    chains: tuple[tuple[tuple[int, float], ...], ...]  # of each chain, the number and the weight of its links
    kept: tuple[tuple[int, int], ...]  # all chains, from their first link on
    kinds: tuple[tuple[str, int], ...]  # (kind, place in its chain) of every output
    completions_unused: int
    learns: bool  # any link has a weight

    @classmethod
    def of(cls, chains: Sequence[Chain], candidates: Sequence[str]) -> RecordShape:
        """`chains` and `candidates` with names in the place of texts."""
        links: dict[SizedLink, int] = {}
        numbered = []
        for chain in chains:
            sized = [SizedLink(link.alternatives, link.text, place == 0) for place, link in enumerate(chain)]
            numbers = [links.setdefault(link, len(links)) for link in sized]
            numbered.append(tuple((n, link.learned + link.unlearned) for n, link in zip(numbers, chain, strict=True)))
        used = {link.text for chain in chains for link in chain}
        kinds = {(link.kind, place) for chain in chains for place, link in enumerate(chain)}
        return cls(
            tuple(links),
            tuple(numbered),
            tuple((number, 0) for number in range(len(chains))),
            tuple(sorted(kinds)),
            sum(name not in used for name in candidates),
            any(weight for chain in numbered for _, weight in chain),
        )


class RecordShapes:
    """The shapes of the records under one method; `build` makes the chains of a record."""

    def __init__(self, method: Method, build: Callable[[Feedback], tuple[Chain, ...]]) -> None:
        self._build = build
        self._has_shapes = method.sentences != "critique" and not {*_OWN_WORDS} & {*method.orders}
        self._known: dict[Hashable, RecordShape | str] = {}

    def of(self, record: Feedback) -> tuple[RecordShape, dict[str, str]] | None:
        """The shape of a record, and the text of each name in it; None: it has none. Raises `Unusable` as
        `build_chains`.
        """
        if not self._has_shapes:
            return None
        names: dict[str, str] = {}
        for one in record.candidates:
            names.setdefault(one.text, str(len(names)))
            if one.revision is not None:
                names.setdefault(one.revision, str(len(names)))
        key = (
            record.task,
            record.aspect,
            tuple(
                [
                    (names[it.text], it.rank, it.thumb, it.revision and names[it.revision], *it.ratings.items())
                    for it in record.candidates
                ]
            ),
            tuple([(name, *ends) for name, ends in record.scales.items()]),
        )
        found = self._known.get(key)
        if found is None:
            try:
                chains = tuple(tuple(_named(link, names) for link in chain) for chain in self._build(record))
                found = RecordShape.of(chains, [names[one.text] for one in record.candidates])
            except Unusable as unusable:
                found = str(unusable)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = found
        if isinstance(found, str):
            raise Unusable(found)
        return found, {name: text for text, name in names.items()}


def _named(link: Link, names: dict[str, str]) -> Link:
    opening = None if link.opening is None else _named(link.opening, names)
    return replace(link, text=names[link.text], opening=opening)
