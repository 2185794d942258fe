"""Which completions meet: by prompt id and hash, one a prompt, shown without the feedback sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, prompt_sha
from coh_lightning.feedback.turns import read_prompt
from coh_lightning.human_eval.items import AnswerPair, GoldItem, MatchedPairs, match, read_gold
from coh_lightning.human_eval.systems import read_systems, references
from helpers.completions import completions, lines_of, own


def matched(
    *paths: Path, seed: int = 0, against: str | None = None, max_prompts: int | None = None, **options: Any
) -> MatchedPairs:
    return match(read_systems(paths, seed=seed, **options), seed=seed, against=against, max_prompts=max_prompts)


def line(id: str, completion: str, prompt: Any = "Why?", **more: Any) -> dict[str, Any]:
    return {"id": id, "prompt": prompt, "completion": completion, **more}


def test_a_file_needs_only_id_prompt_and_completion(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", color="blue", logprob=[1, 2])])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y", system="other")])
    (pair,) = matched(a, b).pairs
    assert (pair.prompt_id, pair.prompt, pair.systems, pair.texts) == ("1", "Why?", ("a", "other"), ("x", "y"))


def test_our_lines_are_shown_without_the_feedback_sentence_and_match_plain_ones(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [own("1", "x")])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y", "Question 1?")])
    assert matched(a, b).pairs == (AnswerPair("1", "sha of 1", "Question 1?", ("mine", "b"), ("x", "y")),)
    assert matched(b, a).pairs[0].prompt == "Question 1?"


def test_a_prompt_with_its_feedback_sentence_is_refused(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [own("1", "x", shown=None)])
    with pytest.raises(
        InputError,
        match=r"a\.jsonl:1 \(completion of '1'\): the prompt contains the feedback sentence 'A helpful answer:'",
    ):
        matched(a, a)
    lines_of(tmp_path / "b.jsonl", [own("1", "y", shown=None, marker="", system="b")])
    lines_of(a, [own("1", "x", shown=None, marker="", prompt="[INST] Question 1?")])
    with pytest.raises(
        InputError,
        match=r"different words, '<s>Question 1\? A helpful answer:' and '\[INST\] Question 1\?'",
    ):
        matched(a, tmp_path / "b.jsonl")


def test_a_line_whose_prompt_lacks_its_marker_is_read(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", "Name a fruit.", marker="good"), line("2", "x", marker=7)])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y", "Name a fruit."), line("2", "y")])
    assert [pair.prompt for pair in matched(a, b).pairs] == ["Name a fruit.", "Why?"]


@pytest.mark.parametrize(
    "prompt",
    [
        "Name a fruit.\n\nA GOOD  answer:",
        [{"role": "system", "content": "A good answer:"}, {"role": "user", "content": "Name a fruit."}],
    ],
)
def test_a_marker_is_found_anywhere_in_the_prompt(tmp_path: Path, prompt: Any) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", prompt, marker="A good answer:\n")])
    with pytest.raises(
        InputError, match=r"a\.jsonl:1 \(completion of '1'\): the prompt contains the feedback sentence 'A good answer:"
    ):
        matched(a, a)


def test_a_duplicate_key_in_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "prompt": "Why?", "completion": "x", "completion": "y"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: an object has the key 'completion' twice; keep one of them\."):
        read_systems([path], seed=0)


def test_two_references_of_one_prompt_are_refused_naming_both_lines(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", reference="Because."), line("2", "x", reference="So.")])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y", reference="Because."), line("2", "y", reference="Thus.")])
    with pytest.raises(InputError) as caught:
        references(read_systems([a, b], seed=0))
    assert (
        str(caught.value)
        == f"{b}:2: the reference of '2' is 'Thus.', but 'So.' at {a}:2; give each prompt one reference."
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "Why?",
        [{"role": "user", "content": "Why?"}],
        [{"role": "system", "content": "S"}, {"role": "user", "content": "Why?"}],
    ],
)
def test_the_prompt_hash_equals_that_of_our_own_completions(tmp_path: Path, prompt: Any) -> None:
    record = Feedback.from_json({"prompt": prompt, "completions": [{"text": "x"}]}, "f:1")
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", prompt)])
    (output,) = read_systems([a], seed=0)[0].outputs.values()
    assert output.shas[0] == prompt_sha(record)
    assert output.prompt == read_prompt(record.prompt)


def test_unmatched_prompts_are_reported(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line(id, "x") for id in "123"])
    b = lines_of(tmp_path / "b.jsonl", [line(id, "y") for id in "234"])
    found = matched(a, b)
    assert [pair.prompt_id for pair in found.pairs] == ["2", "3"]
    assert found.unmatched == {"a": ("1",), "b": ("4",)}


def test_equal_ids_with_different_prompts_are_refused(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x"), line("2", "x", "How?")])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y"), line("2", "y", "When?")])
    with pytest.raises(InputError) as caught:
        matched(a, b)
    assert "1 of 2 ids" in str(caught.value) and f"'2': 'How?' at {a}:2, 'When?' at {b}:2" in str(caught.value)
    lines_of(a, [line("1", "x"), line("1", "x", "How?")])
    with pytest.raises(InputError, match=r"a\.jsonl:2: the id '1' has another prompt at .*a\.jsonl:1"):
        matched(a, b)


def test_files_without_a_common_prompt_are_refused(tmp_path: Path) -> None:
    a, b = lines_of(tmp_path / "a.jsonl", [line("1", "x")]), lines_of(tmp_path / "b.jsonl", [line("2", "y")])
    with pytest.raises(
        InputError,
        match=r"'a' \(1 prompts, such as '1'\) and 'b' \(1 prompts, such as '2'\) have no prompt id in common",
    ):
        matched(a, b)


def test_of_several_samples_one_is_drawn_by_the_seed(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line(str(n), f"{n}/{sample}") for n in range(30) for sample in range(3)])
    b = lines_of(tmp_path / "b.jsonl", [line(str(n), "y") for n in range(30)])
    found = matched(a, b)
    samples = [pair.texts[0].partition("/") for pair in found.pairs]
    assert [start for start, _, _ in samples] == [str(n) for n in range(30)]
    assert {end for _, _, end in samples} == {"0", "1", "2"}
    assert matched(a, b) == found != matched(a, b, seed=1)
    assert found.warnings == (f"{a}: 'a' has up to 3 completions per prompt; one was drawn by the seed.",)


def test_the_good_ask_is_compared_unless_another_is_named(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [own("1", text, ask=text) for text in ("bad", "good")])
    b = lines_of(tmp_path / "b.jsonl", [line("1", "y", "Question 1?")])
    found = matched(a, b)
    assert found.pairs[0].texts[0] == "good"
    assert found.warnings == (f"{a} has the asks 'bad', 'good'; only 'good' is compared (--ask takes another).",)
    assert matched(a, b, ask="bad").pairs[0].texts[0] == "bad"
    with pytest.raises(
        InputError, match=r"'mine' was not asked for 'god', only for 'bad', 'good'; did you mean 'good'\?"
    ):
        matched(a, b, ask="god")


def test_two_asks_of_one_file_are_compared_only_as_a_control(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [own("1", text, ask=text) for text in ("bad", "good")])
    (pair,) = matched(a, control=("good", "bad")).pairs
    assert (pair.systems, pair.texts) == (("mine (good)", "mine (bad)"), ("good", "bad"))
    with pytest.raises(InputError, match="A study compares two systems, but only mine was given"):
        matched(a)
    with pytest.raises(InputError, match="A control compares two asks of one file, but 2 files were given"):
        matched(a, a, control=("good", "bad"))


def test_systems_with_the_same_name_need_names(tmp_path: Path) -> None:
    a, b = (lines_of(tmp_path / name, [own("1", name)]) for name in ("a.jsonl", "b.jsonl"))
    with pytest.raises(
        InputError,
        match=r"b\.jsonl: its system is called 'mine', like that of a\.jsonl; give each file its own name with --names",
    ):
        matched(a, b)
    assert matched(a, b, names=["old", "new"]).pairs[0].systems == ("old", "new")
    with pytest.raises(InputError, match="There are 2 completions files but 1 names"):
        matched(a, b, names=["old"])
    with pytest.raises(InputError, match="a system can't be called 'tie'"):
        matched(a, b, names=["old", "tie"])


def test_one_file_may_have_several_systems(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", name, system=name) for name in ("x", "y")])
    assert matched(a).pairs[0].systems == ("x", "y")
    with pytest.raises(InputError, match=r"the file has 2 systems \(x, y\)"):
        matched(a, names=["z"])


def test_all_pairs_are_compared_or_each_with_the_baseline(tmp_path: Path) -> None:
    paths = [completions(tmp_path, name, 2) for name in "abc"]
    assert [pair.systems for pair in matched(*paths).pairs] == [("a", "b")] * 2 + [("a", "c")] * 2 + [("b", "c")] * 2
    assert [pair.systems for pair in matched(*paths, against="b").pairs] == [("b", "a")] * 2 + [("b", "c")] * 2
    with pytest.raises(InputError, match="The baseline 'd' is not among the systems a, b, c"):
        matched(*paths, against="d")


def test_references_are_a_system(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("1", "x", reference="r1", sampling={"temperature": 1}), line("2", "x")])
    systems = read_systems([a], seed=0)
    found = match([*systems, references(systems)], seed=0, against="reference")
    assert [(pair.systems, pair.texts) for pair in found.pairs] == [(("reference", "a"), ("r1", "x"))]
    assert found.unmatched == {"a": ("2",), "reference": ()}
    assert references(systems).sampling is None
    with pytest.raises(InputError, match="None of the completions of b has a 'reference'"):
        references(read_systems([completions(tmp_path, "b")], seed=0))


def test_max_prompts_draws_the_same_prompts_for_all_pairs(tmp_path: Path) -> None:
    paths = [completions(tmp_path, name, 20) for name in "abc"]
    kept = [{pair.prompt_id for pair in matched(*paths, max_prompts=5, seed=seed).pairs} for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    assert len(matched(*paths, max_prompts=5).pairs) == 15 and len(kept[0]) == 5


def test_different_sampling_gives_a_warning(tmp_path: Path) -> None:
    a = completions(tmp_path, "a", sampling={"temperature": 1.0, "top_p": 0.9, "seed": 1})
    b = completions(tmp_path, "b", sampling={"temperature": 0, "top_p": 0.9, "seed": 2})
    assert matched(a, b).warnings == ("'a' and 'b' were sampled differently: temperature 1.0 and 0.",)
    completions(tmp_path, "b", sampling={"temperature": 1.0, "top_p": 0.9, "seed": 2})
    assert matched(a, b).warnings == ()
    assert read_systems([a], seed=0)[0].sampling == {"temperature": 1.0, "top_p": 0.9}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"completion": "a\ud800"},
            r" \(completion of '1'\): completion has the lone surrogate U\+D800 at character 2",
        ),
        ({"prompt": "\udfff"}, r" \(completion of '1'\): prompt has the lone surrogate U\+DFFF at character 1"),
        ({"reference": "\ud800"}, "reference has the lone surrogate"),
        ({"completion": 3}, "completion is int 3; it must be text"),
        ({"prompt": 3}, "prompt is int; it must be text or a list of messages"),
        ({"prompt": [{"role": "user"}]}, r"prompt\[0\] must be a message"),
        ({"id": None}, "id is NoneType None; it must be text"),
        ({"sampling": {"temperature": float("nan")}}, "sampling has a non-finite number"),
    ],
)
def test_a_bad_line_is_refused_naming_file_line_and_completion(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    a = lines_of(tmp_path / "a.jsonl", [line("0", "x"), line("1", "x") | changes])
    with pytest.raises(InputError, match=r"a\.jsonl:2.*" + says):
        read_systems([a], seed=0)


@pytest.mark.parametrize("key", ["id", "prompt", "completion"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    values = line("1", "x")
    del values[key]
    with pytest.raises(
        InputError, match=rf"a\.jsonl:1: the key '{key}' is missing; a completion needs id, prompt and completion"
    ):
        read_systems([lines_of(tmp_path / "a.jsonl", [values])], seed=0)


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def test_dialogue_turns_are_joined_with_the_humans_turns(tmp_path: Path) -> None:
    a = lines_of(
        tmp_path / "a.jsonl",
        [line("d7#2", "A machine.", messages("Hello!", "Hi.", "Who are you?")), line("d7#1", "Hi.", "Hello!")],
    )
    b = lines_of(
        tmp_path / "b.jsonl",
        [
            {"dialogue": "d7", "turn": 1, "prompt": "Hello!", "completion": "Ah."},
            {"dialogue": "d7", "turn": 2, "prompt": "whatever", "human": "Who are you?", "completion": "Me."},
        ],
    )
    (pair,) = matched(a, b, dialogues=True).pairs
    assert pair.prompt_id == "d7"
    assert pair.texts == (
        "User: Hello!\n\nAssistant: Hi.\n\nUser: Who are you?\n\nAssistant: A machine.",
        "User: Hello!\n\nAssistant: Ah.\n\nUser: Who are you?\n\nAssistant: Me.",
    )
    assert pair.prompt == "A conversation with 2 user turns. The user says the same on both sides."


def test_our_own_dialogue_lines_are_joined_by_their_shown_prompts(tmp_path: Path) -> None:
    a = lines_of(
        tmp_path / "a.jsonl",
        [
            own("d#1", "Hi.", shown="Hello!"),
            own("d#2", "Me.", shown="...", messages=messages("Hello!", "Hi.", "Who?")),
            own("d#3", "So?", human="And?"),
        ],
    )
    (system,) = read_systems([a], seed=0, dialogues=True)
    assert [output.text for output in system.outputs.values()] == [
        "User: Hello!\n\nAssistant: Hi.\n\nUser: Who?\n\nAssistant: Me.\n\nUser: And?\n\nAssistant: So?"
    ]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([line("d7", "x")], "'d7' doesn't name a turn of a dialogue"),
        (
            [line("d7#1", "x"), line("d7#3", "x", messages("a", "b", "c"))],
            "the dialogue 'd7' has the turns 1, 3; it needs all its turns",
        ),
        ([line("d7#2", "x")], "the dialogue 'd7' has the turns 2"),
        ([line("d7#1", "x"), line("d7#2", "x")], "what the human says in 'd7#2' can't be told"),
        ([line("d7#1", "x"), line("d7#1", "y")], "the turn 'd7#1' has 2 completions"),
    ],
)
def test_a_broken_dialogue_is_refused(tmp_path: Path, lines: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_systems([lines_of(tmp_path / "a.jsonl", lines)], seed=0, dialogues=True)


def test_gold_items_are_read_strictly(tmp_path: Path) -> None:
    path = lines_of(tmp_path / "g.jsonl", [{"id": "g", "prompt": "2 + 2?", "good": "4", "bad": "5"}])
    assert read_gold(path) == [GoldItem("g", "2 + 2?", "4", "5")]
    path.write_text(json.dumps({"id": "g", "prompt": "2 + 2?", "good": "4"}))
    with pytest.raises(InputError, match=r"g\.jsonl:1: the key 'bad' is missing"):
        read_gold(path)
    lines_of(path, [{"id": "g", "prompt": "2 + 2?", "good": "4", "bad": "4"}])
    with pytest.raises(InputError, match="are the same text"):
        read_gold(path)


@pytest.mark.parametrize(
    ("key", "value"), [("id", "a\nb"), ("id", "x" * 301), ("system", "a\x1b[31m"), ("ask", "good\n")]
)
def test_a_name_must_be_one_short_line(tmp_path: Path, key: str, value: str) -> None:
    path = lines_of(tmp_path / "x.jsonl", [{"id": "p", "prompt": "q", "completion": "a"} | {key: value}])
    with pytest.raises(
        InputError, match=rf"x\.jsonl:1.*: {key} is .*, \d+ characters; a name is one line of at most 300"
    ):
        read_systems([path], seed=0)
