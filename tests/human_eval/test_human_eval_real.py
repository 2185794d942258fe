"""The whole loop on real text and real votes: 200 prompts answered by two of five models each, rated by three people,
taken through export, import and report.

The people's published votes are filled into the blind sheets, so what the report must say is known from the data.
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VOTES = {0: "tie", 1: "response1", 2: "response2"}


def call(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "coh_lightning", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def write_completions(rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One file a model: the form that `human-eval export` reads."""
    files: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        prompt = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
        for model, side in zip(row["cmp_key"].split("_"), ("response1", "response2"), strict=True):
            files.setdefault(model, []).append({"id": str(row["idx"]), "prompt": prompt, "completion": row[side]})
    for model, lines in files.items():
        (folder / f"{model}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return [folder / f"{model}.jsonl" for model in sorted(files)]


def fill(study: Path, rows: list[dict[str, Any]]) -> None:
    """Each annotator's published votes in a sheet; the checks are answered as a careful person would. What a rater sees
    is all that is used.
    """
    by_answers = {frozenset((row["response1"], row["response2"])): row for row in rows}
    for number in (1, 2, 3):
        path = study / "sheets" / f"rater-{number}.csv"
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
        for line in lines:
            answers = {side: line[f"answer_{side}"].removeprefix("'") for side in ("a", "b")}
            if answers["a"] == answers["b"]:
                line["overall"] = "tie"
                continue
            row = (
                by_answers[frozenset(answers.values())]
                if frozenset(answers.values()) in by_answers
                else by_answers[frozenset((line["answer_a"], line["answer_b"]))]
            )
            vote = VOTES[row[f"annotator{number}"]]
            line["overall"] = "tie" if vote == "tie" else "A" if row[vote] == answers["a"] else "B"
        with path.open("w", newline="", encoding="utf-8") as file:  # as a spreadsheet saves it
            writer = csv.DictWriter(file, lines[0], delimiter=";")
            writer.writeheader()
            writer.writerows(lines)


@pytest.fixture(scope="module")
def study(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("pandalm")
    with gzip.open(real_data / "pandalm_200.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [
        row | {side: str(row[side]) for side in ("response1", "response2")} for row in rows
    ]  # one answer is a bare true
    files = write_completions(rows, folder)
    call(
        "human-eval",
        "export",
        *files,
        "--output",
        folder / "study",
        "--raters",
        3,
        "--overlap",
        200,
        "--attributes",
        "overall",
        "--title",
        "Five models",
    )
    fill(folder / "study", rows)
    sheets = sorted((folder / "study" / "sheets").glob("*.csv"))
    call("human-eval", "import", folder / "study", *sheets)
    call("human-eval", "import", folder / "study", *sheets)  # a second time changes nothing
    call("human-eval", "report", folder / "study")
    return folder / "study", rows


@pytest.mark.realdata
@pytest.mark.slow
def test_the_report_matches_the_peoples_answers(study: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = study
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    counts: dict[frozenset[str], Counter[str]] = {}
    for row in rows:
        models = dict(zip(("response1", "response2"), row["cmp_key"].split("_"), strict=True))
        for number in (1, 2, 3):
            vote = VOTES[row[f"annotator{number}"]]
            counts.setdefault(frozenset(models.values()), Counter())["tie" if vote == "tie" else models[vote]] += 1
    found = report["analyses"]["all"]
    assert found["votes"] == 600 and found["prompts"] == len({row["idx"] for row in rows})
    assert {frozenset((pair["baseline"], pair["model"])) for pair in found["pairs"]} == set(counts)
    for pair in found["pairs"]:
        said = counts[frozenset((pair["baseline"], pair["model"]))]
        assert pair["attributes"]["overall"]["counts"] == {
            "baseline": said[pair["baseline"]],
            "tie": said["tie"],
            "model": said[pair["model"]],
        }
    assert found["ranking"] is not None


@pytest.mark.realdata
@pytest.mark.slow
def test_sheets_and_page_do_not_name_a_model(study: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = study
    names = json.loads((folder / "key.json").read_text(encoding="utf-8"))["systems"]
    assert len(names) == 5
    for path in (*folder.glob("sheets/*"), folder / "rate.html", folder / "study.json", folder / "items.jsonl"):
        text = path.read_text(encoding="utf-8")
        assert [name for name in names if name in text] == []


@pytest.mark.realdata
@pytest.mark.slow
def test_agreement_matches_the_votes(study: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = study
    alike: dict[frozenset[str], list[bool]] = {}
    for row in rows:
        votes = [row[f"annotator{number}"] for number in (1, 2, 3)]
        alike.setdefault(frozenset(row["cmp_key"].split("_")), []).extend(
            one == two for one, two in combinations(votes, 2)
        )
    for pair in json.loads((folder / "report.json").read_text(encoding="utf-8"))["analyses"]["all"]["pairs"]:
        of_pair = alike[frozenset((pair["baseline"], pair["model"]))]
        assert pair["attributes"]["overall"]["agreement"]["raw"]["value"] == pytest.approx(
            sum(of_pair) / len(of_pair), abs=1e-12
        )
