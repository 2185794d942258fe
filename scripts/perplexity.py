"""`python scripts/perplexity.py MODEL TEXT [--output FILE]`: perplexity of a language model on plain text, with its
interval.

    text      tokens cut into windows of 512, read without BOS     window 1   window 2   window 3   ...
    nll       mean over a window's tokens but the first                2.6        2.4        2.7
    shown     exp(mean nll) and a 95 % bootstrap interval over windows

MODEL is a Hugging Face folder, a name on the hub, or a checkpoint of ours. FILE keeps the nll of each window for paired
comparisons (scripts/real_table.py).
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.intervals import Interval, mean_interval
from coh_lightning.io import atomic_write
from coh_lightning.rounds.ability import WINDOW, window_nlls


def read_text(path: Path) -> str:
    """A text file, which may be compressed (.gz). Raises InputError if there is none."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}; give a file of plain text (.txt or .txt.gz).") from error


def perplexity(nlls: Sequence[float]) -> Interval:
    """exp of the mean nll, with its interval."""
    return Interval(*(math.exp(value) for value in mean_interval(nlls, seed=0)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; gives its exit status."""
    parser = CommandParser(prog="scripts/perplexity.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face folder, a name on the hub, or a checkpoint")
    parser.add_argument("text", metavar="TEXT", type=Path, help="plain text (.txt or .txt.gz)")
    parser.add_argument("--windows", type=int, default=16, help=f"windows of {WINDOW} tokens (default %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON with the nll of each window")
    try:
        options = parser.parse_args(argv)
        if options.windows < 1:
            parser.error(f"--windows is {options.windows}; it must be at least 1")
        nlls = window_nlls(options.model, read_text(options.text), windows=options.windows)
        if options.output is not None:
            with atomic_write(options.output) as aside:
                aside.write_text(json.dumps({"text": options.text.name, "nll": nlls}) + "\n", encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"perplexity {perplexity(nlls)} on {len(nlls)} windows of {WINDOW} tokens of {options.text.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
