"""Lines of text end only at line ends: U+2028, NEL and the like are ordinary characters, but `str.splitlines` splits at
them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from coh_lightning.cli.sweep import metric_values

PACKAGE = Path(__file__).parents[2] / "coh_lightning"
OTHERS = ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


def test_lines_end_only_at_line_ends() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "splitlines":
                found.append(path.name)
    assert found == ["errors.py"]  # the first line of what a library's exception says


@pytest.mark.parametrize("separator", OTHERS)
def test_a_metric_is_found_beside_names_with_any_separator(tmp_path: Path, separator: str) -> None:
    (tmp_path / "metrics.csv").write_text(
        f"step,val/good a{separator}b,val/loss\n1,0.5,2.0\n2,,1.5\n3,0.1,9", encoding="utf-8"
    )  # the last line is incomplete
    assert metric_values(tmp_path, "val/loss") == [2.0, 1.5]
