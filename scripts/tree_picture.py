"""Draws one comparison as the tree of its four chains, as an SVG: `python scripts/tree_picture.py docs/tree.svg`.

Green boxes are learned (strong: by two chains), gray ones are only read. The colors follow the reader's dark or light
mode; the background is the page's own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.chains import build_chains
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.wording import Wording

RECORD = {
    "id": "1",
    "prompt": "Name a fruit.",
    "completions": [{"text": "An apple.", "rank": 1}, {"text": "A stone.", "rank": 2}],
}
HEIGHT, GAP, CHARACTER = 34, 26, 8.6
STYLE = """\
text { font: 14px ui-monospace, monospace; fill: #1d2127 }
path { fill: none; stroke: #7f858f; stroke-width: 1.5 }
rect.read { fill: #e6e7ea } rect.once { fill: #9fd8ae } rect.twice { fill: #4fae6a }
@media (prefers-color-scheme: dark) {
  text { fill: #e9edf2 } text.twice { fill: #08130b }
  rect.read { fill: #373c45 } rect.once { fill: #1f5a33 } rect.twice { fill: #55c274 }
}
"""


@dataclass
class Box:
    """A text of the tree, the chains that learn it, and what follows it."""

    text: str
    learned: int = 0
    after: dict[str, Box] = field(default_factory=dict)

    @property
    def width(self) -> float:
        return CHARACTER * len(self.text) + 20

    @property
    def lines(self) -> int:
        return sum(box.lines for box in self.after.values()) or 1


def tree_of(record: Feedback) -> Box:
    """The prompt, and behind it the markers and outputs of all chains, merged where they begin alike."""
    root = Box(record.prompt[-1].text)
    for chain in build_chains(record, Method(), Wording(), seed=0, epoch=0):
        box = root
        for link in chain:
            for text, learned in ((link.marker, 0), (link.text, 1)):
                box = box.after.setdefault(text, Box(text))
                box.learned += learned
    return root


def draw(box: Box, x: float, y: float) -> list[str]:
    """The SVG elements of a box and of all that follows it; (x, y) is its upper left corner."""
    kind = ("read", "once", "twice")[min(box.learned, 2)]
    parts = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{box.width:.0f}" height="{HEIGHT}" rx="7" class="{kind}"/>',
        f'<text class="{kind}" x="{x + box.width / 2:.0f}" y="{y + 22:.0f}" text-anchor="middle">'
        f"{escape(box.text)}</text>",
    ]
    below = y
    for child in box.after.values():
        start, end = x + box.width, x + box.width + GAP
        parts.append(
            f'<path d="M{start:.0f} {y + HEIGHT / 2:.0f} C{end:.0f} {y + HEIGHT / 2:.0f} {start:.0f} '
            f'{below + HEIGHT / 2:.0f} {end:.0f} {below + HEIGHT / 2:.0f}"/>'
        )
        parts += draw(child, end, below)
        below += child.lines * (HEIGHT + GAP)
    return parts


def widest(box: Box) -> float:
    return box.width + max((GAP + widest(child) for child in box.after.values()), default=0)


def main() -> None:
    root = tree_of(Feedback.from_json(RECORD, "the picture's record"))
    width, height = widest(root) + 20, root.lines * (HEIGHT + GAP) - GAP + 20
    picture = "\n".join(draw(root, 10, 10))
    Path(sys.argv[1]).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}">\n'
        f"<style>\n{STYLE}</style>\n{picture}\n</svg>\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
