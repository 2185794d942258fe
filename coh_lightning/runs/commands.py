"""What `coh sweep`, `coh compare` and `coh rounds` share: a command's words, the end of its log, a stop by SIGTERM."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.errors import InputError
from coh_lightning.yaml_text import DuplicateKeyError, load


def option_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; lists and mappings as JSON, which is YAML.

    {"model.lr": 0.1, "data.conditions": ["bad"], "run.name": None}
        ->  --model.lr=0.1  --data.conditions=["bad"]  --run.name=null
    """
    return [f"--{name}={_value(value)}" for name, value in settings.items()]


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def error_line(log: Path) -> str:
    """The last error line of a log, else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1]


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: what it started is stopped first."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_settings(file: Path, kind: str) -> Any:
    """The value of a YAML file. Raises InputError, with the line where there is one; `kind`: "sweep" or the like."""
    if not file.is_file():
        folder = {"sweep": "conf/sweep/", "rounds": "conf/rounds/"}.get(kind, "conf/compare/")
        raise InputError(f"there is no {kind} file {file}; {folder} has examples.")
    try:
        return load(file.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        raise InputError(f"{file}:{error.problem_mark.line + 1}: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} can't be read: {' '.join(str(error).split())}") from error
