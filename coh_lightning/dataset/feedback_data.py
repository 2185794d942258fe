"""Feedback in, the plan of rows of trees out, without a Trainer. Each stage is a call to the file that does it:

    sources -> splits -> Feedback -> cut prompt, chains -> plan           once, at set-up
    plan.step(epoch, step) -> chains -> Tokens -> Tree -> Row             for each micro-batch, from ids on disk

Only the ids of distinct texts are kept between runs; wording, method and layout are choices of the run. Neither torch
nor Lightning is needed, except to turn rows into batches.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from coh_lightning.dataset import report as data_report
from coh_lightning.dataset.checks import check_arguments
from coh_lightning.dataset.held_out import Comparer
from coh_lightning.dataset.planning import cache_texts, plan_split
from coh_lightning.dataset.pretraining import TEXT, read_pieces
from coh_lightning.dataset.report import SplitCounts
from coh_lightning.dataset.row_builder import RowBuilder
from coh_lightning.dataset.splits import Stage, read_splits
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source
from coh_lightning.feedback.sources.in_memory import in_memory
from coh_lightning.generation.prompter import Prompter, turns_before_answers
from coh_lightning.generation.request import RecordRequest
from coh_lightning.model.tokenizer import choose_tokenizer
from coh_lightning.sequences.chain_tokenizer import CutPrompt
from coh_lightning.sequences.chains import REVIEW, Chain
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import Plan
from coh_lightning.sequences.planned_records import PlannedRecords
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import RecordPlanner
from coh_lightning.sequences.template_check import note_on_outputs
from coh_lightning.sequences.wording import Wording
from coh_lightning.worlds import WORLD

if TYPE_CHECKING:
    from coh_lightning.model.loading import ModelSpec

log = logging.getLogger(__name__)


@contextmanager
def only_new_garbage() -> Iterator[None]:
    """Python's garbage collector leaves out the objects that are there now: those of torch, transformers and Lightning
    are so many that it spends as long on them, again and again, as the tokenizer on a thousand records.
    """
    own = gc.get_freeze_count() == 0
    gc.freeze()
    try:
        yield
    finally:
        if own:
            gc.unfreeze()


class FeedbackData:
    """Feedback of any kind, laid out for a causal language model.

    Lightning's `limit_val_batches` and the like apply to each held-out loader on its own: losses, comparisons and, in
    `test` and `predict`, prompts to write for. `max_validation_prompts` limits what is written during validation.

    Args:
        feedback: A file of our own records (JSON lines), or of TRL's pairs or unpaired rows; `world` is the feedback of
            the embedded world, `world:noise` that of its second kind (a file of that name is `./world`). Either this or
            `sources` must be given.
        records: Feedback in memory, instead of both: a list of records (dictionaries as the lines of such a file, or
            `Feedback`), or a Hugging Face `Dataset`. Only from Python.
        sources: The sources of the feedback, instead of `feedback`.
        validation_sources: Separate held-out feedback; None takes `validation_share` of the prompts of `sources`.
        test_sources: The same for `test` and `predict`.
        validation_share, test_share: Shares of the prompts, by a hash of the normalized prompt: none is in two splits.
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
        fcm_range: Least and largest share of past tokens hidden at random in training (FCM, paper section 2: 0 to 5 %).
        fcm_on_pretraining: Hide tokens of the pretraining text too.
        pretraining_text: Files of plain text (.txt: one piece per paragraph; or a column "text"), or names of data sets
            on the hub; `world` or `world:noise` is that embedded world's text.
        pretraining_rows_per_step: Rows of it in each step (paper: four times the feedback).
        pretraining_weight: lambda of equation 3 (paper 1.5, its code 0.01).
        conditions: Feedback sentences to write under, by name; None: `good` and `bad` if the method has sentences.
        compare_under: The sentences that held-out outputs are scored under for the preference accuracies: `both`, or
            `good` alone, without the accuracies `swapped` and `marker`, in about two thirds of the time.
        max_test_prompts: Prompts that `test` writes completions for; the losses are over all. None: all.
        max_validation_prompts: The same for `fit` (`model.generation.generate_every_n_validations`). None: all.
        on_bad_record: Stop at an unreadable row, or skip and count it.
        max_unusable_fraction: Stop if more than this share is lost: of the rows that sources read, and of the training
            records that the method can't use. Raise it for a method that is meant to choose few.
        seed: Of all random numbers of the data: order, packing, wording, hiding.
        num_workers: Processes that build rows; 0 is enough unless rows are long.
        cache_dir: Keeps ids of texts, and the embedded world's feedback, between runs.
    """

    def __init__(
        self,
        feedback: str | None = None,
        *,
        records: Any = None,
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
        compare_under: Literal["both", "good"] = "both",
        max_test_prompts: int | None = 256,
        max_validation_prompts: int | None = 64,
        on_bad_record: Literal["stop", "skip"] = "stop",
        max_unusable_fraction: float = 0.5,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/coh_lightning",
    ) -> None:
        super().__init__()
        if records is not None and (feedback is not None or sources is not None):
            raise InputError("records are given, and so are feedback or sources; give one of them.")
        self.feedback, self.sources = feedback, sources if records is None else [in_memory(records)]
        self.validation_sources, self.test_sources = validation_sources, test_sources
        self.validation_share, self.test_share = validation_share, test_share
        self.tokenizer_name = tokenizer
        self.method, self.wording, self.prompt_format = method, wording, prompt_format
        self.max_prompt_tokens, self.max_chain_tokens = max_prompt_tokens, max_chain_tokens
        self.row_tokens, self.rows_per_step, self.layout = row_tokens, rows_per_step, layout
        self.fcm_range, self.fcm_on_pretraining = fcm_range, fcm_on_pretraining
        self.pretraining_text = pretraining_text
        self.pretraining_rows_per_step = pretraining_rows_per_step
        self.pretraining_weight = pretraining_weight
        self.conditions = conditions
        self.compare_under = compare_under
        self.max_test_prompts, self.max_validation_prompts = max_test_prompts, max_validation_prompts
        self.on_bad_record = on_bad_record
        self.max_unusable_fraction = max_unusable_fraction
        self.seed, self.num_workers = seed, num_workers
        self.cache_dir = Path(cache_dir).expanduser()
        self.spec: ModelSpec | None = None  # the model whose tokenizer is used if no Trainer says which
        self._matched: list[ModelSpec | None] = []  # the models that the tokenizer is known to belong to
        self.rejected: list[Rejected] = []
        self.rejected_of: dict[Stage, list[Rejected]] = {}  # unreadable rows of `sources` are under train
        self.copies_left_out: dict[Stage, int] = {}
        self.files: dict[str, dict[str, Any]] = {}  # by source: files that were read, and those that were not
        self.counts: dict[Stage, SplitCounts] = {}
        self.source_counts: dict[Stage, dict[str, dict[str, Any]]] = {}
        self.notes: list[str] = []
        self.splits: dict[Stage, PlannedRecords] = {}  # records that the method can use, after set-up
        check_arguments(self)

    NOT_CONFIGURED = frozenset({"records"})
    """Arguments that no configuration has."""

    def __repr__(self) -> str:
        """What it reads and how, and after set-up how much it is."""
        what = f"{self.own_feedback or WORLD}, method {self.method.name}, wording {self.wording.name}"
        how = f"{self.prompt_format.kind} format, {self.layout} layout"
        if not self.splits:
            return f"{type(self).__name__}({what}, {how}; not set up)"
        numbers = {stage: self.counts[stage].used for stage in self.splits}
        sizes = [f"{counted(number, 'record')} for {stage}" for stage, number in numbers.items() if number]
        rows = f"{counted(self.counts['train'].rows, 'row')} of {self.row_tokens} tokens"
        return f"{type(self).__name__}({what}, {how}; {', '.join(sizes)}; {rows})"

    def _match_tokenizer(self) -> None:
        """Takes the model's tokenizer, or compares the present one with it; once for each model."""
        spec = self._model()
        if spec in self._matched:
            return
        choice = choose_tokenizer(self.tokenizer_name, spec, self.own_feedback)
        if choice.note is not None:
            self._warn(choice.note)
            self.notes.append(choice.note)
        self.tokenizer_name = choice.name
        if not self.splits:
            self.tokenizer = choice.tokenizer
        self._matched.append(spec)

    def _model(self) -> ModelSpec | None:
        """The model whose tokenizer is used."""
        return self.spec

    def _warn(self, note: str) -> None:
        log.warning(note)

    @property
    def own_feedback(self) -> str | None:
        """What is trained on, for messages; None if it is the embedded world's feedback."""
        if self.feedback is not None:
            return None if self.feedback == WORLD else f"'{self.feedback}'"
        named = [f"{type(source).__name__.lstrip('_')} '{source.label}'" for source in self.sources or []]
        return None if self.sources is None else ", ".join(named)

    def build(self) -> None:
        """Reads and plans everything, once."""
        self._match_tokenizer()
        if not self.splits:
            with only_new_garbage():
                self._build()

    def _build(self) -> None:
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
            self.notes.append("layout: separate uses the model's own mask, so data.fcm_range hides no past tokens.")
        splits = self.records_by_split()
        train = cache_texts(tokens, splits, self.cache_dir)
        self.prompter = replace(self.prompter, attributes=train.attributes, tasks=train.tasks)
        row, limit = None if separate else self.row_tokens, self.max_chain_tokens
        self.planner = RecordPlanner(
            tokens, self.method, self.wording, seed=self.seed, max_chain_tokens=limit, row_tokens=row
        )
        planned = {stage: self._plan(stage, records) for stage, records in splits.items()}
        texts = read_pieces(self, tokens)
        self.notes += tokens.notes_on_texts()
        self.rows = RowBuilder(
            self.planner,
            planned,
            texts,
            row_tokens=self.row_tokens,
            rows_per_step=self.rows_per_step,
            pretraining_rows_per_step=self.pretraining_rows_per_step,
            pretraining_weight=self.pretraining_weight,
            fcm_range=self.fcm_range,
            fcm_on_pretraining=self.fcm_on_pretraining,
            pad_id=self.prompter.pad_id,
        )
        for first in planned["train"].usable[:1]:
            self.prompter.conditions(first.record)  # refuses a wrong name in `conditions` now, not after training
        for stage, items in self.rows.items.items():
            self.counts[stage].tokens_tree = int(items.lengths.sum(dtype=np.int64))
            self.counts[stage].rows = self.plan.num_rows if stage == "train" else len(self.rows.held_out_rows(stage))
        self.splits = planned
        if note := note_on_outputs(tokens.layout, ((prompt.turns, chain) for prompt, chain in self._some_chains())):
            self.notes.append(note)

    def records_by_split(self) -> dict[Stage, Sequence[Feedback]]:
        """The records of each split as they are read; what is left out goes to `rejected`."""
        found = read_splits(self)
        self.notes += found.notes
        self.files |= found.files
        self.copies_left_out |= {stage: found.copies_left_out[stage] for stage in found.records}
        self.rejected_of |= found.rejected
        self.rejected += [row for rows in found.rejected.values() for row in rows]
        return found.records

    def _plan(self, stage: Stage, records: Sequence[Feedback]) -> PlannedRecords:
        """The records that the method can use; the others are noted in `rejected` with their reason."""
        found = plan_split(
            self.planner,
            stage,
            records,
            None if stage == "train" else self.comparer,
            unreadable=self.rejected_of[stage],
            copies_left_out=self.copies_left_out[stage],
            max_unusable_fraction=self.max_unusable_fraction if stage == "train" else 1.0,
            row_tokens=self.row_tokens,
            folder=self.cache_dir,
        )
        self.counts[stage], self.source_counts[stage] = found.counts, found.sources
        self.rejected += found.lost
        self.rejected_of[stage] = [*self.rejected_of[stage], *found.lost]
        return found.usable

    @property
    def plan(self) -> Plan:
        self._need_setup()
        return self.rows.plan

    def _need_setup(self) -> None:
        if "rows" not in vars(self):
            raise InputError(
                f"this {type(self).__name__} has read nothing yet; call its setup() first (a Trainer does)."
            )

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of segments in the loss curves: kind and place in the chain, counted from 1."""
        return ["pretraining" if kind == TEXT else f"{kind[0]}_{kind[1] + 1}" for kind in self.rows.kinds]

    @property
    def output_kinds(self) -> list[int]:
        """The numbers of those that are outputs; pretraining text and reviews have losses of their own."""
        return [number for kind, number in self.rows.kinds.items() if kind != TEXT and kind[0] != REVIEW]

    @property
    def comparer(self) -> Comparer:
        sentences = ("good", "bad") if self.compare_under == "both" else ("good",)
        return Comparer(self.planner, self.prompter.attributes, sentences)

    @property
    def largest_id(self) -> int:
        return int(max(self.tokenizer.get_vocab().values()))

    def settings(self) -> dict[str, Any]:
        """What a model must be prompted with, as in training; plain JSON, stored in the checkpoint."""
        return self.prompter.settings()

    def plan_settings(self) -> dict[str, Any]:
        """What decides which rows are in which step, whatever the ranks; plain JSON, stored in the checkpoint."""
        names = ("seed", "layout", "row_tokens", "rows_per_step", "pretraining_rows_per_step")
        return {name: getattr(self, name) for name in names} | {"rows": self.plan.digest}

    def agree_with(self, saved: Mapping[str, Any]) -> None:
        """Takes the attributes of a checkpoint. Raises InputError if other settings differ from its own."""
        self.prompter = self.prompter.agreeing_with(saved)

    def requests(self, stage: Stage = "test", limit: int | None = None) -> list[RecordRequest]:
        """Each held-out prompt under each of its conditions, sorted by length."""
        self._need_setup()
        return self.prompter.requests(planned.record for planned in self.splits[stage].usable[:limit])

    @property
    def most_replies(self) -> int:
        """Answers in the longest dialogue of the test split, the same on all ranks."""
        return max((len(turns_before_answers(it.record.prompt)) for it in self.splits["test"].usable), default=0)

    report = data_report.report
    summary = data_report.summary
    write_report = data_report.write_report

    @cached_property
    def boundaries(self) -> str:
        """How tokenizing each text on its own differs from tokenizing the whole, on some chains."""
        return str(self.prompter.tokens.boundary_report(self._some_chains()))

    def _some_chains(self) -> list[tuple[CutPrompt, Chain]]:
        first = self.splits["train"].usable[:50]
        return [(planned.prompt, chain) for planned in first for chain in self.planner.chains(planned)]
