"""What is measured and shown before training: the memory that is to be expected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from feedback_for_tests import tiny

from coh_lightning.models import LoRA
from coh_lightning.startup import expected_memory


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_the_expected_memory_is_that_of_weights_gradients_logits_and_activations(attention: Any, recomputed: bool) -> None:
    model = tiny(attention=attention)
    model.configure_model()
    tokens, predicted, heads = 100, 40, 2 if attention == "eager" else 1
    held = sum(parameter.numel() for parameter in model.parameters()) * 4
    activations = (1 if recomputed else 2) * (34 * tokens * 32 + 4 * heads * tokens**2) * 2
    found = expected_memory(model.lm, tokens=tokens, predicted=predicted, device=torch.device("cpu"), recomputed=recomputed)
    assert found == 4 * held + 3 * 4 * predicted * 520 + activations


def test_the_expected_memory_on_a_gpu_is_what_was_measured_and_the_optimizers_two_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(lora=LoRA(rank=2, targets=("q_proj",)))
    model.configure_model()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1000)
    trained = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name)
    assert expected_memory(model.lm, tokens=9, predicted=9, device=torch.device("cuda", 0), recomputed=False) == 1000 + 2 * 4 * trained
