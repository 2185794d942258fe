"""The report of a human study as one self-contained page, as Markdown, and for the terminal.

Names of systems, raters and attributes are people's text: escaped in every form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from coh_lightning.human_eval.figures import plain
from coh_lightning.human_eval.report_blocks import Picture, Words, facts, findings, report_blocks, title
from coh_lightning.human_eval.report_tables import Numbers, Table, votes_table, win_table
from coh_lightning.pages.page import render


def report_page(numbers: Numbers, folder: Path, figures: Mapping[str, str]) -> str:
    """The page, with the figures of the folder in it."""
    return render(
        "report.html.j2",
        title=title(numbers),
        blocks=report_blocks(numbers, figures),
        images={name: folder / f"{name}.svg" for name in figures},
    )


def report_markdown(numbers: Numbers, figures: Mapping[str, str]) -> str:
    """The report as Markdown, with figures by their paths below the folder."""
    styles = {"heading": "## {}", "finding": "**{}**", "warning": "> {}"}
    lines = [f"# {_md(title(numbers))}", ""]
    for block in report_blocks(numbers, figures):
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
    tables = [_columns(votes_table(numbers, analysis)), _columns(win_table(analysis))]
    return "\n".join([*(plain(part, 2000) for part in parts), "", *tables[0], "", *tables[1]])


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
