"""The model as its own reward model: of several samples for one prompt, the one that it would choose.

    best by good      the largest log p(y | good sentence)
    best by ratio     the largest log p(y | good sentence) - log p(y | bad sentence), the order of p(good sentence | y)

Each sample y is scored with the very ids that were written, the end token included. `figures.summary` has the means of
what is chosen, beside those of all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.figures import BEST_BY_GOOD, BEST_BY_RATIO, FIRST, Valued, valued
from coh_lightning.generation.forward import generating
from coh_lightning.generation.guidance import with_other_prompt
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.generation.scoring import output_scores
from coh_lightning.sequences.tokens import OutputSpan, Tokens

if TYPE_CHECKING:
    from coh_lightning.generation.prompter import Prompter


def best_samples(
    lm: nn.Module,
    prompter: Prompter,
    written: Sequence[Written[RecordRequest]],
    completions: Sequence[Completion],
    *,
    scored_rows: Callable[[Sequence[Tokens]], list[dict[str, Any]]],
    everyone_done: Callable[[bool], bool] | None,
    at_once: int = 0,
) -> list[Valued]:
    """The numbers of the best sample of each prompt under the good sentence, by each of the two orders (the first of
    equals); only by good where the method has no bad sentence.

    Args:
        written, completions: The samples of all prompts, and their records with their scores, in the same order.
        scored_rows: Chains of one prompt -> rows whose outputs are scored (`RowBuilder.scored`); of none: an empty row.
        at_once: As for `output_scores`.
        everyone_done: As for `generate`; all ranks must call this function.
    """
    groups: dict[RecordRequest, list[tuple[Written[RecordRequest], Completion]]] = {}
    for one, completion in zip(written, completions, strict=True):
        if one.request.ask == FIRST:
            groups.setdefault(one.request, []).append((one, completion))
    asked = [(_prompts(prompter, request), samples) for request, samples in groups.items() if len(samples) > 1]
    chains = [[_chain(prompt, one) for prompt in prompts for one, _ in samples] for prompts, samples in asked]
    found: list[Valued] = []
    with generating(lm):
        scores = _in_step((scored_rows(one) for one in chains), lm, scored_rows([]), at_once, everyone_done)
        for (prompts, samples), flat in zip(asked, scores, strict=True):
            of_sentence = flat.view(len(prompts), len(samples))
            orders = {BEST_BY_GOOD: of_sentence[0]}
            if len(prompts) > 1:
                orders[BEST_BY_RATIO] = of_sentence[0] - of_sentence[1]
            for ask, order in orders.items():
                chosen = valued(samples[int(order.argmax())][1])
                found.append(replace(chosen, id=f"{chosen.id}:{ask}", ask=ask))
    return found


def _prompts(prompter: Prompter, request: RecordRequest) -> list[NDArray[np.int32]]:
    """The prompt under the good sentence and, if there is one, under the bad sentence."""
    alone = replace(request, away_from_ids=None)
    if "bad" not in prompter.all_conditions(request.record):
        return alone.prompts
    return with_other_prompt(prompter, alone, "bad").prompts


def _chain(prompt: NDArray[np.int32], one: Written[RecordRequest]) -> Tokens:
    end = [] if one.stop_id is None else [one.stop_id]
    ids = np.concatenate([prompt, one.ids, np.array(end, dtype=np.int32)])
    nothing = np.zeros(len(ids))
    return Tokens(ids, nothing, nothing, (OutputSpan(len(prompt), len(ids), FIRST, 0),))


def _in_step(
    groups: Iterable[list[dict[str, Any]]],
    lm: nn.Module,
    empty: list[dict[str, Any]],
    at_once: int,
    everyone_done: Callable[[bool], bool] | None,
) -> Iterator[Tensor]:
    """log p of the outputs of each group of rows, float64, in as many forward passes on each rank."""
    device = next(lm.parameters()).device

    def scores(rows: Sequence[dict[str, Any]]) -> Iterator[Tensor]:
        placed = [
            {name: one.to(device) if isinstance(one, Tensor) else one for name, one in row.items()} for row in rows
        ]
        for total, _ in output_scores(lm, placed, at_once=at_once if everyone_done is None else 0):
            yield total.cpu()

    if everyone_done is None:
        of_group = list(groups)
        found = scores([row for group in of_group for row in group])
        yield from (torch.cat(list(islice(found, len(group)))) for group in of_group)
        return
    for group in groups:
        parts: list[Tensor] = []
        for row in group:
            everyone_done(False)
            parts += scores([row])
        yield torch.cat(parts)
    while not everyone_done(True):
        list(scores(empty[:1]))
