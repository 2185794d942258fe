"""Rows -> the steps of an epoch: which trees are in which rows, which rows in which steps, and each step's weight.

A pure function of (seed, epoch, lengths): every rank computes the same plan without communication, and a resumed run
finds its place by counting. The lengths are upper bounds over all wordings of a record, so rows always fit and every
epoch has the same number of them, whatever wordings it draws.

    rows_per_step 3, pretraining_rows_per_step 1, 2 ranks: 2 micro-batches a rank and step
      step 0:   R0   f7 | f2   f4         R: a row of pretraining text, f: a row of feedback trees
      rank:      0    1    0    1
      step 1:   R1   f5 | f1   --         --: an empty row, whose coefficients are all 0; every rank must still run it
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError
from coh_lightning.rng import key64
from coh_lightning.sequences.rows import RowTable, pack
from coh_lightning.tables import Column

_PIECE = 1 << 16
"""Items that are looked at as objects of Python at once."""


@dataclass(frozen=True)
class LinkSize:
    """What the plan knows of one link: its number in the record, the most tokens it takes, the weight in its output."""

    key: int
    tokens: int
    weight: float


@dataclass(frozen=True)
class PlannedTree:
    """A tree, or the part of a tree that fits in a row: some chains of one record."""

    record: int
    chains: tuple[int, ...]
    length: int  # most tokens that it takes under any wording
    weight: float  # sum of the learned and unlearned weight of its tokens in any wording; but see `Plan.weigh`


Kind = TypeVar("Kind", bound=tuple[Any, ...])


class Kinds(Generic[Kind]):
    """Tuples by number, each once: most records have the same few."""

    def __init__(self) -> None:
        self._numbers: dict[Kind, int] = {}
        self._listed: list[Kind] = []

    def number(self, kind: Kind) -> int:
        if kind not in self._numbers:
            self._numbers[kind] = len(self._listed)
            self._listed.append(kind)
        return self._numbers[kind]

    def __getitem__(self, number: int) -> Kind:
        return self._listed[number]


class PlannedTrees(Sequence[PlannedTree]):
    """The trees of a split as columns on disk; each is made as an object when it is asked for."""

    def __init__(self, items: Iterable[PlannedTree] = (), folder: Path | None = None) -> None:
        self._records, self._chains = Column("i", folder), Column("i", folder)
        self._lengths, self._weights = Column("i", folder), Column("d", folder)
        self._kinds: Kinds[tuple[int, ...]] = Kinds()
        self._arrays: tuple[NDArray[Any], ...] | None = None
        for item in items:
            self.append(item)

    def append(self, item: PlannedTree) -> None:
        self._records.append(item.record)
        self._chains.append(self._kinds.number(item.chains))
        self._lengths.append(item.length)
        self._weights.append(item.weight)
        self._arrays = None

    @property
    def records(self) -> NDArray[np.int32]:
        return self._read()[0]

    @property
    def lengths(self) -> NDArray[np.int32]:
        return self._read()[2]

    @property
    def weights(self) -> NDArray[np.float64]:
        return self._read()[3]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> PlannedTree: ...
    @overload
    def __getitem__(self, index: slice) -> list[PlannedTree]: ...
    def __getitem__(self, index: int | slice) -> PlannedTree | list[PlannedTree]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        records, chains, lengths, weights = self._read()
        chain = self._kinds[int(chains[index])]
        return PlannedTree(int(records[index]), chain, int(lengths[index]), float(weights[index]))

    def _read(self) -> tuple[NDArray[Any], ...]:
        if self._arrays is None:
            columns = (self._records, self._chains, self._lengths, self._weights)
            self._arrays = tuple(column.numbers for column in columns)
        return self._arrays


def planned_trees(
    record: int, prompt_tokens: int, chains: Sequence[Sequence[LinkSize]], row_tokens: int
) -> list[PlannedTree]:
    """The chains of one record as one tree, or as several where the row is too short; each part repeats the shared path
    and carries its own chains' weight.

    Chains that begin alike share their links (row of 12 tokens, prompt of 4, each link 3 tokens):
      p: a   pn: a b   n: b   np: b a   ->   {p, pn}: 4 + 3 + 3 = 10   {n, np}: 4 + 3 + 3 = 10   (all: 16, too long)
    """
    order, new = _paths_once(tuple([tuple([link.key for link in chain]) for chain in chains]))
    whole = prompt_tokens + sum([chains[index][place].tokens for index, place in new])
    if whole <= row_tokens:
        weight = 0.0
        for index in order:
            weight += sum([link.weight for link in chains[index]])
        return [PlannedTree(record, tuple(range(len(chains))), whole, weight)]
    parts: list[_Part] = []
    for index in order:
        paths = [tuple(link.key for link in chains[index][: end + 1]) for end in range(len(chains[index]))]
        sizes = {path: link.tokens for path, link in zip(paths, chains[index], strict=True)}
        if not parts or parts[-1].length + parts[-1].added(sizes) > row_tokens:
            parts.append(_Part([], set(), prompt_tokens, 0.0))
        part = parts[-1]
        part.length += part.added(sizes)
        if part.length > row_tokens:
            raise InputError(
                f"A chain of {part.length} tokens does not fit a row of {row_tokens}; raise data.row_tokens or lower "
                "data.max_chain_tokens."
            )
        part.chains.append(index)
        part.paths.update(paths)
        part.weight += sum(link.weight for link in chains[index])
    return [PlannedTree(record, tuple(sorted(part.chains)), part.length, part.weight) for part in parts]


@lru_cache(maxsize=1024)
def _paths_once(keys: tuple[tuple[int, ...], ...]) -> tuple[list[int], list[tuple[int, int]]]:
    """The chains with those that share the most beside each other, and (chain, place) of every link of one tree."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    seen: set[tuple[int, ...]] = set()
    new = []
    for index in order:
        for place in range(len(keys[index])):
            if (path := keys[index][: place + 1]) not in seen:
                seen.add(path)
                new.append((index, place))
    return order, new


@dataclass
class _Part:
    """A tree while it is being filled: its paths of links, each counted once."""

    chains: list[int]
    paths: set[tuple[int, ...]]
    length: int
    weight: float

    def added(self, sizes: dict[tuple[int, ...], int]) -> int:
        return sum(tokens for path, tokens in sizes.items() if path not in self.paths)


@dataclass(frozen=True)
class PlannedRow:
    """One micro-batch: its items (or pretraining documents), and the weight of its step, which divides coefficients."""

    pretraining: bool
    members: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class Plan:
    """All steps of all epochs. `documents`: lengths of the pieces of pretraining text, each at most `row_tokens`."""

    items: Sequence[PlannedTree]
    seed: int
    row_tokens: int
    rows_per_step: int
    separate: bool = False  # one item a row (`layout: separate`)
    documents: Sequence[int] = ()
    pretraining_rows_per_step: int = 0
    weigh: Callable[[PlannedTree, int], float] | None = None
    """The weight of a tree in an epoch, where it differs between epochs; None: `PlannedTree.weight`."""

    def __post_init__(self) -> None:
        rows, texts = self.rows_per_step, self.pretraining_rows_per_step
        if not self.items:
            raise InputError("There is nothing to train on: no record gave a chain.")
        if rows < 1 or texts < 0:
            found = f"data.rows_per_step is {rows} and data.pretraining_rows_per_step {texts}"
            raise InputError(f"{found}; they must be at least 1 and 0.")
        if texts and not len(self.documents):
            found = f"data.pretraining_rows_per_step is {texts} but there is no pretraining text"
            raise InputError(f"{found}; name some under data.pretraining_text.")

    def accumulate(self, ranks: int) -> int:
        """Micro-batches of a rank in one step. Raises InputError if the ranks can't share the step's rows evenly."""
        rows = self.rows_per_step + self.pretraining_rows_per_step
        if rows % ranks:
            raise InputError(
                f"A step has {self.rows_per_step} feedback and {self.pretraining_rows_per_step} pretraining rows, "
                f"which {ranks} ranks can't share evenly; make data.rows_per_step + data.pretraining_rows_per_step "
                f"({rows}) a multiple of {ranks}."
            )
        return rows // ranks

    @cached_property
    def _trees(self) -> PlannedTrees:
        return self.items if isinstance(self.items, PlannedTrees) else PlannedTrees(self.items)

    @cached_property
    def num_rows(self) -> int:
        return len(self._rows_of(0))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_rows // self.rows_per_step)

    @cached_property
    def digest(self) -> str:
        """A hash of the items and documents: plans of equal settings and equal digest are the same plan."""
        digest, trees = hashlib.sha256(), self._trees
        for start in range(0, len(trees), _PIECE):
            columns = [column[start : start + _PIECE] for column in (trees.records, trees.lengths, trees.weights)]
            digest.update(np.stack(columns, axis=1).astype(np.float64).tobytes())
        digest.update(np.array(self.documents, np.int64).tobytes())
        return digest.hexdigest()[:16]

    def step(self, epoch: int, step: int) -> list[PlannedRow]:
        """The rows of one step, pretraining text first; row k is micro-batch k // ranks of rank k % ranks."""
        start = step * self.rows_per_step
        rows = self._ordered(epoch, start)
        numbers = [number for row in rows for number in row]
        total = (
            sum(self._trees.weights[numbers].tolist())
            if self.weigh is None
            else sum(self.weigh(self.items[number], epoch) for number in numbers)
        )
        feedback = [PlannedRow(False, tuple(row), total) for row in rows]
        feedback += [PlannedRow(False, (), total)] * (self.rows_per_step - len(rows))
        texts = [
            self._document_row((epoch * self.steps_per_epoch + step) * self.pretraining_rows_per_step + i)
            for i in range(self.pretraining_rows_per_step)
        ]
        # the first token of a piece has nothing before it to be predicted from
        learned = sum(self.documents[i] - 1 for text in texts for i in text)
        return [PlannedRow(True, tuple(text), float(learned)) for text in texts] + feedback

    def _rows(self, epoch: int) -> RowTable:
        """Items packed into rows: as many in every epoch, though equal lengths change places."""
        order = self._shuffle(len(self.items), "packing", epoch).astype(np.int32)
        if self.separate:
            return RowTable(order, np.arange(1, len(order) + 1))
        rows = pack(self._trees.lengths[order], self.row_tokens)
        return RowTable(order[rows.members], rows.ends)

    def _ordered(self, epoch: int, start: int) -> list[list[int]]:
        """The rows of the step that begins at `start`; the heaviest of all comes first, so that memory fails at once or
        never.
        """
        rows = self._rows_of(epoch)
        if "row order" not in self._memo:
            order = self._shuffle(len(rows), "rows", epoch).astype(np.int32)
            if epoch == 0:
                largest = self._largest(rows, order)
                order[0], order[largest] = order[largest], order[0]
            self._memo["row order"] = order
        chosen: NDArray[np.int32] = self._memo["row order"]  # type: ignore[assignment]
        return [rows[number] for number in chosen[start : start + self.rows_per_step].tolist()]

    def _rows_of(self, epoch: int) -> RowTable:
        """`_rows`, kept for one epoch."""
        if self._memo.get("epoch") != epoch:
            for name in ("epoch", "rows", "row order"):
                self._memo.pop(name, None)
            self._memo.update(epoch=epoch, rows=self._rows(epoch))
        return self._memo["rows"]  # type: ignore[return-value]

    def _largest(self, rows: RowTable, order: NDArray[np.int32]) -> int:
        """The place in `order` of the row whose `size` is largest, the first of equal ones."""
        if self.separate:
            return int(np.argmax(self._trees.lengths[rows.members[order]]))
        sums = np.add.reduceat(self._trees.weights[rows.members], np.append(0, rows.ends[:-1]))[order]
        close = np.flatnonzero(sums >= sums.max() * (1 - 1e-9))  # sums in another order may differ in the last bits
        return int(max(close, key=lambda place: self.size([self.items[item] for item in rows[int(order[place])]])))

    def size(self, row: Sequence[PlannedTree]) -> float:
        """What decides the memory of a row: its length where rows differ in it, else its weight in the loss."""
        return float(row[0].length) if self.separate else sum(item.weight for item in row)

    def largest_text(self) -> PlannedRow:
        """The row of pretraining text with the most tokens in the loss, as if it were alone in its step."""
        row = max(self._document_rows, key=lambda row: sum(self.documents[i] - 1 for i in row))
        return PlannedRow(True, tuple(row), float(sum(self.documents[i] - 1 for i in row)))

    @cached_property
    def _memo(self) -> dict[str, object]:
        return {}

    @cached_property
    def _document_rows(self) -> Sequence[list[int]]:
        if self.separate:
            return [[i] for i in range(len(self.documents))]
        return pack(self.documents, self.row_tokens)

    def _document_row(self, position: int) -> list[int]:
        """The row at this place of the endless stream: all rows once in a drawn order, then all again in another."""
        rows = self._document_rows
        turn, place = divmod(position, len(rows))
        if self._memo.get("turn") != turn:
            self._memo.update(turn=turn, order=self._shuffle(len(rows), "pretraining", turn))
        return rows[int(self._memo["order"][place])]  # type: ignore[index]

    def _shuffle(self, n: int, purpose: str, *key: int) -> np.ndarray:
        return np.random.default_rng(key64(self.seed, purpose, *key)).permutation(n)
