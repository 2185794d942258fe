"""Several sources become one list of records: read, counted, and mixed by size or by weight."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.records import Feedback, Rejected, content_id, unique
from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.rng import key64

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
) -> list[Feedback]:
    """The records of all sources, in an order that depends only on the seed and their ids.

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
    by_label: dict[str, list[Feedback]] = {}
    rows = 0
    console = Console(stderr=True)
    name, done = TextColumn("reading {task.description}"), TextColumn("{task.completed:,} rows")
    columns = (SpinnerColumn(), name, BarColumn(), done, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for source in sources:
            label = _free_label(source.label, by_label)
            task = progress.add_task(label, total=source.limit)
            source.notes.start(label)
            records, left_out, count = _read(source, label, on_bad_record, lambda task=task: progress.advance(task))
            source.notes.rows = count
            source.after_rows()
            notes.append(copy.copy(source.notes))  # the same source may be read again
            by_label[label] = records
            lost += left_out
            rows += count
    stop_if_too_many_are_lost(rows, lost, max_unusable_fraction)
    _refuse_equal_ids(by_label)
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
    if with_weight:
        weights = {label: source.weight or 0.0 for label, source in zip(by_label, sources, strict=True)}
        by_label = repeated_by_weight(by_label, weights, seed=seed)
    return sorted(
        (one for records in by_label.values() for one in records), key=lambda one: (key64(seed, "mix", one.id), one.id)
    )


def _free_label(label: str, taken: Mapping[str, Any]) -> str:
    number = 2
    free = label
    while free in taken:
        free = f"{label}-{number}"
        number += 1
    return free


def _read(
    source: Source, label: str, on_bad_record: OnBadRecord, advance: Any
) -> tuple[list[Feedback], list[Rejected], int]:
    records: list[Feedback] = []
    lost: list[Rejected] = []
    seen: dict[str, str] = {}
    contents: set[str] = set()
    count = 0
    for where, row in source.rows():
        count += 1
        advance()
        try:
            if isinstance(row, InputError):
                raise row
            result = source.feedback(row, where)
            if isinstance(result, Feedback):
                records.append(unique(result, seen, where))
                if (content := content_id(result)) in contents:
                    source.notes.count("the record is identical to an earlier one", where)
                contents.add(content)
            else:
                lost.append(dataclasses.replace(result, source=label))
        except InputError as error:
            if on_bad_record == "stop":
                raise
            lost.append(Rejected(reason=str(error), where=where, source=label, unreadable=True))
    if not count:
        raise InputError(f"{source.path}: this source has no rows (split {source.split!r}).")
    if source.merge_prompts:
        records = merged_by_prompt(records)
    return [dataclasses.replace(one, id=f"{label}/{one.id}", source=label) for one in records], lost, count


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


def _refuse_equal_ids(by_label: Mapping[str, list[Feedback]]) -> None:
    """Refuses equal ids of two sources, as a label "a/b" and a label "a" with ids "b/..." may have."""
    owner: dict[str, str] = {}
    for label, records in by_label.items():
        for one in records:
            if owner.setdefault(one.id, label) != label:
                found = f"the sources {owner[one.id]!r} and {label!r} both have a record {one.id!r:.60}"
                raise InputError(f"{found}; give one of them another name.")


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
    by_label: Mapping[str, list[Feedback]], weights: Mapping[str, float], *, seed: int
) -> dict[str, list[Feedback]]:
    """Each source's records, repeated as its weight requires (see `load`)."""
    per_record = {label: weights[label] / len(records) for label, records in by_label.items() if records}
    least = min(per_record.values(), default=1.0)
    taken = {one.id for records in by_label.values() for one in records}
    out: dict[str, list[Feedback]] = {}
    for label, records in by_label.items():
        total = round(len(records) * per_record[label] / least) if records else 0
        chosen_first = sorted(records, key=lambda one: (key64(seed, "weight", one.id), one.id))
        out[label] = [
            one if copy == 1 else dataclasses.replace(one, id=_free_id(f"{one.id}~{copy}", taken), copy=copy)
            for copy in range(1, total // max(len(records), 1) + 2)
            for one in chosen_first[: total - (copy - 1) * len(records)]
        ]
    return out


def _free_id(id: str, taken: set[str]) -> str:
    """The id, lengthened until it is unique: a record's own id may look like that of a copy."""
    while id in taken:
        id += "~"
    taken.add(id)
    return id


def counts(feedback: Iterable[Feedback], rejected: Iterable[Rejected] = ()) -> dict[str, dict[str, Any]]:
    """For `data.json`: per source the records, copies, completions, and the rows left out by reason."""
    out: dict[str, dict[str, Any]] = {}

    def entry(label: str) -> dict[str, Any]:
        return out.setdefault(label, {"records": 0, "copies": 0, "completions": 0, "rejected": {}})

    for record in feedback:
        of_source = entry(record.source)
        of_source["copies" if record.copy > 1 else "records"] += 1
        of_source["completions"] += len(record.candidates)
    for left_out in rejected:
        reasons = entry(left_out.source)["rejected"]
        reason = "unreadable" if left_out.unreadable else left_out.reason
        reasons[reason] = reasons.get(reason, 0) + 1
    return out
