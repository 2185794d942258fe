"""Completion of commands and keys in shells, by shtab. The keys are read from the text of `coh fit --help` (help.txt),
so that nothing heavy is imported.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import shtab

from coh_lightning.errors import InputError

HELP = Path(__file__).parent / "help.txt"
"""What `fit --help`, `validate --help`, ... print."""
KEY = re.compile(r"(?<=[\s,])(--[\w.-]+\+?)(?: \{([^}]*)\})?")


def keys(text: str) -> dict[str, list[str]]:
    """The keys in a text of help, each with its choices, if it has any.

    "  --data.layout {tree,separate}"   ->   {"--data.layout": ["tree", "separate"]}
    """
    found: dict[str, list[str]] = {}
    for key, choices in KEY.findall(text):
        found[key] = found.get(key) or choices.split(",") if choices else found.get(key, [])
    return found


def script(shell: str, lightning: Mapping[str, str], own: Mapping[str, tuple[str, str]]) -> str:
    """The completion script of a shell.

    `lightning` are the commands that take the keys, and what each does; `own` the others, each with its module.
    """
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise InputError(f"--print-completion needs the name of a shell: {known}; it is '{shell}'.")
    parser = argparse.ArgumentParser(prog="coh")
    commands = parser.add_subparsers()
    listed = keys(HELP.read_text(encoding="utf-8"))
    for name, what in lightning.items():
        command = commands.add_parser(name, help=what, add_help=False)
        for key, choices in listed.items():
            option = command.add_argument(key, choices=choices or None)
            if not choices:
                option.complete = shtab.FILE  # type: ignore[attr-defined]
    for name, (_, what) in own.items():
        commands.add_parser(name, help=what).add_argument("file", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)
