"""All comparisons of speed and memory with other ways to compute the same, each by its name.

    make bench [ONLY=name]          or  OMP_NUM_THREADS=1 python tests/benchmarks/bench.py [name ...]

Each comparison runs in a process tree of its own, on one thread. Its ways are run in turn, five times or more; a ratio
is the median of those of the repetitions, its range the least and the largest. What was measured is written to
bench.json (what is not measured again stays there), shown as a table, and put into docs/speed.md.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE, PAGE = ROOT / "bench.json", ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
WIDTH = 80


def _training(shape: Any) -> Callable[[], list[Any]]:
    def measure() -> list[Any]:
        import training

        return training.measure(shape)

    return measure


def _module(name: str) -> Callable[[], list[Any]]:
    def measure() -> list[Any]:
        found: list[Any] = __import__(name).measure()
        return found

    return measure


def _rows(name: str) -> Callable[[], list[Any]]:
    """Of a script whose `bench` gives rows with names of the form `group: with what` (timing.py)."""

    def measure() -> list[Any]:
        from figures import Figure

        found: list[dict[str, Any]] = __import__(name).bench()
        made = []
        for one in found:
            group, _, other = one.pop("name").partition(": ")
            made.append(Figure(group=group, name=other, **one))
        return made

    return measure


def _set_up() -> list[Any]:
    """Ids, chains, trees and the plan against what TRL's SFTTrainer prepares (ids and labels, not the same ones)."""
    import setup
    from figures import REPS, figure

    seconds: dict[str, list[float]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        file = setup.prepared(Path(folder), 1000)
        for _ in range(REPS):
            shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
            seconds["ours"].append(setup.apart("ours", file)["cpu"])
            seconds["trl"].append(setup.apart("trl", file, "sft")["cpu"])
    group, name = "set-up of 1,000 pairs of HH's lengths, empty cache", "TRL SFTTrainer on the four chains"
    return [figure(group, name, *seconds.values(), unit="CPU s", equal=False)]


COMPARISONS: Mapping[str, Callable[[], list[Any]]] = {
    "hh": _training("hh"),
    "tldr": _training("tldr"),
    "setup": _set_up,
    "vocabulary": _module("vocabulary"),
    "attention": _module("attention"),
    "scoring": _rows("scoring"),
    "writing": _rows("generation"),
    "guidance": _rows("guidance"),
}


def measured(name: str) -> list[dict[str, Any]]:
    """The figures of a comparison, as they stand in bench.json, from a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    start, before = time.time(), os.getloadavg()[0]
    command = [sys.executable, __file__, "--one", name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    load = f"load {before:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    took = f"{(time.time() - start) / 60:.1f} minutes"
    on = {"comparison": name, "measured": f"{datetime.now(UTC):%Y-%m-%d}, {took}, {load}", "versions": versions()}
    return [{**figure, **on} for figure in json.loads(done.stdout.splitlines()[-1])]


def versions() -> str:
    packages = ("torch", "transformers", "trl", "lightning")
    return ", ".join(["Python " + platform.python_version(), *(f"{name} {version(name)}" for name in packages)])


def machine() -> str:
    """The processor, as the system names it."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return names[0] if cpu.exists() and names else platform.machine()


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured before, with the comparisons that were measured now in the place of the same ones."""
    again = {one["comparison"] for one in new}
    kept = [one for one in old if one["comparison"] not in again] + list(new)
    order = list(COMPARISONS)
    return sorted(kept, key=lambda one: order.index(one["comparison"]) if one["comparison"] in order else len(order))


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(figures: Sequence[dict[str, Any]]) -> str:
    """For a terminal of 80 columns."""
    lines = [f"{'':<41}{'ours':>8}{'other':>8} {'times less [range]':>22}", "-" * WIDTH]
    for group, of_group in groupby(figures, lambda one: one["group"]):
        found = list(of_group)
        lines += textwrap.wrap(f"{group}, {found[0]['unit']}", WIDTH)
        for one in found:
            name = textwrap.wrap(one["name"] + ("" if one["equal"] else " (not the same results)"), 38)
            ratio = f"{one['ratio']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
            lines += [f"  {part}" for part in name[:-1]]
            lines.append(f"  {name[-1]:<39}{number(one['ours']):>8}{number(one['other']):>8} {ratio:>22}")
    return "\n".join(lines)


def markdown(figures: Sequence[dict[str, Any]]) -> str:
    """For docs/speed.md."""
    lines = ["| against | ours | other | times less [range] |", "|---|---|---|---|"]
    for group, of_group in groupby(figures, lambda one: one["group"]):
        found = list(of_group)
        lines.append(f"| **{group}**, {found[0]['unit']} | | | |")
        for one in found:
            ratio = f"{one['ratio']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
            name = one["name"] + ("" if one["equal"] else " (not the same results)")
            lines.append(f"| {name} | {number(one['ours'])} | {number(one['other'])} | {ratio} |")
    lines.append("")
    for (versions, machine), of_both in groupby(figures, lambda one: (one["versions"], one["machine"])):
        runs = dict.fromkeys(f"{one['comparison']}: {one['measured']}" for one in of_both)
        lines += textwrap.wrap(f"Measured with `make bench` on {machine} ({versions}). {'; '.join(runs)}.", 120)
    return "\n".join(lines)


def page(text: str, figures: Sequence[dict[str, Any]]) -> str:
    """The page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown(figures)}\n\n{END}{after}"


def main(names: list[str]) -> int:
    if names[:1] == ["--one"]:
        print(json.dumps([asdict(one) for one in COMPARISONS[names[1]]()]))
        return 0
    if unknown := [name for name in names if name not in COMPARISONS]:
        print(f"There is no comparison named {unknown[0]}; there are {', '.join(COMPARISONS)}.", file=sys.stderr)
        return 2
    figures: list[dict[str, Any]] = []
    for name in names or COMPARISONS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = [{**one, "machine": machine()} for one in measured(name)]
        figures = merged(json.loads(FILE.read_text()) if FILE.exists() else [], found)
        FILE.write_text("[\n" + ",\n".join(json.dumps(one) for one in figures) + "\n]\n")
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
    print(table([one for one in figures if not names or one["comparison"] in names]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
