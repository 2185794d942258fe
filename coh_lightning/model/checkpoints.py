"""Our checkpoints: a file, or a folder of shards (what `ModelParallelStrategy` and a sharded `FSDPStrategy` write).

Nothing in them is executed: files are read as plain data, and the metadata of a folder, which is a pickle, only if it
names nothing but what torch writes there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from coh_lightning.errors import InputError, first_line
from coh_lightning.model.lora import LoRA, adapters
from coh_lightning.model.sharded_checkpoint import read_shards

CHECKPOINT_KEY = "coh_lightning"
"""The entry with what the model was trained with, as plain JSON: `model` (its config), `data` (settings of the data
module), `tokenizer` (its name), `lora` (the fields of `LoRA`, or null), `base` (the name of the model that training
started from; null: random weights), `validations` (how many there were) and `plan` (of a run that can go on, or null).
"""

META = "meta.pt"
"""File of a checkpoint that is a folder: everything in it that is not a tensor."""


def put_info(checkpoint: dict[str, Any], *, lora: LoRA | None, **of_run: Any) -> None:
    """Writes the entry `CHECKPOINT_KEY` into a checkpoint; of a model with quantized weights, leaves the adapters'."""
    if lora is not None and lora.quantize:
        checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if "lora_" in key}
    checkpoint[CHECKPOINT_KEY] = json.dumps({**of_run, "lora": asdict(lora) if lora is not None else None})


def info_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `CHECKPOINT_KEY`. Raises InputError if there is none."""
    if CHECKPOINT_KEY not in checkpoint:
        raise InputError(f"The checkpoint has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule.")
    found: dict[str, Any] = json.loads(checkpoint[CHECKPOINT_KEY])
    return found


def check_adapters(saved: Mapping[str, Any], lora: LoRA | None) -> None:
    """Raises InputError if a checkpoint (its entry) has other adapters than the model."""
    if adapters(saved) != lora:
        what = f"model.lora is {lora}, but the checkpoint holds {adapters(saved)}"
        raise InputError(f"{what}; use the config.yaml of its run folder.")


def read_checkpoint_info(path: str | Path) -> dict[str, Any]:
    """The entry `CHECKPOINT_KEY` of a checkpoint, without its weights. Raises like `read_checkpoint`."""
    found: dict[str, Any] = json.loads(_read(Path(path))[CHECKPOINT_KEY])
    return found


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint with its whole `state_dict` on the CPU. Optimizer states in a folder are left out.

    Raises:
        InputError: there is no such checkpoint, or it is not one of ours.
    """
    checkpoint = _read(Path(path))
    if Path(path).is_dir():
        checkpoint["state_dict"] = read_shards(Path(path))
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    """The content of a file; of a folder, everything except tensors."""
    if not path.is_file() and not (path / META).is_file():
        raise InputError(f"There is no checkpoint file {path}; look into the checkpoints/ folder of the run.")
    try:
        file = path / META if path.is_dir() else path
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = f"{path} can't be read as a checkpoint ({type(error).__name__}: {first_line(error)})"
        raise InputError(f"{reason}; it may be damaged, or hold more than plain data.") from error
    if CHECKPOINT_KEY not in checkpoint:
        what = f"{path} has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule"
        raise InputError(f"{what}; give a Hugging Face folder instead.")
    return dict(checkpoint)
