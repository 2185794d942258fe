"""The whole weights of a sharded model (FSDP2) on every rank while it writes: gathered once, not for every token.

sharded     gather, block 1, free, gather, block 2, free, ...     for each token; all ranks in step
gathered    gather all,   block 1, block 2, ...                   free at the end; each rank at its own pace
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

SHARE = 0.5
"""Of the free memory of a rank that the whole weights may take."""

Everyone = Callable[[bool], bool]
"""An all-reduce that gives True when every rank says True."""


@contextmanager
def gathered(lm: nn.Module, everyone: Everyone | None) -> Iterator[Everyone | None]:
    """Gather the weights if they fit on every rank; afterwards they are sharded again. Yields what `generate` needs as
    `everyone_done`: None where ranks no longer wait for each other. All ranks must call this function.

    Args:
        everyone: None: the model is not sharded, and nothing happens.
    """
    units = [part for part in lm.modules() if isinstance(part, FSDPModule)]
    if everyone is None or not units or not everyone(_fit(lm)):
        yield everyone
        return
    in_step = everyone if _shares_tensors(lm) else None
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield in_step
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def _fit(lm: nn.Module) -> bool:
    weights = sum(one.numel() * one.element_size() for one in lm.parameters())
    device = next(lm.parameters()).device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:  # shared by the ranks of this machine
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        free //= int(os.environ.get("LOCAL_WORLD_SIZE", torch.distributed.get_world_size()))
    return weights <= SHARE * free


def _shares_tensors(lm: nn.Module) -> bool:
    """Whether ranks also share tensors (tensor parallelism), which are never whole on any of them."""
    return any(isinstance(one, DTensor) and one.device_mesh.ndim > 1 for one in lm.parameters())
