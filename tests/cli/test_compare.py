"""The command `coh compare`: what it says when it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from coh_lightning.cli import compare
from coh_lightning.compare import execution
from coh_lightning.compare.execution import Execution

STUDY = """\
config: conf/quickstart.yaml
worlds: {w: {model: world, feedback: world}}
methods: {base: {command: none}}
baseline: base
"""


def test_a_comparison_that_is_stopped_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Execution) -> list[str]:
        raise KeyboardInterrupt

    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Execution, "run", interrupted)
    monkeypatch.setattr(execution, "composed_of", lambda study, rows: {"base": {}})
    with pytest.raises(KeyboardInterrupt):
        compare.main(["study.yaml", "--folder=s"])
    said = capsys.readouterr().err
    assert f"stopped; finished rows are in {tmp_path / 's' / 'results.jsonl'}, and the same command resumes" in said
