"""Imports point upstream only, and what only touches files never waits for torch."""

from __future__ import annotations

import ast
import graphlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coh_lightning
from coh_lightning.__main__ import LIGHTNING, OWN

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "coh_lightning"

WINGS = """
__main__
cli
rounds
compare
callbacks
module
data
baselines
export
runs
world
dataset
training
generation
model
sequences
judge
human_eval
feedback
pages
worlds yaml_text command_line
intervals checks
io rng words tables
errors
""".split("\n")[1:-1]
"""Folders and files, from the top of the house to the ground: each imports only from its own line and those below.
Imports inside functions count; imports for type checkers don't.
"""

STREET = ["wording", "chains", "prompt_format", "tokens", "encoder", "chain_tokenizer", "trees", "rows", "plan"]
"""The files of `sequences/` that make one thing from another, in that order."""

LIGHT_WINGS = ["rounds", "compare", "sequences", "judge", "human_eval", "feedback", "pages"]
"""Folders that never import torch, ..."""
LIGHT = [
    "dataset.feedback_data",
    "model.tokenizer",
    "generation.prompter",
    "generation.offline_inference",
    "generation.scorers",
    "generation.reward_model",
    "generation.samples_page",
    "model.memory",
    "world",
    "world.simulated_raters",
    "runs.run_folder",
    "export.huggingface",
    "export.model_card",
    "export.chat_template",
    "cli.chat",
    "cli.chat_model",
    "cli.config_paths",
    "cli.config_errors",
    "cli.compare",
    "cli.convert",
    "cli.feedback",
    "cli.preview",
    "cli.rounds",
    "cli.sweep",
    "cli.trl_baselines",
    "baselines.output",
    "__main__",
]
"""... and files elsewhere that must start without it."""
HEAVY = {"torch", "lightning", "transformers", "datasets", "wandb", "torchmetrics"}


def files() -> dict[str, Path]:
    """Name below the package, such as `sequences.trees`, -> its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imported(path: Path) -> set[str]:
    """What a file imports of the package: names as in `files`."""
    known, names = files(), set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "coh_lightning":
            base = node.module.removeprefix("coh_lightning").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(".")
                names.add(inner if inner in known else base)
        if isinstance(node, ast.Import):
            names |= {alias.name[14:] for alias in node.names if alias.name.startswith("coh_lightning.")}
        waiting += list(ast.iter_child_nodes(node))
    return names - {""}


FILES = files()
IMPORTS = {name: imported(path) for name, path in FILES.items()}
LEVEL = {name: level for level, line in enumerate(WINGS) for name in line.split()}


def wing(name: str) -> str:
    return name.split(".")[0]


def test_every_file_has_its_place() -> None:
    assert {wing(name) for name in FILES} == LEVEL.keys()


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name: str) -> None:
    level = LEVEL[wing(name)]
    wrong = {other for other in IMPORTS[name] if wing(other) != wing(name) and LEVEL[wing(other)] <= level}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_there_are_no_circular_imports() -> None:
    folders = {name for name, path in FILES.items() if path.name == "__init__.py"}  # they gather names of their files
    graphlib.TopologicalSorter({name: IMPORTS[name] - folders for name in FILES.keys() - folders}).prepare()


def test_the_files_from_feedback_to_rows_are_in_order() -> None:
    def reached(name: str) -> set[str]:
        return {name}.union(*(reached(other) for other in IMPORTS[name] if wing(other) == "sequences"))

    for place, name in enumerate(STREET):
        later = {f"sequences.{other}" for other in STREET[place + 1 :]}
        assert not reached(f"sequences.{name}") & later, name


def test_studies_know_nothing_of_models() -> None:
    ground = {name for line in WINGS[WINGS.index("pages") :] for name in line.split()}
    for name in FILES:
        if wing(name) in ("human_eval", "judge"):
            allowed = ground | {"feedback", "human_eval", wing(name)}
            assert {wing(other) for other in IMPORTS[name]} <= allowed, name


def test_only_the_demo_imports_the_world() -> None:
    others = {name for name in FILES if wing(name) != "world" and any(wing(it) == "world" for it in IMPORTS[name])}
    assert others == {"cli.demo", "cli.demo_report"}


def test_every_public_name_is_found() -> None:
    assert all(getattr(coh_lightning, name).__name__ == name for name in coh_lightning.__all__)


def test_no_module_is_called_utils() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in ("utils", "helpers", "common", "misc")]


def loads(code: str) -> tuple[set[str], float]:
    """The top-level modules that a fresh interpreter has loaded after some code, and the seconds that the code took."""
    show = "import sys; print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split()), time.perf_counter() - start


def test_file_only_modules_do_not_import_torch() -> None:
    names = [name for name in FILES if wing(name) in LIGHT_WINGS or LEVEL[wing(name)] > LEVEL["pages"]]
    found, _ = loads("\n".join(f"import coh_lightning.{name}" for name in [*names, *LIGHT]))
    assert found & HEAVY == set()


@pytest.mark.parametrize(
    "name", ["", *[name for name in OWN if (ROOT / f"{OWN[name][0].replace('.', '/')}.py").exists()]]
)
def test_help_of_our_own_commands_imports_nothing_heavy(name: str) -> None:
    assert_starts_light([*([name] if name else []), "--help"])


@pytest.mark.parametrize("part", ["plan", "export", "import", "report"])
@pytest.mark.parametrize("words", [["--help"], ["--no-such-option"]])
def test_help_and_mistakes_of_a_human_study_import_nothing_heavy(part: str, words: list[str]) -> None:
    assert_starts_light(["human-eval", part, *words])


def assert_starts_light(words: list[str]) -> None:
    code = f"""
from coh_lightning.__main__ import main
try:
    main({words!r})
except SystemExit:
    pass"""
    found, _ = loads(code)
    assert found & (HEAVY | {"numpy", "scipy", "matplotlib", "pandas", "openpyxl"}) == set()


def test_the_top_help_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coh_lightning", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and "coh " not in line] == [
        *LIGHTNING,
        *OWN,
    ]


def test_closed_stdout_ends_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "coh_lightning", "--help"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_every_package_is_installed() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert listed == there | {"coh_lightning.conf"}
