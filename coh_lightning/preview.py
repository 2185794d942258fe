"""`python -m coh_lightning preview`: what feedback becomes, before anything is trained. Records, their chains, each
token with what is learned of it, and the tree.

    record 1 of 1 · f/7 · f.jsonl:1
    answer 1     Apple
                 rank 1
    chain 1 of 4 · 9 tokens, 2 learned (22%)
      prompt          4     read  Name a fruit.↵↵
      sentence        3     read  A helpful answer:↵
      good            2  learn 1  Apple</s>

It reads and prepares the data exactly as `fit` does (`CoHDataModule`), from the same configuration; the model's and the
trainer's part of it are not made. The arguments are parsed before torch and Lightning are imported, so that --help and
a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import html
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.commands import CommandParser
from coh_lightning.errors import InputError, counted, did_you_mean, visible
from coh_lightning.files import written_aside
from coh_lightning.yaml_text import escaped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
    from rich.tree import Tree as RichTree

    from coh_lightning.chains import Chain
    from coh_lightning.data import CoHDataModule
    from coh_lightning.formats import Segment
    from coh_lightning.prepare import Prepared
    from coh_lightning.records import Candidate, Feedback
    from coh_lightning.tokens import CutPrompt, Encoder, Tokens
    from coh_lightning.trees import Tree

OWN = {"--num": True, "--html": True, "--json": False, "--help": False, "-h": False}
"""Our own options, and whether a value follows."""
OTHERS = ("trainer", "run", "seed_everything", "ckpt_path", "weights_only")
"""Keys of a configuration of fit that say nothing of the data."""
SETTINGS = ("config", "data", "model", *OTHERS)
"""What may stand first in a key of a configuration, as for fit."""
PREVIEW_RECORDS = 3
PLAIN_WIDTH = 100
"""Columns where the output is no terminal."""
SHORT = 400
"""Characters of a text of the record that the terminal shows; the page shows all."""
REASONS = 8


# --- the command


def main(argv: Sequence[str]) -> int:
    """The command `preview`; gives its exit status.

    Raises:
        InputError: something that the user can put right.
    """
    own, settings = sorted_words(argv, OWN, "preview")
    options = _options().parse_args(own)
    if options.help:
        print(_options().format_help(), end="")
        return 0
    page = None if options.html is None else Path(options.html)
    if page is not None:
        _check_page(page)
    if options.num < 0:
        raise InputError(f"--num is {options.num}; give the number of records to show, or 0 for all.")
    if options.file is not None:
        _check_feedback(options.file)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # whatever libraries print while they work must not stand among the lines of --json
        with contextlib.redirect_stdout(sys.stderr):
            data = _prepared(options.file, settings)
        records = islice(_records(data), options.num or None)
        if options.json:
            for view in records:
                for line in _lines(view):
                    print(json.dumps(line))
        elif page is None:
            _show(data, records)
        if page is not None:
            views = list(islice(_records(data), options.num or None))
            _write_page(page, _page(data, views))
            print(f"wrote {page}: {len(views)} of {data.counts['train'].used} records", file=sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:  # `preview ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _options() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m coh_lightning preview",
        usage="%(prog)s [FEEDBACK_FILE] [--config FILE ...] [--data.KEY=VALUE ...] [--num N] [--json] [--html FILE]",
        description=(
            "Show what feedback becomes: its records, their chains, the tokens with what is learned, read and "
            "unlearned, and the tree."
        ),
        epilog="""A feedback file alone uses the method coh and the default wording; all of its records count as training data. The tokens are those of the model's tokenizer
(--model.model=NAME), or those of the embedded world's where no model is named.
Without a file the data are those of the configuration, and without one those of the embedded world.

settings, as for fit:
  --config FILE         a configuration; several are merged, the later one wins
  --data.KEY=VALUE      any setting of the data, such as --data.method=conf/method/coh_ranking.yaml
                        (of the model only its tokenizer is read; those of trainer and run are accepted and have no effect)

examples:
  python -m coh_lightning preview feedback.jsonl
  python -m coh_lightning preview --config conf/data/hh.yaml --num 1
  python -m coh_lightning preview feedback.jsonl --data.wording=conf/wording/varied.yaml --html preview.html
  python -m coh_lightning preview feedback.jsonl --num 0 --json > chains.jsonl

each line of --json: {"record", "chain", "segments": [{"text", "weight"}], "ids", "weights"}, one line per chain; an unlearned token has a negative weight.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FEEDBACK_FILE",
        help="records, or rows of TRL (.jsonl, .json, .csv, .parquet, ..., also packed)",
    )
    parser.add_argument(
        "--num", type=int, default=PREVIEW_RECORDS, metavar="N", help="records to show (default: %(default)s; 0: all)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line per chain, and nothing else")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page (.html) instead")
    parser.add_argument("-h", "--help", action="store_true", help="show this and exit")
    return parser


def sorted_words(argv: Sequence[str], options: Mapping[str, bool], command: str) -> tuple[list[str], list[str]]:
    """A command's own words, and those of the configuration with their values, each in their order.

    Args:
        options: The command's own options, and whether a value follows.
        command: Its name.

    Raises InputError for an option that neither has, with the nearest one.
    """
    own: list[str] = []
    settings: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name = word.split("=", 1)[0]
        mine = name in options or not word.startswith("--")
        if not mine and name.lstrip("-").split(".")[0].rstrip("+") not in SETTINGS:
            raise InputError(
                f"{command} has no option "
                f"{name}{did_you_mean(name, [*options, *(f'--{key}' for key in SETTINGS)], '; --help lists them.')}"
            )
        target = own if mine else settings
        target.append(word)
        takes_value = options[name] if name in options else not mine
        if takes_value and "=" not in word and words and not words[0].startswith("--"):
            target.append(words.pop(0))
    return own, settings


def _check_feedback(path: str) -> None:
    """Raises InputError where there is nothing to read, before libraries are loaded (which takes seconds)."""
    if re.search(r"[*?\[]", path) is None and not Path(path).expanduser().exists():
        raise InputError(f"{path}: there is no such file.")


def _check_page(page: Path) -> None:
    # so that `--html feedback.jsonl` can't overwrite what it should read
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html is {page}; give the page a name that ends in .html.")
    if not page.parent.is_dir():
        raise InputError(f"--html is {page}, but there is no folder {page.parent}; make it first.")


def _prepared(file: str | None, settings: Sequence[str]) -> CoHDataModule:
    """The data module of this configuration, prepared; with a feedback file in the place of its sources."""
    from coh_lightning.worlds import WORLD

    if file is None:
        data = configured(settings)
    else:
        sources = [f"--data.{name}=null" for name in ("sources", "validation_sources", "test_sources")]
        data = configured([*settings, *sources, f"--data.feedback={escaped(file)}"])
        data.validation_share = data.test_share = 0.0
    if data.recipe is None and data.tokenizer_name is None and data.own_feedback is not None:
        data.tokenizer_name = WORLD
        data.notes.append(
            "no model is named, so the tokens are those of the embedded world's tokenizer; see those of yours with "
            "--model.model=NAME"
        )
    data.regulariser_rows_per_step = 0  # its text has no feedback in it, and takes time to read
    data.max_lost_share = 1.0  # what can't be used, and why, is what a preview should show
    try:
        data.prepare_data()
    except InputError as error:
        train = data.counts.get("train")
        if train is None or train.used or not data.rejected:
            raise
        reasons = ", ".join(
            f"{len(places)} {reason} (first: {places[0]})" for reason, places in _reasons(data)[:REASONS]
        )
        raise InputError(
            f"none of the {train.records:,} records gives a chain with the method {data.method.name}: {reasons}."
        ) from error
    return data


def configured(settings: Sequence[str]) -> CoHDataModule:
    """Parses the settings with the parser of `fit`, and makes the data module alone."""
    from jsonargparse import ActionConfigFile, set_parsing_settings
    from omegaconf.errors import OmegaConfBaseException

    from coh_lightning.complaints import Typed, broken_reference
    from coh_lightning.config_parser import CoHParser
    from coh_lightning.data import CoHDataModule
    from coh_lightning.models import Recipe
    from coh_lightning.module import CoHModule
    from coh_lightning.sources import Source

    set_parsing_settings(subclasses_enabled=[Source])
    parser = CoHParser(parser_mode="omegaconf+")
    parser.add_argument("--config", action=ActionConfigFile)
    for key in OTHERS:
        parser.add_argument(f"--{key}", type=dict[str, Any] | Any, default=None)
    # parsed, since the data may refer to it (tokenizer: ${model.model}), but not made
    parser.add_class_arguments(CoHModule, "model", instantiate=False, sub_configs=True)
    parser.add_class_arguments(CoHDataModule, "data", sub_configs=True)
    CoHParser.typed = Typed(settings, Path.cwd())
    CoHParser.known = parser.keys()
    try:
        config = parser.parse_args(list(settings))
    except OmegaConfBaseException as error:
        raise broken_reference(error) from error
    except UnicodeDecodeError as error:
        raise InputError(CoHParser.typed.broken() or f"a configuration file is no text: {error}") from error
    parser.check_groups(config)
    model = config.model
    data: CoHDataModule = parser.instantiate(config)["data"]
    if model.get("model") is not None or model.get("from_config") is not None:
        data.recipe = Recipe(
            model.get("model"), model.get("from_config"), trust_remote_code=bool(model.get("trust_remote_code"))
        )
    return data


# --- what is shown


class Cut(NamedTuple):
    """In the place of tokens that truncation took away."""

    tokens: int


@dataclass(frozen=True)
class Strip:
    """Tokens in a row that have one role and one weight: a line of the display."""

    label: str
    """prompt, sentence, or the kind of the output (good, bad, ...); good/bad in a tree where outputs begin alike."""
    pieces: tuple[str | Cut, ...]
    """The text of each token; tokens that only together spell a character share one."""
    tokens: int
    learned: float
    unlearned: float


@dataclass(frozen=True)
class Branch:
    """A run of tokens of the tree without a fork, and the branches that go out from its end."""

    strips: tuple[Strip, ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class ChainView:
    """One chain: its tokens, and the same as segments and as strips."""

    tokens: Tokens
    segments: tuple[tuple[str, float], ...]
    """(decoded text, learned - unlearned weight) of each segment."""
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class RecordView:
    """A record with all that became of it."""

    place: int
    """Counted from 1."""
    record: Feedback
    prompt: CutPrompt
    chains: tuple[ChainView, ...]
    trees: tuple[tuple[Tree, Branch], ...]
    """More than one where the tree is longer than a row; none for a single chain and in `layout: separate`."""


def _records(data: CoHDataModule) -> Iterator[RecordView]:
    items: dict[int, list[Any]] = {}
    for item in data.plan.items:
        items.setdefault(item.record, []).append(item)
    prepared = list(enumerate(data.splits["train"]))
    if data.feedback is not None:  # one file: in its order, not in the mixture's
        prepared.sort(
            key=lambda numbered: [
                int(digits) for digits in re.findall(r"\d+", numbered[1].record.where.removeprefix(str(data.feedback)))
            ]
        )
    for place, (number, one) in enumerate(prepared, start=1):
        yield _viewed(data, place, one, items.get(number, []))


def _viewed(data: CoHDataModule, place: int, one: Prepared, items: Sequence[Any]) -> RecordView:
    chains: list[ChainView] = []
    labels: list[list[str]] = []
    for chain in data.preparer.chains(one):
        view, of_tokens = _chain_view(data, one, chain)
        chains.append(view)
        labels.append(of_tokens)
    trees = []
    for item in items if data.layout == "tree" and len(chains) > 1 else ():
        tree = data.rows.tree(item, "train")
        # a node that several chains hold may have several roles: a good and a bad output that begin alike
        roles: list[dict[str, None]] = [{} for _ in range(tree.tokens)]
        for chain_number, path in zip(item.chains, tree.paths, strict=True):
            for node, label in zip(path.tolist(), labels[chain_number], strict=True):
                roles[node][label] = None
        trees.append((tree, _branch(data.prompter.tokens.encoder, tree, list(map("/".join, roles)))))
    return RecordView(place, one.record, one.prompt, tuple(chains), tuple(trees))


def _chain_view(data: CoHDataModule, one: Prepared, chain: Chain) -> tuple[ChainView, list[str]]:
    """The chain, and the role of each of its tokens. Weights and ids are those that training gets, not the segments'
    own.
    """
    encoder = data.prompter.tokens.encoder
    tokens = data.prompter.tokens.chain(one.prompt, chain)
    parts: list[tuple[str, float, float, tuple[str | Cut, ...], int]] = []
    texts: list[tuple[str, float]] = []
    labels: list[str] = []
    for segment in data.prompter.tokens.segments(one.prompt, chain):
        start, ids = len(labels), encoder.segment_ids(segment)
        label = labels[-1] if segment.kind == "end" else "sentence" if segment.kind == "marker" else segment.kind
        labels += [label] * len(ids)
        gaps = _gaps(encoder, segment)
        if not len(ids) and not gaps:
            continue
        learned, unlearned = (float(tokens.learned[start]), float(tokens.unlearned[start])) if len(ids) else (0.0, 0.0)
        parts.append((label, learned, unlearned, _pieces(encoder, ids.tolist(), gaps), len(ids)))
        if len(ids):
            texts.append((encoder.decode(ids), learned - unlearned))
    if len(labels) != len(tokens):
        raise RuntimeError(
            f"the segments of a chain of record {one.record.id} have {len(labels)} tokens, the chain has {len(tokens)}"
        )
    strips = []
    for (label, learned, unlearned), group in groupby(parts, key=lambda part: part[:3]):
        listed = list(group)
        strips.append(
            Strip(
                label,
                tuple(piece for part in listed for piece in part[3]),
                sum(part[4] for part in listed),
                learned,
                unlearned,
            )
        )
    return ChainView(tokens, tuple(texts), tuple(strips)), labels


def _gaps(encoder: Encoder, segment: Segment) -> dict[int, int]:
    """Where truncation took tokens out of a segment: position among the tokens that are left -> how many.

    Each range loses tokens in one run, so the first place where the ids before and after differ is where it was.
    """
    gaps: dict[int, int] = {}
    if not segment.cut:
        return gaps
    before = encoder.segment_ids(segment._replace(cut=()))
    for count in range(1, len(segment.cut) + 1):
        after = encoder.segment_ids(segment._replace(cut=segment.cut[:count]))
        if lost := len(before) - len(after):
            different = before[: len(after)] != after
            place = int(different.argmax()) if different.any() else len(after)
            gaps[place] = gaps.get(place, 0) + lost
        before = after
    return gaps


def _pieces(encoder: Encoder, ids: Sequence[int], gaps: dict[int, int]) -> tuple[str | Cut, ...]:
    """The text of each token; bytes that only together spell a character make one piece."""
    pieces: list[str | Cut] = []
    waiting: list[int] = []
    for place in range(len(ids) + 1):
        if place in gaps or place == len(ids):
            if waiting:
                pieces.append(encoder.decode(waiting))
                waiting = []
            if place in gaps:
                pieces.append(Cut(gaps[place]))
            if place == len(ids):
                break
        waiting.append(ids[place])
        text = encoder.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) >= 4:  # a character has at most four bytes
            pieces.append(text)
            waiting = []
    return tuple(pieces)


def _branch(encoder: Encoder, tree: Tree, roles: Sequence[str], start: int = 0) -> Branch:
    """The part of the tree from node `start` on."""
    nodes = [start]
    while (children := _children(tree, nodes[-1])) and len(children) == 1:
        nodes.append(children[0])
    strips = []
    for (role, learned, unlearned), group in groupby(
        nodes, key=lambda node: (roles[node], float(tree.learned[node]), float(tree.unlearned[node]))
    ):
        listed = list(group)
        strips.append(
            Strip(role, _pieces(encoder, [int(tree.ids[node]) for node in listed], {}), len(listed), learned, unlearned)
        )
    return Branch(tuple(strips), tuple(_branch(encoder, tree, roles, child) for child in children))


def _children(tree: Tree, node: int) -> list[int]:
    """The children stand depth first: the first right behind the node, each further one where the one before it
    ends.
    """
    found = []
    child = node + 1
    while child < tree.subtree_end[node]:
        found.append(child)
        child = int(tree.subtree_end[child])
    return found


def _lines(view: RecordView) -> Iterator[dict[str, Any]]:
    """The lines of --json."""
    for number, chain in enumerate(view.chains):
        yield {
            "record": view.record.id,
            "chain": number,
            "segments": [{"text": text, "weight": weight} for text, weight in chain.segments],
            "ids": chain.tokens.ids.tolist(),
            "weights": (chain.tokens.learned - chain.tokens.unlearned).tolist(),
        }


# --- in words, for terminal and page alike


def _shown(pieces: Sequence[str | Cut]) -> list[tuple[str, bool]]:
    """(text, whether it is a cut) of each piece. A line end is written ↵ and breaks the line only inside the text, so
    that a sentence stays on one.
    """
    whole = "".join(piece for piece in pieces if isinstance(piece, str))
    first, last = len(whole) - len(whole.lstrip("\n")), len(whole.rstrip("\n"))
    out: list[tuple[str, bool]] = []
    place = 0
    for piece in pieces:
        if isinstance(piece, Cut):
            out.append((f"[✂ {counted(piece.tokens, 'token')} cut]", True))
            continue
        written = ""
        for character in piece:
            inside = first <= place < last
            written += ("↵\n" if inside else "↵") if character == "\n" else visible(character)
            place += 1
        out.append((written, False))
    return out


def _effect(strip: Strip) -> str:
    """learn 2, unlearn 0.5, +2 -0.5 (both), read: what the loss does with the tokens of a strip."""
    if strip.learned and strip.unlearned:
        return f"+{strip.learned:g} -{strip.unlearned:g}"
    return (
        f"learn {strip.learned:g}" if strip.learned else f"unlearn {strip.unlearned:g}" if strip.unlearned else "read"
    )


def _colour(strip: Strip) -> str:
    """The name of a strip's colour; both: learned in one chain and unlearned in another."""
    return (
        "both"
        if strip.learned and strip.unlearned
        else "learned"
        if strip.learned
        else "unlearned"
        if strip.unlearned
        else "read"
    )


def _said(candidate: Candidate, record: Feedback) -> list[str]:
    """What people said of a completion."""
    words = [] if candidate.rank is None else [f"rank {candidate.rank:g}"]
    for name, value in candidate.ratings.items():
        worst, best = record.scales[name]
        words.append(f"{name} {value:.3g} ({worst:g} to {best:g})")
    if candidate.thumb is not None:
        words.append("thumb up" if candidate.thumb else "thumb down")
    if candidate.critique is not None:
        words.append(f"“{candidate.critique}”")
    if candidate.author is not None:
        words.append(f"by {candidate.author}")
    return words


def _heading(view: RecordView, used: int) -> str:
    record = view.record
    # an id begins with its source; of the place the end says enough
    return " · ".join(
        part for part in (f"record {view.place:,} of {used:,}", record.id, Path(record.where).name) if part
    )


def _about(view: RecordView) -> list[tuple[str, str]]:
    """What else is known of a record."""
    record, prompt = view.record, view.prompt
    lines = [] if record.aspect is None else [("judged", record.aspect)]
    if prompt.cut:
        dropped = f", {counted(prompt.dropped, 'old turn')} of it whole" if prompt.dropped else ""
        lines.append(("cut", f"the prompt lost {counted(prompt.cut, 'token')}{dropped}"))
    return lines


def _chain_heading(view: RecordView, number: int) -> str:
    tokens = view.chains[number].tokens
    learned, unlearned = int((tokens.learned > 0).sum()), int((tokens.unlearned > 0).sum())
    share = f"{learned} learned" + (f", {unlearned} unlearned" if unlearned else "")
    return (
        f"chain {number + 1} of {len(view.chains)} · {counted(len(tokens), 'token')}, {share} "
        f"({(learned + unlearned) / len(tokens):.0%})"
    )


def _tree_heading(view: RecordView, number: int) -> str:
    tree = view.trees[number][0]
    plain = sum(len(path) for path in tree.paths)
    part = f" {number + 1} of {len(view.trees)}" if len(view.trees) > 1 else ""
    return f"tree{part} · {counted(tree.tokens, 'token')} in the place of {plain:,} ({plain / tree.tokens:.1f}x fewer)"


def _totals(data: CoHDataModule) -> list[tuple[str, str]]:
    """(what, how much) of the whole training data."""
    report, train = data.report(), data.counts["train"]
    method, wording = data.method.name, data.wording.name
    held_out = " and ".join(
        f"{data.counts[name].records:,} for {name}" for name in ("validation", "test") if data.counts[name].records
    )
    as_trees = (
        f"{train.tokens_tree:,} as trees ({report['tree_saves']:.1f}x fewer)"
        if data.layout == "tree"
        else "which `layout: separate` keeps"
    )
    rows = [
        (
            "settings",
            f"method {method}, wording {wording}, format {data.prompt_format.kind}, tokenizer {report['tokenizer']}",
        ),
        (
            "records",
            f"{train.records:,}, of which {train.used:,} are used" + (f" (besides {held_out})" if held_out else ""),
        ),
        (
            "chains",
            f"{train.chains:,}"
            + (
                f"; {counted(train.completions_unused, 'completion')} in none of them"
                if train.completions_unused
                else ""
            ),
        ),
        ("tokens", f"{train.tokens_plain:,} in plain chains, {as_trees}"),
        ("in the loss", f"{train.tokens_in_loss:,} of the tokens in plain chains ({report['share_in_loss']:.1%})"),
        (
            "cut",
            f"{counted(train.prompts_cut, 'prompt')} lost {counted(train.prompt_tokens_cut, 'token')} "
            f"(data.max_prompt_tokens {data.max_prompt_tokens})",
        ),
        (
            "dropped",
            f"{counted(train.links_cut, 'link')} and {counted(train.chains_dropped, 'whole chain')} "
            f"(data.max_chain_tokens {data.max_chain_tokens})",
        ),
    ]
    reasons = _reasons(data)
    rows.append(("rejected", f"{len(data.rejected):,}"))
    rows += [("", f"{len(places):,}  {reason} (first: {places[0]})") for reason, places in reasons[:REASONS]]
    if len(reasons) > REASONS:
        rows.append(
            ("", f"{sum(len(places) for _, places in reasons[REASONS:]):,}  for {len(reasons) - REASONS} other reasons")
        )
    rows += [("note", note) for note in [report["boundaries"], *report["notes"]]]
    return rows


def _reasons(data: CoHDataModule) -> list[tuple[str, list[str]]]:
    """(reason, where, with what is particular to the row) of all that was left out, the commonest reason first."""
    reasons: dict[str, list[str]] = {}
    for one in data.rejected:
        reasons.setdefault("unreadable" if one.unreadable else one.reason, []).append(
            (one.where or one.id) + (f": {one.detail}" if one.detail else "")
        )
    return sorted(reasons.items(), key=lambda item: -len(item[1]))


# --- on the terminal

STYLES = {
    "learned": ("color(34)", "color(71)"),
    "unlearned": ("color(160)", "color(167)"),
    "both": ("color(172)", "color(179)"),
    "read": ("dim", "dim"),
    "cut": ("magenta", "magenta"),
}
"""Neighbouring tokens take turns, so that their bounds can be seen. Shades that show on a dark and on a light
ground.
"""


def _show(data: CoHDataModule, records: Iterator[RecordView]) -> None:
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, highlight=False, width=PLAIN_WIDTH, color_system=None)
    legend = _text("tokens are ")
    for number, name in enumerate(("learned", "read", "unlearned")):
        legend.append(", " if number == 1 else " or " if number == 2 else "").append(name, STYLES[name][0])
    console.print(legend.append("; ↵ is a line end"))
    for view in records:
        _show_record(console, view, data.counts["train"].used)
    console.print()
    console.rule(_text("all records", "bold"), style="bold", align="left")
    console.print(_grid([(_text(name, "bold"), _text(value)) for name, value in _totals(data)], (11,)))


def _show_record(console: Console, view: RecordView, used: int) -> None:
    record = view.record
    console.print()
    console.rule(_text(_heading(view, used), "bold"), style="bold", align="left")
    rows = [(_text(turn.role, "cyan"), _text(_shortened(turn.text))) for turn in record.prompt]
    for number, candidate in enumerate(record.candidates, start=1):
        rows.append((_text(f"{record.task} {number}", "cyan"), _text(_shortened(candidate.text))))
        if said := _said(candidate, record):
            rows.append((_text(""), _text(" · ".join(said), "italic yellow")))
        if candidate.revision is not None:
            rows.append((_text("  revised", "cyan"), _text(_shortened(candidate.revision))))
    if record.reference is not None:
        rows.append((_text("reference", "cyan"), _text(_shortened(record.reference))))
    rows += [(_text(name, "cyan"), _text(words, "magenta")) for name, words in _about(view)]
    console.print(_grid(rows, (12,)))
    for number, chain in enumerate(view.chains):
        console.print()
        console.print(_text(_chain_heading(view, number), "bold"))
        console.print(_strips(chain.strips, known=view.chains[0].strips[0] if number else None))
    for number, (_, branch) in enumerate(view.trees):
        console.print()
        console.print(_text(_tree_heading(view, number), "bold"))
        console.print(_rich_tree(branch))


def _text(words: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(visible(words, line_ends=True), style=style)


def _shortened(text: str) -> str:
    text = text.strip("\n")
    return (
        text
        if len(text) <= SHORT
        else f"{text[: SHORT - 100]} … ({len(text) - SHORT + 50:,} characters) … {text[-50:]}"
    )


def _grid(rows: Sequence[Sequence[RenderableType]], widths: Sequence[int], *, one_line: bool = False) -> RenderableType:
    """Columns of these widths, and the last one as wide as there is room."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1), expand=True)
    for place, width in enumerate(widths):
        grid.add_column(width=width, justify="right" if place else "left", overflow="ellipsis", no_wrap=True)
    grid.add_column(ratio=1, overflow="ellipsis" if one_line else "fold", no_wrap=one_line)
    for row in rows:
        grid.add_row(*row)
    return grid


def _strips(strips: Sequence[Strip], *, known: Strip | None = None, one_line: bool = False) -> RenderableType:
    rows = []
    for strip in strips:
        style = STYLES[_colour(strip)][0]
        words = _text("as above", "dim italic") if strip == known else _painted(strip, one_line=one_line)
        rows.append((_text(strip.label, style), _text(f"{strip.tokens:,}", "dim"), _text(_effect(strip), style), words))
    return _grid(rows, (10, 5, 12), one_line=one_line)


def _painted(strip: Strip, *, one_line: bool) -> Text:
    words = _text("")
    styles = STYLES[_colour(strip)]
    for number, (text, cut) in enumerate(_shown(strip.pieces)):
        words.append(text.replace("\n", " ") if one_line else text, STYLES["cut"][0] if cut else styles[number % 2])
    return words


def _rich_tree(branch: Branch, tree: RichTree | None = None) -> RichTree:
    from rich.tree import Tree as RichTree

    label = _strips(branch.strips, one_line=True)
    here = RichTree(label, guide_style="dim") if tree is None else tree.add(label)
    for child in branch.branches:
        _rich_tree(child, here)
    return here


# --- as a page

CSS = """
:root { color-scheme: light dark; --line: #8884; --learned: #0a7d34; --learned2: #0a7d3422; --unlearned: #c22; --unlearned2: #cc222222; --both: #a60; --both2: #aa660022;
  --read: #777; --read2: #77777718; --cut: #a0a }
@media (prefers-color-scheme: dark) { :root { --learned: #5d6; --learned2: #55dd6626; --unlearned: #f77; --unlearned2: #ff777726; --both: #fb5; --both2: #ffbb5526;
  --read: #999; --read2: #99999920; --cut: #f7f } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; border-top: 2px solid; padding-top: .6rem; margin-top: 2.5rem; overflow-wrap: anywhere } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap; width: 1% } td.n { text-align: right; white-space: nowrap; width: 1% } td.text { white-space: pre-wrap; overflow-wrap: anywhere }
.tokens { font-family: ui-monospace, monospace; font-size: .85rem } .said { font-style: italic } .note { color: var(--cut) } .above { color: var(--read); font-style: italic }
.learned { color: var(--learned) } .unlearned { color: var(--unlearned) } .both { color: var(--both) } .read { color: var(--read) } .cut { color: var(--cut) }
td.learned b:nth-child(odd) { background: var(--learned2) } td.unlearned b:nth-child(odd) { background: var(--unlearned2) } td.both b:nth-child(odd) { background: var(--both2) }
td.read b:nth-child(odd) { background: var(--read2) } td b { font-weight: inherit }
ul { list-style: none; margin: 0; padding-left: 1.2rem; border-left: 2px solid var(--line) } ul.root { padding: 0; border: 0 } li { margin: .5rem 0 }
"""


def _page(data: CoHDataModule, views: Sequence[RecordView]) -> str:
    """One page with all of it: no script, nothing loaded, everything escaped."""
    sha = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{sha}'; base-uri 'none'; form-action 'none'"
    used = data.counts["train"].used
    legend = ", ".join(f'<span class="{name}">{name}</span>' for name in ("learned", "read", "unlearned"))
    totals = "".join(
        f'<tr><th>{_safe(name)}</th><td class="text">{_safe(value)}</td></tr>\n' for name, value in _totals(data)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What feedback becomes</title>
<style>{CSS}</style>
</head>
<body>
<h1>What feedback becomes</h1>
<p>{len(views):,} of {used:,} records. Tokens are {legend}; ↵ is a line end.</p>
<table>
{totals}</table>
{"".join(_page_record(view, used) for view in views)}</body>
</html>
"""


def _page_record(view: RecordView, used: int) -> str:
    record = view.record
    rows: list[tuple[str, str, str]] = [(turn.role, turn.text, "text") for turn in record.prompt]
    for number, candidate in enumerate(record.candidates, start=1):
        rows.append((f"{record.task} {number}", candidate.text, "text"))
        if said := _said(candidate, record):
            rows.append(("", " · ".join(said), "text said"))
        if candidate.revision is not None:
            rows.append(("revised", candidate.revision, "text"))
    if record.reference is not None:
        rows.append(("reference", record.reference, "text"))
    rows += [(name, words, "text note") for name, words in _about(view)]
    out = [f"<section>\n<h2>{_safe(_heading(view, used))}</h2>\n<table>\n"]
    out += [f'<tr><th>{_safe(name)}</th><td class="{kind}">{_safe(text)}</td></tr>\n' for name, text, kind in rows]
    out.append("</table>\n")
    for number, chain in enumerate(view.chains):
        out.append(
            f"<h3>{_safe(_chain_heading(view, number))}</h3>\n{_page_strips(chain.strips, known=view.chains[0].strips[0] if number else None)}"
        )
    for number, (_, branch) in enumerate(view.trees):
        out.append(f'<h3>{_safe(_tree_heading(view, number))}</h3>\n<ul class="root">{_page_branch(branch)}</ul>\n')
    return "".join([*out, "</section>\n"])


def _page_strips(strips: Sequence[Strip], *, known: Strip | None = None) -> str:
    rows = []
    for strip in strips:
        colour = _colour(strip)
        if strip == known:
            words = '<td class="above">as above</td>'
        else:
            tokens = "".join(
                f'<i class="cut">{html.escape(text)}</i>' if cut else f"<b>{html.escape(text)}</b>"
                for text, cut in _shown(strip.pieces)
            )
            words = f'<td class="text tokens {colour}">{tokens}</td>'
        numbers = f'<td class="n">{strip.tokens:,}</td><td class="n {colour}">{_effect(strip)}</td>'
        rows.append(f'<tr><th class="{colour}">{_safe(strip.label)}</th>{numbers}{words}</tr>\n')
    return f"<table>\n{''.join(rows)}</table>\n"


def _page_branch(branch: Branch) -> str:
    below = "".join(map(_page_branch, branch.branches))
    return f"<li>{_page_strips(branch.strips)}{f'<ul>{below}</ul>' if below else ''}</li>\n"


def _safe(text: str) -> str:
    return html.escape(visible(text, line_ends=True))


def _write_page(page: Path, text: str) -> None:
    with written_aside(page) as aside:
        aside.write_text(text, encoding="utf-8")
