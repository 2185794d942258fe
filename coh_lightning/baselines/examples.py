"""Records -> rows of token ids for TRL's trainers, with the prompts and outputs of our own supervised fine-tuning.

    pairs      {"prompt_ids": [Name a fruit.], "chosen_ids": [Apple </s>], "rejected_ids": [Stone </s>]}
    unpaired   {"prompt_ids": [Name a fruit.], "completion_ids": [Apple </s>], "label": True}
    reward     {"chosen_ids": [Name a fruit. Apple </s>], "rejected_ids": [Name a fruit. Stone </s>]}
    prompts    {"prompt": "the record's id"}, whose ids and record are looked up

TRL would tokenize texts anew: it doesn't cut prompts as we do, turns a `</s>` in people's text into the real one, and
may merge tokens across the end of the prompt. So it gets ids.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import RecordRequest
from coh_lightning.rng import generator
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt
from coh_lightning.sequences.chains import Link, TooLong, Unusable
from coh_lightning.sequences.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.data import CoHDataModule

PLAIN = Method(name="plain", orders=("p",), sentences="none")
"""Prompts without feedback sentences, as in conf/method/sft.yaml."""

Row = dict[str, Any]
Converted = Iterable[tuple[Feedback, Mapping[str, Any]]]
"""Records, and rows made of them in TRL's forms (`coh convert`)."""


def plain_prompter(data: CoHDataModule, tokenizer: PreTrainedTokenizerBase) -> Prompter:
    """The prompter of supervised fine-tuning with these data settings, whatever their method."""
    limit = data.max_prompt_tokens
    return Prompter.make(tokenizer, PLAIN, data.wording, data.prompt_format, max_prompt_tokens=limit)


@dataclass
class Examples:
    """Rows for a trainer, and the rows that were left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """A hash of the rows, in their order."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()[:16]

    def mean_tokens(self, *columns: str) -> float:
        """Tokens of these columns in a row, on average."""
        return sum(len(row[name]) for row in self.rows for name in columns) / max(len(self.rows), 1)


def cut_prompt(tokens: ChainTokenizer, record: Feedback) -> CutPrompt:
    """The record's prompt, cut as in our fits. Raises `Unusable` with a reason without numbers, to be counted."""
    try:
        return tokens.cut_prompt(record.prompt)
    except TooLong as too_long:
        raise TooLong("the prompt is longer than max_prompt_tokens", str(too_long)) from too_long


class Encoded:
    """Completions after their prompts, in the ids of a training chain of one output.

    Args:
        max_tokens: Of prompt and completion; a longer one raises `TooLong`, since ours are never cut either.
    """

    def __init__(self, prompter: Prompter, *, max_tokens: int) -> None:
        self._tokens, self._max = prompter.tokens, max_tokens

    def __call__(self, record: Feedback, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
        """(prompt, completion with its end token) of a record and the assistant's message. Raises `Unusable`."""
        prompt = cut_prompt(self._tokens, record)
        chain = self._tokens.chain(prompt, (Link("", messages[0]["content"], learned=1.0),))
        if len(chain.ids) > self._max:
            raise TooLong("prompt and completion are longer than max_chain_tokens")
        [span] = chain.spans
        ids = chain.ids.tolist()
        return ids[: span.start], ids[span.start : span.stop]


def pairs(converted: Converted, encoded: Encoded) -> Examples:
    """Pairs for DPO, of rows in the form `trl-pairs`."""
    found = Examples()
    for record, row in converted:
        try:
            (prompt, chosen), (_, rejected) = encoded(record, row["chosen"]), encoded(record, row["rejected"])
        except Unusable as unusable:
            found.left_out[str(unusable)] += 1
            continue
        found.rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return found


def reward_pairs(found: Examples) -> Examples:
    """The same pairs for a reward model, which reads prompt and completion as one."""
    whole = [
        {"chosen_ids": row["prompt_ids"] + row["chosen_ids"], "rejected_ids": row["prompt_ids"] + row["rejected_ids"]}
        for row in found.rows
    ]
    return Examples(whole, found.left_out)


def unpaired(converted: Converted, encoded: Encoded, *, batch: int, seed: int) -> Examples:
    """Good and bad completions for KTO, of rows in the form `trl-unpaired`, in the order in which it reads them.

    Its KL term needs each prompt with another prompt's completion: TRL takes the row before within a batch of `batch`
    rows. The rows are shuffled first, since those of one record stand side by side.
    """
    found = Examples()
    for record, row in converted:
        try:
            prompt, completion = encoded(record, row["completion"])
        except Unusable as unusable:
            found.left_out[str(unusable)] += 1
            continue
        found.rows.append({"prompt_ids": prompt, "completion_ids": completion, "label": row["label"]})
    generator(seed, "unpaired").shuffle(found.rows)
    for start in range(0, len(found.rows), batch):
        part = found.rows[start : start + batch]
        for before, row in zip([part[-1], *part[:-1]], part, strict=True):
            row["KL_completion_ids"] = before["completion_ids"]
    return found


def prompts(records: Iterable[Feedback], prompter: Prompter) -> tuple[Examples, dict[str, RecordRequest]]:
    """The prompts of records for RL, and the request of each by the record's id."""
    found, requests = Examples(), {}
    for record in records:
        try:
            cut_prompt(prompter.tokens, record)
            requests[record.id] = prompter.request(record, "", "")
        except Unusable as unusable:
            found.left_out[str(unusable)] += 1
            continue
        found.rows.append({"prompt": record.id})
    return found, requests


def check_enough(found: Examples, batch: int, what: str) -> None:
    """Raises InputError if the rows don't fill one step."""
    if len(found.rows) < batch:
        reasons = ", ".join(f"{times:,} {reason}" for reason, times in found.left_out.most_common())
        lost = f" (left out: {reasons})" if reasons else ""
        raise InputError(
            f"The feedback gives {len(found.rows):,} {what}{lost}, and a step takes {batch}; lower --batch."
        )
