"""The report of a human study in words: headings, sentences, tables and figures, the same for page and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coh_lightning.errors import counted, listed
from coh_lightning.human_eval.evidence import COMMENT, DISAGREE, LOSS, MOST, WIN, Evidence
from coh_lightning.human_eval.figures import plain
from coh_lightning.human_eval.report_method import method_paragraph
from coh_lightning.human_eval.report_tables import (
    Numbers,
    Table,
    agreement_table,
    exclusion_table,
    judge_table,
    length_table,
    percent,
    plackett_luce_table,
    position_table,
    ranking_table,
    rater_table,
    strength_table,
    versus,
    votes_table,
    win_table,
)
from coh_lightning.human_eval.study import RULES


@dataclass(frozen=True)
class Words:
    text: str
    kind: str = "sentence"
    """heading, sentence, note (small print), warning (what must be known first), finding (what came out),
    paste (to be copied)."""


@dataclass(frozen=True)
class Picture:
    name: str
    caption: str
    kind: str = "picture"


Block = Words | Table | Picture


def report_blocks(numbers: Numbers, figures: Mapping[str, str]) -> list[Block]:
    """The report from top to bottom; `figures` are those that were drawn, with their captions."""
    analysis = numbers["analyses"]["all"]
    blocks: list[Block] = [Words(facts(numbers))]
    blocks += [Words(sentence, "finding") for sentence in findings(analysis)]
    blocks += [Words(plain(warning, 2000), "warning") for warning in numbers["warnings"]]
    blocks += [
        Words("Votes", "heading"),
        *_picture("votes", figures),
        votes_table(numbers, analysis),
        Words(
            "Percent of votes: baseline/tie/model (model minus baseline); the average is the plain mean over "
            "attributes.",
            "note",
        ),
        Words("Win rates", "heading"),
        *_picture("win_rates", figures),
        win_table(analysis),
        Words(
            "Both win rates are over votes, with 95 % intervals over prompts; ties as half is the main one. Prompts "
            "won takes one vote per prompt (the majority of its votes; as many on both sides is a tie) with Wilson's "
            "interval; the exact sign test is on the same votes, p adjusted by Holm for "
            f"{counted(analysis['tests'], 'test')}.",
            "note",
        ),
        *_strength(numbers),
        *_exclusions(numbers),
        *_plackett_luce(numbers),
        *_ranking(analysis, figures),
        Words("Agreement of raters", "heading"),
        agreement_table(analysis),
        Words(
            "For orientation: on AlpacaEval's data people agreed with the majority of the other raters in 65.7 % of "
            "cases, which with two equally common choices is a kappa near 0.31; always choosing the longer answer "
            "agreed in 62.2 %.",
            "note",
        ),
        Words("Position and length", "heading"),
        *_picture("position_length", figures),
        position_table(analysis),
        length_table(analysis),
        *map(_length, analysis["pairs"]),
        Words("Raters and checks", "heading"),
        rater_table(numbers),
        *([Words(_rules(numbers), "note")] if numbers["raters_are"] == "people" else []),
    ]
    if numbers["judges"]:
        blocks += [
            Words("Judges", "heading"),
            judge_table(numbers),
            Words(
                "Judges are language models. None of their verdicts is in any other number of this report. A verdict "
                "that changed with the order of the answers counts as a tie; most people's choice on an item is the "
                "side with more votes, or else a tie; Wilson's intervals over items.",
                "note",
            ),
        ]
    return blocks


def method_blocks(numbers: Numbers) -> list[Block]:
    """The end of the report: the method for a paper, and in detail."""
    return [
        Words("Method, for a paper", "heading"),
        Words(method_paragraph(numbers), "paste"),
        Words("How the numbers are computed", "heading"),
        *_method(numbers),
    ]


REASONS = {
    DISAGREE: "Raters disagree",
    COMMENT: "With comments",
    WIN: "Largest wins of the model",
    LOSS: "Largest losses of the model",
}
"""Why an item is shown -> the words for it."""
IN_MARKDOWN = 5
"""Items of each kind that report.md names."""


def evidence_values(shown: Sequence[Evidence]) -> dict[str, Any]:
    """What the page's template needs to show the items."""
    return {
        "items": shown[:MOST],
        "left_out": max(0, len(shown) - MOST),
        "reasons": {
            kind: (words, count)
            for kind, words in REASONS.items()
            if (count := sum(kind in one.kinds for one in shown[:MOST]))
        },
    }


def evidence_blocks(shown: Sequence[Evidence]) -> list[Block]:
    """The first items of each kind, shortened, for Markdown."""
    blocks: list[Block] = []
    for kind, words in REASONS.items():
        own = [one for one in shown if kind in one.kinds]
        if kind == LOSS:
            own.reverse()
        if own:
            heading = f"{words}: the first {IN_MARKDOWN} of {len(own)}" if len(own) > IN_MARKDOWN else words
            blocks.append(Words(heading, "heading"))
        for one in own[:IN_MARKDOWN]:
            counts = ", ".join(f"{plain(name)} {count}" for name, count in one.counts().items())
            said = [f"{plain(each.rater)} (A is {plain(each.left)}): {plain(each.text, 300)}" for each in one.comments]
            answers = [f"{plain(name)}: {plain(text, 300)}" for name, text in zip(one.systems, one.texts, strict=True)]
            parts = [f"Item {one.item}, votes: {counts}.", f"Prompt: {plain(one.prompt, 300)}", *answers, *said]
            blocks += [Words(part) for part in parts]
    if blocks:
        blocks.append(Words("Every item with its whole texts is in report.html.", "note"))
    return blocks


def title(numbers: Numbers) -> str:
    # the study's own title is for raters, and names no system
    return f"Human evaluation: {plain(listed(numbers['systems']), 120)}"


def facts(numbers: Numbers) -> str:
    """How much was rated, in one line."""
    analysis, answered, asked = numbers["analyses"]["all"], numbers["rows"]["answered"], numbers["rows"]["asked"]
    if numbers["raters_are"] == "judges":
        judges = counted(len(analysis["raters"]), "judge")
        return (
            f"{counted(analysis['prompts'], 'prompt')}, {judges} (language models), no person, "
            f"{counted(analysis['votes'], 'verdict')}."
        )
    rows = f"{answered:,} of {asked:,} rows answered" if asked else f"{answered:,} rows answered"
    excluded = numbers["exclusion"]["excluded"]
    out = f" The exclusion rules would leave out {counted(len(excluded), 'rater')}; see below." if excluded else ""
    return (
        f"{counted(analysis['prompts'], 'prompt')}, {counted(len(analysis['raters']), 'rater')}, "
        f"{counted(analysis['votes'], 'vote')}, {rows}.{out}"
    )


def findings(analysis: Numbers) -> list[str]:
    """One sentence for each pair: where the sign test finds a difference (Holm's p of at most 0.05), and where none."""
    sentences = []
    for pair in analysis["pairs"]:
        found: dict[str, list[str]] = {"is preferred on": [], "loses on": [], "shows no clear difference on": []}
        better, worse, unclear = found
        for name, entry in pair["attributes"].items():
            votes = entry["by_prompt"]
            side = better if votes["model"] > votes["baseline"] else worse
            where = unclear if entry["sign_test"]["p_holm"] > 0.05 else side
            found[where].append(f"{plain(name)} {percent(entry['ties_as_half'])}")
        parts = [f"{where} {listed(words)}" for where, words in found.items() if words]
        sentences.append(f"{plain(pair['model'])} against {plain(pair['baseline'])} {'; '.join(parts)}.")
    return sentences


def _picture(name: str, figures: Mapping[str, str]) -> list[Block]:
    return [Picture(name, figures[name])] if name in figures else []


def _strength(numbers: Numbers) -> list[Block]:
    """How strong preferences are, if raters were asked."""
    if not numbers["strength"]:
        return []
    refused = [one for one in numbers["strength"] if "refused" in one["odds_ratio"]]
    return [
        Words("Strength of preference", "heading"),
        strength_table(numbers),
        *(
            Words(f"{versus(one)}, {plain(one['attribute'])}: {one['odds_ratio']['refused']}", "warning")
            for one in refused
        ),
        Words(
            "Votes by strength. Prompts clearly won take the majority of a prompt's clear preferences, with the exact "
            "sign test. The odds ratio of at least a given preference for the model to the same for the baseline is "
            "that of a cumulative-link model (proportional odds) with the side as nuisance; interval and p from "
            "standard errors clustered by prompt, not adjusted for several tests.",
            "note",
        ),
    ]


def _exclusions(numbers: Numbers) -> list[Block]:
    """What changes without the raters that the rules leave out, if any."""
    excluded = numbers["exclusion"]["excluded"]
    if not excluded:
        return []
    blocks: list[Block] = [Words("With and without exclusions", "heading")]
    blocks += [Words(f"{plain(rater)} is left out: {'; '.join(reasons)}.") for rater, reasons in excluded.items()]
    if kept := numbers["analyses"].get("kept"):
        blocks += [Words(f"Without: {sentence}", "finding") for sentence in findings(kept)]
        blocks.append(exclusion_table(numbers))
        counts = f"{counted(kept['votes'], 'vote')} on {counted(kept['prompts'], 'prompt')}"
        blocks.append(Words(f"Without: {counts}.", "note"))
    return blocks


def _ranking(analysis: Numbers, figures: Mapping[str, str]) -> list[Block]:
    if not analysis["ranking"]:
        return []
    blocks: list[Block] = [Words("Ranking", "heading"), *_picture("ranking", figures)]
    blocks += [
        Words(f"{plain(attribute)}: {plain(entry['refused'], 400)}", "warning")
        for attribute, entry in analysis["ranking"].items()
        if "refused" in entry
    ]
    table = ranking_table(analysis)
    if table.rows:
        blocks += [
            table,
            Words(
                "Bradley-Terry with ties (Davidson 1970) on all votes. Log strengths have mean 0; a difference d means "
                "odds of exp(d) among decided votes. The win rate is against each of the others equally often, a tie "
                "as half. Intervals over prompts.",
                "note",
            ),
        ]
    return blocks


def _plackett_luce(numbers: Numbers) -> list[Block]:
    """The systems by whole rankings, if raters ranked several at once."""
    entries = numbers["plackett_luce"]
    if not entries:
        return []
    blocks: list[Block] = [Words("Ranking by whole orders", "heading")]
    blocks += [
        Words(f"{plain(attribute)}: {entry['refused']}", "warning")
        for attribute, entry in entries.items()
        if "refused" in entry
    ]
    table = plackett_luce_table(numbers)
    if table.rows:
        blocks += [
            table,
            Words(
                "Plackett-Luce (1975) on whole rankings, fitted by choix. Log strengths have mean 0; a difference d "
                "means odds of exp(d) to be put before the other. Intervals are percentiles over resampled prompts. "
                "The tables of pairs count each two answers of a ranking as a vote.",
                "note",
            ),
        ]
    return blocks


def _length(pair: Numbers) -> Words:
    length, longer = pair["length"], pair["length"]["chose_longer"]
    medians = f"{length['median_model']:,.0f} and {length['median_baseline']:,.0f} characters"
    won = f"{percent(longer)} of {counted(longer['votes'], 'decided vote')}, all attributes together"
    names = f"{plain(pair['model'])} against {plain(pair['baseline'])}"
    return Words(f"{names}: the median answer has {medians}; the longer answer won {won}.", "note")


def _rules(numbers: Numbers) -> str:
    rules = {name: bound for name, bound in numbers["exclusion"]["rules"].items() if bound is not None}
    words = [f"at least {100 * bound:.0f} % of {RULES[name][1]}" for name, bound in rules.items() if name in RULES]
    if "min_median_seconds" in rules:
        words.append(f"a median of at least {rules['min_median_seconds']:g} seconds a row")
    seconds = "Seconds are medians with quartiles; checks count answers."
    if not words:
        return f"No exclusion rules were fixed in the export. {seconds}"
    excluded = numbers["exclusion"]["excluded"]
    outcome = f"{counted(len(excluded), 'rater')} left out" if excluded else "nobody left out"
    return f"Rules fixed in the export, before unblinding: {listed(words)}; {outcome}. {seconds}"


def _method(numbers: Numbers) -> list[Block]:
    return [
        Words(text)
        for text in (
            "A vote is one answer of one rater on one attribute of one item. Checks (swapped duplicates, identical "
            "pairs, gold items) are not votes.",
            "Intervals of win rates, differences, alpha, agreement and strengths: bootstrap over prompts "
            f"({numbers['resamples']:,} resamples, a prompt with all its votes; 2,000 for strengths), percentiles "
            "widened as a t interval's are (Hesterberg 2015). They cover other prompts rated by these raters, not "
            "other raters.",
            "Wilson's interval and the exact two-sided sign test assume independent observations, so they take one "
            "vote per prompt, that of its majority.",
            "Left-win rates: Wilson's interval over single votes, because sides are drawn anew for each rater and "
            "item; over attributes together, one vote per row.",
            "Every number of this page, unrounded, is in report.json; every answer is in judgments.jsonl.",
        )
    ]
