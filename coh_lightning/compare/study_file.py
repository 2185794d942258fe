"""A study file (conf/compare/), read and checked: every error names file, line and key.

config: conf/quickstart.yaml               the configuration under all methods
settings: {trainer.max_steps: 400}         over it, for all methods
worlds:                                    made by coh_lightning.world.build, or given: {model: ..., feedback: ...}
  habits: {kind: habits, hasty: 0.62, shipped: true}
seeds: [0, 1]                              of records, order and sampling
bases: [0]                                 base models; with `shipped`, base 0 is the one of the package
evaluation: {temperatures: [1, 0.7, 0], prompts: 200}
tune: {temperature: 1, prompts: 200}       rates are tuned with seed 0 and base 0: the highest mean score wins
methods:
  base: {command: none}                    not trained
  sft: {settings: {data.method: conf/method/sft.yaml}, rates: [0.001, 0.003]}
  coh: {settings: {data.method: conf/method/coh.yaml}, rates: [0.003]}
  coh_fcm: {settings: {data.fcm_range: [0, 0.05]}, rates: coh}       the rate of that method
  coh_bad: {fit: coh, evaluation: {condition: bad}}     another evaluation of the same fit
  dpo: {command: trl dpo, settings: {steps: 400}, rates: [3.0e-5]}
  reward: {command: trl reward}            in no group: it is only trained, for the next one
  rlhf: {command: trl rloo, reward: reward}
groups:                                    in this order; left out: one group of everything
  - {name: primary, methods: [base, sft, coh, coh_bad]}
baseline: sft
primary: [{compare: [coh, sft], world: habits, temperature: 0.7}]
claims: [{claim: CoH beats SFT, paper: 27.45 to 24.87, compare: [coh, sft], world: habits, temperature: 1}]
axes: [{name: share of hasty writers, setting: hasty, worlds: [...], methods: [...], temperature: 0.7}]
cost: {start: 6, step: 0.12, prompt: 0.03, base: 300, world: 60}      core-seconds, for the estimate
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from coh_lightning.compare.study import (
    BUILT,
    GIVEN,
    Axis,
    Comparison,
    Cost,
    Evaluation,
    Group,
    Method,
    Study,
    Tune,
    World,
)
from coh_lightning.errors import listed, shown
from coh_lightning.runs.commands import read_settings
from coh_lightning.runs.settings_reader import SettingsReader

COMMANDS = ("fit", "none", *(f"trl {trainer}" for trainer in ("dpo", "kto", "reward", "rloo")))


def read_study(file: Path) -> Study:
    """Reads and checks a study file. Raises InputError for the first thing that is wrong with it."""
    return _Reader(file, read_settings(file, "study")).study()


class _Reader(SettingsReader):
    def study(self) -> Study:
        top = ("about", "config", "settings", "worlds", "methods", "groups", "seeds", "bases", "evaluation", "tune")
        source = self.mapping(self.source, (), (*top, "baseline", "primary", "claims", "axes", "cost"))
        for key in ("config", "worlds", "methods", "baseline"):
            if key not in source:
                self.refuse((), f"a study needs {key}")
        worlds = {name: self.world(name, one) for name, one in self.named(source, "worlds").items()}
        evaluation = self.evaluation(source.get("evaluation", {}), ("evaluation",), Evaluation())
        methods: dict[str, Method] = {}
        for name, one in self.named(source, "methods").items():
            methods[name] = self.method(name, one, methods, evaluation)
        everything = {
            "methods": list(methods),
            "worlds": list(worlds),
            "seeds": source.get("seeds", [0]),
            "bases": source.get("bases", [0]),
        }
        groups = [
            self.group(one, ("groups", place), everything, worlds, methods)
            for place, one in enumerate(self.list(source.get("groups", [{"name": "all"}]), ("groups",)))
        ]
        if source["baseline"] not in methods:
            self.unknown(("baseline",), source["baseline"], methods, "method")
        study = Study(
            name=self.file.stem,
            file=self.file,
            config=str(source["config"]),
            settings=self.dotted(source.get("settings", {}), ("settings",)),
            worlds=worlds,
            methods=methods,
            groups=tuple(groups),
            evaluation=evaluation,
            tune=self.tune(source.get("tune", {}), worlds),
            baseline=source["baseline"],
            primary=self.comparisons(source, "primary", worlds, methods),
            claims=self.comparisons(source, "claims", worlds, methods),
            axes=self.axes(source, worlds, methods),
            cost=Cost(**self.numbers(source.get("cost", {}), ("cost",), Cost)),
            about=str(source.get("about", "")),
            lines=self.lines,
        )
        self.check_tuning(study)
        return study

    # --- the parts

    def world(self, name: str, value: Any) -> World:
        path = ("worlds", name)
        settings = self.mapping(value, path, (*BUILT, *GIVEN))
        built, given = ([key for key in settings if key in keys] for keys in (BUILT, GIVEN))
        if built and given:
            self.refuse((*path, given[0]), f"{given[0]} is of a given world and {built[0]} of one that is built")
        needed = ("kind",) if built or not given else ("model", "feedback")
        for key in needed:
            if key not in settings:
                self.refuse(path, f"it needs {listed(needed)}")
        if "kind" in settings and settings["kind"] not in ("habits", "noise"):
            self.refuse((*path, "kind"), f"kind is {shown(settings['kind'])}; it is habits or noise")
        for key in ("hasty", "wrong_words"):
            share = settings.get(key, 0)
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
                self.refuse((*path, key), f"{key} is {shown(share)}; it is a share from 0 to 1")
        for key in ("documents", "records"):
            if key in settings:
                self.whole(settings[key], (*path, key), least=1)
        for key in ("test", "tune", "feedback", "model"):
            text = settings.get(key)
            if isinstance(text, str) and ("/" in text or "." in text) and not Path(text).exists():
                self.refuse((*path, key), f"there is no {text}")
        return World(name, settings)

    def evaluation(self, value: Any, path: tuple[Any, ...], before: Evaluation) -> Evaluation:
        given = dict(self.mapping(value, path, [one.name for one in fields(Evaluation)]))
        if "temperatures" in given:
            numbers = self.list(given["temperatures"], (*path, "temperatures"), some=True)
            given["temperatures"] = tuple(self.number(one, (*path, "temperatures")) for one in numbers)
        for key in ("prompts", "samples"):
            if key in given:
                self.whole(given[key], (*path, key), least=1)
        if "settings" in given:
            given["settings"] = {**before.settings, **self.dotted(given["settings"], (*path, "settings"))}
        return replace(before, **given)

    def method(self, name: str, value: Any, before: Mapping[str, Method], evaluation: Evaluation) -> Method:
        path = ("methods", name)
        keys = ("command", "settings", "rates", "rate", "reward", "fit", "evaluation", "label")
        given = self.mapping(value, path, keys)
        how = self.evaluation(given.get("evaluation", {}), (*path, "evaluation"), evaluation)
        label = str(given.get("label", name.replace("_", " ")))
        if "fit" in given:
            if more := [key for key in ("command", "settings", "rates", "rate", "reward") if key in given]:
                self.refuse((*path, more[0]), f"it reuses the fit of {given['fit']}, so it has no {more[0]} of its own")
            if given["fit"] not in before:
                self.unknown((*path, "fit"), given["fit"], before, "earlier method")
            return replace(before[given["fit"]], name=name, evaluation=how, label=label)
        command = given.get("command", "fit")
        if command not in COMMANDS:
            self.unknown((*path, "command"), command, COMMANDS, "command")
        words = () if command == "none" else tuple(str(command).split())
        asked, tuned_as = given.get("rates", []), name
        if isinstance(asked, str):
            if asked not in before:
                self.unknown((*path, "rates"), asked, before, "earlier method")
            rates, tuned_as = before[asked].rates, before[asked].tuned_as
        else:
            rates = tuple(self.number(one, (*path, "rates")) for one in self.list(asked, (*path, "rates")))
        if rates and not words:
            self.refuse((*path, "rates"), "the base model is not trained, so it has no rates")
        settings = self.dotted(given.get("settings", {}), (*path, "settings"))
        rate = str(given.get("rate", "lr" if words[:1] == ("trl",) else "model.lr"))
        if given.get("reward") is not None and given["reward"] not in before:
            self.unknown((*path, "reward"), given["reward"], before, "earlier method")
        return Method(name, words, settings, rates, tuned_as, rate, name, how, label, given.get("reward"))

    def group(
        self,
        value: Any,
        path: tuple[Any, ...],
        everything: Mapping[str, Any],
        worlds: Mapping[str, World],
        methods: Mapping[str, Method],
    ) -> Group:
        own = self.mapping(value, path, ("name", "methods", "worlds", "seeds", "bases"))
        given = {**everything, **own}
        places = {key: (*path, key) if key in own else (key,) for key in everything}
        if "name" not in given:
            self.refuse(path, "a group needs a name")
        lists = {key: self.list(given[key], places[key], some=True) for key in everything}
        for key, known, noun in (("methods", methods, "method"), ("worlds", worlds, "world")):
            for place, one in enumerate(lists[key]):
                if one not in known:
                    self.unknown((*places[key], place), one, known, noun)
        for key in ("seeds", "bases"):
            for one in lists[key]:
                self.whole(one, places[key], least=0)
        for key, values in lists.items():
            if twice := [one for place, one in enumerate(values) if one in values[:place]]:
                self.refuse(places[key], f"{key} has {twice[0]} twice")
        return Group(str(given["name"]), **{key: tuple(values) for key, values in lists.items()})

    def tune(self, value: Any, worlds: Mapping[str, World]) -> Tune:
        given = self.mapping(value, ("tune",), [one.name for one in fields(Tune)])
        if given.get("world") is not None and given["world"] not in worlds:
            self.unknown(("tune", "world"), given["world"], worlds, "world")
        if "temperature" in given:
            self.number(given["temperature"], ("tune", "temperature"))
        if "prompts" in given:
            self.whole(given["prompts"], ("tune", "prompts"), least=1)
        return Tune(**given)

    def comparisons(
        self, source: Mapping[str, Any], key: str, worlds: Mapping[str, World], methods: Mapping[str, Method]
    ) -> tuple[Comparison, ...]:
        made = []
        for place, value in enumerate(self.list(source.get(key, []), (key,))):
            path = (key, place)
            given = dict(self.mapping(value, path, [one.name for one in fields(Comparison)]))
            for needed in ("compare", "world", "temperature"):
                if needed not in given:
                    self.refuse(path, f"it needs compare, world and temperature; {needed} is missing")
            pair = self.list(given["compare"], (*path, "compare"))
            for one in pair:
                if one not in methods:
                    self.unknown((*path, "compare"), one, methods, "method")
            if len(pair) != 2:
                self.refuse((*path, "compare"), f"compare is {shown(pair)}; it names two methods")
            if given["world"] not in worlds:
                self.unknown((*path, "world"), given["world"], worlds, "world")
            for one in pair:
                self.at_temperature(given["temperature"], methods[one], (*path, "temperature"))
            made.append(Comparison(**{**given, "compare": tuple(pair)}))
        return tuple(made)

    def axes(
        self, source: Mapping[str, Any], worlds: Mapping[str, World], methods: Mapping[str, Method]
    ) -> tuple[Axis, ...]:
        made = []
        for place, value in enumerate(self.list(source.get("axes", []), ("axes",))):
            path, names = ("axes", place), [one.name for one in fields(Axis)]
            given = dict(self.mapping(value, path, names))
            for needed in names:
                if needed not in given:
                    self.refuse(path, f"it needs {listed(names)}; {needed} is missing")
            for key, known in (("worlds", worlds), ("methods", methods)):
                for one in (values := self.list(given[key], (*path, key), some=True)):
                    if one not in known:
                        self.unknown((*path, key), one, known, key[:-1])
                given[key] = tuple(values)
            for one in given["worlds"]:
                if given["setting"] not in worlds[one].settings:
                    self.refuse((*path, "worlds"), f"the world {one} has no setting {given['setting']}")
            for one in given["methods"]:
                self.at_temperature(given["temperature"], methods[one], (*path, "temperature"))
            made.append(Axis(**given))
        return tuple(made)

    def check_tuning(self, study: Study) -> None:
        """Rates need prompts of their own."""
        for name, method in study.methods.items():
            used = {world for group in study.groups if name in group.methods for world in group.worlds}
            for world in {study.tune.world} if study.tune.world else used:
                settings = study.worlds[world].settings
                if len(method.rates) > 1 and "kind" not in settings and "tune" not in settings:
                    path = ("methods", name, "rates")
                    self.refuse(path, f"rates are tuned on prompts of their own, and the world {world} has no tune")

    # --- values

    def at_temperature(self, value: Any, method: Method, path: Sequence[Any]) -> None:
        known = method.evaluation.temperatures
        if self.number(value, path) not in known:
            have = listed([f"{one:g}" for one in known])
            self.refuse(path, f"{method.name} is not evaluated at {value:g}, but at {have}")
