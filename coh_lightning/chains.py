"""Feedback + a method -> chains: which completions, in which order, under which feedback sentence, what is learned.

A method is a value: supervised fine-tuning, C-SFT, Chain of Hindsight, rankings, ratings and critiques are other orders
and other sentences (conf/method/), and nothing after this file asks which one is running.

    Method()  (coh), a record whose completion g was preferred to b:            P is the prompt, G and B the good and the bad sentence
      p   P G g          n   P B b          pn  P G g B b          np  P B b G g
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from coh_lightning.draws import generator
from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Feedback, place_on_scale
from coh_lightning.wording import Wording

Order = Literal["p", "n", "pn", "np", "each", "ascending", "descending", "shuffled", "revised"]
Sentences = Literal["none", "polarity", "ranking", "rating", "critique"]
Judge = Literal["auto", "rank", "rating", "thumb", "revision"]


@dataclass(frozen=True)
class Link:
    """One output of a chain with the feedback sentence (marker) before it. An empty marker stands for no sentence at
    all (SFT).
    """

    marker: str
    text: str
    learned: float = 0.0
    """Weight of the likelihood loss on each token of the output and its end token; 0 is read only."""
    unlearned: float = 0.0
    """Weight of the unlikelihood loss, likewise."""
    kind: str = "output"
    """For the loss curves: good, bad, tie, middle, output, revision."""
    alternatives: tuple[str, ...] = ()
    """All wordings that the marker could have had: the plan reserves room for the longest."""
    shuffled: bool = False
    """In a chain whose order is drawn anew each epoch; its marker then depends on the order too."""
    opening: Link | None = None
    """The same output as the first link of a chain, where its marker speaks of the output before it; None: the marker
    holds without one.
    """


Chain = tuple[Link, ...]


def without_front(chain: Chain, first: int) -> Chain:
    """The chain from link `first` on. No marker is left that compares with an output that is gone.

    worst d | better b | best a   from 1 on   ->   middle b | best a
    """
    if first == 0 or first == len(chain):
        return chain[first:]
    return (chain[first].opening or chain[first], *chain[first + 1 :])


class Unusable(Exception):
    """A readable record that this method can't use; the message is its reason in rejected.jsonl. Never stops a run
    alone.
    """


class TooLong(Unusable):
    """It could use the record under other limits on tokens (limits.py says which). `detail`: the record's own numbers,
    which the reason leaves out.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True)
class Method:
    """A way to make chains of a record. The defaults are Chain of Hindsight on comparisons (paper section 2; all
    outputs learned, as in its code).
    """

    name: str = "coh"
    orders: tuple[Order, ...] = ("p", "n", "pn", "np")
    """p: a good output; n: a bad one; pn, np: both. each: every output alone. ascending, descending, shuffled: all
    outputs in one chain, by quality. revised: an output, what was said of it, and its revision (or, where there is
    none, a better output)."""
    sentences: Sentences = "polarity"
    """What the feedback sentences speak of; none leaves them out (SFT)."""
    judge: Judge = "auto"
    """Which feedback says what is better: auto takes the first of rank, rating, thumb, revision that the record has."""
    pairs: Literal["extremes", "all"] = "extremes"
    """With more than two outputs: the best against the worst, or every strictly ordered pair."""
    ties: Literal["skip", "sentence"] = "skip"
    """A record whose outputs all tie: not used, or each output under the tie sentence."""
    loss_on: Literal["all", "last"] = "all"
    """Equation 2 of the paper and its code: all outputs; its section on training: the last one."""
    good_above: float = 0.5
    """A completion without a rival is good when its rating is strictly above this share of its scale, ..."""
    bad_below: float = 0.5
    """... and bad when strictly below this one."""
    unlikelihood: float = 0.0
    """Weight of the unlikelihood loss on bad outputs, which are then not learned (SFT-U; Welleck et al. 2019). 0: bad
    outputs are learned like good ones.
    """

    def __post_init__(self) -> None:
        if not self.orders:
            raise InputError("method.orders is empty; give at least one of " + ", ".join(get_args(Order)) + ".")
        for order in self.orders:
            if order not in get_args(Order):
                raise InputError(f"method.orders has '{order}'; known are {', '.join(get_args(Order))}.")
        joined = [order for order in self.orders if order not in ("p", "n", "each")]
        if self.sentences == "none" and joined:
            raise InputError(
                f"method.orders has '{joined[0]}', a chain of several outputs, but method.sentences is none; "
                "sentences keep the outputs of a chain apart."
            )
        if not 0 <= self.bad_below <= self.good_above <= 1:
            raise InputError(
                f"method.bad_below is {self.bad_below} and method.good_above {self.good_above}; they must rise "
                "within 0 and 1."
            )
        if self.unlikelihood < 0:
            raise InputError(
                f"method.unlikelihood is {self.unlikelihood}; a weight can't be negative (0 switches it off)."
            )


def build_chains(
    record: Feedback, method: Method, wording: Wording, *, seed: int = 0, epoch: int = 0
) -> tuple[Chain, ...]:
    """The distinct chains of one record, in the order of `method.orders`. Wordings and shuffled orders are drawn once
    per record and epoch.

    Raises:
        Unusable: a tie, identical outputs, too few completions, no feedback of the kind that the method needs.
    """
    outputs = _judged(record, method)
    pick = generator(seed, "wording", epoch, record.id).randrange(1 << 30)
    build = _Builder(record, method, wording, pick)
    chains: dict[object, Chain] = {}
    for order in method.orders:
        for chain in build.order(order, outputs, seed, epoch):
            if method.loss_on == "last":
                chain = (*map(_only_read, chain[:-1]), chain[-1])
            # told apart by all wordings, not by the one drawn, so that the number of chains is the same in every epoch;
            # a shuffled chain always stands for itself
            same = tuple((link.alternatives, link.text, link.unlearned > 0) for link in chain)
            chains.setdefault(("shuffled", same) if order == "shuffled" else same, chain)
    if not chains:
        raise Unusable(_why_none(method, outputs))
    return tuple(chains.values())


def _only_read(link: Link) -> Link:
    opening = _only_read(link.opening) if link.opening is not None else None
    return replace(link, learned=0.0, unlearned=0.0, opening=opening)


@dataclass(frozen=True)
class _Output:
    """A candidate (or a revision) with what the judge made of it."""

    candidate: Candidate
    score: float | None
    """Higher is better, comparable within the record; None: not judged."""
    good: bool | None
    """Its polarity standing alone; None: unknown."""
    is_revision: bool = False


def _judged(record: Feedback, method: Method) -> list[_Output]:
    judge = method.judge if method.judge != "auto" else _first_judge(record)
    outputs: list[_Output] = []
    for candidate in record.candidates:
        score, good = _score(record, candidate, judge, method)
        outputs.append(_Output(candidate, score, good))
        if judge == "revision" and candidate.revision is not None:
            outputs.append(_Output(Candidate(candidate.revision), 1.0, True, is_revision=True))
    return outputs


def _first_judge(record: Feedback) -> Judge:
    """The first kind of feedback, of rank, rating, thumb, revision, that any completion of the record carries."""
    if sum(c.rank is not None for c in record.candidates) > 1:
        return "rank"
    if any(c.ratings for c in record.candidates):
        return "rating"
    if any(c.thumb is not None for c in record.candidates):
        return "thumb"
    return "revision"


def _score(record: Feedback, candidate: Candidate, judge: Judge, method: Method) -> tuple[float | None, bool | None]:
    if judge == "rank":
        return (None if candidate.rank is None else -candidate.rank), None
    if judge == "thumb":
        return (None if candidate.thumb is None else float(candidate.thumb)), candidate.thumb
    if judge == "revision":
        return (0.0, False) if candidate.revision is not None else (None, None)
    if not candidate.ratings:
        return None, None
    shares = {name: place_on_scale(value, *record.scales[name]) for name, value in candidate.ratings.items()}
    share = shares["overall"] if "overall" in shares else round(sum(shares.values()) / len(shares), 9)
    return share, True if share > method.good_above else False if share < method.bad_below else None


def strict_pairs(record: Feedback, method: Method) -> list[tuple[int, int]]:
    """All (better, worse) index pairs of the record's candidates that the judge orders strictly and whose texts differ.
    For preference accuracy.
    """
    outputs = [output for output in _judged(record, method) if not output.is_revision]
    return [
        (i, j)
        for i, a in enumerate(outputs)
        for j, b in enumerate(outputs)
        if a.score is not None and b.score is not None and a.score > b.score and a.candidate.text != b.candidate.text
    ]


def _ordered(outputs: Sequence[_Output], which: str) -> list[tuple[_Output, _Output]]:
    """Strictly ordered (better, worse) pairs with different texts: all of them, or the best against the worst.

    The best and the worst may have the same text (one person liked it, another didn't). Then the pair with the largest
    difference in score whose texts differ is taken; of two such pairs, the one with the better best output.
    """
    judged = [output for output in outputs if output.score is not None]
    pairs = [
        (a, b)
        for a in judged
        for b in judged
        if (a.score or 0.0) > (b.score or 0.0) and a.candidate.text != b.candidate.text
    ]
    if which == "all" or not pairs:
        return pairs
    return [
        max(
            pairs,
            key=lambda pair: ((pair[0].score or 0.0) - (pair[1].score or 0.0), pair[0].score, -(pair[1].score or 0.0)),
        )
    ]


def _told_apart(outputs: Sequence[_Output]) -> list[_Output]:
    """The judged outputs, each text once; a text that was judged in two ways is left out, since it would be called
    better than itself.
    """
    scores: dict[str, set[float]] = {}
    for output in outputs:
        if output.score is not None:
            scores.setdefault(output.candidate.text, set()).add(output.score)
    once = {
        output.candidate.text: output
        for output in reversed(outputs)
        if output.score is not None and len(scores[output.candidate.text]) == 1
    }
    return [output for output in outputs if once.get(output.candidate.text) is output]


@dataclass(frozen=True)
class _Builder:
    """Makes the links of one record; `pick` chooses among the wordings, the same place in each list, so that good and
    bad belong together.
    """

    record: Feedback
    method: Method
    wording: Wording
    pick: int

    def order(self, order: Order, outputs: Sequence[_Output], seed: int, epoch: int) -> Iterator[Chain]:
        pairs = _ordered(outputs, self.method.pairs)
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
            ranked = sorted(_told_apart(outputs), key=lambda o: o.score or 0.0, reverse=order == "descending")
            if len({o.score for o in ranked}) < 2:
                return
            if order == "shuffled" and len(ranked) < 3 and {"ascending", "descending"} <= set(self.method.orders):
                return  # two outputs have no third order
            if order == "shuffled":
                generator(seed, "order", epoch, self.record.id).shuffle(ranked)
            yield tuple(self._ranked(ranked, shuffled=order == "shuffled"))

    def _all_tie(self, outputs: Sequence[_Output]) -> bool:
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
        self, order: Order, outputs: Sequence[_Output], pairs: Sequence[tuple[_Output, _Output]]
    ) -> list[tuple[_Output, bool | None]]:
        """The outputs that stand alone under this order, with the polarity that they stand for."""
        if order == "each":
            return list(zip(outputs, self._polarities(outputs, pairs), strict=True))
        if self._all_tie(outputs):
            return [(output, None) for output in outputs]
        good = order == "p"
        chosen = [(a if good else b, good) for a, b in pairs]
        # thumbs speak for themselves: every liked (disliked) output counts; ratings only where no rival says which of
        # two is better
        own = [
            (output, good)
            for output in outputs
            if output.good is good and (output.candidate.thumb is not None or not pairs)
        ]
        return [*chosen, *own]

    def _polarities(self, outputs: Sequence[_Output], pairs: Sequence[tuple[_Output, _Output]]) -> list[bool | None]:
        """Whether each output is good: by itself, else by the pairs that it stands in; None: nothing says so."""
        of_pairs = {id(a.candidate): True for a, _ in pairs} | {
            id(b.candidate): False for _, b in pairs if not any(b is a for a, _ in pairs)
        }
        return [output.good if output.good is not None else of_pairs.get(id(output.candidate)) for output in outputs]

    def _link(self, output: _Output, good: bool | None, *, alone: bool = False) -> Link | None:
        """The output under the sentence of what was said of it; None where the record doesn't say what the sentence
        needs.
        """
        kind = {True: "good", False: "bad", None: "tie" if self.method.sentences == "polarity" else "output"}[good]
        sentences = self.method.sentences
        candidate = output.candidate
        if sentences == "none":
            markers: tuple[str, ...] = ("",)
        elif sentences == "rating" and candidate.ratings:
            markers = (self.wording.rated(self.record, candidate),)
        elif sentences == "critique" and candidate.critique is not None:
            markers = (self.wording.criticised(self.record, candidate.critique),)
        elif sentences == "ranking" and good is not None:
            markers = (self._say(self.wording.best if good else self.wording.worst),)
        elif good is not None:
            markers = self.wording.polarity(self.record, good)
        elif self._ties_spoken():
            markers = (self._say(self.wording.tie),)
        else:
            return None
        return self._weighted(markers, candidate.text, kind)

    def _ties_spoken(self) -> bool:
        return self.method.ties == "sentence" and self.method.sentences in ("polarity", "ranking")

    def _ranked(self, outputs: Sequence[_Output], *, shuffled: bool) -> Iterator[Link]:
        """All outputs in one chain. The ends of the ranking are named so; the others are compared with the output
        before them, or stand in the middle.

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
                        f"a completion between best and worst has nothing that '{self.method.sentences}' sentences "
                        "could say"
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

    def _revised(self, outputs: Sequence[_Output], good: Sequence[bool | None]) -> Iterator[Chain]:
        """An output, what was said of it, and its revision; where there is no revision, the best of the better outputs.
        It is called bad unless people liked it.
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


def _why_none(method: Method, outputs: Sequence[_Output]) -> str:
    """The reason why no chain came out, in words that can be counted."""
    scores = [output.score for output in outputs if output.score is not None]
    if len(outputs) > 1 and len({output.candidate.text for output in outputs}) == 1:
        return "identical completions"
    if len(scores) > 1 and len(set(scores)) == 1:
        return (
            "tie"
            if outputs[0].good is None
            else f"all completions {'good' if outputs[0].good else 'bad'}, and these orders need another"
        )
    if not scores and method.judge != "auto":
        return f"no feedback of the kind '{method.judge}'"
    if len(outputs) < 2:
        return (
            "one completion without a clear polarity"
            if {"p", "n"} & set(method.orders)
            else "one completion, and these orders compare several"
        )
    return "nothing that these orders and sentences could use"
