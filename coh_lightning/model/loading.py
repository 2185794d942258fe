"""Loads a model: one of transformers by name or folder, a configuration with random weights, or one of our checkpoints,
with or without adapters.

    ModelSpec("gpt2", lora=LoRA(rank=8)).build()
        ->  GPT2LMHeadModel whose linear layers have lora_A and lora_B, everything else frozen
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from coh_lightning.errors import InputError, did_you_mean, first_line
from coh_lightning.model.attention import attention_implementation
from coh_lightning.model.checkpoints import read_checkpoint, read_checkpoint_info
from coh_lightning.model.lora import LoRA, adapters
from coh_lightning.model.sharded_checkpoint import METADATA
from coh_lightning.worlds import TABLE, WORLD, is_world, resolve


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides a model before its first step."""

    name_or_path: str | None = None
    """Name, folder, or one of our checkpoints; a name of worlds.py, or None for `world`: an embedded world's base."""
    from_config: Mapping[str, Any] | None = None
    """Instead of `name_or_path`."""
    dtype: torch.dtype = torch.float32
    attention: Literal["auto", "sdpa", "eager", "flex"] = "auto"
    dropout: bool = False
    """Keep the dropout of the model's config."""
    lora: LoRA | None = None
    """None: that of the checkpoint, if it has adapters."""
    trust_remote_code: bool = False

    def build(self, device: torch.device | None = None) -> PreTrainedModel:
        """The model with its weights, in training mode, on the CPU (quantized weights on `device`).

        Raises:
            InputError: there is no such model, it can't be read, or the adapters don't fit it.
        """
        if self.checkpoint is not None:
            return self._from_checkpoint(self.checkpoint, device)
        if self.from_config is not None:
            if self.lora is not None and self.lora.quantize:
                what = f"model.lora.quantize is '{self.lora.quantize}', but model.from_config has random weights"
                raise InputError(f"{what}; give a pretrained model as model.name_or_path.")
            return self._finished(self._bare(), self.lora)
        quantized = {} if self.lora is None else self.lora.quantization(self.dtype, device)
        settings = {"config": self.config(), "dtype": self.dtype, "trust_remote_code": self.trust_remote_code}
        settings |= quantized or {"ignore_mismatched_sizes": True}  # we report them, with the sizes
        with _explained(self._name):
            loaded = AutoModelForCausalLM.from_pretrained(self._name, **settings, output_loading_info=True)
        lm, found = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
        _check_loaded(self._name, found)
        return self._finished(lm, self.lora)

    def _from_checkpoint(self, path: Path, device: torch.device | None) -> PreTrainedModel:
        saved = read_checkpoint_info(path)
        lora = adapters(saved)
        if lora is not None and self.lora not in (None, lora):
            what = f"model.lora is {self.lora}, but {path} holds {lora}"
            raise InputError(f"{what}; leave it out to train these further, or export the model merged first.")
        if lora is not None and lora.quantize:
            lm = replace(self, name_or_path=saved["base"], lora=lora).build(device)
        else:
            lm = self._finished(self._bare(), lora)
        state = {key.removeprefix("lm."): value for key, value in read_checkpoint(path)["state_dict"].items()}
        try:
            missing, unexpected = lm.load_state_dict(state, strict=False)
        except RuntimeError as error:  # sizes are checked even so
            what = f"{path} has weights of other sizes than its own configuration ({first_line(error)})"
            raise InputError(f"{what}; it is damaged.") from error
        if unexpected or [key for key in missing if not (lora and lora.quantize and "lora_" not in key)]:
            counts = f"{len(missing)} missing, {len(unexpected)} too many"
            raise InputError(f"{path} has other weights than its own configuration ({counts}); it is damaged.")
        return lm if lora is not None or self.lora is None else self._finished(lm, self.lora)

    def outline(self, *, buffers: bool = False) -> PreTrainedModel:
        """The model on the meta device, for ranks that receive its weights; `buffers`: with real buffers on the CPU."""
        lora = self.lora
        if lora is None and self.checkpoint is not None:
            lora = adapters(read_checkpoint_info(self.checkpoint))
        with _parameters_on_meta() if buffers else torch.device("meta"):
            return self._finished(self._bare(), lora)

    def config(self) -> PreTrainedConfig:
        """The model's configuration, with the requested attention and dropout. Raises InputError if there is none."""
        if self.checkpoint is not None:
            config = AutoConfig.for_model(**read_checkpoint_info(self.checkpoint)["model"])
        elif self.from_config is not None:
            settings = dict(self.from_config)
            kind = settings.pop("model_type")
            if kind not in CONFIG_MAPPING:
                what = f"model.from_config.model_type is {kind!r}, which transformers doesn't know"
                raise InputError(f"{what}{did_you_mean(kind, CONFIG_MAPPING)}")
            config = AutoConfig.for_model(kind, **settings)
        else:
            with _explained(self._name):
                config = AutoConfig.from_pretrained(self._name, trust_remote_code=self.trust_remote_code)
        if not self.dropout:
            for key, value in config.to_dict().items():
                if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
                    setattr(config, key, 0.0)
        implementations = {"auto": attention_implementation(config), "flex": "flex_attention"}
        config._attn_implementation = implementations.get(self.attention, self.attention)
        config.use_cache = False  # with a cache, documents in one row would attend to each other
        return config

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint of ours that `name_or_path` names: a file, a folder of shards, or anything named .ckpt."""
        if self.name_or_path is None or self.name_or_path in TABLE:
            return None
        path = Path(self.name_or_path)
        return path if self.name_or_path.endswith(".ckpt") or path.is_file() or (path / METADATA).is_file() else None

    @property
    def _name(self) -> str:
        name = self.name_or_path or WORLD
        name = str(resolve("model", name)) if is_world(name) else name
        if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
            what = f"model.name_or_path is {name}, and there is no such folder"
            raise InputError(f"{what}; give the name of a model on the hub or an existing folder.")
        return name

    def _bare(self) -> PreTrainedModel:
        """With random weights, or none."""
        trust = self.trust_remote_code
        return AutoModelForCausalLM.from_config(self.config(), dtype=self.dtype, trust_remote_code=trust)

    def _finished(self, lm: PreTrainedModel, lora: LoRA | None) -> PreTrainedModel:
        if not self.dropout:
            for part in lm.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        if lora is not None:
            lora.attach(lm)
        lm.train()  # transformers gives it in evaluation mode, and Lightning keeps modes
        return lm


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """New modules have their parameters on the meta device, their buffers where they are computed."""
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


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever transformers raises for a model that it can't load, as an InputError of one sentence."""
    try:
        yield
    except (InputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):
            raise
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        reason, remedy = kind + first_line(error), "give the name of a model on the hub or an existing folder"
        if (Path(name).expanduser() / "config.json").is_file():
            remedy = "its files are incomplete or damaged, so download it again"
        raise InputError(f"The model '{name}' can't be loaded ({reason}); {remedy}.") from error


def _check_loaded(name: str, found: Mapping[str, Any]) -> None:
    """Refuses a model whose files lack weights or have some of another size, which transformers would make random."""
    if mismatched := sorted(found.get("mismatched_keys") or ()):
        key, held, wanted = mismatched[0]
        raise InputError(
            f"The model '{name}' holds {len(mismatched)} weights of another size than its config.json asks for (the "
            f"first is {key}: {list(held)} instead of {list(wanted)}); download it again."
        )
    if missing := sorted(found.get("missing_keys") or ()):
        raise InputError(
            f"The model '{name}' has no weights for {len(missing)} parameters of its config.json (the first is "
            f"{missing[0]}); a file is missing or belongs to another model, so download it again."
        )
