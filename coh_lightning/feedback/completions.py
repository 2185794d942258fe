"""What a model wrote: a line of a completions file, as we write it (`Completion`) or as anybody does (`SystemOutput`).

Anybody's lines need an id, a prompt and a completion; unknown keys are ignored:

    {"id": "p1", "prompt": "Why is the sky blue?", "completion": "Air scatters blue light most."}

`prompt` is text or chat messages. Optional: `system` (default: the file's name), `ask` (the kind of output asked for),
`sampling`, `reference`, `shown` (the prompt as people read it), `messages` (the same as chat messages), `prompt_sha`.
In our own lines `text` is the completion and `prompt_id` the id of the prompt; their `prompt` is what the model was
given, feedback sentence included, so raters see `shown` instead, and a line without `shown` whose prompt contains its
`marker` is refused.

A pseudo-dialogue (the paper's form for dialogue data: the human's turns are kept, each reply is written by the model)
is one line per turn, with ids DIALOGUE#TURN or the keys `dialogue` and `turn`. What the human says is `human`, or else
the last message of `messages` or `prompt`:

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_object, checked_text, flat_values, number
from coh_lightning.errors import InputError, named
from coh_lightning.feedback.compressed import PACKED
from coh_lightning.feedback.jsonl import read_values
from coh_lightning.feedback.turns import read_messages
from coh_lightning.words import holds


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one prompt under one feedback sentence, with everything needed to generate it again."""

    id: str
    prompt_id: str
    """Id of the record of the prompt."""
    system: str
    """Name of the model or run."""
    prompt: str
    """The exact text that was continued, including the feedback sentence."""
    prompt_sha: str
    """SHA-256 of the record's prompt without the feedback sentence: equal for all systems that are compared."""
    ask: str
    """The condition: "good", "bad", ... or "" for none."""
    marker: str
    """The feedback sentence itself."""
    text: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Temperature, top_p, max_new_tokens, ..."""
    stop: str = ""
    """Why it ended: "end" (the end token), "marker" (a feedback sentence followed, which is cut off), "length", ..."""
    seed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reference: str | None = None
    task: str = "answer"
    source: str = ""
    shown: str | None = None
    """The prompt as a rater sees it, without the feedback sentence."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The same prompt as chat messages of `role` and `content`; in a pseudo-dialogue with the system's own answers."""
    human: str | None = None
    """In a pseudo-dialogue, the user's last turn; the earlier assistant turns in `shown` are this system's own."""
    answer: str | None = None
    """Of a review: the answer that it judges; None: this is an answer."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores by name, from scorers."""

    @classmethod
    def from_json(cls, obj: object, where: str) -> Completion:
        """Read one line of `completions.jsonl`. Raises InputError naming `where` and the key."""
        values = flat_values(cls, obj, where)
        _check_sampling(values.get("sampling"), where)
        if "scores" in values:
            values["scores"] = read_scores(values["scores"], where)
        if "messages" in values:
            values["messages"] = read_messages(values["messages"], "messages", where)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self) | {"messages": [dict(message) for message in self.messages] or None}
        return {name: value for name, value in values.items() if value is not None}


def read_scores(value: object, where: str) -> dict[str, float]:
    """The scores by name of a line of completions. Raises InputError for what is not a finite number."""
    return {
        checked_text(name, "scores", where): number(score, f"scores.{named(name)}", where)
        for name, score in checked_object(value, "scores", where).items()
    }


# --- anybody's lines

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
    """The human's turn that was answered; None if it can't be told apart from the rest of the prompt."""
    explicit: bool = False
    """Whether the line itself says how people read its prompt (`shown`)."""
    task: str = ""
    """The noun for what was written, such as summary; "" if the line doesn't say."""

    def same_prompt(self, other: SystemOutput) -> bool:
        return not set(self.shas).isdisjoint(other.shas)


def read_outputs(path: Path, *, dialogues: bool) -> Iterator[tuple[str, SystemOutput]]:
    """(name of the system, output) of each line, ours or anybody's. Raises InputError naming file and line."""
    for system, output, _ in read_output_lines(path, dialogues=dialogues):
        yield system, output


def read_output_lines(path: Path, *, dialogues: bool) -> Iterator[tuple[str, SystemOutput, dict[str, Any]]]:
    """The same as `read_outputs`, each with its whole line."""
    stem = path.name
    for end in (*PACKED, ".jsonl", ".json"):
        stem = stem.removesuffix(end)
    for where, line in read_objects(path, "a completion needs at least id, prompt and completion"):
        name = line.get("system")
        system = checked_name(name, "system", where) if isinstance(name, str) and name else stem
        yield system, _output(line, where, dialogues=dialogues), line


def read_objects(path: Path, needs: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line of a JSON-lines file."""
    for where, value in read_values(path):
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
    shas = [turns_sha(turns), turns_sha([("user", shown)])]
    explicit = line.get("shown") is not None
    if explicit:
        shown = checked_text(line["shown"], "shown", at)
        shas = [turns_sha([("user", shown)])]
    elif isinstance(line.get("marker"), str) and holds(shown, line["marker"]):
        raise InputError(
            f"{at}: the prompt contains the feedback sentence {line['marker']!r:.80}, which would tell raters what "
            "wrote the answer; add the key 'shown' with the prompt as people read it."
        )
    if isinstance(line.get("prompt_sha"), str):
        shas.insert(0, line["prompt_sha"])
    reference, sampling = line.get("reference"), line.get("sampling")
    sampling = sampling if isinstance(sampling, dict) and sampling else None
    _check_sampling(sampling, at)
    return SystemOutput(
        id=id,
        prompt=shown,
        shas=tuple(dict.fromkeys(shas)),
        text=checked_text(line[text_key], text_key, at),
        where=where,
        ask=checked_name(line["ask"], "ask", at) if isinstance(line.get("ask"), str) else "",
        sampling=sampling,
        reference=checked_text(reference, "reference", at) if isinstance(reference, str) else None,
        human=_human(line, at) if dialogues else None,
        explicit=explicit,
        task=line["task"] if isinstance(line.get("task"), str) else "",
    )


def read_prompt_value(value: object, key: str, where: str) -> tuple[str, Turns]:
    """The prompt as people read it (one message bare, a conversation with the role before each turn), and its turns."""
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


def _check_sampling(value: object, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:
        raise InputError(f"{where}: sampling has a non-finite number or a lone surrogate; correct the line.") from error


def turns_sha(turns: Turns) -> str:
    """A hash of (role, text) of each message: for a record's whole prompt the `prompt_sha` of our own completions."""
    return hashlib.sha256(json.dumps(list(turns)).encode("ascii")).hexdigest()


def checked_id(value: object, key: str, where: str) -> str:
    """An id as text; a whole number becomes text."""
    return checked_name(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, key, where)


def checked_name(value: object, key: str, where: str) -> str:
    """A text that names something in messages and files."""
    text = checked_text(value, key, where)
    if not text.isprintable() or len(text) > LONGEST_NAME:
        found = f"{key} is {text!r:.60}, {len(text)} characters"
        raise InputError(f"{where}: {found}; a name is one line of at most {LONGEST_NAME}.")
    return text
