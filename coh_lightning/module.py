"""`CoHModule`: any causal language model of transformers, trained on rows of trees. It never asks which method is running: that is in the rows.

The coefficients in a row are final (plan.py), so a step's loss is a sum over its rows and ranks. Lightning divides by the micro-batches of a step and the ranks'
gradients are averaged; the module multiplies by both once, and nothing else is scaled, so clipping sees the true gradient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel, get_scheduler

from coh_lightning.attention import attention_implementation, check_layout, row_logits
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.generation import Sampling, Unmoved, generate
from coh_lightning.losses import output_log_likelihoods, row_loss
from coh_lightning.metrics import VALUES, Sums, completion_values
from coh_lightning.records import Completion, did_you_mean
from coh_lightning.world.feedback import BASE

PREFERENCES = ("preference_accuracy_sum", "preference_accuracy_mean")
"""Share of the strictly ordered pairs of a record that the model ranks right, by the sum and by the mean of log p (end token included); chance is 0.5."""

CHECKPOINT_KEY = "coh_lightning"
"""Where a checkpoint holds, as plain JSON, what its model was trained with."""


class CoHModule(LightningModule):
    """A causal language model, its loss on rows of trees, and what it writes under a feedback sentence.

    Args:
        model: Name or folder of a pretrained model, or a checkpoint of ours (`.ckpt`); None is the small base model of the embedded world.
        from_config: Instead of `model`: the settings of a new model with random weights, `model_type` among them.
        attention: `auto` is sdpa where the architecture has it, else eager; `flex` is FlexAttention (GPU).
        dtype: Type of the weights when they are loaded; the Trainer's `precision` may change it.
        dropout: Keep the dropout of the model's config. Off by default, as in the paper (App. B); with it a tree no longer equals its plain chains exactly.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        lr: Peak learning rate. The paper states none.
        betas: AdamW's (paper App. B).
        weight_decay: On matrices only.
        warmup_share: Share of all steps in which the learning rate rises to its peak.
        final_lr_share: Where the cosine ends, as a share of the peak.
        sampling: How completions are written in `test` and `predict`.
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
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        warmup_share: float = 0.03,
        final_lr_share: float = 0.1,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if model is not None and from_config is not None:
            raise InputError(f"model.model is '{model}' and model.from_config is set too; give one of them.")
        if from_config is not None and "model_type" not in from_config:
            raise InputError(f"model.from_config has the keys {sorted(from_config)} but no model_type; name the architecture (llama, gpt2, ...).")
        if lr <= 0 or not 0 <= warmup_share < 1 or not 0 <= final_lr_share <= 1:
            raise InputError(f"model.lr is {lr}, warmup_share {warmup_share}, final_lr_share {final_lr_share}; they must be > 0, in [0, 1) and in [0, 1].")
        self.model = model
        self.from_config = from_config
        self.attention = attention
        self.dtype_name = dtype
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing
        self.lr = lr
        self.betas = betas
        self.weight_decay = weight_decay
        self.warmup_share = warmup_share
        self.final_lr_share = final_lr_share
        self.sampling = sampling
        self.trust_remote_code = trust_remote_code
        self.trained_with: dict[str, Any] | None = None
        """What a checkpoint that was loaded says of wording, method, prompt format and tokenizer."""
        self._layout_checked = False
        self._sums: dict[str, Tensor] = {}
        self._meters: dict[str, Sums] = {}  # in a dict, so that they are no part of the model's state

    # The model

    def configure_model(self) -> None:
        """Builds the model once; Lightning calls this again before validation and test."""
        if "lm" in self._modules:
            return
        dtype = getattr(torch, self.dtype_name)
        if self.from_config is not None:
            settings, kind = {key: value for key, value in self.from_config.items() if key != "model_type"}, self.from_config["model_type"]
            if kind not in CONFIG_MAPPING:
                raise InputError(f"model.from_config.model_type is {kind!r}, which transformers doesn't know{did_you_mean(kind, CONFIG_MAPPING)}")
            config = AutoConfig.for_model(kind, **settings)
            self._prepare(config)
            self.lm = AutoModelForCausalLM.from_config(config, dtype=dtype)
        elif self.model is not None and self.model.endswith(".ckpt"):
            checkpoint = _read_checkpoint(self.model)
            saved = json.loads(checkpoint[CHECKPOINT_KEY])
            self.trained_with = saved["data"]
            config = AutoConfig.for_model(**saved["model"])
            self._prepare(config)
            self.lm = AutoModelForCausalLM.from_config(config, dtype=dtype)
            self.lm.load_state_dict({key.removeprefix("lm."): value for key, value in checkpoint["state_dict"].items()})
        else:
            name = self.model or str(BASE)
            if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
                raise InputError(f"model.model is {name}, and there is no such folder; give the name of a model on the hub or the folder of one.")
            try:
                config = AutoConfig.from_pretrained(name, trust_remote_code=self.trust_remote_code)
                self._prepare(config)
                self.lm = AutoModelForCausalLM.from_pretrained(name, config=config, dtype=dtype, trust_remote_code=self.trust_remote_code)
            except OSError as error:
                raise InputError(
                    f"The model '{name}' can't be loaded ({str(error).splitlines()[0]}); give the name of a model on the hub or an existing folder."
                ) from error
        self.lm.config.use_cache = False  # with a cache, documents of one row would see each other
        if not self.dropout:
            for part in self.lm.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        self.lm.train()  # transformers gives it in evaluation mode, and Lightning leaves modes as they are
        if self.gradient_checkpointing:
            self.lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _prepare(self, config: Any) -> None:
        if not self.dropout:
            for key, value in config.to_dict().items():
                if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
                    setattr(config, key, 0.0)
        config._attn_implementation = {"auto": attention_implementation(config), "flex": "flex_attention"}.get(self.attention, self.attention)

    @property
    def data(self) -> CoHDataModule:
        """The data module of the run.

        Raises InputError where it is not ours: the rows' coefficients come from its plan.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, CoHDataModule):
            raise InputError(f"CoHModule needs a CoHDataModule and got {type(data).__name__}; call trainer.fit(model, datamodule=CoHDataModule(...)).")
        return data

    def setup(self, stage: str) -> None:
        if stage == "fit":
            micro_batches = self.data.plan.accumulate(self.trainer.world_size)
            if self.trainer.accumulate_grad_batches not in (1, micro_batches):
                raise InputError(
                    f"trainer.accumulate_grad_batches is {self.trainer.accumulate_grad_batches}, but data.rows_per_step and the {self.trainer.world_size} ranks make it {micro_batches}; leave it out."
                )
            self.trainer.accumulate_grad_batches = micro_batches

    def _vocabulary(self) -> int:
        """Rows of the embedding: ids that the model knows."""
        return int(cast(nn.Embedding, self.lm.get_input_embeddings()).weight.shape[0])

    def _start(self) -> None:
        """Before the first row of a stage: ids and positions that the model doesn't have, and layouts that it can't hold, end here and not in wrong logits."""
        vocabulary = self._vocabulary()
        if self.data.largest_id >= vocabulary:
            raise InputError(
                f"The tokenizer '{self.data.tokenizer_name or 'embedded'}' has ids up to {self.data.largest_id}, but the model's vocabulary ends at {vocabulary - 1}; set data.tokenizer to the model's own."
            )
        longest = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and self.data.max_chain_tokens > longest:
            raise InputError(
                f"data.max_chain_tokens is {self.data.max_chain_tokens}, but the model has {longest} positions; lower it to that (and data.max_prompt_tokens below it)."
            )
        if self.data.layout == "tree" and not self._layout_checked:
            check_layout(self.lm, row_tokens=self.data.row_tokens)
            self._layout_checked = True

    def on_fit_start(self) -> None:
        self._start()
        self.trained_with = self.data.settings()  # whatever the model was trained with before

    def on_train_start(self) -> None:
        """The largest micro-batch, forward and back, so that memory fails now or not at all; then a screen of what is about to happen."""
        batch = {name: value.to(self.device) for name, value in self.data.first_batch().items()}
        seconds = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), self.trainer.precision_plugin.forward_context():
            for _ in range(2):  # the first time is slower
                start = perf_counter()
                loss, _ = row_loss(row_logits(self.lm, batch), batch, kinds=len(self.data.kinds))
                loss.backward()
                loss.item()  # waits for a GPU to be done
                seconds = perf_counter() - start
                self.zero_grad(set_to_none=True)
        if self.trainer.is_global_zero:
            micro_batches, steps = self.trainer.accumulate_grad_batches, self.total_steps() - self.global_step
            rows = [
                *self.data.summary(),
                (
                    "this run",
                    f"{steps:,} steps of {micro_batches} micro-batches on each of {self.trainer.world_size} rank(s), {steps / self.data.plan.steps_per_epoch:.1f} epochs",
                ),
                (
                    "model",
                    f"{self.lm.config.model_type}, {sum(p.numel() for p in self.parameters()) / 1e6:,.1f} M parameters, {self.lm.config._attn_implementation} attention",
                ),
                ("expected", f"{_bytes(self._expected_memory(batch))} of memory for the model, about {steps * micro_batches * seconds / 60:.1f} minutes"),
            ]
            table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
            for name, text in rows:
                table.add_row(f"[bold]{name}[/bold]", escape(text))
            Console(stderr=True).print(table)

    def _expected_memory(self, batch: Mapping[str, Tensor]) -> float:
        """Bytes: what was measured on a GPU, else weights, gradients, logits and activations by the rule of 34 hidden vectors a layer and token; AdamW's two copies in both."""
        trained = sum(p.numel() * p.element_size() for p in self.parameters() if p.requires_grad)
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device) + 2 * trained)
        config = self.lm.config.get_text_config()
        tokens = batch["input_ids"].shape[1]
        weights = sum(p.numel() * p.element_size() for p in self.parameters())
        layers = 1 if self.gradient_checkpointing else config.num_hidden_layers
        heads = config.num_attention_heads * tokens * tokens if config._attn_implementation == "eager" else tokens * tokens
        return float(weights + 3 * trained + 3 * 4 * len(batch["keep"]) * self._vocabulary() + layers * (34 * tokens * config.hidden_size + 4 * heads) * 4 / 2)

    def on_validation_start(self) -> None:
        self._start()

    def on_test_start(self) -> None:
        self._start()
        self._agree()

    def on_predict_start(self) -> None:
        self._start()
        self._agree()

    def _agree(self) -> None:
        """A model is asked as it was trained, whichever way its checkpoint came: ckpt_path, load_from_checkpoint or model."""
        if self.trained_with is not None:
            self.data.agree_with(self.trained_with)

    # Training

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss, stats = row_loss(row_logits(self.lm, batch), batch, kinds=len(self.data.kinds))
        learned = (batch["learned"] != 0).sum() * (batch["feedback_tokens"] > 0)
        self._add(stats | {"feedback_tokens": batch["feedback_tokens"].double(), "learned_tokens": learned.double()})
        return loss * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        sums, self._sums = self._sums, {}
        if self.global_step % self.trainer.log_every_n_steps and not self.trainer.is_last_batch:  # type: ignore[attr-defined]
            return
        sums = {name: self._over_ranks(value) for name, value in sums.items()}
        loss = sums["learned"] + sums["unlearned"]
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss of step {self.global_step} (epoch {self.current_epoch}) is {loss.item()}; lower model.lr, or look at the rows of this step with `preview`."
            )
        self.log("train/loss", loss.float(), prog_bar=True)
        self.log_dict(self._by_kind("train", sums))
        if sums["feedback_tokens"] > 0:
            self.log("train/learned_share", (sums["learned_tokens"] / sums["feedback_tokens"]).float())
        self.log("lr", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    def _add(self, stats: Mapping[str, Tensor]) -> None:
        for name, value in stats.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _over_ranks(self, value: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(value, reduce_op="sum") if self.trainer.world_size > 1 else value

    def _by_kind(self, stage: str, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean nll per token (nats) of each kind of segment, of the regulariser's text, and of all outputs together."""
        nll, weight = sums["kind_nll"], sums["kind_weight"]
        text = self.data.text_kind
        means = {f"{stage}/nll_{name}": (nll[i] / weight[i]).float() for i, name in enumerate(self.data.kinds) if weight[i] > 0}
        outputs = torch.ones_like(weight, dtype=torch.bool)
        outputs[text] = False
        if weight[outputs].sum() > 0:
            means[f"{stage}/nll"] = (nll[outputs].sum() / weight[outputs].sum()).float()
        return means

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr, betas=self.betas)
        steps = self.total_steps()
        schedule = get_scheduler(
            "cosine_with_min_lr",
            optimizer,
            num_warmup_steps=round(self.warmup_share * steps),
            num_training_steps=steps,
            scheduler_specific_kwargs={"min_lr_rate": self.final_lr_share},
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Optimiser steps of the whole run, from the plan: max_epochs or max_steps, whichever ends first."""
        limit = self.trainer.limit_train_batches
        steps = self.data.plan.steps_per_epoch
        if isinstance(limit, int):
            steps = min(steps, -(-limit // self.trainer.accumulate_grad_batches))
        elif limit is not None:
            steps = max(1, int(steps * limit))
        totals = [self.trainer.max_steps] if self.trainer.max_steps > 0 else []
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:
            totals.append(steps * self.trainer.max_epochs)
        if not totals:
            raise InputError("Neither trainer.max_steps nor trainer.max_epochs says where training ends; give one, the learning rate's schedule needs it.")
        return min(totals)

    # Held-out data

    def on_validation_epoch_start(self) -> None:
        self._meters["val"] = Sums(["nll", *self._kind_names(), *PREFERENCES]).to(self.device)

    def on_test_epoch_start(self) -> None:
        written = [f"{value}_{ask}" for value in VALUES for ask in self.data.ask_names]
        self._meters["test"] = Sums(["nll", *self._kind_names(), *PREFERENCES, *written]).to(self.device)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._held_out(batch, self._meters["val"])

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Unmoved[Completion] | None:  # type: ignore[override]
        if "requests" not in batch:
            self._held_out(batch, self._meters["test"])
            return None
        completions = self._write(batch)
        for one in completions:
            values = completion_values(one.text, tokens=one.completion_tokens, ended=one.stop == "end", reference=one.reference)
            self._meters["test"].add({f"{name}_{one.ask}": value for name, value in values.items()})
        return Unmoved(completions)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Unmoved[Completion]:
        return Unmoved(self._write(batch))

    def _held_out(self, batch: dict[str, Any], meter: Sums) -> None:
        """A row of held-out chains (its loss per kind), or one record's completions under the same marker (which of them the model finds likelier)."""
        if "pairs" not in batch:
            _, stats = row_loss(row_logits(self.lm, batch), batch, kinds=len(self.data.kinds))
            nll, weight = stats["kind_nll"].tolist(), stats["kind_weight"].tolist()
            meter.update({name: (nll[i], weight[i]) for i, name in enumerate(self._kind_names())} | {"nll": (sum(nll), sum(weight))})
            return
        scored = [output_log_likelihoods(row_logits(self.lm, row), row, outputs=row["outputs"]) for row in batch["rows"]]
        total, tokens = (torch.cat(parts) for parts in zip(*scored, strict=True))
        for name, score in zip(PREFERENCES, (total.tolist(), (total / tokens).tolist()), strict=True):
            decided = [(better, worse) for better, worse in batch["pairs"] if score[better] != score[worse]]
            if decided:
                meter.add({name: sum(score[better] > score[worse] for better, worse in decided) / len(decided)})

    def _kind_names(self) -> list[str]:
        return [f"nll_{name}" for name in self.data.kinds]

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def _log(self, stage: str) -> None:
        """The stage's means, the same on all ranks."""
        self.log_dict({f"{stage}/{name}": value.float() for name, value in self._meters.pop(stage).compute().items()})

    # Writing

    def _write(self, batch: dict[str, Any]) -> list[Completion]:
        data = self.data
        # ranks that hold parts of one model must all run each forward pass; ranks with a model each need not wait for one another
        sharded = isinstance(self.trainer.strategy, (FSDPStrategy, ModelParallelStrategy))
        everyone_done = self.trainer.strategy.reduce_boolean_decision if sharded and self.trainer.world_size > 1 else None
        written = generate(self.lm, batch["requests"], self.sampling, stop_ids=data.stop_ids, pad_id=data.pad_id, everyone_done=everyone_done)
        return [data.completion(one, self.sampling, system=Path(self.trainer.default_root_dir).name) for one in written]

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        model = {key: value for key, value in self.lm.config.to_diff_dict().items() if key not in ("dtype", "transformers_version")}
        checkpoint[CHECKPOINT_KEY] = json.dumps({"model": model | {"model_type": self.lm.config.model_type}, "data": self.data.settings()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if CHECKPOINT_KEY not in checkpoint:
            raise InputError(
                f"The checkpoint has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule; give it as model.model if it holds a Hugging Face model."
            )
        self.trained_with = json.loads(checkpoint[CHECKPOINT_KEY])["data"]
        if self._trainer is not None and isinstance(getattr(self.trainer, "datamodule", None), CoHDataModule):
            self.data.agree_with(self.trained_with)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any) -> CoHModule:  # type: ignore[override]
        """The model of a checkpoint, with the wording and method that it was trained with in `trained_with`. Loads plain data only (`weights_only`)."""
        saved = json.loads(_read_checkpoint(checkpoint_path)[CHECKPOINT_KEY])
        return super().load_from_checkpoint(checkpoint_path, *args, **({"from_config": saved["model"], "weights_only": True} | kwargs))


def _bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number > 2**30 else f"{number / 2**20:.0f} MiB"


def _read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A single-file checkpoint of ours; plain data only, so that loading one runs no code.

    Raises InputError where there is no such file, or it is not one of ours.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no checkpoint file {path}; look into the checkpoints/ folder of the run.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} can't be read as a checkpoint ({type(error).__name__}: {str(error).splitlines()[0]}); it may be damaged, or hold more than plain data."
        ) from error
    if CHECKPOINT_KEY not in checkpoint:
        raise InputError(f"{path} has no entry '{CHECKPOINT_KEY}', so it was not written by CoHModule; give a Hugging Face folder instead.")
    return dict(checkpoint)
