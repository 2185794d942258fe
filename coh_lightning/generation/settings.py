"""The settings under `model.generation`: how and when a model writes, and what scores it."""

from __future__ import annotations

from dataclasses import dataclass

from coh_lightning.errors import InputError
from coh_lightning.generation.sampling import Sampling


@dataclass(frozen=True)
class Generation:
    """How and when a model writes, and what scores it."""

    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    """Of `test`, `predict` and the rounds during `fit`."""
    generate_every_n_validations: int = 0
    """During `fit`, write completions at every N-th validation, for `data.max_validation_prompts` prompts; 0: never."""
    refine: int = 0
    """Rounds in which the model is asked for a better answer than its own last one, each with a fresh draw as its
    control: in `test`, in `predict`, and in the rounds during `fit`."""
    critic: str | None = None
    """With `refine`: gives the remark on an answer before the next one, a function `Completion -> str` by its import
    path (`package.module:function`); None: the remark says that it is bad, in the method's words; `self`: the model
    reviews its own answer, as the order `reviewed` of its method trained it to."""
    review_of: str | None = None
    """In `predict`: write the model's reviews of the answers in this file, of any system, to prompts of the test split,
    and no answers. The model's method must have the order `reviewed`."""
    scorers: tuple[str, ...] = ()
    """Score every completion: functions `Completion -> {name: number}` by their import paths; `world` is the embedded
    world's rater."""
    reward_model: str | None = None
    """A reward model of transformers (sequence classification) that scores every completion, by name or folder."""
    dialogues: bool = False
    """In `predict`: write pseudo-dialogues, as the paper's raters read them: the user's turns are kept, and each turn
    of the assistant is written anew, after the model's own earlier ones (`human-eval export --dialogues`)."""
    prompts_to: str | None = None
    """In `predict`: write the prompts to this file, for a server elsewhere (offline_inference.py), and no completions;
    no model is loaded. A name that ends in .batch.jsonl gives the input of a batch service."""
    served_model: str | None = None
    """With `prompts_to`: the server's name for the model. None: `name_or_path`, or the run folder's name for a model
    that was trained here."""
    completions_from: str | None = None
    """In `predict` and `test`: take the completions from this file, which a server made from such prompts."""

    def __post_init__(self) -> None:
        if isinstance(self.scorers, str):
            raise InputError(f"model.generation.scorers is text; give a list of import paths: [{self.scorers}].")
        object.__setattr__(self, "scorers", tuple(self.scorers))
        for name in ("generate_every_n_validations", "refine"):
            if getattr(self, name) < 0:
                raise InputError(f"model.generation.{name} is {getattr(self, name)}; it must be at least 0 (off).")
        if self.prompts_to is not None and self.completions_from is not None:
            raise InputError(
                f"model.generation.prompts_to is '{self.prompts_to}' and model.generation.completions_from "
                f"'{self.completions_from}'; prompts go out first, so give one of the two."
            )
        if self.sampling.guidance is not None and self.elsewhere:
            key = "prompts_to" if self.prompts_to is not None else "completions_from"
            why = "servers have no guidance between two prompts; write here, or set sampling.guidance to null"
            raise InputError(f"model.generation.{key} has completions written elsewhere, but {why}.")
        if self.dialogues and self.elsewhere:
            why = "each answer follows the one before; leave out prompts_to and completions_from"
            raise InputError(f"model.generation.dialogues needs the model here, since {why}.")
        if self.review_of is not None and (self.dialogues or self.elsewhere):
            what = f"model.generation.review_of is '{self.review_of}', and reviews are written here, of single answers"
            raise InputError(f"{what}; leave out dialogues, prompts_to and completions_from.")
        samples, seconds = self.sampling.samples, self.sampling.max_seconds
        if self.dialogues and (samples > 1 or seconds is not None):
            raise InputError(
                "model.generation.dialogues writes each dialogue once and whole, but sampling.samples is "
                f"{samples} and sampling.max_seconds {seconds}; set samples to 1 and max_seconds to null."
            )

    @property
    def elsewhere(self) -> bool:
        """Whether another program writes in `predict`, which then needs no model."""
        return self.prompts_to is not None or self.completions_from is not None
