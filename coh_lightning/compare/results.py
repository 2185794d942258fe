"""The results file: one JSON line for each finished row, enough to compute every interval without run folders.

    {"key": "3f0c...", "row": "habits/coh/base0/seed1", "world": "habits", "method": "coh", "base": 0, "seed": 1,
     "rate": 0.003, "settings": {...}, "n": 200, "prompts": "9a3e...", "scores": {"1": "rsq0...", "0.7": ...},
     "figures": {"1": {"accuracy": .87, ...}}, "held_out": {"nll": ...}, "train_seconds": 61.2, "test_seconds": 20.1,
     "steps": 400, "epochs": 4.8, ...}

`scores` has the mean score of each prompt, two base-36 digits each, in thousandths of the range `range` (left out if it
is 0 to 1); prompts are in the order of their ids, of which `prompts` is a hash. Lines may be appended on several
machines and files joined; of two lines with the same key the first counts.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.baselines.output import DONE
from coh_lightning.compare.rows import Row, row_key
from coh_lightning.compare.steps import Places, Step, evaluation_name, fit_name
from coh_lightning.compare.study import Study
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.runs.run_folder import CONFIG, FINISHED

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
PARTS = 1000
"""Steps of a stored score within its range."""
OF_COMPLETIONS = ("accuracy", "coverage", "coherence", "ended", "copied", "distinct", "reward", "tokens")
HELD_OUT = ("nll", "preference")
"""The columns of test.csv that are kept, the first ones for each temperature."""


def pack(scores: Sequence[float], low: float = 0.0, high: float = 1.0) -> str:
    """Scores as text, two base-36 digits each, rounded to a thousandth of the range.

    >>> pack([0.0, 0.5, 1.0])
    '00dwrs'
    """
    parts = [round((score - low) / (high - low) * PARTS) if high > low else 0 for score in scores]
    return "".join(DIGITS[part // 36] + DIGITS[part % 36] for part in parts)


def unpack(text: str, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """The scores of `pack`, each within half a thousandth of the range.

    >>> unpack('00dwrs')
    array([0. , 0.5, 1. ])
    """
    parts = [int(text[place : place + 2], 36) for place in range(0, len(text), 2)]
    return low + np.array(parts, dtype=np.float64) / PARTS * (high - low)


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """Key -> line. A last line that was cut short is left out. Raises InputError for any other that can't be read."""
    found: dict[str, dict[str, Any]] = {}
    if not file.is_file():
        return found
    lines = file.read_text(encoding="utf-8").split("\n")
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            found.setdefault(line["key"], line)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no newline behind it
                continue
            raise InputError(f"{file}:{number} is no line of results; remove it.") from error
    return found


def append_result(file: Path, line: Mapping[str, Any]) -> None:
    """Adds one line, whole or not at all as far as a killed process goes: a cut last line is ended first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as out:
        out.seek(0, os.SEEK_END)
        if out.tell():
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                _drop_cut_line(out)
        out.write((json.dumps(line, separators=(",", ":")) + "\n").encode())
        out.flush()
        os.fsync(out.fileno())


def _drop_cut_line(out: Any) -> None:
    out.seek(0)
    whole = out.read().rpartition(b"\n")[0]
    out.truncate(len(whole) + 1 if whole else 0)
    out.seek(0, os.SEEK_END)


def result_of(
    study: Study, row: Row, composed: Mapping[str, Any], steps: Sequence[Step], places: Places
) -> dict[str, Any]:
    """The line of a row whose steps are done. Raises InputError if its completions lack the score."""
    how = row.evaluation
    names = {f"{one:g}": evaluation_name(study, row, composed, one) for one in how.temperatures}
    ids: list[str] = []
    scores: dict[str, list[float]] = {}
    for temperature, name in names.items():
        found = _scores(places.test(name) / "completions.jsonl", how.score)
        if ids and sorted(found) != ids:
            raise InputError(f"{row.name}: the temperatures have different prompts; was max_seconds set?")
        ids = sorted(found)
        scores[temperature] = [found[one] for one in ids]
    values = [one for each in scores.values() for one in each]
    low, high = (0.0, 1.0) if 0 <= min(values) and max(values) <= 1 else (min(values), max(values))
    line: dict[str, Any] = {
        "key": row_key(study, row, composed),
        "row": row.name,
        **({"tuning": True} if row.tuning else {}),
        "world": row.world.name,
        "method": row.method.name,
        "base": row.base,
        "seed": row.seed,
        "rate": row.method.settings.get(row.method.rate) if row.rate is None else row.rate,
        "settings": _short(row),
        "n": len(ids),
        "prompts": hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8],
        **({} if (low, high) == (0.0, 1.0) else {"range": [low, high]}),
        "scores": {temperature: pack(each, low, high) for temperature, each in scores.items()},
        **_figures({temperature: places.test(name) / "test.csv" for temperature, name in names.items()}, how.condition),
        "test_seconds": round(sum(places.seconds(one.name) for one in steps if one.kind == "test"), 1),
    }
    if fits := [one for one in steps if one.kind == "fit"]:
        seconds = [places.all_seconds(one.name) for one in fits]
        known = [one for one in seconds if one is not None]
        if len(known) == len(fits):
            line["train_seconds"] = round(sum(known), 1)
        line |= _training(places.fit(fit_name(study, row, composed)))
    return line


def _short(row: Row) -> dict[str, Any]:
    """What distinguishes the row, for people: the world's, the method's and the evaluation's own settings."""
    how = row.evaluation
    found = {"world": dict(row.world.settings), "method": dict(row.method.settings)}
    if row.method.fit != row.method.name:
        found["fit"] = row.method.fit  # type: ignore[assignment]
    if how.settings or how.condition != "good":
        found["evaluation"] = {"condition": how.condition, **how.settings}
    return found


def _scores(file: Path, name: str) -> dict[str, float]:
    """Prompt id -> mean score of its completions."""
    every: dict[str, list[float]] = {}
    for one in read_jsonl(file, Completion):
        if name not in one.scores:
            known = ", ".join(one.scores) or "none: set model.generation.scorers"
            raise InputError(f"{file} has no score {name}; its scores: {known}.")
        every.setdefault(one.prompt_id, []).append(one.scores[name])
    return {prompt: sum(values) / len(values) for prompt, values in every.items()}


def _figures(files: Mapping[str, Path], condition: str) -> dict[str, Any]:
    """`figures` of the completions at each temperature, and `held_out`, losses and pairs, whatever the temperature."""
    every: dict[str, dict[str, float]] = {}
    for temperature, file in files.items():
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as source:
                last = list(csv.DictReader(source))[-1]
            named = {name.removeprefix("test/"): value for name, value in last.items() if value}
            every[temperature] = {name: round(float(value), 4) for name, value in named.items()}
    figures: dict[str, dict[str, float]] = {}
    held_out: dict[str, float] = {}
    for temperature, found in every.items():
        for name, value in found.items():
            of_completions = name.removesuffix(f"_{condition}")
            if of_completions != name and of_completions in OF_COMPLETIONS:
                figures.setdefault(temperature, {})[of_completions] = value
            elif name.startswith(HELD_OUT) and not name.endswith("_records"):
                held_out[name] = value
    return {"figures": figures, "held_out": held_out}


def _training(run: Path) -> dict[str, Any]:
    """Steps, epochs and tokens of a run of `coh fit`; of `coh trl` its steps and epochs."""
    data = run / "data.json"
    if (run / DONE).is_file():
        trained = json.loads((run / DONE).read_text(encoding="utf-8"))
        return {key: trained[key] for key in ("steps", "epochs") if key in trained}
    if not (data.is_file() and (run / CONFIG).is_file()):
        return {}
    found = json.loads(data.read_text(encoding="utf-8"))
    steps = int((run / FINISHED).read_text(encoding="utf-8").split()[0].replace(",", ""))
    train, epochs = found["splits"]["train"], steps / found["steps_per_epoch"]
    return {
        "steps": steps,
        "epochs": round(epochs, 2),
        "records": train["used"],
        "tokens": {"seen": round(epochs * train["tokens_tree"]), "learned": round(epochs * train["tokens_in_loss"])},
    }
