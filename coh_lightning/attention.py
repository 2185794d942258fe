"""Who sees whom -> the mask that the model's back end takes; and the set-up check that the model really obeys it.

The rule of rows.py: token j is visible to token q exactly when j <= q < seen_until[j] and, in a layer with a sliding
window, depth[q] - depth[j] < window.

    P ─┬─ a ── b      q \\ j  P a b e        e sits beside b in the row, but sees only P and itself
       └─ e           P      1 . . .
    seen_until 4 3 3 4  a      1 1 . .
    depth      0 1 2 1  b      1 1 1 .        with a window of 2: b (depth 2) no longer sees P (depth 0),
                      e      1 . . 1        while e (depth 1) still does, though it is 3 places away in the row

It doesn't hold for every architecture: an explicit mask replaces windows silently, and recurrent layers, ALiBi, chunked
attention, local layers by row index and RoPE that depends on the length give wrong logits without any error. Hence
`check_layout`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from coh_lightning.errors import InputError, words_of
from coh_lightning.rows import Row, lay_out
from coh_lightning.tokens import Tokens
from coh_lightning.trees import Ints, Tree

Mask = Tensor | BlockMask
REMEDY = "use `layout: separate` (one chain a row, the model's own causal mask), which always works"


def attention_implementation(config: PreTrainedConfig) -> str:
    """The default back end for this architecture: "sdpa" where transformers has it, else "eager" (Gemma-2, GPT-Neo,
    ...).
    """
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    # sdpa caps no logits, and yet some versions of transformers offer it for Gemma-2
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "sdpa" if getattr(model, "_supports_sdpa", False) and not capped else "eager"


def attention_mask(
    config: PreTrainedConfig, seen_until: Tensor, depth: Tensor, *, dtype: torch.dtype
) -> Mask | dict[str, Mask]:
    """The mask of one row of T tokens for a model with this config; seen_until and depth (1, T) or (T,), on the model's
    device.

    A float additive (1, 1, T, T) mask for sdpa and eager (a bool one is silently wrong under eager), a `BlockMask` for
    FlexAttention; where layers differ, a dict from the layer types of transformers to masks. Raises InputError for a
    back end that takes no mask and for layers that are no such attention.
    """
    text = config.get_text_config()
    seen_until, depth = seen_until.reshape(-1), depth.reshape(-1)
    back_end = text._attn_implementation or "eager"
    if back_end not in ("sdpa", "eager", "flex_attention"):
        raise InputError(
            f"attn_implementation {back_end} takes no mask of one's own, which trees need: choose sdpa, eager or "
            f"flex_attention, or {REMEDY}."
        )
    windows = layer_windows(text)
    built: dict[int | None, Mask] = {}
    for window in windows.values():
        if window not in built:
            built[window] = (
                _block_mask(seen_until, depth, window)
                if back_end == "flex_attention"
                else _additive_mask(seen_until, depth, window, dtype=dtype)
            )
    if len(windows) == 1:  # models whose layers are all alike take the mask itself
        return built[next(iter(windows.values()))]
    return {kind: built[window] for kind, window in windows.items()}


def layer_windows(config: PreTrainedConfig) -> dict[str, int | None]:
    """Layer type -> its sliding window in tokens, None for all of the past. One entry where all layers are alike.

    Raises InputError for layer types that attend in another way (linear, chunked, convolution, ...).
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not kinds:  # Mistral and its like: one window in all layers
        return {"full_attention": None} if window is None else {"sliding_attention": int(window)}
    known: dict[str, int | None] = {"full_attention": None, "sliding_attention": window}
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise InputError(
            f"{config.model_type} has layers of type {', '.join(unknown)}, which can't hold trees or packed "
            f"documents: {REMEDY}."
        )
    return {kind: known[kind] for kind in sorted(set(kinds))}


def row_logits(lm: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits (U, V) of the batch's `keep`, each distinct source projected once, through the root module so that
    FSDP's hooks run. No cache, ever.
    """
    config = _config(lm)
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "use_cache": False}
    if "seen_until" in batch:
        inputs["position_ids"] = batch["position_ids"]
        inputs["attention_mask"] = attention_mask(
            config, batch["seen_until"], batch["position_ids"], dtype=_mask_dtype(lm, batch["input_ids"].device)
        )
    keep = batch["keep"]
    parameters = inspect.signature(lm.forward).parameters
    if "logits_to_keep" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    ):
        inputs["logits_to_keep"] = keep
    logits: Tensor = lm(**inputs).logits[0]
    return logits if len(logits) == len(keep) else logits.index_select(0, keep)


def check_layout(lm: nn.Module, *, row_tokens: int) -> float:
    """Does this very model give a tree in a packed row the logits of its plain chains? Run once at set-up, before any
    training in `layout: tree`.

    A small tree of several branches beside a second one, longer than any window or length limit in the config that a
    row of `row_tokens` can exceed, is compared with its chains under the model's own causal mask; then the second
    document is changed beside the first. Returns the largest difference found, relative to the spread of the logits.
    Raises InputError with the architecture's name, the difference and the remedy.

    The model's mode, its parameters and the global random state are left as they were. Under FSDP all ranks must call
    it.
    """
    config = _config(lm)
    name = config.model_type
    layer_windows(config.get_text_config())
    _refuse_moving_rope(config, row_tokens)
    probe = _probe(config, row_tokens)
    device = next(lm.parameters()).device
    training, precision = lm.training, torch.get_float32_matmul_precision()
    lm.eval()
    torch.set_float32_matmul_precision("highest")  # TF32 rounds as coarsely as float16 and would need its tolerance
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            plain = [_logits(lm, chain) for chain in probe.chains]
            try:
                together, changed = _logits(lm, probe.row), _logits(lm, probe.changed)
            except (TypeError, ValueError, IndexError, RuntimeError) as error:
                if isinstance(error, (torch.OutOfMemoryError, InputError)):
                    raise
                reason = words_of(error)
                raise InputError(
                    f"{name} can't run a row of several trees ({type(error).__name__}: {reason}): {REMEDY}."
                ) from error
    finally:
        lm.train(training)
        torch.set_float32_matmul_precision(precision)
    spread = torch.cat(plain).double().std().item()
    tolerance = _TOLERANCE[together.dtype]
    found = max(_difference(together[path], alone) / spread for path, alone in zip(probe.paths, plain, strict=True))
    if not found <= tolerance:  # not "found > tolerance", so that NaN is refused too
        raise InputError(
            f"{name} does not give a tree the logits of its plain chains (they differ by {found:.2g} of their "
            f"spread, and at most {tolerance:g} is rounding): "
            f"{REMEDY}."
        )
    beside = _difference(together[: probe.first], changed[: probe.first]) / spread
    if not beside <= tolerance:
        raise InputError(
            f"in {name} a document changes the logits of the one beside it in a row (by {beside:.2g} of their "
            f"spread, and at most {tolerance:g} is rounding): "
            f"{REMEDY}."
        )
    return max(found, beside)


# How far rounding alone may take the logits of one place apart: root mean square over the vocabulary, in units of the
# logits' spread. Seen with random weights and two layers: float64 4e-16, but 1e-7 where a model computes its softmax in
# float32 (Gemma-2); float32 6e-7, bfloat16 0.012, float16 0.002; more layers add to it. What must be found: ALiBi by
# row index 0.2, local layers by row index 0.7, recurrent layers 1.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def _refuse_moving_rope(config: PreTrainedConfig, row_tokens: int) -> None:
    """Dynamic-NTK and long RoPE change all frequencies with the longest position in the row, so documents of a row are
    not independent.

    Their effect on a random model (0.0004 to 0.006) drowns in the rounding of half precision, so the config decides.
    """
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    for rope in (parameters, *(value for value in parameters.values() if isinstance(value, Mapping))):
        kind = str(rope.get("rope_type", "default"))
        if "dynamic" not in kind and kind != "longrope":
            continue
        limit = int(rope.get("original_max_position_embeddings") or text.max_position_embeddings)
        if row_tokens > limit:
            raise InputError(
                f"{text.model_type} has {kind} RoPE, which changes with the length beyond {limit} tokens, and rows "
                f"have {row_tokens}: "
                f"lower row_tokens to {limit}, or {REMEDY}."
            )


@dataclass(frozen=True)
class _Probe:
    """What `check_layout` runs: a row of two trees, the same with the second one changed, all chains alone, and where
    each chain lies in the row.
    """

    row: Row
    changed: Row
    chains: tuple[Tensor, ...]
    paths: tuple[Tensor, ...]
    first: int
    """Tokens of the first tree."""


def _probe(config: PreTrainedConfig, row_tokens: int) -> _Probe:
    """Two trees of random ids: a long prompt with the branches g b, g c, b g and b, and a short one with two branches.

    Its length exceeds by 32 tokens the largest window or length limit that a row can exceed; a limit that no row
    reaches can't do harm.
    """
    limits = [limit for limit in _limits(config.to_dict()) if limit < row_tokens]
    length = min(max(limits, default=0) + 96, max(row_tokens, 64))
    vocabulary = int(config.get_text_config().vocab_size)
    special = {
        value
        for key in ("pad_token_id", "bos_token_id", "eos_token_id")
        if isinstance(value := getattr(config, key, None), int)
    }
    draw = np.random.default_rng(0)
    letters = np.setdiff1d(np.arange(min(vocabulary, 4096)), sorted(special))
    ids = draw.choice(letters, size=length).astype(np.int32)
    good, bad, other, again = ids[:8], ids[8:16], ids[16:24], ids[24:32]
    short, left, right = ids[32:36], ids[36:40], ids[40:44]
    prompt = ids[51:]  # the branches and the second tree take 40 + 11 tokens, so that the row is `length` long
    first = _tree([prompt, good, bad], [prompt, good, other], [prompt, bad, again], [prompt, bad])
    second, third = _tree([short, left], [short, right[:3]]), _tree([right, good[:4]], [right, bad[:3]])
    chains = [first.ids[path] for path in first.paths] + [second.ids[path] for path in second.paths]
    paths = [*first.paths, *(path + first.tokens for path in second.paths)]
    pad = int(letters[0])
    return _Probe(
        row=lay_out([first, second], [0.0, 0.0], row_tokens=length, pad_id=pad),
        changed=lay_out([first, third], [0.0, 0.0], row_tokens=length, pad_id=pad),
        chains=tuple(torch.from_numpy(chain.astype(np.int64)) for chain in chains),
        paths=tuple(torch.from_numpy(path.astype(np.int64)) for path in paths),
        first=first.tokens,
    )


def _tree(*chains: list[Ints]) -> Tree:
    ids = [np.concatenate(pieces) for pieces in chains]
    return Tree.from_chains([Tokens(chain, np.zeros(len(chain)), np.zeros(len(chain)), ()) for chain in ids])


def _limits(settings: Mapping[str, Any]) -> list[int]:
    """Every number in a config after which a model may behave otherwise: windows, chunks, and the lengths up to which
    RoPE is as it was trained.
    """
    found: list[int] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _limits(value)
        elif (
            isinstance(value, int)
            and not isinstance(value, bool)
            and any(word in key for word in ("window", "chunk", "max_position_embeddings"))
        ):
            found.append(value)
    return found


def _logits(lm: nn.Module, what: Row | Tensor) -> Tensor:
    """All logits (T, V) of a row under the rule of sight, or of a plain chain under the model's own mask."""
    device = next(lm.parameters()).device
    if isinstance(what, Tensor):
        return lm(input_ids=what[None].to(device), use_cache=False).logits[0]
    seen_until, depth, ids = (
        torch.from_numpy(array.astype(np.int64)).to(device) for array in (what.seen_until, what.depth, what.ids)
    )
    mask = attention_mask(_config(lm), seen_until, depth, dtype=_mask_dtype(lm, device))
    return lm(input_ids=ids[None], position_ids=depth[None], attention_mask=mask, use_cache=False).logits[0]


def _difference(one: Tensor, other: Tensor) -> float:
    """Root mean square over the vocabulary, at the worst place."""
    return (one.double() - other.double()).square().mean(-1).sqrt().max().item()


def _additive_mask(seen_until: Tensor, depth: Tensor, window: int | None, *, dtype: torch.dtype) -> Tensor:
    """(1, 1, T, T), 0 where q (row) sees j (column), else the lowest number of the type. Everything sees itself, so no
    softmax is over nothing.
    """
    own = torch.arange(len(seen_until), device=seen_until.device)
    sees = (own[None, :] <= own[:, None]) & (own[:, None] < seen_until[None, :])
    if window is not None:
        sees &= depth[:, None] - depth[None, :] < window
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, torch.finfo(dtype).min)[
        None, None
    ]


def _block_mask(seen_until: Tensor, depth: Tensor, window: int | None) -> BlockMask:
    """The same rule for FlexAttention, which then skips whole blocks that nobody sees."""

    def sees(batch: Tensor, head: Tensor, q: Tensor, j: Tensor) -> Tensor:
        visible = (j <= q) & (q < seen_until[j])
        return visible if window is None else visible & (depth[q] - depth[j] < window)

    return create_block_mask(
        sees, B=None, H=None, Q_LEN=len(seen_until), KV_LEN=len(seen_until), device=seen_until.device.type
    )


def _mask_dtype(lm: nn.Module, device: torch.device) -> torch.dtype:
    """The type of the queries: the one that autocast works in, else the parameters'."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return next(lm.parameters()).dtype


def _config(lm: nn.Module) -> PreTrainedConfig:
    config = lm.config
    if not isinstance(config, PreTrainedConfig):
        raise InputError(
            f"{type(lm).__name__} has no config of transformers: give a causal language model of transformers."
        )
    return config
