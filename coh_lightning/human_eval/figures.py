"""The figures of a human study, from the numbers of its report. One accent color is the model's; the rest is gray.

Drawn without pyplot, with names as plain text: a system called `$x$` is not a formula.
"""

from __future__ import annotations

import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT, INK, GRAY, MIDDLE, PALE, SOFT = "#0b7285", "#343a40", "#ced4da", "#6c757d", "#e9ecef", "#5c636a"
"""Each has its counterpart in dark mode, `pages.page.DARK`."""
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,
    "svg.hashsalt": "coh_lightning",
    "svg.fonttype": "path",
}
DOTS_PER_INCH = 160
LONGEST_NAME = 28


def draw_figures(numbers: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draw what the numbers of a report allow into the folder, as PNG and SVG; returns name -> caption."""
    analysis = numbers["analyses"]["all"]
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, tuple[Callable[[Mapping[str, Any]], Figure], str]] = {
        "votes": (
            votes_figure,
            "Percent of votes for each side; the lines are 95 % intervals (over prompts) of the outer shares.",
        ),
        "win_rates": (
            win_rates_figure,
            "Win rate of the model with 95 % intervals over prompts: ties as half a win (filled), ties left out "
            "(open).",
        ),
        "position_length": (
            position_length_figure,
            "Left: how often the left answer won. Right: win rate of the model, ties as half, by how many characters "
            "its answer is longer than the baseline's.",
        ),
    }
    if analysis["ranking"] and any("systems" in entry for entry in analysis["ranking"].values()):
        drawn["ranking"] = (
            ranking_figure,
            "Expected win rate against each of the others equally often, ties as half (Bradley-Terry with ties), "
            "with 95 % intervals over prompts.",
        )
    for name in ("votes", "win_rates", "position_length", "ranking"):
        for ending in (".png", ".svg"):
            if name in drawn:
                with styled():
                    save_figure(drawn[name][0](analysis), folder / f"{name}{ending}")
            else:
                (folder / f"{name}{ending}").unlink(missing_ok=True)
    return {name: words for name, (_, words) in drawn.items()}


def styled() -> AbstractContextManager[None]:
    """The style of all figures; a figure is made and saved within it."""
    from coh_lightning.human_eval.statistics import needed

    context: AbstractContextManager[None] = needed("matplotlib").rc_context(STYLE)
    return context


def new_figure(width: float, height: float, panels: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure of this size in inches, with panels side by side and a frame only below."""
    from coh_lightning.human_eval.statistics import needed

    figure = needed("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(options.pop("rows", 1), panels, squeeze=False, **options)
    for axes in grid.flat:
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
    return figure, list(grid.flat)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its file's ending; the same figure gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with atomic_write(path) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the tables have the name itself
        figure.savefig(aside, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")


# --- the figures


def votes_figure(analysis: Mapping[str, Any]) -> Figure:
    """A bar for each attribute: baseline, tie, model; lines at the two bounds are the intervals of the outer shares."""
    pairs = analysis["pairs"]
    rows = [_rows(pair) for pair in pairs]
    figure, grid = new_figure(
        7.2,
        sum(0.42 * len(each) + 0.95 for each in rows) + 0.1,
        rows=len(pairs),
        height_ratios=[len(each) + 1.6 for each in rows],
    )
    for axes, pair, entries in zip(grid, pairs, rows, strict=True):
        for place, (_, entry) in enumerate(entries):
            start = 0.0
            for side, color, ink in (("baseline", MIDDLE, "white"), ("tie", PALE, INK), ("model", ACCENT, "white")):
                width = entry["percent"][side]
                axes.barh(place, width, left=start, height=0.66, color=color, linewidth=0)
                if width >= 5:
                    at = {"baseline": 1.2, "tie": start + width / 2, "model": 98.8}[side]
                    align = {"baseline": "left", "tie": "center", "model": "right"}[side]
                    axes.text(at, place - 0.02, f"{width:.0f}", color=ink, ha=align, va="center", fontsize=9, zorder=3)
                start += width
            for side, bound in (("baseline", lambda share: 100 * share), ("model", lambda share: 100 - 100 * share)):
                _, low, high = _triple(entry["share"][side])
                if low is not None and high is not None:
                    below = place + (0.2 if side == "baseline" else -0.2)  # apart, where ties are few
                    ends = [bound(low), bound(high)]
                    for color, wide in (("white", 3.0), (INK, 1.3)):  # a rim, or bars of the line's own color hide it
                        axes.plot(ends, [below, below], color=color, linewidth=wide, solid_capstyle="butt", zorder=4)
        _name_rows(axes, [name for name, _ in entries])
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{plain(pair['baseline'])}", loc="left", color=MIDDLE)
        axes.set_title("tie", loc="center", color=SOFT)
        axes.set_title(f"{plain(pair['model'])}", loc="right", color=ACCENT)
    return figure


def win_rates_figure(analysis: Mapping[str, Any]) -> Figure:
    """A forest: for each attribute the win rate both ways, beside the line of no difference."""
    pairs = analysis["pairs"]
    rows = [_rows(pair) for pair in pairs]
    figure, grid = new_figure(
        7.2,
        sum(0.45 * len(each) + 0.9 for each in rows) + 0.35,
        rows=len(pairs),
        sharex=True,
        height_ratios=[len(each) + 1.4 for each in rows],
    )
    limits = _limits([entry[kind] for each in rows for _, entry in each for kind in ("ties_as_half", "ties_excluded")])
    for axes, pair, entries in zip(grid, pairs, rows, strict=True):
        for place, (_, entry) in enumerate(entries):
            _mark(axes, _percent(entry["ties_as_half"]), place - 0.13, ACCENT)
            _mark(axes, _percent(entry["ties_excluded"]), place + 0.17, ACCENT, filled=False)
        _name_rows(axes, [name for name, _ in entries])
        _percent_axis(axes, limits)
        axes.set_title(f"win rate of {plain(pair['model'])} over {plain(pair['baseline'])}")
    grid[-1].set_xlabel("●  ties as half a win      ○  ties left out")
    return figure


def position_length_figure(analysis: Mapping[str, Any]) -> Figure:
    """Left-win rate by attribute; win rate by tercile of the length difference."""
    position, pairs = analysis["position"], analysis["pairs"]
    sides = [
        *((plain(name), entry) for name, entry in position["attributes"].items()),
        ("all, by row", position["rows"]),
    ]
    several = len(pairs) > 1
    thirds = []
    for pair in pairs:
        for third in pair["length"]["terciles"]:
            extent = " {:+,} to {:+,}".format(*third["longer_by"]) if third["longer_by"] and not several else ""
            who = f"{plain(pair['model'], 14)} / {plain(pair['baseline'], 14)}  "
            name = "middle" if third["name"] == "alike" else third["name"]
            label = (who if several and name == "shorter" else "") + name + extent
            thirds.append((label, third["ties_as_half"]))
    figure, (left, right) = new_figure(8.2, max(2.2, 0.34 * max(len(sides), len(thirds)) + 0.9), 2)
    limits = _limits([entry for _, entry in [*sides, *thirds]], around=12)
    for axes, rows, title in ((left, sides, "left answer wins"), (right, thirds, "model wins, by thirds of length")):
        for place, (_, entry) in enumerate(rows):
            _mark(axes, _percent(entry), place, ACCENT if axes is right else INK if place == len(rows) - 1 else MIDDLE)
        _name_rows(axes, [name for name, _ in rows], after=len(rows) - 1 if axes is left else None)
        _percent_axis(axes, limits)
        axes.set_title(title)
    for place in range(3, len(thirds), 3):
        right.axhline(place - 0.5, color=GRAY, linewidth=0.8)
    return figure


def ranking_figure(analysis: Mapping[str, Any]) -> Figure:
    """A panel for each attribute, systems by strength."""
    ranked = {name: entry["systems"] for name, entry in analysis["ranking"].items() if "systems" in entry}
    across = min(3, len(ranked))
    down = -(-len(ranked) // across)
    systems = len(next(iter(ranked.values())))
    figure, grid = new_figure(2.7 * across + 0.6, (0.4 * systems + 0.85) * down + 0.2, across, rows=down, sharex=True)
    limits = _limits([entry["win_rate"] for entries in ranked.values() for entry in entries], around=15)
    for axes, (attribute, entries) in zip(grid, ranked.items(), strict=False):
        for place, entry in enumerate(entries):
            _mark(axes, _percent(entry["win_rate"]), place, ACCENT if place == 0 else MIDDLE)
        _name_rows(axes, [plain(entry["system"], 18) for entry in entries])
        _percent_axis(axes, limits)
        axes.set_title(plain(attribute))
    for axes in grid[len(ranked) :]:
        axes.set_visible(False)
    return figure


# --- their parts


def plain(name: str, longest: int = LONGEST_NAME) -> str:
    """A name on one line without control characters, shortened."""
    seen = "".join(" " if unicodedata.category(each).startswith(("C", "Z")) else each for each in name)
    if len(seen.split()) > 1:
        return textwrap.shorten(seen, longest, placeholder="…")
    return seen if len(seen) <= longest else seen[: longest - 1] + "…"


def _rows(pair: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The attributes of a pair, and their average where there are several."""
    rows = [(plain(name), entry) for name, entry in pair["attributes"].items()]
    return [*rows, ("average", pair["average"])] if len(rows) > 1 else rows


def _name_rows(axes: Axes, names: Sequence[str], after: int | None = None) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    after = names.index("average") if after is None and "average" in names else after
    if after:
        axes.axhline(after - 0.5, color=GRAY, linewidth=0.8)


def _triple(interval: Mapping[str, Any]) -> list[float | None]:
    return [interval[name] for name in ("value", "low", "high")]


def _percent(interval: Mapping[str, Any]) -> list[float | None]:
    return [None if value is None else 100 * value for value in _triple(interval)]


def _mark(axes: Axes, interval: Sequence[float | None], place: float, color: str, *, filled: bool = True) -> None:
    """A dot with its interval, if there is a number."""
    value, low, high = interval
    if value is None:
        return
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=color, linewidth=1.6, solid_capstyle="butt", zorder=4)
    face = color if filled else "white"
    axes.plot(value, place, "o", markersize=6, color=color, markerfacecolor=face, markeredgewidth=1.4, zorder=5)


def _percent_axis(axes: Axes, limits: tuple[float, float]) -> None:
    """Percent from left to right, with a line at 50 behind the marks."""
    axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")


def _limits(intervals: Sequence[Mapping[str, Any]], around: float = 10) -> tuple[float, float]:
    """Percent limits around all intervals and 50."""
    values = [value for interval in intervals for value in _percent(interval) if value is not None]
    low = min([50 - around, *(value - 3 for value in values)])
    high = max([50 + around, *(value + 3 for value in values)])
    return max(-2.0, low), min(102.0, high)
