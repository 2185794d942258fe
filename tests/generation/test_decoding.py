"""Decoding equals transformers' `generate`, token for token, whatever the batch, its order, the mode or the ranks."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from coh_lightning.errors import InputError
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.forward import generating
from coh_lightning.generation.kv_cache import Slots
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling, next_tokens
from coh_lightning.rng import generator, key64
from helpers.decoding import CONFIGS, PAD, STOPS, VOCABULARY, model, of_transformers, rows_of, sharded, write
from helpers.ranks import end_rank

GREEDY = Sampling(max_new_tokens=24, batch_size=5)
DRAWN = Sampling(max_new_tokens=12, batch_size=5, temperature=1.0, samples=3, seed=4)
SHORT = Sampling(max_new_tokens=4, batch_size=3, temperature=1.0)


def _requests(lengths: tuple[int, ...] = (3, 17, 1, 9, 9, 30, 2, 25)) -> list[Request]:
    chance = np.random.default_rng(0)
    return [
        Request(f"p{i}", "good", chance.integers(13, VOCABULARY, size=n).astype(np.int32))
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_equals_transformers_token_for_token(name: str) -> None:
    lm, requests = model(name), _requests()
    expected = of_transformers(lm, requests, GREEDY.max_new_tokens)
    assert rows_of(write(lm, requests, GREEDY)) == expected
    assert len({token for row in expected for token in row[2]}) > 5  # the models do write different things


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_that_join_late_or_move_columns_write_what_they_write_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[int] = []
    shift = Slots.shift
    monkeypatch.setattr(Slots, "shift", lambda self, by: (moves.append(by), shift(self, by))[1])
    monkeypatch.setattr("coh_lightning.generation.decoding.SLACK", 2)
    lm, requests = model(name), _requests((1, 1, 2, 3, 9, 12, 25, 30, 34))
    random_order = sorted(range(9), key=lambda i: key64(0, "budget", f"p{i}"))
    rising = [
        replace(requests[random_order.index(i)], prompt_id=f"p{i}") for i in range(9)
    ]  # with a budget, the short ones come first
    sampling = replace(GREEDY, max_new_tokens=6, batch_size=3)
    expected = of_transformers(lm, rising, 6)
    for until in (None, time.monotonic() + 1000):
        assert rows_of(generate(lm, rising, sampling, stop_ids=STOPS, pad_id=PAD, until=until)) == expected
    if name in (
        "llama",
        "mistral",
        "opt",
        "gpt_neo",
    ):  # in these, with every version of transformers, rows that begin together end apart
        assert min(moves) < 0 < max(moves)


def test_training_mode_checkpointing_and_use_cache_have_no_effect_and_are_restored() -> None:
    lm, requests = model(), _requests()
    expected = of_transformers(lm, requests, GREEDY.max_new_tokens)
    lm.train()
    lm.gradient_checkpointing_enable()
    lm.config.use_cache = False
    frozen = lm.model.layers[0].eval()
    before = [(module.training, vars(module).get("gradient_checkpointing")) for module in lm.modules()]
    assert rows_of(write(lm, requests, GREEDY)) == expected
    assert [(module.training, vars(module).get("gradient_checkpointing")) for module in lm.modules()] == before
    assert (
        not frozen.training
        and lm.training
        and lm.is_gradient_checkpointing
        and lm.config.use_cache is False
        and torch.is_grad_enabled()
    )


def test_the_models_mode_is_restored_after_an_error() -> None:
    lm = model().train()
    with pytest.raises(RuntimeError, match="midway"), generating(lm):
        assert not lm.training and not torch.is_grad_enabled()
        raise RuntimeError("midway")
    assert all(module.training for module in lm.modules()) and torch.is_grad_enabled()


def test_training_works_after_generating_in_inference_mode() -> None:
    lm, requests = model(), _requests()
    with torch.inference_mode():
        inside = rows_of(write(lm, requests, GREEDY))
    assert inside == rows_of(write(lm, requests, GREEDY))
    lm.train()(input_ids=torch.tensor([[20, 21, 22]]), labels=torch.tensor([[20, 21, 22]])).loss.backward()


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mamba"])
def test_samples_do_not_depend_on_batch_order_or_other_draws(name: str) -> None:
    lm, requests = model(name), _requests()
    expected = {row[:2]: row for row in rows_of(write(lm, requests, DRAWN))}
    assert len({tuple(row[2]) for row in expected.values()}) > 20
    torch.manual_seed(99)
    for batch_size in (1, 2, 24):
        assert {
            row[:2]: row for row in rows_of(write(lm, requests[::-1], replace(DRAWN, batch_size=batch_size)))
        } == expected
    assert rows_of(write(lm, requests[3:4], DRAWN)) == [expected["p3", sample] for sample in range(3)]
    fewer = rows_of(write(lm, requests, replace(DRAWN, samples=1)))
    assert fewer == [expected[f"p{i}", 0] for i in range(8)]


def test_a_higher_token_limit_only_adds_tokens() -> None:
    lm, requests = model(), _requests()
    short, long = (write(lm, requests, replace(DRAWN, max_new_tokens=n)) for n in (4, 12))
    for a, b in zip(short, long, strict=True):
        assert a.ids.tolist() == b.ids.tolist()[:4]
        assert (a.stop, a.ids.tolist()) == (
            (b.stop, b.ids.tolist()) if b.new_tokens <= 4 and b.stop == "end" else ("length", b.ids.tolist()[:4])
        )


def test_seed_prompt_and_ask_each_key_the_draws() -> None:
    lm, request = model(), _requests()[0]
    rows = [
        write(lm, [replace(request, prompt_id=prompt, ask=ask)], replace(DRAWN, seed=seed))[0].ids.tolist()
        for prompt, ask, seed in [
            ("p0", "good", 4),
            ("p1", "good", 4),
            ("p0", "bad", 4),
            ("p0", "good", 5),
            ("p0", "good", 4),
        ]
    ]
    assert rows[0] == rows[4] and len({tuple(row) for row in rows}) == 4


def test_results_come_in_the_order_of_requests_then_samples_with_counts_and_the_request_itself() -> None:
    requests = _requests()
    written = write(model(), requests, DRAWN)
    assert [w.sample for w in written] == [0, 1, 2] * 8
    assert all(w.request is requests[i // 3] and w.ids.dtype == np.int32 for i, w in enumerate(written))
    for w in written:
        assert w.new_tokens == len(w.ids) + (w.stop == "end") <= 12 and not set(w.ids.tolist()) & set(STOPS)
        assert w.stop == "end" or len(w.ids) == 12
    assert {w.stop for w in written} == {"end", "length"}


def test_no_requests_give_no_completions() -> None:
    assert write(model(), [], GREEDY) == []


def test_draws_follow_the_softmax() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.05, 0.45]]))
    draws = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.bincount(next_tokens(logits.expand(1000, -1), draws, Sampling(temperature=1.0)), minlength=4)
    assert counts.tolist() == [100, 400, 50, 450]
    flatter = torch.bincount(next_tokens(logits.expand(1000, -1), draws, Sampling(temperature=2.0)), minlength=4) / 1000
    torch.testing.assert_close(flatter, torch.softmax(logits[0] / 2, dim=-1), atol=0.0011, rtol=0)


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        (0, 1.0, [100, 400, 50, 450]),
        (1, 1.0, [0, 0, 0, 1000]),
        (2, 1.0, [0, 471, 0, 529]),
        (0, 0.4, [0, 0, 0, 1000]),
        (0, 0.5, [0, 471, 0, 529]),
        (0, 0.9, [105, 421, 0, 474]),
        (2, 0.5, [0, 0, 0, 1000]),  # of the two that top_k leaves, the first has 0.53
        (9, 1e-9, [0, 0, 0, 1000]),  # the likeliest always stays
    ],
)
def test_top_k_and_top_p_keep_the_likeliest(top_k: int, top_p: float, expected: list[int]) -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.05, 0.45]])).expand(1000, -1)
    draws = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    counts = torch.bincount(
        next_tokens(logits, draws, Sampling(temperature=1.0, top_k=top_k, top_p=top_p)), minlength=4
    )
    assert (counts - torch.tensor(expected)).abs().max() <= 1


def test_filters_keep_the_same_tokens_as_transformers() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    draws = torch.linspace(0, 1 - 1e-9, 400, dtype=torch.float64)
    for top_k, top_p in [(7, 1.0), (0, 0.8), (12, 0.6)]:
        kept = logits
        if top_k:
            kept = hf.TopKLogitsWarper(top_k)(None, kept)
        if top_p < 1:
            kept = hf.TopPLogitsWarper(top_p)(None, kept)
        for row, expected in zip(logits, torch.softmax(kept.double(), dim=-1), strict=True):
            tokens = next_tokens(row.expand(400, -1), draws, Sampling(temperature=1.0, top_k=top_k, top_p=top_p))
            torch.testing.assert_close(torch.bincount(tokens, minlength=40) / 400, expected.float(), atol=0.006, rtol=0)


def test_no_draw_lands_on_a_token_without_probability() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, -torch.inf, -torch.inf]])
    edges = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert next_tokens(logits.expand(2, -1), edges, Sampling(temperature=0.7)).tolist() == [1, 3]


def test_first_tokens_are_distributed_as_the_model_says() -> None:
    lm, request = model("gpt2"), _requests((6,))[0]
    written = generate(
        lm,
        [request],
        Sampling(max_new_tokens=1, temperature=3.0, samples=4000, batch_size=4000),
        stop_ids=(),
        pad_id=PAD,
    )
    with torch.no_grad():
        logits = lm.eval()(torch.tensor(request.prompt_ids[None].astype(np.int64))).logits[0, -1]
    expected = torch.softmax(logits.double() / 3, dim=-1) * 4000
    seen = torch.bincount(torch.tensor([int(w.ids[0]) for w in written]), minlength=VOCABULARY)
    common = expected > 5
    chi_square = float(((seen - expected)[common] ** 2 / expected[common]).sum())
    assert (
        chi_square < int(common.sum()) + 4 * (2 * int(common.sum())) ** 0.5
    )  # four standard deviations above its mean


def test_generation_stops_at_the_last_position_with_a_warning() -> None:
    lm = model("gpt2")
    with pytest.warns(
        UserWarning, match=r"2 of 3 prompts leave fewer than max_new_tokens = 10 of the model's 64 positions"
    ):
        written = generate(lm, _requests((60, 63, 5)), Sampling(max_new_tokens=10), stop_ids=(), pad_id=PAD)
    assert [(w.new_tokens, w.stop) for w in written] == [(4, "length"), (1, "length"), (10, "length")]


def test_a_prompt_that_fills_all_positions_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"'p1' \(good\) has 64 tokens and the model has 64 positions.*at most 40 tokens \(max_prompt_tokens\)",
    ):
        write(model("gpt2"), _requests((5, 64)), GREEDY)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InputError, match=r"'x' \(bad\).*at least one token"):
        Request("x", "bad", np.array([], dtype=np.int32))


def test_a_diverged_model_is_refused() -> None:
    lm = model()
    torch.nn.init.constant_(lm.lm_head.weight, torch.nan)
    for sampling in (GREEDY, DRAWN):
        with pytest.raises(InputError, match="non-finite"):
            write(lm, _requests(), sampling)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_new_tokens": 0}, "sampling.max_new_tokens is 0"),
        ({"samples": 0}, "sampling.samples is 0"),
        ({"batch_size": -1}, "sampling.batch_size is -1"),
        ({"temperature": -0.1}, "sampling.temperature is -0.1"),
        ({"temperature": float("nan")}, "sampling.temperature is nan"),
        ({"top_k": -1}, "sampling.top_k is -1"),
        ({"top_p": 0.0}, "sampling.top_p is 0.0"),
        ({"top_p": 1.1}, "sampling.top_p is 1.1"),
        ({"samples": 2}, "all would be the same"),
        ({"max_seconds": 0.0}, "sampling.max_seconds is 0.0"),
        ({"max_seconds": float("nan")}, "sampling.max_seconds is nan"),
    ],
)
def test_bad_settings_are_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**setting)


def test_a_samples_draws_depend_on_its_key_alone() -> None:
    lm = model()
    for parameter in lm.parameters():
        parameter.data.zero_()  # every token is as likely as any other, so the draw is the token
    for one in generate(
        lm, _requests((3, 5)), Sampling(max_new_tokens=6, temperature=1.0, samples=2, seed=4), stop_ids=(), pad_id=PAD
    ):
        chance = generator(4, "sampling", one.request.prompt_id, "good", one.sample)
        assert one.ids.tolist() == [int(chance.random() * VOCABULARY) for _ in range(6)]


def test_a_finished_row_is_replaced_by_the_next_prompt_at_once() -> None:
    lm, sizes = model("gpt2"), []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    written = write(lm, _requests((9,) * 6), replace(GREEDY, batch_size=2))
    steps = [rows for rows, tokens in sizes if tokens == 1]
    assert sum(tokens == 9 for _, tokens in sizes) > 3  # the prompts come one by one
    assert sum(rows == 1 for rows in steps) < max(
        w.new_tokens for w in written
    )  # a slot is empty only once the queue is
    assert sum(steps) == sum(w.new_tokens - 1 for w in written)


def test_after_the_time_budget_completions_in_progress_are_finished_and_none_starts() -> None:
    lm, requests = model(), _requests((9,) * 12)
    expected = {row[0]: row for row in of_transformers(lm, requests, GREEDY.max_new_tokens)}
    passes = 0

    def later(*_: Any) -> None:
        nonlocal passes
        passes += 1

    lm.register_forward_pre_hook(later)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coh_lightning.generation.decoding.time.monotonic", lambda: float(passes))
        some = rows_of(generate(lm, requests, replace(GREEDY, batch_size=2), stop_ids=STOPS, pad_id=PAD, until=4.0))
        again = rows_of(
            generate(lm, requests, replace(GREEDY, batch_size=2), stop_ids=STOPS, pad_id=PAD, until=passes + 4.0)
        )
        none = generate(lm, requests, GREEDY, stop_ids=STOPS, pad_id=PAD, until=passes - 1.0)
    assert 2 <= len(some) < 12 and some == again and none == []
    assert all(row == expected[row[0]] for row in some)
    assert [row[0] for row in some] == [id for id in expected if id in {row[0] for row in some}]  # in the order asked
    assert [row[0] for row in some] != [f"p{i}" for i in range(len(some))]  # not simply the first ones


def test_generation_stops_when_should_stop_says_so() -> None:
    lm, requests = model("gpt2"), _requests()
    looks: list[int] = []

    def over(request: Request, ids: Any) -> bool:
        looks.append(len(ids))
        return request.prompt_id == "p1" and len(ids) >= 8

    settings = {"stop_ids": (), "pad_id": PAD}
    whole = generate(lm, requests, GREEDY, **settings)
    cut = generate(lm, requests, GREEDY, should_stop=over, **settings)
    assert [w.new_tokens for w in cut] == [8 if w.request.prompt_id == "p1" else 24 for w in whole]
    assert all(b.ids.tolist() == a.ids.tolist()[: b.new_tokens] for a, b in zip(whole, cut, strict=True))
    assert set(looks) == {8, 16}


def test_rows_that_are_done_leave_their_batch() -> None:
    lm, sizes = model("gpt2"), []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    written = write(lm, _requests(), replace(GREEDY, batch_size=8))
    assert sizes[0] == (8, 30)
    assert [rows for rows, _ in sizes[1:]] == [
        sum(w.new_tokens > step for w in written) for step in range(1, max(w.new_tokens for w in written))
    ]


def test_samples_of_one_prompt_share_its_prefill() -> None:
    lm, sizes = model("gpt2"), []
    lm.register_forward_pre_hook(lambda _, __, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    generate(lm, _requests((9, 4)), Sampling(max_new_tokens=2, temperature=1.0, samples=3), stop_ids=(), pad_id=PAD)
    assert sizes == [(2, 9), (6, 1)]


def _one_rank(rank: int, folder: str) -> None:
    """Five short calls on a model whose weights are spread over both ranks, which hang or fail when the ranks get out
    of step.
    """
    lm = model().train()
    agree, passes = sharded(lm, rank, folder), 0

    def everyone_done(done: bool) -> bool:
        nonlocal passes
        passes += 1
        return agree(done)

    rows = []
    # shares of 5 and 3 requests, 8 and none, none and 8, none at all; batches of 3
    for share in (slice(0, 5) if rank == 0 else slice(5, 8), slice(0, 8 * (1 - rank)), slice(0, 8 * rank), slice(0, 0)):
        written = generate(lm, _requests()[share], SHORT, stop_ids=STOPS, pad_id=PAD, everyone_done=everyone_done)
        rows.append(rows_of(written))
    # no time left on one rank only
    rows.append(
        rows_of(
            generate(
                lm,
                _requests(),
                SHORT,
                stop_ids=STOPS,
                pad_id=PAD,
                until=None if rank == 0 else 0.0,
                everyone_done=everyone_done,
            )
        )
    )
    lm(input_ids=torch.tensor([[20, 21, 22]]), labels=torch.tensor([[20, 21, 22]])).loss.backward()
    Path(folder, f"{rank}.json").write_text(json.dumps([rows, passes]))
    end_rank()


def test_ranks_of_a_sharded_model_with_uneven_requests_stay_in_step(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    (first, passes), (second, others) = (json.loads(Path(tmp_path, f"{rank}.json").read_text()) for rank in range(2))
    expected = [list(row) for row in rows_of(write(model(), _requests(), SHORT))]
    assert passes == others
    assert first[0] + second[0] == expected
    assert (first[1], second[1], first[2], second[2]) == (expected, [], [], expected)
    assert first[3] == second[3] == []
    assert (first[4], second[4]) == (expected, [])
