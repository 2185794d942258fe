"""The coordinates of the report's pictures, which the page draws as SVG in its own colors, light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEFT, RIGHT, WIDTH, ROW, TOP = 210, 24, 720, 24, 34
"""Pixels: at most of the labels, the right margin, the whole width; the height of a row; the head."""
LETTER = 8
"""Pixels of a letter, rather too many than too few."""


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`.

    >>> ticks(0.78, 0.93)
    [0.75, 0.8, 0.85, 0.9, 0.95]
    """
    span = max(high - low, 1e-6) / (number - 1)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, last + 1)]


def label(value: float) -> str:
    return f"{value:g}".replace("0.", ".", 1) if 0 < abs(value) < 1 else f"{value:g}"


def dots(title: str, entries: Sequence[tuple[str, Mapping[str, Any] | None]], baseline: str) -> dict[str, Any]:
    """A row for each method with its mean and interval; a vertical line at the baseline's mean."""
    known = [(name, found) for name, found in entries if found is not None]
    bounds = [
        value for _, found in known for value in (found["mean"], found["low"], found["high"]) if value is not None
    ]
    marks = ticks(min(bounds), max(bounds))
    span = (marks[-1] - marks[0]) or 1.0
    left = min(LEFT, 20 + LETTER * max(len(name) for name, _ in known))

    def x(value: float) -> float:
        return round(left + (value - marks[0]) / span * (WIDTH - left - RIGHT), 1)

    rows = []
    for place, (name, found) in enumerate(known):
        has = found["low"] is not None
        low, high = (x(found[key]) if has else x(found["mean"]) for key in ("low", "high"))
        text = f"{name}: {found['mean']:.3f}" + (f", from {found['low']:.3f} to {found['high']:.3f}" if has else "")
        rows.append(
            {
                "name": name,
                "y": TOP + ROW * place + ROW / 2,
                "x": x(found["mean"]),
                "low": low,
                "high": high,
                "text": text,
            }
        )
    line = [row["x"] for row in rows if row["name"] == baseline]
    return {
        "title": title,
        "width": WIDTH,
        "height": TOP + ROW * len(rows) + 28,
        "bottom": TOP + ROW * len(rows),
        "top": TOP,
        "left": left,
        "ticks": [{"x": x(one), "text": label(one)} for one in marks],
        "rows": rows,
        "baseline": line[0] if line else None,
    }


def lines(axis: Mapping[str, Any]) -> dict[str, Any]:
    """The score of each method against a setting of the worlds; settings are equally spaced."""
    height, left, top, right = 300, 56, 16, 170
    values = sorted({point["x"] for each in axis["lines"].values() for point in each})
    points = [point for each in axis["lines"].values() for point in each]
    bounds = [value for one in points for value in (one["mean"], one["low"], one["high"]) if value is not None]
    marks = ticks(min(bounds), max(bounds))

    def x(value: float) -> float:
        place = values.index(value) / max(1, len(values) - 1) if len(values) > 1 else 0.5
        return round(left + place * (WIDTH - left - right), 1)

    def y(value: float) -> float:
        return round(top + (marks[-1] - value) / ((marks[-1] - marks[0]) or 1.0) * height, 1)

    drawn = []
    for number, (name, each) in enumerate(axis["lines"].items()):
        shift = (number - (len(axis["lines"]) - 1) / 2) * 4  # intervals beside each other
        spots = [
            {
                "x": x(one["x"]) + shift,
                "y": y(one["mean"]),
                "low": y(one["mean"] if one["low"] is None else one["low"]),
                "high": y(one["mean"] if one["high"] is None else one["high"]),
                "text": f"{name}, {label(one['x'])}: {one['mean']:.3f}",
            }
            for one in each
        ]
        path = " ".join(f"{spot['x']},{spot['y']}" for spot in spots)
        drawn.append({"name": name, "color": number % 6, "points": path, "spots": spots, "at": spots[-1]["y"]})
    _apart(drawn)
    return {
        "title": axis["name"],
        "temperature": axis["temperature"],
        "width": WIDTH,
        "height": top + height + 40,
        "bottom": top + height,
        "left": left,
        "right": WIDTH - right,
        "xs": [{"x": x(one), "text": label(one)} for one in values],
        "ys": [{"y": y(one), "text": label(one)} for one in marks],
        "lines": drawn,
    }


def _apart(drawn: Sequence[dict[str, Any]]) -> None:
    """Moves the names at the ends of lines so that they don't overlap."""
    before = -math.inf
    for one in sorted(drawn, key=lambda one: one["at"]):
        one["at"] = round(max(one["at"], before + 15), 1)
        before = one["at"]
