"""Results -> compare.json: means with intervals, paired differences, Holm, verdicts on claims. Whatever is finished
counts, and every figure says how many runs it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coh_lightning.compare.execution import Composed, mean_score, tuned
from coh_lightning.compare.results import unpack
from coh_lightning.compare.rows import Row, row_key, rows_of, tuning_rows
from coh_lightning.compare.statistics import LEVEL, Estimate, Runs, estimate, paired
from coh_lightning.compare.study import Comparison, Study
from coh_lightning.human_eval.statistics import holm

MARGIN = 0.01
"""The smallest difference in the score that a claim of "better" is about."""
HOLDS, FAILS, OPEN = "holds", "does not hold", "can't be told"

Line = Mapping[str, Any]
Known = tuple[Runs, list[tuple[int, int]]]
"""Values of runs, and the (base, seed) of each."""


def verdict(found: Estimate | None) -> str:
    """holds: the interval of a - b is above 0. does not hold: it isn't, and ends below `MARGIN`. Otherwise, or without
    an interval: can't be told.
    """
    if found is None or not (np.isfinite(found.low) and np.isfinite(found.high)):
        return OPEN
    return HOLDS if found.low > 0 else FAILS if found.high < MARGIN else OPEN


RULE = (
    f"Intervals are {LEVEL:.0%} bootstrap intervals over seeds, base models and prompts. A claim holds if the interval "
    f"of the difference is above 0; it does not hold if that isn't so and the interval ends below {MARGIN:g}; "
    "otherwise it can't be told."
)


class Finished:
    """The finished lines of a study, by world and method."""

    def __init__(self, study: Study, composed: Composed, results: Mapping[str, Line]) -> None:
        self.study = study
        self.expected: dict[tuple[str, str], int] = {}
        self.lines: dict[tuple[str, str], list[Line]] = {}
        self.tuning: list[dict[str, Any]] = []
        for row in rows_of(study):
            if row.method.name not in composed:
                continue
            where = (row.world.name, row.method.name)
            self.expected[where] = self.expected.get(where, 0) + 1
            self._add_tuning(row, composed, results)
            known = tuned(study, row, composed, results)
            line = known and results.get(row_key(study, known, composed[row.method.name]))
            if line:
                self.lines.setdefault(where, []).append(line)

    def _add_tuning(self, row: Row, composed: Composed, results: Mapping[str, Line]) -> None:
        trials = tuning_rows(self.study, row)
        if not trials or any(one["row"] == trials[0].name.rpartition("/")[0] for one in self.tuning):
            return
        found = {}
        for one in trials:
            line = results.get(row_key(self.study, one, composed[one.method.name]))
            found[f"{one.rate:g}"] = round(mean_score(line, self.study.tune.temperature), 4) if line else None
        known = tuned(self.study, row, composed, results)
        chosen = known.rate if known else None
        self.tuning.append({"row": trials[0].name.rpartition("/")[0], "scores": found, "chosen": chosen})

    def runs(self, world: str, method: str, temperature: float) -> Known | None:
        """Scores of all runs, and the (base, seed) of each."""
        lines = [one for one in self.lines.get((world, method), []) if f"{temperature:g}" in one["scores"]]
        lines = [one for one in lines if one["n"] == lines[0]["n"]]
        if not lines:
            return None
        rows = [unpack(one["scores"][f"{temperature:g}"], *one.get("range", (0.0, 1.0))) for one in lines]
        data = Runs(np.array(rows), tuple(one["base"] for one in lines), tuple(one["prompts"] for one in lines))
        return data, [(one["base"], one["seed"]) for one in lines]

    def figures(
        self, world: str, method: str, temperature: float, name: str
    ) -> tuple[Runs, list[tuple[int, int]]] | None:
        """A figure of `coh test`, one value a run."""
        at, found = f"{temperature:g}", self.lines.get((world, method), [])
        every = [(one, {**one["held_out"], **one["figures"].get(at, {})}) for one in found]
        known = [(one, figures[name]) for one, figures in every if name in figures]
        if not known:
            return None
        values = np.array([[value] for _, value in known])
        lines = [one for one, _ in known]
        data = Runs(values, tuple(one["base"] for one in lines), ("",) * len(lines))
        return data, [(one["base"], one["seed"]) for one in lines]

    def difference(self, one: Comparison) -> Estimate | None:
        """a - b, run by run and prompt by prompt."""
        sides = [
            self.figures(one.world, name, one.temperature, one.figure)
            if one.figure
            else self.runs(one.world, name, one.temperature)
            for name in one.compare
        ]
        if sides[0] is None or sides[1] is None:
            return None
        data = paired(sides[0][0], sides[1][0], (sides[0][1], sides[1][1]))
        return estimate(data) if data is not None else None


def summary(study: Study, composed: Composed, results: Mapping[str, Line]) -> dict[str, Any]:
    """What compare.json holds."""
    found = Finished(study, composed, results)
    return {
        "study": study.name,
        "about": study.about,
        "rule": RULE,
        "baseline": study.baseline,
        "labels": {name: method.label for name, method in study.methods.items()},
        "score": study.evaluation.score,
        "rows": {"expected": sum(found.expected.values()), "finished": sum(map(len, found.lines.values()))},
        "prompts": sorted({line["n"] for lines in found.lines.values() for line in lines}),
        "worlds": {name: dict(world.settings) for name, world in study.worlds.items()},
        "table": [_entry(study, found, world, method) for world, method in found.expected],
        "primary": _primary(study, found),
        "claims": [_claim(found, one) for one in study.claims],
        "axes": [_axis(study, found, place) for place in range(len(study.axes))],
        "tuning": found.tuning,
    }


def _entry(study: Study, found: Finished, world: str, name: str) -> dict[str, Any]:
    method, lines = study.methods[name], found.lines.get((world, name), [])
    scores: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for temperature in method.evaluation.temperatures:
        key = f"{temperature:g}"
        mine = found.runs(world, name, temperature)
        if mine is None:
            continue
        scores[key] = estimate(mine[0]).to_json()
        known = study.methods[study.baseline].evaluation.temperatures
        if name != study.baseline and temperature in known:
            other = found.difference(Comparison((name, study.baseline), world, temperature))
            differences[key] = other.to_json() if other else None
    return {
        "world": world,
        "method": name,
        "label": method.label,
        "runs": len(lines),
        "expected": found.expected[world, name],
        "rate": sorted({one["rate"] for one in lines if one["rate"] is not None}),
        **{key: _mean(lines, key) for key in ("steps", "epochs", "records", "train_seconds", "test_seconds")},
        "scores": scores,
        "differences": differences,
        "figures": {key: _means([one["figures"].get(key, {}) for one in lines]) for key in scores},
        "held_out": _means([one["held_out"] for one in lines]),
    }


def _mean(lines: Sequence[Line], key: str) -> float | None:
    values = [one[key] for one in lines if key in one]
    return round(sum(values) / len(values), 2) if values else None


def _means(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in every:
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def _primary(study: Study, found: Finished) -> list[dict[str, Any]]:
    """Holm over the comparisons that have a p value: those without one still count as tests to come."""
    known = [found.difference(one) for one in study.primary]
    adjusted = holm([one.p if one is not None and np.isfinite(one.p) else 1.0 for one in known])
    made = []
    for one, difference, p in zip(study.primary, known, adjusted, strict=True):
        has = difference is not None and np.isfinite(difference.p)
        made.append({**_claim(found, one), "p_holm": round(p, 5) if has else None})
    return made


def _claim(found: Finished, one: Comparison) -> dict[str, Any]:
    difference = found.difference(one)
    named = {"claim": one.claim, "paper": one.paper} if one.claim else {}
    return {
        **named,
        "compare": list(one.compare),
        "world": one.world,
        "temperature": one.temperature,
        **({"figure": one.figure} if one.figure else {}),
        "difference": difference.to_json() if difference else None,
        "verdict": verdict(difference),
    }


def _axis(study: Study, found: Finished, place: int) -> dict[str, Any]:
    axis = study.axes[place]
    lines: dict[str, list[dict[str, Any]]] = {}
    for name in axis.methods:
        for world in sorted(axis.worlds, key=lambda one: study.worlds[one].settings[axis.setting]):
            mine = found.runs(world, name, axis.temperature)
            if mine is not None:
                x = study.worlds[world].settings[axis.setting]
                lines.setdefault(study.methods[name].label, []).append({"x": x, **estimate(mine[0]).to_json()})
    return {"name": axis.name, "setting": axis.setting, "temperature": axis.temperature, "lines": lines}
