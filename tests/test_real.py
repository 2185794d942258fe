"""The whole road on real feedback with a real pretrained model: fit, test and predict as a user calls them, on the
CPU.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coh_lightning.data import CoHDataModule
from coh_lightning.feedback.sources import OASST, Source
from helpers.feedback import method

ROOT = Path(__file__).parent.parent
STEPS = 25


def call(folder: Path, *words: str, data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coh_lightning", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "COH_REAL_DATA": str(data)},
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("hh_sample", []),
        ("oasst", ["--data.method=conf/method/coh_ranking.yaml"]),
        ("defacto", ["--data.method=conf/method/coh_critique.yaml", "--data.wording=conf/wording/critique.yaml"]),
    ],
)
def test_a_pretrained_model_learns_from_real_feedback(
    source: str, changes: list[str], real_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = [
        "--config",
        "conf/experiment/stories260k.yaml",
        "--config",
        f"tests/conf/{source}.yaml",
        *changes,
        f"--run.folder={run}",
        f"--data.cache_dir={tmp_path / 'cache'}",
    ]
    call(tmp_path, "fit", *config, f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1", data=real_data)
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/nll"]) for row in csv.DictReader(file) if row.get("train/nll")]
    assert len(losses) == STEPS and sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1, losses
    report = json.loads((run / "data.json").read_text())
    assert report["splits"]["train"]["used"] > 100 and report["tree_saves"] >= 1.0
    last = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    call(tmp_path, "test", *config, last, "--data.max_test_prompts=8", data=real_data)
    with (run / "test.csv").open(newline="") as file:
        [figures] = csv.DictReader(file)
    assert 0 < float(figures["test/nll"]) < losses[0]
    assert (
        0 <= float(figures.get("test/preference_accuracy_sum", 0.5)) <= 1
    )  # defacto has single completions: nothing to compare
    call(tmp_path, "predict", *config, last, "--trainer.limit_predict_batches=1", data=real_data)
    completions = [json.loads(line) for line in (run / "completions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert completions and {one["ask"] for one in completions} == {"good", "bad"}
    assert all(one["prompt"].endswith(one["marker"] + "\n") for one in completions)
    if source == "hh_sample":
        few = ["--trainer.limit_predict_batches=1", "--model.generation.sampling.max_new_tokens=8"]
        call(tmp_path, "predict", *config, last, *few, "--model.generation.dialogues=true", data=real_data)
        words = [
            "--control",
            "bad",
            "good",
            "--dialogues",
            "--attributes",
            "helpful",
            "harmless",
            "--output",
            str(tmp_path / "study"),
        ]
        call(tmp_path, "human-eval", "export", str(run / "completions.jsonl"), *words, data=real_data)
        items = [
            json.loads(line) for line in (tmp_path / "study" / "items.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert any(text.count("User: ") > 2 for item in items for text in item["texts"])


@pytest.mark.realdata
@pytest.mark.parametrize("limit", [320, 1024])
def test_truncated_real_rankings_never_begin_with_a_comparison(limit: int, real_data: Path, tmp_path: Path) -> None:
    sources: list[Source] = [OASST(str(real_data / "oasst_en_100_trees.jsonl.gz"))]
    sizes = {
        "max_prompt_tokens": limit // 2,
        "max_chain_tokens": limit,
        "row_tokens": limit,
        "max_unusable_fraction": 1.0,
    }
    data = CoHDataModule(
        sources=sources,
        method=method("coh_ranking"),
        tokenizer=str(real_data / "stories260k"),
        cache_dir=str(tmp_path),
        **sizes,
    )
    data.setup()
    assert data.counts["train"].links_cut > 100
    wording = data.wording
    for one in data.splits["train"]:
        for epoch in (0, 1):
            heads = {chain[0].marker for chain in data.planner.chains(one, epoch)}
            assert heads <= {wording.best, wording.middle, wording.worst}
