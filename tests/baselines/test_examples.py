"""TRL learns the very ids that our supervised fine-tuning learns, after the same prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from coh_lightning.baselines.examples import (
    Encoded,
    Examples,
    check_enough,
    pairs,
    plain_prompter,
    prompts,
    reward_pairs,
    unpaired,
)
from coh_lightning.cli.trl_baselines import converted
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.prompter import Prompter
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers import feedback, tokenizers

SFT = Method(name="sft", orders=("p",), sentences="none")
CHAT = [
    {
        "id": f"chat{number}",
        "prompt": [
            {"role": "user", "content": "Hello there, how are you doing on this fine day? " * number},
            {"role": "assistant", "content": "Well."},
            {"role": "user", "content": f"Say </s> and <|im_end|> {number} times."},
        ],
        "completions": [{"text": " yes\n", "rank": 1}, {"text": "<|im_end|> no</s>", "rank": 2}],
    }
    for number in range(1, 5)
]
"""The first turn of some is dropped; people write special tokens."""


def prepared(kind: str, folder: Path) -> tuple[CoHDataModule, Prompter, list[Feedback]]:
    """Data of our own supervised fine-tuning, set up, and what the command makes of the same settings under CoH."""
    tokenizer = tokenizers.byte_level(tokenizers.CHATML) if kind == "chat" else tokenizers.sentencepiece()
    tokenizer.save_pretrained(folder / "tokenizer")
    rows = CHAT if kind == "chat" else feedback.pairs(6)
    settings = {"tokenizer": str(folder / "tokenizer"), "prompt_format": PromptFormat(kind=kind)}
    settings |= {"max_prompt_tokens": 100, "max_chain_tokens": 160}
    data = feedback.built(rows, folder, **settings, method=SFT)
    coh = feedback.data_of(rows, folder, **settings)
    return data, plain_prompter(coh, data.tokenizer), [planned.record for planned in data.splits["train"]]


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_the_chosen_completion_is_learned_as_in_our_supervised_fine_tuning(kind: str, tmp_path: Path) -> None:
    data, prompter, own = prepared(kind, tmp_path)
    found = pairs(converted(own, "trl-pairs", Method(), {}), Encoded(prompter, max_tokens=160))
    assert len(own) == (len(CHAT) if kind == "chat" else 6)
    for record, planned, row in zip(own, data.splits["train"], found.rows, strict=True):
        [chain] = data.planner.chains(planned)
        tokens = data.prompter.tokens.chain(planned.prompt, chain)
        assert row["prompt_ids"] + row["chosen_ids"] == tokens.ids.tolist()
        assert [0.0] * len(row["prompt_ids"]) + [1.0] * len(row["chosen_ids"]) == tokens.learned.tolist()
        assert row["prompt_ids"] == data.prompter.request(record, "", "").prompt_ids.tolist()
        assert row["rejected_ids"][-1] == row["chosen_ids"][-1] in prompter.stop_ids
    if kind == "chat":
        assert len({len(row["prompt_ids"]) for row in found.rows}) < len(found.rows), "some were cut"


def test_a_reward_model_reads_prompt_and_completion_as_one(tmp_path: Path) -> None:
    _, prompter, own = prepared("plain", tmp_path)
    found = pairs(converted(own, "trl-pairs", Method(), {}), Encoded(prompter, max_tokens=160))
    for row, whole in zip(found.rows, reward_pairs(found).rows, strict=True):
        assert whole == {name: row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")}


def test_prompts_of_rl_are_those_of_our_requests(tmp_path: Path) -> None:
    data, prompter, own = prepared("chat", tmp_path)
    found, requests = prompts(own, prompter)
    assert [row["prompt"] for row in found.rows] == [record.id for record in own]
    for record in own:
        ours = data.prompter.request(record, "", "").prompt_ids
        assert requests[record.id].prompt_ids.tolist() == ours.tolist()


def test_each_unpaired_completion_has_that_of_the_row_before_in_its_batch(tmp_path: Path) -> None:
    _, prompter, own = prepared("plain", tmp_path)
    encoded = Encoded(prompter, max_tokens=160)
    found = unpaired(converted(own, "trl-unpaired", Method(), {}), encoded, batch=5, seed=3)
    assert [sum(row["label"] is label for row in found.rows) for label in (True, False)] == [6, 6]
    completions = [row["completion_ids"] for row in found.rows]
    order = [4, 0, 1, 2, 3, 9, 5, 6, 7, 8, 11, 10]
    assert [row["KL_completion_ids"] for row in found.rows] == [completions[index] for index in order]
    again = unpaired(converted(own, "trl-unpaired", Method(), {}), encoded, batch=5, seed=3)
    other = unpaired(converted(own, "trl-unpaired", Method(), {}), encoded, batch=5, seed=4)
    assert again.digest == found.digest != other.digest


def test_what_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    _, prompter, own = prepared("plain", tmp_path)
    counts: dict[str, int] = {}
    tie = Feedback.from_json(feedback.TIE, "here")
    lengths = sorted(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in pairs(converted(own, "trl-pairs", Method(), {}), Encoded(prompter, max_tokens=160)).rows
    )
    found = pairs(converted([*own, tie], "trl-pairs", Method(), counts), Encoded(prompter, max_tokens=lengths[3]))
    fitting = sum(length <= lengths[3] for length in lengths)
    assert len(found.rows) == fitting < 6
    assert found.left_out == {"prompt and completion are longer than max_chain_tokens": 6 - fitting}
    [(reason, times)] = counts.items()
    assert times == 1 and reason.startswith("records, ")
    prompter.tokens.max_prompt_tokens = 1
    assert prompts(own, prompter)[0].left_out == {"the prompt is longer than max_prompt_tokens": 6}


def test_too_few_rows_are_refused_with_the_reasons() -> None:
    found = Examples([{}] * 3)
    found.left_out["they are red"] = 2
    check_enough(found, 3, "pairs")
    with pytest.raises(InputError, match=r"gives 3 pairs \(left out: 2 they are red\), and a step takes 4; lower"):
        check_enough(found, 4, "pairs")
