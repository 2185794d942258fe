"""The model that `coh chat` talks to: a checkpoint of ours or an exported folder, and the prompts of its training.

runs/mine                       the newest checkpoint of a run folder
runs/mine/checkpoints/last.ckpt a file, or a folder of shards
my-model                        what `coh export` made, whole or adapters
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError, first_line, near_file
from coh_lightning.export.huggingface import SETTINGS
from coh_lightning.runs.run_folder import newest_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.generation.prompter import Prompter


@dataclass(frozen=True)
class ChatModel:
    """A model in evaluation mode, on a GPU if there is one, and the maker of its prompts."""

    place: Path
    lm: Any
    prompter: Prompter

    @classmethod
    def load(cls, given: str) -> ChatModel:
        """The model of a run folder, a checkpoint, or an exported folder.

        Raises:
            InputError: there is none, or it can't be loaded.
        """
        place = found(given)
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        lm, prompter = _exported(place) if (place / SETTINGS).is_file() else _trained(place)
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return cls(place, lm.eval().to(device), prompter)


def found(given: str) -> Path:
    """The checkpoint or exported folder that a path means. Raises InputError if there is none."""
    path = Path(given).expanduser()
    if not path.exists():
        raise InputError(f"{path}: there is no such run, checkpoint or folder{near_file(path, Path.exists)}")
    if path.is_file() or (path / SETTINGS).is_file() or (path / ".metadata").is_file():
        return path
    checkpoint = newest_checkpoint(path) or newest_checkpoint(path.parent if path.name == "checkpoints" else path)
    if checkpoint is not None:
        return checkpoint
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        raise InputError(f"{path} has no {SETTINGS}, which says how to ask the model; write it with coh export.")
    raise InputError(f"{path} has neither a checkpoint nor {SETTINGS}; give a run folder, or what coh export wrote.")


def _trained(checkpoint: Path) -> tuple[Any, Prompter]:
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.model.checkpoints import read_checkpoint_info
    from coh_lightning.model.tokenizer import load_tokenizer
    from coh_lightning.module import CoHModule

    tokenizer = load_tokenizer(read_checkpoint_info(checkpoint)["tokenizer"])
    module = CoHModule.load_from_checkpoint(checkpoint)
    assert module.trained_with is not None
    return module.lm, Prompter.from_settings(module.trained_with, tokenizer)


def _exported(folder: Path) -> tuple[Any, Prompter]:
    from transformers import AutoModelForCausalLM

    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.model.tokenizer import load_tokenizer

    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        data, template = settings["data"], settings["chat_template"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / SETTINGS} is damaged ({first_line(error)}); export the model again.") from error
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(str(folder))
    tokenizer.chat_template = template  # the folder's own adds the good sentence
    try:
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{folder}: the model can't be loaded ({first_line(error)}).") from error
    return lm, Prompter.from_settings(data, tokenizer)
