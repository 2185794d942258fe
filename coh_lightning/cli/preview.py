"""`coh preview`: what feedback becomes before training: records, their chains, each token with its weight in the loss,
and the tree.

    record 1 of 1 · f/7 · f.jsonl:1
    answer 1     Apple
                 rank 1
    chain 1 of 4 · 9 tokens, 2 learned (22%)
      prompt          4     read  Name a fruit.↵↵
      sentence        3     read  A helpful answer:↵
      good            2  learn 1  Apple</s>

It prepares the data exactly as `fit` does (`CoHDataModule`), from the same configuration, without a model or a trainer.
A file alone needs neither torch nor Lightning. With settings, fit's parser needs both; the arguments are looked at
before, so that --help and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.cli.preview_records import record_views
from coh_lightning.cli.preview_view import REASONS, rejections, totals
from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted, did_you_mean, near_file
from coh_lightning.pages.page import write_page
from coh_lightning.yaml_text import escaped

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule
    from coh_lightning.dataset.feedback_data import FeedbackData

OWN = {"--num": True, "--html": True, "--json": False, "--help": False, "-h": False}
"""Our own options, and whether a value follows."""
OTHERS = ("trainer", "run", "seed_everything", "ckpt_path", "weights_only")
"""Root keys of fit that don't concern the data."""
SETTINGS = ("config", "data", "model", *OTHERS)
"""Root keys of fit."""


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status; raises InputError for what the user can fix."""
    own, settings = sorted_words(argv, OWN, "preview")
    options = _options().parse_args(own)
    page = None if options.html is None else Path(options.html)
    if page is not None and page.suffix.lower() not in (".html", ".htm"):  # `--html feedback.jsonl` would overwrite it
        raise InputError(f"--html is {page}; give the page a name that ends in .html.")
    if page is not None and not page.parent.is_dir():
        raise InputError(f"--html is {page}, but there is no folder {page.parent}; make it first.")
    if options.num < 0:
        raise InputError(f"--num is {options.num}; give the number of records to show, or 0 for all.")
    if options.file is not None and not re.search(r"[*?\[]", options.file):
        file = Path(options.file).expanduser()
        if not file.exists():  # said before libraries load, which takes seconds
            from coh_lightning.feedback.sources.file_names import data_suffix

            near = near_file(file, lambda other: data_suffix(other) is not None)
            raise InputError(f"{options.file}: there is no such file{near}")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print must not be among the lines of --json
            data = _prepared(options.file, settings)
        records = islice(record_views(data), options.num or None)
        if options.json:
            for record in records:
                for line in record.lines:
                    print(json.dumps(line))
        if page is not None:
            shown = list(islice(record_views(data), options.num or None))
            used = data.counts["train"].used
            write_page(page, "preview.html.j2", records=shown, used=used, totals=totals(data))
            print(f"wrote {page}: {len(shown):,} of {counted(used, 'record')}", file=sys.stderr)
        elif not options.json:
            from coh_lightning.cli.preview_terminal import print_preview

            print_preview(records, totals(data))
        sys.stdout.flush()
    except BrokenPipeError:  # `preview ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _options() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="coh preview",
        usage="%(prog)s [FEEDBACK_FILE] [--config FILE ...] [--data.KEY=VALUE ...] [--num N] [--json] [--html FILE]",
        description="Show what feedback becomes: records, chains, tokens (learned, read or unlearned), and the tree.",
        epilog="""A feedback file alone uses the method coh and the default wording, and all of its records
are training data. The tokens are those of the model's tokenizer (--model.name_or_path=NAME), or of
the embedded world's if no model is named. Without a file the data come from the configuration.

settings, as for fit:
  --config FILE         a configuration; several are merged, the later one wins
  --data.KEY=VALUE      any setting of the data, such as --data.method=conf/method/coh_ranking.yaml
                        (of the model only its tokenizer is read; trainer and run are accepted and have no effect)

examples:
  coh preview feedback.jsonl
  coh preview --config conf/data/hh.yaml --num 1
  coh preview feedback.jsonl --data.wording=conf/wording/varied.yaml --html preview.html
  coh preview feedback.jsonl --num 0 --json > chains.jsonl

--json prints one line per chain, in which an unlearned token has a negative weight:
  {"record", "chain", "segments": [{"text", "weight"}], "ids", "weights"}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = "records, or rows of TRL (.jsonl, .json, .csv, .parquet, ..., also packed)"
    number = "records to show (default: %(default)s; 0: all)"
    parser.add_argument("file", nargs="?", metavar="FEEDBACK_FILE", help=formats)
    parser.add_argument("--num", type=int, default=3, metavar="N", help=number)
    parser.add_argument("--json", action="store_true", help="one JSON line per chain, and nothing else")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page (.html) instead")
    return parser


def sorted_words(argv: Sequence[str], options: Mapping[str, bool], command: str) -> tuple[list[str], list[str]]:
    """Splits the arguments of a command: its own options (and whether a value follows), and those of the configuration.

    Raises InputError for an unknown option, with the nearest known one.
    """
    own: list[str] = []
    settings: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name = word.split("=", 1)[0]
        mine = name in options or not word.startswith("--")
        if not mine and name.lstrip("-").split(".")[0].rstrip("+") not in SETTINGS:
            known = [*options, *(f"--{key}" for key in SETTINGS)]
            raise InputError(f"{command} has no option {name}{did_you_mean(name, known, '; --help lists them.')}")
        target = own if mine else settings
        target.append(word)
        takes_value = options[name] if name in options else not mine
        if takes_value and "=" not in word and words and not words[0].startswith("--"):
            target.append(words.pop(0))
    return own, settings


def _prepared(file: str | None, settings: Sequence[str]) -> FeedbackData:
    """The data of this configuration, prepared; a feedback file replaces its sources."""
    from coh_lightning.dataset.feedback_data import FeedbackData
    from coh_lightning.worlds import WORLD

    data: FeedbackData
    if file is None:
        data = configured(settings)
    elif not settings:
        data = FeedbackData(file, validation_share=0.0, test_share=0.0)
    else:
        sources = [f"--data.{name}=null" for name in ("sources", "validation_sources", "test_sources")]
        data = configured([*settings, *sources, f"--data.feedback={escaped(file)}"])
        data.validation_share = data.test_share = 0.0
    if data.spec is None and data.tokenizer_name is None and data.own_feedback is not None:
        data.tokenizer_name = WORLD
        note = "no model is named, so the tokens are those of the embedded world's tokenizer; name yours:"
        data.notes.append(f"{note} --model.name_or_path=NAME")
    data.pretraining_rows_per_step = 0  # pretraining text has no feedback, and takes time to read
    data.max_unusable_fraction = 1.0  # a preview should show what can't be used, and why
    try:
        data.build()
    except InputError as error:
        train = data.counts.get("train")
        if train is None or train.used or not data.rejected:
            raise
        reasons = [f"{len(places)} {reason} (first: {places[0]})" for reason, places in rejections(data)[:REASONS]]
        what = f"none of {counted(train.records, 'record')} gives a chain with the method {data.method.name}"
        raise InputError(f"{what}: {', '.join(reasons)}.") from error
    return data


def configured(settings: Sequence[str]) -> CoHDataModule:
    """Parses the settings with the parser of `fit`, and makes only the data module."""
    from jsonargparse import ActionConfigFile, set_parsing_settings

    from coh_lightning.cli.config_errors import Typed
    from coh_lightning.cli.config_parser import CoHParser
    from coh_lightning.data import CoHDataModule
    from coh_lightning.feedback.sources import Source
    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.module import CoHModule

    set_parsing_settings(subclasses_enabled=[Source])
    parser = CoHParser(parser_mode="omegaconf+")
    parser.add_argument("--config", action=ActionConfigFile)
    for key in OTHERS:
        parser.add_argument(f"--{key}", type=dict[str, Any] | Any, default=None)
    # parsed, since the data may refer to it (tokenizer: ${model.name_or_path}), but not made
    parser.add_class_arguments(CoHModule, "model", instantiate=False, sub_configs=True)
    parser.add_class_arguments(CoHDataModule, "data", sub_configs=True)
    CoHParser.typed = Typed(settings, Path.cwd())
    CoHParser.known = parser.keys()
    config = parser.parse_args(list(settings))
    parser.check_groups(config)
    model = config.model
    data: CoHDataModule = parser.instantiate(config)["data"]
    name, from_config = model.get("name_or_path"), model.get("from_config")
    if name is not None or from_config is not None:
        data.spec = ModelSpec(name, from_config, trust_remote_code=bool(model.get("trust_remote_code")))
    return data
