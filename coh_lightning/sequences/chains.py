"""Feedback + a method -> chains: which completions, in which order, under which feedback sentence, what is learned.

Method()  (coh), a record whose completion g was preferred to b; P is the prompt, G and B the good and bad sentences:

    p   P G g          n   P B b          pn  P G g B b          np  P B b G g

Method(orders=("reviewed",), sentences="none"), where people said r of b; Q asks for a review, R for a better answer:

    reviewed   P b Q r R g                 g has no better one: if people said s of it, P g Q s
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from coh_lightning.feedback.records import Feedback
from coh_lightning.rng import generator
from coh_lightning.sequences.method import REVIEWED, Method, Order
from coh_lightning.sequences.preferences import ScoredOutput, distinct_outputs, ordered_pairs, scored_outputs
from coh_lightning.sequences.wording import Wording


@dataclass(frozen=True)
class Link:
    """One output of a chain with the feedback sentence (marker) before it; an empty marker: no sentence (SFT)."""

    marker: str
    text: str
    learned: float = 0.0  # weight of the likelihood loss on each token of the output and its end; 0: context only
    unlearned: float = 0.0  # weight of the unlikelihood loss on them
    kind: str = "output"  # for the loss curves: good, bad, tie, middle, output, revision, review
    alternatives: tuple[str, ...] = ()  # all wordings of the marker: the plan reserves room for the longest
    shuffled: bool = False  # in a chain with a new order each epoch; its marker then depends on the order too
    opening: Link | None = None
    """The same output as the first link of a chain; None: its marker compares it with no other output."""


Chain = tuple[Link, ...]
Pair = tuple[ScoredOutput, ScoredOutput]  # better, worse
Judged = tuple[ScoredOutput, bool | None]  # whether the output is good; None: unknown, or a tie


REVIEW = "review"
"""Kind of a link whose text is people's words on the output of the link before it."""


def first_links(chain: Chain) -> list[int]:
    """The places where a chain may begin when its front is cut: not at a review, which judges the output before it."""
    return [place for place, link in enumerate(chain) if link.kind != REVIEW]


def without_front(chain: Chain, first: int) -> Chain:
    """The chain from link `first` on; its first marker compares with no output that is gone.

    worst d | better b | best a   from 1 on   ->   middle b | best a
    """
    if first == 0 or first == len(chain):
        return chain[first:]
    return (chain[first].opening or chain[first], *chain[first + 1 :])


class Unusable(Exception):
    """A readable record that this method can't use; the message is its reason in rejected.jsonl."""


class TooLong(Unusable):
    """The record is usable under other token limits (limits.py); `detail` has its numbers, the reason has none."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


def build_chains(
    record: Feedback, method: Method, wording: Wording, *, seed: int = 0, epoch: int = 0
) -> tuple[Chain, ...]:
    """The distinct chains of one record, in the order of `method.orders`; wordings and shuffled orders drawn by epoch.

    Raises:
        Unusable: a tie, identical outputs, too few completions, none of the feedback that the method needs.
    """
    outputs = scored_outputs(record, method)
    pick = generator(seed, "wording", epoch, record.id).randrange(1 << 30)
    build = _Builder(record, method, wording, pick)
    chains: dict[object, Chain] = {}
    for order in method.orders:
        for chain in build.order(order, outputs, seed, epoch):
            if method.loss_on == "last":  # of the outputs; reviews have a weight of their own
                last = max(first_links(chain))
                chain = tuple(
                    link if place == last or link.kind == REVIEW else _without_loss(link)
                    for place, link in enumerate(chain)
                )
            # compared by all wordings, so that each epoch has as many chains; a shuffled chain equals no other
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
    """Makes the links of one record. `pick` is the place in each list of wordings, so good and bad sentences match."""

    record: Feedback
    method: Method
    wording: Wording
    pick: int

    def order(self, order: Order, outputs: Sequence[ScoredOutput], seed: int, epoch: int) -> Iterator[Chain]:
        pairs = ordered_pairs(outputs, self.method.pairs)
        if order in ("p", "n", "each"):
            links = [self._link(output, good) for output, good in self._singles(order, outputs, pairs)]
            yield from ((link,) for link in links if link is not None)
        elif order in ("pn", "np"):
            ordered: list[tuple[Judged, Judged]] = [((better, True), (worse, False)) for better, worse in pairs]
            if not pairs and len(outputs) == 2 and self._all_tie(outputs):
                ordered = [((outputs[0], None), (outputs[1], None))]
            for first, second in ordered:
                one, other = self._link(*first), self._link(*second)
                if one is not None and other is not None:
                    yield (one, other) if order == "pn" else (other, one)
        elif order == "revised":
            yield from self._revised(outputs, self._polarities(outputs, pairs))
        elif order == "reviewed":
            yield from self._reviewed(outputs, self._polarities(outputs, pairs))
        else:
            listed = sorted(distinct_outputs(outputs), key=lambda o: o.score or 0.0, reverse=order == "descending")
            if len({output.score for output in listed}) < 2:
                return
            if order == "shuffled":
                if len(listed) < 3 and {"ascending", "descending"} <= set(self.method.orders):
                    return  # two outputs have no third order
                generator(seed, "order", epoch, self.record.id).shuffle(listed)
            yield tuple(self._ranked(listed, shuffled=order == "shuffled"))

    def _all_tie(self, outputs: Sequence[ScoredOutput]) -> bool:
        scores, texts = {output.score for output in outputs}, {output.candidate.text for output in outputs}
        return self.method.ties == "sentence" and len(texts) > 1 and len(scores) == 1 and None not in scores

    def _singles(self, order: Order, outputs: Sequence[ScoredOutput], pairs: Sequence[Pair]) -> list[Judged]:
        """The outputs that are chains of one link under this order, and whether they count as good."""
        if order == "each":
            return list(zip(outputs, self._polarities(outputs, pairs), strict=True))
        if self._all_tie(outputs):
            return [(output, None) for output in outputs]
        good = order == "p"
        chosen: list[Judged] = [(a if good else b, good) for a, b in pairs]
        # with thumbs, every liked (disliked) output counts; with ratings, only if no pair is ordered
        own = [o for o in outputs if o.good is good and (o.candidate.thumb is not None or not pairs)]
        return [*chosen, *((output, good) for output in own)]

    def _polarities(self, outputs: Sequence[ScoredOutput], pairs: Sequence[Pair]) -> list[bool | None]:
        """Whether each output is good: by itself, else by its place in the pairs; None: unknown."""
        by_pair = {id(worse.candidate): False for _, worse in pairs} | {id(a.candidate): True for a, _ in pairs}
        return [output.good if output.good is not None else by_pair.get(id(output.candidate)) for output in outputs]

    def _link(self, output: ScoredOutput, good: bool | None) -> Link | None:
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
        elif self.method.ties == "sentence" and sentences in ("polarity", "ranking"):
            markers = (self._say(self.wording.tie),)
        else:
            return None
        return self._weighted(markers, candidate.text, kind)

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
                    what = f"has no feedback for '{self.method.sentences}' sentences"
                    raise Unusable(f"a completion between best and worst {what}")
                yield replace(found, kind=kind, shuffled=shuffled)
                continue
            marker = {True: say.best, False: say.worst, None: say.middle}[ends]
            alone = self._weighted((self._say(marker),), output.candidate.text, kind)
            if shuffled:
                alone = replace(alone, shuffled=True, alternatives=every)
            if ends is not None or i == 0:
                yield alone
                continue
            change = scores[i] - scores[i - 1]
            text = self._say(say.better if change > 0 else say.worse if change < 0 else say.equal)
            yield replace(alone, marker=text, opening=alone, alternatives=every if shuffled else (text,))

    def _revised(self, outputs: Sequence[ScoredOutput], good: Sequence[bool | None]) -> Iterator[Chain]:
        """An output, its critique, and its revision; without a revision, the best of the better outputs. The output is
        called bad unless people liked it.
        """
        pairs = ordered_pairs(outputs, "all")
        for output, liked in zip(outputs, good, strict=True):
            candidate = output.candidate
            if output.is_revision or (candidate.critique is None and candidate.revision is None):
                continue
            better = _better(output, pairs)
            if better is None:
                continue
            text, called_bad = better
            markers = self.wording.polarity(self.record, liked is True)
            first = self._weighted(markers, candidate.text, "good" if liked else "bad")
            sentence = self._say(self.wording.better)
            if candidate.critique is not None:
                sentence = self.wording.revised(self.record, candidate.critique)
            second = self._weighted((sentence,), text, "revision")
            alone = self._weighted(self.wording.polarity(self.record, not called_bad), text, "revision")
            yield (first, replace(second, opening=alone))

    def _reviewed(self, outputs: Sequence[ScoredOutput], good: Sequence[bool | None]) -> Iterator[Chain]:
        """An output, people's words on it, and its revision, else the best of the better outputs; without any of them,
        the chain ends with the review: a model that read only of faults would find some in every answer.

        One review for each completion with a critique, so a text that several people judged has several.
        """
        pairs = ordered_pairs(outputs, "all")
        weight = self.method.feedback_weight
        for output, liked in zip(outputs, good, strict=True):
            candidate = output.candidate
            if output.is_revision or candidate.critique is None:
                continue
            kind = {True: "good", False: "bad", None: "output"}[liked]
            question, request = self.wording.question(self.record), self.wording.request(self.record)
            review = Link(question, candidate.critique.strip(), weight, kind=REVIEW, alternatives=(question,))
            chain: Chain = (self._weighted(("",), candidate.text, kind), review)
            if (better := _better(output, pairs)) is not None:
                alone = self._weighted(("",), better[0], "revision")
                chain = (*chain, replace(self._weighted((request,), better[0], "revision"), opening=alone))
            yield chain

    def _say(self, text: str) -> str:
        return text.format(task=self.record.task)

    def _weighted(self, markers: tuple[str, ...], text: str, kind: str) -> Link:
        unlearn = self.method.unlikelihood if kind == "bad" else 0.0
        return Link(markers[self.pick % len(markers)], text, 0.0 if unlearn else 1.0, unlearn, kind, markers)


def _better(output: ScoredOutput, pairs: Sequence[Pair]) -> tuple[str, bool] | None:
    """What should stand in the place of an output, and whether it is bad by itself: its revision, else the best of the
    better outputs; None: there is none, or the revision is the same text.
    """
    text, is_bad = output.candidate.revision, False
    if text is None:
        better = [best for best, worse in pairs if worse is output and not best.is_revision]
        if not better:
            return None
        best = max(better, key=lambda o: o.score or 0.0)
        text, is_bad = best.candidate.text, best.good is False
    return (text, is_bad) if text != output.candidate.text else None


def _why_none(method: Method, outputs: Sequence[ScoredOutput]) -> str:
    """Why there is no chain, without the record's own values, so that equal reasons can be counted."""
    scores = [output.score for output in outputs if output.score is not None]
    if method.orders == (REVIEWED,):  # needs nothing but a critique
        return "no completion has a critique"
    if len(outputs) > 1 and len({output.candidate.text for output in outputs}) == 1:
        return "identical completions"
    if len(scores) > 1 and len(set(scores)) == 1:
        all_are = {None: "tie", True: "all completions good", False: "all completions bad"}[outputs[0].good]
        return all_are if outputs[0].good is None else f"{all_are}, and these orders need another"
    if not scores and method.preference_from != "auto":
        return f"no feedback of the kind '{method.preference_from}'"
    if len(outputs) < 2:
        unclear = {"p", "n"} & set(method.orders)
        return f"one completion{' without a clear polarity' if unclear else ', and these orders compare several'}"
    return "nothing that these orders and sentences could use"
