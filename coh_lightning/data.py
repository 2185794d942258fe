"""`CoHDataModule`: feedback in, rows of trees out. Each stage of the road is a call to the file that knows how:

    sources -> splits -> Feedback -> cut prompt, chains -> plan           once, at set-up
    plan.step(epoch, step) -> chains -> Tokens -> Tree -> Row -> batch    for each micro-batch, from ids that are there

Only the ids of distinct texts are cached on disk; wording, method and layout are choices of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from coh_lightning.dataset import report as data_report
from coh_lightning.dataset.checks import check_arguments, check_trainer
from coh_lightning.dataset.held_out import Comparer, refuse_empty, writing
from coh_lightning.dataset.loaders import BatchTable, TrainLoader
from coh_lightning.dataset.pretraining import TEXT, read_pieces
from coh_lightning.dataset.report import SplitCounts
from coh_lightning.dataset.row_builder import RowBuilder
from coh_lightning.dataset.splits import SplitReader, Stage, rated_attributes, tasks_of
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source, counts
from coh_lightning.generation.prompter import Prompter, turns_before_answers
from coh_lightning.generation.request import RecordRequest
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.losses import Batch
from coh_lightning.model.sharding import replicas
from coh_lightning.model.tokenizer import choose_tokenizer
from coh_lightning.sequences.chain_tokenizer import CutPrompt
from coh_lightning.sequences.chains import Chain
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import Plan, PlannedRow
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import PlannedRecord, RecordPlanner
from coh_lightning.sequences.template_check import note_on_outputs
from coh_lightning.sequences.wording import Wording
from coh_lightning.training.schedule import follow_plan
from coh_lightning.worlds import WORLD


class CoHDataModule(LightningDataModule):
    """Feedback of any kind, laid out for a causal language model.

    Lightning's `limit_val_batches` and the like apply to each held-out loader on its own: losses, comparisons and, in
    `test` and `predict`, prompts to write for. What is written during validation is limited by
    `max_validation_prompts`.

    Args:
        feedback: A file of our own records (JSON lines), or of TRL's pairs or unpaired rows; `world` is the feedback of
            the embedded world (a file of that name is `./world`). Either this or `sources` must be given.
        sources: The sources of the feedback, instead of `feedback`.
        validation_sources: Separate held-out feedback; None takes `validation_share` of the prompts of `sources`.
        test_sources: The same for `test` and `predict`.
        validation_share, test_share: Shares of the prompts, by a hash of the normalized prompt, so that no prompt is in
            two splits.
        tokenizer: Name or folder; None is the model's own, or that of the embedded world with the world's feedback and
            no model. A named one is compared with the model's, id for id. A data module without a model (a notebook)
            needs a name for your own feedback; `world` is the embedded world's.
        method, wording, prompt_format: How records become chains, sentences and text; stored in the checkpoint.
        max_prompt_tokens: The prompt is cut to this once, for all its chains and at inference.
        max_chain_tokens: A longer chain loses links from its front.
        row_tokens: Length of a row: a micro-batch is (1, row_tokens).
        rows_per_step: Rows of feedback in one optimizer step, over all ranks; accumulation follows from it.
        layout: `tree` packs the chains of a record as one tree, and trees side by side; `separate` is one chain per
            row, for every architecture.
        fcm_range: Minimum and maximum share of past tokens hidden at random in training (FCM, paper section 2: 0 to 5 %).
        fcm_on_pretraining: Hide tokens of the pretraining text too.
        pretraining_text: Files of plain text (.txt: one piece per paragraph; or a column "text"), or names of data sets on
            the hub; `world` is the embedded world's text.
        pretraining_rows_per_step: Rows of it in each step (paper: four times the feedback).
        pretraining_weight: lambda of equation 3 (paper 1.5, its code 0.01).
        conditions: Feedback sentences to write under, by name; None: `good` and `bad` if the method has sentences.
        max_test_prompts: Prompts that `test` writes completions for; the losses are over all. None: all.
        max_validation_prompts: Prompts that `fit` writes completions for (`model.generation.generate_every_n_validations`). None: all.
        on_bad_record: Stop at an unreadable row, or skip and count it.
        max_unusable_fraction: Stop if more than this share is lost: of the rows that sources read, and of the training records
            that the method can't use. Raise it for a method that is meant to choose few.
        seed: Of all random numbers of the data: order, packing, wording, hiding.
        num_workers: Processes that build rows; 0 is enough unless rows are long.
        cache_dir: Keeps ids of texts, and the embedded world's feedback, between runs.
    """

    def __init__(
        self,
        feedback: str | None = None,
        *,
        sources: list[Source] | None = None,
        validation_sources: list[Source] | None = None,
        test_sources: list[Source] | None = None,
        validation_share: float = 0.05,
        test_share: float = 0.05,
        tokenizer: str | None = None,
        method: Method = Method(),  # noqa: B008 - frozen, like the next two
        wording: Wording = Wording(),  # noqa: B008
        prompt_format: PromptFormat = PromptFormat(),  # noqa: B008
        max_prompt_tokens: int = 512,
        max_chain_tokens: int = 1024,
        row_tokens: int = 1024,
        rows_per_step: int = 8,
        layout: Literal["tree", "separate"] = "tree",
        fcm_range: tuple[float, float] = (0.0, 0.05),
        fcm_on_pretraining: bool = False,
        pretraining_text: list[str] | None = None,
        pretraining_rows_per_step: int = 0,
        pretraining_weight: float = 1.5,
        conditions: list[str] | None = None,
        max_test_prompts: int | None = 256,
        max_validation_prompts: int | None = 64,
        on_bad_record: Literal["stop", "skip"] = "stop",
        max_unusable_fraction: float = 0.5,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/coh_lightning",
    ) -> None:
        super().__init__()
        self.feedback = feedback
        self.sources = sources
        self.validation_sources = validation_sources
        self.test_sources = test_sources
        self.validation_share = validation_share
        self.test_share = test_share
        self.tokenizer_name = tokenizer
        self.method = method
        self.wording = wording
        self.prompt_format = prompt_format
        self.max_prompt_tokens = max_prompt_tokens
        self.max_chain_tokens = max_chain_tokens
        self.row_tokens = row_tokens
        self.rows_per_step = rows_per_step
        self.layout = layout
        self.fcm_range = fcm_range
        self.fcm_on_pretraining = fcm_on_pretraining
        self.pretraining_text = pretraining_text
        self.pretraining_rows_per_step = pretraining_rows_per_step
        self.pretraining_weight = pretraining_weight
        self.conditions = conditions
        self.max_test_prompts = max_test_prompts
        self.max_validation_prompts = max_validation_prompts
        self.on_bad_record = on_bad_record
        self.max_unusable_fraction = max_unusable_fraction
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = Path(cache_dir).expanduser()
        self.spec: ModelSpec | None = None
        """The model whose tokenizer is used where no Trainer says which it is."""
        self._matched: list[ModelSpec | None] = []
        """The models that the tokenizer is known to belong to."""
        self.rejected: list[Rejected] = []
        self.rejected_of: dict[Stage, list[Rejected]] = {}
        """The same by split; unreadable rows of `sources`, which belong to no split yet, stand under train."""
        self.copies_left_out: dict[Stage, int] = {}
        self.files: dict[str, dict[str, Any]] = {}
        """For each source, the local files that were read, and those beside them that were not, with the reason."""
        self.counts: dict[Stage, SplitCounts] = {}
        self.notes: list[str] = []
        self.splits: dict[Stage, list[PlannedRecord]] = {}
        """The records that the method can use, after set-up."""
        check_arguments(self)

    # Set-up

    def prepare_data(self) -> None:
        """On one process per machine: fills the caches (hub downloads, the embedded world's feedback, ids of texts)."""
        self._build()

    def setup(self, stage: str | None = None) -> None:
        """Builds everything once; Lightning calls this before each stage. On rank 0 of a `fit`, `data.json` and
        `rejected.jsonl` are written to its folder.
        """
        self._build()
        if self.trainer is not None:
            check_trainer(self.trainer)
            if stage == "fit":
                ranks, _ = self._ranks()
                follow_plan(self.trainer, self.plan.steps_per_epoch, self.plan.accumulate(ranks), ranks=ranks)
            if self.trainer.is_global_zero and stage == "fit" and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                self.write_report(Path(self.trainer.default_root_dir))

    def _match_tokenizer(self) -> None:
        """Takes the model's tokenizer, or compares the present one with it; once for each model."""
        spec = getattr(self.trainer.lightning_module, "named_spec", None) if self.trainer is not None else self.spec
        if spec in self._matched:
            return
        choice = choose_tokenizer(self.tokenizer_name, spec, self.own_feedback)
        if choice.note is not None:
            rank_zero_warn(choice.note)
            self.notes.append(choice.note)
        self.tokenizer_name = choice.name
        if not self.splits:
            self.tokenizer = choice.tokenizer
        self._matched.append(spec)

    @property
    def own_feedback(self) -> str | None:
        """What is trained on, for messages; None if it is the embedded world's feedback."""
        if self.feedback is not None:
            return None if self.feedback == WORLD else f"'{self.feedback}'"
        named = [f"{type(source).__name__} '{source.label}'" for source in self.sources or []]
        return None if self.sources is None else ", ".join(named)

    def _build(self) -> None:
        self._match_tokenizer()
        if self.splits:
            return
        self.prompter = Prompter.make(
            self.tokenizer,
            self.method,
            self.wording,
            self.prompt_format,
            max_prompt_tokens=self.max_prompt_tokens,
            condition_names=tuple(self.conditions) if self.conditions is not None else None,
            max_chain_tokens=self.max_chain_tokens,
        )
        tokens, separate = self.prompter.tokens, self.layout == "separate"
        self.notes += tokens.notes
        if separate and self.fcm_range[1] > 0:
            self.notes.append(
                "layout: separate uses the model's own mask, so no past tokens are hidden at random (data.fcm_range)."
            )
        splits = self.records_by_split()
        every = (record for records in splits.values() for record in records)
        cache_fields(tokens.encoder, (field for record in every for field in tokens.fields(record)), self.cache_dir)
        train = splits["train"]
        self.prompter = replace(self.prompter, attributes=rated_attributes(train), tasks=tasks_of(train))
        self.preparer = RecordPlanner(
            tokens,
            self.method,
            self.wording,
            seed=self.seed,
            max_chain_tokens=self.max_chain_tokens,
            row_tokens=None if separate else self.row_tokens,
        )
        prepared = {stage: self._prepare(stage, records) for stage, records in splits.items()}
        self.source_counts = {stage: counts(records, self.rejected_of[stage]) for stage, records in splits.items()}
        texts = read_pieces(
            (self.pretraining_text or []) if self.pretraining_rows_per_step else [],
            tokens,
            piece_tokens=self.row_tokens,
            seed=self.seed,
            cache_dir=self.cache_dir,
            notes=self.notes,
        )
        self.notes += tokens.notes_on_texts()
        self.rows = RowBuilder.of(
            self.preparer,
            prepared,
            texts,
            row_tokens=self.row_tokens,
            rows_per_step=self.rows_per_step,
            pretraining_rows_per_step=self.pretraining_rows_per_step,
            pretraining_weight=self.pretraining_weight,
            fcm_range=self.fcm_range,
            fcm_on_pretraining=self.fcm_on_pretraining,
            pad_id=self.prompter.pad_id,
        )
        for one in prepared["train"][:1]:
            self.prompter.conditions(one.record)  # a wrong name in `conditions` is refused now and not after training
        for stage, items in self.rows.items.items():
            self.counts[stage].tokens_tree = sum(item.length for item in items)
            self.counts[stage].rows = self.plan.num_rows if stage == "train" else len(self.rows.held_out_rows(stage))
        self.splits = prepared
        if note := note_on_outputs(tokens.layout, ((prompt.turns, chain) for prompt, chain in self._some_chains())):
            self.notes.append(note)

    def records_by_split(self) -> dict[Stage, list[Feedback]]:
        """The records of each split as they are read; what is left out goes to `rejected`."""
        found = SplitReader(**{field.name: getattr(self, field.name) for field in fields(SplitReader)}).read()
        self.notes += found.notes
        self.files |= found.files
        for stage in found.records:
            self.rejected += found.rejected[stage]
            self.rejected_of[stage] = found.rejected[stage]
            self.copies_left_out[stage] = found.copies_left_out[stage]
        return found.records

    def _prepare(self, stage: Stage, records: Sequence[Feedback]) -> list[PlannedRecord]:
        """The records that the method can use; the others are noted in `rejected` with their reason."""
        most = self.max_unusable_fraction if stage == "train" else 1.0
        prepared, lost = self.preparer.prepare_all(
            records, f"chains of {stage}", max_unusable_fraction=most, row_tokens=self.row_tokens
        )
        self.counts[stage] = SplitCounts.of(
            records,
            prepared,
            copies_left_out=self.copies_left_out[stage],
            comparer=None if stage == "train" else self.comparer,
        )
        self.rejected += lost
        self.rejected_of[stage] = [*self.rejected_of[stage], *lost]
        return prepared

    # For the module

    @property
    def plan(self) -> Plan:
        return self.rows.plan

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of segments in the loss curves: kind and place in the chain, counted from 1."""
        return ["pretraining" if kind == TEXT else f"{kind[0]}_{kind[1] + 1}" for kind in self.rows.kinds]

    @property
    def text_kind(self) -> int:
        return self.rows.kinds[TEXT]

    @property
    def comparer(self) -> Comparer:
        """Makes the comparisons of held-out records."""
        return Comparer(self.preparer, self.prompter.attributes)

    @property
    def largest_id(self) -> int:
        return int(max(self.tokenizer.get_vocab().values()))

    def settings(self) -> dict[str, Any]:
        """What a model must be asked with as it was trained with; plain JSON, stored in the checkpoint."""
        return self.prompter.settings()

    def plan_settings(self) -> dict[str, Any]:
        """What decides which rows stand in which step, whatever the ranks; plain JSON, stored in the checkpoint."""
        names = ("seed", "layout", "row_tokens", "rows_per_step", "pretraining_rows_per_step")
        return {name: getattr(self, name) for name in names} | {"rows": self.plan.digest}

    def agree_with(self, saved: Mapping[str, Any]) -> None:
        """Takes the attributes that a checkpoint asks for. Raises InputError if other settings differ from its own."""
        self.prompter = self.prompter.agreeing_with(saved)

    def requests(self, stage: Stage = "test", limit: int | None = None) -> list[RecordRequest]:
        """Each held-out prompt under each of its conditions, sorted by length."""
        return self.prompter.requests(one.record for one in self.splits[stage][:limit])

    @property
    def most_replies(self) -> int:
        """Answers in the longest dialogue of the test split, the same on all ranks."""
        return max((len(turns_before_answers(one.record.prompt)) for one in self.splits["test"]), default=0)

    # Loaders. Every rank has the same number of batches in each, and Lightning's `limit_*_batches` apply to each alone.

    def train_dataloader(self) -> TrainLoader:
        micro_batches = self.plan.accumulate(self._ranks()[0])
        return TrainLoader(self._train_batch, self.plan.steps_per_epoch, micro_batches, num_workers=self.num_workers)

    def _train_batch(self, key: tuple[int, int]) -> Batch:
        return self.rows.train_batch(self.planned(*key), key[0])

    def planned(self, epoch: int, index: int) -> PlannedRow:
        """What stands in this rank's micro-batch of that number."""
        ranks, rank = self._ranks()
        micro_batches = self.plan.accumulate(ranks)
        return self.plan.step(epoch, index // micro_batches)[index % micro_batches * ranks + rank]

    def names(self, epoch: int, index: int) -> list[str]:
        """The same for a message."""
        return self.rows.names(self.planned(epoch, index))

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, and comparisons where there are any (held_out.py)."""
        return self._loaders(*self.held_out("validation"))

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, comparisons where there are any, and what to write."""
        refuse_empty(self.splits["test"], self.test_share)
        return self._loaders(*self.held_out("test"), self._writing("test", self.max_test_prompts))

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """What to write."""
        refuse_empty(self.splits["test"], self.test_share)
        return self._loaders(self._writing("test", None))

    def held_out(self, stage: Stage) -> list[BatchTable]:
        """The batches of a held-out split."""
        return self.rows.held_out(stage, self.comparer, ranks=self._ranks()[0])

    def _writing(self, stage: Stage, limit: int | None) -> BatchTable:
        return writing(self.splits[stage][:limit], self.prompter, ranks=self._ranks()[0])

    def _loaders(self, *tables: BatchTable) -> list[DataLoader[Any]]:
        return [table.loader(*self._ranks()) for table in tables]

    def _ranks(self) -> tuple[int, int]:
        return replicas(self.trainer) if self.trainer is not None else (1, 0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests stay on the CPU: Lightning can't move frozen dataclasses, and the module moves their ids itself."""
        return batch if "requests" in batch else super().transfer_batch_to_device(batch, device, dataloader_idx)

    # For people

    def report(self) -> dict[str, Any]:
        """Everything that was counted: the content of data.json."""
        return data_report.report(self)

    def summary(self) -> list[tuple[str, str]]:
        """The report in a few lines, for the screen before training."""
        return data_report.summary(self)

    def write_report(self, folder: Path) -> None:
        """`data.json` and, where anything was left out, `rejected.jsonl`."""
        data_report.write_report(self, folder)

    def largest_batches(self) -> list[tuple[Batch, bool]]:
        """The rows that take the most memory (`RowBuilder.largest_batches`)."""
        return self.rows.largest_batches(self.comparer)

    @cached_property
    def boundaries(self) -> str:
        """How tokenizing each text on its own differs from tokenizing the whole, on some chains."""
        return str(self.prompter.tokens.boundary_report(self._some_chains()))

    def _some_chains(self) -> list[tuple[CutPrompt, Chain]]:
        return [(one.prompt, chain) for one in self.splits["train"][:50] for chain in self.preparer.chains(one)]
