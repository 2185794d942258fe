"""Whether an exported folder is the model that was trained: load it afresh and compare its logits on a probe.

    trained model (adapters attached)  ── probe ──> logits ─┐
    folder, loaded from disk           ── probe ──> logits ─┴─> largest difference <= tolerance x largest logit

It takes one more copy of the model in memory, on the CPU, and two forward passes over a few tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from coh_lightning.errors import InputError, first_line
from coh_lightning.model.tokenizer import first_difference, load_tokenizer
from coh_lightning.model.tree_attention import library_attention

PROBE = 32  # tokens of the probe

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of two logits, relative to the largest logit, by the type of the weights: the rounding of adapters
when they are merged, or loaded by peft in float32. Measured with large adapters: 1e-15, 2e-6, 7e-3, 6e-2.
"""

COPIED = 1e-4  # the same for weights that are copied: such a folder gives identical logits on the machine that wrote it


def probe_logits(lm: Any) -> Tensor:
    """The logits (PROBE, vocabulary) of ids spread over the vocabulary, float32 or float64; `lm` stays in eval mode."""
    rows = lm.get_input_embeddings().weight.shape[0]
    longest = getattr(lm.config.get_text_config(), "max_position_embeddings", None) or PROBE
    ids = torch.linspace(0, rows - 1, min(PROBE, longest)).long().clamp_(max=rows - 1)
    with torch.no_grad():
        logits = lm.eval()(input_ids=ids[None], use_cache=False).logits[0]
    return logits if logits.dtype == torch.float64 else logits.float()


def load_folder(folder: Path, like: PreTrainedModel) -> PreTrainedModel:
    """The model of a folder, with the attention and dtype of `like`.

    Raises:
        InputError: it can't be loaded, or its weights don't match its configuration.
    """
    settings: dict[str, Any] = {"dtype": like.dtype, "attn_implementation": library_attention(like.config)}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, **settings, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # whatever it is, the folder is useless
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"The exported folder can't be loaded ({why}), so it is not kept.") from error
    lm, found = cast(tuple[Any, dict[str, Any]], loaded)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, found.get(what) or ())):
            wrong = f"{what.replace('_', ' ')} ({len(keys)}, the first is {keys[0]})"
            raise InputError(f"The exported folder has {wrong}, so it is not kept.")
    return cast(PreTrainedModel, lm)


def compare(wanted: Tensor, got: Tensor, tolerance: float) -> None:
    """Refuse logits that differ from those of the trained model.

    Args:
        wanted, got: `probe_logits` of the trained model and of the folder.
        tolerance: Largest difference allowed, relative to the largest logit.

    Raises:
        InputError: they differ by more, or the trained model's are NaN.
    """
    if bool(wanted.isnan().any()):
        raise InputError("The trained model has non-finite weights (its logits are NaN); export an earlier checkpoint.")
    finite = wanted.isfinite()  # some models set logits to -inf
    scale = float(wanted[finite].abs().max())
    if wanted.shape != got.shape or not torch.equal(finite, got.isfinite()):
        difference, shown = float("inf"), "in which logits are finite"
    else:
        difference = float((wanted - got)[finite].abs().max())
        shown = f"by up to {difference:.3g} (the largest logit is {scale:.3g})"
    if not difference <= tolerance * scale:
        raise InputError(
            f"The logits of the exported folder differ from those of the trained model {shown}; at most "
            f"{tolerance * scale:.2g} is allowed, so the folder is not kept."
        )


def check_tokenizer(folder: Path, own: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` if the folder's tokenizer, as transformers loads it, gives other ids than in training (it
    picks another class for some types of model).
    """
    if (difference := first_difference(own, load_tokenizer(str(folder)))) is not None:
        raise InputError(
            "The tokenizer of the exported folder, as transformers loads it, is not that of the training: "
            f"{difference}, so the folder is not kept; train with the model's own tokenizer."
        )
