"""Where a configuration and the paths in it are found.

conf/method/coh.yaml    in the current folder, if it is there; else
                        coh_lightning/conf/method/coh.yaml of the installed package, or conf/method/coh.yaml of the
                        repository in an editable install
data.feedback: a.jsonl  in /x/mine.yaml: /x/a.jsonl; on the command line: a.jsonl of the working folder; in the
                        config.yaml of a run: an absolute path
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.worlds import TABLE

PACKAGE = Path(__file__).parents[1]
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
"""The folder of the configurations that come with the package."""

SOURCES = ("data.sources", "data.validation_sources", "data.test_sources")
MODEL_INPUTS = ("model.name_or_path", "model.generation.reward_model", "model.generation.completions_from")
DATA_INPUTS = ("data.feedback", "data.tokenizer", "data.pretraining_text", *(f"{key}.path" for key in SOURCES))
INPUTS = {"ckpt_path", *MODEL_INPUTS, *DATA_INPUTS}
"""The settings that may be paths of inputs, or names: on the hub, or `world`."""


def ours(path: PurePath) -> Path | None:
    """The place in the package of a path that begins with conf/; None for any other path."""
    return CONF.joinpath(*path.parts[1:]) if path.parts[:1] == ("conf",) else None


def found(words: Sequence[str]) -> list[str]:
    """The arguments of a command, with each missing conf/....yaml replaced by the package's; says so on stderr."""
    new, taken = [], []
    for word in words:
        key, equals, value = word.rpartition("=")
        file = ours(PurePath(value))
        if file is not None and file.suffix == ".yaml" and file.is_file() and not Path(value).exists():
            word = f"{key}{equals}{file}"
            taken.append(value)
        new.append(word)
    if taken:
        names = ", ".join(dict.fromkeys(taken))
        print(f"not in this folder, so taken from {CONF}: {names}", file=sys.stderr, flush=True)
    return new


def beside_its_file(key: str, value: Any, folder: Path) -> Any:
    """The value of a setting in a file, whose folder is the current one: a path there, as seen from the working folder.

    Raises:
        InputError: only the working folder has something of that name.
    """

    def seen(path: str) -> str:
        if _exists(path):
            there = Path(os.path.abspath(path))
            return os.path.relpath(there, folder) if there.is_relative_to(folder) else str(there)
        if _exists(str(folder / path)):
            raise InputError(
                f"{key.replace('init_args.', '')} is '{path}', and a path in a file is relative to that file: there is "
                f"no {Path.cwd() / path}; for {folder / path} write '{os.path.relpath(folder / path)}'."
            )
        return path

    return _changed(key, value, seen)


def absolute(config: Any, key: str = "") -> Any:
    """A configuration with the paths of its inputs that exist made absolute."""
    if isinstance(config, Mapping):
        return {name: absolute(value, f"{key}.{name}" if key else str(name)) for name, value in config.items()}
    if isinstance(config, list) and key in SOURCES:
        return [absolute(one, key) for one in config]
    return _changed(key, config, lambda path: os.path.abspath(path) if _exists(path) else path)


def _changed(key: str, value: Any, change: Callable[[str], str]) -> Any:
    """The value of a setting; of an input, with its relative paths changed."""
    if key.replace("init_args.", "") not in INPUTS:
        return value
    if isinstance(value, list):
        return [_changed(key, one, change) for one in value]
    relative = isinstance(value, str) and value not in TABLE and "${" not in value and "://" not in value
    return change(value) if relative and value and not os.path.isabs(os.path.expanduser(value)) else value


def _exists(path: str) -> bool:
    return bool(glob.glob(path)) if glob.has_magic(path) else os.path.exists(path)
