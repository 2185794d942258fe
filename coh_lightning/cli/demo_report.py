"""What the demo shows: tables for the terminal and report.md, and the values of the page report.html.

Row ── scores of one model under one sentence ──> Report ── intervals, differences ──> tables, pictures, samples
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from coh_lightning.human_eval.statistics import wilson
from coh_lightning.intervals import Interval
from coh_lightning.world import evaluate

BASELINE = "sft_best"
MEASURES = ("accuracy", "coverage", "coherence", "overall")
PICTURED = "overall"

WIDTH, LINE, LEFT, RIGHT, TOP = 340, 38, 8, 46, 8
"""Of a picture: its width, the height of a row, and its margins; the scores stand in the right one."""


@dataclass(frozen=True)
class Row:
    """What a model wrote under one sentence, and its scores: temperature -> one entry per post."""

    model: str
    condition: str
    """good or bad; empty without sentences."""
    guidance: float | None
    scores: Mapping[float, Sequence[Mapping[str, float]]]
    texts: Mapping[float, Sequence[str]]
    ability: float
    """The share of questions answered correctly; of the model."""
    questions: int
    """How many there were."""
    epochs: float | None
    """Passes over the run's training rows."""

    @property
    def label(self) -> str:
        return f"{self.model}: {self.condition}{self.extra}" if self.condition else self.model

    @property
    def extra(self) -> str:
        if self.guidance is None:
            return ""
        return f", guidance {self.guidance:g}" if self.guidance else ", cutoff alone"


@dataclass(frozen=True)
class Report:
    """Rows, their intervals for each temperature, and the texts of the posts."""

    rows: Sequence[Row]
    figures: Mapping[float, Sequence[evaluate.ScoreRow]]
    posts: Sequence[str]
    baseline: str
    shown: int
    """Posts whose summaries are shown."""

    @classmethod
    def of(cls, rows: Sequence[Row], posts: Sequence[str], *, shown: int) -> Report:
        labels = [row.label for row in rows]
        baseline = BASELINE if BASELINE in labels else labels[0]
        figures = {
            temperature: evaluate.table({row.label: row.scores[temperature] for row in rows}, baseline=baseline)
            for temperature in rows[0].scores
        }
        return cls(rows, figures, posts, baseline, shown)

    @property
    def prompts(self) -> int:
        return len(next(iter(self.rows[0].scores.values())))

    @property
    def note(self) -> str:
        return (
            f"Overall score by the world's rater on {self.prompts} posts that no run has seen; ± is half of a 95 % "
            "interval, by bootstrap over posts, for questions by Wilson. good and bad: the sentence asked for; greedy: "
            "always the likeliest word. One base model and one run each: another seed changes the figures too."
        )

    def lines(self, cell: Callable[[evaluate.ScoreRow], str]) -> list[list[str]]:
        """A line for each row: its label and one cell for each temperature."""
        columns = [[cell(row) for row in rows] for rows in self.figures.values()]
        return [[row.label, *cells] for row, *cells in zip(self.rows, *columns, strict=True)]

    @property
    def scores(self) -> tuple[list[str], list[list[str]]]:
        """Head and lines of the first table."""
        head = ["", *map(temperature_name, self.figures), "questions", "epochs"]
        lines = self.lines(lambda row: _plus_minus(row.measures[PICTURED]))
        seen: set[str] = set()
        for row, line in zip(self.rows, lines, strict=True):  # of the model: once
            first = row.model not in seen
            seen.add(row.model)
            line += [_share(row.ability, row.questions) if first else ""]
            line += [f"{row.epochs:.1f}" if first and row.epochs is not None else ""]
        return head, lines

    @property
    def differences(self) -> tuple[list[str], list[list[str]]]:
        """Head and lines of the second table, without the baseline."""
        head = [f"minus {self.baseline}", *map(temperature_name, self.figures)]
        lines = self.lines(lambda row: "" if row.difference is None else _signed(row.difference[PICTURED]))
        return head, [line for line in lines if line[0] != self.baseline]

    def page(self) -> dict[str, Any]:
        """The values of the template."""
        return {
            "prompts": self.prompts,
            "note": self.note,
            "panels": [self._panel(temperature) for temperature in self.figures],
            "tables": [self.scores, self.differences],
            "all_measures": [self.measures(temperature) for temperature in self.figures],
            "samples": self.samples(),
            "first": self.rows[0].label,
        }

    def measures(self, temperature: float) -> tuple[list[str], list[list[str]]]:
        """Head and lines of all measures at one temperature."""
        rows = self.figures[temperature]
        cells = [[row.name, *(_plus_minus(row.measures[measure]) for measure in MEASURES)] for row in rows]
        return [temperature_name(temperature), *MEASURES], cells

    def _panel(self, temperature: float) -> dict[str, Any]:
        """One picture: a line for each model (and way of asking), on it a dot with its interval for each sentence."""
        found = [row.measures[PICTURED] for rows in self.figures.values() for row in rows]
        low = math.floor(min(one.low for one in found) * 20) / 20
        high = math.ceil(max(one.high for one in found) * 20) / 20

        def x(value: float) -> float:
            return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

        groups: dict[str, list[tuple[Row, Interval]]] = {}
        for row, figure in zip(self.rows, self.figures[temperature], strict=True):
            groups.setdefault(row.model + row.extra, []).append((row, figure.measures[PICTURED]))
        lines = [
            {
                "name": name,
                "y": TOP + LINE * place + 26,
                "dots": [
                    {
                        "family": "bad" if row.condition == "bad" else "good",
                        "x": x(one.value),
                        "low": x(one.low),
                        "high": x(one.high),
                        "says": f"{row.label}: {one}",
                        "value": _decimals(one.value),
                    }
                    for row, one in members
                ],
            }
            for place, (name, members) in enumerate(groups.items())
        ]
        step = 0.1 if high - low > 0.3 else 0.05
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
        marks = [round(step * number, 2) for number in range(first, last + 1)]
        bottom = TOP + LINE * len(lines) + 6
        return {
            "title": temperature_name(temperature),
            "width": WIDTH,
            "height": bottom + 20,
            "bottom": bottom,
            "top": TOP,
            "edge": WIDTH - 2,
            "marks": [{"x": x(mark), "label": f"{mark:.2f}".removeprefix("0")} for mark in marks],
            "lines": lines,
        }

    def samples(self) -> list[dict[str, Any]]:
        """The first posts whose greedy summary by the first model has a fault, each with the greedy summaries: a line
        for each model, good and bad side by side.
        """
        greedy = min(self.figures)
        faulty = [index for index, score in enumerate(self.rows[0].scores[greedy]) if not score["faultless"]]
        made = []
        for index in faulty[: self.shown]:
            groups: dict[str, dict[str, Any]] = {}
            for row in self.rows:
                score = f"{row.scores[greedy][index][PICTURED]:.2f}".removeprefix("0")
                one = {"text": row.texts[greedy][index], "score": score}
                groups.setdefault(row.model + row.extra, {})[row.condition or "good"] = one
            made.append(
                {"post": self.posts[index], "lines": [{"name": name, **cells} for name, cells in groups.items()]}
            )
        return made


def temperature_name(temperature: float) -> str:
    return f"temperature {temperature:g}" if temperature else "greedy"


def _plus_minus(one: Interval) -> str:
    return f"{_decimals(one.value)} ±{_decimals((one.high - one.low) / 2)}"


def _share(value: float, number: int) -> str:
    """A share of a number of questions, with half of Wilson's interval."""
    interval = wilson(value * number, number)
    return f"{value:.1%} ±{(interval.high - interval.low) / 2:.1%}"


def _signed(one: Interval) -> str:
    sign = "-" if one.value < 0 else "+"
    return f"{sign}{_decimals(abs(one.value))} ±{_decimals((one.high - one.low) / 2)}"


def _decimals(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def as_markdown(report: Report) -> str:
    """report.md: all tables and the samples."""
    tables = [report.scores, report.differences, *(report.measures(temperature) for temperature in report.figures)]
    parts = [_markdown_table(*tables[0]), report.note, *(_markdown_table(*table) for table in tables[1:])]
    for sample in report.samples():
        lines = [sample["post"]]
        for line in sample["lines"]:
            lines += [
                f"  {line['name']}{f', {condition}' if 'bad' in line else ''}  {line[condition]['score']}  "
                f"{line[condition]['text']}"
                for condition in ("good", "bad")
                if condition in line
            ]
        parts.append("\n".join(["```", *lines, "```"]))
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *lines])


def show(report: Report, console: Console) -> None:
    """Both tables and one post's summaries, for a terminal of 80 columns or more."""
    for head, lines in (report.scores, report.differences):
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name in head:
            table.add_column(name.replace("temperature", "T"), justify="right" if name in head[1:] else "left")
        for row in lines:
            table.add_row(*row, style="dim" if row[0].endswith(": bad") else "")
        console.print(table, "")
    console.print(report.note, style="dim")
    samples = report.samples()
    if not samples:
        return
    sample, first = samples[0], report.rows[0].label
    console.print(f"\nGreedy summaries of the first post that {first} doesn't get right, with scores:\n", style="bold")
    console.print(sample["post"] + "\n", markup=False, highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for line in sample["lines"]:
        for condition in ("good", "bad"):
            if condition in line:
                name = f"{line['name']}: {condition}" if "bad" in line else line["name"]
                table.add_row(name, line[condition]["score"], line[condition]["text"])
    console.print(table)
