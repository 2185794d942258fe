"""`CoHModule`: any causal language model of transformers, trained on rows of trees. It never asks which method is
running: that is in the rows.

The coefficients in a row are final (plan.py), so a step's loss is a sum over its rows and ranks. Lightning divides by
the micro-batches of a step and the ranks' gradients are averaged; the module multiplies by both once, and nothing else
is scaled, so clipping sees the true gradient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from coh_lightning.attention import row_logits
from coh_lightning.checkpoints import CHECKPOINT_KEY, said
from coh_lightning.data import CoHDataModule
from coh_lightning.decoding import generate
from coh_lightning.draws import key64
from coh_lightning.errors import InputError
from coh_lightning.evaluation import FIRST, Valued, headline, summary, with_copies, with_samples
from coh_lightning.exchange import BATCH, read_completions, write_batch, write_prompts
from coh_lightning.generation import Request, Unmoved
from coh_lightning.held_out_figures import PREFERENCES, LossFigures, PreferenceFigures
from coh_lightning.layout_check import check_layout
from coh_lightning.lora import LoRA, adapters
from coh_lightning.losses import row_loss
from coh_lightning.models import Recipe
from coh_lightning.progress import check_same_plan, recount, to_step_start
from coh_lightning.records import Completion
from coh_lightning.sampling import Sampling
from coh_lightning.schedule import steps_of_epoch, total_steps, warmup_cosine
from coh_lightning.scorers import RewardModel, Scorer, load_critic, load_scorer, score
from coh_lightning.sharding import (
    TENSOR,
    blocks,
    clip_gradients,
    fill,
    from_replicas,
    is_sharded,
    replicas,
    shard,
    wrap_blocks,
)
from coh_lightning.startup import expected_memory, in_bytes, run_largest, show
from coh_lightning.world.feedback import WORLD

NAMED = 8
"""Records that a message names at most."""


class CoHModule(LightningModule):
    """A causal language model, its loss on rows of trees, and what it writes under a feedback sentence.

    Args:
        model: Name or folder of a pretrained model, or a checkpoint of ours (`.ckpt`); `world` is the small base model
            of the embedded world (a folder of that name is `./world`). It must be named, or `from_config` given,
            wherever the feedback is not the embedded world's own.
        from_config: Instead of `model`: the settings of a new model with random weights, `model_type` among them.
        attention: `auto` is sdpa where the architecture has it, else eager; `flex` is FlexAttention (GPU).
        dtype: Type of the weights when they are loaded; the Trainer's `precision` may change it.
        dropout: Keep the dropout of the model's config. Off by default, as in the paper (App. B); with it a tree no
            longer equals its plain chains exactly.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        compile: Compile the layers (torch.compile) for training; it takes a minute, and pays off on a GPU. Nothing else
            is compiled: its shapes change too often.
        lr: Peak learning rate. The paper states none.
        betas: AdamW's (paper App. B).
        weight_decay: On matrices only.
        warmup_share: Share of all steps in which the learning rate rises to its peak, in equal parts (schedule.py
            states the rate of each step).
        final_lr_share: Where the cosine ends, as a share of the peak.
        sampling: How completions are written in `test` and `predict`, and during `fit`.
        write_every: During `fit`, completions are written at every so-manieth validation, for
            `data.max_validation_prompts` prompts; 0: never.
        refine: Rounds in which the model is asked for a better answer than its own last one, in `test` and during
            `fit`, each beside a fresh draw as its control.
        critic: With `refine`: what is said of an answer before the next one, a function `Completion -> str` by its
            import path (`package.module:name`); None says that it is bad, in the method's words.
        scorers: Raters in code that score every completion: functions `Completion -> {name: number}` by import path;
            `world` is the embedded world's rater.
        prompts_to: In `predict`: write the prompts to this file, for a server elsewhere (exchange.py), and no
            completions; no model is loaded. As the input of a batch service where its name ends in .batch.jsonl.
        served_model: With `prompts_to`: what the server calls the model, in its requests; None is `model`, or the name
            of the run folder for a model that was trained here.
        completions_from: In `predict` and `test`: take the completions from this file, which a server made of such
            prompts, instead of writing them.
        dialogues: In `predict`: write pseudo-dialogues, as the paper's raters read them: the user's turns are kept, and
            each of the assistant's turns is written anew after the model's own ones before. Compare them with
            `human-eval export --dialogues`.
        reward_model: A reward model of transformers (sequence classification) that scores every completion, by name or
            folder.
        lora: Train adapters in the place of the model's own weights (models.py); a checkpoint with adapters brings its
            own.
        trust_remote_code: Run code that comes with the model. Only for models that you trust.

    Raises:
        InputError: `model` and `from_config` both given, or a learning-rate schedule that makes no sense.
    """

    lm: PreTrainedModel

    def __init__(
        self,
        model: str | None = None,
        *,
        from_config: dict[str, Any] | None = None,
        attention: Literal["auto", "sdpa", "eager", "flex"] = "auto",
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        dropout: bool = False,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_share: float = 0.03,
        final_lr_share: float = 0.1,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        write_every: int = 0,
        refine: int = 0,
        critic: str | None = None,
        scorers: list[str] | None = None,
        reward_model: str | None = None,
        prompts_to: str | None = None,
        served_model: str | None = None,
        completions_from: str | None = None,
        dialogues: bool = False,
        lora: LoRA | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if model is not None and from_config is not None:
            raise InputError(f"model.model is '{model}' and model.from_config is set too; give one of them.")
        if from_config is not None and "model_type" not in from_config:
            raise InputError(
                f"model.from_config has the keys {sorted(from_config)} but no model_type; name the architecture "
                "(llama, gpt2, ...)."
            )
        if lr <= 0 or not 0 <= warmup_share < 1 or not 0 <= final_lr_share <= 1:
            raise InputError(
                f"model.lr is {lr}, warmup_share {warmup_share}, final_lr_share {final_lr_share}; they must be > 0, "
                "in [0, 1) and in [0, 1]."
            )
        if write_every < 0 or refine < 0:
            raise InputError(
                f"model.write_every is {write_every} and model.refine {refine}; neither can be negative (0 switches "
                "it off)."
            )
        self.model = model
        self.from_config = from_config
        self.attention = attention
        self.dtype_name = dtype
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_blocks = compile
        self.lr = lr
        self.betas = betas
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.final_lr_share = final_lr_share
        self.sampling = sampling
        self.write_every = write_every
        self.refine = refine
        self.critic = critic
        self.scorers = scorers
        self.reward_model = reward_model
        if prompts_to is not None and completions_from is not None:
            raise InputError(
                f"model.prompts_to is '{prompts_to}' and model.completions_from '{completions_from}'; prompts go out "
                "first, give one of the two."
            )
        self.prompts_to = prompts_to
        self.served_model = served_model
        self.completions_from = completions_from
        if dialogues and (prompts_to or completions_from):
            raise InputError(
                "model.dialogues needs the model at hand, since each answer follows the one before; leave out "
                "prompts_to and completions_from."
            )
        if dialogues and (sampling.samples > 1 or sampling.max_seconds is not None):
            raise InputError(
                "model.dialogues writes whole dialogues, one of each, but model.sampling has samples "
                f"{sampling.samples} and max_seconds {sampling.max_seconds}; "
                "set samples to 1 and max_seconds to null."
            )
        self.dialogues = dialogues
        self.lora = lora
        self.trust_remote_code = trust_remote_code
        self._base = None if from_config is not None else model or WORLD
        self.trained_with: dict[str, Any] | None = None
        """What a checkpoint that was loaded says of wording, method, prompt format and tokenizer."""
        self._layout_checked = False
        self._sums: dict[str, Tensor] = {}
        self._losses: list[tuple[int, Tensor]] = []
        """(Number of the micro-batch, its loss) of the step that is being made."""
        self._step_lr = 0.0
        self._stop_after_step = False
        self._figures: tuple[LossFigures, PreferenceFigures]
        self._raters: list[Scorer] | None = None
        self._validations = 0
        self.written: list[Completion] = []
        """What this rank has written since its stage began (`CompletionWriter` keeps it)."""
        self._left_out = 0  # completions of this rank that `sampling.max_seconds` left no time for, ...
        self._until: float | None = None  # ... which was over at this time of `monotonic()`

    # The model

    def configure_model(self) -> None:
        """Builds the model once; Lightning calls this again before validation and test."""
        if "lm" not in self._modules:
            self._build()
        elif self._mesh is not None and not any(isinstance(parameter, DTensor) for parameter in self.lm.parameters()):
            shard(self.lm, self._mesh)  # it was built before there was a Trainer, so that each rank has it whole
        if (
            self._trainer is not None
            and (self.trainer.testing or self.trainer.predicting)
            and not self.trainer.ckpt_path
        ):
            # before the loaders are made, since what to ask for is the checkpoint's; of ckpt_path, see
            # on_load_checkpoint
            self._agree()

    def _build(self) -> None:
        if self._elsewhere:
            if self.model is not None and self.model.endswith(".ckpt"):
                self.trained_with = said(self.model)["data"]
            self.strict_loading = False  # of a checkpoint, only what it was trained with is read
            return
        recipe = self.recipe
        if recipe.checkpoint is not None:
            saved = said(recipe.checkpoint)
            self.trained_with = saved["data"]
            self.lora = self.lora or adapters(saved)
            self._base = saved.get("base")
        strategy, mesh = self.trainer.strategy if self._trainer is not None else None, self._mesh
        self.strict_loading = (
            self.lora is None or self.lora.quantise is None
        )  # of a quantised model, checkpoints hold the adapters alone
        if self.lora is not None and self.lora.quantise and isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise InputError(
                f"model.lora.quantise is '{self.lora.quantise}', which can't be sharded; use the strategy ddp, or "
                "leave it out."
            )
        self.lm = (
            recipe.outline()
            if mesh is not None
            else recipe.build(strategy.root_device if strategy is not None else None)
        )
        self._vocabulary = int(cast(nn.Embedding, self.lm.get_input_embeddings()).weight.shape[0])
        self._matrices = {name for name, parameter in self.lm.named_parameters() if parameter.ndim >= 2}
        if self.gradient_checkpointing:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if self.compile_blocks:
            for _, block in blocks(self.lm):
                block.compile()
        if mesh is not None:
            shard(self.lm, mesh)
            fill(
                self.lm,
                recipe.build() if self.global_rank == 0 else None,
                cast(ModelParallelStrategy, strategy).root_device,
            )
        elif isinstance(strategy, FSDPStrategy):
            self.lm = cast(PreTrainedModel, wrap_blocks(self.lm))

    @property
    def _mesh(self) -> DeviceMesh | None:
        """The ranks that the model is laid out over; None where each rank has all of it (or FSDP1 shards it)."""
        strategy = self.trainer.strategy if self._trainer is not None else None
        return strategy.device_mesh if isinstance(strategy, ModelParallelStrategy) else None

    @property
    def recipe(self) -> Recipe:
        """All that decides the model before its first step."""
        return Recipe(
            self.model,
            self.from_config,
            dtype=getattr(torch, self.dtype_name),
            attention=self.attention,
            dropout=self.dropout,
            lora=self.lora,
            trust_remote_code=self.trust_remote_code,
        )

    @property
    def named_recipe(self) -> Recipe | None:
        """The recipe; None in a `predict` that runs no model and names none."""
        return None if self._elsewhere and self.model is None and self.from_config is None else self.recipe

    @property
    def _elsewhere(self) -> bool:
        """Whether this is a `predict` that needs no model."""
        return (
            (self.prompts_to or self.completions_from) is not None
            and self._trainer is not None
            and self.trainer.predicting
        )

    @property
    def data(self) -> CoHDataModule:
        """The data module of the run.

        Raises InputError where it is not ours: the rows' coefficients come from its plan.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, CoHDataModule):
            raise InputError(
                f"CoHModule needs a CoHDataModule and got {type(data).__name__}; call trainer.fit(model, "
                "datamodule=CoHDataModule(...))."
            )
        return data

    def setup(self, stage: str) -> None:
        for path in self.scorers or []:  # a wrong path ends here, and not at the first writing
            load_scorer(path)
        if self.critic:
            load_critic(self.critic)

    def _start(self) -> None:
        """Before the first row of a stage: ids and positions that the model doesn't have, and layouts that it can't
        hold, end here and not in wrong logits.
        """
        if self.data.largest_id >= self._vocabulary:
            raise InputError(
                f"The tokenizer '{self.data.tokenizer_name}' has ids up to {self.data.largest_id}, but the model's "
                f"embedding ends at {self._vocabulary - 1}; "
                "name the tokenizer that belongs to the model (data.tokenizer), or enlarge the embedding "
                "(transformers' resize_token_embeddings) and save it."
            )
        longest = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and self.data.max_chain_tokens > longest:
            raise InputError(
                f"data.max_chain_tokens is {self.data.max_chain_tokens}, but the model has {longest} positions; "
                "lower it to that (and data.max_prompt_tokens below it)."
            )
        if self.sampling.max_seconds is not None and self._mesh is not None and self._mesh[TENSOR].size() > 1:
            raise InputError(
                f"sampling.max_seconds is {self.sampling.max_seconds:g}, but ranks that share tensors must stop at "
                "the same token, and their clocks differ; leave it out."
            )
        if self.data.layout == "tree" and not self._layout_checked:
            with torch.compiler.set_stance("force_eager"):
                check_layout(self.lm, row_tokens=self.data.row_tokens)
            self._layout_checked = True

    def on_fit_start(self) -> None:
        self._start()
        self.trained_with = self.data.settings()  # whatever the model was trained with before

    def on_train_start(self) -> None:
        """The largest rows of all stages, so that memory fails now or not at all; then a screen of what is about to
        happen.
        """
        self._losses, self._sums, self._stop_after_step = [], {}, False  # of a run that was stopped within a step
        batches = self.data.largest_batches()
        context = self.trainer.precision_plugin.forward_context()
        seconds = run_largest(self.lm, batches, kinds=len(self.data.kinds), device=self.device, context=context)
        if not self.trainer.is_global_zero:
            return
        micro_batches, steps = self.trainer.accumulate_grad_batches, self.total_steps() - self.global_step
        of_epoch = steps_of_epoch(self.trainer, self.data.plan.steps_per_epoch)
        cut = (
            f" of {of_epoch:,} steps (trainer.limit_train_batches)" if of_epoch < self.data.plan.steps_per_epoch else ""
        )
        memory = expected_memory(
            self.lm,
            tokens=max(batch["input_ids"].shape[1] for batch, _ in batches),
            predicted=max(len(batch["keep"]) for batch, trained in batches if trained),
            device=self.device,
            recomputed=self.gradient_checkpointing,
        )
        parameters = sum(p.numel() for p in self.parameters()) / 1e6
        show(
            [
                *self.data.summary(),
                (
                    "this run",
                    f"{steps:,} steps of {micro_batches} micro-batches on each of {self.trainer.world_size} rank(s), "
                    f"{steps / of_epoch:.1f} epochs{cut}",
                ),
                (
                    "model",
                    f"{self.lm.config.model_type}, {parameters:,.1f} M parameters, "
                    f"{self.lm.config._attn_implementation} attention",
                ),
                (
                    "expected",
                    f"{in_bytes(memory)} of memory for the model, about {steps * micro_batches * seconds / 60:.1f} "
                    "minutes",
                ),
            ]
        )

    def on_validation_start(self) -> None:
        self._start()

    def on_test_start(self) -> None:
        self._start()

    def on_predict_start(self) -> None:
        if not self._elsewhere:
            self._start()
        if self.dialogues:
            unusable = sum(not self.data.replies(one) for one in self.data.splits["test"])
            if unusable:
                rank_zero_warn(
                    f"{unusable} of {len(self.data.splits['test'])} dialogues are left out: a turn of the user's is "
                    "empty or longer than data.max_prompt_tokens."
                )
        if self.prompts_to is not None and self.trainer.is_global_zero:
            write = write_batch if self.prompts_to.endswith(BATCH) else write_prompts
            blanks, name = self.data.blanks(self.sampling, system=self._system), self._served_model
            number = write(
                self.prompts_to, blanks, stop_token_ids=self.data.stop_ids, stop=self._stop_texts, model=name
            )
            print(
                f"{number} prompts in {self.prompts_to}, for a server that calls the model '{name}' "
                "(--model.served_model names another); "
                "give the answers back with --model.completions_from=FILE"
            )

    def _agree(self) -> None:
        """A model is asked as it was trained, whichever way its checkpoint came: ckpt_path, load_from_checkpoint or
        model.
        """
        if self.trained_with is not None:
            self.data.agree_with(self.trained_with)

    # Training

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        # keyed like every draw, by the row, so that a run drops the same wherever it was stopped and however many ranks
        # it has
        if self.dropout:
            ranks, rank = replicas(self.trainer)
            torch.manual_seed(key64(self.data.seed, "dropout", self.current_epoch, batch_idx * ranks + rank))
        loss, stats = row_loss(row_logits(self.lm, batch), batch, kinds=len(self.data.kinds))
        learned = (batch["learned"] != 0).sum() * (batch["feedback_tokens"] > 0)
        self._add(stats | {"feedback_tokens": batch["feedback_tokens"].double(), "learned_tokens": learned.double()})
        self._losses.append((batch_idx, loss.detach()))
        return loss * (self.trainer.accumulate_grad_batches * replicas(self.trainer)[0])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A loss that is no number stops every rank before it reaches the weights: one number of a step is looked at,
        not one of each micro-batch.

        Raises:
            InputError: the step, its loss, and the records or texts in the rows where it is no number.
        """
        self._step_lr = optimizer.param_groups[0]["lr"]
        losses, self._losses = self._losses, []
        total = self._over_ranks(torch.stack([loss for _, loss in losses]).sum())
        if torch.isfinite(total):
            return
        bad = [self.data.names(self.current_epoch, index) for index, loss in losses if not torch.isfinite(loss)]
        rows = [names for of_rank in from_replicas(self.trainer, bad) for names in of_rank]
        names = list(dict.fromkeys(name for row in rows for name in row))
        shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        raise InputError(
            f"The loss of step {self.global_step + 1} (epoch {self.current_epoch}) is {total.item()}: it is no "
            f"number in {len(rows)} of the step's "
            f"{self.trainer.accumulate_grad_batches * replicas(self.trainer)[0]} rows, that of {shown}; lower "
            "model.lr, or look at them with `preview`."
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            self._stop_after_step |= (
                self.trainer.should_stop
            )  # of a clock (max_time), say: Lightning would leave the step unfinished
            self.trainer.should_stop = False
            return
        self.trainer.should_stop |= self._stop_after_step
        sums, self._sums = self._sums, {}
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: nothing is logged
        if not every or (self.global_step % every and not self.trainer.is_last_batch):
            return
        sums = {name: self._over_ranks(value) for name, value in sums.items()}
        self.log("train/loss", (sums["learned"] + sums["unlearned"]).float(), prog_bar=True)
        self.log_dict(self._by_kind("train", sums))
        if sums["feedback_tokens"] > 0:
            self.log("train/learned_share", (sums["learned_tokens"] / sums["feedback_tokens"]).float())
        self.log("lr", self._step_lr)  # the optimizer has the next step's by now

    def _add(self, stats: Mapping[str, Tensor]) -> None:
        for name, value in stats.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _over_ranks(self, value: Tensor) -> Tensor:
        """The sum over ranks with rows of their own."""
        ranks = self.trainer.world_size
        return (
            self.trainer.strategy.reduce(value, reduce_op="sum") * (replicas(self.trainer)[0] / ranks)
            if ranks > 1
            else value
        )

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By the norm of all gradients, over all ranks, under every strategy; Lightning's own refuses that under
        FSDP1.
        """
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val and isinstance(self.lm, FullyShardedDataParallel):
            self.lm.clip_grad_norm_(gradient_clip_val)
        elif gradient_clip_val:
            clip_gradients(self.parameters(), gradient_clip_val)

    def _by_kind(self, stage: str, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean nll per token (nats) of each kind of segment, of the regulariser's text, and of all outputs together."""
        nll, weight = sums["kind_nll"], sums["kind_weight"]
        text = self.data.text_kind
        means = {
            f"{stage}/nll_{name}": (nll[i] / weight[i]).float()
            for i, name in enumerate(self.data.kinds)
            if weight[i] > 0
        }
        outputs = torch.ones_like(weight, dtype=torch.bool)
        outputs[text] = False
        if weight[outputs].sum() > 0:
            means[f"{stage}/nll"] = (nll[outputs].sum() / weight[outputs].sum()).float()
        return means

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # by name: under FSDP1 a rank's part of a matrix is a vector
        trained = [
            (name.replace("_fsdp_wrapped_module.", ""), p) for name, p in self.lm.named_parameters() if p.requires_grad
        ]
        groups = [
            {"params": [p for name, p in trained if name in self._matrices], "weight_decay": self.weight_decay},
            {"params": [p for name, p in trained if name not in self._matrices], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr, betas=self.betas)
        share = warmup_cosine(self.total_steps(), warmup_share=self.warmup_share, final_share=self.final_lr_share)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, share), "interval": "step"},
        }

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return total_steps(self.trainer, self.data.plan.steps_per_epoch)

    # Held-out data

    def on_validation_epoch_start(self) -> None:
        self._begin()

    def on_test_epoch_start(self) -> None:
        self._begin()

    def on_predict_epoch_start(self) -> None:
        self._begin_round()

    def on_predict_epoch_end(self) -> None:
        self._count_left_out()

    def _begin(self) -> None:
        self._figures = (LossFigures(self.data.kinds, self.device), PreferenceFigures(self.device))
        self._begin_round()

    def _begin_round(self) -> None:
        """Nothing is written yet, and the time budget runs from the first prompt on."""
        self.written, self._left_out, self._until = [], 0, None

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self._held_out(batch, "val", last=self._is_last(batch_idx, dataloader_idx))

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        last = self._is_last(batch_idx, dataloader_idx)
        if "requests" not in batch:
            self._held_out(batch, "test", last=last)
            return
        self._write(batch["requests"])
        if last:
            self._log_written("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Unmoved[Completion]:
        if self.prompts_to is not None:
            return Unmoved([])
        return Unmoved(self._write_dialogues(batch["requests"]) if self.dialogues else self._write(batch["requests"]))

    def _is_last(self, batch_idx: int, dataloader_idx: int) -> bool:
        """Whether this is the last batch of its loader, after the limits on batches; the same on all ranks."""
        trainer = self.trainer
        batches = (
            trainer.num_test_batches
            if trainer.testing
            else trainer.num_sanity_val_batches
            if trainer.sanity_checking
            else trainer.num_val_batches
        )
        return batch_idx + 1 == batches[dataloader_idx]

    def _held_out(self, batch: dict[str, Any], stage: str, *, last: bool) -> None:
        """A row of held-out chains (its loss per kind), or one record's completions under the same marker (which of
        them the model finds likelier).

        The figures are logged with the last batch of their loader, so that each stands in one column of Lightning's
        table.
        """
        losses, preferences = self._figures
        figures = preferences if "pairs" in batch else losses
        with torch.compiler.set_stance("force_eager"):
            figures.add(self.lm, batch)
        if last:
            self._log_figures(stage, {name: value.float() for name, value in figures.compute(self.trainer).items()})

    def _log_figures(self, stage: str, figures: Mapping[str, Tensor | float], *, shown: Sequence[str] = ()) -> None:
        """The same on all ranks; no loader's number is put behind the names."""
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, prog_bar=name in shown, add_dataloader_idx=False, batch_size=1)

    def figures(self) -> list[str] | None:
        """The names under which this module logs in training, once its data are set up, but those of what it writes;
        None for a subclass.
        """
        if type(self) is not CoHModule:
            return None
        kinds = ["nll", *(f"nll_{name}" for name in self.data.kinds)]
        held_out = [
            f"val/{name}" for name in (*kinds, "nll_records", *PREFERENCES, "preference_pairs", "preference_records")
        ]
        return [*held_out, "train/loss", "train/learned_share", *(f"train/{name}" for name in kinds), "lr"]

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking or not self.write_every:
            return
        self._validations += 1
        if self._validations % self.write_every == 0:
            ranks, rank = replicas(self.trainer)
            self._write(self.data.requests("validation", self.data.max_validation_prompts)[rank::ranks])
            self._log_written("val")

    # Writing

    def _write(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[Completion]:
        """This rank's completions of its requests, scored; they are added to `written`. Every rank must call it equally
        often.
        """
        data, sampling = self.data, sampling or self.sampling
        if self.completions_from is not None and not self.trainer.training:
            return self._keep(
                [
                    self._from_elsewhere[f"{one.prompt_id}:{one.ask}:{sample}"]
                    for one in requests
                    for sample in range(sampling.samples)
                ]
            )
        # ranks that hold parts of one model must all run each forward pass; ranks with a model each need not wait for
        # one another
        everyone_done = self.trainer.strategy.reduce_boolean_decision if is_sharded(self.trainer) else None
        if sampling.max_seconds is not None and self._until is None:
            self._until = monotonic() + sampling.max_seconds
        written = generate(
            self.lm,
            requests,
            sampling,
            stop_ids=data.stop_ids,
            pad_id=data.pad_id,
            over=data.over,
            until=self._until,
            everyone_done=everyone_done,
        )
        self._left_out += len(requests) * sampling.samples - len(written)
        return self._keep([data.completion(one, sampling, system=self._system) for one in written])

    def _write_dialogues(self, requests: Sequence[Request]) -> list[Completion]:
        """The pseudo-dialogues of some prompts, turn by turn; of each turn a completion with the id DIALOGUE#TURN."""
        replies = {request: self.data.replies(request.payload["prepared"]) for request in requests}
        answers: dict[Request, list[str]] = {request: [] for request in requests}
        written: list[Completion] = []
        for number in range(self.data.most_replies):  # also where this rank has no dialogue that long
            speaking = [request for request in requests if number < replies[request]]
            new = self._write([self.data.reply(request, answers[request]) for request in speaking])
            for request, completion in zip(speaking, new, strict=True):
                answers[request].append(completion.text)
            written += new
        return written

    @property
    def _system(self) -> str:
        return Path(self.trainer.default_root_dir).name

    @property
    def _served_model(self) -> str:
        """What a server calls the model: a pretrained one by its own name, one that was trained here by its run."""
        trained = self.trained_with is not None or self.model is None or self.model.endswith(".ckpt")
        return self.served_model or (self._system if trained else self.model) or "model"

    @property
    def _stop_texts(self) -> list[str]:
        """Feedback sentences at which a server stops; control tokens of one word would end an ordinary text."""
        return sorted(
            {text for one in self.data.splits["test"] for text in self.data.markers(one.record) if " " in text}
        )

    @cached_property
    def _from_elsewhere(self) -> dict[str, Completion]:
        assert self.completions_from is not None
        encoder = self.data.chain_tokenizer.encoder
        blanks = self.data.blanks(self.sampling, system=self._system)
        return {
            one.id: one
            for one in read_completions(
                self.completions_from,
                blanks,
                count=lambda text: len(encoder.encode_texts([text])[0]),
                stop=self._stop_texts,
            )
        }

    def _keep(self, completions: list[Completion]) -> list[Completion]:
        for scorer in self._scorers():
            completions = score(completions, scorer)
        self.written += completions
        return completions

    def write_share(self, stage: Literal["validation", "test"], *, system: str | None = None) -> list[Completion]:
        """Completions of a held-out split, shared out over the ranks and gathered on all of them, in the order of
        prompt, ask and sample.

        Args:
            system: Name of the system that they carry, in the place of the run folder's.
        """
        limit = self.data.max_test_prompts if stage == "test" else self.data.max_validation_prompts
        ranks, rank = replicas(self.trainer)
        self._begin_round()
        own = self._write(self.data.requests(stage, limit)[rank::ranks])
        self._count_left_out()
        every = [one for part in from_replicas(self.trainer, own) for one in part]
        named = [replace(one, system=system) for one in every] if system else every
        return sorted(named, key=lambda one: (one.prompt_id, one.ask))

    def _scorers(self) -> list[Scorer]:
        if self._raters is None:
            self._raters = [load_scorer(path) for path in self.scorers or []]
            if self.reward_model is not None:
                self._raters.append(
                    RewardModel(self.reward_model, device=self.device, trust_remote_code=self.trust_remote_code)
                )
        return self._raters

    def _log_written(self, stage: str) -> None:
        """The figures of all that was written, by all ranks together, after the rounds of refinement."""
        together: list[Valued] = [
            row for part in from_replicas(self.trainer, with_samples(self.written) + self._refined()) for row in part
        ]
        if len({row.id for row in together}) < len(together):
            raise RuntimeError(
                f"{len(together)} completions were gathered from {self.trainer.world_size} rank(s), and some have "
                "the same id"
            )
        figures = summary(together, seed=self.data.seed)
        if self.sampling.max_seconds is not None:
            figures["left_out"] = float(self._count_left_out())
        self._log_figures(stage, figures, shown=headline(figures))

    def _count_left_out(self) -> int:
        """Completions that all ranks had no time for, the same number on each; the first rank says so where there are
        any.
        """
        number = sum(from_replicas(self.trainer, self._left_out))
        if number:
            rank_zero_warn(
                f"{number} completions were left out, because sampling.max_seconds = {self.sampling.max_seconds:g} "
                "was over; raise it, or write fewer."
            )
        return number

    def _refined(self) -> list[Valued]:
        """The rounds of refinement of this rank's first answers (sample 0 of each prompt), with the fresh draws that
        they are compared with.
        """
        if not self.refine:
            return []
        first = [one for one in self.written if one.ask == FIRST and one.id.endswith(":0")]
        answers = {one.prompt_id: [one] for one in first}
        prepared = {one.record.id: one for stage in ("validation", "test") for one in self.data.splits[stage]}
        critic = load_critic(self.critic) if self.critic else None
        once = replace(self.sampling, samples=1)
        rows: list[Valued] = []
        if self.completions_from is not None:
            raise InputError(
                f"model.refine is {self.refine}, but the completions come from '{self.completions_from}': a second "
                "answer would need another's model; set refine to 0."
            )
        for number in range(2, self.refine + 2):
            refined, fresh = [], []
            for prompt_id, own in answers.items():
                if len(own) < number - 1:  # there was no room for the answer before
                    continue
                remarks = [critic(answer) if critic else None for answer in own]
                request = self.data.refinement(
                    prepared[prompt_id], [answer.text for answer in own], remarks, f"refined {number}"
                )
                if request is not None:
                    refined.append(request)
                    fresh.append(self.data.request(prepared[prompt_id], f"fresh {number}", own[0].marker))
            second, control = self._write(refined, once), self._write(fresh, once)
            for one in second:
                answers[one.prompt_id].append(one)
            rows += with_copies(first, second) + with_copies(first, control)
        return rows

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        model = {
            key: value
            for key, value in self.lm.config.to_diff_dict().items()
            if key not in ("dtype", "transformers_version", "quantization_config")
        }
        if self.lora is not None and self.lora.quantise:
            checkpoint["state_dict"] = {key: value for key, value in checkpoint["state_dict"].items() if "lora_" in key}
        saved = {
            "model": model | {"model_type": self.lm.config.model_type},
            "data": self.data.settings(),
            "tokenizer": self.data.tokenizer_name,
            "lora": asdict(self.lora) if self.lora is not None else None,
            "base": self._base,
            "validations": self._validations,
            "plan": self._plan_settings() if "loops" in checkpoint else None,
        }
        checkpoint[CHECKPOINT_KEY] = json.dumps(saved)

        if "loops" in checkpoint:  # an export has none
            to_step_start(checkpoint["loops"]["fit_loop"], self.trainer.accumulate_grad_batches)

    def _plan_settings(self) -> dict[str, Any]:
        return self.data.plan_settings() | {
            "steps_of_epoch": steps_of_epoch(self.trainer, self.data.plan.steps_per_epoch)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if CHECKPOINT_KEY not in checkpoint:
            raise InputError(
                f"The checkpoint has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule; give it as "
                "model.model if it holds a Hugging Face model."
            )
        saved = json.loads(checkpoint[CHECKPOINT_KEY])
        if adapters(saved) != self.lora and not self._elsewhere:
            raise InputError(
                f"model.lora is {self.lora}, but the checkpoint holds {adapters(saved)}; use the config.yaml of its "
                "run folder, or set it alike."
            )
        self.trained_with = saved["data"]
        self._validations = saved["validations"]
        if self._trainer is not None and isinstance(getattr(self.trainer, "datamodule", None), CoHDataModule):
            self.data.agree_with(self.trained_with)
            if self.trainer.state.fn == TrainerFn.FITTING:
                micro_batches = self.trainer.accumulate_grad_batches
                if saved.get("plan") is not None:  # an older version kept none
                    check_same_plan(saved["plan"], self._plan_settings(), micro_batches)
                recount(checkpoint, micro_batches)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, map_location: Any = None, **kwargs: Any) -> CoHModule:  # type: ignore[override]
        """The model of a checkpoint (a file, or a folder of shards), with the wording and method that it was trained
        with in `trained_with`.

        Args:
            checkpoint_path: It is loaded as plain data only.
            map_location: The device that the model is put on; None: the CPU.
            kwargs: Arguments of the module.
        """
        module = cls(str(checkpoint_path), **kwargs)
        module.configure_model()
        return module if map_location is None else module.to(map_location)
