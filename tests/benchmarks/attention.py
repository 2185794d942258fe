"""How much faster `fit` is with attention tree by tree (`model.attention: auto` on a CPU) than with a dense mask over
the row (`sdpa`).

    OMP_NUM_THREADS=1 python tests/benchmarks/attention.py [dialogues] [quickstart]

* dialogues: pairs of the lengths of dialogues (on average 120 tokens of prompt, outputs of 41 and 52, spread
  exponentially) in rows of 1,024; a Llama of 6 layers of 256 with a vocabulary of 8,192.
* quickstart: the data and the model of conf/quickstart.yaml (trees of about 113 tokens in rows of 512; 0.4 million
  parameters).

Both ways run the same steps in turn, five rounds each; the ratio is that of the medians of CPU time per step, its range
that of the rounds. The losses of all steps are compared.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from figures import Figure, figure

from coh_lightning.data import CoHDataModule
from coh_lightning.module import CoHModule
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording
from coh_lightning.world.posts import vocabulary

ROUNDS, PAIRS = 5, 48
CONF = Path(__file__).parents[2] / "conf"


class Steps(pl.Callback):
    """CPU seconds and loss of each step; the first step's time, which has the start of the loop in it, is left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._ended: float | None = None
        self._parts: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._parts.append(float(outputs["loss"]))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.losses.append(sum(self._parts))
        self._parts = []
        now = time.process_time()
        if self._ended is not None:
            self.seconds.append(now - self._ended)
        self._ended = now


def dialogues(folder: Path) -> CoHDataModule:
    words, chance = vocabulary(), random.Random(0)

    def text(mean: int) -> str:
        return " ".join(chance.choices(words, k=min(4 + int(chance.expovariate(1 / (mean - 4))), 5 * mean)))

    lines = [
        {
            "id": str(i),
            "prompt": text(120),
            "completions": [{"text": text(41), "rank": 1}, {"text": text(52), "rank": 2}],
        }
        for i in range(PAIRS)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sizes = {"row_tokens": 1024, "max_chain_tokens": 1024, "max_prompt_tokens": 768, "rows_per_step": 2}
    return CoHDataModule(
        str(folder / "pairs.jsonl"),
        validation_share=0.0,
        test_share=0.0,
        cache_dir=str(folder / "cache"),
        tokenizer="world",
        **sizes,
    )


def quickstart(folder: Path) -> CoHDataModule:
    settings = yaml.safe_load((CONF / "quickstart.yaml").read_text())["data"]
    method = yaml.safe_load((CONF.parent / settings.pop("method")).read_text())
    wording = yaml.safe_load((CONF.parent / settings.pop("wording")).read_text())
    settings["fcm_range"] = tuple(settings["fcm_range"])
    return CoHDataModule(
        method=Method(**(method | {"orders": tuple(method["orders"])})),
        wording=Wording.from_settings(wording),
        prompt_format=PromptFormat(**settings.pop("prompt_format")),
        cache_dir=str(folder / "cache"),
        tokenizer="world",
        **settings,
    )


DATA = {"dialogues": dialogues, "quickstart": quickstart}
MODEL: dict[str, dict[str, Any]] = {
    "dialogues": {
        "from_config": {
            "model_type": "llama",
            "vocab_size": 8192,
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "max_position_embeddings": 1024,
        }
    },
    "quickstart": {"name_or_path": "world"},
}
STEPS = {"dialogues": 4, "quickstart": 12}


def fit(name: str, folder: Path, attention: Literal["auto", "sdpa"]) -> tuple[Steps, str]:
    pl.seed_everything(0, verbose=False)
    steps = Steps()
    model = CoHModule(attention=attention, lr=1e-6, **MODEL[name])
    pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS[name],
        callbacks=[steps],
        use_distributed_sampler=False,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
    ).fit(model, datamodule=DATA[name](folder))
    return steps, model.lm.config._attn_implementation


def compared(name: str) -> dict[str, list[float]]:
    """CPU seconds of a step in each round, by `attention`. The losses are asserted to be the same."""
    medians: dict[str, list[float]] = {"sdpa": [], "auto": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            found = {}
            for way, seconds in medians.items():
                steps, used = fit(name, Path(folder), way)  # type: ignore[arg-type]
                assert (used == "sdpa") == (way == "sdpa"), f"{way} ran with {used}"
                seconds.append(statistics.median(steps.seconds))
                found[way] = torch.tensor(steps.losses, dtype=torch.float64)
            torch.testing.assert_close(found["auto"], found["sdpa"], rtol=1e-6, atol=0)
    return medians


def measure(names: Sequence[str] = ()) -> list[Figure]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    figures = []
    for name in names or DATA:
        seconds = compared(name)
        group = f"a step with attention tree by tree, {name}"
        figures.append(figure(group, "a dense mask over the row", seconds["auto"], seconds["sdpa"], unit="CPU s"))
    return figures


if __name__ == "__main__":
    for one in measure(sys.argv[1:]):
        print(one)
