"""The same training whatever the number of micro-batches and ranks of a step.

Each rank is a process of its own (this file, as a script), started as a cluster would start it, with a time limit.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from helpers.feedback import TINY
from helpers.ranks import CLIP, STEPS, end_rank, losses, rank_of, relative, started, trained


def main(folder: str, what: str) -> None:
    """One rank (or the only process) of one test."""
    rank, ranks = rank_of()
    own = Path(folder) / f"rank{rank}"
    own.mkdir()
    if what == "repeat":
        weights = trained(own, precision="32-true", settings={"from_config": TINY}, max_steps=3)["weights"]
        print(
            torch.get_num_threads(),
            hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest(),
        )
        return
    shared = Path(folder) / "run"  # of all ranks: where they write completions
    shared.mkdir(exist_ok=True)
    for precision in ("64-true", "32-true"):
        found = trained(
            shared if ranks > 1 else own,
            precision=precision,
            devices=ranks,
            strategy="ddp" if ranks > 1 else "auto",
            write=precision == "64-true",
        )
        torch.save(found, Path(folder) / f"{precision}.rank{rank}.pt")


def of_ranks(folder: Path, ranks: int) -> dict[str, list[dict[str, Any]]]:
    """The run on so many ranks: precision -> what each of them saw; and what they wrote."""
    started(__file__, folder, "trajectory", ranks=ranks)
    found = {
        precision: [torch.load(folder / f"{precision}.rank{rank}.pt", weights_only=True) for rank in range(ranks)]
        for precision in ("64-true", "32-true")
    }
    found["completions"] = [{"all": list(read_jsonl(path, Completion))} for path in folder.glob("*/completions.jsonl")]
    assert len(found["completions"]) == 1
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, dict[str, list[dict[str, Any]]]]]:
    """The same run on one process (8 micro-batches a step) and on two (4 each): ranks -> precision -> what each rank
    saw.
    """
    yield {ranks: of_ranks(tmp_path_factory.mktemp(f"ranks{ranks}"), ranks) for ranks in (1, 2)}


def test_the_run_covers_epoch_ends_clipping_and_empty_rows(runs: Any) -> None:
    """Clipped in every step, over an epoch's end, and with a last step that is not full."""
    [alone] = runs[1]["64-true"]
    assert len(alone["losses"]) == STEPS and alone["epochs"] >= 1 and alone["uneven"]
    assert min(alone["norms"]) > 2 * CLIP
    assert len(set(alone["losses"])) == STEPS


def test_eight_micro_batches_and_four_on_each_of_two_ranks_are_one_trajectory(runs: Any) -> None:
    alone, together = runs[1]["64-true"], runs[2]["64-true"]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-9, abs=0)
    assert together[0]["norms"] == pytest.approx(alone[0]["norms"], rel=1e-9)
    assert relative(alone[0]["weights"], together[0]["weights"]) < 1e-9
    for name, value in alone[0]["weights"].items():
        torch.testing.assert_close(together[0]["weights"][name], value, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_two_on_each_of_four_ranks_are_that_trajectory_too(runs: Any, tmp_path: Path) -> None:
    four = of_ranks(tmp_path, 4)
    alone, together = runs[1]["64-true"], four["64-true"]
    assert losses(together) == pytest.approx(losses(alone), rel=1e-9, abs=0)
    assert relative(alone[0]["weights"], together[0]["weights"]) < 1e-9
    assert relative(runs[1]["32-true"][0]["gradients"], four["32-true"][0]["gradients"]) < 1e-5
    assert losses(four["32-true"]) == pytest.approx(losses(runs[1]["32-true"]), rel=1e-5)


def test_all_ranks_have_bit_equal_weights(runs: Any) -> None:
    for precision in ("64-true", "32-true"):
        one, other = runs[2][precision]
        assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


def test_single_precision_differs_only_by_rounding(runs: Any) -> None:
    alone, together = runs[1]["32-true"], runs[2]["32-true"]
    assert relative(alone[0]["gradients"], together[0]["gradients"]) < 1e-5
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)


def test_held_out_figures_and_completions_do_not_depend_on_the_ranks(runs: Any) -> None:
    alone, one, other = *runs[1]["64-true"], *runs[2]["64-true"]
    assert one["metrics"] == other["metrics"] and set(one["metrics"]) == set(alone["metrics"])
    assert one["metrics"] == pytest.approx(alone["metrics"], rel=1e-6, nan_ok=True)

    def texts(ranks: int) -> list[tuple[str, str, str]]:
        return [(written.prompt_id, written.ask, written.text) for written in runs[ranks]["completions"][0]["all"]]

    assert texts(1) == texts(2) and len(texts(1)) > 4


def test_a_run_on_two_threads_is_bit_reproducible(tmp_path: Path) -> None:
    printed = []
    for repetition in ("first", "second"):
        (tmp_path / repetition).mkdir()
        printed += started(__file__, tmp_path / repetition, "repeat", threads=2)
    assert printed[0].startswith("2 ") and printed[0] == printed[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_rank()
