"""Completions files -> pairs of answers to the same prompt: who wrote what is still known here, and nowhere after the
study is made.

A completions file is JSON lines, ours (`completions.jsonl`) or anybody's. A line needs an id, a prompt and a
completion; whatever else it holds is left alone:

    {"id": "p1", "prompt": "Why is the sky blue?", "completion": "Air scatters blue light most."}

`prompt` is text, or chat messages. Optional: `system` (else the file's name is the system's), `ask` (which kind of
output was asked for), `sampling`, `reference`, `shown` (the prompt as people read it) and `prompt_sha`. In our own
lines `text` is the completion and `prompt_id` the id of the prompt; their `prompt` is what the model was given,
feedback sentence included, so raters are shown `shown` instead, and a line without `shown` whose prompt holds its
`marker` is refused.

Pseudo-dialogues (the paper's form for dialogue data: the human's turns are kept, each reply is written anew) are lines
of one turn each, told by an id `DIALOGUE#TURN` or the keys `dialogue` and `turn`. What the human says is `human`, or
else the last user message of `prompt`:

    {"id": "d7#1", "prompt": "Hello!", "completion": "Hi."}                                      User: Hello!
    {"id": "d7#2", "prompt": [{"role": "user", "content": "Hello!"},                             Assistant: Hi.
                              {"role": "assistant", "content": "Hi."},               become      User: Who are you?
                              {"role": "user", "content": "Who are you?"}], "completion": "A machine."}      Assistant: A machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.compressed import PACKED
from coh_lightning.draws import key64
from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.jsonl import parse_json, read_lines
from coh_lightning.words import holds

REFERENCE = "reference"
"""Name of the system whose answers are the data's own references."""
GOLD = ("gold: good", "gold: bad")
"""What stands for systems where the answers of a gold item came from no system."""
RESERVED = ("tie", *GOLD)
GOOD = "good"
"""The ask that is compared where a file holds several."""
NOT_COMPARED = ("seed", "samples", "batch_size", "max_seconds")
"""Sampling settings that two systems may differ in without a warning: they don't change what is likely to be
written.
"""
USER = "\n\nUser: "
LONGEST_NAME = 300
"""Characters of an id or of a system's name."""


@dataclass(frozen=True)
class Output:
    """What one system wrote for one prompt."""

    id: str
    """Id of the prompt."""
    prompt: str
    """As raters read it."""
    shas: tuple[str, ...]
    """Hashes that the prompt is known by; two prompts are equal where they share one. The first is the record's own."""
    text: str
    where: str
    """File and line that it came from."""
    ask: str = ""
    sampling: Mapping[str, Any] | None = None
    reference: str | None = None
    human: str | None = None
    """The human's turn that was answered; None where it can't be told from the rest of the prompt."""
    meant: bool = False
    """Whether the line says how people read its prompt (`shown`)."""


@dataclass(frozen=True)
class System:
    """One side of a comparison: a name and one output for each prompt."""

    name: str
    outputs: Mapping[str, Output]
    """Prompt id -> output."""
    file: str = ""
    ask: str = ""
    samples: int = 1
    """The most completions that one prompt had, before one was drawn."""
    warnings: tuple[str, ...] = ()

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The settings that its first output was sampled with, without those that two systems may differ in; None where
        they are not known.
        """
        first = next(iter(self.outputs.values())).sampling
        return None if first is None else {name: value for name, value in first.items() if name not in NOT_COMPARED}


@dataclass(frozen=True)
class Pair:
    """Two systems' answers to one prompt."""

    prompt_id: str
    prompt_sha: str
    prompt: str
    systems: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True)
class Matched:
    """All pairs of a study, and what could not be paired."""

    pairs: tuple[Pair, ...]
    unmatched: Mapping[str, tuple[str, ...]]
    """System -> ids of its prompts that a system it is compared with doesn't have."""
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Gold:
    """A prompt with an obviously better answer, to see whether a rater reads."""

    id: str
    prompt: str
    good: str
    bad: str


# ----------------------------------------------------------------------------------------------------------------
# reading


def read_systems(
    paths: Sequence[Path],
    *,
    seed: int,
    names: Sequence[str] | None = None,
    ask: str | None = None,
    control: tuple[str, str] | None = None,
    dialogues: bool = False,
) -> list[System]:
    """The systems of completions files, each with one output a prompt; of several samples one is drawn by (seed,
    system, prompt id).

    Args:
        paths: JSON lines, also .gz.
        seed: of the study.
        names: one for each file, in place of what its lines or its name say.
        ask: which ask to compare, where files hold several; by default `good`, or else the first.
        control: two asks of the one file given, compared with each other: the explicit control of one model under two
            feedback sentences.
        dialogues: each id is a turn of a dialogue; the turns are joined.

    Raises:
        InputError: naming file and line, or the two files that share a system's name.
    """
    if names is not None and len(names) != len(paths):
        raise InputError(
            f"There are {len(paths)} completions files but {len(names)} names; give one name for each file, in their "
            "order."
        )
    if control is not None and len(paths) != 1:
        raise InputError(f"A control compares two asks of one file, but {len(paths)} files were given; give one.")
    systems: dict[str, System] = {}
    for number, path in enumerate(paths):
        by_name: dict[str, list[Output]] = {}
        for name, output in _outputs(path, dialogues=dialogues):
            by_name.setdefault(name, []).append(output)
        if names is not None:
            if len(by_name) > 1:
                raise InputError(
                    f"{path}: the file holds {len(by_name)} systems ({', '.join(by_name)}), so one name can't stand "
                    "for it; leave the names out."
                )
            by_name = dict(zip([names[number]], by_name.values(), strict=True))
        for name, outputs in by_name.items():
            for system in _asked(name, outputs, ask, control, path, seed=seed, dialogues=dialogues):
                _check_name(system.name, path)
                if system.name in systems:
                    raise InputError(
                        f"{path}: its system is called '{system.name}', as is that of {systems[system.name].file}; "
                        "tell them apart with --names, one for each file."
                    )
                systems[system.name] = system
    return list(systems.values())


def references(systems: Sequence[System]) -> System:
    """The data's references as a system: for each prompt the one that its outputs carry. Raises InputError where there
    is none, or two different ones.
    """
    outputs: dict[str, Output] = {}
    for system in systems:
        for id, output in system.outputs.items():
            if output.reference is None:
                continue
            first = outputs.setdefault(id, dataclasses.replace(output, text=output.reference, sampling=None, ask=""))
            if first.text != output.reference:
                raise InputError(
                    f"{output.where}: the reference of '{id}' is {_start(output.reference)}, but "
                    f"{_start(first.text)} at {first.where}; give one reference to a prompt."
                )
    if not outputs:
        raise InputError(
            f"None of the completions of {', '.join(system.name for system in systems)} carries a 'reference' to "
            "compare with."
        )
    return System(REFERENCE, outputs, file=systems[0].file)


def read_gold(path: Path) -> list[Gold]:
    """Gold items: JSON lines with id, prompt, good and bad. Raises InputError naming file and line."""
    gold: dict[str, Gold] = {}
    for where, record in _objects(path):
        missing = [key for key in ("id", "prompt", "good", "bad") if key not in record]
        if missing:
            raise InputError(f"{where}: the key {missing[0]!r} is missing; a gold item needs id, prompt, good and bad.")
        one = Gold(
            _id(record["id"], "id", where),
            _prompt(record["prompt"], where)[0],
            checked_text(record["good"], "good", where),
            checked_text(record["bad"], "bad", where),
        )
        if one.id in gold:
            raise InputError(f"{where}: the gold item '{one.id}' was given before.")
        if one.good == one.bad:
            raise InputError(f"{where}: the good and the bad answer of gold item '{one.id}' are the same text.")
        gold[one.id] = one
    return list(gold.values())


def _outputs(path: Path, *, dialogues: bool) -> Iterator[tuple[str, Output]]:
    """(name of the system, output) of each line."""
    stem = path.name
    for end in (*PACKED, ".jsonl", ".json"):
        stem = stem.removesuffix(end)
    for where, record in _objects(path):
        name = record.get("system")
        yield (
            (_name(name, "system", where) if isinstance(name, str) and name else stem),
            _output(record, where, dialogues=dialogues),
        )


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        record = parse_json(line, where, unique=True)
        if not isinstance(record, dict):
            raise InputError(
                f"{where}: the line is no JSON object; a completion needs at least id, prompt and completion."
            )
        yield where, record


def _output(record: Mapping[str, Any], where: str, *, dialogues: bool) -> Output:
    text_key = "completion" if "completion" in record else "text"
    id_key = "prompt_id" if "prompt_id" in record else "id"
    if dialogues and "dialogue" in record and "turn" in record:
        record = {**record, "id": f"{record['dialogue']}#{record['turn']}"}
        id_key = "id"
    for key, asked in ((id_key, "id"), ("prompt", "prompt"), (text_key, "completion")):
        if key not in record:
            raise InputError(f"{where}: the key '{asked}' is missing; a completion needs id, prompt and completion.")
    id = _id(record[id_key], id_key, where)
    at = f"{where} (completion of '{id}')"
    shown, turns = _prompt(record["prompt"], at)
    shas = [_sha([("user", shown)])] if isinstance(record["prompt"], str) else [_sha(turns), _sha([("user", shown)])]
    meant = record.get("shown") is not None
    if meant:
        shown = checked_text(record["shown"], "shown", at)
        shas = [_sha([("user", shown)])]
    elif isinstance(record.get("marker"), str) and holds(shown, record["marker"]):
        raise InputError(
            f"{at}: the prompt holds the feedback sentence {record['marker']!r:.80}, which would tell raters what "
            "wrote the answer, and there is no key 'shown' with "
            "the prompt as people read it; write the completions again, or add it."
        )
    if isinstance(record.get("prompt_sha"), str):
        shas.insert(0, record["prompt_sha"])
    reference = record.get("reference")
    return Output(
        id=id,
        prompt=shown,
        shas=tuple(dict.fromkeys(shas)),
        text=checked_text(record[text_key], text_key, at),
        where=where,
        ask=_name(record["ask"], "ask", at) if isinstance(record.get("ask"), str) else "",
        sampling=_sampling(record.get("sampling"), at),
        reference=checked_text(reference, "reference", at) if isinstance(reference, str) else None,
        human=_human(record, shown, turns, at) if dialogues else None,
        meant=meant,
    )


def _prompt(value: object, where: str) -> tuple[str, list[tuple[str, str]]]:
    """The prompt as people read it (one user turn bare, a conversation with its roles before its turns), and its turns
    as (role, text).
    """
    if isinstance(value, str):
        return checked_text(value, "prompt", where), [("user", value)]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: prompt is {type(value).__name__}; it must be text or a list of messages.")
    turns = []
    for index, message in enumerate(value):
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("role"), str)
            or not isinstance(message.get("content"), str)
        ):
            raise InputError(f"{where}: prompt[{index}] is no message; a message has 'role' and 'content', both text.")
        turns.append(
            (
                checked_text(message["role"], f"prompt[{index}].role", where),
                checked_text(message["content"], f"prompt[{index}].content", where),
            )
        )
    return (
        turns[0][1] if len(turns) == 1 else "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)
    ), turns


def _human(record: Mapping[str, Any], shown: str, turns: Sequence[tuple[str, str]], where: str) -> str | None:
    if record.get("human") is not None:
        return checked_text(record["human"], "human", where)
    if isinstance(record["prompt"], list) and turns[-1][0] == "user":
        return turns[-1][1]
    return shown.rpartition(USER)[2] if USER in shown else None


def _sampling(value: object, where: str) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not value:
        return None
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{where}: sampling holds a number that is not finite; mend the line.") from error
    return value


def _sha(turns: Sequence[tuple[str, str]]) -> str:
    """The hash that our own completions carry as `prompt_sha`."""
    return hashlib.sha256(json.dumps(list(turns)).encode("ascii")).hexdigest()


def _id(value: object, key: str, where: str) -> str:
    return _name(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, key, where)


def _name(value: object, key: str, where: str) -> str:
    """A text that names something in messages and files."""
    text = checked_text(value, key, where)
    if not text.isprintable() or len(text) > LONGEST_NAME:
        raise InputError(
            f"{where}: {key} is {text!r:.60}, {len(text)} characters; a name is one line of at most {LONGEST_NAME}."
        )
    return text


def _check_name(name: str, path: Path) -> None:
    if name in RESERVED:
        raise InputError(
            f"{path}: a system can't be called '{name}', which means something else in a study; name it with --names."
        )
    checked_text(name, "system", str(path))


# ---------------------------------------------------------------------------------------------------------------- one
# output a prompt


def _asked(
    name: str,
    outputs: Sequence[Output],
    ask: str | None,
    control: tuple[str, str] | None,
    path: Path,
    *,
    seed: int,
    dialogues: bool,
) -> Iterator[System]:
    """The system, or the two of a control, with the outputs of the ask that is compared."""
    asks = list(dict.fromkeys(output.ask for output in outputs))
    for wanted in control or ((ask,) if ask is not None and any(asks) else ()):
        if wanted not in asks:
            raise InputError(
                f"{path}: '{name}' was not asked for '{wanted}', only for "
                f"{', '.join(map(repr, asks))}{did_you_mean(wanted, asks)}"
            )
    chosen = list(control) if control else [ask if ask in asks else GOOD if GOOD in asks else asks[0]]
    for one in chosen:
        system = _one_each(
            f"{name} ({one})" if control else name,
            [output for output in outputs if output.ask == one],
            path,
            seed=seed,
            dialogues=dialogues,
        )
        if len(asks) > 1 and ask is None and not control:
            words = (
                f"{path} holds the asks {', '.join(map(repr, asks))}; only '{one}' is compared (--ask takes another)."
            )
            system = dataclasses.replace(system, warnings=(*system.warnings, words))
        yield dataclasses.replace(system, ask=one)


def _one_each(name: str, outputs: Sequence[Output], path: Path, *, seed: int, dialogues: bool) -> System:
    """One output for each prompt id; of several one is drawn. Raises InputError where equal ids stand for different
    prompts.
    """
    by_id: dict[str, list[Output]] = {}
    for output in outputs:
        same = by_id.setdefault(output.id, [])
        if same and not same_prompt(same[0], output):
            raise InputError(
                f"{output.where}: the id '{output.id}' stands for another prompt at {same[0].where}; equal ids must "
                "mean equal prompts (samples of one prompt)."
            )
        same.append(output)
    samples = max(map(len, by_id.values()))
    drawn = {id: same[key64(seed, "sample", name, id) % len(same)] for id, same in by_id.items()}
    warnings = []
    settings = {_settings(output.sampling) for output in drawn.values()}
    if len(settings) > 1:
        warnings.append(
            f"{path}: the completions of '{name}' were written under {len(settings)} different sampling settings."
        )
    if dialogues:
        twice = next((same for same in by_id.values() if len(same) > 1), None)
        if twice:
            raise InputError(
                f"{twice[1].where}: the turn '{twice[1].id}' has {len(twice)} completions, and only one can be part "
                "of a dialogue; keep one sample of each turn."
            )
        drawn = _joined(drawn)
    elif samples > 1:
        warnings.append(
            f"{path}: '{name}' has up to {samples} completions a prompt; one of each prompt was drawn by the seed."
        )
    return System(name, drawn, file=path.name, samples=samples, warnings=tuple(warnings))


def _joined(turns: Mapping[str, Output]) -> dict[str, Output]:
    """Dialogue -> all its turns as one output (see the example at the top of the file)."""
    dialogues: dict[str, dict[int, Output]] = {}
    for id, output in turns.items():
        dialogue, mark, number = id.rpartition("#")
        if not mark or not (number.isascii() and number.isdigit()):
            raise InputError(
                f"{output.where}: '{id}' is no turn of a dialogue; give ids as DIALOGUE#TURN (d7#1, d7#2, ...) or "
                "the keys 'dialogue' and 'turn'."
            )
        dialogues.setdefault(dialogue, {})[int(number)] = output
    joined = {}
    for dialogue, by_turn in dialogues.items():
        ordered = [by_turn[number] for number in sorted(by_turn)]
        first = min(by_turn)
        if first > 1 or max(by_turn) - first + 1 != len(by_turn):
            there = ", ".join(map(str, sorted(by_turn)))
            raise InputError(
                f"{ordered[0].where}: the dialogue '{dialogue}' has the turns {there}; a dialogue needs all its "
                "turns, from 1 (or 0) on."
            )
        humans = []
        for index, output in enumerate(ordered):
            if output.human is None and index:
                raise InputError(
                    f"{output.where}: what the human says in '{output.id}' can't be told from what came before; give "
                    "it as 'human', or the prompt as messages."
                )
            humans.append(output.prompt if output.human is None else output.human)
        turns_text = (
            f"User: {human}\n\nAssistant: {output.text}" for human, output in zip(humans, ordered, strict=True)
        )
        joined[dialogue] = dataclasses.replace(
            ordered[0],
            id=dialogue,
            prompt=(f"A conversation with {counted(len(ordered), 'user turn')}. The user says the same on both sides."),
            shas=(_sha([("user", human) for human in humans]),),
            text="\n\n".join(turns_text),
            reference=None,
        )
    return joined


# ----------------------------------------------------------------------------------------------------------------
# pairing


def same_prompt(one: Output, other: Output) -> bool:
    return not set(one.shas).isdisjoint(other.shas)


def match(
    systems: Sequence[System], *, seed: int, against: str | None = None, max_prompts: int | None = None
) -> Matched:
    """Pairs of answers to the same prompt (equal id, equal hash), of all pairs of systems or of each with the baseline
    `against` alone.

    Args:
        systems: two or more.
        seed: which prompts stay under `max_prompts`, the same of every pair of systems.
        against: name of the baseline; it comes first in each pair.
        max_prompts: the most prompts to keep.

    Raises:
        InputError: fewer than two systems, no prompt in common, or equal ids with different prompts.
    """
    if len(systems) < 2:
        raise InputError(
            f"A study compares two systems, but only {', '.join(system.name for system in systems) or 'none'} was "
            "given; add a completions file."
        )
    names = [system.name for system in systems]
    if against is not None and against not in names:
        raise InputError(
            f"The baseline '{against}' is none of the systems {', '.join(names)}{did_you_mean(against, names)}"
        )
    if against is None:
        compared = list(combinations(systems, 2))
    else:
        baseline = systems[names.index(against)]
        compared = [(baseline, system) for system in systems if system is not baseline]
    pairs: list[Pair] = []
    lacking: dict[str, dict[str, None]] = {name: {} for name in names}
    for one, other in compared:
        common = [id for id in one.outputs if id in other.outputs]
        for here, there in ((one, other), (other, one)):
            lacking[here.name].update(dict.fromkeys(id for id in here.outputs if id not in there.outputs))
        if not common:
            raise InputError(
                f"No prompt id of '{one.name}' ({len(one.outputs)} prompts, {_some(one)}) is among those of "
                f"'{other.name}' ({len(other.outputs)} prompts, "
                f"{_some(other)}); both must answer the same prompts under the same ids."
            )
        pairs += _pairs(one, other, common)
    ids = list(dict.fromkeys(pair.prompt_id for pair in pairs))
    if max_prompts is not None:
        if max_prompts < 1:
            raise InputError(f"The number of prompts to keep is {max_prompts}; it must be at least 1.")
        keep = set(sorted(ids, key=lambda id: key64(seed, "prompts", id))[:max_prompts])
        pairs = [pair for pair in pairs if pair.prompt_id in keep]
    warnings = [words for system in systems for words in system.warnings]
    for one, other in compared:
        warnings += _unlike(one, other)
    return Matched(tuple(pairs), {name: tuple(ids) for name, ids in lacking.items()}, tuple(warnings))


def _some(system: System) -> str:
    return f"as {next(iter(system.outputs))!r}"


def _pairs(one: System, other: System, ids: Sequence[str]) -> Iterator[Pair]:
    unlike = [id for id in ids if not same_prompt(one.outputs[id], other.outputs[id])]
    if unlike:
        a, b = one.outputs[unlike[0]], other.outputs[unlike[0]]
        raise InputError(
            f"{len(unlike)} of {len(ids)} ids stand for different prompts in '{one.name}' and '{other.name}', the "
            f"first is '{unlike[0]}': {_start(a.prompt)} at "
            f"{a.where}, {_start(b.prompt)} at {b.where}; equal ids must mean equal prompts."
        )
    for id in ids:
        a, b = one.outputs[id], other.outputs[id]
        if a.prompt != b.prompt and not (a.meant or b.meant):
            raise InputError(
                f"{b.where}: the prompt of '{id}' has the hash of that at {a.where} but other words, "
                f"{_start(b.prompt)} and {_start(a.prompt)}, so raters could tell "
                "the systems apart by it; add the key 'shown' with the prompt as people read it."
            )
        yield Pair(
            id, a.shas[0], (b if b.meant and not a.meant else a).prompt, (one.name, other.name), (a.text, b.text)
        )


def _start(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _settings(sampling: Mapping[str, Any] | None) -> str:
    return json.dumps(
        {name: value for name, value in (sampling or {}).items() if name not in NOT_COMPARED}, sort_keys=True
    )


def _unlike(one: System, other: System) -> Iterator[str]:
    a, b = one.sampling, other.sampling
    if a is None or b is None or a == b:
        return
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    yield (
        f"'{one.name}' and '{other.name}' were sampled unlike: "
        + "; ".join(f"{name} {a.get(name)} and {b.get(name)}" for name in names)
        + "."
    )
