"""However a step's rows are shared out over micro-batches and ranks, and whenever it is run: one trajectory.

Each rank is a process of its own (this very file, as a script), started as a cluster would start it, with a time limit.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from feedback_for_tests import TINY, data_of, method, pairs, wording
from ranks_for_tests import end_rank, rank_of, started

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.generation import Sampling
from coh_lightning.module import CoHModule
from coh_lightning.records import Completion, read_jsonl

GPT2 = {"model_type": "gpt2", "vocab_size": 520, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512, "initializer_range": 0.2}
STEPS = 10
CLIP = 0.05
"""Below the norm of every gradient here, so that each step is clipped."""


class Steps(pl.Callback):
    """This rank's part of the loss of each step, the first step's gradients, and the norm of every gradient before it is clipped."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.gradients: dict[str, torch.Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.losses.append(0.0)
        self.losses[-1] += float(outputs["loss"]) / trainer.world_size  # Lightning has divided it by the micro-batches

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        gradients = {name: p.grad.clone() for name, p in pl_module.lm.named_parameters()}
        self.gradients = self.gradients or gradients
        self.norms.append(float(torch.stack([value.norm() for value in gradients.values()]).norm()))


def run(folder: Path, *, precision: Any, devices: int, config: dict[str, Any] = GPT2, steps: int = STEPS, write: bool = False) -> dict[str, Any]:
    """Some steps of 8 rows each (two of them regulariser) over more than one epoch, and what this rank saw of them."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"Plain text, number {i}{' and on' * (i % 5)}." for i in range(40)), encoding="utf-8")
    data = data_of(
        pairs(44),
        folder,
        train_only=False,
        validation_share=0.1,
        test_share=0.15,
        wording=wording("varied"),
        method=method("coh"),
        rows_per_step=6,
        regulariser=[str(text)],
        regulariser_rows_per_step=2,
    )
    writing = {"write_every": 1, "refine": 1} if write else {}
    model = CoHModule(from_config=config, lr=1e-2, warmup_share=0.0, sampling=Sampling(max_new_tokens=4, temperature=1.0), **writing)
    pl.seed_everything(0, verbose=False)
    seen = Steps()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=precision,
        max_steps=steps,
        gradient_clip_val=CLIP,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if write else 0,
        log_every_n_steps=1,
        default_root_dir=str(folder),
        callbacks=[seen, CompletionWriter()],
    )
    trainer.fit(model, datamodule=data)
    weights = {name: value.detach().clone() for name, value in model.lm.state_dict().items()}
    found = {"losses": seen.losses, "norms": seen.norms, "gradients": seen.gradients, "weights": weights, "epochs": trainer.current_epoch}
    found["uneven"] = data.plan.num_rows % 6
    if write:
        found["metrics"] = {name: float(value) for name, value in trainer.test(model, datamodule=data, verbose=False)[0].items()}
    return found


def main(folder: str, what: str) -> None:
    """One rank (or the only process) of one test."""
    rank, ranks = rank_of()
    own = Path(folder) / f"rank{rank}"
    own.mkdir()
    if what == "repeat":
        weights = run(own, precision="32-true", devices=1, config=TINY, steps=3)["weights"]
        print(torch.get_num_threads(), hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest())
        return
    shared = Path(folder) / "run"  # of both ranks: where they write completions
    shared.mkdir(exist_ok=True)
    for precision in ("64-true", "32-true"):
        torch.save(
            run(shared if ranks > 1 else own, precision=precision, devices=ranks, write=precision == "64-true"), Path(folder) / f"{precision}.rank{rank}.pt"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, dict[str, list[dict[str, Any]]]]]:
    """The same run on one process (8 micro-batches a step) and on two (4 each): ranks -> precision -> what each rank saw."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        started(__file__, folder, "trajectory", ranks=ranks)
        found[ranks] = {
            precision: [torch.load(folder / f"{precision}.rank{rank}.pt", weights_only=True) for rank in range(ranks)] for precision in ("64-true", "32-true")
        }
        found[ranks]["completions"] = [{"all": list(read_jsonl(path, Completion))} for path in folder.glob("*/completions.jsonl")]
        assert len(found[ranks]["completions"]) == 1
    yield found


def losses(of_ranks: Sequence[dict[str, Any]]) -> list[float]:
    """Of each step, summed over the ranks."""
    return [sum(parts) for parts in zip(*(one["losses"] for one in of_ranks), strict=True)]


def relative(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """L2 norm of the difference, relative to the norm of the first."""
    difference = torch.stack([(one[name].double() - other[name].double()).norm() for name in one]).norm()
    return float(difference / torch.stack([value.double().norm() for value in one.values()]).norm())


def test_the_run_is_one_that_could_go_wrong(runs: Any) -> None:
    """Clipped in every step, over an epoch's end, and with a last step that is not full."""
    [alone] = runs[1]["64-true"]
    assert len(alone["losses"]) == STEPS and alone["epochs"] >= 1 and alone["uneven"]
    assert min(alone["norms"]) > 2 * CLIP
    assert len(set(alone["losses"])) == STEPS


def test_eight_micro_batches_and_four_on_each_of_two_ranks_are_one_trajectory(runs: Any) -> None:
    alone, together = runs[1]["64-true"], runs[2]["64-true"]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-9, abs=0)
    assert together[0]["norms"] == pytest.approx(alone[0]["norms"], rel=1e-9)
    assert relative(alone[0]["weights"], together[0]["weights"]) < 1e-9
    for name, value in alone[0]["weights"].items():
        torch.testing.assert_close(together[0]["weights"][name], value, rtol=0, atol=1e-9)


def test_the_ranks_hold_the_same_weights_to_the_last_bit(runs: Any) -> None:
    for precision in ("64-true", "32-true"):
        one, other = runs[2][precision]
        assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


def test_single_precision_differs_by_rounding_alone(runs: Any) -> None:
    alone, together = runs[1]["32-true"], runs[2]["32-true"]
    assert relative(alone[0]["gradients"], together[0]["gradients"]) < 1e-5
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)


def test_held_out_figures_and_completions_do_not_depend_on_the_ranks(runs: Any) -> None:
    alone, one, other = *runs[1]["64-true"], *runs[2]["64-true"]
    assert one["metrics"] == other["metrics"] and set(one["metrics"]) == set(alone["metrics"])
    assert one["metrics"] == pytest.approx(alone["metrics"], rel=1e-6, nan_ok=True)

    def texts(ranks: int) -> list[tuple[str, str, str]]:
        return [(written.prompt_id, written.ask, written.text) for written in runs[ranks]["completions"][0]["all"]]

    assert texts(1) == texts(2) and len(texts(1)) > 4


def test_a_run_repeats_itself_to_the_last_bit_on_two_threads(tmp_path: Path) -> None:
    printed = []
    for repetition in ("first", "second"):
        (tmp_path / repetition).mkdir()
        printed += started(__file__, tmp_path / repetition, "repeat", threads=2)
    assert printed[0].startswith("2 ") and printed[0] == printed[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort an interpreter that ends while they wind up; all that is checked has been written
    end_rank()
