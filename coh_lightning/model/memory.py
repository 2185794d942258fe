"""Arithmetic of what the backward pass keeps in memory, for the summary of a run and for scripts/cost.py.

of a block, for each token     8 hidden and 4 intermediate vectors (query, key, value, norms, MLP, residuals)
with gradient checkpointing    one hidden vector for each block; one block is recomputed, with its gradients
of a predicted token           the logits, their float32 copy and its gradient
"""

from __future__ import annotations


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


def logit_bytes(predicted: float, vocabulary: int, size: int) -> float:
    """Bytes of the logits at `predicted` places."""
    return predicted * vocabulary * (size + 4 + 4)
