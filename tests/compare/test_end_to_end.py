"""One study with real commands, from the world's folder to the page, and once more: nothing is run twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STUDY = """\
config: conf/quickstart.yaml
settings:
  trainer.max_steps: 3
  trainer.limit_val_batches: 0
  model.generation.generate_every_n_validations: 0
worlds:
  noise: {kind: noise, shipped: true, records: 60}
evaluation: {temperatures: [1, 0], prompts: 8}
tune: {prompts: 6}
methods:
  base: {command: none, settings: {data.method: conf/method/sft.yaml}}
  sft: {settings: {data.method: conf/method/sft.yaml}, rates: [0.001, 0.003]}
  coh: {}
  bad: {fit: coh, evaluation: {condition: bad}}
  cutoff: {fit: coh, evaluation: {temperatures: [1], settings: {model.generation.sampling.guidance: 0}}}
baseline: sft
primary: [{compare: [coh, sft], world: noise, temperature: 1}]
"""


def compare(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coh_lightning", "compare", "tiny.yaml", "--folder=s", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1500)


@pytest.mark.slow
def test_a_study_from_its_world_to_its_page(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    done = compare(tmp_path, "--jobs=2")
    assert (done.returncode, "5 of 5 rows finished" in done.stdout) == (0, True), done.stderr + done.stdout
    lines = [json.loads(line) for line in (tmp_path / "s" / "results.jsonl").read_text().splitlines()]
    assert sorted(line["row"] for line in lines) == [
        "noise/bad/base0/seed0", "noise/base/base0/seed0", "noise/coh/base0/seed0", "noise/cutoff/base0/seed0",
        "noise/sft/base0/seed0", "noise/sft/base0/seed0/rate=0.001", "noise/sft/base0/seed0/rate=0.003",
    ]  # fmt: skip
    by_name = {line["method"]: line for line in lines if not line.get("tuning")}
    assert all(line["n"] == 8 and len(line["scores"]["1"]) == 16 for line in by_name.values())
    assert by_name["coh"]["steps"] == 3 and by_name["sft"]["rate"] in (0.001, 0.003)
    assert by_name["coh"]["scores"] != by_name["bad"]["scores"]
    assert len(list((tmp_path / "s" / "fits").iterdir())) == 3, "two rates and one fit for three rows"
    found = json.loads((tmp_path / "s" / "compare.json").read_text())
    assert found["primary"][0]["difference"]["runs"] == 1
    assert "<svg" in (tmp_path / "s" / "report.html").read_text()
    # the file of results alone is enough
    (tmp_path / "s").rename(tmp_path / "gone")
    again = compare(tmp_path, "--results=gone/results.jsonl")
    assert again.returncode == 0 and "left: 0 base models, 0 worlds, 0 fits, 0 tests" in again.stderr
    assert json.loads((tmp_path / "s" / "compare.json").read_text()) == found
    assert not (tmp_path / "s" / "fits").exists()


@pytest.mark.slow
def test_a_configuration_that_does_not_compose_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("coh: {}", "coh: {settings: {model.lrr: 1}}"))
    done = compare(tmp_path, "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: tiny.yaml:13: methods.coh: ") and "model.lrr" in done.stderr
    assert "did you mean" in done.stderr and not (tmp_path / "s").exists()
