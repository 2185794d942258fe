"""A W&B sweep file, read and checked: each key is either honored or refused by name.

method: bayes                                             grid | random | bayes
metric: {name: val/nll, goal: minimize, target: 1.5}      target: the search ends when a trial reaches it
run_cap: 30
early_terminate: {type: hyperband, min_iter: 1, eta: 3}
parameters:
  data.method: {values: [conf/method/coh.yaml, conf/method/sft.yaml]}
  model.lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-3}
command: ['${env}', '${interpreter}', -m, '${program}', fit, '${args}']
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.runs.commands import option_words, read_settings

TEXTS = ("description", "entity", "name", "program", "project")
KEYS = (*TEXTS, "command", "early_terminate", "method", "metric", "parameters", "run_cap")
METRIC = ("name", "goal", "target")

RANGES = ("uniform", "int_uniform", "log_uniform", "log_uniform_values", "inv_log_uniform", "inv_log_uniform_values")
DISTRIBUTIONS = {"constant": ("value",), "categorical": ("values",), "q_uniform": ("min", "max", "q")}
DISTRIBUTIONS |= dict.fromkeys(RANGES, ("min", "max"))
"""The distributions that optuna and W&B share, and the keys that each needs."""

NOT_DRAWN = "beta log_normal normal q_beta q_log_normal q_log_uniform q_log_uniform_values q_normal".split()
NOT_DRAWN += ["categorical_w_probabilities"]
"""The other distributions of W&B; they are refused."""

PARAMETER = ("distribution", "value", "values", "min", "max", "q")
NOT_KEPT = {
    "probabilities": "all values are equally likely here; leave it out",
    "parameters": "nested parameters are written with dots here (data.method: {values: ...})",
    **dict.fromkeys(("mu", "sigma"), "normal distributions are not supported; use min and max"),
    **dict.fromkeys(("a", "b"), "beta distributions are not supported; use min and max"),
}
"""Keys of a parameter that W&B has and this search refuses, and why."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, inclusive; `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file."""

    source: Mapping[str, Any]
    method: str
    metric: str
    goal: str
    target: float | None
    command: Sequence[str]
    program: str | None
    constants: dict[str, Any]
    choices: dict[str, Sequence[Any]]
    ranges: dict[str, Range]

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Of a grid; the last parameter changes fastest."""
        return [dict(zip(self.choices, values, strict=True)) for values in itertools.product(*self.choices.values())]

    def is_reached(self, value: float) -> bool:
        """Whether there is a target, and this value of the metric is as good."""
        return self.target is not None and (value <= self.target if self.goal == "minimize" else value >= self.target)


def read_sweep(file: Path) -> Sweep:
    """Reads a W&B sweep file; raises InputError, with the key, for anything that W&B or this search doesn't support."""
    source = read_settings(file, "sweep")
    if not isinstance(source, dict):
        raise InputError(f"{file} is not a sweep; it needs method, metric, parameters and command.")
    for key in source:
        if key not in KEYS:
            raise InputError(f"{file}: there is no key {key}{did_you_mean(str(key), KEYS)}")
    for key in ("method", "metric", "parameters", "command"):
        if not source.get(key):
            raise InputError(f"{file} has no {key}; a sweep needs method, metric, parameters and command.")
    for key in TEXTS:
        if not isinstance(source.get(key, ""), (str, type(None))):
            raise InputError(f"{file}: {key} is {source[key]!r}; it must be text.")
    if source["method"] not in ("grid", "random", "bayes"):
        raise InputError(f"{file}: method is '{source['method']}'; it must be grid, random or bayes.")
    cap = source.get("run_cap")
    if cap is not None and not _is_whole(cap, least=1):
        raise InputError(f"{file}: run_cap is {cap!r}; it must be an integer above 0.")
    metric = _metric(source["metric"], file)
    _check_early(source.get("early_terminate"), file)
    command = source["command"]
    if not isinstance(command, list) or not all(isinstance(word, (str, int, float)) for word in command):
        raise InputError(f"{file}: command is {command!r:.80}; it must be a list of words.")
    if not isinstance(source["parameters"], dict):
        raise InputError(f"{file}: parameters is {source['parameters']!r:.80}; it must be key: {{values: [...]}}, ...")
    constants: dict[str, Any] = {}
    choices: dict[str, Sequence[Any]] = {}
    ranges: dict[str, Range] = {}
    for name, about in source["parameters"].items():
        where = f"{file}: parameters.{name}"
        kind = _distribution(about, where)
        if kind == "constant":
            constants[name] = _checked_values([about["value"]], where)[0]
        elif kind == "categorical":
            choices[name] = _checked_values(about["values"], where)
        elif source["method"] == "grid":
            raise InputError(f"{where} is a range, but a grid needs values; list them, or use random or bayes.")
        else:
            ranges[name] = _range(kind, about, where)
    sweep = Sweep(
        source=source,
        method=source["method"],
        metric=metric["name"],
        goal=metric["goal"],
        target=metric.get("target"),
        command=[str(word) for word in command],
        program=source.get("program"),
        constants=constants,
        choices=choices,
        ranges=ranges,
    )
    if "${program}" in sweep.command and sweep.program is None:
        raise InputError(f"{file}: command has ${{program}}, but there is no program; write program: coh_lightning.")
    if "fit" not in sweep.command or "coh_lightning" not in command_words(sweep, {}):
        raise InputError(f"{file}: command is not `python -m coh_lightning fit`, so trials would have no metrics.csv.")
    return sweep


def command_words(sweep: Sweep, settings: Mapping[str, Any], *, interpreter: str = "python") -> list[str]:
    """The command of one trial, as a W&B agent would fill it in (except for null, which W&B writes as None).

    [${env}, ${interpreter}, -m, ${program}, fit, ${args}] and {model.lr: 0.1}
        ->   /usr/bin/env python -m coh_lightning fit --model.lr=0.1
    """
    filled = {
        "env": ["/usr/bin/env"],
        "interpreter": [interpreter],
        "program": [str(sweep.program)],
        "args": option_words(settings),
    }
    words: list[str] = []
    for word in sweep.command:
        name = word[2:-1] if re.fullmatch(r"\$\{.*\}", word) else None
        if name is not None and name not in filled:
            known = ", ".join(f"${{{key}}}" for key in filled)
            raise InputError(f"the sweep's command has {word}; it may have {known}.")
        words += filled[name] if name is not None else [interpreter if word == "python" else word]
    return words


def _metric(metric: Any, file: Path) -> Mapping[str, Any]:
    if isinstance(metric, dict) and (unknown := [key for key in metric if key not in METRIC]):
        raise InputError(f"{file}: there is no key metric.{unknown[0]}{did_you_mean(str(unknown[0]), METRIC)}")
    named = isinstance(metric, dict) and isinstance(metric.get("name"), str)
    if not named or metric.get("goal") not in ("minimize", "maximize"):
        raise InputError(f"{file}: metric is {metric}; it needs a name, and a goal (minimize or maximize).")
    if metric.get("target") is not None and not _is_number(metric["target"]):
        raise InputError(f"{file}: metric.target is {metric['target']!r}; it must be a number.")
    return metric


def _check_early(early: Any, file: Path) -> None:
    if early is None:
        return
    if not isinstance(early, dict) or early.get("type") != "hyperband" or early.keys() - {"type", "min_iter", "eta"}:
        raise InputError(f"{file}: early_terminate is {early}; it may be type: hyperband, with min_iter and eta.")
    for key, least in (("min_iter", 1), ("eta", 2)):
        if key in early and not _is_whole(early[key], least=least):
            raise InputError(f"{file}: early_terminate.{key} is {early[key]!r}; it must be an integer >= {least}.")


def _distribution(about: Any, where: str) -> str:
    """The distribution of a parameter: its name or, as in W&B, what its keys imply."""
    if not isinstance(about, dict):
        raise InputError(f"{where} is {about!r}; it needs value, values, or min and max.")
    for key in about:
        if key in NOT_KEPT:
            raise InputError(f"{where}.{key}: {NOT_KEPT[key]}.")
        if key not in PARAMETER:
            raise InputError(f"{where}: there is no key {key}{did_you_mean(str(key), PARAMETER)}")
    kind = about.get("distribution")
    if kind is None:
        implied = {"value": "constant", "values": "categorical"}
        whole = _is_whole(about.get("min")) and _is_whole(about.get("max"))
        kind = next((implied[key] for key in implied if key in about), "int_uniform" if whole else "uniform")
    if kind not in DISTRIBUTIONS:
        known = " (which only W&B has)" if kind in NOT_DRAWN else ""
        raise InputError(f"{where}.distribution is '{kind}'{known}; it must be one of {', '.join(DISTRIBUTIONS)}.")
    needed = DISTRIBUTIONS[kind]
    if missing := [key for key in needed if key not in about]:
        raise InputError(f"{where} has no {missing[0]}; {kind} needs {' and '.join(needed)}.")
    if more := [key for key in about if key not in ("distribution", *needed)]:
        raise InputError(f"{where}.{more[0]}: {kind} takes only {' and '.join(needed)}.")
    return str(kind)


def _checked_values(values: Any, where: str) -> Sequence[Any]:
    if not isinstance(values, list) or not values:
        example = values if values and not isinstance(values, dict) else "a, b"
        raise InputError(f"{where}.values is {values!r:.80}; it must be a list, as in [{example}].")
    if wrong := [value for value in values if not isinstance(value, (str, int, float, bool, type(None)))]:
        text = yaml.dump(wrong[0], default_flow_style=True, sort_keys=False, width=math.inf).strip().replace("'", "''")
        raise InputError(f"{where} has the value {wrong[0]!r}; quote a list or a mapping: '{text}'.")
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise InputError(f"{where} has the value {twice[0]!r} twice (1, 1.0 and true are equal); remove one.")
    return values


def _range(kind: str, about: Mapping[str, Any], where: str) -> Range:
    low, high = about["min"], about["max"]
    for key, value in (("min", low), ("max", high), *([("q", about["q"])] if "q" in about else [])):
        if not _is_number(value):
            text = " (remove the quotes)" if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value) else ""
            raise InputError(f"{where}.{key} is {value!r}; it must be a number{text}.")
    positive = kind in ("log_uniform_values", "inv_log_uniform_values")
    if low >= high or (positive and low <= 0):
        more = " and above 0" if positive else ""
        raise InputError(f"{where} is from {low} to {high}; min must be below max{more}.")
    if kind == "int_uniform":
        if not (_is_whole(low) and _is_whole(high)):
            raise InputError(f"{where} is from {low} to {high}; int_uniform needs integers.")
        return Range(low, high, whole=True)
    if kind == "q_uniform":
        q = about["q"]
        if q <= 0 or any(abs(value / q - round(value / q)) > 1e-9 for value in (low, high)):
            raise InputError(f"{where} is from {low} to {high}, q {q}; q must be above 0 and divide min and max.")
        return Range(low, high, step=q)
    if kind in ("log_uniform", "inv_log_uniform"):  # min and max are exponents
        sign = -1 if kind == "inv_log_uniform" else 1
        try:
            low, high = sorted((math.exp(sign * low), math.exp(sign * high)))
        except OverflowError:
            low, high = 0.0, math.inf
        if low == 0 or math.isinf(high):
            ends = f"from e^{about['min']} to e^{about['max']}"
            raise InputError(f"{where} is {ends}; {kind} takes exponents, {kind}_values the numbers themselves.")
        return Range(low, high, log=True)
    return Range(low, high, log=positive)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, *, least: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
