"""How fast `fit` trains on comparisons, and in how much memory, against TRL's SFTTrainer on the same chains.

    OMP_NUM_THREADS=1 python tests/benchmarks/training.py [hh] [tldr]

A comparison is four chains (p, n, pn, np); TRL gets each as a sequence with labels on its outputs alone, we get the
pairs. One optimizer step has all of them in every way, and its loss is the mean over the same tokens. A Llama of 6
layers of 256 with a vocabulary of 8,192, float32, one thread; AdamW, the same constant learning rate, gradients clipped
at 1. The losses of two steps are compared: the second also says that the first one's gradients were the same.

Ways of TRL, each through its own trainer:

* as installed: batches of 8 as they come, padded; gradient checkpointing on; the head at all places (on a CPU).
* best found: the fastest of `SEARCHED`, tried once each before anything is timed. No checkpointing.
* packed: bfd in rows of 1,024, no checkpointing.
* one chain, head at loss places: batches of 1, so that nothing is padded; no checkpointing; and the head at the places
  with a label alone, which TRL does on a GPU only and which is switched on here.

CPU seconds of the second step, everything between two steps included; memory is the most that a process of two steps
has beyond its imports (weights, gradients and AdamW are about 150 MB of it in every way).
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import datasets
import lightning.pytorch as pl
import numpy as np
import torch
import transformers
import trl
from figures import Figure, figure, in_child, in_turn, peak
from lightning.pytorch.callbacks import Callback
from shapes import VOCABULARY, Shape, source, write

from coh_lightning.data import CoHDataModule
from coh_lightning.model.head import row_losses
from coh_lightning.model.losses import row_loss
from coh_lightning.module import CoHModule
from coh_lightning.training.schedule import OptimizerSettings

PAIRS: dict[Shape, int] = {"hh": 8, "tldr": 4}
NAMES: dict[Shape, str] = {"hh": "HH", "tldr": "TL;DR-like"}
ROW, STEPS, LR = 1024, 2, 1e-4
LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "max_position_embeddings": ROW,
}
GROUPED = {"train_sampling_strategy": "group_by_length"}
PACKED = {"packing": True, "packing_strategy": "bfd", "max_length": ROW, "per_device_train_batch_size": 1}
SEARCHED: dict[str, dict[str, Any]] = {
    **{
        f"sorted by length, batch {batch}": {**GROUPED, "per_device_train_batch_size": batch} for batch in (2, 4, 8, 16)
    },
    "batch 1": {"per_device_train_batch_size": 1},
    "packed (bfd), rows of 1,024": PACKED,
    "packed (bfd), rows of 512": {**PACKED, "max_length": 512},
}
"""Configurations of TRL that are tried for each shape, all without gradient checkpointing."""


@dataclass(frozen=True)
class Ran:
    seconds: float
    """CPU time of the second step."""
    losses: tuple[float, ...]
    memory: int
    """Bytes beyond the imports, at most."""


class Steps(Callback):
    """CPU time at the end of each step, and its loss."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.losses: list[float] = [0.0]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses[-1] += float(outputs["loss"])
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.ended.append(time.process_time())
            self.losses.append(0.0)


@dataclass(frozen=True)
class Work:
    """Pairs of one shape, the same for all ways."""

    folder: Path
    settings: dict[str, Any]
    rows: int
    chains: list[dict[str, list[int]]]
    """For TRL: `input_ids` and `labels`."""
    tokens: tuple[int, int]
    """Of the chains one by one, and of the trees."""

    @classmethod
    def of(cls, shape: Shape, folder: Path) -> Work:
        data = {**write(shape, PAIRS[shape], folder), "validation_share": 0.0, "test_share": 0.0}
        sizes = {"row_tokens": ROW, "max_chain_tokens": ROW, "max_prompt_tokens": 768, "fcm_range": (0.0, 0.0)}
        module = CoHDataModule(**{**data, **sizes})  # type: ignore[arg-type]
        module.setup()
        assert len(module.splits["train"]) == PAIRS[shape], "a pair can't be used"
        trees = [module.rows.tree(item, "train") for item in module.rows.items["train"]]
        chains = []
        for tree in trees:
            for path, weights in zip(tree.paths, tree.weights, strict=True):
                assert set(weights.tolist()) <= {0.0, 1.0}
                labels = np.where(weights > 0, tree.ids[path], -100)
                chains.append({"input_ids": tree.ids[path].tolist(), "labels": labels.tolist()})
        plain = sum(len(chain["input_ids"]) for chain in chains)
        torch.manual_seed(0)
        lm = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**LLAMA))
        lm.save_pretrained(folder / "model")
        rows = module.plan.num_rows
        return cls(folder, {**data, **sizes}, rows, chains, (plain, sum(tree.tokens for tree in trees)))

    def data(self) -> CoHDataModule:
        return CoHDataModule(**{**self.settings, "rows_per_step": self.rows})

    def module(self) -> CoHModule:
        optimizer = OptimizerSettings(warmup_ratio=0.0, min_lr_ratio=1.0)
        return CoHModule(str(self.folder / "model"), lr=LR, optimizer=optimizer)


def ours(work: Work) -> Ran:
    before, steps = peak(), Steps()
    pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        gradient_clip_val=1.0,
        callbacks=[steps],
        use_distributed_sampler=False,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(work.folder),
    ).fit(work.module(), datamodule=work.data())
    return Ran(steps.ended[1] - steps.ended[0], tuple(steps.losses[:STEPS]), peak() - before)


def bare(work: Work) -> Ran:
    """The same steps without Lightning: rows, loss, backward pass, clipping, AdamW."""
    from coh_lightning.model.layout_check import use_tree_attention

    before, data, module = peak(), work.data(), work.module()
    data.setup()
    module.configure_model()
    lm = module.lm
    use_tree_attention(lm, row_tokens=ROW)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.0)
    losses, ended = [], []
    for epoch in range(STEPS):
        losses.append(0.0)
        for planned in data.plan.step(epoch, 0):
            batch = data.rows.train_batch(planned, epoch)
            loss, _ = row_loss(row_losses(lm, batch), batch, kinds=len(data.kinds))
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ended.append(time.process_time())
    return Ran(ended[1] - ended[0], tuple(losses), peak() - before)


class Watched(trl.SFTTrainer):
    """Adds up the loss of each step."""

    losses: list[float]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses[-1] += loss.item()
        return loss


class Ends(transformers.TrainerCallback):
    def __init__(self, trainer: Watched) -> None:
        self.trainer, self.ended = trainer, cast(list[float], [])

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended.append(time.process_time())
        self.trainer.losses.append(0.0)


def of_trl(work: Work, *, compact: bool = False, **settings: Any) -> Ran:
    """Two steps of TRL's trainer, everything that is not in `settings` as installed."""
    before = peak()
    given = {
        "output_dir": str(work.folder / "trl"),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "num_train_epochs": STEPS,
        "gradient_accumulation_steps": len(work.chains),  # an epoch is one step, in whatever batches
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
    }
    args = trl.SFTConfig(**{**given, **settings})
    lm = transformers.AutoModelForCausalLM.from_pretrained(work.folder / "model")
    tokenizer = work.data()
    tokenizer.setup()
    table = datasets.Dataset.from_list(work.chains)
    with mock.patch("trl.trainer.utils._use_triton", lambda device: compact):
        trainer = Watched(lm, args=args, train_dataset=table, processing_class=tokenizer.tokenizer)
        trainer.losses = [0.0]
        ends = Ends(trainer)
        trainer.add_callback(ends)
        trainer.train()
    assert len(ends.ended) == STEPS
    return Ran(ends.ended[1] - ends.ended[0], tuple(trainer.losses[:STEPS]), peak() - before)


OFF = {"gradient_checkpointing": False}


def search(work: Work) -> str:
    """The fastest of `SEARCHED`, by one run each. One whose losses are others (a chain was cut) doesn't count."""
    tried: dict[str, float] = {}
    expected = in_child(lambda: ours(work)).losses
    for name, settings in SEARCHED.items():
        found = in_child(lambda settings=settings: of_trl(work, **OFF, **settings))
        if np.allclose(found.losses, expected, rtol=1e-5):
            tried[name] = found.seconds
        print(f"  search {name}: {found.seconds:.2f} s", file=sys.stderr, flush=True)
    return min(tried, key=tried.__getitem__)


def measure(shape: Shape) -> list[Figure]:
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        work = Work.of(shape, Path(folder))
        best = search(work)
        ways: dict[str, Callable[[], Ran]] = {
            "ours": lambda: ours(work),
            "TRL as installed": lambda: of_trl(work),
            f"TRL best found ({best})": lambda: of_trl(work, **OFF, **SEARCHED[best]),
            "TRL packed (bfd, rows of 1,024)": lambda: of_trl(work, **OFF, **PACKED),
            "TRL one chain, head at loss places": lambda: of_trl(
                work, compact=True, **OFF, per_device_train_batch_size=1
            ),
            "a bare loop": lambda: bare(work),
        }
        runs = in_turn(ways)
    for name, found in runs.items():
        for one in found:
            np.testing.assert_allclose(one.losses, runs["ours"][0].losses, rtol=(1e-6), err_msg=name)
    plain, tree = work.tokens
    where = f"{NAMES[shape]} ({source(shape)}, {PAIRS[shape]} pairs, {plain / tree:.2f} times fewer tokens)"
    figures = []
    for name in list(ways)[1:]:
        times = ([one.seconds for one in runs[which]] for which in ("ours", name))
        figures.append(figure(f"a step, {where}", name, *times, unit="CPU s"))
    for name in list(ways)[1:-1]:
        sizes = ([one.memory / 2**20 for one in runs[which]] for which in ("ours", name))
        figures.append(figure(f"memory, {where}", name, *sizes, unit="MiB"))
    return figures


def quiet() -> None:
    for name in ("lightning.pytorch", "trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)


if __name__ == "__main__":
    for name in sys.argv[1:] or list(PAIRS):
        for one in measure(cast(Shape, name)):
            print(one)
