"""A run resumed from any checkpoint has the same rows, losses and weights as the uninterrupted run, to the last bit.

One run keeps a checkpoint of each moment; from each of them another run continues to the end, with other workers and
another global seed, which must not matter. Two ranks are two processes (this file, as a script).
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation
from coh_lightning.module import CoHModule
from coh_lightning.training.schedule import OptimizerSettings
from helpers.feedback import TINY, data_of, method, pairs, wording
from helpers.ranks import end_rank, rank_of, started

EPOCH = 3
"""Steps in an epoch."""
STEPS = 2 * EPOCH + 2


@dataclass
class Seen(pl.Callback):
    """What a rank saw: the rows (with what is hidden in them) and losses of each step, and what was validated."""

    rows: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    held_out: dict[int, float] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(hashlib.sha256(b"".join(value.numpy().tobytes() for value in batch.values())).hexdigest())
        self.losses.append(float(outputs["loss"]))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.held_out[trainer.global_step] = float(trainer.callback_metrics["val/nll"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.weights = {name: value.detach().clone() for name, value in pl_module.lm.state_dict().items()}


def run(
    folder: Path,
    *,
    keep: ModelCheckpoint | None = None,
    go_on: Path | None = None,
    workers: int = 0,
    seed: int = 0,
    devices: int = 1,
    dropout: bool = False,
    validate_every: int | None = None,
    generate_every_n_validations: int = 0,
    **limits: Any,
) -> Seen:
    """Steps of two rows of feedback and two of pretraining text, with all that is random: order, packing, wording,
    masking.
    """
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"Plain text, number {i}{' and on' * (i % 5)}." for i in range(40)), encoding="utf-8")
    data = data_of(
        pairs(20),
        folder,
        train_only=False,
        validation_share=0.2,
        test_share=0.2,
        wording=wording("varied"),
        method=method("coh"),
        fcm_range=(0.0, 0.3),
        fcm_on_pretraining=True,
        pretraining_text=[str(text)],
        pretraining_rows_per_step=2,
        row_tokens=512,
        num_workers=workers,
    )
    model = CoHModule(
        from_config=TINY | ({"attention_dropout": 0.2} if dropout else {}),
        dropout=dropout,
        lr=1e-2,
        optimizer=OptimizerSettings(warmup_ratio=0.2),
        generation=Generation(
            Sampling(max_new_tokens=3, temperature=1.0), generate_every_n_validations=generate_every_n_validations
        ),
    )
    pl.seed_everything(seed, verbose=False)
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=keep is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validate_every else 0,
        check_val_every_n_epoch=None,
        val_check_interval=validate_every * 4 // devices if validate_every else None,
        default_root_dir=str(folder),
        callbacks=[seen, CompletionWriter(), *([keep] if keep else [])],
        **({"max_steps": STEPS} | limits),
    )
    trainer.fit(model, datamodule=data, ckpt_path=go_on)
    assert data.plan.steps_per_epoch == EPOCH
    return seen


def each_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


def same_end(whole: Seen, rest: Seen) -> None:
    """`rest` is the end of `whole`: rows, losses, figures of held-out data, weights."""
    count = len(rest.rows)
    assert rest.rows == whole.rows[-count:]
    assert rest.losses == whole.losses[-count:]
    assert all(torch.equal(value, rest.weights[name]) for name, value in whole.weights.items())
    assert rest.held_out == {step: value for step, value in whole.held_out.items() if step in rest.held_out}


def main(folder: str, what: str) -> None:
    """One of two ranks: the whole run, then the rest of it from the middle of an epoch and from an epoch's edge."""
    rank, ranks = rank_of()
    shared = Path(folder) / "run"
    shared.mkdir(exist_ok=True)
    (Path(folder) / f"rank{rank}").mkdir()
    whole = run(shared, keep=each_step(shared / "kept"), devices=ranks)
    assert len(whole.rows) == STEPS * 4 // ranks
    for workers, step in ((0, 2), (0, EPOCH), (2, EPOCH + 1)):
        same_end(
            whole, run(shared, go_on=shared / "kept" / f"step={step}.ckpt", devices=ranks, workers=workers, seed=step)
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """The run that was never stopped, and its folder with a checkpoint of each step."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, keep=each_step(folder / "kept"))


def test_the_run_covers_epoch_ends_clipping_and_empty_rows(whole: tuple[Path, Seen]) -> None:
    """Over two edges of epochs, each after a step with an empty row, and every other row has a loss of its own."""
    losses = whole[1].losses
    assert (
        len(losses) == 4 * STEPS
        and losses.count(0.0) == STEPS // EPOCH
        and len(set(losses)) == len(losses) - STEPS // EPOCH + 1
    )


@pytest.mark.parametrize("step", [1, EPOCH, EPOCH + 1, 2 * EPOCH])
def test_a_resumed_run_equals_the_uninterrupted_run(step: int, whole: tuple[Path, Seen]) -> None:
    folder, of_whole = whole
    rest = run(folder, go_on=folder / "kept" / f"step={step}.ckpt", seed=step)
    assert len(rest.rows) == 4 * (STEPS - step)
    same_end(of_whole, rest)


@pytest.mark.parametrize("step", [2, EPOCH, EPOCH + 2])
def test_workers_do_not_change_a_resumed_run(step: int, whole: tuple[Path, Seen]) -> None:
    folder, of_whole = whole
    rest = run(folder, go_on=folder / "kept" / f"step={step}.ckpt", workers=2)
    assert len(rest.rows) == 4 * (STEPS - step)
    same_end(of_whole, rest)


def test_a_run_can_be_stopped_many_times(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    folder, of_whole = whole
    at = folder / "kept" / "step=3.ckpt"
    for step in (EPOCH, EPOCH + 2, 2 * EPOCH):
        run(folder, go_on=at, keep=each_step(tmp_path))
        at = tmp_path / f"step={step}.ckpt"
    same_end(of_whole, run(folder, go_on=at))


class Within(ModelCheckpoint):
    """Saves after each micro-batch, as a time-based checkpoint may."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.save_checkpoint(
            Path(self.dirpath or "") / f"{len(list(Path(self.dirpath or '').glob('*.ckpt'))):02}.ckpt"
        )


def test_a_checkpoint_within_a_step_is_that_of_its_beginning(tmp_path: Path) -> None:
    of_whole = run(tmp_path, keep=Within(tmp_path / "kept"), max_steps=EPOCH + 2)
    for number in (4, 5, 6, 4 * EPOCH, 4 * EPOCH + 2):
        rest = run(tmp_path, go_on=tmp_path / "kept" / f"{number:02}.ckpt", max_steps=EPOCH + 2)
        assert len(rest.rows) == 4 * (EPOCH + 2 - (number + 1) // 4)
        same_end(of_whole, rest)


def test_a_resumed_run_can_be_stopped_before_its_next_checkpoint(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    folder, of_whole = whole
    run(folder, go_on=folder / "kept" / "step=2.ckpt", keep=each_step(tmp_path), max_steps=3)
    assert (tmp_path / "step=2.ckpt").exists()  # Lightning's, after the first micro-batch of the next step
    same_end(of_whole, run(folder, go_on=tmp_path / "step=2.ckpt"))


def test_validation_and_sampling_do_not_change_the_training(whole: tuple[Path, Seen], tmp_path: Path) -> None:
    watched = run(tmp_path, validate_every=1, generate_every_n_validations=2)
    assert (
        list(watched.held_out) == list(range(1, STEPS + 1))
        and len(list((tmp_path / "completions").glob("*.jsonl"))) == STEPS // 2
    )
    assert watched.rows == whole[1].rows and watched.losses == whole[1].losses
    assert all(torch.equal(value, watched.weights[name]) for name, value in whole[1].weights.items())


def test_dropout_does_not_depend_on_where_a_run_was_stopped(tmp_path: Path) -> None:
    of_whole = run(tmp_path, keep=each_step(tmp_path / "kept"), dropout=True, max_steps=EPOCH + 2)
    same_end(
        of_whole, run(tmp_path, go_on=tmp_path / "kept" / "step=2.ckpt", dropout=True, max_steps=EPOCH + 2, seed=7)
    )


def test_limited_epochs_are_resumed_too(tmp_path: Path) -> None:
    limits = {"limit_train_batches": 8, "max_steps": 6}
    of_whole = run(tmp_path, keep=each_step(tmp_path / "kept"), **limits)
    for step in (1, 2, 3, 4):
        same_end(of_whole, run(tmp_path, go_on=tmp_path / "kept" / f"step={step}.ckpt", **limits))


def test_runs_resume_from_checkpoints_of_validations_and_epoch_ends(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "best", filename="{step}", monitor="val/nll", save_top_k=-1)
    of_whole = run(tmp_path, keep=best, validate_every=2, generate_every_n_validations=1)
    assert sorted(of_whole.held_out) == [2, 4, 6, 8]
    for path in (tmp_path / "best").glob("*.ckpt"):
        step = int(path.stem.partition("=")[2])
        rest = run(tmp_path, go_on=path, validate_every=2, generate_every_n_validations=1)
        assert len(rest.rows) == 4 * (STEPS - step)
        if rest.rows:
            same_end(of_whole, rest)


@pytest.mark.slow
def test_a_resumed_run_of_two_ranks_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    started(__file__, tmp_path, "resume", ranks=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_rank()
