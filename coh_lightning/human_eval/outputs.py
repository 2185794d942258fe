"""The lines of a completions file -> what each system wrote for each prompt.

A completions file is JSON lines, ours (`completions.jsonl`) or anyone's. A line needs an id, a prompt and a completion;
unknown keys are ignored:

    {"id": "p1", "prompt": "Why is the sky blue?", "completion": "Air scatters blue light most."}

`prompt` is text or chat messages. Optional: `system` (default: the file's name), `ask` (which kind of output was asked
for), `sampling`, `reference`, `shown` (the prompt as people read it), `messages` (the same as chat messages) and
`prompt_sha`. In our own lines `text` is the completion and `prompt_id` the id of the prompt; their `prompt` is what the
model was given, feedback sentence included, so raters are shown `shown` instead, and a line without `shown` whose
prompt contains its `marker` is refused.

A pseudo-dialogue (the paper's form for dialogue data: the human's turns are kept, each reply is written by the model)
is one line per turn, with ids DIALOGUE#TURN or the keys `dialogue` and `turn`. What the human says is `human`, or else
the
last message of `messages` or `prompt`:

    {"id": "d7#1", "prompt": "Hello!", "completion": "Hi."}                                User: Hello!
    {"id": "d7#2", "prompt": [{"role": "user", "content": "Hello!"},                       Assistant: Hi.
                              {"role": "assistant", "content": "Hi."},           become    User: Who are you?
                              {"role": "user", "content": "Who are you?"}],                Assistant: A machine.
                   "completion": "A machine."}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.compressed import PACKED
from coh_lightning.feedback.jsonl import parse_json, read_lines
from coh_lightning.words import holds

LONGEST_NAME = 300
"""Characters of an id or of a system's name."""

Turns = Sequence[tuple[str, str]]
"""(role, text) of each message."""


@dataclass(frozen=True)
class SystemOutput:
    """What one system wrote for one prompt."""

    id: str
    """Id of the prompt."""
    prompt: str
    """As raters read it."""
    shas: tuple[str, ...]
    """Hashes that the prompt is known by, the record's own first; two prompts are equal if they share one."""
    text: str
    where: str
    """File and line."""
    ask: str = ""
    sampling: Mapping[str, Any] | None = None
    reference: str | None = None
    human: str | None = None
    """The human's turn that was answered; None if it can't be told from the rest of the prompt."""
    explicit: bool = False
    """Whether the line itself says how people read its prompt (`shown`)."""

    def same_prompt(self, other: SystemOutput) -> bool:
        return not set(self.shas).isdisjoint(other.shas)


def read_outputs(path: Path, *, dialogues: bool) -> Iterator[tuple[str, SystemOutput]]:
    """(name of the system, output) of each line. Raises InputError naming file and line."""
    stem = path.name
    for end in (*PACKED, ".jsonl", ".json"):
        stem = stem.removesuffix(end)
    for where, line in read_objects(path, "a completion needs at least id, prompt and completion"):
        name = line.get("system")
        system = checked_name(name, "system", where) if isinstance(name, str) and name else stem
        yield system, _output(line, where, dialogues=dialogues)


def read_objects(path: Path, needs: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line of a JSON-lines file."""
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        value = parse_json(line, where, unique=True)
        if not isinstance(value, dict):
            raise InputError(f"{where}: the line is not a JSON object; {needs}.")
        yield where, value


def _output(line: Mapping[str, Any], where: str, *, dialogues: bool) -> SystemOutput:
    text_key = "completion" if "completion" in line else "text"
    id_key = "prompt_id" if "prompt_id" in line else "id"
    if dialogues and "dialogue" in line and "turn" in line:
        line = {**line, "id": f"{line['dialogue']}#{line['turn']}"}
        id_key = "id"
    for key, meant in ((id_key, "id"), ("prompt", "prompt"), (text_key, "completion")):
        if key not in line:
            raise InputError(f"{where}: the key '{meant}' is missing; a completion needs id, prompt and completion.")
    id = checked_id(line[id_key], id_key, where)
    at = f"{where} (completion of '{id}')"
    shown, turns = read_prompt_value(line["prompt"], "prompt", at)
    shas = [_sha([("user", shown)])] if isinstance(line["prompt"], str) else [_sha(turns), _sha([("user", shown)])]
    explicit = line.get("shown") is not None
    if explicit:
        shown = checked_text(line["shown"], "shown", at)
        shas = [_sha([("user", shown)])]
    elif isinstance(line.get("marker"), str) and holds(shown, line["marker"]):
        raise InputError(
            f"{at}: the prompt holds the feedback sentence {line['marker']!r:.80}, which would reveal to raters what "
            "wrote the answer; add the key 'shown' with the prompt as people read it, or generate the completions "
            "again."
        )
    if isinstance(line.get("prompt_sha"), str):
        shas.insert(0, line["prompt_sha"])
    reference = line.get("reference")
    return SystemOutput(
        id=id,
        prompt=shown,
        shas=tuple(dict.fromkeys(shas)),
        text=checked_text(line[text_key], text_key, at),
        where=where,
        ask=checked_name(line["ask"], "ask", at) if isinstance(line.get("ask"), str) else "",
        sampling=_sampling(line.get("sampling"), at),
        reference=checked_text(reference, "reference", at) if isinstance(reference, str) else None,
        human=_human(line, at) if dialogues else None,
        explicit=explicit,
    )


def read_prompt_value(value: object, key: str, where: str) -> tuple[str, Turns]:
    """The prompt as people read it (a single message bare, a conversation with the role before each turn), and its
    turns.
    """
    if isinstance(value, str):
        return checked_text(value, key, where), [("user", value)]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {key} is {type(value).__name__}; it must be text or a list of messages.")
    turns = []
    for index, message in enumerate(value):
        match message:
            case {"role": str(role), "content": str(content)}:
                at = f"{key}[{index}]"
                turns.append((checked_text(role, f"{at}.role", where), checked_text(content, f"{at}.content", where)))
            case _:
                raise InputError(f"{where}: {key}[{index}] must be a message with 'role' and 'content', both text.")
    if len(turns) == 1:
        return turns[0][1], turns
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns), turns


def _human(line: Mapping[str, Any], where: str) -> str | None:
    if line.get("human") is not None:
        return checked_text(line["human"], "human", where)
    key = "messages" if line.get("messages") else "prompt"
    if isinstance(line[key], str):
        return None
    role, text = read_prompt_value(line[key], key, where)[1][-1]
    return text if role == "user" else None


def _sampling(value: object, where: str) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not value:
        return None
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{where}: sampling holds a non-finite number; correct the line.") from error
    return value


def _sha(turns: Turns) -> str:
    """The hash that our own completions carry as `prompt_sha`."""
    return hashlib.sha256(json.dumps(list(turns)).encode("ascii")).hexdigest()


def checked_id(value: object, key: str, where: str) -> str:
    """An id as text; a whole number becomes text."""
    return checked_name(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, key, where)


def checked_name(value: object, key: str, where: str) -> str:
    """A text that names something in messages and files."""
    text = checked_text(value, key, where)
    if not text.isprintable() or len(text) > LONGEST_NAME:
        raise InputError(
            f"{where}: {key} is {text!r:.60}, {len(text)} characters; a name is one line of at most {LONGEST_NAME}."
        )
    return text


def join_dialogues(turns: Mapping[str, SystemOutput]) -> dict[str, SystemOutput]:
    """Dialogue -> all its turns as one output (see the example at the top of the file)."""
    dialogues: dict[str, dict[int, SystemOutput]] = {}
    for id, output in turns.items():
        dialogue, mark, number = id.rpartition("#")
        if not mark or not (number.isascii() and number.isdigit()):
            raise InputError(
                f"{output.where}: '{id}' is no turn of a dialogue; give ids DIALOGUE#TURN (d7#1, d7#2, ...) or the "
                "keys 'dialogue' and 'turn'."
            )
        dialogues.setdefault(dialogue, {})[int(number)] = output
    return {dialogue: _joined(dialogue, by_turn) for dialogue, by_turn in dialogues.items()}


def _joined(dialogue: str, by_turn: Mapping[int, SystemOutput]) -> SystemOutput:
    numbers = sorted(by_turn)
    ordered = [by_turn[number] for number in numbers]
    if numbers[0] > 1 or numbers[-1] - numbers[0] + 1 != len(numbers):
        raise InputError(
            f"{ordered[0].where}: the dialogue '{dialogue}' has the turns {', '.join(map(str, numbers))}; a dialogue "
            "needs all its turns, starting at 1 (or 0)."
        )
    humans: list[str] = []
    for output in ordered:
        if output.human is None and humans:
            raise InputError(
                f"{output.where}: what the human says in '{output.id}' can't be told from what came before; give it as "
                "'human', or the prompt as messages."
            )
        humans.append(output.prompt if output.human is None else output.human)
    turns = (f"User: {human}\n\nAssistant: {output.text}" for human, output in zip(humans, ordered, strict=True))
    return dataclasses.replace(
        ordered[0],
        id=dialogue,
        prompt=f"A conversation with {counted(len(ordered), 'user turn')}. The user says the same on both sides.",
        shas=(_sha([("user", human) for human in humans]),),
        text="\n\n".join(turns),
        reference=None,
    )
