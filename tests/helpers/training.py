"""Small models and fits, and what is recorded of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from coh_lightning.data import CoHDataModule
from coh_lightning.module import CoHModule
from helpers.feedback import data_of, grouped, pairs
from helpers.tokenizers import CHATML, byte_level

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 520,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.2,
}
"""All of it in float64 under 64-true; Llama's norms work in float32 whatever the precision."""


class Kept(Logger):
    """Keeps what is logged, step by step."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Watch(pl.Callback):
    """Keeps what every step did."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.gradients: list[dict[str, Tensor]] = []
        self.before: list[dict[str, Tensor]] = []
        self.losses: list[float] = []
        self.micro: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.gradients.append(
            {name: p.grad.clone() for name, p in pl_module.lm.named_parameters() if p.grad is not None}
        )
        self.before.append({name: p.detach().clone() for name, p in pl_module.lm.named_parameters()})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.micro.append(float(outputs["loss"]))  # Lightning has divided it by the micro-batches of a step
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(sum(self.micro))
            self.micro = []

    @property
    def metrics(self) -> list[dict[str, float]]:
        return self.kept.metrics


def trainer(folder: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    shape = {
        "accelerator": "cpu",
        "devices": 1,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(**(quiet | shape | settings), callbacks=list(callbacks))


def fitted(data: CoHDataModule, model: CoHModule, folder: Path, **settings: Any) -> Watch:
    watch = Watch()
    pl.seed_everything(0, verbose=False)
    trainer(folder, watch, logger=watch.kept, **settings).fit(model, datamodule=data)
    return watch


def gpt2(**settings: Any) -> CoHModule:
    return CoHModule(from_config=GPT2, **grouped({"lr": 1e-3, "warmup_ratio": 0.0} | settings))


def held_out_data(tmp_path: Path, **settings: Any) -> CoHDataModule:
    return data_of(pairs(40), tmp_path, train_only=False, validation_share=0.2, test_share=0.2, **settings)


def chat_model(folder: Path) -> Path:
    """A tiny untrained model with a chat template, as a Hugging Face folder."""
    tokenizer = byte_level(CHATML)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
