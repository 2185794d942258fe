"""`fit`, `validate`, `test` and `predict`: LightningCLI over `CoHModule` and `CoHDataModule`, each run in a folder of
its own (runs.py).

What is added to Lightning's: `run.name`, `run.folder` and `run.wandb`; the resolved configuration kept beside the
results; a run that stopped is gone on with by the same command; a mistake in the input ends in one line
(complaints.py). Our other commands don't come here (__main__.py), since this import takes seconds.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, is_dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, NoReturn

import lightning.pytorch as pl
import torch
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf.errors import OmegaConfBaseException

from coh_lightning import parsing
from coh_lightning.callbacks import CompletionWriter
from coh_lightning.complaints import Typed, broken_reference, complaint, keys_of
from coh_lightning.errors import InputError, words_of
from coh_lightning.files import alone, unwritten, written_aside
from coh_lightning.launch import as_launched
from coh_lightning.monitors import MonitorsKnown, missed
from coh_lightning.runs import (
    CHECKPOINTS,
    CONFIG,
    FILES_OF_SETUP,
    FINISHED,
    LAST,
    Run,
    checked_checkpoint,
    code_versions,
    new_folder,
    open_fit,
    wandb_id,
    with_versions,
)
from coh_lightning.shards import METADATA, check_shards
from coh_lightning.stops import RunTrainer, StopOnSignal
from coh_lightning.yaml_text import load

RUN_FOLDER = "COH_RUN_FOLDER"
"""Environment variable by which the first process tells the processes that Lightning starts for it where the run is
kept.
"""

TRAINER_DEFAULTS = {
    "default_root_dir": "runs",  # the folder of all runs; the Trainer itself is given the folder of this one
    "use_distributed_sampler": False,  # the plan gives each rank its rows; Lightning's sampler would shuffle them
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
}
CHECKPOINT_EVERY = 100
"""Steps between the checkpoints on the way, unless the configuration has a ModelCheckpoint of its own."""


class CoHParser(LightningArgumentParser):
    """LightningCLI's parser, which takes no abbreviated keys and complains in one line."""

    known: Sequence[str] = ()
    typed: Typed = Typed()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # an abbreviated key is a mistyped one
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.classes: dict[str, type] = {}

    def add_lightning_class_args(self, lightning_class: Any, nested_key: str, *args: Any, **kwargs: Any) -> list[str]:
        self.classes[nested_key] = lightning_class
        return super().add_lightning_class_args(lightning_class, nested_key, *args, **kwargs)

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The settings as YAML that reads back as these settings."""
        return parsing.written(self, super().dump(*args, **kwargs))

    def keys(self) -> list[str]:
        """Every key that may stand in a configuration file of this command."""
        nested = [f"{key}.{name}" for key, kind in self.classes.items() for name in keys_of(kind)]
        return sorted(
            {action.dest for action in self._actions if action.dest not in ("help", "config", "print_config")}
            | set(nested)
        )

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """jsonargparse's, and the settings of the classes that it hides behind `--model CONFIG`."""
        listed_here = {action.dest for action in self._actions}
        hidden = {key: kind for key, kind in self.classes.items() if f"{key}.{next(keys_of(kind))}" not in listed_here}
        listed = CoHParser(
            usage=argparse.SUPPRESS,
            description="",
            add_help=False,
            parser_mode=self.parser_mode,
            formatter_class=self.formatter_class,
        )
        for key, kind in hidden.items():
            listed.add_class_arguments(kind, key)
        return super().format_help(formatter) + (f"\n{ArgumentParser.format_help(listed).strip()}\n" if hidden else "")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse would take the value of --key=-- for the end of the options
        return (
            arg_strings[0]
            if action.nargs is None and arg_strings == ["--"]
            else super()._get_values(action, arg_strings)
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line as `InputError`; the parsers of nested classes pass their message on to the one that holds them.

        Raises:
            InputError: always, for the parser of a command.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        cause: BaseException | None = ex
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        raise InputError(
            str(cause) if cause else complaint(message, known=CoHParser.known, typed=CoHParser.typed)
        ) from ex


class MetricsFile(CSVLogger):
    """Lightning's CSV logger with one file directly in the run folder, gone on with when a run is resumed.

    Args:
        folder: The run folder.
        file: metrics.csv for fit, else test.csv, ...
        append: Keep the rows that are there, up to the step from which this process logs.
    """

    def __init__(self, folder: Path, file: str, *, append: bool) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._file = file
        self._append = append

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if not isinstance(self._experiment, _MetricsWriter):
            self._experiment = _MetricsWriter(self.log_dir, self._file, append=self._append)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: config.yaml has them all."""


class _MetricsWriter(ExperimentWriter):
    def __init__(self, log_dir: str, file: str, *, append: bool) -> None:
        self.NAME_METRICS_FILE = file
        self._append = append
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists() and not self._append:
            path.unlink()

    def save(self) -> None:
        """Raises InputError where the disk is full, or read-only, ..."""
        if not self.metrics:  # Lightning saves before it logs
            return
        if self._append and Path(self.metrics_file_path).exists():
            self._drop_rows_from(min(row["step"] for row in self.metrics))
        self._append = False
        try:
            super().save()
        except OSError as error:
            raise unwritten(self.metrics_file_path, error) from error

    def _drop_rows_from(self, step: float) -> None:
        """The run stopped after its newest checkpoint, so that its last steps are made, and logged, again: their old
        rows go, and a row that was cut short.
        """
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(line for line in file if line.endswith("\n"))
            rows = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or [])
        self._write_anew(self.metrics_keys, rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._write_anew(fieldnames, rows)

    def _write_anew(self, fieldnames: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        with written_aside(self.metrics_file_path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)


class RunConfig(pl.Callback):
    """Keeps the resolved configuration in the run folder, a checkpoint of the end of training, and the mark of a
    finished run.

    Args:
        run: The run.
        text: The resolved configuration, as YAML.
        file: Its name in the run folder.
        keep: Whether anything is written; a `fast_dev_run` keeps nothing.
    """

    def __init__(self, run: Run, text: str, file: str, *, keep: bool) -> None:
        self.run = run
        self.text = text
        self.file = file
        self.keep = keep
        self._log_every: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # ranks that were not started by rank 0 (torchrun, SLURM) learn only here which folder it chose
        folder = trainer.strategy.broadcast(str(self.run.folder))
        trainer._default_root_dir = folder  # type: ignore[attr-defined]
        if trainer.is_global_zero and self.keep:
            file = Path(folder) / self.file
            with written_aside(file) as aside:
                aside.write_text(with_versions(self.text, file), encoding="utf-8")
            for logger in trainer.loggers:
                logger.log_hyperparams({**load(self.text), "versions": code_versions()})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """What fails before the first step (no such model, an option that Lightning refuses, too little memory, ...)
        leaves nothing in a folder that it began, so that the same command, put right, may be given again. A run that
        was interrupted keeps its folder."""
        begun = self.file == CONFIG and self.run.resume is None and trainer.global_step == 0
        if trainer.is_global_zero and begun and isinstance(exception, Exception):
            for name in (self.file, *FILES_OF_SETUP):
                (Path(trainer.default_root_dir) / name).unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the last step is always logged: a run shorter than log_every_n_steps has its metrics.csv too
        last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch):
            self._log_every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            trainer.log_every_n_steps = min(1, self._log_every)  # type: ignore[attr-defined]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._log_every is not None:
            trainer.log_every_n_steps = self._log_every  # type: ignore[attr-defined]
        if trainer.checkpoint_callbacks and self.keep:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINTS / LAST)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.keep:
            return
        folder = Path(trainer.default_root_dir)
        last = folder / CHECKPOINTS / LAST
        if (
            self.run.resume is not None and not last.exists()
        ):  # it had stopped after its last step, so there was no training that could end
            with written_aside(last) as aside:
                (shutil.copytree if self.run.resume.is_dir() else shutil.copyfile)(self.run.resume, aside)
        with written_aside(folder / FINISHED) as aside:
            aside.write_text(f"{trainer.global_step} steps\n", encoding="utf-8")


class Stopped(SystemExit):
    """A signal ended the run; the code is the exit status."""


class CoHCLI(LightningCLI):
    """LightningCLI with a folder for each run. `run` is known once the arguments are parsed."""

    run: Run
    text: str
    stop_on_signal: StopOnSignal
    _new: Sequence[Path] = ()
    """The folders that this process made, the innermost first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run.name",
            type=str,
            default="run",
            help="Kind of run: it is kept in ROOT/NAME/<time>-<hash>, ROOT being trainer.default_root_dir.",
        )
        parser.add_argument(
            "--run.folder",
            type=str | None,
            default=None,
            help="Keep the run exactly here. A fit that stopped here goes on; a finished one is never overwritten.",
        )
        parser.add_argument(
            "--run.wandb",
            type=Literal["offline", "online"] | None,
            default=None,
            help=(
                "Log to W&B too, into wandb/ of the run folder; online sends it as well. WANDB_PROJECT, "
                "WANDB_RUN_GROUP, ... are W&B's own variables."
            ),
        )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        for subcommand in self._subcommand_parsers.values():
            subcommand.set_defaults({"weights_only": True})  # Lightning would take a pickle from an address
        CoHParser.known = sorted(
            {
                key
                for parser in self._subcommand_parsers.values()
                if isinstance(parser, CoHParser)
                for key in parser.keys()
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise InputError(CoHParser.typed.broken() or f"a configuration file is no text: {error}") from error

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would let the hyperparameters of a checkpoint silently overrule the command line."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        given = [
            word for word in CoHParser.typed.argv if word.startswith("--data.sources=")
        ]
        if given and config.data.get("sources") is None:
            raise InputError(
                f"{given[-1]}: there is no source in it; name a YAML list of sources, or give a file of records as "
                "--data.feedback."
            )
        groups = {key: config[key] for key in ("run", "trainer")}
        for key, made in (("model", self._model_class), ("data", self._datamodule_class)):
            groups |= {f"{key}.{name}": config[key][name] for name in plain_defaults(made)}
        for key, value in groups.items():  # the parser takes a number in the place of a group
            if not isinstance(value, Namespace):
                raise InputError(f"{key} is {value!r:.60}; it holds settings, written as key: value.")
        named = config.run.folder
        shown = config.clone()
        shown.run.folder = None  # so that the file can be run again
        self.text = self._parser(self.subcommand).dump(shown, skip_unset=False)
        resolved = load(self.text)
        config.trainer.devices, config.trainer.num_nodes = as_launched(config.trainer.devices, config.trainer.num_nodes)
        if config.ckpt_path not in (None, "best", "last", "hpc", "registry") and "://" not in config.ckpt_path:
            checked_checkpoint(Path(config.ckpt_path))
        if not _first():
            # the first process has made the folder; one that it did not start hears of it later (RunConfig.setup)
            folder = Path(os.environ.get(RUN_FOLDER) or named or config.trainer.default_root_dir)
            self.run = open_fit(resolved, folder=folder) if named and self.subcommand == "fit" else Run(folder)
            return
        root = Path(config.trainer.default_root_dir or "runs")
        kind = Path(named) if named else root / config.run.name
        new = [path for path in (kind, *kind.parents) if not path.exists()]
        if named and self.subcommand == "fit":
            self.run = open_fit(resolved, folder=kind)
            self._held.enter_context(
                alone(
                    kind,
                    f"run.folder is {kind}, where another process is at work on this run; wait for its end, or name "
                    "another folder.",
                )
            )
        elif named:
            self.run = Run(kind)
            kind.mkdir(parents=True, exist_ok=True)
        else:
            self.run = Run(new_folder(resolved, root=root, name=config.run.name))
            new.insert(0, self.run.folder)
        self._new = new
        os.environ[RUN_FOLDER] = str(self.run.folder)
        loggers = config.trainer.get("logger")
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            # left to itself, W&B writes into the working folder
            if str(getattr(logger, "class_path", "")).endswith("WandbLogger") and logger.init_args.get("save_dir") in (
                None,
                ".",
            ):
                logger.init_args.save_dir = str(self.run.folder)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        fit = self.subcommand == "fit"
        config = self._get(self.config_init, "trainer")
        if config.get("barebones"):
            raise InputError(
                "trainer.barebones is true, but a run keeps its metrics and checkpoints, which that forbids; leave "
                "it out."
            )
        given = config.get("logger")
        loggers: list[Logger] = [
            MetricsFile(
                self.run.folder, "metrics.csv" if fit else f"{self.subcommand}.csv", append=self.run.resume is not None
            )
        ]
        if isinstance(given, Logger):
            loggers.append(given)
        elif isinstance(given, (list, tuple)):
            loggers += given
        if (mode := self.config_init[self.subcommand].run.wandb) is not None and _first():
            loggers.append(self._wandb(mode))
        callbacks = (
            list(config.get("callbacks") or [])
            if isinstance(config.get("callbacks"), (list, tuple, type(None)))
            else [config.get("callbacks")]
        )
        keep = not config.get("fast_dev_run")
        # what the model wrote is kept first: callbacks of the configuration (HumanEvalExport) read it
        callbacks = [
            CompletionWriter(),
            MonitorsKnown(),
            *callbacks,
            RunConfig(self.run, self.text, CONFIG if fit else f"{self.subcommand}.yaml", keep=keep),
        ]
        self.stop_on_signal = StopOnSignal(CHECKPOINTS)
        if keep:
            callbacks.append(self.stop_on_signal)
        if config.get("enable_checkpointing") is not False and not any(
            isinstance(callback, Checkpoint) for callback in callbacks
        ):
            callbacks.append(
                ModelCheckpoint(self.run.folder / CHECKPOINTS, filename="{step}", every_n_train_steps=CHECKPOINT_EVERY)
            )
        try:
            return super().instantiate_trainer(
                **kwargs, default_root_dir=str(self.run.folder), logger=loggers, callbacks=callbacks
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error

    def _wandb(self, mode: Literal["offline", "online"]) -> WandbLogger:
        """W&B's record of this run, kept in its folder; a run that goes on is the same one for W&B. What W&B's own
        variables say comes first.
        """
        folder = self.run.folder
        return WandbLogger(
            project=os.environ.get("WANDB_PROJECT", "coh_lightning"),
            name=os.environ.get("WANDB_NAME", folder.name),
            id=os.environ.get("WANDB_RUN_ID") or wandb_id(folder),
            save_dir=folder,
            offline=mode == "offline",
        )

    def _reach_wandb(self) -> None:
        """W&B that can't be reached is no reason not to train: the run is then kept beside the others, to be sent by
        `wandb sync` later.
        """
        for logger in self.trainer.loggers:
            if not isinstance(logger, WandbLogger) or not _first():
                continue
            import wandb

            try:
                logger.experiment  # noqa: B018 - what begins a run of W&B
            except wandb.errors.CommError as error:
                wandb.teardown()
                os.environ["WANDB_MODE"] = "offline"
                self._say(
                    f"W&B can't be reached ({words_of(error)}); the run is logged offline: wandb sync "
                    f"{self.run.folder}/wandb/offline-run-*"
                )

    def before_fit(self) -> None:
        if self.run.resume is not None:
            self.config_init["fit"]["ckpt_path"] = str(self.run.resume)
            self._say(f"resumed from {self.run.resume}")
        elif (self.run.folder / CONFIG).exists():
            self._say(f"{self.run.folder} has no checkpoint yet: the run begins again")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            given = self._get(self.config_init, "ckpt_path")
            if (
                given is not None
                and Path(given).is_dir()
                and not isinstance(self.trainer.strategy, (FSDPStrategy, ModelParallelStrategy))
            ):
                raise InputError(
                    f"ckpt_path: {given} is a folder of shards, which needs the strategy that wrote it; set "
                    "trainer.strategy, or give the folder as model.model and no ckpt_path."
                )
            for path in (given, self.run.resume):
                if path is not None and (Path(path) / METADATA).is_file():
                    check_shards(Path(path))  # before torch reads it, which takes the metadata at its word
        except BaseException as error:
            self._leave_nothing_empty()
            # the parser takes null for any key; what a class says of it is in the middle of the parser's words
            null = (
                re.findall(r"Problem with given class_path '([^']+)':\s+([^\n]*'NoneType'[^\n]*)", str(error))
                if isinstance(error, ValueError)
                else []
            )
            if null:
                raise InputError(
                    f"{null[-1][0]} can't be made: one of its keys is null and needs a value ({null[-1][1].strip()})."
                ) from error
            raise

    def _run_subcommand(self, subcommand: str) -> None:
        self._say(f"run folder: {self.run.folder}")
        try:
            self._reach_wandb()
            super()._run_subcommand(subcommand)
        except BaseException as error:
            self._leave_nothing_empty()
            if isinstance(
                error, SIGTERMException
            ):  # Lightning's word for it would be an exit with 0, which a scheduler takes for success
                number = self.stop_on_signal.received or signal.SIGTERM
                self._say(f"stopped by {signal.Signals(number).name}: {self.run.folder}")
                raise Stopped(128 + number) from error
            if (misfortune := _misfortune(error)) is not None:
                raise InputError(misfortune) from error
            if isinstance(error, MisconfigurationException):
                raise InputError(f"trainer: {' '.join(str(error).split())}") from error
            raise
        self._say(f"finished: {self.run.folder}")
        self._leave_nothing_empty()

    @rank_zero_only
    def _say(self, line: str) -> None:
        print(line, flush=True)

    @rank_zero_only
    def _leave_nothing_empty(self) -> None:
        """A command that wrote nothing (it failed early, or was a fast_dev_run) leaves no folder behind."""
        self._held.close()
        for path in self._new:
            if not path.is_dir():
                continue
            if any(path.iterdir()):
                return
            path.rmdir()


def plain_defaults(kind: Callable[..., object]) -> dict[str, Any]:
    """The defaults of a class that are dataclasses, as plain values: jsonargparse can't write down a dataclass within a
    list of another's default.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    return {
        name: asdict(value) for name, value in defaults.items() if is_dataclass(value) and not isinstance(value, type)
    }


def _misfortune(error: BaseException) -> str | None:
    """A sentence for what a library says of a mistake, or for what befell a run from outside: too little memory, a
    worker or another rank that died.
    """
    if isinstance(error, InputError):
        # torch puts the traceback of the process that builds rows into the message
        return (
            str(error).rpartition(f"\n{InputError.__module__}.InputError: ")[2].strip()
            if "DataLoader worker" in str(error)
            else None
        )
    if (unlogged := missed(error)) is not None:
        return unlogged
    said = textwrap.shorten(str(error), 120, placeholder=" ...")
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said:
        return (
            f"there was not enough memory ({said}); lower data.row_tokens (data.max_chain_tokens is the least that "
            "it can be), "
            "set model.gradient_checkpointing=true, or share the model over GPUs (trainer.strategy)."
        )
    if "gloo" in str(error) and any(
        words in str(error) for words in ("Connection closed by peer", "Connection reset by peer")
    ):
        return "the connection to another rank was lost: that one ended first, and its own message says why."
    at_work = any(
        frame.name == "_try_get_data" for frame in traceback.extract_tb(error.__traceback__)
    )  # of a DataLoader: it was fetching what a worker had built
    if (at_work and isinstance(error, ConnectionError | EOFError | FileNotFoundError)) or (
        "DataLoader worker" in said and ("killed by signal" in said or "exited unexpectedly" in said)
    ):
        return (
            f"a process that builds rows died ({said}), most often for want of memory; lower data.num_workers, and "
            "run the same command again."
        )
    return None


def _first() -> bool:
    """Whether this is the process of rank 0, asked before there is a Trainer."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _quieten() -> None:
    """What libraries tell each other, and an advertisement, would stand between the lines that a user should read."""
    noise = ("litlogger", "`weights_only` was not set")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not any(words in record.getMessage() for words in noise))
    for message in (".*LeafSpec.*", ".*set_vital.*", "The dirpath has changed from.*"):
        warnings.filterwarnings("ignore", message=message)


def build(
    model_class: type[pl.LightningModule],
    data_class: type[pl.LightningDataModule],
    *,
    open_classes: Sequence[type] = (),
    args: list[str] | None = None,
) -> CoHCLI:
    """Parse the command line and run it.

    Args:
        model_class: The module, unless the configuration names another class.
        data_class: The data module, likewise.
        open_classes: Dataclasses whose subclasses may be named in a configuration.
        args: The arguments; None takes those of the process.
    """
    CoHParser.typed = Typed(sys.argv[1:] if args is None else args, Path.cwd())
    _quieten()
    set_parsing_settings(subclasses_enabled=list(open_classes))
    command = CoHParser.typed.argv[0] if CoHParser.typed.argv else "fit"

    class OneCommand(CoHCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            """Only the command that was asked for: a parser takes a third of a second to make, and there would be
            four.
            """
            every = LightningCLI.subcommands()
            return {command: every[command]} if command in every else every

    return OneCommand(
        model_class,
        data_class,
        save_config_callback=None,  # RunConfig does it
        trainer_class=RunTrainer,
        trainer_defaults=TRAINER_DEFAULTS,
        seed_everything_default=0,
        parser_class=CoHParser,
        parser_kwargs={"parser_mode": "omegaconf+"},
        auto_configure_optimizers=False,
        args=args,
    )


def ours() -> tuple[type[pl.LightningModule], type[pl.LightningDataModule], Sequence[type]]:
    """Our module, our data module, and the dataclasses whose subclasses a configuration may name; the rest of this file
    knows of no model and no data.
    """
    from coh_lightning.data import CoHDataModule
    from coh_lightning.module import CoHModule
    from coh_lightning.sources import Source

    return CoHModule, CoHDataModule, (Source,)


def run(args: list[str] | None = None) -> int:
    """The commands as a user calls them, with an exit status.

    Raises:
        InputError: something that the user can put right.
    """
    model_class, data_class, open_classes = ours()
    try:
        build(model_class, data_class, open_classes=open_classes, args=args)
    except OmegaConfBaseException as error:
        raise broken_reference(error) from error
    except UnpicklingError as error:
        raise InputError(
            "ckpt_path: the checkpoint holds more than plain data, so that loading it could run code "
            f"({words_of(error)})."
        ) from error
    except Stopped as stop:
        return int(stop.code or 0)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning ends with 1 after Ctrl-C
            raise KeyboardInterrupt from stop
        raise
    return 0
