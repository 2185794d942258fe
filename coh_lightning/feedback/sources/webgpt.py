"""openai/webgpt_comparisons: two long answers to a question, written from quotes of web pages, and a preference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coh_lightning.checks import number
from coh_lightning.errors import InputError, a_kind
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources.base import Source, column, text_column
from coh_lightning.feedback.sources.files import SourceRow, SourceRows
from coh_lightning.feedback.sources.prompts import prompt_key
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.rng import key64

Quote = tuple[str, str]
_CITATION = re.compile(r"\[(\d{1,6}(?:,\s*\d{1,6})*)\]")


@dataclass(frozen=True)
class WebGPT(Source):
    """Comparisons of WebGPT, ties (score 0) included.

    Each answer was written from its own quotes and cites them by number. A chain has one prompt for all its answers, so
    the prompt lists the quotes of both, answer 0's first and equal ones once: it is the same whichever answer follows
    and does not reveal which was preferred. Answer 1's citations are renumbered to the joint list; citations without a
    quote stay as they are::

        quotes_0 A, B    answer_0 "x [1][2]"        sources  [1] A  [2] B  [3] C
        quotes_1 B, C    answer_1 "y [1][2]"        answers  "x [1][2]"    "y [2][3]"

    The dataset has no held-out split, so one is made here: a hash of the question decides whether it is in
    `split: validation` or in `train`.

    Args:
        quotes: "both" as above; "none" leaves the quotes out and the answers unchanged.
        held_out: fraction of the questions in the validation split.
        held_out_seed: seed of that choice.
    """

    revision: str | None = "refs/convert/parquet"
    """The hub's conversion: the dataset itself is a loading script, which `datasets` no longer runs."""
    quotes: Literal["both", "none"] = "both"
    held_out: float = 0.05
    held_out_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in ("train", "validation"):
            raise InputError(f"WebGPT.split is {self.split!r}; it must be train or validation.")
        if not 0 < self.held_out < 1:
            raise InputError(f"WebGPT.held_out is {self.held_out}; it must be between 0 and 1.")

    def stored_split(self) -> str:
        return "train"

    def all_rows(self) -> SourceRows:
        """The rows of this split."""
        for where, row in super().all_rows():
            try:
                if isinstance(row, InputError) or self._split_of(_question(row, where)) == self.split:
                    yield where, row
            except InputError as error:
                yield where, error

    def _split_of(self, question: str) -> str:
        place = key64(self.held_out_seed, "webgpt held out", prompt_key(question))
        return "validation" if place < self.held_out * 2**64 else "train"

    def columns(self) -> Sequence[str]:
        return ("question", "answer_0", "answer_1", "score_0", "score_1")

    def structured(self) -> Sequence[str]:
        return ("question", "quotes_0", "quotes_1")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        question = _question(row, where)
        answers = [text_column(row, f"answer_{side}", where) for side in (0, 1)]
        scores = [number(column(row, f"score_{side}", where), f"score_{side}", where) for side in (0, 1)]
        parts = [Part(question, "never")]
        if self.quotes == "both":
            quotes = [_quotes(column(row, f"quotes_{side}", where), f"quotes_{side}", where) for side in (0, 1)]
            listed = list(dict.fromkeys(quotes[0] + quotes[1]))
            answers = [renumbered(answer, own, listed) for answer, own in zip(answers, quotes, strict=True)]
            if listed:
                parts.append(Part("\n\nYou may use the following sources:", "never"))
            for number_there, (title, extract) in enumerate(listed, start=1):
                parts.append(Part(f"\n[{number_there}] {title}\n{extract}", "back"))
        ranks = (1.0, 1.0) if scores[0] == scores[1] else (1.0, 2.0) if scores[0] > scores[1] else (2.0, 1.0)
        candidates = [RatedCompletion(answer, rank=rank) for answer, rank in zip(answers, ranks, strict=True)]
        return self.record(
            (Turn("user", tuple(parts)),), candidates, where=where, task="answer", extra={"scores": scores}
        )


def _question(row: SourceRow, where: str) -> str:
    question = column(row, "question", where)
    if isinstance(question, str):
        return question
    return text_column(question if isinstance(question, dict) else {}, "full_text", where)


def _quotes(value: object, key: str, where: str) -> list[Quote]:
    if not isinstance(value, dict):
        wanted = "an object with the lists 'title' and 'extract'"
        raise InputError(f"{where}: {key} is {a_kind(value)}; it must be {wanted}.")
    titles, extracts = column(value, "title", where), column(value, "extract", where)
    if not isinstance(titles, list) or not isinstance(extracts, list) or len(titles) != len(extracts):
        raise InputError(f"{where}: the lists 'title' and 'extract' of {key} differ in length.")
    if not all(isinstance(one, str) for one in titles + extracts):
        raise InputError(f"{where}: the lists 'title' and 'extract' of {key} must have only texts.")
    return list(zip(titles, extracts, strict=True))


def renumbered(answer: str, own: list[Quote], listed: list[Quote]) -> str:
    """The answer with its citations renumbered to the joint list."""

    def joint(match: re.Match[str]) -> str:
        cited = [int(one) for one in match[1].split(",")]
        if not all(1 <= one <= len(own) for one in cited):
            return match[0]
        return "[" + ", ".join(str(listed.index(own[one - 1]) + 1) for one in cited) + "]"

    return _CITATION.sub(joint, answer)
