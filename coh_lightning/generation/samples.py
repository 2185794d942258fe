"""Completions grouped by round, prompt and condition, and as rows of a W&B table:

Round "step 800": (prompt id, prompt hash) ──> ask ("good", "bad", ...) ──> its samples
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion

Column = Mapping[str, Sequence[Completion]]
"""Condition -> the samples of one prompt in one round."""


@dataclass(frozen=True)
class Round:
    """All that was written at one time: (prompt id, prompt hash) -> condition -> samples."""

    label: str
    prompts: Mapping[tuple[str, str], Column]

    @property
    def completions(self) -> list[Completion]:
        return [one for column in self.prompts.values() for samples in column.values() for one in samples]


def as_round(label: str, completions: Sequence[Completion]) -> Round:
    """The completions of one round, grouped; samples of one prompt and condition stay in their order."""
    prompts: dict[tuple[str, str], dict[str, list[Completion]]] = {}
    for one in completions:
        prompts.setdefault((one.prompt_id, one.prompt_sha), {}).setdefault(one.ask, []).append(one)
    return Round(label, prompts)


def asks_in_order(asks: Iterable[str]) -> list[str]:
    """good, bad; each attribute's pair (good accuracy, bad accuracy); others; refinements beside their fresh draws, and
    before them the review of the answer that they improve.
    """
    distinct = list(dict.fromkeys(asks))
    split = [(head, rest) for head, _, rest in (ask.partition(" ") for ask in distinct)]
    attributes = list(dict.fromkeys(rest for head, rest in split if head in ("good", "bad") and rest))

    def place(ask: str) -> tuple[int, int, int]:
        head, _, rest = ask.partition(" ")
        if head in ("good", "bad"):
            return (1, attributes.index(rest), head == "bad") if rest else (0, 0, head == "bad")
        if head in ("refined", "fresh") and rest.isdecimal():
            return (3, int(rest), head == "fresh")
        if head == "review" and rest.isdecimal():
            return (3, int(rest) + 1, -1)
        return (2, distinct.index(ask), 0)

    return sorted(distinct, key=place)


def finite_scores(completion: Completion) -> dict[str, float]:
    """Raises InputError for a score that is not a finite number."""
    for name, value in completion.scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(
                f"The completion '{completion.id}' has the score {name!r} = {value!r}; a score must be a finite number."
            )
    return {name: float(value) for name, value in completion.scores.items()}


def sample_rows(
    completions: Sequence[Completion], *, label: str | None = None
) -> tuple[list[str], list[list[str | int | float | None]]]:
    """(columns, rows) for a W&B table: one row for each completion, in the order given.

    `sample` counts the completions of a prompt under one condition from 1; `prompt` is without the feedback sentence
    where that is known. A score is under `score_{name}`, or None; `reference` is there if any completion has one, and
    `round` if there is a `label`. Raises InputError for a score that is not a finite number.
    """
    scores = list(dict.fromkeys(name for one in completions for name in finite_scores(one)))
    seen: dict[tuple[str, str, str], int] = {}
    rows: list[dict[str, str | int | float | None]] = []
    for one in completions:
        key = (one.prompt_id, one.prompt_sha, one.ask)
        seen[key] = seen.get(key, 0) + 1
        found = finite_scores(one)
        rows.append(
            {
                "round": label,
                "prompt_id": one.prompt_id,
                "ask": one.ask,
                "sample": seen[key],
                "marker": one.marker,
                "prompt": one.shown or one.prompt,
                "text": one.text,
                "stop": one.stop,
                "tokens": one.completion_tokens,
                **{f"score_{name}": found.get(name) for name in scores},
                "reference": one.reference,
            }
        )
    columns = ["prompt_id", "ask", "sample", "marker", "prompt", "text", "stop", "tokens"]
    columns = [*(["round"] if label is not None else []), *columns, *(f"score_{name}" for name in scores)]
    columns += ["reference"] if any(one.reference is not None for one in completions) else []
    return columns, [[row[name] for name in columns] for row in rows]
