"""What prompts begin with is computed once, and they are continued with the very tokens that each gets alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from coh_lightning.generation import prefill as prefills
from coh_lightning.generation.forward import Forward, generating
from coh_lightning.generation.prefill import prefill
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling
from helpers.decoding import CONFIGS, PAD, VOCABULARY, model, of_transformers, one_by_one, rows_of, write

SHARE = ("gpt2", "gptj", "llama", "qwen3", "opt", "gpt_neox", "gpt_neo", "falcon_alibi")
"""The architectures whose cache has the keys and values of all tokens in rows that may move."""
GREEDY = Sampling(max_new_tokens=12, batch_size=6)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pass costs nothing."""
    monkeypatch.setattr(prefills, "PASS", {"cpu": 1})


def _ids(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(13, VOCABULARY, size=number).astype(np.int32)


def _requests(*, away: bool = False) -> list[Request]:
    """Seven prompts, each under three sentences of different lengths, two of which begin alike; the prompt `p2` has
    nothing in common with itself.
    """
    found = []
    for number, length in enumerate((9, 20, 7, 12, 30, 1, 8)):
        prompt, one = _ids(length, number), _ids(1, 50)
        ends = [np.concatenate([one, _ids(2, 51)]), np.concatenate([one, _ids(1, 52)]), _ids(4, 53)]
        for ask, end in zip(("good", "bad", "other"), ends, strict=True):
            start = _ids(length, 60 + ord(ask[0])) if number == 2 else prompt
            other = np.concatenate([start, ends[1]]) if away and ask != "bad" else None
            found.append(Request(f"p{number}", ask, np.concatenate([start, end]), away_from_ids=other))
    return found


def _sizes(lm: torch.nn.Module) -> list[tuple[int, int]]:
    sizes: list[tuple[int, int]] = []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True)
    return sizes


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", CONFIGS)
def test_conditions_of_a_prompt_are_continued_as_each_alone(name: str) -> None:
    lm, requests = model(name), _requests()
    expected = of_transformers(lm, requests, GREEDY.max_new_tokens)
    for batch_size in (2, 3, 6, 40):
        sizes = _sizes(lm)
        assert rows_of(write(lm, requests, replace(GREEDY, batch_size=batch_size))) == expected
        if batch_size == 6:
            assert ((2, 30) in sizes) == (name in SHARE)  # 34 - 4 of the longest prompt and another one, each once


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "mamba"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_both_sentences_of_guidance_share_their_prompt(name: str, temperature: float) -> None:
    lm, requests = model(name), _requests(away=True)
    sampling = replace(GREEDY, temperature=temperature, guidance=1.0, max_new_tokens=6)
    assert rows_of(write(lm, requests, sampling)) == one_by_one(lm, requests, sampling)


@pytest.mark.usefixtures("eager")
def test_samples_conditions_and_ranks_of_a_prompt_join_late_and_are_the_same() -> None:
    lm, requests = model(), _requests()
    sampling = replace(GREEDY, temperature=1.0, samples=2, seed=3)
    expected = one_by_one(lm, requests, sampling)
    for batch_size in (1, 4, 7, 13):
        assert rows_of(write(lm, requests, replace(sampling, batch_size=batch_size))) == expected


def test_tokens_that_prompts_share_are_computed_once() -> None:
    lm = model("gpt2")
    sizes = _sizes(lm)
    prompt, long = _ids(40, 0), _ids(20, 1)
    requests = [
        Request("p", "good", np.concatenate([prompt, _ids(3, 2)])),
        Request("q", "good", long),
        Request("p", "bad", np.concatenate([prompt, _ids(4, 3)])),
    ]
    write(lm, requests, Sampling(max_new_tokens=1))
    # 40 of the shared prompt and 16 of the other one, and then four tokens of each
    assert sizes == [(2, 40), (3, 4)]


def _prefilled(prompts: list[np.ndarray], groups: list[Any]) -> list[tuple[int, int]]:
    lm = model("gpt2")
    sizes = _sizes(lm)
    with generating(lm):
        cache, logits = prefill(Forward(lm, PAD, None), prompts, groups)
        for row, prompt in enumerate(prompts):
            alone = lm(input_ids=torch.from_numpy(prompt[None].astype(np.int64)), use_cache=True)
            torch.testing.assert_close(logits[row], alone.logits[0, -1], atol=1e-4, rtol=1e-4)
            for layer, its in zip(cache.layers, alone.past_key_values.layers, strict=True):
                for held, expected in ((layer.keys, its.keys), (layer.values, its.values)):
                    torch.testing.assert_close(held[row, :, -len(prompt) :], expected[0])
    return sizes[: len(sizes) - len(prompts)]


def test_the_cache_holds_each_prompt_at_its_end() -> None:
    shared = [np.concatenate([_ids(40, 0), _ids(n, 10 + n)]) for n in (1, 5, 3)]
    assert _prefilled([*shared, _ids(9, 1)], ["a", "a", "a", "b"]) == [(2, 40), (4, 5)]


def test_prompts_that_save_less_than_a_pass_are_computed_whole() -> None:
    shared = [np.concatenate([_ids(20, 0), _ids(n, 10 + n)]) for n in (1, 5)]
    assert _prefilled(shared, ["a", "a"]) == [(2, 25)]  # 16 tokens of one
    assert _prefilled([_ids(40, 0), _ids(41, 1)], ["a", "b"]) == [(2, 41)]
    assert _prefilled([_ids(40, 0), _ids(41, 1)], ["a", "a"]) == [(2, 41)]  # of one group, but nothing in common
    # the short prompt has fewer tokens than what must follow the shared ones
    assert _prefilled([*(np.concatenate([_ids(50, 0), _ids(9, n)]) for n in (1, 2)), _ids(3, 3)], ["a", "a", "b"]) == [
        (3, 59)
    ]


def test_of_a_prompt_that_another_one_begins_with_the_last_tokens_are_computed_again() -> None:
    prompt = _ids(50, 0)
    assert _prefilled([prompt, np.concatenate([prompt, _ids(2, 1)])], ["a", "a"]) == [(1, 50), (2, 2)]
