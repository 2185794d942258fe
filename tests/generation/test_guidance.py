"""Guidance: the arithmetic by hand, and that decoding with it is what two models side by side would write, token for
token, whatever the batch, the cache or the ranks.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from coh_lightning.callbacks import CompletionWriter
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.guidance import guided, with_other_prompt
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling, next_tokens
from coh_lightning.generation.settings import Generation
from helpers.decoding import PAD, VOCABULARY, model, one_by_one, rows_of, sharded, write
from helpers.feedback import TINY, merged, method, tiny
from helpers.ranks import end_rank, module, rank_of, rows, started
from helpers.ranks import trainer as of_ranks
from helpers.training import held_out_data, trainer

GREEDY = Sampling(max_new_tokens=16, batch_size=3, guidance=1.0, guidance_cutoff=0.0)
DRAWN = replace(GREEDY, temperature=1.0, samples=2, guidance_cutoff=0.02, seed=4)
ARCHITECTURES = ("gpt2", "llama", "mistral", "bloom", "mamba")  # the rows of bloom can't move


def _requests(*, alone: tuple[int, ...] = (3,)) -> list[Request]:
    """Nine prompts, each under a sentence at its end and under another one of another length; those of the numbers
    `alone` have no other.
    """
    chance = np.random.default_rng(0)
    found = []
    for number, length in enumerate((3, 17, 1, 9, 9, 30, 2, 25, 12)):
        prompt, good, bad = (chance.integers(13, VOCABULARY, size=n).astype(np.int32) for n in (length, 2, number % 4))
        other = None if number in alone else np.concatenate([prompt, bad])
        found.append(Request(f"p{number}", "good", np.concatenate([prompt, good]), away_from_ids=other))
    return found


def _without_other(requests: list[Request]) -> list[Request]:
    return [replace(request, away_from_ids=None) for request in requests]


# Arithmetic


def _logits(*probabilities: float) -> torch.Tensor:
    return torch.log(torch.tensor([probabilities]))


def test_the_difference_is_added_w_times_and_unlikely_tokens_are_left_out() -> None:
    own, other = _logits(0.6, 0.3, 0.07, 0.03), _logits(0.3, 0.6, 0.07, 0.03)
    found = guided(own, other, Sampling(guidance=1.0, guidance_cutoff=0.1))
    expected = [math.log(1.2), math.log(0.15), math.log(0.07), -math.inf]  # .03 is below .1 x .6
    torch.testing.assert_close(found[0].tolist(), expected)
    twice = guided(own, other, Sampling(guidance=2.0, guidance_cutoff=0.0))
    expected = [math.log(0.6 * 4), math.log(0.3 / 4), math.log(0.07), math.log(0.03)]
    torch.testing.assert_close(twice[0].tolist(), expected)


def test_the_best_token_of_all_may_change_but_not_to_one_below_the_cutoff() -> None:
    own, other = _logits(0.5, 0.4, 0.09, 0.01), _logits(0.6, 0.39, 0.0099, 0.0001)
    chosen = [
        int(next_tokens(guided(own, other, settings), torch.zeros(1), settings))
        for w, cutoff in [(0.5, 0.5), (1.0, 0.5), (1.0, 0.1), (1.0, 0.03), (1.0, 0.0), (1.0, 1.0)]
        for settings in [Sampling(guidance=w, guidance_cutoff=cutoff)]
    ]
    # own x (own / other)^w: .456 .405 | .417 .410 | and .818 for the third | and 1 for the last | the best alone
    assert chosen == [0, 0, 2, 2, 3, 0]


def test_the_cutoff_looks_at_probabilities_before_the_temperature() -> None:
    own = _logits(0.8, 0.17, 0.03).expand(1000, -1)
    draws = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    for temperature in (0.3, 1.0, 100.0):
        settings = Sampling(temperature=temperature, guidance=0.0, guidance_cutoff=0.1)
        drawn = next_tokens(guided(own, None, settings), draws, settings)
        assert set(drawn.tolist()) == {0, 1}
    assert torch.bincount(drawn).tolist() == [504, 496]  # at temperature 100 both are about as likely


def test_w_0_is_the_cutoff_alone_and_with_cutoff_0_the_logits_themselves() -> None:
    own = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert guided(own, None, Sampling(guidance=0.0, guidance_cutoff=0.0)) is own
    cut = guided(own, None, Sampling(guidance=0.0, guidance_cutoff=0.2))
    kept = cut.isfinite()
    assert torch.equal(cut[kept], own[kept]) and 0 < kept.sum() < kept.numel()
    least = torch.softmax(own.double(), -1).max(-1, keepdim=True).values * 0.2
    assert torch.equal(kept, torch.softmax(own.double(), -1) >= least)


def test_a_token_that_the_model_excludes_stays_excluded() -> None:
    own, other = torch.tensor([[0.0, -torch.inf, 1.0]]), torch.tensor([[0.0, -torch.inf, 2.0]])
    found = guided(own, other, Sampling(guidance=2.0, guidance_cutoff=0.0))
    assert found.tolist() == [[0.0, -torch.inf, -1.0]]


def test_half_precision_is_combined_in_double() -> None:
    own, other = torch.tensor([[1.0, 0.5]]).bfloat16(), torch.tensor([[0.0, 0.5]]).bfloat16()
    found = guided(own, other, Sampling(guidance=1e-3, guidance_cutoff=0.0))
    assert found.dtype == torch.float64 and found.tolist() == [[1.001, 0.5]]


# Decoding


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_completions_are_those_of_both_textsone_by_one(name: str) -> None:
    lm, requests = model(name), _requests()
    expected = one_by_one(lm, requests, GREEDY)
    assert rows_of(write(lm, requests, GREEDY)) == expected
    plain = one_by_one(lm, requests, replace(GREEDY, guidance=None))
    changed = [a != b for a, b in zip(expected, plain, strict=True)]
    assert sum(changed) > 4 and not changed[3]  # the one without another sentence


@pytest.mark.parametrize("name", ["gpt2", "mistral", "bloom"])
def test_samples_are_those_of_both_texts_side_by_side_whatever_the_batch(name: str) -> None:
    lm, requests = model(name), _requests()
    expected = one_by_one(lm, requests, DRAWN)
    for batch_size in (1, 2, 5, 40):
        assert rows_of(write(lm, requests, replace(DRAWN, batch_size=batch_size))) == expected
    assert rows_of(write(lm, requests[::-1], DRAWN)) == [
        row for number in range(9)[::-1] for row in expected[2 * number : 2 * number + 2]
    ]
    assert rows_of(write(lm, requests[4:5], DRAWN)) == expected[8:10]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_without_weight_and_cutoff_completions_are_the_plain_ones(temperature: float) -> None:
    lm, requests = model(), _requests()
    plain = replace(GREEDY, guidance=None, temperature=temperature)
    expected = rows_of(write(lm, requests, plain))
    assert rows_of(write(lm, _without_other(requests), plain)) == expected
    assert rows_of(write(lm, requests, replace(plain, guidance=0.0, guidance_cutoff=0.0))) == expected


def test_only_a_weight_takes_a_second_row() -> None:
    lm, sizes = model("gpt2"), []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(inputs["input_ids"].shape[0]), with_kwargs=True)
    requests = _requests()[:3]
    for guidance, alone, number in [(None, False, 3), (0.0, False, 3), (1.0, False, 6), (1.0, True, 3)]:
        sizes.clear()
        asked = _without_other(requests) if alone else requests
        generate(lm, asked, replace(GREEDY, max_new_tokens=2, guidance=guidance), stop_ids=(), pad_id=PAD)
        assert sizes == [number, number]


def test_samples_of_one_prompt_share_the_prefill_of_both_sentences() -> None:
    lm, sizes = model("gpt2"), []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    generate(lm, _requests()[:1], replace(DRAWN, samples=3, max_new_tokens=2), stop_ids=(), pad_id=PAD)
    assert sizes == [(2, 5), (6, 1)]


def test_the_longer_prompt_decides_how_many_tokens_have_room() -> None:
    ids = np.full(64, 20, dtype=np.int32)
    longer = Request("p", "good", ids[:50], away_from_ids=ids[:60])
    with pytest.warns(UserWarning, match="1 of 1 prompts leave fewer"):
        (written,) = generate(model("gpt2"), [longer], GREEDY, stop_ids=(), pad_id=PAD)
    assert written.new_tokens == 4
    with pytest.raises(InputError, match=r"'p' \(good\) has 64 tokens and the model has 64 positions"):
        generate(model("gpt2"), [replace(longer, away_from_ids=ids)], GREEDY, stop_ids=(), pad_id=PAD)
    plain = replace(GREEDY, guidance=None, max_new_tokens=14)
    assert generate(model("gpt2"), [replace(longer, away_from_ids=ids)], plain, stop_ids=(), pad_id=PAD)


def test_an_empty_other_prompt_is_refused() -> None:
    with pytest.raises(InputError, match=r"'x' \(good\).*at least one token"):
        Request("x", "good", np.array([1], dtype=np.int32), away_from_ids=np.array([], dtype=np.int32))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"guidance": -0.5}, "sampling.guidance is -0.5; it must be at least 0, or null"),
        ({"guidance": float("nan")}, "sampling.guidance is nan"),
        ({"guidance": float("inf")}, "sampling.guidance is inf"),
        ({"guidance_cutoff": -0.1}, "sampling.guidance_cutoff is -0.1; it must be between 0"),
        ({"guidance_cutoff": 1.5}, "sampling.guidance_cutoff is 1.5"),
        ({"guidance_cutoff": float("nan")}, "sampling.guidance_cutoff is nan"),
    ],
)
def test_bad_settings_are_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**setting)


def test_settings_without_effect_are_not_recorded() -> None:
    assert not {name for name in Sampling().recorded() if name.startswith("guidance")}
    recorded = Sampling(guidance=0.0).recorded()
    assert recorded == Sampling().recorded() | {"guidance": 0.0, "guidance_cutoff": 0.02, "guidance_from": "bad"}


# A run's Writer


def _test(folder: Path, sampling: Sampling, **settings: Any) -> tuple[dict[str, str], list[Completion]]:
    """What `test` of an untrained model writes, by id."""
    folder.mkdir(exist_ok=True)
    data, generation = held_out_data(folder, max_test_prompts=3), {"sampling": sampling} | settings
    torch.manual_seed(0)
    run = trainer(folder, CompletionWriter())
    run.test(tiny(**generation), datamodule=data, verbose=False)
    written = list(read_jsonl(folder / "completions.jsonl", Completion))
    return {one.id: one.text for one in written}, written


WRITER = Sampling(max_new_tokens=6, temperature=1.0)


def test_test_guides_good_away_from_bad_and_writes_bad_with_the_cutoff_alone(tmp_path: Path) -> None:
    plain, _ = _test(tmp_path / "plain", WRITER)
    cut, _ = _test(tmp_path / "cut", replace(WRITER, guidance=0.0))
    led, written = _test(tmp_path / "led", replace(WRITER, guidance=3.0))
    bit, _ = _test(tmp_path / "bit", replace(WRITER, guidance=0.0, guidance_cutoff=0.0))
    assert plain == bit and plain.keys() == led.keys()
    assert all(led[id] == cut[id] for id in led if ":bad:" in id)
    assert all(led[id] != cut[id] for id in led if ":good:" in id)
    for one in written:
        settings = {name: value for name, value in one.sampling.items() if name.startswith("guidance")}
        assert settings == {"guidance": 3.0, "guidance_cutoff": 0.02, "guidance_from": "bad"}


def test_completions_without_guidance_are_recorded_as_before(tmp_path: Path) -> None:
    _, written = _test(tmp_path, WRITER)
    assert not any("guidance" in name for one in written for name in one.sampling)


def test_the_other_prompt_has_the_ids_of_training_under_the_other_sentence(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    data.setup("test")
    for request in data.requests("test"):
        sentences = data.prompter.all_conditions(request.record)
        other = with_other_prompt(data.prompter, request, "bad")
        if request.ask == "bad":
            assert other is request
            continue
        asked = data.prompter.request(request.record, "bad", sentences["bad"])
        assert other.away_from_ids is not None and other.away_from_ids.tolist() == asked.prompt_ids.tolist()
        assert other.prompt_ids is request.prompt_ids and other.ask == request.ask
    record = data.splits["test"][0].record
    refined = data.prompter.refinement(record, ["One.", "Two."], [None, None], "refined 3")
    assert refined is not None
    other = with_other_prompt(data.prompter, refined, "bad")
    good, bad = (data.prompter.tokens.encoder.decode(ids) for ids in (other.prompt_ids, other.away_from_ids))
    sentences = data.prompter.all_conditions(record)
    head, _, tail = good.rpartition(sentences["good"])
    assert bad == head + sentences["bad"] + tail and "One." in head and "Two." in head


def test_second_answers_and_their_fresh_draws_are_guided_too(tmp_path: Path) -> None:
    asked: list[tuple[str, bool]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "coh_lightning.generation.writing.generate",
            lambda lm, requests, *rest, **more: (
                asked.extend((one.ask, one.away_from_ids is not None) for one in requests),
                generate(lm, requests, *rest, **more),
            )[1],
        )
        _, written = _test(tmp_path, replace(WRITER, guidance=1.0), refine=1)
    assert {ask: guided for ask, guided in asked} == {"good": True, "bad": False, "refined 2": True, "fresh 2": True}
    assert len(written) == 4 * 3


def test_predict_dialogues_and_rounds_during_fit_are_guided(tmp_path: Path) -> None:
    seen: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "coh_lightning.generation.decoding.guided",
            lambda own, other, sampling: (seen.append(other is not None), guided(own, other, sampling))[1],
        )
        sampling = replace(WRITER, guidance=1.0, max_new_tokens=2)
        data = held_out_data(tmp_path, max_validation_prompts=2)
        data.setup("fit")
        every = {"val_check_interval": data.plan.accumulate(1), "check_val_every_n_epoch": None}
        run = trainer(tmp_path / "fit", CompletionWriter(), max_steps=1, **every)
        run.fit(tiny(sampling=sampling, generate_every_n_validations=1), datamodule=data)
        assert seen and all(seen)
        for dialogues in (False, True):
            seen.clear()
            run = trainer(tmp_path / f"predict {dialogues}")
            found = run.predict(tiny(sampling=sampling, dialogues=dialogues), datamodule=held_out_data(tmp_path))
            assert seen and all(seen) and sum(map(len, found)) == 10


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        ("sft", {"guidance": 1.0}, r"needs two feedback sentences, but the method 'sft' has none; set it to null, or"),
        ("coh", {"guidance": 1.0, "guidance_from": "bda"}, r"'bda', but .* conditions good, bad; did you mean 'bad'"),
        ("coh", {"guidance": 1.0, "guidance_from": "ugly"}, r"'ugly', but .* has the conditions good, bad\.$"),
    ],
)
def test_a_condition_that_the_method_does_not_have_is_refused_before_the_run(
    of: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    data, model = held_out_data(tmp_path, method=method(of)), tiny(sampling=replace(WRITER, **settings))
    for start in (trainer(tmp_path, max_steps=1).fit, trainer(tmp_path).test, trainer(tmp_path).predict):
        with pytest.raises(InputError, match=message):
            start(model, datamodule=data)


def test_the_cutoff_alone_needs_no_sentences(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, method=method("sft"), max_test_prompts=2)
    trainer(tmp_path, CompletionWriter()).test(tiny(sampling=replace(WRITER, guidance=0.0)), datamodule=data)
    assert len(list(read_jsonl(tmp_path / "completions.jsonl", Completion))) == 2


@pytest.mark.parametrize("key", ["prompts_to", "completions_from"])
@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_completions_written_elsewhere_have_no_guidance(key: str, guidance: float) -> None:
    with pytest.raises(InputError, match=f"model.generation.{key} .*servers have no guidance.*guidance to null"):
        Generation(sampling=Sampling(guidance=guidance), **{key: "file.jsonl"})


# Ranks


def _one_rank(rank: int, folder: str) -> None:
    lm = model()
    everyone_done = sharded(lm, rank, folder)
    rows = []
    # shares of 6 and 3 requests, and all on one rank
    for share in (slice(0, 6) if rank == 0 else slice(6, 9), slice(0, 9 * rank)):
        rows.append(rows_of(write(lm, _requests()[share], DRAWN, everyone_done=everyone_done)))
    Path(folder, f"{rank}.json").write_text(json.dumps(rows))
    end_rank()


@pytest.mark.slow
def test_ranks_of_a_sharded_model_stay_in_step(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads(Path(tmp_path, f"{rank}.json").read_text()) for rank in range(2))
    expected = [list(row) for row in rows_of(write(model(), _requests(), DRAWN))]
    assert first[0] + second[0] == expected
    assert (first[1], second[1]) == ([], expected)


def main(folder: str, what: str) -> None:
    """One rank (or the only process): what `test` writes, and its figures."""
    rank, ranks = rank_of()
    place = Path(folder)
    spread: dict[str, Any] = {}
    if ranks == 2:
        sizes = (
            {"data_parallel_size": 2, "tensor_parallel_size": 1}
            if what == "data"
            else {"data_parallel_size": 1, "tensor_parallel_size": 2}
        )
        spread = {"devices": 2, "strategy": ModelParallelStrategy(timeout=timedelta(seconds=60), **sizes)}
    sampling = replace(WRITER, samples=2, guidance=2.0, guidance_cutoff=0.001)
    scorers = ("generation.test_best_of_n:length",)
    model = module(
        from_config=TINY | {"num_key_value_heads": 2},
        dtype="float64",
        sampling=sampling,
        refine=1,
        scorers=scorers,
    )
    pl.seed_everything(0, verbose=False)
    run = of_ranks(place, CompletionWriter(), **spread)
    metrics = merged(run.test(model, datamodule=rows(place), verbose=False))
    (place / f"{rank}.json").write_text(json.dumps({name: float(value) for name, value in metrics.items()}))


@pytest.mark.slow
def test_ranks_that_share_a_model_write_guided_completions_and_choose_among_them_as_one_process_does(
    tmp_path: Path,
) -> None:
    texts, metrics = {}, {}
    for what, ranks in (("alone", 1), ("data", 2), ("tensor", 2)):
        folder = tmp_path / what
        folder.mkdir()
        started(__file__, folder, what, ranks=ranks, seconds=300)
        texts[what] = {one.id: one.text for one in read_jsonl(folder / "completions.jsonl", Completion)}
        of_rank = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
        assert all(one == of_rank[0] for one in of_rank)
        metrics[what] = of_rank[0]
    assert len(texts["alone"]) > 8 and texts["alone"] == texts["data"] == texts["tensor"]
    chosen = {name: value for name, value in metrics["alone"].items() if "best_by" in name}
    assert {"test/length_best_by_good", "test/length_best_by_ratio"} <= set(chosen)
    for what in ("data", "tensor"):
        assert {name: metrics[what][name] for name in chosen} == pytest.approx(chosen, rel=1e-6)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_rank()
