"""What became of the data: `data.json`, `rejected.jsonl`, and the lines on the screen before training."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.dataset.held_out import Comparer
from coh_lightning.errors import counted
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.records import Feedback
from coh_lightning.io import atomic_write
from coh_lightning.sequences.record_planner import PlannedRecord

if TYPE_CHECKING:
    from coh_lightning.dataset.feedback_data import FeedbackData


@dataclass
class SplitCounts:
    """What became of the records of one split."""

    records: int = 0
    used: int = 0
    rejected: int = 0  # records that the method can't use; with `used`, all
    copies: int = 0  # records that a source's weight repeats (training only), ...
    copies_left_out: int = 0  # ... and repetitions that are left out because the split is held out
    chains: int = 0
    completions_unused: int = 0  # completions of the used records in none of their chains
    completions_without_critique: int = 0  # of the used records, which a method with reviews can't review
    reviews: int = 0  # in the chains
    prompts_cut: int = 0
    prompt_tokens_cut: int = 0
    links_cut: int = 0  # left out at the front of chains longer than max_chain_tokens, ...
    chains_dropped: int = 0  # ... and chains that were still too long then, or the same as another
    pairs: int = 0  # held-out data only: for preference accuracy, ...
    pairs_too_long: int = 0  # ... and left out: a completion is longer than max_chain_tokens
    tokens_plain: int = 0
    tokens_tree: int = 0
    rows: int = 0
    tokens_in_loss: int = 0  # learned or unlearned; a token in two chains counts twice, also in `tokens_plain`
    review_tokens_in_loss: int = 0  # those of them that belong to reviews

    def add(self, record: Feedback) -> None:
        """A record of the split; it is rejected until it is used."""
        self.records += 1
        self.rejected += 1
        self.copies += record.copy > 1

    def use(self, planned: PlannedRecord, comparer: Comparer | None) -> None:
        """The record can be used; `comparer` for a held-out split. Everything but `tokens_tree` and `rows`."""
        if comparer is not None:
            compared, too_long = comparer.pairs(planned)
            self.pairs += len(compared)
            self.pairs_too_long += too_long
        self.used += 1
        self.rejected -= 1
        self.chains += len(planned.kept)
        self.completions_unused += planned.completions_unused
        self.completions_without_critique += planned.completions_without_critique
        self.reviews += planned.reviews
        self.prompts_cut += planned.prompt.cut > 0
        self.prompt_tokens_cut += planned.prompt.cut
        self.links_cut += planned.links_cut
        self.chains_dropped += planned.chains_dropped
        self.tokens_plain += planned.tokens_plain
        self.tokens_in_loss += planned.tokens_in_loss
        self.review_tokens_in_loss += planned.review_tokens_in_loss


def report(data: FeedbackData) -> dict[str, Any]:
    """Everything that was counted: the content of data.json."""
    train = data.counts["train"]
    rejected = Counter("unreadable" if row.unreadable else row.reason for row in data.rejected)
    return {
        "sources": data.source_counts,
        "files": data.files,
        "splits": {name: asdict(count) for name, count in data.counts.items()},
        "rejected": dict(rejected.most_common()),
        "steps_per_epoch": data.plan.steps_per_epoch,
        "rows_per_step": data.rows_per_step,
        "pretraining": {
            "texts": len(data.rows.texts),
            "tokens": sum(map(len, data.rows.texts)),
            "rows_per_step": data.pretraining_rows_per_step,
        },
        "share_in_loss": train.tokens_in_loss / max(train.tokens_plain, 1),
        "tree_saves": train.tokens_plain / max(train.tokens_tree, 1),
        "fill": train.tokens_tree / max(train.rows * data.row_tokens, 1),
        "tokenizer": data.tokenizer_name,
        "boundaries": data.boundaries,
        "notes": data.notes,
        "settings": data.settings(),
    }


def summary(data: FeedbackData) -> list[tuple[str, str]]:
    """The report in a few lines, for the screen before training."""
    found, train = report(data), data.counts["train"]
    held_out = ", ".join(f"{count.used:,} for {name}" for name, count in data.counts.items() if name != "train")
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in found["rejected"].items()) or "none"
    cut = (
        f"{counted(train.prompts_cut, 'prompt')} cut by {counted(train.prompt_tokens_cut, 'token')}, "
        f"{counted(train.links_cut, 'link')} and {counted(train.chains_dropped, 'chain')} left out"
    )
    be = "is" if train.completions_unused == 1 else "are"
    unused = f" ({counted(train.completions_unused, 'completion')} {be} in none)" if train.completions_unused else ""
    chains = f"{train.chains:,} by the method '{data.method.name}' in the wording '{data.wording.name}'{unused}; {cut}"
    if data.method.reviews:
        none = counted(train.completions_without_critique, "completion")
        chains += f"; {counted(train.reviews, 'review')} in them, {none} without a critique"
    tokens = f"{train.tokens_plain:,} as plain chains, {train.tokens_tree:,} as laid out"
    rows = f"{train.rows:,} of {data.row_tokens} tokens, {found['fill']:.1%} full"
    steps = f"{counted(data.plan.steps_per_epoch, 'step')} an epoch, {counted(data.rows_per_step, 'row')} a step"
    lines = [
        ("records", f"{train.used:,} to train on, {held_out}; left out: {left_out}"),
        ("chains", chains),
        ("tokens", f"{tokens} ({found['tree_saves']:.2f}x fewer); {found['share_in_loss']:.1%} in the loss"),
        ("rows", f"{rows}; {steps}"),
        ("tokenizer", f"{found['tokenizer']}; {found['boundaries']}"),
    ]
    if data.pretraining_rows_per_step:
        rows = f"{counted(data.pretraining_rows_per_step, 'row')} a step, weight {data.pretraining_weight:g}"
        lines.append(("pretraining", f"{found['pretraining']['tokens']:,} tokens of text, {rows}"))
    return [*lines, *(("note", note) for note in data.notes)]


def write_report(data: FeedbackData, folder: Path) -> None:
    """`data.json` and, where anything was left out, `rejected.jsonl`."""
    with atomic_write(folder / "data.json") as aside:
        aside.write_text(json.dumps(report(data), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if data.rejected:
        write_jsonl(folder / "rejected.jsonl", data.rejected)
