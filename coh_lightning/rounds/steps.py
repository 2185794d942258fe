"""The commands of a round, each with its folder, log and mark of success (coh_lightning/compare/steps.py).

runs/rounds/NAME/
  settings.json          the keys of the rounds file that may not change any more
  test.jsonl             the test prompts
      unused.jsonl           one record, since `predict` and `test` of the base model want training feedback, too
  seed0/
    base/test/           the base model on them
    round1/prompts.jsonl what this round writes for
           write/        a run of `predict`: completions.jsonl
           study/        with people as raters: sheets, and returned/ for what they send back
           new.jsonl     what was said of these completions, as feedback
           feedback.jsonl   what the fit learns from: new.jsonl and the share of earlier rounds
           fit/          an ordinary run folder
           test/         completions.jsonl: the newest model on the test prompts, under the good and the bad sentence
    offline/             the same for the budget that is spent at once: prompts, write, new, fit, test
  logs/*.log   steps/*.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.rounds.rounds_file import RoundsFile
from coh_lightning.runs.commands import option_words
from coh_lightning.runs.run_folder import CHECKPOINTS, CONFIG, LAST

UNTRAINED = {"name": "sft", "orders": ["p"], "sentences": "none"}
"""The method that the base model is prompted by: without a feedback sentence."""
BASE, OFFLINE = "base", "offline"
BAD = "bad"
UNUSED = "unused.jsonl"
RECORDS = "coh_lightning.feedback.sources.Records"


@dataclass(frozen=True)
class Stage:
    """The base model, a round, or the offline comparison, of one seed."""

    file: RoundsFile
    folder: Path
    """Of the whole command."""
    seed: int
    name: str
    by_sources: bool = False
    """Whether the configuration names its feedback by `data.sources`, not by `data.feedback`."""

    @property
    def path(self) -> Path:
        return self.folder / f"seed{self.seed}" / self.name

    @property
    def fit(self) -> Path:
        return self.path / "fit"

    @property
    def test(self) -> Path:
        return self.path / "test"

    @property
    def prompts(self) -> Path:
        return self.path / "prompts.jsonl"

    @property
    def completions(self) -> Path:
        return self.path / "write" / "completions.jsonl"

    @property
    def new(self) -> Path:
        return self.path / "new.jsonl"

    @property
    def feedback(self) -> Path:
        return self.path / "feedback.jsonl"

    @property
    def study(self) -> Path:
        return self.path / "study"

    @property
    def ability(self) -> Path:
        return self.path / "ability.json"

    @property
    def checkpoint(self) -> Path:
        return self.fit / CHECKPOINTS / LAST

    def step(self, kind: str) -> str:
        return f"seed{self.seed}-{self.name}-{kind}"


def round_name(number: int) -> str:
    return f"round{number}"


def offline_name(file: RoundsFile) -> str:
    """With the number of rounds, since more rounds are another budget."""
    return f"{OFFLINE}{file.rounds}"


def write_words(stage: Stage, writer: Stage | None) -> list[str]:
    """`predict` for the prompts of a stage, by the model of another one, or by the base model (None)."""
    file = stage.file
    words = _by(stage, writer)
    asked = _written(stage, stage.prompts, stage.path / "write", file.temperature)
    if writer is not None:
        asked["data.conditions"] = [file.condition]
    # `rate` alone says who rates
    asked |= {"model.generation.scorers": [], "model.generation.reward_model": None}
    return ["predict", *words, *option_words(asked)]


def test_words(stage: Stage, writer: Stage | None) -> list[str]:
    """`test` on the test prompts."""
    file = stage.file
    prompts = stage.folder / "test.jsonl"
    words = _by(stage, writer)
    asked = _written(stage, prompts, stage.test, file.test.temperature, samples=1)
    if writer is not None:
        asked["data.conditions"] = list(dict.fromkeys([file.condition, BAD]))
    return ["test", *words, *option_words(asked)]


test_words.__test__ = False  # type: ignore[attr-defined]


def rate_words(stage: Stage) -> list[str]:
    """`feedback` of raters in code."""
    rate = stage.file.rate or {}
    options = {
        "scorers": rate.get("scorers", []),
        "scores": rate.get("scores", []),
        "reward-model": _one(rate.get("reward_model")),
        "critic": _one(rate.get("critic")),
        "thumb": _one(rate.get("thumb")),
    }
    words = [word for name, values in options.items() if values for word in (f"--{name}", *map(str, values))]
    for name, (worst, best) in (rate.get("scale") or {}).items():
        words += ["--scale", f"{name}={worst},{best}"]
    return ["feedback", str(stage.completions), "--prompts", str(stage.prompts), *words, "--output", str(stage.new)]


def fit_words(stage: Stage, *, steps: int, begin: Path | None) -> list[str]:
    """`fit` on a stage's feedback. `begin`: a checkpoint to begin from; None: the base model."""
    file = stage.file
    settings: dict[str, Any] = {
        **file.settings,
        **_feedback(stage, stage.feedback),
        "data.validation_share": 0,
        "data.test_share": 0,
        "trainer.max_steps": steps,
        "trainer.max_epochs": -1,
        "trainer.enable_progress_bar": "false",
        "seed_everything": stage.seed,
        "data.seed": stage.seed,
        "run.folder": str(stage.fit),
        "run.name": stage.name,
    }
    if begin is not None:
        settings["model.name_or_path"] = str(begin)
    return ["fit", "--config", file.config, *option_words(settings)]


def ability_words(stage: Stage, model: str) -> list[str]:
    words = ["--model", model, "--of", str(stage.file.ability), "--output", str(stage.ability)]
    return ["-m", "coh_lightning.rounds.ability", *words]


def _by(stage: Stage, writer: Stage | None) -> list[str]:
    if writer is not None:
        return ["--config", str(writer.fit / CONFIG), "--ckpt_path", str(writer.checkpoint)]
    use = {**stage.file.settings, "data.method": UNTRAINED, **_feedback(stage, stage.folder / UNUSED)}
    use |= {"seed_everything": stage.seed, "data.seed": stage.seed}
    return ["--config", stage.file.config, *option_words(use)]


def _written(
    stage: Stage, prompts: Path, folder: Path, temperature: float, samples: int | None = None
) -> dict[str, Any]:
    file = stage.file
    sampling = {"temperature": temperature, "samples": samples or file.samples, "seed": stage.seed}
    asked: dict[str, Any] = {f"model.generation.sampling.{key}": value for key, value in sampling.items()}
    return asked | {
        "data.test_sources": _records(prompts),
        "data.max_test_prompts": None,
        "run.folder": str(folder),
        "run.name": stage.name,
        "trainer.enable_progress_bar": "false",
    }


def _feedback(stage: Stage, path: Path) -> Mapping[str, Any]:
    return {"data.sources": _records(path)} if stage.by_sources else {"data.feedback": str(path)}


def _records(path: Path) -> list[dict[str, Any]]:
    return [{"class_path": RECORDS, "init_args": {"path": str(path)}}]


def _one(value: object) -> Sequence[object]:
    return [] if value is None else [value]
