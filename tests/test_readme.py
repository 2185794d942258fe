"""The README is true: its records are read, its files exist, its commands run as they are written."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from coh_lightning.records import Feedback

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README, continued lines joined, comments taken off."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def run(words: list[str], folder: Path, *, seconds: int) -> str:
    """Runs a command of the README in a folder that has the repository's conf/; gives what it printed."""
    if not (folder / "conf").exists():
        (folder / "conf").symlink_to(ROOT / "conf")
    words = [sys.executable if word == "python" else word for word in words]
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def write_records(folder: Path) -> None:
    (folder / "feedback.jsonl").write_text("".join(blocks("json")), encoding="utf-8")


def test_its_records_are_records() -> None:
    lines = [json.loads(line) for block in blocks("json") for line in block.splitlines()]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        Feedback.from_json(line, f"README:{number}")


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"conf/[\w/.-]+", README)) | {
        f"conf/data/{name}" for name in re.findall(r"`(\w+\.yaml)`", README) if name != "config.yaml"
    }
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_method_and_wording_of_its_tables_is_a_file() -> None:
    for folder in ("method", "wording"):
        table = README[README.index(f"(`conf/{folder}/`)") :].split("\n\n")[0]
        names = {name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
        files = {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")} - {"world"}
        assert names == files


def test_every_command_on_many_ranks_shares_its_rows_out_evenly() -> None:
    base = yaml.safe_load((ROOT / "conf" / "quickstart.yaml").read_text(encoding="utf-8"))["data"]
    many = [command for command in commands() if re.search(r"--nproc-per-node|^srun |trainer/fsdp", command)]
    assert len(many) >= 4
    for command in many:
        assert "--config conf/quickstart.yaml" in command
        rows = re.search(r"--data\.rows_per_step=(\d+)", command)
        assert rows, command
        for ranks in (1, 2, 4, 8, 16):  # whatever a user has of them
            assert (int(rows[1]) + base["regulariser_rows_per_step"]) % ranks == 0, f"{command}: {ranks} ranks"


@pytest.mark.slow
def test_the_demo_runs_as_it_is_written(tmp_path: Path) -> None:
    assert "make demo" in commands()
    make = subprocess.run(
        ["make", "demo", f"DEMO={tmp_path / 'demo'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert make.returncode == 0, make.stdout[-2000:] + make.stderr[-4000:]
    for row in (
        "base",
        "sft_best",
        "sft_faultless",
        "coh, asked for good",
        "coh, asked for bad",
        "coh_critiques, asked for good",
    ):
        assert re.search(rf"^{row} .*±", make.stdout, flags=re.MULTILINE), make.stdout[-3000:]
        assert f"| {row} |" in README
    assert str(tmp_path / "demo" / "report.md") in make.stdout


@pytest.mark.slow
def test_the_quickstart_runs_and_is_tested_as_it_is_written(tmp_path: Path) -> None:
    quickstart = next(
        command for command in commands() if command == "python -m coh_lightning fit --config conf/quickstart.yaml"
    )
    printed = run(shlex.split(quickstart), tmp_path, seconds=900)
    [folder] = (tmp_path / "runs" / "quickstart").iterdir()
    assert f"finished: runs/quickstart/{folder.name}" in printed
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml",
        "data.json",
        "metrics.csv",
        "checkpoints",
        "finished",
    }
    test = next(command for command in commands() if command.startswith("python -m coh_lightning test"))
    run(shlex.split(test.replace("<time>-<hash>", folder.name)), tmp_path, seconds=300)
    assert list((tmp_path / "runs").glob("**/completions.jsonl"))


@pytest.mark.slow
def test_its_other_commands_are_understood(tmp_path: Path) -> None:
    write_records(tmp_path)
    run(
        shlex.split(next(command for command in commands() if command.startswith("python -m coh_lightning preview"))),
        tmp_path,
        seconds=120,
    )
    fits = [
        command
        for command in commands()
        if command.startswith("python -m coh_lightning fit") and "conf/data/" not in command
    ]
    assert len(fits) >= 3
    for command in fits:
        printed = run([*shlex.split(command), "--print_config"], tmp_path, seconds=120)
        assert "row_tokens" in printed


@pytest.mark.slow
def test_two_models_are_taken_through_a_study_as_it_is_written(tmp_path: Path) -> None:
    section = README[README.index("## Two models before people") :]
    block = section[section.index("```bash\n") + 8 :].split("```")[0]
    for command in block.splitlines():
        run(shlex.split(command), tmp_path, seconds=900)
    assert {"report.html", "report.md", "report.json", "judgements.jsonl", "rate.html"} <= {
        path.name for path in (tmp_path / "runs" / "study").iterdir()
    }
    assert {path.suffix for path in (tmp_path / "runs" / "study" / "forms").rglob("*.*")} >= {
        ".xlsx",
        ".json",
        ".xml",
        ".yaml",
    }


@pytest.mark.slow
def test_its_lines_of_python_run(tmp_path: Path) -> None:
    write_records(tmp_path)
    train, ask = blocks("python")
    run([sys.executable, "-c", train], tmp_path, seconds=300)
    [checkpoint] = (tmp_path / "runs" / "mine").rglob("*.ckpt")
    export = next(command for command in commands() if command.startswith("python -m coh_lightning export"))
    run([*shlex.split(re.sub(r"runs/\S+", str(checkpoint), export, count=1))], tmp_path, seconds=300)
    printed = run([sys.executable, "-c", ask], tmp_path, seconds=300)
    assert printed.count("'role': 'assistant'") == 3


@pytest.mark.slow
def test_dpo_and_kto_are_trained_and_tested_as_it_is_written(tmp_path: Path) -> None:
    section = README[README.index("`convert` takes the feedback out") :]
    block = section[section.index("```bash\n") + 8 :].split("```")[0]
    quick = {
        "fit": ["--trainer.max_steps=3", "--model.generation.write_every=0"],
        "test": ["--data.max_test_prompts=4"],
    }
    for command in block.splitlines():
        words = shlex.split(command.replace("--max_steps 100", "--max_steps 2"))
        if words[0] == "trl":
            words = [sys.executable, "-c", "from trl.cli import main; main()", *words[1:]]
        run([*words, *quick.get(words[3], [])], tmp_path, seconds=600)
    for rival in ("dpo", "kto"):
        figures = (tmp_path / "runs" / rival / "test" / "test.csv").read_text()
        assert "test/nll" in figures and "test/rouge_good" in figures
