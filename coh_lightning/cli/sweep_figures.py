"""The figures of a search, in the style of a study's: the metric trial by trial, the metric of each value of a setting,
and how much each setting matters.

The metric is the horizontal axis of all of them, so that names, however long, stand beside it and never overlap.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from coh_lightning.human_eval.figures import ACCENT, GRAY, INK, MIDDLE, new_figure, plain, save_figure, styled

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

Trials = Sequence["optuna.trial.FrozenTrial"]
"""Complete ones, in their order."""


def draw_search(
    folder: Path, trials: Trials, metric: str, *, goal: str, importance: dict[str, float] | None
) -> list[Path]:
    """Writes history.png, slices.png and, where `importance` is known, importance.png; returns their paths.

    Args:
        goal: minimize or maximize.
        importance: The share of each setting.
    """
    varied = [name for name in trials[0].params if len({trial.params[name] for trial in trials}) > 1]
    best = (min if goal == "minimize" else max)(trials, key=lambda trial: trial.values[0])
    drawn = {}
    with styled():
        drawn["history"] = history(trials, metric, goal)
        drawn["slices"] = slices(trials, varied, metric, best)
        if importance is not None:
            drawn["importance"] = importances(importance)
        for name, figure in drawn.items():
            save_figure(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in drawn]


def history(trials: Trials, metric: str, goal: str) -> Figure:
    """A dot for each trial, and the best so far as a line."""
    figure, (axes,) = new_figure(7.2, 3.2)
    better = min if goal == "minimize" else max
    numbers, values = [trial.number for trial in trials], _values(trials)
    sofar = [better(values[: place + 1]) for place in range(len(values))]
    axes.step(numbers, sofar, where="post", color=ACCENT, linewidth=1.6, label="best so far", zorder=2)
    axes.scatter(numbers, values, color=MIDDLE, s=22, linewidth=0, label="trial", zorder=3)
    axes.set(title=plain(metric, 60), xlabel="trial")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.grid(axis="y", color=GRAY, linewidth=0.6)
    axes.legend(frameon=False, loc="best")
    return figure


def slices(trials: Trials, varied: Sequence[str], metric: str, best: optuna.trial.FrozenTrial) -> Figure:
    """A panel for each setting: its values, and the metric of their trials; the best trial is filled in color."""
    rows = [_names([trial.params[name] for trial in trials]) if _named(trials, name) else None for name in varied]
    heights = [0.34 * len(names) + 0.25 if names else 1.9 for names in rows]
    figure, panels = new_figure(
        7.2, sum(heights) + 0.62 * len(rows) + 0.2, rows=len(rows), sharex=True, height_ratios=heights
    )
    for axes, name, names in zip(panels, varied, rows, strict=True):
        given = [trial.params[name] for trial in trials]
        places = [list(names).index(value) for value in given] if names else given
        colors = [ACCENT if trial.number == best.number else MIDDLE for trial in trials]
        values = _values(trials)
        order = sorted(range(len(trials)), key=lambda one: trials[one].number == best.number)  # the best is drawn last
        axes.scatter(
            [values[one] for one in order],
            [places[one] for one in order],
            color=[colors[one] for one in order],
            s=[40 if trials[one].number == best.number else 22 for one in order],
            linewidth=0,
            zorder=3,
        )
        if names:
            axes.set_yticks(range(len(names)), list(names.values()))
            axes.set_ylim(len(names) - 0.45, -0.55)
        elif getattr(best.distributions[name], "log", False):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, place: f"{value:g}")  # the usual one writes formulas
            axes.minorticks_off()
        axes.set_title(plain(name, 60))
        axes.grid(axis="x", color=GRAY, linewidth=0.6)
        axes.tick_params(axis="x", labelbottom=axes is panels[-1])
    panels[-1].set_xlabel(plain(metric, 60))
    return figure


def importances(shares: dict[str, float]) -> Figure:
    """A bar for each setting, the most important first."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    figure, (axes,) = new_figure(7.2, 0.36 * len(ordered) + 0.75)
    axes.barh(range(len(ordered)), [share for _, share in ordered], color=ACCENT, height=0.62, linewidth=0)
    for place, (_, share) in enumerate(ordered):
        axes.text(share, place, f" {share:.0%}", va="center", color=INK)
    axes.set_yticks(range(len(ordered)), [plain(name, 44) for name, _ in ordered])
    axes.set_ylim(len(ordered) - 0.45, -0.55)
    axes.set_xlim(0, 1.12 * max(1e-9, ordered[0][1]))
    axes.set_xticks([])
    axes.set_title("how much each setting matters (PED-ANOVA)")
    return figure


def _values(trials: Trials) -> list[float]:
    return [trial.values[0] for trial in trials]


def _named(trials: Trials, name: str) -> bool:
    """Whether a setting's values are names, not numbers on a scale."""
    return type(trials[0].distributions[name]).__name__ == "CategoricalDistribution"


def _names(values: Sequence[Any]) -> dict[Any, str]:
    """Each value with its name: of paths in one folder, the last part without the ending.

    conf/method/coh.yaml, conf/method/sft.yaml   ->   coh, sft
    """
    distinct = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    texts = [str(value) for value in distinct]
    paths = [PurePosixPath(text) for text in texts]
    if all("/" in text for text in texts) and len({(path.parent, path.suffix) for path in paths}) == 1:
        texts = [path.stem for path in paths]
    elif all("/" in text for text in texts):
        texts = [os.path.relpath(text, os.path.commonpath(texts)) for text in texts]
    return {value: plain(text, 44) for value, text in zip(distinct, texts, strict=True)}
