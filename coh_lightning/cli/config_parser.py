"""LightningCLI's parser for our commands: no abbreviated keys, errors in one sentence, our keys first in the help, and
absolute paths in the files that it writes.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace
from jsonargparse._actions import _ActionConfigLoad
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from coh_lightning.cli import typed_values as parsing
from coh_lightning.cli.config_errors import NOT_CONFIGURED, Typed, broken_reference, complaint, keys_of
from coh_lightning.errors import InputError

HEAD = """usage: coh COMMAND [--config FILE ...] [--KEY=VALUE ...]

`python -m coh_lightning COMMAND` is the same. Later settings win over earlier ones.
Paths in a file are relative to that file, paths on the command line to the working folder.

--ckpt_path PATH        Checkpoint to resume from, validate, test, or predict with.
--help-all              Describe the Trainer's keys too.
"""


class CoHParser(LightningArgumentParser):
    known: Sequence[str] = ()
    typed: Typed = Typed()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.classes: dict[str, type] = {}

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> list[str]:
        if nested_key is not None:
            self.classes[nested_key] = theclass
        kwargs["skip"] = {*(kwargs.get("skip") or ()), *getattr(theclass, NOT_CONFIGURED, ())}
        added = super().add_class_arguments(theclass, nested_key, *args, **kwargs)
        for action in self._actions:  # jsonargparse can't write down a dataclass in a list of a default
            if isinstance(action.default, (tuple, list, dict)):
                action.default = _plain(action.default)
        return added

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        try:
            with parsing.paths_from(Path.cwd()):
                return super().parse_args(*args, **kwargs)
        except OmegaConfBaseException as error:
            raise broken_reference(error) from error
        except UnicodeDecodeError as error:
            raise InputError(CoHParser.typed.broken() or f"a configuration file is not UTF-8: {error}") from error

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The settings as YAML that reads back as these settings, in any folder."""
        return parsing.written(self, super().dump(*args, **kwargs))

    def keys(self) -> list[str]:
        """Every key of a configuration file of this command."""
        nested = {f"{key}.{name}" for key, kind in self.classes.items() for name in keys_of(kind)}
        return sorted({action.dest for action in self._actions} - {"help", "config", "print_config"} | nested)

    def check_groups(self, config: Namespace) -> None:
        """Raises an `InputError` if a group of settings is something else, which jsonargparse lets pass."""
        groups = [action.dest for action in self._actions if isinstance(action, _ActionConfigLoad)]
        for key in [*groups, *(["run"] if "run.name" in self.keys() else [])]:
            if not isinstance(value := config.get(key), Namespace):
                raise InputError(f"{key} is {value!r:.60}; it must be settings, written as key: value.")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse would take the value of --key=-- for the end of the options
        plain = action.nargs is None and arg_strings == ["--"]
        return arg_strings[0] if plain else super()._get_values(action, arg_strings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises one sentence as `InputError`; parsers of nested classes pass their message on to the outer one."""
        if not self.exit_on_error:
            super().error(message, ex)
        cause: BaseException | None = ex
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__ or cause.__context__
        message = str(cause) if cause else complaint(message, known=CoHParser.known, typed=CoHParser.typed)
        raise InputError(message) from ex

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """All keys, ours first."""
        return self._help_of(sorted(self._action_groups, key=_is_trainers))

    def short_help(self) -> str:
        """Our keys with their help, which are the same for all four commands, and the names of the Trainer's."""
        ours = [group for group in self._action_groups if not _is_trainers(group)]
        # Lightning's function has a group too: ckpt_path and others that differ from command to command
        same = [group for group in ours if not any(one.dest == "ckpt_path" for one in group._group_actions)]
        names = sorted({action.dest for action in self._actions if action.dest.startswith("trainer.")})
        keys = textwrap.fill(" ".join(f"--{name}" for name in names if not name.endswith(".help")), 98)
        return f"{HEAD}\n{self._help_of(same)}\nThe Trainer's keys:\n{textwrap.indent(keys, '  ')}\n"

    def _help_of(self, groups: list[Any]) -> str:
        kept = self._action_groups, self.usage, self.description
        self._action_groups, self.usage, self.description = groups, argparse.SUPPRESS, ""
        try:
            return f"{ArgumentParser.format_help(self).strip()}\n"
        finally:
            self._action_groups, self.usage, self.description = kept


def _is_trainers(group: Any) -> bool:
    return any(action.dest.startswith("trainer") for action in group._group_actions)


def _plain(value: Any) -> Any:
    """A default with the dataclasses in it as mappings."""
    if isinstance(value, (tuple, list)):
        return type(value)(_plain(one) for one in value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
