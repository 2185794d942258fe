"""`python scripts/real_table.py BASE RUN ...`: the tables of docs/real.md from the folders of `coh test`.

    RUN/test.csv            losses and preference accuracies      share [95 % Wilson interval]
    RUN/completions.jsonl   scores of what was written            mean [95 % bootstrap interval over prompts], and the
                                                                  difference to BASE on the same prompts
    RUN/perplexity.json     of scripts/perplexity.py              perplexity, and its ratio to that of BASE

A folder without one of the files has no entry there.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from perplexity import perplexity

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.human_eval.statistics import wilson
from coh_lightning.intervals import mean_interval, paired_difference, per_prompt

ACCURACIES = ("sum", "mean", "swapped_sum", "swapped_mean", "marker")
ABSENT = "-"


def figures(run: Path) -> dict[str, float]:
    """The last line of a run's test.csv, without the `test/` of the names. Raises InputError if there is none."""
    path = run / "test.csv"
    if not path.is_file():
        raise InputError(f"{run} has no test.csv; run `coh test` with --run.folder={run} first.")
    with path.open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        name.removeprefix("test/"): float(value) for name, value in last.items() if name.startswith("test/") and value
    }


def preferences(runs: Sequence[Path]) -> list[list[str]]:
    """Of runs that have pairs: the held-out nll per token of the better output in first place, which all methods have,
    and the share of pairs that are ranked right in each of five ways.
    """
    rows = [["", "nll of the better output", "pairs", *ACCURACIES]]
    for run in runs:
        found = figures(run)
        if not (pairs := found.get("preference_pairs", 0)):
            continue
        cells = []
        for name in ACCURACIES:
            share = found.get(f"preference_accuracy_{name}")
            cells.append(ABSENT if share is None else _share(share, pairs))
        rows.append(
            [run.name, f"{found['nll_good_1']:.3f}" if "nll_good_1" in found else ABSENT, f"{pairs:.0f}", *cells]
        )
    return rows


def _share(share: float, number: float) -> str:
    value, low, high = wilson(share * number, number)
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def perplexities(runs: Sequence[Path]) -> list[list[str]]:
    """Perplexity, and its ratio to the first run's over the same windows."""
    rows = [["", "windows", "perplexity", "ratio to the first"]]
    nlls = {run.name: _nlls(run) for run in runs if (run / "perplexity.json").is_file()}
    first = next(iter(nlls.values()), {})
    for name, own in nlls.items():
        ratio = ABSENT
        if own is not first:
            gap = paired_difference(own, first, seed=0)
            ratio = "{:.3f} [{:.3f}, {:.3f}]".format(*map(math.exp, (gap.mean, gap.low, gap.high)))
        rows.append([name, str(len(own)), str(perplexity([*own.values()])), ratio])
    return rows


def _nlls(run: Path) -> dict[str, float]:
    found = json.loads((run / "perplexity.json").read_text(encoding="utf-8"))["nll"]
    return {str(place): float(value) for place, value in enumerate(found)}


def scores(runs: Sequence[Path], names: Sequence[str]) -> list[list[str]]:
    """Scores of what each run wrote under each condition, and their difference to the first run asked for good."""
    rows = [["", "asked for", "prompts", *names, *(f"{name} - {runs[0].name}" for name in names)]]
    first: dict[str, dict[str, float]] | None = None
    for run in runs:
        path = run / "completions.jsonl"
        written = list(read_jsonl(path, Completion)) if path.is_file() else []
        for ask in sorted({one.ask for one in written}, key=lambda ask: (ask != "good", ask)):
            own = {
                name: per_prompt((one.prompt_id, _value(one, name)) for one in written if one.ask == ask)
                for name in names
            }
            first = first or own
            gaps = [
                ABSENT if own is first else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*_gap(own[name], first[name]))
                for name in names
            ]
            means = [str(mean_interval([*own[name].values()], seed=0)) for name in names]
            rows.append([run.name, ask, str(len(own[names[0]])), *means, *gaps])
    return rows


def _value(one: Completion, name: str) -> float:
    known: dict[str, Callable[[], float]] = {
        "tokens": lambda: one.completion_tokens,
        "ended": lambda: one.stop == "end",
    }
    if name in known:
        return float(known[name]())
    if name not in one.scores:
        raise InputError(f"{one.id} has no score {name}; it has {', '.join(one.scores) or 'none'}, tokens and ended.")
    return one.scores[name]


def _gap(own: dict[str, float], first: dict[str, float]) -> tuple[float, float, float]:
    gap = paired_difference(own, first, seed=0)
    return gap.mean, gap.low, gap.high


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; gives its exit status."""
    parser = CommandParser(prog="scripts/real_table.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of `coh test`, the base model's first"
    )
    parser.add_argument("--scores", nargs="+", default=[], metavar="NAME", help="scores to show (or tokens, ended)")
    try:
        options = parser.parse_args(argv)
        tables = [preferences(options.runs), perplexities(options.runs)]
        tables += [scores(options.runs, options.scores)] if options.scores else []
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(as_markdown(rows) for rows in tables if len(rows) > 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
