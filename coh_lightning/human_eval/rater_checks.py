"""Each rater of a study: how much they rated, how fast, how they did on the checks, and who is excluded by the rules
that the export wrote down before anyone knew which system was which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coh_lightning.errors import InputError
from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.human_eval.results import StudyResults
from coh_lightning.human_eval.statistics import wilson
from coh_lightning.human_eval.study import RULES


def rater_table(results: StudyResults) -> dict[str, dict[str, Any]]:
    """For each rater: rows, votes, seconds per row, rows won by the left answer, results of the checks."""
    table = {}
    for rater in results.raters:
        own = [one for one in results.judgments if one.rater == rater]
        votes = [one for one in own if not one.check]
        left, decided = left_by_row(votes)
        table[rater] = {
            "rows": len({one.sheet_row for one in own}),
            "votes": len(votes),
            "ties": sum(one.choice == TIE for one in votes),
            "comments": len({one.sheet_row for one in own if one.comment.strip()}),
            "seconds": seconds_per_row(own),
            "left": wilson(left, decided).to_json() | {"decided": decided},
            "checks": _checks(own),
        }
    return table


def seconds_per_row(judgments: Iterable[Judgment]) -> dict[str, float | int | None]:
    """Number of rows with a time, and the quartiles of their seconds; a row's time counts once."""
    times = {one.sheet_row: one.seconds for one in judgments if one.seconds is not None}
    if not times:
        return {"rows": 0, "median": None, "lower_quartile": None, "upper_quartile": None}
    low, middle, high = np.quantile(list(times.values()), [0.25, 0.5, 0.75])
    return {"rows": len(times), "median": float(middle), "lower_quartile": float(low), "upper_quartile": float(high)}


def left_by_row(votes: Iterable[Judgment]) -> tuple[int, int]:
    """(rows won by the left answer, rows decided), by the majority of each row's attributes, which share sides."""
    lead: Counter[str] = Counter()
    for vote in votes:
        lead[vote.row] += 0 if vote.choice == TIE else 1 if vote.choice == vote.systems[0] else -1
    return sum(side > 0 for side in lead.values()), sum(side != 0 for side in lead.values())


def _checks(judgments: Sequence[Judgment]) -> dict[str, dict[str, Any]]:
    """Check -> how many of its answers were right, as import recorded it."""
    passed: dict[str, list[bool]] = {"swap": [], "identical": [], "gold": []}
    for one in judgments:
        if one.check in passed and one.passed is not None:
            passed[one.check].append(one.passed)
    return {
        name: {"right": sum(each), "of": len(each), "share": sum(each) / len(each) if each else None}
        for name, each in passed.items()
    }


def excluded_raters(table: Mapping[str, Mapping[str, Any]], rules: Mapping[str, Any]) -> dict[str, list[str]]:
    """Rater -> reasons why the rules exclude them. A check that a rater didn't have excludes nobody. Raises InputError
    for an unknown rule.
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    fewest = int(rules.get("min_check_answers", 1))
    for name, bound in rules.items():
        if bound is None or name in ("min_check_answers", "note"):
            continue
        if name not in (*RULES, "min_median_seconds"):
            known = ", ".join((*RULES, "min_median_seconds", "min_check_answers"))
            raise InputError(f"key.json: unknown exclusion rule {name!r:.60}; this report knows {known}.")
        for rater, row in table.items():
            if name == "min_median_seconds":
                median = row["seconds"]["median"]
                if median is not None and median < bound:
                    reasons[rater].append(f"a median of {median:.1f} seconds per row, below {bound:g}")
            else:
                check, what = RULES[name]
                found = row["checks"][check]
                if found["of"] >= max(1, fewest) and found["share"] < bound:
                    share = f"{100 * found['share']:.0f} %), below {100 * bound:.0f} %"
                    reasons[rater].append(f"{found['right']} of {found['of']} {what} ({share}")
    return dict(reasons)
