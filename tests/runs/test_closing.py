"""The last lines of `fit`."""

from __future__ import annotations

from pathlib import Path

from coh_lightning.runs.closing import closing_lines, moved


def run_with(folder: Path, metrics: str, *, samples: bool = True, checkpoint: bool = True) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.csv").write_text(metrics)
    for name, there in (("samples.html", samples), ("checkpoints/last.ckpt", checkpoint)):
        if there:
            (folder / name).write_text("")
    return folder


VALIDATED = """step,train/loss,val/nll,val/preference_accuracy_sum,val/gap_tokens,val/gap_overall,val/gap_overall_low
9,0.8,,,,,
20,,0.467,0.5,-3,-0.0131,-0.1
39,0.7,,,,,
40,,0.419,0.62,-2,0.008,-0.05
"""


def test_five_lines_say_where_it_is_what_moved_and_what_comes_next(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "my run", VALIDATED)
    quoted = f"'{folder}'"
    assert closing_lines(folder, "40 steps") == [
        f"finished: {folder} (40 steps)",
        "figures:  val/nll 0.467 → 0.419, val/gap_overall −0.013 → +0.008",
        f"samples:  {folder}/samples.html (open it in a browser)",
        f"ask it:   coh chat {quoted}",
        f"test it:  coh test --config '{folder}/config.yaml' --ckpt_path='{folder}/checkpoints/last.ckpt' "
        f"--run.folder={quoted}",
    ]


def test_without_samples_or_a_checkpoint_nothing_is_promised(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "r", VALIDATED, samples=False, checkpoint=False)
    assert closing_lines(folder, "1 step")[2:] == ["samples:  test writes some"]


def test_figures_are_the_gap_else_preference_accuracy_else_the_training_loss(tmp_path: Path) -> None:
    preferences = "step,val/nll,val/preference_accuracy_sum\n1,0.5,0.5\n"
    assert moved(run_with(tmp_path / "a", preferences) / "metrics.csv") == [
        "val/nll 0.500", "val/preference_accuracy_sum 0.500"
    ]  # fmt: skip
    assert moved(run_with(tmp_path / "b", "step,train/loss\n1,2.5\n2,1.25\n") / "metrics.csv") == [
        "train/loss 2.50 → 1.25"
    ]
    assert moved(run_with(tmp_path / "c", "step,loss\n1,2.5\n") / "metrics.csv") == []
    assert moved(tmp_path / "d" / "metrics.csv") == []
