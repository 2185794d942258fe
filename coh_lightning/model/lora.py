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
    """Low-rank adapters (Hu et al. 2021): only they are trained, the model's own weights W stay: W x + alpha / rank *
    B A x.

    For each adapted layer `lm.NAME`, a checkpoint's `state_dict` then has the keys `lm.NAME.base_layer.weight` (and
    `.bias`, where it has one), `lm.NAME.lora_A.default.weight` (rank, in) and `lm.NAME.lora_B.default.weight` (out,
    rank), and all other weights of the model under their usual names. With `quantize` it has the keys of `lora_A` and
    `lora_B` alone, and the model's own weights are read again from where they came.
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
            raise InputError(
                f"lora.targets is '{self.targets}', a string; give a list of ends of layer names: [{self.targets}]."
            )
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))  # JSON gives a list
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

    def attach(self, lm: PreTrainedModel) -> None:
        """Put adapters into the model, in place, and freeze everything else.

        Raises:
            InputError: peft is not installed, or a target is the end of no layer's name.
        """
        peft = _peft()
        layers = [name for name, _ in lm.named_modules()]
        for target in self.targets or ():
            # peft is silent where another target exists
            if not any(name == target or name.endswith(f".{target}") for name in layers):
                ends = {name.rpartition(".")[2] for name in layers}
                raise InputError(
                    f"model.lora does not fit the {lm.config.model_type} model: lora.targets names '{target}', which "
                    "is "
                    f"the end of no layer's name{did_you_mean(target, ends)}"
                )
        settings = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.targets is None else list(self.targets),
        )
        try:
            lm.add_adapter(settings)
        except ValueError as error:
            raise InputError(
                f"model.lora does not fit the {lm.config.model_type} model: {' '.join(str(error).split())}"
            ) from error
        if not self.quantize:
            for name, parameter in lm.named_parameters():
                if "lora_" in name:
                    parameter.data = parameter.data.to(lm.dtype)  # peft leaves those on the meta device in float32

    def quantization(self, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
        """What `from_pretrained` needs to load the weights in few bits; {} without `quantize`.

        Raises:
            InputError: there is no GPU, or bitsandbytes is not installed.
        """
        if self.quantize is None:
            return {}
        if device is None or device.type != "cuda":
            raise InputError(
                f"model.lora.quantize is '{self.quantize}', which works on a GPU only, and this runs on "
                f"{device or 'the CPU'}; leave it out."
            )
        if find_spec("bitsandbytes") is None:
            raise InputError(
                f"model.lora.quantize is '{self.quantize}' and needs the package bitsandbytes, which is not installed: "
                "pip install bitsandbytes."
            )
        if self.quantize == "8bit":
            bits = BitsAndBytesConfig(load_in_8bit=True)
        else:
            bits = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        return {"quantization_config": bits, "device_map": {"": device}}


def adapters(saved: Mapping[str, Any]) -> LoRA | None:
    """The adapters that a checkpoint holds."""
    return LoRA(**saved["lora"]) if saved.get("lora") else None


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise InputError(
            "model.lora needs the package peft, which is not installed: pip install 'coh_lightning[lora]'."
        ) from error
    return peft
