"""What the model of a run writes in one round, scored: completions, second answers, dialogues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.best_of_n import best_samples
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.figures import Valued, summary, with_samples
from coh_lightning.generation.gathered import gathered
from coh_lightning.generation.guidance import with_other_prompt
from coh_lightning.generation.offline_inference import read_completions, write_prompts
from coh_lightning.generation.refinement import SELF, Refinement
from coh_lightning.generation.request import RecordRequest
from coh_lightning.generation.reviews import REVIEW_ASK, ReviewedAnswers, read_answers
from coh_lightning.generation.reward_model import RewardModel
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.scorers import CheckedScorer, Scorer, load_critic, load_scorer, score
from coh_lightning.generation.settings import Generation
from coh_lightning.generation.unused import refuse_unused, unused
from coh_lightning.model.build import mesh_of
from coh_lightning.model.sharding import TENSOR, from_replicas, is_sharded, replicas

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule


HELD_OUT: tuple[Literal["validation", "test"], ...] = ("validation", "test")


class Writer:
    """Writes rounds of completions for a Trainer's stages; every method after `begin` must be called on all ranks.

        begin    write, write, ...    figures, or left_out      one round: a validation's, or all of `test` or `predict`

    `trust_remote_code` is for the reward model.
    """

    def __init__(self, settings: Generation, *, trust_remote_code: bool = False) -> None:
        self.settings = settings
        self._trust_remote_code = trust_remote_code
        self.written: list[Completion] = []
        """This rank's completions of the round."""
        self._best: list[Valued] = []
        self._until: float | None = None  # when `max_seconds` is over, by `monotonic()`
        self._left_out = self._no_room = 0

    def check(self, trainer: pl.Trainer, data: CoHDataModule) -> None:
        """Before a stage; warns of settings that have no effect in it (unused.py). Raises InputError for one that asks
        for what isn't written, a scorer that doesn't exist, a condition to guide away from that the method doesn't
        have, reviews by a model that can't write them, or a time limit that ranks can't keep.
        """
        first = [one.record for records in data.splits.values() for one in records[:1]]
        asks = dict.fromkeys(name for record in first for name in data.prompter.conditions(record))
        stage = str(trainer.state.fn.value) if trainer.state.fn is not None else "fit"
        refuse_unused(self.settings, stage, asks=list(asks))
        said = unused(self.settings, stage)
        if self.settings.sampling.guidance:
            away_from, requests = self.settings.sampling.guidance_from, data.prompter.requests(first)
            led = [with_other_prompt(data.prompter, request, away_from) is not request for request in requests]
            if led and not any(led):
                what = f"model.generation.sampling.guidance is {self.settings.sampling.guidance:g}, but completions are"
                why = f"written under '{away_from}' alone, the sentence to guide away from"
                said.append(f"{what} {why}, so only the cutoff is used; add another one to data.conditions.")
        if stage == "fit" and self.settings.generate_every_n_validations and not _validates(trainer, data):
            what = f"model.generation.generate_every_n_validations is {self.settings.generate_every_n_validations}"
            said.append(f"{what}, but this fit has no validation, so nothing is written; set data.validation_share.")
        for sentence in said:
            rank_zero_warn(sentence)
        for path in self.settings.scorers:
            load_scorer(path)
        if self.settings.critic and self.settings.critic != SELF:
            load_critic(self.settings.critic)
        method = data.method
        asked = {"critic": self.settings.critic == SELF, "review_of": self.settings.review_of is not None}
        for name in (name for name, wanted in asked.items() if wanted):
            if not method.reviews:
                raise InputError(
                    f"model.generation.{name} is '{getattr(self.settings, name)}', but the method '{method.name}' has "
                    "no order 'reviewed', so this model never learned to write reviews; train one with "
                    "--data.method=conf/method/reviewed.yaml."
                )
        refine = self.settings.refine
        if refine and self.settings.critic != SELF and method.sentences == "none":
            what = f"model.generation.refine is {refine}, but the method '{method.name}' has no sentence that calls an"
            raise InputError(f"{what} answer bad; set refine to 0.")
        mesh, seconds = mesh_of(trainer), self.settings.sampling.max_seconds
        if seconds is not None and mesh is not None and mesh[TENSOR].size() > 1:
            what = f"sampling.max_seconds is {seconds:g}, but ranks that share tensors must stop at the same token"
            raise InputError(f"{what}; leave it out.")

    def begin(self, trainer: pl.Trainer, data: CoHDataModule, lm: nn.Module | None) -> None:
        """Begins a round; its time limit counts from the first prompt. `lm` is None in a `predict` without a model."""
        self._trainer, self._data, self._lm = trainer, data, lm
        self.written, self._best, self._left_out, self._no_room, self._until = [], [], 0, 0, None

    def __getstate__(self) -> dict[str, Any]:
        """Like a LightningModule, leaves the Trainer out of copies and pickles."""
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
        # ranks that share a sharded model must all run each forward pass; ranks with a whole model need not wait
        in_step = self._trainer.strategy.reduce_boolean_decision if is_sharded(self._trainer) else None
        assert self._lm is not None
        if sampling.guidance:
            requests = [with_other_prompt(prompter, request, sampling.guidance_from) for request in requests]
        with gathered(self._lm, in_step) as everyone_done:
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
            completions = self._scored([prompter.completion(one, sampling, system=self._run_name) for one in written])
            if sampling.samples > 1 and self._scorers and not self._trainer.predicting:
                self._best += best_samples(
                    self._lm,
                    prompter,
                    written,
                    completions,
                    scored_rows=self._data.rows.scored,
                    at_once=self._data.row_tokens,
                    everyone_done=everyone_done,
                )
        return completions

    def write_split(self, stage: Literal["validation", "test"]) -> list[Completion]:
        """This rank's share of a held-out split's prompts."""
        data = self._data
        ranks, rank = replicas(self._trainer)
        limit = data.max_test_prompts if stage == "test" else data.max_validation_prompts
        return self.write(data.requests(stage, limit)[rank::ranks])

    def write_predicted(self, requests: Sequence[RecordRequest]) -> list[Completion]:
        """What `predict` writes for these requests: answers and their refinements, dialogues, reviews, or nothing."""
        if self.settings.prompts_to is not None:
            return []
        if self.settings.review_of is not None:
            return self.write_reviews(requests)
        if self.settings.dialogues:
            return self.write_dialogues(requests)
        before = len(self.written)
        self._refined(self.write(requests), {request.record.id: request.record for request in requests})
        return self.written[before:]

    def write_reviews(self, requests: Sequence[RecordRequest]) -> list[Completion]:
        """The model's reviews of the answers in the file `review_of` to the prompts of these requests."""
        asked = [
            self._data.prompter.review(record, answer, f"{REVIEW_ASK}{number}")
            for record in {request.record.id: request.record for request in requests}.values()
            for number, answer in enumerate(self._answers.of_record.get(record.id, ()), start=1)
        ]
        self._no_room += asked.count(None)
        return self.write([one for one in asked if one is not None])

    def write_dialogues(self, requests: Sequence[RecordRequest]) -> list[Completion]:
        """Pseudo-dialogues, turn by turn: a completion for each turn, with the id DIALOGUE#TURN."""
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
        """The figures of the round (figures.py), of all ranks together, after its rounds of refinement."""
        splits = self._data.splits
        records = {one.record.id: one.record for stage in HELD_OUT for one in splits[stage]}
        own = with_samples(self.written) + self._best + self._refined(list(self.written), records)
        together: list[Valued] = [row for part in from_replicas(self._trainer, own) for row in part]
        if len({row.id for row in together}) < len(together):
            raise RuntimeError(f"some of the {len(together)} completions of all ranks have the same id")
        figures = summary(together, seed=self._data.seed)
        if self.settings.sampling.max_seconds is not None:
            figures["left_out"] = float(self.left_out())
        return figures

    def left_out(self) -> int:
        """Completions that all ranks together had no time for; the first rank warns of them, and of answers that were
        too long to be reviewed.
        """
        if no_room := sum(from_replicas(self._trainer, self._no_room)):
            rank_zero_warn(f"{counted(no_room, 'answer')} had no room for a review within data.max_chain_tokens.")
        number, limit = sum(from_replicas(self._trainer, self._left_out)), self.settings.sampling.max_seconds
        if number:
            why = f"because sampling.max_seconds = {limit:g} was over"
            rank_zero_warn(f"{number} completions were left out, {why}; raise it, or write fewer.")
        return number

    def gathered(self) -> list[Completion]:
        """The completions of all ranks, on each of them, in the order of prompt, ask and sample."""
        every = [one for part in from_replicas(self._trainer, self.written) for one in part]
        return sorted(every, key=lambda one: (one.prompt_id, one.ask))

    def _scored(self, completions: list[Completion]) -> list[Completion]:
        """Answers get their scores; reviews of answers have none."""
        for scorer in self._scorers if all(one.answer is None for one in completions) else ():
            completions = score(completions, scorer)
        self.written += completions
        return completions

    @cached_property
    def _scorers(self) -> list[Scorer]:
        scorers = [load_scorer(path) for path in self.settings.scorers]
        if (name := self.settings.reward_model) is not None:
            device = self._trainer.strategy.root_device
            model = RewardModel(name, device=device, trust_remote_code=self._trust_remote_code)
            scorers.append(CheckedScorer(name, model))
        return scorers

    def _refined(self, written: Sequence[Completion], records: Mapping[str, Feedback]) -> list[Valued]:
        """The numbers of rounds of refinement of these first answers (refinement.py), which are written here."""
        settings = self.settings
        if not settings.refine:
            return []
        critic = SELF if settings.critic == SELF else load_critic(settings.critic) if settings.critic else None
        once = replace(settings.sampling, samples=1)
        refinement = Refinement(self._data.prompter, settings.refine, critic)
        return refinement.rows(written, records, lambda requests: self.write(requests, once))

    # Completions made elsewhere

    def begin_predict(self, model: str | None) -> None:
        """Counts the dialogues that can't be written and the answers that can't be reviewed, and sends the prompts
        where they are completed elsewhere.

        Args:
            model: The server's name for the model; None: the run folder's.
        """
        if self.settings.dialogues:
            records = self._data.splits["test"]
            unusable = sum(not self._data.prompter.replies(one.record) for one in records)
            if unusable:
                rank_zero_warn(
                    f"{unusable} of {len(records)} dialogues are left out: a user turn is empty or longer than "
                    "data.max_prompt_tokens."
                )
        if self.settings.review_of is not None and (unknown := self._answers.unknown):
            every = unknown + sum(map(len, self._answers.of_record.values()))
            where = f"{unknown} of {every} answers in {self.settings.review_of} are left out"
            rank_zero_warn(f"{where}: they are to prompts that are not in the test split.")
        path = self.settings.prompts_to
        if path is not None and self._trainer.is_global_zero:
            name, stops = self.served_model(model), self._data.prompter.stop_ids
            number = write_prompts(path, self._blanks, stop_token_ids=stops, stop=self._stop_texts, model=name)
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

    @cached_property
    def _answers(self) -> ReviewedAnswers:
        assert self.settings.review_of is not None
        return read_answers(self.settings.review_of, (one.record for one in self._data.splits["test"]))

    @property
    def _blanks(self) -> list[PendingCompletion]:
        return self._data.prompter.blanks(self._data.requests(), self.settings.sampling, system=self._run_name)

    @property
    def _stop_texts(self) -> list[str]:
        return self._data.prompter.stop_texts(one.record for one in self._data.splits["test"])

    @property
    def _run_name(self) -> str:
        return Path(self._trainer.default_root_dir).name


def _validates(trainer: pl.Trainer, data: CoHDataModule) -> bool:
    return bool(data.splits["validation"]) and trainer.limit_val_batches != 0
