"""What the benchmarks of writing and scoring share: ways to do one thing, run in turn, and their ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

REPS = 5


def timed(ways: Mapping[str, Callable[[], Any]], reps: int = REPS) -> dict[str, list[float]]:
    """Seconds of the processor that each way takes, in `reps` rounds of all ways in turn (one thread)."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(reps):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return seconds


def row(name: str, ours: list[float], other: list[float], *, amount: float, unit: str, equal: bool) -> dict[str, Any]:
    """`amount` of `unit` in the seconds of each round: rates, the ratio of the medians, and the range of the rounds."""
    ratios = [theirs / own for own, theirs in zip(ours, other, strict=True)]
    return {
        "name": name,
        "ours": amount / statistics.median(ours),
        "other": amount / statistics.median(other),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "reps": len(ratios),
        "unit": unit,
        "equal": equal,
    }


def show(rows: list[dict[str, Any]]) -> None:
    for one in rows:
        equal = "" if one["equal"] else "   NOT EQUAL"
        print(
            f"{one['name']:<62} {one['ours']:8.1f} {one['other']:8.1f} {one['unit']:<9} "
            f"{one['ratio']:5.2f} [{one['low']:.2f}, {one['high']:.2f}] of {one['reps']}{equal}"
        )
