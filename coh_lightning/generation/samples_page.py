"""`samples.html`: what a model wrote, its completions under each condition side by side and round by round.

    prompt         good                    bad                      good accuracy   ...      one column per condition
    ┌─────────┐    step 800 (newest)
    │ A post  │    Alice left on Monday.   The weather was bad.     ...
    │ ...     │    ▸ 2 older rounds: step 400, step 0                                        folded, the same columns
    └─────────┘

Above the prompts is a table of means, each with its line over the rounds. The script only searches, folds and marks
words that changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.sample_means import family, means_of, short_number
from coh_lightning.generation.samples import Column, Round, as_round, asks_in_order
from coh_lightning.pages.page import write_page


@dataclass(frozen=True)
class SampleCell:
    """One completion, sample 1, 2, ... `of` so many; None where a condition has fewer samples than the others."""

    ask: str
    column: int
    completion: Completion | None
    sample: int = 0
    of: int = 0
    marker: bool = False
    """Whether the feedback sentence is shown because no newer round has shown it; `exact`: the exact prompt."""
    exact: bool = False


@dataclass(frozen=True)
class Section:
    """What was written for one prompt in one round: a row for each sample, a cell for each condition."""

    round: int
    label: str
    rows: Sequence[Sequence[SampleCell]]


@dataclass(frozen=True)
class PromptView:
    """One prompt, and what was written in each round that has it, the newest first."""

    about: str
    title: str
    text: str
    reference: str | None
    sections: Sequence[Section]


def write_samples(path: Path, rounds: Sequence[tuple[str, Sequence[Completion]]], *, limit: int = 50) -> Path:
    """Write the page in one step; the same rounds give the same bytes. Returns `path`.

    Args:
        rounds: (label, completions), the oldest first; samples of one prompt and condition in their order.
        limit: Prompts that are shown, those of the newest round first. The figures are over all.

    Raises:
        InputError: no completions, a limit below 1, a non-finite score, or a file that can't be written.
    """
    if limit < 1:
        raise InputError(f"{path}: the limit of prompts is {limit}; it must be at least 1.")
    if not any(completions for _, completions in rounds):
        commands = "`test`, `predict`, or `fit` with model.generation.generate_every_n_validations"
        raise InputError(
            f"{path}: there are no completions to show in {counted(len(rounds), 'round')}; write some first "
            f"({commands})."
        )
    newest_first = [as_round(label, completions) for label, completions in reversed(rounds)]
    every = [one for round in newest_first for one in round.completions]
    asks = asks_in_order(one.ask for one in every)
    keys = list(dict.fromkeys(key for round in newest_first for key in round.prompts))
    systems = list(dict.fromkeys(one.system for one in every if one.system))
    return write_page(
        path,
        "samples.html.j2",
        writer=", ".join(systems) or "the model",
        systems=systems,
        conditions=asks,
        labels=[round.label for round in newest_first],
        completions=len(every),
        sampling=_sampling(every),
        means=means_of(newest_first, asks),
        prompts=[_prompt(key, newest_first, asks) for key in keys[:limit]],
        prompts_in_all=len(keys),
        family=family,
        short_number=short_number,
    )


def _sampling(every: Sequence[Completion]) -> str:
    """Each sampling setting with all of its values."""
    values: dict[str, dict[str, None]] = {}
    for one in every:
        for name, value in one.sampling.items():
            values.setdefault(name, {})[str(value)] = None
    return ", ".join(f"{name} {' or '.join(found)}" for name, found in values.items())


def _prompt(key: tuple[str, str], rounds: Sequence[Round], asks: Sequence[str]) -> PromptView:
    columns = [(place, round.label, round.prompts[key]) for place, round in enumerate(rounds) if key in round.prompts]
    own = [(place, ask) for place, ask in enumerate(asks) if any(ask in column for _, _, column in columns)]
    every = [one for _, _, column in columns for _, ask in own for one in column.get(ask, ())]
    first = next((one for one in every if one.shown), every[0])
    text = first.shown or first.prompt
    # a column shows its feedback sentence and its exact prompt again only where they changed
    known: dict[str, Any] = {ask: {"marker": {""}, "prompt": {text}} for _, ask in own}
    return PromptView(
        about=" · ".join(word for word in dict.fromkeys((first.prompt_id, first.task, first.source)) if word),
        title="Prompt" if first.shown or not first.ask else f"Prompt, as it is continued under “{first.ask}”",
        text=text,
        reference=next((one.reference for one in every if one.reference is not None), None),
        sections=[Section(place, label, _rows(column, own, known)) for place, label, column in columns],
    )


def _rows(column: Column, asks: Sequence[tuple[int, str]], known: Mapping[str, Any]) -> list[list[SampleCell]]:
    return [
        [_cell(place, ask, column.get(ask, ()), sample, known[ask]) for place, ask in asks]
        for sample in range(max(map(len, column.values())))
    ]


def _cell(place: int, ask: str, samples: Sequence[Completion], sample: int, known: dict[str, set[str]]) -> SampleCell:
    if sample >= len(samples):
        return SampleCell(ask, place, None)
    one = samples[sample]
    marker, exact = one.marker not in known["marker"], one.prompt not in known["prompt"]
    known["marker"].add(one.marker)
    known["prompt"].add(one.prompt)
    return SampleCell(ask, place, one, sample + 1, len(samples), marker=marker, exact=exact)
