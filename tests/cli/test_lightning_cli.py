"""The command line: what it refuses and how it says so, and what a run leaves behind. The model and the data are
stand-ins.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from coh_lightning.__main__ import main
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.errors import InputError
from coh_lightning.io import exclusive_lock
from helpers.stand_ins import QUIET, SIX, Data, Model, Source, names

EVERY_STEP = "{class_path: ModelCheckpoint, init_args: {every_n_train_steps: 1}}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a few configurations, and the stand-ins instead of our classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
    monkeypatch.setattr(cli, "ours", lambda: (Model, Data, (Source,)))
    monkeypatch.setattr(Model, "break_at", None)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "last.yaml").write_text(
        "orders: [pn]\nloss_on: last\nmarks: {good: 'fine:', bad: 'poor:'}\n"
    )
    (tmp_path / "conf" / "method" / "typo.yaml").write_text("orders: [pn]\nloss_onn: last\n")
    (tmp_path / "conf" / "base.yaml").write_text(
        "model: {lr: 0.1}\ndata:\n  method: method/last.yaml\nrun: {name: base}\n"
    )
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Call the command line in this process; gives the exit status."""

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["coh_lightning", *words])
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        return main()

    return call


def weights(folder: Path) -> torch.Tensor:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["line.weight"]


def column(file: Path, name: str) -> list[str]:
    with file.open(newline="") as lines:
        return [row[name] for row in csv.DictReader(lines)]


# Mistakes

MISTAKES = {
    "fitt": "there is no command fitt; did you mean 'fit'?",
    "--config conf/base.yaml fit": (
        "--config was given before the command; the command comes first: coh fit --config ..."
    ),
    "fit nonsense": "'nonsense' is neither an option nor a value of one; options are written --key=value.",
    "fit --modle.lr=3": "there is no key modle.lr; did you mean model.lr?",
    "fit --learning_rate=3": "there is no key learning_rate; did you mean model.lr?",
    "fit --model.learning_rate=3": "there is no key model.learning_rate; did you mean model.lr?",
    "fit --data.num_train_epochs=3": "there is no key data.num_train_epochs; did you mean trainer.max_epochs?",
    "fit --lr=3": "there is no key lr; did you mean model.lr?",
    "fit --model.lrr=3": "there is no key model.lrr; did you mean model.lr?",
    "fit --data.metod.loss_on=last": "there is no key data.metod.loss_on; did you mean data.method.loss_on?",
    "fit --data.method.marks.god=x": "there is no key data.method.marks.god; did you mean data.method.marks.good?",
    "fit --trainer.max_step=3": "there is no key trainer.max_step; did you mean trainer.max_steps?",
    "fit --run.nam=x": "there is no key run.nam; did you mean run.name?",
    "fit --config conf/nested_typo.yaml": (
        "there is no key data.method.loss_onn; did you mean data.method.loss_on? (conf/method/typo.yaml:2)"
    ),
    "fit --config conf/typo.yaml": "there is no key data.row_token; did you mean data.row_tokens? (conf/typo.yaml:2)",
    "fit --config conf/source_typo.yaml": (
        "there is no key data.sources.fil; did you mean data.sources.file? (conf/source_typo.yaml:1)"
    ),
    "fit --config conf/broken.yaml": "conf/broken.yaml:2: this is not YAML: expected ',' or '}', but got ':'.",
    "fit --config conf/twice.yaml": "conf/twice.yaml:3: the key 'data' is set on line 1 already; leave one out.",
    "fit --data.method={loss_on:[": "data.method is not YAML: ",
    "fit --config conf/empty.yaml": "conf/empty.yaml: this file is empty; settings are written as key: value.",
    "fit --config conf/bytes.yaml": "conf/bytes.yaml: this is not UTF-8 text: ",
    "fit --config conf/bytes.jsonl": "conf/bytes.jsonl: this is not UTF-8 text: ",
    "fit --config conf/bas.yaml": "config: there is no file conf/bas.yaml; did you mean conf/base.yaml?",
    "fit --data.method=conf/method/lost.yaml": (
        "data.method: there is no file conf/method/lost.yaml; did you mean conf/method/last.yaml?"
    ),
    "fit --data.method=lost": "data.method: there is no file lost; did you mean conf/method/last.yaml?",
    "fit --data.sources+=Linse": "data.sources: there is no class Linse; did you mean 'Lines'?",
    "fit --model=helpers.stand_ins.Model": "model: there is no file helpers.stand_ins.Model.",
    "fit --config conf/class_path.yaml": (
        "there is no key data.init_args.row_tokens; write the keys directly under data. (conf/class_path.yaml:1)"
    ),
    "fit --model.class_path=helpers.stand_ins.Model": (
        "there is no key model.class_path; write the keys directly under model."
    ),
    "fit --data.method=null": (
        "data.method is null; it must be settings, written as key: value, or the name of a file of them."
    ),
    "fit --data.row_tokens=many": "data.row_tokens is 'many'; it must be a whole number.",
    "fit --data.method.orders=pn": "data.method.orders is 'pn'; it must be a list.",
    "fit --data.method.loss_on=lats": (
        "data.method.loss_on is 'lats'; it must be one of all, last; did you mean 'last'?"
    ),
    "fit --config conf/null.yaml": "helpers.stand_ins.Lines can't be made: one of its keys is null and needs a value (",
    "fit --config conf/no_method.yaml": "data.method is inf; it must be settings, written as key: value.",
    "fit --config conf/no_group.yaml": "run is 0; it must be settings, written as key: value.",
    "fit --data=" + "x" * 3000: "data is " + "x" * 60 + "; it must be settings",
    "fit --config conf/reference.yaml": "a reference in the configuration can't be resolved: ",
    "fit --trainer.accelerator=gpux": "trainer: You selected an invalid accelerator name",
    "fit --trainer.devices=2x": "trainer: `devices` selected with `CPUAccelerator` should be an int > 0",
    "fit --config conf/callback.yaml": (
        "a class of the configuration can't be made: `mode` can be min, max, got largest"
    ),
    "fit --run.name=a/b": "run.name is 'a/b'; it names a folder under runs, so give one word without slashes.",
    "fit --ckpt_path=none.ckpt": "ckpt_path: there is no checkpoint at none.ckpt.",
    "test --ckpt_path=conf/base.yaml": "ckpt_path: conf/base.yaml is not a complete checkpoint (",
    "fit --data.complain=true": "feedback.jsonl:3: no prompt.",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_ends_in_one_line_and_leaves_nothing_behind(
    words: str, call: Callable[..., int], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    for name, text in {
        "typo": "data:\n  row_token: 4\n",
        "twice": "data: {}\nmodel: {}\ndata: {}\n",
        "nested_typo": "data: {method: method/typo.yaml}\n",
        "source_typo": "data: {sources: [{class_path: Lines, init_args: {fil: x}}]}\n",
        "broken": "model: {lr: 3\ndata: {row_tokens: 4}\n",
        "empty": "",
        "class_path": "data: {class_path: helpers.stand_ins.Data, init_args: {row_tokens: 3}}\n",
        "null": "data: {sources: [{class_path: Lines, init_args: {file: null}}]}\n",
        "callback": (
            "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.EarlyStopping, "
            "init_args: {monitor: val/nll, mode: largest}}]}\n"
        ),
        "no_group": "run: 0\n",
        "no_method": "data: {method: .inf}\n",
        "reference": "model: {lr: '${model.rate}'}\n",
    }.items():
        (here / "conf" / f"{name}.yaml").write_text(text)
    for name in ("bytes.yaml", "bytes.jsonl"):
        (here / "conf" / name).write_bytes(b"\xff\xfe\x00\x81abc")
    status = call(*words.split(), *(QUIET if words.split()[0] == "fit" and "gpux" not in words else []))
    complaints = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("error:") or "Traceback" in line
    ]
    assert status == 2
    assert len(complaints) == 1 and complaints[0].startswith("error: " + MISTAKES[words])
    assert not (here / "runs").exists()


def test_after_an_early_error_the_corrected_command_can_use_the_same_folder(
    call: Callable[..., int], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_model(self: Model) -> None:
        raise InputError("there is no such model.")

    with monkeypatch.context() as wrong:
        wrong.setattr(Model, "configure_model", no_model)
        assert call("fit", "--model.lr=0.3", "--run.folder=mine", *SIX) == call("fit", *SIX) == 2
    assert not (here / "mine").exists() and not (here / "runs").exists()
    assert call("fit", "--run.folder=mine", *SIX) == 0


def test_no_command_shows_the_usage(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 2
    assert "usage: coh COMMAND" in capsys.readouterr().out


def test_synonyms_lead_to_existing_keys() -> None:
    from coh_lightning.cli.config_errors import keys_of
    from coh_lightning.cli.key_synonyms import OURS, SYNONYMS
    from coh_lightning.data import CoHDataModule
    from coh_lightning.module import CoHModule

    classes = {"model": CoHModule, "data": CoHDataModule, "trainer": pl.Trainer}
    keys = {f"{key}.{name}" for key, kind in classes.items() for name in keys_of(kind)}
    assert set(SYNONYMS) <= keys | {"run.folder", "run.name", "run.wandb", "ckpt_path", "seed_everything"}
    assert len(OURS) == sum(len(names.split()) for names in SYNONYMS.values())
    assert not {f"{ours.split('.')[0]}.{theirs}" for theirs, ours in OURS.items()} & keys


# Configuration


def printed(call: Callable[..., int], capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call(*words, "--print_config")
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_a_config_named_in_a_file_is_relative_to_that_file(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    last = {"orders": ["pn"], "loss_on": "last", "marks": {"good": "fine:", "bad": "poor:"}}
    assert printed(call, capsys, "fit", "--config", "conf/base.yaml")["data"]["method"] == last
    given = printed(
        call,
        capsys,
        "fit",
        "--data.method=conf/method/last.yaml",
        "--data.method.loss_on=all",
        "--data.method.marks.bad=worse:",
    )
    assert given["data"]["method"] == {
        "orders": ["pn"],
        "loss_on": "all",
        "marks": {"good": "fine:", "bad": "worse:"},
    }


def test_arguments_in_the_form_of_a_sweep_agent_are_read(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(
        call,
        capsys,
        "fit",
        "--config=conf/base.yaml",
        "--model.lr=0.002",
        "--data.row_tokens=16",
        "--run.name=sweep",
    )
    assert (config["model"]["lr"], config["data"]["row_tokens"], config["run"]["name"]) == (
        0.002,
        16,
        "sweep",
    )


def test_a_reference_follows_what_the_command_line_overrides(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "conf" / "reference.yaml").write_text("model: {lr: 0.1, peak: '${model.lr}'}\n")
    config = printed(call, capsys, "fit", "--config", "conf/reference.yaml", "--model.lr=0.5")
    assert config["model"] == {"lr": 0.5, "peak": 0.5}


def test_a_printed_configuration_prints_itself(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    first = printed(
        call, capsys, "fit", "--config", "conf/base.yaml", "--data.sources+=Lines", "--run.folder=somewhere"
    )
    (here / "again.yaml").write_text(yaml.safe_dump(first))
    assert printed(call, capsys, "fit", "--config", "again.yaml") == first
    assert (
        first["seed_everything"] == 0
        and first["trainer"]["use_distributed_sampler"] is False
        and first["trainer"]["gradient_clip_val"] == 1.0
    )


# Runs


def test_a_run_leaves_one_folder_and_its_configuration_runs_it_again(call: Callable[..., int], here: Path) -> None:
    assert call("fit", "--config", "conf/base.yaml", *SIX) == 0
    (first,) = (here / "runs" / "base").iterdir()
    assert names(first) == ["checkpoints/last.ckpt", "config.yaml", "finished", "metrics.csv"]
    assert column(first / "metrics.csv", "step") == ["0", "1", "2", "3", "4", "5"]
    assert call("fit", "--config", str(first / "config.yaml")) == 0
    (second,) = set((here / "runs" / "base").iterdir()) - {first}
    assert second.name[-8:] == first.name[-8:] or second.name[-10:-2] == first.name[-8:]
    assert (second / "config.yaml").read_text() == (first / "config.yaml").read_text()
    assert torch.equal(weights(first), weights(second))


def test_the_fingerprint_depends_on_what_runs_not_on_where() -> None:
    from coh_lightning.runs.run_folder import fingerprint

    config = {
        "model": {"lr": 0.1},
        "run": {"name": "a", "folder": None},
        "trainer": {"max_steps": 3, "default_root_dir": "runs"},
    }
    elsewhere = {
        "model": {"lr": 0.1},
        "run": {"name": "b", "folder": "x"},
        "trainer": {"max_steps": 3, "default_root_dir": "/tmp"},
    }
    other = {**config, "model": {"lr": 0.2}}
    assert fingerprint(config) == fingerprint(elsewhere) != fingerprint(other)


def test_a_finished_run_is_not_run_again(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert call("fit", *SIX, "--run.folder=once") == 0
    before = {name: (here / "once" / name).stat().st_mtime_ns for name in names(here / "once")}
    assert call("fit", *SIX, "--run.folder=once") == 2
    assert (
        "error: run.folder is once, where a run has finished (6 steps); name another folder, or none."
        in capsys.readouterr().err
    )
    assert {name: (here / "once" / name).stat().st_mtime_ns for name in names(here / "once")} == before


def stop() -> None:
    raise RuntimeError("the machine went down")


def test_the_same_command_resumes_a_stopped_run(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    words = ["fit", *SIX, f"--trainer.callbacks+={EVERY_STEP}", "--run.folder=broken"]
    monkeypatch.setattr(Model, "break_at", stop)
    with pytest.raises(RuntimeError, match="went down"):
        call(*words)
    assert not (here / "broken" / "finished").exists()
    monkeypatch.setattr(Model, "break_at", None)
    assert call(*words) == 0
    assert call("fit", *SIX, f"--trainer.callbacks+={EVERY_STEP}", "--run.folder=whole") == 0
    assert column(here / "broken" / "metrics.csv", "step") == ["0", "1", "2", "3", "4", "5"]
    # the stand-in's loader begins again from the first row after a resume, so its weights differ; its steps don't
    assert torch.load(here / "broken" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert (here / "broken" / "finished").read_text() == "6 steps\n"


def test_a_running_run_is_locked_for_other_processes(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    words = ["fit", *SIX, f"--trainer.callbacks+={EVERY_STEP}", "--run.folder=broken"]
    monkeypatch.setattr(Model, "break_at", stop)
    with pytest.raises(RuntimeError, match="went down"):
        call(*words)
    monkeypatch.setattr(Model, "break_at", None)
    there = names(here / "broken")
    with exclusive_lock(here / "broken", "the other process is kept out"):
        assert call(*words) == 2
    assert "error: run.folder is broken, where another process is training this run" in capsys.readouterr().err
    assert names(here / "broken") == there
    assert call(*words) == 0, "the other one has ended"


def test_repeated_steps_are_in_the_metrics_once(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    words = ["fit", *SIX, f"--trainer.callbacks+={EVERY_STEP.replace('1', '2')}", "--run.folder=broken"]
    monkeypatch.setattr(Model, "break_at", stop)
    with pytest.raises(RuntimeError, match="went down"):
        call(*words)
    assert column(here / "broken" / "metrics.csv", "step") == [
        "0",
        "1",
        "2",
    ]  # and the newest checkpoint is that of two steps
    with (here / "broken" / "metrics.csv").open("a") as file:
        file.write("0.5,")  # cut short
    monkeypatch.setattr(Model, "break_at", None)
    assert call(*words) == 0
    assert column(here / "broken" / "metrics.csv", "step") == ["0", "1", "2", "3", "4", "5"]


def test_running_out_of_memory_names_the_settings_that_help(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill() -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.00 "
            "GiB is free."
        )

    monkeypatch.setattr(Model, "break_at", fill)
    assert call("fit", *SIX, "--run.folder=r") == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert error.startswith("error: there was not enough memory (CUDA out of memory. Tried to allocate 2.00 GiB")
    assert all(
        knob in error
        for knob in (
            "data.row_tokens",
            "data.max_chain_tokens",
            "model.gradient_checkpointing=true",
            "trainer.strategy",
        )
    )


class Deadly(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3:
            os.kill(os.getpid(), 9)
        return torch.ones(1)


def test_a_worker_that_dies_ends_in_a_sentence(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        Data, "train_dataloader", lambda self: torch.utils.data.DataLoader(Deadly(), batch_size=1, num_workers=1)
    )
    assert call("fit", *SIX, "--run.folder=r") == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert error.startswith("error: a process that builds rows died (") and "lower data.num_workers" in error


class Bad(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3:
            try:
                raise KeyError("text")
            except KeyError as error:
                raise InputError("feedback.jsonl:3: no text\u2028 in it.") from error
        return torch.ones(1)


def test_an_input_error_in_a_worker_is_one_sentence(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        Data, "train_dataloader", lambda self: torch.utils.data.DataLoader(Bad(), batch_size=1, num_workers=1)
    )
    assert call("fit", *SIX, "--run.folder=r") == 2
    said = capsys.readouterr().err
    assert "error: feedback.jsonl:3: no text\u2028 in it.\n" in said and "Traceback" not in said


@pytest.mark.parametrize("by", ["Lightning", "memory"])
def test_a_failure_before_the_first_step_leaves_a_usable_folder(
    by: str, call: Callable[..., int], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that Lightning refuses once the loaders exist, and an unexpected error."""

    def too_much(self: Any) -> None:
        raise RuntimeError("out of memory")

    if by == "Lightning":
        quiet = [word for word in SIX if "limit_val" not in word]
        assert call("fit", *quiet, "--trainer.limit_val_batches=0.001", "--run.folder=r") == 2
    else:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(Model, "on_train_start", too_much)
            call("fit", *SIX, "--run.folder=r", "--model.lr=0.5")
    assert not (here / "r").exists() or not names(here / "r")
    assert call("fit", *SIX, "--run.folder=r") == 0


@pytest.mark.parametrize(
    "words",
    [["--trainer.max_epochs=1"], ["--trainer.max_steps=2"], ["--trainer.max_steps=8"], ["--trainer.max_epochs=3"]],
)
def test_the_last_step_is_always_logged(words: list[str], call: Callable[..., int], here: Path) -> None:
    quiet = [word for word in QUIET if "log_every" not in word]
    assert (
        call("fit", *words, *quiet, "--trainer.log_every_n_steps=5", "--trainer.limit_val_batches=0", "--run.folder=r")
        == 0
    )
    steps = int((here / "r" / "finished").read_text().split()[0])
    logged = [int(step) for step in column(here / "r" / "metrics.csv", "step")]
    assert logged == [step for step in range(steps) if (step + 1) % 5 == 0 or step + 1 == steps]


def test_a_lost_connection_to_another_rank_is_one_sentence(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's message follows the other rank's own sentence, which a traceback would hide."""

    def lost() -> None:
        raise RuntimeError(
            "[/src/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:15259. This is typically "
            "caused by a remote worker"
        )

    monkeypatch.setattr(Model, "break_at", lost)
    assert call("fit", *SIX, "--run.folder=r") == 2
    said = capsys.readouterr().err
    assert (
        said == "error: the connection to another rank was lost: that one ended first, and its own message says why.\n"
    )


def test_help_all_lists_our_settings_before_the_trainers(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        call("fit", "--help-all")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    places = [
        shown.index(f"  {key}")
        for key in (
            "--model.lr LR",
            "--model.peak PEAK",
            "--data.row_tokens ROW_TOKENS",
            "--data.method.loss_on {all,last}",
            "--run.name",
            "--trainer.max_steps",
        )
    ]
    assert places == sorted(places)


def test_a_worker_that_dies_during_a_fetch_ends_in_a_sentence(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reset(queue: Any, *args: Any, **kwargs: Any) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(torch.multiprocessing.get_context().Queue().__class__, "get", reset)
    monkeypatch.setattr(
        Data,
        "train_dataloader",
        lambda self: torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=1, num_workers=1),
    )
    assert call("fit", *SIX, "--run.folder=r") == 2
    assert "error: a process that builds rows died ([Errno 104] Connection reset by peer)" in capsys.readouterr().err


def test_a_stopped_run_is_not_resumed_with_another_configuration(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Model, "break_at", stop)
    with pytest.raises(RuntimeError, match="went down"):
        call("fit", *SIX, "--run.folder=broken")
    assert call("fit", *SIX, "--run.folder=broken", "--model.lr=0.5", "--data.method.marks.bad=worse:") == 2
    error = capsys.readouterr().err
    assert 'model.lr (was 0.01, is 0.5), data.method.marks.bad (was "bad:", is "worse:"); name another folder.' in error


def test_a_folder_with_other_files_is_refused(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "letters").mkdir()
    (here / "letters" / "to_anna.txt").write_text("dear Anna")
    assert call("fit", *SIX, "--run.folder=letters") == 2
    assert (
        "run.folder is letters, which is not a run folder: it has to_anna.txt but no config.yaml; name a new or "
        "an empty folder." in capsys.readouterr().err
    )


def test_a_truncated_checkpoint_is_skipped(call: Callable[..., int], here: Path) -> None:
    from coh_lightning.runs.run_folder import newest_checkpoint

    assert call("fit", *SIX, "--run.folder=r") == 0
    whole = (here / "r" / "checkpoints" / "last.ckpt").read_bytes()
    (here / "r" / "checkpoints" / "step=9.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_checkpoint(here / "r") == here / "r" / "checkpoints" / "last.ckpt"


def test_ctrl_c_exits_with_130_and_leaves_the_run_unfinished(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    import signal

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "break_at", interrupt)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert call("fit", *SIX, "--run.folder=r") == 130
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on
    assert names(here / "r") == ["config.yaml", "metrics.csv"]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_validate_test_and_predict_write_into_their_own_folder_or_the_runs(
    command: str, call: Callable[..., int], here: Path
) -> None:
    assert call("fit", *SIX, "--run.folder=r") == 0
    metrics = (here / "r" / "metrics.csv").read_text()
    words = [
        command,
        "--config=r/config.yaml",
        "--trainer.limit_val_batches=1.0",
        "--ckpt_path=r/checkpoints/last.ckpt",
    ]
    assert call(*words, "--run.name=after") == 0
    (own,) = (here / "runs" / "after").iterdir()
    files = [f"{command}.csv", f"{command}.yaml"] if command != "predict" else ["predict.yaml"]
    assert [name for name in names(own) if name != "completions.jsonl"] == files
    assert call(*words, "--run.folder=r") == 0
    assert set(names(here / "r")) - {"completions.jsonl"} == {
        "checkpoints/last.ckpt",
        "config.yaml",
        "finished",
        "metrics.csv",
        *files,
    }
    assert (here / "r" / "metrics.csv").read_text() == metrics


def test_hyperparameters_in_a_checkpoint_never_override_the_command_line(call: Callable[..., int], here: Path) -> None:
    assert call("fit", *SIX, "--model.lr=0.25", "--run.folder=r") == 0
    assert call("validate", *QUIET, "--model.lr=0.75", "--ckpt_path=r/checkpoints/last.ckpt", "--run.folder=v") == 0
    assert yaml.safe_load((here / "v" / "validate.yaml").read_text())["model"]["lr"] == 0.75


SCRIPT = """
import sys
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.__main__ import main
from helpers.stand_ins import Data, Model, Source
cli.ours = lambda: (Model, Data, (Source,))
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("torchrun", "devices"), [(False, True), (True, True), (True, False)])
def test_two_processes_share_one_folder(torchrun: bool, devices: bool, here: Path) -> None:
    (here / "script.py").write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29617"] if torchrun else []
    words = ["fit", *SIX, *(["--trainer.devices=2", "--trainer.strategy=ddp"] if devices else [])]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *start, "script.py", *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (here / "runs" / "run").iterdir()
    assert names(here / "runs") == [
        f"run/{folder.name}/{name}" for name in ("checkpoints/last.ckpt", "config.yaml", "finished", "metrics.csv")
    ]


def test_a_failure_removes_only_folders_that_it_made(call: Callable[..., int], here: Path) -> None:
    (here / "kept").mkdir()
    assert call("fit", *QUIET, "--data.complain=true", "--run.folder=kept") == 2
    assert call("fit", *QUIET, "--data.complain=true", "--run.folder=kept/a/b") == 2
    assert (here / "kept").is_dir() and not list((here / "kept").iterdir())


def test_an_input_error_is_found_behind_a_library_exception() -> None:
    from coh_lightning.__main__ import input_error
    from coh_lightning.errors import InputError

    mistake = InputError("lr is -1")
    wrapped = ValueError("does not validate against any of the subtypes")
    wrapped.__cause__ = TypeError("no")
    wrapped.__cause__.__context__ = mistake
    assert input_error(mistake) is mistake
    assert input_error(wrapped) is mistake
    assert input_error(ValueError("a bug")) is None
    hidden = ValueError("a bug")
    hidden.__context__, hidden.__suppress_context__ = mistake, True
    assert input_error(hidden) is None


def test_the_installed_command_finds_modules_of_the_current_folder(here: Path) -> None:
    (here / "bin").mkdir()
    (here / "mine.py").write_text("def score(completion):\n    return {}\n")
    code = "from coh_lightning.generation.scorers import load_scorer; load_scorer('mine:score'); print('found')"
    (here / "bin" / "coh").write_text(
        f"import sys\nfrom coh_lightning.__main__ import main\nsys.argv = ['coh', '--version']\nmain()\n{code}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, str(here / "bin" / "coh")]
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("found\n"), done.stderr


def test_a_refused_test_leaves_nothing_behind(
    call: Callable[..., int], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Data) -> None:
        raise InputError("no record is held out")

    assert call("fit", *SIX, "--run.folder=r") == 0
    before = names(here / "r")
    monkeypatch.setattr(Data, "test_dataloader", refuse)
    assert call("test", *QUIET, "--run.folder=q") == 2
    assert not (here / "q").exists()
    assert call("test", *QUIET, "--run.folder=r") == 2
    assert names(here / "r") == before


def test_without_max_epochs_and_max_steps_a_run_is_one_epoch_and_says_so(
    call: Callable[..., int], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ["--trainer.limit_val_batches=0", *QUIET]
    assert call("fit", *quiet, "--run.folder=r") == 0
    said = capsys.readouterr().out
    assert "one epoch, since neither trainer.max_epochs nor trainer.max_steps is given" in said
    assert (here / "r" / "finished").read_text() == "6 steps\n"
    assert yaml.safe_load((here / "r" / "config.yaml").read_text())["trainer"]["max_epochs"] == 1
    for number, words in enumerate([["--trainer.max_steps=2"], ["--trainer.max_epochs=1"]]):
        assert call("fit", *quiet, *words, f"--run.folder={number}") == 0
        assert "one epoch" not in capsys.readouterr().out


def test_fit_ends_with_where_it_is_what_moved_and_the_next_commands(
    call: Callable[..., int], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("fit", *SIX, "--run.folder=r") == 0
    assert capsys.readouterr().out.split("\n")[-5:] == [
        "finished: r (6 steps)",
        "samples:  test writes some",
        "ask it:   coh chat r",
        "test it:  coh test --config r/config.yaml --ckpt_path=r/checkpoints/last.ckpt --run.folder=r",
        "",
    ]


def test_held_out_figures_are_shown_by_our_tables_or_by_lightnings(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("test", *QUIET, "--run.folder=r") == 0
    assert "DataLoader 0" not in capsys.readouterr().out
    assert call("test", *QUIET, "--run.folder=r", "--verbose=true") == 0
    assert "DataLoader 0" in capsys.readouterr().out
