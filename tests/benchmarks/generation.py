"""How fast completions are written: `generate` of this package against `generate` of transformers in batches of 16, as
they come and sorted by length.

    OMP_NUM_THREADS=1 python tests/benchmarks/generation.py [PROMPTS]

As in `test`, each prompt is written for under two feedback sentences (of 5 and 6 tokens), which only this package makes
use of; `one sentence` is the same number of different prompts, without anything in common. Prompts have the lengths of
helpful dialogues (20 to 400 tokens); a Llama of 6 layers of 256 with random weights. One token in 38 of the vocabulary
ends a text, so that lengths are spread as those of real answers are (38 tokens on average, at most 96). All ways write
the same tokens, which is checked before anything is timed; they are run in turn, and seconds are those of the
processor. The ratio is the median of those of the rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import REPS, row, show, timed
from transformers import AutoModelForCausalLM, LlamaConfig

from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling

PROMPTS, BATCH, LIMIT, VOCABULARY = 64, 16, 96, 8192
STOPS = list(range(1, VOCABULARY, 38))


def requests(number: int, *, sentences: int = 1) -> list[Request]:
    """`number` requests; `sentences` of them have one prompt, which ends in a sentence each."""
    chance = np.random.default_rng(0)

    def ids(least: int, most: int) -> np.ndarray:
        return chance.integers(0, VOCABULARY, size=chance.integers(least, most)).astype(np.int32)

    ends = [ids(5 + i, 6 + i) for i in range(sentences)]
    prompts = [ids(20, 400) for _ in range(number // sentences)]
    return [
        Request(f"p{i}", ("good", "bad")[j], np.concatenate([prompt, end]))
        for i, prompt in enumerate(prompts)
        for j, end in enumerate(ends)
    ]


def of_transformers(lm: torch.nn.Module, asked: list[Request], *, by_length: bool) -> list[list[int]]:
    """Left-padded batches, as they come or the longest first, each until its last row is done."""
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i].prompt_ids)) if by_length else range(len(asked))
    rows: dict[int, list[int]] = {}
    for start in range(0, len(asked), BATCH):
        chosen = list(order)[start : start + BATCH]
        prompts = [torch.from_numpy(asked[i].prompt_ids.astype(np.int64)) for i in chosen]
        longest = max(map(len, prompts))
        pads = [(longest - len(prompt), 0) for prompt in prompts]
        ids = torch.stack([torch.nn.functional.pad(one, pad) for one, pad in zip(prompts, pads, strict=True)])
        mask = torch.stack(
            [torch.nn.functional.pad(torch.ones_like(one), pad) for one, pad in zip(prompts, pads, strict=True)]
        )
        settings = {"max_new_tokens": LIMIT, "do_sample": False, "eos_token_id": STOPS, "pad_token_id": 0}
        out = lm.generate(ids, attention_mask=mask, use_cache=True, **settings)  # type: ignore[operator]
        for i, new in zip(chosen, out[:, longest:].tolist(), strict=True):
            end = next((place for place, token in enumerate(new) if token in STOPS), len(new))
            rows[i] = new[:end]
    return [rows[i] for i in range(len(asked))]


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


def bench(prompts: int = PROMPTS, reps: int = REPS) -> list[dict[str, Any]]:
    """A row for each peer, with two sentences and with one."""
    torch.set_num_threads(1)
    lm, rows = model(), []
    peers = {f"generate, batches of {BATCH}": False, f"generate, batches of {BATCH} sorted by length": True}
    for sentences, what in ((2, "two sentences"), (1, "one sentence")):
        asked = requests(prompts, sentences=sentences)
        ways: dict[str, Callable[[], list[list[int]]]] = {
            "ours": lambda asked=asked: ours(lm, asked),
            **{
                name: lambda asked=asked, by_length=by_length: of_transformers(lm, asked, by_length=by_length)
                for name, by_length in peers.items()
            },
        }
        results = {name: way() for name, way in ways.items()}
        seconds, tokens = timed(ways, reps), sum(map(len, results["ours"])) + len(asked)
        rows += [
            row(
                f"writing, {what}: {name}",
                seconds["ours"],
                seconds[name],
                amount=tokens,
                unit="tokens/s",
                equal=results[name] == results["ours"],
            )
            for name in peers
        ]
    return rows


if __name__ == "__main__":
    show(bench(*map(int, sys.argv[1:])))
