"""Before the first step: the largest row of each kind is run once, whatever stage it belongs to, and leaves nothing behind."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from feedback_for_tests import TINY, data_of, pairs, tiny

from coh_lightning import startup
from coh_lightning.attention import row_logits
from coh_lightning.data import CoHDataModule
from coh_lightning.module import CoHModule


def long_one(number: int, words: int) -> dict[str, Any]:
    texts = [{"text": " ".join(f"{word}{place}" for place in range(words)), "rank": rank} for rank, word in enumerate(("good", "bad"), start=1)]
    return {"id": f"long {number}", "prompt": f"Long question {number}?", "completions": texts}


def data_with(folder: Path, *, text: str = "", **settings: Any) -> CoHDataModule:
    """Short records, a longer one in each split, and some text."""
    (folder / "text.txt").write_text("a few words\n" * 9 + text, encoding="utf-8")
    rows = [*pairs(30), *(long_one(number, 12) for number in range(12))]
    held_out = {"validation_share": 0.3, "test_share": 0.3, "regulariser": [str(folder / "text.txt")], "regulariser_rows_per_step": 1}
    return data_of(rows, folder, train_only=False, **(held_out | settings))


def every_batch(data: CoHDataModule) -> list[tuple[str, dict[str, Any]]]:
    """All rows that any stage would run in the first epoch."""
    found: list[tuple[str, dict[str, Any]]] = []
    for step in range(data.plan.steps_per_epoch):
        found += [("text" if planned.regulariser else "train", dict(data._train_batch(planned, 0))) for planned in data.plan.step(0, step)]
    for stage in ("validation", "test"):
        for table in data._held_out(stage):
            for index in range(table.count):
                batch = table.build(index)
                found += [(stage, batch)] if "rows" not in batch else [(f"compared in {stage}", row) for row in batch["rows"]]
    return found


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_no_row_of_any_stage_is_larger_than_what_is_run(layout: Any, tmp_path: Path) -> None:
    data = data_with(tmp_path, text=" ".join(f"word{number}" for number in range(60)), layout=layout, hide=(0.0, 0.0))
    data.setup()
    largest = data.largest_batches()
    assert [trained for _, trained in largest] == [True, True, False, False, False, False]
    every = every_batch(data)
    names = ("train", "text", "validation", "compared in validation", "test", "compared in test")
    assert {kind for kind, _ in every} == set(names)
    for name, (batch, _) in zip(names, largest, strict=True):
        if layout == "tree" and name == "train":
            continue  # chosen by weight, in which a token counts once for each chain that learns it
        size = "keep" if layout == "tree" or name.startswith("compared") else "input_ids"
        assert batch[size].numel() == max(row[size].numel() for kind, row in every if kind == name), name


def test_the_largest_rows_are_run_before_the_first_step_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = data_with(tmp_path), tiny()
    ran: list[tuple[int, bool]] = []

    def watched(lm: Any, batch: Any) -> torch.Tensor:
        ran.append((len(batch["keep"]), torch.is_grad_enabled()))
        return row_logits(lm, batch)

    monkeypatch.setattr(startup, "row_logits", watched)

    class First(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                assert [grad for _, grad in ran] == [True] * 4 + [False] * 4  # a training row twice: the first time is slower
                assert all(p.grad is None for p in pl_module.parameters())

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=1, limit_val_batches=0, default_root_dir=str(tmp_path), callbacks=[First()], **quiet)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1
    cpu = torch.device("cpu")
    dropping = CoHModule(from_config=TINY | {"attention_dropout": 0.5}, dropout=True)
    dropping.configure_model()
    before = torch.random.get_rng_state()
    assert startup.run_largest(dropping.lm, data.largest_batches(), kinds=len(data.kinds), device=cpu, context=nullcontext()) > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_memory_that_a_held_out_row_has_not_fails_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(logits: torch.Tensor, batch: Any, *, outputs: int) -> Any:
        raise torch.OutOfMemoryError("can't allocate memory")

    monkeypatch.setattr(startup, "output_log_likelihoods", full)
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=1, logger=False, enable_checkpointing=False, default_root_dir=str(tmp_path))
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit(tiny(), datamodule=data_with(tmp_path))
    assert trainer.global_step == 0
