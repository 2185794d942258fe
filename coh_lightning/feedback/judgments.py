"""What a rater said of two completions: one line of `judgments.jsonl`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from coh_lightning.checks import checked_text, flat_values
from coh_lightning.errors import InputError, shown

TIE = "tie"
"""The choice of neither side."""


@dataclass(frozen=True)
class Judgment:
    """What one rater said of the two completions of one item, on one attribute."""

    item: str
    row: str
    """The showing that was answered: a rater may see an item twice, with its sides swapped."""
    prompt_id: str
    rater: str
    attribute: str
    choice: str
    """The name of the chosen system, or `TIE`."""
    systems: tuple[str, ...]
    """The two systems in the order shown to the rater: left, right."""
    check: str = ""
    """What the row tests: "" (nothing: it counts), "swap" (shown again, sides swapped), "identical" (equal texts),
    "gold" (an obvious answer).
    """
    passed: bool | None = None
    """Whether the check was answered correctly; None if no single answer is correct."""
    seconds: float | None = None
    comment: str = ""

    _types: ClassVar[dict[str, tuple[type, ...]]] = {
        **dict.fromkeys(("item", "row", "prompt_id", "rater", "attribute", "choice", "check", "comment"), (str,)),
        "systems": (list,),
        "passed": (bool, type(None)),
        "seconds": (int, float, type(None)),
    }

    @classmethod
    def from_json(cls, obj: object, where: str) -> Judgment:
        """Read one line of judgments. Raises InputError naming `where` and the key."""
        values = flat_values(cls, cls._types, obj, where)
        if len(values["systems"]) != 2:
            raise InputError(
                f"{where}: systems is {shown(values['systems'])}; it must be the two compared systems, left and right."
            )
        values["systems"] = tuple(checked_text(name, "systems", where) for name in values["systems"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self) | {"systems": list(self.systems)}
        return {name: value for name, value in values.items() if value is not None}
