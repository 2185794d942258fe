"""Gold items: prompts with an obviously better answer, to see whether a rater reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError
from coh_lightning.human_eval.outputs import checked_id, read_objects, read_prompt_value

GOLD = ("gold: good", "gold: bad")
"""The systems' names in the pair of a gold item."""
NEEDS = "a gold item needs id, prompt, good and bad"


@dataclass(frozen=True)
class GoldItem:
    id: str
    prompt: str
    good: str
    bad: str


def read_gold(path: Path) -> list[GoldItem]:
    """Gold items from JSON lines with id, prompt, good and bad. Raises InputError naming file and line."""
    gold: dict[str, GoldItem] = {}
    for where, line in read_objects(path, NEEDS):
        missing = [key for key in ("id", "prompt", "good", "bad") if key not in line]
        if missing:
            raise InputError(f"{where}: the key {missing[0]!r} is missing; {NEEDS}.")
        one = GoldItem(
            checked_id(line["id"], "id", where),
            read_prompt_value(line["prompt"], "prompt", where)[0],
            checked_text(line["good"], "good", where),
            checked_text(line["bad"], "bad", where),
        )
        if one.id in gold:
            raise InputError(f"{where}: the file has a gold item '{one.id}' before; give each its own id.")
        if one.good == one.bad:
            raise InputError(f"{where}: the good and the bad answer of '{one.id}' are the same text; change one.")
        gold[one.id] = one
    return list(gold.values())
