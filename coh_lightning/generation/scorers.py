"""Scorers and critics: functions that rate a completion by itself, found by their import path.

    scorer       Completion -> {"polite": 0.8, "polite_words": 3}     `package.module:function`, or `world`
    batched      [Completion, ...] -> [{...}, ...]                    a function with the attribute `batched = True`
    critic       Completion -> "it leaves out the reason"             for rounds of refinement

What they return is checked here, once: finite numbers under the same names for each completion. reward_model.py has a
batched scorer.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from coh_lightning.errors import InputError, counted, did_you_mean, listed, shown
from coh_lightning.feedback.completions import Completion
from coh_lightning.worlds import import_path

TAKEN = ("tokens", "words", "repetition", "ended", "empty", "rouge1", "rouge2", "rougeL", "rouge", "distinct", "copied")
"""Names of the figures of every completion, which no score may have."""

Scorer = Callable[[Sequence[Completion]], Sequence[Mapping[str, float]]]
"""Completions -> a mapping name -> score for each."""


def load_scorer(path: str) -> Scorer:
    """A scorer by its import path, `package.module:function`, or `world`. Raises InputError if it doesn't exist."""
    path = import_path("scorer", path)
    return CheckedScorer(path, _load(path, ["world"]))


def load_critic(path: str) -> Callable[[Completion], str]:
    """A critic (Completion -> a remark on it) by its import path, or `world`. Raises InputError like `load_scorer`."""
    function = _load(import_path("critic", path), ["world", "self"])

    def critic(completion: Completion) -> str:
        remark = _call(function, completion, path, completion.id)
        if not isinstance(remark, str) or not remark.strip():
            what = f"The critic {path} returned {shown(remark)} for the completion '{completion.id}'"
            raise InputError(f"{what}; it must return text that is not empty.")
        return remark.strip()

    return critic


def score(completions: Sequence[Completion], scorer: Scorer) -> list[Completion]:
    """The completions with the scorer's numbers added. Raises InputError for a name that is taken."""
    scored: list[Completion] = []
    for completion, scores in zip(completions, scorer(completions), strict=True):
        for key in scores:
            if key in TAKEN or key in completion.scores:
                whose = "a figure of every completion" if key in TAKEN else "an earlier scorer"
                name = getattr(scorer, "name", type(scorer).__name__)
                what = f"The scorer {name} returned '{key}' for the completion '{completion.id}'"
                raise InputError(f"{what}, but {whose} has that name; choose another one.")
        scored.append(replace(completion, scores={**completion.scores, **scores}))
    return scored


@dataclass
class CheckedScorer:
    """A function that scores, and the check of its results.

    The function takes a Completion and returns a mapping of names to numbers, with the same names each time. With the
    attribute `batched = True` it takes a list of completions and returns a list of mappings.
    """

    name: str
    function: Callable[..., Any]
    names: frozenset[str] | None = field(default=None, init=False)
    """Those that it returned first."""

    def __call__(self, completions: Sequence[Completion]) -> list[dict[str, float]]:
        """Raises InputError for a result that is not a mapping of the same names as before to finite numbers."""
        if not completions:
            return []
        if getattr(self.function, "batched", False):
            every = f"{completions[0].id}' to '{completions[-1].id}"
            given = _call(self.function, list(completions), self.name, every)
        else:
            given = [_call(self.function, one, self.name, one.id) for one in completions]
        if not isinstance(given, Sequence) or len(given) != len(completions):
            count = counted(len(given), "result") if isinstance(given, Sequence) else shown(given)
            what = f"The scorer {self.name} returned {count} for {len(completions)} completions"
            raise InputError(f"{what}; a batched scorer returns a list with a mapping for each.")
        return [self._checked(scores, one) for scores, one in zip(given, completions, strict=True)]

    def _checked(self, scores: Any, completion: Completion) -> dict[str, float]:
        where = f"for the completion '{completion.id}'"
        if not isinstance(scores, Mapping):
            what = f"The scorer {self.name} returned {shown(scores)} {where}"
            raise InputError(f"{what}; it must return a mapping of names to numbers.")
        for key in scores:
            if not isinstance(key, str) or not key.strip() or "/" in key:
                what = f"The scorer {self.name} returned a score named {shown(key)}"
                raise InputError(f"{what}; a name is text without '/', which loggers read as a folder.")
        self.names = frozenset(scores) if self.names is None else self.names
        if frozenset(scores) != self.names:
            now, before = (listed(sorted(keys)) or "none" for keys in (scores, self.names))
            what = f"The scorer {self.name} returned the names {now} {where}, but {before} before"
            raise InputError(f"{what}; it must return the same names each time.")
        return {key: self._finite(value, key, completion) for key, value in scores.items()}

    def _finite(self, value: Any, key: str, completion: Completion) -> float:
        # a tensor or an array of one number counts as a number; numpy's own numbers are `numbers.Real`
        is_array = not isinstance(value, numbers.Real) and hasattr(value, "item") and getattr(value, "size", None)
        number = value.item() if is_array else value
        if not isinstance(number, numbers.Real) or not math.isfinite(number):
            what = f"The scorer {self.name} returned {shown(value)} as '{key}' of the completion '{completion.id}'"
            raise InputError(f"{what}; a score must be a finite number.")
        return float(number)


def _load(path: str, short: Sequence[str]) -> Callable[..., Any]:
    """The function at an import path; `short` are names that stand for one. A module that fails to import keeps its own
    error, which is for its author.
    """
    module_name, _, attribute = path.rpartition(":" if ":" in path else ".")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not re.fullmatch(r"\w+(\.\w+)*", attribute):
        near = did_you_mean(path, short)
        raise InputError(
            f"'{path}' is not an import path; give package.module:function, such as my_scorers:polite{near}"
        )
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        where = ", ".join(sys.path[:1]) or "the current folder"
        what = f"There is no module '{error.name}' to import '{path}' from"
        raise InputError(f"{what}; install it, or put it in {where} or on PYTHONPATH.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            raise InputError(f"The module '{module_name}' has no '{attribute}'{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found) or inspect.isclass(found):
        raise InputError(f"'{path}' is {shown(found)}, not a function; name a function that takes a Completion.")
    return found


def _call(function: Callable[..., Any], given: Any, name: str, what: str) -> Any:
    try:
        return function(given)
    except InputError as error:
        raise InputError(f"{name}, given the completion '{what}': {error}") from error
    except Exception as error:
        error.add_note(f"{name} raised this, given the completion '{what}'")
        raise
