"""What guidance costs: `generate` with two rows for each completion against plain writing.

    OMP_NUM_THREADS=1 python tests/benchmarks/guidance.py [PROMPTS]

The model and prompts are those of generation.py. The other prompt is the own one, so that own - other is 0 and all ways
write the same tokens, which is checked before anything is timed. In `nothing in common` the two share no computation:
the work of another prompt of this length; else they share all of it but the last tokens, as the prompts under two
sentences do. The ratio is plain writing's time over that of guidance: how much of its speed is left.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from timing import REPS, row, show, timed

from coh_lightning.generation import decoding, prefill
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling
from generation import BATCH, LIMIT, STOPS, model, requests

PROMPTS = 48


def written(lm: torch.nn.Module, asked: list[Request], guidance: float | None, *, alone: bool = False) -> list[Any]:
    sampling = Sampling(max_new_tokens=LIMIT, batch_size=BATCH, guidance=guidance)
    own = decoding.prefill
    if alone:  # each prompt in a group of its own
        decoding.prefill = lambda forward, prompts, groups: own(forward, prompts, list(range(len(prompts))))
    try:
        return [one.ids.tolist() for one in generate(lm, asked, sampling, stop_ids=STOPS, pad_id=0)]
    finally:
        decoding.prefill = prefill.prefill


def bench(prompts: int = PROMPTS, reps: int = REPS) -> list[dict[str, Any]]:
    """A row for the cutoff alone and one for each kind of other prompt."""
    torch.set_num_threads(1)
    lm = model()
    asked = [replace(one, away_from_ids=np.copy(one.prompt_ids)) for one in requests(prompts)]
    ways = {
        "plain": lambda: written(lm, asked, None),
        "the cutoff alone": lambda: written(lm, asked, 0.0),
        "the same prompt under another sentence": lambda: written(lm, asked, 1.0),
        "nothing in common": lambda: written(lm, asked, 1.0, alone=True),
    }
    results = {name: way() for name, way in ways.items()}
    seconds, tokens = timed(ways, reps), sum(map(len, results["plain"])) + len(asked)
    return [
        row(
            f"guidance, {name}: plain writing",
            seconds[name],
            seconds["plain"],
            amount=tokens,
            unit="tokens/s",
            equal=results[name] == results["plain"],
        )
        for name in ways
        if name != "plain"
    ]


if __name__ == "__main__":
    show(bench(*map(int, sys.argv[1:])))
