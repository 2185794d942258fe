"""Three to five answers on one screen, ranked from best to worst:

    a cell of the sheet      B > A > C        each answer once, no ties
    becomes judgments        B over A, B over C, A over C        rows r3f:0-1, r3f:0-2, r3f:1-2 of the sheet's row r3f

Each judgment is one of two systems, as in a study of pairs, so report and feedback take them alike. The order of a
whole row is found again for the Plackett-Luce model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.human_eval.choices import LETTERS
from coh_lightning.human_eval.items import MatchedPairs
from coh_lightning.human_eval.systems import System
from coh_lightning.rng import generator, key64

FEWEST, MOST = 3, len(LETTERS)
"""Systems on one screen."""


def check_ranking(systems: Sequence[System]) -> None:
    """Raises InputError unless there are three to five systems."""
    if not FEWEST <= len(systems) <= MOST:
        names = ", ".join(system.name for system in systems)
        raise InputError(f"A ranking has {FEWEST} to {MOST} systems, but {len(systems)} were given ({names}).")


def prompts_of_all(matched: MatchedPairs, systems: Sequence[System]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Prompt id -> the prompt and every system's text, of the prompts that all of them answered. Raises InputError if
    there is none.
    """
    texts: dict[str, dict[str, str]] = {}
    prompts: dict[str, str] = {}
    for pair in matched.pairs:
        prompts.setdefault(pair.prompt_id, pair.prompt)
        texts.setdefault(pair.prompt_id, {}).update(zip(pair.systems, pair.texts, strict=True))
    names = [system.name for system in systems]
    whole = {
        id: (prompts[id], tuple(given[name] for name in names))
        for id, given in texts.items()
        if len(given) == len(names)
    }
    if not whole:
        raise InputError(f"No prompt was answered by all of {', '.join(names)}; a ranking needs such prompts.")
    return whole


def orders_of(items: Sequence[str], rater: str, systems: int, seed: int) -> dict[str, tuple[int, ...]]:
    """Item -> the order in which a rater sees its texts: drawn, with each text equally often in each place."""
    ordered = sorted(items, key=lambda item: key64(seed, "side", rater, item))
    orders = {}
    for number, item in enumerate(ordered):
        if number % systems == 0:
            cycle = list(range(systems))
            generator(seed, "order", rater, number).shuffle(cycle)
        turn = number % systems
        orders[item] = tuple(cycle[turn:] + cycle[:turn])
    return orders


def read_ranking(cell: str, size: int) -> tuple[int, ...] | None:
    """The places of the answers (A is 0) from best to worst; None if a cell doesn't name each once.

    >>> read_ranking("b > A, c", 3), read_ranking("BAC", 3), read_ranking("A > B", 3), read_ranking("A = B > C", 3)
    ((1, 0, 2), (1, 0, 2), None, None)
    """
    letters = re.sub(r"[\s>,;]+", "", cell).upper()
    if sorted(letters) != sorted(LETTERS[:size]):
        return None
    return tuple(LETTERS.index(letter) for letter in letters)


def pairs_of(ranking: Sequence[int]) -> Iterable[tuple[int, int, int]]:
    """(first place, second place, the better of them) of each two answers as shown."""
    for first, second in combinations(range(len(ranking)), 2):
        yield first, second, first if ranking.index(first) < ranking.index(second) else second


def rankings_of(judgments: Iterable[Judgment]) -> Mapping[str, list[tuple[str, tuple[str, ...]]]]:
    """Attribute -> (prompt id, systems from best to worst) of each row that was ranked whole."""
    wins: dict[tuple[str, str], dict[str, int]] = {}
    prompts: dict[tuple[str, str], str] = {}
    for one in judgments:
        if one.row != one.sheet_row:
            given = wins.setdefault((one.attribute, one.sheet_row), {})
            prompts[one.attribute, one.sheet_row] = one.prompt_id
            for system in one.systems:
                given[system] = given.get(system, 0) + (one.choice == system)
    found: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for (attribute, row), given in wins.items():
        if sorted(given.values()) == list(range(len(given))) and len(given) > 2:
            order = tuple(sorted(given, key=lambda system: -given[system]))
            found.setdefault(attribute, []).append((prompts[attribute, row], order))
    return found
