"""Before the first step, the largest row of each kind of all stages is run once, without side effects."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from coh_lightning.data import CoHDataModule
from coh_lightning.model.head import row_losses
from coh_lightning.model.lora import LoRA
from coh_lightning.model.losses import TokenLosses
from coh_lightning.module import CoHModule
from coh_lightning.training import run_summary
from coh_lightning.training.run_summary import expected_memory, in_bytes
from helpers.feedback import TINY, data_of, pairs, tiny


def test_a_setting_is_shown_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    setting = "data.prompt_format.kept_tokens=['</think>','<think>','<tool_call>','</tool_call>']"
    run_summary.show([("note", f"Keep them: {setting}.")])
    assert setting in "".join(line.strip() for line in capsys.readouterr().err.splitlines())


def long_one(number: int, words: int) -> dict[str, Any]:
    texts = [
        {"text": " ".join(f"{word}{place}" for place in range(words)), "rank": rank}
        for rank, word in enumerate(("good", "bad"), start=1)
    ]
    return {"id": f"long {number}", "prompt": f"Long question {number}?", "completions": texts}


def data_with(folder: Path, *, text: str = "", **settings: Any) -> CoHDataModule:
    """Short records, a longer one in each split, and some text."""
    (folder / "text.txt").write_text("a few words\n" * 9 + text, encoding="utf-8")
    rows = [*pairs(30), *(long_one(number, 12) for number in range(12))]
    held_out = {
        "validation_share": 0.3,
        "test_share": 0.3,
        "pretraining_text": [str(folder / "text.txt")],
        "pretraining_rows_per_step": 1,
    }
    return data_of(rows, folder, train_only=False, **(held_out | settings))


def every_batch(data: CoHDataModule) -> list[tuple[str, dict[str, Any]]]:
    """All rows that any stage would run in the first epoch."""
    found: list[tuple[str, dict[str, Any]]] = []
    for step in range(data.plan.steps_per_epoch):
        found += [
            ("text" if planned.pretraining else "train", dict(data.rows.train_batch(planned, 0)))
            for planned in data.plan.step(0, step)
        ]
    for stage in ("validation", "test"):
        for table in data.held_out(stage):
            for index in range(table.count):
                batch = table.build(index)
                found += (
                    [(stage, batch)]
                    if "rows" not in batch
                    else [(f"compared in {stage}", row) for row in batch["rows"]]
                )
    return found


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_no_row_of_any_stage_is_larger_than_what_is_run(layout: Any, tmp_path: Path) -> None:
    data = data_with(
        tmp_path, text=" ".join(f"word{number}" for number in range(60)), layout=layout, fcm_range=(0.0, 0.0)
    )
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


def test_the_largest_rows_are_run_before_the_first_step_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = data_with(tmp_path), tiny()
    ran: list[tuple[int, bool]] = []

    def watched(lm: Any, batch: Any) -> TokenLosses:
        ran.append((len(batch["keep"]), torch.is_grad_enabled()))
        return row_losses(lm, batch)

    monkeypatch.setattr(run_summary, "row_losses", watched)

    class First(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                assert [grad for _, grad in ran] == [True] * 4 + [
                    False
                ] * 4  # a training row twice: the first time is slower
                assert all(p.grad is None for p in pl_module.parameters())

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=1,
        limit_val_batches=0,
        default_root_dir=str(tmp_path),
        callbacks=[First()],
        **quiet,
    )
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1
    cpu = torch.device("cpu")
    dropping = CoHModule(from_config=TINY | {"attention_dropout": 0.5}, dropout=True)
    dropping.configure_model()
    before = torch.random.get_rng_state()
    assert (
        run_summary.run_largest(
            dropping.lm, data.largest_batches(), kinds=len(data.kinds), device=cpu, context=nullcontext()
        )
        > 0
    )
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_held_out_row_that_does_not_fit_fails_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(logits: torch.Tensor, batch: Any, *, outputs: int) -> Any:
        raise torch.OutOfMemoryError("can't allocate memory")

    monkeypatch.setattr(run_summary, "output_log_likelihoods", full)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=str(tmp_path),
    )
    with pytest.raises(torch.OutOfMemoryError):
        trainer.fit(tiny(), datamodule=data_with(tmp_path))
    assert trainer.global_step == 0


def test_bytes_are_shown_in_the_unit_that_fits() -> None:
    assert [in_bytes(number) for number in (0, 5 * 2**20, 2**30, 1.5 * 2**30)] == [
        "0 MiB",
        "5 MiB",
        "1024 MiB",
        "1.5 GiB",
    ]


def test_the_summary_shows_the_steps_that_remain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
    }
    for steps, left, start in ((2, 2, None), (5, 3, tmp_path / "two.ckpt")):
        run = pl.Trainer(
            **quiet,
            accelerator="cpu",
            devices=1,
            use_distributed_sampler=False,
            default_root_dir=str(tmp_path),
            max_steps=steps,
        )
        run.fit(tiny(), datamodule=data_of(pairs(24), tmp_path, rows_per_step=2), ckpt_path=start, weights_only=True)
        run.save_checkpoint(tmp_path / "two.ckpt")
        assert f"{left} steps of 2 micro-batches on each of 1 rank," in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_the_expected_memory_is_weights_gradients_logits_and_activations(attention: Any, recomputed: bool) -> None:
    model = tiny(attention=attention)
    model.configure_model()
    tokens, predicted, heads = 100, 40, 2 if attention == "eager" else 1
    held = sum(parameter.numel() for parameter in model.parameters()) * 4
    block = 4 * (tokens * (8 * 32 + 4 * model.lm.config.intermediate_size) + 2 * heads * tokens**2)
    activations = 4 * tokens * 2 * 32 + 2 * block if recomputed else 2 * block
    found = expected_memory(
        model.lm, tokens=tokens, predicted=predicted, device=torch.device("cpu"), recomputed=recomputed
    )
    assert found == 4 * held + 3 * 4 * predicted * 520 + activations


def test_the_expected_memory_on_a_gpu_is_what_was_measured_and_the_optimizers_two_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny(lora=LoRA(rank=2, targets=("q_proj",)))
    model.configure_model()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    assert (
        expected_memory(model.lm, tokens=9, predicted=9, device=torch.device("cuda", 0), recomputed=False)
        == 1000 + 2 * 4 * trained
    )
