"""The check at set-up that a model gives a tree in a packed row the logits of its plain chains.

Not every architecture does: an explicit mask silently replaces sliding windows, and recurrent layers, ALiBi, chunked
attention, local layers by row index and RoPE that depends on the length give wrong logits without any error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from coh_lightning.errors import InputError, first_line
from coh_lightning.model import tree_attention
from coh_lightning.model.attention import REMEDY, layer_windows, model_config, row_inputs
from coh_lightning.model.losses import to_batch
from coh_lightning.sequences.rows import Row, lay_out
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.trees import Ints, Tree


def check_layout(lm: nn.Module, *, row_tokens: int) -> float:
    """Check this model once at set-up, before any training in `layout: tree`; under FSDP, on all ranks.

    Two small trees in a row, longer than any window or length limit in the config that a row of `row_tokens` can
    exceed, are compared with their chains under the model's own causal mask; then the second tree is changed beside the
    first. The model's mode, its parameters and the global random state stay as they were.

    Returns:
        The largest difference, relative to the spread of the logits.

    Raises:
        InputError: the difference is more than rounding.
    """
    config = model_config(lm)
    name = config.model_type
    layer_windows(config.get_text_config())
    _refuse_moving_rope(config, row_tokens)
    probe = _probe(config, row_tokens)
    with probing(lm):
        plain = [_logits(lm, chain) for chain in probe.chains]
        try:
            together, changed = _logits(lm, probe.row), _logits(lm, probe.changed)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            if isinstance(error, (torch.OutOfMemoryError, InputError)):
                raise
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(f"{name} can't run a row of several trees ({reason}): {REMEDY}.") from error
    spread = torch.cat(plain).double().std().item()
    most = _TOLERANCE[together.dtype]
    found = max(difference(together[path], alone) / spread for path, alone in zip(probe.paths, plain, strict=True))
    beside = difference(together[: probe.first], changed[: probe.first]) / spread
    for wrong, by in (
        (f"{name} does not give a tree the logits of its plain chains", found),
        (f"in {name} a document changes the logits of the one beside it in a row", beside),
    ):
        if not by <= most:  # not ">", so that NaN is refused too
            share = f"{by:.2g} of their spread, and at most {most:g} is rounding"
            raise InputError(f"{wrong} (they differ by {share}): {REMEDY}.")
    return max(found, beside)


def use_tree_attention(lm: nn.Module, *, row_tokens: int) -> bool:
    """Have a model that passed `check_layout` compute its attention tree by tree (tree_attention.py) from now on. It
    must be on a CPU and use sdpa, and on a row cut into as many parts as possible its logits must be those of the dense
    mask; otherwise it stays as it is. Under FSDP, on all ranks.

    Returns:
        Whether it does so now.
    """
    config = model_config(lm)
    text, on_cpu = config.get_text_config(), next(lm.parameters()).device.type == "cpu"
    back_end = text._attn_implementation
    if back_end == tree_attention.NAME:
        return True
    if back_end != "sdpa" or not on_cpu or not getattr(lm, "_supports_attention_backend", False):
        return False
    probe = _probe(config, row_tokens)
    with probing(lm):
        dense = _logits(lm, probe.row)
        text._attn_implementation = tree_attention.NAME
        try:
            found = _logits(lm, probe.row)
        except (AssertionError, AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            found = torch.full_like(dense, torch.nan)  # the parts didn't reach a layer
    if difference(found, dense[: len(found)]) <= tolerance(dense):
        return True
    text._attn_implementation = back_end
    return False


@contextmanager
def probing(lm: nn.Module) -> Iterator[None]:
    """Evaluation without gradients, autocast, compilation and TF32, which rounds as coarsely as float16 and would need
    its tolerance; afterwards everything is as it was.
    """
    device = next(lm.parameters()).device
    training, precision = lm.training, torch.get_float32_matmul_precision()
    lm.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        lm.train(training)
        torch.set_float32_matmul_precision(precision)


_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""How much rounding may change the logits at one place: root mean square over the vocabulary, relative to their spread.
Measured with random weights and two layers: float64 4e-16, but 1e-7 where a model computes its softmax in float32
(Gemma-2); float32 6e-7, bfloat16 0.012, float16 0.002; more layers add to it. What must be found: ALiBi by row index
0.2, local layers by row index 0.7, recurrent layers 1."""


def tolerance(logits: Tensor) -> float:
    """How much rounding may change these logits at one place (`difference`)."""
    return _TOLERANCE[logits.dtype] * logits.double().std().item()


def _refuse_moving_rope(config: PreTrainedConfig, row_tokens: int) -> None:
    """Dynamic-NTK and long RoPE change all frequencies with the longest position in the row, so documents in a row are
    not independent. On a random model the effect (0.0004 to 0.006) is below half precision, so the config decides.
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
                f"{text.model_type} has {kind} RoPE, which changes with the length beyond {limit} tokens, but rows "
                f"have {row_tokens}: lower row_tokens to {limit}, or {REMEDY}."
            )


@dataclass(frozen=True)
class _Probe:
    row: Row
    changed: Row
    """The same row with the second tree changed."""
    chains: tuple[Tensor, ...]
    paths: tuple[Tensor, ...]
    """Places of each chain in the row."""
    first: int
    """Tokens of the first tree."""


def _probe(config: PreTrainedConfig, row_tokens: int) -> _Probe:
    """Two trees of random ids: a long prompt with the branches g b, g c, b g and b, and a short one with two branches.

    The row is 32 tokens longer than the largest window or length limit that a row can exceed.
    """
    limits = [limit for limit in _limits(config.to_dict()) if limit < row_tokens]
    length = min(max(limits, default=0) + 96, max(row_tokens, 64))
    vocabulary = int(config.get_text_config().vocab_size)
    named = [getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")]
    special = [id for id in named if isinstance(id, int)]
    letters = np.setdiff1d(np.arange(min(vocabulary, 4096)), special)
    ids = np.random.default_rng(0).choice(letters, size=length).astype(np.int32)
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
    """Every length in a config beyond which a model may behave differently: windows, chunks, RoPE's trained lengths."""
    found: list[int] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _limits(value)
        elif type(value) is int and any(word in key for word in ("window", "chunk", "max_position_embeddings")):
            found.append(value)
    return found


def _logits(lm: nn.Module, what: Row | Tensor) -> Tensor:
    """All logits (T, V) of a row under our mask, or of a plain chain under the model's own."""
    device = next(lm.parameters()).device
    if isinstance(what, Tensor):
        return lm(input_ids=what[None].to(device), use_cache=False).logits[0]
    batch = {name: one.to(device) for name, one in to_batch(what).items()}
    return lm(**row_inputs(lm, batch, call=0)).logits[0]


def difference(one: Tensor, other: Tensor) -> float:
    """Root mean square over the vocabulary, at the worst place."""
    return (one.double() - other.double()).square().mean(-1).sqrt().max().item()
