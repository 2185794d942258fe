"""A record -> what the plan must know of it, once; and its chains and trees again, in the wording of any epoch.

record ── prompt cut once ── chains ── those that fit ── sizes of their links ── items (plan.py)
                                                                                   │
                          chains in the words of epoch e ── Tokens ── Tree  <──────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import most_often
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt, LinkLength
from coh_lightning.sequences.chains import Chain, TooLong, Unusable, build_chains, without_front
from coh_lightning.sequences.limits import Size, limits_that_fit
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import LinkSize, PlannedTree, planned_trees
from coh_lightning.sequences.trees import Tree
from coh_lightning.sequences.wording import Wording


@dataclass(frozen=True)
class PlannedRecord:
    """A record that the method can use: its cut prompt, and which part of which of its chains is kept."""

    record: Feedback
    prompt: CutPrompt
    prompt_tokens: int
    """The most tokens before the feedback sentence of any of its chains."""
    kept: tuple[tuple[int, int], ...]
    """(number of the chain, its first link that fits), and for each of them ..."""
    sizes: tuple[tuple[LinkSize, ...], ...]
    """... the sizes of its links."""
    kinds: tuple[tuple[str, int], ...]
    """(kind, place in its chain) of every output."""
    links_cut: int
    """Links left out at the front of chains longer than max_chain_tokens, ..."""
    chains_dropped: int
    """... and chains that were then too long still, or the same as another."""
    completions_unused: int
    """Completions of the record in none of its kept chains: between the best and the worst, or without feedback that
    this method uses.
    """
    tokens_in_loss: int
    """Tokens of all kept chains one by one that are learned or unlearned, whatever their weight, at most."""

    @property
    def tokens_plain(self) -> int:
        """Tokens of all chains one by one, at most."""
        return sum(self.prompt_tokens + sum(link.tokens for link in chain) for chain in self.sizes)


@dataclass(frozen=True)
class RecordPlanner:
    """Records -> `PlannedRecord`, and `PlannedRecord` -> trees, for one method, wording and tokenizer. Everything depends on the
    seed, the epoch and the record alone.
    """

    tokens: ChainTokenizer
    method: Method
    wording: Wording
    _: KW_ONLY
    seed: int
    max_chain_tokens: int
    row_tokens: int | None
    """Length of a row that trees are split for; None: each chain alone (`layout: separate`)."""

    def prepare(self, record: Feedback) -> PlannedRecord:
        """Cut the prompt, make the chains, and shorten those that are too long: links go from their front, the last
        output is never cut.

        Raises:
            Unusable: the method can't use the record, nothing of it fits (`TooLong`), or there is nothing to learn in
                it.
        """
        try:
            prompt = self.tokens.cut_prompt(record.prompt)
        except TooLong as too_long:
            # no limit helps if the method can't use the record anyway
            build_chains(record, self.method, self.wording, seed=self.seed)
            limit = self.tokens.max_prompt_tokens
            raise TooLong(
                f"the prompt has more than data.max_prompt_tokens ({limit}) tokens in parts that are never cut",
                str(too_long),
            ) from too_long
        chains = build_chains(record, self.method, self.wording, seed=self.seed)
        kept: list[tuple[int, int]] = []
        sizes: list[tuple[LinkSize, ...]] = []
        kinds: set[tuple[str, int]] = set()
        keys: dict[tuple[object, ...], int] = {}
        seen: set[tuple[object, ...]] = set()
        used: set[str] = set()
        before = links_cut = in_loss = 0
        fits = [self._fit(prompt, chain) for chain in chains]
        # whole chains first: a cut one may equal one of them
        for number in sorted(range(len(chains)), key=lambda i: fits[i][0] > 0):
            first, lengths = fits[number]
            links = without_front(chains[number], first)
            spoken = tuple(((link.marker,) if link.shuffled else link.alternatives, link.text) for link in links)
            if not links or (first and spoken in seen):
                continue
            links_cut += first
            seen.add(spoken)
            used |= {link.text for link in links}
            in_loss += sum(
                length.output for link, length in zip(links, lengths, strict=True) if link.learned or link.unlearned
            )
            kept.append((number, first))
            # a chain in an order drawn anew each epoch shares no link for sure with another chain
            own = (number,) if links[0].shuffled else ()
            sizes.append(
                tuple(
                    LinkSize(
                        key=keys.setdefault((*own, link.alternatives, link.text, place == 0), len(keys)),
                        tokens=length.marker + length.output,
                        weight=(link.learned + link.unlearned) * length.output,
                    )
                    for place, (link, length) in enumerate(zip(links, lengths, strict=True))
                )
            )
            before = max(before, *(length.before for length in lengths))
            kinds |= (
                {(link.kind, place) for link in links for place in range(len(links))}
                if own
                else {(link.kind, place) for place, link in enumerate(links)}
            )
        if not kept:
            output = self._shortest(prompt, chains)
            reason = f"no chain fits data.max_chain_tokens ({self.max_chain_tokens})"
            raise TooLong(
                reason,
                f"the prompt takes {prompt.tokens} tokens, the shortest output with its feedback sentence {output}",
            )
        if not any(link.weight for chain_sizes in sizes for link in chain_sizes):
            raise Unusable("nothing to learn in any of its chains")
        return PlannedRecord(
            record,
            prompt,
            before,
            tuple(kept),
            tuple(sizes),
            tuple(sorted(kinds)),
            links_cut=links_cut,
            chains_dropped=len(chains) - len(kept),
            completions_unused=sum(candidate.text not in used for candidate in record.candidates),
            tokens_in_loss=in_loss,
        )

    def prepare_all(
        self, records: Sequence[Feedback], doing: str, *, max_unusable_fraction: float, row_tokens: int
    ) -> tuple[list[PlannedRecord], list[Rejected]]:
        """The records that the method can use, and the others with their reason; `doing` labels the progress bar.

        Raises:
            InputError: the method can't use more than `max_unusable_fraction` of the records; says which limits on tokens
                (`row_tokens` among them) would help.
        """
        from rich.console import Console
        from rich.progress import track

        prepared: list[PlannedRecord] = []
        lost: list[Rejected] = []
        console = Console(stderr=True)
        hidden = not console.is_terminal or len(records) < 1000
        for record in track(records, doing, console=console, transient=True, disable=hidden):
            try:
                prepared.append(self.prepare(record))
            except Unusable as unusable:
                detail = unusable.detail if isinstance(unusable, TooLong) else ""
                lost.append(Rejected(str(unusable), record.where, record.source, record.id, detail))
        if len(lost) > max_unusable_fraction * len(records):
            raise InputError(
                f"The method '{self.method.name}' can't use {len(lost)} of {len(records)} training records, "
                f"{most_often(lost)}; {self._remedy(records, lost, row_tokens)}, or raise data.max_unusable_fraction "
                f"({max_unusable_fraction:g})."
            )
        return prepared, lost

    def _remedy(self, records: Sequence[Feedback], lost: Sequence[Rejected], row_tokens: int) -> str:
        """What would make more of the records usable, for a message."""
        too_long = sum(bool(one.detail) for one in lost)
        limits = self.limits_that_fit(records, row_tokens=row_tokens) if 2 * too_long > len(lost) else ""
        return limits or "choose a method that fits the feedback"

    def limits_that_fit(self, records: Sequence[Feedback], *, row_tokens: int) -> str:
        """How many of the records that the method could use would fit under which other limits on tokens, for a
        message; empty where none would help.
        """
        sizes = [size for record in records if (size := self._size(record)) is not None]
        prompt = self.tokens.max_prompt_tokens
        return limits_that_fit(
            sizes, max_prompt_tokens=prompt, max_chain_tokens=self.max_chain_tokens, row_tokens=row_tokens
        )

    def _size(self, record: Feedback) -> Size | None:
        try:
            whole, least = self.tokens.prompt_bounds(record.prompt)
            chains = build_chains(record, self.method, self.wording, seed=self.seed)
        except Unusable:
            return None
        return Size(least.tokens, whole.tokens, self._shortest(whole, chains))

    def _shortest(self, prompt: CutPrompt, chains: Sequence[Chain]) -> int:
        """Tokens of the shortest chain of one link that cutting can leave, without the prompt."""
        lengths = [self.tokens.link_lengths(prompt, without_front(chain, len(chain) - 1))[0] for chain in chains]
        return min(length.marker + length.output for length in lengths)

    def items(self, number: int, one: PlannedRecord) -> list[PlannedTree]:
        """The trees of a record, whose number among the prepared ones the items carry."""
        if self.row_tokens is not None:
            return planned_trees(number, one.prompt_tokens, one.sizes, self.row_tokens)
        return [
            PlannedTree(
                number,
                (chain,),
                one.prompt_tokens + sum(link.tokens for link in links),
                sum(link.weight for link in links),
            )
            for chain, links in enumerate(one.sizes)
        ]

    def chains(self, one: PlannedRecord, epoch: int = 0) -> list[Chain]:
        """The kept chains of a record, in the words of this epoch; a shuffled one that was cut is the same in all
        epochs.
        """
        every = build_chains(one.record, self.method, self.wording, seed=self.seed, epoch=epoch)
        still = any(first and every[number][0].shuffled for number, first in one.kept)
        at_first = build_chains(one.record, self.method, self.wording, seed=self.seed) if still else every
        of = [(at_first if first and every[number][0].shuffled else every)[number] for number, first in one.kept]
        return [without_front(chain, first) for chain, (_, first) in zip(of, one.kept, strict=True)]

    @property
    def weight_varies(self) -> bool:
        """Whether items weigh differently from epoch to epoch: only the last output counts, and a shuffled chain ends
        in another one each time.
        """
        return self.method.loss_on == "last" and "shuffled" in self.method.orders

    def weight(self, one: PlannedRecord, item: PlannedTree, epoch: int) -> float:
        """Sum of the weights of an item's tokens in this epoch."""
        if not self.weight_varies:
            return item.weight
        chains = self.chains(one, epoch)
        linked = [
            pair
            for number in item.chains
            for pair in zip(chains[number], self.tokens.link_lengths(one.prompt, chains[number]), strict=True)
        ]
        return sum((link.learned + link.unlearned) * length.output for link, length in linked)

    def tree(self, one: PlannedRecord, item: PlannedTree, epoch: int = 0) -> Tree:
        """The tree of an item in the words of this epoch; it is as heavy as planned, and no longer."""
        chains = self.chains(one, epoch)
        tree = Tree.from_chains([self.tokens.chain(one.prompt, chains[number]) for number in item.chains])
        weight, planned = tree.learned.sum() + tree.unlearned.sum(), self.weight(one, item, epoch)
        if abs(weight - planned) > 1e-6 or tree.tokens > item.length:
            raise RuntimeError(
                f"the tree of record {one.record.id} has {tree.tokens} tokens and weight {weight}, planned were "
                f"{item.length} and {planned}"
            )
        return tree

    def _fit(self, prompt: CutPrompt, chain: Chain) -> tuple[int, Sequence[LinkLength]]:
        """The first link with which the rest of the chain fits (one behind the last: none does), and what each link
        from there on takes at most.

        A shuffled chain that fits whole in any order has for each link what it takes in the place where it takes most;
        one that must be cut keeps the order of epoch 0 in all epochs (`chains`), so that what is left of it stays the
        same.
        """
        for first in range(len(chain)):
            lengths = self.tokens.link_lengths(prompt, without_front(chain, first))
            if first == 0 and chain[0].shuffled:
                leading = [self.tokens.link_lengths(prompt, (link,))[0] for link in chain]
                further = self.tokens.link_lengths(prompt, (chain[0], *chain))[1:]
                pairs = zip(leading, further, strict=True)
                lengths = [
                    LinkLength(0, max(one.marker, other.marker), max(one.output, other.output)) for one, other in pairs
                ]
                lengths[0] = lengths[0]._replace(before=max(one.before for one in leading))
            if sum(length.before + length.marker + length.output for length in lengths) <= self.max_chain_tokens:
                return first, lengths
        return len(chain), []
