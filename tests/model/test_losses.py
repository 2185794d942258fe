"""Losses against arithmetic by hand, and the exact batch of a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from coh_lightning.model.losses import (
    Batch,
    nll,
    output_log_likelihoods,
    row_loss,
    to_batch,
    token_losses,
    unlikelihood,
)
from coh_lightning.sequences.rows import Row, lay_out, lay_out_alone
from coh_lightning.sequences.tokens import OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree


def chain(
    ids: list[int], learned: list[float], unlearned: list[float] | None = None, spans: tuple[OutputSpan, ...] = ()
) -> Tokens:
    return Tokens(
        np.array(ids, np.int32), np.array(learned, float), np.array(unlearned or [0.0] * len(ids), float), spans
    )


GOOD, BAD = OutputSpan(2, 3, "good", 0), OutputSpan(2, 3, "bad", 0)


def fork() -> Row:
    """0 1 (2 | 3): after the tokens 0 1, token 2 is learned twice and token 3 is unlearned."""
    tree = Tree.from_chains(
        [chain([0, 1, 2], [0, 0, 2], spans=(GOOD,)), chain([0, 1, 3], [0, 0, 0], [0, 0, 1], (BAD,))]
    )
    return lay_out([tree], [0.5], row_tokens=6, pad_id=7, kinds={("good", 0): 0, ("bad", 0): 2})


def loss_of(logits: torch.Tensor, batch: Batch, **settings: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return row_loss(token_losses(logits, batch), batch, **settings)


def coefficients(tensor: torch.Tensor) -> list[list[float]]:
    return tensor.view(torch.float64).tolist()


def test_each_source_is_kept_once_with_all_that_follows_it() -> None:
    batch = to_batch(fork())
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3, 7, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 0, 0]]
    assert batch["seen_until"].tolist() == [[4, 4, 3, 4, 5, 6]]
    assert batch["keep"].tolist() == [1]
    assert batch["children"].tolist() == [[2, 3]]
    assert coefficients(batch["learned"]) == [[1.0, 0.0]]
    assert batch["unlearned_rows"].tolist() == [0]
    assert batch["unlearned_children"].tolist() == [[3]]
    assert coefficients(batch["unlearned"]) == [[0.5]]
    assert batch["label_cell"].tolist() == [0, 1]
    assert batch["label_kind"].tolist() == [0, 2]


def test_sources_are_parents_not_neighbors() -> None:
    tree = Tree.from_chains([chain([0, 1, 2], [0, 1, 1]), chain([0, 4, 5], [0, 1, 1])])  # row: 0 1 2 4 5
    batch = to_batch(lay_out([tree, tree], [1.0, 2.0], row_tokens=10, pad_id=0))
    assert batch["keep"].tolist() == [0, 1, 3, 5, 6, 8]
    assert batch["children"].tolist() == [[1, 4], [2, 0], [5, 0], [1, 4], [2, 0], [5, 0]]
    assert coefficients(batch["learned"]) == [[1, 1], [1, 0], [1, 0], [2, 2], [2, 0], [2, 0]]


def test_no_index_repeats_in_the_backward_pass() -> None:
    chance = np.random.default_rng(0)
    chains = [
        chain([0, *chance.integers(0, 3, 6).tolist()], [0, *[1] * 6], [0, *chance.integers(0, 2, 6).astype(float)])
        for _ in range(8)
    ]
    batch = to_batch(lay_out([Tree.from_chains(chains)], [1.0], row_tokens=60, pad_id=0))
    for name in ("keep", "unlearned_rows"):
        assert len(set(batch[name].tolist())) == len(batch[name]) > 0


def test_a_causal_row_leaves_positions_and_mask_to_the_model() -> None:
    batch = to_batch(lay_out_alone(Tree.from_chains([chain([0, 1, 2], [0, 0, 1])]), 1.0))
    assert {"position_ids", "seen_until"}.isdisjoint(batch)
    assert (batch["keep"].tolist(), batch["children"].tolist()) == ([1], [[2]])


def test_a_row_without_any_loss_still_has_one_source() -> None:
    batch = to_batch(lay_out([], [], row_tokens=4, pad_id=7))
    logits = torch.randn(1, 8, requires_grad=True)
    loss, stats = loss_of(logits, batch, kinds=2)
    loss.backward()
    assert batch["keep"].tolist() == [0]
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
    assert stats["kind_weight"].tolist() == [0, 0]


def test_a_loss_on_a_root_is_refused() -> None:
    row = fork()
    row.learned[0] = 1.0
    with pytest.raises(ValueError, match="nothing predicts it"):
        to_batch(row)


def test_coefficients_survive_a_cast_of_all_floats_to_half_precision() -> None:
    row = lay_out([Tree.from_chains([chain([0, 1, 2], [0, 1, 1])])], [1 / 3001], row_tokens=3, pad_id=0)
    batch = {
        name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in to_batch(row).items()
    }
    assert coefficients(batch["learned"]) == [[1 / 3001], [1 / 3001]]


def test_nll_is_minus_log_p() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    total = sum(math.exp(x) for x in (1, 2, 3))
    expected = [-math.log(math.exp(3) / total), -math.log(math.exp(1) / total)]
    assert nll(logits, torch.tensor([[2, 0]])).tolist() == [pytest.approx(expected, rel=1e-12)]


def test_unlikelihood_is_minus_log_of_one_minus_p() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    total = sum(math.exp(x) for x in (1, 2, 3))
    expected = [-math.log(1 - math.exp(3) / total), -math.log(1 - math.exp(1) / total)]
    assert unlikelihood(logits, torch.tensor([[2, 0]])).tolist() == [pytest.approx(expected, rel=1e-12)]


@pytest.mark.parametrize("margin", [-200.0, -30.0, -5.0, 0.0, 5.0, 30.0, 200.0])
def test_unlikelihood_and_its_gradient_are_finite_and_right_for_every_p(margin: float) -> None:
    """The child's logit stands `margin` above two equal others: p = 1 / (1 + 2 exp(-margin)); the gradient is p on the
    child and -p/2 on each other one.
    """
    logits = torch.tensor([[margin, 0.0, 0.0]], requires_grad=True)
    loss = unlikelihood(logits, torch.tensor([[0]]))
    loss.sum().backward()
    p = 1 / (1 + 2 * math.exp(-margin))
    minus_log = (
        margin - math.log(2) + math.log1p(2 * math.exp(-margin)) if margin > 0 else math.log1p(math.exp(margin) / 2)
    )
    assert loss.item() == pytest.approx(minus_log, rel=1e-5, abs=1e-30)
    assert logits.grad is not None and logits.grad.tolist()[0] == pytest.approx(
        [p, -p / 2, -p / 2], rel=1e-5, abs=1e-30
    )


@pytest.mark.parametrize("function", [nll, unlikelihood])
def test_half_precision_is_raised_to_float32_and_float64_stays(function) -> None:  # type: ignore[no-untyped-def]
    logits, children = torch.randn(3, 50, dtype=torch.float64), torch.tensor([[1, 2], [3, 4], [5, 6]])
    types = {
        dtype: function(logits.to(dtype), children).dtype
        for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    }
    assert types == {
        torch.bfloat16: torch.float32,
        torch.float16: torch.float32,
        torch.float32: torch.float32,
        torch.float64: torch.float64,
    }


def test_the_loss_of_a_row_is_the_sum_of_coefficients_times_losses() -> None:
    logits = torch.zeros(1, 8, dtype=torch.float64)
    logits[0, 2], logits[0, 3] = 2.0, 1.0
    total = 6 + math.exp(2) + math.exp(1)
    nll_good, nll_bad, against_bad = math.log(total) - 2, math.log(total) - 1, -math.log(1 - math.exp(1) / total)
    loss, stats = loss_of(logits, to_batch(fork()), kinds=3)
    assert loss.item() == pytest.approx(1.0 * nll_good + 0.5 * against_bad, rel=1e-12)
    assert stats["learned"].item() == pytest.approx(nll_good, rel=1e-12)
    assert stats["unlearned"].item() == pytest.approx(0.5 * against_bad, rel=1e-12)
    assert stats["kind_nll"].tolist() == pytest.approx([2 * nll_good, 0, nll_bad], rel=1e-12)
    assert stats["kind_weight"].tolist() == [2, 0, 1]
    assert not any(value.requires_grad for value in stats.values())


def test_a_token_learned_and_unlearned_has_both_losses() -> None:
    tree = Tree.from_chains([chain([0, 1], [0, 1]), chain([0, 1], [0, 0], [0, 1])])
    logits = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss, _ = loss_of(logits, to_batch(lay_out([tree], [1.0], row_tokens=2, pad_id=0)))
    p = logits.softmax(-1)[0, 1].item()
    assert loss.item() == pytest.approx(-math.log(p) - math.log(1 - p), rel=1e-12)


def test_the_log_likelihood_of_an_output_is_the_sum_along_its_path() -> None:
    spans = (OutputSpan(1, 3, "good", 0),)
    tree = Tree.from_chains([chain([0, 1, 2], [0, 0, 0], spans=spans), chain([0, 1, 3], [0, 0, 0], spans=spans)])
    row = lay_out([tree], [0.0], row_tokens=5, pad_id=0, scored=True)
    batch = to_batch(row)
    logits = torch.randn(len(batch["keep"]), 6, generator=torch.Generator().manual_seed(0))
    log_p = logits.double().log_softmax(-1)
    sums, counts = output_log_likelihoods(token_losses(logits, batch), batch, outputs=row.outputs)
    assert counts.tolist() == [2, 2]
    assert sums.tolist() == pytest.approx(
        [(log_p[0, 1] + log_p[1, 2]).item(), (log_p[0, 1] + log_p[1, 3]).item()], rel=1e-6
    )
