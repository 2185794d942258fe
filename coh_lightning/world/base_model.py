"""The base model of a world: a Llama-shaped model of two layers and the world's tokenizer, in a Hugging Face folder.

It is trained from scratch, in float32, for one pass over pretraining documents. On one machine with the same number of
threads the same bytes come out; another machine may round differently.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from coh_lightning.rng import generator, key64
from coh_lightning.world.tokenizer import END, MAX_LENGTH, PAD, save_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CHECKSUMS = "checksums.txt"

WIDTH = 128
LAYERS = 2
HEADS = 4
MLP_WIDTH = 256
BATCH = 32
LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
MAX_GRADIENT_NORM = 1.0
BUCKET_BATCHES = 16
"""Batches are cut from this many batches' worth of documents sorted by length: little padding, still a random order."""


def make_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """The untrained base model: its weights depend only on the seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    special = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=MLP_WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.04,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=special[END],
        pad_token_id=special[PAD],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key64(seed, "weights") % 2**63)
        return LlamaForCausalLM(config).float()


def batches(documents: Sequence[Sequence[int]], *, seed: int, pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, targets), both of shape (BATCH, longest - 1): every document once, with others of its length; targets of
    padding are -100.
    """
    order = list(range(len(documents)))
    draws: random.Random = generator(seed, "order")
    draws.shuffle(order)
    for start in range(0, len(order), BATCH * BUCKET_BATCHES):
        bucket = sorted(order[start : start + BATCH * BUCKET_BATCHES], key=lambda index: len(documents[index]))
        groups = [bucket[at : at + BATCH] for at in range(0, len(bucket), BATCH)]
        draws.shuffle(groups)
        for group in groups:
            longest = max(len(documents[index]) for index in group)
            ids = torch.full((len(group), longest), pad)
            targets = torch.full((len(group), longest), -100)
            for row, index in enumerate(group):
                ids[row, : len(documents[index])] = targets[row, : len(documents[index])] = torch.tensor(
                    documents[index]
                )
            yield ids[:, :-1], targets[:, 1:]


def pretrain(model: LlamaForCausalLM, documents: Sequence[Sequence[int]], *, seed: int, pad: int) -> float:
    """One pass over the documents: AdamW, warm-up and cosine. Prints progress; gives back the mean loss per token of
    the last 100 steps.
    """
    steps = math.ceil(len(documents) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / WARMUP_STEPS, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
        ),
    )
    model.train()
    began = time.perf_counter()
    recent: list[float] = []
    for step, (ids, targets) in enumerate(batches(documents, seed=seed, pad=pad), start=1):
        # padding comes last and attention is causal: no mask is needed
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent = [*recent[-99:], loss.item()]
        if step % 100 == 0 or step == steps:
            print(
                f"step {step:5d} of {steps}  loss {sum(recent) / len(recent):.4f}  {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    model.eval()
    return sum(recent) / len(recent)


def checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of each file of the folder but the list of checksums itself."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != CHECKSUMS
    }


def write_checksums(folder: Path) -> None:
    """Write checksums.txt as `sha256sum -c` reads it."""
    (folder / CHECKSUMS).write_text(
        "".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items()), encoding="utf-8"
    )


def make_base(folder: Path, texts: Sequence[str], *, seed: int) -> None:
    """Train a base model on these documents and write it, its tokenizer and the checksums of all files into the folder,
    which is made.
    """
    from transformers import GenerationConfig

    folder.mkdir(parents=True)
    tokenizer = save_tokenizer(folder)
    model = make_model(tokenizer, seed=seed)
    end, pad = (tokenizer.get_vocab()[token] for token in (END, PAD))
    ids = [
        [*encoded, end]
        for encoded in tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    ]
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(ids):,} documents, {sum(map(len, ids)):,} tokens", flush=True)
    pretrain(model, ids, seed=seed, pad=pad)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, max_new_tokens=64, do_sample=True)
    model.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 600, which a packaged file must not have
    write_checksums(folder)
