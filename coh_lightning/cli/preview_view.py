"""What `preview` shows, in the terminal and on the page: each record with its chains as strips of tokens that the loss
treats alike, and their tree; below them the totals of the training data.

    RecordView ──> ChainView ──> Strip   "good", 2 tokens, learn 1, pieces "Apple" "</s>"
        └────────> TreeView  ──> Branch ──> Strip, Branch, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from coh_lightning.errors import counted
from coh_lightning.sequences.chains import REVIEW

if TYPE_CHECKING:
    from coh_lightning.dataset.feedback_data import FeedbackData
    from coh_lightning.feedback.records import Feedback, RatedCompletion
    from coh_lightning.sequences.chain_tokenizer import CutPrompt
    from coh_lightning.sequences.tokens import Tokens
    from coh_lightning.sequences.trees import Tree

REASONS = 8
"""Reasons for rejection that are listed; the others are summed up."""


class Cut(NamedTuple):
    """Tokens that truncation removed."""

    tokens: int


@dataclass(frozen=True)
class Strip:
    """Consecutive tokens of one role and one weight: a line of the display."""

    label: str
    """prompt, sentence, or the kind of the output (good, bad, ...); good/bad in a tree where outputs begin alike."""
    pieces: tuple[str | Cut, ...]
    """The text of each token; tokens that spell one character together share a piece."""
    tokens: int
    learned: float
    unlearned: float

    @property
    def effect(self) -> str:
        """What the loss does with the tokens: learn 2, unlearn 0.5, +2 -0.5 (both), read."""
        if self.learned and self.unlearned:
            return f"+{self.learned:g} -{self.unlearned:g}"
        if self.unlearned:
            return f"unlearn {self.unlearned:g}"
        return f"learn {self.learned:g}" if self.learned else "read"

    @property
    def color(self) -> str:
        """Name of its color; both: learned in one chain and unlearned in another. Reviews have one of their own,
        learned or not.
        """
        if self.label == REVIEW:
            return "review"
        if self.learned and self.unlearned:
            return "both"
        return "learned" if self.learned else "unlearned" if self.unlearned else "read"

    @property
    def shown(self) -> list[tuple[str, bool]]:
        """(text, whether it is a cut) of each piece, with ↵ for a line end and ⇥ for a tab; only ↵ inside the text
        breaks the line.
        """
        whole = "".join(piece for piece in self.pieces if isinstance(piece, str))
        first, last = len(whole) - len(whole.lstrip("\n")), len(whole.rstrip("\n"))
        out: list[tuple[str, bool]] = []
        place = 0
        for piece in self.pieces:
            if isinstance(piece, Cut):
                out.append((f"[✂ {counted(piece.tokens, 'token')} cut]", True))
                continue
            written = ""
            for character in piece.replace("\t", "⇥"):
                inside = first <= place < last
                written += character if character != "\n" else "↵\n" if inside else "↵"
                place += 1
            out.append((written, False))
        return out


@dataclass(frozen=True)
class Branch:
    """A run of tokens of the tree without a fork, and the branches that start at its end."""

    strips: tuple[Strip, ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class TreeView:
    """One tree of a record; a tree longer than a row becomes several."""

    tree: Tree
    root: Branch
    part: str
    """ " 2 of 3" where there are several."""

    @property
    def heading(self) -> str:
        plain = sum(len(path) for path in self.tree.paths)
        fewer = f"{plain / self.tree.tokens:.1f}x fewer"
        return f"tree{self.part} · {counted(self.tree.tokens, 'token')} instead of {plain:,} ({fewer})"


@dataclass(frozen=True)
class ChainView:
    """The tokens of a chain, also as segments and as strips."""

    tokens: Tokens
    segments: tuple[tuple[str, float], ...]
    """(decoded text, learned - unlearned weight) of each segment."""
    strips: tuple[Strip, ...]

    @property
    def heading(self) -> str:
        learned, unlearned = int((self.tokens.learned > 0).sum()), int((self.tokens.unlearned > 0).sum())
        share = f"{learned} learned" + (f", {unlearned} unlearned" if unlearned else "")
        return f"{counted(len(self.tokens), 'token')}, {share} ({(learned + unlearned) / len(self.tokens):.0%})"


class Fact(NamedTuple):
    name: str
    text: str
    kind: str = "text"
    """text: somebody's words; said: feedback on the text above; note: what happened to it."""


@dataclass(frozen=True)
class RecordView:
    place: int
    """Counted from 1, `used` in all."""
    used: int
    record: Feedback
    prompt: CutPrompt
    chains: tuple[ChainView, ...]
    trees: tuple[TreeView, ...]
    """None for a single chain and in `layout: separate`."""

    @property
    def heading(self) -> str:
        where = Path(self.record.where).name  # the id begins with the source
        return " · ".join(part for part in (f"record {self.place:,} of {self.used:,}", self.record.id, where) if part)

    @property
    def facts(self) -> list[Fact]:
        record = self.record
        facts = [Fact(turn.role, turn.text) for turn in record.prompt]
        for number, candidate in enumerate(record.candidates, start=1):
            facts.append(Fact(f"{record.task} {number}", candidate.text))
            if said := _said(candidate, record):
                facts.append(Fact("", " · ".join(said), "said"))
            if candidate.revision is not None:
                facts.append(Fact("  revised", candidate.revision))
        if record.reference is not None:
            facts.append(Fact("reference", record.reference))
        if record.aspect is not None:
            facts.append(Fact("judged", record.aspect, "note"))
        if self.prompt.cut:
            dropped = f", {counted(self.prompt.dropped, 'old turn')} of it whole" if self.prompt.dropped else ""
            facts.append(Fact("cut", f"the prompt lost {counted(self.prompt.cut, 'token')}{dropped}", "note"))
        return facts

    @property
    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of --json."""
        for number, chain in enumerate(self.chains):
            yield {
                "record": self.record.id,
                "chain": number,
                "segments": [{"text": text, "weight": weight} for text, weight in chain.segments],
                "ids": chain.tokens.ids.tolist(),
                "weights": (chain.tokens.learned - chain.tokens.unlearned).tolist(),
            }


def _said(candidate: RatedCompletion, record: Feedback) -> list[str]:
    """The feedback on a completion."""
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


def totals(data: FeedbackData) -> list[tuple[str, str]]:
    """(what, how much) of the whole training data."""
    report, train = data.report(), data.counts["train"]
    settings = f"method {data.method.name}, wording {data.wording.name}, format {data.prompt_format.kind}"
    records = f"{train.records:,}, of which {train.used:,} are used"
    held_out = [
        f"{data.counts[name].records:,} for {name}" for name in ("validation", "test") if data.counts[name].records
    ]
    if held_out:
        records += f" (besides {' and '.join(held_out)})"
    chains = f"{train.chains:,}"
    if train.completions_unused:
        chains += f"; {counted(train.completions_unused, 'completion')} in none of them"
    as_trees = "which `layout: separate` keeps"
    if data.layout == "tree":
        as_trees = f"{train.tokens_tree:,} as trees ({report['tree_saves']:.1f}x fewer)"
    cut = f"{counted(train.prompts_cut, 'prompt')} lost {counted(train.prompt_tokens_cut, 'token')}"
    dropped = f"{counted(train.links_cut, 'link')} and {counted(train.chains_dropped, 'whole chain')}"
    rows = [
        ("settings", f"{settings}, tokenizer {report['tokenizer']}"),
        ("records", records),
        ("chains", chains),
        ("tokens", f"{train.tokens_plain:,} in plain chains, {as_trees}"),
        ("in the loss", f"{train.tokens_in_loss:,} of the tokens in plain chains ({report['share_in_loss']:.1%})"),
        ("cut", f"{cut} (data.max_prompt_tokens {data.max_prompt_tokens})"),
        ("dropped", f"{dropped} (data.max_chain_tokens {data.max_chain_tokens})"),
        ("rejected", f"{len(data.rejected):,}"),
    ]
    reasons = rejections(data)
    rows += [("", f"{len(places):,}  {reason} (first: {places[0]})") for reason, places in reasons[:REASONS]]
    if others := reasons[REASONS:]:
        rows.append(("", f"{sum(len(places) for _, places in others):,}  for {len(others)} other reasons"))
    return rows + [("note", note) for note in [report["boundaries"], *report["notes"]]]


def rejections(data: FeedbackData) -> list[tuple[str, list[str]]]:
    """(reason, places with their details) of all rejected records, the commonest reason first."""
    reasons: dict[str, list[str]] = {}
    for one in data.rejected:
        place = (one.where or one.id) + (f": {one.detail}" if one.detail else "")
        reasons.setdefault("unreadable" if one.unreadable else one.reason, []).append(place)
    return sorted(reasons.items(), key=lambda item: -len(item[1]))
