"""Held-out records -> batches, in a loader for each purpose, so that Lightning's limits on batches apply to each:

    losses        a batch is a row of chains, as in training
    comparisons   a batch is one record: its completions under the good and the bad sentence, in the rows they need
    writing       a batch is `RECORDS_PER_WRITING` records, each under every sentence asked for

Every rank gets the same number of batches in each loader, filled up with empty ones, and the same number of rows in
each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coh_lightning.dataset.loaders import BatchTable
from coh_lightning.errors import InputError
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import OpaqueList
from coh_lightning.model.losses import to_batch
from coh_lightning.sequences.chains import Link
from coh_lightning.sequences.plan import LinkSize, planned_trees
from coh_lightning.sequences.preferences import strict_pairs
from coh_lightning.sequences.record_planner import PlannedRecord, RecordPlanner
from coh_lightning.sequences.rows import Row
from coh_lightning.sequences.trees import Tree
from coh_lightning.sequences.wording import asked

RECORDS_PER_WRITING = 32
"""Prompts of a batch of writing; the module batches them itself (`Sampling.batch_size`)."""


@dataclass(frozen=True)
class Comparison:
    """A record's completions that are compared, by the likelihood of each under the good sentence and, where there is
    one, the bad sentence.
    """

    one: PlannedRecord
    pairs: tuple[tuple[int, int], ...]
    """(better, worse): places in `candidates`."""
    candidates: tuple[int, ...]
    """Of the record, those that stand in a pair."""
    markers: tuple[str, ...]
    """The good sentence and, where there is one, the bad sentence."""
    parts: tuple[tuple[int, ...], ...]
    """Chains by row: chain c is candidate c % k under sentence c // k, of k candidates. The parts are in the order of
    the chains.
    """

    @property
    def links(self) -> list[Link]:
        """The output of each chain."""
        return [
            Link(marker, self.one.record.candidates[number].text)
            for marker in self.markers
            for number in self.candidates
        ]


@dataclass(frozen=True)
class Comparer:
    """Records -> comparisons, for one method and wording. `attributes`: what is asked for under ratings (`asked`)."""

    preparer: RecordPlanner
    attributes: Sequence[str]

    def pairs(self, one: PlannedRecord) -> tuple[list[tuple[int, int]], int]:
        """The pairs (better, worse) of a record's completions that the method's judge orders strictly, for preference
        accuracy; and how many more are left out because one of the two is longer than `max_chain_tokens` under the good
        or the bad sentence.
        """
        pairs = strict_pairs(one.record, self.preparer.method)
        limit = self.preparer.max_chain_tokens
        too_long = {
            number
            for number in {number for pair in pairs for number in pair}
            for marker in self._markers(one)
            if sum(self._length(one, Link(marker, one.record.candidates[number].text))) > limit
        }
        kept = [pair for pair in pairs if too_long.isdisjoint(pair)]
        return kept, len(pairs) - len(kept)

    def comparison(self, one: PlannedRecord) -> Comparison | None:
        """What is compared of a record, split as training trees are; None where it has no pairs."""
        pairs, _ = self.pairs(one)
        if not pairs:
            return None
        candidates = sorted({number for pair in pairs for number in pair})
        places = {number: place for place, number in enumerate(candidates)}
        placed = tuple((places[better], places[worse]) for better, worse in pairs)
        whole = Comparison(one, placed, tuple(candidates), tuple(self._markers(one)), ())
        return replace(whole, parts=self._parts(one, whole.links))

    def trees(self, compared: Comparison) -> list[Tree]:
        """The tree of each part."""
        chains = [self.preparer.tokens.chain(compared.one.prompt, (link,)) for link in compared.links]
        return [Tree.from_chains([chains[number] for number in part]) for part in compared.parts]

    def largest(self, records: Sequence[PlannedRecord]) -> Tree | None:
        """The tree of all comparisons with the most tokens to score: what takes the most memory. None where nothing is
        compared.
        """
        best, most = None, 0
        for compared in (found for one in records if (found := self.comparison(one)) is not None):
            outputs = [self._length(compared.one, link)[2] for link in compared.links]
            for part in compared.parts:
                if (tokens := sum(outputs[number] for number in part)) > most:
                    best, most = (compared, part), tokens
        return self.trees(replace(best[0], parts=(best[1],)))[0] if best is not None else None

    def _parts(self, one: PlannedRecord, links: Sequence[Link]) -> tuple[tuple[int, ...], ...]:
        if self.preparer.row_tokens is None:
            return tuple((number,) for number in range(len(links)))
        lengths = [self._length(one, link) for link in links]
        # numbered by chain, so that the parts keep their order; that outputs share the sentence before them is not
        # counted on
        sizes = [[LinkSize(number, marker + output, 0.0)] for number, (_, marker, output) in enumerate(lengths)]
        items = planned_trees(0, max(before for before, _, _ in lengths), sizes, self.preparer.row_tokens)
        return tuple(item.chains for item in items)

    def _length(self, one: PlannedRecord, link: Link) -> tuple[int, int, int]:
        (length,) = self.preparer.tokens.link_lengths(one.prompt, (link,))
        return length

    def _markers(self, one: PlannedRecord) -> list[str]:
        asks = asked(self.preparer.wording, self.preparer.method.sentences, one.record, self.attributes)
        return [asks[name] for name in ("good", "bad") if name in asks]


def losses(
    rows: Sequence[Sequence[int]], record_of: Sequence[int], lay_out: Callable[[Sequence[int]], Row]
) -> BatchTable:
    """A row of items a batch, with the numbers of their records in `records`; `lay_out` makes the row of some items."""

    def build(index: int) -> dict[str, Any]:
        members = rows[index] if index < len(rows) else []
        return to_batch(lay_out(members)) | {"records": [record_of[number] for number in members]}

    return BatchTable(build, len(rows))


def comparisons(
    comparer: Comparer,
    records: Sequence[PlannedRecord],
    lay_out: Callable[[Sequence[Tree], int | None], dict[str, Any]],
    *,
    ranks: int,
) -> BatchTable:
    """A record a batch: `pairs`, `rows` to score (`outputs`: how many each has), and the number of the record in
    `records`.

    Outputs are numbered first under the good sentence, then under the bad one, through all rows. `lay_out` makes a row
    of some trees.
    """
    found = [
        (number, compared) for number, one in enumerate(records) if (compared := comparer.comparison(one)) is not None
    ]

    def build(index: int) -> dict[str, Any]:
        beside = found[index // ranks * ranks : (index // ranks + 1) * ranks]  # what the ranks have at the same time
        many = max(len(compared.parts) for _, compared in beside)
        trees = comparer.trees(found[index][1]) if index < len(found) else []
        rows = [lay_out([tree], tree.tokens) for tree in trees]
        rows += [lay_out([], None)] * (many - len(rows))
        return {
            "pairs": list(found[index][1].pairs) if trees else [],
            "rows": rows,
            "records": [found[index][0]] if trees else [],
        }

    return BatchTable(build, len(found))


def writing(records: Sequence[PlannedRecord], prompter: Prompter, *, ranks: int) -> BatchTable:
    """Some records per batch, under all sentences: `requests`. A few records are shared out over the ranks too."""
    size = min(RECORDS_PER_WRITING, max(1, -(-len(records) // ranks)))
    return BatchTable(
        lambda index: {
            "requests": OpaqueList(prompter.requests(one.record for one in records[index * size : (index + 1) * size]))
        },
        -(-len(records) // size),
    )


def refuse_empty(records: Sequence[PlannedRecord], share: float) -> None:
    """Lightning would silently skip an empty loader.

    Raises:
        InputError: nothing is held out for `test` and `predict`.
    """
    if not records:
        raise InputError(
            f"No record is held out for test and predict (data.test_share is {share:g}); raise data.test_share or "
            "give data.test_sources."
        )
