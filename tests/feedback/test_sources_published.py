"""Made-up rows in exactly the shape of public datasets, read with settings in YAML; and the records made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_sources_mapping import mapping, ranks, reason, record

from coh_lightning.feedback.records import RatedCompletion
from coh_lightning.feedback.sources import load
from helpers.feedback import roles_and_texts

CONF = Path(__file__).parents[2] / "conf" / "data"


def settings(name: str) -> str:
    """The settings of the Mapping in conf/data/NAME.yaml as YAML, without those that locate its rows."""
    (source,) = yaml.safe_load((CONF / f"{name}.yaml").read_text())["data"]["sources"]
    return yaml.safe_dump(
        {key: value for key, value in source["init_args"].items() if key not in ("path", "subset")}, sort_keys=False
    )


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# --- -
# UltraFeedback

ULTRAFEEDBACK = settings("ultrafeedback")


def test_ultrafeedback() -> None:
    notes = {
        "instruction_following": {"Rating": "5", "Rationale": "Follows."},
        "honesty": {"Rating": "N/A", "Rationale": "N/A"},
        "truthfulness": {"Type": ["1"], "Rationale": "True.", "Rating": "3", "Rationale For Rating": "Fine."},
        "helpfulness": {"Type": ["1"], "Rationale": " Helps.", "Rating": "4", "Rationale For Rating": "Fine."},
    }
    completion = {
        "annotations": notes,
        "custom_system_prompt": "s",
        "model": "alpaca-7b",
        "principle": "helpfulness",
        "response": " Answer\n",
        "critique": "Good.",
        "fine-grained_score": 4.0,
        "overall_score": 8.0,
    }
    row = {
        "source": "sharegpt",
        "instruction": "Why?",
        "models": ["alpaca-7b"],
        "completions": [completion],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }
    one = record(ULTRAFEEDBACK, row)
    assert one.candidates == (
        RatedCompletion(
            " Answer\n",
            ratings={"instruction_following": 5.0, "truthfulness": 3.0, "helpfulness": 4.0},
            critique="Good.",
            author="alpaca-7b",
        ),
    )
    with_reasons = record(
        ULTRAFEEDBACK.replace("critique: critique", "critique: [critique, annotations.*.Rationale]"), row
    )
    assert with_reasons.candidates[0].critique == "Good. Follows. True.  Helps."
    assert (roles_and_texts(one.prompt), one.extra) == ([("user", "Why?")], {"source": "sharegpt"})


# --- HelpSteer2
# and 3

HELPSTEER2 = settings("helpsteer2")


def test_helpsteer2(tmp_path: Path) -> None:
    scores = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 0, "verbosity": 1}
    first = {"prompt": "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc", "response": "d"} | scores
    one = record(HELPSTEER2, first)
    assert [(role, text.strip()) for role, text in roles_and_texts(one.prompt)] == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
    assert one.candidates == (RatedCompletion("d", ratings={name: float(value) for name, value in scores.items()}),)
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, first | {"response": "e", "helpfulness": 1})))
    (merged,) = load([mapping(HELPSTEER2, str(path))], seed=0)
    assert [(candidate.text, candidate.ratings["helpfulness"]) for candidate in merged.candidates] == [
        ("d", 3.0),
        ("e", 1.0),
    ]


HELPSTEER3 = settings("helpsteer3")


@pytest.mark.parametrize(
    ("preference", "expected", "margin"), [(-3, [1, 2], 3), (-1, [1, 2], 1), (0, [1, 1], 0), (2, [2, 1], 2)]
)
def test_helpsteer3(preference: int, expected: list[float], margin: float) -> None:
    row = {
        "domain": "code",
        "language": "python",
        "context": [message("user", "a"), message("assistant", "b"), message("user", "c")],
        "response1": "def f():\n    pass\n",
        "response2": "B",
        "overall_preference": preference,
        "individual_preference": [
            {"score": preference, "reasoning": "R1.", "feedback1": "F1.", "feedback2": "G1."},
            {"score": preference, "reasoning": "R2.", "feedback1": "F2.", "feedback2": None},
            {"score": 1 if preference < 0 else -1, "reasoning": "The other one.", "feedback1": None, "feedback2": None},
        ],
    }
    one = record(HELPSTEER3, row)
    assert roles_and_texts(one.prompt) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert ranks(one) == expected
    assert one.extra == {
        "domain": "code",
        "language": "python",
        "individual_preference.*.score": [preference, preference, 1 if preference < 0 else -1],
        "margin": float(margin),
    }
    said = [candidate.critique for candidate in one.candidates]
    assert said == [
        "F1. F2. R1. R2." if expected == [1, 2] else "F1. F2.",
        "G1. R1. R2." if expected == [2, 1] else "G1.",
    ]


# --- Nectar

NECTAR = settings("nectar")


def test_nectar() -> None:
    answers = [
        {"answer": "A", "model": "gpt-4", "rank": 1.0},
        {"answer": " B\n", "model": "llama-2-7b-chat", "rank": 2.0},
        {"answer": "C", "model": "x", "rank": 7.0},
    ]
    row = {
        "prompt": "\n\nHuman: Why?\n\nAssistant: ",
        "answers": answers,
        "turns": 1,
        "num_responses": 3,
        "source": ["lmsys-chat-1m"],
        "good_natured": True,
    }
    one = record(NECTAR, row)
    assert roles_and_texts(one.prompt) == [("user", "Why?")]
    assert one.candidates == (
        RatedCompletion("A", rank=1.0, author="gpt-4"),
        RatedCompletion(" B\n", rank=2.0, author="llama-2-7b-chat"),
        RatedCompletion("C", rank=7.0, author="x"),
    )
    several = row | {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: ", "turns": 2}
    assert roles_and_texts(record(NECTAR, several).prompt) == [("user", "a"), ("assistant", "b"), ("user", "c")]


# --- Arena

ARENA = settings("chatbot_arena")


@pytest.mark.parametrize(
    ("winner", "expected"), [("model_a", [1, 2]), ("model_b", [2, 1]), ("tie", [1, 1]), ("tie (bothbad)", [1, 1])]
)
def test_chatbot_arena(winner: str, expected: list[float]) -> None:
    row: dict[str, Any] = {
        "question_id": "58210e39",
        "model_a": "chatglm-6b",
        "model_b": "koala-13b",
        "winner": winner,
        "judge": "arena_user_973",
        "conversation_a": [message("user", "What is it?"), message("assistant", "A ")],
        "conversation_b": [message("user", "What is it?"), message("assistant", "B")],
        "turn": 1,
        "anony": True,
        "language": "English",
        "tstamp": 1682351591.1322,
        "openai_moderation": {"categories": {}, "flagged": False},
        "toxic_chat_tag": {},
    }
    one = record(ARENA, row)
    assert (one.id, roles_and_texts(one.prompt), ranks(one)) == ("58210e39", [("user", "What is it?")], expected)
    assert [(candidate.text, candidate.author) for candidate in one.candidates] == [
        ("A ", "chatglm-6b"),
        ("B", "koala-13b"),
    ]
    longer = [message("user", "x"), message("assistant", "y"), *row["conversation_a"]]
    assert reason(ARENA, row | {"conversation_b": longer}) == "conversation_a.:-1, conversation_b.:-1 differ"
    both = record(ARENA, row | {"conversation_a": longer, "conversation_b": [*longer[:-1], message("assistant", "B")]})
    assert [role for role, _ in roles_and_texts(both.prompt)] == ["user", "assistant", "user"]


# --- -
# PKU-SafeRLHF

SAFE = settings("pku_saferlhf")


def test_pku_saferlhf() -> None:
    row: dict[str, Any] = {
        "prompt": "How?",
        "response_0": "A",
        "response_1": "B",
        "prompt_source": "Alpaca3-70B",
        "response_0_source": "Alpaca3-8B",
        "response_1_source": "WizardLM-30B-Uncensored",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "response_0_harm_category": {"Privacy Violation": False},
        "response_1_harm_category": {"Privacy Violation": True},
        "response_0_severity_level": 0,
        "response_1_severity_level": 3,
        "better_response_id": 1,
        "safer_response_id": 0,
        "response_0_sha256": "0" * 64,
        "response_1_sha256": "1" * 64,
    }
    one = record(SAFE, row)
    assert one.candidates == (
        RatedCompletion("A", rank=2.0, thumb=True, author="Alpaca3-8B"),
        RatedCompletion("B", rank=1.0, thumb=False, author="WizardLM-30B-Uncensored"),
    )
    assert one.extra == {"safer_response_id": 0, "votes": ["1"]}
    safer = SAFE.replace("votes:\n- better_response_id", "votes:\n- safer_response_id").replace(
        "keep:\n- safer_response_id", "aspect: harmless"
    )
    assert (ranks(record(safer, row)), record(safer, row).aspect) == ([1, 2], "harmless")


# --- SHP

SHP = settings("shp")


def test_shp() -> None:
    row: dict[str, Any] = {
        "post_id": "himc90",
        "domain": "askacademia_train",
        "upvote_ratio": 0.99,
        "history": "In an interview ...\n",
        "c_root_id_A": "fwhp0vi",
        "c_root_id_B": "fwhnc1e",
        "created_at_utc_A": 1593513103,
        "created_at_utc_B": 1593511757,
        "score_A": 340,
        "score_B": 166,
        "human_ref_A": "Currently ...",
        "human_ref_B": "Not sure ...",
        "labels": 1,
        "seconds_difference": 1346.0,
        "score_ratio": 2.0481927711,
    }
    one = record(SHP, row)
    assert (roles_and_texts(one.prompt), ranks(one)) == ([("user", "In an interview ...\n")], [1, 2])
    assert one.extra == {"score_ratio": 2.0481927711, "domain": "askacademia_train", "votes": ["1"]}
    assert ranks(record(SHP, row | {"labels": 0})) == [2, 1]


# --- -
# Prometheus

COLLECTION = settings("prometheus")
PREFERENCES = settings("prometheus_preference")


def test_prometheus() -> None:
    row: dict[str, Any] = {
        "orig_criteria": "Is it kind?",
        **{f"orig_score{number}_description": f"d{number}" for number in range(1, 6)},
        "orig_reference_answer": "R",
        "instruction": "###Task Description: ...",
        "output": "So. [RESULT] 4",
        "input": "",
        "orig_instruction": "Ask.",
        "orig_response": "Answer.",
        "orig_score": "4",
        "orig_feedback": "So.",
    }
    one = record(COLLECTION, row)
    assert one.candidates == (RatedCompletion("Answer.", ratings={"overall": 4.0}, critique="So."),)
    assert (one.reference, one.extra, roles_and_texts(one.prompt)) == (
        "R",
        {"orig_criteria": "Is it kind?"},
        [("user", "Ask.")],
    )
    pair = {
        "orig_instruction": "Ask.",
        "orig_response_A": "A",
        "orig_response_B": "B",
        "orig_reference_answer": "R",
        "orig_criteria": "c",
        "orig_preference": "B",
    }
    assert ranks(record(PREFERENCES, pair)) == [2, 1]


# --- -
# UltraInteract

INTERACT = settings("ultrainteract")


def test_ultrainteract_pairs() -> None:
    row = {
        "task": "Coding",
        "dataset": "codecontest",
        "trajectory": [
            {"from": "user", "value": "Solve."},
            {"from": "assistant", "value": "Step 1"},
            {"from": "user", "value": "Observation: no"},
        ],
        "chosen": "Step 2\n\n```python\n    x = 1\n```",
        "rejected": "Step 2",
        "id": "0_0",
        "parent_id": None,
    }
    one = record(INTERACT, row)
    assert roles_and_texts(one.prompt) == [("user", "Solve."), ("assistant", "Step 1"), ("user", "Observation: no")]
    assert one.candidates == (
        RatedCompletion("Step 2\n\n```python\n    x = 1\n```", rank=1.0),
        RatedCompletion("Step 2", rank=2.0),
    )
    assert (one.id, one.task, one.extra) == (
        "0_0",
        "response",
        {"task": "Coding", "dataset": "codecontest", "parent_id": None},
    )
