"""`coh compare STUDY`: runs a study (conf/compare/) and reports it; the same command resumes.

runs/compare/NAME/
  results.jsonl   one line for each finished row (or --results FILE, which may come from other machines)
  compare.json    means, intervals, differences, claims      report.html   the same with pictures
  worlds/ fits/ tests/ logs/ steps/   what the commands wrote (coh_lightning/compare/steps.py)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted
from coh_lightning.io import atomic_write, exclusive_lock

WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 1 if a row failed."""
    parser = CommandParser(
        prog="coh compare",
        description="Compare methods over worlds, base models and seeds, by a study file. The same command resumes.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="STUDY", help="a study file (conf/compare/)")
    add("--jobs", type=int, default=1, metavar="N", help="commands at a time, each with one thread (default 1)")
    add(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="for everything that is written (default: runs/compare/<file name>)",
    )
    add("--results", type=Path, metavar="FILE", help="finished rows, read and appended (default: FOLDER/results.jsonl)")
    add("--hours", type=float, metavar="H", help="start no row after H hours; 0 only reports what is finished")
    add("--only", metavar="PATTERN", help="rows by name, as in 'habits/*/base0/seed0'")
    add("--dry-run", action="store_true", help="check the study; print its size, its order, and the core-hours left")
    add("--write", type=Path, metavar="PAGE", help="write the tables into a Markdown page, between the study's marks")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}; it must be at least 1.")
    if args.hours is not None and args.hours < 0:
        raise InputError(f"--hours is {args.hours:g}; it must be at least 0, or left out for no limit.")
    from coh_lightning.compare.execution import Execution, Plan, composed_of, estimate
    from coh_lightning.compare.report import show, write_between, write_report
    from coh_lightning.compare.rows import rows_of
    from coh_lightning.compare.study_file import read_study
    from coh_lightning.compare.summary import summary

    study = read_study(args.file)
    rows = rows_of(study, args.only)
    composed = composed_of(study, rows_of(study))
    folder = (args.folder or Path("runs") / "compare" / study.name).absolute()
    plan = Plan(study, composed, folder, args.results or folder / "results.jsonl", rows)
    print(f"{study.name}: {estimate(plan)}", file=sys.stderr, flush=True)
    if args.dry_run:
        for row in plan.waiting:
            print(f"{row.group}  {row.name}")
        return 0
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, f"another process is running a study in {folder}; wait, or give another --folder."):
        try:
            failed = Execution(plan, jobs=args.jobs, hours=args.hours, console=console).run()
        except (KeyboardInterrupt, SystemExit):
            print(f"stopped; finished rows are in {plan.file}, and the same command resumes", file=sys.stderr)
            raise
        found = summary(study, composed, plan.results)
        with atomic_write(folder / "compare.json") as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        page = write_report(found, folder / "report.html")
    show(found, Console(width=WIDTH))
    print(page)
    if args.write:
        write_between(args.write, found)
        print(args.write)
    if failed:
        print(f"{counted(len(failed), 'row')} failed: {', '.join(failed)}; see {folder / 'logs'}", file=sys.stderr)
    return 1 if failed else 0
