"""For every architecture that we name: a row of trees has the loss and the gradients of its plain chains run one by
one, or the set-up check refuses it.

Random weights, windows of 6 tokens (shorter than any tree here), chains p, n, pn, np, unlikelihood where good and bad
share a prefix, an output that is a prefix of another, several trees and padding in one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from coh_lightning.errors import InputError
from coh_lightning.model.attention import attention_implementation, row_logits
from coh_lightning.model.head import row_losses
from coh_lightning.model.layout_check import check_layout, use_tree_attention
from coh_lightning.model.losses import row_loss, to_batch
from coh_lightning.model.tree_attention import CALL
from coh_lightning.sequences.rows import Row, hide, lay_out, lay_out_alone
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.trees import Tree

VOCABULARY, WINDOW = 64, 6
SMALL: dict[str, Any] = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
LLAMA: dict[str, Any] = dict(**SMALL, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=512)
GPT: dict[str, Any] = dict(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512)

ACCEPTED: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "gpt2": lambda: hf.GPT2Config(**GPT, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "llama": lambda: hf.LlamaConfig(**LLAMA),
    "qwen3": lambda: hf.Qwen3Config(**LLAMA, head_dim=8),
    "qwen3 with sliding layers": lambda: hf.Qwen3Config(
        **LLAMA, head_dim=8, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "mistral": lambda: hf.MistralConfig(**LLAMA, sliding_window=WINDOW),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**SMALL, intermediate_size=48),
    "gptj": lambda: hf.GPTJConfig(**GPT, rotary_dim=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "opt": lambda: hf.OPTConfig(**SMALL, ffn_dim=48, max_position_embeddings=512, word_embed_proj_dim=32, dropout=0),
    "gemma2": lambda: hf.Gemma2Config(**LLAMA, head_dim=8, query_pre_attn_scalar=8, sliding_window=WINDOW),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **LLAMA,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi3": lambda: hf.Phi3Config(**LLAMA, sliding_window=WINDOW, pad_token_id=0),
    "falcon with rotary positions": lambda: hf.FalconConfig(**SMALL, alibi=False),
}

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
}
REFUSED: dict[str, tuple[Callable[[], hf.PreTrainedConfig], str]] = {
    "bloom": (
        lambda: hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "bloom can't run a row of several trees",
    ),
    "falcon with alibi": (lambda: hf.FalconConfig(**SMALL, alibi=True), "falcon can't run a row of several trees"),
    "mpt": (
        lambda: hf.MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=512),
        "mpt does not give a tree",
    ),
    "mamba": (
        lambda: hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
        "mamba has layers of type (linear_attention|mamba)",
    ),
    "rwkv": (
        lambda: hf.RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=512),
        "rwkv does not give a tree",
    ),
    "gpt_neo": (
        lambda: hf.GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=WINDOW,
            max_position_embeddings=512,
        ),
        "gpt_neo does not give a tree",
    ),
    "llama4": (
        lambda: hf.Llama4TextConfig(
            **LLAMA, head_dim=8, attention_chunk_size=16, intermediate_size_mlp=48, num_local_experts=2
        ),
        "layers of type chunked_attention",
    ),
    "llama with dynamic RoPE": (
        lambda: hf.LlamaConfig(**{**LLAMA, "max_position_embeddings": 32}, rope_parameters=DYNAMIC),
        "llama has dynamic RoPE",
    ),
    "phi3 with long RoPE": (
        lambda: hf.Phi3Config(**LLAMA, pad_token_id=0, original_max_position_embeddings=32, rope_parameters=LONG),
        "phi3 has longrope RoPE",
    ),
}


def build(config: hf.PreTrainedConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with weights large enough that attention is far from uniform and a wrong mask can't hide."""
    lm = hf.AutoModelForCausalLM.from_config(config, attn_implementation=attention_implementation(config))
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.15)
    return lm.to(dtype).train()


def record(seed: int) -> list[Tokens]:
    """p, n, pn, np, and a bad output to unlearn that begins like the good one: prompt 9, markers 2, outputs 8 to 10
    tokens.
    """
    chance = np.random.default_rng(seed)

    def some(count: int) -> list[int]:
        return chance.integers(2, VOCABULARY, count).tolist()

    prompt, liked, disliked = some(9), some(2), some(2)
    good = some(8)
    bad, short = (
        good[:3] + some(6),
        good[:5],
    )  # both share the beginning of the good output; the short one is all prefix

    def chain(*links: tuple[list[int], list[int], float, float]) -> Tokens:
        ids, learned, unlearned = list(prompt), [0.0] * 9, [0.0] * 9
        for marker, output, likelihood, unlikelihood in links:
            ids += marker + output
            learned += [0.0] * len(marker) + [likelihood] * len(output)
            unlearned += [0.0] * len(marker) + [unlikelihood] * len(output)
        return Tokens(np.array(ids, np.int32), np.array(learned), np.array(unlearned), ())

    p, n = (liked, good, 1.0, 0.0), (disliked, bad, 1.0, 0.0)
    return [
        chain(p),
        chain(n),
        chain(p, n),
        chain(n, p),
        chain((liked, bad, 0.0, 0.5)),
        chain((liked, short, 1.0, 0.0)),
    ]


RECORDS = [record(1), record(2), record(3)[:1]]
TOTAL = sum(float(chain.learned.sum() + chain.unlearned.sum()) for chains in RECORDS for chain in chains)


def packed(records: list[list[Tokens]] = RECORDS) -> Row:
    trees = [Tree.from_chains(chains) for chains in records]
    return lay_out(trees, [1 / TOTAL] * len(trees), row_tokens=sum(tree.tokens for tree in trees) + 11, pad_id=1)


def of_row(lm: nn.Module, row: Row, *, call: int = CALL) -> Tensor:
    batch = to_batch(row)
    return row_loss(row_losses(lm, batch, call=call), batch)[0]


def of_chain(lm: nn.Module, chain: Tokens) -> Tensor:
    """The loss of one chain, in the plainest way: the model's own causal mask, all logits, no shared code."""
    logits = lm(input_ids=torch.from_numpy(chain.ids).long()[None], use_cache=False).logits[0]
    log_p = logits[:-1].log_softmax(-1).gather(1, torch.from_numpy(chain.ids).long()[1:, None])[:, 0]
    learned, unlearned = (
        torch.from_numpy(weights[1:]).to(logits.dtype) for weights in (chain.learned, chain.unlearned)
    )
    return -(learned * log_p).sum() / TOTAL - (unlearned * torch.log1p(-log_p.exp())).sum() / TOTAL


def gradients(lm: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.double().flatten() for parameter in lm.parameters() if parameter.grad is not None])


def one_by_one(lm: nn.Module) -> tuple[float, Tensor]:
    lm.zero_grad()
    total = 0.0
    for chains in RECORDS:
        for chain in chains:
            loss = of_chain(lm, chain)
            loss.backward()
            total += loss.item()
    return total, gradients(lm)


# In float64 the losses always agree to 1e-8. The gradients do where the whole model is float64: some compute their RMS
# norms or their softmax in float32 whatever the weights are, and then a node's gradient, summed over branches before
# that step instead of over chains after it, differs by the rounding of float32 (1e-7 seen).
FLOAT64_THROUGHOUT = {"gpt2", "gpt_neox", "opt", "falcon with rotary positions"}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_row_of_trees_has_the_loss_and_gradients_of_its_chains(name: str) -> None:
    lm = build(ACCEPTED[name]())
    expected, expected_gradients = one_by_one(lm)
    assert_equal(lm, packed(), expected, expected_gradients, loss_error=1e-6, gradient_error=1e-5)


@pytest.mark.parametrize("name", ACCEPTED)
def test_in_float64_they_agree_more_closely(name: str) -> None:
    lm = build(ACCEPTED[name](), torch.float64)
    expected, expected_gradients = one_by_one(lm)
    assert_equal(
        lm,
        packed(),
        expected,
        expected_gradients,
        loss_error=1e-8,
        gradient_error=1e-8 if name in FLOAT64_THROUGHOUT else 1e-6,
    )


def assert_equal(
    lm: nn.Module,
    row: Row,
    expected: float,
    expected_gradients: Tensor,
    *,
    loss_error: float,
    gradient_error: float,
    call: int = CALL,
) -> None:
    lm.zero_grad()
    loss = of_row(lm, row, call=call)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=loss_error)
    assert (gradients(lm) - expected_gradients).norm() <= gradient_error * expected_gradients.norm()


TREE_BY_TREE = ACCEPTED.keys() - {"gptj", "gemma2", "falcon with rotary positions"}
"""Those whose layers take an attention function of ours, with this version of transformers at least."""


@pytest.mark.parametrize("name", ACCEPTED)
def test_attention_tree_by_tree_gives_the_loss_and_gradients_of_the_chains(name: str) -> None:
    """Cut at every branch, and not cut since the trees are small."""
    lm = build(ACCEPTED[name]())
    expected = one_by_one(lm)
    assert use_tree_attention(lm, row_tokens=128) or name not in TREE_BY_TREE
    for call in (0, CALL):
        assert_equal(lm, packed(), *expected, loss_error=1e-6, gradient_error=1e-5, call=call)
    lm = lm.double()
    gradient_error = 1e-8 if name in FLOAT64_THROUGHOUT else 1e-6
    assert_equal(lm, packed(), *one_by_one(lm), loss_error=1e-8, gradient_error=gradient_error, call=0)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3 with sliding layers", "gpt2", "opt"])
def test_tree_by_tree_with_random_hiding_checkpointing_and_mixed_precision(name: str) -> None:
    lm = build(ACCEPTED[name]())
    row = hide(packed(), (0.3, 0.3), [np.random.default_rng(seed) for seed in range(3)])
    loss = of_row(lm, row)
    loss.backward()
    expected = loss.item(), gradients(lm)
    assert loss.item() != pytest.approx(of_row(lm, packed()).item(), rel=1e-4)  # what is hidden matters
    assert use_tree_attention(lm, row_tokens=128)
    assert_equal(lm, row, *expected, loss_error=1e-6, gradient_error=1e-5, call=0)
    lm.gradient_checkpointing_enable()  # type: ignore[operator]
    assert_equal(lm, row, *expected, loss_error=1e-6, gradient_error=1e-5, call=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert of_row(lm, row, call=0).item() == pytest.approx(expected[0], rel=0.02)


@pytest.mark.parametrize("name", ["llama", "gptj", "gemma2"])
def test_mixed_precision_and_checkpointing_take_the_same_masks(name: str) -> None:
    lm = build(ACCEPTED[name]())
    expected = of_row(lm, packed()).item()
    lm.gradient_checkpointing_enable()  # type: ignore[operator]
    loss = of_row(lm, packed())
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert of_row(lm, packed()).item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["mistral", "bloom", "mamba", "gpt_neo", "llama4", "llama with dynamic RoPE"])
def test_one_chain_a_row_works_for_every_architecture(name: str) -> None:
    lm = build(ACCEPTED[name]() if name in ACCEPTED else REFUSED[name][0]())
    expected, expected_gradients = one_by_one(lm)
    lm.zero_grad()
    total = 0.0
    for chains in RECORDS:
        for chain in chains:
            loss = of_row(lm, lay_out_alone(Tree.from_chains([chain]), 1 / TOTAL))
            loss.backward()
            total += loss.item()
    assert total == pytest.approx(expected, rel=1e-6)
    assert (gradients(lm) - expected_gradients).norm() <= 1e-5 * expected_gradients.norm()


@pytest.mark.parametrize("name", ACCEPTED)
def test_changing_one_document_leaves_the_logits_of_the_others_as_they_are(name: str) -> None:
    lm = build(ACCEPTED[name]()).eval()
    renamed = (
        np.random.default_rng(5).permutation(VOCABULARY).astype(np.int32)
    )  # the second tree keeps its shape, with other tokens
    second = [Tokens(renamed[chain.ids], chain.learned, chain.unlearned, ()) for chain in RECORDS[1]]
    before, after = packed(), packed([RECORDS[0], second, RECORDS[2]])
    with torch.no_grad():
        logits = [row_logits(lm, to_batch(row)) for row in (before, after)]
    keep = to_batch(before)["keep"]
    others = (keep < int(before.bounds[1])) | (keep >= int(before.bounds[2]))
    assert torch.equal(logits[0][others], logits[1][others])
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", ["llama", "gptj", "gemma2"])
def test_no_later_token_depends_on_a_hidden_one(name: str) -> None:
    lm = build(ACCEPTED[name]()).eval()
    row = hide(packed(), (0.5, 0.5), [np.random.default_rng(seed) for seed in range(3)])
    hidden = [j for j in range(int(row.bounds[-1])) if row.seen_until[j] == j + 1]
    batch = to_batch(row)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, hidden] = 2
    with torch.no_grad():
        logits = row_logits(lm, batch), row_logits(lm, changed)
    visible = torch.tensor([int(source) not in hidden for source in batch["keep"]])
    assert 10 < visible.sum() < len(visible)
    assert torch.equal(logits[0][visible], logits[1][visible])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_the_set_up_check_accepts(name: str, dtype: torch.dtype) -> None:
    assert check_layout(build(ACCEPTED[name](), dtype), row_tokens=128) < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", REFUSED)
def test_the_set_up_check_refuses(name: str, dtype: torch.dtype) -> None:
    config, message = REFUSED[name]
    lm = hf.AutoModelForCausalLM.from_config(config(), attn_implementation=attention_implementation(config())).to(dtype)
    with pytest.raises(InputError, match=f"{message}.*layout: separate"):
        check_layout(lm, row_tokens=128)


def test_limits_that_no_row_reaches_are_accepted() -> None:
    for name in ("gpt_neo", "llama with dynamic RoPE"):
        config = REFUSED[name][0]()
        config.window_size, config.max_position_embeddings = 512, 512
        check_layout(build(config), row_tokens=128)


def test_two_runs_on_two_threads_are_equal_to_the_bit() -> None:
    """Large enough that the kernels share their work out; several branches at one source, and unlikelihood."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lm = build(hf.LlamaConfig(**{**LLAMA, "hidden_size": 128, "vocab_size": 2048}))
        row = packed([record(seed) for seed in range(12)])
        runs = []
        for _ in range(4):
            lm.zero_grad()
            loss = of_row(lm, row)
            loss.backward()
            runs.append((loss.item(), gradients(lm)))
    finally:
        torch.set_num_threads(threads)
    assert all(loss == runs[0][0] and torch.equal(gradient, runs[0][1]) for loss, gradient in runs)
