"""For tests of decoding: small models of several architectures whose texts end at different places, and what they write
without our loop or its cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers as hf

from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import Request, Written
from coh_lightning.generation.sampling import Sampling, next_tokens
from coh_lightning.rng import generator

VOCABULARY = 97
STOPS = list(range(5, 13))  # many, so that untrained models end at different places
PAD = 0
Plain = tuple[str, int, list[int], str]
"""Prompt, sample, ids, why it ended."""

# large weights, so that the likeliest token is clear and depends on the text; windows shorter than the prompts
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
}
_LLAMA: dict[str, Any] = {
    **_SHAPE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_GPT: dict[str, Any] = {**_SHAPE, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "gpt2": lambda: hf.GPT2Config(**_GPT),
    "gptj": lambda: hf.GPTJConfig(**_GPT, rotary_dim=8),
    "llama": lambda: hf.LlamaConfig(**_LLAMA),
    "qwen3": lambda: hf.Qwen3Config(**_LLAMA, head_dim=8),
    "mistral": lambda: hf.MistralConfig(**_LLAMA, sliding_window=6),
    "gemma2": lambda: hf.Gemma2Config(**_LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=6),
    "opt": lambda: hf.OPTConfig(
        **{k: v for k, v in _LLAMA.items() if k not in ("initializer_range", "num_key_value_heads")},
        init_std=0.3,
        ffn_dim=48,
        word_embed_proj_dim=32,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**{k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        **_SHAPE,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=6,
        max_position_embeddings=64,
    ),
    "bloom": lambda: hf.BloomConfig(**_SHAPE, hidden_size=32, n_layer=2, n_head=2),
    "falcon_alibi": lambda: hf.FalconConfig(
        **_SHAPE, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, alibi=True
    ),
    "mamba": lambda: hf.MambaConfig(**_SHAPE, hidden_size=32, num_hidden_layers=2, state_size=4),
}


def model(name: str = "llama") -> hf.PreTrainedModel:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(CONFIGS[name]())


def write(lm: torch.nn.Module, requests: Sequence[Request], sampling: Sampling, **settings: Any) -> list[Written]:
    return generate(lm, requests, sampling, stop_ids=STOPS, pad_id=PAD, **settings)


def rows_of(written: Sequence[Written]) -> list[Plain]:
    return [(w.request.prompt_id, w.sample, w.ids.tolist(), w.stop) for w in written]


@torch.no_grad()
def one_by_one(lm: hf.PreTrainedModel, requests: Sequence[Request], sampling: Sampling) -> list[Plain]:
    """Each completion alone, without a cache: the whole text is run for every token, with guidance also the text after
    the other prompt.
    """
    lm.eval()

    def after(prompt: np.ndarray, ids: list[int]) -> torch.Tensor:
        return lm(torch.tensor([[*prompt.tolist(), *ids]])).logits[0, -1].double()

    rows = []
    for request in requests:
        for sample in range(sampling.samples):
            chance = generator(sampling.seed, "sampling", request.prompt_id, request.ask, sample)
            ids: list[int] = []
            stop = "length"
            while len(ids) < sampling.max_new_tokens:
                own = after(request.prompt_ids, ids)
                logits = own
                if sampling.guidance and request.away_from_ids is not None:
                    logits = own + sampling.guidance * (own - after(request.away_from_ids, ids))
                if sampling.guidance is not None:
                    share = torch.softmax(own, -1) / torch.softmax(own, -1).max()
                    logits = torch.where(share < sampling.guidance_cutoff, -torch.inf, logits)
                draw = torch.tensor([chance.random()]) if sampling.temperature else torch.zeros(1)
                token = int(next_tokens(logits[None], draw, sampling))
                if token in STOPS:
                    stop = "end"
                    break
                ids.append(token)
            rows.append((request.prompt_id, sample, ids, stop))
    return rows


@torch.no_grad()
def of_transformers(lm: hf.PreTrainedModel, requests: Sequence[Request], limit: int) -> list[Plain]:
    """What transformers writes, alone and greedily."""
    rows = []
    options = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": STOPS, "pad_token_id": PAD}
    for request in requests:
        ids = torch.tensor(request.prompt_ids[None].astype(np.int64))
        out = lm.eval().generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
        new = out[0, ids.shape[1] :].tolist()
        ended = new[-1] in STOPS
        rows.append((request.prompt_id, 0, new[:-1] if ended else new, "end" if ended else "length"))
    return rows


def sharded(lm: hf.PreTrainedModel, rank: int, folder: str) -> Callable[[bool], bool]:
    """Spread the weights over this rank and the other one (FSDP2); returns `everyone_done`."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (2,))
    for layer in lm.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(lm, mesh=mesh)

    def everyone_done(done: bool) -> bool:
        busy = torch.tensor(float(not done))
        dist.all_reduce(busy)
        return busy.item() == 0

    return everyone_done
