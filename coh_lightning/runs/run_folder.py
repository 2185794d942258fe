"""The run folder: what is in it, and whether its run may be resumed.

    runs/<name>/<time>-<hash of the resolved configuration>/
      config.yaml                the resolved configuration; `fit --config` of it repeats the run in a new folder
      metrics.csv                one row for each logged step
      checkpoints/               step=N.ckpt during the run, last.ckpt at its end
      finished                   written when fit has ended cleanly
      wandb/                     W&B's own files, with --run.wandb
      test.yaml, test.csv, ...   the same of validate, test and predict with --run.folder

Imports neither torch nor Lightning.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, counted
from coh_lightning.io import PART, explain_os_error
from coh_lightning.yaml_text import load

FINISHED = "finished"
CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
FILES_OF_SETUP = ("data.json", "rejected.jsonl")
LEFT_BY_SETUP = {*FILES_OF_SETUP, CHECKPOINTS, "wandb"}
"""Files of a run that stopped before its first step: such a folder may be used again."""


@dataclass(frozen=True)
class Run:
    folder: Path
    resume: Path | None = None
    """The checkpoint that it resumes from."""


def comparable(config: Mapping[str, Any], *, without: Collection[str] = ("default_root_dir",)) -> dict[str, Any]:
    """A resolved configuration without `run` and the keys `without` of the trainer, which say where it runs."""
    kept = {key: value for key, value in config.items() if key != "run"}
    if isinstance(kept.get("trainer"), Mapping):
        kept["trainer"] = {key: value for key, value in kept["trainer"].items() if key not in without}
    return kept


def fingerprint(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the resolved configuration, the same on every machine."""
    text = json.dumps(comparable(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]


def code_versions() -> dict[str, str]:
    """The versions of Python and of the main packages, and this package's commit in a git checkout (`-dirty`: with
    changes).
    """
    found = {name: version(name) for name in ("coh_lightning", "torch", "lightning", "transformers")}
    found["python"] = platform.python_version()
    here = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # fails in another project's checkout
        found["commit"] = git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


def with_versions(text: str, file: Path) -> str:
    """A configuration under a comment with the versions that ran it, and the earlier such lines of `file`: one for each
    code that a resumed run had.

    # run with coh_lightning 0.1.0, torch 2.13.0, lightning 2.6.6, transformers 5.23.0, python 3.11.9, commit 1a2b3c4
    """
    before = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
    now = "# run with " + ", ".join(f"{name} {found}" for name, found in code_versions().items())
    lines = [line for line in before if line.startswith("# run with ") and line != now]
    return "\n".join([*lines, now, text])


def wandb_id(folder: Path) -> str | None:
    """The last W&B id in a run folder, from the names of W&B's folders; None if there is none.

    wandb/offline-run-20260101_120000-a1b2c3d4   ->   a1b2c3d4
    """
    names = sorted((path.name.split("run-", 1)[1] for path in (folder / "wandb").glob("*run-*-*")), reverse=True)
    return names[0].split("-", 1)[1] if names else None


def differences(old: Any, new: Any, *, key: str = "") -> list[str]:
    """The keys in which two configurations differ, each with both values, in order.

    {"model": {"lr": 0.1, "n": 2}} and {"model": {"lr": 0.2, "n": 2}}   ->   ["model.lr (was 0.1, is 0.2)"]
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in differences(old.get(name), new.get(name), key=f"{key}.{name}" if key else str(name))
        ]
    was, now = (json.dumps(value, ensure_ascii=False, default=str) for value in (old, new))
    was, now = (text if len(text) <= 60 else f"{text[:57]}..." for text in (was, now))
    return [] if old == new else [f"{key} (was {was}, is {now})"]


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete: a zip file with its index, or a sharded folder with its own."""
    if checkpoint.is_dir():
        return (checkpoint / ".metadata").is_file() and (checkpoint / "meta.pt").is_file()
    return zipfile.is_zipfile(checkpoint)


def newest_checkpoint(folder: Path) -> Path | None:
    """A run's newest complete checkpoint (hpc_ckpt_N.ckpt is Lightning's, under SLURM); None if there is none yet."""
    found = [*(folder / CHECKPOINTS).glob("*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")]
    return max(filter(is_whole, found), key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def new_folder(config: Mapping[str, Any], *, root: Path, name: str) -> Path:
    """Makes the folder of a new run, `root/name/<time>-<hash>`; two runs of the same second get two folders."""
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise InputError(f"run.name is {name!r}; it names a folder under {root}, so give one word without slashes.")
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{fingerprint(config)}"
    for attempt in range(1, 1000):
        folder = root / name / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            _make(folder, new=True)
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{root / name} already has 999 runs named {stem}; give another run.name.")


def open_fit(config: Mapping[str, Any], *, folder: Path) -> Run:
    """The run in a folder that the user named: new, or resumed from its newest checkpoint.

    Raises:
        InputError: the folder has a finished run, a run of another configuration, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"run.folder is {folder}, which is a file; name a folder.")
    if (folder / FINISHED).exists():
        steps = (folder / FINISHED).read_text().strip()
        raise InputError(f"run.folder is {folder}, where a run has finished ({steps}); name another folder, or none.")
    if (folder / CONFIG).exists():
        ranks = ("default_root_dir", "devices", "num_nodes")  # a run may be resumed on another number of ranks
        old = load((folder / CONFIG).read_text(encoding="utf-8"))
        if changed := differences(comparable(old, without=ranks), comparable(config, without=ranks)):
            more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
            raise InputError(
                f"run.folder is {folder}, whose run has another configuration; it differs in "
                f"{', '.join(changed[:8])}{more}; name another folder."
            )
        return Run(folder, newest_checkpoint(folder))
    if folder.is_dir():
        foreign = sorted({path.name for path in folder.iterdir() if path.suffix != PART} - LEFT_BY_SETUP)
        if foreign:
            raise InputError(
                f"run.folder is {folder}, which is not a run folder: it has {foreign[0]} but no {CONFIG}; name a new "
                "or an empty folder."
            )
    _make(folder)
    return Run(folder)


def _make(folder: Path, *, new: bool = False) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except FileExistsError:
        raise
    except OSError as error:
        raise explain_os_error(folder, error) from error


def checked_checkpoint(path: Path) -> Path:
    """The checkpoint that `--ckpt_path` names; raises InputError if there is none, or it was cut short."""
    if not path.exists():
        other = newest_checkpoint(path.parent.parent if path.parent.name == CHECKPOINTS else path)
        near = f"; there is one at {other}" if other else ""
        raise InputError(f"ckpt_path: there is no checkpoint at {path}{near}.")
    if not is_whole(path):
        raise InputError(f"ckpt_path: {path} is not a complete checkpoint ({counted(path.stat().st_size, 'byte')}).")
    return path
