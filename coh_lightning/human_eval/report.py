"""The ratings of a study as numbers: the content of report.json. Everything that the report shows, with and without the
raters that the study's rules exclude.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coh_lightning.errors import counted, listed
from coh_lightning.human_eval.results import StudyResults

LEVEL = 0.95


def report_numbers(results: StudyResults) -> dict[str, Any]:
    """The content of report.json."""
    from coh_lightning.human_eval.analysis import analyze
    from coh_lightning.human_eval.rater_checks import excluded_raters, rater_table
    from coh_lightning.human_eval.statistics import RESAMPLES

    table = rater_table(results)
    rules = results.key.get("exclusion") or {}
    excluded = excluded_raters(table, rules)
    kept = [rater for rater in results.raters if rater not in excluded]
    analyses = {"all": analyze(results, results.raters)}
    if excluded and kept:
        analyses["kept"] = analyze(results, kept)
    rows = results.key.get("rows") or {}
    return {
        "format": 1,
        "study": results.key.get("study", ""),
        "title": results.study.title if results.study else "",
        "definitions": dict(results.study.definitions) if results.study else {},
        "systems": list(results.systems),
        "attributes": list(results.attributes),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "rows": {"asked": len(rows), "answered": len({one.row for one in results.judgments})},
        "raters": table,
        "exclusion": {"rules": dict(rules), "excluded": excluded},
        "analyses": analyses,
        "unmatched": {system: list(ids) for system, ids in (results.key.get("unmatched") or {}).items()},
        "sampling": dict(results.key.get("sampling") or {}),
        "warnings": _warnings(results, excluded, kept, rows),
    }


def _warnings(
    results: StudyResults, excluded: Mapping[str, Sequence[str]], kept: Sequence[str], rows: Mapping[str, Any]
) -> list[str]:
    """What a reader must know before trusting a number; each one sentence."""
    lines = [str(warning) for warning in results.key.get("warnings") or ()]
    sampling = results.key.get("sampling") or {}
    unknown = [system for system in results.systems if not sampling.get(system)]
    known = {system: sampling[system] for system in results.systems if sampling.get(system)}
    if unknown and known:
        lines.append(
            f"The sampling settings of {listed(unknown)} are unknown, so they can't be compared with those of "
            f"{listed(list(known))}."
        )
    # export has already compared the settings if it wrote warnings
    settings = {name for values in known.values() for name in values} if results.key.get("warnings") is None else ()
    for setting in sorted(settings):
        values = {system: json.dumps(each.get(setting), sort_keys=True) for system, each in known.items()}
        if len(set(values.values())) > 1:
            given = ", ".join(f"{system} {value}" for system, value in values.items())
            lines.append(f"Sampling differs in {setting}: {given}; the comparison is of model and sampling together.")
    for system, ids in (results.key.get("unmatched") or {}).items():
        if ids:
            lines.append(
                f"{counted(len(ids), 'prompt')} of {system} had no counterpart and "
                f"{'was' if len(ids) == 1 else 'were'} not rated (first: {ids[0]})."
            )
    answered = {one.row for one in results.judgments}
    if len(answered) < len(rows):
        lines.append(f"{len(rows) - len(answered):,} of {len(rows):,} rows are not answered yet.")
    if excluded and not kept:
        lines.append("The exclusion rules exclude every rater; the numbers are those of all raters.")
    return lines
