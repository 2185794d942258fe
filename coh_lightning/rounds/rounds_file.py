"""A rounds file (conf/rounds/), read and checked: every error names file, line and key.

config: conf/quickstart.yaml         the configuration of each round's fit
settings: {model.lr: 0.001}          over it
prompts: prompts.jsonl               what the models write for: records, or lines with a prompt alone; or `world`
test: {prompts: test.jsonl, count: 200, temperature: 0.7}     unseen prompts, the same after each round
rounds: 3
prompts_per_round: 200               other prompts in each round
samples: 4                           answers to each prompt
temperature: 1.0                     at which they are written
condition: good                      the sentence under which the newest model writes; the base model has none
steps: 150                           optimizer steps of each round
start: newest                        where each fit begins: the newest model, or `base`
older: 1.0                           the share of earlier rounds' feedback that a round learns from beside its own
feedback: first.jsonl                feedback that every round has too; left out: none
rate: {scorers: [mine:polite], critic: mine:says, thumb: polite=0.5, scale: {polite: [0, 1]}}      raters in code,
study: {raters: 3, attributes: [overall]}      or people: options of `human-eval export`; the command waits for sheets,
answered: 1.0                        until this share of the questions is answered
score: overall                       which score of the test completions is shown
ability: world                       what must not suffer: `world` (questions), or a text file (perplexity)
offline: true                        the same budget of answers and steps spent at once, on the base model's answers
seeds: [0]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from coh_lightning.errors import InputError, shown
from coh_lightning.generation.scorers import load_critic, load_scorer
from coh_lightning.runs.commands import read_settings
from coh_lightning.runs.settings_reader import SettingsReader
from coh_lightning.worlds import TABLE

STARTS = ("newest", "base")
RATE = ("scorers", "reward_model", "critic", "thumb", "scale", "scores")
FREE = ("about", "answered", "rounds", "seeds", "offline", "score")
"""Keys that may change when a command is resumed: what is finished stays what it is."""
TAKEN = ("o", "output", "overwrite", "names", "ask", "against", "against_references", "control")
"""Options of `human-eval export` that a round sets, or that are about other comparisons."""


@dataclass(frozen=True)
class TestPrompts:
    """Unseen prompts, the same after each round."""

    __test__ = False  # pytest looks for classes of this name

    prompts: str
    """A file of records, or a world."""
    count: int = 200
    temperature: float = 0.7


@dataclass(frozen=True)
class RoundsFile:
    """What `coh rounds` does; the keys of the file."""

    name: str
    config: str
    prompts: str
    test: TestPrompts
    steps: int
    about: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 3
    prompts_per_round: int = 200
    samples: int = 4
    temperature: float = 1.0
    condition: str = "good"
    start: Literal["newest", "base"] = "newest"
    older: float = 1.0
    feedback: str | None = None
    rate: Mapping[str, Any] | None = None
    study: Mapping[str, Any] | None = None
    answered: float = 1.0
    score: str | None = "overall"
    ability: str | None = None
    offline: bool = True
    seeds: tuple[int, ...] = (0,)

    def fixed(self) -> dict[str, Any]:
        """The keys that may not change once a round has begun."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in (*FREE, "name")}


def read_rounds(file: Path) -> RoundsFile:
    """Reads and checks a rounds file. Raises InputError for the first thing that is wrong with it."""
    return _Reader(file, read_settings(file, "rounds")).rounds()


class _Reader(SettingsReader):
    def rounds(self) -> RoundsFile:
        given = dict(self.mapping(self.source, (), [one.name for one in fields(RoundsFile) if one.name != "name"]))
        for key in ("config", "prompts", "test", "steps"):
            if key not in given:
                self.refuse((), f"a rounds file needs {key}")
        self.existing(given["config"], ("config",))
        for key, least in (("rounds", 1), ("prompts_per_round", 1), ("samples", 2), ("steps", 1)):
            if key in given:
                self.whole(given[key], (key,), least=least)
        self.source_of(given["prompts"], ("prompts",))
        given["test"] = self.test(given["test"])
        given["settings"] = self.dotted(given.get("settings") or {}, ("settings",))
        for key in ("trainer.max_steps", "trainer.max_epochs"):
            if key in given["settings"]:
                self.refuse(("settings", key), "the number of steps is the key steps; leave it out here")
        if "temperature" in given:
            self.number(given["temperature"], ("temperature",))
        if given.get("start", "newest") not in STARTS:
            self.unknown(("start",), given["start"], STARTS, "start")
        for key in ("older", "answered"):
            if self.number(given.get(key, 1.0), (key,)) > 1:
                self.refuse((key,), f"{key} is {given[key]:g}; it is a share from 0 to 1")
        if given.get("feedback") is not None:
            self.existing(given["feedback"], ("feedback",))
        if not isinstance(given.get("offline", True), bool):
            self.refuse(("offline",), f"it is {shown(given['offline'])}; it is true or false")
        self.raters(given)
        if given.get("ability") is not None:
            self.source_of(given["ability"], ("ability",))
        seeds = self.list(given.get("seeds", [0]), ("seeds",), some=True)
        for place, one in enumerate(seeds):
            self.whole(one, ("seeds",), least=0)
            if one in seeds[:place]:
                self.refuse(("seeds",), f"seeds has {one} twice")
        return RoundsFile(**{**given, "name": self.file.stem, "seeds": tuple(seeds)})

    def test(self, value: Any) -> TestPrompts:
        given = self.mapping(value, ("test",), [one.name for one in fields(TestPrompts)])
        if "prompts" not in given:
            self.refuse(("test",), "it needs prompts: a file of records, or a world")
        self.source_of(given["prompts"], ("test", "prompts"))
        if "count" in given:
            self.whole(given["count"], ("test", "count"), least=2)
        if "temperature" in given:
            self.number(given["temperature"], ("test", "temperature"))
        return TestPrompts(**given)

    def raters(self, given: dict[str, Any]) -> None:
        """Either raters in code or people."""
        code, people = given.get("rate"), given.get("study")
        if (code is None) == (people is None):
            both = "rate (raters in code) and study (people)"
            self.refuse((), f"it has {'neither' if code is None else 'both'} of {both}; give one of them")
        if people is not None:
            given["study"] = self.study(people)
            if given.get("offline"):
                self.refuse(("offline",), "with people as raters there is no offline comparison; leave it out")
            if len(given.get("seeds", [0])) > 1:
                self.refuse(("seeds",), "with people as raters there is one seed; give others a file of their own")
            given["offline"] = False
            return
        if "answered" in given:
            self.refuse(("answered",), "it is about people's sheets, and the raters are in code; leave it out")
        given["rate"] = dict(self.mapping(code, ("rate",), RATE))
        if not set(given["rate"]) & {"scorers", "reward_model", "critic"}:
            self.refuse(("rate",), "it needs scorers, a reward_model or a critic")
        if "scorers" in given["rate"]:
            for place, one in enumerate(self.list(given["rate"]["scorers"], ("rate", "scorers"), some=True)):
                self.importable(load_scorer, one, ("rate", "scorers", place))
        if given["rate"].get("critic") is not None:
            self.importable(load_critic, given["rate"]["critic"], ("rate", "critic"))
        for name, ends in self.mapping(given["rate"].get("scale"), ("rate", "scale"), _keys(given["rate"])).items():
            if len(self.list(ends, ("rate", "scale", name))) != 2:
                self.refuse(("rate", "scale", name), f"it is {shown(ends)}; give two numbers, [worst, best]")

    def study(self, value: Any) -> dict[str, Any]:
        """Options of `human-eval export` but those that say what is compared, and where it goes."""
        from coh_lightning.human_eval.export_command import add_arguments

        parser = argparse.ArgumentParser(add_help=False)
        add_arguments(parser)
        known = [name.removeprefix("--").replace("-", "_") for name in parser._option_string_actions]
        given = self.mapping(value, ("study",), [name for name in known if name not in TAKEN])
        return dict(given)

    def importable(self, load: Callable[[str], object], name: Any, path: tuple[Any, ...]) -> None:
        try:
            load(str(name))
        except InputError as error:
            self.refuse(path, str(error).removesuffix("."))

    def source_of(self, value: Any, path: tuple[Any, ...]) -> None:
        """A file that is there, or a world."""
        if value not in TABLE:
            self.existing(value, path)

    def existing(self, value: Any, path: tuple[Any, ...]) -> None:
        if not isinstance(value, str) or not Path(value).is_file():
            self.refuse(path, f"there is no file {value}")


def _keys(rate: Mapping[str, Any]) -> list[str]:
    scale = rate.get("scale")
    return list(scale) if isinstance(scale, dict) else []
