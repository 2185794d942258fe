"""Completions files of a few made-up systems, and sheets filled in by raters who follow a rule."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coh_lightning.feedback.completions import Completion
from coh_lightning.human_eval.export import export_study
from coh_lightning.human_eval.sheets import csv_text, sheet_cells
from coh_lightning.human_eval.study import Study


def lines_of(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def completions(folder: Path, name: str, number: int = 12, **more: Any) -> Path:
    """NAME.jsonl with one completion of each of `number` prompts, in the plain form."""
    return lines_of(
        folder / f"{name}.jsonl",
        (
            {"id": f"p{n}", "prompt": f"Question {n}?", "completion": f"{name}'s answer {n}", **more}
            for n in range(number)
        ),
    )


def own(prompt_id: str, text: str, **changes: Any) -> dict[str, Any]:
    """A line of our own completions.jsonl."""
    line = {
        "id": f"{prompt_id}:good:0",
        "prompt_id": prompt_id,
        "system": "mine",
        "prompt": f"<s>Question {prompt_id}? A helpful answer:",
        "prompt_sha": f"sha of {prompt_id}",
        "ask": "good",
        "marker": "A helpful answer:",
        "text": text,
        "sampling": {"temperature": 1.0, "seed": 3},
        "shown": f"Question {prompt_id}?",
    }
    return {name: value for name, value in (line | changes).items() if value is not None}


Cells = list[list[str]]


def filled(study: Study, rater: str, choose: Callable[[str, str, str, str], str], *, seconds: str = "12") -> Cells:
    """The cells of a rater's sheet, unguarded, with choose(attribute, prompt, a, b) in every choice."""
    cells = sheet_cells(study, rater)
    header = cells[0]
    for row in cells[1:]:
        for attribute in study.attributes:
            row[header.index(attribute)] = choose(attribute, *row[4:7])
        row[header.index("seconds")] = seconds
    return cells


def save(path: Path, cells: Cells) -> Path:
    """As the sheets are written."""
    path.write_bytes(csv_text(cells).encode("utf-8-sig"))
    return path


def table(path: Path) -> list[dict[str, str]]:
    """A CSV as it is, with its guards."""
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))


def completion(text: str, prompt: str = "Name a fruit.", number: int = 0, **more: Any) -> Completion:
    """A completion of the prompt number `number`, asked for as a good one."""
    values = {
        "id": f"r{number}:good:0",
        "prompt_id": f"r{number}",
        "system": "run",
        "prompt": f"{prompt}\n\nA good answer:\n",
        "prompt_sha": "",
        "ask": "good",
        "marker": "A good answer:\n",
        "text": text,
        "shown": prompt,
    }
    return Completion(**(values | more))


def study_of_texts(folder: Path, texts: Sequence[str], **options: Any) -> Study:
    """A study in folder/study of the systems x, which wrote these texts, and y, which wrote "plain 0", ..."""
    written = {"x": texts, "y": [f"plain {n}" for n in range(len(texts))]}
    files = [
        lines_of(
            folder / f"{name}.jsonl",
            ({"id": f"p{n}", "prompt": f"Question {n}?", "completion": text} for n, text in enumerate(own)),
        )
        for name, own in written.items()
    ]
    return export_study(files, folder / "study", **({"attributes": ("accuracy", "overall")} | options))


def likes_x(attribute: str, prompt: str, a: str, b: str) -> str:
    """Accuracy goes to the system x of `study_of_texts`, overall is a tie."""
    if attribute == "overall" or a == b:
        return "tie"
    return "B" if a.startswith("plain") else "A"
