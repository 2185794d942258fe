"""Stand-ins for our module and data module, so that tests of the command line take no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch

from coh_lightning.errors import InputError


@dataclass(frozen=True)
class Marks:
    good: str = "good:"
    bad: str = "bad:"


@dataclass(frozen=True)
class Method:
    orders: tuple[str, ...] = ("p", "n")
    loss_on: Literal["all", "last"] = "all"
    marks: Marks = Marks()


@dataclass(frozen=True)
class Source:
    weight: float = 1.0


@dataclass(frozen=True)
class Lines(Source):
    file: str = "lines"

    def __post_init__(self) -> None:
        self.file.strip()


class Data(pl.LightningDataModule):
    def __init__(
        self,
        sources: list[Source] | None = None,
        method: Method = Method(),
        row_tokens: int = 8,
        complain: bool = False,
    ) -> None:
        super().__init__()
        self.sources, self.method, self.row_tokens, self.complain = sources, method, row_tokens, complain

    def setup(self, stage: str) -> None:
        if self.complain:
            raise InputError("feedback.jsonl:3: no prompt.")

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.arange(6.0).view(6, 1), batch_size=1)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class Model(pl.LightningModule):
    break_at: Callable[[], None] | None = None

    def __init__(self, lr: float = 0.01, peak: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        if Model.break_at is not None and self.global_step == 3:
            Model.break_at()
        loss = self.line(batch / 6).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("held_out", self.line(batch).mean())

    test_step = validation_step

    def predict_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.line(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
]


SIX = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", *QUIET]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
