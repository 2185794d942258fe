"""Paths: how a mapping refers to a value in a row::

    question                   the column of this name
    annotations.honesty.0      a key in an object, and there the first element of a list
    conversation.-1.content    a negative place counts from the end of the list
    conversation.:-1           all elements but the last (as Python's slices)
    feedback.*.score           of each element of a list, or each value of an object: a list of as many values
    systems."gpt-3.5".text     a key with dots, or *, in single or double quotes (doubled inside)

A column whose whole name is the path takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from coh_lightning.errors import InputError, a_kind, did_you_mean, named
from coh_lightning.feedback.sources.base import column

_QUOTED = re.compile(r'"((?:[^"]|"")*)"(?=\.|$)|' + r"'((?:[^']|'')*)'(?=\.|$)")
_PLACE = re.compile(r"-?\d{1,9}", re.ASCII)
_SLICE = re.compile(r"(-?\d{1,9})?:(-?\d{1,9})?", re.ASCII)


class Step(NamedTuple):
    name: str
    literal: bool = False
    """It was quoted, so it is a key."""

    @property
    def every(self) -> bool:
        return self.name == "*" and not self.literal


@lru_cache(maxsize=4096)
def steps_of(path: str) -> tuple[Step, ...]:
    """The steps of a path. Raises InputError for an unclosed quote."""
    steps = []
    start = 0
    while start <= len(path):
        if path[start : start + 1] in ('"', "'"):
            quoted = _QUOTED.match(path, start)
            if quoted is None:
                raise InputError(f"the path {path!r:.80} has a quote at character {start + 1} that is not closed.")
            mark = path[start]
            steps.append(Step(quoted[0][1:-1].replace(mark * 2, mark), literal=True))
            start = quoted.end() + 1
        else:
            stop = path.find(".", start)
            stop = len(path) if stop < 0 else stop
            steps.append(Step(path[start:stop]))
            start = stop + 1
    return tuple(steps)


def has_column(row: Mapping[str, Any], path: str) -> bool:
    """Whether the row has the column that the path begins with."""
    return path in row or steps_of(path)[0].name in row


def value_at(item: Any, path: str, where: str) -> Any:
    """The value at a path of a row, or of an element of one. A path through a null gives None.

        {"a": [{"b": 1}, null, {"b": 3}]}
        a.0.b -> 1      a.-1.b -> 3      a.*.b -> [1, None, 3]      a.:1 -> [{"b": 1}]

    Raises:
        InputError: a missing name or place, with the nearest name; an unclosed quote.
    """
    if isinstance(item, Mapping) and path in item:
        return item[path]
    return _walk(item, steps_of(path), [], path, where)


def _walk(value: Any, steps: Sequence[Step], done: list[str], path: str, where: str) -> Any:
    """The value that the steps lead to from `value`, to which the steps `done` have led."""
    for depth, step in enumerate(steps):
        if value is None:
            return None
        a_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        if step.every and (a_list or isinstance(value, Mapping)):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            rest = steps[depth + 1 :]
            found = [_walk(one, rest, [*done, str(key)], path, where) for key, one in inner]
            if not any(later.every for later in rest):
                return found
            return [one for some in found for one in (some if isinstance(some, list) else [some])]
        if isinstance(value, Mapping):
            if done and step.name not in value:
                near = did_you_mean(step.name, map(str, value))
                raise InputError(f"{where}: {_so_far(done)} has no {step.name!r:.60}{near}")
            value = column(value, step.name, where)
        elif a_list and not step.literal and _PLACE.fullmatch(step.name):
            if not -len(value) <= int(step.name) < len(value):
                wanted = f"{named(path)} needs element {step.name} (counted from 0)"
                raise InputError(f"{where}: {_so_far(done)} has {len(value)} elements; {wanted}.")
            value = value[int(step.name)]
        elif a_list and not step.literal and step.name != ":" and (bounds := _SLICE.fullmatch(step.name)):
            value = list(value[slice(*(None if bound is None else int(bound) for bound in bounds.groups()))])
        else:
            place = _so_far(done) or "the element"
            raise InputError(f"{where}: {place} is {a_kind(value)}, which has no {step.name!r:.60}.")
        done = [*done, step.name]
    return value


def _so_far(done: Sequence[str]) -> str:
    return ".".join(map(named, done))
