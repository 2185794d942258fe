"""Attention tree by tree: the parts show exactly what the dense mask shows, and give its attention (whole models are in
test_architectures.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from coh_lightning.model.build import config_settings
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.model.tree_attention import NAME, TreeParts, additive_mask, parts_of, tree_attention
from coh_lightning.sequences.rows import Row, hide, lay_out, runs_of
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.trees import Tree

LLAMA: dict[str, Any] = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def tree(*chains: list[int]) -> Tree:
    return Tree.from_chains(
        [Tokens(np.array(ids, np.int32), np.zeros(len(ids)), np.zeros(len(ids)), ()) for ids in chains]
    )


def packed(*trees: Tree, padding: int = 0) -> Row:
    tokens = sum(one.tokens for one in trees) + padding
    return lay_out(trees, [0.0] * len(trees), row_tokens=tokens, pad_id=0)


FORK = tree([1, 2, 3, 10, 11], [1, 2, 3, 20, 21, 22])
"""P P P (a a | b b b)"""


def described(row: Row, call: int) -> list[tuple[int, int, tuple[int, ...], bool]]:
    return [(part.start, part.stop, part.keys, part.causal) for part in parts_of(runs_of(row.in_trees), call)]


def test_where_calls_cost_nothing_each_run_is_a_part() -> None:
    row = packed(FORK, tree([5, 6, 7]), padding=2)
    assert described(row, 0) == [
        (0, 3, (0,), True),
        (3, 5, (0, 1), False),
        (5, 8, (0, 2), False),
        (8, 11, (3,), True),
    ]


def test_small_trees_are_one_part_and_large_ones_are_cut() -> None:
    chance = np.random.default_rng(0)
    prompt, left, right = (chance.integers(2, 64, n).tolist() for n in (100, 60, 60))
    large = tree([*prompt, *left], [*prompt, *right])
    row = packed(FORK, FORK, large, FORK)
    assert described(row, 1000) == [
        (0, 16, (0,), False),  # two small trees together
        (16, 116, (1,), True),
        (116, 176, (1, 2), False),
        (176, 236, (1, 3), False),
        (236, 244, (4,), False),
    ]
    assert described(row, 10**6) == [(0, 244, (0,), False)]


def test_siblings_that_are_cheaper_together_share_a_part() -> None:
    prompt, tails = list(range(100, 140)), [[10, 1], [20, 2], [30, 3]]
    assert described(packed(tree(*([*prompt, *tail] for tail in tails))), 500) == [
        (0, 40, (0,), True),
        (40, 46, (0, 1), False),
    ]


@st.composite
def rows(draw: Any) -> Row:
    """One to four trees of chains over few ids, so that they branch often; padding; some tokens hidden."""
    trees = []
    for root in range(draw(st.integers(1, 4))):
        chains = draw(st.lists(st.lists(st.integers(0, 2), max_size=9), min_size=1, max_size=6))
        trees.append(tree(*([40 + root, *chain] for chain in chains)))
    row = packed(*trees, padding=draw(st.integers(0, 3)))
    rate = draw(st.sampled_from([0.0, 0.0, 0.3]))
    seeds = [np.random.default_rng(draw(st.integers(0, 9))) for _ in trees]
    return hide(row, (rate, rate), seeds) if rate else row


def tensors(row: Row) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(row.seen_until).long(), torch.from_numpy(row.depth).long()


@settings(max_examples=150, deadline=None)
@given(rows(), st.sampled_from([0, 5, 30, 200]), st.sampled_from([None, 1, 3, 40]))
def test_parts_show_what_the_dense_mask_shows(row: Row, call: int, window: int | None) -> None:
    seen_until, depth = tensors(row)
    dense = additive_mask(seen_until, depth, window, dtype=torch.float32)[0, 0] == 0
    parts = TreeParts(runs_of(row.in_trees), seen_until, depth, [window], dtype=torch.float32, call=call)
    assert parts.tokens == row.bounds[-1] and sum(parts.lengths) == parts.tokens
    shown = torch.zeros(parts.tokens, parts.tokens, dtype=torch.bool)
    for part, mask in zip(parts.parts, parts.masks[0], strict=True):
        others = [parts.parts[number] for number in part.keys]
        keys = torch.cat([torch.arange(other.start, other.stop) for other in others])
        count = part.stop - part.start
        sees = torch.ones(count, count).tril().bool() if mask is None else mask[0, 0] == 0
        shown[part.start : part.stop, keys] = sees
    assert torch.equal(shown, dense[: parts.tokens, : parts.tokens])


class Grouped(nn.Module):
    """What transformers passes as the layer: two query heads for each key head."""

    num_key_value_groups = 2
    is_causal = True


@settings(max_examples=60, deadline=None)
@given(rows(), st.sampled_from([0, 30]), st.sampled_from([None, 3]))
def test_attention_and_its_gradients_are_those_of_the_dense_mask(row: Row, call: int, window: int | None) -> None:
    seen_until, depth = tensors(row)
    used = int(row.bounds[-1])
    chance = torch.Generator().manual_seed(0)
    shapes = [(1, heads, used, 8) for heads in (4, 2, 2)]
    inputs = [torch.randn(shape, generator=chance, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = additive_mask(seen_until[:used], depth[:used], window, dtype=torch.float64)
    parts = TreeParts(runs_of(row.in_trees), seen_until, depth, [None, window], dtype=torch.float64, call=call)
    number = torch.empty(1, 1, 0, 1)
    outputs = [
        sdpa_attention_forward(Grouped(), *inputs, mask, scaling=0.3)[0],
        tree_attention(Grouped(), *inputs, number, tree_parts=parts, scaling=0.3)[0],
    ]
    wanted, found = (torch.autograd.grad(one.square().sum(), inputs) for one in outputs)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**(LLAMA | changes)), attn_implementation="sdpa").eval()


def test_outside_rows_the_model_is_as_it_was_and_padding_is_masked() -> None:
    lm = llama()
    ids = torch.randint(2, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    sampling = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "use_cache": True}
    logits, written = lm(ids, attention_mask=mask).logits, lm.generate(ids, **sampling)
    assert use_tree_attention(lm, row_tokens=128) and lm.config._attn_implementation == NAME
    assert torch.equal(lm(ids, attention_mask=mask).logits, logits)
    assert torch.equal(lm.generate(ids, **sampling), written)
    assert not torch.equal(lm(ids).logits[0], logits[0])  # the mask matters here


def test_the_name_is_never_saved(tmp_path: Path) -> None:
    lm = llama()
    assert use_tree_attention(lm, row_tokens=128)
    lm.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text() + json.dumps(config_settings(lm))


@pytest.mark.parametrize("back_end", ["eager", "flex_attention"])
def test_another_back_end_stays(back_end: str) -> None:
    lm = hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**LLAMA), attn_implementation=back_end)
    assert not use_tree_attention(lm, row_tokens=128)
    assert lm.config._attn_implementation == back_end


def test_attention_sinks_stay_as_they_are() -> None:
    lm = hf.AutoModelForCausalLM.from_config(
        hf.GptOssConfig(**LLAMA, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    )
    before = lm.config._attn_implementation
    assert not use_tree_attention(lm, row_tokens=128)
    assert lm.config._attn_implementation == before


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_the_parts_do_not_reach_keeps_the_dense_mask(layer: int) -> None:
    lm = llama()
    attention = lm.model.layers[layer].self_attn
    forward = attention.forward

    def without(*args: Any, tree_parts: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    attention.forward = without
    training, states = lm.training, torch.get_rng_state()
    assert not use_tree_attention(lm, row_tokens=128)
    assert lm.config._attn_implementation == "sdpa"
    assert lm.training is training and torch.equal(torch.get_rng_state(), states)
