"""Callbacks that write completions, a blind rating study of them, and the model as a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from coh_lightning.errors import InputError, counted
from coh_lightning.export.huggingface import write_folder
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.generation.samples import sample_rows
from coh_lightning.generation.samples_page import write_samples
from coh_lightning.human_eval.export import export_study
from coh_lightning.io import explain_os_error
from coh_lightning.model.sharding import full_state, is_writer_rank
from coh_lightning.module import CoHModule
from coh_lightning.runs.closing import SAMPLES
from coh_lightning.training.result_tables import means_table, show_tables

ROUNDS = "completions"
"""Folder of the completions of `fit`: one file per round, named by its step."""


class CompletionWriter(pl.Callback):
    """Writes all ranks' completions into the run folder, ordered by prompt, condition and sample.

        completions.jsonl            of `test` and `predict` (`file`)
        completions/step=400.jsonl   of each round during `fit` (`model.generation.generate_every_n_validations`)
        samples.html                 completions under each feedback sentence, side by side (if `page`)

    Each rank appends to its own file, batch by batch, so that an interrupted run leaves what it had; these are merged
    at the end. A W&B logger gets the same rows as a table.
    """

    def __init__(self, file: str = "completions.jsonl", page: bool = True) -> None:
        self.file = file
        self.page = page
        self._kept = 0

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._part(trainer, trainer.global_rank).unlink(missing_ok=True)
        self._kept = 0

    on_predict_start = on_validation_start = on_test_start

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        self._add(trainer, pl_module)

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._merge(trainer, pl_module, Path(self.file))

    on_predict_end = on_test_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._merge(trainer, pl_module, Path(ROUNDS) / f"step={trainer.global_step}.jsonl")

    def _add(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module, CoHModule) or not is_writer_rank(trainer):
            return
        if not (new := pl_module.writer.written[self._kept :]):
            return
        self._kept += len(new)
        part = self._part(trainer, trainer.global_rank)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(completion.to_json(), ensure_ascii=False) + "\n" for completion in new)
        except OSError as error:
            raise explain_os_error(part, error) from error

    def _part(self, trainer: pl.Trainer, rank: int) -> Path:
        return Path(trainer.default_root_dir) / f"{self.file}.rank{rank}"

    def _merge(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: Path) -> None:
        self._add(trainer, pl_module)
        if trainer.world_size > 1:
            torch.distributed.barrier()
        if trainer.is_global_zero:
            self._merge_all(trainer, name)
        if trainer.world_size > 1:  # the next callbacks read the file
            torch.distributed.barrier()

    def _merge_all(self, trainer: pl.Trainer, name: Path) -> None:
        parts = [path for rank in range(trainer.world_size) if (path := self._part(trainer, rank)).exists()]
        every = [completion for part in parts for completion in read_jsonl(part, Completion)]
        if not every:
            return
        every.sort(key=lambda one: (one.prompt_id, one.ask))  # samples of one prompt stay in their order
        folder, label = Path(trainer.default_root_dir), name.stem.replace("=", " ")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, every)
        for part in parts:
            part.unlink()
        if self.page:
            rounds = [(label, every)] if name == Path(self.file) else _rounds(folder)
            write_samples(folder / SAMPLES, rounds)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                columns, rows = sample_rows(every, label=label)
                logger.log_table(key="completions", columns=columns, data=rows, step=trainer.global_step)
        if name == Path(self.file):
            show_tables([means_table(every)])
            page = f", side by side in {folder / SAMPLES}" if self.page else ""
            print(f"{counted(len(every), 'completion')} in {folder / name}{page}")


def _rounds(folder: Path) -> list[tuple[str, Sequence[Completion]]]:
    """The completions of `fit` by round, the newest last."""
    files = sorted((folder / ROUNDS).glob("step=*.jsonl"), key=lambda path: int(path.stem.removeprefix("step=")))
    return [(path.stem.replace("=", " "), list(read_jsonl(path, Completion))) for path in files]


class HumanEvalExport(pl.Callback):
    """Makes a blind rating study of the model against another system, as `human-eval export` does, at the end of
    `test`, `predict` or `fit`. `against` is one of:

        references      the data's references
        before          the model before training (only `fit`: it writes for the held-out prompts at its start and end)
        bad             this model under the bad sentence: a check of steering, not a comparison of two systems
        FILE            completions of another system (`completions.jsonl` of its run), matched by prompt id and hash

    Args:
        raters: Number of sheets.
        overlap: Items that every rater gets; each of the others goes to one.
        attributes: The questions about each pair.
        seed: Of sides, order and checks.
        forms: More formats of the same sheets: xlsx, label-studio, potato.
    """

    def __init__(
        self,
        against: str,
        raters: int = 3,
        overlap: int = 50,
        attributes: Sequence[str] = ("accuracy", "coherence", "coverage", "overall"),
        seed: int = 0,
        forms: Sequence[Literal["xlsx", "label-studio", "potato"]] = (),
        folder: str = "human_eval",
    ) -> None:
        if against not in ("references", "before", "bad") and not Path(against).is_file():
            raise InputError(
                f"HumanEvalExport.against is '{against}', and there is no such file; give completions of "
                "another system, or references, before or bad."
            )
        self.against = against
        self.folder = folder
        self.settings: dict[str, Any] = {"raters": raters, "overlap": overlap, "attributes": tuple(attributes)}
        self.settings |= {"seed": seed, "forms": tuple(forms)}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.against == "before":
            self._write(trainer, pl_module, "before")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module, "after")
        self._export(trainer, "completions_after.jsonl")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._export(trainer, "completions.jsonl")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        dialogues = isinstance(pl_module, CoHModule) and pl_module.generation.dialogues
        self._export(trainer, "completions.jsonl", dialogues=dialogues)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, when: str) -> None:
        """Completions for the test split, by all ranks, into completions_before.jsonl or completions_after.jsonl."""
        every = _checked(self, pl_module).write_share("test")
        if self.against == "before":
            every = [replace(one, system=when) for one in every]
        if trainer.is_global_zero:
            write_jsonl(Path(trainer.default_root_dir) / f"completions_{when}.jsonl", every)

    def _export(self, trainer: pl.Trainer, name: str, *, dialogues: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        own = folder / name
        if not own.is_file():
            raise InputError(f"HumanEvalExport: there is no {own}; put a CompletionWriter before it in the callbacks.")
        files, before = [own], folder / "completions_before.jsonl"  # the first is the baseline
        if self.against == "before":
            if not before.is_file():
                raise InputError(
                    f"HumanEvalExport.against is 'before', but there is no {before}, which only fit writes; use "
                    "fit, or give a completions file."
                )
            files.insert(0, before)
        elif self.against not in ("references", "bad"):
            files.insert(0, Path(self.against))
        study = export_study(
            files,
            folder / self.folder,
            **self.settings,
            against_references=self.against == "references",
            control=("bad", "good") if self.against == "bad" else None,
            dialogues=dialogues,
            overwrite=True,  # but never a study that has judgments
        )
        size = f"{counted(len(study.items), 'item')} for {counted(self.settings['raters'], 'rater')}"
        print(f"{size} in {folder / self.folder}; send only the sheets: key.json says which side is whose")


class HuggingFaceExport(pl.Callback):
    """Writes the model as a Hugging Face folder, as `export` does, at the end of `fit`: huggingface/step=N in the run
    folder. Each folder is loaded again and compared with the trained model, which takes memory for one more copy on the
    CPU of rank 0.

    Args:
        every_validation: After each validation too.
        adapter: Of a model with LoRA, write only the adapters, for peft, instead of merging them.
    """

    def __init__(self, every_validation: bool = False, adapter: bool = False, folder: str = "huggingface") -> None:
        self.every_validation = every_validation
        self.adapter = adapter
        self.folder = folder
        self._written = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_validation and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._write(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """By rank 0; the others give it their parts of the model and wait."""
        module, step = _checked(self, pl_module), trainer.global_step
        if step == self._written:
            return
        self._written = step
        checkpoint = {"state_dict": full_state(module.lm), "global_step": step, "epoch": trainer.current_epoch}
        module.on_save_checkpoint(checkpoint)
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            folder = run / self.folder / f"step={step}"
            write_folder(folder, checkpoint, module.data.tokenizer, run=run, adapter=self.adapter)
            print(f"exported to {folder}")
        trainer.strategy.barrier()


def _checked(callback: pl.Callback, module: pl.LightningModule) -> CoHModule:
    if not isinstance(module, CoHModule):
        raise InputError(f"{type(callback).__name__} needs a CoHModule and got {type(module).__name__}.")
    return module
