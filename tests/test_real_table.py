"""Scripts for docs/real.md: figures by hand, from folders as `coh test` leaves them, and the whole table, small."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from perplexity import WINDOW, main, perplexity, window_nlls
from real_table import main as table

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.human_eval.statistics import wilson
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.tokenizer import load_tokenizer
from coh_lightning.worlds import resolve
from helpers.training import chat_model

TEXT = "\n".join(resolve("text")(60, seed=3))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "text.txt.gz", "wt", encoding="utf-8") as file:
        file.write(TEXT)
    return tmp_path / "text.txt.gz"


def test_a_window_s_nll_is_that_of_its_tokens_but_the_first() -> None:
    found = window_nlls("world", TEXT, windows=2)
    ids = torch.tensor(load_tokenizer("world")(TEXT, add_special_tokens=False)["input_ids"])
    lm = ModelSpec("world").build().eval()
    for window, nll in zip((ids[:WINDOW], ids[WINDOW : 2 * WINDOW]), found, strict=True):
        with torch.no_grad():
            log_p = lm(window[None]).logits[0, :-1].log_softmax(-1)
        assert nll == pytest.approx(-float(log_p.gather(1, window[1:, None]).mean()), rel=1e-5)
    assert perplexity(found).value == pytest.approx(math.exp(sum(found) / 2))


def test_perplexity_is_printed_and_kept(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", str(text), "--windows=2", f"--output={tmp_path / 'perplexity.json'}"]) == 0
    kept = json.loads((tmp_path / "perplexity.json").read_text())
    assert len(kept["nll"]) == 2 and kept["text"] == "text.txt.gz"
    assert (
        capsys.readouterr().out == f"perplexity {perplexity(kept['nll'])} on 2 windows of 512 tokens of text.txt.gz\n"
    )


def run(folder: Path, name: str, *, accuracy: float, shift: float, scored: list[float]) -> str:
    (folder / name).mkdir()
    figures = {
        "test/nll": 9.0,
        "test/nll_good_1": 2.5,
        "test/preference_pairs": 40.0,
        "test/preference_accuracy_sum": accuracy,
    }
    lines = [",".join(figures), ",".join(map(str, figures.values()))]
    (folder / name / "test.csv").write_text("\n".join(lines) + "\n")
    (folder / name / "perplexity.json").write_text(json.dumps({"nll": [1.0 + shift, 3.0 + shift]}))
    written = [
        Completion(f"{n}{ask}", f"p{n}", name, "P", "sha", ask, "", "text", stop="end", scores={"overall": score - gap})
        for ask, gap in (("bad", 0.5), ("good", 0.0))
        for n, score in enumerate(scored)
    ]
    write_jsonl(folder / name / "completions.jsonl", written)
    return str(folder / name)


def test_the_tables_have_intervals_and_differences_to_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        run(tmp_path, "base", accuracy=0.5, shift=0.0, scored=[0.0, 0.5, 1.0]),
        run(tmp_path, "coh", accuracy=0.75, shift=math.log(2), scored=[0.25, 0.75, 1.25]),
    ]
    assert table([*runs, "--scores", "overall", "ended"]) == 0
    printed = capsys.readouterr().out
    _, low, high = wilson(30, 40)
    assert f"| coh | 2.500 | 40 | 75.0% [{low:.1%}, {high:.1%}] | - | - | - | - |" in printed
    assert "| coh | 2 | 14.778 [5.437, 40.171] | 2.000 [2.000, 2.000] |" in printed
    [line] = [line for line in printed.splitlines() if line.startswith("| coh | good | 3 | 0.750")]
    assert line.endswith("| +0.250 [+0.250, +0.250] | +0.000 [+0.000, +0.000] |")
    assert "| base | good | 3 | 0.500" in printed and "| - | - |" in printed  # what the others are compared with
    [line] = [line for line in printed.splitlines() if line.startswith("| base | bad | 3 | 0.000")]
    assert "| -0.500 [-0.500, -0.500] |" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere has no test.csv; run `coh test` with --run.folder=nowhere first."),
        (["base", "--scores", "polite"], "0good has no score polite; it has overall, tokens and ended."),
    ],
)
def test_a_mistake_in_a_table_is_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "base", accuracy=0.5, shift=0.0, scored=[0.0])
    assert table(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["world", "nowhere.txt"], "There is no nowhere.txt; give a file of plain text (.txt or .txt.gz)."),
        (["world", "text.txt.gz", "--windows=0"], "--windows is 0; it must be at least 1"),
        (["world", "text.txt.gz", "--windows=900"], "tokens, fewer than 900 windows of 512; ask for fewer."),
    ],
)
def test_a_mistake_in_a_perplexity_is_one_sentence(
    words: list[str], message: str, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(text.parent)
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.realdata
def test_the_whole_table_is_made_and_a_second_call_keeps_what_is_there(real_data: Path, tmp_path: Path) -> None:
    root, out = Path(__file__).parent.parent, tmp_path / "out"
    sizes = ["--model.generation.sampling.max_new_tokens=8", "--data.max_test_prompts=2"]
    words = ["scripts/real.sh", chat_model(tmp_path / "model"), real_data, out, *sizes]
    words += ["--data.max_unusable_fraction=0.95", f"--data.cache_dir={tmp_path / 'cache'}"]
    programs = {"COH": f"{sys.executable} -m coh_lightning", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    settings = os.environ | programs | {"SEEDS": "0", "STEPS": "1", "PROMPTS": "8", "TEST": "3"}

    def call() -> str:
        done = subprocess.run(words, cwd=root, env=settings, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, (out / "0.log").read_text()[-4000:]
        return done.stdout

    first = call()
    assert all(f"| {name} | " in first for name in ("base", "coh", "coh_lambda", "sft", "constraints_critiques"))
    times = {path: path.stat().st_mtime_ns for path in out.glob("0/*/*") if path.is_file()}
    assert call() == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("0/*/*") if path.is_file()} == times
