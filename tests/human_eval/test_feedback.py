"""`coh feedback`: studies, a judge's judgments and scores become records that say the same: polarity, ties, critiques,
raters; people and judges apart; everything left out is counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from coh_lightning.__main__ import main
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.human_eval.export import export_study
from coh_lightning.human_eval.items import match
from coh_lightning.human_eval.study import Study
from coh_lightning.human_eval.systems import read_systems
from coh_lightning.world import raters
from coh_lightning.world.posts import gold_summary, make_posts
from coh_lightning.world.simulated_raters import main as fill
from helpers.completions import completions, lines_of

JUDGE = "judge:m"


def study_of(folder: Path, *names: str, number: int = 3, **options: Any) -> Study:
    """A study of systems whose completions are `NAME's answer 0` to `Question 0?`, ... under the ids p0, ..."""
    files = [completions(folder, name, number) for name in names]
    settings = {"raters": 1, "attributes": ("overall",), "swaps": 0, "identical": 0, **options}
    return export_study(files, folder / "study", **settings)


def judged(folder: Path, study: Study, said: Sequence[Mapping[str, Any]]) -> Path:
    """The study with judgments: each of prompt (its number), pair "x>y", and what else a judgment has."""
    items = {(about["prompt_id"], *sorted(about["systems"])): item for item, about in study.key["items"].items()}
    lines = []
    for number, one in enumerate(said):
        more = dict(one)
        prompt, words = f"p{more.pop('prompt', 0)}", more.pop("pair")
        sign = next(mark for mark in "><=" if mark in words)
        left, right = words.split(sign)
        line = {
            "item": items[prompt, *sorted((left, right))],
            "row": f"r{number}",
            "prompt_id": prompt,
            "rater": "rater-1",
            "attribute": "overall",
            "choice": {">": left, "<": right, "=": "tie"}[sign],
            "systems": [left, right],
        }
        lines.append(line | more)
    return lines_of(folder / "study" / "judgments.jsonl", lines).parent


def feedback(folder: Path, *words: object) -> list[Feedback]:
    assert main(["feedback", *map(str, words), "--output", str(folder / "out.jsonl")]) == 0
    return list(read_jsonl(folder / "out.jsonl", Feedback))


def ranks(record: Feedback) -> dict[str, float | None]:
    """Author -> rank."""
    return {str(one.author): one.rank for one in record.candidates}


def error(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with TemporaryDirectory() as folder:
        assert main(["feedback", *map(str, words), "--output", f"{folder}/never.jsonl"]) == 2
        assert not list(Path(folder).iterdir())
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


# --- studies


def test_votes_become_ranks_with_rater_time_and_side(tmp_path: Path) -> None:
    study = study_of(tmp_path, "x", "y")
    folder = judged(
        tmp_path,
        study,
        [
            {"pair": "y>x", "seconds": 12.5},
            {"prompt": 1, "pair": "y<x"},
            {"prompt": 2, "pair": "x=y", "rater": "rater-2"},
        ],
    )
    records = feedback(tmp_path, folder)
    assert [record.to_json() | {"id": ""} for record in records[:1]] == [
        {
            "id": "",
            "prompt": [{"role": "user", "content": "Question 0?"}],
            "completions": [
                {"text": "y's answer 0", "rank": 1.0, "author": "y"},
                {"text": "x's answer 0", "rank": 2.0, "author": "x"},
            ],
            "task": "answer",
            "source": "people",
            "extra": {
                "prompt_id": "p0",
                "votes": [
                    {"rater": "rater-1", "study": study.id, "row": "r0", "shown": [0, 1], "choice": 0, "seconds": 12.5}
                ],
            },
        }
    ]
    assert [ranks(record) for record in records] == [{"y": 1, "x": 2}, {"x": 1, "y": 2}, {"x": 1, "y": 1}]
    assert records[2].extra["votes"][0] == {
        "rater": "rater-2",
        "study": study.id,
        "row": "r2",
        "shown": [0, 1],
        "choice": "tie",
    }


def test_each_attribute_has_a_record_and_critiques_stand_once_beside_overall(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(tmp_path, "x", "y", attributes=("accuracy", "overall"))
    row = {"row": "one", "comment": "A: late. B: kind"}
    other = {"row": "two", "rater": "rater-2", "comment": "Answer A is rude!"}
    said = [
        {"pair": "y>x", "attribute": "accuracy", **row},
        {"pair": "y<x", "attribute": "overall", **row},
        {"pair": "x>y", "attribute": "accuracy", **other},
        {"pair": "x>y", "attribute": "overall", **other},
        {"pair": "x>y", "prompt": 1, "attribute": "accuracy", "row": "three", "comment": "hm"},
    ]
    folder = judged(tmp_path, study, said)
    overall, accuracy, alone = feedback(tmp_path, folder)
    printed = capsys.readouterr().out
    assert (overall.aspect, ranks(overall)) == (None, {"x": 1, "y": 2})
    assert (accuracy.aspect, ranks(accuracy)) == ("accuracy", {"x": 1, "y": 1})
    assert {one.author: one.critique for one in overall.candidates} == {"y": "late.", "x": "kind. This answer is rude!"}
    assert [one.critique for one in (*accuracy.candidates, *alone.candidates)] == [None] * 4
    assert "critiques from comments: 3, of 2 texts" in printed
    assert "comments that don't speak of one side: 1 (first: rater-1, row three)" in printed
    assert (
        "pairs with several votes: 2; with votes for both sides: 1, of which tied: 1 (first: prompt 'p0', acc"
        in printed
    )
    [only] = feedback(tmp_path, folder, "--attributes", "overall", "--task", "reply")
    assert (ranks(only), only.task) == ({"x": 1, "y": 2}, "reply")
    assert {one.critique for one in only.candidates} == {"late.", "kind. This reply is rude!"}


def test_the_task_of_the_completions_is_kept_without_them(tmp_path: Path) -> None:
    files = [completions(tmp_path, name, 2) for name in ("x", "y")]
    for file in files:
        lines = [{**json.loads(line), "task": "summary"} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {"raters": 1, "attributes": ("overall",), "swaps": 0, "identical": 0}
    study = export_study(files, tmp_path / "study", **options)  # type: ignore[arg-type]
    folder = judged(tmp_path, study, [{"prompt": 0, "pair": "x>y"}])
    assert main(["feedback", str(folder), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert [one.task for one in read_jsonl(tmp_path / "out.jsonl", Feedback)] == ["summary"]


def test_three_systems_share_a_record_and_a_cycle_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(tmp_path, "x", "y", "z")
    said = [{"pair": pair} for pair in ("x>y", "y>z", "z<x")]
    said += [{"prompt": 1, "pair": pair} for pair in ("x>y", "y>z")]
    cycle = {"prompt": 2, "comment": "A: odd"}
    folder = judged(tmp_path, study, [*said, *({"pair": pair, **cycle} for pair in ("x>y", "y>z", "z>x"))])
    records = feedback(tmp_path, folder)
    assert [ranks(record) for record in records[:3]] == [{"x": 1, "y": 2, "z": 3}, {"x": 1, "y": 2}, {"y": 1, "z": 2}]
    assert [(ranks(one), {each.critique for each in one.candidates}) for one in records[3:]] == [
        ({"x": None, "y": None, "z": None}, {"odd"})
    ]
    printed = capsys.readouterr().out
    assert "cycles (A over B over C over A): 1, whose 3 pairs are left out (first: prompt 'p2', overall)" in printed
    assert "prompts whose pairs give no one order, so that each is a record: 1\n" in printed


def test_checks_and_equal_or_empty_texts_are_counted_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = lines_of(tmp_path / "x.jsonl", [{"id": f"p{n}", "prompt": "Q?", "completion": t} for n, t in enumerate("aab")])
    y = lines_of(
        tmp_path / "y.jsonl", [{"id": f"p{n}", "prompt": "Q?", "completion": t} for n, t in enumerate(("a", " ", "c"))]
    )
    study = export_study([x, y], tmp_path / "study", raters=1, attributes=("overall",), swaps=0, identical=0)
    said = [{"prompt": n, "pair": "x>y"} for n in range(3)]
    said += [{"prompt": 2, "pair": "y>x", "check": "swap", "passed": False}]
    [record] = feedback(tmp_path, judged(tmp_path, study, said))
    assert ranks(record) == {"x": 1, "y": 2}
    printed = capsys.readouterr().out
    for reason in ("two identical texts", "a pair with an empty text"):
        assert f"votes on {reason}: 1 " in printed
    assert "answers to checks (swap): 1 " in printed


def test_raters_whom_the_studys_rules_exclude_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(tmp_path, "x", "y", raters=2)
    fast = {"rater": "rater-2", "seconds": 1.0}
    folder = judged(tmp_path, study, [{"pair": "x>y", "seconds": 20.0}, {"pair": "y>x", **fast}])
    [record] = feedback(tmp_path, folder)
    assert ranks(record) == {"x": 1, "y": 2}
    printed = capsys.readouterr().out
    assert "rater-2 had a median of 1.0 seconds per row, below 3" in printed
    assert "votes of raters whom the study's rules exclude (--no-exclusion takes them): 1 " in printed
    [still] = feedback(tmp_path, folder, folder / "judgments.jsonl")
    assert ranks(still) == {"x": 1, "y": 2}, "the file alone knows no rules"
    assert "votes given twice, counted once: 2 " in capsys.readouterr().out
    [both] = feedback(tmp_path, folder, "--no-exclusion")
    assert ranks(both) == {"x": 1, "y": 1} and len(both.extra["votes"]) == 2


def test_rounds_are_merged_by_prompt_and_a_vote_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = judged(
        tmp_path / "one", study_of(tmp_path / "one", "x", "y"), [{"pair": "x>y"}, {"prompt": 1, "pair": "x>y"}]
    )
    second = judged(
        tmp_path / "two",
        study_of(tmp_path / "two", "y", "z"),
        [{"pair": "z<y", "row": "other"}, {"prompt": 2, "pair": "y>z"}],
    )
    merged = feedback(tmp_path, first, second, first)
    assert "votes given twice, counted once: 2 " in capsys.readouterr().out
    # p0: x>y in the first round, y>z in the second, x and z not compared
    assert [ranks(record) for record in merged] == [
        {"x": 1, "y": 2},
        {"y": 1, "z": 2},
        {"x": 1, "y": 2},
        {"y": 1, "z": 2},
    ]
    assert [record.extra["prompt_id"] for record in merged] == ["p0", "p0", "p1", "p2"]
    kept = tmp_path / "earlier.jsonl"
    (tmp_path / "out.jsonl").rename(kept)
    again = feedback(tmp_path, first, kept)
    assert "records given twice, kept once: 2 " in capsys.readouterr().out
    assert sorted(one.id for one in again) == sorted(one.id for one in merged)


def test_equal_ids_of_other_prompts_are_kept_apart_and_other_answers_to_a_row_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name, choice in (("one", "x>y"), ("two", "y>x")):
        (tmp_path / name).mkdir()
        files = [
            lines_of(
                tmp_path / name / f"{system}.jsonl", [{"id": "p0", "prompt": name, "completion": f"{system} {name}"}]
            )
            for system in "xy"
        ]
        settings = {"raters": 1, "attributes": ("overall",), "swaps": 0, "identical": 0}
        study = export_study(files, tmp_path / name / "study", **settings)  # type: ignore[arg-type]
        folders.append(judged(tmp_path / name, study, [{"pair": choice, "row": f"row of {name}"}]))
    records = feedback(tmp_path, *folders)
    assert [(one.prompt[-1].text, ranks(one)) for one in records] == [
        ("one", {"x": 1, "y": 2}),
        ("two", {"y": 1, "x": 2}),
    ]
    assert "ids of several prompts, which are kept apart: 1 (first: 'p0')" in capsys.readouterr().out
    (copy := tmp_path / "copy").mkdir()
    for path in folders[0].glob("*.json*"):
        (copy / path.name).write_text(path.read_text().replace('"choice": "x"', '"choice": "y"'))
    [record] = feedback(tmp_path, folders[0], copy)
    assert ranks(record) == {"x": 1, "y": 2}
    assert "rows answered otherwise in an earlier source: 1 " in capsys.readouterr().out


# --- prompts


def test_a_conversation_needs_the_completions_and_becomes_its_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    files = [
        lines_of(tmp_path / f"{name}.jsonl", [{"id": "p0", "prompt": chat, "completion": name, "task": "response"}])
        for name in "xy"
    ]
    study = export_study(files, tmp_path / "study", raters=1, attributes=("overall",), swaps=0, identical=0)
    folder = judged(tmp_path, study, [{"pair": "x>y"}])
    assert f"{folder}: the prompt 'p0' has other messages than the text that raters read; give the" in error(
        capsys, folder
    )
    [record] = feedback(tmp_path, folder, "--completions", files[1])
    assert [turn.to_json() for turn in record.prompt] == chat
    assert record.task == "response"


def test_the_prompts_of_records_keep_what_truncation_may_cut(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": [{"text": "Sum up: ", "cut": "never"}, {"text": "a post", "cut": "back"}]}]
    record = {"prompt": prompt, "task": "summary", "completions": [{"text": "old", "rank": 1}]}
    records = lines_of(tmp_path / "records.jsonl", [record])
    files = [
        lines_of(tmp_path / f"{name}.jsonl", [{"id": "p0", "prompt": "Sum up: a post", "completion": name}])
        for name in "xy"
    ]
    study = export_study(files, tmp_path / "study", raters=1, attributes=("overall",), swaps=0, identical=0)
    folder = judged(tmp_path, study, [{"pair": "x>y"}])
    [found] = feedback(tmp_path, folder, "--prompts", records, "--completions", *files)
    assert [turn.to_json() for turn in found.prompt] == prompt and found.task == "summary"
    [without] = feedback(tmp_path, folder)
    assert without.prompt[0].is_plain and (without.prompt[0].text, without.task) == ("Sum up: a post", "answer")


# --- judges


def judgments_of(study: Study, first: str, second: str, *, prompt: int = 0) -> list[dict[str, Any]]:
    """A judge's rows of both orders."""
    rows = [{"pair": first, "rater": JUDGE, "prompt": prompt, "row": f"j{prompt}a"}]
    return [*rows, {"pair": second, "rater": JUDGE, "prompt": prompt, "row": f"j{prompt}b", "check": "swap"}]


def test_a_judge_is_never_counted_as_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(tmp_path, "x", "y")
    said = [{"pair": "x>y"}, *judgments_of(study, "y>x", "x<y"), *judgments_of(study, "y>x", "x>y", prompt=1)]
    said += judgments_of(study, "x>y", "y<x", prompt=2)[:1]
    folder = judged(tmp_path, study, said)
    [people] = feedback(tmp_path, folder)
    assert (ranks(people), people.source) == ({"x": 1, "y": 2}, "people")
    assert "judgments of a judge (--raters judge or all takes them): 5 " in capsys.readouterr().out
    agreed, swayed = feedback(tmp_path, folder, "--raters", "judge")
    assert (ranks(agreed), agreed.source) == ({"y": 1, "x": 2}, JUDGE)
    assert ranks(swayed) == {"y": 1, "x": 1}, "the side decided"
    printed = capsys.readouterr().out
    assert "verdicts of a judge that changed with the order, counted as ties: 1 " in printed
    assert "pairs that a judge judged in one order only: 1 " in printed
    assert "judgments of people (--raters people or all takes them): 1 " in printed
    every = feedback(tmp_path, folder, "--raters", "all")
    assert [(one.source, ranks(one)) for one in every] == [
        ("people", {"x": 1, "y": 2}),
        (JUDGE, {"y": 1, "x": 2}),
        (JUDGE, {"y": 1, "x": 1}),
    ]


def test_a_judges_own_file_finds_its_texts_in_the_completions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {
        name: [{"id": "p0", "prompt": "Q?", "completion": f"{name} {sample}"} for sample in range(3)] for name in "xy"
    }
    files = [lines_of(tmp_path / f"{name}.jsonl", own) for name, own in lines.items()]
    [pair] = match(read_systems(files, seed=4, names=["old", "new"]), seed=4).pairs
    common = {"item": pair.judged_as, "prompt_id": "p0", "rater": JUDGE, "attribute": "overall", "choice": "new"}
    judgments = lines_of(
        tmp_path / "judgments.jsonl",
        [
            {**common, "row": "j1", "systems": ["new", "old"]},
            {**common, "row": "j2", "systems": ["old", "new"], "check": "swap"},
        ],
    )
    [record] = feedback(tmp_path, judgments, "--raters", "judge", "--completions", *files)
    assert {one.text: (one.rank, one.author) for one in record.candidates} == {
        pair.texts[1]: (1, "new"),
        pair.texts[0]: (2, "old"),
    }
    said = error(capsys, judgments, "--raters", "judge", "--completions", files[0])
    assert f"{judgments}:1: the texts of item '{pair.judged_as}', new and old, are not known; give the study's" in said


def test_a_judges_file_on_a_study_needs_no_person(tmp_path: Path) -> None:
    study = study_of(tmp_path, "x", "y")
    folder = judged(tmp_path, study, judgments_of(study, "y>x", "x<y"))
    elsewhere = (folder / "judgments.jsonl").rename(tmp_path / "judged.jsonl")
    [record] = feedback(tmp_path, elsewhere, folder, "--raters", "judge")
    assert (ranks(record), record.source) == ({"y": 1, "x": 2}, JUDGE)
    judged(tmp_path, study, [{"pair": "x>y", "prompt": 1}])
    both = feedback(tmp_path, elsewhere, folder, "--raters", "all")
    assert [(one.source, one.extra["prompt_id"]) for one in both] == [("people", "p1"), (JUDGE, "p0")]


def test_dialogues_that_were_rated_whole_are_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        lines_of(tmp_path / f"{name}.jsonl", [{"id": "p0#1", "prompt": "Hi", "completion": name}]) for name in "xy"
    ]
    options: dict[str, Any] = {"raters": 1, "attributes": ("overall",), "swaps": 0, "identical": 0, "dialogues": True}
    study = export_study(files, tmp_path / "study", **options)
    items = {(about["prompt_id"], *sorted(about["systems"])) for about in study.key["items"].values()}
    assert items == {("p0", "x", "y")}
    folder = judged(tmp_path, study, [{"pair": "x>y"}])
    assert "of dialogues that were rated whole no records can be made" in error(capsys, folder, "--completions", *files)


# --- scores


def test_scores_become_ratings_and_thumbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(prompt: int, text: str, **scores: float) -> dict[str, Any]:
        return {"id": f"p{prompt}", "prompt": f"Q{prompt}", "completion": text, "scores": scores}

    x = lines_of(tmp_path / "x.jsonl", [line(0, "a", reward=-2, words=9), line(1, "b", reward=3)])
    y = lines_of(
        tmp_path / "y.jsonl",
        [line(0, "c", reward=1, words=5), line(0, "c", reward=2, words=5), line(1, " ", reward=0), line(1, "d")],
    )
    first, second = feedback(tmp_path, x, y, "--scale", "words=20,0", "--thumb", "reward=1.5")
    printed = capsys.readouterr().out
    assert first.scales == {"reward": (-2, 3), "words": (20, 0)} and second.scales == {"reward": (-2, 3)}
    assert [(one.text, dict(one.ratings), one.thumb, one.author) for one in first.candidates] == [
        ("a", {"reward": -2, "words": 9}, False, "x"),
        ("c", {"reward": 1.5, "words": 5}, True, "y"),
    ]
    assert [(one.text, one.thumb) for one in second.candidates] == [("b", True)]
    assert (first.source, first.extra) == ("scores", {"prompt_id": "p0"})
    assert "scale of 'reward': -2 to 3, its least and greatest score; --scale gives another" in printed
    assert f"texts scored again: 1; scores that differed, whose mean counts: 1 (first: {y}:2)" in printed
    assert "completions without scores: 1 " in printed and "empty completions: 1 " in printed
    [shorter, _] = feedback(tmp_path, x, "--scores", "reward", "--scale", "words=20,0", "--thumb", "words=8")
    assert [(dict(one.ratings), one.thumb) for one in shorter.candidates] == [({"reward": -2}, False)]


def test_scorers_in_code_and_a_reward_model_score_any_completions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They read the prompt as messages, and never the lines' own form."""
    monkeypatch.setattr("coh_lightning.generation.reward_model.RewardModel", lambda name: lambda ones: [{name: 1}] * 2)
    (tmp_path / "polite_scorer.py").write_text(
        "def polite(one):\n    return {'polite': one.text.count('please') + len(one.messages)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    answers = [{"id": "p", "prompt": "Q", "completion": text} for text in ("now", "now, please")]
    file = lines_of(tmp_path / "answers.jsonl", answers)
    words = ["--scorers", "polite_scorer:polite", "--reward-model", "rm", "--scale", "polite=0,2"]
    [record] = feedback(tmp_path, file, *words)
    assert [(one.text, dict(one.ratings)) for one in record.candidates] == [
        ("now", {"polite": 1}),
        ("now, please", {"polite": 2}),
    ]
    assert "scores 'rm', all of them 1 (give --scale): 2 " in capsys.readouterr().out
    assert "has no 'rude'" in error(capsys, file, "--scorers", "polite_scorer:rude")


# --- errors


def test_errors_are_one_sentence_with_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = lines_of(tmp_path / "s.jsonl", [{"id": "p", "prompt": "Q", "completion": "a", "scores": {"r": 2}}])
    bare = completions(tmp_path, "bare", 1)
    other = lines_of(tmp_path / "o.jsonl", [{"hello": 1}])
    wrong = lines_of(tmp_path / "w.jsonl", [{"id": "p", "prompt": "Q", "completion": "a", "scores": {"r": "high"}}])
    chosen = {"item": "i", "row": "r", "prompt_id": "p", "rater": "rater-1", "attribute": "overall"}
    third = lines_of(tmp_path / "j.jsonl", [{**chosen, "choice": "z", "systems": ["x", "y"]}])
    assert f"{third}:1: the choice is 'z', but the systems are x and y; give one of them, or 'tie'." in error(
        capsys, third
    )
    assert f"{tmp_path}: the folder has no key.json" in error(capsys, tmp_path)
    assert f"{other}:1: the line is neither a judgment" in error(capsys, other)
    assert f"{bare}: no completion has 'scores'" in error(capsys, bare)
    assert f"{wrong}:1: scores.r is str 'high'; it must be a number" in error(capsys, wrong)
    assert f"{scored}:1: the score 'r' is 2, outside its scale 0 to 1; give --scale" in error(
        capsys, scored, "--scale", "r=0,1"
    )
    assert "--scale 'r=1' is no scale; give NAME=WORST,BEST" in error(capsys, scored, "--scale", "r=1")
    assert "--scale 'r=1,1' is no scale" in error(capsys, scored, "--scale", "r=1,1")
    assert "--thumb 'r' is no threshold" in error(capsys, scored, "--thumb", "r")
    assert "No completion has the score 'q', only r" in error(capsys, scored, "--thumb", "q=1")
    assert "There are no votes on the attribute 'overal', only on none" in error(
        capsys, scored, "--attributes", "overal"
    )
    said = error(capsys, scored)
    assert f"No feedback came of the sources: scores 'r', all of them 2 (give --scale): 1 (first: {scored}:1)." in said
    assert main(["feedback", str(scored), "--output", str(scored)]) == 2
    assert "is one of the sources; give another --output" in capsys.readouterr().err


# --- the world's raters


def world_study(folder: Path, posts: int, **options: Any) -> tuple[Path, dict[tuple[str, str], float]]:
    """A study of three systems of different quality, rated by the world's rater; and the true scores of
    (attribute, text).
    """
    made = make_posts(posts, seed=1, split="test")
    gold = [gold_summary(post) for post in made]
    systems = {"right": gold, "half": [text[: text.find(" .") + 2] for text in gold], "wrong": [*gold[1:], gold[0]]}
    truth, files = {}, []
    for name, texts in systems.items():
        lines = []
        for number, (post, text) in enumerate(zip(made, texts, strict=True)):
            scores = raters.rate(post.text, text).scores()
            truth |= {(f"p{number}", attribute, text): value for attribute, value in scores.items()}
            lines.append({"id": f"p{number}", "prompt": post.text, "completion": text, "scores": scores})
        files.append(lines_of(folder / f"{name}.jsonl", lines))
    export_study(files, folder / "study", questions="summary", **options)
    return folder / "study", truth


def test_noiseless_raters_come_back_exactly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every rank, of every pair and attribute, is what the rater's scores say, and each critique what it said."""
    study, truth = world_study(tmp_path, 12, raters=2, overlap=20)
    assert fill([str(study), "--noise", "0", "--comments"]) == 0
    sheets = sorted(map(str, (study / "filled").glob("*.csv")))
    assert main(["human-eval", "import", str(study), *sheets]) == 0
    records = feedback(tmp_path, study, "--no-exclusion")
    printed = capsys.readouterr().out
    assert "with votes for both sides: 0, of which tied: 0\n" in printed
    compared = 0
    for record in records:
        id, attribute = record.extra["prompt_id"], record.aspect or "overall"
        for place, one in enumerate(record.candidates):
            for other in record.candidates[place + 1 :]:
                difference = truth[id, attribute, one.text] - truth[id, attribute, other.text]
                assert one.rank is not None and other.rank is not None
                direction = 0 if abs(difference) < 0.05 else 1 if difference > 0 else -1
                assert (other.rank > one.rank) - (other.rank < one.rank) == direction
                compared += 1
    assert f"pairs of texts, by attribute: {compared} (" in printed and compared > 100
    criticized = 0
    for record in records:
        for one in record.candidates:
            if one.critique is not None:
                assert one.critique == raters.rate(record.prompt[-1].text, one.text).critique
                assert record.aspect is None
                criticized += 1
    texts = {(record.prompt, one.text) for record in records for one in record.candidates}
    assert criticized == len(texts) > 30, "each text has its critique, once"


def test_noisy_raters_still_point_the_right_way_and_the_records_convert(tmp_path: Path) -> None:
    study, truth = world_study(tmp_path, 30, raters=3, overlap=60, attributes=("accuracy", "overall"))
    assert fill([str(study), "--noise", "0.1"]) == 0
    assert main(["human-eval", "import", str(study), *map(str, (study / "filled").glob("*.csv"))]) == 0
    scored = [tmp_path / f"{name}.jsonl" for name in ("right", "half", "wrong")]
    records = feedback(
        tmp_path, study, *scored, "--attributes", "overall", "--scores", "overall", "--scale", "overall=0,1"
    )
    out = tmp_path / "out.jsonl"
    pairs = tmp_path / "pairs.jsonl"
    assert main(["convert", str(out), "--to", "trl-pairs", "--output", str(pairs)]) == 0
    assert main(["convert", str(out), "--to", "trl-unpaired", "--output", str(tmp_path / "unpaired.jsonl")]) == 0
    ids = {one.prompt[-1].text: one.extra["prompt_id"] for one in records}
    right = wrong = 0
    for row in map(json.loads, pairs.read_text().splitlines()):
        id = ids[row["prompt"][-1]["content"]]
        better, worse = (truth[id, "overall", row[side][-1]["content"]] for side in ("chosen", "rejected"))
        right += better > worse
        wrong += better < worse
    assert wrong < 0.1 * right and right > 60


@pytest.mark.slow
def test_fit_takes_the_feedback_at_once(tmp_path: Path) -> None:
    study, _ = world_study(tmp_path, 16, raters=2, overlap=10)
    rows = tmp_path / "study" / "sheets" / "rater-1.csv"
    assert rows.exists() and fill([str(study)]) == 0
    assert main(["human-eval", "import", str(study), *map(str, (study / "filled").glob("*.csv"))]) == 0
    feedback(tmp_path, study, *(tmp_path / f"{name}.jsonl" for name in ("right", "wrong")))
    words = ["--config", "conf/quickstart.yaml", f"--data.feedback={tmp_path / 'out.jsonl'}"]
    words += ["--data.pretraining_text=[]", "--data.pretraining_rows_per_step=0", "--data.pretraining_weight=0"]
    words += ["--data.validation_share=0", "--data.test_share=0", "--trainer.max_steps=3"]
    words += [f"--run.folder={tmp_path / 'run'}"]
    assert main(["fit", *words]) == 0
    train = json.loads((tmp_path / "run" / "data.json").read_text())["splits"]["train"]
    assert train["records"] > 60 and train["used"] > train["rejected"]
