"""Every exported folder is compared with the model that was trained: adapters on any layer come out right, and a folder
that differs is not left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from coh_lightning.callbacks import HuggingFaceExport
from coh_lightning.errors import InputError
from coh_lightning.export import huggingface as export
from coh_lightning.export.export_check import COPIED, TOLERANCE, compare, load_folder, probe_logits
from coh_lightning.export.huggingface import export_checkpoint
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.module import CoHModule
from helpers.feedback import TINY, data_of, grouped, pairs
from helpers.training import trainer

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 520,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.2,
}
TIED = TINY | {"tie_word_embeddings": True}
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...] | None]] = {
    "the tied head": (TIED, ("lm_head",)),
    "the tied embedding": (TIED, ("embed_tokens",)),
    "both of the tied": (TIED, ("embed_tokens", "lm_head", "q_proj")),
    "gpt2's tied head, and its Conv1D": (GPT2, ("lm_head", "c_attn")),
    "gpt2's tied embedding": (GPT2, ("wte", "c_proj")),
    "gpt2's positions": (GPT2, ("wpe",)),
    "Conv1D": (GPT2, None),
    "a head of its own": (TINY, ("lm_head",)),
    "an embedding of its own": (TINY, ("embed_tokens", "down_proj")),
    "qwen3's tied head": (TIED | {"model_type": "qwen3"}, ("lm_head", "q_proj")),
    "gemma's tied head, of a scaled embedding": (TIED | {"model_type": "gemma", "head_dim": 16}, ("lm_head", "q_proj")),
}


def logits(lm: Any) -> Tensor:
    with torch.no_grad():
        return lm.eval()(input_ids=torch.arange(3, 60)[None]).logits


def trained(
    folder: Path, config: dict[str, Any], lora: LoRA | None, callbacks: Sequence[pl.Callback] = (), **settings: Any
) -> tuple[Path, CoHModule]:
    """The checkpoint of two large steps from a pretrained model in a folder, and its module."""
    folder.mkdir(exist_ok=True)
    pl.seed_everything(0, verbose=False)
    base = ModelSpec(from_config=config).build()
    base.save_pretrained(folder / "base")
    model = CoHModule(str(folder / "base"), lora=lora, **grouped({"lr": 0.1, "warmup_ratio": 0.0} | settings))
    run = trainer(folder, *callbacks, max_steps=2)
    run.fit(model, datamodule=data_of(pairs(24), folder))
    run.save_checkpoint(folder / "two.ckpt")
    return folder / "two.ckpt", model


@pytest.mark.parametrize("adapter", [False, True], ids=["merged", "alone"])
@pytest.mark.parametrize("case", CASES)
def test_adapters_on_any_layer_come_out_as_they_were_trained(case: str, adapter: bool, tmp_path: Path) -> None:
    config, targets = CASES[case]
    path, model = trained(tmp_path / "run", config, LoRA(rank=4, targets=targets))
    started = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base"))
    wanted = logits(model.lm)
    scale = float(wanted.abs().max())
    assert float((wanted - started).abs().max()) > 0.05 * scale, "the adapters learned something"
    export_checkpoint(path, tmp_path / "out", adapter=adapter)
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    assert float((found - wanted).abs().max()) < 1e-5 * scale
    if not adapter:
        again, _ = trained_on(
            tmp_path / "again", tmp_path / "out"
        )  # what was untied is trained on, and exported, as any model
        export_checkpoint(again, tmp_path / "second")


def trained_on(folder: Path, base: Path) -> tuple[Path, CoHModule]:
    folder.mkdir()
    model = CoHModule(str(base), lr=1e-3)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    run = pl.Trainer(
        accelerator="cpu", devices=1, max_steps=1, use_distributed_sampler=False, default_root_dir=str(folder), **quiet
    )
    run.fit(model, datamodule=data_of(pairs(8), folder))
    run.save_checkpoint(folder / "one.ckpt")
    return folder / "one.ckpt", model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merging_in_any_type_of_weights_is_within_its_tolerance(dtype: Any, tmp_path: Path) -> None:
    path, _ = trained(tmp_path / "run", TIED, LoRA(rank=4, targets=("q_proj", "v_proj", "down_proj", "lm_head")))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {key: value.to(getattr(torch, dtype)) for key, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, tmp_path / "typed.ckpt")
    export_checkpoint(tmp_path / "typed.ckpt", tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == getattr(torch, dtype)


@pytest.mark.parametrize("target", ["lm_heads", "c_attn", "q_pro"])
def test_a_target_that_is_not_a_layer_is_refused_even_beside_one_that_is(target: str) -> None:
    with pytest.raises(InputError, match=rf"'{target}' \(lora\.targets\)"):
        ModelSpec(from_config=TINY, lora=LoRA(targets=("v_proj", target))).build()


def test_a_text_instead_of_a_list_of_targets_is_refused() -> None:
    with pytest.raises(InputError, match=r"lora\.targets is a string; .*\[q_proj\]"):
        LoRA(targets="q_proj")  # type: ignore[arg-type]


# A folder that differs


def test_a_folder_whose_tokenizer_loads_differently_is_removed(tmp_path: Path) -> None:
    """For a Qwen2 it makes a tokenizer of that family, whatever the files say."""
    path, _ = trained(tmp_path / "run", TINY | {"model_type": "qwen2"}, None)
    with pytest.raises(
        InputError, match=r"The tokenizer of the exported folder, .* the token '<\|endoftext\|>' is not in the model's"
    ):
        export_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def spoilt(lm: Any, what: str) -> None:
    """One of many ways in which a writer can go wrong."""
    with torch.no_grad():
        if what == "a weight":
            lm.model.layers[1].mlp.up_proj.weight[3] += 0.5
        elif what == "tied":
            lm.lm_head.weight = lm.model.embed_tokens.weight
        elif what == "NaN":
            lm.model.norm.weight[0] = float("nan")
        elif what == "a setting":
            lm.config.rms_norm_eps = 1.0
        elif what == "a layer lost":
            lm.model.layers = nn.ModuleList(lm.model.layers[:1])


@pytest.mark.parametrize("what", ["a weight", "tied", "NaN", "a setting", "a layer lost"])
@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["full", "merged"])
def test_a_folder_that_differs_from_the_trained_model_is_removed(
    what: str, lora: LoRA | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = trained(tmp_path / "run", TINY, lora)
    right = export.merged

    def wrong(lm: Any) -> Any:
        merged = right(lm)
        spoilt(merged, what)
        return merged

    monkeypatch.setattr(export, "merged", wrong)
    with pytest.raises(
        InputError,
        match=(
            r"exported folder (differ from those of the trained model .*, so the folder is not kept|has "
            r"missing keys .*not kept)"
        ),
    ):
        export_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_adapters_that_peft_loads_differently_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = trained(tmp_path / "run", TINY, LoRA(rank=2))
    right = peft.get_peft_model_state_dict

    def wrong(*args: Any, **settings: Any) -> dict[str, Tensor]:
        return {key: 2 * value for key, value in right(*args, **settings).items()}

    monkeypatch.setattr(peft, "get_peft_model_state_dict", wrong)
    with pytest.raises(
        InputError, match=r"differ from those of the trained model by up to .*, so the folder is not kept"
    ):
        export_checkpoint(path, tmp_path / "out", adapter=True)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_the_callback_refuses_such_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export.merged

    def wrong(lm: Any) -> Any:
        merged = right(lm)
        weights = merged.model.layers[0].mlp.up_proj
        weights.weight = nn.Parameter(
            weights.weight + 0.5
        )  # not in place: these are the weights of the model in training
        return merged

    monkeypatch.setattr(export, "merged", wrong)
    with pytest.raises(InputError, match="so the folder is not kept"):
        trained(tmp_path / "run", TINY, None, callbacks=[HuggingFaceExport()])
    assert not list((tmp_path / "run" / "huggingface").iterdir())


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    path, _ = trained(tmp_path / "run", TINY, None)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["lm.model.norm.weight"][0] = float("nan")
    torch.save(checkpoint, tmp_path / "nan.ckpt")
    with pytest.raises(InputError, match=r"non-finite weights .its logits are NaN"):
        export_checkpoint(tmp_path / "nan.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The comparison


@pytest.mark.parametrize("tolerance", [*TOLERANCE.values(), COPIED])
def test_the_tolerance_is_a_share_of_the_largest_logit(tolerance: float) -> None:
    wanted = torch.tensor([[-8.0, 1.0], [0.5, float("-inf")]], dtype=torch.float64)
    for sign, share in itertools.product((1, -1), (0.9, 1.1)):
        got = wanted.clone()
        got[0, 1] += sign * share * 8 * tolerance
        if share < 1:
            compare(wanted, got, tolerance)
        else:
            with pytest.raises(InputError, match=r"\(the largest logit is 8\)"):
                compare(wanted, got, tolerance)
    for got in (wanted[:1], wanted.nan_to_num(), wanted * float("nan")):
        with pytest.raises(InputError, match="in which logits are finite"):
            compare(wanted, got, tolerance)


def test_a_folder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    lm = ModelSpec(from_config=TINY).build()
    state = {key: value for key, value in lm.state_dict().items() if "layers.1.mlp.up" not in key}
    lm.save_pretrained(tmp_path / "lm", state_dict=state)
    with pytest.raises(InputError, match=r"has missing keys \(1, the first is model.layers.1.mlp.up_proj.weight\)"):
        load_folder(tmp_path / "lm", like=lm)
    (tmp_path / "lm" / "config.json").unlink()
    with pytest.raises(InputError, match="can't be loaded"):
        load_folder(tmp_path / "lm", like=lm)


def test_the_probe_runs_within_few_positions_and_a_small_vocabulary() -> None:
    lm = ModelSpec(from_config=TINY | {"max_position_embeddings": 8, "vocab_size": 3}).build()
    assert probe_logits(lm).shape == (8, 3)
