"""The arguments of our own commands (`preview`, `judge`, `human-eval`, ...), whose mistakes end like every other one.
Imports nothing heavy.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from coh_lightning.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, which takes no abbreviated options and complains in one line; so do the parsers of its
    subcommands.

        human-eval export: the following arguments are required: --output; --help lists the options.

    Raises:
        InputError: in the place of argparse's exit with its usage.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise InputError(
            f"{self.prog.removeprefix('python -m ').removeprefix('coh_lightning ')}: {message}; --help lists the "
            "options."
        )
