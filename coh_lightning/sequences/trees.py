"""Tokens of one record -> Tree: all its chains merged by common prefix, laid out depth first. Numpy only.

The chains of a record share their prompt, and the shorter ones are prefixes of the longer ones. A trie over token ids
has each shared token once:

    chains of one comparison            the tree, depth first
      P F+ g                             P ── F+ g ── F- b
      P F- b                               └─ F- b ── F+ g
      P F+ g F- b
      P F- b F+ g

    row index     0  1  2  3  4  5  6  7  8        (each of P, F+, g, F-, b one token here)
    token         P  F+ g  F- b  F- b  F+ g
    depth         0  1  2  3  4  1  2  3  4        position of the token in every chain that has it
    parent        0  0  1  2  3  0  5  6  7        the place from which the token is predicted
    subtree_end   9  5  5  5  5  9  9  9  9        token j is visible to q exactly when j <= q < subtree_end[j]
    learned       0  0  2  0  1  0  2  0  1        summed over the chains that have the token

A token's loss given its prefix is the same in every chain with that prefix, so with the summed weights the loss of the
tree is the sum of the losses of the chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError

if TYPE_CHECKING:
    from coh_lightning.sequences.tokens import OutputSpan, Tokens

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """Chains of one record (all, or a part that fits a row) as one trie of N nodes, depth first."""

    ids: Ints  # (N,) token ids
    depth: Ints  # (N,) distance from the root: the token's position in every chain that has it
    parent: Ints  # (N,) index of the node from which this one is predicted; the root's is itself
    subtree_end: Ints  # (N,) one past the last node below this one
    learned: Floats  # (N,) weight of the likelihood loss, summed over the chains
    unlearned: Floats  # (N,) weight of the unlikelihood loss, summed over the chains; it never cancels with `learned`
    paths: tuple[Ints, ...]  # for each chain, in the order given: the nodes of its tokens, root first
    weights: tuple[Floats, ...]  # for each chain: learned + unlearned weight of its tokens in this chain alone
    spans: tuple[tuple[OutputSpan, ...], ...]  # for each chain: where its outputs lie, in tokens of the chain

    @property
    def tokens(self) -> int:
        """Number of nodes."""
        return len(self.ids)

    @classmethod
    def from_chains(cls, chains: Sequence[Tokens]) -> Tree:
        """Merge chains by common prefix. Branches are in the order of their ids, whatever the order of the chains.

        Raises InputError if the chains begin with different tokens, or the first, which nothing predicts, has weight.
        """
        if not chains or not all(len(chain.ids) for chain in chains):
            lengths = [len(chain.ids) for chain in chains]
            raise InputError(f"A tree needs at least one chain and no empty ones, not chains of {lengths} tokens.")
        order, shared = _sorted(chains)
        size = sum(len(chain.ids) for chain in chains) - sum(shared)
        ids, depth, parent, subtree_end = (np.empty(size, np.int32) for _ in range(4))
        learned, unlearned = np.zeros(size), np.zeros(size)
        index = np.arange(size, dtype=np.int32)
        paths: list[Ints] = [index] * len(chains)
        end, path = 0, index[:0]
        for number, common in zip(order, shared, strict=True):
            chain = chains[number]
            start, end = end, end + len(chain.ids) - common
            if common == 0 and start > 0:
                raise InputError(
                    f"The chains of one record begin with the different tokens {ids[0]} and {chain.ids[0]}, so they "
                    "share no root; give them the same prompt or a BOS token."
                )
            path = np.concatenate((path[:common], index[start:end])) if common else index[start:end]
            ids[start:end] = chain.ids[common:]
            depth[start:end] = index[common : len(path)]
            if end > start:
                parent[start + 1 : end] = index[start : end - 1]
                parent[start] = path[common - 1] if common else 0
            subtree_end[path] = end  # a later chain through the same node writes again, so the last one counts
            learned[path] += chain.learned
            unlearned[path] += chain.unlearned
            paths[number] = path
        if learned[0] != 0 or unlearned[0] != 0:
            found = f"The first token of a chain carries weight {learned[0] + unlearned[0]:g}, but nothing predicts it"
            raise InputError(f"{found}; begin with a BOS token or a prompt of weight 0.")
        weights = tuple(chain.learned + chain.unlearned for chain in chains)
        spans = tuple(tuple(chain.spans) for chain in chains)
        return cls(ids, depth, parent, subtree_end, learned, unlearned, tuple(paths), weights, spans)


def _sorted(chains: Sequence[Tokens]) -> tuple[list[int], list[int]]:
    """The numbers of the chains in the order of their ids, and how many tokens each shares with the one before it.

    In this order a chain shares most with its neighbor, and what it does not share is new: the new tokens, one chain
    after another, are the trie depth first.
    """
    # ids aren't negative, so their big-endian bytes are in the order of their values, and memcmp is fast
    keys = [chain.ids.astype(">i4").tobytes() for chain in chains]
    order = sorted(range(len(chains)), key=keys.__getitem__)
    return order, [0, *(_common(chains[before].ids, chains[number].ids) for before, number in pairwise(order))]


def _common(one: NDArray[Any], other: NDArray[Any]) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    different = one[:length] != other[:length]
    first = int(different.argmax()) if length else 0
    return first if length and different[first] else length
