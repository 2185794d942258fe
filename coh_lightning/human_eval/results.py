"""The judgments of a study, unblinded: `judgments.jsonl`, `key.json` and `items.jsonl`, checked against each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_values
from coh_lightning.feedback.judgments import JUDGE, TIE, Judgment
from coh_lightning.human_eval.study import JUDGMENTS, STUDY, Study, StudyItem, read_items, read_key, read_study


@dataclass(frozen=True)
class StudyResults:
    key: Mapping[str, Any]
    items: Mapping[str, StudyItem]
    judgments: tuple[Judgment, ...]
    study: Study | None
    """For title, attributes and their definitions, if study.json is there."""

    @property
    def seed(self) -> int:
        return int(self.key.get("seed", 0))

    @property
    def systems(self) -> tuple[str, ...]:
        return tuple(self.key["systems"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """In the study's order; others by name, "overall" last."""
        found = sorted({one.attribute for one in self.judgments}, key=lambda name: (name == "overall", name))
        given = [name for name in (self.study.attributes if self.study else ()) if name in found]
        return (*given, *(name for name in found if name not in given))

    @property
    def raters(self) -> tuple[str, ...]:
        return tuple(sorted({one.rater for one in self.judgments}, key=rater_order))

    @property
    def people(self) -> tuple[str, ...]:
        return tuple(rater for rater in self.raters if not rater.startswith(JUDGE))

    @property
    def judges(self) -> tuple[str, ...]:
        """Raters that are language models: never counted as people."""
        return tuple(rater for rater in self.raters if rater.startswith(JUDGE))

    def of(self, raters: Collection[str]) -> StudyResults:
        """The results with the judgments of these raters alone."""
        return replace(self, judgments=tuple(one for one in self.judgments if one.rater in raters))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(baseline, model) of each comparison: the baseline is the system `against`, or else the first."""
        names = sorted(self.systems, key=lambda name: name != self.key.get("against"))
        compared = {frozenset(one.systems) for one in self.judgments if not one.check}
        return [
            (one, two)
            for place, one in enumerate(names)
            for two in names[place + 1 :]
            if frozenset((one, two)) in compared
        ]

    def text(self, item: str, system: str) -> str:
        return self.items[item].texts[list(self.key["items"][item]["systems"]).index(system)]


def rater_order(name: str) -> tuple[int, str]:
    """Sort key: rater-2 before rater-10."""
    return (len(name), name)


def read_results(folder: Path | str) -> StudyResults:
    """The judgments of a study with its key. Raises InputError, naming file and line, for a missing or damaged file, an
    item or system that the key doesn't have, or two answers to one question.
    """
    folder = Path(folder)
    key, items = read_key(folder), {item.item: item for item in read_items(folder)}
    study = read_study(folder) if (folder / STUDY).exists() else None
    path = folder / JUDGMENTS
    if not path.exists():
        raise InputError(f"{path}: no such file; import the raters' files first: human-eval import {folder} FILES.")
    first_at: dict[tuple[str, str], str] = {}
    judgments = []
    for where, value in read_values(path):
        judgment = Judgment.from_json(value, where)
        if judgment.item not in key["items"] or judgment.item not in items:
            wrong = f"item {judgment.item!r:.60} is not in key.json and items.jsonl"
            raise InputError(f"{where}: {wrong}; import only answers of this study.")
        known = set(key["items"][judgment.item]["systems"])
        shown = set(judgment.systems)
        fits_item = shown == known or (len(known) > 2 and len(shown) == 2 and shown < known)
        if not fits_item or judgment.choice not in shown | {TIE}:
            choice = f"the choice {judgment.choice!r:.60} between {list(judgment.systems)!r:.80}"
            fits = f"item {judgment.item!r:.60}, which compares {sorted(known)!r:.80}"
            raise InputError(f"{where}: {choice} doesn't fit {fits}; import the raters' files again.")
        if (first := first_at.setdefault((judgment.row, judgment.attribute), where)) != where:
            two = f"row {judgment.row!r:.60} has two answers to {judgment.attribute!r:.60}, the first at {first}"
            raise InputError(f"{where}: {two}; keep one of the two lines.")
        judgments.append(judgment)
    if all(judgment.check for judgment in judgments):
        raise InputError(f"{path}: all {len(judgments):,} answers are checks, none is a vote; import more sheets.")
    return StudyResults(key, items, tuple(judgments), study)
