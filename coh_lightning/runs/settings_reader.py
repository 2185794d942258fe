"""Reads settings files of our own commands (conf/compare/, conf/rounds/): every error names file, line and key.

file.yaml:12: methods.sft.rates: it is "fast"; it must be a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError, did_you_mean, listed, shown
from coh_lightning.yaml_text import key_lines

NAME = "letters, digits, _ and -"


class SettingsReader:
    """Checks of values. `path` is the place of a value in the file, as in `key_lines`: ("methods", "sft", "rates")."""

    def __init__(self, file: Path, source: Any) -> None:
        self.file = file
        self.source = source
        self.lines = key_lines(file.read_text(encoding="utf-8"))

    def refuse(self, path: Sequence[Any], sentence: str) -> None:
        place = tuple(path)
        while place and place not in self.lines:
            place = place[:-1]
        key = ".".join(str(one) for one in path)
        end = "" if sentence.endswith("?") else "."
        raise InputError(f"{self.file}:{self.lines.get(place, 1)}: {key}{': ' if key else ''}{sentence}{end}")

    def unknown(self, path: Sequence[Any], name: Any, known: Any, noun: str) -> None:
        near = did_you_mean(str(name), [str(one) for one in known], f"; there is {listed([*map(str, known)])}")
        self.refuse(path, f"there is no {noun} {name}{near}".removesuffix("."))

    def mapping(self, value: Any, path: Sequence[Any], keys: Sequence[str]) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.refuse(path, f"it is {shown(value)}; it must be key: value")
        for key in value:
            if key not in keys:
                near = did_you_mean(str(key), keys, f"; the keys are {listed(list(keys))}")
                self.refuse((*path, key), f"there is no such key{near}".removesuffix("."))
        return dict(value)

    def named(self, source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = source[key]
        if not isinstance(value, dict) or not value:
            self.refuse((key,), f"it is {shown(value)}; it must be name: settings")
        for name in value:
            text = str(name).replace("-", "").replace("_", "")
            if not isinstance(name, str) or not text.isascii() or not text.isalnum():
                self.refuse((key, name), f"a name has {NAME}")
        return dict(value)

    def dotted(self, value: Any, path: Sequence[Any]) -> Mapping[str, Any]:
        """Keys of a configuration, with dots: {model.lr: 0.1}."""
        if not isinstance(value, dict):
            self.refuse(path, f"it is {shown(value)}; it must be key: value, as in model.lr: 0.001")
        for key in value:
            if not isinstance(key, str):
                self.refuse((*path, key), "it must be text, as in model.lr")
        return dict(value)

    def list(self, value: Any, path: Sequence[Any], *, some: bool = False) -> Sequence[Any]:
        if not isinstance(value, list) or (some and not value):
            self.refuse(path, f"it is {shown(value)}; it must be a list{' of at least one' if some else ''}")
        return list(value)

    def number(self, value: Any, path: Sequence[Any]) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            self.refuse(path, f"{shown(value)} is not a number of at least 0")
        return float(value)

    def numbers(self, value: Any, path: Sequence[Any], kind: Any) -> dict[str, float]:
        given = self.mapping(value, path, [one.name for one in fields(kind)])
        return {key: self.number(one, (*path, key)) for key, one in given.items()}

    def whole(self, value: Any, path: Sequence[Any], *, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(path, f"{shown(value)} is not a whole number of at least {least}")
        return int(value)
