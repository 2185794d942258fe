"""How jsonargparse reads the value of a setting, where its own rules would change what people wrote. Importing this
file activates these rules.

    text in a file            is kept if the setting may be text: ["1", "yes"] in a list of numbers or texts stays text
    text on the command line  is taken literally if the setting is text, else read as YAML (["1"] is a list of a text)
    a file of settings        ends in .yaml, .yml or .json, and is read if the setting is more than text: a file `cpu`
                              is never read for --trainer.accelerator=cpu; conf/... may also be the package's
    a path of an input        (data.feedback, ...) in a file is relative to that file; written files have absolute ones
    null                      is null; "None" is refused where null is allowed
    ${data.tokenizer}         is the value of that setting, whatever sets it; \\${ is the text ${

jsonargparse has no public hooks for this, so some of its functions are wrapped; tests/cli/test_typed_values.py fails if
a new version no longer calls our wrappers.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any, Union

import yaml
from jsonargparse import ArgumentParser, Namespace, _actions, _core, _typehints, set_dumper, set_loader
from jsonargparse._typehints import ActionTypeHint, NestedArg
from omegaconf import OmegaConf

from coh_lightning.cli import config_paths as configurations
from coh_lightning.cli.config_errors import as_yaml
from coh_lightning.errors import InputError
from coh_lightning.yaml_text import dump, escaped, load, load_setting

SETTINGS = (".yaml", ".yml", ".json")
"""Files with these endings may be read in place of a value."""

PLAIN = (bool, int, float, complex, types.NoneType)
"""Types that jsonargparse tries before text."""

_given: ContextVar[str | None] = ContextVar("given", default=None)
"""The value that is being read from the command line."""
_read_paths: ContextVar[bool] = ContextVar("read_paths", default=True)
_keep_text: ContextVar[bool] = ContextVar("keep_text", default=False)
_path: ContextVar[tuple[str, ...]] = ContextVar("path", default=())
"""The keys down to the setting that is being read."""
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)
"""The working folder, while a command line is read; jsonargparse changes into the folder of each file."""

_parse = _typehints.parse_value_or_config
_adapt = _typehints.adapt_typehints
_check = ActionTypeHint._check_type
_call = ActionTypeHint.__call__
_load_value = _typehints.load_value


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def paths_from(folder: Path) -> AbstractContextManager[None]:
    """Sets the working folder, which paths on the command line are relative to."""
    return _set(_folder, folder)


def written(parser: ArgumentParser, text: str) -> str:
    """A parser's dump, readable in any folder: paths of inputs are absolute, and `${` is escaped, since resolved
    settings have no references.
    """
    if not parser.exit_on_error:  # a class's parser writes for the outer one
        return text
    comments = [f"{line}\n" for line in text.split("\n") if line.startswith("#")]
    return "".join(comments) + dump(escaped(configurations.absolute(load(text))))


def _kinds(typehint: Any) -> tuple[Any, ...]:
    """The types that a type hint is a union of."""
    return typing.get_args(typehint) if typing.get_origin(typehint) in (Union, types.UnionType) else (typehint,)


def _found(path: str) -> str:
    """A path of settings, relative to the file that names it (the current folder). conf/... may also be in the conf/
    around that file, or in the package's.
    """
    if "\0" in path:
        raise InputError(f"{path!r:.60} can't be the name of a file of settings: it has a null character.")
    packaged = configurations.ours(PurePath(path))
    if packaged is None or Path(path).exists():
        return path
    around = [folder.parent / path for folder in (Path.cwd(), *Path.cwd().parents) if folder.name == "conf"]
    return str(next((file for file in [*around, packaged] if file.is_file()), path))


def _read(value: Any, enable_path: bool = True, simple_types: bool = False) -> tuple[Any, Any]:
    """Replaces jsonargparse's `parse_value_or_config` for settings with a type."""
    if isinstance(value, NestedArg):  # the class's own parser reads it
        return value, None
    if enable_path and _read_paths.get() and isinstance(value, str) and PurePath(value).suffix in SETTINGS:
        return _parse(_found(value), enable_path, simple_types)
    if _keep_text.get() and isinstance(value, str) and value is not _given.get():
        return value, None
    return _parse(value, False, simple_types)


def _read_group(value: Any, enable_path: bool = True, simple_types: bool = False) -> tuple[Any, Any]:
    """The same for a group of settings, whose value can only be a path."""
    return _parse(_found(value) if isinstance(value, str) and enable_path else value, enable_path, simple_types)


def _adapted(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
    """Replaces jsonargparse's `adapt_typehints`."""
    kinds = _kinds(typehint)
    origin = typing.get_origin(typehint)
    if isinstance(val, NestedArg) and origin in (dict, typing.Mapping, *_typehints.mapping_origin_types):
        with _set(_given, val.val):
            return _adapt(NestedArg(val.key, _parse(val.val, False)[0]), typehint, *args, **kwargs)
    if isinstance(val, str):
        is_file = PurePath(val).suffix in SETTINGS and origin not in _typehints.sequence_origin_types
        if kwargs.get("enable_path") and not is_file:
            kwargs["enable_path"] = False
        if _typehints.accepts_any_value(typehint) and val is not _given.get():
            return val
        if len(kinds) > 1 and str in kinds and not (val is _given.get() and not isinstance(as_yaml(val), str)):
            kinds = tuple(kind for kind in kinds if kind not in PLAIN)
            if kinds == (str,):
                return str(val)
            typehint = Union[kinds]  # noqa: UP007 - of a tuple
    return _adapt(val, typehint, *args, **kwargs)


def _checked(self: ActionTypeHint, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
    """Replaces `ActionTypeHint._check_type`."""
    kinds = _kinds(self._typehint)
    path = (*_path.get(), self.dest)
    if value == "None" and str in kinds and types.NoneType in kinds:
        raise InputError(f"{'.'.join(path)} is the text 'None'; write null for no value.")
    if (folder := _folder.get()) is not None and Path.cwd() != folder:
        value = configurations.beside_its_file(".".join(path), value, folder)
    text = str in kinds
    read_paths = not text or any(ActionTypeHint.is_subclass_typehint(kind) for kind in kinds)
    with _set(_path, path), _set(_keep_text, text), _set(_read_paths, read_paths):
        return _check(self, value, append=append, cfg=cfg, mode=mode)


def _called(self: ActionTypeHint, *args: Any, **kwargs: Any) -> Any:
    """Replaces `ActionTypeHint.__call__`, which gets the command line's values."""
    with _set(_given, args[2] if args else _given.get()):
        return _call(self, *args, **kwargs)


def _loaded(value: str, simple_types: bool = False, **kwargs: Any) -> Any:
    """jsonargparse's `load_value`: keeps the texts among a class's **kwargs."""
    return value if simple_types else _load_value(value, simple_types=simple_types, **kwargs)


def _resolved(parser: ArgumentParser, cfg: Namespace) -> Namespace:
    """Replaces jsonargparse's `omegaconf_apply`: references start at the root of the configuration and are resolved
    once, when everything is set. Raises OmegaConfBaseException for a setting that doesn't exist.
    """
    if getattr(parser, "_inner_parser", False) or "${" not in str(cfg):
        return cfg
    with _core.parser_context(path_dump_preserve_relative=True):
        data = load(ArgumentParser.dump(parser, cfg, skip_validation=True, skip_unset=False, skip_link_targets=False))
    commands = parser._subcommands_action.choices if parser._subcommands_action else {}
    if commands:  # a configuration file has no command at its root
        parts = {key: _without_references(part) if key in commands else part for key, part in data.items()}
    else:
        parts = _without_references(data)
    return parser._apply_actions(parts)


def _without_references(part: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.create(part), resolve=True)


set_loader("omegaconf+", load_setting, (yaml.YAMLError,))
set_dumper("yaml", dump)
_typehints.parse_value_or_config = _read
_typehints.adapt_typehints = _adapted
_typehints.load_value = _loaded
_actions.parse_value_or_config = _read_group
_core.omegaconf_apply = _resolved
ActionTypeHint._check_type = _checked  # type: ignore[method-assign]
ActionTypeHint.__call__ = _called  # type: ignore[method-assign]
