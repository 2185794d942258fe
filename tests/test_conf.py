"""Every file in conf/ parses and builds what it is for, alone and on top of the quickstart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import strategies

from coh_lightning import cli
from coh_lightning.chains import Method
from coh_lightning.wording import Wording

CONF = Path(__file__).parent.parent / "conf"
PARTS = {"method": Method, "wording": Wording}
FILES = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml"))
NAMED = [name for name in FILES if name.split("/")[0] in PARTS]
TRAINERS = [name for name in FILES if name.startswith("trainer/")]
SWEEPS = [name for name in FILES if name.startswith("sweep/")]  # test_sweep.py
EXPERIMENTS = [name for name in FILES if name not in [*NAMED, *TRAINERS, *SWEEPS]]
HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"]
"""This machine need not have what a file asks for."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., cli.CoHCLI]:
    """Everything that `fit` makes before it starts: parser, data module, module, Trainer."""

    def make(*words: str) -> cli.CoHCLI:
        monkeypatch.setattr(
            sys, "argv", ["coh_lightning", "fit", *words, *HERE, f"--trainer.default_root_dir={tmp_path}"]
        )
        monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: None)
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        model_class, data_class, open_classes = cli.ours()
        return cli.build(model_class, data_class, open_classes=open_classes)

    return make


def settings(built: cli.CoHCLI, key: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(built.text)["data"][key]
    return found


def stated(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", NAMED)
def test_a_method_or_wording_states_every_field_and_is_called_like_its_file(name: str) -> None:
    """Settings given later are merged into those before: a field that a file leaves out would keep the value of another
    method.
    """
    assert set(stated(name)) == {field.name for field in fields(PARTS[name.split("/")[0]])}
    assert stated(name)["name"] == Path(name).stem


@pytest.mark.parametrize("name", NAMED)
def test_a_method_or_wording_replaces_whatever_stood_before_it(name: str, made: Callable[..., cli.CoHCLI]) -> None:
    kind = name.split("/")[0]
    last = sorted(other for other in NAMED if other.startswith(kind) and other != name)[-2]
    built = made(f"--data.{kind}={CONF / last}", f"--data.{kind}={CONF / name}")
    assert settings(built, kind) == stated(name)
    assert getattr(built.datamodule, kind).name == Path(name).stem


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_alone_and_on_the_quickstart(
    name: str, made: Callable[..., cli.CoHCLI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COH_REAL_DATA", str(CONF))  # files that name it are only built here, not read
    for words in ([f"--config={CONF / name}"], [f"--config={CONF / 'quickstart.yaml'}", f"--config={CONF / name}"]):
        built = made(*words)
        assert type(built.model).__name__ == "CoHModule" and type(built.datamodule).__name__ == "CoHDataModule"


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_builds(name: str, made: Callable[..., cli.CoHCLI]) -> None:
    built = made(f"--config={CONF / 'quickstart.yaml'}", f"--trainer={CONF / name}")
    wanted = {key: value for key, value in stated(name).items() if key not in ("accelerator", "devices", "strategy")}
    got = yaml.safe_load(built.text)["trainer"]
    assert {key: got[key] for key in wanted} == wanted
    assert got["max_steps"] == stated("quickstart.yaml")["trainer"]["max_steps"]


@pytest.mark.parametrize("name", [name for name in TRAINERS if isinstance(stated(name).get("strategy"), dict)])
def test_a_strategy_is_one_that_lightning_builds_and_its_sizes_are_the_devices(name: str) -> None:
    settings = stated(name)
    kind = getattr(strategies, settings["strategy"]["class_path"].rpartition(".")[2])
    built, sizes = kind(**settings["strategy"]["init_args"]), settings["strategy"]["init_args"]
    assert isinstance(built, strategies.Strategy)
    if kind is strategies.ModelParallelStrategy:
        assert sizes["data_parallel_size"] * sizes["tensor_parallel_size"] == settings["devices"] * settings.get(
            "num_nodes", 1
        )


def test_the_default_method_and_wording_are_those_of_their_files(made: Callable[..., cli.CoHCLI]) -> None:
    built = made("--data.row_tokens=1024")
    assert settings(built, "method") == stated("method/coh.yaml")
    assert settings(built, "wording") == stated("wording/default.yaml")
