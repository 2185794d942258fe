"""The JSON form of the records: what is read, what is refused and with which message, and exact round trips."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected, content_id
from coh_lightning.feedback.turns import Part, Turn


def line(**changes: Any) -> dict[str, Any]:
    return {"prompt": "Why?", "completions": [{"text": "Because."}]} | changes


def read(**changes: Any) -> Feedback:
    return Feedback.from_json(line(**changes), "f.jsonl:3")


def test_a_plain_prompt_is_one_user_turn_cut_from_the_front() -> None:
    assert read().prompt == (Turn("user", (Part("Why?", "front"),)),)


def test_every_form_of_feedback_is_read() -> None:
    record = read(
        id="7",
        system="Be brief.",
        prompt=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"text": "c"}, {"text": "d", "cut": "back"}]},
        ],
        completions=[
            {
                "text": "x",
                "rank": 1,
                "rating": {"accuracy": 4},
                "thumb": True,
                "critique": "good",
                "revision": "y",
                "author": "m",
            },
            {"text": "z", "rank": 2, "rating": 3.5},
        ],
        scale={"accuracy": [1, 5], "overall": [0, 10]},
        task="summary",
        aspect="helpful",
        reference="r",
        color="blue",
    )
    assert record == Feedback(
        id="7",
        prompt=(
            Turn("system", (Part("Be brief.", "never"),)),
            Turn("user", (Part("a", "front"),)),
            Turn("assistant", (Part("b", "front"),)),
            Turn("user", (Part("c", "front"), Part("d", "back"))),
        ),
        candidates=(
            RatedCompletion(
                "x", rank=1.0, ratings={"accuracy": 4.0}, thumb=True, critique="good", revision="y", author="m"
            ),
            RatedCompletion("z", rank=2.0, ratings={"overall": 3.5}),
        ),
        scales={"accuracy": (1.0, 5.0), "overall": (0.0, 10.0)},
        task="summary",
        aspect="helpful",
        reference="r",
        where="f.jsonl:3",
        extra={"color": "blue"},
    )
    assert Feedback.from_json(json.loads(json.dumps(record.to_json())), "f.jsonl:3") == record


def test_a_plain_scale_is_the_overall_ratings() -> None:
    assert read(completions=[{"text": "a", "rating": 0}], scale=[0, 1]).scales == {"overall": (0.0, 1.0)}


def test_unknown_keys_are_kept() -> None:
    record = read(completions=[{"text": "a", "logprob": -3}], worker=9)
    assert record.extra == {"worker": 9, "completions[0]": {"logprob": -3}}
    assert Feedback.from_json(record.to_json(), record.where) == record


def test_an_id_depends_on_the_content_only() -> None:
    assert read().id == Feedback.from_json(line(), "elsewhere:1").id == content_id(read())
    assert read().id != read(prompt="How?").id != read(task="summary").id


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"completions": []}, "completions is empty; a record needs at least one completion."),
        ({"completions": [{"text": " \n"}]}, "completions[0].text is empty; a completion needs words."),
        ({"completions": [{"text": 3}]}, "completions[0].text is int 3; it must be text."),
        ({"completions": [{"rank": 3}]}, "completions[0] has no 'text'."),
        (
            {"completions": {"text": "a"}},
            "completions is dict {'text': 'a'}; give a list of objects, each with 'text'.",
        ),
        (
            {"completions": [{"text": "a", "ranking": 1}]},
            "unknown key 'ranking' in completions[0]; did you mean 'rating'?",
        ),
        ({"completions": [{"text": "a", "rank": "1"}]}, "completions[0].rank is str '1'; it must be a number."),
        ({"completions": [{"text": "a", "rank": True}]}, "completions[0].rank is bool True; it must be a number."),
        (
            {"completions": [{"text": "a", "rating": float("nan")}]},
            "completions[0].rating is nan; it must be a finite number.",
        ),
        (
            {"completions": [{"text": "a", "rating": 7}], "scale": [1, 5]},
            "completions[0].rating is 7, outside its scale 1 to 5.",
        ),
        (
            {"completions": [{"text": "a", "rating": {"x": -1}}], "scale": {"x": [5, 1]}},
            "completions[0].rating.x is -1, outside its scale 5 to 1.",
        ),
        ({"completions": [{"text": "a", "thumb": 1}]}, "completions[0].thumb is int 1; it must be true or false."),
        (
            {"completions": [{"text": "a", "critique": ""}]},
            "completions[0].critique is empty; leave the key out.",
        ),
        ({"scale": [1, 1]}, "the scale of 'overall' is [1, 1]; give two different finite numbers, [worst, best]."),
        ({"scale": [1]}, "the scale of 'overall' is list [1]; give [worst, best]."),
        ({"promt": "x"}, "unknown key 'promt'; did you mean 'prompt'?"),
        ({"Task": "x"}, "unknown key 'Task'; did you mean 'task'?"),
        ({"prompt": " "}, "prompt ends with an empty user turn."),
        ({"prompt": 5}, "prompt is int 5; it must be text or a list of messages."),
        ({"prompt": []}, "prompt has no user turn; its last turn must be the user's."),
        (
            {"prompt": [{"role": "assistant", "content": "a"}]},
            "prompt has no user turn; its last turn must be the user's.",
        ),
        (
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "prompt ends with the assistant's turn; its last turn must be the user's.",
        ),
        (
            {"prompt": [{"role": "usr", "content": "a"}]},
            "prompt[0].role is str 'usr'; it must be one of system, user, assistant; did you mean 'user'?",
        ),
        (
            {"prompt": [{"role": "user", "contents": "a"}]},
            "unknown key 'contents' in prompt[0]; did you mean 'content'?",
        ),
        ({"prompt": [{"role": "user"}]}, "prompt[0] has no 'content'; a message has 'role' and 'content'."),
        (
            {
                "prompt": [
                    {"role": "user", "content": "a"},
                    {"role": "system", "content": "b"},
                    {"role": "user", "content": "a"},
                ]
            },
            "prompt[1] is a system turn; a prompt has at most one, at the beginning.",
        ),
        (
            {"system": "s", "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]},
            "both 'system' and the first message of 'prompt' are a system turn; keep one.",
        ),
        (
            {"prompt": [{"text": "a", "cut": "middle"}]},
            "prompt[0] has the cut 'middle'; it must be one of never, front, back.",
        ),
        (
            {"prompt": "a\ud800b"},
            "prompt[0] has the lone surrogate U+D800 at character 2, which UTF-8 can't represent; correct the row.",
        ),
        (
            {"completions": [{"text": "\udfff"}]},
            "completions[0].text has the lone surrogate U+DFFF at character 1, which UTF-8 can't "
            "represent; correct the row.",
        ),
        ({"reference": 4}, "reference is int 4; it must be text."),
        ({"id": 4}, "id is int 4; it must be text."),
    ],
)
def test_what_is_off_schema_is_refused_by_place_key_and_finding(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(**changes)
    assert str(caught.value) == f"f.jsonl:3: {says}"


@pytest.mark.parametrize("missing", ["prompt", "completions"])
def test_a_missing_key_is_named(missing: str) -> None:
    values = line()
    del values[missing]
    with pytest.raises(InputError, match=f"the key '{missing}' is missing"):
        Feedback.from_json(values, "f:1")


def test_a_line_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(InputError, match=r"f:1: the line is list \[\]; it must be a JSON object\."):
        Feedback.from_json([], "f:1")


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
candidates = st.builds(
    RatedCompletion,
    text=texts,
    rank=st.none() | st.integers(0, 9).map(float),
    ratings=st.dictionaries(st.sampled_from(["overall", "accuracy"]), st.floats(0, 5)),
    thumb=st.none() | st.booleans(),
    critique=st.none() | texts,
    revision=st.none() | texts,
    author=st.none() | texts,
)
user_turns = st.builds(
    lambda parts: Turn("user", tuple(parts)),
    st.lists(st.builds(Part, texts, st.sampled_from(["never", "front", "back"])), min_size=1, max_size=3),
)
feedbacks = st.builds(
    Feedback,
    id=texts,
    prompt=st.tuples(user_turns)
    | st.builds(lambda system, turn: (Turn("system", (Part(system, "never"),)), turn), texts, user_turns),
    candidates=st.lists(candidates, min_size=1, max_size=3).map(tuple),
    scales=st.sampled_from(
        [
            {"overall": (0.0, 5.0), "accuracy": (5.0, 0.0)},
            {"accuracy": (0.0, 6.0), "overall": (-1.0, 5.0), "more": (0.0, 1.0)},
        ]
    ),
    task=texts,
    aspect=st.none() | texts,
    reference=st.none() | texts,
    source=texts,
    where=st.just("f:1"),
    extra=st.dictionaries(texts, st.integers() | texts, max_size=2),
)


@given(feedbacks)
def test_any_record_is_read_back_unchanged(record: Feedback) -> None:
    assert Feedback.from_json(json.loads(json.dumps(record.to_json(), ensure_ascii=False)), "f:1") == record


def completion(**changes: Any) -> Completion:
    values: dict[str, Any] = {
        "id": "1",
        "prompt_id": "p",
        "system": "s",
        "prompt": "x",
        "prompt_sha": "0",
        "ask": "good",
        "marker": "A good one:",
        "text": "y",
    }
    return Completion(**(values | changes))


def judgment(**changes: Any) -> Judgment:
    values: dict[str, Any] = {
        "item": "i",
        "row": "r1",
        "prompt_id": "p",
        "rater": "r",
        "attribute": "accuracy",
        "choice": "s",
        "systems": ("s", "t"),
    }
    return Judgment(**(values | changes))


def test_completions_and_judgments_are_read_back_unchanged(tmp_path: Path) -> None:
    completions = [
        completion(
            sampling={"temperature": 1.0},
            stop="end",
            seed=3,
            prompt_tokens=2,
            completion_tokens=1,
            reference="r",
            shown="q",
            messages=({"role": "system", "content": ""}, {"role": "user", "content": "q"}),
        ),
        completion(id="2", text=""),
    ]
    assert write_jsonl(tmp_path / "c.jsonl", completions) == 2
    assert list(read_jsonl(tmp_path / "c.jsonl", Completion)) == completions
    judgments = [
        judgment(check="swap", passed=True, seconds=2.5, comment="c"),
        judgment(choice="tie", check="gold", passed=False),
        judgment(),
    ]
    write_jsonl(tmp_path / "j.jsonl", judgments)
    assert list(read_jsonl(tmp_path / "j.jsonl", Judgment)) == judgments


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"txt": "a"}, "c:1: unknown key 'txt' for a Completion; did you mean 'text'?"),
        ({"messages": "hi"}, "c:1: messages is str 'hi'"),
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "content": "x"}]}, "c:1: messages[1] is "),
        ({"messages": [{"role": "user", "content": 3}]}, "c:1: messages[0].content is int 3"),
        ({"seed": "3"}, "c:1: seed is str '3'; it must be int."),
        ({"seed": True}, "c:1: seed is bool True; it must be int."),
        ({"reference": 1}, "c:1: reference is int 1; it must be str or null."),
    ],
)
def test_a_bad_completion_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Completion.from_json(completion().to_json() | changes, "c:1")
    assert says in str(caught.value)
    with pytest.raises(InputError, match="c:1: the key 'marker' of a Completion is missing"):
        Completion.from_json({name: value for name, value in completion().to_json().items() if name != "marker"}, "c:1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passed": 1}, "j:1: passed is int 1; it must be bool or null."),
        ({"row": None}, "j:1: row is NoneType None; it must be str."),
        ({"systems": ["s", 2]}, "j:1: systems is int 2; it must be text."),
        ({"chosen": "s"}, "j:1: unknown key 'chosen' for a Judgment; did you mean 'choice'?"),
    ],
)
def test_a_bad_judgment_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Judgment.from_json(judgment().to_json() | changes, "j:1")
    assert str(caught.value) == says


def test_a_rejection_is_one_line_with_its_reason(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [Rejected("too long", where="f:1", source="s")])
    assert (tmp_path / "r.jsonl").read_text() == '{"reason": "too long", "where": "f:1", "source": "s"}\n'


def test_each_record_has_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(
        "\n" + json.dumps(line()) + "\r\n\n" + json.dumps(line(prompt="a\u2028b"), ensure_ascii=False),
        encoding="utf-8-sig",
    )
    assert [one.where for one in read_jsonl(path, Feedback)] == [f"{path}:2", f"{path}:4"]


def test_equal_records_without_ids_get_distinct_ids(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text((json.dumps(line()) + "\n") * 3)
    id = read().id
    assert [one.id for one in read_jsonl(path, Feedback)] == [id, f"{id}#2", f"{id}#3"]


def test_an_id_given_twice_is_refused_naming_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(line(id="a")) + "\n" + json.dumps(line(id="a", prompt="b")))
    with pytest.raises(InputError) as caught:
        list(read_jsonl(path, Feedback))
    assert str(caught.value).startswith(f"{path}:2: the id 'a' was already used at {path}:1;")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ": the file is empty."),
        (b"\n \n", ": the file is empty."),
        (
            b'{"prompt": "a", "completions": [{"text": "b"}]}\n{"prompt": \n',
            ":2: broken JSON at column 12 (Expecting value).",
        ),
        (b'{"prompt": "\xff"}', ":1: not UTF-8 (0xff at byte 13); save the file as UTF-8."),
        (b"[" * 100_000, ":1: broken JSON (nested too deeply)."),
    ],
)
def test_a_broken_file_is_refused_by_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_jsonl(path, Feedback))
    assert str(caught.value) == f"{path}{says}"


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "feedback.jsonl").write_text("x")
    with pytest.raises(InputError, match=r"feedbak\.jsonl: there is no such file; did you mean 'feedback\.jsonl'\?"):
        list(read_jsonl(tmp_path / "feedbak.jsonl", Feedback))


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(line()).encode())[:-12])
    with pytest.raises(InputError, match=r"the rest of the file can't be read .*is it complete"):
        list(read_jsonl(path, Feedback))
    path.write_bytes(b"no archive at all")
    with pytest.raises(InputError, match="the rest of the file can't be read"):
        list(read_jsonl(path, Feedback))


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("old")

    def records() -> Any:
        yield read()
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_jsonl(path, records())
    assert [file.name for file in tmp_path.iterdir()] == ["f.jsonl"]
    assert path.read_text() == "old"


def test_equal_records_give_equal_bytes_also_compressed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl.gz", [read()])
    assert [one.prompt for one in read_jsonl(tmp_path / "a.jsonl.gz", Feedback)] == [read().prompt]
    first = (tmp_path / "a.jsonl.gz").read_bytes()
    write_jsonl(tmp_path / "a.jsonl.gz", [read()])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == first


def test_a_scale_without_names_applies_to_every_rating() -> None:
    line = {
        "prompt": "Q",
        "scale": [1, 5],
        "completions": [{"text": "a", "rating": {"accuracy": 4}}, {"text": "b", "rating": 3}],
    }
    assert Feedback.from_json(line, "f:1").scales == {"accuracy": (1.0, 5.0), "overall": (1.0, 5.0)}


def test_a_rating_without_a_scale_is_refused() -> None:
    with pytest.raises(InputError, match=r"f:1: completions\[0\].rating is 3, and its scale is not given"):
        Feedback.from_json({"prompt": "Q", "completions": [{"text": "a", "rating": 3}]}, "f:1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"completions": [{"text": "a", "rank": 10**400}]}, r"completions[0].rank is inf; it must be a finite number."),
        (
            {"completions": [{"text": "a", "rating": 10**400}], "scale": [0, 1]},
            r"completions[0].rating is inf; it must be a finite number.",
        ),
        (
            {"completions": [{"text": "a", "rating": 0}], "scale": [-1e308, 1e308]},
            "the scale of 'overall' is [-1e+308, 1e+308]; give two different finite numbers",
        ),
        ({"scale": {"\ud800": [0, 1]}}, "scale has the lone surrogate U+D800"),
        ({"completions": [{"text": "a", "rating": {"a\nb" * 50: "x"}}]}, r"completions[0].rating.'a\nba\nb"),
    ],
)
def test_huge_numbers_and_long_names_are_refused_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        read(**changes)
    assert (
        str(caught.value).startswith(f"f.jsonl:3: {says}")
        and str(caught.value).isprintable()
        and len(str(caught.value)) < 300
    )


def test_a_lone_surrogate_in_a_message_is_escaped(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rejected.jsonl", [Rejected("the key is \ud800, ü")])
    assert (tmp_path / "rejected.jsonl").read_text(encoding="utf-8") == '{"reason": "the key is \\\\ud800, ü"}\n'


def test_a_librarys_error_becomes_one_printable_line() -> None:
    assert first_line(ValueError("it is\x0e bad\nat byte 3")) == "it is\\x0e bad"
    assert first_line(ValueError("")) == "ValueError"
    assert len(first_line(ValueError("x" * 5000))) == 300


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scores": {"polite": "very"}}, "scores.polite is str 'very'; it must be a number"),
        ({"scores": {"polite": math.nan}}, "scores.polite is nan; it must be a finite number"),
        ({"sampling": {"temperature": math.inf}}, "sampling has a non-finite number"),
        ({"sampling": {"stop": "\ud800"}}, "sampling has .* a lone surrogate"),
    ],
)
def test_a_completion_has_only_numbers_that_json_can_represent(changes: dict[str, Any], says: str) -> None:
    texts = dict.fromkeys(("id", "prompt_id", "system", "prompt", "prompt_sha", "ask", "marker", "text"), "x")
    with pytest.raises(InputError, match=says):
        Completion.from_json(texts | changes, "c.jsonl:1")


def test_a_judgment_compares_two_systems() -> None:
    texts = dict.fromkeys(("item", "row", "prompt_id", "rater", "attribute", "choice"), "x")
    with pytest.raises(InputError, match=r"j\.jsonl:1: systems is list \['x'\]; it must be two systems"):
        Judgment.from_json(texts | {"systems": ["x"]}, "j.jsonl:1")
