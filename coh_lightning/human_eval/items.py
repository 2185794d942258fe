"""What raters compare: the answers of two systems to one prompt, and gold items, whose better answer is obvious."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.completions import checked_id, read_objects, read_prompt_value
from coh_lightning.human_eval.study import digest
from coh_lightning.human_eval.systems import System
from coh_lightning.rng import key64


@dataclass(frozen=True)
class AnswerPair:
    """Two systems' answers to one prompt."""

    prompt_id: str
    prompt_sha: str
    prompt: str
    systems: tuple[str, str]
    texts: tuple[str, str]

    @property
    def judged_as(self) -> str:
        """The id of the pair in the judgments of a judge: a hash of all that is compared."""
        return "i" + digest(self.prompt_id, self.prompt, *self.systems, *self.texts)[:10]


@dataclass(frozen=True)
class MatchedPairs:
    """All pairs of a study, and what could not be paired."""

    pairs: tuple[AnswerPair, ...]
    unmatched: Mapping[str, tuple[str, ...]]
    """System -> ids of its prompts that a system it is compared with lacks."""
    warnings: tuple[str, ...] = field(default=())


def match(
    systems: Sequence[System], *, seed: int, against: str | None = None, max_prompts: int | None = None
) -> MatchedPairs:
    """Pairs of answers to the same prompt (equal id, equal hash), of all pairs of systems or only of each with the
    baseline `against`, which comes first. `max_prompts` are drawn by the seed, the same for every pair of systems.

    Raises:
        InputError: fewer than two systems, no prompt in common, or equal ids with different prompts.
    """
    if len(systems) < 2:
        given = ", ".join(system.name for system in systems) or "none"
        raise InputError(f"A study compares two systems, but only {given} was given; add a completions file.")
    names = [system.name for system in systems]
    if against is not None and against not in names:
        known = ", ".join(names) + did_you_mean(against, names)
        raise InputError(f"The baseline '{against}' is not among the systems {known}")
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
            both = " and ".join(
                f"'{system.name}' ({len(system.outputs)} prompts, such as {next(iter(system.outputs))!r})"
                for system in (one, other)
            )
            raise InputError(
                f"{both} have no prompt id in common; both must answer the same prompts under the same ids."
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


def _pairs(one: System, other: System, ids: Sequence[str]) -> Iterator[AnswerPair]:
    both = [(one.outputs[id], other.outputs[id]) for id in ids]
    different = [(a, b) for a, b in both if not a.same_prompt(b)]
    if different:
        a, b = different[0]
        raise InputError(
            f"{len(different)} of {len(ids)} ids have different prompts in '{one.name}' and '{other.name}', first "
            f"'{a.id}': {a.prompt!r:.40} at {a.where}, {b.prompt!r:.40} at {b.where}; correct the ids."
        )
    for a, b in both:
        if a.prompt != b.prompt and not (a.explicit or b.explicit):
            raise InputError(
                f"{b.where}: the prompt of '{b.id}' has the hash of that at {a.where} but different words, "
                f"{b.prompt!r:.40} and {a.prompt!r:.40}; add the key 'shown' with the prompt as people read it."
            )
        prompt = (b if b.explicit and not a.explicit else a).prompt
        yield AnswerPair(a.id, a.shas[0], prompt, (one.name, other.name), (a.text, b.text))


def _different_sampling(one: System, other: System) -> Iterator[str]:
    a, b = one.sampling, other.sampling
    if a is None or b is None or a == b:
        return
    differing = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    values = "; ".join(f"{name} {a.get(name)} and {b.get(name)}" for name in differing)
    yield f"'{one.name}' and '{other.name}' were sampled differently: {values}."


# --- gold items

NEEDS = "a gold item needs id, prompt, good and bad"


@dataclass(frozen=True)
class GoldItem:
    id: str
    prompt: str
    good: str
    bad: str


def read_gold(path: Path) -> list[GoldItem]:
    """Gold items from JSON lines with id, prompt, good and bad. Raises InputError naming file and line."""
    gold: dict[str, GoldItem] = {}
    for where, line in read_objects(path, NEEDS):
        missing = [key for key in ("id", "prompt", "good", "bad") if key not in line]
        if missing:
            raise InputError(f"{where}: the key {missing[0]!r} is missing; {NEEDS}.")
        one = GoldItem(
            checked_id(line["id"], "id", where),
            read_prompt_value(line["prompt"], "prompt", where)[0],
            checked_text(line["good"], "good", where),
            checked_text(line["bad"], "bad", where),
        )
        if one.id in gold:
            raise InputError(f"{where}: the file has two gold items '{one.id}'; give each its own id.")
        if one.good == one.bad:
            raise InputError(f"{where}: the good and the bad answer of '{one.id}' are the same text; change one.")
        gold[one.id] = one
    return list(gold.values())
