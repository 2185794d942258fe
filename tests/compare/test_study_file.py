"""A study file: what it may say, and the line of what it says wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coh_lightning.compare.study_file import read_study
from coh_lightning.errors import InputError
from coh_lightning.yaml_text import dump

ROOT = Path(__file__).parents[2]

TEXT = """\
config: conf/quickstart.yaml
settings: {trainer.max_steps: 20}
worlds:
  one: {model: world, feedback: world}
seeds: [0, 1]
evaluation: {temperatures: [1, 0]}
methods:
  base: {command: none}
  coh: {settings: {data.method: conf/method/coh.yaml}, rates: [0.003]}
  bad: {fit: coh, evaluation: {condition: bad}}
baseline: base
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def test_what_a_study_states(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, TEXT))
    assert (study.name, list(study.worlds), list(study.methods)) == ("study", ["one"], ["base", "coh", "bad"])
    assert study.methods["base"].command == ()
    assert (study.methods["bad"].fit, study.methods["bad"].evaluation.condition) == ("coh", "bad")
    assert study.methods["bad"].evaluation.temperatures == (1.0, 0.0)
    (group,) = study.groups
    assert (group.methods, group.seeds, group.bases) == (("base", "coh", "bad"), (0, 1), (0,))


@pytest.mark.parametrize("file", sorted((ROOT / "conf" / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_studies_of_the_package_are_read(file: Path) -> None:
    study = read_study(file)
    assert study.primary, "its primary comparison is stated beforehand"


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("settings: {trainer", "setings: {trainer", 2, "there is no such key; did you mean 'settings'?"),
        ("baseline: base", "baseline: bas", 11, "there is no method bas; did you mean 'base'?"),
        ("{command: none}", "{comand: none}", 8, "there is no such key; did you mean 'command'?"),
        ("{command: none}", "{command: trl dop}", 8, "no command trl dop; did you mean 'trl dpo'?"),
        ("{command: none}", "{command: [fit]}", 8, "there is no command ['fit']"),
        ("fit: coh", "fit: coj", 10, "there is no earlier method coj; did you mean 'coh'?"),
        ("rates: [0.003]", "rates: [-1]", 9, "int -1 is not a number of at least 0"),
        ("rates: [0.003]", "rates: cho", 9, "there is no earlier method cho"),
        ("{command: none}", "{command: none, rates: [0.1]}", 8, "the base model is not trained"),
        ("rates: [0.003]", "rates: [0.003, 0.001]", 9, "the world one has no tune"),
        ("{model: world, feedback: world}", "{model: world}", 4, "it needs model and feedback"),
        ("{model: world, feedback: world}", "{kind: habit}", 4, "it is habits or noise"),
        ("{model: world, feedback: world}", "{kind: noise, hasty: 2}", 4, "hasty is int 2; it is a share"),
        ("feedback: world}", "feedback: none.jsonl}", 4, "there is no none.jsonl"),
        ("feedback: world}", "feedback: world, kind: noise}", 4, "model is of a given world"),
        ("seeds: [0, 1]", "seeds: []", 5, "it must be a list of at least one"),
        ("seeds: [0, 1]", "seeds: [1, 1]", 5, "seeds has 1 twice"),
        ("temperatures: [1, 0]", "temperatures: [hot]", 6, "str 'hot' is not a number"),
        ("temperatures: [1, 0]", "prompts: 0", 6, "int 0 is not a whole number of at least 1"),
        ("baseline: base", "", 1, "a study needs baseline"),
        (
            "baseline: base",
            "baseline: base\nprimary: [{compare: [coh, base], world: one, temperature: 0.7}]",
            12,
            "coh is not evaluated at 0.7, but at 1 and 0",
        ),
        (
            "baseline: base",
            "baseline: base\nclaims: [{compare: [coh], world: one, temperature: 1}]",
            12,
            "it names two methods",
        ),
        (
            "baseline: base",
            "baseline: base\naxes: [{name: a, setting: hasty, worlds: [one], methods: [coh], temperature: 1}]",
            12,
            "the world one has no setting hasty",
        ),
        ("settings: {trainer", "config: x\nsettings: {trainer", 2, "is set on line 1 already"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, line: int, says: str, tmp_path: Path) -> None:
    assert old in TEXT
    file = written(tmp_path, TEXT.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_study(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: ") and says in message and message[-1] in ".?"


def test_a_missing_file_and_one_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no study file .*conf/compare/ has examples"):
        read_study(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="it must be key: value"):
        read_study(written(tmp_path, "[1]"))


def test_groups_take_what_they_leave_out_from_the_study(tmp_path: Path) -> None:
    text = TEXT + "groups: [{name: first, methods: [base]}, {name: then, seeds: [7]}]\n"
    first, then = read_study(written(tmp_path, text)).groups
    assert (first.methods, first.seeds) == (("base",), (0, 1))
    assert (then.methods, then.seeds) == (("base", "coh", "bad"), (7,))


def test_a_variant_has_the_rates_of_its_method(tmp_path: Path) -> None:
    text = TEXT.replace("  bad:", "  fcm: {settings: {data.fcm_range: [0.0, 0.05]}, rates: coh}\n  bad:")
    method = read_study(written(tmp_path, text)).methods["fcm"]
    assert (method.rates, method.tuned_as, method.fit) == ((0.003,), "coh", "fcm")


def test_settings_are_kept_as_they_are(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data.method": {"name": "x", "orders": ["p"]}, "data.fcm_range": [0.0, 0.05]}
    text = TEXT.replace("settings: {data.method: conf/method/coh.yaml}", f"settings: {settings}")
    study = read_study(written(tmp_path, text + dump({"cost": {"step": 0.5}})))
    assert dict(study.methods["coh"].settings) == settings
    assert (study.cost.step, study.cost.start) == (0.5, 6.0)
