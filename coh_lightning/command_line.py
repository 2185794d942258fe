"""The argument parser of our own commands (`preview`, `judge`, `human-eval`, ...). Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from coh_lightning.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """argparse's parser without abbreviated options, whose errors are one sentence; so are those of its subcommands.

        human-eval export: the following arguments are required: --output; --help lists the options.

    Raises:
        InputError: instead of argparse's exit with its usage.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise InputError(
            f"{self.prog.removeprefix('python -m ').removeprefix('coh_lightning ')}: {message}; --help lists the "
            "options."
        )
