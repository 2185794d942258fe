"""Anthropic/hh-rlhf: two transcripts, `chosen` and `rejected`, that share everything up to the last answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources.base import Source, text_column
from coh_lightning.feedback.sources.dialogue import difference, spans_of
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.turns import Turn, plain_turn

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"


@dataclass(frozen=True)
class HH(Source):
    """Pairs of dialogues of HH: the shared turns once as the prompt, the two last answers as the completions.

    `subset` is the folder: harmless-base, helpful-base, helpful-online, helpful-rejection-sampled; None takes all. The
    aspect is helpful or harmless by that folder, unless given. A row is rejected if its contexts differ (in more than
    whitespace at the ends of turns; the chosen side's is kept) or an answer is empty::

        chosen    "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: good"
        rejected  "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c\\n\\nAssistant: bad"
        prompt    user "a", assistant "b", user "c"            completions  "good" (rank 1), "bad" (rank 2)
    """

    def hub_arguments(self) -> dict[str, Any]:
        return {"path": self.path} if self.subset is None else {"path": self.path, "data_dir": self.subset}

    def columns(self) -> Sequence[str]:
        return ("chosen", "rejected")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        contexts, answers = [], []
        for name in ("chosen", "rejected"):
            split = split_transcript(text_column(row, name, where))
            if split is None:
                return self.rejected("no answer of the assistant after a human turn", where)
            contexts.append(split[0])
            answers.append(split[1])
        if difference(contexts[0], contexts[1]) is not None:
            return self.rejected("the two dialogues differ before the last answer", where)
        candidates = (RatedCompletion(answers[0], rank=1.0), RatedCompletion(answers[1], rank=2.0))
        kind = (self.subset or "").split("-")[0]
        aspect = kind if kind in ("helpful", "harmless") else None
        return self.record(contexts[0], candidates, where=where, task="response", aspect=aspect)


def split_transcript(text: str) -> tuple[tuple[Turn, ...], str] | None:
    """The turns before the last answer, and the last answer; None if no answer follows a human turn.

    Only the markers are removed: the two line ends, the name and the colon, and one space after them (and whitespace
    before the first marker). All other whitespace is text, so markers and texts together are exactly the transcript::

        "\\n\\nHuman:     if x:\\n\\n\\nAssistant: Yes "     ->  user "    if x:\\n"     answer "Yes "

    The last answer begins after the last "\\n\\nAssistant:" that follows a human turn; markers inside it are text.
    """
    if not text.lstrip().startswith(HUMAN.lstrip()):
        return None
    body = "\n\n" + text.lstrip()
    at = body.rfind(ASSISTANT)
    if at < 0:
        return None
    spans = spans_of(body[:at], HUMAN, ASSISTANT)
    answer = at + len(ASSISTANT)
    if spans[-1].role == "assistant":  # two answers in a row: the last turn began with the first of them
        answer = spans.pop().start
    turns = tuple(plain_turn(span.role, body[span.start : span.stop].removeprefix(" ")) for span in spans)
    return turns, body[answer:].removeprefix(" ")
