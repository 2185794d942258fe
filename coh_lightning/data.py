"""`CoHDataModule`: feedback in, rows of trees out. All stages of the road in one place, each a call to the file that
knows how.

    sources -> Feedback -> (split by prompt) -> cut prompt, chains -> plan          once, at set-up
    plan.step(epoch, step) -> chains of this epoch -> Tokens -> Tree -> Row -> batch   for each micro-batch, from ids that are already there

Only the ids of distinct texts are cached on disk; wording, method and layout are choices of the run.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset, Sampler

from coh_lightning.chains import Chain, Method, TooLong, Unusable
from coh_lightning.draws import key64
from coh_lightning.errors import InputError
from coh_lightning.files import written_aside
from coh_lightning.formats import PromptFormat
from coh_lightning.held_out import Comparer, Table, comparisons, losses, refuse_empty, writing
from coh_lightning.jsonl import write_jsonl
from coh_lightning.losses import Batch, to_batch
from coh_lightning.model_tokenizer import choose_tokenizer
from coh_lightning.models import Recipe
from coh_lightning.plan import Item, Plan, PlannedRow
from coh_lightning.prepare import Prepared, Preparer
from coh_lightning.prompter import Prompter, RecordRequest, turns_before_answers
from coh_lightning.records import Feedback, Rejected
from coh_lightning.rows import Row, hide, lay_out, lay_out_alone, pack
from coh_lightning.schedule import follow_plan
from coh_lightning.sharding import replicas
from coh_lightning.sources import Source, counts, load, most_often, recognized, split_by_prompt, without_prompts_of
from coh_lightning.sources.notes import SourceNotes
from coh_lightning.sources.texts import read_texts
from coh_lightning.template_check import note_on_outputs
from coh_lightning.tokens import ChainTokenizer, CutPrompt, Field, Span, Tokens, cache_fields
from coh_lightning.trees import Tree
from coh_lightning.wording import Wording
from coh_lightning.world.feedback import WORLD, world_feedback
from coh_lightning.world.pretraining import pretraining_text

log = logging.getLogger(__name__)

WORLD_POSTS = 800
WORLD_TEXTS = 4000
"""Of the embedded world: posts of its feedback, and pieces of text of its regulariser (`regulariser: [world]`)."""

TEXT = ("text", 0)
"""The kind of the regulariser's text in the loss curves."""

Stage = Literal["train", "validation", "test"]


@dataclass
class Counts:
    """What became of the records of one split, for data.json and the screen."""

    records: int = 0
    used: int = 0
    rejected: int = 0
    """Records that the method can't use: with those used, all."""
    copies: int = 0
    """Of the records, those that a source's weight repeats (training records alone), ..."""
    copies_left_out: int = 0
    """... and repetitions that are left out because the split is held out."""
    chains: int = 0
    completions_unused: int = 0
    """Completions of the used records that stand in none of their chains."""
    prompts_cut: int = 0
    prompt_tokens_cut: int = 0
    links_cut: int = 0
    """Links that were left out at the front of chains longer than max_chain_tokens, ..."""
    chains_dropped: int = 0
    """... and chains that were then too long still, or the same as another."""
    pairs: int = 0
    """Held-out data only: pairs of completions for preference accuracy, ..."""
    pairs_too_long: int = 0
    """... and those that are left out of it, because one of the two is longer than max_chain_tokens."""
    tokens_plain: int = 0
    tokens_tree: int = 0
    rows: int = 0
    tokens_in_loss: int = 0
    """Learned or unlearned, whatever their weight; a token in two chains counts twice, as it does in `tokens_plain`."""


class CoHDataModule(LightningDataModule):
    """Feedback of any kind, laid out for a causal language model.

    Args:
        feedback: A file of our own records (JSON lines), or of TRL's pairs or unpaired rows; `world` is the feedback of
            the embedded world (a file of that name is `./world`). Either this or `sources` must be given.
        sources: Where else the feedback comes from, instead of `feedback`.
        validation_sources: Held-out feedback of its own; None takes `validation_share` of the prompts of `sources`.
        test_sources: Likewise for `test` and `predict`.
        validation_share, test_share: By a hash of the normalised prompt, so that no prompt stands on both sides.
        tokenizer: Name or folder; None is the model's own, or that of the embedded world with the world's feedback and
            no model. One that is named is compared with the model's, id for id. A data module without a model (a
            notebook) needs a name for feedback of one's own; `world` is the embedded world's.
        method, wording, prompt_format: How records become chains, sentences and text; kept in the checkpoint.
        max_prompt_tokens: The prompt is cut to it once, the same for all its chains and at inference.
        max_chain_tokens: A longer chain loses links from its front.
        row_tokens: Length of a row, that is of a micro-batch (1, row_tokens).
        rows_per_step: Rows of feedback in one optimiser step, over all ranks; accumulation follows from it.
        layout: `tree` packs the chains of a record as one tree, and trees side by side; `separate` is one chain a row,
            for every architecture.
        hide: Least and greatest share of past tokens hidden at random in training (FCM, paper section 2: 0 to 5 %).
        hide_regulariser: Hide in the pretraining text too.
        regulariser: Files of plain text (.txt: a paragraph a piece; or a column "text"), or names of data sets on the
            hub; `world` is the embedded world's text.
        regulariser_rows_per_step: Rows of it in each step (paper: four times the feedback).
        regulariser_weight: lambda of equation 3 (paper 1.5, its code 0.01).
        asks: Feedback sentences to write under in `test` and `predict`, by name; `good` and `bad` where the method has
            sentences.
        max_test_prompts: Prompts that `test` writes completions for; the losses are of all. None: all.
        max_validation_prompts: Prompts that are written for during `fit` (`model.generation.write_every`). None: all.
        on_bad_record: What an unreadable row does: stop, or be skipped and counted.
        max_lost_share: Stop where more than this share is lost: of the rows of sources on reading, and of the training
            records that the method can't use. Raise it for a method that is meant to choose few.
        seed: Of every draw of the data: order, packing, wording, hiding.
        num_workers: Processes that build rows; 0 is enough unless rows are long.
        cache_dir: Where ids of texts, and the embedded world's feedback, are kept between runs.
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
        hide: tuple[float, float] = (0.0, 0.05),
        hide_regulariser: bool = False,
        regulariser: list[str] | None = None,
        regulariser_rows_per_step: int = 0,
        regulariser_weight: float = 1.5,
        asks: list[str] | None = None,
        max_test_prompts: int | None = 256,
        max_validation_prompts: int | None = 64,
        on_bad_record: Literal["stop", "skip"] = "stop",
        max_lost_share: float = 0.5,
        seed: int = 0,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/coh_lightning",
    ) -> None:
        super().__init__()
        if not 0 < max_prompt_tokens < max_chain_tokens:
            raise InputError(
                f"data.max_prompt_tokens is {max_prompt_tokens} and data.max_chain_tokens {max_chain_tokens}; the "
                "prompt must leave room for an output."
            )
        if max_chain_tokens > row_tokens:
            raise InputError(
                f"data.max_chain_tokens is {max_chain_tokens} and data.row_tokens {row_tokens}; a row must hold the "
                "longest chain."
            )
        if not 0 <= hide[0] <= hide[1] < 1:
            raise InputError(f"data.hide is {list(hide)}; it must rise within 0 and 1.")
        if validation_share < 0 or test_share < 0 or validation_share + test_share >= 1:
            raise InputError(
                f"data.validation_share is {validation_share} and data.test_share {test_share}; together they must "
                "leave something to train on."
            )
        if regulariser_weight < 0:
            raise InputError(
                f"data.regulariser_weight is {regulariser_weight}; a weight can't be negative (0 switches it off)."
            )
        if feedback is not None and sources is not None:
            raise InputError(
                f"data.feedback is '{feedback}' and data.sources names {len(sources)} source(s); give one of the two "
                "(coh_lightning.sources.Records reads such a file among others)."
            )
        if feedback is None and sources is None:
            raise InputError(
                "data.feedback is not set; name a file of records (data.feedback=FILE), or data.sources, or "
                "data.feedback=world for the feedback of the embedded world."
            )
        for key, value, kind in (
            ("method", method, Method),
            ("wording", wording, Wording),
            ("prompt_format", prompt_format, PromptFormat),
        ):
            if not isinstance(value, kind):
                raise InputError(
                    f"data.{key} is {value!r:.60}, a {type(value).__name__}; give a coh_lightning.{kind.__name__} "
                    "(its fields are those of the files in conf/)."
                )
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
        self.hide = hide
        self.hide_regulariser = hide_regulariser
        self.regulariser = regulariser
        self.regulariser_rows_per_step = regulariser_rows_per_step
        self.regulariser_weight = regulariser_weight
        self.asks = asks
        self.max_test_prompts = max_test_prompts
        self.max_validation_prompts = max_validation_prompts
        self.on_bad_record = on_bad_record
        self.max_lost_share = max_lost_share
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = Path(cache_dir).expanduser()
        self.recipe: Recipe | None = None
        """The model whose tokenizer is used where no Trainer says which it is."""
        self._matched: list[Recipe | None] = []
        """The models that the tokenizer is known to belong to."""
        self.rejected: list[Rejected] = []
        self.rejected_of: dict[Stage, list[Rejected]] = {}
        """Likewise by split; rows of `sources` that belong to no split, since they could not be read or used, stand
        under train.
        """
        self.copies_left_out: Counter[str] = Counter()
        self.files: dict[str, dict[str, Any]] = {}
        """Of each source, the local files that were read, and those beside them that were not, with the reason."""
        self.counts: dict[Stage, Counts] = {}
        self.notes: list[str] = []
        self.splits: dict[Stage, list[Prepared]] = {}
        """The records that the method can use, after set-up."""
        self._texts: list[np.ndarray] = []
        self._items: dict[Stage, list[Item]] = {}

    # Set-up

    def prepare_data(self) -> None:
        """On one process a machine: fills the caches (hub downloads, the embedded world's feedback, ids of texts), so
        that the others find them.
        """
        self._build()

    def setup(self, stage: str | None = None) -> None:
        """Builds everything once; Lightning calls this before each stage. On rank 0 of a `fit`, `data.json` and
        `rejected.jsonl` are written to its folder.
        """
        self._build()
        if self.trainer is not None:
            if self.trainer.world_size > 1 and self.trainer._accelerator_connector.use_distributed_sampler:
                raise InputError(
                    "trainer.use_distributed_sampler is on, but the plan already gives each rank its own rows; set "
                    "it to false."
                )
            if stage == "fit":
                ranks, _ = self._ranks()
                follow_plan(self.trainer, self.plan.steps_per_epoch, self.plan.accumulate(ranks), ranks=ranks)
            if self.trainer.is_global_zero and stage == "fit" and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
                self.write_report(Path(self.trainer.default_root_dir))

    def _match_tokenizer(self) -> None:
        """Takes the model's tokenizer, or compares the one that there is with it; once for each model."""
        recipe = (
            getattr(self.trainer.lightning_module, "named_recipe", None) if self.trainer is not None else self.recipe
        )
        if recipe in self._matched:
            return
        choice = choose_tokenizer(self.tokenizer_name, recipe, self.own_feedback)
        if choice.note is not None:
            rank_zero_warn(choice.note)
            self.notes.append(choice.note)
        self.tokenizer_name = choice.name
        if not self.splits:
            self.tokenizer = choice.tokenizer
        self._matched.append(recipe)

    @property
    def own_feedback(self) -> str | None:
        """What is trained on, in words; None where it is the embedded world's feedback."""
        if self.feedback is not None:
            return None if self.feedback == WORLD else f"'{self.feedback}'"
        return (
            None
            if self.sources is None
            else ", ".join(f"{type(source).__name__} '{source.label}'" for source in self.sources)
        )

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
            asks=tuple(self.asks) if self.asks is not None else None,
            max_chain_tokens=self.max_chain_tokens,
        )
        self.notes += self.chain_tokenizer.notes
        if self.layout == "separate" and self.hide[1] > 0:
            self.notes.append(
                "layout: separate uses the model's own mask, so no past tokens are hidden at random (data.hide)."
            )
        splits = self.records_by_split()
        fields = (
            each for records in splits.values() for record in records for each in self.chain_tokenizer.fields(record)
        )
        cache_fields(self.chain_tokenizer.encoder, fields, self.cache_dir)
        rated = {name for record in splits["train"] for candidate in record.candidates for name in candidate.ratings}
        attributes = tuple(sorted(rated - {"overall"} or rated))
        self.preparer = Preparer(
            self.chain_tokenizer,
            self.method,
            self.wording,
            seed=self.seed,
            max_chain_tokens=self.max_chain_tokens,
            row_tokens=None if self.layout == "separate" else self.row_tokens,
        )
        spoken_of = Counter((record.task, record.aspect) for record in splits["train"])
        tasks = tuple(sorted(spoken_of, key=lambda key: (-spoken_of[key], key[0], key[1] or "")))
        self.prompter = replace(self.prompter, attributes=attributes, tasks=tasks)
        prepared = {name: self._prepare(name, records) for name, records in splits.items()}
        self.source_counts = {name: counts(records, self.rejected_of[name]) for name, records in splits.items()}
        found = sorted(
            {kind for records in prepared.values() for one in records for kind in one.kinds},
            key=lambda kind: (kind[1], kind[0]),
        )
        self._kinds = {kind: number for number, kind in enumerate([*found, TEXT])}
        self._texts = self._read_regulariser()
        self.notes += self.chain_tokenizer.notes_on_texts()
        self._items = {
            name: [item for number, one in enumerate(records) for item in self.preparer.items(number, one)]
            for name, records in prepared.items()
        }
        self.plan = Plan(
            self._items["train"],
            seed=self.seed,
            row_tokens=self.row_tokens,
            rows_per_step=self.rows_per_step,
            separate=self.layout == "separate",
            documents=[len(ids) for ids in self._texts],
            regulariser_rows_per_step=self.regulariser_rows_per_step,
            weigh=(lambda item, epoch: self.preparer.weight(prepared["train"][item.record], item, epoch))
            if self.preparer.weight_varies
            else None,
        )
        for one in prepared["train"][:1]:
            self.prompter.conditions(one.record)  # a wrong name in `asks` is refused now and not after training
        for name, items in self._items.items():
            self.counts[name].tokens_tree = sum(item.length for item in items)
            self.counts[name].rows = self.plan.num_rows if name == "train" else len(self._held_out_rows(name))
        self.splits = prepared
        if note := note_on_outputs(
            self.chain_tokenizer.layout, ((prompt.turns, chain) for prompt, chain in self._some_chains(50))
        ):
            self.notes.append(note)

    def records_by_split(self) -> dict[Stage, list[Feedback]]:
        """The records of each split as they are read, before any method has looked at them; what is left out goes to
        `rejected`.
        """
        test: list[Feedback] | None = None
        validation: list[Feedback] | None = None
        noticed: list[SourceNotes] = []
        lost_of: dict[Stage, list[Rejected]] = {"train": [], "validation": [], "test": []}

        def read(stage: Stage, sources: list[Source]) -> list[Feedback]:
            return load(
                sources,
                seed=self.seed,
                on_bad_record=self.on_bad_record,
                rejected=lost_of[stage],
                noticed=noticed,
                max_lost_share=self.max_lost_share,
            )

        sources = self.sources
        if self.feedback not in (None, WORLD):
            source, said_of_it = recognized(self.feedback)
            sources = [source]
            self.notes += [] if said_of_it is None else [said_of_it]
        if sources is None:
            records = world_feedback(posts=WORLD_POSTS, samples=4, seed=self.seed, cache_dir=self.cache_dir)
        else:
            records = read("train", sources)
        if self.test_sources is not None:
            test = read("test", self.test_sources)
            records, lost = without_prompts_of(records, test)
            lost_of["train"] += lost
        if self.validation_sources is not None:
            validation = read("validation", self.validation_sources)
            records, lost = without_prompts_of(records, validation)
            lost_of["train"] += lost
        for stage, lost in lost_of.items():
            self.rejected += lost
            self.rejected_of[stage] = lost
        self.notes += [line for notes in noticed for line in notes.lines()]
        for notes in noticed:
            if notes.files:
                of_source = self.files.setdefault(notes.label, {"read": [], "passed_over": {}})
                of_source["read"] += notes.files
                of_source["passed_over"] |= notes.passed_over
        shares = {}
        if validation is None:
            shares["validation"] = self.validation_share
        if test is None:
            shares["test"] = self.test_share
        splits = split_by_prompt(records, shares, seed=self.seed, copies_left_out=self.copies_left_out)
        return {
            "train": splits["train"],
            "validation": validation or splits.get("validation", []),
            "test": test or splits.get("test", []),
        }

    def _prepare(self, stage: Stage, records: Sequence[Feedback]) -> list[Prepared]:
        """The records that the method can use; the others are noted in `rejected` with their reason."""
        count = self.counts[stage] = Counts(
            records=len(records),
            copies=sum(one.copy > 1 for one in records),
            copies_left_out=self.copies_left_out[stage],
        )
        lost: list[Rejected] = []
        too_long = 0
        prepared: list[Prepared] = []
        console = Console(stderr=True)
        for record in track(
            records,
            f"chains of {stage}",
            console=console,
            transient=True,
            disable=not console.is_terminal or len(records) < 1000,
        ):
            try:
                one = self.preparer.prepare(record)
            except Unusable as unusable:
                detail = unusable.detail if isinstance(unusable, TooLong) else ""
                lost.append(Rejected(str(unusable), record.where, record.source, record.id, detail))
                too_long += isinstance(unusable, TooLong)
                continue
            count.used += 1
            count.chains += len(one.kept)
            count.links_cut += one.links_cut
            count.chains_dropped += one.chains_dropped
            count.prompts_cut += one.prompt.cut > 0
            count.prompt_tokens_cut += one.prompt.cut
            count.completions_unused += one.completions_unused
            count.tokens_plain += one.tokens_plain
            count.tokens_in_loss += one.tokens_in_loss
            prepared.append(one)
            if stage != "train":
                pairs, pairs_too_long = self.pairs(one)
                count.pairs += len(pairs)
                count.pairs_too_long += pairs_too_long
        count.rejected = len(lost)
        self.rejected += lost
        self.rejected_of[stage] = [*self.rejected_of.get(stage, []), *lost]
        if stage == "train" and len(lost) > self.max_lost_share * len(records):
            limits = (
                self.preparer.limits_that_fit(records, row_tokens=self.row_tokens) if 2 * too_long > len(lost) else ""
            )
            raise InputError(
                f"The method '{self.method.name}' can't use {len(lost)} of {len(records)} training records, "
                f"{most_often(lost)}; "
                f"{limits or 'choose a method that fits the feedback'}, or raise data.max_lost_share "
                f"({self.max_lost_share:g})."
            )
        return prepared

    def _read_regulariser(self) -> list[np.ndarray]:
        """The ids of the regulariser's text: each document begins with BOS, ends with the end token, and is cut into
        pieces of at most a row.
        """
        if not self.regulariser_rows_per_step:
            return []
        texts: list[str] = []
        for name in self.regulariser or []:
            texts += pretraining_text(WORLD_TEXTS, seed=self.seed) if name == WORLD else read_texts(name, self.notes)
        encoder = self.chain_tokenizer.encoder
        cache_fields(encoder, [Field(text, "head") for text in texts], self.cache_dir)
        begin, end = np.array(encoder.bos_ids, np.int32), np.array(self.chain_tokenizer.stop_ids[:1], np.int32)
        pieces: list[np.ndarray] = []
        for text in texts:
            ids = np.concatenate([begin, *encoder.encode_fields([Field(text, "head")]), end])
            pieces += [ids[start : start + self.row_tokens] for start in range(0, len(ids), self.row_tokens)]
        return [piece for piece in pieces if len(piece) > 1]

    # What the module asks

    @property
    def kinds(self) -> list[str]:
        """Names of the kinds of segments in the loss curves: kind and place in the chain, counted from 1."""
        return ["regulariser" if kind == TEXT else f"{kind[0]}_{kind[1] + 1}" for kind in self._kinds]

    @property
    def text_kind(self) -> int:
        return self._kinds[TEXT]

    @property
    def chain_tokenizer(self) -> ChainTokenizer:
        return self.prompter.tokens

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.prompter.stop_ids

    @property
    def pad_id(self) -> int:
        return self.prompter.pad_id

    @property
    def largest_id(self) -> int:
        return int(max(self.tokenizer.get_vocab().values()))

    def settings(self) -> dict[str, Any]:
        """What a model must be asked with as it was trained with; plain JSON, stored in the checkpoint."""
        return self.prompter.settings()

    def plan_settings(self) -> dict[str, Any]:
        """What decides which rows stand in which step, whatever the ranks; plain JSON, stored in the checkpoint."""
        names = ("seed", "layout", "row_tokens", "rows_per_step", "regulariser_rows_per_step")
        return {name: getattr(self, name) for name in names} | {"rows": self.plan.digest}

    def agree_with(self, saved: Mapping[str, Any]) -> None:
        """Refuses (InputError) data settings that differ from those that a checkpoint was trained with; the attributes
        to ask for are the checkpoint's.
        """
        self.prompter = self.prompter.agreeing_with(saved)

    # Rows

    def chains(self, one: Prepared, epoch: int = 0) -> list[Chain]:
        """The kept chains of a record, in the words of this epoch."""
        return self.preparer.chains(one, epoch)

    def tree(self, item: Item, stage: Stage, epoch: int = 0) -> Tree:
        """The tree of an item in the words of this epoch."""
        return self.preparer.tree(self.splits[stage][item.record], item, epoch)

    def train_row(self, planned: PlannedRow, epoch: int) -> Row:
        """A row of the plan with its final coefficients, and what is hidden in it."""
        scale = (self.regulariser_weight if planned.regulariser else 1.0) / (
            planned.total or 1.0
        )  # an empty row may belong to a step without weight
        if planned.regulariser:
            trees = [_text_tree(self._texts[number]) for number in planned.members]
            keys: list[tuple[object, ...]] = [("text", number) for number in planned.members]
        else:
            trees = [self.tree(self.plan.items[number], "train", epoch) for number in planned.members]
            keys = [
                (self.splits["train"][self.plan.items[number].record].record.id, *self.plan.items[number].chains)
                for number in planned.members
            ]
        row = self._row(trees, [scale] * len(trees))
        if self.hide[1] == 0 or row.causal or (planned.regulariser and not self.hide_regulariser):
            return row
        return hide(row, self.hide, [np.random.default_rng(key64(self.seed, "hiding", epoch, *key)) for key in keys])

    def _train_batch(self, planned: PlannedRow, epoch: int) -> Batch:
        """The row as tensors, and `feedback_tokens`: how many of its tokens are of feedback, padding and pretraining
        text left out.
        """
        row = self.train_row(planned, epoch)
        return to_batch(row) | {"feedback_tokens": torch.tensor(0 if planned.regulariser else int(row.bounds[-1]))}

    def _row(
        self,
        trees: Sequence[Tree],
        coefficients: Sequence[float],
        *,
        scored: bool = False,
        row_tokens: int | None = None,
    ) -> Row:
        if self.layout == "separate":
            if trees:
                return lay_out_alone(trees[0], coefficients[0], kinds=self._kinds, scored=scored)
            return replace(lay_out([], [], row_tokens=2, pad_id=self.pad_id), causal=True)
        return lay_out(
            trees,
            coefficients,
            row_tokens=row_tokens or self.row_tokens,
            pad_id=self.pad_id,
            kinds=self._kinds,
            scored=scored,
        )

    def pairs(self, one: Prepared) -> tuple[list[tuple[int, int]], int]:
        """The pairs of a record's completions for preference accuracy, and how many more are too long (see
        `Comparer`).
        """
        return self._comparer.pairs(one)

    @property
    def _comparer(self) -> Comparer:
        return Comparer(self.preparer, self.prompter.attributes)

    def requests(self, stage: Stage = "test", limit: int | None = None) -> list[RecordRequest]:
        """What `test` and `predict` write: each held-out prompt under each sentence asked for, sorted by length."""
        return self._requests_of(self.splits[stage][:limit])

    def _requests_of(self, prepared: Sequence[Prepared]) -> list[RecordRequest]:
        return self.prompter.requests(one.record for one in prepared)

    @property
    def most_replies(self) -> int:
        """Answers in the longest dialogue of the test split, the same on all ranks."""
        return max((len(turns_before_answers(one.record.prompt)) for one in self.splits["test"]), default=0)

    # Loaders. Every rank has the same number of batches in each, filled up with empty ones.

    def train_dataloader(self) -> TrainLoader:
        def row(epoch: int, index: int) -> Batch:
            return self._train_batch(self._planned(epoch, index), epoch)

        return TrainLoader(
            _Rows(row), self.plan.steps_per_epoch, self.plan.accumulate(self._ranks()[0]), num_workers=self.num_workers
        )

    def _planned(self, epoch: int, index: int) -> PlannedRow:
        """What stands in this rank's micro-batch of that number."""
        ranks, rank = self._ranks()
        micro_batches = self.plan.accumulate(ranks)
        return self.plan.step(epoch, index // micro_batches)[index % micro_batches * ranks + rank]

    def names(self, epoch: int, index: int) -> list[str]:
        """What stands in this rank's micro-batch of that number, for a message: the ids of records, the numbers of the
        regulariser's texts.
        """
        planned = self._planned(epoch, index)
        if planned.regulariser:
            return [f"text {number} of the regulariser" for number in planned.members]
        return [
            f"record '{self.splits['train'][self.plan.items[number].record].record.id}'" for number in planned.members
        ]

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, and comparisons where there are any (held_out.py)."""
        return self._loaders(*self._held_out("validation"))

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Losses, comparisons where there are any, and what to write."""
        refuse_empty(self.splits["test"], self.test_share)
        return self._loaders(*self._held_out("test"), self._writing("test", self.max_test_prompts))

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """What to write."""
        refuse_empty(self.splits["test"], self.test_share)
        return self._loaders(self._writing("test", None))

    def _held_out(self, stage: Stage) -> list[Table]:
        """Rows of chains for the losses, and comparisons for the preference accuracy. No hiding, the wording of epoch
        0.
        """
        items, records = self._items[stage], self.splits[stage]

        def row(members: Sequence[int]) -> Row:
            return self._row([self.tree(items[number], stage) for number in members], [1.0] * len(members))

        rows = losses(self._held_out_rows(stage), [item.record for item in items], row)
        compared = comparisons(self._comparer, records, self._scored_batch, ranks=self._ranks()[0])
        return [rows, compared] if compared.count else [rows]

    def _scored_batch(self, trees: Sequence[Tree], row_tokens: int | None) -> dict[str, Any]:
        """A row whose outputs are scored and nothing else, and how many they are (`outputs`)."""
        row = self._row(trees, [0.0] * len(trees), scored=True, row_tokens=row_tokens)
        return to_batch(row) | {"outputs": len(row.outputs)}

    def _held_out_rows(self, stage: Stage) -> list[list[int]]:
        """Items of a held-out split by row, the rows in a drawn order: packing begins with the longest items, and a
        limit on batches should not.
        """
        lengths = [item.length for item in self._items[stage]]
        rows = (
            [[number] for number in range(len(lengths))]
            if self.layout == "separate"
            else pack(lengths, self.row_tokens)
        )
        return [rows[i] for i in np.random.default_rng(key64(self.seed, "held out", stage)).permutation(len(rows))]

    def _writing(self, stage: Stage, limit: int | None) -> Table:
        return writing(self.splits[stage][:limit], self._requests_of, ranks=self._ranks()[0])

    def _loaders(self, *tables: Table) -> list[DataLoader[Any]]:
        return [table.loader(*self._ranks()) for table in tables]

    def _ranks(self) -> tuple[int, int]:
        return replicas(self.trainer) if self.trainer is not None else (1, 0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Requests stay on the CPU: Lightning can't look into frozen records, and the module moves their ids itself."""
        return batch if "requests" in batch else super().transfer_batch_to_device(batch, device, dataloader_idx)

    # What a person reads

    def report(self) -> dict[str, Any]:
        """Everything that was counted: the content of data.json."""
        train = self.counts["train"]
        return {
            "sources": self.source_counts,
            "files": self.files,
            "splits": {name: asdict(count) for name, count in self.counts.items()},
            "rejected": dict(
                Counter("unreadable" if one.unreadable else one.reason for one in self.rejected).most_common()
            ),
            "steps_per_epoch": self.plan.steps_per_epoch,
            "rows_per_step": self.rows_per_step,
            "regulariser": {
                "texts": len(self._texts),
                "tokens": sum(map(len, self._texts)),
                "rows_per_step": self.regulariser_rows_per_step,
            },
            "share_in_loss": train.tokens_in_loss / max(train.tokens_plain, 1),
            "tree_saves": train.tokens_plain / max(train.tokens_tree, 1),
            "fill": train.tokens_tree / max(train.rows * self.row_tokens, 1),
            "tokenizer": self.tokenizer_name,
            "boundaries": self._boundaries,
            "notes": self.notes,
            "settings": self.settings(),
        }

    def summary(self) -> list[tuple[str, str]]:
        """The report in a few lines, for the screen before training."""
        report = self.report()
        train = self.counts["train"]
        held_out = ", ".join(f"{count.used:,} for {name}" for name, count in self.counts.items() if name != "train")
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in report["rejected"].items()) or "none"
        cut = (
            f"{train.prompts_cut:,} prompts cut by {train.prompt_tokens_cut:,} tokens, {train.links_cut:,} links "
            f"and {train.chains_dropped:,} chains left out"
        )
        unused = f" ({train.completions_unused:,} completions stand in none)" if train.completions_unused else ""
        lines = [
            ("records", f"{train.used:,} to train on, {held_out}; left out: {left_out}"),
            (
                "chains",
                f"{train.chains:,} by the method '{self.method.name}' in the wording '{self.wording.name}'{unused}; "
                f"{cut}",
            ),
            (
                "tokens",
                f"{train.tokens_plain:,} as plain chains, {train.tokens_tree:,} as laid out "
                f"({report['tree_saves']:.2f}x fewer); {report['share_in_loss']:.1%} in the loss",
            ),
            (
                "rows",
                f"{train.rows:,} of {self.row_tokens} tokens, {report['fill']:.1%} full; "
                f"{self.plan.steps_per_epoch:,} steps an epoch, {self.rows_per_step} rows a step",
            ),
            ("tokenizer", f"{report['tokenizer']}; {report['boundaries']}"),
        ]
        if self.regulariser_rows_per_step:
            texts = report["regulariser"]
            lines.append(
                (
                    "regulariser",
                    f"{texts['tokens']:,} tokens of text, {self.regulariser_rows_per_step} rows a step, weight "
                    f"{self.regulariser_weight:g}",
                )
            )
        return [*lines, *(("note", note) for note in self.notes)]

    def largest_batches(self) -> list[tuple[Batch, bool]]:
        """The rows that take the most memory, one of each kind that any stage runs, and whether it is trained on: of
        feedback, of pretraining text, held out, compared. The same on all ranks."""
        trained = [next(row for row in self.plan.step(0, 0) if not row.regulariser)]
        if self.regulariser_rows_per_step:
            trained.append(self.plan.largest_text())
        found = [(self._train_batch(planned, 0), True) for planned in trained]
        for stage in ("validation", "test"):
            items, rows = self._items[stage], self._held_out_rows(stage)
            if rows:
                most = max(rows, key=lambda row: self.plan.size([items[number] for number in row]))
                found.append(
                    (
                        to_batch(self._row([self.tree(items[number], stage) for number in most], [1.0] * len(most))),
                        False,
                    )
                )
            if (tree := self._comparer.largest(self.splits[stage])) is not None:
                found.append((self._scored_batch([tree], tree.tokens), False))
        return found

    def write_report(self, folder: Path) -> None:
        """`data.json` and, where anything was left out, `rejected.jsonl`."""
        with written_aside(folder / "data.json") as aside:
            aside.write_text(json.dumps(self.report(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.rejected:
            write_jsonl(folder / "rejected.jsonl", self.rejected)

    @cached_property
    def _boundaries(self) -> str:
        """How joint tokenisation would differ, on some chains; said in the report and on the screen, found out once."""
        return str(self.chain_tokenizer.boundary_report(self._some_chains(50)))

    def _some_chains(self, records: int) -> Iterator[tuple[CutPrompt, Chain]]:
        for one in islice(self.splits["train"], records):
            for chain in self.chains(one):
                yield one.prompt, chain


class _Rows(Dataset[Any]):
    """A table whose index is (epoch, index): built when asked for, so that nothing is kept and nothing depends on who
    asks.
    """

    def __init__(self, build: Callable[[int, int], Any]) -> None:
        self.build = build

    def __getitem__(self, index: tuple[int, int]) -> Any:
        return self.build(*index)


class _EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, start), (epoch, start + 1), ...; Lightning sets the epoch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in range(self.start, self.count)])

    def __len__(self) -> int:
        return self.count


class TrainLoader(DataLoader[Any]):
    """One rank's rows of one epoch after another. Its state is (epoch, whole steps handed out), so a run that goes on
    gets the very next row, whatever workers had built ahead and however many ranks there are now.

    torchdata's StatefulDataLoader lets workers build rows before Lightning has set the epoch of a run that goes on, and
    takes an epoch that was used up for one that is still to come.
    """

    sampler: _EpochSampler

    def __init__(self, rows: Dataset[Any], steps: int, micro_batches: int, *, num_workers: int) -> None:
        super().__init__(rows, batch_size=None, sampler=_EpochSampler(steps * micro_batches), num_workers=num_workers)
        self._micro_batches = micro_batches
        self._handed_out = 0
        self._stopped_at: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """A generator, so that nothing is built before the first row is asked for: by then Lightning has set the
        epoch.
        """
        (epoch, step), self._stopped_at = self._stopped_at or (0, 0), None
        self.sampler.start = self._handed_out = step * self._micro_batches if epoch == self.sampler.epoch else 0
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """A step that is not over counts as not begun, since a checkpoint holds no gradients."""
        return {"epoch": self.sampler.epoch, "step": self._handed_out // self._micro_batches}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._stopped_at = (state["epoch"], state["step"])


def _text_tree(ids: np.ndarray) -> Tree:
    """A piece of pretraining text as a tree without branches: all tokens learned but the first, which nothing
    predicts.
    """
    learned = np.ones(len(ids))
    learned[0] = 0.0
    return Tree.from_chains([Tokens(ids, learned, np.zeros(len(ids)), (Span(1, len(ids), *TEXT),))])
