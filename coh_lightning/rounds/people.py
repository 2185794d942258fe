"""A round's study: people compare the answers of one model to each prompt, blind, and say why.

completions.jsonl, 2 answers to each prompt  ──>  answers/answer-1.jsonl, answer-2.jsonl  ──>  study/sheets/
study/returned/  <── what raters send back          study/judgments.jsonl  ──>  new.jsonl
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from coh_lightning.errors import counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.human_eval.study import KEY
from coh_lightning.rounds.steps import Stage

RETURNED = "returned"


@dataclass(frozen=True)
class Waiting:
    """A study whose sheets are not all back. `said`: what importing those that are gave, for the terminal."""

    study: Path
    judgments: int
    expected: int
    said: str = ""

    def __str__(self) -> str:
        have = f"{self.study}: {self.judgments:,} of {counted(self.expected, 'judgment')}"
        todo = (
            f"send raters {self.study / 'sheets'} or {self.study / 'rate.html'}, put what they send back into "
            f"{self.study / RETURNED}, and give the same command again"
        )
        return "\n".join([f"{have}; {todo}.", *([self.said] if self.said else [])])


def sheets_of(stage: Stage) -> Waiting | None:
    """Makes a round's study, imports what is back, and turns it into feedback; or says what is missing.

    Raises:
        InputError: as `human-eval export`, `human-eval import` and `feedback` do.
    """
    from coh_lightning.human_eval.ratings import import_ratings, summary

    if stage.new.is_file():
        return None
    if not (stage.study / KEY).is_file():
        _export(stage)
    (stage.study / RETURNED).mkdir(exist_ok=True)
    files = sorted(one for one in (stage.study / RETURNED).iterdir() if not one.name.startswith("."))
    found = import_ratings(stage.study, files)
    if found.judgments < found.expected * stage.file.answered or not found.judgments:
        return Waiting(stage.study, found.judgments, found.expected, summary(found) if files else "")
    _feedback(stage)
    return None


def _export(stage: Stage) -> None:
    """`human-eval export` of each prompt's answers against each other."""
    from coh_lightning.human_eval.main import main

    by_sample: dict[str, list[Completion]] = {}
    for one in read_jsonl(stage.completions, Completion):
        by_sample.setdefault(one.id.rpartition(":")[2], []).append(one)
    files = []
    for number, answers in enumerate(by_sample.values(), start=1):
        files.append(stage.path / "answers" / f"answer-{number}.jsonl")
        files[-1].parent.mkdir(exist_ok=True)
        write_jsonl(files[-1], answers)
    words = ["export", *map(str, files), "--names", *(path.stem for path in files), "--output", str(stage.study)]
    for key, value in {"seed": stage.seed, **(stage.file.study or {})}.items():
        if value is None or value is False:
            continue
        values = [] if value is True else map(str, value) if isinstance(value, list) else [str(value)]
        words += [f"--{key.replace('_', '-')}", *values]
    with contextlib.redirect_stdout(io.StringIO()):  # it says to import by hand
        main(words)


def _feedback(stage: Stage) -> None:
    """What people said, as records: `coh feedback`."""
    from coh_lightning.human_eval.feedback import build
    from coh_lightning.human_eval.vote_sources import read_sources

    sources = read_sources([stage.study], completions=[stage.completions], prompts=[stage.prompts])
    asked = (stage.file.study or {}).get("attributes")
    write_jsonl(stage.new, build(sources, attributes=asked).records)
