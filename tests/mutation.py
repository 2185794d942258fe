"""Mutation testing: how many small wrong changes of the core do its tests notice? A script, not a test.

    python tests/mutation.py --sample 200 --seed 0 --output FILE     a sample; the same command resumes
    python tests/mutation.py --output FILE --retry                   those that survived, once more (after new tests)
    python tests/mutation.py --sample 0 --modules data --output FILE     every mutant of one module

A copy of the package and its tests is made in a temporary folder. Each test file of a module is run once on it as it
is: that gives the time of each test and the lines that it runs. Then one mutant after another is written into the copy
and run by the tests that run its line, the quickest first, until one fails. Each run is a fork of a process that has
imported torch, transformers, Lightning and the rest, so that a mutant takes seconds. A test counts only if it is fast
(neither slow nor realdata, and under `SLOWEST` seconds) and passes on the unchanged code.

A mutant that many tests run is run against the quickest of them, `--budget` seconds in all; so the share killed is a
lower bound.

The sample is fixed by the seed and by the text of the functions, not by line numbers: changing one function changes
only the mutants of that function. Mutants that no test can notice are listed in mutation_equivalent.yaml, each with the
reason, and are counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from mutation_operators import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent
MODULES: Mapping[str, tuple[str, ...]] = {
    "sequences/chains": ("sequences/chains", "sequences/wording", "sequences/tokens", "cli/preview", "data"),
    "sequences/preferences": ("sequences/chains", "dataset/held_out", "data"),
    "sequences/wording": ("sequences/wording", "sequences/chains", "data", "cli/preview"),
    "sequences/plan": ("sequences/plan", "sequences/rows", "data", "module"),
    "sequences/planned_records": ("sequences/planned_records", "dataset/pinned_rows", "data"),
    "sequences/record_shapes": ("sequences/planned_records", "dataset/pinned_rows", "data"),
    "generation/figures": ("generation/figures", "generation/text_metrics"),
    "generation/text_metrics": ("generation/text_metrics", "generation/figures"),
    "generation/sampling": ("generation/decoding", "generation/figures", "generation/scorers"),
    "generation/decoding": ("generation/decoding", "generation/figures", "generation/scorers"),
    "generation/forward": ("generation/decoding", "generation/figures", "generation/scorers"),
    "generation/settings": ("generation/figures", "generation/offline_inference"),
    "generation/writing": ("generation/figures", "module", "generation/offline_inference"),
    "dataset/held_out": ("dataset/held_out", "data", "training/run_summary", "module"),
    "dataset/loaders": ("data", "dataset/held_out", "module", "training/resume"),
    "dataset/row_builder": ("data", "dataset/held_out", "module"),
    "training/held_out_figures": ("dataset/held_out", "module", "generation/figures"),
    "training/training_figures": ("module",),
    "training/schedule": ("training/schedule", "module", "training/run_summary"),
    "dataset/feedback_data": (
        "data",
        "dataset/pinned_rows",
        "dataset/feedback_data",
        "dataset/held_out",
        "cli/preview",
    ),
    "data": ("data", "dataset/held_out", "module", "generation/figures", "cli/preview", "training/resume"),
    "module": ("module", "generation/figures", "training/run_summary", "training/resume", "model/loading"),
}
"""Module -> its test files: `sequences/chains` is tests/sequences/test_chains.py."""
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.yaml")
SLOWEST = 6.0
"""CPU seconds of a test that is still used."""
LEAST_LIMIT = 60.0
"""Seconds that a mutant has at least; one that takes longer, and ten times what its tests take on the unchanged code,
counts as killed.
"""
CASES = 3
"""Cases of a parametrized test that are tried before other tests."""
MEMORY = 8 << 30
"""Bytes that a run may hold."""


@dataclass
class Tested:
    """One test on the unchanged code."""

    id: str
    seconds: float
    """Of the CPU, under the watch."""
    lines: dict[str, list[int]]
    """Module -> lines that it runs."""


@dataclass(eq=False)
class Watch:
    """A pytest plugin: which test failed first, how long each takes, and, with `folder`, which lines of the modules
    each runs.
    """

    folder: Path | None = None
    tested: list[Tested] = field(default_factory=list)
    failed: str = ""
    _good: bool = True
    _lines: dict[str, set[int]] = field(default_factory=dict)
    _names: dict[str, str | None] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._good &= report.passed
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid or 'collection'} (import)"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._good, self._lines = True, {}
        begun = sum(os.times()[:4])
        if self.folder is not None:
            threading.settrace(self._trace)
            sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            if self.folder is not None:
                sys.settrace(None)
                threading.settrace(None)  # type: ignore[arg-type]
                lines = {name: sorted(lines) for name, lines in self._lines.items()}
                if self._good:
                    self.tested.append(Tested(item.nodeid, sum(os.times()[:4]) - begun, lines))

    def _trace(self, frame: types.FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        if file not in self._names:
            inside = self.folder is not None and Path(file).is_relative_to(self.folder)
            name = str(Path(file).relative_to(self.folder).with_suffix("")) if inside else ""
            self._names[file] = name if name in MODULES else None
        name = self._names[file]
        if name is None:
            return None
        seen = self._lines.setdefault(name, set())

        def local(frame: types.FrameType, event: str, arg: object) -> Callable[..., Any]:
            seen.add(frame.f_lineno)
            return local

        return local(frame, event, arg)


class Runner:
    """A copy of the project in which tests are run, each time in a fork of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("coh_lightning", "conf", "tests", "docs"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", ".hypothesis")
            )
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        self.package = folder / "coh_lightning"

    def run(
        self, tests: Sequence[str], limit: float, *, watched: bool = False, mutant: str | None = None
    ) -> dict[str, Any]:
        """What came of these tests: `code` (pytest's, or -1 beyond the limit of seconds), `failed`, `seconds`, and what
        `Watch` has seen.

        With `mutant`, the module of that name is changed: its compiled file must be neither read nor kept.
        """
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        if mutant is not None:
            changed = self.package / mutant
            for path in (changed.parent / "__pycache__").glob(f"{changed.name}.*.pyc"):
                path.unlink()
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = self._child(tests, report, watched, mutant)
            os._exit(code)
        done = False
        while not done and time.monotonic() - begun < limit:
            done = os.waitpid(child, os.WNOHANG)[0] == child
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # also what a test has left behind
        if not done:
            os.waitpid(child, 0)
        found = (
            json.loads(report.read_text())
            if report.exists()
            else {"code": -1 if not done else 3, "failed": "" if done else "(time limit)"}
        )
        return {**found, "seconds": round(time.monotonic() - begun, 2)}

    def _child(self, tests: Sequence[str], report: Path, watched: bool, mutant: str | None) -> int:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        os.chdir(self.folder)
        sys.path[:0] = [str(self.folder), str(self.folder / "tests")]
        os.environ["PYTHONPATH"] = str(self.folder)  # for what tests start
        sys.dont_write_bytecode = mutant is not None
        with open(self.folder / "output.txt", "w") as output:
            for stream in (sys.stdout, sys.stderr):
                os.dup2(output.fileno(), stream.fileno())
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutation", database=None, derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate)
        )
        settings.load_profile("mutation")
        watch = Watch(self.package if watched else None)
        options = ["-q", "-m", "not slow and not realdata", "-p", "no:cacheprovider", "--tb=line", "--no-header"]
        try:
            code = int(pytest.main([*options, *([] if watched else ["-x"]), *tests], plugins=[watch]))
        except BaseException:
            traceback.print_exc()
            code = 3
        known = list(sys.modules) if watched else []
        aside = report.with_suffix(".part")
        aside.write_text(
            json.dumps(
                {"code": code, "failed": watch.failed, "tested": [vars(one) for one in watch.tested], "imported": known}
            )
        )
        aside.rename(report)
        return code


def test_file(name: str) -> str:
    """The test file of a name in `MODULES`: `sequences/chains` -> tests/sequences/test_chains.py."""
    folder, slash, stem = name.rpartition("/")
    return f"tests/{folder}{slash}test_{stem}.py"


def measured(runner: Runner, names: Iterable[str], cache: Path) -> dict[str, list[Tested]]:
    """Test file -> its tests on the unchanged code. Kept in `cache` for files that have not changed, under a package
    that has not.
    """
    package = hashlib.sha256(
        b"".join(path.read_bytes() for path in sorted((ROOT / "coh_lightning").rglob("*.py")))
    ).hexdigest()
    kept = json.loads(cache.read_text()) if cache.exists() else {}
    imported: set[str] = set(kept.get("imported", ()))
    files: dict[str, Any] = kept.get("files", {})
    for name in sorted(names):
        path = test_file(name)
        sha = hashlib.sha256(f"{package} {hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}".encode()).hexdigest()
        if files.get(name, {}).get("sha") != sha:
            found = runner.run([path], 1800, watched=True)
            if not found.get("tested"):
                raise SystemExit(f"{path} has no test that passes; see {runner.folder}/output.txt")
            files[name] = {"sha": sha, "tested": found["tested"]}
            imported |= set(found["imported"])
            print(
                f"{path}: {len(found['tested'])} tests in {found['seconds']} s"
                + (f", {found['failed']} fails" if found["failed"] else ""),
                flush=True,
            )
            cache.write_text(json.dumps({"imported": sorted(imported), "files": files}))
    local = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for module in sorted(imported):
        if module.partition(".")[0] not in ("coh_lightning", "__main__", *local):
            with contextlib.suppress(BaseException):
                importlib.import_module(module)
    gc.freeze()
    return {name: [Tested(**one) for one in files[name]["tested"]] for name in names}


def tests_of(mutant: Mutant, tested: Mapping[str, Sequence[Tested]], budget: float) -> list[Tested]:
    """The tests that may notice a mutant, as many as the budget holds: the quickest, and of a parametrized test a few
    cases before the rest.
    """
    ranked: list[tuple[bool, float, Tested]] = []
    for name in MODULES[mutant.module]:
        cases: Counter[str] = Counter()
        for one in sorted(
            (one for one in tested[name] if one.seconds < SLOWEST and _runs(one, mutant)), key=lambda one: one.seconds
        ):
            function = one.id.partition("[")[0]
            cases[function] += 1
            ranked.append((cases[function] > CASES, one.seconds, one))
    ranked.sort(key=lambda each: each[:2])
    spent = list(accumulate(seconds for _, seconds, _ in ranked))
    chosen = [each[2] for each, total in zip(ranked, spent, strict=True) if total <= budget] or [
        each[2] for each in ranked[:1]
    ]
    return sorted(chosen, key=lambda one: one.id.partition("::")[0] != test_file(mutant.module))


def _runs(test: Tested, mutant: Mutant) -> bool:
    lines = test.lines.get(mutant.module, [])
    return bool(lines) if not mutant.lines else not set(lines).isdisjoint(mutant.lines)


def sampled(modules: Sequence[str], sample: int, seed: int) -> list[Mutant]:
    """The mutants to be run: `sample` of all, drawn by the seed; 0: all."""
    sources = {name: (ROOT / "coh_lightning" / f"{name}.py").read_text() for name in modules}
    every = [one for name, source in sources.items() for one in mutants(name, source)]
    every.sort(key=lambda one: one.order(seed))
    return list(islice((one for one in every if one.is_change(sources[one.module])), sample or None))


def equivalent() -> dict[str, str]:
    """Key of a mutant that no test can notice -> why."""
    return {one["mutant"]: one["reason"] for one in yaml.safe_load(EQUIVALENT.read_text()) or ()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=200, help="how many mutants; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modules", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="JSON lines, one for each mutant that was run; those that are there are not run again",
    )
    parser.add_argument("--retry", action="store_true", help="run those again that survived")
    parser.add_argument(
        "--budget", type=float, default=20.0, help="CPU seconds of tests that one mutant is run against at most"
    )
    args = parser.parse_args()
    chosen = sampled(args.modules, args.sample, args.seed)
    excused = equivalent()
    results: dict[str, dict[str, Any]] = {}
    if args.output.exists():
        results = {line["key"]: line for line in map(json.loads, args.output.read_text().splitlines())}
    open_ones = [
        one
        for one in chosen
        if one.key not in excused
        and (one.key not in results or (args.retry and results[one.key]["result"] != "killed"))
    ]
    if open_ones:
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            runner = Runner(Path(folder))
            names = {name for module in {one.module for one in open_ones} for name in MODULES[module]}
            tested = measured(runner, names, args.output.with_suffix(".tests.json"))
            for module in dict.fromkeys(one.module for one in open_ones):
                control(runner, next(one for one in open_ones if one.module == module), tested)
            for number, one in enumerate(open_ones, start=1):
                results[one.key] = judged(runner, one, tests_of(one, tested, args.budget))
                with open(args.output, "a") as output:
                    output.write(json.dumps(results[one.key]) + "\n")
                line = results[one.key]
                print(f"{number}/{len(open_ones)} {line['result']} in {line['seconds']} s  {shown(line)}", flush=True)
    summary(
        [results[one.key] for one in chosen if one.key not in excused], [one for one in chosen if one.key in excused]
    )
    return 0


def control(runner: Runner, one: Mutant, tested: Mapping[str, Sequence[Tested]]) -> None:
    """Tests must pass on the unchanged code in the very way in which they are run on mutants, or every mutant would
    seem to be noticed.
    """
    tests = tests_of(one, tested, 5.0)
    found = runner.run([test.id for test in tests], LEAST_LIMIT * 10, mutant=one.module) if tests else {"code": 0}
    if found["code"]:
        raise SystemExit(f"{found['failed']} fails on the unchanged code; see {runner.folder}/output.txt")


def judged(runner: Runner, one: Mutant, tests: Sequence[Tested]) -> dict[str, Any]:
    """One line of the results."""
    line = {
        "key": one.key,
        "module": one.module,
        "line": one.line,
        "operator": one.operator,
        "before": one.before,
        "after": one.after,
    }
    if not tests:
        return line | {"result": "survived", "by": "no test runs it", "seconds": 0.0}
    path = runner.package / f"{one.module}.py"
    source = path.read_text()
    expected = sum(test.seconds for test in tests)
    try:
        path.write_text(one.apply(source))
        found = runner.run([test.id for test in tests], LEAST_LIMIT + 10 * expected, mutant=one.module)
    finally:
        path.write_text(source)
    return line | {
        "result": "killed" if found["code"] else "survived",
        "by": found["failed"],
        "tests": len(tests),
        "seconds": found["seconds"],
    }


def shown(line: Mapping[str, Any]) -> str:
    return f"{line['module']}.py:{line['line']}  {line['before']}  ->  {line['after']}"


def summary(lines: Sequence[Mapping[str, Any]], excused: Sequence[Mutant]) -> None:
    survived = [line for line in lines if line["result"] != "killed"]
    for line in sorted(survived, key=lambda line: (line["module"], line["line"])):
        print(f"survived: {shown(line)}" + (f"  ({line['by']})" if line["by"] else ""))
    for module in dict.fromkeys(line["module"] for line in lines):
        own = [line for line in lines if line["module"] == module]
        print(f"{module}: {sum(line['result'] == 'killed' for line in own)} of {len(own)} killed")
    killed = len(lines) - len(survived)
    share = f" ({100 * killed / len(lines):.1f} %)" if lines else ""
    print(f"killed {killed} of {len(lines)}{share}; {len(excused)} more are equivalent and not counted")


if __name__ == "__main__":
    sys.exit(main())
