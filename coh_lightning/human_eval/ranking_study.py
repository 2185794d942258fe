"""Prompts answered by three to five systems -> a `Study` whose raters rank all answers of a prompt on one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.human_eval.assignment import Design, free_id, item_shares, turned_orders
from coh_lightning.human_eval.form import RatingForm
from coh_lightning.human_eval.items import MatchedPairs
from coh_lightning.human_eval.rankings import orders_of, prompts_of_all
from coh_lightning.human_eval.study import RatingRow, Study, StudyItem, digest
from coh_lightning.human_eval.systems import System
from coh_lightning.rng import generator, key64


def make_ranking_study(
    matched: MatchedPairs,
    systems: Sequence[System],
    design: Design,
    *,
    seed: int,
    definitions: Mapping[str, str],
    title: str,
    key: Mapping[str, Any],
    form: RatingForm,
    rater_names: Sequence[str] = (),
) -> Study:
    """As `assignment.make_study`, without swapped duplicates, identical pairs and gold items. Raises InputError if no
    prompt was answered by all systems, or a rater would have none.
    """
    raters = list(rater_names) or [f"rater-{number + 1}" for number in range(design.raters)]
    names = [system.name for system in systems]
    items: dict[str, StudyItem] = {}
    about: dict[str, dict[str, Any]] = {}
    shas = {pair.prompt_id: pair.prompt_sha for pair in matched.pairs}
    for id, (prompt, texts) in prompts_of_all(matched, systems).items():
        order = sorted(range(len(names)), key=lambda place: key64(seed, "order", "ranking", id, names[place]))
        item = free_id(items, seed, "i", "ranking", id, *names)
        shown = tuple(texts[place] for place in order)
        items[item] = StudyItem(item, prompt, shown, digest(prompt, *shown))
        about[item] = {
            "prompt_id": id,
            "prompt_sha": shas[id],
            "systems": [names[place] for place in order],
            "kind": "pair",
            "expected": None,
        }
    planned: list[tuple[str, str, tuple[int, ...]]] = []
    for rater, own in zip(raters, item_shares({("", ""): [*items]}, raters, design, seed), strict=True):
        given = own["", ""]
        if not given:
            none = f"There are {len(items)} prompts for {len(raters)} raters, so {rater} would have none"
            raise InputError(f"{none}; take fewer raters, or raise overlap or votes.")
        # a place is a system's, whatever the order of an item's texts
        places = orders_of(given, rater, len(names), seed)
        rows = [
            (item, rater, tuple(about[item]["systems"].index(names[place]) for place in places[item])) for item in given
        ]
        generator(seed, "rows", rater).shuffle(rows)
        planned += rows
    attributes = tuple(definitions)
    asked = json.dumps(form.to_json(), sort_keys=True)
    words = [repr(sentence) for sentence in definitions.values()]
    hashes = [f"{item.item} {item.sha}" for item in items.values()]
    study = "s" + digest(str(seed), title, *attributes, *words, *hashes, *map(repr, planned), asked)[:12]
    rows_by_id: dict[str, RatingRow] = {}
    for item, rater, shown_as in planned:
        row = free_id(rows_by_id, seed, "r", study, rater, item)
        rows_by_id[row] = RatingRow(row, item, rater, shown_as[0], shown_as)
    return Study(
        id=study,
        seed=seed,
        title=title,
        attributes=attributes,
        definitions=dict(definitions),
        orders=turned_orders(attributes, raters, seed),
        items=tuple(items[item] for item in sorted(items)),
        rows=tuple(rows_by_id.values()),
        form=form,
        key={
            "study": study,
            "seed": seed,
            "title": title,
            "attributes": list(attributes),
            **key,
            "unmatched": {name: list(ids) for name, ids in matched.unmatched.items()},
            "items": dict(sorted(about.items())),
            "rows": {row: {"check": ""} for row in sorted(rows_by_id)},
        },
    )
