"""The commands of a round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coh_lightning.rounds.rounds_file import RoundsFile, TestPrompts
from coh_lightning.rounds.steps import Stage, fit_words, rate_words, test_words, write_words

FILE = RoundsFile(
    "mine", "c.yaml", "p.jsonl", TestPrompts("t.jsonl", 9, 0.5), steps=7, settings={"model.lr": 0.1}, seeds=(3,)
)
FOLDER = Path("/r")
FIRST, SECOND = (Stage(FILE, FOLDER, 3, name) for name in ("round1", "round2"))


def test_the_base_model_writes_without_a_sentence_and_the_newest_under_the_good_one() -> None:
    by_base, by_newest = write_words(FIRST, None), write_words(SECOND, FIRST)
    assert by_base[:3] == ["predict", "--config", "c.yaml"]
    assert '--data.method={"name": "sft", "orders": ["p"], "sentences": "none"}' in by_base
    assert not any(word.startswith("--data.conditions") for word in by_base)
    fit = "/r/seed3/round1/fit"
    assert by_newest[:5] == ["predict", "--config", f"{fit}/config.yaml", "--ckpt_path", f"{fit}/checkpoints/last.ckpt"]
    assert '--data.conditions=["good"]' in by_newest
    for words in (by_base, by_newest):
        assert {"--model.generation.sampling.samples=4", "--model.generation.sampling.temperature=1.0",
                "--model.generation.sampling.seed=3", "--model.generation.scorers=[]"} <= set(words)  # fmt: skip


def test_a_model_is_tested_under_the_good_and_the_bad_sentence_on_prompts_that_no_round_has() -> None:
    words = test_words(SECOND, SECOND)
    assert '--data.conditions=["good", "bad"]' in words
    assert "--model.generation.sampling.temperature=0.5" in words and "--model.generation.sampling.samples=1" in words
    assert any('"path": "/r/test.jsonl"' in word for word in words)


def test_a_fit_begins_with_the_base_model_or_with_a_checkpoint() -> None:
    first, second = fit_words(FIRST, steps=7, begin=None), fit_words(SECOND, steps=7, begin=FIRST.checkpoint)
    assert not any(word.startswith("--model.name_or_path") for word in first)
    assert "--model.name_or_path=/r/seed3/round1/fit/checkpoints/last.ckpt" in second
    assert {"--model.lr=0.1", "--trainer.max_steps=7", "--data.feedback=/r/seed3/round2/feedback.jsonl",
            "--data.validation_share=0", "--data.test_share=0", "--data.seed=3"} <= set(second)  # fmt: skip


def test_a_configuration_with_sources_gets_the_feedback_as_a_source() -> None:
    words = fit_words(replace(FIRST, by_sources=True), steps=7, begin=None)
    assert not any(word.startswith("--data.feedback") for word in words)
    assert any(word.startswith("--data.sources=") and "/r/seed3/round1/feedback.jsonl" in word for word in words)


def test_raters_in_code() -> None:
    rate = {"scorers": ["a:b", "world"], "critic": "c:d", "thumb": "x=1", "scale": {"x": [0, 1]}}
    words = rate_words(replace(FIRST, file=replace(FILE, rate=rate)))
    assert words[1] == "/r/seed3/round1/write/completions.jsonl"
    assert words[4:] == [
        "--scorers", "a:b", "world", "--critic", "c:d", "--thumb", "x=1", "--scale", "x=0,1",
        "--output", "/r/seed3/round1/new.jsonl",
    ]  # fmt: skip
