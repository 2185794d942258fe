"""Sweeps: the files of conf/sweep/ as a W&B agent runs them, and the same search without any service."""

from __future__ import annotations

import csv
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from coh_lightning.__main__ import main
from coh_lightning.cli.sweep import _requeue_killed, distributions, search
from coh_lightning.cli.sweep_file import DISTRIBUTIONS, KEYS, NOT_DRAWN, command_words, read_sweep
from coh_lightning.cli.sweep_results import counts, table
from coh_lightning.errors import InputError
from coh_lightning.yaml_text import dump, load

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf" / "sweep").glob("*.yaml"))
TINY = ["--trainer.max_steps=1", "--trainer.val_check_interval=3", "--data.max_validation_prompts=2"]

STUB = """
import os, sys, time
given = dict(word[2:].split("=", 1) for word in sys.argv if word.startswith("--"))
folder, x = given["run.folder"], float(given["x"])
os.makedirs(folder, exist_ok=True)
with open("order.txt", "a") as file:
    file.write(f"{folder.split('/')[-1]} {given['x']}\\n")
if x < 0:
    sys.exit("error: x is below 0")
with open(folder + "/metrics.csv", "w") as file:
    file.write(f"step,val/score\\n1,{given.get('start', x)}\\n2,\\n")
if os.path.exists("hang") and len(open("order.txt").readlines()) >= int(open("hang").read()):
    os.remove("hang")
    open("hanging", "w").write(str(os.getpid()))
    time.sleep(60)
with open(folder + "/metrics.csv", "a") as file:
    file.write(f"3,{x * x if given.get('kind') != 'nan' else 'nan'}\\n")
"""
"""Stands in for a fit: takes a setting x and logs val/score, x first and x squared at the end."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stub.py").write_text(STUB)
    return tmp_path


def sweep_file(folder: Path, **changes: Any) -> Path:
    """A sweep of the stub: x at random from 0 to 1."""
    source: dict[str, Any] = {
        "program": "coh_lightning",
        "method": "random",
        "metric": {"name": "val/score", "goal": "minimize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "command": ["${env}", "${interpreter}", "stub.py", "${program}", "fit", "${args}"],
    }
    file = folder / "sweep.yaml"
    file.write_text(dump({key: value for key, value in (source | changes).items() if value is not None}))
    return file


def order(folder: Path) -> list[str]:
    return (folder / "order.txt").read_text().splitlines()


def trials_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# The search without a service


def test_a_grid_runs_every_combination_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(
        here,
        method="grid",
        parameters={"x": {"values": [3, 1, 2]}, "kind": {"values": ["a", "b"]}, "fixed": {"value": "c"}},
    )
    assert main(["sweep", str(file), "--folder=s"]) == 0
    assert order(here) == [f"trial-000{number} {x}" for number, x in enumerate([3, 3, 1, 1, 2, 2])]
    assert [(row["trial"], row["val/score"], row["x"], row["kind"], row["fixed"]) for row in trials_csv(here / "s")][
        :3
    ] == [
        ("2", "1.0", "1", "a", "c"),
        ("3", "1.0", "1", "b", "c"),
        ("4", "4.0", "2", "a", "c"),
    ]
    printed = capsys.readouterr().out
    assert "6 trials: 6 complete, 0 stopped early, 0 failed\nbest: val/score 1 in s/trial-0002\n" in printed
    assert main(["sweep", str(file), "--folder=s"]) == 0
    assert len(order(here)) == 6, "what is done is not done again"


def test_a_trials_metric_is_its_last_logged_value(here: Path) -> None:
    study = search(read_sweep(sweep_file(here, parameters={"x": {"values": [3.0]}})), here / "s", trials=1)
    assert study.trials[0].value == 9.0


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_draws_the_same_settings_however_often_it_stops(method: str, here: Path) -> None:
    sweep = read_sweep(sweep_file(here, method=method))
    search(sweep, here / "whole", trials=4, seed=5)
    for trials in (1, 3, 4):
        search(sweep, here / "parts", trials=trials, seed=5)
    assert order(here)[:4] == order(here)[4:]
    assert len({line.split()[1] for line in order(here)}) == 4


def start(*words: str) -> subprocess.Popen[bytes]:
    """An agent of the sweep in the current folder."""
    command = [sys.executable, "-m", "coh_lightning", "sweep", "sweep.yaml", "--folder=s", *words]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)


def hanging(here: Path, agent: subprocess.Popen[bytes]) -> int:
    """Waits until the second trial hangs; gives the process of the trial."""
    deadline = time.monotonic() + 120
    while not (here / "hanging").exists() or not (here / "hanging").read_text():
        assert agent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return int((here / "hanging").read_text())


def whole_search(here: Path) -> list[str]:
    """The order of a search that nothing interrupts; the next one hangs in its second trial."""
    search(read_sweep(sweep_file(here)), here / "whole", trials=3, seed=5)
    whole = order(here)
    (here / "order.txt").unlink()
    (here / "hang").write_text("2")
    return whole


def test_a_terminated_agent_stops_its_trial_and_the_next_agent_resumes_it(here: Path) -> None:
    whole = whole_search(here)
    sweep = read_sweep(here / "sweep.yaml")
    agent = start("--trials=3", "--seed=5")
    trial = hanging(here, agent)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(trial, 0)
    study = search(sweep, here / "s", trials=3, seed=5)
    assert order(here) == [whole[0], whole[1], whole[1], whole[2].replace("trial-0002", "trial-0003")]
    assert str(counts(study)) == "3 trials: 3 complete, 0 stopped early, 0 failed, 1 interrupted and run again"
    assert table(study, sweep)[["state", "folder"]].to_numpy().tolist()[-1] == ["interrupted", "trial-0001"]


def test_a_trial_that_outlives_its_agent_is_run_again_only_after_it_ends(here: Path) -> None:
    whole = whole_search(here)
    sweep = read_sweep(here / "sweep.yaml")
    agent = start("--trials=3", "--seed=5")
    trial = hanging(here, agent)
    agent.kill()
    agent.wait()
    study = search(sweep, here / "s", trials=3, seed=5)
    assert str(counts(study)) == "2 trials: 2 complete, 0 stopped early, 0 failed, 1 still running"
    os.kill(trial, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while counts(search(sweep, here / "s", trials=3, seed=5)).running:
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the kernel is still ending the trial
    assert order(here) == [*whole, whole[1]]
    assert str(counts(study)) == "3 trials: 3 complete, 0 stopped early, 0 failed, 1 interrupted and run again"


def test_a_trial_that_finished_after_its_agent_was_killed_is_not_run_again(here: Path) -> None:
    sweep = read_sweep(sweep_file(here, parameters={"x": {"values": [3.0]}}))
    study = search(sweep, here / "s", trials=1)
    study.ask(distributions(sweep)).set_user_attr("folder", "trial-0000")
    (here / "s" / "trial-0000" / "finished").write_text("now")
    assert [trial.value for trial in search(sweep, here / "s", trials=2).trials] == [9.0, None, 9.0]
    assert len(order(here)) == 1


def test_a_trial_that_ends_while_another_agent_looks_for_killed_ones_is_left_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = search(read_sweep(sweep_file(here)), here / "s", trials=1)
    trial = study.ask(distributions(read_sweep(sweep_file(here))))
    lock = fcntl.flock

    def ending(file: Any, how: int) -> None:  # its agent tells the study, and lets go of the log
        monkeypatch.setattr("coh_lightning.cli.sweep.fcntl.flock", lock)
        study.tell(trial, 1.0)
        lock(file, how)

    monkeypatch.setattr("coh_lightning.cli.sweep.fcntl.flock", ending)
    _requeue_killed(study, here / "s")
    assert str(counts(study)) == "2 trials: 2 complete, 0 stopped early, 0 failed"


def test_a_trial_that_is_interrupted_too_often_has_failed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.cli.sweep.INTERRUPTIONS", 0)
    sweep = read_sweep(sweep_file(here))
    study = search(sweep, here / "s", trials=1)
    study.ask(distributions(sweep))
    study = search(sweep, here / "s", trials=2)
    assert str(counts(study)) == "2 trials: 1 complete, 0 stopped early, 1 failed, 1 interrupted and run again"
    assert study.trials[-1].user_attrs["reason"] == "it was interrupted 1 time"


@pytest.mark.parametrize("method", ["grid", "random"])
def test_agents_share_a_search_and_run_every_trial_once(method: str, here: Path) -> None:
    x = {"values": [1, 2, 3, 4]} if method == "grid" else {"min": 0.0, "max": 1.0}
    file = sweep_file(here, method=method, parameters={"x": x})
    agents = [start("--trials=4") for _ in range(2)]
    assert [agent.wait(timeout=120) for agent in agents] == [0, 0]
    study = search(read_sweep(file), here / "s", trials=4)
    assert str(counts(study)) == "4 trials: 4 complete, 0 stopped early, 0 failed"
    search(read_sweep(file), here / "alone", trials=4)
    assert len(order(here)) == 8
    assert {line.split()[1] for line in order(here)[:4]} == {line.split()[1] for line in order(here)[4:]}


def test_a_trial_that_fails_is_counted_and_says_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {"x": {"values": [1, -1]}, "kind": {"values": ["nan", "a"]}}
    assert main(["sweep", str(sweep_file(here, method="grid", parameters=grid)), "--folder=s"]) == 0
    assert "4 trials: 1 complete, 0 stopped early, 3 failed" in capsys.readouterr().out
    assert [row["reason"] for row in trials_csv(here / "s")] == [
        "",
        "val/score is nan",
        "error: x is below 0",
        "error: x is below 0",
    ]


def test_three_initial_failures_end_the_search(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep_file(here, metric={"name": "val/scor", "goal": "maximize"})
    assert main(["sweep", str(file), "--folder=s"]) == 2
    assert len(order(here)) == 3
    assert (
        "the first 3 trials failed, the last with: s/trial-0002/metrics.csv has no value of val/scor; did you "
        "mean 'val/score'?" in capsys.readouterr().err
    )


def test_a_trial_that_lags_behind_is_stopped_early(here: Path) -> None:
    file = sweep_file(
        here,
        method="grid",
        parameters={"x": {"values": [1, 9]}},
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2},
    )
    (here / "hang").write_text("2")
    study = search(read_sweep(file), here / "s", trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert str(counts(study)) == "2 trials: 1 complete, 1 stopped early, 0 failed"


def test_another_sweep_does_not_resume_in_the_same_folder(here: Path) -> None:
    search(read_sweep(sweep_file(here)), here / "s", trials=1)
    with pytest.raises(
        InputError,
        match=r"contains another sweep; it differs in parameters.x.max \(was 1.0, is 2.0\); give another --folder",
    ):
        search(read_sweep(sweep_file(here, parameters={"x": {"min": 0.0, "max": 2.0}})), here / "s", trials=2)
    (here / "letters").mkdir()
    (here / "letters" / "to_anna.txt").write_text("dear Anna")
    with pytest.raises(InputError, match=r"contains no sweep, but to_anna\.txt"):
        search(read_sweep(here / "sweep.yaml"), here / "letters", trials=1)
    search(read_sweep(sweep_file(here, run_cap=9)), here / "s", trials=1)


def test_the_plots_are_written(here: Path) -> None:
    file = sweep_file(here, parameters={"x": {"min": 0.0, "max": 1.0}, "kind": {"values": ["a", "b"]}})
    assert main(["sweep", str(file), "--folder=s", "--trials=10"]) == 0
    for name in ("history", "slices", "importance"):
        assert (here / "s" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def texts(figure: Any) -> list[str]:
    """All that a figure says, checked for overlaps of the names beside its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found: list[str] = []
    for axes in figure.axes:
        for side in (axes.xaxis, axes.yaxis):
            labels = [one for one in side.get_ticklabels() if one.get_text() and one.get_visible()]
            boxes = [one.get_window_extent(renderer) for one in labels]
            edge = figure.bbox
            inside = [box for box in boxes if box.x0 >= edge.x0 - 1 and box.x1 <= edge.x1 + 1]
            assert side is axes.xaxis or len(inside) == len(boxes), "a name leaves the picture"
            for place, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[place + 1 :]), [one.get_text() for one in labels]
            found += [one.get_text() for one in labels]
        found.append(axes.get_title("left"))
    return found


def test_the_figures_of_a_search_name_every_setting_and_no_names_overlap(tmp_path: Path) -> None:
    """Long names, paths, a logarithmic scale, and the best trial in color."""
    import optuna

    from coh_lightning.cli import sweep_figures
    from coh_lightning.human_eval.figures import ACCENT, styled

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    methods = [f"conf/method/{name}.yaml" for name in ("coh", "coh_critique", "sft", "sft_all", "unlikelihood")]

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("data.wording", ["short", "a name of a wording that is far too long " * 3 + "$x$"])
        trial.suggest_float("model.lr", 1e-5, 1e-2, log=True)
        return float("critique" in trial.suggest_categorical("data.method", methods)) - trial.number / 100

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study.optimize(objective, n_trials=20)
    trials = study.get_trials()
    best = study.best_trial
    with styled():
        sliced = sweep_figures.slices(trials, ["data.wording", "model.lr", "data.method"], "val/score", best)
        said = texts(sliced)
        assert {"data.wording", "model.lr", "data.method", "0.001", "short"} <= {*said}
        assert [one for one in said if one in ("coh", "coh_critique", "sft", "sft_all", "unlikelihood")] == [
            "coh", "coh_critique", "sft", "sft_all", "unlikelihood"
        ]  # fmt: skip
        dots = sliced.axes[1].collections[0]
        assert dots.get_offsets()[-1].tolist() == [best.value, best.params["model.lr"]]
        assert [round(255 * part) for part in dots.get_facecolors()[-1][:3]] == [
            int(ACCENT[place : place + 2], 16) for place in (1, 3, 5)
        ]
        drawn = sweep_figures.history(trials, "val/score", "maximize")
        assert texts(drawn)[-1] == "val/score"
        line = drawn.axes[0].lines[0].get_ydata().tolist()
        assert line == [max(trial.values[0] for trial in trials[: place + 1]) for place in range(20)]
        assert {"model.lr", "data.method"} <= {*texts(sweep_figures.importances({"model.lr": 0.2, "data.method": 0.8}))}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"metrics": 1}, "there is no key metrics; did you mean 'metric'?"),
    "method": ({"method": "genetic"}, "method is 'genetic'; it must be grid, random or bayes."),
    "no parameters": ({"parameters": None}, "has no parameters"),
    "goal": ({"metric": {"name": "val/nll"}}, "it needs a name, and a goal (minimize or maximize)."),
    "list": (
        {"parameters": {"hide": {"values": [[0, 1]]}}},
        "parameters.hide has the value [0, 1]; quote a list or a mapping: '[0, 1]'.",
    ),
    "distribution": (
        {"parameters": {"x": {"distribution": "log_uni", "min": 0, "max": 1}}},
        "must be one of constant, categorical, q_uniform, uniform, int_uniform",
    ),
    "range": (
        {"parameters": {"x": {"min": 1, "max": 0}}},
        "parameters.x is from 1 to 0; min must be below max.",
    ),
    "log": (
        {"parameters": {"x": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
        "min must be below max and above 0.",
    ),
    "grid of a range": ({"method": "grid"}, "parameters.x is a range, but a grid needs values"),
    "command": ({"command": ["python", "train.py", "${args}"]}, "command is not `python -m coh_lightning fit`"),
    "macro": (
        {"command": ["${interpreter}", "coh_lightning", "fit", "${args_json}"]},
        "the sweep's command has ${args_json}",
    ),
    "probabilities": (
        {"parameters": {"x": {"values": [1, 2], "probabilities": [0.1, 0.9]}}},
        "parameters.x.probabilities: all values are equally likely here",
    ),
    "nested": (
        {"parameters": {"data": {"parameters": {"seed": {"value": 1}}}}},
        "parameters.data.parameters: nested parameters are written with dots",
    ),
    "key of a parameter": (
        {"parameters": {"x": {"mn": 0, "max": 1}}},
        "parameters.x: there is no key mn; did you mean 'min'?",
    ),
    "values that are no list": (
        {"parameters": {"x": {"values": 0.1}}},
        "parameters.x.values is 0.1; it must be a list, as in [0.1].",
    ),
    "no values": ({"parameters": {"x": {"values": []}}}, "parameters.x.values is []; it must be a list, as in [a, b]."),
    "value twice": ({"parameters": {"x": {"values": [1, 2, 1.0]}}}, "parameters.x has the value 1.0 twice"),
    "list as value": (
        {"parameters": {"x": {"value": [1]}}},
        "parameters.x has the value [1]; quote a list or a mapping: '[1]'.",
    ),
    "value and values": (
        {"parameters": {"x": {"value": 1, "values": [1]}}},
        "parameters.x.values: constant takes only value.",
    ),
    "text": (
        {"parameters": {"x": {"min": "1e-5", "max": 1}}},
        "parameters.x.min is '1e-5'; it must be a number (remove the quotes).",
    ),
    "boolean": ({"parameters": {"x": {"min": False, "max": 1}}}, "parameters.x.min is False; it must be a number."),
    "nan": ({"parameters": {"x": {"min": float("nan"), "max": 1}}}, "parameters.x.min is nan; it must be a number."),
    "no max": ({"parameters": {"x": {"min": 1}}}, "parameters.x has no max; uniform needs min and max."),
    "q alone": (
        {"parameters": {"x": {"min": 1, "max": 3, "q": 1}}},
        "parameters.x.q: int_uniform takes only min and max.",
    ),
    "q off": (
        {"parameters": {"x": {"distribution": "q_uniform", "min": 0.1, "max": 1, "q": 0.25}}},
        "q must be above 0 and divide min and max.",
    ),
    "exponents": (
        {"parameters": {"x": {"distribution": "log_uniform", "min": 1, "max": 5000}}},
        "log_uniform takes exponents, log_uniform_values the numbers",
    ),
    "halves": (
        {"parameters": {"x": {"distribution": "int_uniform", "min": 0.5, "max": 5}}},
        "int_uniform needs integers.",
    ),
    "target": (
        {"metric": {"name": "a", "goal": "minimize", "target": "low"}},
        "metric.target is 'low'; it must be a number.",
    ),
    "key of the metric": (
        {"metric": {"name": "a", "gaol": "minimize"}},
        "there is no key metric.gaol; did you mean 'goal'?",
    ),
    "eta": (
        {"early_terminate": {"type": "hyperband", "eta": 1}},
        "early_terminate.eta is 1; it must be an integer >= 2.",
    ),
    "run_cap": ({"run_cap": "30"}, "run_cap is '30'; it must be an integer above 0."),
    "words": ({"command": "python -m coh_lightning fit ${args}"}, "it must be a list of words."),
    "no program": ({"program": None}, "command has ${program}, but there is no program; write program: coh_lightning."),
    "name": ({"name": 5}, "name is 5; it must be text."),
    "parameters": ({"parameters": ["x"]}, "parameters is ['x']; it must be key: {values: [...]}"),
    "parameter": ({"parameters": {"x": 5}}, "parameters.x is 5; it needs value, values, or min and max."),
    "early": ({"early_terminate": {"type": "median"}}, "it may be type: hyperband, with min_iter and eta."),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_sweep_file_names_the_key(name: str, here: Path) -> None:
    changes, message = MISTAKES[name]
    with pytest.raises(InputError) as error:
        read_sweep(sweep_file(here, **changes))
    assert message in str(error.value)


def test_a_duplicate_key_in_a_sweep_file_is_refused_with_its_line(here: Path) -> None:
    file = sweep_file(here)
    file.write_text("method: grid\n" + file.read_text())
    with pytest.raises(
        InputError, match=r"sweep\.yaml:\d+: the key 'method' is set on line 1 already; leave one out\."
    ):
        read_sweep(file)


def test_the_quoted_text_in_the_error_is_yaml_for_the_value(here: Path) -> None:
    for value in ([0, 1], {"a": 1}, {"it's": ["x", None, "1"]}):
        with pytest.raises(InputError, match="quote a list or a mapping: ") as error:
            read_sweep(sweep_file(here, parameters={"x": {"values": [value]}}))
        written = str(error.value).rpartition("mapping: ")[2].removesuffix(".")
        assert load(load(written)) == value


WANDBS = {
    *(
        "constant",
        "categorical",
        "categorical_w_probabilities",
        "int_uniform",
        "uniform",
        "q_uniform",
        "log_uniform",
        "log_uniform_values",
    ),
    *(
        "q_log_uniform",
        "q_log_uniform_values",
        "inv_log_uniform",
        "inv_log_uniform_values",
        "normal",
        "q_normal",
        "log_normal",
        "q_log_normal",
    ),
    *("beta", "q_beta"),
}
"""The distributions that W&B's documentation lists."""


def test_every_wandb_distribution_is_drawn_or_refused_by_name(here: Path) -> None:
    assert set(DISTRIBUTIONS) | set(NOT_DRAWN) == WANDBS
    for kind in NOT_DRAWN:
        with pytest.raises(InputError, match=rf"parameters\.x\.distribution is '{kind}' \(which only W&B has\)"):
            read_sweep(sweep_file(here, parameters={"x": {"distribution": kind, "min": 1, "max": 2}}))


@pytest.mark.parametrize(
    ("about", "low", "high"),
    [
        ("{distribution: log_uniform, min: -9.210340371976182, max: 0}", 1e-4, 1.0),
        ("{distribution: inv_log_uniform, min: 0, max: 9.210340371976182}", 1e-4, 1.0),
        ("{distribution: inv_log_uniform_values, min: 1e-4, max: 1}", 1e-4, 1.0),
        ("{distribution: log_uniform_values, min: 1e-4, max: 1}", 1e-4, 1.0),
        ("{min: 1e-4, max: 1}", 1e-4, 1.0),
        ("{min: 1, max: 10}", 1, 10),
        ("{distribution: q_uniform, min: 0.2, max: 1, q: 0.2}", 0.2, 1.0),
    ],
)
def test_numbers_are_drawn_from_the_range_that_the_file_names(about: str, low: float, high: float, here: Path) -> None:
    import optuna

    file = sweep_file(here)
    file.write_text(
        file.read_text().split("parameters:")[0]
        + f"parameters: {{x: {about}}}\ncommand: {['${interpreter}', 'coh_lightning', 'fit', '${args}']}\n"
    )
    sweep = read_sweep(file)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = sorted(study.ask(distributions(sweep)).params["x"] for _ in range(300))
    assert low * 0.999 <= drawn[0] and drawn[-1] <= high * 1.001
    if "log" in about:  # even by the logarithm: half of them below the geometric mean
        assert 120 < sum(value < (low * high) ** 0.5 for value in drawn) < 180
    if "q:" in about:
        assert {round(value, 9) for value in drawn} == {0.2, 0.4, 0.6, 0.8, 1.0}
    if about == "{min: 1, max: 10}":
        assert set(drawn) == set(range(1, 11))


def test_trials_get_null_and_other_values_as_written(here: Path) -> None:
    parameters = {"a": {"values": [None, 1]}, "b": {"value": True}, "c": {"value": "1e-4"}, "d": {"value": 1e-4}}
    sweep = read_sweep(sweep_file(here, method="grid", parameters=parameters))
    assert command_words(sweep, {"a": None, **sweep.constants})[-4:] == [
        "--a=null",
        "--b=True",
        "--c=1e-4",
        "--d=0.0001",
    ]


def test_a_search_ends_when_the_target_is_reached(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = {"name": "val/score", "goal": "minimize", "target": 4}
    assert (
        main(
            [
                "sweep",
                str(sweep_file(here, method="grid", metric=metric, parameters={"x": {"values": [3, 2, 1]}})),
                "--folder=s",
            ]
        )
        == 0
    )
    assert "2 trials: 2 complete" in capsys.readouterr().out
    assert main(["sweep", str(here / "sweep.yaml"), "--folder=s", "--trials=0"]) == 2
    assert "--trials is 0; give a number above 0." in capsys.readouterr().err


def test_every_key_of_a_sweep_file_is_read(here: Path) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    read = read_sweep(
        sweep_file(here, name="n", project="p", entity="e", description="d", run_cap=3, early_terminate=early)
    )
    assert set(read.source) == set(KEYS)


# The files of conf/sweep/, as an agent of W&B runs them


def settings(file: Path) -> dict[str, Any]:
    """The first of each parameter's values, or the least."""
    return {
        name: about["values"][0] if "values" in about else about["min"]
        for name, about in yaml.safe_load(file.read_text())["parameters"].items()
    }


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """W&B's own agent at the moment when its service tells it to start a run; gives the process that it starts."""
    from wandb.wandb_agent import Agent

    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for name, value in {
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_RUN_ID": "",
        "WANDB_SWEEP_PARAM_PATH": "",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("COH_RUN_FOLDER", raising=False)

    def start(file: Path, run_id: str, *more: str) -> Any:
        one = Agent.__new__(Agent)
        one._in_jupyter, one._function, one._forward_signals, one._run_processes = False, None, False, {}
        one._sweep_command = [*yaml.safe_load(file.read_text())["command"], *more]
        program = yaml.safe_load(file.read_text())["program"]
        one._command_run(
            {
                "run_id": run_id,
                "program": program,
                "args": {name: {"value": value} for name, value in settings(file).items()},
            }
        )
        return one._run_processes[run_id]._popen

    return start


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_trials_command_equals_a_wandb_agents(
    file: Path, agent: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Started:
        stdin = open(os.devnull)

        def __init__(self, words: list[str], **_: Any) -> None:
            started.append(words)

    monkeypatch.setattr(subprocess, "Popen", Started)
    agent(file, "run1")
    assert started == [command_words(read_sweep(file), settings(file))]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_run_of_an_agents_command_gets_its_own_folder(
    file: Path, agent: Callable[..., Any], tmp_path: Path
) -> None:
    both = [agent(file, run_id, *TINY) for run_id in ("run1", "run2")]
    assert [process.wait(timeout=400) for process in both] == [0, 0]
    assert agent(file, "run3", *TINY).wait(timeout=400) == 0
    folders = sorted((tmp_path / "runs" / "sweep").iterdir())
    assert len(folders) == 3
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["model"]["lr"] == settings(file)["model.lr"]
        assert config["data"]["pretraining_weight"] == settings(file)["data.pretraining_weight"]
        assert config["data"]["method"]["name"] == Path(settings(file)["data.method"]).stem
        with (folder / "metrics.csv").open(newline="") as lines:
            first = next(row for row in csv.DictReader(lines) if row["val/nll"])
        assert first[read_sweep(file).metric], "the objective is logged from the first validation"
    ids = [path.name.split("-")[-1] for folder in folders for path in (folder / "wandb").glob("offline-run-*")]
    assert sorted(ids) == ["run1", "run2", "run3"]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_method_and_wording_of_a_sweep_builds(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair of them, up to the rows of the first step."""
    from coh_lightning.cli import lightning_cli as cli

    monkeypatch.chdir(ROOT)
    parameters = yaml.safe_load(file.read_text())["parameters"]
    model_class, data_class, open_classes = cli.ours()
    monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: None)
    for method in parameters["data.method"]["values"]:
        for wording in parameters["data.wording"]["values"]:
            words = [
                "fit",
                "--config=conf/quickstart.yaml",
                f"--data.method={method}",
                f"--data.wording={wording}",
                f"--trainer.default_root_dir={tmp_path}",
            ]
            words += [f"--data.fcm_range={value}" for value in parameters["data.fcm_range"]["values"]]
            monkeypatch.setattr(sys, "argv", ["coh_lightning", *words])
            monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
            built = cli.build(model_class, data_class, open_classes=open_classes)
            built.datamodule.prepare_data()
            assert len(built.datamodule.val_dataloader()) == 2, "no preference accuracy without comparisons"
            assert {"good", "bad"} <= {request.ask for request in built.datamodule.requests("validation", 1)}, (
                "no control gap without both"
            )


@pytest.mark.slow
def test_a_search_of_real_fits_is_run_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    source = yaml.safe_load((ROOT / "conf" / "sweep" / "bayes.yaml").read_text())
    (tmp_path / "short.yaml").write_text(
        yaml.safe_dump(source | {"command": [*source["command"], *TINY], "early_terminate": None})
    )
    assert main(["sweep", "short.yaml", "--trials=1"]) == 0
    assert main(["sweep", "short.yaml", "--trials=2"]) == 0
    assert "2 trials: 2 complete, 0 stopped early, 0 failed" in capsys.readouterr().out
    for folder in ("trial-0000", "trial-0001"):
        assert (tmp_path / "runs" / "sweep" / "short" / folder / "finished").exists()
        assert not (tmp_path / "runs" / "sweep" / "short" / folder / "wandb").exists()
