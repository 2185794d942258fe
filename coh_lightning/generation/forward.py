"""Forward passes of a causal model over its own key-value cache, in step with other ranks where it is sharded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coh_lightning.errors import InputError


@contextmanager
def generating(lm: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients and gradient checkpointing; afterwards each module is as it was.

    With checkpointing in training mode, transformers drops the cache inside a layer and the tokens are wrong.
    `no_grad`, not `inference_mode`: training must be able to use what a model keeps from a forward pass (a grown RoPE
    table).
    """
    modules = list(lm.modules())
    training = [module.training for module in modules]
    checkpointed = [module for module in modules if vars(module).get("gradient_checkpointing", False)]
    for module in checkpointed:
        vars(module)["gradient_checkpointing"] = False
    lm.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # lengths change with each token
            yield
    finally:
        # not .train(): it would set children too, and a part may have been frozen in evaluation mode
        for module, flag in zip(modules, training, strict=True):
            module.training = flag
        for module in checkpointed:
            vars(module)["gradient_checkpointing"] = True


def plain_model(lm: nn.Module) -> Any:
    """The transformers model under PEFT's adapters or FSDP1; never call it: hooks are on the root."""
    inner = getattr(lm, "get_base_model", None)
    return getattr(lm, "_fsdp_wrapped_module", lm) if inner is None else inner()


class Forward:
    """The model's forward pass. See `generate` for `everyone_done`. Raises InputError without a key-value cache."""

    def __init__(self, lm: nn.Module, pad_id: int, everyone_done: Callable[[bool], bool] | None) -> None:
        plain = plain_model(lm)
        accepted = inspect.signature(plain.forward).parameters
        # transformers calls it cache from 5.24 on, instead of the other two
        cache_names = [name for name in ("past_key_values", "cache_params", "cache") if name in accepted]
        if not cache_names:
            name = type(plain).__name__
            raise InputError(f"{name} has no key-value cache that this package knows; use a causal model with one.")
        self.lm = lm
        self.pad_id = pad_id
        self.device = next(lm.parameters()).device
        self._cache_name = cache_names[0]
        layers = set(getattr(plain.config.get_text_config(), "layer_types", None) or ())
        self._recurrent = self._cache_name == "cache_params" or layers == {"linear_attention"}
        self._has_positions = "position_ids" in accepted  # not those with ALiBi or a recurrence
        self.rows_may_move = self._has_positions and "chunked_attention" not in layers  # to other columns of the cache
        windows = getattr(plain.config.get_text_config(), "sliding_window", None)
        self.rows_may_share = self.rows_may_move and not windows and layers <= {"full_attention"}  # beginnings
        self._keeps_last = "logits_to_keep" in accepted
        self._everyone_done = everyone_done

    def __call__(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits (batch, vocabulary) after `ids` (batch, n), and the longer cache; `mask` is (batch, past + n)."""
        if self._everyone_done is not None:
            self._everyone_done(False)
        return self._run(ids, mask, positions, cache)

    def wait_for_others(self) -> None:
        """Empty passes until every rank is done: each rank takes part in all gathers of all forward passes."""
        while self._everyone_done is not None and not self._everyone_done(True):
            one = torch.ones((1, 1), dtype=torch.long, device=self.device)
            self._run(one * self.pad_id, one, one - 1, None)

    def _run(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True, "return_dict": True}
        inputs[self._cache_name] = cache
        if self._recurrent and cache is not None:
            # a state has no past to mask, and Mamba would apply the mask to the new token
            inputs["attention_mask"] = None
        if self._has_positions:
            inputs["position_ids"] = positions
        if self._keeps_last:
            inputs["logits_to_keep"] = 1  # the head runs on one token per row, not on the whole prompt
        out = self.lm(**inputs)
        return out.logits[:, -1], getattr(out, self._cache_name)
