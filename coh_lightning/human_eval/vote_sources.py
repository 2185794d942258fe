"""Studies, files of judgments, and files of completions -> votes and scored texts with their prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.completions import Completion, SystemOutput, read_scores
from coh_lightning.feedback.jsonl import read_jsonl, read_values
from coh_lightning.feedback.judgments import JUDGE, TIE, Judgment
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.turns import as_messages
from coh_lightning.human_eval.counts import Counts
from coh_lightning.human_eval.items import AnswerPair
from coh_lightning.human_eval.known_prompts import ANSWER, KnownPrompts, as_turns, messages_of
from coh_lightning.human_eval.results import read_results
from coh_lightning.human_eval.study import JUDGMENTS, KEY, read_items, read_key
from coh_lightning.human_eval.votes import PEOPLE, Prompt, Vote

Raters = Literal["people", "judge", "all"]
Score = Callable[[Sequence[Completion]], Sequence[Completion]]
Criticize = Callable[[Completion], str]
Asked = tuple[str, str, str, str]
"""One question to one rater: rater, item, row, attribute."""


@dataclass(frozen=True)
class ScoredText:
    """A completion, the scores that scorers or a reward model gave it, and what a critic in code said of it."""

    prompt: Prompt
    text: str
    author: str
    scores: Mapping[str, float]
    where: str
    critique: str | None = None
    """What a critic in code said of it."""


@dataclass(frozen=True)
class ComparedPair:
    """The two texts of an item, by system."""

    prompt: Prompt
    texts: Mapping[str, str]


@dataclass
class Sources:
    """What the sources say, and what was left out of it."""

    votes: list[Vote] = field(default_factory=list)
    scored: list[ScoredText] = field(default_factory=list)
    records: list[Feedback] = field(default_factory=list)
    left_out: Counts = field(default_factory=Counts)
    excluded: list[str] = field(default_factory=list)
    """A sentence for each rater whom a study's rules exclude."""


def read_sources(
    paths: Sequence[Path],
    *,
    completions: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    raters: Raters = "people",
    exclude: bool = True,
    task: str | None = None,
    score: Score | None = None,
    criticize: Criticize | None = None,
) -> Sources:
    """Read studies (folders), judgments, completions with scores, and records (files), in this order.

    Args:
        completions: further files of completions: for the prompts of studies and the texts of judgments.
        prompts: files of records that had these prompts: for what truncation may cut of them, and the task.
        raters: whose votes to take.
        exclude: leave out the people whom a study's own rules exclude.
        task: the noun for a completion, instead of what completions say.
        score: adds scores to the completions of each source file of them.
        criticize: says what is good or bad about each of them.

    Raises:
        InputError: naming file and line.
    """
    kinds = [(path, _kind(path)) for path in paths]
    scored = [path for path, kind in kinds if kind == "completions"]
    known = KnownPrompts(list(dict.fromkeys([*scored, *completions])), prompts, task)
    sources, pairs, seen = Sources(), dict[str, ComparedPair](), dict[Asked, int | str]()
    for path in (path for path, kind in kinds if kind == "study"):
        elsewhere = any(kind == "judgments" for _, kind in kinds)
        _read_study(path, known, sources, pairs, seen, raters, exclude=exclude, judged_elsewhere=elsewhere)
    for path in (path for path, kind in kinds if kind == "judgments"):
        judgments = list(_judgments_of(path))
        _find_pairs([one for _, one in judgments], known, pairs)
        _take(judgments, pairs, sources, seen, raters, study="")
    for path in scored:
        _read_scored(path, known, sources, score, criticize)
    for path in (path for path, kind in kinds if kind == "records"):
        sources.records += read_jsonl(path, Feedback)
    return sources


def _kind(path: Path) -> str:
    """What a source is: a study's folder, or a file known by the keys of its first line."""
    if path.is_dir():
        if not (path / KEY).is_file():
            raise InputError(f"{path}: the folder has no {KEY}, so it is no study; give a study, or a file.")
        return "study"
    where, first = next(read_values(path))
    keys = set(first) if isinstance(first, dict) else set()
    if {"systems", "choice"} <= keys:
        return "judgments"
    if "completions" in keys:
        return "records"
    if "prompt" in keys and keys & {"completion", "text"}:
        return "completions"
    wanted = "neither a judgment, nor a completion with its prompt, nor a feedback record"
    raise InputError(f"{where}: the line is {wanted}; give a study's folder or one of these files.")


def _read_study(
    folder: Path,
    known: KnownPrompts,
    sources: Sources,
    pairs: dict[str, ComparedPair],
    seen: dict[Asked, int | str],
    raters: Raters,
    *,
    exclude: bool,
    judged_elsewhere: bool,
) -> None:
    """Add a study's votes and pairs; only its pairs if it has no judgments and a file of judgments is given too."""
    from coh_lightning.human_eval.rater_checks import excluded_raters, rater_table

    pairs |= _pairs_of_study(folder, known)
    if judged_elsewhere and not (folder / JUDGMENTS).exists():
        return
    results = read_results(folder)
    people = [one for one in results.judgments if not one.rater.startswith(JUDGE)]
    out: Collection[str] = ()
    if exclude and raters != "judge" and people:
        table = rater_table(dataclasses.replace(results, judgments=tuple(people)))
        reasons = excluded_raters(table, results.key.get("exclusion") or {})
        sources.excluded += [f"{folder}: {rater} had {' and '.join(why)}" for rater, why in reasons.items()]
        out = reasons.keys()
    path = folder / JUDGMENTS
    judgments = [(f"{path}, row {one.row}", one) for one in results.judgments]
    _take(judgments, pairs, sources, seen, raters, study=str(results.key["study"]), out=out)


def _pairs_of_study(folder: Path, known: KnownPrompts) -> dict[str, ComparedPair]:
    """The pairs of a study by item, without those that only check people."""
    key, asked, pairs = read_key(folder), dict[tuple[str, str], Prompt](), dict[str, ComparedPair]()
    for item in read_items(folder):
        about = key["items"].get(item.item, {"kind": ""})
        if about.get("kind", "pair") == "pair":
            prompt = (about["prompt_id"], str(about.get("prompt_sha", "")))
            if prompt not in asked:
                asked[prompt] = known.prompt(
                    prompt[0], [prompt[1]], item.prompt, str(folder), str(key.get("task", ANSWER))
                )
            pairs[item.item] = ComparedPair(asked[prompt], dict(zip(about["systems"], item.texts, strict=True)))
    return pairs


def _judgments_of(path: Path) -> Iterator[tuple[str, Judgment]]:
    for where, value in read_values(path):
        yield where, Judgment.from_json(value, where)


def _find_pairs(judgments: Sequence[Judgment], known: KnownPrompts, pairs: dict[str, ComparedPair]) -> None:
    """Add the pairs that a judge compared: those of completions whose hash is the judgment's item."""
    for id, systems in {(one.prompt_id, one.systems): None for one in judgments if one.item not in pairs}:
        outputs = known.by_id.get(id, [])
        for one in outputs:
            for other in (each for each in outputs if each.same_prompt(one)):
                for prompt in {one.prompt, other.prompt}:
                    for names in (systems, systems[::-1]):
                        pair = AnswerPair(id, "", prompt, (names[0], names[1]), (one.text, other.text))
                        if pair.judged_as not in pairs:
                            asked = known.prompt(id, [*one.shas, *other.shas], prompt, one.where)
                            pairs[pair.judged_as] = ComparedPair(asked, dict(zip(names, pair.texts, strict=True)))


def _take(
    judgments: Sequence[tuple[str, Judgment]],
    pairs: Mapping[str, ComparedPair],
    sources: Sources,
    seen: dict[Asked, int | str],
    raters: Raters,
    *,
    study: str,
    out: Collection[str] = (),
) -> None:
    """Add the votes of judgments, and count the others."""
    left_out = sources.left_out
    swapped = {(one.rater, one.item, one.attribute): one.choice for _, one in judgments if one.check == "swap"}
    for where, one in judgments:
        judge = one.rater.startswith(JUDGE)
        if judge and raters == "people":
            left_out.add("judgments of a judge (--raters judge or all takes them)", where)
            continue
        if not judge and raters == "judge":
            left_out.add("judgments of people (--raters people or all takes them)", where)
            continue
        if one.choice not in (TIE, *one.systems):
            fact = f"the choice is {one.choice!r:.60}, but the systems are {' and '.join(map(named, one.systems))}"
            raise InputError(f"{where}: {fact}; give one of them, or '{TIE}'.")
        if one.check:
            if not judge:
                left_out.add(f"answers to checks ({one.check})", where)
            continue
        key = (one.rater, one.item, one.row, one.attribute)
        choice: int | str = TIE if one.choice == TIE else one.systems.index(one.choice)
        if one.rater in out:
            seen[key] = choice  # nor does it count where it is given again
            left_out.add("votes of raters whom the study's rules exclude (--no-exclusion takes them)", where)
            continue
        pair = pairs.get(one.item)
        if pair is None or not set(one.systems) <= set(pair.texts):
            fact = f"the texts of item {one.item!r:.60}, {' and '.join(map(named, one.systems))}, are not known"
            raise InputError(f"{where}: {fact}; give the study's folder, or the completions that were judged.")
        if key in seen:
            same = seen[key] == choice
            left_out.add(
                "votes given twice, counted once" if same else "rows answered otherwise in an earlier source", where
            )
            continue
        seen[key] = choice
        if judge and pair.texts[one.systems[0]] != pair.texts[one.systems[1]]:
            other = swapped.get((one.rater, one.item, one.attribute))
            if other is None:
                left_out.add("pairs that a judge judged in one order only", where)
                continue
            if other != one.choice:
                left_out.add("verdicts of a judge that changed with the order, counted as ties", where)
                choice = TIE
        texts = (pair.texts[one.systems[0]], pair.texts[one.systems[1]])
        if reason := _unusable(texts):
            left_out.add(reason, where)
            continue
        sources.votes.append(
            Vote(
                prompt=pair.prompt,
                attribute=one.attribute,
                by=one.rater if judge else PEOPLE,
                rater=one.rater,
                study=study,
                row=one.row,
                texts=texts,
                authors=(one.systems[0], one.systems[1]),
                choice=choice,
                seconds=one.seconds,
                comment=one.comment,
                strength=one.strength,
            )
        )


def _unusable(texts: Sequence[str]) -> str | None:
    if texts[0] == texts[1]:
        return "votes on two identical texts"
    return "votes on a pair with an empty text" if not all(text.strip() for text in texts) else None


def _read_scored(
    path: Path, known: KnownPrompts, sources: Sources, score: Score | None, criticize: Criticize | None
) -> None:
    answers = []
    for system, output, line in known.lines[path]:
        if isinstance(line.get("answer"), str) and "completion" not in line:
            sources.left_out.add("reviews, which are no answers", output.where)
            continue
        if not output.text.strip():
            sources.left_out.add("empty completions", output.where)
            continue
        prompt = known.prompt(output.id, output.shas, output.prompt, output.where)
        if line.get("human") is not None and (turns := messages_of(line, output)) is not None:
            # in a pseudo-dialogue each system has its own messages
            prompt = dataclasses.replace(prompt, turns=as_turns(turns))
        scores = read_scores(line.get("scores") or {}, output.where)
        answers.append((ScoredText(prompt, output.text, system, scores, output.where), output))
    if score is not None:
        found = score([_completion(one, output) for one, output in answers])
        answers = [
            (dataclasses.replace(one, scores=new.scores), output)
            for (one, output), new in zip(answers, found, strict=True)
        ]
    if criticize is not None:
        answers = [
            (dataclasses.replace(one, critique=criticize(_completion(one, output))), output) for one, output in answers
        ]
    for one, _ in answers:
        if one.scores or one.critique is not None:
            sources.scored.append(one)
        else:
            sources.left_out.add("completions without scores", one.where)
    if not any(one.scores or one.critique is not None for one, _ in answers):
        fact = "no completion has 'scores', numbers by name as scorers and reward models write them"
        remedy = (
            "name a scorer (--scorers) or a critic (--critic); completions that were only compared go to --completions"
        )
        raise InputError(f"{path}: {fact}; {remedy}.")


def _completion(one: ScoredText, output: SystemOutput) -> Completion:
    """What a scorer reads."""
    return Completion(
        id=output.id,
        prompt_id=output.id,
        system=one.author,
        prompt=output.prompt,
        prompt_sha=output.shas[0],
        ask=output.ask,
        marker="",
        text=one.text,
        reference=output.reference,
        task=one.prompt.task,
        shown=output.prompt,
        messages=as_messages(one.prompt.turns),
        scores=one.scores,
    )
