"""What guidance costs: `generate` with two rows for each completion against plain writing.

    OMP_NUM_THREADS=1 python tests/benchmarks/guidance.py [PROMPTS]

The model and prompts are those of generation.py. The other prompt is a copy of the own one, so that own - other is 0
and both ways write the same tokens, which is checked before anything is timed; the work is that of any other prompt of
this length. The ways are run in turn, five times; the ratio is that of medians, its range that of the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import replace

import torch

from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling
from generation import BATCH, LIMIT, PROMPTS, ROUNDS, STOPS, model, requests

WAYS = {"plain": None, "the cutoff alone": 0.0, "guidance": 1.0}


def written(lm: torch.nn.Module, asked: list[Request], guidance: float | None) -> list[list[int]]:
    sampling = Sampling(max_new_tokens=LIMIT, batch_size=BATCH, guidance=guidance)
    return [one.ids.tolist() for one in generate(lm, asked, sampling, stop_ids=STOPS, pad_id=0)]


def main() -> dict[str, list[float]]:
    """Prints the ways; returns the seconds of each repetition of each, ours last (bench.py)."""
    lm = model()
    asked = [
        replace(one, away_from_ids=one.prompt_ids.copy())
        for one in requests(int(sys.argv[1]) if len(sys.argv) > 1 else PROMPTS)
    ]
    first = written(lm, asked, None)
    assert all(written(lm, asked, guidance) == first for guidance in WAYS.values())
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, guidance in WAYS.items():
            start = time.perf_counter()
            written(lm, asked, guidance)
            seconds[name].append(time.perf_counter() - start)
    tokens, plain = sum(map(len, first)), seconds["plain"]
    for name, taken in seconds.items():
        ratios = [t / p for p, t in zip(plain, taken, strict=True)]
        rate = tokens / statistics.median(taken)
        print(
            f"{name:<20}{rate:8.0f} tokens/s   {statistics.median(taken) / statistics.median(plain):5.2f}x the time "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    return seconds


if __name__ == "__main__":
    main()
