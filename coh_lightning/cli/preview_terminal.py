"""`preview` in the terminal. The color of a token says what the loss does with it.

A terminal that shows Arabic or Hebrew from right to left reorders whole lines, so such text is isolated from the labels
and numbers beside it (Unicode's isolates, which take no column and which other terminals ignore).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.containers import Lines
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from coh_lightning.cli.preview_view import Branch, RecordView, Strip
from coh_lightning.errors import visible

STYLES = {
    "learned": ("color(34)", "color(71)"),
    "unlearned": ("color(160)", "color(167)"),
    "both": ("color(172)", "color(179)"),
    "review": ("color(33)", "color(75)"),
    "read": ("dim", "dim"),
    "cut": ("magenta", "magenta"),
}
"""Two shades, readable on dark and on light screens, alternate from token to token."""
FACTS = {"text": "", "said": "italic yellow", "note": "magenta"}
PLAIN_WIDTH = 100
"""Columns if the output isn't a terminal."""
SHORT = 400
"""Characters of a record's text that the terminal shows; the page shows all."""


LEFT_TO_RIGHT, RIGHT_TO_LEFT, END = "\u2066", "\u2067", "\u2069"
"""Begin and end an isolate; text of our own (`visible`) has none."""


class IsolatedText(Text):
    """Text whose lines stay apart from what is beside them, if anything in them runs from right to left."""

    def wrap(self, *args: Any, **settings: Any) -> Lines:
        lines = Lines()
        for paragraph in self.split(allow_blank=True):
            begin = isolating(paragraph.plain)
            for line in Text.wrap(paragraph, *args, **settings):
                # each line of a terminal is reordered alone
                lines.append(Text.assemble(begin, line, END) if begin else line)
        return lines


def isolating(text: str) -> str:
    """What isolates a paragraph, in the direction of its first letter; empty if none runs from right to left."""
    directions = [direction for one in text if (direction := unicodedata.bidirectional(one)) in ("L", "R", "AL")]
    if {*directions} <= {"L"}:
        return ""
    return LEFT_TO_RIGHT if directions[0] == "L" else RIGHT_TO_LEFT


def print_preview(records: Iterable[RecordView], totals: Sequence[tuple[str, str]]) -> None:
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, highlight=False, width=PLAIN_WIDTH, color_system=None)
    legend = _text("tokens are ").append("learned", STYLES["learned"][0]).append(", ")
    legend.append("read", STYLES["read"][0]).append(" or ").append("unlearned", STYLES["unlearned"][0])
    legend.append(", those of ").append("reviews", STYLES["review"][0]).append(" learned or read")
    console.print(legend.append("; ↵ is a line end, ⇥ a tab"))
    for record in records:
        _print_record(console, record)
    console.print()
    console.rule(_text("all records", "bold"), style="bold", align="left")
    console.print(_grid([(_text(name, "bold"), _text(value)) for name, value in totals], (11,)))


def _print_record(console: Console, view: RecordView) -> None:
    console.print()
    parts = view.heading.split(" · ")
    isolated = [f"{begin}{part}{END}" if (begin := isolating(part)) else part for part in map(visible, parts)]
    console.rule(Text(" · ".join(isolated), "bold"), style="bold", align="left")
    facts = [
        (_text(name, "cyan"), _text(_shortened(text) if kind == "text" else text, FACTS[kind]))
        for name, text, kind in view.facts
    ]
    console.print(_grid(facts, (12,)))
    for number, chain in enumerate(view.chains, start=1):
        console.print()
        console.print(_text(f"chain {number} of {len(view.chains)} · {chain.heading}", "bold"))
        console.print(_strips(chain.strips, known=view.chains[0].strips[0] if number > 1 else None))
    for tree in view.trees:
        console.print()
        console.print(_text(tree.heading, "bold"))
        console.print(_branches(tree.root))


def _text(words: str, style: str = "") -> Text:
    return IsolatedText(visible(words.replace("\t", "⇥"), line_ends=True), style=style)


def _shortened(text: str) -> str:
    text = text.strip("\n")
    if len(text) <= SHORT:
        return text
    return f"{text[: SHORT - 100]} … ({len(text) - SHORT + 50:,} characters) … {text[-50:]}"


def _grid(rows: Sequence[Sequence[RenderableType]], widths: Sequence[int], *, one_line: bool = False) -> RenderableType:
    """Columns of these widths, and a last one that fills the line."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for place, width in enumerate(widths):
        grid.add_column(width=width, justify="right" if place else "left", overflow="ellipsis", no_wrap=True)
    grid.add_column(ratio=1, overflow="ellipsis" if one_line else "fold", no_wrap=one_line)
    for row in rows:
        grid.add_row(*row)
    return grid


def _strips(strips: Sequence[Strip], *, known: Strip | None = None, one_line: bool = False) -> RenderableType:
    rows = []
    for strip in strips:
        style = STYLES[strip.color][0]
        words = _text("as above", "dim italic") if strip == known else _painted(strip, one_line=one_line)
        rows.append((_text(strip.label, style), _text(f"{strip.tokens:,}", "dim"), _text(strip.effect, style), words))
    return _grid(rows, (10, 5, 12), one_line=one_line)


def _painted(strip: Strip, *, one_line: bool) -> Text:
    words = _text("")
    styles = STYLES[strip.color]
    for number, (text, cut) in enumerate(strip.shown):
        style = STYLES["cut"][0] if cut else styles[number % 2]
        words.append(visible(text.replace("\n", " ") if one_line else text, line_ends=True), style)
    return words


def _branches(branch: Branch, tree: Tree | None = None) -> Tree:
    label = _strips(branch.strips, one_line=True)
    here = Tree(label, guide_style="dim") if tree is None else tree.add(label)
    for child in branch.branches:
        _branches(child, here)
    return here
