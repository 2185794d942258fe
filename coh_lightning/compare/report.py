"""compare.json -> the tables of the terminal, report.html, and the tables of a Markdown page between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coh_lightning.compare.pictures import dots, lines
from coh_lightning.errors import InputError, counted
from coh_lightning.io import atomic_write
from coh_lightning.pages.page import write_page

Summary = Mapping[str, Any]
NONE = "-"


def short(value: float | None, *, sign: bool = False, digits: int = 3) -> str:
    """.875 of 0.875, and with `sign` +.040, which is how the field writes shares.

    >>> short(0.8749), short(-0.04, sign=True), short(1.0), short(None)
    ('.875', '-.040', '1.000', '-')
    """
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if not text.lstrip("+-").startswith("1") else text


def within(found: Mapping[str, Any] | None) -> str:
    """A mean with half its interval: .875 ±.012."""
    if found is None:
        return NONE
    if found["low"] is None:
        return short(found["mean"])
    return f"{short(found['mean'])} ±{short((found['high'] - found['low']) / 2)}"


def between(found: Mapping[str, Any] | None) -> str:
    """A difference with its interval: +.039 [+.029, +.049]."""
    if found is None:
        return NONE
    if found["low"] is None:
        return short(found["mean"], sign=True)
    low, high = (short(found[key], sign=True) for key in ("low", "high"))
    return f"{short(found['mean'], sign=True)} [{low}, {high}]"


def runs_text(entry: Mapping[str, Any]) -> str:
    """3, or 1/3 while some are missing."""
    return str(entry["runs"]) if entry["runs"] == entry["expected"] else f"{entry['runs']}/{entry['expected']}"


def temperatures_of(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {key for entry in entries for key in entry["scores"]}
    return sorted(found, key=float, reverse=True)


def heading(temperature: str) -> str:
    return "greedy" if float(temperature) == 0 else f"T {temperature.removeprefix('0')}"


def middle(temperatures: Sequence[str]) -> str | None:
    """The temperature at which differences are shown: .7, or else the first."""
    return "0.7" if "0.7" in temperatures else next(iter(temperatures), None)


def by_world(summary: Summary) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in summary["table"]:
        found.setdefault(entry["world"], []).append(entry)
    return found


def rows_of_world(summary: Summary, entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of one world's table."""
    temperatures = temperatures_of(entries)
    shown = middle(temperatures)
    heads = ["method", "n", *map(heading, temperatures)]
    heads += [f"{heading(shown)} - {summary['labels'][summary['baseline']]}"] if shown else []
    cells = []
    for entry in entries:
        row = [entry["label"], runs_text(entry), *(within(entry["scores"].get(one)) for one in temperatures)]
        cells.append([*row, between(entry["differences"].get(shown)).replace("+.", ".")] if shown else row)
    return heads, cells


def finished(summary: Summary) -> str:
    """3 of 4 rows finished, 200 prompts in each; two sizes, of rows of different machines, are both named."""
    rows, sizes = summary["rows"], summary["prompts"]
    each = f", {' or '.join(str(one) for one in sizes)} prompts in each" if sizes else ""
    return f"{rows['finished']} of {counted(rows['expected'], 'row')} finished{each}"


def show(summary: Summary, console: Console) -> None:
    """The tables, at most 80 columns wide."""
    console.print(f"{summary['study']}: {finished(summary)}\n", highlight=False)
    for world, entries in by_world(summary).items():
        heads, cells = rows_of_world(summary, entries)
        table = Table(box=None, header_style="bold", pad_edge=False, title=world, title_justify="left", padding=(0, 1))
        for place, head in enumerate(heads):
            last = place == len(heads) - 1 and place > 1
            table.add_column(head, justify="right" if place else "left", no_wrap=place > 0 and not last)
        for row in cells:
            table.add_row(*row)
        console.print(table)
        console.print()
    for one in summary["primary"]:
        console.print(_primary_sentence(summary, one), highlight=False)
    console.print(
        f"{summary['score']}, ± half a 95 % interval over seeds, base models and prompts (with n = 1: prompts alone).",
        style="dim",
        highlight=False,
    )


def _primary_sentence(summary: Summary, one: Mapping[str, Any]) -> str:
    p = NONE if one["p_holm"] is None else "< .0001" if one["p_holm"] < 1e-4 else short(one["p_holm"], digits=4)
    a, b = (summary["labels"][name] for name in one["compare"])
    at = heading(format(one["temperature"], "g"))
    return f"{a} - {b}, {one['world']}, {at}: {between(one['difference'])}, Holm-adjusted p {p}"


def write_report(summary: Summary, path: Path) -> Path:
    """report.html: pictures first, then tables; no script, nothing loaded."""
    worlds = []
    for world, entries in by_world(summary).items():
        heads, cells = rows_of_world(summary, entries)
        panels = [
            dots(
                heading(one),
                [(entry["label"], entry["scores"].get(one)) for entry in entries],
                summary["labels"][summary["baseline"]],
            )
            for one in temperatures_of(entries)
        ]
        details = [_details(entry) for entry in entries]
        worlds.append(
            {
                "name": world,
                "settings": summary["worlds"][world],
                "heads": heads,
                "rows": cells,
                "panels": panels,
                "details": details,
            }
        )
    return write_page(
        path,
        "compare.html.j2",
        summary=summary,
        finished=finished(summary),
        worlds=worlds,
        axes=[lines(axis) for axis in summary["axes"] if axis["lines"]],
        claims=[_claim_row(summary, one) for one in summary["claims"]],
        primary=[_primary_sentence(summary, one) for one in summary["primary"]],
    )


def _details(entry: Mapping[str, Any]) -> list[str]:
    rates = ", ".join(f"{one:g}" for one in entry["rate"]) or NONE
    numbers = [entry[key] for key in ("steps", "epochs", "records", "train_seconds", "test_seconds")]
    return [entry["label"], rates, *(NONE if one is None else f"{one:,.4g}" for one in numbers)]


def _claim_row(summary: Summary, one: Mapping[str, Any]) -> list[str]:
    difference = one["difference"]
    runs = str(difference["runs"]) if difference else "0"
    at = one.get("figure", heading(format(one["temperature"], "g")))
    where = f"{' - '.join(summary['labels'][name] for name in one['compare'])}, {one['world']}, {at}"
    return [one["claim"], one["paper"], where, between(difference), runs, one["verdict"]]


CLAIM_HEADS = ["claim", "paper", "here", "difference [95 %]", "n", "verdict"]


def markdown(summary: Summary) -> str:
    """The tables and claims for a page of the documentation."""
    found = [f"{finished(summary)}. {summary['rule']}"]
    for world, entries in by_world(summary).items():
        heads, cells = rows_of_world(summary, entries)
        found.append(f"World `{world}`, {summary['score']}:\n\n{_table(['', *heads[1:]], cells)}")
    if summary["primary"]:
        found.append(
            "Primary comparisons:\n\n" + "\n".join(f"* {_primary_sentence(summary, one)}" for one in summary["primary"])
        )
    if summary["claims"]:
        found.append(_table(CLAIM_HEADS, [_claim_row(summary, one) for one in summary["claims"]]))
    return "\n\n".join(found)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    every = [list(heads), ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in every)


def write_between(page: Path, summary: Summary) -> None:
    """Replaces what stands between the study's two marks in a Markdown page.

    <!-- compare claims -->  ...  <!-- end of compare claims -->

    Raises:
        InputError: the page lacks a mark.
    """
    begin, end = f"<!-- compare {summary['study']} -->", f"<!-- end of compare {summary['study']} -->"
    if not page.is_file():
        raise InputError(f"--write: there is no {page}; make it, with the lines {begin} and {end}.")
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"--write: {page} must have the lines {begin} and {end} once each, in this order.")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    with atomic_write(page) as aside:
        aside.write_text(f"{before}\n\n{markdown(summary)}\n\n{after}", encoding="utf-8")
