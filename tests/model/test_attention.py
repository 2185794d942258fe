"""Attention masks, exactly, and the side effects of the layout check (test_architectures.py: what it accepts)."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from coh_lightning.errors import InputError
from coh_lightning.model import attention
from coh_lightning.model.attention import attention_implementation, attention_mask, layer_windows, row_logits
from coh_lightning.model.layout_check import check_layout
from coh_lightning.model.losses import to_batch
from coh_lightning.sequences.rows import lay_out
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.trees import Tree

SEEN_UNTIL, DEPTH = torch.tensor([[4, 3, 3, 4]]), torch.tensor([[0, 1, 2, 1]])  # P (a b | e)
TINY: dict[str, Any] = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def on(config, back_end: str):  # type: ignore[no-untyped-def]
    config._attn_implementation = back_end
    return config


def picture(mask: Any) -> list[str]:
    assert isinstance(mask, torch.Tensor)
    assert set(mask.flatten().tolist()) <= {0.0, torch.finfo(mask.dtype).min}
    return ["".join("1" if value == 0 else "." for value in line) for line in mask[0, 0].tolist()]


def test_a_branch_sees_its_prompt_and_not_its_sibling() -> None:
    mask = attention_mask(on(LlamaConfig(**TINY), "sdpa"), SEEN_UNTIL, DEPTH, dtype=torch.float32)
    assert isinstance(mask, torch.Tensor) and mask.shape == (1, 1, 4, 4)
    assert picture(mask) == ["1...", "11..", "111.", "1..1"]


def test_a_window_counts_depth_not_row_index() -> None:
    mask = attention_mask(on(MistralConfig(sliding_window=2, **TINY), "eager"), SEEN_UNTIL, DEPTH, dtype=torch.bfloat16)
    assert isinstance(mask, torch.Tensor) and mask.dtype == torch.bfloat16
    assert picture(mask) == ["1...", "11..", ".11.", "1..1"]


def test_layers_that_differ_get_a_mask_each() -> None:
    config = Qwen3Config(head_dim=8, use_sliding_window=True, sliding_window=2, max_window_layers=1, **TINY)
    mask = attention_mask(on(config, "sdpa"), SEEN_UNTIL, DEPTH, dtype=torch.float64)
    assert isinstance(mask, dict)
    assert {kind: picture(one) for kind, one in mask.items()} == {
        "full_attention": ["1...", "11..", "111.", "1..1"],
        "sliding_attention": ["1...", "11..", ".11.", "1..1"],
    }


def test_the_windows_of_an_architecture() -> None:
    assert layer_windows(GPT2Config()) == {"full_attention": None}
    assert layer_windows(MistralConfig(sliding_window=7)) == {"sliding_attention": 7}
    assert layer_windows(MistralConfig(sliding_window=None)) == {"full_attention": None}
    assert layer_windows(Gemma2Config(sliding_window=7)) == {"full_attention": None, "sliding_attention": 7}
    assert layer_windows(Qwen3Config()) == {"full_attention": None}


def test_flex_attention_obeys_the_same_rule() -> None:
    config = MistralConfig(sliding_window=2, **TINY)
    block = attention_mask(on(config, "flex_attention"), SEEN_UNTIL, DEPTH, dtype=torch.float32)
    assert isinstance(block, BlockMask)
    zero = torch.tensor(0)
    seen = [
        ["1" if block.mask_mod(zero, zero, torch.tensor(q), torch.tensor(j)) else "." for j in range(4)]
        for q in range(4)
    ]
    assert ["".join(line) for line in seen] == ["1...", "11..", ".11.", "1..1"]


def test_a_model_under_flex_attention_gives_the_logits_of_sdpa() -> None:
    zeros = np.zeros(70)
    chance = np.random.default_rng(0)
    prompt = chance.integers(2, 64, 40)
    chains = [
        Tokens(
            np.concatenate((prompt, chance.integers(2, 64, 30))).astype(np.int32),
            np.r_[np.zeros(40), np.ones(30)],
            zeros,
            (),
        )
        for _ in range(3)
    ]
    batch = to_batch(lay_out([Tree.from_chains(chains)], [1.0], row_tokens=140, pad_id=0))
    logits = []
    for back_end in ("sdpa", "flex_attention"):
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(LlamaConfig(**{**TINY, "hidden_size": 64}), attn_implementation=back_end)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # uncompiled: the compiler takes half a minute
            logits.append(row_logits(lm, batch))
    assert logits[0].shape == (len(batch["keep"]), 64)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-6)


def test_a_back_end_without_explicit_masks_is_refused() -> None:
    config = LlamaConfig(**TINY)
    config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(InputError, match="flash_attention_2 takes no explicit mask"):
        attention_mask(config, SEEN_UNTIL, DEPTH, dtype=torch.float32)


def test_sdpa_where_the_architecture_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_implementation(LlamaConfig()) == "sdpa"
    assert attention_implementation(GPT2Config()) == "sdpa"
    monkeypatch.setattr(
        GPT2LMHeadModel, "_supports_sdpa", False
    )  # which architectures have none changes with transformers
    assert attention_implementation(GPT2Config()) == "eager"


@pytest.mark.parametrize("offered", [True, False])
def test_capped_logits_never_use_sdpa(offered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gemma2ForCausalLM, "_supports_sdpa", offered)
    assert attention_implementation(Gemma2Config()) == "eager"
    assert attention_implementation(Gemma2Config(attn_logit_softcapping=None)) == ("sdpa" if offered else "eager")


@pytest.mark.parametrize("training", [True, False])
def test_the_check_changes_neither_mode_nor_weights_nor_random_state(training: bool) -> None:
    lm = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4))
    lm.train(training)
    weights = {name: value.clone() for name, value in lm.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    assert check_layout(lm, row_tokens=64) < 1e-4
    assert lm.training is training
    assert (
        torch.equal(torch.get_rng_state(), states[0]) and (random.getstate(), str(np.random.get_state())) == states[1:]
    )
    assert all(torch.equal(value, weights[name]) for name, value in lm.state_dict().items())
    assert all(parameter.grad is None for parameter in lm.parameters())


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.004)]
)
def test_the_check_works_in_every_precision(dtype: torch.dtype, most: float) -> None:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(MistralConfig(sliding_window=6, **TINY)).to(dtype)
    assert check_layout(lm, row_tokens=256) < most


def test_the_checks_rows_are_not_longer_than_those_of_training() -> None:
    lengths = []
    lm = AutoModelForCausalLM.from_config(MistralConfig(sliding_window=100, **TINY))
    lm.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    check_layout(lm, row_tokens=128)
    assert max(lengths) == 128
    lengths.clear()
    check_layout(lm, row_tokens=4096)
    assert max(lengths) == 100 + 96
    lengths.clear()
    check_layout(lm, row_tokens=80)  # no row reaches the window
    assert max(lengths) == 80


def test_nan_logits_are_refused() -> None:
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    torch.nn.init.constant_(lm.model.norm.weight, float("nan"))
    with pytest.raises(InputError, match="llama does not give a tree"):
        check_layout(lm, row_tokens=64)


@pytest.mark.slow
def test_the_compiled_block_mask_of_a_gpu_is_the_same_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, plain = attention._compiled_block_mask(), attention.create_block_mask
    for number, (tokens, window) in enumerate([(300, None), (300, None), (300, 16)]):
        random = torch.Generator().manual_seed(number)
        seen_until = torch.arange(tokens) + torch.randint(1, 90, (tokens,), generator=random)
        depth = torch.randint(0, 50, (tokens,), generator=random)
        monkeypatch.setattr(attention, "create_block_mask", plain)
        expected = attention._block_mask(seen_until, depth, window)
        monkeypatch.setattr(attention, "create_block_mask", compiled)
        found = attention._block_mask(seen_until, depth, window)
        assert torch.equal(found.to_dense(), expected.to_dense())
        assert torch.equal(found.kv_num_blocks, expected.kv_num_blocks)
