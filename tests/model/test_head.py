"""The head in pieces gives the losses and gradients of the whole head, and is used only where a model's logits are its
head's. FSDP2 on two ranks is in test_sharded.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from test_architectures import ACCEPTED, LLAMA, build, gradients, packed
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from coh_lightning.model import head, memory
from coh_lightning.model.head import row_losses, use_head_in_pieces
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.model.lora import LoRA
from coh_lightning.model.losses import output_log_likelihoods, row_loss, to_batch
from coh_lightning.sequences.rows import lay_out
from coh_lightning.sequences.tokens import OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree

SIZE = 7
"""Sources of a piece here."""


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WHOLE": 0, "PIECE": 0, "LEAST": SIZE}.items():
        monkeypatch.setattr(memory, name, value)


def learned(lm: nn.Module) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    lm.zero_grad()
    batch = to_batch(packed())
    loss, stats = row_loss(row_losses(lm, batch), batch)
    (3 * loss).backward()
    return loss.detach(), stats, gradients(lm)


def sizes(lm: nn.Module, *, of: Any) -> list[int]:
    """Sources in each call of the head while `of` runs."""
    own, found = lm.get_output_embeddings(), []  # type: ignore[operator]
    forward = own.forward

    def counted(hidden: Tensor) -> Tensor:
        found.append(hidden.shape[1])
        return forward(hidden)

    own.forward = counted
    of()
    assert own.forward is counted  # what was replaced meanwhile is as it was
    del own.forward
    return found


def assert_the_same(lm: nn.Module, *, exact: float) -> None:
    """What the model learns from a row, whole and in pieces."""
    whole, whole_stats, wanted = learned(lm)
    assert use_head_in_pieces(lm)
    loss, stats, found = learned(lm)
    assert max(sizes(lm, of=lambda: learned(lm))) == SIZE
    torch.testing.assert_close(loss, whole, rtol=exact, atol=0)
    torch.testing.assert_close(stats, whole_stats, rtol=exact, atol=0)
    assert stats["unlearned"] > 0  # the row has something to unlearn, in several pieces
    assert (found - wanted).norm() <= exact * wanted.norm()


CAPPED = {"gemma2"}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", ACCEPTED.keys() - CAPPED)
def test_pieces_have_the_loss_and_gradients_of_the_whole_head(name: str) -> None:
    assert_the_same(build(ACCEPTED[name]()), exact=1e-6)
    assert_the_same(build(ACCEPTED[name](), torch.float64), exact=1e-12)


SCALED: dict[str, hf.PreTrainedConfig] = {
    "gemma2": ACCEPTED["gemma2"](),
    "granite": hf.GraniteConfig(**LLAMA, logits_scaling=2.0),
    "cohere": hf.CohereConfig(**LLAMA, logit_scale=0.5),
}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", SCALED)
def test_where_a_model_works_on_its_logits_the_head_stays_whole(name: str) -> None:
    lm = build(SCALED[name])
    whole, stats, wanted = learned(lm)
    assert not use_head_in_pieces(lm)
    loss, same_stats, found = learned(lm)
    assert torch.equal(loss, whole) and torch.equal(found, wanted)
    assert all(torch.equal(stats[key], same_stats[key]) for key in stats)


@pytest.mark.usefixtures("small_pieces")
def test_a_scale_of_one_changes_nothing() -> None:
    assert_the_same(build(hf.GraniteConfig(**LLAMA, logits_scaling=1.0)), exact=1e-6)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("targets", [None, ("q_proj",), ("q_proj", "lm_head")])
def test_with_adapters(targets: tuple[str, ...] | None) -> None:
    """The head frozen, or with adapters of its own."""
    lm = build(ACCEPTED["llama"](), torch.float64)
    LoRA(rank=2, targets=targets).attach(lm)  # type: ignore[arg-type]
    with torch.no_grad():  # they begin at 0
        for number, parameter in enumerate(one for one in lm.parameters() if one.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    names = {name for name, one in lm.named_parameters() if one.requires_grad}
    assert any("lm_head" in name for name in names) == (targets is not None and "lm_head" in targets)
    assert_the_same(lm, exact=1e-12)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("tied", [True, False])
def test_with_tied_embeddings_checkpointing_and_attention_tree_by_tree(tied: bool) -> None:
    lm: Any = build(hf.LlamaConfig(**LLAMA, tie_word_embeddings=tied), torch.float64)
    assert (lm.get_output_embeddings().weight is lm.get_input_embeddings().weight) == tied
    lm.gradient_checkpointing_enable()
    assert use_tree_attention(lm, row_tokens=128)
    assert_the_same(lm, exact=1e-12)


@pytest.mark.usefixtures("small_pieces")
def test_a_head_with_a_bias_and_a_frozen_trunk() -> None:
    lm: Any = build(hf.PhiConfig(**LLAMA), torch.float64)
    assert lm.lm_head.bias is not None
    for name, parameter in lm.named_parameters():
        parameter.requires_grad_("lm_head" in name)
    assert_the_same(lm, exact=1e-12)


@pytest.mark.usefixtures("small_pieces")
def test_in_mixed_precision() -> None:
    lm = build(ACCEPTED["llama"]())
    with torch.autocast("cpu", torch.bfloat16):
        assert_the_same(lm, exact=1e-2)
    with torch.autocast("cpu", torch.float16):  # whole, for the scaler of the loss
        assert head.sources_at_once(lm, 100, torch.device("cpu")) == 100


@pytest.mark.usefixtures("small_pieces")
def test_each_source_goes_through_the_head_once_and_never_more_than_a_piece_together() -> None:
    lm, batch = build(ACCEPTED["llama"]()), to_batch(packed())
    sources = len(batch["keep"])
    assert use_head_in_pieces(lm)
    found = sizes(lm, of=lambda: learned(lm))
    assert sum(found) == sources and max(found) == SIZE
    with torch.no_grad():
        assert sizes(lm, of=lambda: row_losses(lm, batch)) == found


def test_small_rows_are_not_cut() -> None:
    lm = build(ACCEPTED["llama"]())
    assert use_head_in_pieces(lm)
    assert sizes(lm, of=lambda: learned(lm)) == [len(to_batch(packed())["keep"])]


def test_how_many_sources_go_through_the_head_together() -> None:
    """Logits of 448 x 150,000 floats are 256.3 MiB."""
    with torch.device("meta"):
        config = hf.LlamaConfig(**{**LLAMA, "vocab_size": 150_000})
        lm = hf.AutoModelForCausalLM.from_config(config)
    cpu = torch.device("cpu")
    assert head.sources_at_once(lm, 600, cpu) == 600  # nothing was probed
    lm._coh_head_in_pieces = True
    assert [head.sources_at_once(lm, count, cpu) for count in (447, 448, 600)] == [447, 128, 128]
    gpu = torch.device("cuda")
    assert [head.sources_at_once(lm, count, gpu) for count in (447, 448, 600)] == [447, 512, 512]
    lm.config.vocab_size = 32_000
    assert [head.sources_at_once(lm, count, cpu) for count in (2097, 2098)] == [2097, 524]


@pytest.mark.usefixtures("small_pieces")
def test_log_likelihoods_of_outputs() -> None:
    chance = np.random.default_rng(0)
    chains = []
    for number in range(3):
        ids, nothing = np.r_[np.arange(2, 12), chance.integers(2, 64, 9)].astype(np.int32), np.zeros(19)
        chains.append(Tokens(ids, nothing, nothing, (OutputSpan(10, 19, "good", number),)))
    row = lay_out([Tree.from_chains(chains)], [0.0], row_tokens=64, pad_id=0, scored=True)
    lm, batch, found = build(ACCEPTED["llama"](), torch.float64), to_batch(row), []
    for _ in range(2):
        with torch.no_grad():
            found.append(output_log_likelihoods(row_losses(lm, batch), batch, outputs=row.outputs))
        assert use_head_in_pieces(lm)
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)


def test_a_head_with_hooks_stays_whole() -> None:
    """As with tensor parallelism, whose hooks split what goes in."""
    lm: Any = build(ACCEPTED["llama"]())
    lm.lm_head.register_forward_hook(lambda module, inputs, output: output)
    assert not use_head_in_pieces(lm)


def test_a_head_that_looks_at_several_tokens_stays_whole() -> None:
    lm: Any = build(ACCEPTED["llama"]())
    forward = lm.lm_head.forward
    lm.lm_head.forward = lambda hidden: forward(hidden - hidden.mean(dim=1, keepdim=True))
    assert not use_head_in_pieces(lm)


def test_a_model_that_gives_all_logits_stays_whole() -> None:
    lm: Any = build(ACCEPTED["llama"]())
    forward = lm.forward
    lm.forward = lambda logits_to_keep=None, **inputs: forward(**inputs)
    assert not use_head_in_pieces(lm)


def test_the_probe_changes_nothing() -> None:
    lm = build(ACCEPTED["llama"]())
    weights, random = {name: value.clone() for name, value in lm.state_dict().items()}, torch.get_rng_state()
    seen: list[str] = []
    with register_module_forward_hook(lambda module, inputs, output: seen.append(type(module).__name__)):
        assert use_head_in_pieces(lm)
    assert "LlamaForCausalLM" in seen  # through the root, as FSDP wants it
    assert lm.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, weights[name]) for name, value in lm.state_dict().items())
    assert "forward" not in vars(lm.lm_head) and all(parameter.grad is None for parameter in lm.parameters())
