"""`coh judge`: a language model as rater, on any OpenAI-compatible server. A judge is a cheap
check, not the truth.

    A.jsonl ─┐                      A left, B right  ->  "Verdict: A"  ─┐
             ├─ pairs, attributes                                       ├─ both orders agree: a win
    B.jsonl ─┘                      B left, A right  ->  "Verdict: B"  ─┘  they disagree: the side decided, a tie

Every pair is judged in both orders, since judges favor a side; the report gives the share of pairs on which both orders
agree and the share of verdicts for the left side, with their intervals. The answers are rows of `judgments.jsonl`, as
people's are, of the rater `judge:MODEL`: one order, drawn by the seed, counts; the other is the check "swap".

In a human study (`judge STUDY ...`) the judge rates the items that people rate. Written to the study's own
`judgments.jsonl`, it stands beside people in `human-eval report` and is never counted as one of them. To report it
alone, copy the study's folder without its `judgments.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted
from coh_lightning.human_eval.study import DEFINITIONS, read_study
from coh_lightning.judge.prompts import comparisons_of_files, comparisons_of_study, questions


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="coh judge",
        description="A language model compares the completions of two or more systems, each pair in both orders.",
        epilog="""examples:
  coh judge base.jsonl coh.jsonl --endpoint http://localhost:8000/v1 --model NAME \\
      --output judgments.jsonl
  coh judge STUDY --endpoint https://host/v1 --model NAME --api-key-env MY_KEY \\
      --output COPY_OF_STUDY/judgments.jsonl

Prompts and completions are sent to the endpoint. No question is asked twice: the same command resumes a run.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = "two or more completions files, or the folder of a human study"
    add("inputs", nargs="+", type=Path, metavar="COMPLETIONS", help=what)
    add("--endpoint", required=True, metavar="URL", help="an OpenAI-compatible server, such as https://host/v1")
    add("--model", required=True, metavar="NAME", help="the judge's name on the server")
    what = "judgments.jsonl; every reply goes word for word to FILE.replies.jsonl"
    add("--output", required=True, type=Path, metavar="FILE", help=what)
    what = f"what to judge: {', '.join(DEFINITIONS)}, or NAME=DEFINITION (default: overall, or the study's)"
    add("--attributes", nargs="+", metavar="NAME", help=what)
    what = "the environment variable with the API key (default: no key is sent)"
    add("--api-key-env", metavar="VARIABLE", help=what)
    add("--names", nargs="+", metavar="NAME", help="a name for the system of each file")
    add("--ask", help="which ask to compare if files have several (default: good)")
    add("--max-prompts", type=int, metavar="N", help="judge at most N prompts, drawn by the seed")
    add("--seed", type=int, default=0, help="draws the prompts and which order counts (default 0)")
    add("--temperature", type=float, default=0.0, help="(default 0)")
    add("--max-tokens", type=int, default=1024, metavar="N", help="the longest reply (default 1024)")
    what = 'more fields of each request; null drops one: \'{"temperature": null, "max_completion_tokens": 2000}\''
    add("--body", metavar="JSON", help=what)
    add("--parallel", type=int, default=4, metavar="N", help="requests at a time (default 4)")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one attempt (default 60)")
    add("--attempts", type=int, default=5, metavar="N", help="for one question (default 5)")
    add("--allow-http", action="store_true", help="allow unencrypted http to another machine")
    return parser


def main(argv: Sequence[str]) -> int:
    """The command `judge`; returns its exit status: 1 if questions are left without an answer, or the judge gave no
    usable answer at all. Raises InputError.
    """
    options = _parser().parse_args(argv)
    for name in ("max_tokens", "parallel", "attempts", "max_prompts"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if not options.timeout > 0 or options.temperature < 0:
        given = f"--timeout is {options.timeout:g} and --temperature {options.temperature:g}"
        raise InputError(f"{given}; they must be above 0 and at least 0.")
    try:
        from coh_lightning.judge.client import Endpoint
    except ImportError as error:
        raise InputError("openai is not installed; judge needs it: pip install 'coh_lightning[judge]'.") from error
    from coh_lightning.judge.report import show
    from coh_lightning.judge.run import judge

    endpoint = Endpoint(
        options.endpoint,
        _key(options.api_key_env),
        timeout=options.timeout,
        attempts=options.attempts,
        allow_http=options.allow_http,
    )
    body = _body(options.body)
    warnings: list[str] = []
    if len(options.inputs) == 1 and options.inputs[0].is_dir():
        if options.names or options.ask or options.max_prompts:
            fixed = f"{options.inputs[0]} is a study, whose pairs are fixed"
            raise InputError(f"{fixed}; --names, --ask and --max-prompts are for completions files.")
        study = read_study(options.inputs[0])
        comparisons = comparisons_of_study(study)
        attributes = _attributes(options.attributes or study.attributes, {**DEFINITIONS, **study.definitions})
    else:
        comparisons, warnings = comparisons_of_files(
            options.inputs, seed=options.seed, names=options.names, ask=options.ask, max_prompts=options.max_prompts
        )
        attributes = _attributes(options.attributes or ["overall"], DEFINITIONS)
    for words in warnings:
        print(f"note: {words}", file=sys.stderr)
    asked = questions(comparisons, attributes, model=options.model, seed=options.seed)
    print(
        f"{counted(len(comparisons), 'pair')}, {counted(len(attributes), 'attribute')}, both orders: "
        f"{counted(len(asked), 'question')} for "
        f"{options.model} at {endpoint.shown}",
        file=sys.stderr,
    )
    fields = {"model": options.model, "temperature": options.temperature, "max_tokens": options.max_tokens, **body}
    outcome = judge(asked, endpoint, fields, output=options.output, parallel=options.parallel)
    print(show(outcome))
    if not outcome.judgments:
        print(f"{options.model} gave no usable answer, so nothing is judged and {options.output} has none of its rows")
        return 1
    answered = f"{counted(outcome.asked, 'question')} answered now"
    print(f"{counted(len(outcome.judgments), 'judgment')} in {options.output} ({answered})")
    return 1 if outcome.left else 0


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    # the message never repeats what was given: a key may look like a name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise InputError("--api-key-env takes the name of an environment variable; never give the key itself.")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError("The environment variable named by --api-key-env is not set or empty; export it first.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            "The key in --api-key-env's variable has spaces, control or non-ASCII characters; set it again."
        )
    return key


def _body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"--body is not JSON ({error}); give an object, as in --help.") from error
    if not isinstance(value, dict) or {"messages", "model", "stream", "n"} & value.keys():
        raise InputError("--body must be a JSON object without messages, model, stream and n, set by the judge itself.")
    return value


def _attributes(given: Sequence[str], definitions: Mapping[str, str]) -> dict[str, str]:
    """Attribute -> definition, from names and NAME=DEFINITION."""
    found: dict[str, str] = {}
    for text in given:
        name, mark, words = text.partition("=")
        if not name or (not mark and name not in definitions) or (mark and not words.strip()):
            remedy = f"--attributes '{name or 'brevity'}=Which answer is ...?'"
            raise InputError(f"The attribute '{name}' has no definition; say what to judge: {remedy}")
        found[name] = words.strip() if mark else definitions[name]
    return found
