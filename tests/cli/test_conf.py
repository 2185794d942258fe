"""Every file in conf/ parses and builds what it is for: values, layers, and self-contained experiments."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import strategies

from coh_lightning.__main__ import main
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import Plan, PlannedTree
from coh_lightning.sequences.wording import Wording

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
PARTS = {"method": Method, "wording": Wording}
FILES = sorted(str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml"))
NAMED = [name for name in FILES if name.split("/")[0] in PARTS]
SWEEPS = [name for name in FILES if name.startswith("sweep/")]  # test_sweep.py
STUDIES = [name for name in FILES if name.startswith(("compare/", "rounds/"))]  # tests/compare/, tests/rounds/
EXPERIMENTS = [name for name in FILES if name.startswith("experiment/")]
WORLD = [name for name in EXPERIMENTS if name.startswith("experiment/world")]
LAYERS = [name for name in FILES if name not in [*NAMED, *SWEEPS, *STUDIES, *EXPERIMENTS, "quickstart.yaml"]]
QUICKSTART = f"--config={CONF / 'quickstart.yaml'}"
HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
"""This machine may not have what a file needs."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., cli.CoHCLI]:
    """Everything that `fit` makes before it starts: parser, data module, module, Trainer."""
    for folder in ("COH_REAL_DATA", "COH_CONSTRAINTS"):
        monkeypatch.setenv(folder, str(tmp_path))  # files that name it are only built here, not read

    def make(*words: str) -> cli.CoHCLI:
        monkeypatch.setattr(
            sys, "argv", ["coh_lightning", "fit", *words, *HERE, f"--trainer.default_root_dir={tmp_path}"]
        )
        monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: None)
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        model_class, data_class, open_classes = cli.ours()
        return cli.build(model_class, data_class, open_classes=open_classes)

    return make


def settings(built: cli.CoHCLI) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(built.text)
    return found


def stated(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / name).read_text(encoding="utf-8"))
    return found


# Values


@pytest.mark.parametrize("name", NAMED)
def test_a_method_or_wording_file_sets_every_field_and_its_own_name(name: str) -> None:
    """Settings given later are merged into those before: a field that a file leaves out would keep the value of another
    method.
    """
    assert set(stated(name)) == {field.name for field in fields(PARTS[name.split("/")[0]])}
    assert stated(name)["name"] == Path(name).stem


@pytest.mark.parametrize("name", NAMED)
def test_a_later_method_or_wording_replaces_the_earlier_one(name: str, made: Callable[..., cli.CoHCLI]) -> None:
    kind = name.split("/")[0]
    last = sorted(other for other in NAMED if other.startswith(kind) and other != name)[-2]
    built = made("--data.feedback=world", f"--data.{kind}={CONF / last}", f"--data.{kind}={CONF / name}")
    assert settings(built)["data"][kind] == stated(name)
    assert getattr(built.datamodule, kind).name == Path(name).stem


def test_the_default_method_and_wording_are_those_of_their_files(made: Callable[..., cli.CoHCLI]) -> None:
    data = settings(made("--data.feedback=world"))["data"]
    assert (data["method"], data["wording"]) == (stated("method/coh.yaml"), stated("wording/default.yaml"))


# Layers and experiments

ELSEWHERE = {"accelerator", "devices", "num_nodes", "strategy", "callbacks", "feedback", "sources"}
"""Keys that are built with another value here: what this machine need not have, and what is made absolute or full."""


def assert_holds(config: dict[str, Any], layer: dict[str, Any]) -> None:
    """Every setting of a layer is in the configuration."""
    for key in layer.keys() - ELSEWHERE:
        if isinstance(layer[key], dict):
            assert_holds(config[key], layer[key])
        else:
            assert config[key] == layer[key]


@pytest.mark.parametrize("name", [*LAYERS, *EXPERIMENTS])
def test_layers_and_experiments_have_root_keys(name: str) -> None:
    assert set(stated(name)) <= {"run", "trainer", "model", "data"}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_builds_on_an_experiment(name: str, made: Callable[..., cli.CoHCLI], tmp_path: Path) -> None:
    if name.startswith("data/"):
        built = made(f"--config={CONF / name}", "--model.name_or_path=world")
    else:
        built = made(QUICKSTART, f"--config={CONF / name}")
    assert_holds(settings(built), stated(name))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_self_contained(name: str, made: Callable[..., cli.CoHCLI]) -> None:
    assert {"feedback", "sources"} & stated(name)["data"].keys() and stated(name)["model"]["name_or_path"]
    built = made(f"--config={CONF / name}")
    assert type(built.model).__name__ == "CoHModule" and type(built.datamodule).__name__ == "CoHDataModule"
    sources = [*stated(name)["data"].get("sources", []), *stated(name)["data"].get("test_sources", [])]
    assert sum(key == "path" for key in re.findall(r"\w+", str(stated(name)))) == len(sources)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_states_memory_time_and_result_and_is_in_the_table(name: str) -> None:
    head = (CONF / name).read_text(encoding="utf-8").split("\nrun:")[0]
    assert all(word in head for word in ("coh fit --config conf/", "Memory: ", "Time: ")) and re.search(
        "[Rr]each", head
    )
    assert f"| [`{Path(name).stem}`](experiment/{Path(name).name}) |" in (CONF / "README.md").read_text(
        encoding="utf-8"
    )


def test_the_quickstart_is_the_experiment_on_the_world() -> None:
    assert (CONF / "quickstart.yaml").read_bytes() == (CONF / "experiment" / "world.yaml").read_bytes()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("world_sft_best", {"run.name", "model.lr", "data.method"}),
        ("world_sft_faultless", {"run.name", "model.lr", "data.method", "data.max_unusable_fraction"}),
        ("world_critiques", {"run.name", "data.method"}),
        ("world_reviewed", {"run.name", "model.generation", "data.method"}),
    ],
)
def test_world_experiments_differ_only_in_what_they_compare(name: str, changes: set[str]) -> None:
    one, other = stated("quickstart.yaml"), stated(f"experiment/{name}.yaml")
    keys = {(group, key) for config in (one, other) for group in config for key in config[group]}
    assert {f"{group}.{key}" for group, key in keys if one[group].get(key) != other[group].get(key)} == changes


@pytest.mark.parametrize(
    ("name", "data"),
    [("hh", "hh"), ("summarize", "summarize"), ("ultrafeedback", "ultrafeedback"), ("critiques", "helpsteer3")],
)
def test_an_experiment_has_the_sources_of_its_data_file(name: str, data: str) -> None:
    assert stated(f"experiment/{name}.yaml")["data"]["sources"] == stated(f"data/{data}.yaml")["data"]["sources"]


def test_a_copy_of_conf_uses_its_own_methods(made: Callable[..., cli.CoHCLI], tmp_path: Path) -> None:
    for name in ("experiment", "method", "wording"):
        (tmp_path / "x" / "conf" / name).mkdir(parents=True)
    method = (CONF / "method" / "coh.yaml").read_text().replace("loss_on: all", "loss_on: last")
    (tmp_path / "x" / "conf" / "method" / "coh.yaml").write_text(method)
    for name in ("quickstart.yaml", "experiment/world.yaml"):
        copy = tmp_path / "x" / "conf" / name
        copy.write_bytes((CONF / name).read_bytes())
        data = settings(made(f"--config={copy}"))["data"]
        assert data["method"]["loss_on"] == "last" and data["wording"]["name"] == "world"


# Debugging


@pytest.mark.parametrize("layers", [["overfit", "fast_dev_run"], ["overfit"]])
def test_the_layers_for_debugging_run(layers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
    words = [QUICKSTART, *(f"--config={CONF / 'debug' / f'{name}.yaml'}" for name in layers)]
    steps = [] if "fast_dev_run" in layers else ["--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    assert main(["fit", *words, *HERE, *steps, "--trainer.enable_progress_bar=false", "--data.cache_dir=cache"]) == 0
    assert bool(list(tmp_path.rglob("metrics.csv"))) == bool(steps)


# Many ranks


def commands_on_many_ranks() -> list[str]:
    """The commands of the README, of docs/ and of the heads of files in conf/ that start more than one process."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line.strip() for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) for line in block.split("\n")
    ]
    for path in (ROOT / "docs").glob("*.md"):
        lines += path.read_text(encoding="utf-8").replace("\\\n", " ").split("\n")
    for name in LAYERS:
        lines += [line.strip("# ") for line in (CONF / name).read_text(encoding="utf-8").split("\n") if line[:1] == "#"]
    layered = [line for line in lines if re.search(r" fit .*--config[ =]conf/trainer/", line)]
    return sorted({line.split(" #")[0] for line in layered if not re.search("trainer/(cpu|gpu_bf16)", line)})


@pytest.mark.parametrize("command", commands_on_many_ranks())
def test_multi_rank_commands_of_the_docs_start(
    command: str, made: Callable[..., cli.CoHCLI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It composes, and the rows of its steps can be shared by the ranks that it starts."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    words = [word for word in words[words.index("fit") + 1 :] if not word.startswith("--run.folder")]
    config = settings(made(*words))
    files = [word for word in words if word.startswith("conf/trainer/")]
    trainer = {key: value for file in files for key, value in stated(file.removeprefix("conf/"))["trainer"].items()}
    strategy = trainer.get("strategy")
    sizes = strategy["init_args"] if isinstance(strategy, dict) else {}
    devices = [2, 4, 8] if trainer["devices"] == -1 else [trainer["devices"] * trainer.get("num_nodes", 1)]
    if started := re.search(r"(?:--nnodes (\d+) )?--nproc-per-node (\d+)", command):
        assert int(started[1] or 1) * int(started[2]) == devices[0]
    data = config["data"]
    text_rows = data["pretraining_rows_per_step"]
    plan = Plan([PlannedTree(0, (0,), 8, 1.0)], 0, 8, data["rows_per_step"], False, [8] * text_rows, text_rows)
    for ranks in devices:
        assert plan.accumulate(sizes.get("data_parallel_size", ranks)) >= 1


def test_every_multi_rank_file_has_a_documented_command() -> None:
    many = {name for name in LAYERS if name.startswith("trainer/")} - {"trainer/cpu.yaml", "trainer/gpu_bf16.yaml"}
    assert {name for name in many if any(f"conf/{name}" in command for command in commands_on_many_ranks())} == many


@pytest.mark.parametrize(
    "name", [name for name in LAYERS if isinstance(stated(name).get("trainer", {}).get("strategy"), dict)]
)
def test_lightning_builds_the_strategy_and_its_sizes_match_the_devices(name: str) -> None:
    trainer = stated(name)["trainer"]
    sizes = trainer["strategy"]["init_args"]
    kind = getattr(strategies, trainer["strategy"]["class_path"].rpartition(".")[2])
    assert isinstance(kind(**sizes), strategies.Strategy)
    if kind is strategies.ModelParallelStrategy:
        ranks = trainer["devices"] * trainer.get("num_nodes", 1)
        assert sizes["data_parallel_size"] * sizes["tensor_parallel_size"] == ranks
