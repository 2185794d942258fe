"""A run of the judge: asks what has no answer yet, keeps each reply at once, and writes the judgments.

OUTPUT                 rows of this judge, and those of other raters that were there before
OUTPUT.replies.jsonl   every reply word for word, at once: an interrupted run loses nothing
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coh_lightning.checks import number
from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl, read_values, write_jsonl
from coh_lightning.feedback.judgments import TIE, Judgment
from coh_lightning.io import atomic_write
from coh_lightning.judge.client import Endpoint, Unanswered
from coh_lightning.judge.prompts import Question, verdict

EQUAL = "equal texts, not asked"
"""Comment of the ties that the judge was not asked about."""
GIVE_UP = 3
"""After this many unanswered questions in a row the server counts as down, and the run ends."""


@dataclass(frozen=True)
class Reply:
    """The judge's reply to one question: one line of the file of replies."""

    row: str
    verdict: str
    """A, B, tie; or "refused", "cut off", "unclear"."""
    text: str
    seconds: float

    @classmethod
    def from_json(cls, obj: object, where: str) -> Reply:
        match obj:
            case {"row": str(row), "verdict": str(found), "text": str(text), "seconds": (int() | float()) as seconds}:
                return cls(row, found, text, number(seconds, "seconds", where))
        raise InputError(f"{where}: this line is not a judge's reply; give another --output, or move the file away.")

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row, "verdict": self.verdict, "text": self.text, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    judgments: list[Judgment]
    """All of this judge's on these questions, including those of earlier runs; none if it gave no verdict at all."""
    asked: int
    """Requests of this run that were answered."""
    unusable: Mapping[str, int]
    """"refused", "cut off", "unclear" -> questions without a verdict."""
    left: int
    """Questions without an answer; the same command asks them again."""
    why: str = ""
    """Why the last of these got none."""


def judge(
    asked: Sequence[Question],
    endpoint: Endpoint,
    fields: Mapping[str, Any],
    *,
    output: Path,
    parallel: int = 4,
    progress: bool = True,
) -> Outcome:
    """Ask all questions that `output` has no answer to yet, and write the judgments there; rows of other raters stay.

    A question whose reply has no verdict is not asked again. Pairs of equal texts are ties and are not asked.

    Args:
        fields: of each request besides its messages (model, temperature, ...); those that are None are left out.
        parallel: requests at a time.

    Raises:
        InputError: `output` has rows of this judge on other questions; the endpoint can't be used.
    """
    by_row = {question.row: question for question in asked}
    if len(by_row) < len(asked):
        raise InputError(f"{len(asked)} questions have only {len(by_row)} different rows: a comparison is given twice.")
    others, known = _earlier(output, by_row)
    log = output.with_name(f"{output.name}.replies.jsonl")
    replies = {row: reply for row, reply in _replies(log).items() if row in by_row}
    fields = {name: value for name, value in fields.items() if value is not None}
    waiting = []
    for row, question in by_row.items():
        if question.texts[0] == question.texts[1]:
            known[row] = question.judgment(TIE, comment=EQUAL)
        elif row not in known and row not in replies:
            waiting.append(question)
    failures: list[str] = []
    count = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("a", encoding="utf-8") as file:
            for reply in _ask_all(waiting, endpoint, fields, parallel, failures, progress):
                replies[reply.row] = reply
                file.write(json.dumps(reply.to_json()) + "\n")
                file.flush()
                count += 1
    finally:
        for row, reply in replies.items():
            if reply.verdict in ("A", "B", TIE):
                known[row] = by_row[row].judgment(reply.verdict, round(reply.seconds, 3))
        own = [known[row] for row in by_row if row in known]
        if (waiting or replies) and all(one.comment == EQUAL for one in own):
            own = []  # asked without one verdict: ties that it was not asked about would look like its result
        if others or own:
            write_jsonl(output, [*others, *own])
    return Outcome(
        own,
        count,
        Counter(reply.verdict for row, reply in replies.items() if row not in known),
        len(waiting) - count,
        failures[-1] if failures else "",
    )


def _earlier(output: Path, by_row: Mapping[str, Question]) -> tuple[list[Judgment], dict[str, Judgment]]:
    """What the output has already: other raters' judgments, and this judge's by row."""
    raters = {question.rater for question in by_row.values()}
    others: list[Judgment] = []
    known: dict[str, Judgment] = {}
    for judgment in read_jsonl(output, Judgment) if output.exists() else ():
        if judgment.rater not in raters:
            others.append(judgment)
        elif judgment.row in by_row:
            before = known.get(judgment.row, judgment)
            if before.choice != judgment.choice:
                two = f"{judgment.item}, '{judgment.attribute}': {before.choice} and {judgment.choice}"
                raise InputError(
                    f"{output}: {judgment.rater} has two answers to item {two}; keep one, or give another --output."
                )
            # with another seed the other order may count
            known[judgment.row] = replace(judgment, check=by_row[judgment.row].check)
        else:
            other = f"answers to other questions (item {judgment.item}, '{judgment.attribute}')"
            raise InputError(f"{output}: {judgment.rater} has {other}; give another --output, or move the file away.")
    return others, known


def _replies(log: Path) -> dict[str, Reply]:
    """The replies of earlier runs. A half-written last line, left by a run that was killed, is dropped."""
    if not log.exists() or not log.stat().st_size:
        return {}
    raw = log.read_bytes()
    if not raw.endswith(b"\n"):
        with atomic_write(log) as aside:
            aside.write_bytes(raw[: raw.rfind(b"\n") + 1])
        return _replies(log)
    replies = (Reply.from_json(value, where) for where, value in read_values(log))
    return {reply.row: reply for reply in replies}


def _ask_all(
    waiting: Sequence[Question],
    endpoint: Endpoint,
    fields: Mapping[str, Any],
    parallel: int,
    failures: list[str],
    progress: bool,
) -> Iterator[Reply]:
    """The replies as they come. The first question is asked alone, so that a wrong address or key costs one request."""
    from tqdm import tqdm

    stopping = threading.Event()

    def ask(question: Question) -> Reply | None:
        if stopping.is_set():
            return None
        return read_reply(question, *endpoint.ask({**fields, "messages": question.messages}))

    if not waiting:
        return
    failed_in_a_row = 0
    with (
        tqdm(total=len(waiting), desc="judging", unit="question", disable=not progress or None, file=sys.stderr) as bar,
        ThreadPoolExecutor(max(1, parallel)) as pool,
    ):
        try:
            for group in (waiting[:1], waiting[1:]):
                for done in as_completed([pool.submit(ask, question) for question in group]):
                    try:
                        reply = done.result()
                    except Unanswered as error:
                        failures.append(str(error))
                        failed_in_a_row += 1
                        if failed_in_a_row >= GIVE_UP:
                            stopping.set()
                    else:
                        if reply is None:
                            continue
                        failed_in_a_row = 0
                        yield reply
                    bar.update()
        finally:
            stopping.set()  # after an error or Ctrl-C nothing more is sent


def read_reply(question: Question, body: object, seconds: float) -> Reply:
    """The server's answer to a question. Raises Unanswered if it is not a chat completion."""
    match body:
        case {"choices": [{"message": {**message}, **choice}, *_]} if isinstance(message.get("content"), str | None):
            content: Any = message.get("content")
        case _:
            raise Unanswered("the server's answer has no choices[0].message.content, so it is not a chat completion")
    refusal, reason = message.get("refusal"), choice.get("finish_reason")
    text = (content or (refusal if isinstance(refusal, str) else "") or "").encode("utf-8", "replace").decode()
    found = verdict(text) if not refusal and reason != "length" else None
    other = "refused" if refusal or reason == "content_filter" else "cut off" if reason == "length" else "unclear"
    return Reply(question.row, found or other, text, seconds)
