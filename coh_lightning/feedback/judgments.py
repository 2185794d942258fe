"""A rater's judgment of two completions: one line of `judgments.jsonl`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from coh_lightning.checks import checked_text, flat_values
from coh_lightning.errors import InputError, shown

TIE = "tie"
"""The choice of neither side."""
JUDGE = "judge:"
"""A rater whose name begins with this is a language model."""


@dataclass(frozen=True)
class Judgment:
    """One rater's choice between the two completions of one item, on one attribute."""

    item: str
    row: str
    """The row of the rater's sheet: a rater may see an item twice, with its sides swapped."""
    prompt_id: str
    rater: str
    attribute: str
    choice: str
    """The name of the chosen system, or `TIE`."""
    systems: tuple[str, ...]
    """The two systems in the order shown to the rater: left, right."""
    check: str = ""
    """What the row tests: "" (nothing: it counts), "swap" (shown again), "identical" (texts), "gold" (obvious)."""
    passed: bool | None = None
    """Whether the check was answered correctly; None if no single answer is correct."""
    seconds: float | None = None
    comment: str = ""
    strength: str | None = None
    """How much better the choice is, slightly or clearly; None if that was not asked, or for a tie."""

    @property
    def sheet_row(self) -> str:
        """The row of the sheet; a ranking of several systems has judgments ROW:0-1, ROW:0-2, ... of one row."""
        return self.row.partition(":")[0]

    @classmethod
    def from_json(cls, obj: object, where: str) -> Judgment:
        """Read one line of judgments. Raises InputError naming `where` and the key."""
        values = flat_values(cls, obj, where)
        if len(values["systems"]) != 2:
            raise InputError(f"{where}: systems is {shown(values['systems'])}; it must be two systems, left and right.")
        values["systems"] = tuple(checked_text(name, "systems", where) for name in values["systems"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self) | {"systems": list(self.systems)}
        return {name: value for name, value in values.items() if value is not None}
