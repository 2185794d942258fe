"""What is measured and shown before training: the memory that is to be expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from feedback_for_tests import data_of, pairs, tiny

from coh_lightning.models import LoRA
from coh_lightning.startup import expected_memory, in_bytes


def test_bytes_are_shown_in_the_unit_that_fits() -> None:
    assert [in_bytes(number) for number in (0, 5 * 2**20, 2**30, 1.5 * 2**30)] == ["0 MiB", "5 MiB", "1024 MiB", "1.5 GiB"]


def test_the_screen_says_how_much_is_still_to_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    for steps, left, start in ((2, 2, None), (5, 3, tmp_path / "two.ckpt")):
        run = pl.Trainer(**quiet, accelerator="cpu", devices=1, use_distributed_sampler=False, default_root_dir=str(tmp_path), max_steps=steps)
        run.fit(tiny(), datamodule=data_of(pairs(24), tmp_path, rows_per_step=2), ckpt_path=start, weights_only=True)
        run.save_checkpoint(tmp_path / "two.ckpt")
        assert f"{left} steps of 2 micro-batches on each of 1 rank(s)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_the_expected_memory_is_that_of_weights_gradients_logits_and_activations(attention: Any, recomputed: bool) -> None:
    model = tiny(attention=attention)
    model.configure_model()
    tokens, predicted, heads = 100, 40, 2 if attention == "eager" else 1
    held = sum(parameter.numel() for parameter in model.parameters()) * 4
    activations = (1 if recomputed else 2) * (34 * tokens * 32 + 4 * heads * tokens**2) * 2
    found = expected_memory(model.lm, tokens=tokens, predicted=predicted, device=torch.device("cpu"), recomputed=recomputed)
    assert found == 4 * held + 3 * 4 * predicted * 520 + activations


def test_the_expected_memory_on_a_gpu_is_what_was_measured_and_the_optimizers_two_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(lora=LoRA(rank=2, targets=("q_proj",)))
    model.configure_model()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    assert expected_memory(model.lm, tokens=9, predicted=9, device=torch.device("cuda", 0), recomputed=False) == 1000 + 2 * 4 * trained
