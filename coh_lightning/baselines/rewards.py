"""The reward of RL, of the ids that the model wrote, end token included: a scorer's score of the completion that
`coh test` would make of the same ids, or what a reward model reads in them.

    ids of the prompt, [Apple </s>]   ->   Completion(text="Apple", stop="end")      ->   0.9
    ids of the prompt, [Apple]        ->   Completion(text="Apple", stop="length")   ->   0.4

TRL's own text of a completion is the same in both cases, since it leaves special tokens out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.generation.reward_model import RewardModel
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.scorers import Scorer


@dataclass
class Reward:
    """A reward of completion ids.

    Args:
        prompter: That of the prompts.
        requests: The prompts, by the id of their record.
        scorer: Scores completions; or ...
        model: ... a reward model that reads the same ids as the model writes.
        name: Which of the scorer's numbers; None: `overall`, or the only one.
    """

    prompter: Prompter
    requests: Mapping[str, RecordRequest]
    max_new_tokens: int
    scorer: Scorer | None = None
    model: RewardModel | None = None
    name: str | None = None
    __name__: str = field(default="reward", init=False)

    def of_completion_ids(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **more: Any
    ) -> list[float]:
        """A reward function of TRL: `prompts` are ids of records."""
        if self.model is not None:
            rows = [
                [*self.requests[name].prompt_ids.tolist(), *ids]
                for name, ids in zip(prompts, completion_ids, strict=True)
            ]
            return rewards_of(self.model, rows)
        assert self.scorer is not None
        scores = self.scorer([self.completion(*pair) for pair in zip(prompts, completion_ids, strict=True)])
        return [found[self._name_in(found)] for found in scores]

    def completion(self, name: str, ids: Sequence[int]) -> Completion:
        """The completion of ours that these ids are."""
        ended = len(ids) > 0 and ids[-1] in self.prompter.stop_ids
        text = np.array(ids[:-1] if ended else ids, np.int32)
        written = Written(self.requests[name], 0, text, "end" if ended else "length")
        return self.prompter.completion(written, Sampling(max_new_tokens=self.max_new_tokens), system="rloo")

    def _name_in(self, scores: Mapping[str, float]) -> str:
        if self.name is None and len(scores) == 1:
            return next(iter(scores))
        name = self.name or "overall"
        if name not in scores:
            known = ", ".join(scores)
            hint = did_you_mean(name, scores, "; choose one with --score.")
            raise InputError(f"The scorer gives no score '{name}', but {known}{hint}")
        return name


def rewards_of(model: RewardModel, rows: Sequence[Sequence[int]]) -> list[float]:
    """The reward of each row of ids."""
    made = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in rows]
    return [next(iter(found.values())) for found in model.score_rows(made)]


def accuracy(model: RewardModel, pairs: Sequence[Mapping[str, Sequence[int]]]) -> float:
    """The share of pairs (`chosen_ids`, `rejected_ids`) whose chosen completion has the higher reward."""
    chosen, rejected = (rewards_of(model, [row[name] for row in pairs]) for name in ("chosen_ids", "rejected_ids"))
    return sum(one > other for one, other in zip(chosen, rejected, strict=True)) / len(pairs)
