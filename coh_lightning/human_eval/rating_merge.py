"""Submitted rows -> judgments, merged with those that were there before; and what is wrong with the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

from coh_lightning.errors import counted
from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.choices import choice_words, in_words, listed_reasons
from coh_lightning.human_eval.file_notes import FileNotes
from coh_lightning.human_eval.rankings import pairs_of, read_ranking
from coh_lightning.human_eval.sheets import unguard
from coh_lightning.human_eval.study import RatingRow, Study
from coh_lightning.human_eval.submitted import ExportedRows, SubmittedRow


class Merge:
    """The judgments by (row, attribute), and what was wrong with other answers."""

    def __init__(self, study: Study, before: Mapping[tuple[str, str], Judgment], *, replace: bool) -> None:
        self.study = study
        self.judgments = dict(before)
        self.duplicates: list[str] = []
        self.foreign: list[str] = []
        self.invalid: list[str] = []
        self.conflicts: list[str] = []
        self.changed: list[str] = []
        self.refused = 0
        self._replace = replace
        self._words = choice_words(study.form)
        self._exported = ExportedRows(study)
        self._came_from: dict[tuple[str, str], str] = {}
        self._blank: dict[tuple[str, str], str] = {}

    def take_file(self, file: Path, rows: Sequence[SubmittedRow]) -> None:
        """Add the answers of a file to the judgments, or note what is wrong with them."""
        notes = FileNotes(file, self.study.id)
        notes.rows, invalid = len(rows), len(self.invalid)
        for submitted in rows:
            self._take(submitted, notes)
        self.refused += notes.refused + len(self.invalid) - invalid
        self.foreign += notes.foreign_sentences()
        self.invalid += notes.mismatch_sentences()
        self.changed += notes.changed_sentences()
        outcome = "These are taken." if self._replace else "The first ones are kept (--replace takes these)."
        self.conflicts += notes.conflict_sentences(outcome)

    def _take(self, submitted: SubmittedRow, notes: FileNotes) -> None:
        where = submitted.where
        row = self._exported.rows.get(submitted.row_id)
        if row is None:
            notes.foreign(where, submitted.row_id, submitted.study_id)
            return
        changed = self._exported.changed(submitted)
        wrong = self._exported.mismatch(submitted, changed)
        if wrong:
            notes.mismatched(where, wrong)
            return
        if changed:
            notes.changed(where)
        seconds, comment = self._seconds(submitted), self._comment(submitted)
        about = self.study.key["items"][row.item]
        systems = tuple(about["systems"][place] for place in row.places)
        for attribute, several in submitted.unclear.items():
            answers = " and ".join(f"{written[:40]!r}" for written in several)
            unclear = f"{attribute} of row '{row.row}' has {len(several)} answers, {answers}"
            self.invalid.append(f"{where}: {unclear}; none is counted.")
        for attribute, written in submitted.choices.items():
            word = _plain(unguard(written)).lstrip("'").casefold()
            if not word:
                self._blank.setdefault((row.row, attribute), where)
                continue
            if self.study.form.ranking:
                self._take_ranking(row, attribute, written, systems, seconds, comment, where, notes)
                continue
            if word not in self._words:
                fact = f"{written[:40]!r} is not a choice for {attribute}"
                self.invalid.append(f"{where}: {fact}; write {in_words(self.study.form)}.")
                continue
            side, _, strength = self._words[word].partition(" ")
            judgment = Judgment(
                item=row.item,
                row=row.row,
                prompt_id=about["prompt_id"],
                rater=row.rater,
                attribute=attribute,
                choice={"A": systems[0], "tie": TIE, "B": systems[1]}[side],
                systems=systems,
                check=self.study.key["rows"][row.row]["check"],
                seconds=seconds,
                comment=comment,
                strength=strength or None,
            )
            self._add(judgment, where, notes)

    def _take_ranking(
        self,
        row: RatingRow,
        attribute: str,
        written: str,
        systems: Sequence[str],
        seconds: float | None,
        comment: str,
        where: str,
        notes: FileNotes,
    ) -> None:
        """Add a judgment for each two answers; a comment's labels are A and B, so theirs has it."""
        ranking = read_ranking(unguard(written), len(systems))
        if ranking is None:
            fact = f"{written[:40]!r} is no ranking for {attribute}"
            self.invalid.append(f"{where}: {fact}; write {in_words(self.study.form)}.")
            return
        for first, second, better in pairs_of(ranking):
            new = Judgment(
                item=row.item,
                row=f"{row.row}:{first}-{second}",
                prompt_id=self.study.key["items"][row.item]["prompt_id"],
                rater=row.rater,
                attribute=attribute,
                choice=systems[better],
                systems=(systems[first], systems[second]),
                seconds=seconds,
                comment=comment if (first, second) == (0, 1) else "",
            )
            self._add(new, where, notes)

    def _add(self, new: Judgment, where: str, notes: FileNotes) -> None:
        place = (new.row, new.attribute)
        old, came_from = self.judgments.get(place), self._came_from.get(place)
        self._came_from[place] = where
        if old is None:
            self.judgments[place] = new
            return
        notes.repeated += 1
        if (old.choice, old.strength) == (new.choice, new.strength) and (
            not new.comment or not old.comment or new.comment == old.comment
        ):
            if came_from is not None:
                twice = f"{new.attribute} of row '{new.row}' has the same answer at {came_from}"
                self.duplicates.append(f"{where}: {twice}; it counts once.")
            self.judgments[place] = replace(
                old, comment=old.comment or new.comment, seconds=new.seconds if old.seconds is None else old.seconds
            )
            return
        sides = {TIE: "tie", **dict(zip(new.systems, ("A", "B"), strict=True))}
        there, here = (" ".join(filter(None, (sides.get(one.choice, one.choice), one.strength))) for one in (old, new))
        differs = "another comment"
        if (old.choice, old.strength) != (new.choice, new.strength):
            differs = f"another choice ({there} there, {here} here)"
        before = came_from or "an earlier import"
        answered = f"{new.attribute} of row '{new.row}' was answered before, at {before}, with {differs}"
        taken = "this one is taken" if self._replace else "the first is kept (--replace takes this one)"
        notes.conflict(where, f"{answered}; {taken}.", before)
        notes.refused += not self._replace
        if self._replace:
            self.judgments[place] = new

    def _comment(self, submitted: SubmittedRow) -> str:
        """The comment, and below it the reasons as labels, which comments.py reads."""
        comment = submitted.comment.encode("utf-8", "replace").decode()  # a lone surrogate becomes "?"
        lines = [comment] if comment else []
        for side, cell in submitted.reasons.items():
            reasons, unknown = listed_reasons(cell, self.study.form.reasons)
            if unknown:
                fact = f"{unknown[0][:40]!r} is not one of the study's reasons, {', '.join(self.study.form.reasons)}"
                self.invalid.append(f"{submitted.where}: {fact}; the row counts without it.")
            if reasons:
                lines.append(f"{side}: {', '.join(reasons)}")
        return "\n".join(lines)

    def _seconds(self, submitted: SubmittedRow) -> float | None:
        text = _plain(unguard(submitted.seconds)).replace(",", ".")
        if not text:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            given = f"{submitted.where}: {unguard(submitted.seconds)[:40]!r}"
            self.invalid.append(f"{given} is not a number of seconds; the row counts without its time.")
            return None
        return seconds

    def missing(self) -> Iterator[str]:
        """A sentence for each partly answered row, then one for each rater with unanswered rows."""
        answers = {(one.sheet_row, one.attribute) for one in self.judgments.values()}
        yield from self._unexplained()
        for row in self.study.rows:
            lacking = [name for name in self.study.attributes if (row.row, name) not in answers]
            if 0 < len(lacking) < len(self.study.attributes):
                blank = (self._blank[row.row, name] for name in lacking if (row.row, name) in self._blank)
                yield f"{next(blank, row.rater)}: row '{row.row}' has no answer for {', '.join(lacking)}."
        answered = {row for row, _ in answers}
        for rater in self.study.raters:
            rows = [row.row for row, _ in self.study.rater_rows(rater)]
            empty = sum(row not in answered for row in rows)
            if empty:
                yield f"{rater}: {empty} of {len(rows)} rows are not answered yet."

    def _unexplained(self) -> Iterator[str]:
        """A sentence for each rater with rows that lack a required reason or have too short a comment."""
        form, lacking = self.study.form, Counter[str]()
        if not form.reasons and not form.min_comment:
            return
        by_row: dict[str, list[Judgment]] = {}
        for one in self.judgments.values():
            by_row.setdefault(one.sheet_row, []).append(one)
        for given in by_row.values():
            lines = max((one.comment for one in given), key=len).split("\n")
            own = [line for line in lines if not (form.reasons and re.match("[AB]: ", line))]
            decided = any(one.choice != TIE for one in given)
            reasonless = form.reasons and decided and len(own) == len(lines)
            lacking[given[0].rater] += bool(reasonless or len("\n".join(own).strip()) < form.min_comment)
        for rater, number in lacking.items():
            if number:
                yield f"{rater}: {counted(number, 'row')} without the required reason or comment; the votes count."


def _plain(text: str) -> str:
    return re.sub(r"[\s\u200b\ufeff]+", " ", text).strip()


def with_checks(study: Study, given: Mapping[tuple[str, str], Judgment]) -> list[Judgment]:
    """The judgments in the order of the study's rows and attributes, with `passed` for the checks."""
    about = study.key["rows"]
    judgments = []
    pairs = [f":{first}-{second}" for first, second in combinations(range(study.form.ranking), 2)] or [""]
    for row in study.rows:
        for attribute, pair in product(study.attributes, pairs):
            one = given.get((row.row + pair, attribute))
            if one is None:
                continue
            passed: bool | None = None
            check = about[row.row]["check"]
            if check == "swap":
                first = given.get((about[row.row].get("of", ""), attribute))
                passed = None if first is None else first.choice == one.choice
            elif check:
                key = study.key["items"][row.item]
                passed = one.choice == (key["expected"] if key["expected"] == TIE else key["systems"][key["expected"]])
            judgments.append(replace(one, check=check, passed=passed))
    return judgments
