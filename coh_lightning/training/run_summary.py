"""Before the first step: runs the largest rows, so that memory runs out now or never, and prints a summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.distributed.tensor import DTensor

from coh_lightning.errors import counted
from coh_lightning.model.head import row_losses, sources_at_once
from coh_lightning.model.losses import Batch, output_log_likelihoods, row_loss
from coh_lightning.model.memory import activation_bytes, logit_bytes
from coh_lightning.model.tree_attention import NAME, library_attention
from coh_lightning.training.schedule import steps_of_epoch, total_steps

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule


class RunSummary(pl.Callback):
    """Runs the largest rows before the first step of `fit`, and prints what to expect. `CoHModule` installs it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: CoHDataModule = trainer.datamodule  # type: ignore[attr-defined]
        lm, device = pl_module.lm, pl_module.device
        batches = data.largest_batches()
        context = trainer.precision_plugin.forward_context()
        seconds = run_largest(lm, batches, kinds=len(data.kinds), device=device, context=context)
        if not trainer.is_global_zero:
            return
        memory = expected_memory(
            lm,
            tokens=max(batch["input_ids"].shape[1] for batch, _ in batches),
            predicted=max(len(batch["keep"]) for batch, trained in batches if trained),
            device=device,
            recomputed=pl_module.gradient_checkpointing,  # type: ignore[arg-type]
        )
        show([*data.summary(), *_of_run(trainer, pl_module, data.plan.steps_per_epoch, memory, seconds)])


def _of_run(
    trainer: pl.Trainer, pl_module: pl.LightningModule, steps_per_epoch: int, memory: float, seconds: float
) -> list[tuple[str, str]]:
    lm: Any = pl_module.lm
    micro_batches, steps = trainer.accumulate_grad_batches, total_steps(trainer, steps_per_epoch) - trainer.global_step
    of_epoch = steps_of_epoch(trainer, steps_per_epoch)
    cut = f" of {of_epoch:,} steps (trainer.limit_train_batches)" if of_epoch < steps_per_epoch else ""
    parameters = sum(p.numel() for p in pl_module.parameters()) / 1e6
    kind, attention = lm.config.model_type, library_attention(lm.config)
    by_tree = ", tree by tree" if lm.config.get_text_config()._attn_implementation == NAME else ""
    ranks, minutes = trainer.world_size, steps * micro_batches * seconds / 60
    parts = f"{counted(micro_batches, 'micro-batch', 'micro-batches')} on each of {counted(ranks, 'rank')}"
    run = f"{counted(steps, 'step')} of {parts}, {steps / of_epoch:.1f} epochs"
    return [
        ("this run", f"{run}{cut}"),
        ("model", f"{kind}, {parameters:,.1f} M parameters, {attention} attention{by_tree}"),
        ("expected", f"{in_bytes(memory)} of memory for the model, about {minutes:.1f} minutes"),
    ]


def run_largest(
    lm: Any,
    batches: Iterable[tuple[Batch, bool]],
    *,
    kinds: int,
    device: torch.device,
    context: AbstractContextManager[Any],
) -> float:
    """Runs rows as their stage will, and clears the gradients; all ranks that share the model must call it.

    Args:
        lm: The model, on `device`.
        batches: Rows, and whether they are trained on (forward and back) or held out (forward alone, eagerly).
        kinds: Number of kinds of segments.
        context: The precision that the Trainer computes in.

    Returns:
        Seconds of the slowest training row.
    """
    slowest = 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), context:
        for batch, trained in batches:
            there = {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
            if not trained:
                with torch.no_grad(), torch.compiler.set_stance("force_eager"):
                    losses = row_losses(lm, there)
                    row_loss(losses, there, kinds=kinds)
                    if isinstance(outputs := batch.get("outputs"), int):
                        output_log_likelihoods(losses, there, outputs=outputs)
                continue
            for _ in range(2):  # the first time is slower
                start = perf_counter()
                loss, _ = row_loss(row_losses(lm, there), there, kinds=kinds)
                loss.backward()
                loss.item()  # waits for a GPU to be done
                seconds = perf_counter() - start
                lm.zero_grad(set_to_none=True)
            slowest = max(slowest, seconds)
    return slowest


def expected_memory(lm: Any, *, tokens: int, predicted: int, device: torch.device, recomputed: bool) -> float:
    """Bytes that training takes for the model. On a GPU, the peak of `run_largest`; on a CPU, weights, gradients,
    activations and logits (memory.py). AdamW's two copies are added to both.

    Args:
        tokens: Of the largest row; at `predicted` of them the head is computed.
        recomputed: Gradient checkpointing is on.
    """
    parts = [(p, p.to_local() if isinstance(p, DTensor) else p) for p in lm.parameters()]
    trained = sum(part.numel() * part.element_size() for p, part in parts if p.requires_grad)
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) + 2 * trained)
    config = lm.config.get_text_config()
    weights = sum(part.numel() * part.element_size() for _, part in parts)
    size = lm.get_input_embeddings().weight.element_size()
    activations = activation_bytes(
        tokens,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        size=size,
        recomputed=recomputed,
        scores=2 * (config.num_attention_heads if config._attn_implementation == "eager" else 1) * tokens**2,
    )
    at_once = min(predicted, sources_at_once(lm, predicted, device))
    logits = logit_bytes(at_once, lm.get_input_embeddings().weight.shape[0], size)
    return float(weights + 3 * trained + activations + logits)


def show(rows: Sequence[tuple[str, str]]) -> None:
    """A table of names and texts on the terminal (stderr)."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")  # a long word (a setting to copy, a path) is broken, never cut
    for name, text in rows:
        table.add_row(f"[bold]{name}[/bold]", escape(text))
    Console(stderr=True).print(table)


def in_bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number > 2**30 else f"{number / 2**20:.0f} MiB"
