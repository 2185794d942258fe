"""The rows of a study, in the order in which they run, and their keys.

A row is a fit and its evaluation: one method, world, base model and seed. Groups run one after the other; within a
group all methods of all worlds at the first seed and base model come first, then the next seed. A row whose method has
several rates first needs a tuning row for each.

The key is a hash of everything that decides the figures: the composed configuration without its defaults, the world,
base model, seed, and evaluation. Folders, names and defaults aren't in it, so a key stays the same on another machine
and with a later version that has more settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from coh_lightning.compare.study import Evaluation, Method, Study, World
from coh_lightning.errors import InputError

FORMAT = 1
"""Part of every key: raise it when a change of the package makes earlier rows wrong."""

OF_WORLD = ("model.name_or_path", "data.feedback", "data.test_sources", "data.pretraining_text", "data.cache_dir")
"""Settings that name what a world gives, by path: the key has the world's own settings instead."""
SEEDS = ("seed_everything", "data.seed")


@dataclass(frozen=True)
class Row:
    """One fit and its evaluation."""

    method: Method
    world: World
    base: int
    seed: int
    group: str
    evaluation: Evaluation
    tuning: bool = False
    """It compares rates on the tuning prompts, and is no result."""
    rate: float | None = None
    """The learning rate; None until it is tuned, or if the configuration states it."""

    @property
    def name(self) -> str:
        """What people and --only call it: habits/coh/base0/seed1."""
        rate = f"/rate={self.rate:g}" if self.tuning else ""
        return f"{self.world.name}/{self.method.name}/base{self.base}/seed{self.seed}{rate}"


def rows_of(study: Study, only: str | None = None) -> list[Row]:
    """The rows of the study, in order, each once. Raises InputError if `only` (a pattern of names, * and ?) fits none.

    >>> # seeds 0 and 1, base 0, worlds a and b, methods m and n:
    >>> # a/m/base0/seed0  a/n/base0/seed0  b/m/base0/seed0  b/n/base0/seed0  a/m/base0/seed1  ...
    """
    found: dict[str, Row] = {}
    for group in study.groups:
        for seed in group.seeds:
            for base in group.bases:
                for world in group.worlds:
                    for name in group.methods:
                        method = study.methods[name]
                        rate = method.rates[0] if len(method.rates) == 1 else None
                        row = Row(method, study.worlds[world], base, seed, group.name, method.evaluation, rate=rate)
                        found.setdefault(row.name, row)
    rows = list(found.values())
    if only is None:
        return rows
    chosen = [row for row in rows if fnmatchcase(row.name, only)]
    if not chosen:
        raise InputError(f"--only {only} matches no row; a row is called {rows[0].name}, and * stands for anything.")
    return chosen


def tuning_rows(study: Study, row: Row) -> list[Row]:
    """What must be known before this row's rate: one row for each rate of its method. None: the rate is not tuned.

    A reused fit, or a variant (`tuned_as`), has the rate that the method itself has.
    """
    if row.tuning or len(row.method.rates) < 2:
        return []
    method = study.methods[row.method.tuned_as]
    world = study.worlds[study.tune.world] if study.tune.world else row.world
    how = replace(method.evaluation, temperatures=(study.tune.temperature,), prompts=study.tune.prompts, samples=1)
    first = replace(row, method=method, world=world, base=0, seed=0, evaluation=how, tuning=True)
    return [replace(first, rate=rate) for rate in method.rates]


def with_rate(row: Row, rate: float) -> Row:
    return replace(row, rate=rate)


def in_order(study: Study, rows: Sequence[Row]) -> Iterator[Row]:
    """Each row behind the tuning rows that it needs."""
    seen = set()
    for row in rows:
        for one in tuning_rows(study, row):
            if one.name not in seen:
                seen.add(one.name)
                yield one
        yield row


def fit_settings(study: Study, row: Row) -> dict[str, Any]:
    """What a row's fit is given besides the base configuration, the world and the folder."""
    own = dict(row.method.settings)
    if row.rate is not None:
        own[row.method.rate] = row.rate
    if row.method.command[:1] in ((), ("fit",)):
        return {**study.settings, **own, **dict.fromkeys(SEEDS, row.seed)}
    return own


def fit_key(study: Study, row: Row, composed: Mapping[str, Any]) -> str:
    """The key of the fit: rows with the same one share it. `composed`: see `composed_configs`."""
    return _hash(_fit(study, row, composed))


def row_key(study: Study, row: Row, composed: Mapping[str, Any]) -> str:
    how = row.evaluation
    evaluation = {
        "temperatures": list(how.temperatures),
        "prompts": how.prompts,
        "samples": how.samples,
        "condition": how.condition,
        "score": how.score,
        "settings": dict(how.settings),
        "on": "tune" if row.tuning else "test",
    }
    return _hash({**_fit(study, row, composed), "evaluation": evaluation})


def world_key(world: World, base: int, seed: int) -> str:
    return _hash({"world": dict(world.settings), "base": base, "seed": seed})


def reward_row(study: Study, row: Row) -> Row:
    """The fit of the reward model that a row's RL maximizes, at its own rate."""
    assert row.method.reward is not None
    method = study.methods[row.method.reward]
    return replace(row, method=method, rate=method.rates[0] if method.rates else None)


def _fit(study: Study, row: Row, composed: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "format": FORMAT,
        "command": list(row.method.command),
        "config": composed,
        "settings": {} if row.method.command[:1] in ((), ("fit",)) else dict(row.method.settings),
        "rate": row.rate,
        "world": dict(row.world.settings),
        "base": row.base,
        "seed": row.seed,
    }
    return found | {"reward": _fit(study, reward_row(study, row), {})} if row.method.reward else found


def without(config: Mapping[str, Any], keys: Sequence[str] = (*OF_WORLD, *SEEDS, "run")) -> dict[str, Any]:
    """A configuration without some of its keys, given with dots."""
    kept: dict[str, Any] = {}
    for name, value in config.items():
        inner = [key.partition(".")[2] for key in keys if key.partition(".")[0] == name]
        if "" in inner:
            continue
        kept[name] = without(value, inner) if inner and isinstance(value, Mapping) else value
    return kept


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
