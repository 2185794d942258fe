"""One model over several processes: sharded tensors, weights from rank 0, and whole tensors put together again.

    strategy                               a block's weight W on rank 0, rank 1      rows of a step
    ddp                                    W, W                                      half each
    ModelParallelStrategy 2 x 1 (FSDP2)    upper half of W, lower half (gathered     half each
                                           before the block runs, freed after it)
    ModelParallelStrategy 1 x 2 (tensor)   W's rows or columns, never gathered       the same on both

Always call the root of the model, never a part of it: its hooks gather the root's own tensors.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import wrap
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from transformers import PreTrainedModel

from coh_lightning.errors import InputError

DATA, TENSOR = "data_parallel", "tensor_parallel"
"""Lightning's names for the two dimensions of a device mesh."""


def is_sharded(trainer: pl.Trainer) -> bool:
    """Whether ranks have parts of one model, so that each must take part in every forward pass."""
    return isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)) and trainer.world_size > 1


def replicas(trainer: pl.Trainer) -> tuple[int, int]:
    """How many groups of ranks have different rows, and this rank's group. Ranks with tensor parallelism share rows."""
    if isinstance(trainer.strategy, ModelParallelStrategy):
        mesh = trainer.strategy.device_mesh[DATA]
        return mesh.size(), mesh.get_local_rank()
    return trainer.world_size, trainer.global_rank


def is_writer_rank(trainer: pl.Trainer) -> bool:
    """Whether this rank writes files for those with the same rows."""
    strategy = trainer.strategy
    return not isinstance(strategy, ModelParallelStrategy) or strategy.device_mesh[TENSOR].get_local_rank() == 0


def from_replicas(trainer: pl.Trainer, own: Any) -> list[Any]:
    """The value of each group of ranks with different rows, gathered on every rank."""
    count, _ = replicas(trainer)
    if count == 1:
        return [own]
    every: list[Any] = [None] * count
    mesh = trainer.strategy.device_mesh if isinstance(trainer.strategy, ModelParallelStrategy) else None
    torch.distributed.all_gather_object(every, own, group=mesh[DATA].get_group() if mesh is not None else None)
    return every


def blocks(lm: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """The layers that transformers never splits, by name: the units of sharding and compilation."""
    kinds = set(lm._no_split_modules or ())
    return [(name, part) for name, part in lm.named_modules() if type(part).__name__ in kinds]


def shard(lm: PreTrainedModel, mesh: DeviceMesh) -> None:
    """In place, over Lightning's mesh (data, tensor): tensor parallelism (`tensor_plan`), then FSDP2."""
    if mesh[TENSOR].size() > 1:
        parallelize_module(lm, mesh[TENSOR], tensor_plan(lm, mesh[TENSOR].size()))
    for _, block in blocks(lm):
        fully_shard(block, mesh=mesh[DATA])
    # reshard the root too: no checkpoint can be loaded into a root that is whole after a pass without gradients
    fully_shard(lm, mesh=mesh[DATA], reshard_after_forward=True)


_STYLES: dict[str, ParallelStyle] = {
    "colwise": ColwiseParallel(),
    "rowwise": RowwiseParallel(),
    "colwise_rep": ColwiseParallel(output_layouts=Replicate()),
    "colwise_gather_output": ColwiseParallel(output_layouts=Replicate()),
    # norms per head, (batch, tokens, heads, width): each rank has some of the heads, so gradients must be summed
    "replicated_with_grad_allreduce": SequenceParallel(sequence_dim=2, use_local_output=True),
}


def tensor_plan(lm: PreTrainedModel, size: int) -> dict[str, ParallelStyle]:
    """The plan of transformers for `size` ranks, as torch's styles. Embeddings, and a head tied to them, stay whole
    (FSDP2 still shards them). Raises InputError if there is no plan for this architecture, or an unsupported one.
    """
    name, config, remedy = lm.config.model_type, lm.config.get_text_config(), "set the strategy's tensor_parallel_size"
    whole = {id(lm.get_input_embeddings())}
    if config.tie_word_embeddings:
        whole.add(id(lm.get_output_embeddings()))
    kept = {part_name for part_name, part in lm.named_modules() if id(part) in whole}
    plan = {key: style for key, style in (lm.tp_plan or {}).items() if key not in kept}
    unknown = sorted({style for style in plan.values() if style not in _STYLES})
    if unknown:
        raise InputError(
            f"tensor parallelism of {name} needs {', '.join(unknown)}, which is not supported: {remedy} to 1."
        )
    if "rowwise" not in plan.values():
        raise InputError(f"transformers has no plan for tensor parallelism of {name}: {remedy} to 1.")
    names = ("num_attention_heads", "num_key_value_heads")
    heads = {key: value for key in names if (value := getattr(config, key, None))}
    if any(value % size for value in heads.values()):
        raise InputError(f"{name} has {heads}, which can't be divided by {size} ranks: lower tensor_parallel_size.")
    if any("lora_" in key for key, _ in lm.named_parameters()):
        raise InputError(f"adapters (model.lora) have no plan for tensor parallelism: {remedy} to 1.")
    return {key: _STYLES[style] for key, style in plan.items()}


def broadcast_weights(lm: PreTrainedModel, whole: PreTrainedModel | None, device: torch.device) -> None:
    """Give a sharded model on the meta device the weights and buffers of `whole` on rank 0 (None elsewhere). All ranks
    must call it. Buffers that no checkpoint has (frequencies of rotary positions, ...) would be garbage otherwise.
    """
    lm.to_empty(device=device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(lm, whole.state_dict() if whole is not None else {}, options=options)
    theirs = dict(whole.named_buffers()) if whole is not None else {}
    for name, buffer in lm.named_buffers():
        if whole is not None:
            buffer.copy_(theirs[name])
        torch.distributed.broadcast(buffer, src=0)
    if whole is not None:
        lm.generation_config = whole.generation_config


def wrap_blocks(lm: PreTrainedModel) -> nn.Module:
    """Each block, then the root, becomes a unit of FSDP1; does nothing outside the context of `FSDPStrategy`."""
    for name, block in reversed(blocks(lm)):
        parent, _, own = name.rpartition(".")
        setattr(lm.get_submodule(parent), own, wrap(block))
    return wrap(lm)


def full_state(lm: nn.Module) -> dict[str, Tensor]:
    """All weights of a model, sharded or not, whole and on the CPU of rank 0; {} elsewhere. All ranks must call it."""
    state: dict[str, Any] = get_model_state_dict(lm, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return state


def clip_gradients(lm: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their norm over all ranks is at most `max_norm`; returns the norm before."""
    if isinstance(lm, FullyShardedDataParallel):
        return lm.clip_grad_norm_(max_norm)
    # torch can't combine tensors of different meshes
    by_mesh: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for parameter in lm.parameters():
        if parameter.grad is not None:
            by_mesh[parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None].append(parameter)
    norms = [nn.utils.get_total_norm([cast(Tensor, one.grad) for one in group]) for group in by_mesh.values()]
    total = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for group in by_mesh.values():
        nn.utils.clip_grads_with_norm_(group, max_norm, total)
    return total
