"""Builds a run's model, whole on each rank or sharded over them, and checks that it fits the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from coh_lightning.errors import InputError
from coh_lightning.model.head import use_head_in_pieces
from coh_lightning.model.layout_check import check_layout, use_tree_attention
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.sharding import blocks, broadcast_weights, shard, wrap_blocks

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule


def checked(spec: ModelSpec) -> ModelSpec:
    """The spec. Raises InputError if it names two models, or has a `from_config` without an architecture."""
    name, config = spec.name_or_path, spec.from_config
    if name is not None and config is not None:
        raise InputError(f"model.name_or_path is '{name}' and model.from_config is set too; give one of them.")
    if config is not None and "model_type" not in config:
        raise InputError(
            f"model.from_config has the keys {sorted(config)} but no model_type (llama, gpt2, ...); add it."
        )
    return spec


@dataclass(frozen=True)
class BuiltModel:
    """A model, and what must be read from it before it is sharded."""

    lm: PreTrainedModel
    vocabulary: int
    """Rows of the embedding."""
    matrices: frozenset[str]
    """Parameters of two or more dimensions (under FSDP1 a rank's part of a matrix is a vector)."""


def build(
    spec: ModelSpec, trainer: pl.Trainer | None, *, gradient_checkpointing: bool = False, compile: bool = False
) -> BuiltModel:
    """The model under the Trainer's strategy; whole and on the CPU without a Trainer. If `spec` names a checkpoint, its
    `lora` must be the checkpoint's. Raises InputError for quantized weights that would be sharded.
    """
    strategy, mesh = trainer.strategy if trainer is not None else None, mesh_of(trainer)
    quantize = spec.lora.quantize if spec.lora is not None else None
    if quantize and isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)):
        raise InputError(f"model.lora.quantize is '{quantize}', which can't be sharded; use the strategy ddp.")
    device = strategy.root_device if strategy is not None else None
    lm = spec.build(device) if mesh is None else spec.outline()
    vocabulary = int(cast(nn.Embedding, lm.get_input_embeddings()).weight.shape[0])
    matrices = frozenset(name for name, parameter in lm.named_parameters() if parameter.ndim >= 2)
    if gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if compile:
        for _, block in blocks(lm):
            block.compile()
    if mesh is not None:
        assert trainer is not None and device is not None
        shard(lm, mesh)
        broadcast_weights(lm, spec.build() if trainer.global_rank == 0 else None, device)
    elif isinstance(strategy, FSDPStrategy):
        lm = cast(PreTrainedModel, wrap_blocks(lm))
    return BuiltModel(lm, vocabulary, matrices)


def mesh_of(trainer: pl.Trainer | None) -> DeviceMesh | None:
    """The ranks that the model is sharded over; None where each rank has all of it, or FSDP1 shards it."""
    strategy = trainer.strategy if trainer is not None else None
    return strategy.device_mesh if isinstance(strategy, ModelParallelStrategy) else None


def shard_if_whole(lm: PreTrainedModel, trainer: pl.Trainer | None) -> None:
    """Shards a model that was built whole, before there was a Trainer."""
    mesh = mesh_of(trainer)
    if mesh is not None and not any(isinstance(parameter, DTensor) for parameter in lm.parameters()):
        shard(lm, mesh)


def config_settings(lm: PreTrainedModel) -> dict[str, Any]:
    """The model's configuration for its checkpoint: what differs from the defaults, except what the loader decides."""
    left_out = ("dtype", "transformers_version", "quantization_config")
    settings = {key: value for key, value in lm.config.to_diff_dict().items() if key not in left_out}
    return settings | {"model_type": lm.config.model_type}


def fit_to_rows(lm: PreTrainedModel, data: CoHDataModule, *, by_tree: bool) -> None:
    """Checks a model for the rows of its data, once, before the first one, and chooses how it computes them:
    attention tree by tree, if `by_tree`, and the head in pieces, where these are the same. Under FSDP, on all ranks.

    Raises:
        InputError: it does not give trees the logits of their chains.
    """
    if data.layout == "tree":
        check_layout(lm, row_tokens=data.row_tokens)
        if by_tree:
            use_tree_attention(lm, row_tokens=data.row_tokens)
    use_head_in_pieces(lm)


def check_sizes(lm: PreTrainedModel, vocabulary: int, data: CoHDataModule) -> None:
    """Raises InputError if the data has token ids or positions that the model doesn't have."""
    if data.largest_id >= vocabulary:
        raise InputError(
            f"The tokenizer '{data.tokenizer_name}' has ids up to {data.largest_id}, but the model's embedding ends at "
            f"{vocabulary - 1}; name the model's tokenizer (data.tokenizer), or enlarge the embedding (transformers' "
            "resize_token_embeddings) and save the model."
        )
    longest = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and data.max_chain_tokens > longest:
        what = f"data.max_chain_tokens is {data.max_chain_tokens}, but the model has {longest} positions"
        raise InputError(f"{what}; lower it to that (and data.max_prompt_tokens below it).")
