"""A study: methods, worlds, seeds, base models, evaluations, comparisons. `study_file` reads and checks one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUILT = ("kind", "hasty", "documents", "records", "wrong_words", "shipped")
GIVEN = ("model", "feedback", "test", "tune", "pretraining_text")


@dataclass(frozen=True)
class World:
    """Where records, prompts and base models come from; `settings` as in the file."""

    name: str
    settings: Mapping[str, Any]

    @property
    def is_built(self) -> bool:
        return "kind" in self.settings


@dataclass(frozen=True)
class Evaluation:
    """How a fit is evaluated. One condition: another one is another method with the same `fit`."""

    temperatures: tuple[float, ...] = (1.0, 0.7, 0.0)
    prompts: int = 200
    samples: int = 1
    condition: str = "good"
    score: str = "overall"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of `coh test`, such as model.generation.sampling.top_p."""


@dataclass(frozen=True)
class Method:
    name: str
    command: tuple[str, ...]
    """("fit",), the words of another command that makes a model, or () for the untrained base model."""
    settings: Mapping[str, Any]
    """Of `coh fit` and `coh test`; with another command only of that one."""
    rates: tuple[float, ...]
    """Learning rates to tune over. None: the one of the configuration; one: fixed."""
    tuned_as: str
    """The method whose fits choose the rate: its own name, or that of the method it is a variant of."""
    rate: str
    """The key of the learning rate."""
    fit: str
    """The method whose fit is evaluated: its own name, unless it reuses another's."""
    evaluation: Evaluation
    label: str
    reward: str | None = None
    """The method that makes the reward model which this one maximizes."""


@dataclass(frozen=True)
class Group:
    name: str
    methods: tuple[str, ...]
    worlds: tuple[str, ...]
    seeds: tuple[int, ...]
    bases: tuple[int, ...]


@dataclass(frozen=True)
class Tune:
    """Rates are compared at seed 0 and base 0 by the mean score at one temperature on prompts of their own."""

    temperature: float = 1.0
    prompts: int = 200
    world: str | None = None
    """The world in which all rates are tuned; None: each world for itself."""


@dataclass(frozen=True)
class Comparison:
    """a minus b in one world at one temperature; `claim` and `paper` for the list of claims."""

    compare: tuple[str, str]
    world: str
    temperature: float
    figure: str | None = None
    """A figure of `coh test` instead of the score: one value a run, such as preference_accuracy_sum."""
    claim: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Axis:
    """A picture: the score of some methods against a setting of the worlds."""

    name: str
    setting: str
    worlds: tuple[str, ...]
    methods: tuple[str, ...]
    temperature: float


@dataclass(frozen=True)
class Cost:
    """Core-seconds, for the estimate before anything has run."""

    start: float = 6.0
    """Of a command, beyond its work."""
    step: float = 0.12
    prompt: float = 0.03
    """Of a prompt at one temperature."""
    world: float = 60.0
    """Records of one seed."""
    base: float = 300.0
    """A base model that is not shipped."""


@dataclass(frozen=True)
class Study:
    name: str
    file: Path
    config: str
    settings: Mapping[str, Any]
    worlds: Mapping[str, World]
    methods: Mapping[str, Method]
    groups: tuple[Group, ...]
    evaluation: Evaluation
    tune: Tune
    baseline: str
    primary: tuple[Comparison, ...]
    claims: tuple[Comparison, ...]
    axes: tuple[Axis, ...]
    cost: Cost
    about: str
    lines: Mapping[tuple[Any, ...], int]

    def where(self, *path: Any) -> str:
        """file:line of a key of the study file."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"
