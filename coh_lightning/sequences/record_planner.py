"""A record -> what the plan must know of it, once; and its chains and trees again, in the wording of any epoch.

record ── prompt cut once ── chains ── those that fit ── sizes of their links ── items (plan.py)
                                                                                   │
                          chains in the words of epoch e ── Tokens ── Tree  <──────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import most_often
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt, LinkLength
from coh_lightning.sequences.chains import (
    REVIEW,
    Chain,
    TooLong,
    Unusable,
    build_chains,
    first_links,
    without_front,
)
from coh_lightning.sequences.limits import Size, limits_that_fit
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import LinkSize, PlannedTree, planned_trees
from coh_lightning.sequences.record_shapes import RecordShapes
from coh_lightning.sequences.trees import Tree
from coh_lightning.sequences.wording import Wording


@dataclass(frozen=True)
class UsableRecord:
    """A record that the method can use: its cut prompt, and which part of which of its chains is kept."""

    record: Feedback
    prompt: CutPrompt
    kept: tuple[tuple[int, int], ...]  # (number of the chain, its first link that fits), ...


@dataclass(frozen=True)
class PlannedRecord(UsableRecord):
    """What the plan and the report of the data need of it."""

    sizes: tuple[tuple[LinkSize, ...], ...]  # of each kept chain, the sizes of its links
    prompt_tokens: int  # the most before the feedback sentence of any of its chains
    kinds: tuple[tuple[str, int], ...]  # (kind, place in its chain) of every output
    chains_dropped: int  # still too long after cutting, or the same as another
    completions_unused: int  # in no kept chain: between the best and the worst, or without feedback for this method
    tokens_in_loss: int  # learned or unlearned tokens of all kept chains, at most; each chain counts in full
    completions_without_critique: int  # which a method with reviews can't review; 0 for another method
    reviews: int  # in its kept chains
    review_tokens_in_loss: int  # those of `tokens_in_loss` that belong to reviews

    @property
    def links_cut(self) -> int:
        """Links left out at the front of chains longer than max_chain_tokens."""
        return sum(first for _, first in self.kept)

    @property
    def tokens_plain(self) -> int:
        """Tokens of all kept chains, at most; each counts in full."""
        return sum(self.prompt_tokens + sum(link.tokens for link in chain) for chain in self.sizes)


@dataclass(frozen=True)
class RecordPlanner:
    """Records -> `PlannedRecord` -> trees, for one method, wording and tokenizer; fixed by seed, epoch and record."""

    tokens: ChainTokenizer
    method: Method
    wording: Wording
    _: KW_ONLY
    seed: int
    max_chain_tokens: int
    row_tokens: int | None  # length of a row that trees are split for; None: each chain alone (`layout: separate`)

    def _build(self, record: Feedback, epoch: int = 0) -> tuple[Chain, ...]:
        return build_chains(record, self.method, self.wording, seed=self.seed, epoch=epoch)

    def plan(self, record: Feedback) -> PlannedRecord:
        """Cut the prompt, make the chains, and cut links from the front of those that are too long, never the last.

        Raises:
            Unusable: the method can't use the record, nothing of it fits (`TooLong`), or there is nothing to learn.
        """
        try:
            prompt = self.tokens.cut_prompt(record.prompt)
        except TooLong as too_long:
            self._build(record)  # no limit helps if the method can't use the record anyway
            limit = f"data.max_prompt_tokens ({self.tokens.max_prompt_tokens})"
            reason = f"the prompt has more than {limit} tokens in parts that are never cut"
            raise TooLong(reason, str(too_long)) from too_long
        return self._planned_by_shape(record, prompt) or self._planned(record, prompt)

    def _planned_by_shape(self, record: Feedback, prompt: CutPrompt) -> PlannedRecord | None:
        """The same as `_planned`, faster; None where the record has no shape or a chain of it is too long."""
        found = self._shapes.of(record)
        if found is None or not found[0].learns:
            return None
        shape, texts = found
        lengths = [
            self.tokens.link_length(prompt, alternatives, texts[name], leads)
            for alternatives, name, leads in shape.links
        ]
        totals = [sum(length) for length in lengths]
        if any(sum([totals[number] for number, _ in chain]) > self.max_chain_tokens for chain in shape.chains):
            return None
        tokens = [length.marker + length.output for length in lengths]
        outputs = [length.output for length in lengths]
        sizes = tuple(
            [tuple([LinkSize(n, tokens[n], weight * outputs[n]) for n, weight in chain]) for chain in shape.chains]
        )
        return PlannedRecord(
            record,
            prompt,
            shape.kept,
            sizes,
            max([length.before for length in lengths]),
            shape.kinds,
            chains_dropped=0,
            completions_unused=shape.completions_unused,
            tokens_in_loss=sum([outputs[n] for chain in shape.chains for n, weight in chain if weight]),
            completions_without_critique=0,
            reviews=0,
            review_tokens_in_loss=0,
        )

    @cached_property
    def _shapes(self) -> RecordShapes:
        return RecordShapes(self.method, self._build)

    def _planned(self, record: Feedback, prompt: CutPrompt) -> PlannedRecord:
        chains = self._build(record)
        kept: list[tuple[int, int]] = []
        sizes: list[tuple[LinkSize, ...]] = []
        kinds: set[tuple[str, int]] = set()
        keys: dict[tuple[object, ...], int] = {}
        seen: set[tuple[object, ...]] = set()
        used: set[str] = set()
        before = in_loss = reviews = reviews_in_loss = 0
        fits = [self._fit(prompt, chain) for chain in chains]
        # whole chains first: a cut one may equal one of them
        for number in sorted(range(len(chains)), key=lambda i: fits[i][0] > 0):
            first, lengths = fits[number]
            links = without_front(chains[number], first)
            same = tuple(((link.marker,) if link.shuffled else link.alternatives, link.text) for link in links)
            if not links or (first and same in seen):
                continue
            seen.add(same)
            kept.append((number, first))
            used |= {link.text for link in links}
            before = max(before, *(length.before for length in lengths))
            # a chain with a new order each epoch shares no link for sure with another chain
            own = (number,) if links[0].shuffled else ()
            sized: list[LinkSize] = []
            for place, (link, length) in enumerate(zip(links, lengths, strict=True)):
                key = keys.setdefault((*own, link.alternatives, link.text, place == 0), len(keys))
                weight = link.learned + link.unlearned
                sized.append(LinkSize(key, length.marker + length.output, weight * length.output))
                in_loss += length.output if weight else 0
                reviews += link.kind == REVIEW
                reviews_in_loss += length.output if weight and link.kind == REVIEW else 0
                kinds |= {(link.kind, any_place) for any_place in (range(len(links)) if own else [place])}
            sizes.append(tuple(sized))
        if not kept:
            output = self._shortest(prompt, chains)
            raise TooLong(
                f"no chain fits data.max_chain_tokens ({self.max_chain_tokens})",
                f"the prompt takes {prompt.tokens} tokens, the shortest output with its feedback sentence {output}",
            )
        if not any(link.weight for chain_sizes in sizes for link in chain_sizes):
            raise Unusable("nothing to learn in any of its chains")
        return PlannedRecord(
            record,
            prompt,
            tuple(kept),
            tuple(sizes),
            before,
            tuple(sorted(kinds)),
            chains_dropped=len(chains) - len(kept),
            completions_unused=sum(candidate.text not in used for candidate in record.candidates),
            tokens_in_loss=in_loss,
            completions_without_critique=sum(one.critique is None for one in record.candidates) * self.method.reviews,
            reviews=reviews,
            review_tokens_in_loss=reviews_in_loss,
        )

    def refuse_unusable(
        self, records: Sequence[Feedback], lost: Sequence[Rejected], *, max_unusable_fraction: float, row_tokens: int
    ) -> None:
        """Raises InputError if the method can't use more than `max_unusable_fraction` of the records, those in `lost`;
        says which limits on tokens (`row_tokens` among them) would help.
        """
        if len(lost) > max_unusable_fraction * len(records):
            too_long = 2 * sum(bool(rejected.detail) for rejected in lost) > len(lost)
            limits = self.limits_that_fit(records, row_tokens=row_tokens) if too_long else ""
            raise InputError(
                f"The method '{self.method.name}' can't use {len(lost)} of {len(records)} training records, "
                f"{most_often(lost)}; {limits or 'choose a method that fits the feedback'}, or raise "
                f"data.max_unusable_fraction ({max_unusable_fraction:g})."
            )

    def limits_that_fit(self, records: Sequence[Feedback], *, row_tokens: int) -> str:
        """How many of the usable records would fit under which other limits, for a message; empty: none would help."""
        sizes: list[Size] = []
        for record in records:
            try:
                whole, least = self.tokens.prompt_bounds(record.prompt)
                sizes.append(Size(least.tokens, whole.tokens, self._shortest(whole, self._build(record))))
            except Unusable:
                continue
        limits = {"max_prompt_tokens": self.tokens.max_prompt_tokens, "max_chain_tokens": self.max_chain_tokens}
        return limits_that_fit(sizes, **limits, row_tokens=row_tokens)

    def _shortest(self, prompt: CutPrompt, chains: Sequence[Chain]) -> int:
        """Tokens of the shortest chain that cutting can leave, without the prompt."""
        shortest = [without_front(chain, first_links(chain)[-1]) for chain in chains]
        lengths = [self.tokens.link_lengths(prompt, chain) for chain in shortest]
        return min(sum(link.marker + link.output for link in links) for links in lengths)

    def items(self, number: int, planned: PlannedRecord) -> list[PlannedTree]:
        """The trees of a record, which carry its number in the split."""
        if self.row_tokens is not None:
            return planned_trees(number, planned.prompt_tokens, planned.sizes, self.row_tokens)
        lengths = [planned.prompt_tokens + sum(link.tokens for link in links) for links in planned.sizes]
        weights = [sum(link.weight for link in links) for links in planned.sizes]
        return [PlannedTree(number, (chain,), lengths[chain], weights[chain]) for chain in range(len(lengths))]

    def chains(self, planned: UsableRecord, epoch: int = 0) -> list[Chain]:
        """The kept chains of a record, in the words of this epoch; a shuffled one that was cut never changes."""
        now = self._build(planned.record, epoch)
        fixed = [bool(first) and now[number][0].shuffled for number, first in planned.kept]
        at_first = self._build(planned.record) if any(fixed) else now
        return [
            without_front((at_first if is_fixed else now)[number], first)
            for is_fixed, (number, first) in zip(fixed, planned.kept, strict=True)
        ]

    @property
    def weight_varies(self) -> bool:
        """Whether an item's weight differs by epoch: only the last output counts, and shuffling changes which it is."""
        return self.method.loss_on == "last" and "shuffled" in self.method.orders

    def weight(self, planned: UsableRecord, item: PlannedTree, epoch: int) -> float:
        """Sum of the weights of an item's tokens in this epoch."""
        if not self.weight_varies:
            return item.weight
        chains = self.chains(planned, epoch)
        total = 0.0
        for number in item.chains:
            lengths = self.tokens.link_lengths(planned.prompt, chains[number])
            for link, length in zip(chains[number], lengths, strict=True):
                total += (link.learned + link.unlearned) * length.output
        return total

    def tree(self, planned: UsableRecord, item: PlannedTree, epoch: int = 0) -> Tree:
        """The tree of an item in the words of this epoch; it is as heavy as planned, and no longer."""
        chains = self.chains(planned, epoch)
        tree = Tree.from_chains([self.tokens.chain(planned.prompt, chains[number]) for number in item.chains])
        weight, expected = tree.learned.sum() + tree.unlearned.sum(), self.weight(planned, item, epoch)
        if abs(weight - expected) > 1e-6 or tree.tokens > item.length:
            raise RuntimeError(
                f"the tree of record {planned.record.id} has {tree.tokens} tokens and weight {weight}, planned were "
                f"{item.length} and {expected}"
            )
        return tree

    def _fit(self, prompt: CutPrompt, chain: Chain) -> tuple[int, Sequence[LinkLength]]:
        """The first link with which the rest of the chain fits (the number of links: none), and the most tokens of
        each link from there on. A review goes with the output that it judges.

        In a shuffled chain that fits whole in any order, each link has its largest size in any place; one that must be
        cut keeps the order of epoch 0 (`chains`), so that what is left of it stays the same.
        """
        for first in first_links(chain):
            lengths = self.tokens.link_lengths(prompt, without_front(chain, first))
            if first == 0 and chain[0].shuffled:
                leading = [self.tokens.link_lengths(prompt, (link,))[0] for link in chain]
                further = self.tokens.link_lengths(prompt, (chain[0], *chain))[1:]
                pairs = list(zip(leading, further, strict=True))
                lengths = [LinkLength(0, max(a.marker, b.marker), max(a.output, b.output)) for a, b in pairs]
                lengths[0] = lengths[0]._replace(before=max(length.before for length in leading))
            if sum(sum(length) for length in lengths) <= self.max_chain_tokens:
                return first, lengths
        return len(chain), []
