"""`coh human-eval plan|export|import|report`: each part is imported only when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from coh_lightning.command_line import CommandParser

PARTS = {
    "plan": ("plan", "how many prompts a study needs"),
    "export": ("export_command", "completions of two or more systems -> blind sheets and a page to rate in"),
    "import": ("ratings", "what raters sent back -> checked judgments"),
    "report": ("report", "judgments -> which system is better, with intervals, tests and agreement"),
}
"""Subcommand -> its module in this package, with `add_arguments(parser)` and `run(arguments) -> exit status`; and what
it does.
"""


def main(argv: Sequence[str]) -> int:
    """The command `human-eval`; returns its exit status. Raises InputError for what the user can fix."""
    parser = CommandParser(
        prog="coh human-eval",
        description="A blind human study of two or more systems.",
        epilog="coh human-eval SUBCOMMAND --help lists the options of each.",
    )
    subparsers = parser.add_subparsers(dest="part", metavar="SUBCOMMAND", required=True)
    for name, (_, what) in PARTS.items():
        subparsers.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    if argv and argv[0] in PARTS:
        part = import_module(f"coh_lightning.human_eval.{PARTS[argv[0]][0]}")
        part.add_arguments(subparsers.choices[argv[0]])
        return int(part.run(parser.parse_args(argv)))
    parser.parse_args(argv)
    return 2
