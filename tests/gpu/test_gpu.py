"""What needs a GPU: FSDP1, bfloat16, compiled layers, quantized weights. One GPU is enough; all that exist are used."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.model.checkpoints import read_checkpoint
from coh_lightning.model.lora import LoRA
from helpers.feedback import TINY, pairs
from helpers.ranks import commanded

pytestmark = pytest.mark.slow

SMALL = [
    "--trainer.accelerator=gpu",
    "--trainer.max_steps=4",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
]
SMALL += [
    "--data.row_tokens=512",
    "--data.max_chain_tokens=400",
    "--data.max_prompt_tokens=200",
    "--data.rows_per_step=8",
    "--data.test_share=0.2",
]
STRATEGIES = {
    "auto": [],
    "fsdp1": [
        "--trainer.strategy=lightning.pytorch.strategies.FSDPStrategy",
        "--trainer.strategy.state_dict_type=full",
    ],
    "fsdp2": [
        "--trainer.strategy=lightning.pytorch.strategies.ModelParallelStrategy",
        f"--trainer.strategy.data_parallel_size={max(torch.cuda.device_count(), 1)}",
        "--trainer.strategy.tensor_parallel_size=1",
    ],
}


def command(folder: Path, name: str, *words: str) -> None:
    (folder / "feedback.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs(60)))
    commanded(
        [
            "-m",
            "coh_lightning",
            name,
            *SMALL,
            "--data.feedback=feedback.jsonl",
            "--model.name_or_path=world",
            f"--data.cache_dir={folder / 'cache'}",
            *words,
        ],
        folder,
        seconds=300,
    )


def fitted(folder: Path, run: str, *words: str) -> tuple[list[float], dict[str, Any]]:
    """The losses of a fit and what its checkpoint holds."""
    command(folder, "fit", f"--run.folder={run}", "--trainer.log_every_n_steps=1", *words)
    header, *lines = [line.split(",") for line in (folder / run / "metrics.csv").read_text().splitlines()]
    column = header.index("train/loss")
    return [float(line[column]) for line in lines if line[column]], read_checkpoint(
        folder / run / "checkpoints/last.ckpt"
    )["state_dict"]


@pytest.mark.parametrize("name", ["fsdp1", "fsdp2"])
def test_a_sharded_model_trains_writes_and_reloads_as_on_one_gpu(name: str, tmp_path: Path) -> None:
    alone, weights = fitted(tmp_path, "alone", "--trainer.devices=1")
    losses, sharded = fitted(tmp_path, name, "--trainer.devices=-1", *STRATEGIES[name])
    assert losses == pytest.approx(alone, rel=1e-4) and sharded.keys() == weights.keys()
    for key, value in weights.items():
        torch.testing.assert_close(sharded[key], value, rtol=0, atol=1e-3)
    words = [
        "--trainer.devices=-1",
        *STRATEGIES[name],
        f"--ckpt_path={name}/checkpoints/last.ckpt",
        "--run.folder=written",
    ]
    command(tmp_path, "predict", *words, "--model.generation.sampling.max_new_tokens=4")
    written = list(read_jsonl(tmp_path / "written/completions.jsonl", Completion))
    assert written and len({one.id for one in written}) == len(written)


@pytest.mark.parametrize("words", [["--model.compile=true"], ["--model.gradient_checkpointing=true"]])
def test_compilation_and_gradient_checkpointing_change_only_the_cost(words: list[str], tmp_path: Path) -> None:
    alone, weights = fitted(tmp_path, "alone", "--trainer.devices=1")
    losses, others = fitted(tmp_path, "other", "--trainer.devices=1", *words)
    assert losses == pytest.approx(alone, rel=1e-4) and others.keys() == weights.keys()


def test_bfloat16_learns(tmp_path: Path) -> None:
    losses, _ = fitted(
        tmp_path,
        "half",
        "--trainer.devices=1",
        "--trainer.precision=bf16-mixed",
        "--trainer.max_steps=20",
        "--model.lr=1e-2",
    )
    assert losses[-1] < losses[0]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_adapters_on_quantized_weights_train_reload_and_write(bits: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    AutoModelForCausalLM.from_config(
        LlamaConfig(**{key: value for key, value in TINY.items() if key != "model_type"})
    ).save_pretrained(tmp_path / "base")
    words = [
        "--trainer.devices=1",
        f"--model.name_or_path={tmp_path / 'base'}",
        "--data.tokenizer=world",
        f"--model.lora={json.dumps(vars(LoRA(rank=4)) | {'quantize': bits})}",
    ]
    losses, state = fitted(tmp_path, "adapters", *words, "--trainer.precision=bf16-mixed")
    assert all(loss == loss for loss in losses) and all("lora_" in key for key in state) and state
    command(
        tmp_path,
        "predict",
        *words,
        "--trainer.precision=bf16-mixed",
        "--ckpt_path=adapters/checkpoints/last.ckpt",
        "--run.folder=written",
    )
    assert list(read_jsonl(tmp_path / "written/completions.jsonl", Completion))
