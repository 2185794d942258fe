"""Sources -> the records of each split, before any method has looked at them. No prompt stands in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source, load, recognized, split_by_prompt, without_prompts_of
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.worlds import WORLD, resolve

WORLD_POSTS = 800
"""Posts in the embedded world's feedback."""

Stage = Literal["train", "validation", "test"]


@dataclass
class RecordSplits:
    """The records of each split, and what reading them left out and found."""

    records: dict[Stage, list[Feedback]]
    rejected: dict[Stage, list[Rejected]]
    """Rows of the training sources that can't be read belong to no split yet and stand under train."""
    copies_left_out: Counter[str] = field(default_factory=Counter)
    """Repetitions (a source's weight) that are left out of the held-out splits."""
    notes: list[str] = field(default_factory=list)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each source, the local files that were read, and those beside them that were not, with the reason."""


@dataclass(frozen=True)
class SplitReader:
    """Reads the sources of all splits; see `CoHDataModule` for its arguments."""

    feedback: str | None
    sources: Sequence[Source] | None
    validation_sources: Sequence[Source] | None
    test_sources: Sequence[Source] | None
    validation_share: float
    test_share: float
    on_bad_record: Literal["stop", "skip"]
    max_unusable_fraction: float
    seed: int
    cache_dir: Path

    def read(self) -> RecordSplits:
        found = RecordSplits({}, {"train": [], "validation": [], "test": []})
        noticed: list[SourceNotes] = []
        records = self._training_records(found, noticed)
        own: dict[Stage, list[Feedback]] = {}
        shares: dict[str, float] = {}
        held_out: tuple[tuple[Stage, Sequence[Source] | None, float], ...] = (
            ("test", self.test_sources, self.test_share),
            ("validation", self.validation_sources, self.validation_share),
        )
        for stage, sources, share in held_out:
            if sources is None:
                shares = {stage: share} | shares  # validation first: the order decides who gets which prompts
                continue
            own[stage] = self._load(stage, sources, found, noticed)
            records, lost = without_prompts_of(records, own[stage])
            found.rejected["train"] += lost
        for notes in noticed:
            found.notes += notes.lines()
            if notes.files:
                of_source = found.files.setdefault(notes.label, {"read": [], "passed_over": {}})
                of_source["read"] += notes.files
                of_source["passed_over"] |= notes.passed_over
        splits = split_by_prompt(records, shares, seed=self.seed, copies_left_out=found.copies_left_out)
        found.records["train"] = splits["train"]
        found.records["validation"] = own.get("validation") or splits.get("validation", [])
        found.records["test"] = own.get("test") or splits.get("test", [])
        return found

    def _training_records(self, found: RecordSplits, noticed: list[SourceNotes]) -> list[Feedback]:
        if self.feedback is not None and self.feedback != WORLD:
            source, note = recognized(self.feedback)
            found.notes += [] if note is None else [note]
            return self._load("train", [source], found, noticed)
        if self.sources is None:
            return list(resolve("feedback")(posts=WORLD_POSTS, samples=4, seed=self.seed, cache_dir=self.cache_dir))
        return self._load("train", self.sources, found, noticed)

    def _load(
        self, stage: Stage, sources: Sequence[Source], found: RecordSplits, noticed: list[SourceNotes]
    ) -> list[Feedback]:
        return load(
            list(sources),
            seed=self.seed,
            on_bad_record=self.on_bad_record,
            rejected=found.rejected[stage],
            noticed=noticed,
            max_unusable_fraction=self.max_unusable_fraction,
        )


def rated_attributes(records: Sequence[Feedback]) -> tuple[str, ...]:
    """The attributes that the records rate; `overall` only where there is no other."""
    rated = {name for record in records for candidate in record.candidates for name in candidate.ratings}
    return tuple(sorted(rated - {"overall"} or rated))


def tasks_of(records: Sequence[Feedback]) -> tuple[tuple[str, str | None], ...]:
    """(task, aspect) of the records, the commonest first."""
    count = Counter((record.task, record.aspect) for record in records)
    return tuple(sorted(count, key=lambda key: (-count[key], key[0], key[1] or "")))
