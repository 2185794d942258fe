"""`python scripts/help.py`: write coh_lightning/cli/help.txt, the text of `coh fit --help`, from the parser."""

from __future__ import annotations

import contextlib
import io
import sys
from unittest import mock

from coh_lightning.cli import lightning_cli as cli
from coh_lightning.cli.config_parser import CoHParser
from coh_lightning.cli.shell_completion import HELP


def text(command: str = "fit") -> str:
    """Our keys as the parser of a command describes them, 100 columns wide."""
    printed = io.StringIO()
    with (
        mock.patch.dict("os.environ", COLUMNS="100"),
        mock.patch.object(CoHParser, "format_help", CoHParser.short_help),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        cli.run([command, "--help"])
    return printed.getvalue()


if __name__ == "__main__":
    HELP.write_text(text(), encoding="utf-8")
    sys.exit(0)
