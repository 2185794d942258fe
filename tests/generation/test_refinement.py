"""The model as its own critic, and its reviews of answers in a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import Written
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation
from coh_lightning.sequences.chains import Link
from helpers.feedback import data_of, merged, method, pairs, tiny, write
from helpers.training import trainer

SAMPLED = Sampling(max_new_tokens=6, temperature=1.0)


def judged(n: int) -> list[dict[str, Any]]:
    return [
        row | {"completions": [one | {"critique": f"it is number {i}"} for i, one in enumerate(row["completions"])]}
        for row in pairs(n)
    ]


def reviewing(tmp_path: Path, *, of: str = "reviewed", rows: int = 40, **settings: Any) -> CoHDataModule:
    shares = {"validation_share": 0.2, "test_share": 0.2}
    return data_of(judged(rows), tmp_path, train_only=False, method=method(of), **(shares | settings))


def scored(completion: Completion) -> dict[str, float]:
    assert completion.answer is None, "reviews aren't scored"
    return {"length": float(len(completion.text))}


def written(folder: Path) -> dict[str, list[Completion]]:
    by_ask: dict[str, list[Completion]] = {}
    for one in read_jsonl(folder / "completions.jsonl", Completion):
        by_ask.setdefault(one.ask, []).append(one)
    return by_ask


@pytest.mark.parametrize("of", ["reviewed", "coh+reviewed"])
def test_each_round_reviews_the_last_answer_and_asks_for_a_better_one_as_in_training(of: str, tmp_path: Path) -> None:
    data = reviewing(tmp_path, of=of, max_test_prompts=3)
    model = tiny(sampling=SAMPLED, refine=2, critic="self", scorers=["test_refinement:scored"])
    metrics = merged(trainer(tmp_path, CompletionWriter()).test(model, datamodule=data, verbose=False))
    by_ask = written(tmp_path)
    rounds = ["review 1", "refined 2", "fresh 2", "review 2", "refined 3", "fresh 3"]
    assert {ask: len(ones) for ask, ones in by_ask.items() if ask != "bad"} == dict.fromkeys(["good", *rounds], 3)
    records = {one.record.id: one.record for one in data.splits["test"]}
    tokens, words = data.prompter.tokens, data.wording
    for first, review, second in (("good", "review 1", "refined 2"), ("refined 2", "review 2", "refined 3")):
        for answer, said, better in zip(by_ask[first], by_ask[review], by_ask[second], strict=True):
            assert answer.prompt_id == said.prompt_id == better.prompt_id
            record = records[answer.prompt_id]
            assert said.answer == answer.text and not said.scores and better.answer is None and better.scores
            assert said.marker == words.question(record) and better.marker == words.request(record)
            chain = (Link("", answer.text), Link(said.marker, said.text), Link(better.marker, better.text))
            made = tokens.chain(tokens.cut_prompt(record.prompt), chain)
            for one, span in zip((said, better), made.spans[1:], strict=True):
                assert one.prompt == tokens.encoder.decode(made.ids[: span.start])
    for one, fresh in zip(by_ask["good"], by_ask["fresh 2"], strict=True):
        assert one.prompt == fresh.prompt
    assert {"test/improvement_2_length", "test/improvement_3_length_low", "test/regression_2_length"} <= set(metrics)
    assert "test/words_review_1" in metrics and "test/length_review_1" not in metrics


def test_reviews_don_t_change_what_else_is_drawn(tmp_path: Path) -> None:
    found = []
    for critic in (None, "self"):
        data = reviewing(tmp_path, of="coh+reviewed", max_test_prompts=3)
        model = tiny(sampling=SAMPLED, refine=1, critic=critic)
        pl.seed_everything(0, verbose=False)  # the same random weights
        trainer(tmp_path / str(critic), CompletionWriter()).test(model, datamodule=data, verbose=False)
        found.append(written(tmp_path / str(critic)))
    none, own = found
    for ask in ("good", "fresh 2"):
        assert [one.text for one in none[ask]] == [one.text for one in own[ask]]


@pytest.mark.parametrize("asked", [{"refine": 1, "critic": "self"}, {"review_of": "answers.jsonl"}])
def test_a_model_that_was_not_trained_with_reviews_is_refused_in_one_sentence(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    data = reviewing(tmp_path, of="coh")
    with pytest.raises(InputError, match=r"the method 'coh' has no order 'reviewed', .*conf/method/reviewed\.yaml\.$"):
        trainer(tmp_path).predict(tiny(**asked), datamodule=data)


def test_without_sentences_no_answer_can_be_called_bad(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"refine is 1, but the method 'reviewed' has no sentence that calls an answer bad"
    ):
        trainer(tmp_path).test(tiny(refine=1), datamodule=reviewing(tmp_path))


def test_an_answer_without_room_for_a_review_is_left_out_with_its_control(tmp_path: Path) -> None:
    data = reviewing(tmp_path, max_prompt_tokens=60, max_chain_tokens=120)
    data.setup("test")
    record = data.splits["test"][0].record
    assert data.prompter.review(record, "x" * 200, "review 1") is None
    assert data.prompter.improvement(record, "x", "y" * 200, "refined 2") is None


def test_what_follows_the_question_for_a_review_is_not_part_of_an_answer(tmp_path: Path) -> None:
    data = reviewing(tmp_path)
    data.setup("test")
    request = data.requests("test")[0]
    encoder = data.prompter.tokens.encoder
    for said in (data.wording.question(request.record), data.wording.request(request.record)):
        ids = encoder.encode_texts([f"An apple\n\n{said}\nno"])[0]
        one = data.prompter.completion(Written(request, 0, ids, "length"), SAMPLED, system="s")
        assert (one.text, one.stop) == ("An apple", "marker") and data.prompter.should_stop(request, ids.tolist())


def test_a_file_of_answers_by_anybody_is_reviewed_prompt_by_prompt(tmp_path: Path) -> None:
    data = reviewing(tmp_path)
    data.setup("predict")
    first, second, third = (one.record for one in data.splits["test"][:3])
    model = tiny(sampling=SAMPLED)
    trainer(tmp_path, CompletionWriter()).predict(model, datamodule=data)
    ours = [one.to_json() for one in written(tmp_path)["good"] if one.prompt_id in (first.id, second.id)]
    anybodys = [
        {"id": "any", "prompt": record.prompt[-1].text, "completion": text}
        for record, text in ((first, "Mine"), (third, "Other"))
    ]
    strange = {"id": "x", "prompt": "Not in the split?", "completion": "No"}
    earlier = {**anybodys[0], "ask": "review 1"}
    path = write(tmp_path / "answers.jsonl", [*ours, *anybodys, strange, earlier])
    again = tiny(sampling=replace(SAMPLED, samples=2), review_of=path, scorers=["test_refinement:scored"])
    with pytest.warns(UserWarning, match="1 of 5 answers in .* are left out"):
        trainer(tmp_path, CompletionWriter()).predict(again, datamodule=data)
    by_ask = written(tmp_path)
    assert sorted((one.prompt_id, str(one.answer)) for one in by_ask["review 1"]) == sorted(
        2 * [(one["prompt_id"], one["text"]) for one in ours] + 2 * [(third.id, "Other")]
    )
    assert [(one.prompt_id, one.answer) for one in by_ask["review 2"]] == 2 * [(first.id, "Mine")]
    assert len({one.id for ones in by_ask.values() for one in ones}) == sum(map(len, by_ask.values())) == 8
    assert set(by_ask) == {"review 1", "review 2"} and all(one.reference is None for one in by_ask["review 1"])


def test_a_file_without_an_answer_to_these_prompts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", [{"id": "x", "prompt": "Not in the split?", "completion": "No"}])
    with pytest.raises(InputError, match=r"no answer is to a prompt of the test split \(1 answer to others\)"):
        trainer(tmp_path).predict(tiny(review_of=path), datamodule=reviewing(tmp_path))


@pytest.mark.parametrize("other", [{"dialogues": True}, {"prompts_to": "p.jsonl"}, {"completions_from": "c.jsonl"}])
def test_reviews_are_of_single_answers_and_written_here(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"leave out dialogues, prompts_to and completions_from"):
        Generation(review_of="answers.jsonl", **other)


def test_answers_too_long_for_a_review_are_counted(tmp_path: Path) -> None:
    data = reviewing(tmp_path, max_prompt_tokens=60, max_chain_tokens=160)
    data.setup("predict")
    record = data.splits["test"][0].record
    prompt = record.prompt[-1].text
    lines = [{"id": str(size), "prompt": prompt, "completion": "x" * size} for size in (1, 150)]
    model = tiny(sampling=SAMPLED, review_of=write(tmp_path / "answers.jsonl", lines))
    with pytest.warns(UserWarning, match=r"1 answer had no room for a review within data\.max_chain_tokens"):
        trainer(tmp_path, CompletionWriter()).predict(model, datamodule=data)
    assert [one.answer for one in written(tmp_path)["review 1"]] == ["x"]


def test_a_checkpoint_from_before_there_were_reviews_agrees_where_they_are_off(tmp_path: Path) -> None:
    data = data_of(pairs(4), tmp_path)
    data.setup("fit")
    saved = json.loads(json.dumps(data.settings()))
    del saved["method"]["feedback_weight"], saved["wording"]["review"], saved["wording"]["improve"]
    data.agree_with(saved)
    assert Prompter.from_settings(saved, data.tokenizer).method == data.method
    saved["method"]["loss_on"] = "last"
    with pytest.raises(InputError, match=r"data\.method\.loss_on is 'all', but the checkpoint was trained with 'last'"):
        data.agree_with(saved)
