"""Rows: their order, their keys, and the commands that make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.compare.rows import fit_key, in_order, row_key, rows_of, tuning_rows, with_rate, without
from coh_lightning.compare.steps import Places, fit_name, steps_of
from coh_lightning.compare.study import Study, World
from coh_lightning.compare.study_file import read_study
from coh_lightning.errors import InputError

TEXT = """\
config: conf/quickstart.yaml
settings: {trainer.max_steps: 20}
worlds:
  h: {kind: habits, shipped: true, hasty: 0.62}
  n: {kind: noise, wrong_words: 0.1}
seeds: [0, 1]
bases: [0, 1]
evaluation: {temperatures: [1, 0.7], prompts: 9}
tune: {prompts: 5}
methods:
  base: {command: none}
  sft: {settings: {data.method: conf/method/sft.yaml}, rates: [0.001, 0.003]}
  bad: {fit: sft, evaluation: {condition: bad}}
  fcm: {settings: {data.fcm_range: [0.0, 0.05]}, rates: sft}
  reward: {command: trl reward}
  rlhf: {command: trl rloo, reward: reward, settings: {steps: 3}, rates: [0.0001]}
groups:
- {name: first, methods: [base, sft, bad]}
- {name: then, methods: [sft, fcm, rlhf], worlds: [h], seeds: [0], bases: [0]}
baseline: sft
"""
COMPOSED: dict[str, Any] = {"trainer": {"max_steps": 20}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    file = tmp_path / "study.yaml"
    file.write_text(TEXT)
    return read_study(file)


def named(study: Study, name: str) -> Any:
    return next(row for row in rows_of(study) if row.name == name)


def test_all_methods_of_all_worlds_come_before_the_next_seed(study: Study) -> None:
    first = [row.name for row in rows_of(study) if row.group == "first"]
    assert len(first) == 3 * 2 * 2 * 2
    assert first[:7] == [
        "h/base/base0/seed0", "h/sft/base0/seed0", "h/bad/base0/seed0",
        "n/base/base0/seed0", "n/sft/base0/seed0", "n/bad/base0/seed0",
        "h/base/base1/seed0",
    ]  # fmt: skip
    assert [name[-5:] for name in first] == ["seed0"] * 12 + ["seed1"] * 12


def test_a_row_of_two_groups_is_run_once(study: Study) -> None:
    assert [row.name for row in rows_of(study) if row.group == "then"] == ["h/fcm/base0/seed0", "h/rlhf/base0/seed0"]


def test_only_takes_a_pattern(study: Study) -> None:
    assert [row.name for row in rows_of(study, "h/*/base0/seed1")] == [
        f"h/{name}/base0/seed1" for name in ("base", "sft", "bad")
    ]
    with pytest.raises(InputError, match=r"--only x matches no row; a row is called h/base/base0/seed0"):
        rows_of(study, "x")


def test_tuning_rows_stand_before_the_first_row_that_needs_them(study: Study) -> None:
    names = [row.name for row in in_order(study, rows_of(study))][:5]
    assert names == [
        "h/base/base0/seed0", "h/sft/base0/seed0/rate=0.001", "h/sft/base0/seed0/rate=0.003", "h/sft/base0/seed0",
        "h/bad/base0/seed0",
    ]  # fmt: skip


def test_rates_are_tuned_at_seed_0_and_base_0_on_other_prompts(study: Study) -> None:
    (one, other) = tuning_rows(study, named(study, "n/bad/base1/seed1"))
    assert (one.method.name, one.world.name, one.base, one.seed) == ("sft", "n", 0, 0)
    assert (one.rate, other.rate) == (0.001, 0.003)
    assert (one.evaluation.prompts, one.evaluation.temperatures, one.evaluation.condition) == (5, (1.0,), "good")
    assert tuning_rows(study, named(study, "h/fcm/base0/seed0")) == [
        replace(row, group="then") for row in tuning_rows(study, named(study, "h/sft/base0/seed0"))
    ]
    assert tuning_rows(study, named(study, "h/rlhf/base0/seed0")) == []


def test_rates_may_be_tuned_in_one_world(study: Study) -> None:
    one = replace(study, tune=replace(study.tune, world="h"))
    assert {row.world.name for row in tuning_rows(one, named(study, "n/sft/base0/seed0"))} == {"h"}


def test_the_key_has_all_that_decides_the_figures(study: Study) -> None:
    row = with_rate(named(study, "h/sft/base0/seed0"), 0.001)
    how = row.evaluation
    others = [
        with_rate(row, 0.003),
        replace(row, seed=1),
        replace(row, base=1),
        replace(row, tuning=True),
        replace(row, world=World("h", {**row.world.settings, "hasty": 0.7})),
        replace(row, evaluation=replace(how, prompts=8)),
        replace(row, evaluation=replace(how, temperatures=(1.0,))),
        replace(row, evaluation=replace(how, condition="bad")),
        replace(row, evaluation=replace(how, settings={"model.generation.sampling.guidance": 1})),
    ]
    keys = [row_key(study, one, COMPOSED) for one in (row, *others)]
    keys.append(row_key(study, row, {"trainer": {"max_steps": 21}}))
    assert len(set(keys)) == len(keys)


def test_the_key_has_no_names(study: Study) -> None:
    """Another name of method, world, group or study file changes no figure."""
    row = named(study, "h/sft/base0/seed0")
    renamed = replace(
        row, method=replace(row.method, name="x", label="y"), world=World("z", row.world.settings), group="g"
    )
    assert row_key(study, row, COMPOSED) == row_key(study, renamed, COMPOSED)


def test_rows_of_one_fit_share_it(study: Study) -> None:
    sft, bad = (with_rate(named(study, f"h/{name}/base0/seed0"), 0.001) for name in ("sft", "bad"))
    assert fit_name(study, sft, COMPOSED) == fit_name(study, bad, COMPOSED)
    assert row_key(study, sft, COMPOSED) != row_key(study, bad, COMPOSED)


def test_the_key_of_rl_has_its_reward_model(study: Study) -> None:
    row = named(study, "h/rlhf/base0/seed0")
    reward = study.methods["reward"]
    other = replace(study, methods={**study.methods, "reward": replace(reward, settings={"steps": 7})})
    assert fit_key(study, row, COMPOSED) != fit_key(other, row, COMPOSED)


def test_a_configuration_loses_what_the_world_and_the_seed_decide() -> None:
    config = {
        "seed_everything": 3,
        "run": {"name": "x"},
        "model": {"name_or_path": "world", "lr": 0.1},
        "data": {"feedback": "world", "seed": 3, "method": {"name": "sft"}},
    }
    assert without(config) == {"model": {"lr": 0.1}, "data": {"method": {"name": "sft"}}}


def test_the_commands_of_a_row(study: Study, tmp_path: Path) -> None:
    row = with_rate(named(study, "n/sft/base1/seed1"), 0.003)
    base, world, fit, *tests = steps_of(study, row, COMPOSED, tmp_path)
    assert [one.kind for one in (base, world, fit, *tests)] == ["base", "world", "fit", "test", "test"]
    model = f"{tmp_path}/worlds/{base.name}"
    assert base.words == ["-m", "coh_lightning.world.build", model, "--kind", "noise", "--seed", "1", "--records", "1"]
    folder = f"{tmp_path}/worlds/{world.name}"
    assert list(world.words[2:]) == [
        folder, "--kind", "noise", "--wrong-words", "0.1", "--seed", "1", "--base", f"{model}/model",
    ]  # fmt: skip
    assert list(fit.words[:3]) == ["fit", "--config", "conf/quickstart.yaml"]
    assert {
        "--trainer.max_steps=20", "--data.method=conf/method/sft.yaml", "--model.lr=0.003", "--seed_everything=1",
        "--data.seed=1", f"--model.name_or_path={folder}/model", f"--data.feedback={folder}/feedback.jsonl",
        f"--run.folder={tmp_path}/fits/{fit.name}",
    } <= set(fit.words)  # fmt: skip
    first, second = tests
    run = Places(tmp_path).fit(fit.name)
    assert list(first.words[:5]) == [
        "test", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt",
    ]  # fmt: skip
    assert {"--model.generation.sampling.temperature=0.7", '--data.conditions=["good"]'} <= set(second.words)
    assert any(f"{folder}/test.jsonl" in word for word in first.words)


def test_a_shipped_base_is_not_made_and_shared_by_seeds(study: Study, tmp_path: Path) -> None:
    world = steps_of(study, named(study, "h/base/base0/seed1"), COMPOSED, tmp_path)[0]
    assert world.kind == "world" and list(world.words[-2:]) == ["--base", "shipped"]
    seeds = [steps_of(study, named(study, f"n/base/base0/seed{seed}"), COMPOSED, tmp_path)[0] for seed in (0, 1)]
    assert seeds[0] == seeds[1] and seeds[0].kind == "base"


def test_rl_trains_its_reward_model_first(study: Study, tmp_path: Path) -> None:
    steps = steps_of(study, named(study, "h/rlhf/base0/seed0"), COMPOSED, tmp_path)
    assert [one.kind for one in steps] == ["world", "fit", "fit", "test", "test"]
    reward, rl = steps[1:3]
    assert list(reward.words[:2]) == ["trl", "reward"] and list(rl.words[:2]) == ["trl", "rloo"]
    assert f"--reward={tmp_path}/fits/{reward.name}" in rl.words and "--lr=0.0001" in rl.words
    assert f"--model.name_or_path={tmp_path}/fits/{rl.name}" in steps[3].words
