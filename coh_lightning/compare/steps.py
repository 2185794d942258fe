"""The commands that make a row, each with its folder, log and mark of success.

    runs/compare/claims/
      worlds/habits-base1-1a2b.../   model/, feedback.jsonl, tune.jsonl, test.jsonl of one world, base model and seed
      fits/habits-coh-.../           an ordinary run folder of `coh fit`
      tests/habits-coh-...-t0.7/     of `coh test`: completions.jsonl has the score of each prompt
      logs/*.log   steps/*.json      the output of each command; its words and seconds, written when it has succeeded

A finished step is never run again; a fit that was killed resumes from its newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.compare.rows import Row, fit_key, fit_settings, reward_row, row_key, world_key
from coh_lightning.compare.study import Study, World
from coh_lightning.errors import InputError
from coh_lightning.runs.commands import option_words
from coh_lightning.runs.run_folder import CHECKPOINTS, CONFIG, LAST

BUILD = "coh_lightning.world.build"
"""The module that makes the folder of a world: model/, feedback.jsonl, tune.jsonl, test.jsonl, pretraining.txt."""
START = "$ coh "
"""The beginning of a command's first line in its log."""
FLAGS = ("kind", "hasty", "documents", "records", "wrong_words")
SFT = "conf/method/sft.yaml"
"""How a model of another command than `fit` is prompted: without a feedback sentence."""
OF_BASE = ("kind", "hasty", "documents")
"""The settings of a world that its base model depends on."""


@dataclass(frozen=True)
class Step:
    """A command. `words` are those behind `coh`, or `-m MODULE ...`."""

    name: str
    kind: str
    """base, world, fit or test."""
    words: Sequence[str]
    work: float
    """Core-seconds expected."""


def earlier(mark: Path) -> Path:
    """Beside the mark of a step: the core-seconds of each of its processes that stopped or failed, a line each."""
    return mark.with_suffix(".earlier")


@dataclass(frozen=True)
class Places:
    """The folders of a study."""

    folder: Path

    def log(self, step: str) -> Path:
        return self.folder / "logs" / f"{step}.log"

    def mark(self, step: str) -> Path:
        return self.folder / "steps" / f"{step}.json"

    def is_done(self, step: str) -> bool:
        return self.mark(step).is_file()

    def seconds(self, step: str) -> float:
        """Core-seconds that a finished step took, in its last process."""
        return float(json.loads(self.mark(step).read_text(encoding="utf-8"))["cpu_seconds"])

    def all_seconds(self, step: str) -> float | None:
        """Core-seconds that a finished step took in all of its processes; None: one was killed before it could say."""
        file = earlier(self.mark(step))
        before = [float(line) for line in file.read_text().split()] if file.is_file() else []
        return sum(before) + self.seconds(step) if len(before) == self.starts(step) - 1 else None

    def starts(self, step: str) -> int:
        """How often a step was started; each start is a line in its log."""
        log = self.log(step).read_text(encoding="utf-8", errors="replace")
        return sum(line.startswith(START) for line in log.split("\n"))

    def world(self, name: str) -> Path:
        return self.folder / "worlds" / name

    def fit(self, name: str) -> Path:
        return self.folder / "fits" / name

    def test(self, name: str) -> Path:
        return self.folder / "tests" / name


def steps_of(study: Study, row: Row, composed: Mapping[str, Any], folder: Path) -> list[Step]:
    """The commands of a row, in order. `composed`: the configuration of its fit (see `composed_configs`)."""
    places = Places(folder)
    made, given = _world(study, row.world, row.base, row.seed, places)
    fits = [row] if row.method.command else []
    if row.method.reward:
        fits.insert(0, reward_row(study, row))
    for one in fits:
        name = fit_name(study, one, composed)
        words = _fit_words(study, one, composed, given, places)
        made.append(Step(name, "fit", words, _fit_work(study, composed)))
    for temperature in row.evaluation.temperatures:
        name = evaluation_name(study, row, composed, temperature)
        run = places.fit(fit_name(study, row, composed))
        words = _test_words(study, row, given, run, places.test(name), temperature)
        how = row.evaluation
        work = study.cost.start + how.prompts * how.samples * study.cost.prompt
        made.append(Step(name, "test", words, work))
    return made


def fit_name(study: Study, row: Row, composed: Mapping[str, Any]) -> str:
    return f"{row.world.name}-{row.method.fit}-base{row.base}-seed{row.seed}-{fit_key(study, row, composed)}"


def evaluation_name(study: Study, row: Row, composed: Mapping[str, Any], temperature: float) -> str:
    key = row_key(study, row, composed)
    return f"{row.world.name}-{row.method.name}-base{row.base}-seed{row.seed}-{key}-t{temperature:g}"


def _world(study: Study, world: World, base: int, seed: int, places: Places) -> tuple[list[Step], dict[str, Any]]:
    """The steps that make a world's folder, and the settings of `coh` that use it."""
    settings = world.settings
    if not world.is_built:
        if base:
            raise InputError(f"{study.where('worlds', world.name)}: a given world has one base model; leave out bases.")
        given: dict[str, Any] = {"model.name_or_path": settings["model"], "data.feedback": settings["feedback"]}
        if "pretraining_text" in settings:
            given["data.pretraining_text"] = [settings["pretraining_text"]]
        return [], given | {name: settings[name] for name in ("test", "tune") if name in settings}
    steps = []
    model = "shipped"
    if base or not settings.get("shipped"):
        of_base = World(world.name, {key: settings[key] for key in OF_BASE if key in settings})
        name = f"base{base}-{settings['kind']}-{world_key(of_base, base, 0)}"
        flags = [*_flags(of_base.settings), "--seed", str(base), "--records", "1"]
        words = ["-m", BUILD, str(places.world(name)), *flags]
        steps.append(Step(name, "base", words, study.cost.base))
        model = str(places.world(name) / "model")
    name = f"{world.name}-base{base}-seed{seed}-{world_key(world, base, seed)}"
    folder = places.world(name)
    flags = _flags({key: value for key, value in settings.items() if key != "documents"})
    words = ["-m", BUILD, str(folder), *flags, "--seed", str(seed), "--base", model]
    steps.append(Step(name, "world", words, study.cost.world))
    use = {"model.name_or_path": str(folder / "model"), "data.feedback": str(folder / "feedback.jsonl")}
    use["data.pretraining_text"] = [str(folder / "pretraining.txt")]  # type: ignore[assignment]
    return steps, use | {name: str(folder / f"{name}.jsonl") for name in ("test", "tune")}


def _flags(settings: Mapping[str, Any]) -> list[str]:
    named = [(f"--{key.replace('_', '-')}", str(settings[key])) for key in FLAGS if key in settings]
    return [word for pair in named for word in pair]


def _fit_words(
    study: Study, row: Row, composed: Mapping[str, Any], given: Mapping[str, Any], places: Places
) -> list[str]:
    use = {key: value for key, value in given.items() if "." in key}
    settings, folder = fit_settings(study, row), places.fit(fit_name(study, row, composed))
    if row.method.command == ("fit",):
        kept = {"run.folder": str(folder), "run.name": row.method.fit, "trainer.enable_progress_bar": "false"}
        return ["fit", "--config", study.config, *option_words({**settings, **use, **kept})]
    ours = {key: value for key, value in study.settings.items() if key.startswith("data.")}
    ours |= {"data.method": SFT, "data.seed": row.seed}
    if row.method.reward:
        settings["reward"] = str(places.fit(fit_name(study, reward_row(study, row), composed)))
    words = option_words({**ours, **use, **settings, "seed": row.seed, "output": str(folder)})
    return [*row.method.command, "--config", study.config, *words]


def _test_words(
    study: Study, row: Row, given: Mapping[str, Any], run: Path, folder: Path, temperature: float
) -> list[str]:
    how, kind = row.evaluation, "tune" if row.tuning else "test"
    use = {key: value for key, value in given.items() if "." in key}
    sampling = {"temperature": temperature, "samples": how.samples, "seed": row.seed}
    asked: dict[str, Any] = {f"model.generation.sampling.{key}": value for key, value in sampling.items()}
    asked |= {"data.max_test_prompts": how.prompts, "data.conditions": [how.condition]}
    if kind in given:
        source = {"class_path": "coh_lightning.feedback.sources.Records", "init_args": {"path": given[kind]}}
        asked["data.test_sources"] = [source]
    asked |= {**how.settings, "run.folder": str(folder), "trainer.enable_progress_bar": "false"}
    if row.method.command == ("fit",):
        checkpoint = run / CHECKPOINTS / LAST
        return ["test", "--config", str(run / CONFIG), "--ckpt_path", str(checkpoint), *option_words(asked)]
    settings = {**study.settings, **use}
    if row.method.command:
        settings["model.name_or_path"] = str(run)
        settings["data.method"] = SFT
    else:
        settings = {**study.settings, **row.method.settings, **use}
    return ["test", "--config", study.config, *option_words(settings | {"seed_everything": row.seed} | asked)]


def _fit_work(study: Study, composed: Mapping[str, Any]) -> float:
    steps = composed.get("trainer", {}).get("max_steps", -1)
    return study.cost.start + study.cost.step * (steps if steps and steps > 0 else 400)
