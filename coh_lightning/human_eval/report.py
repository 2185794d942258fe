"""`python -m coh_lightning human-eval report DIR`: the ratings of a study, unblinded, as numbers with intervals:
report.json, report.md, report.html and figures.

Reads `key.json`, `items.jsonl` and `judgements.jsonl` of the folder (and, where it is there, title and attributes from
`study.json`). What is counted as one observation, everywhere:

* a **vote** is one answer of one rater on one attribute of one item, shown for the first time; checks (swapped
duplicates, identical pairs, gold items) are no votes;
* percentages and win rates are over votes; their intervals come from a bootstrap that draws whole **prompts**, since
votes on one prompt depend on each other;
* Wilson's interval and the sign test take **one vote a prompt**: the side with more votes has it, and it is a tie where
they are even;
* the left-win rate takes single votes: sides are drawn for each rater and item, so votes on one prompt don't share
them. Its summary over attributes takes one
  vote a row, because a row's attributes share its sides.

Intervals are about other prompts rated by these raters, not about other raters.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.draws import key64
from coh_lightning.errors import InputError, counted, listed
from coh_lightning.files import written_aside
from coh_lightning.human_eval.study import STUDY, Item, Study, read_items, read_key, read_study
from coh_lightning.jsonl import parse_json, read_lines
from coh_lightning.judgements import TIE, Judgement

if TYPE_CHECKING:
    from coh_lightning.human_eval.statistics import Floats, Interval, Statistic

SIDES = ("baseline", "tie", "model")
LEVEL = 0.95
TERCILES = ("shorter", "alike", "longer")
"""Names of the thirds of items by (length of the model's answer - length of the baseline's)."""
REFERENCES = (
    "For orientation: on AlpacaEval's data people agreed with the majority of the other raters in 65.7 % of cases, "
    "which with two equally common choices is a "
    "kappa near 0.31; always choosing the longer answer agreed in 62.2 %."
)
RULES = {
    "min_gold": ("gold", "gold items answered rightly"),
    "min_identical": ("identical", "identical pairs called a tie"),
    "min_consistency": ("swap", "swapped duplicates answered alike"),
}
"""Exclusion rule -> the check whose share must reach it, in words."""


@dataclass(frozen=True)
class Answers:
    """What a report is made of."""

    folder: Path
    key: Mapping[str, Any]
    items: Mapping[str, Item]
    judgements: tuple[Judgement, ...]
    study: Study | None
    """For title, attributes and their definitions, where study.json is there."""

    @property
    def systems(self) -> tuple[str, ...]:
        return tuple(self.key["systems"])

    @property
    def attributes(self) -> tuple[str, ...]:
        """In the study's order; those it doesn't name by name, "overall" last."""
        found = sorted(
            {judgement.attribute for judgement in self.judgements}, key=lambda name: (name == "overall", name)
        )
        given = [name for name in (self.study.attributes if self.study else ()) if name in found]
        return (*given, *(name for name in found if name not in given))

    @property
    def raters(self) -> tuple[str, ...]:
        return tuple(sorted({judgement.rater for judgement in self.judgements}, key=_natural))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(baseline, model): the system of `against` is always the baseline, and else the one that was named first."""
        names = sorted(self.systems, key=lambda name: name != self.key.get("against"))
        compared = {
            frozenset(self.key["items"][judgement.item]["systems"])
            for judgement in self.judgements
            if not judgement.check
        }
        return [
            (one, two)
            for place, one in enumerate(names)
            for two in names[place + 1 :]
            if frozenset((one, two)) in compared
        ]


def _natural(name: str) -> tuple[int, str]:
    # rater-2 before rater-10
    return (len(name), name)


# ----------------------------------------------------------------------------------------------------------------
# reading


def read_answers(folder: Path | str) -> Answers:
    """The judgements of a study with its key.

    Raises:
        InputError: a missing or damaged file, an item or system that the key doesn't know, an answer given twice;
            naming file and line.
    """
    folder = Path(folder)
    key, items = read_key(folder), {item.item: item for item in read_items(folder)}
    study = read_study(folder) if (folder / STUDY).exists() else None
    path = folder / "judgements.jsonl"
    if not path.exists():
        raise InputError(
            f"{path}: there is no such file; import the raters' files first: human-eval import {folder} FILES."
        )
    seen: dict[tuple[str, str], str] = {}
    judgements = []
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        judgement = Judgement.from_json(parse_json(line, where, unique=True), where)
        if judgement.item not in key["items"] or judgement.item not in items:
            raise InputError(
                f"{where}: item {judgement.item!r:.60} is not in this study's key.json and items.jsonl; import the "
                "answers of this study alone."
            )
        known = set(key["items"][judgement.item]["systems"])
        if set(judgement.systems) != known or judgement.choice not in known | {TIE}:
            raise InputError(
                f"{where}: choice {judgement.choice!r:.60} among {list(judgement.systems)!r:.80} is not of item "
                f"{judgement.item!r:.60} ({sorted(known)!r:.80}); import again."
            )
        if (first := seen.setdefault((judgement.row, judgement.attribute), where)) != where:
            raise InputError(
                f"{where}: row {judgement.row!r:.60} has {judgement.attribute!r:.60} twice, first at {first}; keep "
                "one of the two lines."
            )
        judgements.append(judgement)
    if not any(not judgement.check for judgement in judgements):
        raise InputError(f"{path}: all {len(judgements):,} answers are checks, none is a vote; import more sheets.")
    return Answers(folder, key, items, tuple(judgements), study)


# ----------------------------------------------------------------------------------------------------------------
# raters and their checks


def rater_table(answers: Answers) -> dict[str, dict[str, Any]]:
    """Of each rater: rows and votes given, seconds a row, rows that the left answer won, and how the checks were
    answered.
    """
    from coh_lightning.human_eval.statistics import wilson

    table = {}
    for rater in answers.raters:
        mine = [judgement for judgement in answers.judgements if judgement.rater == rater]
        left = left_by_row(judgement for judgement in mine if not judgement.check)
        table[rater] = {
            "rows": len({judgement.row for judgement in mine}),
            "votes": sum(not judgement.check for judgement in mine),
            "ties": sum(not judgement.check and judgement.choice == TIE for judgement in mine),
            "comments": len({judgement.row for judgement in mine if judgement.comment.strip()}),
            "seconds": seconds_per_row(mine),
            "left": _shown(wilson(*left)) | {"decided": left[1]},
            "checks": _checks(mine),
        }
    return table


def seconds_per_row(judgements: Iterable[Judgement]) -> dict[str, float | int | None]:
    """Rows with a time, and the quartiles of their seconds. A row's attributes carry the same time, which counts
    once.
    """
    import numpy as np

    times = {judgement.row: judgement.seconds for judgement in judgements if judgement.seconds is not None}
    if not times:
        return {"rows": 0, "median": None, "lower_quartile": None, "upper_quartile": None}
    low, middle, high = np.quantile(list(times.values()), [0.25, 0.5, 0.75])
    return {"rows": len(times), "median": float(middle), "lower_quartile": float(low), "upper_quartile": float(high)}


def _checks(judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """Check -> answers that were right, of how many; import says which (a swapped duplicate is right where it is
    answered as the first showing was).
    """
    results: dict[str, list[bool]] = {"swap": [], "identical": [], "gold": []}
    for judgement in judgements:
        if judgement.check in results and judgement.passed is not None:
            results[judgement.check].append(judgement.passed)
    return {
        name: {"right": sum(each), "of": len(each), "share": sum(each) / len(each) if each else None}
        for name, each in results.items()
    }


def excluded_raters(table: Mapping[str, Mapping[str, Any]], rules: Mapping[str, Any]) -> dict[str, list[str]]:
    """Rater -> why the rules, fixed in the key before unblinding, leave the rater out. A check that a rater never met
    excludes nobody.

    Raises:
        InputError: a rule that this report doesn't know: leaving it out silently would be worse than no report.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    fewest = int(rules.get("min_check_answers", 1))
    for name, bound in rules.items():
        if bound is None or name in ("min_check_answers", "note"):
            continue
        if name not in (*RULES, "min_median_seconds"):
            raise InputError(
                f"key.json: unknown exclusion rule {name!r:.60}; this report knows "
                f"{', '.join((*RULES, 'min_median_seconds', 'min_check_answers'))}."
            )
        for rater, row in table.items():
            if name == "min_median_seconds":
                median = row["seconds"]["median"]
                if median is not None and median < bound:
                    reasons[rater].append(f"a median of {median:.1f} seconds a row, below {bound:g}")
            else:
                check, words = RULES[name]
                result = row["checks"][check]
                if result["of"] >= max(1, fewest) and result["share"] < bound:
                    reasons[rater].append(
                        f"{result['right']} of {result['of']} {words} ({100 * result['share']:.0f} %), below "
                        f"{100 * bound:.0f} %"
                    )
    return dict(reasons)


# ----------------------------------------------------------------------------------------------------------------
# analysis


def analyse(answers: Answers, raters: Sequence[str]) -> dict[str, Any]:
    """All numbers of the votes of these raters: pairs of systems, position, and the ranking of three or more
    systems.
    """
    from coh_lightning.human_eval.statistics import holm

    allowed = set(raters)
    votes = [judgement for judgement in answers.judgements if not judgement.check and judgement.rater in allowed]
    pairs = [_pair(answers, votes, baseline, model) for baseline, model in answers.pairs]
    pairs = [pair for pair in pairs if pair["votes"]]
    tests = [entry["sign_test"] for pair in pairs for entry in pair["attributes"].values()]
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = adjusted
    return {
        "raters": list(raters),
        "votes": len(votes),
        "prompts": len({vote.prompt_id for vote in votes}),
        "tests": len(tests),
        "pairs": pairs,
        "position": _position(answers, votes),
        "seconds": seconds_per_row(votes),
        "ranking": _ranking(answers, votes) if len(answers.systems) > 2 else None,
    }


def _pair(answers: Answers, votes: Sequence[Judgement], baseline: str, model: str) -> dict[str, Any]:
    """The comparison of two systems. One table with a row for each prompt is drawn from, so that all its statistics
    share their resamples.
    """
    import numpy as np

    from coh_lightning.human_eval.statistics import (
        bootstrap_sums,
        rate_interval,
        share_of,
        terciles,
        ties_as_half,
        ties_excluded,
    )

    mine = [vote for vote in votes if set(vote.systems) == {baseline, model}]
    attributes = [name for name in answers.attributes if any(vote.attribute == name for vote in mine)]
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(vote.prompt_id for vote in mine))}
    longer_by = {item: _longer_by(answers, item, baseline, model) for item in dict.fromkeys(vote.item for vote in mine)}
    third = dict(zip(longer_by, terciles(list(longer_by.values())).tolist(), strict=True))

    counts = np.zeros((len(prompts), len(attributes) + 3, 3))  # per attribute, then per tercile: baseline, tie, model
    longer = np.zeros((len(prompts), 3))  # votes for the shorter answer, (nothing), for the longer
    for vote in mine:
        prompt, side = prompts[vote.prompt_id], 1 if vote.choice == TIE else 2 if vote.choice == model else 0
        counts[prompt, attributes.index(vote.attribute), side] += 1
        counts[prompt, len(attributes) + third[vote.item], side] += 1
        if side != 1 and longer_by[vote.item]:
            longer[prompt, 2 if (side == 2) == (longer_by[vote.item] > 0) else 0] += 1
    seed = key64(int(answers.key.get("seed", 0)), "report", baseline, model)
    table = np.concatenate([counts, longer[:, None]], axis=1)
    sums = bootstrap_sums(table.reshape(len(prompts), -1), seed=seed).reshape(-1, len(attributes) + 4, 3)
    totals = table.sum(axis=0)

    def rate(statistic: Statistic, place: int) -> dict[str, Any]:
        clusters = int(table[:, place].any(axis=1).sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            return _shown(rate_interval(statistic(sums[:, place]), float(statistic(totals[place])), clusters))

    entries = {}
    for place, attribute in enumerate(attributes):
        entry = _shares(totals[place]) | {
            "ties_as_half": rate(ties_as_half, place),
            "ties_excluded": rate(ties_excluded, place),
        }
        entry["share"] = {side: rate(share_of(number), place) for number, side in enumerate(SIDES)}
        entry["difference"] = _difference(entry["ties_as_half"])
        entry |= _by_prompt(counts[:, place])
        entry["agreement"] = _agreement([vote for vote in mine if vote.attribute == attribute], baseline, model, seed)
        entries[attribute] = entry
    lengths = [(len(_text(answers, item, baseline)), len(_text(answers, item, model))) for item in longer_by]
    return {
        "baseline": baseline,
        "model": model,
        "votes": len(mine),
        "prompts": len(prompts),
        "items": len(longer_by),
        "attributes": entries,
        "average": _average(entries, sums[:, : len(attributes)], len(prompts)),
        "length": {
            "unit": "characters",
            "median_baseline": float(np.median([one for one, _ in lengths])) if lengths else None,
            "median_model": float(np.median([two for _, two in lengths])) if lengths else None,
            "chose_longer": rate(ties_excluded, len(attributes) + 3) | {"votes": int(totals[-1].sum())},
            "terciles": [
                {
                    "name": name,
                    "items": sum(each == number for each in third.values()),
                    "longer_by": _range([longer_by[item] for item in third if third[item] == number]),
                    "votes": int(totals[len(attributes) + number].sum()),
                    "ties_as_half": rate(ties_as_half, len(attributes) + number),
                    "ties_excluded": rate(ties_excluded, len(attributes) + number),
                }
                for number, name in enumerate(TERCILES)
            ],
        },
    }


def _text(answers: Answers, item: str, system: str) -> str:
    return answers.items[item].texts[list(answers.key["items"][item]["systems"]).index(system)]


def _longer_by(answers: Answers, item: str, baseline: str, model: str) -> int:
    """Characters that the model's answer is longer by."""
    return len(_text(answers, item, model)) - len(_text(answers, item, baseline))


def _range(values: Sequence[int]) -> list[int] | None:
    return [min(values), max(values)] if values else None


def _shares(counts: Floats) -> dict[str, Any]:
    """Counts and percentages of votes, and the row in the form of the paper's tables: baseline/tie/model
    (difference).
    """
    percent = [float(100 * count / counts.sum()) for count in counts]
    return {
        "votes": int(counts.sum()),
        "counts": dict(zip(SIDES, (int(count) for count in counts), strict=True)),
        "percent": dict(zip(SIDES, percent, strict=True)),
        "row": paper_row(*percent),
    }


def paper_row(baseline: float, tie: float, model: float) -> str:
    """Percentages as in the paper's tables.

    >>> paper_row(24.5, 26.8, 48.7)
    '24.5/26.8/48.7 (24.2)'
    """
    return f"{baseline:.1f}/{tie:.1f}/{model:.1f} ({model - baseline:.1f})"


def _average(entries: Mapping[str, Mapping[str, Any]], sums: Floats, prompts: int) -> dict[str, Any]:
    """The unweighted mean over attributes, as the paper's last column; its interval draws prompts once for all
    attributes.
    """
    import numpy as np

    from coh_lightning.human_eval.statistics import rate_interval, share_of, ties_as_half, ties_excluded

    percent = {side: float(np.mean([entry["percent"][side] for entry in entries.values()])) for side in SIDES}

    def mean(statistic: Statistic, values: Sequence[float | None]) -> dict[str, Any]:
        numbers = [math.nan if value is None else value for value in values]
        with np.errstate(invalid="ignore", divide="ignore"):
            return _shown(rate_interval(statistic(sums).mean(axis=-1), float(np.mean(numbers)), prompts))

    out: dict[str, Any] = {"percent": percent, "row": paper_row(**percent)}
    for name, statistic in (("ties_as_half", ties_as_half), ("ties_excluded", ties_excluded)):
        out[name] = mean(statistic, [entry[name]["value"] for entry in entries.values()])
    out["share"] = {
        side: mean(share_of(number), [entry["share"][side]["value"] for entry in entries.values()])
        for number, side in enumerate(SIDES)
    }
    out["difference"] = _difference(out["ties_as_half"])
    return out


def _difference(half: Mapping[str, float | None]) -> dict[str, float | None]:
    """Percent of the model less percent of the baseline: twice the win rate with ties as half, less one, whatever the
    ties.
    """
    return {name: None if value is None else 200 * value - 100 for name, value in half.items()}


def _by_prompt(counts: Floats) -> dict[str, Any]:
    """One vote a prompt: its split, Wilson's interval of the decided, the exact sign test. Holm's p is put in once all
    tests are known.
    """
    from coh_lightning.human_eval.statistics import majority, sign_test, wilson

    lost, even, won = (int(count) for count in majority(counts))
    return {
        "by_prompt": {"baseline": lost, "tie": even, "model": won} | {"win_rate": _shown(wilson(won, won + lost))},
        "sign_test": {"p": sign_test(won, lost), "p_holm": None, "decided": won + lost},
    }


def _agreement(votes: Sequence[Judgement], baseline: str, model: str, seed: int) -> dict[str, Any]:
    """Alpha and raw agreement over items with two or more raters, with intervals over prompts; kappa where two raters
    share items.
    """
    import numpy as np

    from coh_lightning.human_eval.statistics import (
        agreement_totals,
        alpha_of_sums,
        bootstrap_sums,
        cohen_kappa,
        expanded_percentile,
        raw_agreement_of_sums,
    )

    sides = {baseline: 0, TIE: 1, model: 2}
    by_item: dict[str, dict[str, int]] = defaultdict(dict)
    prompt_of = {vote.item: vote.prompt_id for vote in votes}
    for vote in votes:
        by_item[vote.item][vote.rater] = sides[vote.choice]
    shared = {item: given for item, given in by_item.items() if len(given) > 1}
    raters = sorted({rater for given in shared.values() for rater in given}, key=_natural)
    out: dict[str, Any] = {
        "items": len(shared),
        "raters": len(raters),
        "alpha": _shown(None),
        "raw": _shown(None),
        "kappa": None,
    }
    if not shared:
        return out
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompt_of[item] for item in shared))}
    per_item = agreement_totals([np.bincount(list(given.values()), minlength=3) for given in shared.values()])
    per_prompt = np.zeros((len(prompts), per_item.shape[1]))
    np.add.at(per_prompt, [prompts[prompt_of[item]] for item in shared], per_item)
    sums = bootstrap_sums(per_prompt, seed=key64(seed, "agreement"))
    for name, statistic in (("alpha", alpha_of_sums), ("raw", raw_agreement_of_sums)):
        out[name] = _shown(expanded_percentile(statistic(sums), float(statistic(per_prompt.sum(axis=0))), len(prompts)))
    if len(raters) == 2:
        table = np.zeros((3, 3))
        for given in shared.values():
            table[given[raters[0]], given[raters[1]]] += 1
        out["kappa"] = _number(cohen_kappa(table))
    return out


def left_by_row(votes: Iterable[Judgement]) -> tuple[int, int]:
    """(rows that the left answer won, rows decided) by the majority of each row's attributes, which share their
    sides.
    """
    lead: Counter[str] = Counter()
    for vote in votes:
        lead[vote.row] += 0 if vote.choice == TIE else 1 if vote.choice == vote.systems[0] else -1
    return sum(side > 0 for side in lead.values()), sum(side != 0 for side in lead.values())


def _position(answers: Answers, votes: Sequence[Judgement]) -> dict[str, Any]:
    """How often the left answer won: of the decided votes on each attribute, and of rows by the majority of their
    attributes.
    """
    from coh_lightning.human_eval.statistics import wilson

    by_attribute: dict[str, list[int]] = {name: [0, 0] for name in answers.attributes}
    for vote in votes:
        if vote.choice != TIE:
            by_attribute[vote.attribute][0] += vote.choice == vote.systems[0]
            by_attribute[vote.attribute][1] += 1
    left = left_by_row(votes)
    return {
        "rows": _shown(wilson(*left)) | {"decided": left[1]},
        "attributes": {name: _shown(wilson(*counts)) | {"decided": counts[1]} for name, counts in by_attribute.items()},
    }


def _ranking(answers: Answers, votes: Sequence[Judgement]) -> dict[str, Any]:
    """Bradley-Terry with ties (Davidson) for each attribute, its intervals over prompts; or why there is none."""
    import numpy as np

    from coh_lightning.human_eval.statistics import (
        bootstrap_sums,
        bradley_terry,
        davidson,
        expanded_percentile,
        expected_win_rates,
    )

    systems = answers.systems
    place_of = {name: place for place, name in enumerate(systems)}
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(vote.prompt_id for vote in votes))}
    out: dict[str, Any] = {}
    for attribute in answers.attributes:
        table = np.zeros((len(prompts), 2, len(systems), len(systems)))  # wins, ties
        for vote in votes:
            if vote.attribute == attribute:
                one, other = (place_of[name] for name in vote.systems)
                prompt = prompts[vote.prompt_id]
                if vote.choice == TIE:
                    table[prompt, 1, one, other] += 1
                    table[prompt, 1, other, one] += 1
                else:
                    winner = place_of[vote.choice]
                    table[prompt, 0, winner, one + other - winner] += 1
        wins, ties = table.sum(axis=0)
        try:
            fitted = bradley_terry(wins, ties, systems)
        except InputError as error:
            out[attribute] = {"refused": str(error)}
            continue
        clusters = int(table.any(axis=(1, 2, 3)).sum())
        seed = key64(int(answers.key.get("seed", 0)), "ranking", attribute)
        sums = bootstrap_sums(table.reshape(len(prompts), -1), seed=seed, resamples=2000).reshape(
            -1, 2, len(systems), len(systems)
        )
        strengths, tie = davidson(sums[:, 0], sums[:, 1])
        rates = expected_win_rates(strengths, tie)
        order = sorted(range(len(systems)), key=lambda place: -fitted.log_strengths[place])
        out[attribute] = {
            "model": "Bradley-Terry with ties (Davidson 1970)",
            "votes": int(wins.sum() + ties.sum() / 2),
            "tie_parameter": fitted.tie,
            "resamples_without_estimate": int(np.isnan(tie).sum()),
            "systems": [
                {
                    "rank": rank,
                    "system": systems[place],
                    "log_strength": _shown(
                        expanded_percentile(strengths[:, place], float(fitted.log_strengths[place]), clusters)
                    ),
                    "win_rate": _shown(
                        expanded_percentile(rates[:, place], float(fitted.win_rates()[place]), clusters)
                    ),
                }
                for rank, place in enumerate(order, start=1)
            ],
        }
    return out


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _shown(interval: Interval | None) -> dict[str, float | None]:
    """An interval as JSON has it: null where there is no number."""
    if interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": _number(interval.value), "low": _number(interval.low), "high": _number(interval.high)}


# ---------------------------------------------------------------------------------------------------------------- the
# whole report


def report_numbers(answers: Answers) -> dict[str, Any]:
    """The content of report.json: every number that the report shows, with and without the raters that the study's
    rules leave out.
    """
    from coh_lightning.human_eval.statistics import RESAMPLES

    table = rater_table(answers)
    rules = answers.key.get("exclusion") or {}
    left_out = excluded_raters(table, rules)
    kept = [rater for rater in answers.raters if rater not in left_out]
    analyses = {"all": analyse(answers, answers.raters)}
    if left_out and kept:
        analyses["kept"] = analyse(answers, kept)
    rows = answers.key.get("rows") or {}
    return {
        "format": 1,
        "study": answers.key.get("study", ""),
        "title": answers.study.title if answers.study else "",
        "definitions": dict(answers.study.definitions) if answers.study else {},
        "systems": list(answers.systems),
        "attributes": list(answers.attributes),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "rows": {"asked": len(rows), "answered": len({judgement.row for judgement in answers.judgements})},
        "raters": table,
        "exclusion": {"rules": dict(rules), "excluded": left_out},
        "analyses": analyses,
        "unmatched": {system: list(ids) for system, ids in (answers.key.get("unmatched") or {}).items()},
        "sampling": dict(answers.key.get("sampling") or {}),
        "warnings": _warnings(answers, left_out, kept, rows),
    }


def _warnings(
    answers: Answers, left_out: Mapping[str, Sequence[str]], kept: Sequence[str], rows: Mapping[str, Any]
) -> list[str]:
    """What a reader must know before believing a number; each one sentence."""
    lines = [str(warning) for warning in answers.key.get("warnings") or ()]
    sampling = answers.key.get("sampling") or {}
    unknown = [system for system in answers.systems if not sampling.get(system)]
    known = {system: sampling[system] for system in answers.systems if sampling.get(system)}
    if unknown and known:
        lines.append(
            f"The sampling settings of {listed(unknown)} are not known, so they can't be compared with those of "
            f"{listed(list(known))}."
        )
    # export has said so already where it wrote warnings
    for setting in sorted(
        {name for values in known.values() for name in values} if answers.key.get("warnings") is None else ()
    ):
        values = {system: json.dumps(each.get(setting), sort_keys=True) for system, each in known.items()}
        if len(set(values.values())) > 1:
            lines.append(
                f"Sampling differs in {setting}: "
                f"{', '.join(f'{system} {value}' for system, value in values.items())}; what is compared is model "
                "and sampling."
            )
    for system, ids in (answers.key.get("unmatched") or {}).items():
        if ids:
            lines.append(
                f"{counted(len(ids), 'prompt')} of {system} had no counterpart and "
                f"{'was' if len(ids) == 1 else 'were'} not rated (first: {ids[0]})."
            )
    answered = {judgement.row for judgement in answers.judgements}
    if len(answered) < len(rows):
        lines.append(f"{len(rows) - len(answered):,} of {len(rows):,} rows are not answered yet.")
    if left_out and not kept:
        lines.append("The exclusion rules leave no rater; the numbers are those of all raters.")
    return lines


def write_report(folder: Path | str) -> Path:
    """Write report.json, report.md, report.html and figures/ into the folder of a study; gives the path of report.html.

    Raises:
        InputError: a missing or damaged file (see `read_answers`), or an extra that isn't installed.
    """
    from coh_lightning.human_eval.figures import draw_figures
    from coh_lightning.human_eval.report_page import report_markdown, report_page

    folder = Path(folder)
    numbers = report_numbers(read_answers(folder))
    figures = draw_figures(numbers, folder / "figures")
    _write(folder / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write(folder / "report.md", report_markdown(numbers, figures))
    _write(folder / "report.html", report_page(numbers, folder / "figures", figures))
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


# ---------------------------------------------------------------------------------------------------------------- the
# command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval report`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder that export made and import filled")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its table; gives the exit status. Raises InputError as `write_report` does."""
    from coh_lightning.human_eval.report_page import report_terminal

    path = write_report(args.folder)
    print(report_terminal(json.loads((args.folder / "report.json").read_text(encoding="utf-8"))))
    print(f"\nwrote {path}, report.md, report.json and figures/")
    return 0
