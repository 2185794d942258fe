"""The report of a human study in words: the same blocks (headings, sentences, tables, figures) as Markdown, as one
self-contained page, and for the terminal.

Names of systems, raters and attributes are people's text: escaped in every form. The page runs no script, loads
nothing, and says so in its policy.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.errors import counted, listed
from coh_lightning.human_eval.figures import plain
from coh_lightning.human_eval.report import REFERENCES, RULES, TERCILES

NONE = "–"
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Words:
    text: str
    kind: str = ""
    """"" a sentence, "note" small print, "warning" what must be known first, "finding" what came out."""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first columns (`names`) are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


@dataclass(frozen=True)
class Picture:
    name: str
    caption: str


Block = Heading | Words | Table | Picture


# ----------------------------------------------------------------------------------------------------------------
# blocks


def report_blocks(numbers: Numbers, figures: Mapping[str, str]) -> list[Block]:
    """The report from top to bottom; `figures` are those that were drawn, with their captions."""
    analysis = numbers["analyses"]["all"]
    blocks: list[Block] = [Words(_facts(numbers, analysis))]
    blocks += [Words(sentence, "finding") for sentence in findings(analysis)]
    blocks += [Words(plain(warning, 2000), "warning") for warning in numbers["warnings"]]
    blocks += [Heading("Votes"), *_picture("votes", figures), _votes_table(numbers, analysis)]
    blocks.append(
        Words(
            "Percent of votes: baseline/tie/model (model less baseline); the average is the plain mean over "
            "attributes.",
            "note",
        )
    )
    blocks += [Heading("Win rates"), *_picture("win_rates", figures), _win_table(analysis)]
    blocks.append(
        Words(
            "Both win rates are over votes, with 95 % intervals over prompts; on top stands the one with ties as "
            "half. Prompts won takes one vote a prompt (its majority; even is a tie) with Wilson's interval; "
            f"the exact sign test is on the same, p adjusted by Holm for {counted(analysis['tests'], 'test')}.",
            "note",
        )
    )
    blocks += _exclusions(numbers)
    blocks += _ranking(analysis, figures)
    blocks += [Heading("Agreement of raters"), _agreement_table(analysis), Words(REFERENCES, "note")]
    blocks += [
        Heading("Position and length"),
        *_picture("position_length", figures),
        _position_table(analysis),
        _length_table(analysis),
    ]
    blocks += _length_words(analysis)
    blocks += [
        Heading("Raters and checks"),
        _rater_table(numbers),
        Words(_rules(numbers), "note"),
        Heading("How the numbers are made"),
        *_method(numbers),
    ]
    return blocks


def _facts(numbers: Numbers, analysis: Numbers) -> str:
    answered, asked = numbers["rows"]["answered"], numbers["rows"]["asked"]
    rows = f"{answered:,} of {asked:,} rows answered" if asked else f"{answered:,} rows answered"
    excluded = numbers["exclusion"]["excluded"]
    fall = (
        f" {counted(len(excluded), 'rater')} would fall out by the rules of exclusion; see below." if excluded else ""
    )
    return (
        f"{counted(analysis['prompts'], 'prompt')}, {counted(len(analysis['raters']), 'rater')}, "
        f"{counted(analysis['votes'], 'vote')}, {rows}.{fall}"
    )


def findings(analysis: Numbers) -> list[str]:
    """One sentence for each pair: where the sign test finds a difference (Holm's p of at most 0.05), and where none;
    each with its win rate, a tie as half.
    """
    sentences = []
    for pair in analysis["pairs"]:
        better: list[str] = []
        worse: list[str] = []
        open_: list[str] = []
        for name, entry in pair["attributes"].items():
            test, votes = entry["sign_test"], entry["by_prompt"]
            words = f"{plain(name)} {percent(entry['ties_as_half'])}"
            (open_ if test["p_holm"] > 0.05 else better if votes["model"] > votes["baseline"] else worse).append(words)
        parts = []
        if better:
            parts.append(f"is preferred on {listed(better)}")
        if worse:
            parts.append(f"loses on {listed(worse)}")
        if open_:
            parts.append(f"shows no clear difference on {listed(open_)}")
        sentences.append(f"{plain(pair['model'])} against {plain(pair['baseline'])} {'; '.join(parts)}.")
    return sentences


def _picture(name: str, figures: Mapping[str, str]) -> list[Block]:
    return [Picture(name, figures[name])] if name in figures else []


def _votes_table(numbers: Numbers, analysis: Numbers) -> Table:
    """The paper's table: a row for each pair, a column for each attribute, and the average."""
    names = [name for name in numbers["attributes"] if any(name in pair["attributes"] for pair in analysis["pairs"])]
    rows = []
    for pair in analysis["pairs"]:
        cells = [pair["attributes"][name]["row"] if name in pair["attributes"] else NONE for name in names]
        rows.append(
            (
                f"{plain(pair['model'])} vs {plain(pair['baseline'])}",
                *cells,
                *([pair["average"]["row"]] if len(names) > 1 else []),
            )
        )
    return Table(("", *map(plain, names), *(["average"] if len(names) > 1 else [])), tuple(rows))


def _win_table(analysis: Numbers) -> Table:
    rows = []
    several = len(analysis["pairs"]) > 1
    for pair in analysis["pairs"]:
        who = (f"{plain(pair['model'])} vs {plain(pair['baseline'])}",) if several else ()
        for name, entry in pair["attributes"].items():
            votes, test = entry["by_prompt"], entry["sign_test"]
            split = f"{votes['model']}–{votes['baseline']} ({counted(votes['tie'], 'tie')})"
            rates = (percent(entry["ties_as_half"]), percent(entry["ties_excluded"]))
            rows.append(
                (
                    *who,
                    plain(name),
                    f"{entry['votes']:,}",
                    *rates,
                    split,
                    percent(votes["win_rate"]),
                    p_value(test["p"]),
                    p_value(test["p_holm"]),
                )
            )
        if len(pair["attributes"]) > 1:
            rows.append(
                (
                    *who,
                    "average",
                    "",
                    percent(pair["average"]["ties_as_half"]),
                    percent(pair["average"]["ties_excluded"]),
                    "",
                    "",
                    "",
                    "",
                )
            )
    head = ("attribute", "votes", "ties as half", "ties left out", "prompts won", "share of decided", "p", "p (Holm)")
    return Table((*(("pair",) if several else ()), *head), tuple(rows), names=2 if several else 1)


def _exclusions(numbers: Numbers) -> list[Block]:
    """What changes without the raters that the rules leave out; nothing where they leave out nobody."""
    excluded = numbers["exclusion"]["excluded"]
    if not excluded:
        return []
    blocks: list[Block] = [Heading("With and without exclusions")]
    blocks += [Words(f"{plain(rater)} falls out: {'; '.join(reasons)}.") for rater, reasons in excluded.items()]
    if "kept" in numbers["analyses"]:
        kept = numbers["analyses"]["kept"]
        blocks += [Words(f"Without: {sentence}", "finding") for sentence in findings(kept)]
        blocks += [
            _exclusion_table(numbers),
            Words(f"Without: {counted(kept['votes'], 'vote')} on {counted(kept['prompts'], 'prompt')}.", "note"),
        ]
    return blocks


def _exclusion_table(numbers: Numbers) -> Table:
    """Each attribute: all raters beside those that stay."""
    both = numbers["analyses"]
    rows = []
    for pair in both["all"]["pairs"]:
        kept = next(
            (
                each
                for each in both["kept"]["pairs"]
                if (each["baseline"], each["model"]) == (pair["baseline"], pair["model"])
            ),
            None,
        )
        for name, entry in pair["attributes"].items():
            other = kept["attributes"].get(name) if kept else None
            cells = [NONE, NONE] if other is None else [other["row"], percent(other["ties_as_half"])]
            who = f"{plain(pair['model'])} vs {plain(pair['baseline'])}"
            rows.append((who, plain(name), entry["row"], percent(entry["ties_as_half"]), *cells))
    return Table(
        ("pair", "attribute", "all: votes", "all: win rate", "without: votes", "without: win rate"),
        tuple(rows),
        names=2,
    )


def _ranking(analysis: Numbers, figures: Mapping[str, str]) -> list[Block]:
    if not analysis["ranking"]:
        return []
    blocks: list[Block] = [Heading("Ranking"), *_picture("ranking", figures)]
    rows = []
    for attribute, entry in analysis["ranking"].items():
        if "refused" in entry:
            blocks.append(Words(f"{plain(attribute)}: {plain(entry['refused'], 400)}", "warning"))
            continue
        for each in entry["systems"]:
            strength = each["log_strength"]
            rows.append(
                (
                    plain(attribute),
                    f"{each['rank']}",
                    plain(each["system"]),
                    _bracketed(strength, "{:+.2f}"),
                    percent(each["win_rate"]),
                )
            )
    if rows:
        blocks.append(Table(("attribute", "rank", "system", "log strength", "expected win rate"), tuple(rows), names=3))
        blocks.append(
            Words(
                "Bradley-Terry with ties (Davidson 1970) on all votes. Log strengths have mean 0; a difference d is "
                "odds of exp(d) among decided votes. "
                "The win rate is against each of the others equally often, a tie as half. Intervals over prompts.",
                "note",
            )
        )
    return blocks


def _agreement_table(analysis: Numbers) -> Table:
    rows = []
    several = len(analysis["pairs"]) > 1
    for pair in analysis["pairs"]:
        for name, entry in pair["attributes"].items():
            each = entry["agreement"]
            kappa = NONE if each["kappa"] is None else f"{each['kappa']:.2f}"
            who = (f"{plain(pair['model'])} vs {plain(pair['baseline'])}",) if several else ()
            rows.append(
                (
                    *who,
                    plain(name),
                    f"{each['items']:,}",
                    f"{each['raters']}",
                    _bracketed(each["alpha"], "{:.2f}"),
                    percent(each["raw"]),
                    kappa,
                )
            )
    head = ("attribute", "items shared", "raters", "Krippendorff's alpha", "raw agreement", "Cohen's kappa")
    return Table((*(("pair",) if several else ()), *head), tuple(rows), names=2 if several else 1)


def _position_table(analysis: Numbers) -> Table:
    position = analysis["position"]
    rows = [(plain(name), f"{entry['decided']:,}", percent(entry)) for name, entry in position["attributes"].items()]
    return Table(
        ("left answer wins", "decided", "left-win rate"),
        (*rows, ("all, one vote a row", f"{position['rows']['decided']:,}", percent(position["rows"]))),
    )


def _length_table(analysis: Numbers) -> Table:
    rows = []
    several = len(analysis["pairs"]) > 1
    for pair in analysis["pairs"]:
        for third in pair["length"]["terciles"]:
            extent = "{:+,} to {:+,}".format(*third["longer_by"]) if third["longer_by"] else NONE
            who = (f"{plain(pair['model'])} vs {plain(pair['baseline'])}",) if several else ()
            name = dict(zip(TERCILES, ("shorter third", "middle third", "longer third"), strict=True))[third["name"]]
            rows.append(
                (
                    *who,
                    name,
                    extent,
                    f"{third['items']:,}",
                    f"{third['votes']:,}",
                    percent(third["ties_as_half"]),
                    percent(third["ties_excluded"]),
                )
            )
    head = ("model's answer is", "longer by (characters)", "items", "votes", "ties as half", "ties left out")
    return Table((*(("pair",) if several else ()), *head), tuple(rows), names=2 if several else 1)


def _length_words(analysis: Numbers) -> list[Block]:
    blocks: list[Block] = []
    for pair in analysis["pairs"]:
        length = pair["length"]
        blocks.append(
            Words(
                f"{plain(pair['model'])} against {plain(pair['baseline'])}: the median answer has "
                f"{length['median_model']:,.0f} and {length['median_baseline']:,.0f} characters; "
                f"the longer answer won {percent(length['chose_longer'])} of "
                f"{counted(length['chose_longer']['votes'], 'decided vote')}, all attributes together.",
                "note",
            )
        )
    return blocks


def _rater_table(numbers: Numbers) -> Table:
    rows = []
    for rater, each in numbers["raters"].items():
        checks = [_of(each["checks"][name]) for name in ("swap", "identical", "gold")]
        seconds = each["seconds"]
        time = (
            NONE
            if seconds["median"] is None
            else f"{seconds['median']:.0f} ({seconds['lower_quartile']:.0f}–{seconds['upper_quartile']:.0f})"
        )
        excluded = "yes" if rater in numbers["exclusion"]["excluded"] else ""
        ties = f"{100 * each['ties'] / each['votes']:.0f} %" if each["votes"] else NONE
        rows.append(
            (
                plain(rater),
                f"{each['rows']:,}",
                ties,
                percent(each["left"]),
                time,
                *checks,
                f"{each['comments']:,}",
                excluded,
            )
        )
    head = (
        "rater",
        "rows",
        "ties",
        "left-win rate",
        "seconds a row",
        "swap alike",
        "identical tied",
        "gold right",
        "comments",
        "excluded",
    )
    return Table(head, tuple(rows))


def _rules(numbers: Numbers) -> str:
    rules = {
        name: bound
        for name, bound in numbers["exclusion"]["rules"].items()
        if bound is not None and name in (*RULES, "min_median_seconds")
    }
    if not rules:
        return "No exclusion rules were fixed in the export. Seconds are medians with quartiles; checks count answers."
    words = [
        f"at least {100 * bound:.0f} % of {RULES[name][1]}"
        if name in RULES
        else f"a median of at least {bound:g} seconds a row"
        for name, bound in rules.items()
    ]
    outcome = (
        f"{counted(len(numbers['exclusion']['excluded']), 'rater')} fell out"
        if numbers["exclusion"]["excluded"]
        else "nobody fell out"
    )
    return (
        f"Rules fixed in the export, before unblinding: {listed(words)}; {outcome}. Seconds are medians with "
        "quartiles; checks count answers."
    )


def _method(numbers: Numbers) -> list[Block]:
    return [
        Words(text)
        for text in (
            "A vote is one answer of one rater on one attribute of one item. Checks (swapped duplicates, identical "
            "pairs, gold items) are no votes.",
            "Intervals of win rates, differences, alpha, agreement and strengths: bootstrap over prompts "
            f"({numbers['resamples']:,} resamples, a prompt with all its votes; 2,000 for "
            "strengths), percentiles widened as a t interval's are (Hesterberg 2015). They speak of other prompts "
            "rated by these raters, not of other raters.",
            "Wilson's interval and the exact two-sided sign test assume independent observations, so they take one "
            "vote a prompt: the side with more votes has it.",
            "Left-win rates: Wilson's interval over single votes, for each rater and item draws its sides anew; over "
            "attributes together, one vote a row.",
            "Every number of this page, unrounded, is in report.json; every answer is in judgements.jsonl.",
        )
    ]


# --- numbers in words


def percent(interval: Numbers) -> str:
    """A share with its interval, in percent.

    >>> percent({"value": 0.6, "low": 0.502, "high": 0.6906}), percent({"value": None, "low": None, "high": None})
    ('60 % (50 to 69)', '–')
    """
    if interval["value"] is None:
        return NONE
    bounds = "" if interval["low"] is None else f" ({100 * interval['low']:.0f} to {100 * interval['high']:.0f})"
    return f"{100 * interval['value']:.0f} %{bounds}"


def _bracketed(interval: Numbers, form: str) -> str:
    if interval["value"] is None:
        return NONE
    bounds = "" if interval["low"] is None else f" ({form.format(interval['low'])} to {form.format(interval['high'])})"
    return form.format(interval["value"]) + bounds


def p_value(p: float) -> str:
    """A p with what can be read at a glance.

    >>> p_value(0.0312), p_value(0.0004), p_value(1.0)
    ('0.031', '< 0.001', '1.000')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _of(check: Numbers) -> str:
    return f"{check['right']} of {check['of']}" if check["of"] else NONE


# ----------------------------------------------------------------------------------------------------------------
# Markdown


def report_markdown(numbers: Numbers, figures: Mapping[str, str]) -> str:
    """The report as Markdown, with figures by their paths below the folder."""
    lines = [f"# {_md(_title(numbers))}", ""]
    for block in report_blocks(numbers, figures):
        match block:
            case Heading(text):
                lines += [f"## {_md(text)}", ""]
            case Words(text, kind):
                lines += [{"finding": f"**{_md(text)}**", "warning": f"> {_md(text)}"}.get(kind, _md(text)), ""]
            case Picture(name, caption):
                lines += [f"![{_md(caption)}](figures/{name}.png)", ""]
            case Table(head, rows, names):
                lines.append("| " + " | ".join(map(_md, head)) + " |")
                lines.append("|" + "|".join("---" if place < names else "---:" for place in range(len(head))) + "|")
                lines += ["| " + " | ".join(map(_md, row)) + " |" for row in rows]
                lines.append("")
    return "\n".join(lines)


def _md(text: str) -> str:
    """Text that Markdown shows as it is: no emphasis, link, HTML or new cell comes of it."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", text.replace("\n", " "))


def _title(numbers: Numbers) -> str:
    # the study's own title is for raters, and names no system
    return f"Human evaluation: {plain(listed(numbers['systems']), 120)}"


# ---------------------------------------------------------------------------------------------------------------- the
# terminal


def report_terminal(numbers: Numbers) -> str:
    """What a person wants to know at once: findings, warnings and the two main tables."""
    analysis = numbers["analyses"]["all"]
    parts = [
        _facts(numbers, analysis),
        *findings(analysis),
        *(f"warning: {warning}" for warning in numbers["warnings"]),
    ]
    return "\n".join(
        [
            *(plain(part, 2000) for part in parts),
            "",
            *_columns(_votes_table(numbers, analysis)),
            "",
            *_columns(_win_table(analysis)),
        ]
    )


def _columns(table: Table) -> list[str]:
    every = (table.head, *table.rows)
    widths = [max(len(row[place]) for row in every) for place in range(len(table.head))]
    return [
        "  ".join(
            f"{cell:<{width}}" if place < table.names else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]


# ---------------------------------------------------------------------------------------------------------------- the
# page

CSS = """
:root { color-scheme: light; --ink: #212529; --soft: #6c757d; --line: #e9ecef; --accent: #0b7285 }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #fff; max-width: 62rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 2.8rem 0 .6rem; padding-top: 1.1rem; border-top: 1px solid var(--line) }
p { margin: .5rem 0; overflow-wrap: anywhere } .note { color: var(--soft); font-size: .875rem }
.finding { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .9rem; font-size: 1.05rem }
.warning { border-left: 3px solid #f08c00; padding: .1rem 0 .1rem .9rem }
figure { margin: 1rem 0 } figure img { display: block; width: 100%; height: auto; max-width: 46rem } figcaption { color: var(--soft); font-size: .875rem; max-width: 46rem }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .32rem 0 .32rem 1.1rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600; color: var(--soft) } .w { text-align: left; padding-left: 0; padding-right: .6rem } tbody .w { color: var(--ink); font-weight: 400 }
tr.sum td { color: var(--soft) }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } figure, tr { break-inside: avoid } }
"""


def report_page(numbers: Numbers, folder: Path, figures: Mapping[str, str]) -> str:
    """The report as one page: the figures of the folder are in it, nothing is loaded, no script runs, everything is
    escaped.
    """
    sha = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{sha}'; base-uri 'none'; form-action 'none'"
    title = html.escape(_title(numbers))
    body = "\n".join(_block(block, folder) for block in report_blocks(numbers, figures))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def _block(block: Block, folder: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Words(text, kind):
            return f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>"
        case Picture(name, caption):
            # as an image: whatever an SVG holds, it runs no script there
            data = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
            return (
                f'<figure><img alt="{html.escape(caption)}" '
                f'src="data:image/svg+xml;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'
            )
        case Table(head, rows, names):
            cells = ["".join(_cell("th", cell, place < names) for place, cell in enumerate(head))]
            lines = [
                f"<tr{_sum(row)}>"
                + "".join(_cell("td", cell, place < names) for place, cell in enumerate(row))
                + "</tr>"
                for row in rows
            ]
            return f'<div class="wide"><table><thead><tr>{cells[0]}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _sum(row: Sequence[str]) -> str:
    return ' class="sum"' if "average" in row[:2] else ""


def _cell(tag: str, text: str, word: bool) -> str:
    kind = ' class="w"' if word else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"
