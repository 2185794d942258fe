"""W&B's record of a run, kept in the run folder; nothing is sent unless `--run.wandb=online` asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, WandbLogger

from coh_lightning.errors import first_line
from coh_lightning.runs.run_folder import wandb_id


def wandb_logger(folder: Path, mode: Literal["offline", "online"]) -> WandbLogger:
    """The logger of `--run.wandb`: a resumed run is the same run for W&B. W&B's own variables come first."""
    return WandbLogger(
        project=os.environ.get("WANDB_PROJECT", "coh_lightning"),
        name=os.environ.get("WANDB_NAME", folder.name),
        id=os.environ.get("WANDB_RUN_ID") or wandb_id(folder),
        save_dir=folder,
        offline=mode == "offline",
    )


def keep_in(folder: Path, logger: object) -> None:
    """A W&B logger of the configuration that names no folder writes into the run folder, not the working folder."""
    if isinstance(logger, Namespace) and str(logger.get("class_path", "")).endswith("WandbLogger"):
        if logger.init_args.get("save_dir") in (None, "."):
            logger.init_args.save_dir = str(folder)


def connect(loggers: Iterable[Logger], folder: Path, say: Callable[[str], None]) -> None:
    """Begin the run on W&B; where it can't be reached, log offline, for `wandb sync` to send later."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        try:
            logger.experiment  # noqa: B018 - what begins a run of W&B
        except wandb.errors.CommError as error:
            wandb.teardown()
            os.environ["WANDB_MODE"] = "offline"
            say(
                f"W&B can't be reached ({first_line(error)}); the run is logged offline: wandb sync "
                f"{folder}/wandb/offline-run-*"
            )
