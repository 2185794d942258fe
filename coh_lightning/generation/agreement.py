"""Whether prompts are made as in training: the settings at hand against those in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coh_lightning.errors import InputError


def check_agreement(now: Mapping[str, Any], saved: Mapping[str, Any], tokenizer: str) -> None:
    """Refuses the first of the settings that differs from the checkpoint's (attributes and tasks come from the records
    at hand and may). `tokenizer`: the present one's name.
    """
    same = {"tokenizer": f"'{tokenizer}' is not the tokenizer"}
    same["chat_template"] = f"The chat template of the tokenizer '{tokenizer}' is not the one"
    for key in [*same, *(key for key in now if key not in (*same, "attributes", "tasks"))]:
        value, was = now[key], saved.get(key)
        if was == value:
            continue
        if key in same:
            remedy = "give the tokenizer of the training (data.tokenizer, --tokenizer)"
            raise InputError(f"{same[key]} that the checkpoint was trained with; {remedy}.")
        if isinstance(value, dict) and isinstance(was, dict):
            # a part that the checkpoint doesn't have came later, and was off then
            part = next((part for part in value if part in was and was[part] != value[part]), None)
            if part is None:
                continue
            key, value, was = f"{key}.{part}", value[part], was[part]
        what = f"data.{key} is {value!r}, but the checkpoint was trained with {was!r}"
        raise InputError(f"{what}; use the config.yaml of its run folder, or set it back.")
