"""The prompts of each round, and the feedback that a round's fit learns from.

prompts, in an order drawn by the seed      | round 1 | round 2 | round 3 | left |
feedback of round 3                         its own records + a share of those of rounds 1 and 2 + given feedback
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.jsonl import read_jsonl, read_values, write_jsonl
from coh_lightning.feedback.records import Feedback, unique
from coh_lightning.feedback.sources.prompts import feedback_key
from coh_lightning.rng import key64
from coh_lightning.rounds.rounds_file import RoundsFile
from coh_lightning.worlds import TABLE, resolve

STAND_INS: Mapping[str, Any] = {
    "scale": {"overall": [0, 1]},
    "completions": [
        {"text": "(1)", "rank": 1, "thumb": True, "rating": {"overall": 1}, "critique": "(1)", "revision": "(3)"},
        {"text": "(2)", "rank": 2, "thumb": False, "rating": {"overall": 0}, "critique": "(2)", "revision": "(3)"},
    ],
}
"""What stands in the place of answers until they are written: a record has feedback that every method can use, and
`predict` reads none of it."""


KEPT = ("id", "system", "prompt", "task", "aspect", "reference")
"""Keys of a line that say what is asked."""


def read_prompts(path: Path) -> list[Feedback]:
    """The prompts of records, or of lines with a prompt alone. Raises InputError, by file and line."""
    found: list[Feedback] = []
    seen: dict[str, str] = {}
    for where, value in read_values(path):
        if isinstance(value, dict) and "prompt" in value:
            Feedback.from_json({**STAND_INS, **value}, where)  # what the line itself says is checked, too
            kept = {key: value[key] for key in KEPT if key in value}
            value = {**kept, **STAND_INS}
        found.append(unique(Feedback.from_json(value, where), seen, where))
    return found


def test_prompts(file: RoundsFile) -> list[Feedback]:
    """The first `test.count` unseen prompts. Raises InputError if there are fewer."""
    if file.test.prompts in TABLE:
        return list(resolve("prompts", file.test.prompts)(file.test.count))
    records = list(read_jsonl(file.test.prompts, Feedback))
    if len(records) < file.test.count:
        fact = f"test.prompts {file.test.prompts} has {counted(len(records), 'record')}, but test.count is"
        raise InputError(f"{fact} {file.test.count}; lower it.")
    return records[: file.test.count]


test_prompts.__test__ = False  # type: ignore[attr-defined]


def pool(file: RoundsFile, *, seed: int, held_out: Iterable[Feedback]) -> list[list[Feedback]]:
    """The prompts of each round. None is in two rounds, and none is a test prompt.

    Raises:
        InputError: there are fewer prompts than the rounds need.
    """
    needed = file.rounds * file.prompts_per_round
    if file.prompts in TABLE:
        every = list(resolve("prompts", file.prompts)(needed, seed=seed, split="train"))
    else:
        every = read_prompts(Path(file.prompts))
    taken = {feedback_key(one) for one in held_out}
    of_test = 0
    different: dict[str, Feedback] = {}
    for one in every:
        if (key := feedback_key(one)) in taken:
            of_test += 1
        else:
            different.setdefault(key, one)
    if len(different) < needed:
        left = f" that are no test prompts ({of_test:,} are)" if of_test else ""
        fact = f"{file.prompts} has {counted(len(different), 'different prompt')}{left}, but"
        rounds = f"{counted(file.rounds, 'round')} of {file.prompts_per_round:,} need {needed:,}"
        raise InputError(f"{fact} {rounds}; lower prompts_per_round or rounds, or give more.")
    drawn = sorted(different, key=lambda key: key64(seed, "rounds", key))
    size = file.prompts_per_round
    return [[different[key] for key in drawn[start : start + size]] for start in range(0, needed, size)]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """How many records of feedback a fit learns from."""

    new: int
    older: int
    given: int

    @property
    def share(self) -> float:
        """Of new ones."""
        return self.new / (self.new + self.older + self.given)


def mix(file: RoundsFile, *, seed: int, number: int, new: Sequence[Path], output: Path) -> Mixture:
    """Writes the feedback of a round's fit: the newest of the files `new` whole, a share `older` of the records of the
    others, drawn anew in each round, and the feedback of the file, if any.
    """
    *earlier, own = [list(read_jsonl(path, Feedback)) for path in new]
    older = [
        one
        for records in earlier
        for one in records
        if key64(seed, "older feedback", number, one.id) / 2**64 < file.older
    ]
    given = [] if file.feedback is None else list(read_jsonl(file.feedback, Feedback))
    seen: dict[str, str] = {}
    write_jsonl(output, [unique(one, seen, one.where) for one in (*own, *older, *given)])
    return Mixture(len(own), len(older), len(given))
