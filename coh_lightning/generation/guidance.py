"""Guidance: negative feedback used at inference. Each next token is chosen from the logits under the completion's own
sentence, led away from those under another one.

    record ──> P good    own   ─┐
               P bad     other ─┴─ guided ──> own + w (own - other) ──> the next token of both

Classifier-free guidance (Ho and Salimans 2022; for language models Sanchez et al., arXiv 2306.17806), with a feedback
sentence in the place of the prompt that is left out, and a cutoff: few tokens are likely enough to be led anywhere.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.generation.sampling import Sampling, precise

if TYPE_CHECKING:
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.generation.request import RecordRequest


def guided(own: Tensor, other: Tensor | None, sampling: Sampling) -> Tensor:
    """own + w (own - other), and -inf for tokens below the cutoff (`Sampling.guidance`, `guidance_cutoff`).

        cutoff .1, w = 1    own    log(.6 .3  .07 .03)    the last token has less than .1 x .6
                            other  log(.3 .6  .07 .03)
                            own + (own - other) = log(1.2 .15 .07 0), which the softmax scales to a sum of 1

    Args:
        own: (batch, vocabulary).
        other: The same, after the same text under the other sentence; None where w is 0.

    Returns:
        (batch, vocabulary). With w = 0 and cutoff 0, `own` itself.
    """
    best = own.max(dim=-1, keepdim=True).values
    combined = own
    if sampling.guidance:
        assert other is not None
        combined = own.to(precise(own))
        combined = combined + sampling.guidance * (combined - other.to(combined))
        # a token that the model excludes stays so; its difference would be NaN
        combined = combined.masked_fill(own == -torch.inf, -torch.inf)
    if not sampling.guidance_cutoff:
        return combined
    least = best.to(precise(own)) + math.log(sampling.guidance_cutoff)
    return combined.masked_fill(own.to(least) < least, -torch.inf)


def with_other_prompt(prompter: Prompter, request: RecordRequest, away_from: str) -> RecordRequest:
    """The request with its prompt under the condition `away_from` too; unchanged if that is its own sentence.

    Raises:
        InputError: the method and wording don't have that condition.
    """
    known, method = prompter.all_conditions(request.record), prompter.method
    if method.sentences == "none":
        what = f"sampling.guidance needs two feedback sentences, but the method '{method.name}' has none"
        raise InputError(f"{what}; set it to null, or to 0 for the cutoff alone.")
    if away_from not in known:
        what = f"sampling.guidance_from is '{away_from}', but the method '{method.name}' has the conditions"
        raise InputError(f"{what} {', '.join(known)}{did_you_mean(away_from, known)}")
    marker, tokens = known[away_from], prompter.tokens
    if marker == request.marker:
        return request
    prompt = tokens.cut_prompt(request.record.prompt)
    if request.links:
        return replace(request, away_from_ids=tokens.continued_prompt(prompt, request.links, marker))
    return replace(request, away_from_ids=tokens.inference_prompt(prompt, marker))
