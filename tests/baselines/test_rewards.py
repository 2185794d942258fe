"""The reward of RL is our scorer's score of the same ids, and a text that has ended differs from one that was cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from coh_lightning.baselines.examples import PLAIN, prompts
from coh_lightning.baselines.rewards import Reward, accuracy
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.scorers import CheckedScorer, load_scorer
from coh_lightning.model.tokenizer import load_tokenizer
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording
from coh_lightning.world.feedback import load_base, world_prompts


@cache
def world() -> tuple[Prompter, list[Feedback]]:
    form = PromptFormat(before_marker=" ", before_output=" ")
    prompter = Prompter.make(load_tokenizer("world"), PLAIN, Wording(), form, max_prompt_tokens=200)
    return prompter, world_prompts(6, seed=1)


def test_the_reward_is_the_scorers_score_of_our_own_completion_of_the_same_ids() -> None:
    prompter, records = world()
    _, requests = prompts(records, prompter)
    lm, _ = load_base()
    sampling = Sampling(max_new_tokens=14, temperature=1.0, samples=2, seed=0)
    end = prompter.stop_ids[0]
    written = generate(lm, list(requests.values()), sampling, stop_ids=prompter.stop_ids, pad_id=end)
    ours = [prompter.completion(one, sampling, system="rloo") for one in written]
    assert {one.stop for one in ours} == {"end", "length"}
    ids = [[*one.ids.tolist(), *([end] if one.stop == "end" else [])] for one in written]
    names = [one.request.prompt_id for one in written]
    reward = Reward(prompter, requests, 14, scorer=load_scorer("world"))
    wanted = [scores["overall"] for scores in load_scorer("world")(ours)]
    assert reward.of_completion_ids(names, ids) == wanted and len(set(wanted)) > 3
    made = [reward.completion(*pair) for pair in zip(names, ids, strict=True)]
    assert [(one.text, one.stop, one.completion_tokens, one.prompt) for one in made] == [
        (one.text, one.stop, one.completion_tokens, one.prompt) for one in ours
    ]


def test_a_scorer_sees_whether_the_model_ended_its_text() -> None:
    prompter, records = world()
    _, requests = prompts(records, prompter)

    def ended(completion: Completion) -> dict[str, float]:
        return {"ended": float(completion.stop == "end")}

    reward = Reward(prompter, requests, 8, scorer=CheckedScorer("ended", ended))
    ids = prompter.tokens.encoder.encode_texts([" she went to the lake ."])[0].tolist()
    tokenizer = prompter.tokens.encoder.tokenizer
    both = [[*ids, prompter.stop_ids[0]], ids]
    first, second = (tokenizer.decode(one, skip_special_tokens=True) for one in both)
    assert first == second, "TRL's own texts are the same"
    name = records[0].id
    assert reward.of_completion_ids([name, name], both, completions=["", ""]) == [1.0, 0.0]
    assert reward.of_completion_ids([name], [[]]) == [0.0]


def test_one_of_several_scores_is_named() -> None:
    prompter, records = world()
    _, requests = prompts(records, prompter)
    ids = prompter.tokens.encoder.encode_texts([" she went to the lake ."])[0].tolist()
    arguments = [records[0].id], [[*ids, prompter.stop_ids[0]]]
    scorer = load_scorer("world")
    for name in ("accuracy", "coverage"):
        reward = Reward(prompter, requests, 8, scorer=scorer, name=name)
        [found] = scorer([reward.completion(arguments[0][0], arguments[1][0])])
        assert reward.of_completion_ids(*arguments) == [found[name]]
    with pytest.raises(InputError, match=r"gives no score 'kindness', but accuracy, coverage, .*; choose one with"):
        Reward(prompter, requests, 8, scorer=scorer, name="kindness").of_completion_ids(*arguments)


def test_a_reward_model_reads_the_prompt_and_the_ids_with_their_end() -> None:
    prompter, records = world()
    _, requests = prompts(records, prompter)
    seen: list[list[int]] = []

    class Model:
        def score_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
            seen.extend(row["input_ids"] for row in rows)
            assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in rows)
            return [{"reward": float(len(row["input_ids"]))} for row in rows]

    reward = Reward(prompter, requests, 8, model=Model())  # type: ignore[arg-type]
    name, end = records[0].id, prompter.stop_ids[0]
    before = requests[name].prompt_ids.tolist()
    assert reward.of_completion_ids([name, name], [[5, 6, end], [5, 6]]) == [len(before) + 3, len(before) + 2]
    assert seen == [[*before, 5, 6, end], [*before, 5, 6]]
    rows = [{"chosen_ids": [1, 2], "rejected_ids": [1]}, {"chosen_ids": [1], "rejected_ids": [1, 2]}]
    assert accuracy(Model(), [*rows, {"chosen_ids": [3], "rejected_ids": [4]}]) == 1 / 3  # type: ignore[arg-type]


def test_a_completion_that_goes_on_with_the_end_token_alone_is_empty() -> None:
    prompter, records = world()
    _, requests = prompts(records, prompter)
    made = Reward(prompter, requests, 8).completion(records[0].id, [prompter.stop_ids[0]])
    assert (made.text, made.stop, made.completion_tokens) == ("", "end", 1)
    assert np.array_equal(requests[records[0].id].prompt_ids, prompter.request(records[0], "", "").prompt_ids)
