"""The help of fit, validate, test and predict is a text that was made before, and so is what a shell completes: neither
imports anything heavy, and both say what the parser takes.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import help as made_help
import pytest

import coh_lightning
from coh_lightning.__main__ import LIGHTNING, OWN, main
from coh_lightning.cli.shell_completion import HELP, keys, script

ROOT = Path(__file__).parents[2]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"[\w.-]+==", line)
)


@pytest.mark.parametrize("command", LIGHTNING)
def test_the_text_of_help_is_what_the_parser_says(command: str) -> None:
    """Run scripts/help.py where it isn't. In a process of its own: the parser lists every subclass that this process
    knows, those that other tests define too.
    """
    code = f"import help; print(help.text({command!r}), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(made_help.__file__).parent
    )
    now, kept = done.stdout, HELP.read_text(encoding="utf-8")
    assert keys(now.split("The Trainer's keys")[0]) == keys(kept.split("The Trainer's keys")[0])
    if all(version(name) == PINNED[name] for name in ("jsonargparse", "lightning")):  # whose words are among ours
        assert now == kept


def test_help_lists_our_keys_with_the_name_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: coh predict [--config FILE ...] [--KEY=VALUE ...]\n")
    assert {"--model.lr", "--data.feedback", "--data.method.loss_on", "--run.folder", "--trainer.max_steps"} <= set(
        keys(shown)
    )
    assert keys(shown)["--data.layout"] == ["tree", "separate"]


@pytest.mark.parametrize("words", [["fit", "--help"], ["--help"], ["--version"], ["--print-completion", "bash"]])
def test_shell_completion_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from coh_lightning.__main__ import main; main(sys.argv[1:]); "
        "sys.exit(', '.join({'torch', 'lightning', 'jsonargparse', 'numpy', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "" and done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_keys(shell: str) -> None:
    text = script(shell, LIGHTNING, OWN)
    for word in (*LIGHTNING, *OWN, "--data.rows_per_step", "--trainer.max_steps", "unlikelihood"):
        assert word in text


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "basch"]) == 2
    assert capsys.readouterr().err.startswith("error: --print-completion needs the name of a shell: bash, ")


def test_the_package_shows_its_public_names_and_version() -> None:
    assert {*coh_lightning.__all__, "__version__"} <= {*dir(coh_lightning)}
    assert coh_lightning.__version__ == version("coh_lightning")
    for name in coh_lightning.__all__:
        assert getattr(coh_lightning, name).__module__ == f"coh_lightning.{coh_lightning._HOMES[name]}"
    assert (Path(coh_lightning.__file__).parent / "py.typed").exists()


def test_coh_is_python_m_coh_lightning() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["coh"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
