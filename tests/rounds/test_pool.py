"""Which prompts a round has, and which feedback it learns from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.rounds.pool import STAND_INS, Mixture, mix, pool, read_prompts, test_prompts
from coh_lightning.rounds.rounds_file import RoundsFile, TestPrompts
from coh_lightning.sequences.chains import Unusable, build_chains
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.wording import Wording

METHODS = Path(__file__).parents[2] / "conf" / "method"


def file_of(folder: Path, prompts: list[str], **settings: object) -> RoundsFile:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{place}", "prompt": one}) + "\n" for place, one in enumerate(prompts)))
    test = TestPrompts("world", 5)
    made = RoundsFile("mine", "c.yaml", str(path), test, steps=1, rounds=2, prompts_per_round=3)
    return replace(made, **settings)  # type: ignore[arg-type]


def records(folder: Path, name: str, number: int) -> Path:
    path = folder / f"{name}.jsonl"
    made = [{"id": f"{name}{place}", "prompt": f"{name} {place}?", "completions": [{"text": "a", "thumb": True}]}
            for place in range(number)]  # fmt: skip
    write_jsonl(path, [Feedback.from_json(one, "here") for one in made])
    return path


def test_a_prompt_alone_gets_completions_that_every_method_can_use_and_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "Why?"}\n{"prompt": "How?", "completions": [{"text": "So."}], "task": "x"}\n'
    )
    alone, with_answer = read_prompts(path)
    assert [one.text for one in alone.candidates] == [one["text"] for one in STAND_INS["completions"]]
    assert (alone.id, with_answer.task, with_answer.candidates) == ("a", "x", alone.candidates)
    for name in ("coh", "coh_critique", "coh_ranking", "coh_ratings", "csft", "sft", "reviewed", "unlikelihood"):
        settings = yaml.safe_load((METHODS / f"{name}.yaml").read_text())
        method = Method(**(settings | {"orders": tuple(settings["orders"])}))
        assert not isinstance(build_chains(alone, method, Wording()), Unusable), name


def test_no_prompt_is_in_two_rounds_and_none_is_a_test_prompt(tmp_path: Path) -> None:
    file = file_of(tmp_path, [*(f"Question {place}?" for place in range(6)), "question  1?", "Held out?"])
    held_out = [Feedback.from_json({"id": "t", "prompt": "held OUT?", "completions": [{"text": "x"}]}, "here")]
    first, second = pool(file, seed=0, held_out=held_out)
    ids = [one.id for one in (*first, *second)]
    assert sorted(ids) == ["p0", "p1", "p2", "p3", "p4", "p5"], "p6 is p1 again, p7 is a test prompt"
    assert (len(first), len(second)) == (3, 3)
    assert pool(file, seed=0, held_out=held_out) == [first, second]
    assert [one.id for each in pool(file, seed=1, held_out=held_out) for one in each] != ids, "the order is the seed's"


def test_too_few_prompts_are_refused_with_the_numbers(tmp_path: Path) -> None:
    file = file_of(tmp_path, ["One?", "Two?", "one?"])
    with pytest.raises(InputError, match=r"has 2 different prompts, but 2 rounds of 3 need 6; lower prompts_per_round"):
        pool(file, seed=0, held_out=[])


def test_a_round_learns_from_its_own_feedback_and_a_share_of_older_one(tmp_path: Path) -> None:
    file = file_of(tmp_path, ["One?"], older=0.5, feedback=str(records(tmp_path, "given", 2)))
    new = [records(tmp_path, name, 100) for name in ("first", "second", "third")]
    made = mix(file, seed=0, number=3, new=new, output=tmp_path / "out.jsonl")
    names = [one.id.rstrip("0123456789") for one in read_jsonl(tmp_path / "out.jsonl", Feedback)]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    assert counts["third"] == made.new == 100 and counts["given"] == made.given == 2
    assert counts["first"] + counts["second"] == made.older and 70 < made.older < 130
    again = mix(file, seed=0, number=3, new=new, output=tmp_path / "again.jsonl")
    assert again == made and (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert mix(replace(file, older=0.0), seed=0, number=3, new=new, output=tmp_path / "none.jsonl").older == 0
    assert mix(replace(file, older=1.0), seed=0, number=3, new=new, output=tmp_path / "all.jsonl").older == 200


def test_the_share_of_new_feedback() -> None:
    assert Mixture(new=30, older=60, given=10).share == 0.3


def test_posts_of_the_world_for_rounds_are_never_test_posts(tmp_path: Path) -> None:
    file = replace(file_of(tmp_path, ["One?"]), prompts="world")
    tests = test_prompts(file)
    rounds = pool(file, seed=0, held_out=tests)
    texts = {one.prompt[-1].parts[0].text for each in rounds for one in each}
    assert len(texts) == 6 and not texts & {one.prompt[-1].parts[0].text for one in tests}
