"""Runs the rounds of a file: seeds side by side, in each its rounds one after the other, and the offline comparison.

    base:     test
    round 1:  write (base model) -> rate -> fit -> test
    round 2:  write (model of round 1) -> rate -> fit -> test      ...
    offline:  write (base model, the prompts of all rounds) -> rate -> fit, as many steps as all rounds -> test

A finished command is never run again, and a fit that was killed resumes. With people as raters, a round stops after
its answers are written, until enough of the sheets are in its folder study/returned/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coh_lightning.compare.processes import Commands, Failed, composed_configs, one_thread
from coh_lightning.compare.steps import Places
from coh_lightning.errors import InputError, listed
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.io import atomic_write
from coh_lightning.rounds import people
from coh_lightning.rounds.pool import mix, pool, test_prompts
from coh_lightning.rounds.rounds_file import RoundsFile
from coh_lightning.rounds.steps import (
    BASE,
    UNUSED,
    Stage,
    ability_words,
    fit_words,
    offline_name,
    rate_words,
    round_name,
    test_words,
    write_words,
)
from coh_lightning.runs.commands import sigterm_as_exit

SETTINGS = "settings.json"
LIKED = RatedCompletion("-", thumb=True)


class Execution:
    """All rounds of a file in one folder, `jobs` commands at a time."""

    def __init__(self, file: RoundsFile, folder: Path, *, jobs: int, console: Console) -> None:
        self.file, self.folder, self.jobs, self.console = file, folder, jobs, console
        self.places = Places(folder)
        self.commands = Commands()
        self.base_model, self.by_sources = "", False
        self.show: Callable[[str], None] = lambda _: None

    def run(self) -> list[people.Waiting]:
        """Runs to the end, or until people's sheets are missing, and returns what it waits for.

        Raises:
            InputError: the folder has rounds of other settings; a command failed, with the end of its log.
        """
        self._keep_settings()
        with one_thread():
            (found,) = composed_configs(self.file.config, [self.file.settings])
        if isinstance(found, str):
            raise InputError(f"{self.file.config}: {found}")
        self.base_model = str(found.get("model", {}).get("name_or_path") or "")
        self.by_sources = "sources" in found.get("data", {})
        tests = test_prompts(self.file)
        write_jsonl(self.folder / "test.jsonl", tests)
        write_jsonl(self.folder / UNUSED, [Feedback("unused", (Turn("user", (Part("-"),)),), (LIKED,))])
        prompts = {seed: pool(self.file, seed=seed, held_out=tests) for seed in self.file.seeds}
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=10), MofNCompleteColumn())
        with (
            one_thread(),
            sigterm_as_exit(),
            Progress(
                *columns,
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
                disable=not self.console.is_terminal,
            ) as progress,
            ThreadPoolExecutor(self.jobs) as threads,
        ):
            bar = progress.add_task("", total=self._size())
            self.show = lambda name: progress.update(bar, description=name, advance=1)
            tasks = [threads.submit(self._online, seed, prompts[seed]) for seed in self.file.seeds]
            if self.file.offline:
                tasks += [threads.submit(self._offline, seed, prompts[seed]) for seed in self.file.seeds]
            try:
                waiting = [task.result() for task in as_completed(tasks)]
            except BaseException:
                self.commands.stop()
                raise
        return [one for one in waiting if one is not None]

    def _size(self) -> int:
        """Commands of the whole."""
        ability = self.file.ability is not None
        code = self.file.rate is not None
        one = 3 + ability + code
        return len(self.file.seeds) * (1 + ability + one * (self.file.rounds + self.file.offline))

    def _keep_settings(self) -> None:
        path, now = self.folder / SETTINGS, json.loads(json.dumps(self.file.fixed()))
        if path.is_file():
            try:
                before = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise InputError(f"{path} is damaged; give another --folder, or remove this one.") from error
            rated = any(self.folder.glob("seed*/*/new.jsonl")) or any(self.folder.glob("seed*/*/study"))
            free = () if rated else ("rate", "study")  # nothing was rated yet
            changed = [key for key in now if before.get(key) != now[key] and key not in free]
            if changed:
                fact = f"{self.folder} has rounds with other values of {listed(changed)}"
                raise InputError(f"{fact}; give another --folder, or set them back in the file.")
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")

    # --- one seed

    def _online(self, seed: int, prompts: Sequence[Sequence[Any]]) -> people.Waiting | None:
        base = self._stage(seed, BASE)
        self._command(base, "test", test_words(base, None))
        self._ability(base, self.base_model)
        newest: Stage | None = None
        done: list[Path] = []
        for number in range(1, self.file.rounds + 1):
            stage = self._stage(seed, round_name(number))
            write_jsonl(stage.prompts, prompts[number - 1])
            self._command(stage, "write", write_words(stage, newest))
            if self.file.study is None:
                self._command(stage, "rate", rate_words(stage))
            elif waiting := people.sheets_of(stage):
                return waiting
            done.append(stage.new)
            begin = newest.checkpoint if newest is not None and self.file.start == "newest" else None
            self._train(stage, number, done, steps=self.file.steps, begin=begin)
            newest = stage
        return None

    def _offline(self, seed: int, prompts: Sequence[Sequence[Any]]) -> None:
        stage = self._stage(seed, offline_name(self.file))
        write_jsonl(stage.prompts, [one for each in prompts for one in each])
        self._command(stage, "write", write_words(stage, None))
        self._command(stage, "rate", rate_words(stage))
        self._train(stage, 0, [stage.new], steps=self.file.steps * self.file.rounds, begin=None)

    def _train(self, stage: Stage, number: int, new: Sequence[Path], *, steps: int, begin: Path | None) -> None:
        mixture = mix(self.file, seed=stage.seed, number=number, new=new, output=stage.feedback)
        with atomic_write(stage.path / "mixture.json") as aside:
            aside.write_text(json.dumps(asdict(mixture)) + "\n", encoding="utf-8")
        self._command(stage, "fit", fit_words(stage, steps=steps, begin=begin))
        self._command(stage, "test", test_words(stage, stage))
        self._ability(stage, str(stage.checkpoint))

    def _ability(self, stage: Stage, model: str) -> None:
        if self.file.ability is not None:
            self._command(stage, "ability", ability_words(stage, model))

    def _stage(self, seed: int, name: str) -> Stage:
        stage = Stage(self.file, self.folder, seed, name, self.by_sources)
        stage.path.mkdir(parents=True, exist_ok=True)
        return stage

    def _command(self, stage: Stage, kind: str, words: Sequence[str]) -> None:
        """In a thread: one command, unless it is finished."""
        name = stage.step(kind)
        if self.commands.stopping:
            raise Failed(f"{name} was stopped")
        if not self.places.is_done(name):
            self.commands.run(words, log=self.places.log(name), mark=self.places.mark(name))
            self.console.print(f"{name}  {self.places.seconds(name):.0f} s", highlight=False)
        self.show(name)
