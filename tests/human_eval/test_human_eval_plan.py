"""How many items a study needs: the exact test's power, the smallest number from which it stays, the curve, and that it
answers at once.
"""

from __future__ import annotations

import argparse
import doctest
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import coh_lightning.human_eval.plan as module
from coh_lightning.errors import InputError
from coh_lightning.human_eval.plan import add_arguments, plan_table, plan_text, power, run, smallest, write_curve


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_docstring_examples() -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=2)


@pytest.mark.parametrize("share", [0.55, 0.6, 0.75])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_power_equals_the_rejection_rate_of_scipys_binomial_test(share: float, alpha: float) -> None:
    for n in (1, 5, 6, 8, 9, 35, 100):
        rejected = [wins for wins in range(n + 1) if scipy.stats.binomtest(wins, n).pvalue <= alpha]
        assert power(n, share, alpha) == pytest.approx(
            scipy.stats.binom.pmf(rejected, n, share).sum() if rejected else 0.0, abs=1e-9
        )


def test_the_table_matches_the_literature() -> None:
    plan = plan_table()
    assert [*plan.decided[0.8].values()] == [820, 367, 210, 97, 54, 35]
    assert [*plan.decided[0.9].values()] == [1080, 487, 274, 121, 70, 42]
    assert plan.items[0.8][0.6] == 300  # 210 / (1 - 0.3)
    assert {n: round(width, 3) for n, width in plan.half_widths.items()} == {
        50: 0.134,
        100: 0.096,
        200: 0.069,
        500: 0.044,
        1000: 0.031,
    }


def test_the_sample_size_is_the_smallest_with_lasting_power() -> None:
    values = power(np.arange(1, 3000), 0.55)
    assert int(np.argmax(values >= 0.8)) + 1 == 786  # touches the mark
    assert values[819 - 1] < 0.8 <= values[820 - 1 :].min()
    assert smallest(0.55, 0.8) == 820


def test_ties_are_divided_out_and_rounded_up() -> None:
    assert plan_table([0.6], [0.8], ties=0.0).items[0.8][0.6] == 210
    assert plan_table([0.6], [0.8], ties=0.25).items[0.8][0.6] == 280
    assert plan_table([0.6], [0.8], ties=0.35).items[0.8][0.6] == 324  # 323.08


@pytest.mark.parametrize("share", [0.53, 0.62, 0.8, 0.99])
@pytest.mark.parametrize("mark", [0.1, 0.8, 0.99])
def test_the_sample_size_equals_a_full_search(share: float, mark: float) -> None:
    number = smallest(share, mark)
    values = power(np.arange(1, 2 * number + 300), share)
    assert values[number - 1 :].min() >= mark
    assert number == 1 or values[number - 2] < mark


def test_a_stricter_test_needs_more() -> None:
    assert smallest(0.6, 0.8, 0.0125) > smallest(0.6, 0.8, 0.05)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--shares", "0.5"], "--shares has 0.5; a win share to detect is above 0.5 and below 1."),
        (["--shares", "60"], "--shares has 60; a win share to detect is above 0.5 and below 1."),
        (
            ["--shares", "0.5001"],
            "a true win share of 0.5001 needs about 200,000,000 decided items for 80 % power; plan for a larger "
            "effect.",
        ),
        (["--power", "80"], "--power has 80; give a power between 0.05 and 0.999, such as 0.8."),
        (["--ties", "1"], "--ties is 1; give the expected share of ties, from 0 to below 1."),
        (["--ties", "nan"], "--ties is nan; give the expected share of ties, from 0 to below 1."),
        (["--alpha", "5"], "--alpha is 5; give the level of the test, such as 0.05."),
        (["--items", "0"], "--items has 0; give numbers from 1 to 100,000."),
        (["--curve", "curve.pdf"], "--curve is curve.pdf; give a name that ends in .png or .svg."),
        (
            ["--curve", "nowhere/curve.png"],
            "--curve is nowhere/curve.png, but the folder nowhere doesn't exist; create it first.",
        ),
    ],
)
def test_values_outside_their_range_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        run(arguments(*words))
    assert str(caught.value) == says


def test_the_text_has_the_tables_and_a_curve_for_each_share() -> None:
    lines = plan_text(plan_table([0.6, 0.7], [0.8], ties=0.3)).splitlines()
    assert "80 % power            210       54" in lines
    assert "80 % power            300       78" in lines
    curves = {line.split()[0]: line[16:] for line in lines if line.startswith(("0.6", "0.7"))}
    assert curves.keys() == {"0.6", "0.7"}
    assert all(line.endswith("█") for line in curves.values())
    assert curves["0.7"].count("█") > curves["0.6"].count("█")


@pytest.mark.parametrize(("ending", "starts"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_curve_is_drawn_and_the_same_each_time(tmp_path: Path, ending: str, starts: bytes) -> None:
    plan = plan_table([0.6, 0.7], [0.8])
    for name in ("one", "two"):
        write_curve(plan, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes().startswith(starts)
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    assert len([*tmp_path.iterdir()]) == 2


def test_the_command_prints_the_plan_and_says_what_it_drew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments("--shares", "0.6", "--power", "0.8", "--curve", str(tmp_path / "c.svg"))) == 0
    assert capsys.readouterr().out.endswith(f"wrote {tmp_path / 'c.svg'}\n")


def test_a_plan_takes_under_four_seconds() -> None:
    code = (
        "import argparse; from coh_lightning.human_eval import plan; p = argparse.ArgumentParser(); "
        "plan.add_arguments(p); plan.run(p.parse_args([]))"
    )
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        timeout=60,
        env={"PYTHONIOENCODING": "utf-8", "PYTHONPATH": ":".join(sys.path)},
    )
    assert time.perf_counter() - start < 4


def test_importing_the_plan_imports_no_numpy() -> None:
    code = "import sys, coh_lightning.human_eval.plan; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"numpy", "scipy", "matplotlib", "torch"} & set(done.stdout.split()) == set()
