"""Imports point upstream only, and what only touches files never waits for torch."""

from __future__ import annotations

import ast
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

STREAM = [
    ["errors"],
    ["checks", "worlds", "files", "compressed", "commands", "yaml_text", "words"],
    ["checks", "files", "compressed", "commands", "yaml_text", "words"],
    ["pages"],
    ["draws", "turns"],
    ["intervals"],
    ["records", "completions", "judgments", "slots"],
    ["jsonl", "request"],
    ["generation", "answers"],
    ["sources", "wording", "human_eval", "exchange", "samples"],
    ["judge"],
    ["sample_means"],
    ["samples_page"],
    ["world", "judge"],
    ["scorers"],
    ["world", "judge_prompts"],
    ["judge_client"],
    ["judge_run"],
    ["judge_report"],
    ["judge"],
    ["scorers", "reward_model"],
    ["checks", "files", "compressed", "commands", "yaml_text", "words", "memory"],
    ["draws", "turns"],
    ["records", "completions", "judgments", "slots", "sampling", "forward"],
    ["jsonl", "request"],
    ["decoding", "answers"],
    ["sources", "wording", "method", "human_eval", "exchange", "samples"],
    ["world", "judge"],
    ["scorers", "preferences"],
    ["chains"],
    ["tokens", "sentinels", "added_tokens", "formats"],
    ["layout", "anchored_tokenizer"],
    ["tokenizer_template", "encoder"],
    ["chat_layout", "field_cache"],
    ["template_check"],
    ["chain_tokenizer"],
    ["chat_template", "settings_agreement"],
    ["prompter"],
    ["trees"],
    ["rows"],
    ["plan", "limits"],
    ["prepare"],
    ["attention", "losses", "metrics", "sharding", "shards", "lora", "schedule", "stops"],
    ["checkpoints", "layout_check", "loaders"],
    ["held_out", "held_out_figures"],
    ["splits", "pretraining", "data_report", "data_checks"],
    ["row_builder"],
    ["models"],
    ["model_tokenizer"],
    ["data", "evaluation"],
    ["model_build", "run_summary", "training_figures"],
    ["writing"],
    ["module"],
    ["configurations", "key_synonyms", "completion"],
    ["parsing", "launch", "runs", "sweep_file", "complaints", "model_card"],
    ["export_check"],
    ["export"],
    ["callbacks", "monitors"],
    ["config_parser", "environment_errors", "metrics_file", "run_config", "wandb_run"],
    ["world"],
    ["sweep_results"],
    ["preview_view"],
    ["preview_records", "preview_totals", "preview_terminal"],
    ["preview", "cli", "sweep", "cost", "demo", "demo_votes"],
    ["preview", "cli", "sweep", "demo", "demo_votes"],
    ["convert"],
    ["__main__"],
]
"""Each may import what stands above it. What is not named here is not yet placed, and the first test says so."""

LIGHT = [
    "errors",
    "memory",
    "checks",
    "worlds",
    "files",
    "compressed",
    "yaml_text",
    "turns",
    "records",
    "completions",
    "judgments",
    "jsonl",
    "draws",
    "intervals",
    "words",
    "wording",
    "method",
    "preferences",
    "chains",
    "tokens",
    "sentinels",
    "added_tokens",
    "formats",
    "layout",
    "anchored_tokenizer",
    "tokenizer_template",
    "encoder",
    "chat_layout",
    "field_cache",
    "template_check",
    "chain_tokenizer",
    "chat_template",
    "request",
    "settings_agreement",
    "prompter",
    "trees",
    "rows",
    "plan",
    "limits",
    "prepare",
    "sources",
    "world",
    "answers",
    "exchange",
    "pages",
    "samples",
    "sample_means",
    "samples_page",
    "judge",
    "judge_prompts",
    "judge_run",
    "judge_report",
    "scorers",
    "reward_model",
    "demo_votes",
    "human_eval",
    *(f"human_eval.{path.stem}" for path in sorted((PACKAGE / "human_eval").glob("[!_]*.py"))),
    "runs",
    "configurations",
    "complaints",
    "model_card",
    "export",
    "preview_view",
    "preview_records",
    "preview_totals",
    "preview_terminal",
    "preview",
    "convert",
    "sweep_file",
    "sweep_results",
    "sweep",
    "__main__",
]
HEAVY = {"torch", "lightning", "transformers", "datasets", "wandb", "torchmetrics"}


def modules() -> dict[str, list[Path]]:
    """Name below the package -> its files; `sources` and the like stand for all of their files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """What a file imports of the package when it is imported itself; imports within functions and for type checkers
    don't count.
    """
    names: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "coh_lightning":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("coh_lightning.")}
        waiting += list(ast.iter_child_nodes(node))
    return names


def test_every_module_has_its_place_in_the_stream() -> None:
    placed = {name for level in STREAM for name in level}
    assert set(modules()) - placed == set()


@pytest.mark.parametrize("name", modules())
def test_imports_point_upstream(name: str) -> None:
    level = {each: number for number, names in enumerate(STREAM) for each in names}
    for path in modules()[name]:
        wrong = {other for other in imported(path) - {name} if level.get(other, -1) >= level[name]}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


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


def test_what_only_touches_files_does_not_import_torch() -> None:
    names = [name for name in LIGHT if name.split(".")[0] in modules()]
    found, _ = loads("\n".join(f"import coh_lightning.{name}" for name in names))
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


def test_what_nobody_reads_any_longer_ends_without_a_traceback() -> None:
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
