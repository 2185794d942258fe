"""`coh human-eval report DIR`: the ratings of a study, unblinded, with intervals: report.json,
report.md, report.html and figures.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coh_lightning.errors import counted, listed
from coh_lightning.human_eval.evidence import Evidence, evidence
from coh_lightning.human_eval.figures import draw_figures, plain
from coh_lightning.human_eval.report_blocks import (
    Picture,
    Words,
    evidence_blocks,
    evidence_values,
    facts,
    findings,
    method_blocks,
    report_blocks,
    title,
)
from coh_lightning.human_eval.report_tables import Numbers, Table, judge_table, votes_table, win_table
from coh_lightning.human_eval.results import StudyResults, read_results
from coh_lightning.io import atomic_write
from coh_lightning.pages.page import render

LEVEL = 0.95


def report_numbers(results: StudyResults) -> dict[str, Any]:
    """The content of report.json. The numbers are those of people; a judge stands beside them, or, where no person has
    voted, in their place.
    """
    from coh_lightning.human_eval.analysis import analyze
    from coh_lightning.human_eval.judges import judge_numbers
    from coh_lightning.human_eval.plackett_luce import plackett_luce_numbers
    from coh_lightning.human_eval.rater_checks import excluded_raters, rater_table
    from coh_lightning.human_eval.statistics import RESAMPLES
    from coh_lightning.human_eval.strength import strength_numbers

    everyone = results
    people = any(not one.check for one in results.of(results.people).judgments)
    results = results.of(results.people if people else results.judges)
    table = rater_table(results)
    rules = results.key.get("exclusion") or {}
    excluded = excluded_raters(table, rules) if people else {}
    kept = [rater for rater in results.raters if rater not in excluded]
    analyses = {"all": analyze(results, results.raters)}
    if excluded and kept:
        analyses["kept"] = analyze(results, kept)
    rows = (results.key.get("rows") or {}) if people else {}
    return {
        "format": 1,
        "study": results.key.get("study", ""),
        "title": results.study.title if results.study else "",
        "definitions": dict(results.study.definitions) if results.study else {},
        "systems": list(results.systems),
        "attributes": list(results.attributes),
        "design": dict(results.key.get("design") or {}),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "rows": {"asked": len(rows), "answered": len({one.sheet_row for one in results.judgments})},
        "raters_are": "people" if people else "judges",
        "raters": table,
        "judges": judge_numbers(everyone, results) if people else {},
        "exclusion": {"rules": dict(rules), "excluded": excluded},
        "analyses": analyses,
        "strength": strength_numbers(results, results.raters),
        "plackett_luce": plackett_luce_numbers(results, results.raters),
        "evidence": [one.to_json() for one in evidence(results, results.raters)],
        "unmatched": {system: list(ids) for system, ids in (results.key.get("unmatched") or {}).items()},
        "sampling": dict(results.key.get("sampling") or {}),
        "warnings": _warnings(results, excluded, kept, rows),
    }


def _warnings(
    results: StudyResults, excluded: Mapping[str, Sequence[str]], kept: Sequence[str], rows: Mapping[str, Any]
) -> list[str]:
    """What a reader must know before trusting a number; each one sentence."""
    lines = [str(warning) for warning in results.key.get("warnings") or ()]
    sampling = results.key.get("sampling") or {}
    unknown = [system for system in results.systems if not sampling.get(system)]
    known = {system: sampling[system] for system in results.systems if sampling.get(system)}
    if unknown and known:
        lines.append(f"The sampling of {listed(unknown)} is unknown and can't be compared with {listed([*known])}.")
    # export has already compared the settings if it wrote warnings
    settings = {name for values in known.values() for name in values} if results.key.get("warnings") is None else ()
    for setting in sorted(settings):
        values = {system: json.dumps(each.get(setting), sort_keys=True) for system, each in known.items()}
        if len(set(values.values())) > 1:
            given = ", ".join(f"{system} {value}" for system, value in values.items())
            lines.append(f"Sampling differs in {setting}: {given}; the comparison is of model and sampling together.")
    for system, ids in (results.key.get("unmatched") or {}).items():
        if ids:
            lines.append(f"{counted(len(ids), 'prompt')} of {system} had no counterpart; not rated (first: {ids[0]}).")
    answered = {one.sheet_row for one in results.judgments}
    if len(answered) < len(rows):
        lines.append(f"{len(rows) - len(answered):,} of {len(rows):,} rows are not answered yet.")
    if excluded and not kept:
        lines.append("The exclusion rules exclude every rater; the numbers are those of all raters.")
    return lines


# --- as a page, as Markdown, for the terminal; people's names are escaped in each


def report_page(numbers: Numbers, folder: Path, figures: Mapping[str, str], shown: Sequence[Evidence]) -> str:
    """The page, with the figures of the folder in it, and the items that stand behind its numbers."""
    images = {name: folder / f"{name}.svg" for name in figures}
    blocks = [*report_blocks(numbers, figures), *method_blocks(numbers)]
    return render("report.html.j2", title=title(numbers), blocks=blocks, images=images, **evidence_values(shown))


def report_markdown(numbers: Numbers, figures: Mapping[str, str], shown: Sequence[Evidence]) -> str:
    """The report as Markdown, with figures by their paths below the folder."""
    styles = {"heading": "## {}", "finding": "**{}**", "warning": "> {}"}
    lines = [f"# {_md(title(numbers))}", ""]
    for block in [*report_blocks(numbers, figures), *evidence_blocks(shown), *method_blocks(numbers)]:
        match block:
            case Words(text, kind):
                lines.append(styles.get(kind, "{}").format(_md(text)))
            case Picture(name, caption):
                lines.append(f"![{_md(caption)}](figures/{name}.png)")
            case Table(head, rows, names):
                lines.append("| " + " | ".join(map(_md, head)) + " |")
                lines.append("|" + "|".join("---" if place < names else "---:" for place in range(len(head))) + "|")
                lines += ["| " + " | ".join(map(_md, row)) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no emphasis, link, HTML or new cell comes of it."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", text.replace("\n", " "))


def report_terminal(numbers: Numbers) -> str:
    """The findings, the warnings and the two main tables."""
    analysis = numbers["analyses"]["all"]
    warnings = (f"warning: {warning}" for warning in numbers["warnings"])
    parts = [facts(numbers), *findings(analysis), *warnings]
    tables = [
        votes_table(numbers, analysis),
        win_table(analysis),
        *([judge_table(numbers)] if numbers["judges"] else []),
    ]
    lines = [line for table in tables for line in ("", *_columns(table))]
    return "\n".join([*(plain(part, 2000) for part in parts), *lines])


def _columns(table: Table) -> list[str]:
    every = (table.head, *table.rows)
    widths = [max(len(row[place]) for row in every) for place in range(len(table.head))]
    return [
        "  ".join(
            f"{cell:<{width}}" if place < table.names else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]


def write_report(folder: Path | str) -> Mapping[str, Any]:
    """Write report.json, report.md, report.html and figures/ into the folder of a study; returns the numbers. Raises
    InputError for a missing or damaged file, or an extra that isn't installed.
    """
    folder = Path(folder)
    results = read_results(folder)
    numbers = report_numbers(results)
    shown = evidence(results, [*numbers["raters"]])
    figures = draw_figures(numbers, folder / "figures")
    for name, text in (
        ("report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        ("report.md", report_markdown(numbers, figures, shown)),
        ("report.html", report_page(numbers, folder / "figures", figures, shown)),
    ):
        with atomic_write(folder / name) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    return numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval report`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that export wrote and import filled")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its main tables; returns the exit status. Raises InputError as `write_report` does."""
    print(report_terminal(write_report(args.folder)))
    print(f"\nwrote {args.folder / 'report.html'}, report.md, report.json and figures/")
    return 0
