"""The argument parser of our own commands (`preview`, `judge`, `human-eval`, ...). Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from coh_lightning.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """argparse's parser without abbreviated options. Errors, also of subcommands, are an InputError of one line:

    human-eval export: the following arguments are required: --output; --help lists the options.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        command = self.prog.removeprefix("python -m ").removeprefix("coh ")
        raise InputError(f"{command}: {message}; --help lists the options.")
