"""A checkpoint that could not be written to its end is none, and the one that stood there is still whole."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import SIGTERMException

from coh_lightning.errors import InputError
from coh_lightning.runs.preemption import RunTrainer, StopOnSignal
from coh_lightning.runs.run_folder import is_whole


@pytest.fixture
def fitted(tmp_path: Path) -> RunTrainer:
    """After one step, with a checkpoint `last.ckpt`."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = RunTrainer(accelerator="cpu", max_steps=1, limit_val_batches=0, default_root_dir=str(tmp_path), **quiet)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "kept" / "last.ckpt")
    return trainer


def half(checkpoint: Any, file: Any) -> None:
    file.write(b"half of it")
    file.flush()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_save_keeps_the_old_checkpoint(
    fitted: RunTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "kept" / "last.ckpt").read_bytes()
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(
        InputError, match=r"last.ckpt can't be written \(No space left on device\); free some space there"
    ):
        fitted.save_checkpoint(tmp_path / "kept" / "last.ckpt")
    assert os.listdir(tmp_path / "kept") == ["last.ckpt"] and (tmp_path / "kept" / "last.ckpt").read_bytes() == before


def test_leftovers_of_a_killed_process_are_overwritten_and_not_resumed_from(fitted: RunTrainer, tmp_path: Path) -> None:
    (tmp_path / "kept" / ".step=1.ckpt.part").mkdir()  # half a folder of shards
    (tmp_path / "kept" / ".step=1.ckpt.part" / "__0_0.distcp").write_bytes(b"half")
    fitted.save_checkpoint(tmp_path / "kept" / "step=1.ckpt")
    assert sorted(os.listdir(tmp_path / "kept")) == ["last.ckpt", "step=1.ckpt"] and is_whole(
        tmp_path / "kept" / "step=1.ckpt"
    )


def test_a_single_file_checkpoint_replaces_a_sharded_folder(fitted: RunTrainer, tmp_path: Path) -> None:
    (tmp_path / "kept" / "step=1.ckpt").mkdir()
    (tmp_path / "kept" / "step=1.ckpt" / ".metadata").write_bytes(b"old")
    fitted.save_checkpoint(tmp_path / "kept" / "step=1.ckpt")
    assert torch.load(tmp_path / "kept" / "step=1.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_what_has_nothing_to_keep_ends_at_once_on_sigterm(command: str, tmp_path: Path) -> None:
    """Without it, a run that was told to end would go on writing for hours."""
    seen = []

    class Ending(BoringModel):
        def one(self, batch: Any, batch_idx: int) -> None:
            seen.append(batch_idx)
            if batch_idx == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        validation_step = test_step = predict_step = one  # type: ignore[assignment]

    def before(number: int, frame: object) -> None:
        raise AssertionError("the handler of before was called")

    kept = signal.signal(signal.SIGTERM, before)
    try:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = RunTrainer(accelerator="cpu", default_root_dir=str(tmp_path), callbacks=[StopOnSignal()], **quiet)
        with pytest.raises(SIGTERMException):
            getattr(trainer, command)(Ending())
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert seen == [0, 1, 2]
