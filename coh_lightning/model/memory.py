"""Arithmetic of what the backward pass keeps in memory, for the summary of a run and for scripts/cost.py.

of a block, for each token     8 hidden and 4 intermediate vectors (query, key, value, norms, MLP, residuals)
with gradient checkpointing    one hidden vector for each block; one block is recomputed, with its gradients
of a predicted token           the logits, their float32 copy and its gradient; where the head runs in pieces, those of
                               one piece, and the gradient of its weights a second time
"""

from __future__ import annotations

WHOLE = 2**28
"""Bytes that the logits of a row may take, in float32, before the head runs in pieces (head.py)."""

PIECE = 2**26
"""Bytes of the logits of a piece, in float32, ..."""

LEAST = 128
"""... but at least this many sources: each piece adds to the gradient of the head's weights, which takes time. Measured
on a CPU, for 150,000 tokens and 256 numbers each: 64 at once 43 % more than all at once, 128 17 %, 256 7 %.
"""


def activation_bytes(
    tokens: int, *, layers: int, hidden: int, intermediate: int, size: int, recomputed: bool, scores: int = 0
) -> int:
    """Bytes of activations for one row.

    Args:
        size: Bytes of a number.
        recomputed: Gradient checkpointing is on.
        scores: Numbers of a block that grow with the square of the row: attention scores, masks.
    """
    block = size * (tokens * (8 * hidden + 4 * intermediate) + scores)
    return size * tokens * layers * hidden + 2 * block if recomputed else layers * block


def sources_at_once(sources: int, *, vocabulary: int, hidden: int) -> int:
    """How many of a row's sources go through the head together, if it can run in pieces."""
    at_once = max(PIECE // (4 * vocabulary), LEAST)
    # the gradient of the weights a second time is as large as the logits of a third of `hidden` sources
    few = sources * 4 * vocabulary <= WHOLE or sources <= at_once + hidden // 3
    return sources if few else at_once


def logit_bytes(sources: int, *, at_once: int, vocabulary: int, hidden: int, size: int) -> int:
    """Bytes of the logits of a row, of which the head computes `at_once` together."""
    again = 0 if at_once >= sources else 4 * hidden * vocabulary
    return at_once * vocabulary * (size + 4 + 4) + again
