"""The callbacks that Lightning has not: `CompletionWriter`, which writes what the model wrote as JSON lines. Everything else is Lightning's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from coh_lightning.generation import Unmoved
from coh_lightning.records import Completion, read_jsonl, write_jsonl


class CompletionWriter(pl.Callback):
    """Writes `completions.jsonl` in the run folder at the end of `test` and `predict`: all ranks' completions, in the order of prompt, ask and sample.

    Each rank appends to a part of its own, so that a run that breaks off leaves what it had; the parts are merged, and removed, at the end.

    Args:
        file: Name of the file in the run folder.
    """

    def __init__(self, file: str = "completions.jsonl") -> None:
        self.file = file

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._part(trainer, trainer.global_rank).unlink(missing_ok=True)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._part(trainer, trainer.global_rank).unlink(missing_ok=True)

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any) -> None:
        self._add(trainer, outputs)

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any, **kwargs: Any) -> None:
        self._add(trainer, outputs)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._merge(trainer)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._merge(trainer)

    def _add(self, trainer: pl.Trainer, outputs: Any) -> None:
        if isinstance(outputs, Unmoved) and len(outputs):
            part = self._part(trainer, trainer.global_rank)
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(completion.to_json(), ensure_ascii=False) + "\n" for completion in outputs)

    def _part(self, trainer: pl.Trainer, rank: int) -> Path:
        return Path(trainer.default_root_dir) / f"{self.file}.rank{rank}"

    def _merge(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1:
            torch.distributed.barrier()
        if not trainer.is_global_zero:
            return
        parts = [path for rank in range(trainer.world_size) if (path := self._part(trainer, rank)).exists()]
        every = [completion for part in parts for completion in read_jsonl(part, Completion)]
        if not every:
            return
        every.sort(key=lambda completion: (completion.prompt_id, completion.ask))  # samples of one prompt stay in their order
        path = Path(trainer.default_root_dir) / self.file
        write_jsonl(path, every)
        for part in parts:
            part.unlink()
        print(f"{len(every)} completions in {path}")
