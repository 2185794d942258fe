"""Pairs of the lengths of two known data sets, and a tokenizer of 8,192 tokens for them.

hh      dialogues about harmlessness; real rows with COH_REAL_DATA=FOLDER (hh_harmless_1000.jsonl.gz there), else words
        of the embedded world: 120 tokens of prompt on average, outputs of 41 and 52, spread exponentially
tldr    posts and summaries: 320 and 33 tokens in the middle, spread log-normally
"""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any, Literal

Shape = Literal["hh", "tldr"]
REAL = Path(os.environ.get("COH_REAL_DATA") or "/nonexistent") / "hh_harmless_1000.jsonl.gz"
LIMIT = 550
"""Words of a real pair at most: its chains fit 1,024 tokens."""
GENERATED = 500
"""Pairs that the chosen ones stand for."""
VOCABULARY = 8192


def source(shape: Shape) -> str:
    return "real rows" if shape == "hh" and REAL.exists() else "generated lengths"


def pairs(shape: Shape, number: int) -> list[dict[str, Any]]:
    """Pairs at even places in the order of their lengths, so that few of them are spread as all are; in a shuffled
    order, and the same ones at every call.
    """
    found = _real() if source(shape) == "real rows" else _generated(shape)
    found.sort(key=lambda one: len(json.dumps(one).split()))
    chosen = [found[int((i + 0.5) * len(found) / number)] for i in range(number)]
    random.Random(0).shuffle(chosen)
    return chosen


def _generated(shape: Shape) -> list[dict[str, Any]]:
    from coh_lightning.world.posts import vocabulary

    words, chance = vocabulary(), random.Random(0)

    def text(mean: int, spread: float) -> str:
        if shape == "hh":
            count = min(4 + int(chance.expovariate(1 / (mean - 4))), 5 * mean)
        else:
            count = max(4, min(int(chance.lognormvariate(math.log(mean), spread)), 2 * mean))
        return " ".join(chance.choices(words, k=count))

    means = (120, 41, 52) if shape == "hh" else (320, 33, 33)
    return [
        {
            "id": str(i),
            "prompt": text(means[0], 0.4),
            "completions": [{"text": text(means[1], 0.35), "rank": 1}, {"text": text(means[2], 0.35), "rank": 2}],
        }
        for i in range(GENERATED)
    ]


def write(shape: Shape, number: int, folder: Path) -> dict[str, str]:
    """Writes pairs and, for real ones, a tokenizer; what `CoHDataModule` takes of them."""
    file, found = folder / f"{shape}.jsonl", pairs(shape, number)
    file.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    name = "world"
    if source(shape) == "real rows":
        name = str(folder / "tokenizer")
        _tokenizer([one["text"] for pair in _real() for one in pair["completions"]], Path(name))
    return {"feedback": str(file), "tokenizer": name, "cache_dir": str(folder / "cache")}


def _real() -> list[dict[str, Any]]:
    from coh_lightning.feedback.records import Feedback
    from coh_lightning.feedback.sources.hh import HH

    hh = HH(str(REAL))
    read = [hh.feedback(row, where) for where, row in hh.all_rows()]  # type: ignore[arg-type]
    found = [one.to_json() for one in read if isinstance(one, Feedback)]
    return [one for one in found if len(json.dumps(one).split()) < LIMIT]


def _tokenizer(texts: list[str], folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = {"special_tokens": ["</s>"], "initial_alphabet": alphabet, "show_progress": False}
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, **special))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>").save_pretrained(folder)
