"""Feedback + a method -> chains: which completions, in which order, under which feedback sentence, what is learned.

Method()  (coh), a record whose completion g was preferred to b; P is the prompt, G and B the good and bad sentences:

  p   P G g          n   P B b          pn  P G g B b          np  P B b G g
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from coh_lightning.feedback.records import Feedback
from coh_lightning.rng import generator
from coh_lightning.sequences.method import Method, Order
from coh_lightning.sequences.preferences import ScoredOutput, distinct_outputs, ordered_pairs, scored_outputs
from coh_lightning.sequences.wording import Wording


@dataclass(frozen=True)
class Link:
    """One output of a chain with the feedback sentence (marker) before it; an empty marker: no sentence (SFT)."""

    marker: str
    text: str
    learned: float = 0.0
    """Weight of the likelihood loss on each token of the output and its end token; 0: context only."""
    unlearned: float = 0.0
    """Weight of the unlikelihood loss on them."""
    kind: str = "output"
    """For the loss curves: good, bad, tie, middle, output, revision."""
    alternatives: tuple[str, ...] = ()
    """All wordings that the marker could have had: the plan reserves room for the longest."""
    shuffled: bool = False
    """In a chain whose order is drawn anew each epoch; its marker then depends on the order too."""
    opening: Link | None = None
    """The same output as the first link of a chain, if its marker compares it with the output before it; None: the
    marker needs none.
    """


Chain = tuple[Link, ...]


def without_front(chain: Chain, first: int) -> Chain:
    """The chain from link `first` on; its first marker compares with no output that is gone.

    worst d | better b | best a   from 1 on   ->   middle b | best a
    """
    if first == 0 or first == len(chain):
        return chain[first:]
    return (chain[first].opening or chain[first], *chain[first + 1 :])


class Unusable(Exception):
    """A readable record that this method can't use; the message is its reason in rejected.jsonl. One such record never
    stops a run.
    """


class TooLong(Unusable):
    """The record is usable under other token limits (limits.py says which). `detail`: the record's own numbers, which
    the reason leaves out.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def build_chains(
    record: Feedback, method: Method, wording: Wording, *, seed: int = 0, epoch: int = 0
) -> tuple[Chain, ...]:
    """The distinct chains of one record, in the order of `method.orders`. Wordings and shuffled orders are drawn once
    per record and epoch.

    Raises:
        Unusable: a tie, identical outputs, too few completions, none of the feedback that the method needs.
    """
    outputs = scored_outputs(record, method)
    pick = generator(seed, "wording", epoch, record.id).randrange(1 << 30)
    build = _Builder(record, method, wording, pick)
    chains: dict[object, Chain] = {}
    for order in method.orders:
        for chain in build.order(order, outputs, seed, epoch):
            if method.loss_on == "last":
                chain = (*map(_without_loss, chain[:-1]), chain[-1])
            # compared by all wordings, not by the one drawn, so that the number of chains is the same in every epoch; a
            # shuffled chain equals no other
            same = tuple((link.alternatives, link.text, link.unlearned > 0) for link in chain)
            chains.setdefault(("shuffled", same) if order == "shuffled" else same, chain)
    if not chains:
        raise Unusable(_why_none(method, outputs))
    return tuple(chains.values())


def _without_loss(link: Link) -> Link:
    opening = _without_loss(link.opening) if link.opening is not None else None
    return replace(link, learned=0.0, unlearned=0.0, opening=opening)


@dataclass(frozen=True)
class _Builder:
    """Makes the links of one record. `pick` chooses the same position in each list of wordings, so that good and bad
    sentences match.
    """

    record: Feedback
    method: Method
    wording: Wording
    pick: int

    def order(self, order: Order, outputs: Sequence[ScoredOutput], seed: int, epoch: int) -> Iterator[Chain]:
        pairs = ordered_pairs(outputs, self.method.pairs)
        if order in ("p", "n", "each"):
            for output, good in self._singles(order, outputs, pairs):
                link = self._link(output, good, alone=True)
                if link is not None:
                    yield (link,)
        elif order in ("pn", "np"):
            for better, worse in pairs:
                links = (self._link(better, True), self._link(worse, False))
                if links[0] is not None and links[1] is not None:
                    yield (links[0], links[1]) if order == "pn" else (links[1], links[0])
            if not pairs and len(outputs) == 2 and self._all_tie(outputs):
                tied = [self._link(output, None) for output in (outputs if order == "pn" else list(reversed(outputs)))]
                if tied[0] is not None and tied[1] is not None:
                    yield (tied[0], tied[1])
        elif order == "revised":
            yield from self._revised(outputs, self._polarities(outputs, pairs))
        else:
            ranked = sorted(distinct_outputs(outputs), key=lambda o: o.score or 0.0, reverse=order == "descending")
            if len({o.score for o in ranked}) < 2:
                return
            if order == "shuffled" and len(ranked) < 3 and {"ascending", "descending"} <= set(self.method.orders):
                return  # two outputs have no third order
            if order == "shuffled":
                generator(seed, "order", epoch, self.record.id).shuffle(ranked)
            yield tuple(self._ranked(ranked, shuffled=order == "shuffled"))

    def _all_tie(self, outputs: Sequence[ScoredOutput]) -> bool:
        scores = {output.score for output in outputs}
        texts = {output.candidate.text for output in outputs}
        return (
            self.method.ties == "sentence"
            and len(outputs) > 1
            and len(texts) > 1
            and len(scores) == 1
            and None not in scores
        )

    def _singles(
        self, order: Order, outputs: Sequence[ScoredOutput], pairs: Sequence[tuple[ScoredOutput, ScoredOutput]]
    ) -> list[tuple[ScoredOutput, bool | None]]:
        """The outputs that are chains of one link under this order, and whether they count as good."""
        if order == "each":
            return list(zip(outputs, self._polarities(outputs, pairs), strict=True))
        if self._all_tie(outputs):
            return [(output, None) for output in outputs]
        good = order == "p"
        chosen = [(a if good else b, good) for a, b in pairs]
        # with thumbs, every liked (disliked) output counts; with ratings, only if no pair is ordered
        own = [
            (output, good)
            for output in outputs
            if output.good is good and (output.candidate.thumb is not None or not pairs)
        ]
        return [*chosen, *own]

    def _polarities(
        self, outputs: Sequence[ScoredOutput], pairs: Sequence[tuple[ScoredOutput, ScoredOutput]]
    ) -> list[bool | None]:
        """Whether each output is good: by itself, else by its place in the pairs; None: unknown."""
        of_pairs = {id(a.candidate): True for a, _ in pairs} | {
            id(b.candidate): False for _, b in pairs if not any(b is a for a, _ in pairs)
        }
        return [output.good if output.good is not None else of_pairs.get(id(output.candidate)) for output in outputs]

    def _link(self, output: ScoredOutput, good: bool | None, *, alone: bool = False) -> Link | None:
        """The output under its feedback sentence; None if the record lacks the feedback that the sentence needs."""
        kind = {True: "good", False: "bad", None: "tie" if self.method.sentences == "polarity" else "output"}[good]
        sentences = self.method.sentences
        candidate = output.candidate
        if sentences == "none":
            markers: tuple[str, ...] = ("",)
        elif sentences == "rating" and candidate.ratings:
            markers = (self.wording.rated(self.record, candidate),)
        elif sentences == "critique" and candidate.critique is not None:
            markers = (self.wording.criticized(self.record, candidate.critique),)
        elif sentences == "ranking" and good is not None:
            markers = (self._say(self.wording.best if good else self.wording.worst),)
        elif good is not None:
            markers = self.wording.polarity(self.record, good)
        elif self._ties_have_sentences():
            markers = (self._say(self.wording.tie),)
        else:
            return None
        return self._weighted(markers, candidate.text, kind)

    def _ties_have_sentences(self) -> bool:
        return self.method.ties == "sentence" and self.method.sentences in ("polarity", "ranking")

    def _ranked(self, outputs: Sequence[ScoredOutput], *, shuffled: bool) -> Iterator[Link]:
        """All outputs in one chain. The ends of the ranking are called best and worst; the others are compared with the
        output before them, or called fair.

        scores 1 3 2:  "The worst answer:" 1  "The best answer:" 3  "A worse answer:" 2
        scores 2 3 1:  "A fair answer:" 2  "The best answer:" 3  "The worst answer:" 1
        """
        scores = [output.score or 0.0 for output in outputs]
        top, bottom = max(scores), min(scores)
        say = self.wording
        every = tuple(map(self._say, (say.best, say.middle, say.better, say.equal, say.worse, say.worst)))
        for i, output in enumerate(outputs):
            ends = True if scores[i] == top else False if scores[i] == bottom else None
            kind = {True: "good", False: "bad", None: "middle"}[ends]
            if self.method.sentences != "ranking":
                found = self._link(output, ends)
                if found is None:
                    raise Unusable(
                        f"a completion between best and worst has no feedback for '{self.method.sentences}' sentences"
                    )
                yield replace(found, kind=kind, shuffled=shuffled)
                continue
            alone = self._weighted(
                (self._say({True: say.best, False: say.worst, None: say.middle}[ends]),), output.candidate.text, kind
            )
            if shuffled:
                alone = replace(alone, shuffled=True, alternatives=every)
            if ends is not None or i == 0:
                yield alone
            else:
                text = (
                    say.better if scores[i] > scores[i - 1] else say.worse if scores[i] < scores[i - 1] else say.equal
                )
                link = replace(alone, marker=self._say(text), opening=alone)
                yield link if shuffled else replace(link, alternatives=(link.marker,))

    def _revised(self, outputs: Sequence[ScoredOutput], good: Sequence[bool | None]) -> Iterator[Chain]:
        """An output, its critique, and its revision; without a revision, the best of the better outputs. The output is
        called bad unless people liked it.
        """
        for output, liked in zip(outputs, good, strict=True):
            candidate = output.candidate
            if output.is_revision or (candidate.critique is None and candidate.revision is None):
                continue
            judged = [
                o for o in outputs if o.score is not None and not o.is_revision and o.candidate.text != candidate.text
            ]
            better = [o for o in judged if output.score is not None and (o.score or 0.0) > output.score]
            if candidate.revision is not None:
                text, called_bad = candidate.revision, False
            elif better:
                best = max(better, key=lambda o: o.score or 0.0)
                text, called_bad = best.candidate.text, best.good is False
            else:
                continue
            if text == candidate.text:
                continue
            first = self._weighted(
                self.wording.polarity(self.record, liked is True), candidate.text, "good" if liked else "bad"
            )
            sentence = (
                self._say(self.wording.better)
                if candidate.critique is None
                else self.wording.revised(self.record, candidate.critique)
            )
            second = self._weighted((sentence,), text, "revision")
            alone = self._weighted(self.wording.polarity(self.record, not called_bad), text, "revision")
            yield (first, replace(second, opening=alone))

    def _say(self, text: str) -> str:
        return text.format(task=self.record.task)

    def _weighted(self, markers: tuple[str, ...], text: str, kind: str) -> Link:
        unlearn = self.method.unlikelihood if kind == "bad" else 0.0
        return Link(markers[self.pick % len(markers)], text, 0.0 if unlearn else 1.0, unlearn, kind, markers)


def _why_none(method: Method, outputs: Sequence[ScoredOutput]) -> str:
    """Why there is no chain, in words without the record's own values, so that equal reasons can be counted."""
    scores = [output.score for output in outputs if output.score is not None]
    if len(outputs) > 1 and len({output.candidate.text for output in outputs}) == 1:
        return "identical completions"
    if len(scores) > 1 and len(set(scores)) == 1:
        return (
            "tie"
            if outputs[0].good is None
            else f"all completions {'good' if outputs[0].good else 'bad'}, and these orders need another"
        )
    if not scores and method.preference_from != "auto":
        return f"no feedback of the kind '{method.preference_from}'"
    if len(outputs) < 2:
        return (
            "one completion without a clear polarity"
            if {"p", "n"} & set(method.orders)
            else "one completion, and these orders compare several"
        )
    return "nothing that these orders and sentences could use"
