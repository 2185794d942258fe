"""Completions files -> pairs of answers to the same prompt. Which system wrote which answer is known here, and after
export only in the key.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.judgments import TIE
from coh_lightning.human_eval.gold import GOLD
from coh_lightning.human_eval.outputs import SystemOutput, join_dialogues, read_outputs
from coh_lightning.rng import key64

REFERENCE = "reference"
"""Name of the system whose answers are the data's own references."""
RESERVED = (TIE, *GOLD)
GOOD = "good"
"""The ask that is compared if a file holds several."""
NOT_COMPARED = ("seed", "samples", "batch_size", "max_seconds")
"""Sampling settings that may differ between systems without a warning: they don't change the distribution of outputs.
"""


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
        """The sampling settings of its first output, without those that may differ between systems; None if unknown."""
        first = next(iter(self.outputs.values())).sampling
        return None if first is None else {name: value for name, value in first.items() if name not in NOT_COMPARED}


@dataclass(frozen=True)
class AnswerPair:
    """Two systems' answers to one prompt."""

    prompt_id: str
    prompt_sha: str
    prompt: str
    systems: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True)
class MatchedPairs:
    """All pairs of a study, and what could not be paired."""

    pairs: tuple[AnswerPair, ...]
    unmatched: Mapping[str, tuple[str, ...]]
    """System -> ids of its prompts that a system it is compared with lacks."""
    warnings: tuple[str, ...] = field(default=())


# --- systems


def read_systems(
    paths: Sequence[Path],
    *,
    seed: int,
    names: Sequence[str] | None = None,
    ask: str | None = None,
    control: tuple[str, str] | None = None,
    dialogues: bool = False,
) -> list[System]:
    """The systems of completions files, each with one output per prompt; of several samples one is drawn by (seed,
    system, prompt id).

    Args:
        paths: JSON lines, also .gz.
        seed: of the study.
        names: one for each file, instead of what its lines or its name say.
        ask: which ask to compare if files hold several; default `good`, or else the first.
        control: two asks of the one file given, compared with each other: one model under two feedback sentences.
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
        by_name: dict[str, list[SystemOutput]] = {}
        for name, output in read_outputs(path, dialogues=dialogues):
            by_name.setdefault(name, []).append(output)
        if names is not None:
            if len(by_name) > 1:
                raise InputError(
                    f"{path}: the file holds {len(by_name)} systems ({', '.join(by_name)}), so it can't be given one "
                    "name; leave out --names."
                )
            by_name = dict(zip([names[number]], by_name.values(), strict=True))
        for name, outputs in by_name.items():
            for system in _asked(name, outputs, ask, control, path, seed=seed, dialogues=dialogues):
                _check_name(system.name, path)
                if system.name in systems:
                    raise InputError(
                        f"{path}: its system is called '{system.name}', like that of {systems[system.name].file}; give "
                        "each file its own name with --names."
                    )
                systems[system.name] = system
    return list(systems.values())


def references(systems: Sequence[System]) -> System:
    """The data's references as a system: for each prompt the one that its outputs carry. Raises InputError if there is
    none, or a prompt has two different ones.
    """
    outputs: dict[str, SystemOutput] = {}
    for system in systems:
        for id, output in system.outputs.items():
            if output.reference is None:
                continue
            first = outputs.setdefault(id, dataclasses.replace(output, text=output.reference, sampling=None, ask=""))
            if first.text != output.reference:
                raise InputError(
                    f"{output.where}: the reference of '{id}' is {output.reference!r:.40}, but {first.text!r:.40} at "
                    f"{first.where}; give each prompt one reference."
                )
    if not outputs:
        raise InputError(
            f"None of the completions of {', '.join(system.name for system in systems)} has a 'reference' to compare "
            "with; give a second completions file."
        )
    return System(REFERENCE, outputs, file=systems[0].file)


def _check_name(name: str, path: Path) -> None:
    if name in RESERVED:
        raise InputError(f"{path}: a system can't be called '{name}', which is reserved; rename it with --names.")
    checked_text(name, "system", str(path))


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
            warning = (
                f"{path} holds the asks {', '.join(map(repr, asks))}; only '{one}' is compared (--ask takes another)."
            )
            system = dataclasses.replace(system, warnings=(*system.warnings, warning))
        yield dataclasses.replace(system, ask=one)


def _one_each(name: str, outputs: Sequence[SystemOutput], path: Path, *, seed: int, dialogues: bool) -> System:
    """One output for each prompt id; of several one is drawn. Raises InputError if equal ids mean different prompts."""
    by_id: dict[str, list[SystemOutput]] = {}
    for output in outputs:
        same = by_id.setdefault(output.id, [])
        if same and not same[0].same_prompt(output):
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
            f"{path}: the completions of '{name}' were written with {len(settings)} different sampling settings."
        )
    if dialogues:
        twice = next((same for same in by_id.values() if len(same) > 1), None)
        if twice:
            raise InputError(
                f"{twice[1].where}: the turn '{twice[1].id}' has {len(twice)} completions, and only one can be part of "
                "a dialogue; keep one sample of each turn."
            )
        drawn = join_dialogues(drawn)
    elif samples > 1:
        warnings.append(
            f"{path}: '{name}' has up to {samples} completions per prompt; one of each prompt was drawn by the seed."
        )
    return System(name, drawn, file=path.name, samples=samples, warnings=tuple(warnings))


def _settings(sampling: Mapping[str, Any] | None) -> str:
    compared = {name: value for name, value in (sampling or {}).items() if name not in NOT_COMPARED}
    return json.dumps(compared, sort_keys=True)


# --- pairs


def match(
    systems: Sequence[System], *, seed: int, against: str | None = None, max_prompts: int | None = None
) -> MatchedPairs:
    """Pairs of answers to the same prompt (equal id, equal hash), of all pairs of systems or only of each with the
    baseline `against`.

    Args:
        systems: two or more.
        seed: decides which prompts `max_prompts` keeps, the same for every pair of systems.
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
    pairs: list[AnswerPair] = []
    lacking: dict[str, dict[str, None]] = {name: {} for name in names}
    for one, other in compared:
        common = [id for id in one.outputs if id in other.outputs]
        for here, there in ((one, other), (other, one)):
            lacking[here.name].update(dict.fromkeys(id for id in here.outputs if id not in there.outputs))
        if not common:
            raise InputError(
                f"No prompt id of '{one.name}' ({_example(one)}) is among those of '{other.name}' ({_example(other)}); "
                "both must answer the same prompts under the same ids."
            )
        pairs += _pairs(one, other, common)
    if max_prompts is not None:
        if max_prompts < 1:
            raise InputError(f"The number of prompts to keep is {max_prompts}; it must be at least 1.")
        ids = dict.fromkeys(pair.prompt_id for pair in pairs)
        keep = set(sorted(ids, key=lambda id: key64(seed, "prompts", id))[:max_prompts])
        pairs = [pair for pair in pairs if pair.prompt_id in keep]
    warnings = [warning for system in systems for warning in system.warnings]
    for one, other in compared:
        warnings += _different_sampling(one, other)
    return MatchedPairs(tuple(pairs), {name: tuple(ids) for name, ids in lacking.items()}, tuple(warnings))


def _example(system: System) -> str:
    return f"{len(system.outputs)} prompts, such as {next(iter(system.outputs))!r}"


def _pairs(one: System, other: System, ids: Sequence[str]) -> Iterator[AnswerPair]:
    both = [(one.outputs[id], other.outputs[id]) for id in ids]
    different = [(a, b) for a, b in both if not a.same_prompt(b)]
    if different:
        a, b = different[0]
        raise InputError(
            f"{len(different)} of {len(ids)} ids stand for different prompts in '{one.name}' and '{other.name}', the "
            f"first is '{a.id}': {a.prompt!r:.40} at {a.where}, {b.prompt!r:.40} at {b.where}; equal ids must mean "
            "equal prompts."
        )
    for a, b in both:
        if a.prompt != b.prompt and not (a.explicit or b.explicit):
            raise InputError(
                f"{b.where}: the prompt of '{b.id}' has the hash of that at {a.where} but different words, "
                f"{b.prompt!r:.40} and {a.prompt!r:.40}, so raters could tell the systems apart by it; add the key "
                "'shown' with the prompt as people read it."
            )
        prompt = (b if b.explicit and not a.explicit else a).prompt
        yield AnswerPair(a.id, a.shas[0], prompt, (one.name, other.name), (a.text, b.text))


def _different_sampling(one: System, other: System) -> Iterator[str]:
    a, b = one.sampling, other.sampling
    if a is None or b is None or a == b:
        return
    differing = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    yield (
        f"'{one.name}' and '{other.name}' were sampled differently: "
        + "; ".join(f"{name} {a.get(name)} and {b.get(name)}" for name in differing)
        + "."
    )
