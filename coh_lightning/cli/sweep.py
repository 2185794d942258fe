"""`coh sweep FILE`: the search that a W&B sweep file describes (conf/sweep/), without any service.

    runs/sweep/bayes/
      sweep.yaml        the file as the search began with it
      study.db          optuna's study; the same command resumes it
      trial-0000/       run folder of a trial; trial-0000.log is its output
      trials.csv        each trial: state, metric, settings, and why it failed
      history.png  slices.png  importance.png

A trial is the command that a W&B agent would run, in its own process; its metric is the last value in the metrics.csv
of its run folder, as for W&B. Start the same command several times to run several trials at once. A trial whose agent
was killed is run again in its folder, where `fit` resumes from the newest checkpoint.

Optuna keeps the study, draws the settings and prunes. A trial's process locks its log, which says the moment it ends,
as optuna's heartbeats don't; a grid's combinations are queued once, since GridSampler may run one twice.
"""

from __future__ import annotations

import csv
import fcntl
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from coh_lightning.cli.sweep_file import Sweep, command_words, read_sweep
from coh_lightning.cli.sweep_results import counts, show, write_plots, write_table
from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.io import PART, atomic_write
from coh_lightning.runs.commands import error_line, sigterm_as_exit
from coh_lightning.runs.run_folder import FINISHED, differences
from coh_lightning.yaml_text import dump, load

if TYPE_CHECKING:
    import optuna

TRIALS = 20
"""Trials of a search whose file has no `run_cap`; a grid has as many as there are combinations."""
FAILURES = 3
"""The search ends if an agent's trials fail this often and no trial has succeeded: the command is wrong."""
INTERRUPTIONS = 10
"""A trial that was killed with its agent more often than this has failed."""


def search(sweep: Sweep, folder: Path, *, trials: int, seed: int = 0) -> optuna.Study:
    """Runs trials until there are `trials`, with those of earlier calls and of other agents.

    Raises:
        InputError: the folder contains something else, or the first trials all fail.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _keep_sweep_file(sweep, folder)
    with _in_turn(folder):
        study = _study(sweep, folder)
    failures = 0
    with sigterm_as_exit():
        while (claimed := _next_trial(sweep, study, folder, trials, seed)) is not None:
            trial, log = claimed
            with log:
                failed = _run(sweep, study, trial, folder, log)
            write_table(study, sweep, folder)
            failures += failed is not None
            now = counts(study)
            if failures >= FAILURES and now.failed == now.done:
                raise InputError(
                    f"the first {now.failed} trials failed, the last with: {failed}; see {folder}/*.log, correct the "
                    "command, and give a new --folder."
                )
    return study


def _study(sweep: Sweep, folder: Path) -> optuna.Study:
    optuna = _optuna()
    pruner, database = optuna.pruners.NopPruner(), f"sqlite:///{folder / 'study.db'}"
    if early := sweep.source.get("early_terminate"):
        pruner = optuna.pruners.SuccessiveHalvingPruner(early.get("min_iter", 1), early.get("eta", 3))
    study = optuna.create_study(
        storage=database, study_name="sweep", direction=sweep.goal, load_if_exists=True, pruner=pruner
    )
    for settings in sweep.combinations if sweep.method == "grid" else ():
        study.enqueue_trial(settings, skip_if_exists=True)
    return study


def _next_trial(
    sweep: Sweep, study: optuna.Study, folder: Path, trials: int, seed: int
) -> tuple[optuna.Trial, IO[str]] | None:
    """The next trial with its settings, and its log, locked; None if there are enough or the target is reached."""
    optuna = _optuna()
    with _in_turn(folder):
        _requeue_killed(study, folder)
        now = counts(study)
        complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        reached = any(sweep.is_reached(trial.value) for trial in complete if trial.value is not None)
        if reached or now.done + now.running >= trials:
            return None
        # seeded by the number of the draw: an interrupted search draws the same settings, and agents never draw alike
        draw = len(study.get_trials(deepcopy=False)) - now.interrupted
        kind = optuna.samplers.TPESampler if sweep.method == "bayes" else optuna.samplers.RandomSampler
        study.sampler = kind(seed=seed + draw)
        trial = study.ask(distributions(sweep))
        name = trial.user_attrs.get("folder", f"trial-{trial.number:04d}")
        trial.set_user_attr("folder", name)
        log = (folder / f"{name}.log").open("a", encoding="utf-8")
        fcntl.flock(log, fcntl.LOCK_EX)
        return trial, log


def _requeue_killed(study: optuna.Study, folder: Path) -> None:
    """Queues each trial again that counts as running although no process locks its log."""
    state = _optuna().trial.TrialState
    waiting = {trial.user_attrs.get("folder") for trial in study.get_trials(deepcopy=False, states=(state.WAITING,))}
    for trial in study.get_trials(states=(state.RUNNING,)):
        name = trial.user_attrs.get("folder", f"trial-{trial.number:04d}")
        with (folder / f"{name}.log").open("a") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # its agent or its process is alive
                continue
            # or it has ended since the trials were listed: an agent tells the study before it lets go of the log
            if not any(one.number == trial.number for one in study.get_trials(deepcopy=False, states=(state.RUNNING,))):
                continue
            if name not in waiting:
                again = {"folder": name, "interruptions": trial.user_attrs.get("interruptions", 0) + 1}
                study.enqueue_trial(trial.params, user_attrs=again)
            study.tell(trial.number, state=state.FAIL)


def _run(sweep: Sweep, study: optuna.Study, trial: optuna.Trial, folder: Path, log: IO[str]) -> str | None:
    """Runs one trial to its end and tells the study; returns the reason if it failed."""
    optuna = _optuna()
    run = folder / trial.user_attrs["folder"]
    settings = {key: {**sweep.constants, **trial.params}[key] for key in sweep.source["parameters"]}
    print(f"trial {trial.number}: " + " ".join(f"{key}={value}" for key, value in settings.items()), flush=True)
    interruptions = trial.user_attrs.get("interruptions", 0)
    values: list[float] = []
    reason: str | None = f"it was interrupted {counted(interruptions, 'time')}"
    if interruptions <= INTERRUPTIONS:
        # later options win: the run is kept here, and no service is needed
        words = [*command_words(sweep, settings, interpreter=sys.executable), f"--run.folder={run}", "--run.wandb=null"]
        try:
            status = 0 if (run / FINISHED).exists() else _wait(sweep, trial, words, run, log)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            print(f"trial {trial.number}: stopped early", flush=True)
            return None
        values = metric_values(run, sweep.metric)
        reason = error_line(Path(log.name)) if status else _unusable(values, run, sweep.metric)
    if reason is None:
        study.tell(trial, values[-1])
        print(f"trial {trial.number}: {sweep.metric} {values[-1]:.4g}", flush=True)
        return None
    trial.set_user_attr("reason", reason)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    print(f"trial {trial.number}: failed: {reason}", flush=True)
    return reason


def _wait(sweep: Sweep, trial: optuna.Trial, words: Sequence[str], run: Path, log: IO[str]) -> int:
    """Runs the command of a trial and returns its exit status. Raises optuna.TrialPruned after stopping it, if its
    metric is behind that of other trials at the same validation.
    """
    environment = {key: value for key, value in os.environ.items() if key != "COH_RUN_FOLDER"}
    # in its own process group, so that only the agent gets Ctrl-C; its output keeps the log locked while it runs
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0
    )
    try:
        if not sweep.source.get("early_terminate"):
            return process.wait()
        seen, running = 0, True
        while running:
            try:
                process.wait(timeout=1)
                running = False  # its last values are still reported
            except subprocess.TimeoutExpired:
                pass
            values = metric_values(run, sweep.metric)
            for step, value in enumerate(values[seen:], start=seen + 1):
                trial.report(value, step)
                # called after every value, since optuna compares only trials that it was called for
                if trial.should_prune() and running:
                    raise _optuna().TrialPruned
            seen = len(values)
        return process.returncode
    finally:
        process.terminate()
        process.wait()


def metric_values(run: Path, metric: str) -> list[float]:
    """All values of a metric that a run has logged so far."""
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


def distributions(sweep: Sweep) -> dict[str, optuna.distributions.BaseDistribution]:
    """What optuna draws each varied parameter from."""
    kinds = _optuna().distributions
    found: dict[str, Any] = {}
    for name in sweep.source["parameters"]:
        if name in sweep.choices:
            found[name] = kinds.CategoricalDistribution(sweep.choices[name])
        elif (one := sweep.ranges.get(name)) is not None and one.whole:
            found[name] = kinds.IntDistribution(int(one.low), int(one.high))
        elif one is not None:
            found[name] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("optuna is not installed; sweep needs it: pip install 'coh_lightning[sweep]'.") from error
    return optuna


def _keep_sweep_file(sweep: Sweep, folder: Path) -> None:
    kept = folder / "sweep.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if path.suffix != PART)  # first: another agent may begin now
    if kept.exists():
        old = load(kept.read_text(encoding="utf-8"))
        old, new = ({key: value for key, value in one.items() if key != "run_cap"} for one in (old, sweep.source))
        if changed := ", ".join(differences(old, new)[:8]):
            raise InputError(f"{folder} contains another sweep; it differs in {changed}; give another --folder.")
    elif others:
        raise InputError(f"{folder} contains no sweep, but {others[0]}; give another --folder.")
    with atomic_write(kept) as aside:
        aside.write_text(dump(sweep.source), encoding="utf-8")


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """One agent at a time looks at the study and takes a trial; the others wait."""
    with (folder / f".turn{PART}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 1 if no trial is complete."""
    parser = CommandParser(
        prog="coh sweep",
        description="Search settings as a W&B sweep file describes it, without any service. Start the same command "
        "several times to run several trials at once, or again to resume.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a W&B sweep file: method, metric, parameters, command (conf/sweep/)")
    total = f"trials in all, including earlier ones (default: run_cap of the file, else {TRIALS})"
    add("--trials", type=int, metavar="N", help=total)
    add("--folder", type=Path, metavar="FOLDER", help="for the study and its runs (default: runs/sweep/<file name>)")
    add("--seed", type=int, default=0, help="for drawing the settings (default %(default)s)")
    args = parser.parse_args(argv)
    sweep = read_sweep(args.file)
    trials = args.trials if args.trials is not None else sweep.source.get("run_cap")
    if sweep.method == "grid":
        trials = len(sweep.combinations) if trials is None else min(trials, len(sweep.combinations))
    elif trials is None:
        trials = TRIALS
    if trials < 1:
        raise InputError(f"--trials is {trials}; give a number above 0.")
    folder = args.folder or Path("runs") / "sweep" / args.file.stem
    study = search(sweep, folder, trials=trials, seed=args.seed)
    show(study, sweep, folder)
    for path in write_plots(study, sweep, folder):
        print(path)
    return 0 if counts(study).complete else 1
