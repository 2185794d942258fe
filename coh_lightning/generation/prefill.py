"""Prompts -> the cache of their keys and values, and the logits after them. What the prompts of a group begin with (one
prompt under two feedback sentences) is computed once, where that saves more than a second pass costs:

    P P P P g g          P P P P        the beginnings, each once, and then     P P P | P g g
    P P P P b b b   ->   . . Q Q        the same number of last tokens of     P P P P | b b b
    Q Q Q s s                           every prompt, here three                . Q Q | Q s s

Each prompt gets a copy of its beginning that ends where its last tokens begin, so all are left-padded rows, as in
kv_cache.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from coh_lightning.generation.forward import Forward

Ids = NDArray[np.int32]

PASS = {"cpu": 32}
"""What a second pass costs, in tokens of prompts, on a CPU; measured with a model of 9 million parameters."""
PASS_ELSEWHERE = 1024
"""On a GPU, whose calls take longer than what they compute; estimated, not measured."""


def prefill(forward: Forward, prompts: Sequence[Ids], groups: Sequence[Hashable]) -> tuple[Any, Tensor]:
    """The cache of the prompts, one row each, and the logits (prompts, vocabulary) after them. Prompts with the same
    key in `groups` may share their beginnings.
    """
    shared = _shared(prompts, groups) if forward.rows_may_share else None
    if shared is not None and shared.saved >= PASS.get(forward.device.type, PASS_ELSEWHERE):
        cache, _ = _run(forward, shared.beginnings, shared.beginnings, None)
        if _holds_all(cache):
            before = [len(prompt) - shared.tail for prompt in prompts]
            _copy(cache, shared.places, before, [len(ids) for ids in shared.beginnings])
            tails = [prompt[start:] for prompt, start in zip(prompts, before, strict=True)]
            return _run(forward, tails, prompts, cache)
        forward.rows_may_share = False
    return _run(forward, prompts, prompts, None)


@dataclass(frozen=True, eq=False)
class _Shared:
    beginnings: list[Ids]
    places: list[int]
    """Of each prompt, the beginning that it needs, or a part of it."""
    tail: int
    """Tokens of each prompt after its beginning."""
    saved: int
    """Tokens that don't have to be computed again."""


def _shared(prompts: Sequence[Ids], groups: Sequence[Hashable]) -> _Shared | None:
    """What can be shared; None: nothing."""
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    if len(members) == len(prompts):
        return None
    tail = 1  # at least one token, for the logits after it
    for numbers in members.values():
        same = min(_common(prompts[numbers[0]], prompts[number]) for number in numbers)
        if len(numbers) > 1:
            tail = max(tail, max(len(prompts[number]) for number in numbers) - same)
    if min(map(len, prompts)) <= tail:
        return None
    beginnings: list[Ids] = []
    places = [0] * len(prompts)
    for numbers in members.values():
        longest = max((prompts[number] for number in numbers), key=len)
        for number in numbers:
            places[number] = len(beginnings)
        beginnings.append(longest[: len(longest) - tail])
    saved = sum(len(prompt) - tail for prompt in prompts) - sum(map(len, beginnings))
    return _Shared(beginnings, places, tail, saved)


def _common(one: Ids, other: Ids) -> int:
    """How many ids they begin with alike."""
    least = min(len(one), len(other))
    different = np.flatnonzero(one[:least] != other[:least])
    return int(different[0]) if len(different) else least


def _run(forward: Forward, ids: Sequence[Ids], prompts: Sequence[Ids], cache: Any) -> tuple[Any, Tensor]:
    """The cache and the logits after the last `ids` of each prompt so far, whose earlier ids are in `cache`."""
    new, all_of = max(map(len, ids)), max(map(len, prompts))
    inputs = torch.full((len(ids), new), forward.pad_id, dtype=torch.long)
    mask = torch.zeros((len(ids), all_of), dtype=torch.long)
    for row, (its, prompt) in enumerate(zip(ids, prompts, strict=True)):
        inputs[row, new - len(its) :] = torch.from_numpy(its.astype(np.int64))
        mask[row, all_of - len(prompt) :] = 1
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, all_of - new :]
    device = forward.device
    logits, cache = forward(inputs.to(device), mask.to(device), positions.to(device), cache)
    return cache, logits


def _holds_all(cache: object) -> bool:
    """Whether it has the keys and values of all tokens, and nothing else: no window, no state."""
    return isinstance(cache, Cache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _copy(cache: Cache, places: Sequence[int], lengths: Sequence[int], held: Sequence[int]) -> None:
    """In place: new rows, each the first `lengths` tokens of the row at `places`, which has `held` tokens."""
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        layer.keys = _copied(layer.keys, places, lengths, held)
        layer.values = _copied(layer.values, places, lengths, held)


def _copied(old: Tensor, places: Sequence[int], lengths: Sequence[int], held: Sequence[int]) -> Tensor:
    columns, most = old.shape[2], max(lengths)
    # zeros: a masked column still takes part as 0 x value, and NaN would spread
    new = old.new_zeros((len(places), old.shape[1], most, old.shape[3]))
    for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
        start = columns - held[place]
        new[row, :, most - length :] = old[place, :, start : start + length]
    return new
