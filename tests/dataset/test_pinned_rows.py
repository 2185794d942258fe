"""The plan, the rows, the held-out batches and the report of fixed data and seeds, bit for bit: a change of how set-up
works is no change of what is trained on.

A digest changes only with what a run computes. Where that is meant, say so in CHANGELOG.md and write down the new ones:

    python tests/dataset/test_pinned_rows.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from coh_lightning.data import CoHDataModule
from coh_lightning.feedback.sources import Fields, Mapping, Records, TRLPairs
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.feedback import EVERY_KIND, IDENTICAL, SILENT, TIE, built, method, pairs, wording, write
from helpers.tokenizers import CHATML, LLAMA3, byte_level, sentencepiece

LONG = {
    "id": "long",
    "system": "Be brief.",
    "prompt": [
        {"role": "user", "content": "Tell me about rain. " * 8},
        {"role": "assistant", "content": "Rain is water. " * 6},
        {"role": "user", "content": [{"text": "Sum up:\n"}, {"text": "It rained a lot. " * 12, "cut": "back"}]},
    ],
    "completions": [{"text": "Rain. " * 20, "rank": 1}, {"text": "Water falls. " * 9, "rank": 2}],
}
UNFIT = {
    "id": "unfit",
    "prompt": "Go.",
    "completions": [{"text": "on " * 300, "rank": 1}, {"text": "off " * 300, "rank": 2}],
}
EVERY = (*EVERY_KIND, TIE, IDENTICAL, SILENT, LONG, UNFIT)
SPLITS = {"train_only": False, "validation_share": 0.2, "test_share": 0.2}
SHORT = {"max_prompt_tokens": 60, "max_chain_tokens": 120, "row_tokens": 130}


def numbered(number: int) -> list[dict[str, Any]]:
    """Every kind again and again under other ids and prompts, and pairs of which some have the same prompt."""
    rows = [json.loads(json.dumps(row)) | {"id": f"{row['id']}-{i}"} for i in range(number) for row in EVERY]
    for i, row in enumerate(rows):
        turn = row["prompt"] if isinstance(row["prompt"], str) else None
        row["prompt"] = f"{i}. {turn}" if turn is not None else [*row["prompt"]]
        if turn is None and "role" in row["prompt"][0] and isinstance(row["prompt"][0]["content"], str):
            row["prompt"][0]["content"] += f" ({i})"
    same = [row | {"id": f"again-{row['id']}"} for row in pairs(6)]
    return [*rows, *pairs(30), *same]


def of_kinds(folder: Path, **settings: Any) -> CoHDataModule:
    return built(numbered(3), folder, **settings)


def saved(make: Callable[[], Any]) -> Callable[[Path], str]:
    def save(folder: Path) -> str:
        make().save_pretrained(folder / "tokenizer")
        return str(folder / "tokenizer")

    return save


def of_tokenizer(make: Callable[[], Any], folder: Path, **settings: Any) -> CoHDataModule:
    return of_kinds(folder, tokenizer=saved(make)(folder), **settings)


def of_sources(folder: Path) -> CoHDataModule:
    """Three sources with weights, one merged by prompt, rows that are skipped, and a test set of its own."""
    bad = [*pairs(3), {"prompt": "No completions"}, {"prompt": "x", "completions": []}]
    rated = [{"question": f"Q{i % 4}?", "answer": f"Answer {i}", "score": i % 5, "kept": {"n": i}} for i in range(12)]
    trl = [{"prompt": f"Trl {i}", "chosen": f"Yes {i}", "rejected": f"No {i % 3}"} for i in range(9)]
    (folder / "own").mkdir()
    own = write(folder / "own" / "own.jsonl", [*bad, *({**row, "id": ""} for row in pairs(2) * 2)])
    sources = [
        Records(own, weight=1.0, strip=True),
        Mapping(
            write(folder / "rated.jsonl", rated),
            prompt="question",
            completions=[Fields("answer", rating="score")],
            scales={"overall": [0.0, 4.0]},
            keep=["kept"],
            merge_prompts=True,
            weight=2.0,
        ),
        TRLPairs(write(folder / "trl.jsonl", trl), weight=0.5, limit=8),
    ]
    test = [Records(write(folder / "test.jsonl", [*pairs(2), *EVERY_KIND[:4]]))]
    data = CoHDataModule(
        sources=sources,
        test_sources=test,
        on_bad_record="skip",
        validation_share=0.2,
        test_share=0.0,
        tokenizer="world",
        rows_per_step=2,
        cache_dir=str(folder / "cache"),
        max_chain_tokens=128,
        max_prompt_tokens=64,
        row_tokens=128,
    )
    data.setup()
    return data


def of_text(folder: Path) -> CoHDataModule:
    (folder / "text.txt").write_text("\n\n".join(f"Paragraph {i}. " + "It rained all day. " * i for i in range(20)))
    return of_kinds(
        folder, pretraining_text=[str(folder / "text.txt")], pretraining_rows_per_step=2, fcm_on_pretraining=True
    )


CASES: dict[str, Callable[[Path], CoHDataModule]] = {
    "coh": lambda folder: of_kinds(folder),
    "another seed": lambda folder: of_kinds(folder, seed=7),
    "varied wording, splits": lambda folder: of_kinds(folder, wording=wording("varied"), **SPLITS),
    "separate": lambda folder: of_kinds(folder, layout="separate", **SPLITS),
    "no hiding": lambda folder: of_kinds(folder, fcm_range=(0.0, 0.0)),
    "ranking": lambda folder: of_kinds(folder, method=method("coh_ranking"), **SPLITS),
    "ranking, last, separate": lambda folder: of_kinds(
        folder, method=method("coh_ranking", loss_on="last"), layout="separate"
    ),
    "ranking, last": lambda folder: of_kinds(folder, method=method("coh_ranking", loss_on="last"), **SHORT),
    "ratings": lambda folder: of_kinds(
        folder, method=method("coh_ratings"), wording=wording("attributes"), max_unusable_fraction=1.0, **SPLITS
    ),
    "critiques": lambda folder: of_kinds(
        folder, method=method("coh_critique"), wording=wording("critique"), max_unusable_fraction=1.0, **SPLITS
    ),
    "reviews": lambda folder: of_kinds(folder, method=method("coh+reviewed"), **SPLITS),
    "reviews alone": lambda folder: of_kinds(folder, method=method("reviewed"), max_unusable_fraction=1.0),
    "sft": lambda folder: of_kinds(folder, method=method("sft"), **SPLITS),
    "unlikelihood": lambda folder: of_kinds(folder, method=method("unlikelihood")),
    "all pairs, ties": lambda folder: of_kinds(folder, method=method("coh", pairs="all", ties="sentence"), **SPLITS),
    "short": lambda folder: of_kinds(folder, **SHORT, **SPLITS),
    "very short": lambda folder: of_kinds(
        folder, method=method("coh", pairs="all"), max_prompt_tokens=40, max_chain_tokens=70, row_tokens=90,
        max_unusable_fraction=1.0, **SPLITS,
    ),
    "chat": lambda folder: of_tokenizer(
        lambda: byte_level(CHATML), folder, prompt_format=PromptFormat("chat"), **SPLITS
    ),
    "chat, system": lambda folder: of_tokenizer(
        lambda: sentencepiece(LLAMA3), folder, prompt_format=PromptFormat("chat", marker_in="system"), **SPLITS
    ),
    "spaces": lambda folder: of_tokenizer(
        lambda: sentencepiece(), folder, prompt_format=PromptFormat(before_output=" ", before_marker="  "), **SHORT
    ),
    "sources": of_sources,
    "pretraining text": of_text,
}  # fmt: skip


DERIVED = ("runs", "parents")
"""What a batch may have for attention tree by tree; it follows from the rest."""


def add(digest: Any, value: Any) -> None:
    """A value in a canonical form: arrays and tensors by type and bytes, floats exactly."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in (key for key in value if key not in DERIVED):
            digest.update(str(key).encode())
            add(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}".encode())
        for one in value:
            add(digest, one)
    else:
        digest.update(f"{type(value).__name__}{value!r}".encode())


def digest_of(*values: Any) -> str:
    digest = hashlib.sha256()
    add(digest, values)
    return digest.hexdigest()[:12]


def digests(data: CoHDataModule, folder: Path) -> str:
    """Of the plan, the rows of two epochs, the held-out rows, and what is said of the data. Not of comparisons: how
    many records share a pass is no part of what is computed.
    """
    plan = data.plan
    items = [(item.record, item.chains, item.length, item.weight) for item in plan.items]
    steps = [
        [(row.pretraining, row.members, row.total) for row in plan.step(epoch, step)]
        for epoch in range(3)
        for step in range(plan.steps_per_epoch)
    ]
    micro_batches = plan.steps_per_epoch * plan.accumulate(1)
    rows = [data._train_batch((epoch, index)) for epoch in range(2) for index in range(micro_batches)]
    held_out = [
        [table.build(index) for index in range(table.count)]
        for stage in ("validation", "test")
        for table in data.held_out(stage)[:1]  # type: ignore[arg-type]
    ]
    largest = [batch for batch, trained in data.largest_batches() if trained]
    written = [(one.prompt_id, one.ask, one.prompt_ids) for one in data.requests("test")] if data.splits["test"] else []
    (folder / "report").mkdir()
    data.write_report(folder / "report")
    said = ["".join(path.read_text().replace(str(folder), "HERE")) for path in sorted((folder / "report").iterdir())]
    notes = [line.replace(str(folder), "HERE") for line in data.notes]
    shown = [[name, line.replace(str(folder), "HERE")] for name, line in data.summary()]
    parts = [(plan.digest, items, steps), rows, (held_out, largest, written), (said, notes, shown, data.kinds)]
    return " ".join(digest_of(part) for part in parts)


PINNED = json.loads((Path(__file__).parent / "pinned_rows.json").read_text()) if __name__ != "__main__" else {}


@pytest.mark.parametrize("case", CASES)
def test_the_plan_the_rows_and_the_report_are_what_they_were(case: str, tmp_path: Path) -> None:
    assert digests(CASES[case](tmp_path), tmp_path) == PINNED[case]


def test_every_case_is_pinned_and_no_two_are_the_same() -> None:
    assert PINNED.keys() == CASES.keys()
    assert len(set(PINNED.values())) == len(PINNED)


if __name__ == "__main__":
    import tempfile

    found = {}
    for case, make in CASES.items():
        with tempfile.TemporaryDirectory() as made:
            found[case] = digests(make(Path(made)), Path(made))
    (Path(__file__).parent / "pinned_rows.json").write_text(json.dumps(found, indent=1) + "\n")
