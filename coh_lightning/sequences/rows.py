"""Trees -> Rows of one length: packing, layout and random hiding. Numpy only.

A row is a micro-batch of shape (1, row_tokens): trees side by side, never cut, then padding. One integer per token,
`seen_until`, is the attention mask: token j is visible to token q exactly when j <= q < seen_until[j] (and, in a layer
with a sliding window, depth[q] - depth[j] < window).

    two trees of 4 and 3 tokens in a row of 9        P ─┬─ a ── b     Q ── c ── d
                                                        └─ e
    row index      0  1  2  3  4  5  6  7  8
    token          P  a  b  e  Q  c  d  -  -
    parents        0  0  1  0  4  4  5  7  8         padding sees only itself
    depth          0  1  2  1  0  1  2  0  0
    seen_until     4  3  3  4  7  7  7  8  9         e doesn't see a and b; Q, c, d see nothing of the first tree
    seen_until     4  2  3  4  7  7  7  8  9         the same with a hidden at random: only a itself sees it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError
from coh_lightning.sequences.trees import Floats, Ints, Tree

Kinds = Mapping[tuple[str, int], int]
"""(kind, place in the chain) of a span -> the number under which its loss is summed, the same in all rows of a run."""


@dataclass(frozen=True)
class Row:
    """One micro-batch of T tokens: trees side by side. All indices are indices into the row."""

    ids: Ints  # (T,) token ids
    parents: Ints  # (T,) from where each token is predicted; roots and padding: itself
    seen_until: Ints  # (T,) one past the last token that may see this one
    depth: Ints  # (T,) position of each token in its chains; padding 0
    learned: Floats  # (T,) final coefficient of the likelihood loss
    unlearned: Floats  # (T,) final coefficient of the unlikelihood loss
    bounds: Ints  # (trees + 1,) where each tree begins; the last entry is where the padding begins
    label_token: Ints  # (L,) for the loss per kind of segment: token,
    label_kind: Ints  # (L,) number of its kind,
    label_weight: Floats  # (L,) and its weight (learned + unlearned) in one chain; a token is here once per chain
    score_token: Ints  # (S,) for the log-likelihood of outputs: token,
    score_output: Ints  # (S,) and the number of its output: tree by tree, chain by chain, span by span
    outputs: int = 0  # how many outputs there are to score
    causal: bool = False  # one plain chain and no padding: the model's own causal mask is right (`layout: separate`)

    @property
    def positions(self) -> Ints:
        """(T,) position ids: the depth in the tree."""
        return self.depth

    @property
    def in_trees(self) -> Ints:
        """The parents of the tokens before the padding; of the first one in a row without trees."""
        return self.parents[: max(1, int(self.bounds[-1]))]


Runs = NDArray[np.int64]
"""(R, 3): first token of a run, one past its last, and the number of the run that it continues; -1: it begins a tree.
"""


def runs_of(parents: Ints) -> Runs:
    """What follows each other without a branch, in the order of the row, from the parents of its tokens (`in_trees`).

    P ─┬─ a ── b     Q ── c ── d        P: [0, 1, -1]   a b: [1, 3, 0]   e: [3, 4, 0]   Q c d: [4, 7, -1]
       └─ e
    """
    tokens, parents = len(parents), parents.astype(np.int64)
    own = np.arange(tokens)
    jumps = parents != own - 1  # roots, and branches that don't follow their parent
    forks = parents[jumps & (parents != own)]
    starts = np.union1d(np.flatnonzero(jumps), forks + 1)  # depth first, so a fork's first branch follows it
    continued = np.where(parents[starts] == starts, -1, np.searchsorted(starts, parents[starts], side="right") - 1)
    return np.stack([starts, np.append(starts[1:], tokens), continued], axis=1)


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Rows of item numbers: best fit decreasing. Nothing is cut, and equal lengths go in the order given, so the result
    depends on the arguments alone. Raises InputError for an item longer than a row.

        lengths 5 2 4 3 6, rows of 8   ->   [[4, 1], [0, 3], [2]]        6+2, 5+3, 4
    """
    # by free space: the rows that have exactly that much left
    free_rows: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    spaces = 0  # bit s is set if some row has s tokens left: the smallest space that fits is one shift away
    rows: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[item]
        if not 0 < length <= row_tokens:
            raise InputError(f"A tree of {length} tokens does not fit a row of {row_tokens}; raise data.row_tokens.")
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = free_rows[space].pop()
            if not free_rows[space]:
                spaces ^= 1 << space
            rows[row].append(item)
        else:
            space, row = row_tokens, len(rows)
            rows.append([item])
        if space > length:
            free_rows[space - length].append(row)
            spaces |= 1 << (space - length)
    return rows


def lay_out(
    trees: Sequence[Tree],
    coefficients: Sequence[float],
    *,
    row_tokens: int,
    pad_id: int,
    kinds: Kinds | None = None,
    scored: bool = False,
) -> Row:
    """Trees side by side in one row, as drawn above; `coefficients` (one per tree) multiply their weights.

    With `kinds` the row carries labels for the loss per kind of segment; a tree of coefficient 0 (filler of a short
    last step) gets none, so that it isn't counted. With `scored` it lists the tokens of every output, for their
    log-likelihood. Raises InputError if the trees don't fit.
    """
    used = sum(tree.tokens for tree in trees)
    if used > row_tokens:
        raise InputError(
            f"{len(trees)} trees of {used} tokens do not fit a row of {row_tokens}; raise data.row_tokens."
        )
    bounds = np.zeros(len(trees) + 1, np.int32)
    np.cumsum([tree.tokens for tree in trees], out=bounds[1:])
    own = np.arange(row_tokens, dtype=np.int32)
    ids, parents = np.full(row_tokens, pad_id, np.int32), own.copy()
    seen_until, depth = own + 1, np.zeros(row_tokens, np.int32)
    learned, unlearned = np.zeros(row_tokens), np.zeros(row_tokens)
    for tree, coefficient, start in zip(trees, coefficients, bounds.tolist()[:-1], strict=True):
        there = slice(start, start + tree.tokens)
        ids[there] = tree.ids
        parents[there] = tree.parent + start
        seen_until[there] = tree.subtree_end + start
        depth[there] = tree.depth
        if coefficient != 0:
            learned[there] = tree.learned * coefficient
            unlearned[there] = tree.unlearned * coefficient
    labels = _labels(trees, coefficients, bounds, kinds)
    scores = _outputs(trees, bounds) if scored else (own[:0], own[:0], 0)
    return Row(ids, parents, seen_until, depth, learned, unlearned, bounds, *labels, *scores)


def lay_out_alone(tree: Tree, coefficient: float, *, kinds: Kinds | None = None, scored: bool = False) -> Row:
    """The separate layout: one chain per row, of its length, for the model's own causal mask; for all architectures.

    Raises InputError if the tree has branches.
    """
    if not np.array_equal(tree.depth, np.arange(tree.tokens)):
        raise InputError("A tree with branches is not one plain chain; make one tree per chain for `layout: separate`.")
    row = lay_out([tree], [coefficient], row_tokens=tree.tokens, pad_id=0, kinds=kinds, scored=scored)
    return replace(row, causal=True)


def hide(row: Row, rates: tuple[float, float], generators: Sequence[np.random.Generator | None]) -> Row:
    """The paper's random hiding of past tokens (forgetful causal masking, arXiv 2210.13432, by token), as drawn above.

    For each tree a rate is drawn uniformly in `rates`, and each of its tokens is hidden from all later ones with this
    probability, never the first one. `generators` has one per tree, keyed by the tree's record and the epoch, so that
    the draw does not depend on its row; None hides nothing.
    """
    if row.causal:
        raise InputError("Random hiding needs its own mask: set data.fcm_range to [0, 0] or choose `layout: tree`.")
    seen_until = row.seen_until.copy()
    low, high = rates
    bounds = row.bounds.tolist()
    for start, stop, generator in zip(bounds[:-1], bounds[1:], generators, strict=True):
        if generator is None or stop - start < 2:
            continue
        rate = generator.uniform(low, high)
        hidden = start + 1 + np.flatnonzero(generator.random(stop - start - 1) < rate).astype(np.int32)
        seen_until[hidden] = hidden + 1
    return replace(row, seen_until=seen_until)


def _labels(
    trees: Sequence[Tree], coefficients: Sequence[float], bounds: Ints, kinds: Kinds | None
) -> tuple[Ints, Ints, Floats]:
    """Token, kind and weight of every weighted token of every span of every chain."""
    tokens: list[NDArray[np.int32]] = []
    numbers: list[int] = []
    weights: list[Floats] = []
    for tree, coefficient, start in zip(trees, coefficients, bounds.tolist()[:-1], strict=True):
        if kinds is None or coefficient == 0:
            continue
        for path, weight, spans in zip(tree.paths, tree.weights, tree.spans, strict=True):
            for span in spans:
                tokens.append(path[span.start : span.stop] + np.int32(start))
                numbers.append(kinds[span.kind, span.place])
                weights.append(weight[span.start : span.stop])
    if not tokens:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0)
    token, weight = np.concatenate(tokens), np.concatenate(weights)
    kind = np.repeat(np.asarray(numbers, np.int32), [len(part) for part in tokens])
    weighted = weight != 0
    return token[weighted], kind[weighted], weight[weighted]


def _outputs(trees: Sequence[Tree], bounds: Ints) -> tuple[Ints, Ints, int]:
    """Token and output number of every token of every span, and how many outputs there are."""
    tokens = [
        path[span.start : span.stop] + np.int32(start)
        for tree, start in zip(trees, bounds.tolist()[:-1], strict=True)
        for path, spans in zip(tree.paths, tree.spans, strict=True)
        for span in spans
    ]
    if not tokens:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), 0
    numbers = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(part) for part in tokens])
    return np.concatenate(tokens), numbers, len(tokens)
