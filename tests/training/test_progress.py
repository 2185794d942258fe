"""The progress of a run: one line on a terminal, a few in a log."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest

from coh_lightning.training import progress
from coh_lightning.training.progress import ProgressLine, RunProgress, duration
from helpers.stand_ins import Data, Model
from helpers.terminal import Terminal

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.__main__ import main
from helpers.stand_ins import Data, Model, Source
cli.ours = lambda: (Model, Data, (Source,))
sys.exit(main())
"""
WORDS = ["--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1", "--trainer.num_sanity_val_steps=0"]


def test_a_terminal_shows_one_line_of_at_most_80_columns_for_the_whole_run(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    terminal = Terminal(["script.py", "fit", *WORDS, "--trainer.max_epochs=2", "--run.folder=r"], cwd=tmp_path)
    assert terminal.wait() == 0, terminal.said
    shown = [line for line in terminal.lines if "step " in line and "━" in line]
    assert shown and max(map(len, shown)) <= 80, terminal.lines
    assert all(" of 12" in line for line in shown) and "step 12 of 12" in shown[-1]  # both epochs are one way
    after = terminal.lines[terminal.lines.index(shown[-1]) + 1 :]
    assert [line.split(":")[0] for line in after if "━" not in line] == ["finished", "samples", "ask it", "test it"]
    assert not [line for line in terminal.lines if "Epoch" in line or "Trainer.fit" in line]


def trainer(folder: Path, **options: object) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, callbacks=[RunProgress()], **(quiet | options))  # type: ignore[arg-type]


def lines_of(said: str) -> list[str]:
    return [line for line in said.split("\n") if " of " in line]


def test_a_log_gets_a_line_at_each_tenth_of_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress, "monotonic", lambda: float(next(now)))
    trainer(tmp_path, max_epochs=5, limit_val_batches=0).fit(Model(), datamodule=Data())
    said = lines_of(capsys.readouterr().err)
    assert [line.split(" · ")[0] for line in said] == [f"step {3 * tenth} of 30" for tenth in range(1, 11)]
    assert "left" in said[0] and "left" not in said[-1]


def test_a_short_run_leaves_a_log_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(tmp_path, max_epochs=1)
    run.fit(Model(), datamodule=Data())
    run.test(Model(), datamodule=Data(), verbose=False)
    assert lines_of(capsys.readouterr().err) == []


def test_held_out_batches_are_counted_loader_by_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(progress, "monotonic", lambda: float(next(now)))
    run = trainer(tmp_path)
    run.test(Model(), datamodule=Data(), verbose=False)
    assert [line.split(" · ")[0] for line in lines_of(capsys.readouterr().err)] == [
        f"losses {number} of 6" for number in range(1, 6)
    ]
    run.predict(Model(), datamodule=Data(), return_predictions=False)
    assert len(lines_of(capsys.readouterr().err)) == 5


def test_validation_within_fit_belongs_to_the_line_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    class Kept(ProgressLine):
        def show(self, words: str, done: int, total: int, **more: object) -> None:
            seen.append(f"{words} | {more.get('at_work')}")

    monkeypatch.setattr(progress, "ProgressLine", Kept)
    trainer(tmp_path, max_epochs=1, num_sanity_val_steps=2, val_check_interval=3).fit(Model(), datamodule=Data())
    assert [line for line in seen if line.startswith("first check")] == [
        f"first check {n} of 2 | None" for n in range(2)
    ]
    assert [line for line in seen if "validation" in line] == [
        f"step {step} of 6 | validation {n} of 6" for step in (3, 6) for n in range(1, 7)
    ]


def test_time_left_counts_only_what_this_process_has_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that resumed at step 50 and took 20 s for 10 steps needs 80 s for 40 more."""
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    line = ProgressLine(transient=True)
    now = 20.0
    line.show("step 60 of 100", 60, 100, since=50, at_work="loss 0.500")
    line.stop()
    assert capsys.readouterr().err == "step 60 of 100 · 1:20 left · loss 0.500\n"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 7, 750, 11_100)] == ["0:00", "0:07", "12:30", "3:05:00"]
