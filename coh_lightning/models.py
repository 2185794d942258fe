"""Which model: one of transformers by name or folder, a configuration with random weights, or a checkpoint of ours;
with adapters (LoRA) where asked for.

    build("gpt2", lora=LoRA(rank=8))  ->  GPT2LMHeadModel whose linear layers hold lora_A and lora_B, everything else frozen

A checkpoint of ours is a file, or a folder of shards (what `ModelParallelStrategy` and a sharded `FSDPStrategy` write);
`read_checkpoint` reads both alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from coh_lightning.attention import attention_implementation
from coh_lightning.errors import InputError, did_you_mean, words_of
from coh_lightning.shards import METADATA, read_shards
from coh_lightning.worlds import WORLD, resolve

CHECKPOINT_KEY = "coh_lightning"
"""Where a checkpoint holds, as plain JSON, what its model was trained with: `model` (its config), `data` (settings of
the data module), `tokenizer` (its name; null, in older ones: the embedded world's), `lora` (the fields of `LoRA`, or
null) and `base` (the name of the model that it began as; null: random weights)."""

META = "meta.pt"
"""File of a checkpoint that is a folder: everything in it that is no tensor."""


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021) by `peft`: only they are trained, and the model's own weights W stay: W x +
    alpha / rank * B A x.

    A checkpoint's `state_dict` then has, for each adapted layer `lm.NAME`, the keys `lm.NAME.base_layer.weight` (and
    `.bias`, where it has one), `lm.NAME.lora_A.default.weight` (rank, in) and `lm.NAME.lora_B.default.weight` (out,
    rank), and all other weights of the model under their usual names. With `quantise` it has the keys of `lora_A` and
    `lora_B` alone, and the model's own weights are read again from where they came.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    """Ends of the names of the layers that get adapters (q_proj, v_proj, ...); None: all linear layers but the head."""
    quantise: Literal["4bit", "8bit"] | None = None
    """QLoRA (Dettmers et al. 2023): the frozen weights in 4 bits (NF4) or 8, by `bitsandbytes`, which needs a GPU."""

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise InputError(
                f"lora.targets is '{self.targets}', a text; give a list of the ends of layers' names: [{self.targets}]."
            )
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))  # as JSON gives it back, it is a list
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError(
                f"lora.rank is {self.rank}, lora.alpha {self.alpha} and lora.dropout {self.dropout}; they must be >= "
                "1, > 0 and in [0, 1)."
            )
        if self.targets == ():
            raise InputError(
                "lora.targets is an empty list, so nothing would be trained; name layers (q_proj, v_proj, ...), or "
                "leave it out for all linear layers."
            )


@dataclass(frozen=True)
class Recipe:
    """All that decides a model before its first step."""

    model: str | None = None
    """Name, folder, or checkpoint of ours; `world`, or None: the base model of the embedded world."""
    from_config: Mapping[str, Any] | None = None
    """Instead of `model`."""
    dtype: torch.dtype = torch.float32
    attention: Literal["auto", "sdpa", "eager", "flex"] = "auto"
    dropout: bool = False
    """Keep the dropout of the model's config."""
    lora: LoRA | None = None
    """None: that of the checkpoint, where `model` is one with adapters."""
    trust_remote_code: bool = False

    def build(self, device: torch.device | None = None) -> PreTrainedModel:
        """The model with its weights, in training mode, on the CPU (quantised weights on `device`).

        Raises:
            InputError: there is no such model, it can't be read, or the adapters don't fit it.
        """
        if (path := self.checkpoint) is not None:
            saved = said(path)
            lora = adapters(saved)
            if lora is not None and self.lora not in (None, lora):
                raise InputError(
                    f"model.lora is {self.lora}, but {path} holds {lora}; leave model.lora out to train these "
                    "further, or export the model merged first."
                )
            if lora is not None and lora.quantise:
                lm = replace(self, model=saved["base"], lora=lora).build(device)
            else:
                lm = self._finished(self._bare(), lora)
            state = {key.removeprefix("lm."): value for key, value in read_checkpoint(path)["state_dict"].items()}
            try:
                missing, unexpected = lm.load_state_dict(state, strict=False)
            except RuntimeError as error:  # sizes, which are not looked over
                raise InputError(
                    f"{path} has weights of other sizes than its own configuration ({words_of(error)}); it is damaged."
                ) from error
            if unexpected or [key for key in missing if not (lora and lora.quantise and "lora_" not in key)]:
                raise InputError(
                    f"{path} has other weights than its own configuration ({len(missing)} missing, {len(unexpected)} "
                    "too many); it is damaged."
                )
            return lm if lora is not None or self.lora is None else self._finished(lm, self.lora)
        if self.from_config is not None:
            if self.lora is not None and self.lora.quantise:
                raise InputError(
                    f"model.lora.quantise is '{self.lora.quantise}', but model.from_config has random weights; give "
                    "a pretrained model as model.model."
                )
            return self._finished(self._bare(), self.lora)
        quantised = {} if self.lora is None else _quantisation(self.lora, self.dtype, device)
        settings = {"config": self.config(), "dtype": self.dtype, "trust_remote_code": self.trust_remote_code}
        settings |= quantised or {"ignore_mismatched_sizes": True}  # said by us, with the sizes
        with _explained(self._name):
            loaded = AutoModelForCausalLM.from_pretrained(self._name, **settings, output_loading_info=True)
        lm, found = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
        _check_loaded(self._name, found)
        return self._finished(lm, self.lora)

    def outline(self, *, buffers: bool = False) -> PreTrainedModel:
        """The same model without its weights: on the meta device, for ranks that are given theirs.

        Args:
            buffers: Have the buffers (frequencies of rotary positions, ...) on the CPU, so that it runs once it has
                weights.
        """
        lora = self.lora
        if lora is None and self.checkpoint is not None:
            lora = adapters(said(self.checkpoint))
        with _parameters_on_meta() if buffers else torch.device("meta"):
            return self._finished(self._bare(), lora)

    def config(self) -> PreTrainedConfig:
        """The model's configuration, with the attention and dropout that were asked for.

        Raises:
            InputError: there is no such model.
        """
        if self.checkpoint is not None:
            config = AutoConfig.for_model(**said(self.checkpoint)["model"])
        elif self.from_config is not None:
            settings, kind = (
                {key: value for key, value in self.from_config.items() if key != "model_type"},
                self.from_config["model_type"],
            )
            if kind not in CONFIG_MAPPING:
                raise InputError(
                    f"model.from_config.model_type is {kind!r}, which transformers doesn't "
                    f"know{did_you_mean(kind, CONFIG_MAPPING)}"
                )
            config = AutoConfig.for_model(kind, **settings)
        else:
            with _explained(self._name):
                config = AutoConfig.from_pretrained(self._name, trust_remote_code=self.trust_remote_code)
        if not self.dropout:
            for key, value in config.to_dict().items():
                if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
                    setattr(config, key, 0.0)
        config._attn_implementation = {"auto": attention_implementation(config), "flex": "flex_attention"}.get(
            self.attention, self.attention
        )
        config.use_cache = False  # with a cache, documents of one row would see each other
        return config

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint of ours that `model` names: a file, a folder called .ckpt, or one of shards by whatever
        name.
        """
        if self.model in (None, WORLD):
            return None
        path = Path(self.model)
        return path if self.model.endswith(".ckpt") or path.is_file() or (path / METADATA).is_file() else None

    @property
    def _name(self) -> str:
        name = str(resolve("model")) if self.model in (None, WORLD) else self.model
        if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
            raise InputError(
                f"model.model is {name}, and there is no such folder; give the name of a model on the hub or the "
                "folder of one."
            )
        return name

    def _bare(self) -> PreTrainedModel:
        """With random weights, or none."""
        return AutoModelForCausalLM.from_config(
            self.config(), dtype=self.dtype, trust_remote_code=self.trust_remote_code
        )

    def _finished(self, lm: PreTrainedModel, lora: LoRA | None) -> PreTrainedModel:
        if not self.dropout:
            for part in lm.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        if lora is not None:
            _adapt(lm, lora)
        lm.train()  # transformers gives it in evaluation mode, and Lightning leaves modes as they are
        return lm


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Modules that are made here have their parameters on the meta device, and their buffers where they are
    computed.
    """
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _adapt(lm: PreTrainedModel, lora: LoRA) -> None:
    """Puts adapters into the model, in place, and freezes all else."""
    peft = _peft()
    layers = [name for name, _ in lm.named_modules()]
    for target in lora.targets or ():
        if not any(
            name == target or name.endswith(f".{target}") for name in layers
        ):  # peft says nothing where another target is there
            ends = {name.rpartition(".")[2] for name in layers}
            raise InputError(
                f"model.lora does not fit the {lm.config.model_type} model: lora.targets names '{target}', and no "
                f"layer's name ends so{did_you_mean(target, ends)}"
            )
    targets = "all-linear" if lora.targets is None else list(lora.targets)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    try:
        lm.add_adapter(settings)
    except ValueError as error:
        raise InputError(
            f"model.lora does not fit the {lm.config.model_type} model: {' '.join(str(error).split())}"
        ) from error
    if not lora.quantise:
        for name, parameter in lm.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(lm.dtype)  # peft leaves those on the meta device in float32


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise InputError(
            "model.lora needs the package peft, which is not installed: pip install 'coh_lightning[lora]'."
        ) from error
    return peft


def _quantisation(lora: LoRA, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
    """What `from_pretrained` needs to load weights in few bits."""
    if lora.quantise is None:
        return {}
    if device is None or device.type != "cuda":
        raise InputError(
            f"model.lora.quantise is '{lora.quantise}', which works on a GPU only, and this runs on "
            f"{device or 'the CPU'}; leave it out."
        )
    if find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.lora.quantise is '{lora.quantise}' and needs the package bitsandbytes, which is not installed: "
            "pip install bitsandbytes."
        )
    if lora.quantise == "8bit":
        bits = BitsAndBytesConfig(load_in_8bit=True)
    else:
        bits = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": bits, "device_map": {"": device}}


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """In one sentence, what transformers says of a model that it can't load: no such folder, no configuration, a file
    that is missing or was cut short, ...
    """
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):
            raise
        said = (
            words_of(error)
            if isinstance(error, (OSError, ValueError))
            else f"{type(error).__name__}: {words_of(error)}"
        )
        there = (Path(name).expanduser() / "config.json").is_file()
        remedy = (
            "its files are incomplete or damaged, so fetch it again"
            if there
            else "give the name of a model on the hub or an existing folder"
        )
        raise InputError(f"The model '{name}' can't be loaded ({said}); {remedy}.") from error


def _check_loaded(name: str, found: Mapping[str, Any]) -> None:
    """Refuse (InputError) a model whose files lack weights, or hold some of another size: transformers would make
    random ones in their place.
    """
    if mismatched := sorted(found.get("mismatched_keys") or ()):
        key, held, wanted = mismatched[0]
        raise InputError(
            f"The model '{name}' holds {len(mismatched)} weights of another size than its config.json asks for (the "
            f"first is {key}: {list(held)} in place of "
            f"{list(wanted)}); its files don't belong together, so fetch it again."
        )
    if missing := sorted(found.get("missing_keys") or ()):
        raise InputError(
            f"The model '{name}' has no weights for {len(missing)} parameters of its config.json (the first is "
            f"{missing[0]}); a file is missing or of another model, "
            "so fetch it again."
        )


# Checkpoints of ours


def said(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its model: the entries of `CHECKPOINT_KEY`. Reads no weights.

    Raises:
        InputError: there is no such checkpoint, or it is not one of ours.
    """
    found: dict[str, Any] = json.loads(_read(Path(path))[CHECKPOINT_KEY])
    return found


def adapters(saved: Mapping[str, Any]) -> LoRA | None:
    """The adapters that a checkpoint holds."""
    return LoRA(**saved["lora"]) if saved.get("lora") else None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of ours, a file or a folder of shards, with the whole of its `state_dict` on the CPU. Of a folder,
    states of optimisers are left out.

    Nothing in it is run: files are read as plain data, and the metadata of a folder, which torch pickles, only if it
    names nothing but what torch writes there.

    Raises:
        InputError: there is no such checkpoint, or it is not one of ours.
    """
    checkpoint = _read(Path(path))
    if Path(path).is_dir():
        checkpoint["state_dict"] = read_shards(Path(path))
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    """A file as it is; of a folder, all that is no tensor."""
    if not path.is_file() and not (path / META).is_file():
        raise InputError(f"There is no checkpoint file {path}; look into the checkpoints/ folder of the run.")
    try:
        checkpoint = torch.load(
            path / META if path.is_dir() else path, map_location="cpu", weights_only=True, mmap=True
        )
    except Exception as error:
        raise InputError(
            f"{path} can't be read as a checkpoint ({type(error).__name__}: {words_of(error)}); it may be damaged, "
            "or hold more than plain data."
        ) from error
    if CHECKPOINT_KEY not in checkpoint:
        raise InputError(
            f"{path} has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule; give a Hugging Face folder "
            "instead."
        )
    return dict(checkpoint)
