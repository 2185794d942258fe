"""`coh feedback SOURCES... --output feedback.jsonl`: what people, judges and scorers say of completions becomes
feedback records again, which `fit`, `preview` and `convert` read.

    a study's folder (human-eval, or judged)     ranks for each attribute, critiques from comments
    judgments.jsonl of `coh judge`               ranks for each attribute; the texts are in --completions
    completions with scores                      ratings, and thumbs by a threshold; critiques by a function
    records of an earlier round                  as they are

Several raters of a pair: the choice that most of them made counts, a tie if none has the most. Sources are merged by
prompt id.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted, visible

if TYPE_CHECKING:
    from coh_lightning.feedback.completions import Completion
    from coh_lightning.human_eval.feedback import Built, Threshold
    from coh_lightning.human_eval.vote_sources import Criticize, Score


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="coh feedback",
        description="Votes of a study, a judge's judgments, and scores of completions as feedback records.",
        epilog="""examples:
  coh feedback runs/study --output feedback.jsonl
  coh feedback round1/study round2/study --attributes overall --completions round*/completions.jsonl \\
      --output feedback.jsonl
  coh feedback judgments.jsonl --raters judge --completions a.jsonl b.jsonl --output judged.jsonl
  coh feedback runs/coh/completions.jsonl --thumb reward=0.5 --output scored.jsonl
  coh feedback answers.jsonl --scorers mine:polite --scale polite=0,1 --output scored.jsonl
  coh fit --data.feedback=feedback.jsonl ...""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = "a study's folder, a judge's judgments, completions with scores, or records of an earlier round"
    add("sources", nargs="+", type=Path, metavar="SOURCE", help=what)
    add("--output", "-o", required=True, type=Path, metavar="FILE", help="output file (.jsonl or .jsonl.gz)")
    what = "the completions that were compared: the messages of their prompts, and the texts of a judge's file"
    add("--completions", nargs="+", default=[], type=Path, metavar="FILE", help=what)
    what = "records that had these prompts: what truncation may cut of them, and the noun for a completion"
    add("--prompts", nargs="+", default=[], type=Path, metavar="FILE", help=what)
    add(
        "--task",
        metavar="NOUN",
        help="the noun for a completion (default: that of records or completions, else answer)",
    )
    add = parser.add_argument_group("votes").add_argument
    what = "whose judgments to take; those of people and of each judge are never counted together (default: people)"
    add("--raters", choices=("people", "judge", "all"), default="people", help=what)
    add("--no-exclusion", action="store_true", help="take the raters whom a study's own rules exclude, too")
    add("--attributes", nargs="+", metavar="NAME", help="the attributes to take (default: all)")
    add = parser.add_argument_group("scores").add_argument
    what = "score the source completions now: `package.module:function`, as model.generation.scorers"
    add("--scorers", nargs="+", default=[], metavar="PATH", help=what)
    what = "score them with this sequence classification model of transformers, by name or folder"
    add("--reward-model", metavar="NAME", help=what)
    what = "criticize them with this function, `package.module:function`, as model.generation.critic"
    add("--critic", metavar="PATH", help=what)
    add("--scores", nargs="+", metavar="NAME", help="the scores to take as ratings (default: all)")
    what = "the scale of a score (default: the least and the greatest score there is); repeat for each"
    add("--scale", action="append", default=[], metavar="NAME=WORST,BEST", help=what)
    what = "a thumb up for each completion whose score is at least as good as this, a thumb down for the others"
    add("--thumb", metavar="NAME=VALUE", help=what)
    return parser


def main(argv: Sequence[str]) -> int:
    """The command `feedback`; returns its exit status. Raises InputError for what the user can fix."""
    options = _parser().parse_args(argv)
    scales = dict(_scale(given) for given in options.scale)
    for path in (*options.sources, *options.completions, *options.prompts):
        if options.output.exists() and path.exists() and options.output.samefile(path):
            raise InputError(f"feedback: {options.output} is one of the sources; give another --output.")
    from coh_lightning.feedback.jsonl import write_jsonl
    from coh_lightning.human_eval.feedback import build
    from coh_lightning.human_eval.vote_sources import read_sources

    sources = read_sources(
        options.sources,
        completions=options.completions,
        prompts=options.prompts,
        raters=options.raters,
        exclude=not options.no_exclusion,
        task=options.task,
        score=_score(options.scorers, options.reward_model),
        criticize=_critic(options.critic),
    )
    thumb = _threshold(options.thumb)
    built = build(sources, attributes=options.attributes, scores=options.scores, scales=scales, thumb=thumb)
    write_jsonl(options.output, built.records)
    print("\n".join([f"{options.output}: {counted(len(built.records), 'record')}", *summary(built, sources.excluded)]))
    print(
        f"next: coh fit --data.feedback={options.output} --data.validation_share=0 --data.test_share=0 ...\n"
        "(prompts that were held out for predict are held out again unless these shares are 0)"
    )
    return 0


def summary(built: Built, excluded: Sequence[str]) -> Iterator[str]:
    """What the records hold, and what was left out, in lines for the terminal."""
    counts = built.counts

    def first(name: str) -> str:
        return f" (first: {visible(built.examples[name])})" if name in built.examples else ""

    if counts["reused"]:
        yield f"  ids of several prompts, which are kept apart: {counts['reused']:,}{first('reused')}"
    if counts["votes"]:
        by = {record.source: None for record in built.records if "votes" in record.extra}
        yield f"  votes: {counts['votes']:,}, of {', '.join(map(visible, by))}"
        decided = counts["pairs"] - counts["ties"]
        yield f"  pairs of texts, by attribute: {counts['pairs']:,} ({decided:,} decided, {counts['ties']:,} tied)"
    if counts["several"]:
        both = f"with votes for both sides: {counts['contradicted']:,}, of which tied: {counts['split']:,}"
        yield f"  pairs with several votes: {counts['several']:,}; {both}{first('contradicted')}"
    if counts["cycles"]:
        fact = f"{counts['cycles']:,}, whose {counts['cyclic']:,} pairs are left out"
        yield f"  cycles (A over B over C over A): {fact}{first('cycles')}"
    if counts["by_pair"]:
        yield f"  prompts whose pairs give no one order, so that each is a record: {counts['by_pair']:,}"
    if counts["critiques"]:
        yield f"  critiques from comments: {counts['critiques']:,}, of {counted(counts['criticized'], 'text')}"
    if counts["remarks"]:
        yield f"  critiques by --critic: {counts['remarks']:,}"
    if counts["ratings"] or counts["thumbs"]:
        yield f"  ratings from scores: {counts['ratings']:,}; thumbs: {counts['thumbs']:,}"
    for name, (worst, best) in built.scales.items():
        fact = f"scale of '{name}': {worst:g} to {best:g}, its least and greatest score"
        yield f"  {visible(fact)}; --scale gives another"
    if counts["duplicates"]:
        fact = f"{counts['duplicates']:,}; scores that differed, whose mean counts: {counts['unequal']:,}"
        yield f"  texts scored again: {fact}{first('unequal')}"
    for line in excluded:
        yield f"  excluded by the study's rules: {visible(line)}"
    lines = built.left_out.lines()
    if lines:
        yield "left out or merged:"
        yield from (f"  {line}" for line in lines)


def _score(paths: Sequence[str], reward_model: str | None) -> Score | None:
    """What adds the scores of scorers and a reward model to completions; None: nothing does."""
    if not paths and reward_model is None:
        return None
    from coh_lightning.generation.scorers import Scorer, load_scorer, score

    scorers: list[Scorer] = [load_scorer(path) for path in paths]
    if reward_model is not None:
        from coh_lightning.generation.reward_model import RewardModel

        scorers.append(RewardModel(reward_model))

    def every(completions: Sequence[Completion]) -> Sequence[Completion]:
        for one in scorers:
            completions = score(completions, one)
        return completions

    return every


def _critic(path: str | None) -> Criticize | None:
    if path is None:
        return None
    from coh_lightning.generation.scorers import load_critic

    if path == "self":
        raise InputError(
            "--critic self is a model that reviews its own answers, which `predict` does; name a function."
        )
    return load_critic(path)


def _scale(given: str) -> tuple[str, tuple[float, float]]:
    name, mark, ends = given.rpartition("=")
    worst, comma, best = ends.partition(",")
    if mark and comma:
        try:
            found = float(worst), float(best)
        except ValueError:
            found = 0.0, 0.0
        if found[0] != found[1] and all(abs(end) < float("inf") for end in found):
            return name, found
    raise InputError(f"--scale {given!r:.60} is no scale; give NAME=WORST,BEST, two different numbers.")


def _threshold(given: str | None) -> Threshold | None:
    from coh_lightning.human_eval.feedback import Threshold

    if given is None:
        return None
    name, mark, value = given.rpartition("=")
    try:
        at = float(value)
    except ValueError:
        at = float("nan")
    if not mark or not abs(at) < float("inf"):
        raise InputError(f"--thumb {given!r:.60} is no threshold; give NAME=VALUE, a score and a number.")
    return Threshold(name, at)
