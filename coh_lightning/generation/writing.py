"""What the model of a run writes: completions of prompts, second answers, whole dialogues, or completions that were
made elsewhere; scored, counted, and kept until the next round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.figures import FIRST, Valued, summary, with_copies, with_samples
from coh_lightning.generation.offline_inference import BATCH, read_completions, write_batch, write_prompts
from coh_lightning.generation.request import RecordRequest
from coh_lightning.generation.reward_model import RewardModel
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.scorers import Scorer, load_critic, load_scorer, score
from coh_lightning.model.build import mesh_of
from coh_lightning.model.sharding import TENSOR, from_replicas, is_sharded, replicas

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule


@dataclass(frozen=True)
class Generation:
    """How and when a model writes, and what scores it."""

    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    """Of `test`, `predict` and the rounds during `fit`."""
    generate_every_n_validations: int = 0
    """During `fit`, write completions at every N-th validation, for `data.max_validation_prompts` prompts; 0: never."""
    refine: int = 0
    """Rounds in which the model is asked for a better answer than its own last one, in `test` and during `fit`, each
    beside a fresh draw as its control."""
    critic: str | None = None
    """With `refine`: what is said of an answer before the next one, a function `Completion -> str` by its import path
    (`package.module:function`); None says that it is bad, in the method's words."""
    scorers: tuple[str, ...] = ()
    """Raters in code that score every completion, functions `Completion -> {name: number}` by their import paths;
    `world` is the embedded world's rater."""
    reward_model: str | None = None
    """A reward model of transformers (sequence classification) that scores every completion, by name or folder."""
    dialogues: bool = False
    """In `predict`: write pseudo-dialogues, as the paper's raters read them. The user's turns are kept, and each of the
    assistant's turns is written anew, after the model's own earlier ones (`human-eval export --dialogues`)."""
    prompts_to: str | None = None
    """In `predict`: write the prompts to this file, for a server elsewhere (exchange.py), and no completions; no model
    is loaded. As the input of a batch service where its name ends in .batch.jsonl."""
    served_model: str | None = None
    """With `prompts_to`: the server's name for the model. None: `model`, or the run folder's name for a model that was
    trained here."""
    completions_from: str | None = None
    """In `predict` and `test`: take the completions from this file, which a server made from such prompts."""

    def __post_init__(self) -> None:
        if isinstance(self.scorers, str):
            raise InputError(
                f"model.generation.scorers is '{self.scorers}', a text; give a list of import paths: [{self.scorers}]."
            )
        object.__setattr__(self, "scorers", tuple(self.scorers))
        if self.generate_every_n_validations < 0 or self.refine < 0:
            raise InputError(
                f"model.generation.generate_every_n_validations is {self.generate_every_n_validations} and model.generation.refine {self.refine}; "
                "neither can be negative (0 switches it off)."
            )
        if self.prompts_to is not None and self.completions_from is not None:
            raise InputError(
                f"model.generation.prompts_to is '{self.prompts_to}' and model.generation.completions_from "
                f"'{self.completions_from}'; prompts go out first, give one of the two."
            )
        if self.dialogues and self.elsewhere:
            raise InputError(
                "model.generation.dialogues needs the model at hand, since each answer follows the one before; leave "
                "out prompts_to and completions_from."
            )
        if self.dialogues and (self.sampling.samples > 1 or self.sampling.max_seconds is not None):
            raise InputError(
                "model.generation.dialogues writes whole dialogues, one of each, but model.generation.sampling has "
                f"samples {self.sampling.samples} and max_seconds {self.sampling.max_seconds}; set samples to 1 and "
                "max_seconds to null."
            )

    @property
    def elsewhere(self) -> bool:
        """Whether `predict` leaves the writing to another program, so that it needs no model."""
        return self.prompts_to is not None or self.completions_from is not None


class Writer:
    """Writes rounds of completions for a Trainer's stages; every method after `begin` must be called on all ranks.

        begin    write, write, ...    figures, or left_out      one round: a validation's, or all of `test` or `predict`

    Args:
        settings: How it writes.
        trust_remote_code: Of the reward model.
    """

    def __init__(self, settings: Generation, *, trust_remote_code: bool = False) -> None:
        self.settings = settings
        self._trust_remote_code = trust_remote_code
        self.written: list[Completion] = []
        """This rank's completions of the round (`CompletionWriter` keeps them)."""
        self._until: float | None = None  # the time of `monotonic()` at which `max_seconds` is over
        self._left_out = 0

    def check(self, trainer: pl.Trainer) -> None:
        """Before a stage: finds wrong import paths, and a time limit that ranks can't keep.

        Raises:
            InputError: a scorer or critic that is not there; `max_seconds` under tensor parallelism.
        """
        for path in self.settings.scorers:
            load_scorer(path)
        if self.settings.critic:
            load_critic(self.settings.critic)
        mesh, seconds = mesh_of(trainer), self.settings.sampling.max_seconds
        if seconds is not None and mesh is not None and mesh[TENSOR].size() > 1:
            raise InputError(
                f"sampling.max_seconds is {seconds:g}, but ranks that share tensors must stop at the same token, and "
                "their clocks differ; leave it out."
            )

    def begin(self, trainer: pl.Trainer, data: CoHDataModule, lm: nn.Module | None) -> None:
        """Begins a round: nothing is written yet, and the time limit counts from the first prompt on.

        Args:
            trainer: The run's.
            data: Makes the prompts.
            lm: The model; None in a `predict` that runs none.
        """
        self._trainer, self._data, self._lm = trainer, data, lm
        self.written, self._left_out, self._until = [], 0, None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave the Trainer out, as those of a LightningModule do."""
        return {key: value for key, value in vars(self).items() if key not in ("_trainer", "_data", "_lm")}

    # One round

    def write(self, requests: Sequence[RecordRequest], sampling: Sampling | None = None) -> list[Completion]:
        """This rank's completions of its requests, scored."""
        prompter, sampling = self._data.prompter, sampling or self.settings.sampling
        if self.settings.completions_from is not None and (self._trainer.testing or self._trainer.predicting):
            names = (f"{one.prompt_id}:{one.ask}:{sample}" for one in requests for sample in range(sampling.samples))
            return self._scored([self._from_elsewhere[name] for name in names])
        if sampling.max_seconds is not None and self._until is None:
            self._until = monotonic() + sampling.max_seconds
        # ranks that hold parts of one model must all run each forward pass; ranks with a model each need not wait
        everyone_done = self._trainer.strategy.reduce_boolean_decision if is_sharded(self._trainer) else None
        assert self._lm is not None
        written = generate(
            self._lm,
            requests,
            sampling,
            stop_ids=prompter.stop_ids,
            pad_id=prompter.pad_id,
            should_stop=prompter.should_stop,
            until=self._until,
            everyone_done=everyone_done,
        )
        self._left_out += len(requests) * sampling.samples - len(written)
        return self._scored([prompter.completion(one, sampling, system=self._run_name) for one in written])

    def write_split(self, stage: Literal["validation", "test"]) -> list[Completion]:
        """This rank's share of a held-out split's prompts, up to the split's limit."""
        data = self._data
        ranks, rank = replicas(self._trainer)
        limit = data.max_test_prompts if stage == "test" else data.max_validation_prompts
        return self.write(data.requests(stage, limit)[rank::ranks])

    def write_dialogues(self, requests: Sequence[RecordRequest]) -> list[Completion]:
        """The pseudo-dialogues of some prompts, turn by turn: a completion of each turn, with the id DIALOGUE#TURN."""
        prompter = self._data.prompter
        replies = {request: prompter.replies(request.record) for request in requests}
        answers: dict[RecordRequest, list[str]] = {request: [] for request in requests}
        written: list[Completion] = []
        for number in range(self._data.most_replies):  # of all ranks: this one may have no dialogue that long
            unfinished = [request for request in requests if number < replies[request]]
            new = self.write([prompter.reply(request, answers[request]) for request in unfinished])
            for request, completion in zip(unfinished, new, strict=True):
                answers[request].append(completion.text)
            written += new
        return written

    def figures(self) -> dict[str, float]:
        """The figures of the round (evaluation.py), of all ranks together, after its rounds of refinement."""
        own = with_samples(self.written) + self._refined()
        together: list[Valued] = [row for part in from_replicas(self._trainer, own) for row in part]
        if len({row.id for row in together}) < len(together):
            raise RuntimeError(
                f"{len(together)} completions were gathered from {self._trainer.world_size} rank(s), and some have "
                "the same id"
            )
        figures = summary(together, seed=self._data.seed)
        if self.settings.sampling.max_seconds is not None:
            figures["left_out"] = float(self.left_out())
        return figures

    def left_out(self) -> int:
        """Completions that all ranks had no time for; the first rank warns of them."""
        number = sum(from_replicas(self._trainer, self._left_out))
        if number:
            rank_zero_warn(
                f"{number} completions were left out, because sampling.max_seconds = "
                f"{self.settings.sampling.max_seconds:g} was over; raise it, or write fewer."
            )
        return number

    def gathered(self) -> list[Completion]:
        """The completions of all ranks, on each of them, in the order of prompt, ask and sample."""
        every = [one for part in from_replicas(self._trainer, self.written) for one in part]
        return sorted(every, key=lambda one: (one.prompt_id, one.ask))

    def _scored(self, completions: list[Completion]) -> list[Completion]:
        for scorer in self._scorers:
            completions = score(completions, scorer)
        self.written += completions
        return completions

    @cached_property
    def _scorers(self) -> list[Scorer]:
        scorers = [load_scorer(path) for path in self.settings.scorers]
        if (name := self.settings.reward_model) is not None:
            device = self._trainer.strategy.root_device
            scorers.append(RewardModel(name, device=device, trust_remote_code=self._trust_remote_code))
        return scorers

    def _refined(self) -> list[Valued]:
        """Rounds of refinement of this rank's first answers (sample 0 of each prompt), with the fresh draws that they
        are compared with.
        """
        settings, data = self.settings, self._data
        if not settings.refine:
            return []
        if settings.completions_from is not None:
            raise InputError(
                f"model.generation.refine is {settings.refine}, but the completions come from "
                f"'{settings.completions_from}': a second answer would need another's model; set refine to 0."
            )
        first = [one for one in self.written if one.ask == FIRST and one.id.endswith(":0")]
        answers = {one.prompt_id: [one] for one in first}
        records = {one.record.id: one.record for stage in ("validation", "test") for one in data.splits[stage]}
        critic = load_critic(settings.critic) if settings.critic else None
        once = replace(settings.sampling, samples=1)
        rows: list[Valued] = []
        for number in range(2, settings.refine + 2):
            refined, fresh = [], []
            for prompt_id, own in answers.items():
                if len(own) < number - 1:  # there was no room for the answer before
                    continue
                remarks = [critic(answer) if critic else None for answer in own]
                texts = [answer.text for answer in own]
                request = data.prompter.refinement(records[prompt_id], texts, remarks, f"refined {number}")
                if request is not None:
                    refined.append(request)
                    fresh.append(data.prompter.request(records[prompt_id], f"fresh {number}", own[0].marker))
            second, control = self.write(refined, once), self.write(fresh, once)
            for one in second:
                answers[one.prompt_id].append(one)
            rows += with_copies(first, second) + with_copies(first, control)
        return rows

    # Completions made elsewhere

    def begin_predict(self, model: str | None) -> None:
        """Says which dialogues can't be written, and sends the prompts where they are completed elsewhere.

        Args:
            model: The server's name for the model; None: the run folder's.
        """
        if self.settings.dialogues:
            records = self._data.splits["test"]
            unusable = sum(not self._data.prompter.replies(one.record) for one in records)
            if unusable:
                rank_zero_warn(
                    f"{unusable} of {len(records)} dialogues are left out: a turn of the user's is empty or longer "
                    "than data.max_prompt_tokens."
                )
        self._send_prompts(model)

    def _send_prompts(self, model: str | None) -> None:
        path = self.settings.prompts_to
        if path is None or not self._trainer.is_global_zero:
            return
        name = self.served_model(model)
        write = write_batch if path.endswith(BATCH) else write_prompts
        stops = self._data.prompter.stop_ids
        number = write(path, self._blanks, stop_token_ids=stops, stop=self._stop_texts, model=name)
        print(
            f"{number} prompts in {path}, for a server that calls the model '{name}' "
            "(--model.generation.served_model names another); give the answers back with "
            "--model.generation.completions_from=FILE"
        )

    def served_model(self, model: str | None) -> str:
        """The server's name for the model `model`, or for the one that was trained here (None)."""
        return self.settings.served_model or model or self._run_name or "model"

    @cached_property
    def _from_elsewhere(self) -> dict[str, Completion]:
        assert self.settings.completions_from is not None
        encoder = self._data.prompter.tokens.encoder
        completions = read_completions(
            self.settings.completions_from,
            self._blanks,
            count=lambda text: len(encoder.encode_texts([text])[0]),
            stop=self._stop_texts,
        )
        return {one.id: one for one in completions}

    @property
    def _blanks(self) -> list[PendingCompletion]:
        return self._data.prompter.blanks(self._data.requests(), self.settings.sampling, system=self._run_name)

    @property
    def _stop_texts(self) -> list[str]:
        return self._data.prompter.stop_texts(one.record for one in self._data.splits["test"])

    @property
    def _run_name(self) -> str:
        return Path(self._trainer.default_root_dir).name
