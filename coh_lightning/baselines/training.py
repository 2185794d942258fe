"""TRL's trainers on rows of token ids, with the optimizer of our own fits: AdamW, its betas, warm-up and cosine decay.

    train(run, spec, tokenizer, examples).save(run, ...)   ->   a Hugging Face folder with trl.json

The only thing changed in TRL's trainers is where the ids come from: `_prepare_dataset` and `_tokenize_prompts`.
A folder without trl.json is an unfinished run; `train` continues from TRL's newest checkpoint in it.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
)

from coh_lightning.baselines.examples import Examples
from coh_lightning.baselines.output import CHECKPOINTS, DONE, Run, write_json
from coh_lightning.baselines.rewards import Reward
from coh_lightning.generation.request import RecordRequest
from coh_lightning.io import atomic_write
from coh_lightning.model.loading import ModelSpec
from coh_lightning.training.schedule import OptimizerSettings

CONFIGS = ("config", "generation_config")
"""Of a model; TRL writes its pad token into both, so they are put back."""
PACKAGES = ("coh_lightning", "trl", "transformers", "torch")


class _OwnIds:
    """A trainer whose rows have token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


class _DPO(_OwnIds, DPOTrainer):
    pass


class _KTO(_OwnIds, KTOTrainer):
    pass


class _RLOO(RLOOTrainer):
    """RLOO whose prompts are ids of records."""

    requests: Mapping[str, RecordRequest]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.requests[name].prompt_ids.tolist() for name in prompts], None, {}


class _Pace(TrainerCallback):
    """A line for each log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **more: Any) -> None:
        shown = [f"{name} {logs[name]:.4g}" for name in ("loss", "reward", "accuracy") if logs and name in logs]
        if shown and state.is_world_process_zero:
            print(f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}", flush=True)


@dataclass(frozen=True)
class Trained:
    """A trained model, not yet saved, and its figures."""

    model: PreTrainedModel
    figures: dict[str, Any]

    def save(self, run: Run, tokenizer: PreTrainedTokenizerBase, measure: Callable[[Path], Mapping[str, Any]]) -> None:
        """Puts the finished folder in the place of the unfinished one, at once; `measure` adds to its figures."""
        with atomic_write(run.folder) as aside:
            aside.mkdir()
            self.model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            versions = {name: version(name) for name in PACKAGES}
            write_json(aside / DONE, {"settings": run.settings, "versions": versions, **self.figures, **measure(aside)})


def train(
    run: Run,
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    *,
    stop_ids: tuple[int, ...],
    requests: Mapping[str, RecordRequest] | None = None,
    reward: Reward | None = None,
) -> Trained:
    """Train, or continue from the newest checkpoint in the folder.

    Args:
        spec: The model to start from: a Hugging Face folder or name, or `world`.
        tokenizer: Its tokenizer; it is not changed.
        stop_ids: What ends an output.
        requests: The prompts of RLOO, by the id in its rows.
        reward: What RLOO maximizes.

    Raises:
        InputError: the model can't be loaded.
    """
    disable_progress_bar()
    given = copy.deepcopy(tokenizer)
    if given.pad_token is None:
        given.pad_token = given.eos_token
    lm = _model(run, spec, given, examples, stop_ids)
    own = {name: copy.deepcopy(getattr(lm, name)) for name in CONFIGS if hasattr(lm, name)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        trainer = _trainer(run, lm, spec, given, examples, stop_ids, requests, reward)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(_Pace)
        checkpoints = run.folder / CHECKPOINTS
        last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        start, cpu = time.perf_counter(), time.process_time()
        trainer.train(resume_from_checkpoint=last)
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "resumed_from": int(last.rpartition("-")[2]) if last else None,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "rows": len(examples.rows),
        "left_out": dict(examples.left_out),
        **({"weights": label_weights(examples)} if run.trainer == "kto" else {}),
        "tokens": _tokens(run, examples, trainer.state),
        "log": [entry for entry in trainer.state.log_history if "train_runtime" not in entry],
    }
    trained = trainer.accelerator.unwrap_model(trainer.model)
    for name, config in own.items():
        setattr(trained, name, config)
    return Trained(trained.eval(), figures)


def _model(
    run: Run, spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, examples: Examples, stop_ids: tuple[int, ...]
) -> PreTrainedModel:
    """The model to train; for a reward model, the same with a new head of one number."""
    lm = spec.build()
    lm.config.use_cache = True
    if run.trainer != "reward":
        return lm
    torch.manual_seed(run.seed)  # the new head
    classifier = AutoModelForSequenceClassification.from_pretrained(
        str(lm.name_or_path), num_labels=1, dtype=spec.dtype
    )
    tokenizer.pad_token = free_token(tokenizer, examples, stop_ids)
    classifier.config.pad_token_id = classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return classifier


def _trainer(
    run: Run,
    lm: PreTrainedModel,
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    stop_ids: tuple[int, ...],
    requests: Mapping[str, RecordRequest] | None,
    reward: Reward | None,
) -> Any:
    """TRL's trainer for this run."""
    settings, beta = _settings(run), run.beta or 0.0
    shared: dict[str, Any] = {
        "train_dataset": Dataset.from_list(examples.rows),
        "processing_class": tokenizer,
        "optimizers": OptimizerSettings().build(
            lm.named_parameters(), "32-true", matrices=(), lr=run.lr, steps=run.steps
        ),
    }
    if run.trainer == "reward":
        return RewardTrainer(lm, RewardConfig(**settings, max_length=None, dataloader_drop_last=True), **shared)
    if run.trainer == "dpo":
        dpo = DPOConfig(**settings, beta=beta, max_length=None, dataloader_drop_last=True)
        return _DPO(lm, spec.build().eval(), dpo, **shared)
    if run.trainer == "kto":
        kto = KTOConfig(**settings, beta=beta, max_length=None, **label_weights(examples))
        return _KTO(lm, spec.build().eval(), kto, **shared)
    assert requests is not None and reward is not None
    lm.generation_config.eos_token_id = list(stop_ids)
    length: dict[str, Any] = {"num_generations": run.samples, "max_completion_length": run.max_new_tokens}
    function: Any = reward.of_completion_ids
    rloo = _RLOO(lm, function, RLOOConfig(**settings, beta=beta, **length), **shared)
    rloo.requests = requests
    return rloo


def _settings(run: Run) -> dict[str, Any]:
    """TRL's settings that all its trainers share."""
    cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(run.folder / CHECKPOINTS),
        "per_device_train_batch_size": run.rows_per_pass,
        "gradient_accumulation_steps": run.rows_per_step // run.rows_per_pass,
        "max_steps": run.steps,
        "learning_rate": run.lr,
        "seed": run.seed,
        "data_seed": run.seed,
        "logging_steps": max(1, min(10, run.steps // 10)),
        "save_steps": run.save_every,
        "save_total_limit": 1,
        "report_to": "none",
        "use_cpu": cpu,
        "bf16": run.bf16 and not cpu,  # TRL turns it on by itself, on a CPU too
        "dataloader_pin_memory": not cpu,
        "gradient_checkpointing": run.gradient_checkpointing,
        "disable_dropout": True,
        "max_grad_norm": 1.0,
    }


def label_weights(examples: Examples) -> dict[str, Any]:
    """KTO's weights of good and bad completions, so that both weigh the same in all (its paper, arXiv 2402.01306,
    equation 8): 200 good and 2,600 bad ones weigh 13 and 1.
    """
    good = sum(row["label"] for row in examples.rows)
    bad = len(examples.rows) - good
    if not good or not bad:
        return {}
    return {"desirable_weight": max(1.0, bad / good), "undesirable_weight": max(1.0, good / bad)}


def free_token(tokenizer: PreTrainedTokenizerBase, examples: Examples, stop_ids: tuple[int, ...]) -> str:
    """A token for padding that ends no row: a classifier reads its score at the last token that is not the pad token,
    so with the end token as padding it would never see whether a completion has ended.
    """
    ends = {*stop_ids, *(row[name][-1] for row in examples.rows for name in ("chosen_ids", "rejected_ids"))}
    own = [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id]
    special = sorted(tokenizer.added_tokens_decoder)
    every = [*own, *special, *range(len(tokenizer))]
    return str(tokenizer.convert_ids_to_tokens(next(number for number in every if number not in ends)))


def _tokens(run: Run, examples: Examples, state: Any) -> dict[str, int]:
    """Tokens seen in training: `read` with prompts, `completion` those of completions, `good` those of good ones.

    Of rows: their mean over an epoch times the rows seen. Of RLOO: those that it wrote, and their prompts.
    """
    if run.trainer == "rloo":
        lengths = [
            entry["completions/mean_length"] for entry in state.log_history if "completions/mean_length" in entry
        ]
        written = sum(lengths) / max(len(lengths), 1) * run.rows_per_step * state.global_step
        return {"read": int(state.num_input_tokens_seen), "completion": round(written)}
    seen = run.batch * state.global_step
    mean = examples.mean_tokens
    if run.trainer == "kto":
        good = Examples([row for row in examples.rows if row["label"]])
        share = len(good.rows) / len(examples.rows)
        own = {"read": mean("prompt_ids", "completion_ids"), "completion": mean("completion_ids")}
        own["good"] = good.mean_tokens("completion_ids") * share
    elif run.trainer == "dpo":
        both = mean("chosen_ids", "rejected_ids")
        own = {"read": 2 * mean("prompt_ids") + both, "completion": both, "good": mean("chosen_ids")}
    else:
        own = {"read": mean("chosen_ids", "rejected_ids")}
    return {name: round(value * seen) for name, value in own.items()}
