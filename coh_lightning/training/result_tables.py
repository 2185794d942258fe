"""What `validate`, `test` and `predict` show at their end: losses, preference accuracy, and the means of what was
written under each feedback sentence, as in samples.html. test.csv has every figure, with all of its digits.

                     nll  nll_good_1  nll_bad_1  records
    losses         0.482       0.391      0.551       39

    sentence     accuracy  tokens  ended by itself
    good            0.912    21.4            1.000
    bad             0.401    23.0            0.974
    good − bad     +0.511   −1.60           +0.026
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from coh_lightning.errors import visible
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.sample_means import means_of, short_number
from coh_lightning.generation.samples import as_round, asks_in_order

COUNTS = ("records", "pairs")
"""Last words of figures that are whole numbers."""
PADDING = 2


class ResultTable(NamedTuple):
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def held_out_tables(metrics: Mapping[str, float], stage: str) -> list[ResultTable]:
    """Losses and preference accuracy among logged metrics; `stage` begins their names: val, test."""
    figures = {name.removeprefix(f"{stage}/"): float(value) for name, value in metrics.items()}
    losses = {name: value for name, value in figures.items() if name == "nll" or name.startswith("nll_")}
    ranked = {name: value for name, value in figures.items() if name.startswith("preference_")}
    tables = []
    if losses:
        tables.append(
            _one_row("loss per token", {name.replace("nll_records", "records"): losses[name] for name in losses})
        )
    if ranked:
        short = {name.removeprefix("preference_").removeprefix("accuracy_"): value for name, value in ranked.items()}
        tables.append(_one_row("ranked right", short))
    return tables


def _one_row(name: str, figures: Mapping[str, float]) -> ResultTable:
    shown = [f"{value:,.0f}" if what in COUNTS else short_number(value) for what, value in figures.items()]
    return ResultTable(["", *figures], [[name, *shown]])


def means_table(completions: Sequence[Completion]) -> ResultTable:
    """Means over the completions of one round: a row for each condition, a column for each measure."""
    asks = asks_in_order(one.ask for one in completions)
    means = means_of([as_round("", completions)], asks)
    rows = [[row.ask or "none", *(cell.newest for cell in row.cells)] for row in [*means.conditions, *means.gaps]]
    return ResultTable(["sentence", *means.names], rows)


def show_tables(tables: Sequence[ResultTable]) -> None:
    """On stdout, in the width of the terminal, or in 80 columns; a wider table is broken between columns."""
    console = Console(width=None if sys.stdout.isatty() else 80, markup=False, highlight=False, emoji=False)
    for table in tables:
        for part in narrowed(table, console.width):
            grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, PADDING, 0, 0))
            for place, name in enumerate(part.head):
                grid.add_column(name, justify="right" if place else "left", overflow="fold")
            for row in part.rows:
                grid.add_row(*row)
            console.print()
            console.print(grid)
    console.print()


def narrowed(table: ResultTable, width: int) -> list[ResultTable]:
    """The table as several that are at most `width` wide, each with the first column."""
    head = [visible(name) for name in table.head]
    rows = [[visible(cell) for cell in row] for row in table.rows]
    widths = [max(cell_len(row[place]) for row in [head, *rows]) + PADDING for place in range(len(head))]
    groups: list[list[int]] = [[]]
    for place in range(1, len(head)):
        if groups[-1] and widths[0] + sum(widths[one] for one in [*groups[-1], place]) > width:
            groups.append([])
        groups[-1].append(place)
    return [
        ResultTable([head[place] for place in (0, *group)], [[row[place] for place in (0, *group)] for row in rows])
        for group in groups
    ]
