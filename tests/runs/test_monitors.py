"""A figure that is watched and never logged is refused in a sentence, before training where that can be known."""

from __future__ import annotations

import csv
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from coh_lightning.__main__ import main
from coh_lightning.errors import InputError
from coh_lightning.generation.settings import Generation
from coh_lightning.module import CoHModule
from coh_lightning.runs.monitors import MonitorsKnown, missed

SHORT = [
    "--data.feedback=world",
    "--model.name_or_path=world",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--data.max_validation_prompts=2",
]


class Model(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.line(batch).mean()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/nll", batch.mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("callback", [EarlyStopping("val/nlll"), ModelCheckpoint(monitor="val/nlll")])
def test_lightnings_missing_metric_errors_become_one_sentence(callback: pl.Callback, tmp_path: Path) -> None:
    rows = torch.utils.data.DataLoader(torch.ones(2, 1))
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(Exception, match="nlll") as error:
        trainer.fit(Model(), rows, rows)
    assert missed(error.value) == (
        f"trainer.callbacks: the monitor of {type(callback).__name__} is 'val/nlll', which nothing logs; did "
        "you mean 'val/nll'?"
    )
    assert missed(RuntimeError("something else")) is None


@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_a_monitor_that_nothing_logs_is_refused_before_training(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COH_RUN_FOLDER", raising=False)
    callback = f"--trainer.callbacks+={{class_path: {kind}, init_args: {{monitor: val/preference_acuracy_sum}}}}"
    monkeypatch.setattr(CoHModule, "training_step", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr(
        "sys.argv", ["coh_lightning", "fit", "--trainer.max_steps=1", callback, *SHORT, "--run.folder=r"]
    )
    assert main() == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert errors == [
        f"error: trainer.callbacks: the monitor of {kind} is 'val/preference_acuracy_sum', which nothing logs; did "
        "you mean 'val/preference_accuracy_sum'?"
    ]
    assert not (tmp_path / "r").exists()


def test_every_logged_metric_is_a_known_monitor_and_a_one_step_run_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COH_RUN_FOLDER", raising=False)
    named: list[str] = []

    def figures(self: CoHModule) -> list[str] | None:
        named.extend(known(self) or [])
        return known(self)

    known = CoHModule.figures
    monkeypatch.setattr(CoHModule, "figures", figures)
    monkeypatch.setattr(
        "sys.argv",
        ["coh_lightning", "fit", "--trainer.max_steps=1", "--trainer.val_check_interval=8", *SHORT, "--run.folder=r"],
    )
    assert main() == 0
    with (tmp_path / "r" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["train/loss"]] == ["0"]
    logged = {name for row in rows for name, value in row.items() if value} - {"epoch", "step"}
    assert "val/nll" in logged and logged <= set(named)


@pytest.mark.parametrize(
    ("monitor", "refused"),
    [("val/nl", True), ("train/nll", False), ("val/gap_anything", False), ("train/nll_good", True), ("val/x", True)],
)
def test_with_generation_only_completion_metrics_may_be_unknown(monitor: str, refused: bool) -> None:
    class Writes(Model):
        generation = Generation(generate_every_n_validations=1)

        def figures(self) -> list[str]:
            return ["val/nll", "train/nll"]

    class Trainer:
        callbacks = [EarlyStopping(monitor)]  # noqa: RUF012

    if refused:
        with pytest.raises(InputError, match=f"EarlyStopping is '{monitor}', which nothing logs") as error:
            MonitorsKnown().on_fit_start(Trainer(), Writes())  # type: ignore[arg-type]
        assert "generate_every_n_validations" not in str(error.value)
    else:
        MonitorsKnown().on_fit_start(Trainer(), Writes())  # type: ignore[arg-type]


def test_foreign_modules_and_callbacks_may_log_anything() -> None:
    class Other(pl.Callback):
        pass

    class Sub(CoHModule):
        pass

    class Trainer:
        callbacks = [EarlyStopping("anything"), Other()]  # noqa: RUF012

    class Known(Model):
        def figures(self) -> list[str]:
            return ["val/nll"]

    MonitorsKnown().on_fit_start(Trainer(), Known())  # type: ignore[arg-type]
    assert Sub(from_config={"model_type": "llama"}).figures() is None
    Trainer.callbacks = [EarlyStopping("anything")]
    MonitorsKnown().on_fit_start(Trainer(), Model())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="EarlyStopping is 'anything', which nothing logs; there are val/nll"):
        MonitorsKnown().on_fit_start(Trainer(), Known())  # type: ignore[arg-type]
