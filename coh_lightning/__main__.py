"""`python -m coh_lightning COMMAND`: finds the command and imports only what it needs.

fit, validate, test and predict are LightningCLI's (cli.py), whose import takes seconds; our own commands answer at
once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from coh_lightning import configurations
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.files import unwritten

LIGHTNING = {
    "fit": "train a model on feedback",
    "validate": "losses of a checkpoint on held-out feedback",
    "test": "losses, preference accuracy, and scored completions of a checkpoint",
    "predict": "write completions under feedback sentences",
}
OWN = {
    "preview": ("coh_lightning.preview", "show what feedback becomes: its chains, and which tokens are learned"),
    "convert": (
        "coh_lightning.convert",
        "turn feedback of any source into records, or into TRL's forms (pairs, unpaired), and back",
    ),
    "export": (
        "coh_lightning.export",
        "make a Hugging Face folder of a checkpoint, which is asked under the good sentence",
    ),
    "human-eval": ("coh_lightning.human_eval.main", "have people rate two models, blind: plan, export, import, report"),
    "sweep": ("coh_lightning.sweep", "search settings: each trial a fit, its study in a local file"),
    "cost": ("coh_lightning.cost", "memory and throughput of a training on paper, by model and GPUs"),
    "judge": ("coh_lightning.judge", "let a language model compare completions, both orders played"),
}
"""Command -> the module whose `main(argv) -> exit status` it is, and what it does."""


def usage() -> str:
    """The answer to --help."""
    rows = "\n".join(
        f"  {name:<12}{what}" for name, what in [*LIGHTNING.items(), *((name, what) for name, (_, what) in OWN.items())]
    )
    return f"""usage: python -m coh_lightning COMMAND [options]

Chain of Hindsight: fine-tune a causal language model on human feedback of any kind.

commands:
{rows}

examples:
  python -m coh_lightning fit --config conf/quickstart.yaml
  python -m coh_lightning fit --config conf/quickstart.yaml --model.lr=1e-4 --run.name=warmer
  python -m coh_lightning preview feedback.jsonl

python -m coh_lightning COMMAND --help lists the options of a command; --version prints the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for a mistake in the input, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(usage())
            return 0 if words else 2
        if words[0] == "--version":
            print(version("coh_lightning"))
            return 0
        for word in words:
            if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
                raise InputError(f"{word!a} is no UTF-8: an argument must be text.")
        words = configurations.found(words)
        if words[0] in OWN:
            return int(import_module(OWN[words[0]][0]).main(words[1:]))
        if words[0] in LIGHTNING:
            from coh_lightning.cli import run

            if argv is None:
                sys.argv[1:] = words  # which is also what Lightning starts further processes with
            return run(None if argv is None else words)
        if words[0].startswith("-"):
            raise InputError(
                f"{words[0]} was given before the command; the command comes first: python -m coh_lightning fit "
                f"{words[0]} ..."
            )
        raise InputError(
            f"there is no command {words[0]}"
            + did_you_mean(words[0], [*LIGHTNING, *OWN], "; python -m coh_lightning --help lists them.")
        )
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2


def _mistake(error: BaseException | None) -> Exception | None:
    """The `InputError` that an exception is or comes from (configuration libraries wrap what a constructor raises in
    words of their own), or what the disk refuses.
    """
    while error is not None and not isinstance(error, InputError):
        if isinstance(error, PermissionError):  # to read or to write
            return InputError(f"{error.filename}: {error.strerror}; change its permissions, or name another.")
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return InputError(
                f"{error.filename!s:.60}... has {len(str(error.filename))} characters, too many for the name of a file."
            )
        if isinstance(error, OSError) and isinstance(
            refused := unwritten(error.filename or "a file", error), InputError
        ):
            return refused
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def _process() -> int:
    """`main` as a process of its own: what nobody reads any longer (`--help | head -1`) ends it as it ends other
    commands, without a traceback.
    """
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try once more at its end
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(_process())
