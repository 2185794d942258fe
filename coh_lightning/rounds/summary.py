"""The figures of each round -> rounds.json, the table of the terminal, and report.html.

base model    .801                                   questions .953
round 1       .852   good - bad +.061   100 % new    questions .950      1,600 answers, 150 steps so far
round 2       .871   ...
offline       .860   ...                             as many answers and steps, all on the base model's answers
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from coh_lightning.compare.pictures import lines
from coh_lightning.compare.report import NONE, between, short, within
from coh_lightning.compare.statistics import Estimate, Runs, estimate
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.intervals import Floats
from coh_lightning.pages.page import write_page
from coh_lightning.rounds.rounds_file import RoundsFile
from coh_lightning.rounds.steps import BAD, BASE, Stage, offline_name, round_name

Summary = dict[str, Any]


def summary(file: RoundsFile, folder: Path) -> Summary:
    """Everything that is finished: a row for the base model, each round, and the offline comparison.

    Raises:
        InputError: the test completions have no score of the file's name.
    """
    names = [BASE, *map(round_name, range(1, file.rounds + 1)), *([offline_name(file)] if file.offline else [])]
    stages = {name: [Stage(file, folder, seed, name) for seed in file.seeds] for name in names}
    done = {name: [one for one in every if _is_tested(one)] for name, every in stages.items()}
    scores = {name: {one.seed: _scores(one, file.score) for one in every} for name, every in done.items()}
    rows = [_row(file, name, done[name], scores) for name in names if done[name]]
    return {
        "name": file.name,
        "about": file.about,
        "score": file.score,
        "condition": file.condition,
        "temperature": file.test.temperature,
        "prompts": file.test.count,
        "seeds": list(file.seeds),
        "expected": len(names) * len(file.seeds),
        "finished": sum(len(every) for every in done.values()),
        "ability": _ability_name(rows),
        "rows": rows,
        "comparisons": _comparisons(file, scores),
    }


def _is_tested(stage: Stage) -> bool:
    return (stage.folder / "steps" / f"{stage.step('test')}.json").is_file()


def _scores(stage: Stage, name: str | None) -> dict[str, Floats]:
    """Condition -> the score of each test prompt, in the order of their ids; none without a score."""
    found: dict[str, dict[str, float]] = {}
    if name is None:
        return {}
    path = stage.test / "completions.jsonl"
    for one in read_jsonl(path, Completion):
        if name not in one.scores:
            known = ", ".join(one.scores) or "none: set model.generation.scorers"
            raise InputError(f"{path} has no score {name}; its scores: {known}. score: null shows none.")
        found.setdefault(one.ask, {})[one.prompt_id] = one.scores[name]
    return {ask: np.array([of[id] for id in sorted(of)]) for ask, of in found.items()}


def _own(file: RoundsFile, scores: Mapping[str, Floats]) -> Floats | None:
    """Those under the good sentence; of the base model, which has none, all."""
    return scores.get(file.condition, scores.get(""))


def _estimate(values: Sequence[Floats]) -> Estimate | None:
    if not values:
        return None
    table = np.stack(values)
    return estimate(Runs(table, (0,) * len(table), ("test",) * len(table)))


def _json(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()


def _row(
    file: RoundsFile, name: str, stages: Sequence[Stage], scores: Mapping[str, Mapping[int, Mapping[str, Floats]]]
) -> Summary:
    mine = scores[name]
    own = [found for one in mine.values() if (found := _own(file, one)) is not None]
    gaps = [one[file.condition] - one[BAD] for one in mine.values() if BAD in one and file.condition != BAD]
    mixtures = [json.loads((one.path / "mixture.json").read_text(encoding="utf-8")) for one in stages if name != BASE]
    number = int(name.removeprefix("round")) if name.startswith("round") else file.rounds
    spent = 0 if name == BASE else number
    return {
        "name": name,
        "label": _label(file, name),
        "runs": len(stages),
        "score": _json(_estimate(own)),
        "gap": _json(_estimate(gaps)),
        "ability": _mean([value for one in stages if (value := _ability(one)) is not None]),
        "records": {key: _mean([one[key] for one in mixtures]) for key in ("new", "older", "given")} if spent else None,
        "new": _mean([one["new"] / sum(one.values()) for one in mixtures]),
        "answers": spent * file.prompts_per_round * file.samples,
        "steps": spent * file.steps,
    }


def _label(file: RoundsFile, name: str) -> str:
    if name == BASE:
        return "base model"
    return f"round {name.removeprefix('round')}" if name.startswith("round") else "offline"


def _ability(stage: Stage) -> float | None:
    if not stage.ability.is_file():
        return None
    return float(next(iter(json.loads(stage.ability.read_text(encoding="utf-8")).values())))


def _ability_name(rows: Sequence[Summary]) -> str | None:
    return "ability" if any(one["ability"] is not None for one in rows) else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _comparisons(file: RoundsFile, scores: Mapping[str, Mapping[int, Mapping[str, Floats]]]) -> list[Summary]:
    """The last round against the base model, and against the same budget spent offline; over seeds that have both."""
    last = round_name(file.rounds)
    made = []
    for other in (BASE, offline_name(file)):
        both = [seed for seed in scores.get(last, {}) if seed in scores.get(other, {})]
        pairs = [(_own(file, scores[last][seed]), _own(file, scores[other][seed])) for seed in both]
        found = _estimate([one - two for one, two in pairs if one is not None and two is not None])
        if found is not None:
            made.append({"compare": [_label(file, last), _label(file, other)], **found.to_json()})
    return made


def cells(found: Summary) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table."""
    heads = ["", "n", str(found["score"] or "score"), "good - bad", "ability", "new", "records", "answers", "steps"]
    rows = []
    for one in found["rows"]:
        records = one["records"]
        total = NONE if records is None else f"{sum(records.values()):,.0f}"
        new = NONE if one["new"] is None else f"{one['new']:.0%}"
        figures = [within(one["score"]), within(one["gap"]), short(one["ability"])]
        rows.append([one["label"], str(one["runs"]), *figures, new, total, f"{one['answers']:,}", f"{one['steps']:,}"])
    return heads, rows


def sentences(found: Summary) -> list[str]:
    return [
        f"{one['compare'][0]} - {one['compare'][1]}: {between(one)}".replace("+.", ".") for one in found["comparisons"]
    ]


def show(found: Summary, console: Console) -> None:
    """The table, at most 80 columns wide."""
    console.print(
        f"{found['name']}: {found['finished']} of {counted(found['expected'], 'stage')} finished\n", highlight=False
    )
    heads, rows = cells(found)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for one in sentences(found):
        console.print(one, highlight=False)
    console.print(note(found), style="dim", highlight=False)


def note(found: Summary) -> str:
    over = "seeds and prompts" if len(found["seeds"]) > 1 else "prompts alone: other runs may differ more"
    return (
        f"{found['prompts']} unseen prompts at temperature {found['temperature']:g}, ± half a 95 % interval over "
        f"{over}. new: the share of the round's own feedback in what it learned from. answers, steps: in all so far."
    )


def picture(found: Summary) -> dict[str, Any] | None:
    """The score by round; the offline comparison at the last one. None: there are no scores."""
    rounds = [one for one in found["rows"] if one["label"] != "offline" and one["score"]]
    offline = [one for one in found["rows"] if one["label"] == "offline" and one["score"]]
    if not rounds:
        return None
    drawn = {"rounds": [{"x": place, **one["score"]} for place, one in enumerate(rounds)]}
    if offline:
        drawn["offline"] = [{"x": len(rounds) - 1, **offline[0]["score"]}]
    return lines({"name": "round (0: the base model)", "temperature": found["temperature"], "lines": drawn})


def write_report(found: Summary, path: Path) -> Path:
    heads, rows = cells(found)
    return write_page(
        path,
        "rounds.html.j2",
        summary=found,
        heads=heads,
        rows=rows,
        sentences=sentences(found),
        note=note(found),
        picture=picture(found),
    )
