"""The Trainer's options against the plan (whole steps, or refused), and the learning rate of each step by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
)

from coh_lightning.errors import InputError
from coh_lightning.training.schedule import OptimizerSettings, follow_plan, steps_of_epoch, total_steps, warmup_cosine
from helpers.feedback import data_of, pairs, tiny

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
QUIET |= {"accelerator": "cpu", "devices": 1, "use_distributed_sampler": False}


def bare(**options: Any) -> pl.Trainer:
    return pl.Trainer(**(QUIET | {"max_epochs": 1} | options))


# The optimizer


@pytest.mark.parametrize(
    ("device", "precision", "fused"),
    [("cuda", "bf16-mixed", True), ("cuda", "16-mixed", None), ("cpu", "32-true", None)],
)
def test_adamw_is_one_kernel_on_a_gpu_unless_gradients_are_scaled(
    device: str, precision: str, fused: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    monkeypatch.setattr(torch.nn.Parameter, "device", torch.device(device))  # torch itself takes a CPU's for `fused`
    optimizer, _ = OptimizerSettings().build([("weight", weight)], precision, matrices=["weight"], lr=0.1, steps=4)
    assert optimizer.defaults["fused"] is fused


# The learning rate


def test_the_learning_rate_of_every_step_by_hand() -> None:
    """10 steps, 4 of warm-up: a quarter more in each of the first four; then a half cosine of six steps down to a
    tenth.
    """
    rates = [warmup_cosine(10, warmup_ratio=0.4, min_ratio=0.1)(done) for done in range(10)]
    fall = [0.1 + 0.9 * (1 + cosine) / 2 for cosine in (3**0.5 / 2, 0.5, 0.0, -0.5, -(3**0.5) / 2, -1.0)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, *fall], abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "share", "rates"),
    [
        (1, 0.03, [1.0]),
        (2, 0.0, [1.0, 0.5]),
        (3, 0.0, [1.0, 0.75, 0.5]),  # without warm-up the first step is at the peak
        (4, 0.99, [0.25, 0.5, 0.75, 1.0]),  # nothing but warm-up
    ],
)
def test_the_learning_rate_of_short_runs(steps: int, share: float, rates: list[float]) -> None:
    assert [warmup_cosine(steps, warmup_ratio=share, min_ratio=0.5)(done) for done in range(steps)] == pytest.approx(
        rates, abs=1e-12
    )


@given(st.integers(1, 400), st.floats(0, 0.99), st.floats(0, 1))
def test_no_step_has_a_learning_rate_of_0_before_the_last_and_none_is_above_the_peak(
    steps: int, warmup: float, final: float
) -> None:
    rates = [warmup_cosine(steps, warmup_ratio=warmup, min_ratio=final)(done) for done in range(steps + 1)]
    peak = max(1, round(warmup * steps))
    assert rates[peak - 1] == 1 == max(rates) and rates[0] == pytest.approx(1 / peak) and min(rates[:-2], default=1) > 0
    assert rates[:peak] == sorted(rates[:peak]) and rates[peak - 1 :] == sorted(rates[peak - 1 :], reverse=True)
    assert peak == steps or rates[steps - 1] == rates[steps] == pytest.approx(final)


class Rates(pl.Callback):
    """The learning rate that each step is made with, what is logged of it, and how many micro-batches were run."""

    def __init__(self) -> None:
        self.used: list[float] = []
        self.logged: list[float] = []
        self.micro_batches = 0

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.used.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.micro_batches and self.micro_batches % trainer.accumulate_grad_batches == 0:
            self.logged.append(float(trainer.callback_metrics["lr"]))
        self.micro_batches += 1


def fitted(
    folder: Path, *callbacks: pl.Callback, rows_per_step: int = 3, go_on: Path | None = None, **options: Any
) -> tuple[pl.Trainer, Rates, Any]:
    data, seen = (
        data_of(pairs(30), folder, rows_per_step=rows_per_step, train_only=False, validation_share=0.2),
        Rates(),
    )
    trainer = pl.Trainer(
        **(QUIET | {"log_every_n_steps": 1, "limit_val_batches": 0, "default_root_dir": str(folder)} | options),
        callbacks=[seen, *callbacks],
    )
    trainer.fit(tiny(lr=0.01, warmup_ratio=0.5, min_lr_ratio=0.2), datamodule=data, ckpt_path=go_on)
    return trainer, seen, data


def test_a_run_uses_these_rates_and_logs_what_it_uses(tmp_path: Path) -> None:
    _, seen, _ = fitted(tmp_path, max_steps=4)
    assert seen.used == pytest.approx([0.005, 0.01, 0.006, 0.002], rel=1e-9)
    assert seen.logged == pytest.approx(seen.used[:3], rel=1e-6)


# Options that cut an epoch


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.one_of(st.integers(1, 400), st.floats(0.001, 1.0)), st.integers(1, 5))
def test_a_limit_on_training_batches_is_whole_steps_or_refused(
    steps: int, micro_batches: int, limit: int | float, epochs: int
) -> None:
    trainer = bare(limit_train_batches=limit, max_epochs=epochs)
    try:
        follow_plan(trainer, steps, micro_batches, ranks=1)
    except InputError as refused:
        if isinstance(limit, float):
            assert steps * limit < 1 and f"less than one of the {steps} steps" in str(refused)
        else:
            assert limit % micro_batches and limit < steps * micro_batches
            *_, nearest = str(refused).partition("set it to ")
            near = [int(number) for number in nearest.rstrip(".").split(" or ")]
            assert all(
                number % micro_batches == 0
                and 0 < number <= steps * micro_batches
                and abs(number - limit) < micro_batches
                for number in near
            )
        return
    found = trainer.limit_train_batches
    of_epoch = steps_of_epoch(trainer, steps)
    assert trainer.accumulate_grad_batches == micro_batches
    assert found == 1.0 or found % micro_batches == 0 or found >= steps * micro_batches
    assert 1 <= of_epoch <= steps and total_steps(trainer, steps) == of_epoch * epochs
    if isinstance(limit, float):
        assert of_epoch == pytest.approx(steps * limit, abs=1) and of_epoch <= steps * limit + 1e-5
    else:
        assert of_epoch == min(steps, limit / micro_batches)


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": "00:00:00:05"},
        {"val_check_interval": 0.25},
        {"val_check_interval": 30},
        {"val_check_interval": 31, "check_val_every_n_epoch": None},
        {"val_check_interval": 31, "limit_val_batches": 0},
        {"max_epochs": None, "max_steps": 5, "max_time": "00:00:01:00"},
        {"accumulate_grad_batches": 3},
    ],
)
def test_options_that_cut_no_step_are_kept(options: dict[str, Any]) -> None:
    trainer = bare(**options)
    follow_plan(trainer, 10, 3, ranks=1)
    assert trainer.limit_train_batches == 1.0 and trainer.accumulate_grad_batches == 3


def test_the_schedule_of_a_run_under_a_limit_ends_at_its_share(tmp_path: Path) -> None:
    """Two of the epoch's steps, in two epochs: four steps, as many as the schedule has."""
    trainer, seen, data = fitted(tmp_path, max_epochs=2, limit_train_batches=6)
    assert data.plan.steps_per_epoch > 2 and trainer.global_step == 4 and seen.micro_batches == 12
    assert seen.used == pytest.approx([0.005, 0.01, 0.006, 0.002], rel=1e-9)


def test_a_share_of_the_epoch_is_whole_steps(tmp_path: Path) -> None:
    trainer, seen, data = fitted(tmp_path, max_epochs=1, limit_train_batches=0.55)
    assert (
        trainer.global_step == int(0.55 * data.plan.steps_per_epoch) and seen.micro_batches == 3 * trainer.global_step
    )


def test_a_run_that_logs_no_step_makes_its_steps(tmp_path: Path) -> None:
    trainer, seen, _ = fitted(tmp_path, max_steps=1, log_every_n_steps=0)
    assert trainer.global_step == 1 and seen.micro_batches == 3 and "train/loss" not in trainer.callback_metrics


@pytest.mark.parametrize("number", [1, 2])
def test_fast_dev_run_makes_as_many_steps_as_it_says(number: int, tmp_path: Path) -> None:
    trainer, seen, _ = fitted(tmp_path, fast_dev_run=number)
    assert trainer.global_step == number and seen.micro_batches == 3 * number and not (tmp_path / "data.json").exists()


def test_loaders_reloaded_every_epoch_give_the_same_rows(tmp_path: Path) -> None:
    class Ids(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[list[int]] = []

        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.seen.append(batch["input_ids"].flatten().tolist())

    once, anew = Ids(), Ids()
    for ids, every in ((once, 0), (anew, 1)):
        fitted(tmp_path, ids, max_epochs=3, limit_train_batches=6, reload_dataloaders_every_n_epochs=every)
    assert once.seen == anew.seen and once.seen[:6] != once.seen[6:12]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit_train_batches": 4}, r"limit_train_batches is 4, but a step has 3 micro-batches .* set it to 3 or 6"),
        ({"limit_train_batches": 1}, r"limit_train_batches is 1, .* set it to 3\."),
        ({"limit_train_batches": 0}, "limit_train_batches is 0, so there is nothing to train on"),
        ({"limit_train_batches": 0.0}, "limit_train_batches is 0, so there is nothing to train on"),
        ({"limit_train_batches": 0.01}, r"limit_train_batches is 0.01, less than one of the \d+ steps"),
        ({"overfit_batches": 3}, "overfit_batches is 3, but it would replace the plan's order"),
        ({"overfit_batches": 0.5}, r"overfit_batches is 0\.5, but"),
        (
            {"accumulate_grad_batches": 2},
            "accumulate_grad_batches is 2, but data.rows_per_step and the 1 ranks make it 3; leave it out",
        ),
        ({"max_epochs": 0}, "max_epochs is 0, so there is nothing to train on"),
        ({"max_steps": 0}, "max_steps is 0, so there is nothing to train on"),
        (
            {"max_epochs": None, "max_time": timedelta(seconds=3)},
            "Neither trainer.max_steps nor trainer.max_epochs says",
        ),
        (
            {"val_check_interval": 500, "limit_val_batches": 1},
            r"val_check_interval is 500, but an epoch has \d+ micro-batches",
        ),
        ({"val_check_interval": 0}, "val_check_interval is 0; it must be more than 0"),
        (
            {"check_val_every_n_epoch": 0},
            "check_val_every_n_epoch is 0; it must be more than 0; to leave validation out, set "
            "trainer.limit_val_batches to 0",
        ),
        ({"max_time": timedelta(0)}, "max_time is 0, so there would be no step"),
        ({"callbacks": BatchSizeFinder()}, "has a BatchSizeFinder, but there is no batch size to find"),
        ({"callbacks": LearningRateFinder()}, "has a LearningRateFinder, but the schedule would overwrite the rate"),
        (
            {"callbacks": GradientAccumulationScheduler({0: 3})},
            "has a GradientAccumulationScheduler, but data.rows_per_step",
        ),
    ],
)
def test_an_impossible_option_is_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    callbacks = [options.pop("callbacks")] if "callbacks" in options else []
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=message):
        fitted(tmp_path, *callbacks, **({"max_epochs": 1, "default_root_dir": str(tmp_path / "run")} | options))
    assert not list((tmp_path / "run").iterdir())


# Stops and validations within a step


class Clock(pl.Callback):
    """Stops the run after a micro-batch, as `max_time` does, but says so once."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop |= batch_idx + 1 == self.after


@pytest.mark.parametrize("after", [4, 5, 6])
def test_max_time_ends_a_run_at_the_end_of_its_step(after: int, tmp_path: Path) -> None:
    trainer, seen, _ = fitted(tmp_path, Clock(after), max_steps=4)
    assert trainer.global_step == 2 and seen.micro_batches == 6
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    trainer, rest, _ = fitted(tmp_path, max_steps=4, go_on=tmp_path / "stopped.ckpt")
    assert trainer.global_step == 4 and rest.micro_batches == 6 and rest.used == pytest.approx([0.006, 0.002])


def test_max_time_that_is_over_at_once_leaves_one_step(tmp_path: Path) -> None:
    trainer, seen, _ = fitted(tmp_path, max_steps=4, max_time=timedelta(microseconds=1))
    assert trainer.global_step == 1 and seen.micro_batches == 3


class Validated(pl.Callback):
    """The held-out loss of each validation, by the number of micro-batches before it in the whole run; and where
    Lightning logs the steps.
    """

    def __init__(self) -> None:
        self.found: dict[int, float] = {}
        self.steps: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.found[trainer.fit_loop.total_batch_idx + 1] = float(trainer.callback_metrics["val/nll"])

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self.steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)


def test_a_validation_within_a_step_changes_nothing_and_its_checkpoint_can_be_resumed(tmp_path: Path) -> None:
    every: dict[str, Any] = {
        "max_steps": 5,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 2,
    }
    keep = ModelCheckpoint(
        tmp_path / "kept", filename="{val/nll:.9f}", monitor="val/nll", save_top_k=-1, auto_insert_metric_name=False
    )
    seen = Validated()
    _, rates, _ = fitted(tmp_path, seen, keep, enable_checkpointing=True, **every)
    assert list(seen.found) == [4, 8, 12] and rates.micro_batches == 15
    assert seen.steps == [number // 3 for number in range(15)]
    paths = {at: next((tmp_path / "kept").rglob(f"{value:.9f}*.ckpt")) for at, value in seen.found.items()}
    for at, path in paths.items():
        step = at // 3
        again = Validated()
        trainer, rest, _ = fitted(tmp_path, again, go_on=path, **every)
        assert (
            trainer.global_step == 5
            and rest.micro_batches == 15 - 3 * step
            and rest.used == pytest.approx(rates.used[step:])
        )
        assert again.steps == seen.steps[3 * step :]
        # that of the checkpoint is made again where its step is, which was not over
        assert again.found == {number: value for number, value in seen.found.items() if number > 3 * step}
