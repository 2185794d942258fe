"""`coh convert`: feedback of any source as records or in the preference formats of TRL (for DPO, KTO, ...), and back.

    records       {"id": "7", "prompt": "Hi",
                   "completions": [{"text": "Hello!", "rank": 1}, {"text": "What?", "rank": 2}]}
    trl-pairs     {"prompt": [user "Hi"], "chosen": [assistant "Hello!"], "rejected": [assistant "What?"], "id": "7"}
    trl-unpaired  {"prompt": [user "Hi"], "completion": [assistant "Hello!"], "label": true, "id": "7#1"}
                  {"prompt": [user "Hi"], "completion": [assistant "What?"], "label": false, "id": "7#2"}

Which completion is better, and which is good or bad, is decided as for Chain of Hindsight (chains.py). Texts are kept
exactly; what a format has no place for is counted by reading the output back.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from coh_lightning.cli.preview import configured, sorted_words
from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.records import Feedback, unique
from coh_lightning.sequences.chains import Link, Unusable, build_chains
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.wording import Wording

OPTIONS = {"--to": True, "--output": True, "--help": False, "-h": False}
FORMS = ("records", "trl-pairs", "trl-unpaired")
CARRIED = ("task", "aspect", "reference")
"""Fields of a record, besides its id, that get columns of their own; TRL ignores them."""


@dataclass(frozen=True)
class TRLRow:
    columns: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.columns


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status; raises InputError for what the user can fix."""
    own, settings = sorted_words(argv, OPTIONS, "convert")
    options = _options().parse_args(own)
    for name in ("to", "output"):
        if getattr(options, name) is None:
            raise InputError(f"convert: --{name} is missing; see --help.")
    output = Path(options.output)
    if options.file is not None and settings:
        raise InputError(f"convert: {options.file} and {settings[0]} both say what to convert; give only one.")
    if options.file is not None and output.exists() and output.samefile(options.file):
        raise InputError(f"convert: {output} is the input file; give another --output.")
    method = Method()
    if options.file is not None:
        records: Iterable[Feedback] = read_file(options.file)
    else:
        with contextlib.redirect_stdout(sys.stderr):
            data = configured(settings)
            splits, method = data.records_by_split(), data.method
        held_out = ", ".join(f"{len(splits[name]):,} for {name}" for name in splits if name != "train")
        left_out = f"held out and not converted: {held_out}; left out: {len(data.rejected):,}"
        print(left_out, *data.notes, sep="\n", file=sys.stderr)
        records = splits["train"]
    if options.to == "records":
        print(f"{counted(write_jsonl(output, records), 'record')} in {output}", file=sys.stderr)
        return 0
    report = Report()
    print(
        f"{counted(write_jsonl(output, rows(records, options.to, method, report)), 'row')} in {output}", file=sys.stderr
    )
    for line in report.lines():
        print(line, file=sys.stderr)
    return 0


def _options() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="coh convert",
        usage=f"%(prog)s [FILE] --to {{{','.join(FORMS)}}} --output FILE [--config FILE ...] [--data.KEY=VALUE ...]",
        description="Feedback of any source as records, or in the preference formats of TRL, and back.",
        epilog="""trl-pairs: every pair of completions of which one is better, as messages (prompt, chosen, rejected).
trl-unpaired: completions that are good or bad (prompt, completion, label): those with a thumb, else the best and worst.
Feedback that has no place in the format is counted on the screen; so are the records that give no row.

settings, as for fit, instead of FILE:
  --config FILE         a configuration; only the training records of its data are converted
  --data.KEY=VALUE      any setting of the data

examples:
  coh convert feedback.jsonl --to trl-pairs --output pairs/train.jsonl
  coh convert pairs/train.jsonl --to records --output again.jsonl
  coh convert --config conf/data/hh.yaml --to trl-unpaired --output unpaired/train.jsonl""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="records, or TRL's rows (the first row decides)")
    parser.add_argument("--to", choices=FORMS, help="output format")
    parser.add_argument("--output", metavar="FILE", help="output file (.jsonl or .jsonl.gz)")
    return parser


def read_file(path: str) -> Iterator[Feedback]:
    """The records of a file in one of the three formats, in order, with their ids.

    Raises:
        InputError: a row that can't be read or used; names file and line.
    """
    from coh_lightning.feedback.sources import Records, recognized

    source, note = recognized(path)
    if note is not None:
        print(note, file=sys.stderr)
    source.notes.start(source.label)
    seen: dict[str, str] = {}
    for where, row in source.rows():
        source.notes.rows += 1
        if isinstance(row, InputError):
            raise row
        if isinstance(source, Records):
            yield unique(Feedback.from_json(row, where), seen, where)
            continue
        own = {name: row[name] for name in ("id", *CARRIED) if isinstance(row.get(name), str)}
        record = source.feedback({name: value for name, value in row.items() if name not in own}, where)
        if not isinstance(record, Feedback):
            detail = f" ({record.detail})" if record.detail else ""
            raise InputError(f"{where}: {record.reason}{detail}; remove the row.")
        yield unique(replace(record, **own), seen, where)
    for line in source.notes.lines():
        print(line, file=sys.stderr)


class Report:
    """What was lost in the conversion to a format of TRL."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        """Records without a row, by reason."""
        self.lost: Counter[str] = Counter()
        """Feedback without a place in the format, by kind."""

    def lines(self) -> Iterator[str]:
        number = self.left_out.total()
        left_out = f"{counted(number, 'record')} {'gives' if number == 1 else 'give'} no row"
        for head, counts in ((left_out, self.left_out), ("the format can't hold", self.lost)):
            if counts:
                yield f"{head}: " + ", ".join(f"{times:,} {what}" for what, times in counts.most_common())


def rows(records: Iterable[Feedback], form: str, method: Method, report: Report) -> Iterator[TRLRow]:
    """The rows of the records in `form`, `trl-pairs` or `trl-unpaired`; what is lost is added to `report`.

    `method` says which completions are better or good (`preference_from`, `good_above`, `bad_below`).
    """
    from coh_lightning.feedback.sources import TRLPairs, TRLUnpaired

    source = TRLPairs("rows") if form == "trl-pairs" else TRLUnpaired("rows")
    taken: set[str] = set()
    for record in records:
        try:
            made = list(_pairs(record, method) if form == "trl-pairs" else _unpaired(record, method))
        except Unusable as unusable:
            report.left_out[str(unusable)] += 1
            continue
        prompt = [{"role": turn.role, "content": turn.text} for turn in record.prompt]
        carried = {name: value for name in CARRIED if (value := getattr(record, name)) is not None}
        back = []
        for number, columns in enumerate(made, start=1):
            id = record.id if len(made) == 1 else f"{record.id}#{number}"
            while id in taken:  # another record's id may look like that of a row
                id += "#"
            taken.add(id)
            row = {"prompt": prompt, **columns, "id": id, **carried}
            back.append(source.feedback(row, record.where))
            yield TRLRow(row)
        kept = judgments(one for one in back if isinstance(one, Feedback))
        report.lost += Counter(kind for kind, *_ in judgments([record]) - kept)


def _pairs(record: Feedback, method: Method) -> Iterator[dict[str, Any]]:
    """Every pair of completions of which one is better."""
    for better, worse in _chains(record, method, orders=("pn",), pairs="all"):
        yield {"chosen": _answer(better.text), "rejected": _answer(worse.text)}


def _unpaired(record: Feedback, method: Method) -> Iterator[dict[str, Any]]:
    """Good and bad completions: by their thumb, or else the best is good and the worst is bad."""
    thumbs = any(candidate.thumb is not None for candidate in record.candidates)
    judge = "thumb" if thumbs else method.preference_from
    for (link,) in _chains(record, method, orders=("p", "n"), pairs="best_vs_worst", preference_from=judge):
        yield {"completion": _answer(link.text), "label": link.kind == "good"}


def _chains(record: Feedback, method: Method, **changes: Any) -> tuple[tuple[Link, ...], ...]:
    """The chains of `method` with changes."""
    return build_chains(record, replace(method, sentences="polarity", ties="skip", **changes), Wording())


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def judgments(records: Iterable[Feedback]) -> Counter[tuple[Any, ...]]:
    """All feedback in records of one prompt, as (kind, ...) tuples that can be compared; rankings pair by pair."""
    found: list[tuple[Any, ...]] = []
    for record in records:
        special = [(turn.role, index) for index, turn in enumerate(record.prompt) if not turn.is_plain]
        found += [("limits of truncation", *turn) for turn in special]
        found += [("further keys", name) for name in record.extra]
        for candidate in record.candidates:
            found += [("ratings", candidate.text, name, value) for name, value in candidate.ratings.items()]
            for kind in ("thumb", "critique", "revision", "author"):
                if (value := getattr(candidate, kind)) is not None:
                    found.append((f"{kind}s", candidate.text, value))
        ranked = [(one.rank, one.text) for one in record.candidates if one.rank is not None]
        for (rank, text), (other_rank, other_text) in permutations(ranked, 2):
            if rank < other_rank:
                found.append(("orders of two outputs", text, other_text))
            elif rank == other_rank and text < other_text:
                found.append(("ties of two outputs", text, other_text))
    return Counter(found)
