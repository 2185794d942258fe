"""Attention masks over rows of trees, in the form that the model's back end takes.

The rule of rows.py: token j is visible to token q exactly when j <= q < seen_until[j] and, in a layer with a sliding
window, depth[q] - depth[j] < window.

    P ─┬─ a ── b     token       P a b e       q \\ j   P a b e
       └─ e          seen_until  4 3 3 4       P       1 . . .
                     depth       0 1 2 1       a       1 1 . .
                                               b       1 1 1 .
                                               e       1 . . 1

e is beside b in the row, but attends to P and itself only. With a window of 2, b (depth 2) no longer attends to P
(depth 0), while e (depth 1) still does, though it is 3 places away in the row.

Not every architecture obeys an explicit mask: layout_check.py tests it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from coh_lightning.errors import InputError
from coh_lightning.model import tree_attention
from coh_lightning.model.tree_attention import CALL, TreeParts, additive_mask, window_number
from coh_lightning.sequences.rows import runs_of

Mask = Tensor | BlockMask
REMEDY = "use `layout: separate` (one chain a row, the model's own causal mask), which always works"


def attention_implementation(config: PreTrainedConfig) -> str:
    """The default back end: "sdpa" where transformers has it for the model, else "eager" (Gemma-2, GPT-Neo, ...)."""
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    # sdpa caps no logits, and yet some versions of transformers offer it for Gemma-2
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "sdpa" if getattr(model, "_supports_sdpa", False) and not capped else "eager"


def attention_mask(
    config: PreTrainedConfig, seen_until: Tensor, depth: Tensor, *, dtype: torch.dtype
) -> Mask | dict[str, Mask]:
    """The mask of one row of T tokens; seen_until and depth (1, T) or (T,), on the model's device.

    An additive float mask (1, 1, T, T) for sdpa and eager (a bool one is silently wrong under eager), a `BlockMask` for
    FlexAttention; where layers differ, a dict from their types in transformers to masks.

    Raises:
        InputError: a back end that takes no explicit mask, or layers with another kind of attention.
    """
    text = config.get_text_config()
    seen_until, depth = seen_until.reshape(-1), depth.reshape(-1)
    back_end = text._attn_implementation or "eager"
    if back_end not in ("sdpa", "eager", "flex_attention"):
        what = f"attn_implementation {back_end} takes no explicit mask, which trees need"
        raise InputError(f"{what}: choose sdpa, eager or flex_attention, or {REMEDY}.")
    windows = layer_windows(text)
    built: dict[int | None, Mask] = {}
    for window in dict.fromkeys(windows.values()):
        if back_end == "flex_attention":
            built[window] = _block_mask(seen_until, depth, window)
        else:
            built[window] = additive_mask(seen_until, depth, window, dtype=dtype)
    if len(windows) == 1:  # models whose layers are all alike take the mask itself
        return built[next(iter(windows.values()))]
    return {kind: built[window] for kind, window in windows.items()}


def layer_windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """Layer type -> its sliding window in tokens, None: all of the past. One entry where all layers are alike.

    Raises:
        InputError: layer types with another kind of attention (linear, chunked, convolution, ...).
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:  # Mistral and the like: one window in all layers
        return {"full_attention": None} if window is None else {"sliding_attention": int(window)}
    known: dict[str, int | None] = {"full_attention": None, "sliding_attention": window}
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        what = f"{config.model_type} has layers of type {', '.join(unknown)}"
        raise InputError(f"{what}, which don't work with trees or packed documents: {REMEDY}.")
    return {kind: known[kind] for kind in sorted(set(kinds))}


def row_logits(lm: nn.Module, batch: Mapping[str, Tensor], *, call: int = CALL) -> Tensor:
    """The logits (U, V) of the batch's `keep`, without a cache. Calls the root module, so that FSDP's hooks run."""
    inputs = row_inputs(lm, batch, call=call)
    keep = batch["keep"]
    if keeps_logits(lm):
        inputs["logits_to_keep"] = keep
    logits: Tensor = lm(**inputs).logits[0]
    return logits if len(logits) == len(keep) else logits.index_select(0, keep)


def keeps_logits(lm: nn.Module) -> bool:
    """Whether the model may be asked for the logits of some places alone."""
    parameters = inspect.signature(lm.forward).parameters
    return "logits_to_keep" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def row_inputs(lm: nn.Module, batch: Mapping[str, Tensor], *, call: int = CALL) -> dict[str, Any]:
    """What a model takes for a row: `input_ids` and, for trees, positions and a mask; or the row's parts instead of a
    mask, and then no padding, which would cost as much as tokens do outside attention.

    Args:
        call: What a call of sdpa costs; 0 cuts the row wherever it can be cut.
    """
    ids = batch["input_ids"]
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if "seen_until" not in batch:
        return inputs
    config, dtype = model_config(lm).get_text_config(), mask_dtype(lm, ids.device)
    seen_until, positions = batch["seen_until"], batch["position_ids"]
    if config._attn_implementation != tree_attention.NAME:
        mask = attention_mask(config, seen_until, positions, dtype=dtype)
        return inputs | {"position_ids": positions, "attention_mask": mask}
    windows = layer_windows(config)
    runs = runs_of(batch["parents"].cpu().numpy())  # here, since only attention tree by tree asks for them
    parts = TreeParts(runs, seen_until[0], positions[0], list(windows.values()), dtype=dtype, call=call)
    numbers = {kind: window_number(number, ids.device) for number, kind in enumerate(windows)}
    return inputs | {
        "input_ids": ids[:, : parts.tokens],
        "position_ids": positions[:, : parts.tokens],
        "attention_mask": next(iter(numbers.values())) if len(numbers) == 1 else numbers,
        "tree_parts": parts,
    }


def _block_mask(seen_until: Tensor, depth: Tensor, window: int | None) -> BlockMask:
    """The same rule for FlexAttention, which skips blocks that are masked as a whole."""

    def sees(batch: Tensor, head: Tensor, q: Tensor, j: Tensor) -> Tensor:
        visible = (j <= q) & (q < seen_until[j])
        return visible if window is None else visible & (depth[q] - depth[j] < window)

    tokens, device = len(seen_until), seen_until.device
    make = _compiled_block_mask() if device.type == "cuda" else create_block_mask
    return make(sees, B=None, H=None, Q_LEN=tokens, KV_LEN=tokens, device=str(device))


@cache
def _compiled_block_mask() -> Callable[..., BlockMask]:
    """Compiled, it never has the whole (T, T) mask in memory, 256 MB for a row of 16,384 tokens."""
    return torch.compile(create_block_mask)


def mask_dtype(lm: nn.Module, device: torch.device) -> torch.dtype:
    """The type of the queries: that of autocast, else the parameters'."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return next(lm.parameters()).dtype


def model_config(lm: nn.Module) -> PreTrainedConfig:
    """The config of a transformers model. Raises `InputError` for another model."""
    config = lm.config
    if not isinstance(config, PreTrainedConfig):
        raise InputError(f"{type(lm).__name__} has no transformers config: give a causal model of transformers.")
    return config
