"""The tables of a report: numbers of report.json as rows of text.

attribute   votes   ties as half     ties left out    prompts won    ...
accuracy      120   60 % (50 to 69)  63 % (52 to 74)  24–15 (1 tie)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coh_lightning.errors import counted
from coh_lightning.human_eval.figures import plain

NONE = "–"
TERCILES = {"shorter": "shorter third", "alike": "middle third", "longer": "longer third"}
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first columns (`names`) are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    kind: str = "table"


# --- numbers in words


def percent(interval: Numbers) -> str:
    """A share with its interval, in percent.

    >>> percent({"value": 0.6, "low": 0.502, "high": 0.6906}), percent({"value": None, "low": None, "high": None})
    ('60 % (50 to 69)', '–')
    """
    value, low, high = (None if interval[name] is None else 100 * interval[name] for name in ("value", "low", "high"))
    if value is None:
        return NONE
    return f"{value:.0f} %" + ("" if low is None else f" ({low:.0f} to {high:.0f})")


def bracketed(interval: Numbers, form: str) -> str:
    """
    >>> bracketed({"value": 0.61, "low": 0.5, "high": 0.7}, "{:+.2f}")
    '+0.61 (+0.50 to +0.70)'
    """
    if interval["value"] is None:
        return NONE
    bounds = "" if interval["low"] is None else f" ({form} to {form})".format(interval["low"], interval["high"])
    return form.format(interval["value"]) + bounds


def p_value(p: float) -> str:
    """
    >>> p_value(0.0312), p_value(0.0004), p_value(1.0)
    ('0.031', '< 0.001', '1.000')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def versus(pair: Numbers) -> str:
    return f"{plain(pair['model'])} vs {plain(pair['baseline'])}"


# --- the tables


def votes_table(numbers: Numbers, analysis: Numbers) -> Table:
    """The paper's table: a row for each pair, a column for each attribute, and the average."""
    names = [name for name in numbers["attributes"] if any(name in pair["attributes"] for pair in analysis["pairs"])]
    average = ["average"] if len(names) > 1 else []
    rows = []
    for pair in analysis["pairs"]:
        cells = [pair["attributes"][name]["row"] if name in pair["attributes"] else NONE for name in names]
        rows.append((versus(pair), *cells, *(pair[name]["row"] for name in average)))
    return Table(("", *map(plain, names), *average), tuple(rows))


def win_table(analysis: Numbers) -> Table:
    rows: list[tuple[Numbers, tuple[str, ...]]] = []
    for pair in analysis["pairs"]:
        for name, entry in pair["attributes"].items():
            votes, test = entry["by_prompt"], entry["sign_test"]
            split = f"{votes['model']}–{votes['baseline']} ({counted(votes['tie'], 'tie')})"
            tested = (split, percent(votes["win_rate"]), p_value(test["p"]), p_value(test["p_holm"]))
            rows.append((pair, (plain(name), f"{entry['votes']:,}", *_rates(entry), *tested)))
        if len(pair["attributes"]) > 1:
            rows.append((pair, ("average", "", *_rates(pair["average"]), "", "", "", "")))
    head = ("attribute", "votes", "ties as half", "ties left out", "prompts won", "share of decided", "p", "p (Holm)")
    return _by_pair(analysis, head, rows)


def exclusion_table(numbers: Numbers) -> Table:
    """Each attribute: all raters beside those that stay."""
    both = numbers["analyses"]
    kept = {(pair["baseline"], pair["model"]): pair["attributes"] for pair in both["kept"]["pairs"]}
    rows = []
    for pair in both["all"]["pairs"]:
        for name, entry in pair["attributes"].items():
            other = kept.get((pair["baseline"], pair["model"]), {}).get(name)
            cells = (NONE, NONE) if other is None else (other["row"], percent(other["ties_as_half"]))
            rows.append((versus(pair), plain(name), entry["row"], percent(entry["ties_as_half"]), *cells))
    head = ("pair", "attribute", "all: votes", "all: win rate", "without: votes", "without: win rate")
    return Table(head, tuple(rows), names=2)


def ranking_table(analysis: Numbers) -> Table:
    rows = []
    for attribute, entry in analysis["ranking"].items():
        for each in entry.get("systems", ()):
            numbers = bracketed(each["log_strength"], "{:+.2f}"), percent(each["win_rate"])
            rows.append((plain(attribute), f"{each['rank']}", plain(each["system"]), *numbers))
    return Table(("attribute", "rank", "system", "log strength", "expected win rate"), tuple(rows), names=3)


def agreement_table(analysis: Numbers) -> Table:
    rows = []
    for pair in analysis["pairs"]:
        for name, entry in pair["attributes"].items():
            each = entry["agreement"]
            kappa = NONE if each["kappa"] is None else f"{each['kappa']:.2f}"
            alpha, raw = bracketed(each["alpha"], "{:.2f}"), percent(each["raw"])
            rows.append((pair, (plain(name), f"{each['items']:,}", f"{each['raters']}", alpha, raw, kappa)))
    head = ("attribute", "items shared", "raters", "Krippendorff's alpha", "raw agreement", "Cohen's kappa")
    return _by_pair(analysis, head, rows)


def position_table(analysis: Numbers) -> Table:
    position = analysis["position"]
    every = [(plain(name), entry) for name, entry in position["attributes"].items()]
    every.append(("all, one vote a row", position["rows"]))
    rows = tuple((name, f"{entry['decided']:,}", percent(entry)) for name, entry in every)
    return Table(("left answer wins", "decided", "left-win rate"), rows)


def length_table(analysis: Numbers) -> Table:
    rows = []
    for pair in analysis["pairs"]:
        for third in pair["length"]["terciles"]:
            extent = "{:+,} to {:+,}".format(*third["longer_by"]) if third["longer_by"] else NONE
            counts = (f"{third['items']:,}", f"{third['votes']:,}")
            rows.append((pair, (TERCILES[third["name"]], extent, *counts, *_rates(third))))
    head = ("model's answer is", "longer by (characters)", "items", "votes", "ties as half", "ties left out")
    return _by_pair(analysis, head, rows)


def rater_table(numbers: Numbers) -> Table:
    rows = []
    for rater, each in numbers["raters"].items():
        seconds = each["seconds"]
        time = NONE
        if seconds["median"] is not None:
            time = f"{seconds['median']:.0f} ({seconds['lower_quartile']:.0f}–{seconds['upper_quartile']:.0f})"
        ties = f"{100 * each['ties'] / each['votes']:.0f} %" if each["votes"] else NONE
        checks = [each["checks"][name] for name in ("swap", "identical", "gold")]
        right = [f"{check['right']} of {check['of']}" if check["of"] else NONE for check in checks]
        excluded = "yes" if rater in numbers["exclusion"]["excluded"] else ""
        given = (plain(rater), f"{each['rows']:,}", ties, percent(each["left"]), time)
        rows.append((*given, *right, f"{each['comments']:,}", excluded))
    head = ("rater", "rows", "ties", "left-win rate", "seconds a row", "swap alike", "identical tied", "gold right")
    return Table((*head, "comments", "excluded"), tuple(rows))


def plackett_luce_table(numbers: Numbers) -> Table:
    """The systems of each attribute by strength."""
    rows = [
        (
            plain(attribute),
            f"{each['rank']}",
            plain(each["system"]),
            bracketed(each["log_strength"], "{:+.2f}"),
            f"{100 * each['first']:.0f} %",
        )
        for attribute, entry in numbers["plackett_luce"].items()
        for each in entry.get("systems", ())
    ]
    return Table(("attribute", "rank", "system", "log strength", "ranked first"), tuple(rows), names=3)


def strength_table(numbers: Numbers) -> Table:
    """Each pair and attribute: votes by strength, clear preferences by prompt, odds ratio."""
    rows = []
    for one in numbers["strength"]:
        odds, clear = one["odds_ratio"], one["clear"]
        ratio = NONE if "refused" in odds else f"{bracketed(odds, '{:.2f}')}, p {p_value(odds['p'])}"
        split = f"{clear['model']}–{clear['baseline']}, p {p_value(clear['p'])}"
        levels = (f"{count:,}" for count in one["levels"].values())
        rows.append((versus(one), plain(one["attribute"]), *levels, split, ratio))
    head = ("pair", "attribute", "baseline clearly", "slightly", "tie", "slightly", "model clearly")
    return Table((*head, "prompts clearly won", "odds ratio"), tuple(rows), names=2)


def judge_table(numbers: Numbers) -> Table:
    """Each judge, beside people."""
    rows = []
    for judge, pairs in numbers["judges"].items():
        for pair in pairs:
            for name, entry in pair["attributes"].items():
                alike = f"{percent(entry['with_people'])}, {counted(entry['with_people']['of'], 'item')}"
                cells = (entry["row"], percent(entry["ties_as_half"]), alike if entry["with_people"]["of"] else NONE)
                rows.append((plain(judge), versus(pair), plain(name), f"{entry['votes']:,}", *cells))
    head = ("judge", "pair", "attribute", "verdicts", "percent", "ties as half", "chose as most people")
    return Table(head, tuple(rows), names=3)


def _rates(entry: Numbers) -> tuple[str, str]:
    return percent(entry["ties_as_half"]), percent(entry["ties_excluded"])


def _by_pair(analysis: Numbers, head: tuple[str, ...], rows: Iterable[tuple[Numbers, tuple[str, ...]]]) -> Table:
    """A table of (pair, cells); if there are several pairs, the pair has a column of its own."""
    if len(analysis["pairs"]) <= 1:
        return Table(head, tuple(cells for _, cells in rows))
    return Table(("pair", *head), tuple((versus(pair), *cells) for pair, cells in rows), names=2)
