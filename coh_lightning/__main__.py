"""`coh COMMAND`, or `python -m coh_lightning COMMAND`: finds the command and imports only what it needs.

fit, validate, test and predict need LightningCLI, whose import takes seconds; our own commands answer at once, and so
do --help of any command and the completion of shells.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from coh_lightning.cli import config_paths as configurations
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.io import explain_os_error

LIGHTNING = {
    "fit": "train a model on feedback",
    "validate": "losses of a checkpoint on held-out feedback",
    "test": "losses, preference accuracy, and scored completions of a checkpoint",
    "predict": "write completions under feedback sentences",
}
OWN = {
    "preview": ("coh_lightning.cli.preview", "show what feedback becomes: its chains, and which tokens are learned"),
    "convert": ("coh_lightning.cli.convert", "turn feedback into records, or TRL's pairs or unpaired rows, and back"),
    "export": (
        "coh_lightning.export.huggingface",
        "write a checkpoint as a Hugging Face folder, good sentence built in",
    ),
    "chat": ("coh_lightning.cli.chat", "ask a model in the terminal, choosing the feedback sentence while talking"),
    "human-eval": ("coh_lightning.human_eval.main", "have people rate two models, blind: plan, export, import, report"),
    "feedback": ("coh_lightning.cli.feedback", "turn votes of a study, a judge's, or scores into feedback records"),
    "rounds": ("coh_lightning.cli.rounds", "write, hear what is said, learn, and write again, in rounds"),
    "compare": ("coh_lightning.cli.compare", "compare methods over seeds and base models, with intervals"),
    "sweep": ("coh_lightning.cli.sweep", "search settings: each trial a fit, its study in a local file"),
    "trl": ("coh_lightning.cli.trl_baselines", "train a baseline with TRL: DPO, KTO, a reward model, RLOO"),
    "judge": ("coh_lightning.judge.command", "let a language model compare completions, in both orders"),
}
"""Command -> the module whose `main(argv) -> exit status` it is, and what it does."""


def usage() -> str:
    """The text of --help."""
    commands = LIGHTNING | {name: what for name, (_, what) in OWN.items()}
    rows = "\n".join(f"  {name:<12}{what}" for name, what in commands.items())
    return f"""usage: coh COMMAND [options]          (or: python -m coh_lightning COMMAND [options])

Chain of Hindsight: fine-tune a causal language model on human feedback of any kind.

commands:
{rows}

examples:
  coh fit --config conf/quickstart.yaml
  coh fit --config conf/quickstart.yaml --model.lr=1e-4 --run.name=warmer
  coh preview feedback.jsonl

coh COMMAND --help lists the options of a command; --version prints the version; --print-completion bash (zsh, fish,
...) prints what completes commands and keys in that shell."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 2 for an error in the input, 130 after Ctrl-C.

    Args:
        argv: The arguments. None: those of the process, which ends as others do if its output is closed (`| head -1`).
    """
    own = argv is None
    if own and not sys.flags.safe_path and {"", os.getcwd()}.isdisjoint(sys.path):
        sys.path.insert(0, os.getcwd())  # as `python -m` does: sources and scorers may lie in the current folder
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _command(words, own_process=own)
        if own:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not own:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python writes once more at exit
        return 128 + signal.SIGPIPE
    except Exception as error:
        mistake = input_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2


def _command(words: list[str], *, own_process: bool) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("coh_lightning"))
        return 0
    if words[0].startswith("--print-completion"):
        from coh_lightning.cli.shell_completion import script

        print(script(words[0].partition("=")[2] or "".join(words[1:2]), LIGHTNING, OWN))
        return 0
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise InputError(f"{word!a} is not UTF-8: an argument must be text.")
    if words[0] in LIGHTNING and {"-h", "--help"} & {*words[1:]}:
        from coh_lightning.cli.shell_completion import HELP

        print(HELP.read_text(encoding="utf-8").replace("COMMAND", words[0]), end="")
        return 0
    words = configurations.found(words)
    if words[0] in OWN:
        return int(import_module(OWN[words[0]][0]).main(words[1:]))
    if words[0] in LIGHTNING:
        from coh_lightning.cli.lightning_cli import run

        words = ["--help" if word == "--help-all" else word for word in words]
        if own_process:
            sys.argv[1:] = words  # which is also what Lightning starts further processes with
        return run(None if own_process else words)
    if words[0].startswith("-"):
        raise InputError(f"{words[0]} was given before the command; the command comes first: coh fit {words[0]} ...")
    near = did_you_mean(words[0], [*LIGHTNING, *OWN], "; coh --help lists them.")
    raise InputError(f"there is no command {words[0]}{near}")


def input_error(error: BaseException | None) -> Exception | None:
    """The `InputError` behind an exception (libraries wrap what a constructor raises), or what the disk refuses."""
    while error is not None and not isinstance(error, InputError):
        if isinstance(error, PermissionError):  # to read or to write
            return InputError(f"{error.filename}: {error.strerror}; change its permissions, or name another.")
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            name = str(error.filename)
            return InputError(f"{name:.60}... has {len(name)} characters, too many for the name of a file.")
        if isinstance(error, OSError):
            refused = explain_os_error(error.filename or "a file", error)
            if isinstance(refused, InputError):
                return refused
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


if __name__ == "__main__":
    sys.exit(main())
