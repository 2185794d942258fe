"""`python -m coh_lightning human-eval report DIR`: the ratings of a study, unblinded, with intervals: report.json,
report.md, report.html and figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coh_lightning.human_eval.report import report_numbers
from coh_lightning.human_eval.results import read_results
from coh_lightning.io import atomic_write


def write_report(folder: Path | str) -> Mapping[str, Any]:
    """Write report.json, report.md, report.html and figures/ into the folder of a study; returns the numbers.

    Raises:
        InputError: a missing or damaged file (see `read_results`), or an extra that isn't installed.
    """
    from coh_lightning.human_eval.figures import draw_figures
    from coh_lightning.human_eval.report_page import report_markdown, report_page

    folder = Path(folder)
    numbers = report_numbers(read_results(folder))
    figures = draw_figures(numbers, folder / "figures")
    for name, text in (
        ("report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        ("report.md", report_markdown(numbers, figures)),
        ("report.html", report_page(numbers, folder / "figures", figures)),
    ):
        with atomic_write(folder / name) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    return numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval report`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that export wrote and import filled")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its main tables; returns the exit status. Raises InputError as `write_report` does."""
    from coh_lightning.human_eval.report_page import report_terminal

    print(report_terminal(write_report(args.folder)))
    print(f"\nwrote {args.folder / 'report.html'}, report.md, report.json and figures/")
    return 0
