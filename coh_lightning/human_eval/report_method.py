"""The method of a study as one paragraph, to be pasted into a paper: design, n, raters, checks, exclusions, tests."""

from __future__ import annotations

from coh_lightning.errors import counted, listed
from coh_lightning.human_eval.figures import plain
from coh_lightning.human_eval.report_tables import Numbers
from coh_lightning.human_eval.study import RULES


def method_paragraph(numbers: Numbers) -> str:
    """The paragraph; what a study doesn't record is left out."""
    analysis, systems = numbers["analyses"]["all"], [plain(name) for name in numbers["systems"]]
    people = numbers["raters_are"] == "people"
    who = "Human raters" if people else "Language models"
    if numbers["plackett_luce"]:
        task = (
            f"in a blind study. They saw a prompt and {len(systems)} answers at once, without names of systems, in "
            f"orders drawn at random for each rater, and ranked them from best to worst {_questions(numbers)}."
        )
    else:
        how = ", slightly or clearly" if numbers["strength"] else ""
        task = (
            "in a blind pairwise study. They saw a prompt and two answers side by side, without names of systems, in "
            f"an order and on sides drawn at random for each rater, and said which answer is better{how}, or that both "
            f"are about equally good (a tie), {_questions(numbers)}."
        )
    sentences = [f"{who} compared the outputs of {listed(systems)} {task}", _size(numbers)]
    if people:
        sentences += [_checks(numbers), _exclusions(numbers)]
    sentences.append(
        "Win rates count a tie as half a win. Their 95 % intervals come from a bootstrap over prompts "
        f"({numbers['resamples']:,} resamples, each prompt with all its votes). Differences were tested with the exact "
        "two-sided sign test on one vote per prompt (the majority of its votes, without ties), adjusted by Holm for "
        f"{counted(analysis['tests'], 'test')}."
    )
    if numbers["strength"]:
        sentences.append(
            "Strength of preference (slight or clear) was analyzed with a cumulative-link model (proportional odds), "
            "with standard errors clustered by prompt."
        )
    if numbers["plackett_luce"]:
        sentences.append("Whole rankings were analyzed with the Plackett-Luce model, with intervals over prompts.")
    if analysis["ranking"]:
        sentences.append("Systems were ranked by a Bradley-Terry model with ties (Davidson 1970).")
    if agreement := _agreement(numbers):
        sentences.append(agreement)
    return " ".join(filter(None, sentences))


def _questions(numbers: Numbers) -> str:
    definitions = numbers["definitions"]
    asked = [
        f"{plain(name)} (“{plain(definitions[name], 600)}”)" if name in definitions else plain(name)
        for name in numbers["attributes"]
    ]
    return f"on {listed(asked)}"


def _size(numbers: Numbers) -> str:
    analysis, design = numbers["analyses"]["all"], numbers["design"]
    items = sum(pair["items"] for pair in analysis["pairs"])
    shared = ""
    if design and numbers["raters_are"] == "people" and not numbers["plackett_luce"]:
        every = min(design["overlap"], items)
        others = f" and each other item to {counted(design['votes'], 'rater')}" if every < items else ""
        shared = f"; {counted(every, 'item')} went to every rater{others}"
    return (
        f"{counted(len(analysis['raters']), 'rater')} gave {counted(analysis['votes'], 'vote')} on "
        f"{counted(items, 'item')} of {counted(analysis['prompts'], 'prompt')}{shared}."
    )


def _checks(numbers: Numbers) -> str:
    kinds = {"swap": "swapped duplicates", "identical": "pairs of identical answers", "gold": "gold items"}
    given = [
        f"{words} ({right} of {total} answers right)"
        for name, words in kinds.items()
        if (total := sum(each["checks"][name]["of"] for each in numbers["raters"].values()))
        for right in [sum(each["checks"][name]["right"] for each in numbers["raters"].values())]
    ]
    return f"Attention was checked with {listed(given)}." if given else ""


def _exclusions(numbers: Numbers) -> str:
    rules = {name: bound for name, bound in numbers["exclusion"]["rules"].items() if bound is not None}
    checked = {kind for each in numbers["raters"].values() for kind, of in each["checks"].items() if of["of"]}
    rules = {name: bound for name, bound in rules.items() if name not in RULES or RULES[name][0] in checked}
    words = [f"less than {100 * bound:.0f} % of {RULES[name][1]}" for name, bound in rules.items() if name in RULES]
    if "min_median_seconds" in rules:
        words.append(f"a median of less than {rules['min_median_seconds']:g} seconds a row")
    if not words:
        return ""
    fewest = numbers["exclusion"]["rules"].get("min_check_answers") or 0
    if fewest > 1 and checked & {RULES[name][0] for name in rules if name in RULES}:
        words[-1] += f"; a share counts from {fewest:g} answers of a rater to checks of its kind"
    excluded = numbers["exclusion"]["excluded"]
    outcome = f"{counted(len(excluded), 'rater')} met one of them" if excluded else "no rater met one of them"
    return f"Rules for excluding raters were fixed before unblinding ({'; '.join(words)}); {outcome}."


def _agreement(numbers: Numbers) -> str:
    alphas = [
        (entry["agreement"]["alpha"]["value"], entry["agreement"]["items"])
        for pair in numbers["analyses"]["all"]["pairs"]
        for entry in pair["attributes"].values()
        if entry["agreement"]["alpha"]["value"] is not None
    ]
    if not alphas:
        return ""
    low, high = min(alphas)[0], max(alphas)[0]
    span = f"was {low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"was between {low:.2f} and {high:.2f}"
    return f"Krippendorff's alpha on items with several raters {span}."
