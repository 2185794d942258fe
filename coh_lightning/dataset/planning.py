"""Records of the splits -> their texts in the cache, and the records that the method can use, with what is counted.

Records are read twice, one by one: for their texts, which are tokenized in batches, and for the sizes of their chains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.dataset.held_out import Comparer
from coh_lightning.dataset.report import SplitCounts
from coh_lightning.dataset.splits import RatedAndTasks, Stage
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import SourceCounts
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import TooLong, Unusable
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.planned_records import PlannedRecords
from coh_lightning.sequences.record_planner import RecordPlanner


def cache_texts(tokens: ChainTokenizer, splits: Mapping[Stage, Sequence[Feedback]], cache_dir: Path) -> RatedAndTasks:
    """Lets the tokenizer know the ids of all texts; returns what the training records rate, and their tasks."""
    train = RatedAndTasks()

    def fields() -> Iterator[Field]:
        for stage, records in splits.items():
            for record in records:
                if stage == "train":
                    train.add(record)
                yield from tokens.fields(record)

    cache_fields(tokens.encoder, fields(), cache_dir)
    return train


@dataclass
class PlannedSplit:
    """The records of a split that the method can use, what was counted, and those that it can't use."""

    usable: PlannedRecords
    counts: SplitCounts
    sources: dict[str, dict[str, Any]]
    lost: list[Rejected]


def plan_split(
    planner: RecordPlanner,
    stage: Stage,
    records: Sequence[Feedback],
    comparer: Comparer | None,
    *,
    unreadable: Sequence[Rejected],
    copies_left_out: int,
    max_unusable_fraction: float,
    row_tokens: int,
    folder: Path,
) -> PlannedSplit:
    """Plans the records of a split in their order. `comparer` for held-out data; `unreadable`: rows that gave none.

    Raises:
        InputError: the method can't use more than `max_unusable_fraction` of the records.
    """
    from rich.console import Console
    from rich.progress import track

    counts, sources = SplitCounts(copies_left_out=copies_left_out), SourceCounts()
    usable = PlannedRecords(planner, records, folder)
    lost: list[Rejected] = []
    console = Console(stderr=True)
    hidden = not console.is_terminal or len(records) < 1000
    listed = enumerate(records)
    shown = listed if hidden else track(listed, f"chains of {stage}", len(records), console=console, transient=True)
    for place, record in shown:
        counts.add(record)
        sources.add(record)
        try:
            planned = planner.plan(record)
        except Unusable as unusable_here:
            detail = unusable_here.detail if isinstance(unusable_here, TooLong) else ""
            lost.append(Rejected(str(unusable_here), record.where, record.source, record.id, detail))
            continue
        usable.append(place, planned)
        counts.use(planned, comparer)
    planner.refuse_unusable(records, lost, max_unusable_fraction=max_unusable_fraction, row_tokens=row_tokens)
    for row in [*unreadable, *lost]:
        sources.leave_out(row)
    return PlannedSplit(usable, counts, sources.by_source, lost)
