"""Sentences for what stops a run from outside: too little memory, or a worker or another rank that died."""

from __future__ import annotations

import re
import textwrap
import traceback

import torch

from coh_lightning.errors import InputError
from coh_lightning.runs.monitors import missed


def environment_error(error: BaseException) -> str | None:
    """A sentence for an error that the user can do something about; None for any other."""
    text = str(error)
    if isinstance(error, InputError):
        # torch puts the traceback of the process that builds rows into the message
        own = text.rpartition(f"\n{InputError.__module__}.InputError: ")[2].strip()
        return own if "DataLoader worker" in text else None
    if (unlogged := missed(error)) is not None:
        return unlogged
    start = textwrap.shorten(text, 120, placeholder=" ...")
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in start:
        return (
            f"there was not enough memory ({start}); lower data.row_tokens (at least data.max_chain_tokens), set "
            "model.gradient_checkpointing=true, or share the model over GPUs (trainer.strategy)."
        )
    if "gloo" in text and re.search("Connection (closed|reset) by peer", text):
        return "the connection to another rank was lost: that one ended first, and its own message says why."
    # a DataLoader was fetching what a worker had built
    fetching = any(frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__))
    if (fetching and isinstance(error, ConnectionError | EOFError | FileNotFoundError)) or (
        "DataLoader worker" in start and ("killed by signal" in start or "exited unexpectedly" in start)
    ):
        return (
            f"a process that builds rows died ({start}), most often because memory ran out; lower data.num_workers, "
            "and run the same command again."
        )
    return None
