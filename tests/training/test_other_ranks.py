"""A run resumed on another number of ranks has the same rows and the same losses as the uninterrupted run.

One process and several ranks (this file, as a script) resume each other's checkpoints from every kind of moment.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from coh_lightning.errors import InputError
from coh_lightning.runs.preemption import check_same_plan, recount, to_step_start
from helpers.feedback import pairs, write
from helpers.ranks import STEPS, Steps, commanded, end_rank, module, rank_of, relative, rows, started, trainer, whole

EPOCH = 6
"""Steps in an epoch of these rows, the last of which is not full."""
MOMENTS = ("step=3", f"step={EPOCH}", f"within={EPOCH + 1}")
"""Checkpoints that are resumed: within an epoch, at its edge, and within the first step of the next."""


class Within(ModelCheckpoint):
    """Saves in the middle of step EPOCH + 1 too, as a time-based checkpoint may."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if (
            trainer.global_step == EPOCH
            and (batch_idx + 1) % trainer.accumulate_grad_batches == trainer.accumulate_grad_batches // 2
        ):
            trainer.save_checkpoint(Path(self.dirpath or "") / f"within={trainer.global_step + 1}.ckpt")


def run(
    folder: Path,
    *,
    keep: Path | None = None,
    go_on: Path | None = None,
    strategy: Any = None,
    dropout: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """This rank's part of the losses from the first step of this run on, and the final weights."""
    _, ranks = rank_of()
    data, seen = rows(folder), Steps()
    # in float64 from the beginning: Lightning reads a checkpoint before `64-true` makes the model double
    model = module(dtype="float64", **({"dropout": True} if dropout else {}), warmup_ratio=0.3)
    pl.seed_everything(0, verbose=False)
    callbacks: list[pl.Callback] = [seen]
    if keep is not None:
        callbacks.append(Within(keep, filename="{step}", every_n_train_steps=1, save_top_k=-1))
    settings = (
        {"devices": ranks, "strategy": strategy or ("ddp" if ranks > 1 else "auto")}
        | ({} if strategy else {"precision": "64-true"})
        | settings
    )
    fit = trainer(folder, *callbacks, enable_checkpointing=keep is not None, **settings)
    fit.fit(model, datamodule=data, ckpt_path=go_on, weights_only=go_on is not None and go_on.is_file())
    assert data.plan.steps_per_epoch == EPOCH and data.plan.num_rows % data.rows_per_step
    return {"losses": seen.losses, "weights": {name: whole(value) for name, value in model.lm.state_dict().items()}}


def main(folder: str, what: str) -> None:
    """One rank: the whole run, and the rest of it from the checkpoints of one process."""
    rank, ranks = rank_of()
    place = Path(folder)
    kept = place / f"of{ranks}"
    (place / "run").mkdir(exist_ok=True)
    found = {}
    if what == "plain":
        found["whole"] = run(place / "run", keep=kept)
        found |= {path.stem: run(place / "run", go_on=path) for path in moments(place / "of1")}
    if what == "dropout":
        found["whole"] = run(place / "run", keep=kept, dropout=True, max_steps=6)
    if what.startswith("shards"):
        strategy = ModelParallelStrategy(
            data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=what == "shards"
        )
        found["whole"] = run(place / "run", keep=kept, strategy=strategy, max_steps=6)
    torch.save(found, place / f"rank{rank}.pt")


def moments(kept: Path) -> list[Path]:
    return [kept / f"{moment}.ckpt" for moment in MOMENTS]


def begins_at(path: Path) -> int:
    """Steps that are made before a checkpoint is resumed."""
    kind, _, step = path.stem.partition("=")
    return int(step) - (kind == "within")


def of_ranks(folder: Path, what: str, ranks: int) -> dict[str, dict[str, Any]]:
    """The runs of so many ranks: losses summed over them, weights of the first."""
    started(__file__, folder, what, ranks=ranks, seconds=240)
    every = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]
    return {
        name: {
            "losses": [sum(parts) for parts in zip(*(one[name]["losses"] for one in every), strict=True)],
            "weights": first["weights"],
        }
        for name, first in every[0].items()
    }


def same_end(of_whole: dict[str, Any], rest: dict[str, Any], step: int, steps: int = STEPS) -> None:
    assert len(of_whole["losses"]) == steps and len(rest["losses"]) == steps - step
    assert rest["losses"] == pytest.approx(of_whole["losses"][step:], rel=1e-9, abs=0)
    assert relative(of_whole["weights"], rest["weights"]) < 1e-9


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The whole run on one process, and the folder with its checkpoints in `of1`."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "run").mkdir()
    return folder, run(folder / "run", keep=folder / "of1")


@pytest.fixture(scope="module")
def of_two(alone: tuple[Path, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return of_ranks(alone[0], "plain", 2)


def test_two_ranks_resume_a_run_of_one_process(alone: tuple[Path, dict[str, Any]], of_two: dict[str, Any]) -> None:
    same_end(alone[1], of_two["whole"], 0)
    for path in moments(alone[0] / "of1"):
        same_end(alone[1], of_two[path.stem], begins_at(path))


def test_one_process_resumes_a_run_of_two_ranks(alone: tuple[Path, dict[str, Any]], of_two: dict[str, Any]) -> None:
    for path in moments(alone[0] / "of2"):
        same_end(of_two["whole"], run(alone[0] / "run", go_on=path), begins_at(path))


@pytest.mark.slow
def test_two_ranks_and_one_resume_a_run_of_four(alone: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for path in moments(alone[0] / "of1"):
        (tmp_path / "of1").mkdir(exist_ok=True)
        (tmp_path / "of1" / path.name).symlink_to(path)
    four = of_ranks(tmp_path, "plain", 4)
    for path in moments(alone[0] / "of1"):
        same_end(alone[1], four[path.stem], begins_at(path))
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "of1").symlink_to(tmp_path / "of4")  # two ranks take them for those of one process
    two = of_ranks(tmp_path / "next", "plain", 2)
    for path in moments(tmp_path / "of4"):
        same_end(alone[1], two[path.stem], begins_at(path))
        same_end(alone[1], run(alone[0] / "run", go_on=path), begins_at(path))


@pytest.mark.slow
def test_dropout_does_not_depend_on_the_ranks(tmp_path: Path) -> None:
    two = of_ranks(tmp_path, "dropout", 2)["whole"]
    (tmp_path / "alone").mkdir()
    same_end(two, run(tmp_path / "alone", dropout=True, max_steps=6), 0, steps=6)
    same_end(
        two, run(tmp_path / "alone", dropout=True, max_steps=6, go_on=tmp_path / "of2" / "step=3.ckpt"), 3, steps=6
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["shards", "shards in one file"])
def test_one_process_resumes_a_run_of_two_ranks_with_a_sharded_model(what: str, tmp_path: Path) -> None:
    """From a folder of shards and from one file, under the same strategy on one rank; and from the file without any
    strategy.
    """
    two = of_ranks(tmp_path, what, 2)["whole"]
    (tmp_path / "alone").mkdir()
    kept = tmp_path / "of2" / "step=3.ckpt"
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    same_end(two, run(tmp_path / "alone", go_on=kept, strategy=strategy, max_steps=6), 3, steps=6)
    assert kept.is_dir() == (what == "shards")
    if kept.is_file():
        same_end(two, run(tmp_path / "alone", go_on=kept, max_steps=6), 3, steps=6)


COMMAND = """
trainer:
  accelerator: cpu
  max_steps: 6
  limit_val_batches: 0
  enable_progress_bar: false
  log_every_n_steps: 1
  callbacks:
    class_path: lightning.pytorch.callbacks.ModelCheckpoint
    init_args: {dirpath: run/checkpoints, filename: '{step}', every_n_train_steps: 3, save_top_k: -1}
model: {name_or_path: world, lr: 1.0e-3}
data:
  {feedback: feedback.jsonl, cache_dir: cache, rows_per_step: 2, row_tokens: 512, max_chain_tokens: 400,
   max_prompt_tokens: 200}
run: {folder: run}
"""


@pytest.mark.slow
def test_the_same_command_on_another_number_of_ranks_resumes_in_its_folder(tmp_path: Path) -> None:
    """From step 3 on with the losses of the run of two ranks, rounded in float32."""
    (tmp_path / "two.yaml").write_text(COMMAND)
    write(tmp_path / "feedback.jsonl", pairs(30))
    commanded(
        ["-m", "coh_lightning", "fit", "--config", "two.yaml", "--trainer.devices=2"], tmp_path, ranks=2, seconds=200
    )

    def logged() -> list[float]:
        with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file)]

    of_two = logged()
    assert len(of_two) == 6
    for name in ("finished", "checkpoints/last.ckpt", "checkpoints/step=6.ckpt"):
        (tmp_path / "run" / name).unlink()
    lines = commanded(
        ["-m", "coh_lightning", "fit", "--config", "two.yaml", "--trainer.devices=1"], tmp_path, seconds=200
    )
    assert "resumed from run/checkpoints/step=3.ckpt" in lines[0] and (tmp_path / "run" / "finished").exists()
    assert logged()[:3] == of_two[:3] and logged() == pytest.approx(of_two, rel=1e-4)


# The counters of a checkpoint


def saved(steps: int, of_epoch: int, micro_batches: int, *, extra: int = 0, validated: bool = False) -> dict[str, Any]:
    """The part of a checkpoint that counts, as Lightning writes it after a micro-batch (or after a validation
    there).
    """

    def counts(ready: int) -> dict[str, int]:
        return {"ready": ready, "started": ready, "processed": ready, "completed": ready if validated else ready - 1}

    at = {
        "total": counts(steps * micro_batches + extra),
        "current": counts(of_epoch * micro_batches + extra),
        "is_last_batch": False,
    }
    loader = {"epoch": 0, "step": of_epoch}
    loops = {
        "epoch_loop.batch_progress": at,
        # Lightning adds 1 after validation and after saving
        "epoch_loop.state_dict": {"_batches_that_stepped": steps - (not extra)},
        "state_dict": {"combined_loader": [loader]},
    }
    return {"global_step": steps, "loops": {"fit_loop": loops}}


numbers = st.integers(1, 12)


@given(st.integers(0, 500), st.integers(0, 40), numbers, numbers, numbers, st.booleans())
def test_progress_is_steps_whatever_the_ranks(
    steps: int, of_epoch: int, first: int, second: int, third: int, validated: bool
) -> None:
    of_epoch = min(of_epoch, steps)
    checkpoint = saved(steps, of_epoch, first, validated=validated)
    for micro_batches in (second, third, third):
        recount(checkpoint, micro_batches)
        assert checkpoint == saved(steps, of_epoch, micro_batches, validated=validated)


@given(st.integers(0, 500), st.integers(0, 40), st.integers(2, 12), st.data(), st.booleans())
def test_a_checkpoint_within_a_step_is_that_of_the_previous_steps_end(
    steps: int, of_epoch: int, micro_batches: int, data: st.DataObject, validated: bool
) -> None:
    """Whether it was saved after a micro-batch or after a validation within the step; `_batches_that_stepped` is then
    as before Lightning's own addition.
    """
    of_epoch = min(of_epoch, steps)
    checkpoint = saved(
        steps, of_epoch, micro_batches, extra=data.draw(st.integers(1, micro_batches - 1)), validated=validated
    )
    to_step_start(checkpoint["loops"]["fit_loop"], micro_batches)
    assert checkpoint == saved(steps, of_epoch, micro_batches)
    to_step_start(checkpoint["loops"]["fit_loop"], micro_batches)
    assert checkpoint == saved(steps, of_epoch, micro_batches)


PLAN = {
    "seed": 0,
    "layout": "tree",
    "row_tokens": 256,
    "rows_per_step": 2,
    "pretraining_rows_per_step": 0,
    "rows": "ab",
    "steps_of_epoch": 3,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows_per_step": 4}, "data.rows_per_step has changed from 2 to 4"),
        ({"seed": 1}, "data.seed has changed from 0 to 1"),
        ({"rows": "cd"}, "the training records or their tokens have changed"),
        (
            {"steps_of_epoch": 6},
            "trainer.limit_train_batches leaves 6 steps in an epoch, but the checkpoint's run had 3; set it to 12",
        ),
    ],
)
def test_another_plan_is_refused(change: dict[str, Any], message: str) -> None:
    check_same_plan(PLAN, PLAN, 4)
    with pytest.raises(InputError, match=message):
        check_same_plan(PLAN, PLAN | change, 4)


def test_a_checkpoint_of_weights_alone_can_not_be_resumed() -> None:
    with pytest.raises(InputError, match=r"ckpt_path: .*only weights.*model\.name_or_path"):
        check_same_plan(None, PLAN, 4)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_rank()
