"""The README and the pages of docs/ are true: records are read, files exist, commands run as they are written."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import coh_lightning
from coh_lightning.feedback.records import Feedback
from test_imports import WINGS

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SITES = r"https?://[^\s)]*"


def blocks(page: str, language: str) -> list[str]:
    return code_blocks(PAGES[page], language)


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """Every command line of a page: continued lines joined, comments removed."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip() and not line.startswith("#")]


def first_line(command: str) -> list[str]:
    """The words of a command, with this interpreter instead of `coh` and `python`."""
    words = shlex.split(command)
    if words[0] == "coh":
        return [sys.executable, "-m", "coh_lightning", *words[1:]]
    return [sys.executable if word == "python" else word for word in words]


def run(words: list[str], folder: Path, *, seconds: int) -> str:
    """Runs a command in a folder that has the repository's conf/; returns what it printed."""
    if not (folder / "conf").exists():
        (folder / "conf").symlink_to(ROOT / "conf")
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
    (folder / "feedback.jsonl").write_text("".join(blocks("feedback", "json")), encoding="utf-8")


@pytest.mark.parametrize("page", ["README", "feedback"])
def test_the_records_are_records(page: str) -> None:
    lines = [json.loads(line) for block in blocks(page, "json") for line in block.splitlines()]
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        Feedback.from_json(line, f"{page}:{number}")


def test_the_readme_is_short() -> None:
    lines = PAGES["README"].splitlines()
    assert len(lines) <= 150
    prose = re.sub(r"```.*?```", "", PAGES["README"], flags=re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = re.sub(SITES, "", PAGES[page])
    named = {name.rstrip(".") for name in re.findall(r"(?:conf|docs|scripts|notebooks|tests)/[\w/.-]*\w/?", text)}
    if page == "feedback":
        named |= {f"conf/data/{name}" for name in re.findall(r"`(\w+\.yaml)`", text)}
    here = ROOT if page == "README" else ROOT / "docs"
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    missing += [link for link in re.findall(r"\]\(([\w./-]+)\)", text) if not (here / link).exists()]
    assert missing == []


def test_every_guide_is_linked() -> None:
    for page in set(PAGES) - {"README", "index"}:
        assert re.search(rf"^{page}$", PAGES["index"], flags=re.MULTILINE), page
        assert f"docs/{page}.md" in PAGES["README"] or page in ("api", "cost", "plan_of_claims"), page


def test_every_method_and_wording_of_the_tables_is_a_file() -> None:
    for folder in ("method", "wording"):
        text = PAGES["method"]
        table = text[text.index(f"(`conf/{folder}/`)") :].split("\n\n")[0]
        names = {name for line in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
        files = {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")} - {"world"}
        assert names == files


def test_the_tree_of_the_readme_names_every_folder() -> None:
    tree = next(block for block in PAGES["README"].split("```")[1::2] if "├" in block)
    named = re.findall(r"[\w.]+(?:/|\.py)", tree)
    assert [
        name for name in named if not any((folder / name).exists() for folder in (ROOT, ROOT / "coh_lightning"))
    ] == []
    folders = {path.parent.name for path in (ROOT / "coh_lightning").glob("*/__init__.py")}
    assert folders <= {name.rstrip("/") for name in named}


def test_the_map_is_the_order_of_imports() -> None:
    table = CONTRIBUTING[CONTRIBUTING.index("| place |") :].split("\n\n")[0]
    named = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)(?:/|\.py)`", line.split("|")[1])]
    assert named == [name for line in WINGS if line != "__main__" for name in line.split()]


def test_every_file_that_contributing_names_exists() -> None:
    named = set(re.findall(r"`(?!runs/)((?:[\w.]+/)+(?:\w+\.\w+)?)`", CONTRIBUTING))
    assert [
        name for name in named if not any((folder / name).exists() for folder in (ROOT, ROOT / "coh_lightning"))
    ] == []


def test_the_recipe_for_a_source_makes_records(tmp_path: Path) -> None:
    [recipe] = code_blocks(CONTRIBUTING, "python")
    assert len([line for line in recipe.splitlines() if line]) < 10
    (tmp_path / "stars.py").write_text(recipe, encoding="utf-8")
    rows = [{"question": "Name a fruit.", "answer": "An apple.", "stars": 5}]
    rows += [{"question": "Name a tree.", "answer": "A dog.", "stars": 1}]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = "data: {sources: [{class_path: stars.Stars, init_args: {path: reviews.jsonl}}]}"
    (tmp_path / "reviews.yaml").write_text(source, encoding="utf-8")
    printed = run(first_line("coh preview --config reviews.yaml --json"), tmp_path, seconds=120)
    chains = [[part["text"] for part in json.loads(line)["segments"]] for line in printed.splitlines()]
    assert [chain[1].strip() for chain in chains] == ["A helpful answer:", "An unhelpful answer:"]
    assert [chain[2].strip() for chain in chains] == ["An apple.", "A dog."]


def test_the_recipe_for_a_method_makes_chains(tmp_path: Path) -> None:
    [recipe] = code_blocks(CONTRIBUTING, "yaml")
    assert len(recipe.splitlines()) < 10
    (tmp_path / "good_first.yaml").write_text(recipe, encoding="utf-8")
    record = {
        "prompt": "Name a fruit.",
        "completions": [{"text": "A stone.", "rank": 2}, {"text": "An apple.", "rank": 1}],
    }
    (tmp_path / "feedback.jsonl").write_text(json.dumps(record), encoding="utf-8")
    command = re.search(r"`(coh preview feedback.jsonl --data.method=\S+)`", CONTRIBUTING)
    assert command
    [line] = run(first_line(command[1] + " --json"), tmp_path, seconds=120).splitlines()
    learned = [part["text"].strip() for part in json.loads(line)["segments"] if part["weight"]]
    assert learned == ["An apple.", "<|end|>", "A stone.", "<|end|>"]


def test_the_api_page_has_every_public_name() -> None:
    documented = re.findall(r"auto\w+:: coh_lightning\.(\w+)", PAGES["api"])
    assert sorted(documented) == sorted(coh_lightning.__all__)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    words = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-d", str(tmp_path / "doctrees")]
    run([sys.executable, *words, str(ROOT / "docs"), str(tmp_path / "site")], tmp_path, seconds=300)
    assert "CoHModule" in (tmp_path / "site" / "api.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_picture_is_what_its_command_draws(tmp_path: Path) -> None:
    run([sys.executable, str(ROOT / "scripts" / "tree_picture.py"), "tree.svg"], tmp_path, seconds=60)
    assert (tmp_path / "tree.svg").read_text() == (ROOT / "docs" / "tree.svg").read_text()


@pytest.mark.slow
def test_the_demo_runs_as_written(tmp_path: Path) -> None:
    assert "make demo" in commands("README")
    make = subprocess.run(
        ["make", "demo", f"DEMO={tmp_path / 'demo'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert make.returncode == 0, make.stdout[-2000:] + make.stderr[-4000:]
    rows = ["base", "sft_best", "sft_faultless", "coh: good", "coh: bad", "coh: good, cutoff alone"]
    for row in [*rows, "coh: good, guidance 2", "coh_critiques: good", "coh_critiques: bad"]:
        assert re.search(rf"^{row} .*±", make.stdout, flags=re.MULTILINE), make.stdout[-3000:]
        assert f"| {row} |" in PAGES["README"] and f"| {row} |" in PAGES["evidence"]
    for name in ("report.md", "report.html"):
        assert str(tmp_path / "demo" / name) in make.stdout and (tmp_path / "demo" / name).is_file()


@pytest.mark.slow
def test_the_quickstart_runs_and_is_tested_as_written(tmp_path: Path) -> None:
    quickstart = next(c for c in commands("configuration") if c == "coh fit --config conf/quickstart.yaml")
    printed = run(first_line(quickstart), tmp_path, seconds=900)
    [folder] = (tmp_path / "runs" / "quickstart").iterdir()
    assert f"finished: runs/quickstart/{folder.name}" in printed
    files = {path.name for path in folder.iterdir()}
    assert files >= {"config.yaml", "data.json", "metrics.csv", "checkpoints", "finished"}
    test = next(c for c in commands("configuration") if c.startswith("coh test"))
    run(first_line(test.replace("<time>-<hash>", folder.name)), tmp_path, seconds=300)
    assert list((tmp_path / "runs").glob("**/completions.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_other_commands_are_understood(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COH_REAL_DATA", "COH_CONSTRAINTS"):
        monkeypatch.setenv(name, str(tmp_path))  # where a page says `export COH_REAL_DATA=FOLDER`
    write_records(tmp_path)
    for command in commands(page):
        if command.startswith("coh preview feedback.jsonl"):
            run(first_line(command), tmp_path, seconds=120)
        elif command.startswith("coh fit") and "--help" not in command:
            print_config = [] if "--print_config" in command else ["--print_config"]
            assert "row_tokens" in run([*first_line(command), *print_config], tmp_path, seconds=120)


@pytest.mark.slow
def test_two_models_are_taken_through_a_study_as_written(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")  # with the completions that the study is made of
    for command in commands("human_eval"):
        run(first_line(command), tmp_path, seconds=900)
    study = tmp_path / "runs" / "study"
    files = {"report.html", "report.md", "report.json", "judgments.jsonl", "rate.html"}
    assert files <= {path.name for path in study.iterdir()}
    assert {".xlsx", ".json", ".xml", ".yaml"} <= {path.suffix for path in (study / "forms").rglob("*.*")}


@pytest.mark.slow
def test_the_lines_of_python_run(tmp_path: Path) -> None:
    write_records(tmp_path)
    run([sys.executable, "-c", blocks("configuration", "python")[0]], tmp_path, seconds=300)
    [checkpoint] = (tmp_path / "runs" / "mine").rglob("*.ckpt")
    export = next(c for c in commands("export") if c.startswith("coh export"))
    run(first_line(re.sub(r"runs/\S+", str(checkpoint), export, count=1)), tmp_path, seconds=300)
    printed = run([sys.executable, "-c", "\n".join(blocks("export", "python"))], tmp_path, seconds=300)
    assert printed.count("'role': 'assistant'") == 3


@pytest.mark.slow
def test_dpo_and_kto_are_trained_and_tested_as_written(tmp_path: Path) -> None:
    text = PAGES["export"]
    block = text[text.index("## DPO and KTO") :].split("```bash\n")[1].split("```")[0]
    quick = {
        "fit": ["--trainer.max_steps=3", "--model.generation.generate_every_n_validations=0"],
        "test": ["--data.max_test_prompts=4"],
    }
    for command in block.replace("\\\n", " ").splitlines():
        words = first_line(command.replace("--max_steps 100", "--max_steps 2"))
        if words[0] == "trl":
            words = [sys.executable, "-c", "from trl.cli import main; main()", *words[1:]]
        run([*words, *quick.get(words[3], [])], tmp_path, seconds=600)
    for rival in ("dpo", "kto"):
        figures = (tmp_path / "runs" / rival / "test" / "test.csv").read_text()
        assert "test/nll" in figures and "test/rouge_good" in figures


@pytest.mark.slow
def test_the_baselines_are_trained_and_tested_as_written(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    for command in commands("baselines"):
        more = ["--steps", "2"] if command.startswith("coh trl") else ["--data.max_test_prompts=4"]
        run([*first_line(command), *more], tmp_path, seconds=600)
    assert "test/reward_good" in (tmp_path / "runs" / "rlhf_test" / "test.csv").read_text()
