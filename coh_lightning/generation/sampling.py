"""How the next token is chosen: greedily, or drawn after temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from coh_lightning.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the model generates."""

    max_new_tokens: int = 128
    """The stop id counts."""
    temperature: float = 0.0
    """0: greedy; otherwise the logits are divided by it and a token is drawn."""
    top_k: int = 0
    """Draw from the k likeliest tokens (ties with the k-th included); 0: from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together reach this probability (Holtzman et al. 2020); 1: from all."""
    samples: int = 1
    """Completions per prompt."""
    batch_size: int = 16
    """Completions generated at a time."""
    seed: int = 0
    guidance: float | None = None
    """Guide every completion away from the sentence `guidance_from`: with this number w, the logits become own +
    w (own - other), the other ones being the model's after the same text under the other sentence (classifier-free
    guidance: Ho and Salimans 2022; for language models Sanchez et al., arXiv 2306.17806). Takes about half more
    time, and twice the memory. 0: the cutoff alone, its control, in one pass. None: off."""
    guidance_cutoff: float = 0.02
    """With guidance: only tokens whose probability under the completion's own sentence, before the temperature, is at
    least this share of the likeliest one's; 0: all."""
    guidance_from: str = "bad"
    """With guidance: the condition to guide away from. A completion under this very condition is written with the
    cutoff alone, since own - other is then 0."""
    max_seconds: float | None = None
    """Time budget of one round of generation (a validation, `test` or `predict`, refinement included), on each rank: no
    completion starts later. Those in progress are finished, since dropping them would drop the long ones. Prompts then
    go in a random order, the same each time, so that what is left out doesn't bias the figures; the number left out is
    logged (`left_out`). None: no limit."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "samples", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"sampling.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise InputError(f"sampling.max_seconds is {self.max_seconds}; it must be above 0, or null for no limit.")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"sampling.temperature is {self.temperature}; it must be 0 (greedy) or positive.")
        if self.top_k < 0:
            raise InputError(f"sampling.top_k is {self.top_k}; it must be 0 (off) or a number of tokens.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"sampling.top_p is {self.top_p}; it must be above 0 and at most 1 (off).")
        if self.temperature == 0 and self.samples > 1:
            given = f"sampling.samples is {self.samples} but sampling.temperature is 0"
            raise InputError(f"{given}, so all would be the same; set samples to 1 or a temperature.")
        if self.guidance is not None and not 0 <= self.guidance < float("inf"):
            what = f"sampling.guidance is {self.guidance}; it must be at least 0, or null for none"
            raise InputError(f"{what} (to guide towards a sentence, ask for it in data.conditions).")
        if not 0 <= self.guidance_cutoff <= 1:
            raise InputError(f"sampling.guidance_cutoff is {self.guidance_cutoff}; it must be between 0 (off) and 1.")

    def recorded(self) -> dict[str, Any]:
        """The settings for the record of a completion, without those that have no effect."""
        off = set() if self.guidance is not None else {"guidance_cutoff", "guidance_from"}
        return {name: value for name, value in asdict(self).items() if value is not None and name not in off}


def next_tokens(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """The next token of each row: the likeliest, or the one at which the cumulative probabilities of the filtered
    softmax pass the row's draw.

    Tokens are summed in the order of their ids, not of their probabilities, so that rounding elsewhere in a batch can't
    swap two of them:

        id            0    1    2    3          draw 0.55
        probability  .2   .5   .1   .2    ->    sums .2 .7 .8 1.    ->    token 1

    Args:
        logits: (batch, vocabulary).
        draws: (batch,), uniform in [0, 1); not used at temperature 0.

    Returns:
        (batch,), int64.
    """
    top = logits.float().max(dim=-1)
    if not bool(torch.isfinite(top.values).all()):
        why = "its weights have diverged or overflow in this precision"
        raise InputError(f"The model's logits are non-finite: {why}; take an earlier checkpoint or a wider precision.")
    if sampling.temperature == 0:
        return top.indices
    probabilities = torch.softmax(logits.to(precise(logits)) / sampling.temperature, dim=-1)
    if 0 < sampling.top_k < probabilities.shape[-1]:
        least = probabilities.topk(sampling.top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        ranked = probabilities.sort(dim=-1, descending=True, stable=True)
        reached_before = ranked.values.cumsum(dim=-1) - ranked.values
        reached_before[:, 0] = 0.0  # the likeliest token always stays
        dropped = torch.zeros_like(probabilities, dtype=torch.bool).scatter(
            -1, ranked.indices, reached_before >= sampling.top_p
        )
        probabilities = probabilities.masked_fill(dropped, 0.0)
    sums = probabilities.cumsum(dim=-1)
    total = sums[:, -1:]
    # strictly below the total, or rounding could point past the last token with a probability
    point = torch.minimum(draws.to(sums)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, point, right=True)[:, 0]


def precise(like: Tensor) -> torch.dtype:
    """The widest float of a tensor's device."""
    return torch.float32 if like.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
