"""`CoHDataModule`: `FeedbackData` as a `LightningDataModule`, set up for a Trainer, with loaders of batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from coh_lightning.dataset.batch_table import BatchTable
from coh_lightning.dataset.checks import check_trainer
from coh_lightning.dataset.feedback_data import FeedbackData
from coh_lightning.dataset.held_out import refuse_empty, writing
from coh_lightning.dataset.loaders import TrainLoader
from coh_lightning.dataset.splits import Stage
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.losses import Batch
from coh_lightning.model.sharding import replicas
from coh_lightning.sequences.plan import PlannedRow
from coh_lightning.training.schedule import follow_plan


class CoHDataModule(FeedbackData, LightningDataModule):
    __doc__ = FeedbackData.__doc__
    __str__ = FeedbackData.__repr__  # Lightning's makes all loaders

    def prepare_data(self) -> None:
        """On one process per machine: fills the caches (hub downloads, the embedded world's feedback, ids of texts)."""
        self.build()

    def setup(self, stage: str | None = None) -> None:
        """Builds everything once, before each stage; rank 0 of a `fit` writes `data.json` and `rejected.jsonl`."""
        self.build()
        if self.trainer is not None:
            check_trainer(self.trainer)
            if stage == "fit":
                ranks, _ = self._ranks()
                follow_plan(self.trainer, self.plan.steps_per_epoch, self.plan.accumulate(ranks), ranks=ranks)
            if self.trainer.is_global_zero and stage == "fit" and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                self.write_report(Path(self.trainer.default_root_dir))

    def _model(self) -> ModelSpec | None:
        return self.spec if self.trainer is None else getattr(self.trainer.lightning_module, "named_spec", None)

    def _warn(self, note: str) -> None:
        rank_zero_warn(note)

    # Loaders. Every rank has the same number of batches in each, and Lightning's `limit_*_batches` apply to each alone.

    def train_dataloader(self) -> TrainLoader:
        micro_batches = self.plan.accumulate(self._ranks()[0])
        return TrainLoader(self._train_batch, self.plan.steps_per_epoch, micro_batches, num_workers=self.num_workers)

    def _train_batch(self, key: tuple[int, int]) -> Batch:
        return self.rows.train_batch(self.planned(*key), key[0])

    def planned(self, epoch: int, index: int) -> PlannedRow:
        """What is in this rank's micro-batch of that number."""
        ranks, rank = self._ranks()
        micro_batches = self.plan.accumulate(ranks)
        return self.plan.step(epoch, index // micro_batches)[index % micro_batches * ranks + rank]

    def names(self, epoch: int, index: int) -> list[str]:
        """The same for a message."""
        return self.rows.names(self.planned(epoch, index))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, and comparisons where there are any (held_out.py)."""
        return self._loaders(*self.held_out("validation"))

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, comparisons where there are any, and what to write."""
        write = self._writing(self.max_test_prompts)
        return self._loaders(*self.held_out("test"), write)

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """What to write."""
        return self._loaders(self._writing(None))

    def held_out(self, stage: Stage) -> list[BatchTable]:
        """The batches of a held-out split."""
        self._need_setup()
        return self.rows.held_out(stage, self.comparer, ranks=self._ranks()[0])

    def _writing(self, limit: int | None) -> BatchTable:
        self._need_setup()
        refuse_empty(self.splits["test"], self.test_share)
        return writing(self.splits["test"].usable[:limit], self.prompter, ranks=self._ranks()[0])

    def _loaders(self, *tables: BatchTable) -> list[DataLoader[Any]]:
        return [table.loader(*self._ranks()) for table in tables]

    def _ranks(self) -> tuple[int, int]:
        return replicas(self.trainer) if self.trainer is not None else (1, 0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests stay on the CPU: Lightning can't move frozen dataclasses, and the module moves their ids itself."""
        return batch if "requests" in batch else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def largest_batches(self) -> list[tuple[Batch, bool]]:
        """The rows that take the most memory (`RowBuilder.largest_batches`)."""
        self._need_setup()
        return self.rows.largest_batches(self.comparer)
