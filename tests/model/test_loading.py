"""Models with adapters: what is trained, what a checkpoint has, how it is loaded, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import export_checkpoint
from coh_lightning.model.checkpoints import CHECKPOINT_KEY, read_checkpoint, read_checkpoint_info
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.module import CoHModule
from helpers.feedback import TINY, data_of, grouped, pairs

SMALL = LoRA(rank=2, alpha=4.0, targets=("q_proj", "v_proj"))
IDS = torch.arange(3, 60)[None]


def adapted(**settings: Any) -> CoHModule:
    return CoHModule(from_config=TINY, **grouped({"lr": 1e-2, "warmup_ratio": 0.0, "lora": SMALL} | settings))


class Seeded(pl.Callback):
    """The same dropout in the same step, wherever a run begins."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(trainer.global_step)


def trainer(folder: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    shape = {
        "accelerator": "cpu",
        "devices": 1,
        "use_distributed_sampler": False,
        "default_root_dir": str(folder),
        "max_steps": 3,
    }
    return pl.Trainer(
        **(quiet | shape | {"enable_checkpointing": bool(callbacks)} | settings), callbacks=list(callbacks)
    )


def logits(model: CoHModule) -> Tensor:
    model.configure_model()
    with torch.no_grad():
        return model.lm.eval()(input_ids=IDS).logits


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoHModule, dict[str, Tensor]]:
    """The checkpoint of three steps, the module, and its weights before them."""
    folder = tmp_path_factory.mktemp("lora")
    pl.seed_everything(0, verbose=False)
    model = adapted()
    model.configure_model()
    before = {key: value.clone() for key, value in model.lm.state_dict().items()}
    run = trainer(folder)
    run.fit(model, datamodule=data_of(pairs(8), folder))
    run.save_checkpoint(folder / "lora.ckpt")
    return folder / "lora.ckpt", model, before


def test_only_adapters_are_trained(trained: tuple[Path, CoHModule, dict[str, Tensor]]) -> None:
    _, model, before = trained
    changed = {key for key, value in model.lm.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {
        f"model.layers.{layer}.self_attn.{name}.lora_{side}.default.weight"
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
        for side in "AB"
    }
    [held] = model.trainer.optimizers
    assert sum(parameter.numel() for group in held.param_groups for parameter in group["params"]) == 2 * 2 * (
        32 + 32 + 32 + 16
    )


def test_new_adapters_change_nothing_until_they_are_trained() -> None:
    both = []
    for lora in (None, SMALL, LoRA()):
        pl.seed_everything(0, verbose=False)
        both.append(logits(adapted(lora=lora)))
    assert torch.equal(both[0], both[1]) and torch.equal(both[0], both[2])


def test_a_checkpoint_has_the_keys_that_the_docstring_states(
    trained: tuple[Path, CoHModule, dict[str, Tensor]],
) -> None:
    path, _, _ = trained
    shapes = {key: tuple(value.shape) for key, value in torch.load(path, weights_only=True)["state_dict"].items()}
    layer = "lm.model.layers.0.self_attn.q_proj"
    assert {key: shape for key, shape in shapes.items() if key.startswith(layer)} == {
        f"{layer}.base_layer.weight": (32, 32),
        f"{layer}.lora_A.default.weight": (2, 32),
        f"{layer}.lora_B.default.weight": (32, 2),
    }
    assert shapes["lm.model.layers.0.self_attn.k_proj.weight"] == (16, 32)
    assert read_checkpoint_info(path)["lora"] == {
        "rank": 2,
        "alpha": 4.0,
        "dropout": 0.0,
        "targets": ["q_proj", "v_proj"],
        "quantize": None,
    }


@pytest.mark.parametrize("road", ["load_from_checkpoint", "model"])
def test_a_checkpoint_brings_its_adapters(road: str, trained: tuple[Path, CoHModule, dict[str, Tensor]]) -> None:
    path, model, _ = trained
    loaded = CoHModule.load_from_checkpoint(path) if road == "load_from_checkpoint" else CoHModule(str(path))
    assert torch.equal(logits(loaded), logits(model)) and loaded.lora == SMALL
    assert [
        name for name, parameter in loaded.lm.named_parameters() if parameter.requires_grad and "lora_" not in name
    ] == []


def test_adapters_on_a_checkpoint_without_any_start_from_its_weights(tmp_path: Path) -> None:
    run, plain = trainer(tmp_path, max_steps=1), adapted(lora=None)
    run.fit(plain, datamodule=data_of(pairs(8), tmp_path))
    run.save_checkpoint(tmp_path / "plain.ckpt")
    model = CoHModule(str(tmp_path / "plain.ckpt"), lora=SMALL)
    assert torch.equal(logits(model), logits(plain))
    assert {key.split(".")[-3] for key, parameter in model.lm.named_parameters() if parameter.requires_grad} == {
        "lora_A",
        "lora_B",
    }


def test_a_resumed_run_with_adapters_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    ends = []
    for start in (None, tmp_path / "step=2.ckpt"):
        model = adapted(lora=LoRA(rank=2, dropout=0.5, targets=("q_proj",)))
        keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
        run = trainer(tmp_path, Seeded(), *([] if start else [keep]), max_steps=4)
        run.fit(model, datamodule=data_of(pairs(24), tmp_path), ckpt_path=start)
        ends.append(model.lm.state_dict())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_adapters_have_the_type_of_the_model_with_weights_and_without(dtype: torch.dtype) -> None:
    spec = ModelSpec(from_config=TINY, dtype=dtype, lora=SMALL)
    for lm in (spec.build(), spec.outline()):
        assert {parameter.dtype for parameter in lm.parameters()} == {dtype}
        assert sum("lora_" in name for name, _ in lm.named_parameters()) > 0


def test_quantized_weights_are_not_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharded(ModelParallelStrategy):
        device_mesh = None  # as long as no processes have been started

    run, model = trainer(tmp_path), adapted(lora=replace(SMALL, quantize="4bit"))
    model.trainer = run
    monkeypatch.setattr(type(run), "strategy", Sharded())
    with pytest.raises(InputError, match=r"model\.lora\.quantize is '4bit', which can't be sharded"):
        model.configure_model()


def test_dropout_of_adapters_is_kept_and_that_of_the_model_is_not() -> None:
    model = CoHModule(
        from_config={"model_type": "gpt2", "vocab_size": 50, "n_embd": 32, "n_layer": 1, "n_head": 2},
        lora=LoRA(dropout=0.25),
    )
    model.configure_model()
    assert {
        part.p for name, part in model.lm.named_modules() if isinstance(part, torch.nn.Dropout) and "lora" not in name
    } == {0.0}
    assert {
        part.p for name, part in model.lm.named_modules() if isinstance(part, torch.nn.Dropout) and "lora" in name
    } == {0.25}


@pytest.mark.slow
def test_compiled_layers_learn_alike_and_change_no_name_in_a_checkpoint(tmp_path: Path) -> None:
    ends = []
    for name, on in (("plain", False), ("compiled", True)):
        pl.seed_everything(0, verbose=False)
        model, run = adapted(lora=None, compile=on), trainer(tmp_path, max_steps=2)
        run.fit(model, datamodule=data_of(pairs(8), tmp_path))
        run.save_checkpoint(tmp_path / f"{name}.ckpt")
        ends.append(read_checkpoint(tmp_path / f"{name}.ckpt")["state_dict"])
        assert all((layer._compiled_call_impl is not None) == on for layer in model.lm.model.layers)
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(rank=0), r"lora.rank is 0"),
        (lambda: LoRA(targets=()), r"lora.targets is an empty list"),
        (lambda: adapted(lora=LoRA(targets=("query",))).configure_model(), r"does not fit the llama model: .*query"),
        (lambda: adapted(lora=LoRA(quantize="4bit")).configure_model(), r"has random weights"),
        (
            lambda: CoHModule(lora=LoRA(quantize="4bit")).configure_model(),
            r"works on a GPU only, and this runs on the CPU",
        ),
    ],
)
def test_impossible_adapters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'coh_lightning\[lora\]'"):
        adapted().configure_model()


def test_adapters_that_differ_from_the_checkpoints_are_refused_however_it_is_loaded(
    trained: tuple[Path, CoHModule, dict[str, Tensor]], tmp_path: Path
) -> None:
    path, _, _ = trained
    for other in (None, LoRA(rank=4)):
        with pytest.raises(InputError, match=r"model.lora is .*, but the checkpoint holds LoRA\(rank=2"):
            trainer(tmp_path).fit(adapted(lora=other), datamodule=data_of(pairs(8), tmp_path), ckpt_path=path)
    with pytest.raises(InputError, match=r"model.lora is LoRA\(rank=4.*holds LoRA\(rank=2"):
        CoHModule(str(path), lora=LoRA(rank=4)).configure_model()


def test_weights_that_do_not_fit_the_configuration_are_refused(
    trained: tuple[Path, CoHModule, dict[str, Tensor]], tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(trained[0])
    for change in ({"lora": None}, {"lora": {"rank": 2, "targets": ["o_proj"]}}):
        torch.save(
            checkpoint | {CHECKPOINT_KEY: json.dumps(read_checkpoint_info(trained[0]) | change)},
            tmp_path / "other.ckpt",
        )
        with pytest.raises(InputError, match="has other weights than its own configuration"):
            CoHModule(str(tmp_path / "other.ckpt")).configure_model()


def test_a_folder_without_a_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"The model '.*' can't be loaded \(.*\); give the name of a model on the hub or an existing folder",
    ):
        ModelSpec(str(tmp_path)).build()


# A model's folder that is not whole


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model in several files."""
    folder = tmp_path_factory.mktemp("pretrained")
    ModelSpec(from_config=TINY).build().save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


def second(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


def rewritten(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def without_a_file(index: dict[str, Any]) -> None:
    gone = index["weight_map"]["model.layers.1.mlp.up_proj.weight"]
    index["weight_map"] = {key: name for key, name in index["weight_map"].items() if name != gone}


INDEX = "model.safetensors.index.json"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is missing": (
        lambda folder: second(folder).unlink(),
        r"No such file.*model-00002-of-.*; its files are incomplete or damaged, so download it again",
    ),
    "a file is cut short": (
        lambda folder: second(folder).write_bytes(second(folder).read_bytes()[:-1]),
        "SafetensorError: .*; its files are incomplete or damaged",
    ),
    "a file is empty": (
        lambda folder: second(folder).write_bytes(b""),
        "SafetensorError: .*; its files are incomplete or damaged",
    ),
    "a file says that its head is huge": (
        lambda folder: second(folder).write_bytes((2**40).to_bytes(8, "little") + second(folder).read_bytes()[8:]),
        "SafetensorError: .*; its files are incomplete or damaged",
    ),
    "the index leaves a file out": (
        lambda folder: rewritten(folder / INDEX, without_a_file),
        r"has no weights for \d+ parameters of its config.json \(the first is model.layers.*\); a "
        r"file is missing or belongs to another model, so download it again",
    ),
    "the index has no map": (lambda folder: (folder / INDEX).write_text("{}"), "KeyError: 'weight_map'"),
    "the index is cut short": (lambda folder: (folder / INDEX).write_text("{"), "can't be loaded"),
    "sizes differ": (
        lambda folder: rewritten(folder / "config.json", lambda config: config.update(intermediate_size=80)),
        r"holds 6 weights of another size than its config.json asks for \(the first is "
        r"model.layers.0.mlp.down_proj.weight: \[32, 64\] instead of \[32, 80\]\)",
    ),
    "there is a layer too few": (
        lambda folder: rewritten(folder / "config.json", lambda config: config.update(num_hidden_layers=3)),
        r"has no weights for 9 parameters of its config.json \(the first is model.layers.2.input_layernorm.weight\)",
    ),
    "the configuration is cut short": (
        lambda folder: (folder / "config.json").write_text("{"),
        "not a valid JSON file",
    ),
    "the configuration is of other types": (
        lambda folder: rewritten(folder / "config.json", lambda config: config.update(hidden_size="x")),
        "hidden_size",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_incomplete_model_folder_is_refused_and_never_filled_with_random_weights(
    what: str, in_shards: Path, tmp_path: Path
) -> None:
    spoil, message = BROKEN[what]
    folder = Path(shutil.copytree(in_shards, tmp_path / "copy"))
    ModelSpec(str(folder)).build()
    spoil(folder)
    with pytest.raises(InputError, match=message) as refused:
        ModelSpec(str(folder)).build()
    assert "\n" not in str(refused.value) and str(refused.value).count("The model") == 1


def test_a_checkpoint_with_weights_of_another_size_is_refused(
    trained: tuple[Path, CoHModule, dict[str, Tensor]], tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(trained[0])
    checkpoint["state_dict"]["lm.model.norm.weight"] = torch.ones(31)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="has weights of other sizes than its own configuration"):
        CoHModule(str(tmp_path / "other.ckpt")).configure_model()
    with pytest.raises(InputError, match="the checkpoint has other weights than its own configuration"):
        export_checkpoint(tmp_path / "other.ckpt", tmp_path / "out")
