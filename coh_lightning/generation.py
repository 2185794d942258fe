"""Writing: prompts go in as token ids, what the model writes comes out, greedy or sampled, in left-padded batches with
a key-value cache.

The decoding loop is our own, over the model's own forward pass, for four things that `transformers.generate` doesn't
give:

* a sample is keyed by (seed, prompt, ask, sample number), so it doesn't depend on what else is in its batch, on the
rank, or on the global generator;
* a row that is done makes room for the next prompt at once (slots.py), instead of being padded to the end of the
longest;
* a time budget, after which no completion is begun;
* ranks that share one sharded model may hold different numbers of prompts, of different lengths, and still make the
same number of forward passes.

A batch of three rows, `.` a pad that nobody sees, `|` where writing begins, `#` the stop id:

    . . P P P | a b #            done after 3 tokens: the next prompt takes its place
    P P P P P | a b c d #
    . P P P P | a b c d e f      max_new_tokens reached: stop = "length"
"""

from __future__ import annotations

import inspect
import random
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from coh_lightning.draws import generator, key64
from coh_lightning.errors import InputError
from coh_lightning.request import R, Request, Written
from coh_lightning.slots import Slots

Item = TypeVar("Item")

SLACK = 32
"""Columns of the cache that may stand before the first token of all rows until they are moved to the left over them."""

LOOK = 8
"""Tokens from one look at a text to the next, whether it is over (`generate`'s `over`)."""


class Unmoved(Generic[Item]):
    """A list that Lightning doesn't look into: it moves batches and predictions from device to device item by item, and
    refuses frozen dataclasses there.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]


@dataclass(frozen=True)
class Sampling:
    """How the model writes. Checked when made, so that a bad value is found before the model is loaded."""

    max_new_tokens: int = 128
    """Counts the stop id."""
    temperature: float = 0.0
    """0 takes the likeliest token (greedy); otherwise the logits are divided by it and a token is drawn."""
    top_k: int = 0
    """Draw among the k likeliest tokens (ties of the k-th included); 0: among all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together reach this probability (Holtzman et al. 2020), after `top_k`; 1:
    among all.
    """
    samples: int = 1
    """Completions per prompt."""
    batch_size: int = 16
    """Completions that are written at a time."""
    seed: int = 0
    max_seconds: float | None = None
    """Time budget of a round of writing (all prompts of a validation, of `test` or of `predict`, rounds of refinement
    included), on each rank: no completion is begun later. Those under way are written to their ends, since to drop them
    would drop the long ones. Prompts then go in a random order, the same each time, so that what is left out makes no
    figure lean; how many those are is logged (`left_out`). None: no limit."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"sampling.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"sampling.max_seconds is {self.max_seconds}; it must be above 0, or null for no limit.")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"sampling.temperature is {self.temperature}; it must be 0 (greedy) or a positive number.")
        if self.top_k < 0:
            raise InputError(f"sampling.top_k is {self.top_k}; it must be 0 (off) or a number of tokens.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"sampling.top_p is {self.top_p}; it must be above 0 and at most 1 (off).")
        if self.temperature == 0 and self.samples > 1:
            raise InputError(
                f"sampling.samples is {self.samples} but sampling.temperature is 0, so all would be the same; set "
                "samples to 1 or a temperature."
            )


def generate(
    lm: nn.Module,
    requests: Sequence[R],
    sampling: Sampling,
    *,
    stop_ids: Collection[int],
    pad_id: int,
    over: Callable[[R, Sequence[int]], bool] | None = None,
    until: float | None = None,
    everyone_done: Callable[[bool], bool] | None = None,
    progress: bool = False,
) -> list[Written[R]]:
    """`sampling.samples` completions of each request, in the order of the requests, then of the samples.

    Works on a model in training mode, with gradient checkpointing on, or with `use_cache=False` in its config, and
    leaves all of these as they were. A prompt so long that fewer than `max_new_tokens` positions of the model are left
    is written up to the last position (stop "length"), and such prompts are counted in a warning.

    Args:
        lm: a causal model of transformers (or a sharded or adapted one around it); its root is called, so that hooks of
            FSDP run.
        stop_ids: writing stops at any of these; empty: only at the length.
        pad_id: any id of the vocabulary; pads are masked.
        over: (request, ids so far) -> whether the text is over although no stop id came, as where the model went on
            with another feedback sentence. Asked every few tokens (`LOOK`), so the ids may go on a little (stop
            "length"): whoever says what is over also cuts.
        until: when `time.monotonic()` is beyond it, no further completion is begun, and fewer come back than were asked
            for.
        everyone_done: for a model whose ranks must run in step (FSDP): an all-reduce that gives True when every rank
            says True, as `lambda done: trainer.strategy.reduce_boolean_decision(done, all=True)`. It is called before
            each forward pass; a rank that is done (or had no request at all) runs empty passes until all are. Ranks
            need not have the same number of requests. With None, ranks are on their own.

    Raises:
        InputError: a prompt fills all positions of the model, a model without a cache of its past, logits that are not
            finite.
    """
    rooms = _rooms(lm, requests, sampling.max_new_tokens)
    jobs = [
        _Job(request, sample, room, generator(sampling.seed, "sampling", request.prompt_id, request.ask, sample))
        for request, room in zip(requests, rooms, strict=True)
        for sample in range(sampling.samples)
    ]
    if until is None:  # the longest first: memory then fails at once or not at all
        queue = sorted(jobs, key=lambda job: -job.prompt_tokens)
    else:  # all asks of a prompt together, for differences between them
        queue = sorted(jobs, key=lambda job: key64(sampling.seed, "budget", job.request.prompt_id))
    with generating(lm), tqdm(total=len(jobs), desc="writing", unit="completion", disable=not progress) as bar:
        forward = _Forward(lm, pad_id, everyone_done)
        _write(forward, queue, sampling, _Limits(frozenset(stop_ids), over, until), bar)
        forward.wait_for_others()
    return [
        Written(job.request, job.sample, np.array(job.ids, dtype=np.int32), "end" if job.ended else "length")
        for job in jobs
        if job.begun
    ]


@contextmanager
def generating(lm: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients and gradient checkpointing; afterwards each module is exactly as
    it was.

    In training mode with checkpointing, transformers drops the cache inside a layer and the tokens come out wrong.
    `no_grad`, not `inference_mode`: what a model keeps from a forward pass (a grown RoPE table) must still be usable in
    training.
    """
    modules = list(lm.modules())
    training = [module.training for module in modules]
    checkpointed = [module for module in modules if vars(module).get("gradient_checkpointing", False)]
    for module in checkpointed:
        vars(module)["gradient_checkpointing"] = False
    lm.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # lengths change with every token
            yield
    finally:
        # not .train(): it would set children too, and a part may have been frozen in evaluation mode
        for module, flag in zip(modules, training, strict=True):
            module.training = flag
        for module in checkpointed:
            vars(module)["gradient_checkpointing"] = True


def next_tokens(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each row: the likeliest, or the one at which the summed probabilities of the filtered softmax
    pass the row's draw.

    Tokens are summed in the order of their ids, not of their probabilities, so that rounding elsewhere in a batch can't
    swap two of them:

        id            0    1    2    3          draw 0.55
        probability  .2   .5   .1   .2    ->    sums .2 .7 .8 1.    ->    token 1

    Args:
        logits: (batch, vocabulary).
        draws: (batch,), uniform in [0, 1); not used at temperature 0.

    Returns:
        (batch,), int64.
    """
    top = logits.float().max(dim=-1)
    if not bool(torch.isfinite(top.values).all()):
        raise InputError(
            "The model's logits are not finite while it writes; its weights have diverged or overflow in this "
            "precision."
        )
    if sampling.temperature == 0:
        return top.indices
    precise = torch.float32 if logits.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    probabilities = torch.softmax(logits.to(precise) / sampling.temperature, dim=-1)
    if 0 < sampling.top_k < probabilities.shape[-1]:
        least = probabilities.topk(sampling.top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        ranked = probabilities.sort(dim=-1, descending=True, stable=True)
        reached_before = ranked.values.cumsum(dim=-1) - ranked.values
        reached_before[:, 0] = 0.0  # the likeliest token always stays
        dropped = torch.zeros_like(probabilities, dtype=torch.bool).scatter(
            -1, ranked.indices, reached_before >= sampling.top_p
        )
        probabilities = probabilities.masked_fill(dropped, 0.0)
    sums = probabilities.cumsum(dim=-1)
    total = sums[:, -1:]
    # strictly below the total, or rounding could point behind the last token that has a probability
    point = torch.minimum(draws.to(sums)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, point, right=True)[:, 0]


@dataclass(frozen=True)
class _Limits:
    """What ends a text, and all writing."""

    stops: frozenset[int]
    over: Callable[[Any, Sequence[int]], bool] | None
    until: float | None

    @property
    def too_late(self) -> bool:
        return self.until is not None and time.monotonic() > self.until


@dataclass(eq=False)
class _Job:
    """One completion in the making."""

    request: Any  # of the kind that the caller made
    sample: int
    room: int
    """New tokens that it may have."""
    chance: random.Random
    """Of its own, a draw for each token, so a longer `max_new_tokens` only writes on."""
    ids: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def begun(self) -> bool:
        return self.ended or bool(self.ids)

    def take(self, token: int, limits: _Limits) -> bool:
        """Adds a token; whether the job goes on."""
        self.ended = token in limits.stops
        if self.ended:
            return False
        self.ids.append(token)
        if len(self.ids) >= self.room:
            return False
        return limits.over is None or len(self.ids) % LOOK > 0 or not limits.over(self.request, self.ids)


def _rooms(lm: nn.Module, requests: Sequence[Request], max_new_tokens: int) -> list[int]:
    """How many new tokens each request may have: `max_new_tokens`, or fewer where the model's positions run out."""
    positions: int | None = getattr(_plain(lm).config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return [max_new_tokens] * len(requests)
    for request in requests:
        if len(request.prompt_ids) >= positions:
            raise InputError(
                f"The prompt '{request.prompt_id}' ({request.ask}) has {len(request.prompt_ids)} tokens and the "
                f"model has {positions} positions, "
                f"which leaves none to write on; shorten prompts to at most {max(1, positions - max_new_tokens)} "
                "tokens (max_prompt_tokens)."
            )
    rooms = [min(max_new_tokens, positions - len(request.prompt_ids)) for request in requests]
    clipped = sum(room < max_new_tokens for room in rooms)
    if clipped:
        warnings.warn(
            f"{clipped} of {len(requests)} prompts leave fewer than max_new_tokens = {max_new_tokens} of the model's "
            f"{positions} positions free; "
            "these are written up to the last position.",
            stacklevel=3,
        )
    return rooms


def _plain(lm: nn.Module) -> Any:
    """The model of transformers itself, also from under PEFT's adapters or FSDP1; only read, never called: hooks sit on
    the root.
    """
    inner = getattr(lm, "get_base_model", None)
    return getattr(lm, "_fsdp_wrapped_module", lm) if inner is None else inner()


class _Forward:
    """One forward pass at a time over the model's own cache, in step with other ranks where that is asked for."""

    def __init__(self, lm: nn.Module, pad_id: int, everyone_done: Callable[[bool], bool] | None) -> None:
        plain = _plain(lm)
        accepted = inspect.signature(plain.forward).parameters
        # transformers calls it cache from 5.24 on, in the place of the other two
        cache_names = [name for name in ("past_key_values", "cache_params", "cache") if name in accepted]
        if not cache_names:
            raise InputError(
                f"{type(plain).__name__} keeps no cache of its past that this package knows, so it can't write; use "
                "a causal model with one."
            )
        self.lm = lm
        self.pad_id = pad_id
        self.device = next(lm.parameters()).device
        self._cache_name = cache_names[0]
        layers = set(getattr(plain.config.get_text_config(), "layer_types", None) or ())
        self._recurrent = self._cache_name == "cache_params" or layers == {"linear_attention"}
        self._has_positions = "position_ids" in accepted  # not those with ALiBi or a recurrence
        self.rows_may_move = self._has_positions and "chunked_attention" not in layers  # to other columns of the cache
        self._keeps_last = "logits_to_keep" in accepted
        self._everyone_done = everyone_done

    def __call__(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits (batch, vocabulary) after the last of `ids` (batch, n), and the grown cache; `mask` is (batch, past +
        n), `positions` (batch, n).
        """
        if self._everyone_done is not None:
            self._everyone_done(False)
        return self._run(ids, mask, positions, cache)

    def wait_for_others(self) -> None:
        """Empty passes until every rank is done: each rank takes part in all gathers of all forward passes."""
        while self._everyone_done is not None and not self._everyone_done(True):
            one = torch.ones((1, 1), dtype=torch.long, device=self.device)
            self._run(one * self.pad_id, one, one - 1, None)

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            self._cache_name: cache,
            "use_cache": True,
            "return_dict": True,
        }
        if self._recurrent and cache is not None:
            inputs["attention_mask"] = (
                None  # a state has no past to mask; Mamba would spread the mask over the new token and come out wrong
            )
        if self._has_positions:
            inputs["position_ids"] = positions
        if self._keeps_last:
            inputs["logits_to_keep"] = 1  # the head runs on one token per row, not on the whole prompt
        out = self.lm(**inputs)
        return out.logits[:, -1], getattr(out, self._cache_name)


def _write(forward: _Forward, queue: list[_Job], sampling: Sampling, limits: _Limits, bar: Any) -> None:
    """Writes the jobs of the queue, in its order, as long as there is time. A row that is done leaves the batch, and
    where the model's cache lets rows join (`Slots`), others take its place; else the next batch begins when all of this
    one are done."""
    size = sampling.batch_size
    # samples of one prompt begin together, as they share its prefill; and a few prompts at once are cheaper than each
    # alone
    group = min(sampling.samples, size)
    enough = max(group, size // 4)
    columns = max((job.prompt_tokens + job.room for job in queue), default=0) + SLACK
    alive: list[_Job] = []
    starts: list[int] = []  # the column of each row's first token
    length = 0  # columns in use
    cache: Any = None
    slots: Slots | None = None
    while queue or alive:
        free = size - len(alive)
        if queue and (free >= enough if slots is not None else not alive):
            if limits.too_late:
                queue = []
                continue
            number = free - free % group
            new, queue = queue[:number], queue[number:]
            source, rows, logits = _prefill(forward, new)
            tokens = next_tokens(logits[rows], _draws(new, sampling, forward.device), sampling).tolist()
            joining = [row for row, (job, token) in enumerate(zip(new, tokens, strict=True)) if job.take(token, limits)]
            bar.update(len(new) - len(joining))
            if not joining:
                continue
            lengths, rows = [new[row].prompt_tokens for row in joining], [rows[row] for row in joining]
            if slots is None and forward.rows_may_move and Slots.hold(source):
                slots = Slots(size, columns, source)
            if slots is None:
                source.reorder_cache(torch.tensor(rows, device=forward.device))
                cache, length = source, max(job.prompt_tokens for job in new)
            else:
                if not alive:
                    length = max(lengths)
                elif length < max(lengths):
                    starts = [start + max(lengths) - length for start in starts]
                    slots.shift(max(lengths) - length)
                    length = max(lengths)
                slots.admit(source, rows, lengths)
                cache = slots
            alive += [new[row] for row in joining]
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
            [[job.ids[-1], job.prompt_tokens + len(job.ids) - 1] for job in alive], device=forward.device
        )
        logits, cache = forward(last[:, :1], mask.long(), last[:, 1:], cache)
        tokens = next_tokens(logits, _draws(alive, sampling, forward.device), sampling).tolist()
        gone = {row for row, (job, token) in enumerate(zip(alive, tokens, strict=True)) if not job.take(token, limits)}
        if gone:
            bar.update(len(gone))
            order = _closed_up(len(alive), gone)
            alive, starts = [alive[row] for row in order], [starts[row] for row in order]
            if slots is not None:
                slots.keep(order)
            elif order:
                cache.reorder_cache(torch.tensor(order, device=forward.device))


def _prefill(forward: _Forward, jobs: Sequence[_Job]) -> tuple[Any, list[int], Tensor]:
    """The cache of the jobs' prompts, each prompt once; the row of each job in it; and the logits after each row."""
    distinct = {id(job.request): job.request.prompt_ids for job in jobs}
    longest = max(map(len, distinct.values()))
    ids = torch.full((len(distinct), longest), forward.pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(distinct.values()):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(forward.device), mask.to(forward.device)
    logits, cache = forward(ids, mask, (mask.cumsum(dim=-1) - 1).clamp(min=0), None)
    places = {key: row for row, key in enumerate(distinct)}
    return cache, [places[id(job.request)] for job in jobs], logits


def _draws(jobs: Sequence[_Job], sampling: Sampling, device: torch.device) -> Tensor:
    """A uniform number for each job, (jobs,): the next of its own."""
    if sampling.temperature == 0:
        return torch.zeros(len(jobs), device=device)
    precise = torch.float32 if device.type == "mps" else torch.float64
    return torch.tensor([job.chance.random() for job in jobs], dtype=precise, device=device)


def _closed_up(rows: int, gone: Collection[int]) -> list[int]:
    """The rows that stay, gaps filled from the back: 5 rows without 1 and 2 -> [0, 4, 3]."""
    back = [row for row in range(rows - len(gone), rows) if row not in gone]
    return [back.pop() if row in gone else row for row in range(rows - len(gone))]
