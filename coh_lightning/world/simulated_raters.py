"""A human study of the embedded world without humans: its rule-based rater fills in the blind sheets, with independent
noise for each sheet.

    python -m coh_lightning.world.simulated_raters STUDY        STUDY/sheets/rater-1.csv  ->  STUDY/filled/rater-1.csv

It sees what people would see, the rows of a sheet, and nothing else of the study; so the path from sheets to report can
be tried on a world whose truth is known.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.human_eval.sheets import csv_text, unguard
from coh_lightning.human_eval.study import read_study
from coh_lightning.io import atomic_write
from coh_lightning.rng import generator
from coh_lightning.world import raters

INDISTINGUISHABLE = 0.05
"""Answers whose scores differ by less are called a tie."""


def fill(folder: Path, *, noise: float, seed: int, comments: bool = False) -> list[Path]:
    """Write a filled-in copy of each sheet of a study to `folder/filled`; with `comments`, the rater's critiques of A
    and B on every row whose answers differ. Raises InputError if it is not a study of the world's attributes and
    prompts.
    """
    study = read_study(folder)
    for attribute in study.attributes:
        if attribute not in raters.ATTRIBUTES:
            known = f"the embedded world's rater judges {', '.join(raters.ATTRIBUTES)}"
            raise InputError(f"{folder} has the attribute '{attribute}', but {known}; export with those.")

    def score(rater: str, attribute: str, prompt: str, answer: str) -> float:
        # keyed by the text, so that a rater scores the same text alike wherever it is shown
        error = generator(seed, "votes", rater, attribute, answer).gauss(0.0, noise)
        return raters.rate(prompt, answer).scores()[attribute] + error

    (folder / "filled").mkdir(exist_ok=True)
    written = []
    for rater in study.raters:
        with (folder / "sheets" / f"{rater}.csv").open(newline="", encoding="utf-8-sig") as file:
            rows = [{name: unguard(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        for row in rows:
            for name in study.attributes:
                a, b = (score(rater, name, row["prompt"], row[side]) for side in ("answer_a", "answer_b"))
                row[name] = "tie" if abs(a - b) < INDISTINGUISHABLE else "A" if a > b else "B"
            if comments and row["answer_a"] != row["answer_b"]:
                said = [raters.rate(row["prompt"], row[side]).critique for side in ("answer_a", "answer_b")]
                row["comment"] = f"A: {said[0]}; B: {said[1]}"
        path = folder / "filled" / f"{rater}.csv"
        with atomic_write(path) as aside:
            aside.write_bytes(csv_text([list(rows[0]), *(list(row.values()) for row in rows)]).encode("utf-8-sig"))
        written.append(path)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m coh_lightning.world.simulated_raters", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "study", type=Path, metavar="STUDY", help="folder of `human-eval export`, on the embedded world"
    )
    noise = "standard deviation of the noise added to each score, which is 0 to 1 (default %(default)s)"
    parser.add_argument("--noise", type=float, default=0.1, metavar="SD", help=noise)
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default %(default)s)")
    parser.add_argument("--comments", action="store_true", help="say of each pair what is wrong with A and with B")
    try:
        args = parser.parse_args(argv)
        written = fill(args.study, noise=args.noise, seed=args.seed, comments=args.comments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
