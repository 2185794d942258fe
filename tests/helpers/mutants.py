"""Broken input of every kind, made from good examples: rows of every format of feedback, changes to a JSON value,
changes to bytes, and a time limit.

Everything depends on the given `random.Random`, so a seed in a message reproduces the case.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from coh_lightning.feedback.sources import (
    HH,
    OASST,
    Fields,
    Piece,
    Records,
    Source,
    Summarize,
    TRLPairs,
    TRLUnpaired,
    WebGPT,
)
from coh_lightning.feedback.sources import Mapping as Mapped
from helpers.feedback import DATA, EVERY_KIND

# --- good
# rows

_USER, _GOOD, _BAD = (
    {"role": role, "content": words}
    for role, words in (("user", "Hi there"), ("assistant", "Hello!"), ("assistant", "What?"))
)
_TALK = "\n\nHuman: a\n\nAssistant: b\n\nHuman: Why is it so?\n\nAssistant:"


def _node(id: str, role: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "message_id": id,
        "text": f"text of {id}",
        "role": role,
        "deleted": False,
        "review_result": True,
        "replies": list(replies),
        **more,
    }


def _webgpt(score: float) -> dict[str, Any]:
    quotes = [{"title": ["A (a.org)", other], "extract": ["aa", f"in {other}"]} for other in ("B", "C")]
    answers = {f"answer_{side}": f"It is {side} [1][2]." for side in (0, 1)}
    return {
        "question": {"full_text": "Why?"},
        "quotes_0": quotes[0],
        "quotes_1": quotes[1],
        "score_0": score,
        "score_1": -score,
        **answers,
    }


def _summary(**info: Any) -> dict[str, Any]:
    return {
        "info": {"id": "t3_x", "title": "T", **info},
        "summaries": [{"text": " First.", "policy": "sup1"}, {"text": "Second."}],
        "choice": 1,
        "worker": "w",
    }


def _rated(response: str, rating: str) -> dict[str, Any]:
    notes = {
        name: {"Rating": rating, "Rationale": "so"}
        for name in ("instruction_following", "honesty", "truthfulness", "helpfulness")
    }
    return {"model": "m", "response": response, "critique": "It is fine.", "annotations": notes}


_SCORES = {"coherence": 1.5, "consistency": 5, "fluency": 4.75, "relevance": 2}

ROWS: Mapping[str, list[dict[str, Any]]] = {
    "records": [dict(row) for row in EVERY_KIND],
    "hh": [
        {"chosen": f"{_TALK} yes", "rejected": f"{_TALK} no"},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    ],
    "summarize": [_summary(post="The post.", subreddit="aww"), _summary(article="News of the day.")],
    "webgpt": [_webgpt(0.5), _webgpt(0.0)],
    "trl": [
        {"prompt": "Hi there", "chosen": "Hello!", "rejected": "What?"},
        {"prompt": [_USER], "chosen": [_GOOD], "rejected": [_BAD]},
        {"chosen": [_USER, _GOOD], "rejected": [_USER, _BAD]},
        {"chosen": "Hi there Hello!", "rejected": "Hi there What?"},
        {
            "prompt": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello!"},
            "rejected": {"from": "gpt", "value": "What?"},
        },
    ],
    "kto": [{"prompt": "Hi", "completion": "Hello!", "label": True}, {"messages": [_USER, _GOOD], "label": False}],
    "oasst": [
        {
            "message_tree_id": "a",
            "prompt": _node(
                "a",
                "prompter",
                _node(
                    "b",
                    "assistant",
                    _node("c", "prompter", _node("d", "assistant", rank=1), _node("e", "assistant", rank=0)),
                    rank=0,
                    emojis={"+1": 3, "-1": 1},
                ),
                _node("f", "assistant", rank=1, synthetic=True, model_name="m"),
            ),
        }
    ],
    "dpo": [
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello!"},
            "rejected": {"from": "gpt", "value": "What?"},
        }
    ],
    "feedbackqa": [
        {
            "question": "Why?",
            "answer": "So.",
            "rating": ["Excellent", "Bad"],
            "feedback": ["It is right.", "It is short."],
        }
    ],
    "helpsteer2": [
        {
            "prompt": "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc",
            "response": "d",
            "helpfulness": 3,
            "correctness": 4,
            "coherence": 4,
            "complexity": 0,
            "verbosity": 1,
        }
    ],
    "defacto": [
        {
            "doc_id": "7",
            "article": "It rained.",
            "candidate": "It snowed.",
            "abstract": "Rain.",
            "has_error": True,
            "feedback": {"summary": "It rained.", "explanation": "No snow.", "instruction": None},
        }
    ],
    "hh_helpful_ai": [{"i_chosen": "Why?", "r_chosen": "So.", "i_reject": "Why?", "r_reject": "No."}],
    "llmbar": [{"input": "Why?", "output_1": "So.", "output_2": "No.", "label": 2}],
    "pandalm": [
        {
            "instruction": "Add.",
            "input": "1 2",
            "response1": "3",
            "response2": True,
            "annotator1": 1,
            "annotator2": 0,
            "annotator3": 1,
            "cmp_key": "k",
        }
    ],
    "summeval": [
        {
            "doc_id": "dm-1",
            "article": "It rained.",
            "reference": "Rain.",
            "systems": [
                {"system": name, "summary": f"Rain, {name}.", "scores": dict(_SCORES)} for name in ("M1", "M2")
            ],
        }
    ],
    "helpsteer3": [
        {
            "domain": "code",
            "language": "python",
            "context": [_USER],
            "response1": "Hello!",
            "response2": "What?",
            "overall_preference": -2,
            "individual_preference": [
                {"score": -2, "reasoning": "It is kind.", "feedback1": "Good.", "feedback2": None}
            ],
        }
    ],
    "nectar": [
        {
            "prompt": "\n\nHuman: Why?\n\nAssistant: ",
            "answers": [{"answer": "So.", "model": "m", "rank": 1.0}, {"answer": "No.", "model": "n", "rank": 2.0}],
            "source": ["s"],
            "good_natured": True,
        }
    ],
    "chatbot_arena": [
        {
            "question_id": "q",
            "model_a": "m",
            "model_b": "n",
            "winner": vote,
            "conversation_a": [_USER, _GOOD],
            "conversation_b": [_USER, _BAD],
        }
        for vote in ("model_a", "tie (bothbad)")
    ],
    "pku_saferlhf": [
        {
            "prompt": "How?",
            "response_0": "So.",
            "response_1": "No.",
            "response_0_source": "m",
            "response_1_source": "n",
            "is_response_0_safe": True,
            "is_response_1_safe": False,
            "better_response_id": 1,
            "safer_response_id": 0,
        }
    ],
    "shp": [
        {
            "history": "Why?\n",
            "human_ref_A": "So.",
            "human_ref_B": "No.",
            "labels": 0,
            "score_ratio": 2.5,
            "domain": "d",
        }
    ],
    "prometheus": [
        {
            "orig_instruction": "Ask.",
            "orig_response": "So.",
            "orig_score": "4",
            "orig_feedback": "It is kind.",
            "orig_criteria": "Is it kind?",
            "orig_reference_answer": "R",
        }
    ],
    "prometheus_preference": [
        {
            "orig_instruction": "Ask.",
            "orig_response_A": "So.",
            "orig_response_B": "No.",
            "orig_preference": "B",
            "orig_reference_answer": "R",
        }
    ],
    "ultrainteract": [
        {
            "trajectory": [{"from": "user", "value": "Solve."}],
            "chosen": "So.",
            "rejected": "No.",
            "id": "0_0",
            "task": "Coding",
            "dataset": "d",
            "parent_id": None,
        }
    ],
    "ultrafeedback": [
        {"source": "s", "instruction": "Why?", "completions": [_rated("So.", "5"), _rated("No.", "N/A")]}
    ],
}
"""Good rows for each file of settings of data."""

_CLASSES: Mapping[str, Callable[..., Source]] = {
    "HH": HH, "OASST": OASST, "Records": Records, "Summarize": Summarize, "TRLPairs": TRLPairs,
    "TRLUnpaired": TRLUnpaired, "WebGPT": WebGPT, "Mapping": Mapped,
}  # fmt: skip


@cache
def _settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DATA[name].read_text(encoding="utf-8"))["data"]["sources"][0]
    return found


def source_of(name: str, path: Path) -> Source:
    """The first source of conf/data/NAME.yaml, on another file."""
    one = _settings(name)
    values = one["init_args"] | {"path": str(path)}
    if isinstance(values.get("prompt"), list):
        values["prompt"] = [Piece(**piece) for piece in values["prompt"]]
    if "completions" in values:
        values["completions"] = [Fields(**fields) for fields in values["completions"]]
    source = _CLASSES[one["class_path"].rpartition(".")[2]](**values)
    return dataclasses.replace(source, subset=None, held_out=1e-9) if isinstance(source, WebGPT) else source


# --- -
# broken values

_RAW = {
    "@MANY DIGITS@": "1" * 5000,
    "@LARGE@": "1" + "0" * 400,
    "@NESTED@": "[" * 400 + "]" * 400,
    "@DEEP@": '{"a":' * 900 + "1" + "}" * 900,
    "@TOO DEEP@": "[" * 5000 + "]" * 5000,
    "@HALF@": "\\ud83d",
    "@1E999@": "1e999",
}
"""JSON that json.dumps can't write: it replaces the quoted placeholder."""

JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, 10**30, float("nan"), float("inf"), float("-inf"),
    "", " ", "\n", "\0", "\x1b[31m", "\u2028", "\ufeff", "\U0001f3f4", "a\u0301", "NaN", "1e999", "-7", "1_0",
    "٣", "true", "tie", "x" * 3000, "[1]" * 200,
    "[" + "7" * 5000 + "]", "{task}", "{0.__class__}", "%s%n", "=1+1", "</s><|im_end|>",
    "\n\nAssistant:", "\n\nHuman: a\n\nAssistant: b", "../../x", "A helpful answer:",
    [], {}, [[]], [None], [1, "a", {}], {"": ""}, {"text": "t"}, {"role": "user", "content": "c"}, {"role": "robot"},
    {"+1": "x"}, [["a"] * 3] * 3, ["a"] * 300,
    *_RAW,
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def mutated(value: Any, chance: Random) -> Any:
    """A copy with one to three changes: half of them inside texts, the others to the structure."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return value
        *way, last = chance.choice(places)
        parent = value
        for step in way:
            parent = parent[step]
        old = parent[last]
        match chance.randrange(-6, 12):
            case -6 | -5 | -4 | -3 | -2 | -1 | 0 | 1 | 2 | 3 if isinstance(old, str):
                place = chance.randrange(len(old) + 1)
                junk = chance.choice([one for one in JUNK if isinstance(one, str)])
                parent[last] = old[:place] + junk + old[place + chance.randrange(3) :]
            case 4 if isinstance(old, int | float):
                parent[last] = chance.choice((old + 1, -old, old * 2, old / 2, str(old), not old))
            case 5:
                del parent[last]
            case 6 if isinstance(parent, dict):
                parent[
                    chance.choice(
                        (f"{last}s", str(last).upper(), str(last)[:-1], "\ud800", "", "@", f"{last}\n", "k" * 3000)
                    )
                ] = parent.pop(last)
            case 7 if isinstance(old, list):
                parent[last] = (
                    json.loads(json.dumps(old * chance.choice((2, 3, 40)))) if chance.random() < 0.7 else old[::-1]
                )
            case 8:
                parent[last] = chance.choice(([old], {"text": old}, {str(last): old}))
            case 9:
                *_, (*other_way, other) = (chance.choice(places),)
                donor = value
                try:
                    for step in (*other_way, other):
                        donor = donor[step]
                except (KeyError, IndexError, TypeError):
                    continue
                parent[last] = json.loads(json.dumps(donor))
            case _:
                parent[last] = json.loads(json.dumps(chance.choice(JUNK)))
    return value


def line_of(value: Any, chance: Random | None = None) -> str:
    """The value as one line of JSON, with what json.dumps can't write, and sometimes a repeated key."""
    text = json.dumps(value)
    if chance is not None and chance.random() < 0.05 and isinstance(value, dict) and value:
        text = "{" + f"{json.dumps(chance.choice(list(value)))}: {json.dumps(chance.choice(JUNK))}, " + text[1:]
    if "@" in text:
        for mark, raw in _RAW.items():
            text = text.replace(f'"{mark}"', raw if mark != "@HALF@" else f'"{raw}"').replace(mark, "\\ud800")
    return text


# --- -
# broken bytes

_BYTES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n", b"\n\n",
    b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b":", b"\\",
    b"\\u", b"\\ud800", b"NaN", b"Infinity", b"-", b"1e999", b"9" * 5000, b"[" * 3000,
    b"null", b"true",
    b"PAR1", b"\x1f\x8b\x08\0", b"\xe2\x80\xa8", b"x" * 20000,
)  # fmt: skip


def mutated_bytes(content: bytes, chance: Random, *, most: int = 3) -> bytes:
    """One to `most` changes: bits flipped, bytes inserted, pieces removed, doubled or moved, truncation, another
    encoding or another line end.
    """
    for _ in range(chance.randint(1, most)):
        place = chance.randrange(len(content) + 1)
        size = chance.choice((1, 1, 2, 8, 64, 500))
        match chance.randrange(12):
            case 0 | 1:
                content = content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
            case 2 if place < len(content):
                content = content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
            case 3 | 4 | 5:
                content = content[:place] + chance.choice(_BYTES) + content[place:]
            case 6 | 7:
                content = content[:place] + content[place + size :]
            case 8:
                content = content[:place] + content[place : place + size] * 2 + content[place + size :]
            case 9:
                content = content[:place] if chance.random() < 0.5 else content[place:]
            case 10:
                content = content.replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\n", b"\n \n")))
            case _ if chance.random() < 0.3:
                content = content.decode("utf-8", "replace").encode(
                    chance.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32", "utf-7"))
                )
    return content


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Fails the test if the body takes longer."""

    def late(*_: object) -> None:
        pytest.fail(f"no answer within {seconds:g} seconds: {what}")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
