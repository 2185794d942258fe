"""The arguments of our own commands (`preview`, `judge`, `export`, `convert`), whose mistakes end like every other one. Imports nothing heavy."""

from __future__ import annotations

import argparse
from typing import NoReturn

from coh_lightning.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, which complains in one line: "export: the following arguments are required: FOLDER; --help lists the options."

    Raises:
        InputError: in the place of argparse's exit with its usage.
    """

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog.split()[-1]}: {message}; --help lists the options.")
