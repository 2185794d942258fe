"""The best of several samples is the one that the model's own log-likelihoods say, on every layout and rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.generation.best_of_n import best_samples
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.generation.sampling import Sampling
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.model.loading import ModelSpec
from helpers.feedback import TINY, merged, method, tiny
from helpers.training import held_out_data, trainer

SAMPLED = Sampling(max_new_tokens=5, temperature=1.0, samples=4)
STOPS = tuple(range(100, 160))  # many, so that some samples end by themselves


def length(completion: Completion) -> dict[str, float]:
    return {"length": float(len(completion.text))}


@torch.no_grad()
def _log_likelihood(lm: Any, prompt: np.ndarray, one: Written[RecordRequest]) -> float:
    output = [*one.ids.tolist(), *([] if one.stop_id is None else [one.stop_id])]
    ids = torch.tensor([[*prompt.tolist(), *output]])
    of_tokens = torch.log_softmax(lm(ids).logits[0].double(), dim=-1)[len(prompt) - 1 : -1]
    return float(of_tokens.gather(1, torch.tensor(output)[:, None]).sum())


def _samples(data: Any, lm: Any) -> tuple[list[Written[RecordRequest]], list[Completion]]:
    """Samples of all held-out prompts; the records' scores are their log-likelihoods by hand."""
    written = generate(lm, data.requests("test"), SAMPLED, stop_ids=STOPS, pad_id=0)
    assert {one.stop for one in written} == {"end", "length"}
    assert all((one.stop_id in STOPS) == (one.stop == "end") for one in written)
    completions = []
    for one in written:
        record = one.request.record
        sentences = data.prompter.all_conditions(record)
        good, *bad = (
            _log_likelihood(lm, data.prompter.request(record, name, text).prompt_ids, one)
            for name, text in sentences.items()
        )
        scores = {"good": good} | ({"ratio": good - bad[0]} if bad else {})
        completions.append(replace(data.prompter.completion(one, SAMPLED, system="s"), scores=scores))
    return written, completions


@pytest.mark.parametrize(
    ("of", "layout", "row_tokens"),
    [("coh", "tree", 256), ("coh", "tree", 60), ("coh", "separate", 256), ("sft", "tree", 256)],
)
def test_the_best_sample_is_the_likeliest_by_hand(of: str, layout: Any, row_tokens: int, tmp_path: Path) -> None:
    data = held_out_data(tmp_path, method=method(of), layout=layout, fcm_range=(0.0, 0.0))
    data.setup("test")
    object.__setattr__(data.rows, "row_tokens", row_tokens)  # at 60, a prompt's samples take several rows
    torch.manual_seed(0)
    lm = ModelSpec(from_config=TINY).build().eval()
    written, completions = _samples(data, lm)
    settings: dict[str, Any] = {"scored_rows": data.rows.scored, "everyone_done": None}
    found = best_samples(lm, data.prompter, written, completions, **settings)
    if layout == "tree":  # several rows in a pass
        assert use_tree_attention(lm, row_tokens=256)
        together = best_samples(lm, data.prompter, written, completions, at_once=500, **settings)
        assert [one.id for one in together] == [one.id for one in found]
    prompts = {one.request.prompt_id for one in written}
    orders = {"best by good": "good"} | ({"best by ratio": "ratio"} if of == "coh" else {})
    assert len(prompts) == 5 and len(found) == len(orders) * len(prompts)
    for row in found:
        of_prompt = [one for one in completions if one.prompt_id == row.prompt_id and one.ask == "good"]
        assert len(of_prompt) == 4
        order = orders[row.ask]
        best = max(of_prompt, key=lambda one: one.scores[order])
        assert row.id == f"{best.id}:{row.ask}" and row.values[order] == best.scores[order]
    if of == "coh":
        chosen = [{row.id.split(":")[2] for row in found if row.prompt_id == prompt} for prompt in prompts]
        assert any(len(one) == 2 for one in chosen), "the two orders differ"


def test_a_rank_without_samples_runs_empty_rows_until_all_are_done(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, fcm_range=(0.0, 0.0))
    data.setup("test")
    lm = ModelSpec(from_config=TINY).build().eval()
    written, completions = _samples(data, lm)
    passes: list[bool] = []
    lm.register_forward_pre_hook(lambda *_: passes.append(True))
    calls: list[bool] = []

    def everyone_done(done: bool) -> bool:
        """Another rank has 20 rows."""
        calls.append(done)
        return done and len(calls) > 20

    for share in (slice(0), slice(None)):
        passes.clear(), calls.clear()
        best_samples(
            lm,
            data.prompter,
            written[share],
            completions[share],
            scored_rows=data.rows.scored,
            everyone_done=everyone_done,
        )
        assert len(passes) == 20 and len(calls) == 21 and not lm.training
        assert calls == [False] * (0 if share == slice(0) else 5) + [True] * (21 if share == slice(0) else 16)


def _figures(folder: Path, sampling: Sampling, **settings: Any) -> tuple[dict[str, float], list[Completion]]:
    folder.mkdir()
    data = held_out_data(folder, max_test_prompts=3, method=method(settings.pop("of", "coh")))
    torch.manual_seed(0)
    run = trainer(folder, CompletionWriter())
    metrics = merged(run.test(tiny(sampling=sampling, **settings), datamodule=data, verbose=False))
    return metrics, list(read_jsonl(folder / "completions.jsonl", Completion))


def test_test_has_the_mean_of_the_best_and_what_it_gains(tmp_path: Path) -> None:
    scorers = ["test_best_of_n:length"]
    metrics, written = _figures(tmp_path / "four", SAMPLED, scorers=scorers)
    lengths: dict[str, list[float]] = {}
    for one in written:
        if one.ask == "good":
            lengths.setdefault(one.prompt_id, []).append(one.scores["length"])
    assert len(written) == 3 * 2 * 4
    for order in ("good", "ratio"):
        best = metrics[f"test/length_best_by_{order}"]
        assert min(map(min, lengths.values())) <= best <= max(map(max, lengths.values()))
        gain = metrics[f"test/improvement_by_{order}_length"]
        assert gain == pytest.approx(best - metrics["test/length_good"], abs=1e-5)
        assert metrics[f"test/improvement_by_{order}_length_low"] <= gain + 1e-6
    without = [
        _figures(tmp_path / "one", replace(SAMPLED, samples=1), scorers=scorers)[0],
        _figures(tmp_path / "unscored", SAMPLED)[0],
    ]
    assert not [name for metrics in without for name in metrics if "best" in name]
    metrics, _ = _figures(tmp_path / "sft", SAMPLED, scorers=scorers, of="sft")
    assert {name for name in metrics if "length_best" in name} == {"test/length_best_by_good"}
