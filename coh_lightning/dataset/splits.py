"""Sources -> the records of each split, before any method has looked at them. No prompt is in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source, load, recognized, split_by_prompt, without_prompts_of
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.worlds import WORLD, is_world, resolve

if TYPE_CHECKING:
    from coh_lightning.dataset.feedback_data import FeedbackData

WORLD_POSTS = 800  # posts in the embedded world's feedback

Stage = Literal["train", "validation", "test"]


@dataclass
class RecordSplits:
    """The records of each split, and what reading them left out and found."""

    records: dict[Stage, Sequence[Feedback]] = field(default_factory=dict)
    rejected: dict[Stage, list[Rejected]] = field(default_factory=lambda: {"train": [], "validation": [], "test": []})
    """Unreadable rows of the training sources, which belong to no split yet, are under train."""
    copies_left_out: Counter[str] = field(default_factory=Counter)
    """Repetitions (a source's weight) that are left out of the held-out splits."""
    notes: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each source, the local files that were read, and those beside them that were not, with the reason."""


def read_splits(data: FeedbackData) -> RecordSplits:
    """Read the sources of all splits, as the arguments of the data module say."""
    found = RecordSplits()
    noticed: list[SourceNotes] = []

    def read(stage: Stage, sources: Sequence[Source]) -> Sequence[Feedback]:
        return load(
            list(sources),
            seed=data.seed,
            on_bad_record=data.on_bad_record,
            rejected=found.rejected[stage],
            noticed=noticed,
            max_unusable_fraction=data.max_unusable_fraction,
            folder=data.cache_dir,
        )

    records: Sequence[Feedback]
    if data.feedback is not None and not is_world(data.feedback):
        source, note = recognized(data.feedback)
        found.notes += [] if note is None else [note]
        records = read("train", [source])
    elif data.sources is not None:
        records = read("train", data.sources)
    else:
        make = resolve("feedback", data.feedback or WORLD)
        records = list(make(posts=WORLD_POSTS, samples=4, seed=data.seed, cache_dir=data.cache_dir))
    own: dict[Stage, Sequence[Feedback]] = {}
    shares: dict[str, float] = {}
    held_out: tuple[tuple[Stage, Sequence[Source] | None, float], ...] = (
        ("test", data.test_sources, data.test_share),
        ("validation", data.validation_sources, data.validation_share),
    )
    for stage, sources, share in held_out:
        if sources is None:
            shares = {stage: share} | shares  # validation first: the order decides who gets which prompts
            continue
        own[stage] = read(stage, sources)
        records, lost = without_prompts_of(records, own[stage])
        found.rejected["train"] += lost
    for notes in noticed:
        found.notes += notes.lines()
        if notes.files:
            of_source = found.files.setdefault(notes.label, {"read": [], "passed_over": {}})
            of_source["read"] += notes.files
            of_source["passed_over"] |= notes.passed_over
    splits = split_by_prompt(records, shares, seed=data.seed, copies_left_out=found.copies_left_out)
    if records and not splits["train"]:
        held = " and ".join(f"data.{stage}_share {share:g}" for stage, share in shares.items() if share)
        fact = f"All {len(records):,} records are held out by {held}, which go by a hash of the prompt"
        raise InputError(f"{fact}; set the shares to 0 if these are prompts that an earlier run held out.")
    found.records["train"] = splits["train"]
    found.records["validation"] = own.get("validation") or splits.get("validation", [])
    found.records["test"] = own.get("test") or splits.get("test", [])
    return found


class RatedAndTasks:
    """The attributes that records rate, and their tasks."""

    def __init__(self) -> None:
        self._rated: set[str] = set()
        self._tasks: Counter[tuple[str, str | None]] = Counter()

    def add(self, record: Feedback) -> None:
        for candidate in record.candidates:
            self._rated.update(candidate.ratings)
        self._tasks[record.task, record.aspect] += 1

    @property
    def attributes(self) -> tuple[str, ...]:
        """The rated ones; `overall` only where there is no other."""
        return tuple(sorted(self._rated - {"overall"} or self._rated))

    @property
    def tasks(self) -> tuple[tuple[str, str | None], ...]:
        """(task, aspect) of the records, the most common first."""
        count = self._tasks
        return tuple(sorted(count, key=lambda key: (-count[key], key[0], key[1] or "")))
