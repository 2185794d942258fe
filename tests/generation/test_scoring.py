"""Outputs of several rows are scored in one pass as they are in a pass each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from coh_lightning.data import CoHDataModule
from coh_lightning.generation.scoring import joined, output_scores
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.model.loading import ModelSpec
from coh_lightning.training.held_out_figures import PREFERENCES, names_in_fit
from helpers.feedback import TINY, data_of, merged, pairs, tiny
from helpers.training import GPT2, trainer


def _data(folder: Path, **settings: Any) -> CoHDataModule:
    rows = pairs(16)
    for row in rows[::3]:
        row["completions"].append({"text": "Who knows", "rank": 3})  # three tokens follow the prompt, not two
    shares = {"validation_share": 0.5, "test_share": 0.0}
    return data_of(rows, folder, train_only=False, **(shares | settings))


def _rows(data: CoHDataModule) -> list[dict[str, Any]]:
    data.setup("fit")
    _, compared = data.held_out("validation")
    return [row for index in range(compared.count) for row in compared.build(index)["rows"]]


def _lm(config: dict[str, Any], *, by_tree: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    lm = ModelSpec(from_config=config, dtype=torch.float64).build().eval()
    assert not by_tree or use_tree_attention(lm, row_tokens=256)
    return lm


@torch.no_grad()
def _scores(lm: torch.nn.Module, rows: list[dict[str, Any]], at_once: int) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """And how many passes there were."""
    passes: list[int] = []
    hook = lm.register_forward_pre_hook(lambda *_: passes.append(1))
    found = list(output_scores(lm, rows, at_once=at_once))
    hook.remove()
    return found, len(passes)


@pytest.mark.parametrize("config", [GPT2, TINY])
@pytest.mark.parametrize("together", [200, 500, 10_000])
def test_scores_of_rows_in_one_pass_are_those_of_each_alone(
    config: dict[str, Any], together: int, tmp_path: Path
) -> None:
    rows, lm = _rows(_data(tmp_path)), _lm(config, by_tree=True)
    assert len({row["children"].shape[1] for row in rows}) == 2
    alone, many = _scores(lm, rows, 0)
    found, passes = _scores(lm, rows, together)
    assert many == len(rows) and passes < many and (passes == 1) == (together == 10_000)
    assert [len(total) for total, _ in found] == [row["outputs"] for row in rows]
    assert {len(total) for total, _ in alone} == {4, 6}
    for (total, tokens), (its, of_its) in zip(found, alone, strict=True):
        assert torch.equal(tokens, of_its)
        torch.testing.assert_close(total, its, rtol=1e-10, atol=0)


def test_a_pass_has_no_more_tokens_than_were_allowed(tmp_path: Path) -> None:
    rows, lm = _rows(_data(tmp_path)), _lm(GPT2, by_tree=True)
    tokens: list[int] = []
    lm.register_forward_pre_hook(lambda _, __, given: tokens.append(given["input_ids"].shape[1]), with_kwargs=True)
    _scores(lm, rows, 250)
    lengths = [row["input_ids"].shape[1] for row in rows]
    assert sum(tokens) == sum(lengths) and max(tokens) <= 250 and len(tokens) < len(rows)
    tokens.clear()
    _scores(lm, rows, max(lengths) - 1)  # the longest goes alone
    assert max(tokens) == max(lengths)


def test_rows_that_may_not_share_a_pass_go_alone(tmp_path: Path) -> None:
    rows = _rows(_data(tmp_path))
    assert _scores(_lm(GPT2, by_tree=False), rows, 10_000)[1] == len(rows)  # a dense mask
    separate = _rows(_data(tmp_path, layout="separate", fcm_range=(0.0, 0.0)))
    assert _scores(_lm(GPT2, by_tree=True), separate, 10_000)[1] == len(separate) > len(rows)
    data = _data(tmp_path)
    data.setup("fit")
    empty = data.rows.scored([])  # of a rank without records: padded
    assert _scores(_lm(GPT2, by_tree=True), [*empty, *rows, *empty], 10_000)[1] == 3


def test_a_joined_row_is_the_row_of_all_trees(tmp_path: Path) -> None:
    data = _data(tmp_path)
    rows = _rows(data)
    comparisons = filter(None, map(data.comparer.comparison, data.splits["validation"]))
    trees = [tree for one in comparisons for tree in data.comparer.trees(one)]
    whole = data.rows._scored_batch(trees, sum(tree.tokens for tree in trees))
    found = joined(rows)
    assert found.keys() == whole.keys() and found["outputs"] == whole["outputs"]
    for name, value in whole.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[name], value, msg=name)


def test_preference_accuracies_are_those_of_a_record_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, passes = [], []
    for alone in (False, True):
        if alone:
            monkeypatch.setattr("coh_lightning.module.is_sharded", lambda _: True)
        pl.seed_everything(0, verbose=False)
        model = tiny()
        model.configure_model()
        counted: list[int] = []
        model.lm.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        columns.append(merged(trainer(tmp_path).validate(model, datamodule=_data(tmp_path), verbose=False)))
        passes.append(len(counted))
    assert columns[0] == pytest.approx(columns[1], rel=1e-6) and columns[0]["val/preference_records"] > 3
    assert passes[0] < passes[1]


def test_limits_on_batches_count_records_whatever_shares_a_pass(tmp_path: Path) -> None:
    run = trainer(tmp_path, limit_val_batches=3)
    metrics = merged(run.validate(tiny(), datamodule=_data(tmp_path), verbose=False))
    assert metrics["val/preference_records"] == 3


def test_under_the_good_sentence_alone_the_other_accuracies_stay_as_they_are(tmp_path: Path) -> None:
    columns = {}
    for under in ("both", "good"):
        pl.seed_everything(0, verbose=False)
        data = _data(tmp_path, compare_under=under)
        model = tiny()
        columns[under] = merged(trainer(tmp_path).validate(model, datamodule=data, verbose=False))
        preferences = [f"val/{name}" for name in PREFERENCES]
        named = names_in_fit(data.kinds, under_bad=under == "both")
        assert [name for name in named if name in preferences] == [one for one in preferences if one in columns[under]]
        _, compared = data.held_out("validation")
        rows = [row for index in range(compared.count) for row in compared.build(index)["rows"]]
        assert {row["outputs"] for row in rows} == ({4, 6} if under == "both" else {2, 3})
    both, good = columns["both"], columns["good"]
    assert both.keys() - good.keys() == {
        f"val/preference_accuracy_{name}" for name in ("swapped_sum", "swapped_mean", "marker")
    }
    assert good == pytest.approx({name: both[name] for name in good}, rel=1e-6)
