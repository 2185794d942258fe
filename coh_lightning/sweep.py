"""`python -m coh_lightning sweep FILE`: the search that a sweep file of W&B describes (conf/sweep/), without any
service.

    runs/sweep/bayes/
      sweep.yaml        the file, as the search was begun with it
      study.db          optuna's study; the same command goes on with it
      trial-0000/       run folder of a trial; trial-0000.log is what it printed
      trials.csv        each trial: its state, metric, settings, and why it failed
      history.png  slices.png  importance.png

A trial is the very command that an agent of W&B would run, in a process of its own; its metric is the last one in the
metrics.csv of its run folder, as it is for W&B. A search that was killed goes on: the trial that was running is marked
as failed, and run again in its folder, which `fit` goes on with from its newest checkpoint.
"""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.commands import CommandParser
from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.files import PART, alone, written_aside
from coh_lightning.runs import differences
from coh_lightning.sweep_file import Sweep, command_words, read_sweep
from coh_lightning.yaml_text import dump, load

if TYPE_CHECKING:
    import optuna

TRIALS = 20
"""Trials of a search whose file has no `run_cap`; a grid has as many as there are combinations."""
FAILURES = 3
"""So many failures one after the other, and nothing else so far, stop the search: it is the command that is wrong, not
the settings.
"""

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
        return (
            f"{counted(self.done, 'trial')}: {self.complete} complete, {self.pruned} stopped "
            f"early, {self.failed} failed{more}"
        )


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
            pruner=optuna.pruners.SuccessiveHalvingPruner(early.get("min_iter", 1), early.get("eta", 3))
            if early
            else optuna.pruners.NopPruner(),
        )
        if sweep.method == "grid":
            for settings in sweep.combinations:
                study.enqueue_trial(settings, skip_if_exists=True)
        waiting = {
            trial.user_attrs.get("folder") for trial in study.get_trials(deepcopy=False, states=(state.WAITING,))
        }
        for trial in study.get_trials(states=(state.RUNNING,)):
            name = trial.user_attrs.get("folder", _name(trial.number))
            if name not in waiting:
                study.enqueue_trial(trial.params, user_attrs={"folder": name})
            study.tell(trial.number, state=state.FAIL)
        failures = 0
        while counts(study).done < trials and not _reached(sweep, study):
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
                    f"the first {FAILURES} trials failed, the last because of: {failed}; see {folder}/*.log. Put the "
                    "command right, and give a new --folder."
                )
    return study


def _reached(sweep: Sweep, study: optuna.Study) -> bool:
    complete = study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.COMPLETE,))
    return any(sweep.reached(trial.value) for trial in complete if trial.value is not None)


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
        # in a group of its own, so that Ctrl-C comes to us alone; with the lock, so that a trial that outlives a killed
        # search keeps the next one out
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            process_group=0,
        )
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
    """Waits for the end of a trial; whether it was stopped early, because its metric lags behind others' at the same
    validation.
    """
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
            lags = (
                trial.should_prune()
            )  # asked of every value: it is what puts the trial among those that others are compared with
            if lags and running:
                process.terminate()
                process.wait()
                return True
        seen = len(values)
    return False


def metric_values(run: Path, metric: str) -> list[float]:
    """All values of a metric that a run has logged so far, the last one last; none where there is no such column
    yet.
    """
    file = run / "metrics.csv"
    if not file.is_file():
        return []
    whole = file.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be half written
    return [float(row[metric]) for row in csv.DictReader(whole.split("\n")) if row.get(metric)]


def _unusable(values: Sequence[float], run: Path, metric: str) -> str | None:
    if values:
        return None if math.isfinite(values[-1]) else f"{metric} is {values[-1]}"
    file = run / "metrics.csv"
    known = file.read_text(encoding="utf-8").split("\n")[0].split(",") if file.is_file() else []
    return f"{file} has no value of {metric}{did_you_mean(metric, known)}"


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    return next(
        (line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "it printed nothing"
    )


def _distributions(sweep: Sweep) -> dict[str, optuna.distributions.BaseDistribution]:
    kinds = _optuna().distributions
    found: dict[str, Any] = {}
    for name in sweep.source["parameters"]:
        if name in sweep.choices:
            found[name] = kinds.CategoricalDistribution(sweep.choices[name])
        elif name in sweep.ranges:
            one = sweep.ranges[name]
            if one.whole:
                found[name] = kinds.IntDistribution(int(one.low), int(one.high))
            else:
                found[name] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
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
        old = load(kept.read_text(encoding="utf-8"))
        old, new = ({key: value for key, value in one.items() if key != "run_cap"} for one in (old, sweep.source))
        if changed := differences(old, new):
            raise InputError(
                f"{folder} holds another sweep; it differs in {', '.join(changed[:8])}; give another --folder."
            )
    elif folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.suffix != PART)):
        raise InputError(f"{folder} holds no sweep, but {others[0]}; give another --folder.")
    with written_aside(kept) as aside:
        aside.write_text(dump(sweep.source), encoding="utf-8")


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
    every = study.get_trials(
        deepcopy=False, states=tuple(state for state in _optuna().trial.TrialState if state.is_finished())
    )
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
    """Pictures of the search, where there are trials enough: the metric trial by trial, against each setting, and how
    much each setting matters (PED-ANOVA).
    """
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    optuna = _optuna()
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    varied = (
        [name for name in complete[0].params if len({trial.params[name] for trial in complete}) > 1] if complete else []
    )
    draw = optuna.visualization.matplotlib
    plots = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if varied:
            plots = {
                "history": lambda: draw.plot_optimization_history(study),
                "slices": lambda: draw.plot_slice(study, varied),
            }
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
        table.add_row(
            *("" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    print(f"\n{counts(study)}")
    if shown[0]["state"] == "complete":
        print(f"best: {sweep.metric} {shown[0][sweep.metric]:.4g} in {folder / shown[0]['folder']}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m coh_lightning sweep",
        description="Search settings as a sweep file of W&B says, without any service.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="a sweep in W&B's format: method, metric, parameters, command (conf/sweep/)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help=f"trials in all, those of a search that goes on included (default: run_cap of the file, else {TRIALS})",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="where the study and its runs are kept (default: runs/sweep/<name of the file>)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the settings that are drawn (default %(default)s)")
    args = parser.parse_args(argv)
    sweep = read_sweep(args.file)
    trials = (
        args.trials
        if args.trials is not None
        else sweep.source.get("run_cap") or (len(sweep.combinations) if sweep.method == "grid" else TRIALS)
    )
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
