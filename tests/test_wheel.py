"""The built wheel is whole: installed without the repository, it runs from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from coh_lightning import __file__ as package

ROOT = Path(package).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs `python WORDS` in an empty folder, with a Python that has the wheel, and the dependencies of this one; gives
    what it printed.
    """
    source, wheels, home, empty = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "home", "empty"))
    for name in ("coh_lightning", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source], check=True, timeout=300
    )
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", "--no-index", *wheels.iterdir()], check=True, timeout=300
    )
    # the folders that a .pth file names are searched, but not for .pth files of their own: an editable install in them
    # is not seen
    [site] = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(
        "".join(f"{folder}\n" for folder in sys.path if folder.endswith("site-packages"))
    )

    def call(*words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, *words], cwd=empty, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    return call


def test_every_file_of_the_package_is_installed(call: Callable[..., str]) -> None:
    there = Path(call("-c", "import coh_lightning; print(coh_lightning.__file__)").strip()).parent
    assert not there.is_relative_to(ROOT)

    def names(folder: Path) -> set[str]:
        return {
            str(path.relative_to(folder))
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    assert names(there) == names(ROOT / "coh_lightning") | {f"conf/{name}" for name in names(ROOT / "conf")}


def test_installed_commands_run_from_an_empty_folder(call: Callable[..., str], tmp_path: Path) -> None:
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text(
        '{"prompt": "Name a fruit.", "completions": [{"text": "An apple.", "rank": 1}, {"text": "A stone.", "rank": '
        "2}]}\n"
    )
    assert call("-m", "coh_lightning", "--version").strip()
    assert "apple" in call("-m", "coh_lightning", "preview", str(feedback))
    printed = call(
        "-m",
        "coh_lightning",
        "fit",
        "--config",
        "conf/quickstart.yaml",
        "--trainer.max_steps=2",
        "--trainer.accelerator=cpu",
    )
    assert "not in this folder, so taken from" in printed and "finished: runs/quickstart/" in printed
