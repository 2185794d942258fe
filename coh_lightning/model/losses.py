"""Row -> batch of tensors; logits -> sums of losses and their counts. Nothing is averaged: the plan's coefficients are
final.

In a tree, the shift by one becomes: each token is predicted from its parent, its source. Each distinct source goes
through the head once:

    token       P  F  g  b          F, and both g and b, have a source: the parent in the tree
    parents     0  0  1  1          g and b are two branches after F
    learned     0  0  2  1
    keep        [1]                 the sources of all tokens with a loss (F has none), sorted, each once
    children    [[g, b]]            ids predicted from each source, filled up with id 0
    learned     [[2, 1]]            their coefficients, filled up with 0

`keep` and `unlearned_rows` have no index twice: the backward pass would add repeated ones in an order that differs from
run to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from coh_lightning.sequences.rows import Row

Batch = dict[str, Tensor]
"""What `to_batch` gives. Coefficients are the bits of float64 in int64: Lightning's `bf16-true` casts every float of a
batch to bfloat16."""


def to_batch(row: Row) -> Batch:
    """One row of T tokens as tensors: U distinct sources, at most C tokens predicted from one of them, M sources with
    something to unlearn.

    | key                                  | shape  | meaning                                                     |
    |--------------------------------------|--------|-------------------------------------------------------------|
    | input_ids                            | (1, T) |                                                             |
    | position_ids, seen_until             | (1, T) | missing in a causal row, where the model's own serve        |
    | parents                              | (N,)   | missing too: of the N tokens before the padding             |
    | keep                                 | (U,)   | sources: places in the row whose logits are wanted, rising  |
    | children, learned                    | (U, C) | ids predicted from each source, their coefficients          |
    | unlearned_rows                       | (M,)   | sources to unlearn from: indices into `keep`                |
    | unlearned_children, unlearned        | (M, .) | ids and coefficients of the unlikelihood loss               |
    | label_cell, label_kind, label_weight | (L,)   | losses per kind: cell u * C + c of `children`, kind, weight |
    | score_cell, score_output             | (S,)   | outputs to score: cell, number of the output                |
    """
    wanted = (row.learned != 0) | (row.unlearned != 0)
    wanted[row.label_token] = True
    wanted[row.score_token] = True
    tokens = np.flatnonzero(wanted)
    if np.any(row.parents[tokens] == tokens):
        raise ValueError("A root or a padding token can't have a loss: nothing predicts it.")
    tokens = tokens[np.argsort(row.parents[tokens], kind="stable")]
    keep, first, counts = (  # every rank must run its row, so one without a loss has one source with coefficient 0
        np.unique(row.parents[tokens], return_index=True, return_counts=True)
        if len(tokens)
        else (np.zeros(1, np.int64),) * 3
    )
    source = np.repeat(np.arange(len(keep)), counts)
    column = np.arange(len(tokens)) - np.repeat(first, counts)
    width = max(1, int(counts.max()))
    children, learned = np.zeros((len(keep), width), np.int64), np.zeros((len(keep), width))
    children[source, column] = row.ids[tokens]
    learned[source, column] = row.learned[tokens]
    cell = np.zeros(len(row.ids), np.int64)
    cell[tokens] = source * width + column
    unlearned_rows, unlearned_children, unlearned = _unlearned(row, tokens, source)
    batch = {
        "input_ids": _long(row.ids)[None],
        "keep": _long(keep),
        "children": _long(children),
        "learned": _bits(learned),
        "unlearned_rows": _long(unlearned_rows),
        "unlearned_children": _long(unlearned_children),
        "unlearned": _bits(unlearned),
        "label_cell": _long(cell[row.label_token]),
        "label_kind": _long(row.label_kind),
        "label_weight": _bits(row.label_weight),
        "score_cell": _long(cell[row.score_token]),
        "score_output": _long(row.score_output),
    }
    if not row.causal:
        batch |= {
            "position_ids": _long(row.positions)[None],
            "seen_until": _long(row.seen_until)[None],
            "parents": _long(row.in_trees),
        }
    return batch


def nll(logits: Tensor, children: Tensor) -> Tensor:
    """-log p of each child given its source: (U, V), (U, C) -> (U, C), at least in float32."""
    logits = _wide(logits)
    return logits.logsumexp(dim=-1, keepdim=True) - logits.gather(1, children)


def unlikelihood(logits: Tensor, children: Tensor) -> Tensor:
    """-log(1 - p) of each child given its source (Welleck et al., arXiv 1908.04319): (M, V), (M, C) -> (M, C).

    With d = the child's logit minus the log-sum-exp of all *other* logits, 1 - p = sigmoid(-d). So the value is
    -logsigmoid(-d) and its gradient by d is p, exact and finite for every p, with nothing to clamp.
    """
    logits = _wide(logits)
    columns = []
    # mostly one column: two need two unlearned outputs that diverge at the same token
    for child in children.split(1, dim=1):
        others = logits.scatter(1, child, -torch.inf).logsumexp(dim=-1, keepdim=True)
        columns.append(-logsigmoid(others - logits.gather(1, child)))
    return torch.cat(columns, dim=1)


@dataclass(frozen=True)
class TokenLosses:
    """What a row's tokens cost."""

    nll: Tensor
    """(U, C): of each of `children`, before its coefficient."""
    unlikelihood: Tensor
    """(M, .): of each of `unlearned_children`, before its coefficient."""
    loss: Tensor
    """The sum of coefficient * loss, which has the gradients."""


def token_losses(logits: Tensor, batch: Mapping[str, Tensor]) -> TokenLosses:
    """The losses of a row from the logits (U, V) of its `keep`."""
    likely = nll(logits, batch["children"])
    against = likely.new_zeros(batch["unlearned_children"].shape)
    loss = _weighted(likely, batch["learned"])
    if len(batch["unlearned_rows"]):
        against = unlikelihood(logits.index_select(0, batch["unlearned_rows"]), batch["unlearned_children"])
        loss = loss + _weighted(against, batch["unlearned"])
    return TokenLosses(likely, against, loss)


def row_loss(losses: TokenLosses, batch: Mapping[str, Tensor], *, kinds: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one row, sum of coefficient * loss; and detached float64 sums for the curves, to be divided only
    after adding them over rows and ranks.

    `learned` and `unlearned` are the two parts of the loss; `kind_nll` and `kind_weight`, both (kinds,), are sums of
    weight * nll and of weight per kind of segment (nll also where a segment is unlearned: how likely it still is).
    """
    likely = losses.nll.detach()
    weight = _coefficients(batch["label_weight"])
    seen = likely.flatten().double()[batch["label_cell"]]
    zeros = weight.new_zeros(kinds)
    return losses.loss, {
        "learned": _weighted(likely, batch["learned"]).double(),
        "unlearned": _weighted(losses.unlikelihood.detach(), batch["unlearned"]).double(),
        "kind_nll": zeros.index_add(0, batch["label_kind"], weight * seen),
        "kind_weight": zeros.index_add(0, batch["label_kind"], weight),
    }


def output_log_likelihoods(losses: TokenLosses, batch: Mapping[str, Tensor], *, outputs: int) -> tuple[Tensor, Tensor]:
    """log p of each output of a row with `scored`, and its number of tokens, end included: float64, (outputs,) each."""
    log_likelihoods = -losses.nll.detach().flatten().double()[batch["score_cell"]]
    zeros, output = log_likelihoods.new_zeros(outputs), batch["score_output"]
    tokens = zeros.index_add(0, output, torch.ones_like(log_likelihoods))
    return zeros.index_add(0, output, log_likelihoods), tokens


def _unlearned(
    row: Row, tokens: NDArray[np.int64], source: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows of `keep` with something to unlearn, and its ids and coefficients; `tokens` are sorted by `source`."""
    which = row.unlearned[tokens] != 0
    rows, first, counts = np.unique(source[which], return_index=True, return_counts=True)
    at, column = np.repeat(np.arange(len(rows)), counts), np.arange(int(which.sum())) - np.repeat(first, counts)
    width = int(counts.max()) if len(counts) else 1
    children, weights = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width))
    children[at, column] = row.ids[tokens[which]]
    weights[at, column] = row.unlearned[tokens[which]]
    return rows, children, weights


def _weighted(losses: Tensor, bits: Tensor) -> Tensor:
    return (_coefficients(bits).to(losses.dtype) * losses).sum()


def _wide(logits: Tensor) -> Tensor:
    """Half precision as float32, which a log-sum-exp over a vocabulary needs."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _long(array: NDArray[np.signedinteger]) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))


def _bits(array: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(array.view(np.int64).copy())


def _coefficients(bits: Tensor) -> Tensor:
    return bits.view(torch.float64)
