"""Results of a search so far: counts, `trials.csv`, plots, and the table on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coh_lightning.cli.sweep_file import Sweep
from coh_lightning.errors import counted
from coh_lightning.io import atomic_write

if TYPE_CHECKING:
    import optuna
    import pandas

IMPORTANCE_FROM = 10
"""Complete trials that an estimate of the settings' importance needs."""


@dataclass(frozen=True)
class Counts:
    """Trials by their state."""

    complete: int
    pruned: int
    failed: int
    interrupted: int
    """Killed together with their agent; each is run again as another trial."""
    running: int

    @property
    def done(self) -> int:
        return self.complete + self.pruned + self.failed

    def __str__(self) -> str:
        more = f", {self.interrupted} interrupted and run again" if self.interrupted else ""
        more += f", {self.running} still running" if self.running else ""
        done = f"{self.complete} complete, {self.pruned} stopped early, {self.failed} failed"
        return f"{counted(self.done, 'trial')}: {done}{more}"


def counts(study: optuna.Study) -> Counts:
    every = study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in every]
    failed = sum(trial.state.name == "FAIL" and "reason" in trial.user_attrs for trial in every)
    complete, pruned, running = (states.count(state) for state in ("COMPLETE", "PRUNED", "RUNNING"))
    return Counts(complete, pruned, failed, states.count("FAIL") - failed, running)


def table(study: optuna.Study, sweep: Sweep) -> pandas.DataFrame:
    """The trials that have ended: the best first, then those that were stopped early or failed."""
    found = study.trials_dataframe(("number", "state", "value", "params", "user_attrs"))
    names = {"number": "trial", "value": sweep.metric, "user_attrs_folder": "folder", "user_attrs_reason": "reason"}
    found = found.rename(columns=names | {f"params_{name}": name for name in sweep.source["parameters"]})
    found = found[~found["state"].isin(["RUNNING", "WAITING"])].assign(**sweep.constants)
    found = found.reindex(columns=["trial", "state", sweep.metric, *sweep.source["parameters"], "folder", "reason"])
    found = found.sort_values(sweep.metric, ascending=sweep.goal == "minimize", kind="stable")
    found = found.sort_values("state", key=lambda state: state != "COMPLETE", kind="stable")
    interrupted = (found["state"] == "FAIL") & found["reason"].isna()
    words = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
    return found.assign(state=found["state"].map(words).mask(interrupted, "interrupted"))


def write_table(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """`trials.csv`."""
    with atomic_write(folder / "trials.csv") as aside:
        table(study, sweep).to_csv(aside, index=False)


def write_plots(study: optuna.Study, sweep: Sweep, folder: Path) -> list[Path]:
    """The metric trial by trial, the metric against each setting, and how much each setting matters (PED-ANOVA), as far
    as there are enough trials.
    """
    import warnings

    import optuna

    from coh_lightning.cli.sweep_figures import draw_search

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    names = complete[0].params if complete else ()
    varied = [name for name in names if len({trial.params[name] for trial in complete}) > 1]
    if not varied:
        return []
    importance = None
    if len(varied) > 1 and len(complete) >= IMPORTANCE_FROM:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            importance = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return draw_search(folder, complete, sweep.metric, goal=sweep.goal, importance=importance)


def show(study: optuna.Study, sweep: Sweep, folder: Path) -> None:
    """Print the table, the counts and the best run."""
    found = table(study, sweep)
    if len(found):
        print(found.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    now = counts(study)
    print(f"\n{now}")
    if now.complete:
        best = found.iloc[0]
        print(f"best: {sweep.metric} {best[sweep.metric]:.4g} in {folder / best['folder']}")
