"""`coh rounds FILE`: writes, hears what is said, learns, and writes again; the same command resumes.

runs/rounds/NAME/
  rounds.json   the figures of each round      report.html   the same with a picture
  seed0/round1/ ...   what each round wrote, was told, and learned (coh_lightning/rounds/steps.py)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write, exclusive_lock

WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0 also if it waits for people's sheets."""
    parser = CommandParser(
        prog="coh rounds",
        description="Rounds of writing, feedback and training, by a rounds file. The same command resumes.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a rounds file (conf/rounds/)")
    add("--jobs", type=int, default=1, metavar="N", help="commands at a time, each with one thread (default 1)")
    what = "for everything that is written (default: runs/rounds/<file name>)"
    add("--folder", type=Path, metavar="FOLDER", help=what)
    args = parser.parse_args(argv)
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}; it must be at least 1.")
    from coh_lightning.rounds.execution import Execution
    from coh_lightning.rounds.rounds_file import read_rounds
    from coh_lightning.rounds.summary import show, summary, write_report

    file = read_rounds(args.file)
    folder = (args.folder or Path("runs") / "rounds" / file.name).absolute()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--folder {args.folder} is a file; give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with exclusive_lock(folder, f"another process is running rounds in {folder}; wait, or give another --folder."):
        try:
            waiting = Execution(file, folder, jobs=args.jobs, console=console).run()
        except (KeyboardInterrupt, SystemExit):
            print(f"stopped; what is finished is in {folder}, and the same command resumes", file=sys.stderr)
            raise
        found = summary(file, folder)
        with atomic_write(folder / "rounds.json") as aside:
            aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        page = write_report(found, folder / "report.html")
    show(found, Console(width=WIDTH))
    print(page)
    for one in waiting:
        print(f"waiting: {one}")
    return 0
