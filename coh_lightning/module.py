"""`CoHModule`: a causal language model of transformers, trained on rows of trees, whatever the method that made them.

The coefficients in a row are final (plan.py), so a step's loss is a sum over its rows and ranks. Lightning divides by
the micro-batches of a step, and the ranks' gradients are averaged; the module multiplies by both once. Nothing else is
scaled, so clipping sees the true gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from transformers import PreTrainedModel

from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.figures import headline
from coh_lightning.generation.request import OpaqueList
from coh_lightning.generation.settings import Generation
from coh_lightning.generation.writing import Writer
from coh_lightning.model.build import build, check_sizes, checked, config_settings, fit_to_rows, shard_if_whole
from coh_lightning.model.checkpoints import check_adapters, info_of, put_info, read_checkpoint_info
from coh_lightning.model.head import row_losses
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA, adapters
from coh_lightning.model.losses import row_loss
from coh_lightning.model.sharding import clip_gradients, is_sharded, replicas
from coh_lightning.rng import key64
from coh_lightning.runs.preemption import check_same_plan, recount, to_step_start
from coh_lightning.training.held_out_figures import LossFigures, PreferenceFigures, names_in_fit
from coh_lightning.training.run_summary import RunSummary
from coh_lightning.training.schedule import OptimizerSettings, steps_of_epoch, total_steps
from coh_lightning.training.training_figures import TrainingFigures
from coh_lightning.worlds import WORLD


class CoHModule(pl.LightningModule):
    """A causal language model: its loss on rows of trees, its held-out figures, and what it writes.

    Args:
        name_or_path: Name or folder of a pretrained model, or a checkpoint of ours (`.ckpt`); `world` is the base model
            of the embedded world, `world:noise` that of its second kind (a folder of that name is `./world`). Your own
            feedback needs it, or `from_config`.
        from_config: Instead of `name_or_path`: the settings of a new model with random weights, with `model_type`.
        attention: `auto` is sdpa where the architecture has it, on a CPU tree by tree, else eager; `sdpa` and `eager`
            mask whole rows; `flex` is FlexAttention (GPU).
        dtype: Type of the weights when they are loaded; the Trainer's `precision` may change it.
        dropout: Keep the dropout of the model's config (paper, App. B: off); with it, trees differ from plain chains.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        compile: Compile the layers (torch.compile) for training. It takes a minute, and pays off on a GPU. Held-out
            rows and writing are not compiled: their shapes change too often.
        lr: Peak learning rate. The paper states none.
        optimizer: AdamW, and the schedule of the learning rate.
        generation: How and when the model writes, and what scores it.
        lora: Train adapters instead of the model's own weights; a checkpoint with adapters brings its own.
        trust_remote_code: Run code that comes with the model. Only for models that you trust.

    Raises:
        InputError: `name_or_path` and `from_config` both given, or a learning rate that is not positive.
    """

    lm: PreTrainedModel
    _step: TrainingFigures

    def __init__(
        self,
        name_or_path: str | None = None,
        *,
        from_config: dict[str, Any] | None = None,
        attention: Literal["auto", "sdpa", "eager", "flex"] = "auto",
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        dropout: bool = False,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lr: float = 1e-5,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008 - frozen
        generation: Generation = Generation(),  # noqa: B008 - frozen
        lora: LoRA | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise InputError(f"model.lr is {lr}; it must be > 0.")
        loading = {"dtype": getattr(torch, dtype), "attention": attention, "trust_remote_code": trust_remote_code}
        self.spec = checked(ModelSpec(name_or_path, from_config, dropout=dropout, lora=lora, **loading))
        self.gradient_checkpointing, self.compile_blocks = gradient_checkpointing, compile
        self.lr, self.optimizer, self.generation = lr, optimizer, generation
        self.base = None if from_config is not None else name_or_path or WORLD
        """The name of the model that training began from, through all checkpoints; None: random weights."""
        self.trained_with: dict[str, Any] | None = None
        """The loaded checkpoint's settings of wording, method, prompt format and tokenizer."""
        self.writer = Writer(generation, trust_remote_code=trust_remote_code)
        self._fitted = False
        self._step_lr = 0.0
        self._stop_after_step = False
        self._validations = 0

    # The model

    def configure_model(self) -> None:
        """Builds the model once; Lightning calls this again before validation and test."""
        trainer = self._trainer
        if "lm" in self._modules:
            shard_if_whole(self.lm, trainer)
        else:
            self._build()
        if trainer is not None and (trainer.testing or trainer.predicting) and not trainer.ckpt_path:
            self._agree()  # before the loaders are made, which need the checkpoint's attributes

    def _build(self) -> None:
        if (checkpoint := self.spec.checkpoint) is not None:
            saved = read_checkpoint_info(checkpoint)
            self.trained_with, self.base = saved["data"], saved["base"]
            self.spec = replace(self.spec, lora=self.lora or adapters(saved))
        if self._elsewhere:
            self.strict_loading = False  # of a checkpoint, only what it was trained with is read
            return
        self.strict_loading = self.lora is None or self.lora.quantize is None  # else checkpoints have only adapters
        modes = {"gradient_checkpointing": self.gradient_checkpointing, "compile": self.compile_blocks}
        built = build(self.spec, self._trainer, **modes)
        self.lm, self._vocabulary, self._matrices = built.lm, built.vocabulary, built.matrices

    @property
    def named_spec(self) -> ModelSpec | None:
        """The spec; None in a `predict` that runs no model and names none."""
        named = self.spec.name_or_path is not None or self.spec.from_config is not None
        return self.spec if named or not self._elsewhere else None

    @property
    def lora(self) -> LoRA | None:
        """The adapters that are trained; None: all weights are."""
        return self.spec.lora

    @property
    def _elsewhere(self) -> bool:
        """Whether this is a `predict` without a model."""
        return self.generation.elsewhere and self._trainer is not None and self.trainer.predicting

    @property
    def data(self) -> CoHDataModule:
        """The data module of the run. InputError if it is not ours: the rows' coefficients come from its plan."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, CoHDataModule):
            what = f"CoHModule needs a CoHDataModule and got {type(data).__name__}"
            raise InputError(f"{what}; call trainer.fit(model, datamodule=CoHDataModule(...)).")
        return data

    def configure_callbacks(self) -> list[pl.Callback]:
        there = any(isinstance(one, RunSummary) for one in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [] if there else [RunSummary()]

    def setup(self, stage: str) -> None:
        self.writer.check(self.trainer, self.data)

    def _check_fit(self) -> None:
        """Refuses data that the model can't take, before the first row of a stage."""
        check_sizes(self.lm, self._vocabulary, self.data)
        if not self._fitted:
            # the compiler would want fixed shapes
            fit_to_rows(self.lm, self.data, by_tree=self.spec.attention == "auto" and not self.compile_blocks)
            self._fitted = True

    def _agree(self) -> None:
        """Refuses data settings that the checkpoint wasn't trained with."""
        if self.trained_with is not None:
            self.data.agree_with(self.trained_with)

    # Training

    def on_fit_start(self) -> None:
        self._check_fit()
        self.trained_with = self.data.settings()  # whatever the model was trained with before

    def on_train_start(self) -> None:
        self._step, self._stop_after_step = TrainingFigures(self.data), False

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        if self.spec.dropout:  # keyed by the row, so that neither ranks nor a resumed run change what is dropped
            ranks, rank = replicas(self.trainer)
            torch.manual_seed(key64(self.data.seed, "dropout", self.current_epoch, batch_idx * ranks + rank))
        loss, stats = row_loss(row_losses(self.lm, batch), batch, kinds=len(self.data.kinds))
        self._step.add(batch_idx, batch, loss, stats)
        return loss * (self.trainer.accumulate_grad_batches * replicas(self.trainer)[0])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self._step_lr = optimizer.param_groups[0]["lr"]  # when it is logged, the optimizer has the next step's
        self._step.check_finite(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            # told to stop within a step (by max_time, say), Lightning would leave the step unfinished
            self._stop_after_step |= self.trainer.should_stop
            self.trainer.should_stop = False
            return
        self.trainer.should_stop |= self._stop_after_step
        step, self._step = self._step, TrainingFigures(self.data)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: nothing is logged
        if every and (self.global_step % every == 0 or self.trainer.is_last_batch):
            self._log_figures("train", step.compute(self.trainer), shown=["loss"])
            self.log("lr", self._step_lr)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By the norm of all gradients, over all ranks, under every strategy; Lightning's own refuses FSDP1."""
        if gradient_clip_algorithm == GradClipAlgorithmType.VALUE:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            clip_gradients(self.lm, gradient_clip_val)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        steps, named = total_steps(self.trainer, self.data.plan.steps_per_epoch), self.lm.named_parameters()
        made = self.optimizer.build(named, self.trainer.precision, matrices=self._matrices, lr=self.lr, steps=steps)
        return {"optimizer": made[0], "lr_scheduler": {"scheduler": made[1], "interval": "step"}}

    # Held-out data

    def on_validation_epoch_start(self) -> None:
        self._check_fit()
        at_once = 0 if is_sharded(self.trainer) else self.data.row_tokens
        self._figures = (LossFigures(self.data, self.device), PreferenceFigures(self.device, at_once=at_once))
        self.writer.begin(self.trainer, self.data, self.lm)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        trainer = self.trainer
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._held_out("val", batch, last=batch_idx + 1 == batches[dataloader_idx])

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        last = batch_idx + 1 == self.trainer.num_test_batches[dataloader_idx]
        if "requests" not in batch:
            self._held_out("test", batch, last=last)
            return
        self.writer.write(batch["requests"])
        if last:
            self._log_written("test")

    def _held_out(self, stage: str, batch: dict[str, Any], *, last: bool) -> None:
        """Figures are logged with the last batch of their loader, so that each has one column of Lightning's table."""
        losses, preferences = self._figures
        figures = preferences if "pairs" in batch else losses
        with torch.compiler.set_stance("force_eager"):
            figures.add(self.lm, batch)
        if last:
            self._log_figures(stage, figures.compute(self.trainer))

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking or not self.generation.generate_every_n_validations:
            return
        self._validations += 1
        if self._validations % self.generation.generate_every_n_validations == 0:
            self.writer.write_split("validation")
            self._log_written("val")

    def _log_written(self, stage: str) -> None:
        figures = self.writer.figures()
        self._log_figures(stage, figures, shown=headline(figures))

    def _log_figures(self, stage: str, figures: Mapping[str, Tensor | float], *, shown: Sequence[str] = ()) -> None:
        """Figures that are the same on all ranks, without a loader's number in their names."""
        for name, value in figures.items():
            self.log(f"{stage}/{name}", value, prog_bar=name in shown, add_dataloader_idx=False, batch_size=1)

    def figures(self) -> list[str] | None:
        """The names of what this module logs in `fit`, except of what it writes; None for a subclass."""
        if type(self) is not CoHModule:
            return None
        return names_in_fit(self.data.kinds, under_bad=self.data.compare_under == "both")

    # Writing

    def on_predict_start(self) -> None:
        if not self._elsewhere:
            self._check_fit()
        self.writer.begin(self.trainer, self.data, None if self._elsewhere else self.lm)
        self.writer.begin_predict(self.pretrained_name)

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> OpaqueList[Completion]:
        return OpaqueList(self.writer.write_predicted(batch["requests"]))

    def on_predict_epoch_end(self) -> None:
        self.writer.left_out()

    @property
    def pretrained_name(self) -> str | None:
        """The model's public name; None if it was trained here."""
        trained = self.trained_with is not None or self.spec.checkpoint is not None
        return None if trained else self.spec.name_or_path

    def write_share(self, stage: Literal["validation", "test"]) -> list[Completion]:
        """Completions of a held-out split, written by all ranks and returned on each."""
        self.writer.begin(self.trainer, self.data, self.lm)
        self.writer.write_split(stage)
        self.writer.left_out()
        return self.writer.gathered()

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        resumable = "loops" in checkpoint  # an export isn't
        put_info(
            checkpoint,
            model=config_settings(self.lm),
            data=self.data.settings(),
            tokenizer=self.data.tokenizer_name,
            lora=self.lora,
            base=self.base,
            validations=self._validations,
            plan=self._plan_settings() if resumable else None,
        )
        if resumable:
            to_step_start(checkpoint["loops"]["fit_loop"], self.trainer.accumulate_grad_batches)

    def _plan_settings(self) -> dict[str, Any]:
        steps = steps_of_epoch(self.trainer, self.data.plan.steps_per_epoch)
        return self.data.plan_settings() | {"steps_of_epoch": steps}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = info_of(checkpoint)
        if not self._elsewhere:
            check_adapters(saved, self.lora)
        self.trained_with, self._validations = saved["data"], saved["validations"]
        if self._trainer is None or not isinstance(getattr(self.trainer, "datamodule", None), CoHDataModule):
            return
        self._agree()
        if self.trainer.state.fn == TrainerFn.FITTING:
            micro_batches = self.trainer.accumulate_grad_batches
            check_same_plan(saved["plan"], self._plan_settings(), micro_batches)
            recount(checkpoint, micro_batches)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, map_location: Any = None, **kwargs: Any) -> CoHModule:  # type: ignore[override]
        """The model of a checkpoint (a file or a folder of shards, read as plain data only); see `trained_with`."""
        module = cls(str(checkpoint_path), **kwargs)
        module.configure_model()
        return module if map_location is None else module.to(map_location)
