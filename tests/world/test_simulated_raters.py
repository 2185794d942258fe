"""The world's rater in the place of people: it fills sheets from what a sheet shows, and the report finds the truth."""

import json
from pathlib import Path

from coh_lightning.human_eval.main import main as human_eval
from coh_lightning.world.posts import gold_summary, make_posts
from coh_lightning.world.simulated_raters import main


def test_a_simulated_study_finds_the_better_system(tmp_path: Path) -> None:
    posts = make_posts(30, seed=1, split="test")
    wrong = gold_summary(posts[0])
    for name, texts in (("right", [gold_summary(post) for post in posts]), ("wrong", [wrong] * len(posts))):
        lines = [
            {"id": str(i), "prompt": post.text, "completion": text}
            for i, (post, text) in enumerate(zip(posts, texts, strict=True))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = tmp_path / "study"
    files = [str(tmp_path / f"{name}.jsonl") for name in ("wrong", "right")]
    words = ["--raters", "3", "--overlap", "10", "--questions", "summary"]
    assert human_eval(["export", *files, "--output", str(study), *words]) == 0
    untouched = (study / "sheets" / "rater-1.csv").read_bytes()
    assert main([str(study)]) == 0
    assert (study / "sheets" / "rater-1.csv").read_bytes() == untouched
    assert (
        human_eval(["import", str(study), *(str(study / "filled" / f"rater-{number}.csv") for number in (1, 2, 3))])
        == 0
    )
    assert human_eval(["report", str(study)]) == 0
    [pair] = json.loads((study / "report.json").read_text())["analyses"]["all"]["pairs"]
    assert (pair["baseline"], pair["model"]) == ("wrong", "right")
    assert pair["attributes"]["accuracy"]["ties_as_half"]["low"] > 0.8
    assert pair["attributes"]["coherence"]["percent"]["tie"] > 30, "both are well formed"


def test_attributes_that_the_world_does_not_judge_are_refused(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "1", "prompt": "p", "completion": name}) + "\n")
    study = tmp_path / "study"
    assert (
        human_eval(
            [
                "export",
                str(tmp_path / "a.jsonl"),
                str(tmp_path / "b.jsonl"),
                "--output",
                str(study),
                "--attributes",
                "helpful",
                "--raters",
                "1",
            ]
        )
        == 0
    )
    assert main([str(study)]) == 2
    assert "the attribute 'helpful'" in capsys.readouterr().err
