"""Held-out records -> batches, in a loader for each purpose, so that Lightning's limits on batches apply to each:

    losses        a batch is a row of chains, as in training
    comparisons   a batch is one record: its completions under the good and the bad sentence, in the rows they need
    writing       a batch is `RECORDS_PER_WRITING` records, each under every condition

Every rank gets as many batches in each loader, filled up with empty ones, and as many rows in each batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.dataset.batch_table import BatchTable
from coh_lightning.errors import InputError
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import OpaqueList
from coh_lightning.sequences.chain_tokenizer import LinkLength
from coh_lightning.sequences.chains import Link
from coh_lightning.sequences.plan import LinkSize, planned_trees
from coh_lightning.sequences.preferences import strict_pairs
from coh_lightning.sequences.record_planner import RecordPlanner, UsableRecord
from coh_lightning.sequences.rows import Row
from coh_lightning.sequences.trees import Tree
from coh_lightning.sequences.wording import conditions_for

RECORDS_PER_WRITING = 32  # prompts of a batch of writing; the module batches them itself (`Sampling.batch_size`)


@dataclass(frozen=True)
class Comparison:
    """A record's completions to compare, by the likelihood of each under the good and, if any, the bad sentence."""

    planned: UsableRecord
    pairs: tuple[tuple[int, int], ...]  # (better, worse): places in `candidates`
    candidates: tuple[int, ...]  # of the record, those in a pair
    markers: tuple[str, ...]  # the good sentence and, if any, the bad sentence
    parts: tuple[tuple[int, ...], ...]
    """Chains by row, in order: chain c is candidate c % k under sentence c // k, of k candidates."""

    @property
    def links(self) -> list[Link]:
        """The output of each chain."""
        texts = [self.planned.record.candidates[number].text for number in self.candidates]
        return [Link(marker, text) for marker in self.markers for text in texts]


@dataclass(frozen=True)
class Comparer:
    """Records -> comparisons, for one method and wording. `attributes`: the rated ones of the conditions."""

    planner: RecordPlanner
    attributes: Sequence[str]
    sentences: tuple[str, ...] = ("good", "bad")
    """The conditions that outputs are scored under, where there are such."""

    def pairs(self, planned: UsableRecord) -> tuple[list[tuple[int, int]], int]:
        """The pairs (better, worse) of a record's completions that the feedback orders strictly, and how many more have
        a completion longer than `max_chain_tokens` under the good or the bad sentence.
        """
        pairs = strict_pairs(planned.record, self.planner.method)
        too_long = {
            number
            for number in {number for pair in pairs for number in pair}
            for marker in self._markers(planned)
            if sum(self._length(planned, Link(marker, planned.record.candidates[number].text)))
            > self.planner.max_chain_tokens
        }
        kept = [pair for pair in pairs if too_long.isdisjoint(pair)]
        return kept, len(pairs) - len(kept)

    def comparison(self, planned: UsableRecord) -> Comparison | None:
        """What is compared of a record, split as training trees are; None: it has no pairs."""
        pairs, _ = self.pairs(planned)
        if not pairs:
            return None
        candidates = sorted({number for pair in pairs for number in pair})
        placed = tuple((candidates.index(better), candidates.index(worse)) for better, worse in pairs)
        whole = Comparison(planned, placed, tuple(candidates), tuple(self._markers(planned)), ())
        return replace(whole, parts=self._parts(planned, whole.links))

    def trees(self, compared: Comparison) -> list[Tree]:
        """The tree of each part."""
        chains = [self.planner.tokens.chain(compared.planned.prompt, (link,)) for link in compared.links]
        return [Tree.from_chains([chains[number] for number in part]) for part in compared.parts]

    def largest(self, records: Sequence[UsableRecord]) -> Tree | None:
        """The tree with the most tokens to score, and so the most memory; None: nothing is compared."""
        best, most = None, 0
        for compared in filter(None, map(self.comparison, records)):
            outputs = [self._length(compared.planned, link).output for link in compared.links]
            for part in compared.parts:
                if (tokens := sum(outputs[number] for number in part)) > most:
                    best, most = (compared, part), tokens
        return self.trees(replace(best[0], parts=(best[1],)))[0] if best is not None else None

    def _parts(self, planned: UsableRecord, links: Sequence[Link]) -> tuple[tuple[int, ...], ...]:
        if self.planner.row_tokens is None:
            return tuple((number,) for number in range(len(links)))
        lengths = [self._length(planned, link) for link in links]
        # numbered by chain, so that the parts keep their order; a sentence that outputs share is counted for each
        sizes = [[LinkSize(number, it.marker + it.output, 0.0)] for number, it in enumerate(lengths)]
        items = planned_trees(0, max(length.before for length in lengths), sizes, self.planner.row_tokens)
        return tuple(item.chains for item in items)

    def _length(self, planned: UsableRecord, link: Link) -> LinkLength:
        return self.planner.tokens.link_lengths(planned.prompt, (link,))[0]

    def _markers(self, planned: UsableRecord) -> list[str]:
        known = conditions_for(self.planner.wording, self.planner.method.sentences, planned.record, self.attributes)
        return [known[name] for name in self.sentences if name in known]


def losses(
    rows: Sequence[Sequence[int]], record_of: NDArray[np.int32], lay_out: Callable[[Sequence[int]], Row]
) -> BatchTable:
    """A row of items a batch, with their records' numbers in `records`; `lay_out` makes the row of some items."""

    def build(index: int) -> dict[str, Any]:
        from coh_lightning.model.losses import to_batch

        members = rows[index] if index < len(rows) else []
        return to_batch(lay_out(members)) | {"records": [int(record_of[number]) for number in members]}

    return BatchTable(build, len(rows))


def comparisons(
    comparer: Comparer,
    records: Sequence[UsableRecord],
    lay_out: Callable[[Sequence[Tree], int | None], dict[str, Any]],
    *,
    ranks: int,
) -> BatchTable:
    """A record a batch: `pairs`, `rows` to score (`outputs`: how many each has), and its number in `records`.

    Outputs are numbered first under the good sentence, then under the bad one, through all rows.
    """
    found, parts = array("i"), array("i")  # numbers of records, and in how many rows each is compared
    for number, compared in enumerate(map(comparer.comparison, records)):
        if compared:
            found.append(number)
            parts.append(len(compared.parts))

    def build(index: int) -> dict[str, Any]:
        many = max(parts[index // ranks * ranks : (index // ranks + 1) * ranks])  # what the ranks have at the same time
        if index >= len(found):
            return {"pairs": [], "rows": [lay_out([], None)] * many, "records": []}
        number = found[index]
        compared = comparer.comparison(records[number])
        assert compared is not None
        rows = [lay_out([tree], tree.tokens) for tree in comparer.trees(compared)]
        rows += [lay_out([], None)] * (many - len(rows))
        return {"pairs": list(compared.pairs), "rows": rows, "records": [number]}

    return BatchTable(build, len(found))


def writing(records: Sequence[UsableRecord], prompter: Prompter, *, ranks: int) -> BatchTable:
    """Some records per batch, under all conditions: `requests`. A few records are shared out over the ranks too."""
    size = min(RECORDS_PER_WRITING, max(1, -(-len(records) // ranks)))

    def build(index: int) -> dict[str, Any]:
        batch = records[index * size : (index + 1) * size]
        return {"requests": OpaqueList(prompter.requests(planned.record for planned in batch))}

    return BatchTable(build, -(-len(records) // size))


def refuse_empty(records: Sequence[UsableRecord], share: float) -> None:
    """Raises InputError if nothing is held out for `test` and `predict`: Lightning would skip an empty loader."""
    if not records:
        found = f"No record is held out for test and predict (data.test_share is {share:g})"
        raise InputError(f"{found}; raise data.test_share or give data.test_sources.")
