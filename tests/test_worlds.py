"""The embedded worlds by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coh_lightning import CoHDataModule, CoHModule, InputError
from coh_lightning.generation.scorers import load_critic, load_scorer
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.tokenizer import choose_tokenizer, load_tokenizer
from coh_lightning.world import feedback, pretraining
from coh_lightning.worlds import NOTE, TABLE, import_path, is_world, resolve
from helpers.completions import completion

NAMES = {"world": "habits", "world:habits": "habits", "world:noise": "noise"}


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_each_name_stands_for_a_world_in_every_setting(name: str, kind: str, tmp_path: Path) -> None:
    assert resolve("model", name) == resolve("tokenizer", name) == feedback.BASES[kind]  # type: ignore[index]
    assert resolve("text", name)(2, seed=0) == pretraining.pretraining_text(2, seed=0, kind=kind)  # type: ignore[arg-type]
    records = resolve("feedback", name)(posts=2, samples=2, seed=0, cache_dir=tmp_path)
    assert records == feedback.world_feedback(posts=2, samples=2, seed=0, kind=kind)  # type: ignore[arg-type]
    one = completion("Anna went to the market .", "post : Anna went to the market . it was Monday . summarise :")
    assert load_critic(name)(one) == "it leaves out the day"
    assert load_scorer(name)([one])[0]["accuracy"] == 1.0
    assert load_tokenizer(name).get_vocab() == load_tokenizer("world").get_vocab()
    spec = ModelSpec(name)
    assert spec.checkpoint is None and spec.config().vocab_size == 514
    assert CoHModule(name).base == name
    assert yaml.safe_load(f"[{name}]") == [name]


def test_the_models_of_the_two_kinds_differ() -> None:
    habits, noise, default = (
        ModelSpec(name).build().state_dict()["model.norm.weight"] for name in ("world:habits", "world:noise", "world")
    )
    assert not habits.equal(noise) and habits.equal(default)


def test_feedback_of_another_world_needs_a_model_and_the_message_names_its_own() -> None:
    own = CoHDataModule("world:noise").own_feedback
    with pytest.raises(InputError, match=r"the feedback is 'world:noise'; .*model\.name_or_path=world:noise for"):
        choose_tokenizer(None, ModelSpec(), own)
    assert choose_tokenizer(None, ModelSpec("world:noise"), own).name == "world:noise"


def test_a_world_without_a_part_says_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, "world:small", {"scorer": "a:b", "critic": "a:c"})
    assert import_path("scorer", "world:small") == "a:b"
    with pytest.raises(InputError, match=r"^`world:small` has no model; it has scorer, critic\.$"):
        resolve("model", "world:small")


@pytest.mark.parametrize(
    ("name", "is_one"), [("world", True), ("world:noise", True), ("worlds", False), ("a/b", False)]
)
def test_which_names_are_worlds(name: str, is_one: bool) -> None:
    assert is_world(name) == is_one


def test_a_world_that_is_none_is_refused_with_the_near_name() -> None:
    with pytest.raises(InputError, match=r"there is no embedded world 'world:nois'; did you mean 'world:noise'\?"):
        is_world("world:nois")


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: ModelSpec(name).config()])
def test_what_a_worlds_folder_has_not_is_refused_without_a_call_to_the_hub(load: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / NOTE).write_text("{}")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(InputError, match=rf"the world's folder {tmp_path} has no 'modle'; did you mean 'model'\?"),
    ):
        patch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("it asked the hub"))
        load(str(tmp_path / "modle"))
    assert not is_world(str(tmp_path / "model")) and not is_world(str(tmp_path / "*.jsonl"))
    (tmp_path / NOTE).unlink()
    assert not is_world(str(tmp_path / "modle"))
