"""`fit`, `validate`, `test` and `predict`: LightningCLI with `CoHModule` and `CoHDataModule`, a folder per run.

Added to LightningCLI: `run.name`, `run.folder` and `run.wandb`; the resolved configuration beside the results; the same
command resumes a run that stopped; errors of the configuration in one sentence. Importing this file takes seconds.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import lightning.pytorch as pl
from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.cli.config_errors import Typed
from coh_lightning.cli.config_parser import CoHParser
from coh_lightning.cli.environment_errors import environment_error
from coh_lightning.errors import InputError, counted, first_line
from coh_lightning.io import exclusive_lock
from coh_lightning.model.sharded_checkpoint import METADATA, check_shards
from coh_lightning.runs.closing import closing_lines
from coh_lightning.runs.launch import as_launched
from coh_lightning.runs.loggers import MetricsFile, connect, keep_in, wandb_logger
from coh_lightning.runs.monitors import MonitorsKnown
from coh_lightning.runs.preemption import RunTrainer, StopOnSignal
from coh_lightning.runs.run_config import RunConfig
from coh_lightning.runs.run_folder import CHECKPOINTS, CONFIG, Run, checked_checkpoint, new_folder, open_fit
from coh_lightning.training.progress import RunProgress
from coh_lightning.training.result_tables import held_out_tables, show_tables
from coh_lightning.yaml_text import load

RUN_FOLDER = "COH_RUN_FOLDER"
"""Environment variable with the run folder, for the processes that Lightning starts for the other ranks."""

TRAINER_DEFAULTS = {
    "default_root_dir": "runs",  # of all runs; the Trainer itself gets the folder of this one
    "use_distributed_sampler": False,  # the plan gives each rank its rows
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
}
CHECKPOINT_EVERY = 100
"""Steps between checkpoints, unless the configuration has its own ModelCheckpoint."""
SPECIAL_CHECKPOINTS = (None, "best", "last", "hpc", "registry")
"""Values of ckpt_path that aren't paths."""


class Stopped(SystemExit):
    """A signal ended the run; the code is the exit status."""


class CoHCLI(LightningCLI):
    """LightningCLI with a folder for each run."""

    run: Run
    """Known once the arguments are parsed, as is `text`."""
    text: str
    """The resolved configuration, as YAML."""
    stop_on_signal: StopOnSignal
    _one_epoch = False
    """Whether `fit` takes the default length."""
    _new: Sequence[Path] = ()
    """The folders that this process made, the innermost first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with ExitStack() as self._held:
            super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        run = parser.add_argument_group("Where the run is kept")
        name = "The run is kept in trainer.default_root_dir/NAME/<time>-<hash>."
        folder = "Keep the run exactly here. A fit that stopped here resumes; a finished one is never overwritten."
        wandb = (
            "Log to W&B too, into wandb/ of the run folder; online sends it as well. WANDB_PROJECT, WANDB_RUN_GROUP, "
            "... are W&B's own variables."
        )
        run.add_argument("--run.name", type=str, default="run", help=name)
        run.add_argument("--run.folder", type=str | None, default=None, help=folder)
        run.add_argument("--run.wandb", type=Literal["offline", "online"] | None, default=None, help=wandb)

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        parsers = [parser for parser in self._subcommand_parsers.values() if isinstance(parser, CoHParser)]
        for parser in parsers:
            parser.set_defaults({"weights_only": True})  # Lightning would take a pickle from an address
            if any(action.dest == "verbose" for action in parser._actions):
                parser.set_defaults({"verbose": False})  # our own tables take its place (result_tables.py)
        CoHParser.known = sorted({key for parser in parsers for key in parser.keys()})

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let hyperparameters in a checkpoint override the command line."""

    def before_instantiate_classes(self) -> None:
        config, parser = self.config[self.subcommand], self._parser(self.subcommand)
        assert isinstance(parser, CoHParser)
        parser.check_groups(config)
        given = [word for word in CoHParser.typed.argv if word.startswith("--data.sources=")]
        if given and config.data.get("sources") is None:
            raise InputError(f"{given[-1]} has no source; give a YAML list of sources, or records as --data.feedback.")
        named = config.run.folder
        self._one_epoch = self.subcommand == "fit" and _endless(config.trainer)
        if self._one_epoch:
            config.trainer.max_epochs = 1
        shown = config.clone()
        shown.run.folder = None  # so that the file can be run again
        self.text = parser.dump(shown, skip_unset=False)
        config.trainer.devices, config.trainer.num_nodes = as_launched(config.trainer.devices, config.trainer.num_nodes)
        if config.ckpt_path not in SPECIAL_CHECKPOINTS and "://" not in config.ckpt_path:
            checked_checkpoint(Path(config.ckpt_path))
        if not _first():
            # rank 0 makes the folder; ranks that it did not start learn its name later (RunConfig.setup)
            folder = Path(os.environ.get(RUN_FOLDER) or named or config.trainer.default_root_dir)
            fit = named and self.subcommand == "fit"
            self.run = open_fit(load(self.text), folder=folder) if fit else Run(folder)
            return
        self._open_folder(named, Path(config.trainer.default_root_dir or "runs"), config.run.name)
        os.environ[RUN_FOLDER] = str(self.run.folder)
        loggers = config.trainer.get("logger")
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            keep_in(self.run.folder, logger)

    def _open_folder(self, named: str | None, root: Path, name: str) -> None:
        """Makes the folder of this run, or opens the one that `run.folder` names; a fit locks it."""
        folder = Path(named) if named else root / name
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        if not named:
            self.run = Run(new_folder(load(self.text), root=root, name=name))
            new.insert(0, self.run.folder)
        elif self.subcommand == "fit":
            self.run = open_fit(load(self.text), folder=folder)
            busy = f"run.folder is {folder}, where another process is training this run; wait, or name another folder."
            self._held.enter_context(exclusive_lock(folder, busy))
        else:
            self.run = Run(folder)
            folder.mkdir(parents=True, exist_ok=True)
        self._new = new

    @rank_zero_only
    def _remove_empty_folders(self) -> None:
        """After a command that wrote nothing (it failed early, or was a fast_dev_run)."""
        self._held.close()
        for path in self._new:
            if not path.is_dir():
                continue
            if any(path.iterdir()):
                return
            path.rmdir()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        fit = self.subcommand == "fit"
        config = self._get(self.config_init, "trainer")
        if config.get("barebones"):
            raise InputError(
                "trainer.barebones is true, which forbids the metrics and checkpoints of a run; remove it."
            )
        file = "metrics.csv" if fit else f"{self.subcommand}.csv"
        loggers: list[Logger] = [MetricsFile(self.run.folder, file, append=self.run.resume is not None)]
        loggers += [logger for logger in _listed(config.get("logger")) if isinstance(logger, Logger)]
        if (mode := self.config_init[self.subcommand].run.wandb) is not None and _first():
            loggers.append(wandb_logger(self.run.folder, mode))
        keep = not config.get("fast_dev_run")
        # CompletionWriter is first: callbacks of the configuration (HumanEvalExport) read its file
        callbacks = [
            CompletionWriter(),
            MonitorsKnown(),
            *_listed(config.get("callbacks")),
            RunConfig(self.run, self.text, CONFIG if fit else f"{self.subcommand}.yaml", keep=keep),
        ]
        self.stop_on_signal = StopOnSignal(CHECKPOINTS)
        if keep:
            callbacks.append(self.stop_on_signal)
        if config.get("enable_progress_bar") is not False and not any(isinstance(it, ProgressBar) for it in callbacks):
            callbacks.append(RunProgress())
        own = any(isinstance(callback, Checkpoint) for callback in callbacks)
        if config.get("enable_checkpointing") is not False and not own:
            folder = self.run.folder / CHECKPOINTS
            callbacks.append(ModelCheckpoint(folder, filename="{step}", every_n_train_steps=CHECKPOINT_EVERY))
        try:
            return super().instantiate_trainer(
                **kwargs, default_root_dir=str(self.run.folder), logger=loggers, callbacks=callbacks
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise _refused(error) from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
            given = self._get(self.config_init, "ckpt_path")
            sharded = isinstance(self.trainer.strategy, (FSDPStrategy, ModelParallelStrategy))
            if given is not None and Path(given).is_dir() and not sharded:
                raise InputError(
                    f"ckpt_path: {given} is a folder of shards, so set trainer.strategy to the one that wrote it, or "
                    "give the folder as model.name_or_path instead."
                )
            for path in (given, self.run.resume):
                if path is not None and (Path(path) / METADATA).is_file():
                    check_shards(Path(path))  # before torch reads it, which unpickles the metadata
        except BaseException as error:
            self._remove_empty_folders()
            # the parser accepts null for any key; the class's own error is in the middle of the parser's
            pattern = r"Problem with given class_path '([^']+)':\s+([^\n]*'NoneType'[^\n]*)"
            if isinstance(error, ValueError) and (null := re.findall(pattern, str(error))):
                name, reason = null[-1]
                raise InputError(
                    f"{name} can't be made: one of its keys is null and needs a value ({reason.strip()})."
                ) from error
            # of one thing or a list of them the parser tries each, and lists what went wrong with each
            if isinstance(error, ValueError) and (found := re.search(r"\nErrors:\n\s*- ([^\n]+)", str(error))):
                raise InputError(f"a class of the configuration can't be made: {found[1].strip()}") from error
            raise

    def before_fit(self) -> None:
        if self.run.resume is not None:
            self.config_init["fit"]["ckpt_path"] = str(self.run.resume)
            _say(f"resumed from {self.run.resume}")
        elif (self.run.folder / CONFIG).exists():
            _say(f"{self.run.folder} has no checkpoint yet: the run starts again")

    def _run_subcommand(self, subcommand: str) -> None:
        _say(f"run folder: {self.run.folder}")
        if self._one_epoch:
            _say("one epoch, since neither trainer.max_epochs nor trainer.max_steps is given")
        try:
            if _first():
                connect(self.trainer.loggers, self.run.folder, _say)
            super()._run_subcommand(subcommand)
        except BaseException as error:
            self._remove_empty_folders()
            if isinstance(error, SIGTERMException):  # Lightning would exit with 0, which a scheduler takes for success
                number = self.stop_on_signal.received or signal.SIGTERM
                _say(f"stopped by {signal.Signals(number).name}: {self.run.folder}")
                raise Stopped(128 + number) from error
            if (sentence := environment_error(error)) is not None:
                raise InputError(sentence) from error
            if isinstance(error, MisconfigurationException):
                raise _refused(error) from error
            raise
        self._show_end()
        self._remove_empty_folders()

    @rank_zero_only
    def _show_end(self) -> None:
        """The figures of `validate` and `test`; what to do next after `fit`."""
        trainer, folder = self.trainer, self.run.folder
        if self.subcommand in ("validate", "test") and not self.config_init[self.subcommand].get("verbose"):
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            show_tables(held_out_tables(figures, "val" if self.subcommand == "validate" else "test"))
        lines = [f"finished: {folder}"]
        if self.subcommand == "fit" and (folder / CONFIG).exists():
            lines = closing_lines(folder, counted(trainer.global_step, "step"))
        for line in lines:
            _say(line)


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)


def _refused(error: Exception) -> InputError:
    """Lightning's error about the Trainer's settings, on one line."""
    words = " ".join(str(error).split())
    if "No supported gpu backend" in words:
        words = "there is no GPU here; add --config conf/trainer/cpu.yaml to run on the CPU."
    return InputError(f"trainer: {words}")


def _endless(trainer: Namespace) -> bool:
    """Whether the settings of the Trainer say nothing of where training ends; Lightning would take 1,000 epochs."""
    return trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None


def _listed(value: Any) -> list[Any]:
    """A setting that may be one thing, several or none, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _first() -> bool:
    """Whether this is the process of rank 0, before there is a Trainer."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _silence_libraries() -> None:
    noise = ("litlogger", "`weights_only` was not set", "TPU available: False", "`Trainer.fit` stopped")
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
    """Parses the arguments (None: those of the process) and runs the command.

    `model` and `data` make the two classes; subclasses of the dataclasses `open_classes` may be named in a file.
    """
    CoHParser.typed = Typed(sys.argv[1:] if args is None else args, Path.cwd())
    _silence_libraries()
    helped = "--help" in CoHParser.typed.argv  # the docstrings of fields are only read when they are shown
    set_parsing_settings(subclasses_enabled=list(open_classes), docstring_parse_attribute_docstrings=helped)
    command = CoHParser.typed.argv[0] if CoHParser.typed.argv else "fit"

    class OneCommand(CoHCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            """Only the one that is run: a parser takes a third of a second to make."""
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
    """Our module, our data module, and the dataclasses whose subclasses a configuration may name."""
    from coh_lightning.data import CoHDataModule
    from coh_lightning.feedback.sources import Source
    from coh_lightning.module import CoHModule

    return CoHModule, CoHDataModule, (Source,)


def run(args: list[str] | None = None) -> int:
    """Runs a command with our classes and returns the exit status; raises InputError for what the user can fix."""
    model_class, data_class, open_classes = ours()
    try:
        build(model_class, data_class, open_classes=open_classes, args=args)
    except UnpicklingError as error:
        why = "the checkpoint holds more than plain data, so that loading it could run code"
        raise InputError(f"ckpt_path: {why} ({first_line(error)}).") from error
    except Stopped as stop:
        return int(stop.code or 0)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning ends with 1 after Ctrl-C
            raise KeyboardInterrupt from stop
        raise
    return 0
