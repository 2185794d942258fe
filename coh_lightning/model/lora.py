"""Low-rank adapters by `peft`, and frozen weights in few bits by `bitsandbytes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from coh_lightning.errors import InputError, did_you_mean


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021): W x + alpha / rank * B A x, where only A and B are trained.

    For each adapted layer `lm.NAME`, a checkpoint's `state_dict` has `lm.NAME.base_layer.weight` (and `.bias`),
    `lm.NAME.lora_A.default.weight` (rank, in) and `lm.NAME.lora_B.default.weight` (out, rank), and all other weights
    under their usual names. With `quantize` it has `lora_A` and `lora_B` alone, and the model's own weights are read
    again from where they came.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    """Ends of the names of the adapted layers (q_proj, v_proj, ...); None: all linear layers but the head."""
    quantize: Literal["4bit", "8bit"] | None = None
    """QLoRA (Dettmers et al. 2023): the frozen weights in 4 bits (NF4) or 8, by `bitsandbytes`, which needs a GPU."""

    def __post_init__(self) -> None:
        if isinstance(self.targets, str):
            raise InputError(f"lora.targets is a string; give a list of ends of layer names: [{self.targets}].")
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))  # JSON gives a list
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            given = f"lora.rank is {self.rank}, lora.alpha {self.alpha} and lora.dropout {self.dropout}"
            raise InputError(f"{given}; they must be >= 1, > 0 and in [0, 1).")
        if self.targets == ():
            raise InputError("lora.targets is an empty list; name layers (q_proj, ...), or leave it out for all.")

    def attach(self, lm: PreTrainedModel) -> None:
        """Put adapters into the model, in place, and freeze everything else.

        Raises:
            InputError: peft is not installed, or a target is the end of no layer's name.
        """
        try:
            import peft
        except ModuleNotFoundError as error:
            raise InputError("model.lora needs the package peft: pip install 'coh_lightning[lora]'.") from error
        layers = [name for name, _ in lm.named_modules()]
        misfit = f"model.lora does not fit the {lm.config.model_type} model"
        for target in self.targets or ():
            # peft is silent where another target exists
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                near = did_you_mean(target, {name.rpartition(".")[2] for name in layers})
                raise InputError(f"{misfit}: no layer's name ends in '{target}' (lora.targets){near}")
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # a float is fine
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.targets is None else list(self.targets),
        )
        try:
            lm.add_adapter(settings)
        except ValueError as error:
            raise InputError(f"{misfit}: {' '.join(str(error).split())}") from error
        if not self.quantize:
            for name, parameter in lm.named_parameters():
                if "lora_" in name:
                    parameter.data = parameter.data.to(lm.dtype)  # peft leaves those on the meta device in float32

    def quantization(self, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
        """Arguments of `from_pretrained` that load the weights in few bits; {} without `quantize`.

        Raises:
            InputError: there is no GPU, or bitsandbytes is not installed.
        """
        if self.quantize is None:
            return {}
        what = f"model.lora.quantize is '{self.quantize}'"
        if device is None or device.type != "cuda":
            raise InputError(
                f"{what}, which works on a GPU only, and this runs on {device or 'the CPU'}; leave it out."
            )
        if find_spec("bitsandbytes") is None:
            raise InputError(f"{what} and needs the package bitsandbytes: pip install bitsandbytes.")
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
        settings = {"load_in_8bit": True} if self.quantize == "8bit" else {"load_in_4bit": True, **four}
        return {"quantization_config": BitsAndBytesConfig(**settings), "device_map": {"": device}}


def adapters(saved: Mapping[str, Any]) -> LoRA | None:
    """The adapters of a checkpoint (`read_checkpoint_info`)."""
    return LoRA(**saved["lora"]) if saved.get("lora") else None
