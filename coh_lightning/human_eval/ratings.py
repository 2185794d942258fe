"""`coh human-eval import DIR FILES...`: what raters send back -> `judgments.jsonl`, with every
answer that can't be used reported by file and line.

A row counts if its `row_id` is of this study, its `text_hash` or its texts are those that were exported (the rule is in
submitted.py), and each choice is one of these words, in any case:

    A, a, left, answer a      tie, t, =, neutral, equal, same, both, draw      B, b, right, answer b

Import rebuilds `judgments.jsonl` from its content and the files: files may be partial, and importing one again changes
nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.feedback.judgments import JUDGE, Judgment
from coh_lightning.human_eval.rating_files import read_rating_file
from coh_lightning.human_eval.rating_merge import Merge, with_checks
from coh_lightning.human_eval.study import JUDGMENTS, Study, read_study

SHOWN = 8
"""Sentences of one kind that the terminal shows."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did. The lists are sentences, each naming file and line if there is one; what is wrong with a
    whole file is one sentence.
    """

    judgments: int
    """Judgments of the study now."""
    added: int
    """Those of them that are new."""
    expected: int
    """Judgments of the study once everything is answered."""
    missing: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    """The same answer sent twice: counted once."""
    foreign: tuple[str, ...] = ()
    """Rows that are not of this study."""
    invalid: tuple[str, ...] = ()
    """Answers that can't be understood or don't fit what was exported."""
    conflicts: tuple[str, ...] = ()
    """Different answers to a question that was answered before: refused, or taken with `replace`."""
    changed: tuple[str, ...] = ()
    """Files with changed texts, whose votes count."""
    refused: int = 0
    """Rows and answers that are not counted, or not whole."""


def import_ratings(folder: Path, files: Sequence[Path], *, replace: bool = False) -> ImportResult:
    """Read the raters' files into `judgments.jsonl` of the study in `folder`. Good answers are kept; the result names
    the bad ones.

    Args:
        files: sheets (csv, tsv, txt, xlsx, ods), Label Studio's JSON export, potato's output; a folder is potato's.
        replace: where a file differs from what was imported before, take the file instead of the first answer.

    Raises:
        InputError: a file that is missing or has no known form, or a damaged study; nothing is written then.
    """
    folder = Path(folder)
    study = read_study(folder)
    path = folder / JUDGMENTS
    judged, before = _imported_before(path, study)
    merge = Merge(study, before, replace=replace)
    for file in files:
        merge.take_file(Path(file), read_rating_file(Path(file), study))
    judgments = with_checks(study, merge.judgments)
    if judgments or path.exists():
        write_jsonl(path, [*judgments, *judged])
    return ImportResult(
        judgments=len(judgments),
        added=len(merge.judgments.keys() - before.keys()),
        expected=len(study.rows) * len(study.attributes) * max(1, math.comb(study.form.ranking, 2)),
        missing=tuple(merge.missing()),
        duplicates=tuple(merge.duplicates),
        foreign=tuple(merge.foreign),
        invalid=tuple(merge.invalid),
        conflicts=tuple(merge.conflicts),
        changed=tuple(merge.changed),
        refused=merge.refused,
    )


def _imported_before(path: Path, study: Study) -> tuple[list[Judgment], dict[tuple[str, str], Judgment]]:
    """What the file has already: a judge's judgments, whose rows are its own, and people's by row and attribute."""
    judged: list[Judgment] = []
    people: dict[tuple[str, str], Judgment] = {}
    if not path.exists() or not path.stat().st_size:
        return judged, people
    rows = {row.row for row in study.rows}
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for number, judgment in enumerate(read_jsonl(path, Judgment), start=1):
        if judgment.rater.startswith(JUDGE):
            judged.append(judgment)
            continue
        if judgment.sheet_row not in rows:
            other = f"judgment {number} is of row {judgment.row!r:.60}, which study {study.id} doesn't have"
            raise InputError(f"{path}: {other}; is the file of another study?")
        first, choice = seen.setdefault((judgment.row, judgment.attribute), (number, judgment.choice))
        if choice != judgment.choice:
            raise InputError(
                f"{path}: judgments {first} and {number} give different choices, {choice!r:.60} and "
                f"{judgment.choice!r:.60}, for '{judgment.attribute}' of row '{judgment.row}'; keep one."
            )
        people[judgment.row, judgment.attribute] = judgment
    return judged, people


# --- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval import`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that export wrote")
    what = "what raters sent: csv, xlsx, ods, Label Studio's JSON, potato's output"
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=what)
    what = "take the file's answer if it differs from an earlier import"
    parser.add_argument("--replace", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Import the files and print the result; returns the exit status: 1 if something was refused."""
    result = import_ratings(args.folder, args.files, replace=args.replace)
    print(summary(result))
    return 1 if result.refused else 0


def summary(result: ImportResult) -> str:
    """What an import did, in lines for the terminal."""
    lines = [f"{result.judgments:,} of {result.expected:,} judgments, {result.added:,} of them new"]
    for name in ("invalid", "foreign", "conflicts", "changed", "duplicates", "missing"):
        sentences = getattr(result, name)
        if sentences:
            lines.append(f"{name}: {len(sentences):,}")
            lines += [f"  {sentence}" for sentence in sentences[:SHOWN]]
            if len(sentences) > SHOWN:
                lines.append(f"  and {len(sentences) - SHOWN:,} more")
    return "\n".join(lines)
