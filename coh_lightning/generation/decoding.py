"""Decoding: prompts go in as token ids, completions come out, greedy or sampled, in left-padded batches with a
key-value cache.

The decoding loop is our own, because `transformers.generate` doesn't do four things:

* a sample is keyed by (seed, prompt, ask, sample number), so it doesn't depend on its batch, its rank or the global
  generator;
* a finished row is replaced by the next prompt at once (kv_cache.py) instead of being padded to the longest;
* after a time budget, no completion starts;
* ranks that share a sharded model may have different numbers and lengths of prompts, and still make the same number of
  forward passes.

A batch of three rows; `.` is a masked pad, `|` where generation begins, `#` the stop id:

    . . P P P | a b #            done after 3 tokens: the next prompt replaces it
    P P P P P | a b c d #
    . P P P P | a b c d e f      max_new_tokens reached: stop = "length"

With guidance, a completion has two rows, its prompt under its own sentence and under the other one, and both continue
with the same tokens.
"""

from __future__ import annotations

import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coh_lightning.errors import InputError
from coh_lightning.generation.forward import Forward, generating, plain_model
from coh_lightning.generation.guidance import guided
from coh_lightning.generation.kv_cache import Slots
from coh_lightning.generation.prefill import prefill
from coh_lightning.generation.request import R, Request, Written
from coh_lightning.generation.sampling import Sampling, next_tokens
from coh_lightning.rng import generator, key64

SLACK = 32
"""Columns of the cache that all rows may leave unused before they are shifted left over them."""

LOOK = 8
"""`should_stop` is called every so many tokens."""


def generate(
    lm: nn.Module,
    requests: Sequence[R],
    sampling: Sampling,
    *,
    stop_ids: Collection[int],
    pad_id: int,
    should_stop: Callable[[R, Sequence[int]], bool] | None = None,
    until: float | None = None,
    everyone_done: Callable[[bool], bool] | None = None,
) -> list[Written[R]]:
    """`sampling.samples` completions of each request, in the order of the requests, then of the samples.

    The model's mode, gradient checkpointing and `use_cache` may be anything, and stay as they were. A prompt that
    leaves fewer than `max_new_tokens` of the model's positions is continued to the last (stop "length"), and warned of.

    Args:
        lm: A causal model of transformers, or a sharded or adapted one around it; its root is called, for FSDP's hooks.
        stop_ids: Generation stops at any of these; empty: only at the length.
        pad_id: Any id of the vocabulary; pads are masked.
        should_stop: (request, ids so far) -> whether the text has ended without a stop id, for instance because another
            feedback sentence follows. Called every `LOOK` tokens, so there may be a few ids too many (stop "length"),
            which the caller cuts.
        until: No completion starts once `time.monotonic()` is past it, so fewer come back.
        everyone_done: For ranks that must run in step (FSDP): an all-reduce that gives True when every rank says True,
            such as `trainer.strategy.reduce_boolean_decision`. It is called before each forward pass; a rank without
            work runs empty passes until all are done. None: ranks are independent.

    Raises:
        InputError: a prompt fills all positions, the model has no key-value cache, or its logits are non-finite.
    """
    prompts = [request.prompts if sampling.guidance else [request.prompt_ids] for request in requests]
    rooms = _rooms(lm, requests, prompts, sampling.max_new_tokens)
    jobs = [
        _Job(request, its, sample, room, generator(sampling.seed, "sampling", request.prompt_id, request.ask, sample))
        for request, its, room in zip(requests, prompts, rooms, strict=True)
        for sample in range(sampling.samples)
    ]
    if until is None:  # the longest first: memory runs out at once or not at all; those of a prompt together
        longest: dict[str, int] = {}
        for job in jobs:
            longest[job.request.prompt_id] = max(longest.get(job.request.prompt_id, 0), job.longest)
        first = {name: number for number, name in enumerate(longest)}
        queue = sorted(jobs, key=lambda job: (-longest[job.request.prompt_id], first[job.request.prompt_id]))
    else:  # all conditions of a prompt together, for differences between them
        queue = sorted(jobs, key=lambda job: key64(sampling.seed, "budget", job.request.prompt_id))
    with generating(lm):
        forward = Forward(lm, pad_id, everyone_done)
        _decode(forward, queue, sampling, _Limits(frozenset(stop_ids), should_stop, until))
        forward.wait_for_others()
    return [
        Written(job.request, job.sample, np.array(job.ids, dtype=np.int32), "end" if job.ended else "length", job.end)
        for job in jobs
        if job.begun
    ]


@dataclass(frozen=True)
class _Limits:
    stops: frozenset[int]
    should_stop: Callable[[Any, Sequence[int]], bool] | None
    until: float | None

    @property
    def too_late(self) -> bool:
        return self.until is not None and time.monotonic() > self.until


@dataclass(eq=False)
class _Job:
    """One completion in progress."""

    request: Any  # of the kind that the caller made
    prompts: list[NDArray[np.int32]]
    """Its own and, with guidance, the one under the other sentence."""
    sample: int
    max_new_tokens: int
    chance: random.Random
    """One draw per token, so that a higher `max_new_tokens` only adds tokens."""
    ids: list[int] = field(default_factory=list)
    end: int | None = None
    """The stop id, once it is written."""

    @property
    def longest(self) -> int:
        return max(map(len, self.prompts))

    @property
    def ended(self) -> bool:
        return self.end is not None

    @property
    def begun(self) -> bool:
        return self.ended or bool(self.ids)

    def take(self, token: int, limits: _Limits) -> bool:
        """Add a token; returns whether the job continues."""
        if token in limits.stops:
            self.end = token
            return False
        self.ids.append(token)
        if len(self.ids) >= self.max_new_tokens:
            return False
        return limits.should_stop is None or len(self.ids) % LOOK > 0 or not limits.should_stop(self.request, self.ids)


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of the batch: one of a job's prompts."""

    job: _Job
    prompt: NDArray[np.int32]

    @property
    def own(self) -> bool:
        """Whether it is the job's own prompt."""
        return self.prompt is self.job.prompts[0]


def _rooms(
    lm: nn.Module, requests: Sequence[Request], prompts: Sequence[Sequence[NDArray[np.int32]]], max_new_tokens: int
) -> list[int]:
    """How many new tokens each request may have: `max_new_tokens`, or fewer where the model's positions run out."""
    positions: int | None = getattr(plain_model(lm).config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return [max_new_tokens] * len(requests)
    lengths = [max(map(len, its)) for its in prompts]
    for request, length in zip(requests, lengths, strict=True):
        if length >= positions:
            raise InputError(
                f"The prompt '{request.prompt_id}' ({request.ask}) has {length} tokens and the model "
                f"has {positions} positions; shorten prompts to at most {max(1, positions - max_new_tokens)} tokens "
                "(max_prompt_tokens)."
            )
    rooms = [min(max_new_tokens, positions - length) for length in lengths]
    clipped = sum(room < max_new_tokens for room in rooms)
    if clipped:
        warnings.warn(
            f"{clipped} of {len(requests)} prompts leave fewer than max_new_tokens = {max_new_tokens} of the model's "
            f"{positions} positions free; these are continued up to the last position.",
            stacklevel=3,
        )
    return rooms


def _decode(forward: Forward, queue: list[_Job], sampling: Sampling, limits: _Limits) -> None:
    """Run the queue in order, until the time is over; a finished row is replaced at once if the cache allows it."""
    size = sampling.batch_size
    # samples and conditions of a prompt start together and share its prefill; a few at once are cheaper than each alone
    group = min(max(Counter(job.request.prompt_id for job in queue).values(), default=1), size)
    enough = max(group, size // 4)
    columns = max((job.longest + job.max_new_tokens for job in queue), default=0) + SLACK
    slots_needed = size * max((len(job.prompts) for job in queue), default=1)
    alive: list[_Row] = []
    starts: list[int] = []  # the column of each row's first token
    length = 0  # columns in use
    cache: Any = None
    slots: Slots | None = None
    while queue or alive:
        free = size - sum(row.own for row in alive)
        if queue and (free >= enough if slots is not None else not alive):
            if limits.too_late:
                queue = []
                continue
            number = free - free % group
            new, queue = [_Row(job, prompt) for job in queue[:number] for prompt in job.prompts], queue[number:]
            source, places, logits = _prefill(forward, new)
            done = _take_tokens(logits[places], new, sampling, limits)
            joining = [(row, place) for row, place in zip(new, places, strict=True) if row.job not in done]
            if not joining:
                continue
            lengths, places = [len(row.prompt) for row, _ in joining], [place for _, place in joining]
            if slots is None and forward.rows_may_move and Slots.hold(source):
                slots = Slots(slots_needed, columns, source)
            if slots is None:
                source.reorder_cache(torch.tensor(places, device=forward.device))
                cache, length = source, max(len(row.prompt) for row in new)
            else:
                if not alive:
                    length = max(lengths)
                elif length < max(lengths):
                    starts = [start + max(lengths) - length for start in starts]
                    slots.shift(max(lengths) - length)
                    length = max(lengths)
                slots.admit(source, places, lengths)
                cache = slots
            alive += [row for row, _ in joining]
            starts += [length - tokens for tokens in lengths]
        if not alive:
            continue
        if slots is not None and min(starts) >= SLACK:
            unused = min(starts)
            slots.shift(-unused)
            starts, length = [start - unused for start in starts], length - unused
        length += 1
        mask = torch.arange(length, device=forward.device) >= torch.tensor(starts, device=forward.device)[:, None]
        last = torch.tensor(
            [[row.job.ids[-1], len(row.prompt) + len(row.job.ids) - 1] for row in alive], device=forward.device
        )
        logits, cache = forward(last[:, :1], mask.long(), last[:, 1:], cache)
        done = _take_tokens(logits, alive, sampling, limits)
        if done:
            order = _closed_up([row.job not in done for row in alive])
            alive, starts = [alive[row] for row in order], [starts[row] for row in order]
            if slots is not None:
                slots.keep(order)
            elif order:
                cache.reorder_cache(torch.tensor(order, device=forward.device))


def _prefill(forward: Forward, rows: Sequence[_Row]) -> tuple[Any, list[int], Tensor]:
    """The cache of the rows' prompts, each once; the place of each row in it; and the logits after each place."""
    distinct = {id(row.prompt): row for row in rows}
    prompts = [row.prompt for row in distinct.values()]
    cache, logits = prefill(forward, prompts, [row.job.request.prompt_id for row in distinct.values()])
    places = {key: place for place, key in enumerate(distinct)}
    return cache, [places[id(row.prompt)] for row in rows], logits


def _take_tokens(logits: Tensor, rows: Sequence[_Row], sampling: Sampling, limits: _Limits) -> set[_Job]:
    """Give each job its next token, from the logits after all rows (rows, vocabulary); returns the jobs that end."""
    own = {row.job: place for place, row in enumerate(rows) if row.own}
    if sampling.guidance is not None:
        # a job with one prompt is guided away from itself: the cutoff alone
        other = own | {row.job: place for place, row in enumerate(rows) if not row.own}
        beside = logits[list(other.values())] if sampling.guidance else None
        logits = guided(logits[list(own.values())], beside, sampling)
    tokens = next_tokens(logits, _draws(list(own), sampling, logits.device), sampling).tolist()
    return {job for job, token in zip(own, tokens, strict=True) if not job.take(token, limits)}


def _draws(jobs: Sequence[_Job], sampling: Sampling, device: torch.device) -> Tensor:
    """Each job's next uniform number, (jobs,)."""
    if sampling.temperature == 0:
        return torch.zeros(len(jobs), device=device)
    precise = torch.float32 if device.type == "mps" else torch.float64
    return torch.tensor([job.chance.random() for job in jobs], dtype=precise, device=device)


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """The rows that stay, gaps filled from the back: 5 rows without 1 and 2 -> [0, 4, 3]."""
    rows = sum(stays)
    back = [row for row in range(rows, len(stays)) if stays[row]]
    return [row if stays[row] else back.pop() for row in range(rows)]
