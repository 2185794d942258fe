"""How fast completions are written: `generate` of this package against `generate` of transformers in batches of 16, as
they come and sorted by length.

    OMP_NUM_THREADS=1 python tests/benchmarks/generation.py

Prompts of the lengths of helpful dialogues (20 to 400 tokens), a Llama of 6 layers of 256 with random weights. One
token in 38 of the vocabulary ends a text, so that its lengths are spread as those of real answers are (38 tokens on
average, at most 96). All ways write the same tokens, which is checked before anything is timed; they are run in turn,
five times; the ratio is that of medians, its range that of the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling

PROMPTS, ROUNDS, BATCH, LIMIT, VOCABULARY = 32, 5, 16, 96, 8192
STOPS = list(range(1, VOCABULARY, 38))


def requests(number: int) -> list[Request]:
    chance = np.random.default_rng(0)
    return [
        Request(f"p{i}", "good", chance.integers(0, VOCABULARY, size=chance.integers(20, 400)).astype(np.int32))
        for i in range(number)
    ]


def of_transformers(lm: torch.nn.Module, asked: list[Request]) -> list[list[int]]:
    """Left-padded batches in this order, each until its last row is done."""
    rows: list[list[int]] = []
    for start in range(0, len(asked), BATCH):
        prompts = [torch.from_numpy(one.prompt_ids.astype(np.int64)) for one in asked[start : start + BATCH]]
        longest = max(map(len, prompts))
        ids = torch.stack([torch.nn.functional.pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
        mask = torch.stack(
            [torch.nn.functional.pad(torch.ones_like(prompt), (longest - len(prompt), 0)) for prompt in prompts]
        )
        out = lm.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=LIMIT,
            do_sample=False,
            eos_token_id=STOPS,
            pad_token_id=0,
            use_cache=True,
        )  # type: ignore[operator]
        for row in out[:, longest:].tolist():
            end = next((i for i, token in enumerate(row) if token in STOPS), len(row))
            rows.append(row[:end])
    return rows


def ours(lm: torch.nn.Module, asked: list[Request]) -> list[list[int]]:
    written = generate(lm, asked, Sampling(max_new_tokens=LIMIT, batch_size=BATCH), stop_ids=STOPS, pad_id=0)
    return [one.ids.tolist() for one in written]


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=1024,
        initializer_range=0.2,
        eos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def main() -> dict[str, list[float]]:
    """Prints the ways; returns the seconds of each repetition of each, ours last (bench.py)."""
    lm = model()
    asked = requests(int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS)
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i].prompt_ids))

    def by_length() -> list[list[int]]:
        found = dict(zip(order, of_transformers(lm, [asked[i] for i in order]), strict=True))
        return [found[i] for i in range(len(asked))]

    ways: dict[str, Callable[[], list[list[int]]]] = {
        f"transformers, batches of {BATCH}": lambda: of_transformers(lm, asked),
        "the same, sorted by length": by_length,
        "coh_lightning": lambda: ours(lm, asked),
    }
    results = {name: way() for name, way in ways.items()}
    reference = next(iter(results.values()))
    assert all(found == reference for found in results.values())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    base, tokens = next(iter(seconds.values())), sum(map(len, reference))
    for name, taken in seconds.items():
        ratios = [b / t for b, t in zip(base, taken, strict=True)]
        rate = tokens / statistics.median(taken)
        print(
            f"{name:<30}{rate:8.0f} tokens/s   {statistics.median(base) / statistics.median(taken):5.2f}x "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    lengths = sorted(map(len, reference))
    print(
        f"{len(asked)} prompts, {tokens} new tokens, {lengths[0]} to {lengths[-1]} a prompt, "
        f"{statistics.median(lengths):g} in the middle"
    )
    return seconds


if __name__ == "__main__":
    main()
