"""Settings under `model.generation` that would have no effect in a stage: none goes by without a word.

    refused    what was asked for would not be written      `review_of` in `test`
    said       only changes what is written, or has another stage to work in      `guidance_cutoff` without `guidance`

`fit` refuses nothing: a later command uses the same settings.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.generation.figures import FIRST
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation

WRITTEN_BY = {"dialogues": "predict", "review_of": "predict", "prompts_to": "predict", "completions_from": "test"}
"""What a setting has written or read, by the first of the stages that do so; `predict` does all of it."""
_DEFAULTS = {field.name: field.default for field in fields(Sampling)}


def refuse_unused(settings: Generation, stage: str, *, asks: Collection[str]) -> None:
    """Refuses what `stage` (fit, validate, test or predict) would leave out. `asks`: the names of the conditions.

    Raises:
        InputError: names the setting and what to do.
    """
    if stage not in ("test", "predict"):
        return
    for name, first in WRITTEN_BY.items():
        if first == "predict" != stage and getattr(settings, name):
            raise InputError(_only(settings, name, stage))
    refine = settings.refine
    if refine and settings.elsewhere:
        key = "prompts_to" if settings.prompts_to is not None else "completions_from"
        raise InputError(
            f"model.generation.refine is {refine}, but the completions come from elsewhere "
            f"({key}: '{getattr(settings, key)}'), and second answers need the model here; set refine to 0."
        )
    if refine and asks and FIRST not in asks and not (settings.dialogues or settings.review_of):
        named = f"data.conditions names {', '.join(asks)}, and answers under '{FIRST}' are refined"
        raise InputError(f"model.generation.refine is {refine}, but {named}; add {FIRST}, or set refine to 0.")


def unused(settings: Generation, stage: str) -> list[str]:
    """A sentence for each other setting that has no effect in `stage`."""
    said = [*_of_sampling(settings.sampling)]
    fits, predicts = stage in ("fit", "validate"), stage == "predict"
    said += [_only(settings, name, stage) for name in WRITTEN_BY if fits and getattr(settings, name)]
    refine, critic = settings.refine, settings.critic
    if critic is not None and not refine:
        said.append(
            f"model.generation.critic is '{critic}', but refine is 0, so no answer is criticized; set refine to 1."
        )
    if refine and fits and not settings.generate_every_n_validations:
        why = f"generate_every_n_validations is 0, so `{stage}` writes nothing"
        said.append(f"model.generation.refine is {refine}, but {why}; set that to 1, or leave this to `test`.")
    instead = next((name for name in ("dialogues", "review_of") if predicts and getattr(settings, name)), None)
    if refine and instead is not None:
        why = "answers of dialogues" if instead == "dialogues" else "answers in a file"
        said.append(f"model.generation.refine is {refine}, but with {instead}, {why} are not refined; set refine to 0.")
    if instead == "review_of":
        names = [name for name in ("scorers", "reward_model") if getattr(settings, name)]
        said += [
            f"model.generation.{name} has no effect with review_of, since reviews get no scores; leave it out."
            for name in names
        ]
    if settings.served_model is not None and predicts and not settings.elsewhere:
        what = f"model.generation.served_model is '{settings.served_model}', but no prompts go to a server"
        said.append(f"{what}; give prompts_to too, or leave it out.")
    seconds = settings.sampling.max_seconds
    if seconds is not None and settings.elsewhere and not fits:
        what = f"model.generation.sampling.max_seconds is {seconds:g}, but the completions are written elsewhere"
        said.append(f"{what}; leave it out.")
    return said


def _of_sampling(sampling: Sampling) -> list[str]:
    """Of a setting beside another one of `sampling`."""

    def changed(*names: str) -> list[tuple[str, Any]]:
        return [(name, getattr(sampling, name)) for name in names if getattr(sampling, name) != _DEFAULTS[name]]

    start, said = "model.generation.sampling", []
    if sampling.guidance is None:
        for name, value in changed("guidance_cutoff", "guidance_from"):
            remedy = "set guidance, to 0 for the cutoff alone" if name == "guidance_cutoff" else "set guidance"
            said.append(f"{start}.{name} is {value}, but guidance is null, so nothing is guided; {remedy}.")
    elif sampling.guidance == 0:
        for name, value in changed("guidance_from"):
            what = f"{start}.{name} is {value}, but guidance is 0, the cutoff alone, which needs no other sentence"
            said.append(f"{what}; raise guidance.")
    if sampling.temperature == 0:
        for name, value in changed("top_k", "top_p"):
            what = f"{start}.{name} is {value}, but temperature is 0, so the likeliest token is always taken"
            said.append(f"{what}; set a temperature.")
    return said


def _only(settings: Generation, name: str, stage: str) -> str:
    value = getattr(settings, name)
    what = f"model.generation.{name} is {value if value is True else repr(value)}"
    first = WRITTEN_BY[name]
    where = "`predict`" if first == "predict" else "`test` and `predict`"
    return f"{what}, which only {where} uses, not `{stage}`; leave it out here, and give it to `coh {first}`."
