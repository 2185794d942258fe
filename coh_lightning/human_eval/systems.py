"""Completions files -> the systems of a study, each with one output for each prompt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.feedback.completions import SystemOutput, read_outputs, turns_sha
from coh_lightning.feedback.judgments import TIE
from coh_lightning.rng import key64

GOLD = ("gold: good", "gold: bad")
"""The systems' names in the pair of a gold item."""
REFERENCE = "reference"
"""Name of the system whose answers are the data's own references."""
RESERVED = (TIE, *GOLD)
GOOD = "good"
"""The ask that is compared if a file has several."""
NOT_COMPARED = ("seed", "samples", "batch_size", "max_seconds")
"""Sampling settings that may differ between systems: they don't change the distribution of outputs."""


@dataclass(frozen=True)
class System:
    """One side of a comparison: a name and one output for each prompt."""

    name: str
    outputs: Mapping[str, SystemOutput]
    """Prompt id -> output."""
    file: str = ""
    ask: str = ""
    samples: int = 1
    """The most completions that one prompt had before one was drawn."""
    warnings: tuple[str, ...] = ()

    @property
    def sampling(self) -> dict[str, Any] | None:
        """The sampling settings of its first output, without `NOT_COMPARED`; None if unknown."""
        first = next(iter(self.outputs.values())).sampling
        return None if first is None else _compared(first)


def read_systems(
    paths: Sequence[Path],
    *,
    seed: int,
    names: Sequence[str] | None = None,
    ask: str | None = None,
    control: tuple[str, str] | None = None,
    dialogues: bool = False,
) -> list[System]:
    """The systems of completions files, each with one output for each prompt; of several samples one is drawn by (seed,
    system, prompt id).

    Args:
        names: one for each file, instead of what its lines or its name say.
        ask: which ask to compare if files have several; default `good`, or else the first.
        control: two asks of the one file given, compared with each other: one model under two feedback sentences.
        dialogues: each id is a turn of a dialogue; the turns are joined.

    Raises:
        InputError: naming file and line, or the two files that share a system's name.
    """
    if names is not None and len(names) != len(paths):
        raise InputError(f"There are {len(paths)} completions files but {len(names)} names; give each file a name.")
    if control is not None and len(paths) != 1:
        raise InputError(f"A control compares two asks of one file, but {len(paths)} files were given; give one.")
    systems: dict[str, System] = {}
    for number, path in enumerate(paths):
        by_name: dict[str, list[SystemOutput]] = {}
        for name, output in read_outputs(path, dialogues=dialogues):
            by_name.setdefault(name, []).append(output)
        if names is not None:
            if len(by_name) > 1:
                held = f"{len(by_name)} systems ({', '.join(by_name)})"
                raise InputError(f"{path}: the file has {held}, so one name isn't enough; leave out --names.")
            by_name = dict(zip([names[number]], by_name.values(), strict=True))
        for name, outputs in by_name.items():
            for system in _asked(name, outputs, ask, control, path, seed=seed, dialogues=dialogues):
                if system.name in RESERVED:
                    raise InputError(f"{path}: a system can't be called '{system.name}'; rename it with --names.")
                if system.name in systems:
                    same = f"its system is called '{system.name}', like that of {systems[system.name].file}"
                    raise InputError(f"{path}: {same}; give each file its own name with --names.")
                checked_text(system.name, "system", str(path))
                systems[system.name] = system
    return list(systems.values())


def references(systems: Sequence[System]) -> System:
    """The data's references as a system. Raises InputError if there are none, or a prompt has two different ones."""
    outputs: dict[str, SystemOutput] = {}
    for system in systems:
        for id, output in system.outputs.items():
            if output.reference is None:
                continue
            first = outputs.setdefault(id, dataclasses.replace(output, text=output.reference, sampling=None, ask=""))
            if first.text != output.reference:
                two = f"{output.reference!r:.40}, but {first.text!r:.40} at {first.where}"
                raise InputError(f"{output.where}: the reference of '{id}' is {two}; give each prompt one reference.")
    if not outputs:
        names = ", ".join(system.name for system in systems)
        raise InputError(f"None of the completions of {names} has a 'reference'; give a second completions file.")
    return System(REFERENCE, outputs, file=systems[0].file)


def _asked(
    name: str,
    outputs: Sequence[SystemOutput],
    ask: str | None,
    control: tuple[str, str] | None,
    path: Path,
    *,
    seed: int,
    dialogues: bool,
) -> Iterator[System]:
    """The system with the outputs of the ask that is compared; two systems for a control."""
    asks = list(dict.fromkeys(output.ask for output in outputs))
    for wanted in control or ((ask,) if ask is not None and any(asks) else ()):
        if wanted not in asks:
            known = ", ".join(map(repr, asks)) + did_you_mean(wanted, asks)
            raise InputError(f"{path}: '{name}' was not asked for '{wanted}', only for {known}")
    chosen = list(control) if control else [ask if ask in asks else GOOD if GOOD in asks else asks[0]]
    for one in chosen:
        own = [output for output in outputs if output.ask == one]
        system = _one_each(f"{name} ({one})" if control else name, own, path, seed=seed, dialogues=dialogues)
        if len(asks) > 1 and ask is None and not control:
            known = ", ".join(map(repr, asks))
            warning = f"{path} has the asks {known}; only '{one}' is compared (--ask takes another)."
            system = dataclasses.replace(system, warnings=(*system.warnings, warning))
        yield dataclasses.replace(system, ask=one)


def _one_each(name: str, outputs: Sequence[SystemOutput], path: Path, *, seed: int, dialogues: bool) -> System:
    """One output for each prompt id; of several one is drawn. Raises InputError if equal ids mean different prompts."""
    by_id: dict[str, list[SystemOutput]] = {}
    for output in outputs:
        same = by_id.setdefault(output.id, [])
        if same and not same[0].same_prompt(output):
            other = f"the id '{output.id}' has another prompt at {same[0].where}"
            raise InputError(f"{output.where}: {other}; equal ids must mean equal prompts (samples of one prompt).")
        same.append(output)
    samples = max(map(len, by_id.values()))
    drawn = {id: same[key64(seed, "sample", name, id) % len(same)] for id, same in by_id.items()}
    warnings = []
    settings = {json.dumps(_compared(output.sampling or {}), sort_keys=True) for output in drawn.values()}
    if len(settings) > 1:
        warnings.append(f"{path}: the completions of '{name}' have {len(settings)} different sampling settings.")
    if dialogues:
        twice = next((same for same in by_id.values() if len(same) > 1), None)
        if twice:
            several = f"the turn '{twice[1].id}' has {len(twice)} completions"
            raise InputError(f"{twice[1].where}: {several}; keep one sample of each turn of a dialogue.")
        drawn = join_dialogues(drawn)
    elif samples > 1:
        warnings.append(f"{path}: '{name}' has up to {samples} completions per prompt; one was drawn by the seed.")
    return System(name, drawn, file=path.name, samples=samples, warnings=tuple(warnings))


def _compared(sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sampling.items() if name not in NOT_COMPARED}


def join_dialogues(turns: Mapping[str, SystemOutput]) -> dict[str, SystemOutput]:
    """Dialogue -> all its turns as one output (drawn in feedback/completions.py)."""
    dialogues: dict[str, dict[int, SystemOutput]] = {}
    for id, output in turns.items():
        dialogue, mark, number = id.rpartition("#")
        if not mark or not (number.isascii() and number.isdigit()):
            raise InputError(
                f"{output.where}: '{id}' doesn't name a turn of a dialogue; give ids DIALOGUE#TURN (d7#1, ...), or the "
                "keys 'dialogue' and 'turn'."
            )
        dialogues.setdefault(dialogue, {})[int(number)] = output
    return {dialogue: _joined(dialogue, by_turn) for dialogue, by_turn in dialogues.items()}


def _joined(dialogue: str, by_turn: Mapping[int, SystemOutput]) -> SystemOutput:
    numbers = sorted(by_turn)
    ordered = [by_turn[number] for number in numbers]
    if numbers[0] > 1 or numbers[-1] - numbers[0] + 1 != len(numbers):
        found = f"the dialogue '{dialogue}' has the turns {', '.join(map(str, numbers))}"
        raise InputError(f"{ordered[0].where}: {found}; it needs all its turns, starting at 1 (or 0).")
    humans: list[str] = []
    for output in ordered:
        if output.human is None and humans:
            unclear = f"what the human says in '{output.id}' can't be told from what came before"
            raise InputError(f"{output.where}: {unclear}; give it as 'human', or the prompt as messages.")
        humans.append(output.prompt if output.human is None else output.human)
    turns = (f"User: {human}\n\nAssistant: {output.text}" for human, output in zip(humans, ordered, strict=True))
    return dataclasses.replace(
        ordered[0],
        id=dialogue,
        prompt=f"A conversation with {counted(len(ordered), 'user turn')}. The user says the same on both sides.",
        shas=(turns_sha([("user", human) for human in humans]),),
        text="\n\n".join(turns),
        reference=None,
    )
