"""What a model writes, as numbers: means for each condition, control gaps, and whether a second answer is better than
another first one.

    ask                              completions of the held-out prompts under ...
    good, bad, good accuracy, ...    one feedback sentence (`data.conditions`)
    refined 2                        the good sentence, after the model's own first answer marked as bad (or criticized)
    refined 3                        ... after two of its answers
    review 1                         the question for a review, after the model's first answer (critic: self)
    fresh 2                          the good sentence alone, drawn anew: the control of `refined 2`
    best by good, best by ratio      of several samples under the good sentence, the best by the model's own likelihood
                                     (best_of_n.py)

If first answers are picked for being poor, second answers are better on average without any refining (regression to
the mean). So the improvement is `refined` minus `fresh`, prompt by prompt; `fresh` minus first is the regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.text_metrics import completion_values, copied, distinct
from coh_lightning.intervals import compared_with, paired_difference, per_prompt

FIRST = "good"
"""The condition whose answers are refined, or chosen from."""
BEST_BY_GOOD, BEST_BY_RATIO = "best by good", "best by ratio"


@dataclass(frozen=True)
class Valued:
    """The numbers of one completion, small enough to be gathered from all ranks."""

    id: str
    prompt_id: str
    ask: str
    values: Mapping[str, float]


def valued(completion: Completion) -> Valued:
    """Its `completion_values` and scores."""
    values = completion_values(
        completion.text,
        tokens=completion.completion_tokens,
        ended=completion.stop == "end",
        reference=completion.reference,
    )
    return Valued(completion.id, completion.prompt_id, completion.ask, values | dict(completion.scores))


def with_samples(completions: Sequence[Completion]) -> list[Valued]:
    """All completions of one rank. `distinct` is in the first of several samples of a prompt and condition."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in completions:
        groups.setdefault((one.prompt_id, one.ask), []).append(one.text)
    rows: list[Valued] = []
    for one in completions:
        texts = groups.pop((one.prompt_id, one.ask), [])
        row = valued(one)
        rows.append(replace(row, values={**row.values, "distinct": distinct(texts)}) if len(texts) > 1 else row)
    return rows


def with_copies(first: Sequence[Completion], second: Sequence[Completion]) -> list[Valued]:
    """`second` answers, each with `copied`, from the first answer to the same prompt."""
    texts = {one.prompt_id: one.text for one in first}
    rows = [(valued(one), copied(one.text, texts[one.prompt_id])) for one in second]
    return [replace(row, values={**row.values, "copied": share}) for row, share in rows]


def summary(rows: Iterable[Valued], *, seed: int = 0) -> dict[str, float]:
    """All figures of a round of writing, whatever the order of the rows. Means are over completions, differences over
    prompts, with 95 % intervals bootstrapped over prompts.

        {value}_{ask}                         mean of a value (words, ended, rouge, a scorer's accuracy, ...)
        gap_{value}, ..._low, ..._high        control gap: good minus bad, prompt by prompt
        gap_{attribute}_{value}, ...          the same of "good {attribute}" minus "bad {attribute}"
        improvement_{n}_{value}, ...          the n-th answer, refined, minus a fresh draw for the same prompt
        regression_{n}_{value}                the fresh draw minus the first answer: a false improvement
        improvement_by_good_{value}, ...      the best of several samples minus their mean; the same by ratio
    """
    ordered = sorted(rows, key=lambda row: row.id)
    by_ask: dict[str, list[Valued]] = {}
    for row in ordered:
        by_ask.setdefault(row.ask, []).append(row)
    figures: dict[str, float] = {}
    for ask, written in by_ask.items():
        for name in _names(written):
            values = [row.values[name] for row in written if name in row.values]
            figures[f"{name}_{_key(ask)}"] = sum(values) / len(values)
    for ask in by_ask:
        other = FIRST if ask in (BEST_BY_GOOD, BEST_BY_RATIO) else compared_with(ask)
        if other is None or other not in by_ask:
            continue
        head, _, rest = ask.partition(" ")
        name = "_".join(filter(None, ("gap" if head == "good" else "improvement", _key(rest))))
        figures |= _difference(name, by_ask[ask], by_ask[other], seed)
        if head == "refined" and FIRST in by_ask:
            figures |= _difference(f"regression_{rest}", by_ask[other], by_ask[FIRST], seed, interval=False)
    return figures


def _difference(
    name: str, a: Sequence[Valued], b: Sequence[Valued], seed: int, *, interval: bool = True
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for value in _names(a):
        sides: list[dict[str, float]] = [
            per_prompt((row.prompt_id, row.values[value]) for row in side if value in row.values) for side in (a, b)
        ]
        if sides[0].keys() & sides[1].keys():
            difference = paired_difference(sides[0], sides[1], seed=seed)
            figures[f"{name}_{value}"] = difference.mean
            if interval:
                figures |= {f"{name}_{value}_low": difference.low, f"{name}_{value}_high": difference.high}
    return figures


def _names(rows: Sequence[Valued]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.values))


def _key(ask: str) -> str:
    return ask.replace(" ", "_")


def headline(figures: Mapping[str, float]) -> list[str]:
    """The figures for the progress bar: the control gap of the last scorer, else of ROUGE."""
    gaps = [name for name in figures if name.startswith("gap_") and not name.endswith(("_low", "_high"))]
    plain = {f"gap_{name}" for name in ("tokens", "words", "repetition", "ended", "empty", "distinct")}
    chosen = [name for name in gaps if name not in plain]
    return ([name for name in chosen if "rouge" not in name] or chosen)[-1:]
