"""Pairs of answers -> a `Study`: who rates what, on which side, with which checks.

Two raters, three pairs of systems `x` and `y`, one rated by both; each rater's sheet before it is shuffled:

    rater-1   p1 x|y   p2 y|x   p1 y|x (swapped duplicate)   p3 x|x (identical)
    rater-2   p1 y|x   p3 x|y   p3 y|x (swapped duplicate)   p2 y|y (identical)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import TIE
from coh_lightning.human_eval.form import DEFAULT_FORM, RatingForm
from coh_lightning.human_eval.items import AnswerPair, GoldItem, MatchedPairs
from coh_lightning.human_eval.study import TITLE, RatingRow, Study, StudyItem, digest
from coh_lightning.human_eval.systems import GOLD
from coh_lightning.rng import generator, key64

APART = 5
"""Places within which a duplicate would be remembered from its original."""


@dataclass(frozen=True)
class Design:
    """How the work is distributed and checked. Validated when made."""

    raters: int = 3
    overlap: int = 50
    """Items that every rater gets, to measure agreement; all of them if there are fewer."""
    votes: int = 1
    """Raters of each other item."""
    swaps: float = 0.05
    """Swapped duplicates, as a share of a rater's rows, at least two; 0: none."""
    identical: float = 0.02
    """Pairs of a text with itself, as a share of a rater's rows, at least one; 0: none."""

    def __post_init__(self) -> None:
        if self.raters < 1:
            raise InputError(f"The number of raters is {self.raters}; a study needs at least 1.")
        if self.overlap < 0:
            raise InputError(f"The overlap is {self.overlap}; it must be 0 or more items that every rater gets.")
        if not 1 <= self.votes <= self.raters:
            raise InputError(f"Each item gets {self.votes} votes; with {self.raters} raters give 1 to {self.raters}.")
        for name, share in (("swapped duplicates", self.swaps), ("identical pairs", self.identical)):
            if not 0 <= share <= 1:
                raise InputError(f"The share of {name} is {share}; it must be between 0 and 1.")


@dataclass(frozen=True)
class _PlannedRow:
    """A row before it has an id."""

    item: str
    rater: str
    left: int
    check: str = ""


def make_study(
    matched: MatchedPairs,
    design: Design,
    *,
    seed: int,
    attributes: Sequence[str],
    definitions: Mapping[str, str],
    title: str = TITLE,
    gold: Sequence[GoldItem] = (),
    key: Mapping[str, Any],
    form: RatingForm = DEFAULT_FORM,
    rater_names: Sequence[str] = (),
) -> Study:
    """The study of these pairs: the same arguments give the same study, row for row.

    Args:
        seed: of order, sides, distribution and checks.
        definitions: what raters read about each of the attributes.
        gold: items with an obvious answer, given to every rater.
        key: what else `key.json` has.
        rater_names: one for each rater of the design; default rater-1, rater-2, ...
    """
    raters = list(rater_names) or [f"rater-{number + 1}" for number in range(design.raters)]
    sheets = _Sheets(seed)
    groups: dict[tuple[str, str], list[str]] = {}
    for pair in matched.pairs:
        groups.setdefault(pair.systems, []).append(sheets.add(pair, "pair"))
    golden = [sheets.add(AnswerPair(one.id, "", one.prompt, GOLD, (one.good, one.bad)), "gold") for one in gold]
    pairs = [item for own in groups.values() for item in own]
    planned: list[_PlannedRow] = []
    for rater, theirs in zip(raters, item_shares(groups, raters, design, seed), strict=True):
        votes = [row for own in theirs.values() for row in sheets.sides(own, rater, "")]
        checks = [
            *sheets.swapped(votes, design.swaps),
            *sheets.identical(votes, design.identical, pairs, rater),
            *sheets.sides(golden, rater, "gold"),
        ]
        mixed = [*votes, *checks]
        generator(seed, "rows", rater).shuffle(mixed)
        planned += _duplicates_apart(_apart(mixed, sheets.items), sheets.items, seed)
        if not votes:
            none = f"There are {len(pairs)} items for {len(raters)} raters, so {rater} would have none"
            raise InputError(f"{none}; take fewer raters, or raise overlap or votes.")
    words = [repr(definitions[name]) for name in attributes]
    shas = [f"{item.item} {item.sha}" for item in sheets.items.values()]
    asked = [json.dumps(form.to_json(), sort_keys=True)] if form != DEFAULT_FORM else []
    study = "s" + digest(str(seed), title, *attributes, *words, *shas, *map(repr, planned), *asked)[:12]
    rows, about = _with_ids(planned, study, seed)
    turned = turned_orders(attributes, raters, seed)
    return Study(
        id=study,
        seed=seed,
        title=title,
        attributes=tuple(attributes),
        definitions={name: definitions[name] for name in attributes},
        orders=turned,
        items=tuple(sheets.items[item] for item in sorted(sheets.items)),
        rows=rows,
        form=form,
        key={
            "study": study,
            "seed": seed,
            "title": title,
            "attributes": list(attributes),
            **key,
            "unmatched": {name: list(ids) for name, ids in matched.unmatched.items()},
            "items": dict(sorted(sheets.key.items())),
            "rows": about,
        },
    )


def turned_orders(attributes: Sequence[str], raters: Sequence[str], seed: int) -> dict[str, tuple[str, ...]]:
    """Rater -> the order of the attributes: one that is drawn, turned by one from rater to rater."""
    order = list(attributes)
    generator(seed, "attributes").shuffle(order)
    turns = [number % len(order) for number in range(len(raters))]
    return {rater: tuple(order[turn:] + order[:turn]) for rater, turn in zip(raters, turns, strict=True)}


class _Sheets:
    """The items, what `key.json` says about each, and their rows. Each choice is a hash of the seed and its subject."""

    def __init__(self, seed: int) -> None:
        self.items: dict[str, StudyItem] = {}
        self.key: dict[str, dict[str, Any]] = {}
        self._seed = seed
        self._equal: dict[tuple[str, str], str] = {}

    def add(self, pair: AnswerPair, kind: str) -> str:
        """Add an item, its texts ordered by hash; returns its id. The first text of a gold pair is the right one."""
        about = (kind, pair.prompt_id, *pair.systems)
        flip = key64(self._seed, "order", *about) & 1
        texts, systems = (pair.texts[::-1], pair.systems[::-1]) if flip else (pair.texts, pair.systems)
        item = free_id(self.items, self._seed, "i", *about)
        self.items[item] = StudyItem(item, pair.prompt, (texts[0], texts[1]), digest(pair.prompt, *texts))
        self.key[item] = {
            "prompt_id": pair.prompt_id,
            "prompt_sha": pair.prompt_sha,
            "systems": list(systems),
            "kind": kind,
            "expected": {"gold": flip, "identical": TIE}.get(kind),
        }
        return item

    def sides(self, own: Sequence[str], rater: str, check: str) -> list[_PlannedRow]:
        """The items of one pair of systems as rows, each system on the left in half of them (a hash decides if odd)."""
        if not own:
            return []
        ordered = sorted(own, key=lambda item: key64(self._seed, "side", rater, item))
        first = min(self.key[ordered[0]]["systems"])
        half = len(ordered) // 2 + (len(ordered) % 2) * (key64(self._seed, "odd", rater, ordered[0]) & 1)
        places = [self.key[item]["systems"].index(first) for item in ordered]
        return [
            _PlannedRow(item, rater, place if number < half else 1 - place, check)
            for number, (item, place) in enumerate(zip(ordered, places, strict=True))
        ]

    def swapped(self, votes: Sequence[_PlannedRow], share: float) -> list[_PlannedRow]:
        """Duplicates of some rows, sides swapped, texts different, alternating between pairs of systems and sides."""
        drawn = sorted(
            (row for row in votes if len(set(self.items[row.item].texts)) == 2),
            key=lambda row: key64(self._seed, "swap", row.rater, row.item),
        )
        seen: Counter[tuple[str, ...]] = Counter()
        turns = []
        for row in drawn:
            systems = self.key[row.item]["systems"]
            kind = (systems[row.left], *sorted(systems))
            turns.append(seen[kind])
            seen[kind] += 1
        evenly = [drawn[index] for index in sorted(range(len(drawn)), key=lambda index: turns[index])]
        number = max(2, round(share * len(votes))) if share else 0
        return [_PlannedRow(row.item, row.rater, 1 - row.left, "swap") for row in evenly[:number]]

    def identical(
        self, votes: Sequence[_PlannedRow], share: float, pairs: Sequence[str], rater: str
    ) -> list[_PlannedRow]:
        """Rows that show one text twice, preferably not empty and of prompts that this rater doesn't see otherwise."""
        mine = {self.items[row.item].prompt for row in votes}
        chosen: list[_PlannedRow] = []
        prompts: set[str] = set()

        def rank(item: str) -> tuple[bool, bool, int]:
            return (
                self.items[item].prompt in mine,
                not "".join(self.items[item].texts).strip(),
                key64(self._seed, "identical", rater, item),
            )

        for source in sorted(pairs, key=rank):
            if len(chosen) >= math.ceil(share * len(votes)):
                break
            about, item = self.key[source], self.items[source]
            if about["prompt_id"] in prompts:
                continue
            prompts.add(about["prompt_id"])
            place = key64(self._seed, "identical", source) & 1
            name, text = about["systems"][place], item.texts[place]
            if (about["prompt_id"], name) not in self._equal:
                pair = AnswerPair(about["prompt_id"], about["prompt_sha"], item.prompt, (name, name), (text, text))
                self._equal[about["prompt_id"], name] = self.add(pair, "identical")
            same = self._equal[about["prompt_id"], name]
            chosen.append(_PlannedRow(same, rater, key64(self._seed, "side", rater, same) & 1, "identical"))
        return chosen


def free_id(taken: Container[str], seed: int, prefix: str, *about: object) -> str:
    """An id that reveals nothing: a hash, hashed again if taken."""
    again = 0
    while (id := f"{prefix}{key64(seed, 'id', prefix, *about, again):016x}"[:13]) in taken:
        again += 1
    return id


def item_shares(
    groups: Mapping[tuple[str, str], Sequence[str]], raters: Sequence[str], design: Design, seed: int
) -> list[dict[tuple[str, str], list[str]]]:
    """For each rater the items of each pair of systems: the overlap and an even share of the rest."""
    shuffled = {pair: sorted(own, key=lambda item: key64(seed, "share", item)) for pair, own in groups.items()}
    total = min(design.overlap, sum(map(len, groups.values())))
    common: Counter[tuple[str, str]] = Counter()
    while sum(common.values()) < total:
        for pair, own in shuffled.items():
            if common[pair] < len(own) and sum(common.values()) < total:
                common[pair] += 1
    shares: list[dict[tuple[str, str], list[str]]] = [
        {pair: own[: common[pair]] for pair, own in shuffled.items()} for _ in raters
    ]
    turn = 0
    for pair, own in shuffled.items():
        for item in own[common[pair] :]:
            for _ in range(design.votes):
                shares[turn % len(raters)][pair].append(item)
                turn += 1
    return shares


def _apart(rows: Sequence[_PlannedRow], items: Mapping[str, StudyItem]) -> list[_PlannedRow]:
    """The rows in their order, with as few as possible moved back so that no two rows of one prompt are adjacent.

    `a a b c` becomes `a b a c`; `a a a b` can only become `a b a a`.
    """
    waiting = list(rows)
    left = Counter(items[row.item].prompt for row in rows)
    ordered: list[_PlannedRow] = []
    last = None
    while waiting:
        prompt, most = left.most_common(1)[0]
        # a prompt that fills every second remaining place must come now, or two of its rows will meet at the end
        wanted = prompt if 2 * most > len(waiting) and prompt != last else None
        fitting = (
            place
            for place, row in enumerate(waiting)
            if (one := items[row.item].prompt) != last and (wanted is None or one == wanted)
        )
        row = waiting.pop(next(fitting, 0))
        last = items[row.item].prompt
        left[last] -= 1
        ordered.append(row)
    return ordered


def _duplicates_apart(rows: Sequence[_PlannedRow], items: Mapping[str, StudyItem], seed: int) -> list[_PlannedRow]:
    """The rows with some of them moved so that a swapped duplicate stands more than `APART` places from its
    original, where the sheet is long enough, or else as far as it can. No rows of one prompt come to be adjacent.

    `a a' b c d e f g` becomes `a b c d e f g a'`, with the place drawn by the seed.
    """
    ordered, cost = list(rows), _nearness(rows, items)
    pairs = [
        (swap, next(row for row in rows if row.item == swap.item and not row.check))
        for swap in rows
        if swap.check == "swap"
    ]
    waiting = [(moved, pair) for pair in pairs for moved in pair]
    tries = 0
    while cost[1] and tries < len(waiting):
        moved, pair = waiting[tries]
        tries += 1
        at = ordered.index(moved)
        if abs(ordered.index(pair[0]) - ordered.index(pair[1])) > APART:
            continue
        rest = [*ordered[:at], *ordered[at + 1 :]]
        for place in sorted(range(len(rows)), key=lambda place: key64(seed, "apart", moved.rater, moved.item, place)):
            tried = [*rest[:place], moved, *rest[place:]]
            if (now := _nearness(tried, items)) < cost:
                ordered, cost, tries = tried, now, 0
                break
    return ordered


def _nearness(rows: Sequence[_PlannedRow], items: Mapping[str, StudyItem]) -> tuple[int, int]:
    """(adjacent rows of one prompt, places by which duplicates stand too near to their originals)."""
    prompts = [items[row.item].prompt for row in rows]
    adjacent = sum(one == other for one, other in pairwise(prompts))
    places = {row.item: place for place, row in enumerate(rows) if not row.check}
    near = (max(0, APART + 1 - abs(place - places[row.item])) for place, row in enumerate(rows) if row.check == "swap")
    return adjacent, sum(near)


def _with_ids(
    planned: Sequence[_PlannedRow], study: str, seed: int
) -> tuple[tuple[RatingRow, ...], dict[str, dict[str, str]]]:
    """The rows with their ids, and what the key says about each: its check, and which row a duplicate repeats."""
    rows: dict[str, RatingRow] = {}
    about: dict[str, dict[str, str]] = {}
    firsts: dict[tuple[str, str], str] = {}
    for one in planned:
        id = free_id(rows, seed, "r", study, one.rater, one.item, one.check)
        rows[id] = RatingRow(id, one.item, one.rater, one.left)
        about[id] = {"check": one.check}
        if not one.check:
            firsts[one.rater, one.item] = id
    for row in rows.values():
        if about[row.row]["check"] == "swap":
            about[row.row]["of"] = firsts[row.rater, row.item]
    return tuple(rows.values()), dict(sorted(about.items()))
