"""From finished rows alone to compare.json, tables, page, and the Markdown between two marks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from coh_lightning.compare.pictures import ticks
from coh_lightning.compare.report import between, short, show, within, write_between, write_report
from coh_lightning.compare.results import pack
from coh_lightning.compare.rows import in_order, row_key, rows_of, with_rate
from coh_lightning.compare.study import Study
from coh_lightning.compare.study_file import read_study
from coh_lightning.compare.summary import summary
from coh_lightning.errors import InputError
from coh_lightning.human_eval.statistics import holm
from helpers.browser import WATCH, Browser

TEXT = """\
about: Of <b>two</b> methods.
config: conf/quickstart.yaml
worlds:
  low: {kind: habits, hasty: 0.2}
  high: {kind: habits, hasty: 0.8}
seeds: [0, 1, 2]
evaluation: {temperatures: [1, 0.7, 0], prompts: 50}
methods:
  base: {command: none, label: base model}
  sft: {rates: [0.001, 0.003], label: SFT}
  coh: {label: CoH}
baseline: sft
primary:
- {compare: [coh, sft], world: high, temperature: 0.7}
- {compare: [coh, base], world: high, temperature: 0.7}
claims:
- {claim: CoH beats SFT, paper: 27.45 to 24.87, compare: [coh, sft], world: high, temperature: 0.7}
- {claim: SFT beats CoH, paper: none, compare: [sft, coh], world: high, temperature: 0.7}
- {claim: fewer losses, paper: none, compare: [sft, coh], world: high, temperature: 0.7, figure: nll}
axes:
- {name: share of hasty writers, setting: hasty, worlds: [high, low], methods: [sft, coh], temperature: 0.7}
"""
MEANS = {"base": 0.5, "sft": 0.6, "coh": 0.7}
COMPOSED = {name: {"name": name} for name in MEANS}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    file = tmp_path / "two.yaml"
    file.write_text(TEXT)
    return read_study(file)


def results(study: Study, *, leave_out: str = "no such row") -> dict[str, Any]:
    """Lines as of finished rows; the rate .003 of SFT is the better one."""
    random, found = np.random.default_rng(0), {}
    for row in in_order(study, rows_of(study)):
        if not row.tuning and row.method.rates:
            row = with_rate(row, 0.003)
        if re.search(leave_out, row.name):
            continue
        mean = MEANS[row.method.name] + (row.rate or 0)
        scores = {f"{one:g}": random.normal(mean, 0.05, 50).clip(0, 1) for one in row.evaluation.temperatures}
        key = row_key(study, row, COMPOSED[row.method.name])
        found[key] = {
            "key": key, "row": row.name, "world": row.world.name, "method": row.method.name, "base": row.base,
            "seed": row.seed, "rate": row.rate, "n": 50, "prompts": "p", "steps": 400, "epochs": 4.8,
            "scores": {one: pack(values.tolist()) for one, values in scores.items()},
            "figures": {one: {"accuracy": 0.5} for one in scores}, "held_out": {"nll": mean},
        }  # fmt: skip
    return found


def test_means_differences_and_verdicts(study: Study) -> None:
    found = json.loads(json.dumps(summary(study, COMPOSED, results(study))))
    assert found["rows"] == {"expected": 18, "finished": 18}
    entry = next(one for one in found["table"] if (one["world"], one["method"]) == ("high", "coh"))
    assert (entry["runs"], entry["expected"], entry["epochs"]) == (3, 3, 4.8)
    assert entry["scores"]["0.7"]["mean"] == pytest.approx(0.7, abs=0.02)
    difference = entry["differences"]["0.7"]
    assert difference["mean"] == pytest.approx(0.097, abs=0.02)
    assert difference["low"] < difference["mean"] < difference["high"]
    assert [one["verdict"] for one in found["claims"][:2]] == ["holds", "does not hold"]
    assert found["claims"][2]["difference"]["mean"] == pytest.approx(-0.097)
    p = [one["difference"]["p"] for one in found["primary"]]
    assert [one["p_holm"] for one in found["primary"]] == pytest.approx(holm(p), abs=1e-4)
    assert [point["x"] for point in found["axes"][0]["lines"]["CoH"]] == [0.2, 0.8]
    chosen = {one["row"]: one["chosen"] for one in found["tuning"]}
    assert chosen == {"low/sft/base0/seed0": 0.003, "high/sft/base0/seed0": 0.003}


def test_a_part_finished_study_says_how_many_runs_it_has(study: Study) -> None:
    found = summary(study, COMPOSED, results(study, leave_out="coh/base0/seed[12]|high/sft|low/base"))
    entries = {(one["world"], one["method"]): one for one in found["table"]}
    assert entries["high", "coh"]["runs"] == 1 and entries["high", "coh"]["scores"]["0.7"]["runs"] == 1
    assert entries["high", "sft"]["scores"] == {} and entries["low", "base"]["runs"] == 0
    assert found["claims"][0] | {"difference": None} == found["claims"][0]
    assert found["claims"][0]["verdict"] == "can't be told"
    assert found["primary"][0]["p_holm"] is None
    assert found["primary"][1]["difference"]["runs"] == 1
    console = Console(width=80, record=True, quiet=True)
    show(found, console)


def test_nothing_finished(study: Study, tmp_path: Path) -> None:
    found = summary(study, COMPOSED, {})
    show(found, Console(width=80, quiet=True))
    assert "0 of 18 rows finished" in write_report(found, tmp_path / "report.html").read_text()


def test_the_tables_fit_80_columns(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    show(summary(study, COMPOSED, results(study)), Console(width=80))
    said = capsys.readouterr().out
    assert "two: 18 of 18 rows finished, 50 prompts in each" in said and "CoH - SFT, high, T .7: +.09" in said
    assert max(map(len, said.splitlines())) <= 80
    (line,) = [line for line in said.split("high")[1].splitlines() if line.startswith("CoH  ")]
    assert re.fullmatch(r"CoH +3( +\.\d{3} ±\.\d{3}){3} +\.\d{3} \[\.\d{3}, \.\d{3}\]", line.strip())


def test_figures_as_the_field_writes_them() -> None:
    found = {"mean": 0.039, "low": -0.0291, "high": 0.0494}
    assert between(found) == "+.039 [-.029, +.049]"
    assert within({"mean": 0.875, "low": 0.863, "high": 0.887}) == ".875 ±.012"
    assert within({"mean": 1.0, "low": None, "high": None}) == "1.000"
    assert (between(None), within(None), short(None)) == ("-", "-", "-")


@pytest.mark.parametrize(("low", "high"), [(0.78, 0.93), (0.0, 1.0), (0.5, 0.5), (-3.2, 8.1)])
def test_ticks_reach_around_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 1 <= len(found) <= 8


def test_markdown_is_written_between_the_marks(study: Study, tmp_path: Path) -> None:
    found, page = summary(study, COMPOSED, results(study)), tmp_path / "page.md"
    page.write_text("before\n<!-- compare two -->\nformer\n<!-- end of compare two -->\nafter\n")
    write_between(page, found)
    text = page.read_text()
    assert text.startswith("before\n<!-- compare two -->\n") and text.endswith("<!-- end of compare two -->\nafter\n")
    assert "former" not in text and "| CoH beats SFT | 27.45 to 24.87 | CoH - SFT, high, T .7 |" in text
    write_between(page, found)
    assert page.read_text() == text
    page.write_text("nothing")
    with pytest.raises(InputError, match=r"must have the lines <!-- compare two -->"):
        write_between(page, found)
    with pytest.raises(InputError, match=r"there is no .*none\.md"):
        write_between(tmp_path / "none.md", found)


def test_the_page_shows_its_pictures_and_breaks_no_policy(study: Study, tmp_path: Path, browser: Browser) -> None:
    page = write_report(summary(study, COMPOSED, results(study)), tmp_path / "report.html")
    assert "Of &lt;b&gt;two&lt;/b&gt; methods." in page.read_text()
    with browser.before_its_own_script(WATCH):
        browser.show(page.as_uri())
    assert browser.js("return violations") == []
    assert browser.js("return document.querySelectorAll('svg').length") == 1 + 2 * 3
    assert browser.js("return document.querySelectorAll('.baseline').length") == 2 * 3
    inside = """
    const page = document.documentElement.clientWidth;
    return [...document.querySelectorAll('svg text')].filter(it => {
      const box = it.getBoundingClientRect(); return box.left < 0 || box.right > page || box.width === 0;
    }).map(it => it.textContent)"""
    assert browser.js(inside) == []
