"""Sentences for what stops a run from outside: too little memory, a worker or another rank that died, a library's own
message about a setting.
"""

from __future__ import annotations

import textwrap
import traceback

import torch

from coh_lightning.errors import InputError
from coh_lightning.runs.monitors import missed


def environment_error(error: BaseException) -> str | None:
    """A sentence for an error that the user can do something about; None for any other."""
    if isinstance(error, InputError):
        # torch puts the traceback of the process that builds rows into the message
        return (
            str(error).rpartition(f"\n{InputError.__module__}.InputError: ")[2].strip()
            if "DataLoader worker" in str(error)
            else None
        )
    if (unlogged := missed(error)) is not None:
        return unlogged
    said = textwrap.shorten(str(error), 120, placeholder=" ...")
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
        return (
            f"there was not enough memory ({said}); lower data.row_tokens (data.max_chain_tokens is the least that "
            "it can be), "
            "set model.gradient_checkpointing=true, or share the model over GPUs (trainer.strategy)."
        )
    if "gloo" in str(error) and any(
        words in str(error) for words in ("Connection closed by peer", "Connection reset by peer")
    ):
        return "the connection to another rank was lost: that one ended first, and its own message says why."
    at_work = any(
        frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__)
    )  # of a DataLoader: it was fetching what a worker had built
    if (at_work and isinstance(error, ConnectionError | EOFError | FileNotFoundError)) or (
        "DataLoader worker" in said and ("killed by signal" in said or "exited unexpectedly" in said)
    ):
        return (
            f"a process that builds rows died ({said}), most often because memory ran out; lower data.num_workers, and "
            "run the same command again."
        )
    return None
