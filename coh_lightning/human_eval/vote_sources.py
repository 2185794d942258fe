"""Studies, files of judgments, and files of completions -> votes and scored texts with their prompts.

A prompt is what the model was asked. A study shows raters one text; if that is not the prompt itself (a conversation, a
system turn), the completions that the study was made from say what its messages are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from coh_lightning.errors import InputError, named
from coh_lightning.feedback.completions import (
    SystemOutput,
    Turns,
    read_output_lines,
    read_prompt_value,
    read_scores,
    turns_sha,
)
from coh_lightning.feedback.jsonl import read_jsonl, read_values
from coh_lightning.feedback.judgments import JUDGE, TIE, Judgment
from coh_lightning.feedback.records import Feedback, prompt_sha
from coh_lightning.feedback.turns import Role, Turn, check_prompt, plain_turn, read_prompt
from coh_lightning.human_eval.counts import Counts
from coh_lightning.human_eval.items import AnswerPair
from coh_lightning.human_eval.results import read_results
from coh_lightning.human_eval.study import JUDGMENTS, KEY, read_items, read_key
from coh_lightning.human_eval.votes import PEOPLE, Prompt, Vote

Raters = Literal["people", "judge", "all"]
Asked = tuple[str, str, str, str]
"""One question to one rater: rater, item, row, attribute."""


@dataclass(frozen=True)
class ScoredText:
    """A completion and the scores that scorers or a reward model gave it."""

    prompt: Prompt
    text: str
    author: str
    scores: Mapping[str, float]
    where: str


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


class Completions:
    """The lines of completions files, by prompt id; and the prompts of these and of records, by their hashes."""

    def __init__(self, paths: Sequence[Path], records: Sequence[Path], task: str | None) -> None:
        self.by_id: dict[str, list[SystemOutput]] = {}
        self.lines: dict[Path, list[tuple[str, SystemOutput, dict[str, Any]]]] = {}
        self._task = task
        self._prompts: dict[tuple[str, str], tuple[tuple[Turn, ...], str]] = {}
        """(hash, as people read it) -> prompt, task. Without the text, a dialogue would pass for its first turn."""
        for path in records:  # first: they say what truncation may cut
            for record in read_jsonl(path, Feedback):
                asked = (prompt_sha(record), read_prompt(record.prompt))
                self._prompts.setdefault(asked, (record.prompt, record.task))
        for path in paths:
            self.lines[path] = list(read_output_lines(path, dialogues=False))
            for _, output, line in self.lines[path]:
                self.by_id.setdefault(output.id, []).append(output)
                turns = _messages(line, output)
                if turns is not None:
                    for sha in output.shas:
                        self._prompts.setdefault((sha, output.prompt), (_turns(turns), _task(line)))

    def prompt(self, id: str, shas: Sequence[str], shown: str, where: str) -> Prompt:
        """The prompt of these hashes; without completions, what raters read, if its hash says that it is the prompt.

        Raises:
            InputError: neither is known.
        """
        found = next((self._prompts[sha, shown] for sha in shas if (sha, shown) in self._prompts), None)
        if found is None and turns_sha([("user", shown)]) in shas:
            found = (_turns([("user", shown)]), "answer")
        if found is None:
            fact = f"the prompt '{id}' has other messages than the text that raters read"
            remedy = "give the completions that were compared: --completions FILE"
            if self._prompts:
                fact += ", and no line of the completions and prompts given has it"
                remedy += " (of dialogues that were rated whole no records can be made)"
            raise InputError(f"{where}: {fact}; {remedy}.")
        prompt, task = found
        check_prompt(prompt, f"{where} (prompt '{id}')")
        return Prompt(id, prompt, self._task or task)


def read_sources(
    paths: Sequence[Path],
    *,
    completions: Sequence[Path] = (),
    prompts: Sequence[Path] = (),
    raters: Raters = "people",
    exclude: bool = True,
    task: str | None = None,
) -> Sources:
    """Read studies (folders), judgments, completions with scores, and records (files), in this order.

    Args:
        completions: further files of completions: for the prompts of studies and the texts of judgments.
        prompts: files of records that had these prompts: for what truncation may cut of them, and the task.
        raters: whose votes to take.
        exclude: leave out the people whom a study's own rules exclude.
        task: the noun for a completion, instead of what completions say.

    Raises:
        InputError: naming file and line.
    """
    kinds = [(path, _kind(path)) for path in paths]
    scored = [path for path, kind in kinds if kind == "completions"]
    known = Completions(list(dict.fromkeys([*scored, *completions])), prompts, task)
    sources, pairs, seen = Sources(), dict[str, ComparedPair](), dict[Asked, int | str]()
    for path in (path for path, kind in kinds if kind == "study"):
        elsewhere = any(kind == "judgments" for _, kind in kinds)
        _read_study(path, known, sources, pairs, seen, raters, exclude=exclude, judged_elsewhere=elsewhere)
    for path in (path for path, kind in kinds if kind == "judgments"):
        judgments = list(_judgments_of(path))
        _find_pairs([one for _, one in judgments], known, pairs)
        _take(judgments, pairs, sources, seen, raters, study="")
    for path in scored:
        _read_scored(path, known, sources)
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
    known: Completions,
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


def _pairs_of_study(folder: Path, known: Completions) -> dict[str, ComparedPair]:
    """The pairs of a study by item, without those that only check people."""
    key, asked, pairs = read_key(folder), dict[tuple[str, str], Prompt](), dict[str, ComparedPair]()
    for item in read_items(folder):
        about = key["items"].get(item.item, {"kind": ""})
        if about.get("kind", "pair") == "pair":
            prompt = (about["prompt_id"], str(about.get("prompt_sha", "")))
            if prompt not in asked:
                asked[prompt] = known.prompt(prompt[0], [prompt[1]], item.prompt, str(folder))
            pairs[item.item] = ComparedPair(asked[prompt], dict(zip(about["systems"], item.texts, strict=True)))
    return pairs


def _judgments_of(path: Path) -> Iterator[tuple[str, Judgment]]:
    for where, value in read_values(path):
        yield where, Judgment.from_json(value, where)


def _find_pairs(judgments: Sequence[Judgment], known: Completions, pairs: dict[str, ComparedPair]) -> None:
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
        if one.check:
            if not judge:
                left_out.add(f"answers to checks ({one.check})", where)
            continue
        if one.rater in out:
            left_out.add("votes of raters whom the study's rules exclude (--no-exclusion takes them)", where)
            continue
        pair = pairs.get(one.item)
        if pair is None or set(one.systems) != set(pair.texts) or one.choice not in (TIE, *one.systems):
            fact = f"the texts of item {one.item!r:.60}, {' and '.join(map(named, one.systems))}, are not known"
            raise InputError(f"{where}: {fact}; give the study's folder, or the completions that were judged.")
        choice: int | str = TIE if one.choice == TIE else one.systems.index(one.choice)
        key = (one.rater, one.item, one.row, one.attribute)
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
            )
        )


def _unusable(texts: Sequence[str]) -> str | None:
    if texts[0] == texts[1]:
        return "votes on two identical texts"
    return "votes on a pair with an empty text" if not all(text.strip() for text in texts) else None


def _read_scored(path: Path, known: Completions, sources: Sources) -> None:
    found = False
    for system, output, line in known.lines[path]:
        where = output.where
        if isinstance(line.get("answer"), str) and "completion" not in line:
            sources.left_out.add("reviews, which are no answers", where)
            continue
        scores = read_scores(line.get("scores") or {}, where)
        if not scores:
            sources.left_out.add("completions without scores", where)
            continue
        found = True
        if not output.text.strip():
            sources.left_out.add("empty completions", where)
            continue
        prompt = known.prompt(output.id, output.shas, output.prompt, where)
        if line.get("human") is not None and (turns := _messages(line, output)) is not None:
            # in a pseudo-dialogue each system has its own messages
            prompt = dataclasses.replace(prompt, turns=_turns(turns))
        sources.scored.append(ScoredText(prompt, output.text, system, scores, where))
    if not found:
        fact = "no completion has 'scores', numbers by name as scorers and reward models write them"
        raise InputError(f"{path}: {fact}; completions that were only compared go to --completions.")


def _messages(line: Mapping[str, Any], output: SystemOutput) -> Turns | None:
    """The prompt of a line as messages, without the feedback sentence; None if the line has only its text."""
    if line.get("messages"):
        return read_prompt_value(line["messages"], "messages", output.where)[1]
    turns = [("user", output.prompt)]
    if not output.explicit:
        turns = list(read_prompt_value(line["prompt"], "prompt", output.where)[1])
    sha = line.get("prompt_sha")
    return turns if not isinstance(sha, str) or sha == turns_sha(turns) else None


def _turns(messages: Turns) -> tuple[Turn, ...]:
    return tuple(plain_turn(cast(Role, role), text) for role, text in messages)


def _task(line: Mapping[str, Any]) -> str:
    return line["task"] if isinstance(line.get("task"), str) and line["task"] else "answer"
