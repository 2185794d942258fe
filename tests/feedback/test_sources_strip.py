"""`strip: true`: every source strips its texts and counts those that changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.feedback.records import Feedback, content_id
from coh_lightning.feedback.sources import (
    HH,
    OASST,
    Fields,
    Mapping,
    Records,
    Source,
    Summarize,
    TRLPairs,
    TRLUnpaired,
    WebGPT,
    load,
)


def node(id: str, role: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": id, "role": role, "text": text, "replies": list(replies), **more}


def sources(path: str, **options: Any) -> dict[type[Source], Source]:
    mapped = Mapping(
        path, prompt="p", completions=[Fields(text="a", critique="c", revision="r")], reference="f", **options
    )
    webgpt = WebGPT(path, held_out=1e-9, **options)  # its question is in train
    plain = [HH, OASST, Records, Summarize, TRLPairs, TRLUnpaired]
    return {Mapping: mapped, WebGPT: webgpt} | {one: one(path, **options) for one in plain}


QUOTES = {"title": [" T"], "extract": ["E "]}
ROWS: dict[type[Source], dict[str, Any]] = {
    HH: {"chosen": "\n\nHuman:  a\n\n\nAssistant: b ", "rejected": "\n\nHuman:  a\n\n\nAssistant:  c"},
    OASST: {
        "prompt": node(
            "a", "prompter", " p", node("b", "assistant", " x", rank=0), node("c", "assistant", "y\n", rank=1)
        )
    },
    Records: {
        "prompt": [{"role": "system", "content": " s"}, {"role": "user", "content": [{"text": " p"}, {"text": " q "}]}],
        "completions": [{"text": "\nx ", "critique": " c", "revision": "r "}],
        "reference": " f ",
    },
    Summarize: {
        "info": {"post": "A post. ", "title": "T"},
        "summaries": [{"text": "  x"}, {"text": "y\n"}],
        "choice": 1,
    },
    TRLPairs: {"prompt": " p", "chosen": " x", "rejected": "y "},
    TRLUnpaired: {"prompt": " p", "completion": " x", "label": True},
    WebGPT: {
        "question": " p",
        "answer_0": "x ",
        "answer_1": "\ty",
        "score_0": 1,
        "score_1": -1,
        "quotes_0": QUOTES,
        "quotes_1": QUOTES,
    },
    Mapping: {"p": " p", "a": "\nx ", "c": " c", "r": "r ", "f": " f "},
}


def texts(feedback: Feedback) -> list[str]:
    said = [text for one in feedback.candidates for text in (one.text, one.critique, one.revision)]
    return [text for text in (*(turn.text for turn in feedback.prompt), *said, feedback.reference) if text is not None]


def test_every_source_has_its_row_here() -> None:
    named = [one for one in Source.__subclasses__() if not one.__name__.startswith("_")]  # _InMemory reads as others do
    own = {one for one in named if one.__module__.startswith("coh_lightning.")}
    assert own == set(ROWS) == set(sources("x"))


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_every_source_strips_whitespace_and_counts_it(tmp_path: Path, kind: type[Source]) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(ROWS[kind]) + "\n")
    (kept,) = load([sources(str(path))[kind]], seed=0)
    noticed: list[Any] = []
    (bare,) = load([sources(str(path), strip=True)[kind]], seed=0, noticed=noticed)
    assert texts(kept) != [text.strip() for text in texts(kept)]
    assert texts(bare) == [text.strip() for text in texts(kept)]
    padded = sum(text != text.strip() for text in texts(kept))
    counts = [line for line in noticed[0].lines() if "strip: whitespace was removed from the ends of a text" in line]
    assert len(counts) == 1 and f"({padded} time" in counts[0]


def test_an_id_from_the_content_is_that_of_the_stripped_record() -> None:
    source = Records("r", strip=True)
    for text in ("x", " x "):
        found = source.feedback({"prompt": "p", "completions": [{"text": text}]}, "f:1")
        assert isinstance(found, Feedback) and found.id == content_id(found)
        given = source.feedback({"id": "7", "prompt": "p", "completions": [{"text": text}]}, "f:1")
        assert isinstance(given, Feedback) and (given.id, given.candidates) == ("7", found.candidates)
