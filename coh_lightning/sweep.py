"""`python -m coh_lightning sweep FILE`: the search that a sweep file of W&B describes (conf/sweep/), without any service.

    runs/sweep/bayes/
      sweep.yaml        the file, as the search was begun with it
      study.db          optuna's study; the same command goes on with it
      trial-0000/       run folder of a trial; trial-0000.log is what it printed
      trials.csv        each trial: its state, metric, settings, and why it failed
      history.png  slices.png  importance.png

A trial is the very command that an agent of W&B would run, in a process of its own; its metric is the last one in the metrics.csv of its run folder, as it is for W&B.
A search that was killed goes on: the trial that was running is marked as failed, and run again in its folder, which `fit` goes on with from its newest checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from coh_lightning.errors import InputError
from coh_lightning.files import PART, alone, written_aside
from coh_lightning.records import did_you_mean
from coh_lightning.runs import differences

if TYPE_CHECKING:
    import optuna

TRIALS = 20
"""Trials of a search whose file has no `run_cap`; a grid has as many as there are combinations."""
FAILURES = 3
"""So many failures one after the other, and nothing else so far, stop the search: it is the command that is wrong, not the settings."""
KEYS = ("command", "description", "early_terminate", "entity", "method", "metric", "name", "parameters", "program", "project", "run_cap")
RANGES = ("uniform", "log_uniform_values", "q_uniform", "int_uniform")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, checked."""

    source: Mapping[str, Any]
    method: str
    metric: str
    goal: str
    command: Sequence[str]
    program: str
    constants: dict[str, Any]
    choices: dict[str, Sequence[Any]]
    ranges: dict[str, Mapping[str, Any]]
    """distribution, min, max, and q where there is one."""

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Those of a grid, the last parameter changing fastest."""
        return [dict(zip(self.choices, values, strict=True)) for values in itertools.product(*self.choices.values())]


def read_sweep(file: Path) -> Sweep:
    """A sweep file in W&B's format.

    Raises:
        InputError: there is none, or it asks for something that W&B or this search doesn't know; the message names the key.
    """
    if not file.is_file():
        raise InputError(f"there is no sweep file {file}; conf/sweep/ has some.")
    try:
        source = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(source, dict):
        raise InputError(f"{file} holds no sweep; it needs method, metric, parameters and command.")
    for key in source:
        if key not in KEYS:
            raise InputError(f"{file}: there is no key {key}{did_you_mean(str(key), KEYS)}")
    for key in ("method", "metric", "parameters", "command"):
        if not source.get(key):
            raise InputError(f"{file} has no {key}; a sweep needs method, metric, parameters and command.")
    if source["method"] not in ("grid", "random", "bayes"):
        raise InputError(f"{file}: method is '{source['method']}'; it must be grid, random or bayes.")
    metric = source["metric"]
    if not isinstance(metric, dict) or not metric.get("name") or metric.get("goal") not in ("minimize", "maximize"):
        raise InputError(f"{file}: metric is {metric}; it needs a name, and as its goal minimize or maximize.")
    early = source.get("early_terminate")
    if early is not None and (not isinstance(early, dict) or early.get("type") != "hyperband" or set(early) - {"type", "min_iter", "eta"}):
        raise InputError(f"{file}: early_terminate is {early}; it may be type: hyperband, with min_iter and eta.")
    constants: dict[str, Any] = {}
    choices: dict[str, Sequence[Any]] = {}
    ranges: dict[str, Mapping[str, Any]] = {}
    for name, about in source["parameters"].items():
        kind = _kind(name, about, file)
        if kind == "constant":
            constants[name] = about["value"]
        elif kind == "categorical":
            choices[name] = about["values"]
        elif source["method"] == "grid":
            raise InputError(f"{file}: parameters.{name} is a range, and a grid needs values; list them, or let the method be random or bayes.")
        else:
            ranges[name] = {**about, "distribution": kind}
    sweep = Sweep(
        source,
        source["method"],
        metric["name"],
        metric["goal"],
        [str(word) for word in source["command"]],
        str(source.get("program")),
        constants,
        choices,
        ranges,
    )
    if "fit" not in sweep.command or "coh_lightning" not in command_words(sweep, {}):
        raise InputError(f"{file}: command is no `python -m coh_lightning fit`, so its trials would leave no metrics.csv.")
    return sweep


def _kind(name: str, about: object, file: Path) -> str:
    where = f"{file}: parameters.{name}"
    if not isinstance(about, dict):
        raise InputError(f"{where} is {about!r}; it needs value, values, or min and max.")
    if "value" in about:
        return "constant"
    if "values" in about:
        wrong = [value for value in about["values"] if not isinstance(value, (str, int, float, bool, type(None)))]
        if wrong:
            raise InputError(f"{where} has the value {wrong[0]!r}; write a list or a mapping as text: '{wrong[0]}'.")
        return "categorical"
    low, high = about.get("min"), about.get("max")
    kind = about.get("distribution") or ("int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform")
    if kind not in RANGES:
        raise InputError(f"{where}.distribution is '{kind}'; it must be one of {', '.join(RANGES)}.")
    numbers = [value for value in (low, high) if isinstance(value, (int, float))]
    if len(numbers) < 2 or numbers[0] >= numbers[1] or (kind.startswith("log") and numbers[0] <= 0):
        raise InputError(f"{where} is from {low} to {high}; min and max must be numbers that rise" + (", above 0." if kind.startswith("log") else "."))
    return str(kind)


def command_words(sweep: Sweep, settings: Mapping[str, Any], *, interpreter: str = "python") -> list[str]:
    """The command of one trial, as W&B's agent would fill it in.

    [${env}, ${interpreter}, -m, ${program}, fit, ${args}] and {model.lr: 0.1}   ->   /usr/bin/env python -m coh_lightning fit --model.lr=0.1
    """
    filled = {
        "env": ["/usr/bin/env"],
        "interpreter": [interpreter],
        "program": [sweep.program],
        "args": [f"--{name}={value}" for name, value in settings.items()],
    }
    words: list[str] = []
    for word in sweep.command:
        name = word[2:-1] if re.fullmatch(r"\$\{.*\}", word) else None
        if name is not None and name not in filled:
            raise InputError(f"the sweep's command has {word}, and only {', '.join('${' + known + '}' for known in filled)} are known.")
        words += filled[name] if name is not None else [interpreter if word == "python" else word]
    return words


# The study


@dataclass(frozen=True)
class Counts:
    """What became of the trials."""

    complete: int
    pruned: int
    failed: int
    interrupted: int
    """Killed with the search, and run again as another trial."""

    @property
    def done(self) -> int:
        return self.complete + self.pruned + self.failed

    def __str__(self) -> str:
        more = f", {self.interrupted} interrupted and run again" if self.interrupted else ""
        return f"{self.done} trial{'' if self.done == 1 else 's'}: {self.complete} complete, {self.pruned} stopped early, {self.failed} failed{more}"


def counts(study: optuna.Study) -> Counts:
    """Trials by their state; one that failed without a reason was interrupted."""
    every = study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in every]
    failed = sum(trial.state.name == "FAIL" and "reason" in trial.user_attrs for trial in every)
    return Counts(states.count("COMPLETE"), states.count("PRUNED"), failed, states.count("FAIL") - failed)


def search(sweep: Sweep, folder: Path, *, trials: int, seed: int = 0) -> optuna.Study:
    """Run trials until there are so many; what is there already counts.

    Raises:
        InputError: the folder holds another sweep, one that is going on, or something else; or every trial fails.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    state = optuna.trial.TrialState
    _same_sweep(sweep, folder)
    busy = f"a sweep is going on in {folder}, or a trial of one that was killed; wait for it, or give another --folder."
    with alone(folder, busy) as lock, _terminated_cleanly():
        early = sweep.source.get("early_terminate")
        study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}",
            study_name="sweep",
            direction=sweep.goal,
            load_if_exists=True,
            pruner=optuna.pruners.SuccessiveHalvingPruner(early.get("min_iter", 1), early.get("eta", 3)) if early else optuna.pruners.NopPruner(),
        )
        if sweep.method == "grid":
            for settings in sweep.combinations:
                study.enqueue_trial(settings, skip_if_exists=True)
        waiting = {trial.user_attrs.get("folder") for trial in study.get_trials(deepcopy=False, states=(state.WAITING,))}
        for trial in study.get_trials(states=(state.RUNNING,)):
            name = trial.user_attrs.get("folder", _name(trial.number))
            if name not in waiting:
                study.enqueue_trial(trial.params, user_attrs={"folder": name})
            study.tell(trial.number, state=state.FAIL)
        failures = 0
        while counts(study).done < trials:
            # seeded by the number of the draw, so that a search draws the same, however often it was broken off
            number = len(study.get_trials(deepcopy=False)) - counts(study).interrupted
            kind = optuna.samplers.TPESampler if sweep.method == "bayes" else optuna.samplers.RandomSampler
            study.sampler = kind(seed=seed + number)
            trial = study.ask(_distributions(sweep))
            failed = _run(sweep, study, trial, folder, lock)
            write_table(study, sweep, folder)
            failures += failed is not None
            if failures == FAILURES == counts(study).done:
                raise InputError(
                    f"the first {FAILURES} trials failed, the last because of: {failed}; see {folder}/*.log. Put the command right, and give a new --folder."
                )
    return study


def _run(sweep: Sweep, study: optuna.Study, trial: optuna.Trial, folder: Path, lock: int) -> str | None:
    """Run one trial to its end and tell the study of it; gives the reason of a failure."""
    name = trial.user_attrs.get("folder", _name(trial.number))
    trial.set_user_attr("folder", name)
    settings = {key: {**sweep.constants, **trial.params}[key] for key in sweep.source["parameters"]}
    run, log = folder / name, folder / f"{name}.log"
    # later options win: the run is kept here, and this search needs no service
    words = [*command_words(sweep, settings, interpreter=sys.executable), f"--run.folder={run}", "--run.wandb=null"]
    print(f"trial {trial.number}: " + " ".join(f"{key}={value}" for key, value in settings.items()), flush=True)
    environment = {key: value for key, value in os.environ.items() if key != "COH_RUN_FOLDER"}
    with log.open("a", encoding="utf-8") as output:
        # in a group of its own, so that Ctrl-C comes to us alone; with the lock, so that a trial that outlives a killed search keeps the next one out
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, pass_fds=(lock,), process_group=0)
        try:
            pruned = _watched(sweep, trial, process, run)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if pruned:
        study.tell(trial, state=_optuna().trial.TrialState.PRUNED)
        print(f"trial {trial.number}: stopped early", flush=True)
        return None
    values = metric_values(run, sweep.metric)
    reason = _last_words(log) if process.returncode else _unusable(values, run, sweep.metric)
    if reason is None:
        study.tell(trial, values[-1])
        print(f"trial {trial.number}: {sweep.metric} {values[-1]:.4g}", flush=True)
        return None
    trial.set_user_attr("reason", reason)
    study.tell(trial, state=_optuna().trial.TrialState.FAIL)
    print(f"trial {trial.number}: failed: {reason}", flush=True)
    return reason


def _watched(sweep: Sweep, trial: optuna.Trial, process: subprocess.Popen[bytes], run: Path) -> bool:
    """Waits for the end of a trial; whether it was stopped early, because its metric lags behind others' at the same validation."""
    if sweep.source.get("early_terminate") is None:
        process.wait()
        return False
    seen, running = 0, True
    while running:
        try:
            process.wait(timeout=1)
            running = False  # its last values still count: others are compared with them
        except subprocess.TimeoutExpired:
            pass
        values = metric_values(run, sweep.metric)
        for step, value in enumerate(values[seen:], start=seen + 1):
            trial.report(value, step)
            lags = trial.should_prune()  # asked of every value: it is what puts the trial among those that others are compared with
            if lags and running:
                process.terminate()
                process.wait()
                return True
        seen = len(values)
    return False


def metric_values(run: Path, metric: str) -> list[float]:
    """All values of a metric that a run has logged so far, the last one last; none where there is no such column yet."""
    file = run / "metrics.csv"
    if not file.is_file():
        return []
    whole = re.findall(r"[^\n]*\n", file.read_text(encoding="utf-8"))  # the last one may be half written; names may hold other separators than line ends
    return [float(row[metric]) for row in csv.DictReader(whole) if row.get(metric)]


def _unusable(values: Sequence[float], run: Path, metric: str) -> str | None:
    if values:
        return None if math.isfinite(values[-1]) else f"{metric} is {values[-1]}"
    file = run / "metrics.csv"
    known = file.read_text(encoding="utf-8").split("\n", 1)[0].split(",") if file.is_file() else []
    return f"{file} has no value of {metric}{did_you_mean(metric, known)}"


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "it printed nothing")


def _distributions(sweep: Sweep) -> dict[str, optuna.distributions.BaseDistribution]:
    kinds = _optuna().distributions
    found: dict[str, Any] = {}
    for name in sweep.source["parameters"]:
        if name in sweep.choices:
            found[name] = kinds.CategoricalDistribution(sweep.choices[name])
        elif name in sweep.ranges:
            one = sweep.ranges[name]
            if one["distribution"] == "int_uniform":
                found[name] = kinds.IntDistribution(one["min"], one["max"])
            else:
                found[name] = kinds.FloatDistribution(one["min"], one["max"], log=one["distribution"] == "log_uniform_values", step=one.get("q"))
    return found


def _name(number: int) -> str:
    return f"trial-{number:04d}"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("optuna is not installed; sweep needs it: pip install 'coh_lightning[sweep]'.") from error
    return optuna


def _same_sweep(sweep: Sweep, folder: Path) -> None:
    kept = folder / "sweep.yaml"
    if kept.exists():
        old = yaml.safe_load(kept.read_text(encoding="utf-8"))
        old, new = ({key: value for key, value in one.items() if key != "run_cap"} for one in (old, sweep.source))
        if changed := differences(old, new):
            raise InputError(f"{folder} holds another sweep; it differs in {', '.join(changed[:8])}; give another --folder.")
    elif folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.suffix != PART)):
        raise InputError(f"{folder} holds no sweep, but {others[0]}; give another --folder.")
    with written_aside(kept) as aside:
        aside.write_text(yaml.safe_dump(dict(sweep.source), sort_keys=False, allow_unicode=True), encoding="utf-8")


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """SIGTERM ends the search as Ctrl-C does: the running trial is stopped first."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What is shown


def rows(study: optuna.Study, sweep: Sweep) -> list[dict[str, Any]]:
    """The trials, the best first, then those that were stopped early or failed."""
    every = study.get_trials(deepcopy=False, states=tuple(state for state in _optuna().trial.TrialState if state.is_finished()))
    sign = -1 if sweep.goal == "maximize" else 1
    every.sort(key=lambda trial: (trial.state.name != "COMPLETE", sign * (trial.value or 0), trial.number))
    words = {"COMPLETE": "complete", "PRUNED": "stopped early"}
    return [
        {
            "trial": trial.number,
            "state": words.get(trial.state.name) or ("failed" if "reason" in trial.user_attrs else "interrupted"),
            sweep.metric: trial.value,
            **{name: {**sweep.constants, **trial.params}.get(name) for name in sweep.source["parameters"]},
            "folder": trial.user_attrs.get("folder"),
            "reason": trial.user_attrs.get("reason"),
        }
        for trial in every
    ]


def write_table(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """`trials.csv`."""
    table = rows(study, sweep)
    with written_aside(folder / "trials.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def write_plots(study: optuna.Study, folder: Path) -> list[Path]:
    """Pictures of the search, where there are trials enough: the metric trial by trial, against each setting, and how much each setting matters (PED-ANOVA)."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    optuna = _optuna()
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    varied = [name for name in complete[0].params if len({trial.params[name] for trial in complete}) > 1] if complete else []
    draw = optuna.visualization.matplotlib
    plots = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if varied:
            plots = {"history": lambda: draw.plot_optimization_history(study), "slices": lambda: draw.plot_slice(study, varied)}
        if len(varied) > 1 and len(complete) >= 10:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            plots["importance"] = lambda: draw.plot_param_importances(study, evaluator=evaluator, params=varied)
        written = []
        for name, plot in plots.items():
            axes = plot()
            figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
            if name == "slices":  # paths would run into one another
                for one in figure.axes:
                    one.tick_params(axis="x", labelrotation=90)
            figure.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=100)
            matplotlib.pyplot.close(figure)
            written.append(folder / f"{name}.png")
    return written


def show(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """The table on the screen, the counts, and where the best run is."""
    from rich.console import Console
    from rich.table import Table

    shown = rows(study, sweep)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in shown[0]:
        table.add_column(name)
    for row in shown:
        table.add_row(*("" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print(f"\n{counts(study)}")
    if shown[0]["state"] == "complete":
        print(f"best: {sweep.metric} {shown[0][sweep.metric]:.4g} in {folder / shown[0]['folder']}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m coh_lightning sweep", description="Search settings as a sweep file of W&B says, without any service.")
    parser.add_argument("file", type=Path, metavar="FILE", help="a sweep in W&B's format: method, metric, parameters, command (conf/sweep/)")
    parser.add_argument(
        "--trials", type=int, metavar="N", help=f"trials in all, those of a search that goes on included (default: run_cap of the file, else {TRIALS})"
    )
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="where the study and its runs are kept (default: runs/sweep/<name of the file>)")
    parser.add_argument("--seed", type=int, default=0, help="of the settings that are drawn (default %(default)s)")
    args = parser.parse_args(argv)
    sweep = read_sweep(args.file)
    trials = args.trials or sweep.source.get("run_cap") or (len(sweep.combinations) if sweep.method == "grid" else TRIALS)
    if sweep.method == "grid":
        trials = min(trials, len(sweep.combinations))
    if trials < 1:
        raise InputError(f"--trials is {trials}; give a number above 0.")
    folder = args.folder or Path("runs") / "sweep" / args.file.stem
    study = search(sweep, folder, trials=trials, seed=args.seed)
    show(study, sweep, folder)
    for path in write_plots(study, folder):
        print(path)
    return 0 if counts(study).complete else 1
