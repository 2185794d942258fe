"""Held-out batches: comparisons in rows of the usual length with exactly the same likelihoods, and limits on batches
that mean the same for every method.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.data import CoHDataModule
from coh_lightning.dataset.batch_table import BatchTable
from coh_lightning.dataset.held_out import RECORDS_PER_WRITING, Comparer, Comparison
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.sources import Records
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.generation.sampling import Sampling
from coh_lightning.model.head import row_losses
from coh_lightning.model.losses import output_log_likelihoods
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Link
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import RecordPlanner
from coh_lightning.sequences.trees import Tree
from coh_lightning.sequences.wording import Wording
from helpers.feedback import EVERY_KIND, METHODS, built, data_of, merged, method, pairs, tiny, usable, write
from helpers.tokenizers import character
from helpers.training import fitted, gpt2, trainer


def ranking(number: int, *, k: int = 14) -> dict[str, Any]:
    """k outputs, most of them long."""
    texts = [f"{number}.{i} " + "and so on " * (4 + (3 * i + number) % 9) for i in range(k)]
    return {
        "id": f"long {number}",
        "prompt": f"Tell {number}.",
        "completions": [{"text": text, "rank": i // 2} for i, text in enumerate(texts)],
    }


def compared(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> CoHDataModule:
    """A data module whose validation split are these rows."""
    held_out = [Records(write(folder / "held_out.jsonl", rows))]
    return data_of(pairs(4), folder, train_only=False, validation_sources=held_out, test_share=0.0, **changes)


# Comparisons in rows


@pytest.mark.parametrize("layout", ["tree", "separate"])
@pytest.mark.parametrize("of", ["coh", "coh_ranking", "sft"])
def test_a_comparison_longer_than_a_row_is_split_and_each_likelihood_stays_the_same(
    of: str, layout: Any, tmp_path: Path
) -> None:
    model = gpt2()
    model.configure_model()
    lm = model.lm.double().eval()
    found: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    for row_tokens in (256, 4096):
        data = compared(
            tmp_path, [ranking(0), ranking(1, k=3)], method=method(of), row_tokens=row_tokens, layout=layout
        )
        data.setup()
        _, loader = data.val_dataloader()
        batches = list(loader)
        assert sorted(len(batch["pairs"]) for batch in batches) == [2, 84]
        longest = max(row["input_ids"].shape[1] for batch in batches for row in batch["rows"])
        assert longest <= 256 if row_tokens == 256 or layout == "separate" else longest > 512
        found.append([])
        for batch in batches:
            with torch.no_grad():
                parts = [
                    output_log_likelihoods(row_losses(lm, row), row, outputs=row["outputs"]) for row in batch["rows"]
                ]
            found[-1].append((torch.cat([total for total, _ in parts]), torch.cat([tokens for _, tokens in parts])))
    for (total, tokens), (whole, of_whole) in zip(*found, strict=True):
        assert torch.equal(tokens, of_whole)
        torch.testing.assert_close(total, whole, rtol=1e-9, atol=1e-9)
    assert max(len(total) for total, _ in found[0]) == 14 * (1 if of == "sft" else 2)


def test_the_preference_accuracy_of_split_comparisons_is_that_of_whole_ones(tmp_path: Path) -> None:
    columns = []
    for row_tokens in (256, 4096):
        pl.seed_everything(0, verbose=False)
        data = compared(tmp_path, [ranking(i, k=5 + i) for i in range(4)], row_tokens=row_tokens)
        columns.append(trainer(tmp_path, precision="64-true").validate(gpt2(), datamodule=data, verbose=False)[1])
    assert columns[0] == columns[1] and columns[0]["val/preference_records"] == 4
    assert 0 < columns[0]["val/preference_accuracy_sum"] < 1


@cache
def planner(row_tokens: int) -> RecordPlanner:
    tokens = ChainTokenizer(Encoder(character()), PromptFormat(), max_prompt_tokens=30)
    return RecordPlanner(tokens, Method(), Wording(), seed=0, max_chain_tokens=100, row_tokens=row_tokens)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=2, max_size=9), row_tokens=st.integers(100, 400))
def test_parts_have_every_output_once_in_order_and_fit_a_row(lengths: list[int], row_tokens: int) -> None:
    candidates = tuple(RatedCompletion(f"{number}" * length, rank=number) for number, length in enumerate(lengths))
    comparer = Comparer(planner(row_tokens), ())
    try:
        one = comparer.planner.plan(Feedback("r", (Turn("user", (Part("Q"),)),), candidates))
    except Exception:
        return  # nothing of it fits
    comparison = comparer.comparison(one)
    kept, too_long = comparer.pairs(one)
    assert len(kept) + too_long == len(lengths) * (len(lengths) - 1) // 2
    if comparison is None:
        assert not kept
        return
    assert [chain for part in comparison.parts for chain in part] == list(range(2 * len(comparison.candidates)))
    trees = comparer.trees(comparison)
    largest = comparer.largest([one, one])
    assert largest is not None

    def scored(tree: Tree) -> int:
        return sum(span.stop - span.start for spans in tree.spans for span in spans)

    assert scored(largest) == max(map(scored, trees))
    assert all(tree.tokens <= row_tokens for tree in trees)
    assert [number for part in comparison.parts for number in part] == list(range(2 * len(comparison.candidates)))
    named = [(comparison.candidates[better], comparison.candidates[worse]) for better, worse in comparison.pairs]
    assert named == kept
    assert isinstance(comparison, Comparison) and all(isinstance(link, Link) for link in comparison.links)


# Ranks


@given(count=st.integers(0, 40), ranks=st.integers(1, 6))
def test_every_rank_has_the_same_number_of_batches_and_each_batch_is_there_once(count: int, ranks: int) -> None:
    table = BatchTable(lambda index: index, count)
    shares = [list(table.loader(ranks, rank)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert [i for i in sorted(i for share in shares for i in share) if i < count] == list(range(count))


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_ranks_run_the_same_number_of_rows_at_the_same_time(
    layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ranking(i, k=3 + 3 * (i % 4)) for i in range(7)]
    data = compared(tmp_path, rows, layout=layout)
    data.setup()
    whole = list(data.val_dataloader()[1])
    shares = []
    for rank in range(3):
        monkeypatch.setattr(CoHDataModule, "_ranks", lambda self, rank=rank: (3, rank))
        shares.append([list(loader) for loader in data.val_dataloader()])
    for of_losses in zip(*(share[0] for share in shares), strict=True):
        assert len(of_losses) == 3
    uneven = 0
    for step in zip(*(share[1] for share in shares), strict=True):
        assert len({len(batch["rows"]) for batch in step}) == 1
        uneven += any(not row["outputs"] for batch in step for row in batch["rows"])
    assert uneven > 1
    alike = [batch for step in zip(*(share[1] for share in shares), strict=True) for batch in step if batch["records"]]
    assert (
        [batch["records"] for batch in alike]
        == [batch["records"] for batch in whole]
        == [[number] for number in range(7)]
    )
    assert [batch["pairs"] for batch in alike] == [batch["pairs"] for batch in whole]
    for batch, alone in zip(alike, whole, strict=True):
        assert [row["input_ids"].tolist() for row in batch["rows"] if row["outputs"]] == [
            row["input_ids"].tolist() for row in alone["rows"]
        ]


# Limits


@pytest.mark.parametrize("of", METHODS)
def test_a_limit_on_batches_leaves_as_many_comparisons_and_prompts_whatever_the_method(of: str, tmp_path: Path) -> None:
    chosen = method(of)
    rows = usable([*EVERY_KIND[3:5]], chosen) if of == "coh_ratings" else []
    rows = (
        [
            {
                "id": f"{i}",
                "prompt": f"Say {i}.",
                "scale": [0, 1],
                "completions": [{"text": f"{side} {i}", side: value, "critique": "so so"} for side, value in fields],
            }
            for i in range(80)
            for fields in [(("rank", 1), ("rank", 2))]
        ]
        if not rows
        else [rows[0] | {"id": str(i), "prompt": f"Rate {i}."} for i in range(80)]
    )
    rows = [
        row | {"completions": [one | {"text": f"{one['text']} {j}"} for j, one in enumerate(row["completions"])]}
        for row in rows
    ]
    held_out = [Records(write(tmp_path / "held_out.jsonl", rows))]
    data = data_of(
        usable([*EVERY_KIND], chosen),
        tmp_path,
        train_only=False,
        test_sources=held_out,
        validation_sources=held_out,
        method=chosen,
    )
    model = tiny(sampling=Sampling(max_new_tokens=1))
    run = trainer(tmp_path, CompletionWriter(page=False), limit_val_batches=3, limit_test_batches=2)
    of_validation = merged(run.validate(model, datamodule=data, verbose=False))
    assert (of_validation["val/preference_records"], of_validation["val/preference_pairs"]) == (
        (3, 9) if of == "coh_ratings" else (3, 3)
    )
    assert 0 < of_validation["val/nll_records"] < 80
    of_test = merged(run.test(model, datamodule=data, verbose=False))
    assert of_test["test/preference_records"] == 2
    written = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    assert (
        len({one.prompt_id for one in written})
        == 2 * RECORDS_PER_WRITING
        == len([one for one in written if one.ask == "good"])
    )


@pytest.mark.parametrize("limit", [2, 0.5, 1.0])
def test_a_limit_on_validation_batches_applies_to_each_loader_on_its_own(limit: float, tmp_path: Path) -> None:
    rows = [
        {
            "id": str(i),
            "prompt": f"Say {i}.",
            "completions": [{"text": f"yes {i}", "rank": 1}, {"text": f"no {i}", "rank": 2}],
        }
        for i in range(20)
    ]
    data = compared(tmp_path, rows, row_tokens=256)
    data.setup()
    whole = [len(loader) for loader in data.val_dataloader()]
    run = trainer(tmp_path, limit_val_batches=limit)
    metrics = merged(run.validate(tiny(), datamodule=data, verbose=False))
    expected = [limit if limit > 1 else int(count * limit) for count in whole]
    assert run.num_val_batches == expected and len(whole) == 2
    assert metrics["val/preference_records"] == expected[1]


def test_the_first_rows_are_not_those_of_the_longest_records(tmp_path: Path) -> None:
    rows = [
        {"id": f"{i}", "prompt": f"Say {i}.", "completions": [{"text": f"{i} " + "x" * (60 * (i % 2)), "thumb": True}]}
        for i in range(40)
    ]
    data = compared(tmp_path, rows, row_tokens=256)
    data.setup()
    lengths = [
        [len(data.splits["validation"][number].record.candidates[0].text) > 60 for number in batch["records"]]
        for batch in data.val_dataloader()[0]
    ]
    assert (
        sum(sum(row) == 3 for row in lengths) == 6 > sum(sum(row) == 3 for row in lengths[:6])
        and sum(len(row) for row in lengths) == 40
    )


def test_each_figure_is_logged_under_its_own_name_with_its_count(
    tmp_path: Path,
) -> None:
    data = data_of(pairs(40), tmp_path, train_only=False, validation_share=0.2, test_share=0.2)
    model = tiny(sampling=Sampling(max_new_tokens=2), generate_every_n_validations=1)
    run = trainer(tmp_path, max_steps=1, val_check_interval=2)
    run.fit(model, datamodule=data)
    held_out = len(data.splits["validation"])
    fitted = {name: float(value) for name, value in run.callback_metrics.items()}
    assert (
        fitted["val/nll_records"] == fitted["val/preference_records"] == fitted["val/preference_pairs"] == held_out > 3
    )
    assert {"val/nll", "val/preference_accuracy_sum", "val/gap_words"} <= set(fitted) and not any(
        "dataloader" in name for name in fitted
    )
    losses, preferences, written = run.test(model, datamodule=data, verbose=False)
    assert {"test/nll", "test/nll_good_1", "test/nll_records"} <= set(losses) and all(
        name.startswith("test/nll") for name in losses
    )
    assert {"test/preference_accuracy_sum", "test/preference_pairs"} <= set(preferences)
    assert all(name.startswith("test/preference") for name in preferences)
    assert "test/gap_words" in written and not any("nll" in name or "preference" in name for name in written)
    (predicted,) = [run.predict(model, datamodule=data)]
    assert predicted is not None and {one.prompt_id for batch in predicted for one in batch} == {
        one.record.id for one in data.splits["test"]
    }


def test_data_without_pairs_has_no_loader_of_comparisons(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "prompt": f"Say {i}.", "completions": [{"text": f"Yes {i}", "thumb": True}]} for i in range(30)
    ]
    data = built(rows, tmp_path, train_only=False, validation_share=0.2, test_share=0.2)
    assert (len(data.val_dataloader()), len(data.test_dataloader()), len(data.predict_dataloader())) == (1, 2, 1)
    run = trainer(tmp_path, max_steps=1, val_check_interval=2)
    run.fit(tiny(sampling=Sampling(max_new_tokens=2)), datamodule=data)
    assert "val/nll_records" in run.callback_metrics and not any("preference" in name for name in run.callback_metrics)


def test_a_record_split_over_rows_counts_once(tmp_path: Path) -> None:
    data = compared(tmp_path, [ranking(0), ranking(1)], method=method("coh_ranking"), max_chain_tokens=250)
    data.setup()
    losses, _ = data.val_dataloader()
    assert len(losses) > 2
    metrics = merged(trainer(tmp_path).validate(tiny(), datamodule=data, verbose=False))
    assert metrics["val/nll_records"] == 2


# Reviews


def test_reviews_have_a_loss_of_their_own_that_is_not_among_the_outputs(tmp_path: Path) -> None:
    rows = [row | {"completions": [c | {"critique": "so so"} for c in row["completions"]]} for row in pairs(20)]
    found = []
    for weight in (0.0, 1.0, 3.0):
        others = [row | {"prompt": "Held. " + row["prompt"]} for row in rows]
        held_out = [Records(write(tmp_path / "held_out.jsonl", others))]
        data = data_of(
            rows,
            tmp_path,
            train_only=False,
            method=method("reviewed", feedback_weight=weight),
            validation_sources=held_out,
            test_sources=held_out,
            rows_per_step=64,
            fcm_range=(0.0, 0.0),
        )
        watch = fitted(data, gpt2(lr=1e-15), tmp_path, max_steps=1, precision="64-true")
        figures = {name: value for logged in watch.metrics for name, value in logged.items() if "nll" in name}
        figures |= {"loss": watch.losses[0], "share": data.report()["share_in_loss"]}
        counts = data.counts["train"]
        assert (counts.reviews, counts.completions_without_critique) == (40, 0)
        assert (counts.review_tokens_in_loss > 0) == (weight > 0)
        assert counts.tokens_in_loss > counts.review_tokens_in_loss
        found.append((figures, counts))
    (none, counts), (one, _), (three, _) = found
    for stage in ("train", "val"):
        assert f"{stage}/nll_review_2" not in none
        assert one[f"{stage}/nll_review_2"] == pytest.approx(three[f"{stage}/nll_review_2"], rel=1e-6)
        for name in ("nll", "nll_bad_1", "nll_good_1", "nll_revision_3"):
            assert none[f"{stage}/{name}"] == pytest.approx(one[f"{stage}/{name}"], rel=1e-6)
    # the step's loss is divided by the weight of outputs and reviews together
    outputs, reviews = counts.tokens_in_loss, found[1][1].review_tokens_in_loss
    for weight, figures in ((1.0, one), (3.0, three)):
        whole = outputs * figures["train/nll"] + weight * reviews * figures["train/nll_review_2"]
        assert figures["loss"] == pytest.approx(whole / (outputs + weight * reviews), rel=1e-6)
    assert none["loss"] == pytest.approx(none["train/nll"], rel=1e-6)


def test_completions_without_a_critique_are_counted_and_records_without_any_are_rejected(tmp_path: Path) -> None:
    rows = pairs(4)
    for row in rows[:3]:
        row["completions"] = [row["completions"][0], row["completions"][1] | {"critique": "so so"}]
    data = built(rows, tmp_path, method=method("reviewed"))
    counts = data.counts["train"]
    assert (counts.used, counts.rejected, counts.reviews, counts.completions_without_critique) == (3, 1, 3, 3)
    assert data.report()["rejected"] == {"no completion has a critique": 1}
    assert "3 reviews in them, 3 completions without a critique" in dict(data.summary())["chains"]
    mixed = built(rows, tmp_path, method=method("coh+reviewed")).counts["train"]
    assert (mixed.used, mixed.rejected, mixed.reviews, mixed.completions_without_critique) == (4, 0, 3, 5)


def test_records_that_are_all_held_out_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """As are those of the prompts that an earlier run held out, which people then judged."""
    first = built(pairs(200), tmp_path, train_only=False, validation_share=0.05, test_share=0.1)
    held_out = [one.record.to_json() for one in first.splits["test"]]
    with pytest.raises(
        InputError, match=f"^All {len(held_out)} records are held out by data.validation_share 0.05 and"
    ):
        built(held_out, tmp_path, train_only=False, validation_share=0.05, test_share=0.1)
    again = built(held_out, tmp_path)
    assert len(again.splits["train"]) == len(held_out) > 5
