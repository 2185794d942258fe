"""A model is asked as it was trained: settings that differ from those of its checkpoint are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coh_lightning.errors import InputError

OF_THE_DATA = ("attributes", "tasks")
"""Settings that come from the records at hand and may differ."""


def check_agreement(now: Mapping[str, Any], saved: Mapping[str, Any], tokenizer: str) -> None:
    """Raises InputError for the first of the settings (`Prompter.settings`) that differs; names its key and both
    values. `tokenizer`: the present one's name.
    """
    for key, value in now.items():
        was = saved.get(key)
        if was == value or key in OF_THE_DATA:
            continue
        if key == "chat_template":
            raise InputError(
                f"The chat template of '{tokenizer}' is not the one that the checkpoint was trained with; give the "
                "tokenizer of the training as data.tokenizer."
            )
        if isinstance(value, dict) and isinstance(was, dict):
            name = next(part for part in value if was.get(part) != value[part])
            key, value, was = f"{key}.{name}", value[name], was.get(name)
        raise InputError(
            f"data.{key} is {value!r}, but the checkpoint was trained with {was!r}; use the config.yaml of its run "
            "folder, or set it back."
        )


def check_tokenizer(now: Mapping[str, Any], saved: Mapping[str, Any], name: str) -> None:
    """Raises InputError if the tokenizer of that name, or its chat template, is not the one of the training."""
    for key, what in (
        ("tokenizer", f"'{name}' is not the tokenizer"),
        ("chat_template", f"The chat template of '{name}' is not the one"),
    ):
        if now[key] != saved[key]:
            raise InputError(
                f"{what} that the model was trained with; give the tokenizer of the training (--tokenizer, "
                "data.tokenizer)."
            )
