"""Texts that a model writes after prompts of the world without feedback sentences: for the base model and questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 256


def continuations(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    keys: Sequence[str],
    samples: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 64,
) -> list[list[str]]:
    """For each prompt `samples` continuations up to the end token (left out) or `max_new_tokens`; temperature 0 is
    greedy. The random draws of a prompt depend only on the seed, its key in `keys` and the number of the sample.
    """
    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.request import Request
    from coh_lightning.generation.sampling import Sampling

    listed = tokenizer(list(prompts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    requests = [Request(key, "", np.array(ids, np.int32)) for key, ids in zip(keys, listed, strict=True)]
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=temperature, samples=samples, batch_size=BATCH_SIZE, seed=seed
    )
    end = tokenizer.eos_token_id
    texts = [
        str(tokenizer.decode(one.ids.tolist())) for one in generate(lm, requests, sampling, stop_ids=[end], pad_id=end)
    ]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]
