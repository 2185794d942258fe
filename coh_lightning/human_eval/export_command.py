"""`coh human-eval export A.jsonl B.jsonl --output DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from coh_lightning.errors import InputError, counted
from coh_lightning.human_eval.export import export_study, notes
from coh_lightning.human_eval.export_checks import EXCLUSION, FORMS
from coh_lightning.human_eval.form import QUESTION_SETS, RENDERED, languages
from coh_lightning.human_eval.study import KEY, Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval export`."""
    add = parser.add_argument
    what = "completions of a system: JSON lines with id, prompt and completion, or our completions.jsonl"
    add("completions", type=Path, nargs="+", metavar="FILE", help=what)
    add("--output", "-o", type=Path, required=True, metavar="DIR", help="folder to write the study to")
    add = parser.add_argument_group("what is compared").add_argument
    add("--names", nargs="+", metavar="NAME", help="system names, one per file (default: key 'system', or file name)")
    add("--ask", metavar="NAME", help="which ask to compare if files have several (default: good, or else the first)")
    add("--against", metavar="NAME", help="the baseline that the others are compared with (default: all pairs)")
    add("--against-references", action="store_true", help="compare with the data's references, as the baseline")
    what = "compare two asks of the one file given, such as good and bad: a control, not a comparison of systems"
    add("--control", nargs=2, metavar=("ASK", "ASK"), help=what)
    add("--prompts", dest="max_prompts", type=int, metavar="N", help="rate at most N prompts, drawn by the seed")
    add("--dialogues", action="store_true", help="the lines are turns of dialogues, ids DIALOGUE#TURN: join them")
    what = "rank the answers of all systems (three to five) on one screen, instead of comparing two at a time"
    add("--ranking", action="store_true", help=what)
    add = parser.add_argument_group("who rates what").add_argument
    add("--raters", type=int, default=3, metavar="N", help="sheets to write (default: %(default)s)")
    add("--overlap", type=int, default=50, metavar="M", help="items that every rater gets (default: %(default)s)")
    add("--votes", type=int, default=1, metavar="K", help="raters of each other item (default: %(default)s)")
    what = "names of the raters and their sheets, instead of --raters (default: rater-1, rater-2, ...)"
    add("--rater-names", nargs="+", default=[], metavar="NAME", help=what)
    add("--seed", type=int, default=0, metavar="S", help="of order, sides and checks (default: %(default)s)")
    add("--forms", nargs="+", default=[], metavar="FORM", help=f"further forms of the sheets: {', '.join(FORMS)}")
    add = parser.add_argument_group("what is asked").add_argument
    what = f"the questions: {', '.join(QUESTION_SETS)}, or a YAML file of NAME: SENTENCE (default: by the data's task)"
    add("--questions", metavar="SET", help=what)
    add("--attributes", nargs="+", metavar="NAME", help="those of the questions that are asked (default: all)")
    what = "what raters read about an attribute; repeat for each"
    add("--define", action="append", default=[], metavar="NAME=SENTENCE", help=what)
    add("--title", help="what raters see at the top (default: Which answer is better?, in the language)")
    what = "your own instructions, which raters read before the questions"
    add("--instructions", type=Path, metavar="FILE.md", help=what)
    add("--contact", default="", metavar="TEXT", help="whom raters can ask, such as a mail address")
    add("--strength", action="store_true", help="ask whether a preference is slight or clear")
    what = "categories of what is wrong with an answer, of which raters give at least one unless all is a tie"
    add("--reasons", nargs="+", default=[], metavar="WORDS", help=what)
    add("--min-comment", type=int, default=0, metavar="N", help="the least characters of a comment (default: none)")
    what = "items before the study, with answers that are explained: lines with prompt, a, b, answers and why"
    add("--practice", type=Path, metavar="FILE", help=what)
    what = "how the page shows answers: raw, as they were written, or markdown, without HTML, links and images"
    add("--render", choices=RENDERED, default="raw", help=f"{what} (default: %(default)s)")
    what = f"of the page's own words and of our questions: {', '.join(languages())} (default: %(default)s)"
    add("--language", default="en", metavar="CODE", help=what)
    add = parser.add_argument_group("checks and exclusion, fixed before unblinding").add_argument
    add("--gold", type=Path, metavar="FILE", help="items with an obvious answer: lines with id, prompt, good and bad")
    for name, default, help in (
        ("--swaps", 0.05, "duplicates with sides swapped, at least 2 per rater"),
        ("--identical", 0.02, "pairs of one text with itself, at least 1 per rater"),
    ):
        add(name, type=float, default=default, metavar="SHARE", help=f"{help} (default: %(default)s)")
    for name, metavar, help in (
        ("min_consistency", "SHARE", "swapped duplicates answered the same way"),
        ("min_identical", "SHARE", "identical pairs called a tie"),
        ("min_gold", "SHARE", "gold items answered correctly"),
        ("min_median_seconds", "S", "median seconds per row"),
        ("min_check_answers", "N", "answers to checks before their share counts"),
    ):
        help = f"exclude raters below: {help} (default: %(default)s)"
        add(f"--{name.replace('_', '-')}", type=float, default=EXCLUSION[name], metavar=metavar, help=help)
    what = "replace another study in DIR, unless it has judgments"
    parser.add_argument("--overwrite", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    """Write the study and print the next steps; returns the exit status. Raises InputError as `export_study` does."""
    options = {name: value for name, value in vars(args).items() if name not in ("part", *EXCLUSION)}
    options["define"] = {}
    for given in args.define:
        name, equals, sentence = given.partition("=")
        if not equals:
            raise InputError(f"--define {given!r} has no '='; give NAME=SENTENCE.")
        options["define"][name.strip()] = sentence.strip()
    options["control"] = tuple(args.control) if args.control else None
    study = export_study(**options, exclusion={name: getattr(args, name) for name in EXCLUSION})
    print(summary(study, args.output))
    return 0


def summary(study: Study, output: Path) -> str:
    """What was exported, in lines for the terminal."""
    votes = [item for item in study.key["items"].values() if item["kind"] == "pair"]
    pairs = sorted({" and ".join(sorted(item["systems"])) for item in votes})
    checks = [row["check"] for row in study.key["rows"].values()]
    return "\n".join(
        [
            f"study {study.id}: {counted(len(votes), 'item')} of "
            f"{counted(len({item['prompt_id'] for item in votes}), 'prompt')}, comparing "
            f"{'; '.join(pairs)}",
            *(
                f"  {output / 'sheets' / f'{rater}.csv'}  {counted(len(study.rater_rows(rater)), 'row')}"
                for rater in study.raters
            ),
            f"  {output / 'rate.html'}  the same, to rate in a browser",
            f"  checks among {counted(len(checks), 'row')}: {counted(checks.count('swap'), 'swapped duplicate')}, "
            f"{counted(checks.count('identical'), 'identical pair')}, {checks.count('gold')} gold",
            *(f"note: {line}" for line in notes(study)),
            f"{output / KEY} says which system is which: keep it, and send raters only the sheets, the page or the "
            f"forms. Then: human-eval import {output} FILES",
        ]
    )
