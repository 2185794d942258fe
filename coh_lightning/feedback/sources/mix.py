"""Several sources become one list of records on disk: read, counted, and mixed by size or by weight."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.record_store import RecordStore, SeenIds, StoredRecords
from coh_lightning.feedback.records import Feedback, Rejected, content_hash, content_id, unique
from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.rng import key64
from coh_lightning.tables import Column, HashTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

OnBadRecord = Literal["stop", "skip"]


def load(
    sources: Sequence[Source],
    *,
    seed: int,
    on_bad_record: OnBadRecord = "stop",
    rejected: list[Rejected] | None = None,
    noticed: list[SourceNotes] | None = None,
    max_unusable_fraction: float = 0.5,
    folder: Path | None = None,
) -> StoredRecords:
    """The records of all sources, in an order that depends only on the seed and their ids. They are on disk, in a file
    without a name (in `folder`, else among the system's temporary files): no record stays in memory, except those of a
    source with `merge_prompts` while it is read.

    Ids are unique: "<label of the source>/<the record's own id>". Every row is a record, part of one (`merge_prompts`),
    or in `rejected` with its reason. Without weights each record comes once. With a weight on every source, their
    shares follow the weights and no record is lost: the source that needs the fewest repetitions comes once, the others
    as whole copies and a seeded choice for the rest::

        source          a: 1000 records, weight 1    b: 100 records, weight 1    c: 100 records, weight 3
        repetitions     1 -> 1000                    10 -> 1000                  30 -> 3000

    Copies have a `copy` above 1 and ids of their own ("<id>~2", "<id>~3", ...); `split_by_prompt` keeps them in the
    training split.

    Args:
        on_bad_record: "stop" raises the InputError of a row that can't be read; "skip" adds it to `rejected`.
        rejected: gets every row that was left out; without it their counts are logged.
        noticed: gets the notes of each source; without it they are logged.
        max_unusable_fraction: the largest fraction of rows that may be left out.

    Raises:
        InputError: a bad row (with "stop"), a damaged file, weights on only some sources, two records with one id, or
            too many rows left out.
    """
    import numpy as np

    if on_bad_record not in ("stop", "skip"):
        raise InputError(f"on_bad_record is {on_bad_record!r}; it must be stop or skip.")
    if not sources:
        raise InputError("sources is empty; name at least one source of feedback.")
    with_weight = sum(source.weight is not None for source in sources)
    if with_weight not in (0, len(sources)):
        given = f"{with_weight} of {len(sources)} sources have a weight"
        raise InputError(f"{given}; give one to each, or to none to mix by size.")
    lost: list[Rejected] = []
    notes: list[SourceNotes] = []
    store = RecordStore(folder)
    bounds: dict[str, range] = {}  # the records of each source, by number
    clashes = _Clashes(store) if len(sources) > 1 else None
    order = Column("Q", folder)
    rows = 0
    console = Console(stderr=True)
    name, done = TextColumn("reading {task.description}"), TextColumn("{task.completed:,} rows")
    columns = (SpinnerColumn(), name, BarColumn(), done, TimeElapsedColumn())

    def put(record: Feedback) -> None:
        if clashes is not None:
            clashes.add(record)
        order.append(key64(seed, "mix", record.id))
        store.append(record)

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for source in sources:
            label = _free_label(source.label, bounds)
            task = progress.add_task(label, total=source.limit)
            source.notes.start(label)
            first = len(store)
            reading = _Reading(source, label, on_bad_record, lost, store, put)
            count = reading.read(lambda count, task=task: progress.update(task, completed=count))  # type: ignore[misc]
            source.notes.rows = count
            source.after_rows()
            notes.append(copy.copy(source.notes))  # the same source may be read again
            bounds[label] = range(first, len(store))
            rows += count
    stop_if_too_many_are_lost(rows, lost, max_unusable_fraction)
    if clashes is not None:
        clashes.refuse()
    if rejected is None:
        for (label, reason), times in Counter((one.source, one.reason) for one in lost).most_common():
            log.warning("%s: %d rows left out: %s", label, times, reason)
    else:
        rejected += lost
    if noticed is None:
        for line in (line for one in notes for line in one.lines()):
            log.warning("%s", line)
    else:
        noticed += notes
    if not with_weight:
        records = StoredRecords(store, np.arange(len(store)))
        return records.taken(ordered(order.numbers, records))
    weights = {label: source.weight or 0.0 for label, source in zip(bounds, sources, strict=True)}
    records = repeated_by_weight(store, bounds, weights, seed=seed)
    keys = np.fromiter((key64(seed, "mix", one.id) for one in records), np.uint64, len(records))
    return records.taken(ordered(keys, records))


def ordered(keys: NDArray[np.uint64], records: StoredRecords) -> NDArray[np.int64]:
    """The places of the records in the order of their keys, and of equal keys in that of their ids."""
    import numpy as np

    places = np.argsort(keys, kind="stable")
    inside = keys[places]
    equal = np.flatnonzero(inside[1:] == inside[:-1])
    for first in equal[np.flatnonzero(np.diff(equal, prepend=-2) > 1)] if len(equal) else ():
        stop = first + 1
        while stop < len(places) and inside[stop] == inside[first]:
            stop += 1
        places[first:stop] = sorted(places[first:stop], key=lambda place: records[int(place)].id)
    return places


def _free_label(label: str, taken: Mapping[str, Any]) -> str:
    number = 2
    free = label
    while free in taken:
        free = f"{label}-{number}"
        number += 1
    return free


_AT_ONCE = 64  # rows between two looks at the progress bar


@dataclasses.dataclass
class _Reading:
    """Reads one source: `put` gets its records, under the ids and the source that they have from now on."""

    source: Source
    label: str
    on_bad_record: OnBadRecord
    lost: list[Rejected]
    store: RecordStore
    put: Callable[[Feedback], None]

    def read(self, show: Callable[[int], None]) -> int:
        """The number of rows; `show` gets that so far."""
        source = self.source
        merging = source.merge_prompts
        records: list[Feedback] = []
        seen: Any = {} if merging else SeenIds(self.store, f"{self.label}/")
        contents = _Contents(None if merging else self.store, records)
        count = 0
        for where, row in source.rows():
            count += 1
            if count % _AT_ONCE == 0:
                show(count)
            try:
                if isinstance(row, InputError):
                    raise row
                result = source.feedback(row, where)
                if isinstance(result, Feedback):
                    record = unique(result, seen, where)
                    if contents.had(result):
                        source.notes.count("the record is identical to an earlier one", where)
                    if merging:
                        records.append(record)
                    else:
                        self._put(record)
                else:
                    self.lost.append(dataclasses.replace(result, source=self.label))
            except InputError as error:
                if self.on_bad_record == "stop":
                    raise
                self.lost.append(Rejected(reason=str(error), where=where, source=self.label, unreadable=True))
        show(count)
        if not count:
            raise InputError(f"{source.path}: this source has no rows (split {source.split!r}).")
        for record in merged_by_prompt(records):
            self._put(record)
        return count

    def _put(self, record: Feedback) -> None:
        self.put(record.under(id=f"{self.label}/{record.id}", source=self.label))


class _Contents:
    """The contents of the records of a source so far, to find identical ones."""

    def __init__(self, store: RecordStore | None, records: Sequence[Feedback]) -> None:
        self._records: Any = records if store is None else store
        self._table = HashTable(None if store is None else store.folder)

    def had(self, record: Feedback) -> bool:
        """Whether an earlier record has the same content; the next one in the store (or the list) is this one."""
        key = content_hash(record)
        found = any(content_id(self._records[number]) == content_id(record) for number in self._table.find(key))
        if not found:
            self._table.add(key, len(self._records))
        return found


class _Clashes:
    """Equal ids of two sources, as a label "a/b" and a label "a" with ids "b/..." may have."""

    def __init__(self, store: RecordStore) -> None:
        self._seen = SeenIds(store)
        self._first: InputError | None = None

    def add(self, record: Feedback) -> None:
        """`record` is the next one in the store."""
        other = self._seen.record(record.id)
        if other is not None and self._first is None:
            found = f"the sources {other.source!r} and {record.source!r} both have a record {record.id!r:.60}"
            self._first = InputError(f"{found}; give one of them another name.")
        self._seen[record.id] = record.where

    def refuse(self) -> None:
        """Raises InputError for the first of them."""
        if self._first is not None:
            raise self._first


def stop_if_too_many_are_lost(total: int, lost: Sequence[Rejected], max_unusable_fraction: float = 0.5) -> None:
    """Raises InputError if more than `max_unusable_fraction` of `total` rows were left out: then settings are wrong."""
    if len(lost) > max_unusable_fraction * total:
        remedy = "check that the source's settings fit the file, or raise data.max_unusable_fraction"
        found = f"{len(lost)} of {counted(total, 'row')} can't be used, {most_often(lost)}"
        raise InputError(f"{found}; {remedy} ({max_unusable_fraction:g}).")


def most_often(lost: Sequence[Rejected]) -> str:
    """The most frequent reason: "most often (3 times, first f.jsonl:7) because of: a completion is empty"."""
    alike = [re.sub(r"\d+", "0", one.reason) for one in lost]  # "812 tokens" and "900 tokens" are the same reason
    (reason, times), *_ = Counter(alike).most_common(1)
    first = lost[alike.index(reason)]
    detail = f" ({first.detail})" if first.detail else ""
    return f"most often ({times} times, first {first.where or first.id}) because of: {first.reason}{detail}"


def merged_by_prompt(records: Iterable[Feedback]) -> list[Feedback]:
    """Records of the same prompt and task merged into one, in the order of their first row. Feedback stays with its
    completion; ranks of different rows can't be compared and are refused::

        q -> a (4)     q -> b (2)     r -> c (3)          becomes          q -> a (4), b (2)     r -> c (3)

    Raises:
        InputError: a record has ranks, or two records of a prompt have different scales.
    """
    groups: dict[tuple[Any, ...], list[Feedback]] = {}
    for one in records:
        if any(candidate.rank is not None for candidate in one.candidates):
            remedy = "turn it off for sources with ranks or pairs"
            raise InputError(f"{one.where}: merge_prompts can't merge rankings of different rows; {remedy}.")
        groups.setdefault((one.prompt, one.task, one.aspect), []).append(one)
    return [_joined(group) for group in groups.values()]


def _joined(group: list[Feedback]) -> Feedback:
    first = group[0]
    if len(group) == 1:
        return first
    scales: dict[str, tuple[float, float]] = {}
    for one in group:
        for attribute, scale in one.scales.items():
            if scales.setdefault(attribute, scale) != scale:
                other = f"that of the same prompt at {first.where}"
                raise InputError(f"{one.where}: the scale of {attribute!r} differs from {other}.")
    return dataclasses.replace(
        first,
        candidates=tuple(candidate for one in group for candidate in one.candidates),
        scales=scales,
        reference=next((one.reference for one in group if one.reference is not None), None),
        extra=dict(first.extra) | {"merged": [one.where for one in group]},
    )


def repeated_by_weight(
    store: RecordStore, bounds: Mapping[str, range], weights: Mapping[str, float], *, seed: int
) -> StoredRecords:
    """Each source's records, repeated as its weight requires (see `load`)."""
    import numpy as np

    per_record = {label: weights[label] / len(numbers) for label, numbers in bounds.items() if numbers}
    least = min(per_record.values(), default=1.0)
    everyone = SeenIds(store)
    longer: set[str] = set()  # ids of copies that were lengthened; no two of the usual form are equal
    numbers: list[NDArray[np.int64]] = []
    copies: list[NDArray[np.int32]] = []
    names: dict[tuple[int, int], str] = {}
    every = StoredRecords(store, np.arange(len(store)))
    for number, record in enumerate(every):
        everyone.add(record.id, number)
    for label, own in bounds.items():
        total = round(len(own) * per_record[label] / least) if own else 0
        listed = every[own.start : own.stop]
        keys = np.fromiter((key64(seed, "weight", one.id) for one in listed), np.uint64, len(own))
        chosen_first = own.start + ordered(keys, listed)
        for time in range(1, total // max(len(own), 1) + 2):
            chosen = chosen_first[: max(total - (time - 1) * len(own), 0)]
            numbers.append(chosen)
            copies.append(np.full(len(chosen), time, np.int32))
            for number in chosen.tolist() if time > 1 else ():
                name = usual = f"{store[number].id}~{time}"
                while name in everyone or name in longer:
                    name += "~"
                if name != usual:
                    names[number, time] = name
                    longer.add(name)
    return StoredRecords(store, np.concatenate(numbers), np.concatenate(copies), names)
