"""What would do nothing in a stage is refused or said in one sentence, and `predict` refines as `test` does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation
from coh_lightning.generation.unused import refuse_unused, unused
from generation.test_refinement import reviewing
from helpers.feedback import data_of, method, pairs, tiny
from helpers.training import held_out_data, trainer

STAGES = ("fit", "validate", "test", "predict")
BOTH = ("good", "bad")


def _said(stage: str, **settings: Any) -> str:
    sentences = unused(Generation(**settings), stage)
    assert len(sentences) == 1, sentences
    return sentences[0]


# Refused


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ({"review_of": "a.jsonl"}, "review_of is 'a.jsonl', which only `predict` uses, not `test`"),
        ({"dialogues": True}, "dialogues is True, which only `predict` uses, not `test`"),
        ({"prompts_to": "p.jsonl"}, "prompts_to is 'p.jsonl', which only `predict` uses, not `test`"),
    ],
)
def test_what_only_predict_writes_is_refused_in_test_and_said_in_fit(setting: dict[str, Any], where: str) -> None:
    settings = Generation(**setting)
    remedy = "; leave it out here, and give it to `coh predict`."
    with pytest.raises(InputError) as refused:
        refuse_unused(settings, "test", asks=BOTH)
    assert str(refused.value) == f"model.generation.{where}{remedy}"
    refuse_unused(settings, "predict", asks=BOTH)
    assert not unused(settings, "predict")
    for stage in ("fit", "validate"):
        refuse_unused(settings, stage, asks=BOTH)
        assert _said(stage, **setting) == f"model.generation.{where}{remedy}".replace("`test`", f"`{stage}`")


def test_completions_from_elsewhere_are_for_test_and_predict() -> None:
    said = _said("fit", completions_from="c.jsonl")
    assert said.endswith("`test` and `predict` uses, not `fit`; leave it out here, and give it to `coh test`.")
    for stage in ("test", "predict"):
        refuse_unused(Generation(completions_from="c.jsonl"), stage, asks=BOTH)
        assert not unused(Generation(completions_from="c.jsonl"), stage)


@pytest.mark.parametrize(
    ("elsewhere", "stages"), [("completions_from", ("test", "predict")), ("prompts_to", ("predict",))]
)
def test_second_answers_need_the_model_here(elsewhere: str, stages: tuple[str, ...]) -> None:
    for stage in stages:
        with pytest.raises(InputError, match=rf"refine is 2, but .* \({elsewhere}: 'f'\), .*; set refine to 0\.$"):
            refuse_unused(Generation(refine=2, **{elsewhere: "f"}), stage, asks=BOTH)


def test_refinement_needs_answers_under_the_good_sentence() -> None:
    with pytest.raises(InputError, match=r"refine is 1, but data\.conditions names bad, .* add good, or set refine to"):
        refuse_unused(Generation(refine=1), "test", asks=["bad"])
    refuse_unused(Generation(refine=1), "test", asks=["bad", "good"])
    refuse_unused(Generation(refine=1), "fit", asks=["bad"])
    refuse_unused(Generation(refine=1, review_of="a.jsonl"), "predict", asks=["bad"])


# Said


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"guidance_cutoff": 0.1}, "guidance_cutoff is 0.1, but guidance is null.*set guidance, to 0 for the cutoff"),
        ({"guidance_from": "bad accuracy"}, "guidance_from is bad accuracy, but guidance is null.*; set guidance."),
        ({"guidance": 0.0, "guidance_from": "x"}, "guidance_from is x, but guidance is 0, .*; raise guidance."),
        ({"top_k": 5}, "top_k is 5, but temperature is 0.*; set a temperature."),
        ({"top_p": 0.9}, "top_p is 0.9, but temperature is 0.*; set a temperature."),
    ],
)
def test_a_setting_without_effect_beside_another_one_is_said(stage: str, setting: dict[str, Any], message: str) -> None:
    said = _said(stage, sampling=Sampling(**setting))
    assert said.startswith("model.generation.sampling.")
    with pytest.raises(InputError, match=message):
        raise InputError(said)


@pytest.mark.parametrize("stage", STAGES)
def test_settings_with_an_effect_are_not_spoken_of(stage: str) -> None:
    sampling = Sampling(temperature=1.0, top_k=5, top_p=0.9, guidance=1.0, guidance_cutoff=0.1, guidance_from="x")
    for settings in (
        Generation(),
        Generation(sampling=sampling, refine=1, critic="self", generate_every_n_validations=1),
        Generation(sampling=Sampling(guidance=0.0, guidance_cutoff=0.5, seed=3, max_seconds=9.0), scorers=("a:b",)),
    ):
        assert unused(settings, stage) == []
        refuse_unused(settings, stage, asks=BOTH)


@pytest.mark.parametrize("stage", STAGES)
def test_a_critic_without_rounds_is_said(stage: str) -> None:
    said = "model.generation.critic is 'self', but refine is 0, so no answer is criticized; set refine to 1."
    assert _said(stage, critic="self") == said


def test_a_fit_that_writes_nothing_says_that_nothing_is_refined() -> None:
    assert "generate_every_n_validations is 0, so `fit` writes nothing; set that to 1" in _said("fit", refine=1)
    assert not unused(Generation(refine=1), "test") and not unused(Generation(refine=1), "predict")


def test_what_predict_leaves_out_beside_dialogues_and_reviews_is_said() -> None:
    assert "with dialogues, answers of dialogues are not refined" in _said("predict", refine=1, dialogues=True)
    assert "with review_of, answers in a file are not refined" in _said("predict", refine=1, review_of="a.jsonl")
    for name, value in (("scorers", ("a:b",)), ("reward_model", "x")):
        assert f"{name} has no effect with review_of" in _said("predict", review_of="a.jsonl", **{name: value})
        assert not unused(Generation(dialogues=True, **{name: value}), "predict")


def test_settings_of_a_server_are_said_without_one_and_a_time_limit_with_one() -> None:
    assert "served_model is 'm', but no prompts go to a server" in _said("predict", served_model="m")
    assert not unused(Generation(served_model="m", prompts_to="p.jsonl"), "predict")
    assert not unused(Generation(served_model="m"), "fit")
    said = _said("predict", sampling=Sampling(max_seconds=3.0), prompts_to="p.jsonl")
    assert "max_seconds is 3, but the completions are written elsewhere" in said


# In a run


def test_a_run_warns_before_its_stage_and_refuses_before_anything_is_written(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_test_prompts=1)
    sampling = Sampling(max_new_tokens=2, guidance_cutoff=0.5)
    with pytest.warns(UserWarning, match=r"guidance_cutoff is 0\.5, but guidance is null"):
        trainer(tmp_path).test(tiny(sampling=sampling), datamodule=data, verbose=False)
    with pytest.raises(InputError, match=r"review_of is 'a\.jsonl', which only `predict` uses"):
        trainer(tmp_path).test(tiny(review_of="a.jsonl"), datamodule=reviewing(tmp_path))
    with pytest.raises(InputError, match=r"data\.conditions names bad, and answers under 'good' are refined"):
        trainer(tmp_path).predict(tiny(refine=1), datamodule=held_out_data(tmp_path, conditions=["bad"]))


def test_guidance_away_from_the_only_condition_is_said(tmp_path: Path) -> None:
    model = tiny(sampling=Sampling(max_new_tokens=2, guidance=1.0))
    alone = held_out_data(tmp_path, max_test_prompts=1, conditions=["bad"])
    with pytest.warns(UserWarning, match=r"guidance is 1, but completions are written under 'bad' alone"):
        trainer(tmp_path).test(model, datamodule=alone, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*sampling.guidance.*")
        trainer(tmp_path).test(model, datamodule=held_out_data(tmp_path, max_test_prompts=1), verbose=False)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_rounds_of_a_fit_without_validation_are_said(share: float, tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1, **({"limit_val_batches": 0} if share else {}))
    data = data_of(pairs(20), tmp_path, train_only=False, validation_share=share, test_share=0.0)
    with pytest.warns(UserWarning, match=r"generate_every_n_validations is 1, but this fit has no validation"):
        run.fit(tiny(generate_every_n_validations=1), datamodule=data)


def _written(folder: Path) -> dict[str, str]:
    return {one.id: one.text for one in read_jsonl(folder / "completions.jsonl", Completion)}


@pytest.mark.parametrize(("of", "critic"), [("coh", None), ("reviewed", "self")])
def test_predict_writes_the_second_answers_that_test_writes(of: str, critic: str | None, tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=5, temperature=1.0, samples=2)
    found: dict[str, dict[str, str]] = {}
    for stage in ("test", "predict"):
        data = reviewing(tmp_path) if of == "reviewed" else held_out_data(tmp_path, method=method(of))
        pl.seed_everything(0, verbose=False)
        model = tiny(sampling=sampling, refine=2, critic=critic)
        run = trainer(tmp_path / stage, CompletionWriter())
        returned = (run.test if stage == "test" else run.predict)(model, datamodule=data)
        found[stage] = _written(tmp_path / stage)
    assert found["test"] == found["predict"]
    asks = {id.split(":")[1] for id in found["predict"]}
    assert {"good", "refined 2", "fresh 2", "refined 3", "fresh 3"} <= asks and ("review 2" in asks) == bool(critic)
    assert [one.id for batch in returned for one in batch] and sum(map(len, returned)) == len(found["predict"])


def test_first_answers_in_predict_are_those_without_refinement(tmp_path: Path) -> None:
    sampling, found = Sampling(max_new_tokens=5, temperature=1.0), []
    for refine in (0, 1):
        pl.seed_everything(0, verbose=False)
        run = trainer(tmp_path / str(refine), CompletionWriter())
        run.predict(tiny(sampling=sampling, refine=refine), datamodule=held_out_data(tmp_path))
        found.append(_written(tmp_path / str(refine)))
    plain, refined = found
    assert plain == {id: text for id, text in refined.items() if id in plain} and len(refined) > len(plain)
