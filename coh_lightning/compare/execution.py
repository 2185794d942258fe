"""Runs the rows of a study: several at a time, each step once, results as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from coh_lightning.compare.processes import Commands, Failed, composed_configs, one_thread
from coh_lightning.compare.results import append_result, read_results, result_of, unpack
from coh_lightning.compare.rows import Row, in_order, row_key, tuning_rows, with_rate, without
from coh_lightning.compare.steps import Places, Step, steps_of
from coh_lightning.compare.study import Study
from coh_lightning.errors import InputError, counted
from coh_lightning.runs.commands import sigterm_as_exit

Composed = Mapping[str, Mapping[str, Any]]
"""Method -> the configuration of its fit, without defaults, world and seeds."""


def mean_score(line: Mapping[str, Any], temperature: float) -> float:
    low, high = line.get("range", (0.0, 1.0))
    return float(unpack(line["scores"][f"{temperature:g}"], low, high).mean())


def tuned(study: Study, row: Row, composed: Composed, results: Mapping[str, Mapping[str, Any]]) -> Row | None:
    """The row with its learning rate: the one with the highest mean score on the tuning prompts, of equal ones the
    smallest. None: a tuning row has no result yet.
    """
    if not (trials := tuning_rows(study, row)):
        return row
    lines = [results.get(row_key(study, trial, composed[trial.method.name])) for trial in trials]
    if any(line is None for line in lines):
        return None
    scores = [
        (mean_score(line, study.tune.temperature), -(trial.rate or 0))
        for trial, line in zip(trials, lines, strict=True)
        if line
    ]
    return with_rate(row, -max(scores)[1])


@dataclass
class Plan:
    """What is left to run: rows in order, tuning rows before those that need them."""

    study: Study
    composed: Composed
    folder: Path
    file: Path
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        self.results = read_results(self.file)
        self.places = Places(self.folder)
        self.running: list[Row] = []
        self.waiting = [row for row in in_order(self.study, self.rows) if not self.is_finished(row)]

    def is_finished(self, row: Row) -> bool:
        found = tuned(self.study, row, self.composed, self.results)
        return found is not None and row_key(self.study, found, self.composed[row.method.name]) in self.results

    def steps(self, row: Row) -> list[Step]:
        """All steps of a row; of a row that is not tuned yet, with the first of its rates."""
        known = row if row.rate is not None else tuned(self.study, row, self.composed, self.results)
        known = known or with_rate(row, row.method.rates[0])
        steps = steps_of(self.study, known, self.composed[row.method.name], self.folder)
        return [replace(one, work=self.work(one, row)) for one in steps]

    def work(self, step: Step, row: Row) -> float:
        """Core-seconds of a step: the mean of its method's finished rows, or else as the study's `cost` says."""
        key = {"fit": "train_seconds", "test": "test_seconds"}.get(step.kind, "")
        name = row.method.fit if step.kind == "fit" else row.method.name
        lines = [one for one in self.results.values() if one["method"] == name and key in one]
        if not lines:
            return step.work
        share = [one[key] / (len(one["scores"]) if step.kind == "test" else 1) for one in lines]
        return float(sum(share) / len(share))

    def left(self) -> dict[str, Step]:
        """The steps that are still to do, each once."""
        every = {one.name: one for row in [*self.running, *self.waiting] for one in self.steps(row)}
        return {name: one for name, one in every.items() if not self.places.is_done(name)}


@dataclass
class Progressing:
    """One line: steps done, steps running, time left."""

    plan: Plan
    jobs: int
    expected: float = field(default=0.0, init=False)
    used: float = field(default=0.0, init=False)
    done: int = field(default=0, init=False)
    running: dict[str, None] = field(default_factory=dict, init=False)

    def text(self) -> str:
        left = self.plan.left()
        rate = self.used / self.expected if self.expected else 1.0
        seconds = sum(one.work for one in left.values()) * rate / self.jobs
        now = ", ".join(self.running) or "none"
        return f"{self.done} of {self.done + len(left)} steps; {duration(seconds)} left; running: {now}"


def duration(seconds: float) -> str:
    """
    >>> duration(50), duration(400), duration(9000)
    ('50 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Execution:
    """Runs the rows of a plan, `jobs` at a time."""

    def __init__(self, plan: Plan, *, jobs: int, hours: float | None, console: Console) -> None:
        self.plan, self.jobs, self.console = plan, jobs, console
        self.deadline = None if hours is None else time.monotonic() + hours * 3600
        self.state = Progressing(plan, jobs)
        self.lock = threading.Lock()
        self.commands = Commands()
        self.failed: list[str] = []

    def run(self) -> list[str]:
        """Runs to the end or to the deadline; returns the rows that failed. Ctrl-C and SIGTERM stop its commands."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=10))
        with (
            one_thread(),
            sigterm_as_exit(),
            Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress,
            ThreadPoolExecutor(self.jobs) as pool,
        ):
            bar = progress.add_task("", total=None)
            try:
                self._run(pool, lambda: progress.update(bar, description=self.state.text()[: self.console.width - 14]))
            except BaseException:
                self.commands.stop()
                raise
        return self.failed

    def _run(self, pool: ThreadPoolExecutor, show: Any) -> None:
        busy: dict[Future[dict[str, Any]], tuple[Row, set[str]]] = {}
        while True:
            while len(busy) < self.jobs and (
                found := self._next({name for _, names in busy.values() for name in names})
            ):
                row, steps = found
                self.plan.running.append(row)
                busy[pool.submit(self._row, row, steps)] = (row, {one.name for one in steps})
            show()
            if not busy:
                return
            ended, _ = wait(busy, timeout=5, return_when=FIRST_COMPLETED)
            for future in ended:
                row, _ = busy.pop(future)
                self.plan.running.remove(row)
                try:
                    self._keep(row, future.result())
                except Failed as error:
                    self._fail(row, str(error))

    def _next(self, busy: set[str]) -> tuple[Row, list[Step]] | None:
        """The first waiting row that is tuned and none of whose unfinished steps another row is running."""
        if self.commands.stopping or (self.deadline is not None and time.monotonic() > self.deadline):
            return None
        plan = self.plan
        for row in list(plan.waiting):
            known = tuned(plan.study, row, plan.composed, plan.results)
            if known is None:
                continue
            composed = plan.composed[row.method.name]
            if row_key(plan.study, known, composed) in plan.results:
                plan.waiting.remove(row)
                continue
            steps = steps_of(plan.study, known, composed, plan.folder)
            if any(one.name in busy for one in steps if not plan.places.is_done(one.name)):
                continue
            plan.waiting.remove(row)
            return known, steps
        return None

    def _row(self, row: Row, steps: Sequence[Step]) -> dict[str, Any]:
        """In a thread: the steps of a row, one after the other, and its line of results."""
        places = self.plan.places
        for step in steps:
            if places.is_done(step.name) or self.commands.stopping:
                continue
            with self.lock:
                self.state.running[step.name] = None
            try:
                self.commands.run(step.words, log=places.log(step.name), mark=places.mark(step.name))
            finally:
                with self.lock:
                    self.state.running.pop(step.name, None)
            with self.lock:
                self.state.done += 1
                self.state.expected += step.work
                self.state.used += places.seconds(step.name)
        if self.commands.stopping:
            raise Failed(f"{row.name} was stopped")
        return result_of(self.plan.study, row, self.plan.composed[row.method.name], steps, places)

    def _keep(self, row: Row, line: dict[str, Any]) -> None:
        append_result(self.plan.file, line)
        self.plan.results[line["key"]] = line
        scores = "  ".join(f"{float(one):g}: {mean_score(line, float(one)):.3f}" for one in line["scores"])
        self.console.print(f"{row.name}  {scores}", highlight=False)

    def _fail(self, row: Row, reason: str) -> None:
        """A row failed: it and the rows that need its rate are not run; the others are."""
        self.failed.append(row.name)
        self.console.print(f"{row.name} failed: {reason}", highlight=False, markup=False)


def composed_of(study: Study, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Composes the configuration of every method's fit, which shows each mistake before anything runs.

    Raises:
        InputError: at the method's line of the study file, with the parser's own sentence.
    """
    names = list(dict.fromkeys(row.method.name for row in rows))
    asked = []
    for name in names:
        method = study.methods[name]
        own = dict(method.settings) if method.command[:1] in ((), ("fit",)) else {}
        asked.append({**study.settings, **own})
    with one_thread():
        found = composed_configs(study.config, asked)
    made = {}
    for name, config in zip(names, found, strict=True):
        if isinstance(config, str):
            raise InputError(f"{study.where('methods', name, 'settings')}: methods.{name}: {config}")
        made[name] = without(config)
    return made


def estimate(plan: Plan) -> str:
    """Rows, fits and core-hours that are left, before anything runs."""
    left = plan.left()
    done = len([row for row in plan.rows if plan.is_finished(row)])
    hours = sum(one.work for one in left.values()) / 3600
    kinds = [counted(sum(one.kind == kind for one in left.values()), noun) for kind, noun in KINDS.items()]
    return f"{counted(len(plan.rows), 'row')}, {done} finished; left: {', '.join(kinds)}; about {hours:.1f} core-hours"


KINDS = {"base": "base model", "world": "world", "fit": "fit", "test": "test"}
