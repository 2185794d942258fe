"""What a large vocabulary costs: the head in pieces (what `fit` does) against the head on all sources at once.

    OMP_NUM_THREADS=1 python tests/benchmarks/vocabulary.py

One training row of 1,024 tokens, 600 of them sources; 150,000 tokens in the vocabulary, a Llama of 2 layers of 256,
float32. CPU seconds of a forward and backward pass, the second in a process; memory is the most that two passes take
beyond model and gradients. Losses and the norms of all gradients are compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from figures import Figure, figure, in_turn, peak
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from coh_lightning.model.head import row_losses, use_head_in_pieces
from coh_lightning.model.losses import row_loss, to_batch
from coh_lightning.sequences.rows import lay_out
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.trees import Tree

VOCABULARY, TOKENS, SOURCES = 150_000, 1024, 600
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 2, "num_attention_heads": 8}


@dataclass(frozen=True)
class Ran:
    seconds: float
    memory: int
    loss: float
    norm: float


def row() -> dict[str, Tensor]:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, TOKENS).astype(np.int32)
    learned = np.r_[np.zeros(TOKENS - SOURCES), np.ones(SOURCES)]
    tree = Tree.from_chains([Tokens(ids, learned, np.zeros(TOKENS), ())])
    return to_batch(lay_out([tree], [1 / SOURCES], row_tokens=TOKENS, pad_id=0))


def run(pieces: bool) -> Ran:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=VOCABULARY, **SIZES), attn_implementation="sdpa")
    assert not pieces or use_head_in_pieces(lm)
    batch = row()
    for parameter in lm.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, seconds = peak(), 0.0
    for _ in range(2):
        start = time.process_time()
        loss, _ = row_loss(row_losses(lm, batch), batch)
        loss.backward()
        seconds = time.process_time() - start
    memory = peak() - before
    norm = torch.nn.utils.get_total_norm([one.grad for one in lm.parameters() if one.grad is not None])
    return Ran(seconds, memory, loss.item(), norm.item())


def measure() -> list[Figure]:
    torch.set_num_threads(1)
    runs = in_turn({"ours": lambda: run(True), "the whole head": lambda: run(False)})
    for one in (one for found in runs.values() for one in found):
        np.testing.assert_allclose([one.loss, one.norm], [runs["ours"][0].loss, runs["ours"][0].norm], rtol=1e-6)
    where = "a row of 600 sources, a vocabulary of 150,000"
    memory, times = (
        [[pick(one) for one in found] for found in runs.values()]
        for pick in (lambda one: one.memory / 2**20, lambda one: one.seconds)
    )
    return [
        figure(f"memory, {where}", "the whole head", *memory, unit="MiB"),
        figure(f"forward and back, {where}", "the whole head", *times, unit="CPU s"),
    ]


if __name__ == "__main__":
    for one in measure():
        print(one)
