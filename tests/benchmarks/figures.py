"""What a comparison finds, and how it is measured: ways in turn, each repetition in a process of its own."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import statistics
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REPS = 5


@dataclass(frozen=True)
class Figure:
    """One comparison: medians of ours and of the other (time or memory; or what is done in a second), and how many
    times less time or memory ours takes (range over repetitions).
    """

    group: str
    """What is compared, with the data."""
    name: str
    """With what."""
    ours: float
    other: float
    ratio: float
    low: float
    high: float
    reps: int
    unit: str
    equal: bool
    """Whether both computed the same, which was asserted."""


def figure(
    group: str, name: str, ours: Sequence[float], other: Sequence[float], *, unit: str, equal: bool = True
) -> Figure:
    """Of repetitions measured in turn; the ratio is the median of those of the repetitions."""
    ratios = [theirs / own for own, theirs in zip(ours, other, strict=True)]
    middle = (statistics.median(ours), statistics.median(other), statistics.median(ratios))
    return Figure(
        group, name, *(_rounded(one) for one in (*middle, min(ratios), max(ratios))), len(ratios), unit, equal
    )


def in_turn(ways: Mapping[str, Callable[[], Any]], reps: int = REPS) -> dict[str, list[Any]]:
    """What each way gives in each repetition, in a fork of this process."""
    found: dict[str, list[Any]] = {name: [] for name in ways}
    for number in range(reps):
        for name, way in ways.items():
            found[name].append(in_child(way))
            print(f"  {number + 1}/{reps} {name}: {_shown(found[name][-1])}", file=sys.stderr, flush=True)
    return found


def in_child(way: Callable[[], Any]) -> Any:
    """What a function returns in a fork of this process, which must have used one thread only."""
    gc.collect()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            answer = pickle.dumps((True, way()))
        except BaseException:
            answer = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        raise RuntimeError("the measuring process was killed; memory may have run out")
    succeeded, found = pickle.loads(answer)
    if not succeeded:
        raise RuntimeError(found)
    return found


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def _shown(found: Any) -> str:
    seconds = getattr(found, "seconds", found)
    return f"{seconds:.2f} s" if isinstance(seconds, float) else str(seconds)[:60]
