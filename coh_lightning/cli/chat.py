"""`coh chat RUN`: ask a checkpoint or an exported folder in the terminal, and choose the feedback sentence meanwhile.

    good> Name a fruit.
    An apple.
    good> /bad
    bad> /again
    A stone, perhaps.

Without a terminal each line of the input is a message or a command, and only answers are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, did_you_mean, visible

if TYPE_CHECKING:
    from coh_lightning.cli.chat_model import ChatModel
    from coh_lightning.cli.chat_session import ChatSession

QUOTES = '"""'
"""Begin and end a message of several lines."""


class Command(NamedTuple):
    argument: str
    what: str


COMMANDS = {
    "good": Command("", "ask under the good sentence"),
    "bad": Command("", "ask under the bad one"),
    "condition": Command("[NAME]", "ask under the sentence of that name; none: list them"),
    "sentence": Command("TEXT", "ask under a sentence of your own"),
    "guidance": Command("W|off", "lead answers away from the bad sentence, such as by 2"),
    "temperature": Command("T", "0: always the likeliest token"),
    "tokens": Command("N", "tokens of an answer, at most"),
    "again": Command("", "answer the last message again, as things are set now"),
    "reset": Command("", "begin a new conversation"),
    "help": Command("", "this list"),
    "quit": Command("", "end (also Ctrl-D)"),
}


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status; raises InputError for what the user can fix."""
    parser = CommandParser(
        prog="coh chat",
        description="Ask a model in the terminal, under a feedback sentence that you choose while talking.",
        epilog=f"while talking:\n{_help()}\n\n"
        f"A message of several lines stands between lines of {QUOTES}; // begins a message with a slash. With a chat\n"
        "template the model remembers the conversation; in the plain format each message is a prompt of its own.\n\n"
        "examples:\n  coh chat runs/quickstart/20260101-120000-1a2b3c4d\n"
        "  printf '/bad\\nName a fruit.\\n' | coh chat my-model",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN", help="a run folder, a checkpoint, or what coh export wrote")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default %(default)s)")
    options = parser.parse_args(argv)
    from coh_lightning.cli.chat_model import ChatModel, found

    found(options.model)  # said before libraries load, which takes seconds
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        print("loading ...", end="\r", flush=True)
    model = ChatModel.load(options.model)
    from coh_lightning.cli.chat_session import ChatSession

    session = ChatSession(model.lm, model.prompter)
    session.set(seed=options.seed)
    return _talk(session, model) if interactive else _read(session)


def _help() -> str:
    rows = [(f"/{name} {command.argument}", command.what) for name, command in COMMANDS.items()]
    return "\n".join(f"  {usage:<18}{what}" for usage, what in rows)


def do(session: ChatSession, message: str, *, say: Callable[[str], None], note: Callable[[str], None]) -> bool:
    """Does what a line says: a command, or a message to the model, whose answer is printed. Returns whether to go on.

    Args:
        say: Prints what a command tells.
        note: Prints what should be known about an answer.

    Raises:
        InputError: there is no such command, its argument is wrong, or the message can't be asked.
    """
    if not message.strip():
        return True
    if not message.startswith("/") or message.startswith("//"):
        _print_notes(session.answer(message.removeprefix("/"), show), note)
        return True
    name, _, argument = message.removeprefix("/").partition(" ")
    name, argument = name.lower(), argument.strip()
    if name in ("quit", "exit", "bye"):
        return False
    if name not in COMMANDS:
        near = did_you_mean(f"/{name}", [f"/{one}" for one in COMMANDS], "; /help lists them.")
        raise InputError(f"there is no command /{name}{near}")
    if argument and not COMMANDS[name].argument:
        raise InputError(f"/{name} takes nothing after it; a message that begins with a slash is written //{name} ...")
    match name:
        case "good" | "bad":
            session.choose(name)
        case "condition" if argument:
            session.choose(argument)
        case "condition":
            say("\n".join(f"{one}: {visible(sentence) or '(none)'}" for one, sentence in session.conditions.items()))
            return True
        case "sentence":
            session.say(argument)
        case "guidance":
            session.set(guidance=None if argument in ("off", "none") else _number(name, argument))
        case "temperature":
            session.set(temperature=_number(name, argument))
        case "tokens":
            session.set(max_new_tokens=int(_number(name, argument, whole=True)))
        case "again":
            _print_notes(session.again(show), note)
            return True
        case "reset":
            session.reset()
        case "help":
            say(_help())
            return True
    say(state(session))
    return True


def state(session: ChatSession) -> str:
    """Under which sentence the next message is asked, and how the answer is drawn."""
    sentence = f"{session.condition}: {visible(session.sentence)!r}" if session.sentence else "no feedback sentence"
    sampling = session.sampling
    guidance = "" if sampling.guidance is None else f", guidance {sampling.guidance:g}"
    return f"{sentence}, temperature {sampling.temperature:g}{guidance}, at most {sampling.max_new_tokens} tokens"


def show(piece: str) -> None:
    """A piece of an answer; a model may write what moves the cursor."""
    print(visible(piece, line_ends=True), end="", flush=True)


def _print_notes(notes: Sequence[str], note: Callable[[str], None]) -> None:
    print(flush=True)  # the end of the answer
    for words in notes:
        note(words)


def _number(name: str, argument: str, *, whole: bool = False) -> float:
    try:
        return int(argument) if whole else float(argument)
    except ValueError:
        given = f"not '{argument:.40}'" if argument else f"such as /{name} 2"
        raise InputError(f"/{name} takes a {'whole ' if whole else ''}number, {given}.") from None


def _talk(session: ChatSession, model: ChatModel) -> int:
    """In a terminal, until Ctrl-D or /quit; a mistake is said and changes nothing."""
    size = sum(parameter.numel() for parameter in model.lm.parameters()) / 1e6
    turns = "it remembers the conversation" if session.keeps_turns else "each message is a prompt of its own"
    print(visible(str(model.place)))
    print(f"{model.lm.config.model_type}, {size:,.1f} M parameters; {turns}")
    print(state(session))
    print("/help lists the commands")
    _edit_lines(session)
    while True:
        try:
            message = _message(f"{session.label}> ", input)
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit ends)")
            continue
        try:
            if not do(session, message, say=print, note=lambda words: print(f"({words})")):
                return 0
        except InputError as error:
            print(f"error: {visible(str(error))}")
        except KeyboardInterrupt:
            print("\n(interrupted)")


def _read(session: ChatSession) -> int:
    """Messages and commands from a file or a pipe, until the first mistake; only answers go to stdout."""
    number = 0

    def following(prompt: str) -> str:
        nonlocal number
        number += 1
        if not (line := sys.stdin.readline()):
            raise EOFError
        return line.rstrip("\n")

    def aside(words: str) -> None:
        print(words, file=sys.stderr)

    with suppress(EOFError):
        while True:
            message, begun = _message("", following), number
            try:
                if not do(session, message, say=lambda words: None, note=aside):
                    break
            except InputError as error:
                raise InputError(f"line {begun} of the input: {error}") from error
    return 0


def _message(prompt: str, following: Callable[[str], str]) -> str:
    """The next line, or what stands between QUOTES. Raises EOFError."""
    line = following(prompt)
    if not line.startswith(QUOTES):
        return line.strip("\n")
    text = line.removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + following("... ")
    return text.rstrip().removesuffix(QUOTES).strip("\n")


def _edit_lines(session: ChatSession) -> None:
    """Gives what is typed history, editing, and the completion of commands with Tab."""
    with suppress(ImportError):
        import readline

        def complete(text: str, number: int) -> str | None:
            known = [*(f"/{name}" for name in COMMANDS), *(f"/condition {name}" for name in session.conditions)]
            fitting = [one for one in known if text and one.startswith(text)]
            return fitting[number] if number < len(fitting) else None

        readline.set_completer_delims("")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
        readline.parse_and_bind("set enable-bracketed-paste on")  # a pasted text of several lines is one message
