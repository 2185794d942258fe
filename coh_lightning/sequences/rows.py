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
from itertools import pairwise
from typing import Any, overload

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


class RowTable(Sequence[list[int]]):
    """Rows as lists of item numbers, kept in arrays: row r is `members[ends[r - 1] : ends[r]]`."""

    def __init__(self, members: NDArray[np.int32], ends: NDArray[np.int64]) -> None:
        self.members, self.ends = members, ends

    def __len__(self) -> int:
        return len(self.ends)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        start = int(self.ends[number - 1]) if number else 0
        return self.members[start : int(self.ends[number])].tolist()

    def taken(self, numbers: NDArray[Any]) -> RowTable:
        """Some of the rows, or all in another order."""
        starts = np.append(0, self.ends[:-1])[numbers]
        sizes = self.ends[numbers] - starts
        ends = np.cumsum(sizes)
        places = np.arange(int(sizes.sum())) + np.repeat(starts - (ends - sizes), sizes)
        return RowTable(self.members[places], ends)


def pack(lengths: Sequence[int] | NDArray[Any], row_tokens: int) -> RowTable:
    """Rows of item numbers: best fit decreasing. Nothing is cut, and equal lengths go in the order given, so the result
    depends on the arguments alone. Raises InputError for an item longer than a row.

        lengths 5 2 4 3 6, rows of 8   ->   [[4, 1], [0, 3], [2]]        6+2, 5+3, 4
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable").astype(np.int32)
    sizes = sizes[order]
    if len(sizes) and (sizes[0] > row_tokens or sizes[-1] < 1):
        length = sizes[0] if sizes[0] > row_tokens else sizes[sizes < 1][0]
        raise InputError(f"A tree of {length} tokens does not fit a row of {row_tokens}; raise data.row_tokens.")
    row_of = np.empty(len(sizes), np.int32)
    free = _FreeRows(row_tokens)
    bounds = np.flatnonzero(np.diff(sizes, prepend=0, append=0)).tolist()
    for start, stop in pairwise(bounds):
        free.fill(row_of[start:stop], int(sizes[start]))
    del sizes
    by_row = np.argsort(row_of, kind="stable")
    return RowTable(order[by_row], np.cumsum(np.bincount(row_of, minlength=free.count), dtype=np.int64))


class _FreeRows:
    """Rows by the space that is left in them; of equal spaces the row that got it last is taken first."""

    def __init__(self, row_tokens: int) -> None:
        self.count = 0
        self._row_tokens = row_tokens
        self._rows: list[list[NDArray[np.int32]]] = [[] for _ in range(row_tokens)]
        self._spaces = 0  # bit s is set if some row has s tokens left: the smallest space that fits is one shift away

    def fill(self, row_of: NDArray[np.int32], length: int) -> None:
        """Writes the rows of items of one length, which come one after another. The row that an item goes to has the
        smallest space that fits, and then a smaller one: it gets items until nothing more fits.
        """
        done = 0
        while done < len(row_of):
            fitting = self._spaces >> length
            space = length + (fitting & -fitting).bit_length() - 1 if fitting else self._row_tokens
            each = space // length
            wanted = -(-(len(row_of) - done) // each)
            rows = self._taken(space, wanted) if fitting else self._new(wanted)
            filled = np.repeat(rows, each)[: len(row_of) - done]
            row_of[done : done + len(filled)] = filled
            done += len(filled)
            in_last = len(filled) - each * (len(rows) - 1)
            self._give(rows[:-1], space - each * length)
            self._give(rows[-1:], space - in_last * length)

    def _taken(self, space: int, most: int) -> NDArray[np.int32]:
        stack = self._rows[space]
        top = stack.pop()
        rows, rest = top[::-1][:most], top[: max(len(top) - most, 0)]
        if len(rest):
            stack.append(rest)
        if not stack:
            self._spaces ^= 1 << space
        return rows

    def _new(self, number: int) -> NDArray[np.int32]:
        self.count += number
        return np.arange(self.count - number, self.count, dtype=np.int32)

    def _give(self, rows: NDArray[np.int32], space: int) -> None:
        if space and len(rows):
            self._rows[space].append(rows)
            self._spaces |= 1 << space


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
