"""What the package never does with what it is given: run it, unpickle it, import by its word, hand it to a shell, or
keep growing with it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from coh_lightning.__main__ import main
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.errors import InputError
from coh_lightning.model.checkpoints import read_checkpoint

PACKAGE = Path(__file__).parent.parent / "coh_lightning"

IMPORTERS = {
    "__init__.py": "names of this package",
    "__main__.py": "our commands",
    "compare/processes.py": "our commands, and the module that builds a world",
    "human_eval/main.py": "our commands",
    "human_eval/statistics.py": "scipy and matplotlib",
    "worlds.py": "names of the embedded world",
    "generation/scorers.py": "model.generation.scorers and .critic: functions that the user's own configuration names",
}
"""The files that import by a computed name, and where the names come from. None of them reads data."""

PICKLES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
    "code",
    "codeop",
    "imp",
    "runpy",
}
UNSAFE = {
    *("eval", "exec", "compile", "__import__", "breakpoint", "execfile"),
    *(
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "torch.jit.load",
    ),
    *("torch.hub.load", "torch.package.PackageImporter", "pd.read_pickle", "pandas.read_pickle", "load_pickle"),
}
GIVEN = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name of what is called, the call) of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def argument(call: ast.Call, name: str) -> Any:
    return next(
        (
            keyword.value.value
            for keyword in call.keywords
            if keyword.arg == name and isinstance(keyword.value, ast.Constant)
        ),
        None,
    )


def test_nothing_is_evaluated_unpickled_or_given_to_a_shell() -> None:
    found = []
    for path in files():
        for name, call in calls(path):
            wrong = name in UNSAFE or argument(call, "shell") not in (None, False) or name.startswith("os.spawn")
            key, value = GIVEN.get(name, ("", None))
            if wrong or (key and argument(call, key) is not value):
                found.append(f"{path.name}:{call.lineno}: {name}")
    assert found == []


def test_no_module_that_unpickles_is_imported() -> None:
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.split(".")[0] in PICKLES and names != [
                "UnpicklingError"
            ]:  # what torch raises of a checkpoint that holds more than data
                found.append(f"{path.name}: {module}")
            found += [
                f"{path.name}: {name}"
                for name in names
                if isinstance(node, ast.Import) and name.split(".")[0] in PICKLES
            ]
    # record_store.py reads what the same process wrote to a file without a name
    assert sorted(found) == ["record_store.py: pickle", "sharded_checkpoint.py: pickle"]


def test_unpickling_allows_only_listed_names() -> None:
    tree = ast.parse((PACKAGE / "model" / "sharded_checkpoint.py").read_text(encoding="utf-8"))
    uses = [
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
    ]
    [reader] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    ]
    assert uses == ["Unpickler"] and [node.name for node in reader.body if isinstance(node, ast.FunctionDef)] == [
        "find_class"
    ]


def test_a_models_code_runs_only_with_the_users_permission() -> None:
    for path in files():
        for name, call in calls(path):
            assert argument(call, "trust_remote_code") is not True, f"{path.name}:{call.lineno}: {name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arguments):
                every = [*node.posonlyargs, *node.args]
                defaults = dict(
                    zip((one.arg for one in every[len(every) - len(node.defaults) :]), node.defaults, strict=True)
                )
                defaults |= {
                    one.arg: value
                    for one, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)
                    if value is not None
                }
                assert ast.unparse(defaults.get("trust_remote_code", ast.Constant(False))) == "False", path.name


def test_only_listed_files_import_by_a_computed_name() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in files()
        for name, _ in calls(path)
        if name.split(".")[-1] in ("import_module", "spec_from_file_location")
    }
    assert found == set(IMPORTERS)


# ----------------------------------------------------------------------------------------------------------------
# checkpoints


class Code:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A checkpoint with a pickle that would make the folder `ran` beside it."""
    torch.save(
        {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "more": Code(tmp_path / "ran")}, tmp_path / "trap.ckpt"
    )
    return tmp_path / "trap.ckpt"


def test_a_checkpoint_with_code_is_refused_and_runs_none(trap: Path) -> None:
    with pytest.raises(InputError, match="it may be damaged, or hold more than plain data"):
        read_checkpoint(trap)
    assert not (trap.parent / "ran").exists()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Calls the command line in this process."""

    def call(*words: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["coh_lightning", *words])
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        return main()

    return call


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_no_command_unpickles_a_checkpoint(
    trap: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = Path(__file__).parent.parent / "conf"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(trap.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(trap.parent / "hub"))
    try:
        for place in (str(trap), f"http://127.0.0.1:{server.server_port}/trap.ckpt"):
            assert call("validate", f"--config={conf / 'quickstart.yaml'}", f"--ckpt_path={place}") == 2
            assert (
                "error: ckpt_path: the checkpoint holds more than plain data, so that loading it could run code"
                in capsys.readouterr().err
            )
    finally:
        server.shutdown()
        server.server_close()
    assert list((trap.parent / "hub").rglob("trap.ckpt")) and not (trap.parent / "ran").exists()


# ----------------------------------------------------------------------------------------------------------------
# configurations and data


def test_only_a_configuration_imports_names_from_settings(
    call: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its classes are imported, so a configuration is code; a text of it or of the data that looks like a class is a
    text.
    """
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("named", "as_text", "in_data"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / name)!r}).touch()\n")
    line = (
        '{"class_path": "in_data.Thing", "prompt": "!!python/name:in_data.Thing", "completions": [{"text": '
        '"${in_data.Thing}", "thumb": true}], "init_args": {}}\n'
    )
    (tmp_path / "f.jsonl").write_text(line * 40)
    (tmp_path / "c.yaml").write_text(
        "data: {feedback: f.jsonl, tokenizer: world, method: {name: as_text.Thing}}\nmodel: {system: 'class_path: "
        "as_text.Thing'}\n"
    )
    (tmp_path / "d.yaml").write_text("trainer: {callbacks: [{class_path: named.Thing}]}\n")
    (tmp_path / "e.yaml").write_text("data: {feedback: !!python/name:as_text.Thing }\n")
    assert call("preview", "f.jsonl", "--num=1") == 0
    monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: self.datamodule.setup("fit"))
    call("fit", "--config=c.yaml", "--trainer.accelerator=cpu")
    assert call("fit", "--config=e.yaml") == 2
    assert not any((tmp_path / name).exists() for name in ("named", "as_text", "in_data"))
    assert call("fit", "--config=d.yaml") == 2  # there is no such class in it
    assert (tmp_path / "named").exists()
    assert "Traceback" not in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------
# memory

BOMBS = """
import gzip, json, pathlib, resource, sys, zipfile
import pyarrow, pyarrow.parquet

folder = pathlib.Path(sys.argv[1])
zeros = gzip.compress(b"0" * 2**24, 9) * 128  # 2 GiB: a packed file may have many parts
lines = gzip.compress(b'{"prompt": "a"}\\n' * 2**20, 9) * 16
(folder / "line.jsonl.gz").write_bytes(zeros)
(folder / "lines.jsonl.gz").write_bytes(lines)
(folder / "whole.json.gz").write_bytes(gzip.compress(b"[" + b"[]," * 2**20) + gzip.compress(b"[]," * 2**22, 9) * 128)
(folder / "table.csv.gz").write_bytes(gzip.compress(b"a,b\\n") + zeros)
(folder / "table.tsv.gz").write_bytes(gzip.compress(b"a\\tb\\n") + lines)
(folder / "text.txt.gz").write_bytes(zeros)
(folder / "table.parquet.gz").write_bytes(zeros)
long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200_000, pyarrow.int32()), pyarrow.array(["x" * 2**20]))
pyarrow.parquet.write_table(pyarrow.table({"text": long}), folder / "table.parquet", compression="zstd")
with open(folder / "plain.jsonl", "wb") as file:
    file.truncate(2**29)  # one line, which takes no room on the disk
with zipfile.ZipFile(folder / "book.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
    with book.open("xl/sharedStrings.xml", "w", force_zip64=True) as part:
        for _ in range(64):
            part.write(b"x" * 2**24)
print("made")
"""

READ = """
import pathlib, resource, sys
from coh_lightning.errors import InputError
from coh_lightning.generation.offline_inference import read_completions
from coh_lightning.human_eval.systems import read_systems
from coh_lightning.human_eval.workbook import check_workbook
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.sources import TRLPairs, load
from coh_lightning.feedback.sources.files import read_rows
from coh_lightning.feedback.sources.texts import read_texts
import pyarrow.parquet, rich.progress, csv, openpyxl

path = pathlib.Path(sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000_000,) * 2)
ways = [lambda rule=rule: load([TRLPairs(str(path))], seed=0, on_bad_record=rule) for rule in ("skip", "stop")]
ways += [lambda: read_texts(str(path)), lambda: list(read_jsonl(path, Judgment))]
ways += [lambda: read_systems([path], seed=0), lambda: read_completions(path, [], count=len)]
if path.name == "book.xlsx":
    ways = [lambda: check_workbook(path)]
if path.name == "lines.jsonl.gz":  # each line by itself is a row; what is kept of rows takes room in any case
    ways = [lambda: any(False for _ in read_rows(path))]
for way in ways:
    try:
        way()
    except InputError as error:
        assert str(path) in str(error)
        print("refused", str(error)[:150])
    else:
        print("accepted")
"""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    subprocess.run([sys.executable, "-c", BOMBS, str(folder)], check=True, timeout=300)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "line.jsonl.gz",
        "lines.jsonl.gz",
        "whole.json.gz",
        "table.csv.gz",
        "table.tsv.gz",
        "text.txt.gz",
        "table.parquet.gz",
        "table.parquet",
        "plain.jsonl",
        "book.xlsx",
    ],
)
def test_a_small_file_never_becomes_gigabytes_of_memory(name: str, bombs: Path) -> None:
    """Read in a process that may take 1 GB more than it has after its imports."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(bombs / name)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("refused") == (1 if name in ("book.xlsx", "lines.jsonl.gz") else 6), done.stdout
