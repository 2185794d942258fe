"""Scorers and critics: functions that rate a completion by itself, found by their import path.

    scorer       Completion -> {"polite": 0.8, "polite_words": 3}     `package.module:function`, or `world`
    batched      [Completion, ...] -> [{...}, ...]                    a function with the attribute `batched = True`
    critic       Completion -> "it leaves out the reason"             for rounds of refinement

What they return is checked here, once: finite numbers under the same names for each completion. `reward_model.py` has a
batched scorer that runs a model of transformers.
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
"""Names of the figures that every completion has; a score under one of them would hide it."""

Scorer = Callable[[Sequence[Completion]], Sequence[Mapping[str, float]]]
"""Completions -> a mapping name -> score for each."""


def load_scorer(path: str) -> Scorer:
    """A scorer by its import path, `package.module:function` (or with a dot before the function), or `world`.

    The function takes a Completion and returns a mapping of names to numbers, with the same names each time. With the
    attribute `batched = True` it takes a list of completions and returns a list of mappings.

    Raises:
        InputError: there is no such module or function, or it can't be called; and at each call, naming the
            completion: the result is not a mapping, has other names than before, or has a value that is not a finite
            number.
    """
    path = import_path("scorer", path)
    return _CheckedScorer(path, _load(path))


def load_critic(path: str) -> Callable[[Completion], str]:
    """A critic (Completion -> a remark on it) by its import path, or `world`. Raises InputError like `load_scorer`."""
    function = _load(import_path("critic", path))

    def critic(completion: Completion) -> str:
        remark = _call(function, completion, path, completion.id)
        if not isinstance(remark, str) or not remark.strip():
            raise InputError(
                f"The critic {path} returned {shown(remark)} for the completion '{completion.id}'; it must return "
                "text that is not empty."
            )
        return remark.strip()

    return critic


def score(completions: Sequence[Completion], scorer: Scorer) -> list[Completion]:
    """The completions with the scorer's numbers added to their `scores`.

    Raises:
        InputError: the number of results differs from the number of completions; a name is taken, by an earlier scorer
            or by a figure that every completion has; names differ between completions; a value is not a finite number.
    """
    if not completions:
        return []
    name = getattr(scorer, "name", type(scorer).__name__)
    found = _checked(scorer(completions), completions, name, None)
    for completion, scores in zip(completions, found, strict=True):
        for key in scores:
            if key in TAKEN or key in completion.scores:
                whose = "a figure of every completion" if key in TAKEN else "an earlier scorer"
                raise InputError(
                    f"The scorer {name} returned '{key}' for the completion '{completion.id}', but {whose} has that "
                    "name; choose another one."
                )
    return [
        replace(completion, scores={**completion.scores, **scores})
        for completion, scores in zip(completions, found, strict=True)
    ]


@dataclass
class _CheckedScorer:
    """A user's function, and the names that it returned first."""

    name: str
    function: Callable[..., Any]
    names: frozenset[str] | None = field(default=None, init=False)

    def __call__(self, completions: Sequence[Completion]) -> list[dict[str, float]]:
        if not completions:
            return []
        if getattr(self.function, "batched", False):
            every = f"{completions[0].id}' to '{completions[-1].id}"
            given = _call(self.function, list(completions), self.name, every)
        else:
            given = [_call(self.function, one, self.name, one.id) for one in completions]
        found = _checked(given, completions, self.name, self.names)
        self.names = frozenset(found[0])
        return found


def _load(path: str) -> Callable[..., Any]:
    """The function at an import path. If the module exists but fails to import, its own error and traceback stay: they
    are for its author.
    """
    module_name, _, attribute = path.rpartition(":" if ":" in path else ".")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not re.fullmatch(r"\w+(\.\w+)*", attribute):
        raise InputError(
            f"'{path}' is not an import path; give package.module:function, such as my_scorers:polite for the function "
            "polite in my_scorers.py."
        )
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        where = ", ".join(sys.path[:1]) or "the current folder"
        raise InputError(
            f"There is no module '{error.name}' to import '{path}' from; install it, or put it in {where} or on "
            "PYTHONPATH."
        ) from error
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


def _checked(
    given: Any, completions: Sequence[Completion], name: str, names: frozenset[str] | None
) -> list[dict[str, float]]:
    """What a scorer returned, as floats. `names`: those it must have, if they are known."""
    if not isinstance(given, Sequence) or len(given) != len(completions):
        count = counted(len(given), "result") if isinstance(given, Sequence) else shown(given)
        raise InputError(
            f"The scorer {name} returned {count} for {len(completions)} completions; a batched scorer returns a list "
            "with a mapping for each."
        )
    found: list[dict[str, float]] = []
    for completion, scores in zip(completions, given, strict=True):
        if not isinstance(scores, Mapping):
            raise InputError(
                f"The scorer {name} returned {shown(scores)} for the completion '{completion.id}'; it must return a "
                "mapping of names to numbers."
            )
        names = frozenset(scores) if names is None else names
        if frozenset(scores) != names:
            now, before = (listed(sorted(map(str, keys))) or "none" for keys in (scores, names))
            raise InputError(
                f"The scorer {name} returned the names {now} for the completion '{completion.id}', but {before} "
                "before; it must return the same names each time."
            )
        found.append({_name(key, name): _finite(value, name, key, completion) for key, value in scores.items()})
    return found


def _name(key: object, scorer: str) -> str:
    if not isinstance(key, str) or not key.strip() or "/" in key:
        raise InputError(
            f"The scorer {scorer} returned a score named {shown(key)}; a name is text without '/', which loggers read "
            "as a folder."
        )
    return key


def _finite(value: Any, scorer: str, key: object, completion: Completion) -> float:
    # a tensor or an array of one number counts as a number; numpy's own numbers are `numbers.Real`
    is_array = not isinstance(value, numbers.Real) and hasattr(value, "item") and getattr(value, "size", None)
    number = value.item() if is_array else value
    if not isinstance(number, numbers.Real) or not math.isfinite(number):
        raise InputError(
            f"The scorer {scorer} returned {shown(value)} as '{key}' of the completion '{completion.id}'; a score must "
            "be a finite number."
        )
    return float(number)
