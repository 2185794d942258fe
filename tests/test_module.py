"""The module: a step's loss and gradient equal those of the plain chains; checkpoints, held-out losses, writing."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation
from coh_lightning.model.checkpoints import CHECKPOINT_KEY
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.model.losses import TokenLosses, row_loss
from coh_lightning.model.tree_attention import NAME
from coh_lightning.module import CoHModule
from coh_lightning.sequences.preferences import strict_pairs
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.training.held_out_figures import preferences
from coh_lightning.training.schedule import OptimizerSettings
from coh_lightning.training.training_figures import sum_over_replicas
from helpers.feedback import EVERY_KIND, TINY, built, data_of, grouped, merged, method, pairs, tiny, usable, wording
from helpers.tokenizers import CHATML, byte_level
from helpers.training import Watch, fitted, gpt2, held_out_data, trainer


def test_the_learned_share_is_that_of_the_feedback_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one two three four five\n\n" * 20, encoding="utf-8")
    settings: dict[str, Any] = {"pretraining_text": [str(text)], "pretraining_rows_per_step": 1}
    data = built(pairs(12), tmp_path, **settings)
    rows = [data.rows.train_row(planned, 0) for planned in data.plan.step(0, 0) if not planned.pretraining]
    learned, tokens = sum(int((row.learned != 0).sum()) for row in rows), sum(int(row.bounds[-1]) for row in rows)
    watch = fitted(data_of(pairs(12), tmp_path, **settings), CoHModule(from_config=TINY), tmp_path, max_steps=1)
    [logged] = [row["train/learned_share"] for row in watch.metrics if "train/learned_share" in row]
    assert logged == pytest.approx(learned / tokens, rel=1e-6)
    assert 0.1 < logged < 0.9


# The loss of a step


def plain_loss(
    model: CoHModule, weights: dict[str, Tensor], data: CoHDataModule, *, epoch: int, step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """A step's loss and gradients, chain by chain, each alone under the model's own causal mask; all sums are made
    here.
    """
    lm = copy.deepcopy(model.lm).double()
    lm.load_state_dict(weights, strict=False)
    lm.zero_grad()
    parts: list[Tensor] = []
    amounts: list[float] = []
    text: list[Tensor] = []
    for planned in data.plan.step(epoch, step):
        if planned.pretraining:
            text += [nll for number in planned.members for nll in _nll(lm, data.rows.texts[number])[0]]
            continue
        for number in planned.members:
            item = data.plan.items[number]
            one = data.splits["train"][item.record]
            chains = data.planner.chains(one, epoch)
            for tokens in (data.prompter.tokens.chain(one.prompt, chains[i]) for i in item.chains):
                nll, unlikelihood = _nll(lm, tokens.ids)
                learned, unlearned = torch.from_numpy(tokens.learned[1:]), torch.from_numpy(tokens.unlearned[1:])
                assert tokens.learned[0] == tokens.unlearned[0] == 0
                parts.append((learned * nll).sum() + (unlearned * unlikelihood).sum())
                amounts.append(float(tokens.learned.sum() + tokens.unlearned.sum()))
    loss = torch.stack(parts).sum() / sum(amounts)
    if text:
        loss = loss + data.pretraining_weight * torch.stack(text).mean()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}


def _nll(lm: Any, ids: Any) -> tuple[Tensor, Tensor]:
    row = torch.from_numpy(ids).long()
    log_p = log_softmax(lm(input_ids=row[None], use_cache=False).logits[0, :-1], -1).gather(1, row[1:, None])[:, 0]
    return -log_p, -torch.log1p(-log_p.exp())


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """L2 norm of the difference of two gradients, relative to the second's."""
    assert set(one) == set(other)
    squares = [
        ((one[name].double() - other[name].double()).square().sum(), other[name].double().square().sum())
        for name in one
    ]
    return math.sqrt(sum(float(a) for a, _ in squares) / sum(float(b) for _, b in squares))


@pytest.mark.parametrize("layout", ["tree", "separate"])
@pytest.mark.parametrize("of", ["coh", "coh_ranking", "coh_critique", "unlikelihood"])
def test_the_loss_of_every_step_is_that_of_its_chains_one_by_one(of: str, layout: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(f"Some plain text, number {i}, of its own length{' or so' * (i % 4)}." for i in range(9)),
        encoding="utf-8",
    )
    data = data_of(
        usable(EVERY_KIND, method(of)),
        tmp_path,
        method=method(of),
        wording=wording("varied"),
        layout=layout,
        fcm_range=(0.0, 0.0),
        rows_per_step=3,
        pretraining_text=[str(text)],
        pretraining_rows_per_step=1,
        pretraining_weight=0.3,
    )
    model = gpt2()
    watch = fitted(data, model, tmp_path, precision="64-true", max_epochs=2)
    steps = data.plan.steps_per_epoch
    assert len(watch.losses) == 2 * steps
    for at in (0, steps - 1, 2 * steps - 1):  # the last step of an epoch may be a short one
        loss, gradients = plain_loss(model, watch.before[at], data, epoch=at // steps, step=at % steps)
        assert watch.losses[at] == pytest.approx(float(loss), rel=1e-10)
        assert difference(watch.gradients[at], gradients) < 1e-8
        assert watch.metrics[at]["train/loss"] == pytest.approx(float(loss), rel=1e-6)


def test_the_same_in_single_precision(tmp_path: Path) -> None:
    data, model = data_of(pairs(8), tmp_path, fcm_range=(0.0, 0.0)), tiny()
    watch = fitted(data, model, tmp_path, max_steps=1)
    loss, gradients = plain_loss(model, watch.before[0], data, epoch=0, step=0)
    assert watch.losses[0] == pytest.approx(float(loss), rel=1e-6)
    assert difference(watch.gradients[0], gradients) < 1e-5


@pytest.mark.parametrize("of", ["coh", "unlikelihood"])
def test_trees_and_separate_chains_make_the_same_step(of: str, tmp_path: Path) -> None:
    """All records are in one step, so both layouts sum over the same chains; the rest of the step is empty rows."""
    rows = usable(EVERY_KIND, method(of))
    found = [
        fitted(
            data_of(
                rows,
                tmp_path,
                method=method(of),
                layout=layout,
                fcm_range=(0.0, 0.0),
                rows_per_step=many,
                row_tokens=512,
            ),
            gpt2(),
            tmp_path,
            precision="64-true",
            max_steps=1,
        )
        for layout, many in (("tree", 20), ("separate", 60))
    ]
    assert found[0].losses[0] == pytest.approx(found[1].losses[0], rel=1e-10)
    assert difference(found[0].gradients[0], found[1].gradients[0]) < 1e-8


def test_clipping_sees_the_true_gradient(tmp_path: Path) -> None:
    """Eight micro-batches or one: the norm that is clipped is the same, and so is the weight after the step."""
    rows = pairs(4)
    steps = []
    for row_tokens, many in ((256, 6), (1024, 1)):
        data = data_of(rows, tmp_path, row_tokens=row_tokens, rows_per_step=many, fcm_range=(0.0, 0.0))
        steps.append(fitted(data, gpt2(), tmp_path, precision="64-true", max_steps=2, gradient_clip_val=0.01))
        assert data.plan.steps_per_epoch == 1
    assert difference(steps[0].gradients[0], steps[1].gradients[0]) < 1e-8
    for name, value in steps[0].before[1].items():
        torch.testing.assert_close(value, steps[1].before[1][name], rtol=1e-7, atol=1e-9)


def test_forgetful_masking_is_on_in_training_and_changes_the_loss(tmp_path: Path) -> None:
    losses = [
        fitted(data_of(pairs(8), tmp_path, fcm_range=hide), gpt2(), tmp_path, precision="64-true", max_steps=1).losses[
            0
        ]
        for hide in ((0.0, 0.0), (0.4, 0.5))
    ]
    assert losses[0] != losses[1]


# Learning


def test_the_layout_is_checked_once_per_module_and_only_for_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr("coh_lightning.model.build.check_layout", lambda lm, *, row_tokens: tried.append(row_tokens))
    for layout, times in (("tree", [256]), ("separate", [256])):
        data, model = (
            data_of(pairs(12), tmp_path, train_only=False, test_share=0.3, layout=layout),
            tiny(sampling=Sampling(max_new_tokens=2)),
        )
        trainer(tmp_path, max_steps=1).fit(model, datamodule=data)
        trainer(tmp_path).test(model, datamodule=data, verbose=False)
        assert tried == times


@pytest.mark.parametrize(
    ("settings", "layout", "used"),
    [
        ({}, "tree", NAME),
        ({"attention": "sdpa"}, "tree", "sdpa"),
        ({"attention": "eager"}, "tree", "eager"),
        ({}, "separate", "sdpa"),
    ],
)
def test_attention_is_tree_by_tree_only_where_the_model_may_choose(
    settings: dict[str, Any], layout: Any, used: str, tmp_path: Path
) -> None:
    data, model = data_of(pairs(12), tmp_path, train_only=False, test_share=0.3, layout=layout), tiny(**settings)
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, datamodule=data)
    assert model.lm.config._attn_implementation == used
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = CoHModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.lm.config._attn_implementation == "sdpa"
    trainer(tmp_path).validate(loaded, datamodule=data, verbose=False)
    assert loaded.lm.config._attn_implementation == ("sdpa" if layout == "separate" else NAME)


def test_a_compiled_model_keeps_the_dense_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    model = tiny(compile=True)
    trainer(tmp_path, max_steps=1).fit(model, datamodule=data_of(pairs(12), tmp_path))
    assert model.lm.config._attn_implementation == "sdpa"


def test_figures_are_the_same_with_the_dense_mask(tmp_path: Path) -> None:
    """Losses, gradients, held-out losses and preference accuracy, of two validations and the steps between."""
    watches = [
        fitted(
            held_out_data(tmp_path, fcm_range=(0.0, 0.3)),
            gpt2(attention=attention),
            tmp_path,
            precision="64-true",
            max_steps=3,
            val_check_interval=1,
        )
        for attention in ("auto", "sdpa")
    ]
    assert watches[0].losses == pytest.approx(watches[1].losses, rel=1e-9)
    assert difference(watches[0].gradients[0], watches[1].gradients[0]) < 1e-9
    figures = [{name: value for row in watch.metrics for name, value in row.items()} for watch in watches]
    assert figures[0].keys() >= {"val/nll", "val/preference_accuracy_sum"}
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)


def test_a_sum_over_ranks_counts_ranks_of_one_replica_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path)
    for ranks, copies in ((1, 1), (2, 2), (4, 4), (4, 2)):
        monkeypatch.setattr(type(run), "world_size", ranks)
        monkeypatch.setattr(
            "coh_lightning.training.training_figures.replicas", lambda trainer, copies=copies: (copies, 0)
        )
        monkeypatch.setattr(
            run.strategy, "reduce", lambda value, *, reduce_op, ranks=ranks: {"sum": value * ranks}[reduce_op]
        )
        assert float(sum_over_replicas(run, torch.tensor(3.0))) == 3.0 * copies


def test_a_toy_model_memorizes_eight_chains(tmp_path: Path) -> None:
    data = data_of(pairs(2), tmp_path, fcm_range=(0.0, 0.0), rows_per_step=1, row_tokens=512)
    watch = fitted(data, tiny(), tmp_path, max_steps=150)
    assert watch.losses[0] > 4
    assert watch.losses[-1] < 0.15
    last = watch.metrics[-1]
    assert {"train/nll_good_1", "train/nll_bad_1", "train/nll_good_2", "train/nll_bad_2"} <= set(last)
    assert last["train/nll_bad_1"] < 0.3


def test_what_is_unlearned_becomes_unlikely_and_what_is_learned_likely(tmp_path: Path) -> None:
    data = data_of(
        pairs(2, good="yes {i}", bad="no {i}"),
        tmp_path,
        method=method("unlikelihood", unlikelihood=1.0),
        rows_per_step=1,
        row_tokens=512,
    )
    watch = fitted(data, tiny(), tmp_path, max_steps=80)
    assert (
        watch.metrics[-1]["train/nll_good_1"]
        < 0.5
        < watch.metrics[0]["train/nll_bad_1"]
        < watch.metrics[-1]["train/nll_bad_1"]
    )


def test_the_loss_per_kind_is_the_mean_over_its_tokens(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one paragraph\nanother one", encoding="utf-8")
    data = data_of(
        pairs(5),
        tmp_path,
        fcm_range=(0.0, 0.0),
        rows_per_step=2,
        pretraining_text=[str(text)],
        pretraining_rows_per_step=1,
    )
    model = gpt2()
    watch = fitted(data, model, tmp_path, precision="64-true", max_steps=1)
    lm = copy.deepcopy(model.lm)
    lm.load_state_dict(watch.before[0], strict=False)
    sums: dict[str, list[float]] = {}
    for planned in data.plan.step(0, 0):
        for number in () if planned.pretraining else planned.members:
            item = data.plan.items[number]
            one = data.splits["train"][item.record]
            for i in item.chains:
                tokens = data.prompter.tokens.chain(one.prompt, data.planner.chains(one)[i])
                nll = _nll(lm, tokens.ids)[0]
                for span in tokens.spans:
                    sums.setdefault(f"train/nll_{span.kind}_{span.place + 1}", []).extend(
                        nll[span.start - 1 : span.stop - 1].tolist()
                    )
    every = [value for values in sums.values() for value in values]
    for name, values in {**sums, "train/nll": every}.items():
        assert watch.metrics[0][name] == pytest.approx(sum(values) / len(values), rel=1e-6)
    assert "train/nll_pretraining" in watch.metrics[0]


def test_dropout_is_off_by_default(tmp_path: Path) -> None:
    batch = torch.arange(3, 20)[None]
    for dropout, same in ((False, True), (True, False)):
        module = gpt2(dropout=dropout)
        module.configure_model()
        assert module.lm.training
        assert torch.equal(module.lm(input_ids=batch).logits, module.lm(input_ids=batch).logits) == same


def test_every_micro_batch_of_every_epoch_has_its_own_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ranks differ: row 5 of an epoch is the same draw as micro-batch 5 of one rank and as micro-batch 2 of
    the second of two.
    """

    class Seeds(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def on_train_batch_end(self, *args: Any) -> None:
            self.seen.append(torch.initial_seed())

    seeds = Seeds()
    pl.seed_everything(0, verbose=False)
    module = gpt2(dropout=True)
    trainer(tmp_path, seeds, max_epochs=2).fit(module, datamodule=data_of(pairs(12), tmp_path))
    assert len(set(seeds.seen)) == len(seeds.seen) >= 8
    batch = next(iter(module.data.train_dataloader()))
    monkeypatch.setattr("coh_lightning.module.replicas", lambda _: (2, 1))
    monkeypatch.setattr(type(module), "current_epoch", 1)
    module.training_step(batch, 2)
    assert torch.initial_seed() == seeds.seen[len(seeds.seen) // 2 + 5]


def test_a_copy_of_a_module_has_no_trainer(tmp_path: Path) -> None:
    model = tiny(sampling=Sampling(max_new_tokens=2))
    trainer(tmp_path).test(model, datamodule=held_out_data(tmp_path), verbose=False)
    again = copy.deepcopy(model)
    assert model._trainer is not None and again._trainer is None and not hasattr(again.writer, "_trainer")
    assert torch.equal(logits(again), logits(model))


def test_configuring_the_model_twice_keeps_it() -> None:
    module = tiny()
    module.configure_model()
    lm = module.lm
    module.configure_model()
    assert module.lm is lm and not lm.config.use_cache


def test_the_learning_rate_rises_to_its_peak_and_ends_at_its_share(tmp_path: Path) -> None:
    data = data_of(pairs(40), tmp_path, rows_per_step=1)
    watch = fitted(data, tiny(lr=0.01, warmup_ratio=0.2, min_lr_ratio=0.1, weight_decay=0.1), tmp_path, max_epochs=1)
    rates = [metrics["lr"] for metrics in watch.metrics]
    assert len(rates) == data.plan.steps_per_epoch >= 8
    assert (
        max(rates) == pytest.approx(0.01)
        and rates[-1] == pytest.approx(0.001)
        and rates[0] == pytest.approx(0.01 / round(0.2 * len(rates)))
    )
    assert rates.index(max(rates)) == round(0.2 * len(rates)) - 1


def test_only_matrices_decay(tmp_path: Path) -> None:
    data, module = data_of(pairs(4), tmp_path), tiny(weight_decay=0.1)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, datamodule=data)
    groups = run.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
    assert groups[0]["betas"] == (0.9, 0.95)


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    found = [
        fitted(data_of(pairs(6), tmp_path), gpt2(gradient_checkpointing=on), tmp_path, precision="64-true", max_steps=2)
        for on in (False, True)
    ]
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-10)


def test_a_non_finite_loss_stops_the_run_before_the_weights_change_and_names_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, weights = data_of(pairs(12), tmp_path, rows_per_step=3), tiny(), []
    data.setup()
    bad = data.rows.train_batch(data.planned(0, 4), 0)["input_ids"]  # the second row of the second step

    def spoilt(losses: TokenLosses, batch: Any, **settings: Any) -> Any:
        loss, stats = row_loss(losses, batch, **settings)
        return (loss * float("nan") if torch.equal(batch["input_ids"], bad) else loss), stats

    class Last(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
            weights.append(pl_module.lm.lm_head.weight.detach().clone())

    monkeypatch.setattr("coh_lightning.module.row_loss", spoilt)
    members = data.plan.step(0, 1)[1].members
    named = ", ".join(
        f"record '{data.splits['train'][data.plan.items[number].record].record.id}'" for number in members
    )
    with pytest.raises(
        InputError,
        match=rf"^The loss of step 2 \(epoch 0\) is nan: it is non-finite in 1 of the step's 3 rows, that of {named};",
    ):
        trainer(tmp_path, Last(), max_steps=9, log_every_n_steps=1000).fit(model, datamodule=data)
    assert members and torch.equal(model.lm.lm_head.weight, weights[2])


# Held-out data


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_held_out_losses_and_preferences_are_those_of_the_chains_one_by_one(layout: Any, tmp_path: Path) -> None:
    data, model = held_out_data(tmp_path, layout=layout), gpt2(sampling=Sampling(max_new_tokens=4))
    pl.seed_everything(0, verbose=False)
    run = trainer(tmp_path, max_steps=1, precision="64-true")
    run.fit(model, datamodule=data)
    metrics = merged(run.validate(model, datamodule=data, verbose=False))
    sums: dict[str, list[float]] = {}
    right: dict[str, list[float]] = {name: [] for name in ("sum", "mean", "swapped_sum", "swapped_mean", "marker")}
    with torch.no_grad():
        for one in data.splits["validation"]:
            for chain in data.planner.chains(one):
                tokens = data.prompter.tokens.chain(one.prompt, chain)
                nll = _nll(model.lm, tokens.ids)[0]
                for span in tokens.spans:
                    sums.setdefault(f"val/nll_{span.kind}_{span.place + 1}", []).extend(
                        nll[span.start - 1 : span.stop - 1].tolist()
                    )
            scores: dict[str, list[Tensor]] = {"good": [], "bad": []}
            for kind in scores:
                link = next(chain for chain in data.planner.chains(one) if chain[0].kind == kind)[0]
                for candidate in one.record.candidates:
                    tokens = data.prompter.tokens.chain(one.prompt, (type(link)(link.marker, candidate.text),))
                    begin, end, *_ = tokens.spans[0]
                    scores[kind].append(-_nll(model.lm, tokens.ids)[0][begin - 1 : end - 1])
            good, bad = scores["good"], scores["bad"]
            for better, worse in strict_pairs(one.record, data.method):
                right["sum"].append(float(good[better].sum() > good[worse].sum()))
                right["mean"].append(float(good[better].mean() > good[worse].mean()))
                right["swapped_sum"].append(float(bad[better].sum() < bad[worse].sum()))
                right["swapped_mean"].append(float(bad[better].mean() < bad[worse].mean()))
                right["marker"].append(
                    float(good[better].sum() - bad[better].sum() > good[worse].sum() - bad[worse].sum())
                )
    assert len(right["sum"]) == len(data.splits["validation"]) > 3
    for name, values in sums.items():
        assert metrics[name] == pytest.approx(sum(values) / len(values), rel=1e-6)
    for name, shares in right.items():
        assert metrics[f"val/preference_accuracy_{name}"] == pytest.approx(sum(shares) / len(shares))


def test_pairs_are_ranked_under_the_good_sentence_the_bad_one_and_their_ratio() -> None:
    total, mean = (
        torch.tensor([-4.0, -5.0, -9.0, -4.0]),
        torch.tensor([-2.0, -1.0, -2.0, -2.0]),
    )  # two outputs under good, the same under bad
    assert preferences([(0, 1)], total, mean) == {
        "preference_accuracy_sum": 1.0,  # -4 > -5
        "preference_accuracy_mean": 0.0,  # -2 < -1
        "preference_accuracy_swapped_sum": 1.0,  # under the bad sentence the worse one is the likelier: -4 > -9
        "preference_accuracy_marker": 1.0,  # 5 > -1
    }, "swapped_mean is a tie, which counts for nothing"
    assert preferences([(0, 1)], total[:2], mean[:2]) == {
        "preference_accuracy_sum": 1.0,
        "preference_accuracy_mean": 0.0,
    }, "no bad sentence"
    assert preferences([], total, mean) == {}


def test_test_and_predict_write_every_prompt_under_every_condition(tmp_path: Path) -> None:
    data, model = held_out_data(tmp_path), tiny(sampling=Sampling(max_new_tokens=6, temperature=1.0, samples=2))
    run = trainer(tmp_path, CompletionWriter(), max_steps=1)
    run.fit(model, datamodule=data)
    prompts = len(data.splits["test"])
    metrics = merged(run.test(model, datamodule=data, verbose=False))
    assert {"test/nll", "test/nll_good_1", "test/preference_accuracy_sum"} <= set(metrics)
    assert any(name.endswith("_good") for name in metrics) and any(name.endswith("_bad") for name in metrics)
    written = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    assert len(written) == prompts * 2 * 2
    assert {(one.prompt_id, one.ask) for one in written} == {
        (one.record.id, ask) for one in data.splits["test"] for ask in ("good", "bad")
    }
    assert {one.marker for one in written} == {"A helpful answer:", "An unhelpful answer:"}
    assert all(one.prompt.endswith(one.marker + "\n") and one.sampling["temperature"] == 1.0 for one in written)
    (tmp_path / "completions.jsonl").unlink()
    run.predict(model, datamodule=data)
    again = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    assert again == written, "the same draws, in the same order"
    assert not list(tmp_path.glob("completions.jsonl.rank*"))


def test_predictions_come_back_as_completions(tmp_path: Path) -> None:
    data, model = held_out_data(tmp_path), tiny(sampling=Sampling(max_new_tokens=3))
    predictions = trainer(tmp_path).predict(model, datamodule=data)
    assert predictions is not None
    assert {one.prompt_id for batch in predictions for one in batch} == {one.record.id for one in data.splits["test"]}


def test_test_and_predict_refuse_an_empty_held_out_split(tmp_path: Path) -> None:
    for command in ("test", "predict"):
        with pytest.raises(InputError, match=r"No record is held out for test and predict \(data.test_share is 0\)"):
            getattr(trainer(tmp_path), command)(tiny(), datamodule=data_of(pairs(4), tmp_path))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_every_precision_trains_tests_and_writes(precision: Any, tmp_path: Path) -> None:
    data, model = held_out_data(tmp_path, max_test_prompts=2), tiny(sampling=Sampling(max_new_tokens=3))
    run = trainer(tmp_path, CompletionWriter(), max_steps=2, precision=precision)
    run.fit(model, datamodule=data)
    metrics = merged(run.test(model, datamodule=data, verbose=False))
    assert math.isfinite(metrics["test/nll"])
    assert len(list(read_jsonl(tmp_path / "completions.jsonl", Completion))) == 4


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, CoHModule, CoHDataModule]:
    data, model = held_out_data(tmp_path), tiny(sampling=Sampling(max_new_tokens=3))
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, datamodule=data)
    run.save_checkpoint(tmp_path / "two.ckpt")
    return tmp_path / "two.ckpt", model, data


def logits(model: CoHModule) -> Tensor:
    model.configure_model()
    with torch.no_grad():
        return model.lm(input_ids=torch.arange(3, 60)[None]).logits


def test_a_checkpoint_gives_back_the_model_and_what_it_was_trained_with(
    checkpoint: tuple[Path, CoHModule, CoHDataModule],
) -> None:
    path, model, data = checkpoint
    loaded = CoHModule.load_from_checkpoint(path)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.trained_with == json.loads(json.dumps(data.settings()))
    assert loaded.trained_with["wording"]["pairs"] == [{"good": "A helpful answer:", "bad": "An unhelpful answer:"}]


def test_a_checkpoint_is_plain_data_and_has_no_hyperparameters(
    checkpoint: tuple[Path, CoHModule, CoHDataModule],
) -> None:
    saved = torch.load(checkpoint[0], weights_only=True)
    assert isinstance(saved[CHECKPOINT_KEY], str) and "hyper_parameters" not in saved
    assert set(json.loads(saved[CHECKPOINT_KEY])) == {
        "model",
        "data",
        "tokenizer",
        "lora",
        "base",
        "validations",
        "plan",
    }


def test_the_defaults_are_those_of_the_paper_and_of_the_documentation() -> None:
    model = CoHModule()
    assert (model.lr, model.optimizer) == (1e-5, OptimizerSettings((0.9, 0.95), 0.0, 0.03, 0.1))
    assert model.spec == ModelSpec(None, None, torch.float32, "auto", dropout=False, lora=None, trust_remote_code=False)
    assert (model.gradient_checkpointing, model.compile_blocks) == (False, False)
    assert model.generation == Generation(
        Sampling(), generate_every_n_validations=0, refine=0, dialogues=False, scorers=()
    )
    assert asdict(Sampling()) == {
        "max_new_tokens": 128, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "samples": 1, "batch_size": 16, "seed": 0,
        "max_seconds": None, "guidance": None, "guidance_cutoff": 0.02, "guidance_from": "bad",
    }  # fmt: skip


def test_a_checkpoint_of_quantized_weights_has_only_the_adapters(tmp_path: Path) -> None:
    model = tiny(lora=LoRA(rank=2, targets=("q_proj",)))
    trainer(tmp_path, max_steps=1).fit(model, datamodule=data_of(pairs(4), tmp_path))
    whole = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(whole)
    assert set(whole["state_dict"]) == set(model.state_dict())
    model.spec = replace(model.spec, lora=replace(model.lora, quantize="4bit"))  # type: ignore[type-var]
    small: dict[str, Any] = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(small)
    assert (
        set(small["state_dict"]) == {key for key in model.state_dict() if "lora_A" in key or "lora_B" in key} != set()
    )


def test_training_starts_from_a_checkpoint_of_ours(
    checkpoint: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    path, model, _ = checkpoint
    assert torch.equal(logits(CoHModule(str(path))), logits(model))
    other = data_of(pairs(6), tmp_path, method=method("sft"))  # on other data, with another method
    started = CoHModule(str(path), lr=1e-3)
    watch = fitted(other, started, tmp_path, max_steps=2)
    assert torch.equal(watch.before[0]["model.embed_tokens.weight"], model.lm.state_dict()["model.embed_tokens.weight"])


def test_training_starts_from_a_hugging_face_folder(
    checkpoint: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    checkpoint[1].lm.save_pretrained(tmp_path / "folder")
    assert torch.equal(logits(CoHModule(str(tmp_path / "folder"))), logits(checkpoint[1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"wording": wording("binary")},
            "data.wording.name is 'binary', but the checkpoint was trained with 'default'",
        ),
        ({"method": method("csft")}, "data.method.name is 'csft', but the checkpoint was trained with 'coh'"),
        (
            {"prompt_format": PromptFormat(before_marker="\n")},
            "data.prompt_format.before_marker is '\\n', but the checkpoint was trained with '\\n\\n'",
        ),
    ],
)
@pytest.mark.parametrize("road", ["ckpt_path", "load_from_checkpoint", "model"])
def test_settings_that_differ_from_the_checkpoints_are_refused_however_it_is_loaded(
    road: str, changes: dict[str, Any], message: str, checkpoint: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    path = checkpoint[0]
    model = {
        "ckpt_path": tiny,
        "load_from_checkpoint": lambda: CoHModule.load_from_checkpoint(path),
        "model": lambda: CoHModule(str(path)),
    }[road]()
    model.writer.settings = Generation(Sampling(max_new_tokens=3))
    given = {"ckpt_path": str(path), "weights_only": True} if road == "ckpt_path" else {}
    for command in ("test", "predict"):
        with pytest.raises(InputError) as refused:
            getattr(trainer(tmp_path), command)(model, datamodule=held_out_data(tmp_path, **changes), **given)
        assert message in str(refused.value)
    trainer(tmp_path).predict(model, datamodule=held_out_data(tmp_path), **given)


@pytest.mark.parametrize("road", ["ckpt_path", "load_from_checkpoint", "model"])
def test_attributes_come_from_the_checkpoint_however_it_is_loaded(road: str, tmp_path: Path) -> None:
    def data(attribute: str, folder: str) -> CoHDataModule:
        (tmp_path / folder).mkdir()
        rated = [{"text": text, "rating": {attribute: value}} for text, value in (("yes", 1), ("no", 0))]
        rows = [{"prompt": f"Post {i}", "scale": [0, 1], "completions": rated} for i in range(9)]
        return data_of(
            rows,
            tmp_path / folder,
            train_only=False,
            test_share=0.5,
            validation_share=0.0,
            method=method("coh_ratings"),
        )

    run = trainer(tmp_path, max_steps=1)
    run.fit(tiny(), datamodule=data("style", "one"))
    run.save_checkpoint(path := tmp_path / "one.ckpt")
    model = {
        "ckpt_path": tiny,
        "load_from_checkpoint": lambda: CoHModule.load_from_checkpoint(path),
        "model": lambda: CoHModule(str(path)),
    }[road]()
    model.writer.settings = Generation(Sampling(max_new_tokens=3))
    given = {"ckpt_path": str(path), "weights_only": True} if road == "ckpt_path" else {}
    trainer(tmp_path).predict(model, datamodule=data("tone", "two"), **given)
    assert {one.marker for one in model.writer.written} == {
        "An answer with excellent style:",
        "An answer with very poor style:",
    }


def test_a_model_trained_further_is_prompted_as_in_its_last_training(
    checkpoint: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    model = CoHModule(str(checkpoint[0]), generation=Generation(Sampling(max_new_tokens=3)))
    other = held_out_data(tmp_path, wording=wording("binary"))
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, datamodule=other)
    run.test(model, datamodule=other, verbose=False)


def test_a_resumed_run_of_the_module_equals_the_uninterrupted_run(tmp_path: Path) -> None:
    def data() -> CoHDataModule:
        return data_of(pairs(24), tmp_path, wording=wording("varied"))

    whole = fitted(data(), tiny(), tmp_path, max_epochs=3)
    steps = len(whole.losses) // 3
    half = Watch()
    pl.seed_everything(0, verbose=False)
    save = pl.callbacks.ModelCheckpoint(
        tmp_path / "half", every_n_train_steps=steps + 2, save_top_k=-1, filename="{step}"
    )
    trainer(tmp_path, half, save, enable_checkpointing=True, max_epochs=3).fit(tiny(), datamodule=data())
    rest = Watch()
    trainer(tmp_path, rest, max_epochs=3).fit(
        tiny(), datamodule=data(), ckpt_path=str(tmp_path / "half" / f"step={steps + 2}.ckpt"), weights_only=True
    )
    assert steps > 2 and rest.losses == whole.losses[steps + 2 :]


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"PK\x03\x04 cut short")
    for name, message in (
        ("other.ckpt", "was not written by CoHModule"),
        ("broken.ckpt", "can't be read as a checkpoint"),
        ("none.ckpt", "There is no checkpoint file"),
    ):
        with pytest.raises(InputError, match=message):
            CoHModule(str(tmp_path / name)).configure_model()
        with pytest.raises(InputError, match=message):
            CoHModule.load_from_checkpoint(tmp_path / name)


# What is refused


class Foreign(pl.LightningDataModule):
    def train_dataloader(self) -> list[Any]:
        return [{}]


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(tmp_path: Path) -> None:
    byte_level(CHATML).save_pretrained(tmp_path / "tokenizer")
    data = held_out_data(tmp_path, tokenizer=str(tmp_path / "tokenizer"), max_prompt_tokens=200)
    for command in ("fit", "validate", "test", "predict"):
        with pytest.raises(
            InputError, match=r"ids up to \d+, but the model's embedding ends at 299; name the model's tokenizer"
        ):
            getattr(trainer(tmp_path, max_steps=1), command)(tiny(vocab_size=300), datamodule=data)


def test_chains_longer_than_the_models_positions_are_refused(tmp_path: Path) -> None:
    data = data_of(pairs(4), tmp_path, max_chain_tokens=600, row_tokens=600)
    with pytest.raises(InputError, match=r"data.max_chain_tokens is 600, but the model has 512 positions; lower it"):
        trainer(tmp_path, max_steps=1).fit(tiny(), datamodule=data)


def test_another_data_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CoHModule needs a CoHDataModule and got Foreign"):
        trainer(tmp_path, max_steps=1).fit(tiny(), datamodule=Foreign())
    with pytest.raises(InputError, match="CoHModule needs a CoHDataModule"):
        trainer(tmp_path, max_steps=1).fit(tiny(), train_dataloaders=[{}])


def test_accumulation_that_differs_from_the_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"accumulate_grad_batches is 4, but data.rows_per_step and the 1 ranks make it 3; leave it out",
    ):
        trainer(tmp_path, max_steps=1, accumulate_grad_batches=4).fit(
            tiny(), datamodule=data_of(pairs(4), tmp_path, rows_per_step=3)
        )
    run = trainer(tmp_path, max_steps=1)
    run.fit(tiny(), datamodule=data_of(pairs(4), tmp_path, rows_per_step=3))
    assert run.accumulate_grad_batches == 3


def test_a_run_without_max_steps_or_max_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Neither trainer.max_steps nor trainer.max_epochs says where training ends"):
        trainer(tmp_path, max_epochs=-1).fit(tiny(), datamodule=data_of(pairs(4), tmp_path))


def test_rows_that_the_ranks_cannot_share_are_refused(tmp_path: Path) -> None:
    data = built(pairs(4), tmp_path, rows_per_step=3)
    with pytest.raises(InputError, match=r"3 feedback and 0 pretraining rows, which 2 ranks can't share evenly"):
        data.plan.accumulate(2)


def test_lightnings_own_sampler_changes_nothing_on_one_rank(tmp_path: Path) -> None:
    data = built(pairs(4), tmp_path)
    data.trainer = trainer(tmp_path, use_distributed_sampler=True, max_steps=1)
    data.setup("fit")


class StopsAt(pl.Callback):
    """Requests a stop after a micro-batch, as a clock does."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen += 1
        if self.seen == self.batch:
            trainer.should_stop = True


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 1), (4, 2), (5, 2)])
def test_a_stop_requested_within_a_step_comes_after_it(batch: int, steps: int, tmp_path: Path) -> None:
    stop, watch = StopsAt(batch), Watch()
    run = trainer(tmp_path, stop, watch, max_steps=4)
    run.fit(tiny(), datamodule=data_of(pairs(24), tmp_path, rows_per_step=3))
    assert (run.global_step, stop.seen, len(watch.losses)) == (steps, 3 * steps, steps)


def test_lightnings_own_sampler_for_several_ranks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = built(pairs(4), tmp_path)
    for on in (True, False):
        run = trainer(tmp_path, max_steps=1, use_distributed_sampler=on)
        monkeypatch.setattr(type(run), "world_size", 2)
        data.trainer = run
        if on:
            with pytest.raises(InputError, match=r"trainer.use_distributed_sampler is on"):
                data.setup("fit")
        else:
            data.setup("fit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name_or_path": "x", "from_config": TINY}, "give one of them"),
        ({"from_config": {"hidden_size": 3}}, "no model_type"),
        ({"lr": 0.0}, "it must be > 0"),
        ({"lr": -1.0}, "it must be > 0"),
        ({"warmup_ratio": 1.0}, "they must be"),
        ({"warmup_ratio": -0.1}, "they must be"),
        ({"min_lr_ratio": -0.1}, "they must be"),
        ({"min_lr_ratio": 1.1}, "they must be"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CoHModule(**grouped(settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_ratio": 0.0, "min_lr_ratio": 0.0},
        {"warmup_ratio": 0.99, "min_lr_ratio": 1.0},
        {"generate_every_n_validations": 0, "refine": 0},
    ],
)
def test_the_limits_of_their_ranges_are_allowed(settings: dict[str, Any]) -> None:
    for name, group in grouped(settings).items():
        assert getattr(CoHModule(**grouped(settings)), name) == group


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name_or_path": "/no/such/folder"}, "there is no such folder"),
        ({"from_config": {"model_type": "lama"}}, "did you mean"),
    ],
)
def test_an_impossible_model_is_refused_in_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CoHModule(**settings).configure_model()


@pytest.mark.parametrize("share", [-0.5, 1.5])
def test_where_the_cosine_ends_is_a_share_of_the_peak(share: float) -> None:
    with pytest.raises(InputError, match=f"min_lr_ratio {share}"):
        OptimizerSettings(min_lr_ratio=share)


def test_the_name_of_a_model_is_kept_for_its_checkpoint_and_the_worlds_where_there_is_none() -> None:
    assert [CoHModule(name).base for name in ("some/model", None)] == ["some/model", "world"]
    assert CoHModule(from_config={"model_type": "llama"}).base is None
