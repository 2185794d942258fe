"""Callbacks that Lightning doesn't have: `CompletionWriter` keeps what the model wrote, `HumanEvalExport` makes a blind
rating study of it, `HuggingFaceExport` exports the model.
"""

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

from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import write_folder
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.generation.samples import sample_rows
from coh_lightning.generation.samples_page import write_samples
from coh_lightning.human_eval.export import export_study
from coh_lightning.io import explain_os_error
from coh_lightning.model.sharding import full_state, is_writer_rank
from coh_lightning.module import CoHModule

ROUNDS = "completions"
"""Folder of the completions of `fit`: one file per round, named by its step."""


class CompletionWriter(pl.Callback):
    """Keeps all ranks' completions in the run folder, in the order of prompt, ask and sample, and a page of them
    (`samples.html`).

        completions.jsonl            of `test` and `predict`
        completions/step=400.jsonl   of each round of writing during `fit` (`model.generation.generate_every_n_validations`)
        samples.html                 completions under each feedback sentence, side by side, the newest round first

    Each rank appends to a file of its own, batch by batch, so that a run that is interrupted leaves what it had; these
    are merged at the end. A W&B logger gets the same rows as a table.

    Args:
        file: Name of the file of `test` and `predict`.
        page: Whether `samples.html` is written.
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
        new = (
            pl_module.writer.written[self._kept :]
            if isinstance(pl_module, CoHModule) and is_writer_rank(trainer)
            else []
        )
        if not new:
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
        if trainer.world_size > 1:  # callbacks that run next read the file
            torch.distributed.barrier()

    def _merge_all(self, trainer: pl.Trainer, name: Path) -> None:
        parts = [path for rank in range(trainer.world_size) if (path := self._part(trainer, rank)).exists()]
        every = [completion for part in parts for completion in read_jsonl(part, Completion)]
        if not every:
            return
        every.sort(key=lambda one: (one.prompt_id, one.ask))  # samples of one prompt stay in their order
        folder = Path(trainer.default_root_dir)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, every)
        for part in parts:
            part.unlink()
        if self.page:
            write_samples(
                folder / "samples.html",
                [(name.stem.replace("=", " "), every)] if name == Path(self.file) else _rounds(folder),
            )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                columns, rows = sample_rows(every, label=name.stem.replace("=", " "))
                logger.log_table(key="completions", columns=columns, data=rows, step=trainer.global_step)
        if name == Path(self.file):
            print(f"{len(every)} completions in {folder / name}")


def _rounds(folder: Path) -> list[tuple[str, Sequence[Completion]]]:
    """The completions of `fit`, round by round, the newest last."""
    files = sorted((folder / ROUNDS).glob("step=*.jsonl"), key=lambda path: int(path.stem.removeprefix("step=")))
    return [(path.stem.replace("=", " "), list(read_jsonl(path, Completion))) for path in files]


class HumanEvalExport(pl.Callback):
    """Makes a blind rating study of the model against another system, as `human-eval export` does, at the end of
    `test`, `predict` or `fit`.

    A study needs two systems, so `against` has no default:

        references      the data's references
        before          the model before training (`fit` alone: it writes for the held-out prompts at its start and end)
        bad             this model under the bad sentence: a control of steering, not a comparison of two systems
        FILE            completions of another system (`completions.jsonl` of its run), matched by prompt id and hash

    Args:
        against: As above.
        raters: How many sheets to write.
        overlap: Items that every rater gets; each of the others goes to one.
        attributes: What is asked of each pair.
        seed: Of sides, order and checks.
        forms: Further forms of the same sheets: xlsx, label-studio, potato.
        folder: Name of the folder in the run folder.
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
                f"HumanEvalExport.against is '{against}', and there is no such file; give a completions file of "
                "another system, or references, before or bad."
            )
        self.against = against
        self.raters = raters
        self.overlap = overlap
        self.attributes = tuple(attributes)
        self.seed = seed
        self.forms = tuple(forms)
        self.folder = folder

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.against == "before":
            self._write(trainer, pl_module, "before")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module, "after")
        self._export(trainer, "completions_after.jsonl")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._export(trainer, "completions.jsonl")

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._export(
            trainer, "completions.jsonl", dialogues=isinstance(pl_module, CoHModule) and pl_module.generation.dialogues
        )

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, when: str) -> None:
        """The held-out prompts of the test split, by all ranks, into completions_before.jsonl or
        completions_after.jsonl.
        """
        if not isinstance(pl_module, CoHModule):
            raise InputError(
                f"HumanEvalExport needs a CoHModule and got {type(pl_module).__name__}; it writes with the module's "
                "own prompts."
            )
        every = pl_module.write_share("test")
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
            raise InputError(
                f"HumanEvalExport finds no {own}; put a CompletionWriter before it among the trainer's callbacks."
            )
        files, before = [own], folder / "completions_before.jsonl"  # the first is the baseline
        if self.against == "before":
            if not before.is_file():
                raise InputError(
                    f"HumanEvalExport.against is 'before', but {before} is not there: only a fit writes it; use "
                    "`fit`, or give a completions file."
                )
            files.insert(0, before)
        elif self.against not in ("references", "bad"):
            files.insert(0, Path(self.against))
        study = export_study(
            files,
            folder / self.folder,
            raters=self.raters,
            overlap=self.overlap,
            attributes=self.attributes,
            seed=self.seed,
            against_references=self.against == "references",
            control=("bad", "good") if self.against == "bad" else None,
            dialogues=dialogues,
            forms=self.forms,
            overwrite=True,  # but never a study that has judgments
        )
        print(
            f"{len(study.items)} items for {self.raters} rater(s) in {folder / self.folder}; key.json there says "
            "which side is whose, so send only the sheets"
        )


class HuggingFaceExport(pl.Callback):
    """Writes the model as a Hugging Face folder, as `export` does, at the end of `fit`: huggingface/step=N in the run
    folder. Each folder is loaded again and compared with the trained model (export_check.py), which takes memory for
    one more copy on the CPU of rank 0.

    Args:
        every_validation: After each validation too.
        adapter: Of a model with LoRA, write the adapters alone, for peft; else they are merged.
        folder: Name of the folder in the run folder.
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
        if not isinstance(pl_module, CoHModule):
            raise InputError(
                f"HuggingFaceExport needs a CoHModule and got {type(pl_module).__name__}; it writes what that module "
                "was trained with."
            )
        if trainer.global_step == self._written:
            return
        self._written = trainer.global_step
        checkpoint = {
            "state_dict": full_state(pl_module.lm),
            "global_step": trainer.global_step,
            "epoch": trainer.current_epoch,
        }
        pl_module.on_save_checkpoint(checkpoint)
        if trainer.is_global_zero:
            run = Path(trainer.default_root_dir)
            folder = run / self.folder / f"step={trainer.global_step}"
            write_folder(folder, checkpoint, pl_module.data.tokenizer, run=run, adapter=self.adapter)
            print(f"exported to {folder}")
        trainer.strategy.barrier()
