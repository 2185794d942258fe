"""`coh human-eval plan`: how many prompts a study needs, by effect, power and share of ties.

    decided items (votes other than ties) for the exact two-sided sign test at 5 %
    true win share          0.55  0.575    0.6   0.65    0.7   0.75
    80 % power               820    367    210     97     54     35

The power of the exact test is a sawtooth in n, so the number given is the smallest from which the power *stays* at or
above the target: at a share of .55 it first reaches 80 % at 786 and falls below it for the last time at 819. Ties
decide nothing: divide by (1 - share of ties). One item is one prompt, however many raters it has.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from coh_lightning.intervals import Floats

SHARES = (0.55, 0.575, 0.6, 0.65, 0.7, 0.75)
POWERS = (0.8, 0.9)
ITEMS = (50, 100, 200, 500, 1000)
TIES = 0.3
ALPHA = 0.05
LARGEST = 100_000
"""Items; a study that needs more is refused."""
BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
"""Background of a label on its curve."""
STEPS = 41
"""Columns of the curves in the terminal."""


@dataclass(frozen=True)
class StudyPlan:
    """Sample sizes by [power][share]: `decided` items, and `items` including the expected ties."""

    shares: tuple[float, ...]
    powers: tuple[float, ...]
    ties: float
    """Expected share of ties, 0 to below 1."""
    alpha: float
    decided: dict[float, dict[float, int]]
    items: dict[float, dict[float, int]]
    half_widths: dict[int, float]
    """Decided items -> half width of the 95 % Wilson interval at 50 %."""


def power(n: ArrayLike, share: float, alpha: float = ALPHA) -> Floats:
    """Power of the exact two-sided sign test for a true win share, for each number n of decided items.

    >>> power(10, 0.9).round(4)   # rejects at 0, 1, 9 or 10 wins of 10: .9**10 + 10 * .9**9 * .1 + almost nothing
    np.float64(0.7361)
    """
    import numpy as np

    from coh_lightning.human_eval.statistics import needed

    special = needed("scipy.special")
    items = np.asarray(n, dtype=np.int64)  # bdtr needs integers
    # the most wins of the weaker side at which both tails together are at most alpha; -1: the test can't reject at all
    most = np.floor(special.bdtrik(alpha / 2, items, 0.5)) + 1
    for _ in range(2):  # bdtrik may round either way
        most = np.where((most >= 0) & (2 * special.bdtr(np.maximum(most, 0), items, 0.5) > alpha), most - 1, most)
    tails = special.bdtr(np.maximum(most, 0), items, share) + special.bdtr(np.maximum(most, 0), items, 1 - share)
    return np.where(most >= 0, tails, 0.0)


def smallest(share: float, mark: float, alpha: float = ALPHA) -> int:
    """The smallest number of decided items from which the power stays at or above `mark`. Raises InputError if it is
    above `LARGEST`.

    >>> smallest(0.6, 0.8), smallest(0.75, 0.9)
    (210, 42)
    """
    import numpy as np

    from coh_lightning.human_eval.statistics import needed

    special = needed("scipy.special")
    away = abs(share - 0.5)
    about = ((special.ndtri(1 - alpha / 2) / 2 + special.ndtri(mark) * math.sqrt(share * (1 - share))) / away) ** 2
    if not about < LARGEST:
        raise InputError(
            f"a true win share of {share:g} needs about {float(f'{about:.2g}'):,.0f} decided items for "
            f"{mark * 100:g} % power; plan for a larger effect."
        )
    # the teeth of the saw shrink with n: the last fall below the mark is near the normal approximation
    n = np.arange(max(1, int(0.7 * about) - 100), int(1.3 * about) + 200)
    below = np.flatnonzero(power(n, share, alpha) < mark)
    return int(n[below[-1]]) + 1 if len(below) else 1


def plan_table(
    shares: Sequence[float] = SHARES,
    powers: Sequence[float] = POWERS,
    *,
    ties: float = TIES,
    alpha: float = ALPHA,
    items: Sequence[int] = ITEMS,
) -> StudyPlan:
    """How many items each effect needs at each power, and how wide the Wilson intervals of some numbers of decided
    `items` are. `shares` are true win shares among decided votes. Raises InputError for a value outside its range.
    """
    from coh_lightning.human_eval.statistics import wilson

    for share in shares:
        if not 0.5 < share < 1:
            raise InputError(f"--shares has {share:g}; a win share to detect is above 0.5 and below 1.")
    for mark in powers:
        if not 0.05 <= mark <= 0.999:
            raise InputError(f"--power has {mark:g}; give a power between 0.05 and 0.999, such as 0.8.")
    if not 0 <= ties < 1:
        raise InputError(f"--ties is {ties:g}; give the expected share of ties, from 0 to below 1.")
    if not 1e-6 <= alpha <= 0.5:
        raise InputError(f"--alpha is {alpha:g}; give the level of the test, such as 0.05.")
    for n in items:
        if not 1 <= n <= LARGEST:
            raise InputError(f"--items has {n:,}; give numbers from 1 to {LARGEST:,}.")
    decided = {mark: {share: smallest(share, mark, alpha) for share in shares} for mark in powers}

    def with_ties(n: int) -> int:
        return math.ceil(n / (1 - ties) - 1e-9)  # the float 0.7 is below seven tenths, and 210 / 0.7 must stay 300

    every = {mark: {share: with_ties(n) for share, n in row.items()} for mark, row in decided.items()}
    widths = {n: wilson(n / 2, n).high - 0.5 for n in items}
    return StudyPlan(tuple(shares), tuple(powers), ties, alpha, decided, every, widths)


# --- as text


def plan_text(plan: StudyPlan) -> str:
    """The plan for the terminal: two tables, the half widths, and the power as curves."""
    level = f"{plan.alpha * 100:g} %"
    heads = _line("true win share", [f"{share:g}" for share in plan.shares])
    stays = "smallest n from which the power stays above the target"
    lines = [f"decided items for the exact two-sided sign test at {level} ({stays})"]

    def table(rows: Mapping[float, Mapping[float, int]]) -> list[str]:
        counts = {mark: [f"{n:,}" for n in row.values()] for mark, row in rows.items()}
        return ["", heads, *(_line(f"{mark * 100:g} % power", row) for mark, row in counts.items()), ""]

    lines += table(plan.decided)
    if plan.ties:
        lines += [f"all items, with {plan.ties * 100:g} % ties", *table(plan.items)]
    lines += ["95 % interval (Wilson) of a win share near 0.5", ""]
    lines.append(_line("decided items", [f"{n:,}" for n in plan.half_widths]))
    lines.append(_line("plus or minus", [f"{width:.3f}" for width in plan.half_widths.values()]))
    lines += ["", "power by decided items (a full block is 100 %)", "", *_curves(plan)]
    lines += ["", "An item is a prompt: more raters make its vote more reliable but don't count as more items."]
    lines.append(f"With k attributes tested together (Holm), plan with --alpha {plan.alpha:g}/k to be sure of each.")
    return "\n".join(lines)


def _line(name: str, values: Sequence[str]) -> str:
    return f"{name:<16}" + "".join(f"{value:>9}" for value in values)


def _curves(plan: StudyPlan) -> list[str]:
    """A line of blocks for each share: power over n, on a logarithmic scale."""
    import numpy as np

    first, last = 10, max(1000, max(max(row.values()) for row in plan.decided.values()))
    n = np.unique(np.round(np.geomspace(first, last, STEPS)).astype(int))
    lines = []
    for share in plan.shares:
        blocks = "".join(BLOCKS[round(float(value) * (len(BLOCKS) - 1))] for value in power(n, share, plan.alpha))
        lines.append(f"{share:<16g}{blocks}")
    middle = int(n[len(n) // 2])
    rule = f"{first}{middle:>{len(n) // 2 - 1},}{last:>{len(n) - len(n) // 2 - 1},}"
    return [*lines, f"{'items':<16}{rule}"]


# --- as a figure


def write_curve(plan: StudyPlan, path: Path) -> None:
    """Power over the number of decided items, one curve for each share, as PNG or SVG by the file's name. Raises
    InputError if matplotlib isn't installed.
    """
    from coh_lightning.human_eval.figures import save_figure, styled

    with styled():
        save_figure(_curve_figure(plan), path)


def _curve_figure(plan: StudyPlan) -> Figure:
    import numpy as np

    from coh_lightning.human_eval.figures import ACCENT, GRAY, INK, new_figure

    last = max(1000, max(max(row.values()) for row in plan.decided.values()))
    shown = np.unique(np.round(np.geomspace(10, last, 400)).astype(int))
    beyond = np.geomspace(10, 1.1 * last, 2000).astype(int)
    every = np.unique(np.concatenate([np.arange(10, min(last, 5000)), shown, beyond]))  # all visible teeth
    figure, (axes,) = new_figure(7.2, 3.9)
    for mark in plan.powers:
        axes.axhline(mark, color=GRAY, linewidth=0.8, zorder=1)
        axes.text(10, mark + 0.012, f"{mark * 100:g} %", color=INK, fontsize=8, ha="left")
    for place, share in enumerate(plan.shares):
        # the lower envelope: the power that no larger n falls below
        promised = np.minimum.accumulate(power(every, share, plan.alpha)[::-1])[::-1][np.searchsorted(every, shown)]
        axes.plot(shown, promised, color=ACCENT, alpha=0.35 + 0.65 * (place + 1) / len(plan.shares), linewidth=1.8)
        at = int(np.argmax(promised >= 0.5)) if (promised >= 0.5).any() else len(shown) - 1
        axes.text(
            shown[at], promised[at], f" {share:g} ", color=INK, fontsize=8.5, ha="center", va="center", bbox=LABEL_BOX
        )
    axes.set_xscale("log")
    ticks = [tick for tick in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000) if tick <= last]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("decided items (prompts whose vote is not a tie)")
    axes.set_title(f"Power of the exact sign test at {plan.alpha * 100:g} %, by true win share")
    return figure


def check_curve(path: Path) -> None:
    """Raises InputError for a figure with another ending or in a missing folder."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"--curve is {path}; give a name that ends in .png or .svg.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--curve is {path}, but the folder {path.parent} doesn't exist; create it first.")


# --- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval plan`."""
    for name, metavar, default, what in (
        ("--shares", "P", list(SHARES), "true win shares among decided votes (default: %(default)s)"),
        ("--power", "P", list(POWERS), "probabilities of detecting the effect (default: %(default)s)"),
        ("--ties", "SHARE", TIES, "expected share of ties (default: %(default)s)"),
        ("--alpha", "LEVEL", ALPHA, "level of the two-sided test (default: %(default)s)"),
        ("--items", "N", list(ITEMS), "numbers of decided items whose interval is given"),
    ):
        several = "+" if isinstance(default, list) else None
        kind = int if name == "--items" else float
        parser.add_argument(name, type=kind, nargs=several, default=default, metavar=metavar, help=what)
    parser.add_argument("--curve", type=Path, metavar="FILE", help="also draw the power as a curve (.png or .svg)")


def run(args: argparse.Namespace) -> int:
    """Print the plan, and draw it with --curve; returns the exit status. Raises InputError for values out of range."""
    if args.curve is not None:
        check_curve(args.curve)
    plan = plan_table(args.shares, args.power, ties=args.ties, alpha=args.alpha, items=args.items)
    print(plan_text(plan))
    if args.curve is not None:
        write_curve(plan, args.curve)
        print(f"\nwrote {args.curve}")
    return 0
