"""The table of means above the samples: a row for each condition, a column for each measure, in each cell the newest
mean and its line over the rounds.

    sentence      reward          tokens
    good          0.912  ╱‾‾╲_    48.0  ____╱
    bad           0.401  ‾‾╲__    51.5  ‾‾╲╱‾
    good − bad   +0.511  __╱‾‾    −3.50 ──────     the mean over the prompts that have both
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.samples import Column, Round, finite_scores
from coh_lightning.intervals import compared_with

FAMILIES = ("good", "bad", "refined")
"""First words of the conditions that have a color of their own."""

Measure = Callable[[Completion], float | None]
"""A number of a completion, None where it has none."""
Series = Sequence[float | None]
"""The mean of one condition and measure in each round, the oldest first."""


@dataclass(frozen=True)
class Line:
    """A picture of a series, 88 by 26: lines through neighboring points, dots at the newest and at isolated ones."""

    words: str
    runs: Sequence[Sequence[tuple[str, str]]]
    dots: Sequence[tuple[str, str]]
    zero: str | None
    """The height of 0, where it is drawn."""


@dataclass(frozen=True)
class Cell:
    family: str
    newest: str
    line: Line | None


@dataclass(frozen=True)
class MeansRow:
    ask: str
    marker: str
    """The feedback sentence, if all completions of the condition have the same one."""
    cells: Sequence[Cell]


@dataclass(frozen=True)
class RoundRow:
    """All means of one condition in one round."""

    label: str
    ask: str
    numbers: Sequence[str]


@dataclass(frozen=True)
class Means:
    names: Sequence[str]
    """The measures."""
    conditions: Sequence[MeansRow]
    gaps: Sequence[MeansRow]
    every: Sequence[RoundRow]


def means_of(rounds: Sequence[Round], asks: Sequence[str]) -> Means:
    """The table; `rounds` are the newest first."""
    rounds = list(reversed(rounds))
    labels = [round.label for round in rounds]
    measures = _measures(rounds)
    means = {ask: {name: _means(rounds, ask, measure) for name, measure in measures.items()} for ask in asks}
    gaps = {
        f"{ask} − {other}": {name: _gaps(rounds, ask, other, measure) for name, measure in measures.items()}
        for ask in asks
        if (other := compared_with(ask)) is not None and other in asks
    }
    every = []
    for number, round in reversed(list(enumerate(rounds))):
        for ask in asks:
            count = sum(len(column.get(ask, ())) for column in round.prompts.values())
            numbers = [f"{count:,}", *(short_number(series[number]) for series in means[ask].values())]
            every.append(RoundRow(round.label, ask, numbers))
    return Means(
        list(measures),
        [MeansRow(ask, _marker(rounds, ask), cells) for ask, cells in _cells(means, labels, zero=False)],
        [MeansRow(pair, "", cells) for pair, cells in _cells(gaps, labels, zero=True)],
        every,
    )


def family(ask: str) -> str:
    """What decides the color of a condition."""
    head = ask.partition(" ")[0]
    return head if head in FAMILIES else "other"


def short_number(value: float | None) -> str:
    """About three digits, in as many decimals for all numbers of one size.

    >>> short_number(0.5), short_number(-12.34), short_number(12345.6), short_number(0.0001)
    ('0.500', '−12.3', '12,346', '0.0001')
    """
    if value is None:
        return "–"
    size = abs(value)
    if 0 < size < 0.0005:
        shown = f"{size:.1g}"
    elif size < 100:
        shown = f"{size:.{3 if size <= 1 else 2 if size < 10 else 1}f}"
    else:
        shown = f"{size:,.0f}"
    return f"−{shown}" if value < 0 else shown


def _measures(rounds: Sequence[Round]) -> dict[str, Measure]:
    """What is averaged, by name: each score, and where the completions have them, the length and how they ended."""
    every = [one for round in rounds for one in round.completions]
    measures: dict[str, Measure] = {}
    for name in dict.fromkeys(name for one in every for name in finite_scores(one)):
        measures[name] = lambda one, name=name: finite_scores(one).get(name)  # type: ignore[misc]
    if any(one.completion_tokens for one in every):
        measures[_free("tokens", measures)] = lambda one: float(one.completion_tokens)
    if any(one.stop for one in every):
        measures[_free("ended by itself", measures)] = lambda one: float(one.stop == "end")
    return measures


def _free(name: str, taken: Iterable[str]) -> str:
    # a score may have that name
    return f"{name} (counted)" if name in taken else name


def _means(rounds: Sequence[Round], ask: str, measure: Measure) -> Series:
    return [_mean(measure(one) for column in round.prompts.values() for one in column.get(ask, ())) for round in rounds]


def _gaps(rounds: Sequence[Round], ask: str, other: str, measure: Measure) -> Series:
    """The mean, over the prompts that have both, of the difference of their means."""

    def gap(column: Column) -> float | None:
        one, two = (_mean(map(measure, column.get(each, ()))) for each in (ask, other))
        return None if one is None or two is None else one - two

    return [_mean(map(gap, round.prompts.values())) for round in rounds]


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


def _marker(rounds: Sequence[Round], ask: str) -> str:
    markers = {one.marker for round in rounds for one in round.completions if one.ask == ask}
    return markers.pop() if len(markers) == 1 else ""


def _cells(
    rows: Mapping[str, Mapping[str, Series]], labels: Sequence[str], *, zero: bool
) -> Iterator[tuple[str, list[Cell]]]:
    """The cells of each row. All rows share one scale for each measure, which includes 0 if `zero`."""
    for row, means in rows.items():
        cells = []
        for name, series in means.items():
            points = [point for other in rows.values() for point in other[name] if point is not None]
            points += [0.0] if zero else []
            line = _line(series, labels, min(points), max(points), zero=zero) if len(series) > 1 and points else None
            newest = short_number(series[-1])
            positive = zero and series[-1] is not None and series[-1] > 0
            cells.append(Cell("" if zero else family(row), f"+{newest}" if positive else newest, line))
        yield row, cells


def _line(series: Series, labels: Sequence[str], low: float, high: float, *, zero: bool) -> Line:
    def height(value: float) -> str:
        return f"{23 - 20 * ((value - low) / (high - low) if high > low else 0.5):.1f}"

    runs: list[list[tuple[str, str]]] = [[]]
    for number, value in enumerate(series):
        if value is not None:
            runs[-1].append((f"{3 + 82 * number / (len(series) - 1):.1f}", height(value)))
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    shown = ["none" if value is None else short_number(value) for value in series]
    words = ", ".join(f"{label}: {value}" for label, value in zip(labels, shown, strict=True))
    dots = [run[-1] for run in runs if len(run) == 1 or run is runs[-1]]
    return Line(words, runs, dots, height(0.0) if zero else None)
