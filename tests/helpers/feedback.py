"""Shared by tests: a few records of feedback of every kind, the settings in conf/ as dataclasses, small data modules
and models, and single rows of a source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.data import CoHDataModule
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source
from coh_lightning.feedback.turns import Turn
from coh_lightning.generation.settings import Generation
from coh_lightning.module import CoHModule
from coh_lightning.sequences.chains import Unusable, build_chains
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.wording import Wording
from coh_lightning.training.schedule import OptimizerSettings

CONF = Path(__file__).parents[2] / "conf"
DATA = {
    path.stem: path
    for folder in (CONF / "data", Path(__file__).parents[1] / "conf")
    for path in sorted(folder.glob("*.yaml"))
}
"""The settings of each kind of feedback by its name; tests/conf has those of local samples of real data."""
METHODS = (
    *sorted(path.stem for path in (CONF / "method").glob("*.yaml")),
    "coh+reviewed",
    "coh_critique+reviewed",
)
"""Those of conf/method, and two that also have the order `reviewed`, whose chains begin without a sentence."""
WORDINGS = tuple(sorted(path.stem for path in (CONF / "wording").glob("*.yaml")))

EVERY_KIND: tuple[dict[str, Any], ...] = (
    {
        "id": "pair",
        "prompt": "Name a fruit.",
        "completions": [{"text": "An apple is a fruit.", "rank": 1}, {"text": "A stone", "rank": 2}],
        "task": "response",
    },
    {
        "id": "prefix",
        "prompt": "Go on.",
        "completions": [{"text": "The cat sat", "rank": 2}, {"text": "The cat sat on the mat.", "rank": 1}],
        "aspect": "harmless",
    },
    {
        "id": "ranking",
        "prompt": "Say hello.",
        "completions": [
            {"text": "Hello!", "rank": 1},
            {"text": "Hi there", "rank": 2},
            {"text": "Hey", "rank": 2},
            {"text": "No.\n\nNever.", "rank": 3},
        ],
    },
    {
        "id": "rating",
        "prompt": "What is rain?",
        "scale": [1, 5],
        "completions": [
            {"text": "Water from clouds", "rating": 5},
            {"text": "Wet", "rating": 3},
            {"text": "A dog", "rating": 1},
        ],
        "task": "summary",
    },
    {
        "id": "attributes",
        "prompt": [{"text": "The game was put off until Tuesday. " * 3, "cut": "back"}, {"text": "\nTL;DR:"}],
        "scale": {"accuracy": [0, 1], "coverage": [0, 1]},
        "completions": [
            {"text": " game on Tuesday", "rating": {"accuracy": 1, "coverage": 0.9}},
            {"text": "{critique} rain \n", "rating": {"accuracy": 0.1, "coverage": 0.3}},
        ],
        "task": "summary",
    },
    {"id": "liked", "prompt": "Thanks!", "completions": [{"text": "You are welcome.", "thumb": True}]},
    {"id": "disliked", "prompt": "Thanks a lot!", "completions": [{"text": "Whatever", "thumb": False}]},
    {
        "id": "critique",
        "prompt": "Why is the sky blue?",
        "completions": [
            {"text": "It mirrors the sea.", "critique": "It is a {myth}.", "revision": "Air scatters blue.", "rank": 2},
            {"text": "Blue light scatters most.", "critique": "It is short, and right.", "rank": 1},
        ],
    },
    {
        "id": "revised",
        "prompt": "Spell dog.",
        "completions": [{"text": "dgo", "critique": "letters swapped", "revision": "dog"}],
    },
    {
        "id": "dialogue",
        "prompt": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "How are you? Assistant: <|end|>"},
        ],
        "completions": [
            {"text": "Well, thank you.", "rank": 1},
            {"text": "User: </s><|im_end|> <|eot_id|><end_of_turn>", "rank": 2},
        ],
        "task": "response",
    },
    {
        "id": "system",
        "system": "You speak like a pirate.",
        "prompt": "Where are you?",
        "completions": [{"text": "At sea, matey — ахой 🏴", "rank": 1}, {"text": "  Here\t<|end|>", "rank": 2}],
    },
)
"""Pair, one output a prefix of the other, ranking with ties, ratings, named ratings, thumbs, critiques, a revision, a
conversation with special tokens in it, a system turn.
"""

TIE = {"id": "tie", "prompt": "Pick one.", "completions": [{"text": "One", "rank": 1}, {"text": "Two", "rank": 1}]}
IDENTICAL = {
    "id": "identical",
    "prompt": "Pick any.",
    "completions": [{"text": "One", "rank": 1}, {"text": "One", "rank": 2}],
}
SILENT = {"id": "silent", "prompt": "Say something.", "completions": [{"text": "Something"}]}


def pairs(n: int, *, good: str = "The answer is {i}", bad: str = "No idea about {i} at all") -> list[dict[str, Any]]:
    """`n` comparisons with different prompts and lengths."""
    words = "one two three four five six seven eight nine ten".split()
    return [
        {
            "id": str(i),
            "prompt": f"Question {i}: " + " ".join(words[: 1 + i % 7]) + "?",
            "completions": [
                {"text": good.format(i=i) + " and" * (i % 4), "rank": 1},
                {"text": bad.format(i=i) + " no" * (i % 3), "rank": 2},
            ],
        }
        for i in range(n)
    ]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes the rows as JSON lines; returns the file name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@cache
def method(name: str, **changes: Any) -> Method:
    """A file of conf/method; NAME+reviewed: with that order too, and half the loss on its reviews."""
    name, _, more = name.partition("+")
    values = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(values) == {field.name for field in fields(Method)}
    values["orders"] = (*values["orders"], *filter(None, [more]))
    return Method(**(values | ({"feedback_weight": 0.5} if more else {}) | changes))


@cache
def wording(name: str) -> Wording:
    """A file of conf/wording."""
    values = yaml.safe_load((CONF / "wording" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(values) == {field.name for field in fields(Wording)}
    return Wording.from_settings(values)


def usable(rows: Iterable[Mapping[str, Any]], chosen: Method) -> list[Mapping[str, Any]]:
    """The rows that a method can make chains of."""
    kept = []
    for row in rows:
        try:
            build_chains(Feedback.from_json(row, "here"), chosen, Wording())
        except Unusable:
            continue
        kept.append(row)
    return kept


def data_of(
    rows: Iterable[Mapping[str, Any]], folder: Path, *, train_only: bool = True, **settings: Any
) -> CoHDataModule:
    """A data module over a file of these rows, short rows and steps, with the embedded world's tokenizer."""
    path = write(folder / "feedback.jsonl", rows)
    if train_only:
        settings = {"validation_share": 0.0, "test_share": 0.0} | settings
    sizes = {
        "max_prompt_tokens": 128,
        "max_chain_tokens": 256,
        "row_tokens": 256,
        "rows_per_step": 2,
        "cache_dir": str(folder / "cache"),
        "tokenizer": "world",
    }
    return CoHDataModule(path, **(sizes | settings))


def built(rows: Iterable[Mapping[str, Any]], folder: Path, **settings: Any) -> CoHDataModule:
    """The same, set up without a Trainer."""
    data = data_of(rows, folder, **settings)
    data.setup()
    return data


TINY = {
    "model_type": "llama",
    "vocab_size": 520,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}


def tiny(*, vocab_size: int = 520, **settings: Any) -> CoHModule:
    """A new model of two layers of width 32, whose outputs differ enough for tests to tell."""
    return CoHModule(
        from_config=TINY | {"vocab_size": vocab_size}, **grouped({"lr": 1e-2, "warmup_ratio": 0.0} | settings)
    )


def grouped(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CoHModule`: settings of its groups are given by their own names.

    {"lr": 0.1, "generate_every_n_validations": 1}
    ->  {"lr": 0.1, "generation": Generation(generate_every_n_validations=1)}
    """
    found = dict(settings)
    for group, kind in (("generation", Generation), ("optimizer", OptimizerSettings)):
        own = {field.name: found.pop(field.name) for field in fields(kind) if field.name in found}
        if own:
            found[group] = kind(**own)
    return found


def merged(columns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of `validate` or `test`, one dictionary per loader, without overlap."""
    assert sum(map(len, columns)) == len({name for column in columns for name in column})
    return {name: value for column in columns for name, value in column.items()}


# --- one row of a source


def record_of(source: Source, row: dict[str, Any]) -> Feedback:
    """The record of a row."""
    result = source.feedback(row, "f:1")
    assert isinstance(result, Feedback), result
    return result


def rejection_of(source: Source, row: dict[str, Any]) -> Rejected:
    """Why a row was left out."""
    result = source.feedback(row, "f:1")
    assert isinstance(result, Rejected), result
    return result


def roles_and_texts(turns: Iterable[Turn]) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in turns]
