"""Arithmetic of what the backward pass keeps in memory, for the summary of a run and for scripts/cost.py.

of a block, for each token     8 hidden and 4 intermediate vectors (query, key, value, norms, MLP, residuals)
with gradient checkpointing    one hidden vector for each block; one block is recomputed, with its gradients
of a predicted token           the logits, their float32 copy and its gradient; where the head runs in pieces, those of
                               one piece
"""

from __future__ import annotations

WHOLE = 2**28
"""Bytes that the logits of a row may take, in float32, before the head runs in pieces (head.py)."""

PIECE = 2**26
"""Bytes of the logits of a piece, in float32, ..."""

LEAST, LEAST_ON_GPU = 128, 512
"""... but at least this many sources: each piece reads and writes the gradient of the head's weights. Measured on a
CPU, for 150,000 tokens and 256 numbers each: 64 sources at once take 8 % more time than all, 128 and 256 none. Reckoned
for a GPU: with 512 the products take longer than the reading and writing.
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


def sources_at_once(sources: int, *, vocabulary: int, gpu: bool) -> int:
    """How many of a row's sources go through the head together, if it can run in pieces."""
    if sources * 4 * vocabulary <= WHOLE:
        return sources
    return max(PIECE // (4 * vocabulary), LEAST_ON_GPU if gpu else LEAST)


def logit_bytes(sources: float, vocabulary: int, size: int) -> float:
    """Bytes of the logits at places that go through the head together."""
    return sources * vocabulary * (size + 4 + 4)
