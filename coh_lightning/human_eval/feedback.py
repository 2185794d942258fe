"""Votes and scores -> feedback records, as `fit` and `convert` read them. What one record holds:

votes     one prompt, one attribute, people or one judge:   ranks of the texts, the votes in `extra`
scores    one prompt:                                       ratings of the texts by name, thumbs by a threshold,
                                                            critiques by a critic in code

The attribute is the record's aspect, except `overall`. Critiques stand in the record of `overall`, or else of the first
attribute that has their text, once; several of one text are joined.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coh_lightning.errors import InputError, did_you_mean, visible
from coh_lightning.feedback.records import OVERALL, Feedback, RatedCompletion, content_id, unique
from coh_lightning.human_eval.comments import critiques_of
from coh_lightning.human_eval.counts import Counts
from coh_lightning.human_eval.vote_sources import ScoredText, Sources
from coh_lightning.human_eval.votes import Order, Prompt, Vote, orders

SCORES = "scores"
"""Source of the records of scores."""


@dataclass(frozen=True)
class Threshold:
    """A completion gets a thumb up if this score is at least as good as `at`, else a thumb down."""

    score: str
    at: float


@dataclass
class Built:
    """The records, and what to say about them."""

    records: list[Feedback] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """reused: ids that stand for several prompts; votes; pairs, of these ties, several: with several votes,
    contradicted: raters chose opposite sides, split: of these ties; cycles, and their pairs (cyclic); by_pair: orders
    that no ranks can say; critiques, and the texts that have them (criticized); ratings, thumbs, remarks: critiques by
    a critic in code; duplicates: scored texts given again, unequal: with other scores.
    """
    left_out: Counts = field(default_factory=Counts)
    examples: dict[str, str] = field(default_factory=dict)
    """The first place of reused, contradicted, cycles, unequal."""
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Those taken from the scores themselves."""


def build(
    sources: Sources,
    *,
    attributes: Sequence[str] | None = None,
    scores: Sequence[str] | None = None,
    scales: Mapping[str, tuple[float, float]] | None = None,
    thumb: Threshold | None = None,
) -> Built:
    """The records of all that was read, those of earlier rounds last.

    Args:
        attributes: of votes; None: all.
        scores: names; None: all.
        scales: score -> (worst, best); of the others the least and the greatest score there is.
        thumb: which score gives thumbs.

    Raises:
        InputError: an attribute or a score that no source has, a score outside its scale, or no record at all.
    """
    built = Built(left_out=sources.left_out)
    seen: dict[str, str] = {}
    _count_prompts(sources, built)
    made = [*_of_votes(sources.votes, attributes, built), *_of_scores(sources.scored, scores, scales, thumb, built)]
    for record in made:
        record = dataclasses.replace(record, id=content_id(record))
        built.records.append(unique(record, seen, record.where))
    same = {record.id: record.to_json() for record in built.records}
    for record in sources.records:
        if record.id in same and same[record.id] == record.to_json():
            built.left_out.add("records given twice, kept once", record.where)
            continue
        record = unique(record, seen, record.where)
        same[record.id] = record.to_json()
        built.records.append(record)
    if not built.records:
        why = "; ".join(built.left_out.lines()) or "they have no votes and no scores"
        raise InputError(f"No feedback came of the sources: {why}.")
    return built


def _count_prompts(sources: Sources, built: Built) -> None:
    prompts: dict[str, set[Prompt]] = {}
    for prompt in (*(vote.prompt for vote in sources.votes), *(one.prompt for one in sources.scored)):
        prompts.setdefault(prompt.id, set()).add(prompt)
    for id, different in prompts.items():
        if len(different) > 1:
            built.counts["reused"] += 1
            built.examples.setdefault("reused", f"'{id}'")


# --- votes


def _of_votes(votes: Sequence[Vote], attributes: Sequence[str] | None, built: Built) -> Iterator[Feedback]:
    known = list(dict.fromkeys(vote.attribute for vote in votes))
    for name in attributes or ():
        if name not in known:
            fact = f"There are no votes on the attribute '{name}'"
            raise InputError(f"{fact}, only on {', '.join(known) or 'none'}{did_you_mean(name, known)}")
    by_prompt: dict[tuple[Prompt, str], dict[str, list[Vote]]] = {}
    for vote in votes:
        if attributes and vote.attribute not in attributes:
            built.left_out.add("votes on other attributes than --attributes", f"{vote.study} row {vote.row}")
            continue
        by_prompt.setdefault((vote.prompt, vote.by), {}).setdefault(vote.attribute, []).append(vote)
    for (prompt, by), by_attribute in by_prompt.items():
        records = []
        for attribute in sorted(by_attribute, key=lambda name: (name != OVERALL, known.index(name))):
            own = by_attribute[attribute]
            found = orders(own)
            built.counts["votes"] += len(own)
            _count_pairs(found.pairs, prompt, attribute, built)
            if found.cyclic:
                built.counts["cycles"] += 1
                built.counts["cyclic"] += len(found.cyclic)
                built.examples.setdefault("cycles", f"prompt '{prompt.id}', {attribute}")
            built.counts["by_pair"] += len(found.orders) > 1
            records += [_record(order, prompt, attribute, by) for order in found.orders]
        every = [vote for own in by_attribute.values() for vote in own]
        yield from _with_critiques(records, _critiques(every, prompt, built), prompt, by, every, built)


def _count_pairs(pairs: Iterable[Any], prompt: Prompt, attribute: str, built: Built) -> None:
    for pair in pairs:
        built.counts["pairs"] += 1
        built.counts["ties"] += pair.is_tie
        built.counts["several"] += len(pair.votes) > 1
        if pair.contradicted:
            built.counts["contradicted"] += 1
            built.counts["split"] += pair.is_tie
            built.examples.setdefault("contradicted", f"prompt '{prompt.id}', {attribute}")


def _record(order: Order, prompt: Prompt, attribute: str, by: str) -> Feedback:
    places = {text: place for place, text in enumerate(order.texts)}
    completions = tuple(
        RatedCompletion(text, rank=rank, author=_author(order.votes, text))
        for text, rank in zip(order.texts, order.ranks, strict=True)
    )
    return Feedback(
        id="",
        prompt=prompt.turns,
        candidates=completions,
        task=prompt.task,
        aspect=None if attribute == OVERALL else attribute,
        source=by,
        where=f"prompt '{prompt.id}'",
        extra={"prompt_id": prompt.id, "votes": [vote.to_json(places) for vote in order.votes]},
    )


def _author(votes: Iterable[Vote], text: str) -> str:
    """The systems that wrote a text, usually one."""
    names = {name: None for vote in votes for one, name in zip(vote.texts, vote.authors, strict=True) if one == text}
    return ", ".join(names)


def _critiques(votes: Sequence[Vote], prompt: Prompt, built: Built) -> dict[str, list[str]]:
    """Text -> what comments say of it; a row's comment, which stands beside each of its attributes, once."""
    critiques: dict[str, list[str]] = {}
    rows = set()
    for vote in votes:
        if not vote.comment.strip() or (vote.rater, vote.row) in rows:
            continue
        rows.add((vote.rater, vote.row))
        found = critiques_of(vote.comment, prompt.task)
        if found == (None, None):
            built.left_out.add("comments that don't speak of one side", f"{vote.rater}, row {vote.row}")
        for text, words in zip(vote.texts, found, strict=True):
            if words is not None and words not in critiques.setdefault(text, []):
                critiques[text].append(words)
                built.counts["critiques"] += 1
    return {text: words for text, words in critiques.items() if words}


def _with_critiques(
    records: Sequence[Feedback],
    critiques: dict[str, list[str]],
    prompt: Prompt,
    by: str,
    votes: Sequence[Vote],
    built: Built,
) -> Iterator[Feedback]:
    """The records, each critique in the first that has its text; a last one of texts that are in no record."""
    built.counts["criticized"] += len(critiques)
    for record in records:
        completions = [
            dataclasses.replace(one, critique=_joined(critiques.pop(one.text))) if one.text in critiques else one
            for one in record.candidates
        ]
        yield dataclasses.replace(record, candidates=tuple(completions))
    if critiques:
        alone = tuple(
            RatedCompletion(text, critique=_joined(words), author=_author(votes, text))
            for text, words in critiques.items()
        )
        extra = {"prompt_id": prompt.id}
        yield Feedback("", prompt.turns, alone, task=prompt.task, source=by, where=f"prompt '{prompt.id}'", extra=extra)


def _joined(words: Sequence[str]) -> str:
    """Several people's words as sentences, one after the other."""
    return " ".join([one if one[-1] in ".!?" else f"{one}." for one in words[:-1]] + [words[-1]])


# --- scores


def _of_scores(
    scored: Sequence[ScoredText],
    names: Sequence[str] | None,
    scales: Mapping[str, tuple[float, float]] | None,
    thumb: Threshold | None,
    built: Built,
) -> Iterator[Feedback]:
    known = list(dict.fromkeys(name for one in scored for name in one.scores))
    wanted = [*(names or ()), *(scales or {}), *([thumb.score] if thumb else [])]
    for name in wanted:
        if name not in known:
            fact = f"No completion has the score '{name}', only {', '.join(known) or 'none'}"
            raise InputError(fact + did_you_mean(name, known))
    kept = [name for name in known if names is None or name in names]
    found = _scales(scored, kept, scales or {}, built)
    by_prompt: dict[Prompt, dict[str, list[ScoredText]]] = {}
    for one in scored:
        by_prompt.setdefault(one.prompt, {}).setdefault(one.text, []).append(one)
    for prompt, texts in by_prompt.items():
        completions = []
        for text, own in texts.items():
            rated_by = {name for one in own for name in one.scores}
            values = {name: _mean(own, name, built) for name in kept if name in found and name in rated_by}
            liked = None
            if thumb and thumb.score in rated_by:
                value, (worst, best) = _mean(own, thumb.score, None), (scales or {}).get(thumb.score, (0.0, 1.0))
                liked = value >= thumb.at if best > worst else value <= thumb.at
            built.counts["duplicates"] += len(own) - 1
            built.counts["ratings"] += len(values)
            built.counts["thumbs"] += liked is not None
            author = ", ".join(dict.fromkeys(one.author for one in own))
            remarks = list(dict.fromkeys(one.critique for one in own if one.critique is not None))
            built.counts["remarks"] += len(remarks)
            critique = _joined(remarks) if remarks else None
            completions.append(RatedCompletion(text, ratings=values, thumb=liked, critique=critique, author=author))
        used = [one for one in completions if one.ratings or one.thumb is not None or one.critique is not None]
        if used:
            rated = {name for one in used for name in one.ratings}
            where = next(iter(texts.values()))[0].where
            yield Feedback(
                id="",
                prompt=prompt.turns,
                candidates=tuple(used),
                scales={name: scale for name, scale in found.items() if name in rated},
                task=prompt.task,
                source=SCORES,
                where=where,
                extra={"prompt_id": prompt.id},
            )


def _scales(
    scored: Sequence[ScoredText], names: Sequence[str], given: Mapping[str, tuple[float, float]], built: Built
) -> dict[str, tuple[float, float]]:
    """Score -> (worst, best): the given ones, else the least and the greatest score; none if all are equal."""
    scales = {}
    for name in names:
        values = [one.scores[name] for one in scored if name in one.scores]
        if name not in given:
            if min(values) == max(values):
                for one in scored:
                    if name in one.scores:
                        built.left_out.add(f"scores '{name}', all of them {values[0]:g} (give --scale)", one.where)
                continue
            scales[name] = built.scales[name] = (min(values), max(values))
            continue
        worst, best = scales[name] = given[name]
        for one in scored:
            if name in one.scores and not min(worst, best) <= one.scores[name] <= max(worst, best):
                fact = f"the score '{name}' is {one.scores[name]:g}, outside its scale {worst:g} to {best:g}"
                raise InputError(f"{one.where}: {fact}; give --scale {visible(name)}=WORST,BEST that holds it.")
    return scales


def _mean(own: Sequence[ScoredText], name: str, built: Built | None) -> float:
    """The score of a text that may have been scored more than once."""
    values = [one.scores[name] for one in own if name in one.scores]
    if built is not None and len(set(values)) > 1:
        built.counts["unequal"] += 1
        built.examples.setdefault("unequal", own[1].where)
    return values[0] if len(set(values)) == 1 else sum(values) / len(values)
