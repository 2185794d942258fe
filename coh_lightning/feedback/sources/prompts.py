"""Which prompts are the same, and what follows from it: splits in which no prompt is in two parts.

"Name a fruit."   " name  a FRUIT."        the same prompt
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from coh_lightning.errors import InputError
from coh_lightning.feedback.record_store import StoredRecords
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.rng import key64


def prompt_key(text: str) -> str:
    """The text without what people vary unintentionally: Unicode form (NFKC), case, and whitespace."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def feedback_key(feedback: Feedback) -> str:
    """The key of a record's prompt: its user and assistant turns. The system turn is not part of it."""
    return "\x1e".join(f"{turn.role}\x1f{prompt_key(turn.text)}" for turn in feedback.prompt if turn.role != "system")


def split_by_prompt(
    feedback: Sequence[Feedback], shares: Mapping[str, float], *, seed: int, copies_left_out: Counter[str] | None = None
) -> dict[str, Sequence[Feedback]]:
    """The records by split: "train", and every name in `shares` (name -> fraction of the prompts).

    The split of a prompt depends only on the seed and its key, so no prompt is in two splits, also across
    sources. Copies made by weights stay in "train"; `copies_left_out` counts those left out of other splits.

    Raises:
        InputError: a share that is not between 0 and 1, a sum of 1 or more, or a share called "train".
    """
    if "train" in shares:
        raise InputError("the share 'train' is what the others leave; name only the held-out splits.")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise InputError(f"the share {name!r} is {share}; it must be at least 0 and below 1.")
    if sum(shares.values()) >= 1:
        raise InputError(f"the held-out shares add up to {sum(shares.values()):g}; nothing would be left to train on.")
    if not any(shares.values()):
        return {"train": feedback, **{name: _taken(feedback, array("q")) for name in shares}}
    out = {"train": array("q"), **{name: array("q") for name in shares}}
    for number, one in enumerate(feedback):
        place = key64(seed, "split", feedback_key(one)) / 2**64
        side = "train"
        for name, share in shares.items():
            if place < share:
                side = name
                break
            place -= share
        if side == "train" or one.copy == 1:
            out[side].append(number)
        elif copies_left_out is not None:
            copies_left_out[side] += 1
    return {side: _taken(feedback, numbers) for side, numbers in out.items()}


def without_prompts_of(
    train: Sequence[Feedback], held_out: Sequence[Feedback]
) -> tuple[Sequence[Feedback], list[Rejected]]:
    """The training records whose prompt is not held out, and the others as rejections."""
    keys = {_digest(one) for one in held_out}
    kept = array("q")
    lost = []
    for number, one in enumerate(train):
        if _digest(one) in keys:
            reason = "the prompt is also in the held-out data"
            lost.append(Rejected(reason=reason, where=one.where, source=one.source, id=one.id))
        else:
            kept.append(number)
    return _taken(train, kept), lost


def _digest(feedback: Feedback) -> bytes:
    return hashlib.blake2b(feedback_key(feedback).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _taken(feedback: Sequence[Feedback], numbers: array[int]) -> Sequence[Feedback]:
    import numpy as np

    if isinstance(feedback, StoredRecords):
        return feedback.taken(np.frombuffer(numbers, np.int64))
    return [feedback[number] for number in numbers]
