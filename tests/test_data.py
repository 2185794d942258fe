"""The data module: rows carry every output of the records once, with its weight, and report what is left out."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.sources import Records, load
from coh_lightning.feedback.sources.prompts import feedback_key
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.plan import PlannedRow
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import PlannedRecord
from coh_lightning.sequences.rows import Row
from coh_lightning.sequences.tokens import Tokens
from coh_lightning.sequences.wording import MarkerPair, Wording
from helpers.feedback import (
    EVERY_KIND,
    IDENTICAL,
    METHODS,
    SILENT,
    TIE,
    WORDINGS,
    built,
    data_of,
    method,
    pairs,
    usable,
    wording,
    write,
)
from helpers.tokenizers import TEMPLATES, byte_level, sentencepiece

PLAIN = PromptFormat()
FORMATS = {"plain": PLAIN, "user": PromptFormat(kind="chat"), "system": PromptFormat(kind="chat", marker_in="system")}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tokenizers: one for each style of chat template, and one that adds a false space to every text."""
    root = tmp_path_factory.mktemp("tokenizers")
    made = {name: byte_level(template) for name, template in TEMPLATES.items()} | {"sentencepiece": sentencepiece()}
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(root / name)
    return {name: str(root / name) for name in made}


def train(data: CoHDataModule) -> list[PlannedRecord]:
    return data.splits["train"]


def tokens_of(data: CoHDataModule, one: PlannedRecord, epoch: int = 0) -> list[Tokens]:
    return [data.prompter.tokens.chain(one.prompt, chain) for chain in data.planner.chains(one, epoch)]


def runs(weights: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of every stretch of tokens that have a weight."""
    marked = np.flatnonzero(np.diff(np.concatenate([[0], weights != 0, [0]])))
    return list(zip(marked[::2].tolist(), marked[1::2].tolist(), strict=True))


def texts_of(one: PlannedRecord, *, reviews: bool) -> set[str]:
    """What may be learned of a record."""
    texts = [text for candidate in one.record.candidates for text in (candidate.text, candidate.revision)]
    if reviews:
        texts += [candidate.critique.strip() for candidate in one.record.candidates if candidate.critique is not None]
    return {text for text in texts if text is not None}


def check_every_output_is_learned_and_nothing_else(data: CoHDataModule, epochs: int = 1) -> Counter[str]:
    """Stretches with a weight, decoded, are the outputs of the record, whole, each with one end token. Counts them by
    sort.
    """
    decode, end = data.prompter.tokens.encoder.decode, data.prompter.stop_ids[0]
    lead = (
        " " if "mistral" in (data.tokenizer_name or "") else ""
    )  # its template puts a space before an output, and spaces belong to what follows them
    found: Counter[str] = Counter()
    for epoch in range(epochs):
        for one in train(data):
            for chain, tokens in zip(data.planner.chains(one, epoch), tokens_of(data, one, epoch), strict=True):
                for sort, weights in (("learned", tokens.learned), ("unlearned", tokens.unlearned)):
                    wanted = [link.text for link in chain if getattr(link, sort)]
                    stretches = [tokens.ids[start:stop].tolist() for start, stop in runs(weights)]
                    assert [decode(ids[:-1]) for ids in stretches] == [lead + text for text in wanted]
                    assert all(ids[-1] == end and ids.count(end) == 1 for ids in stretches)
                    assert set(wanted) <= texts_of(one, reviews=data.method.reviews)
                    found[sort] += len(wanted)
    return found


# What is learned


@pytest.mark.parametrize("of", METHODS)
@pytest.mark.parametrize("words", WORDINGS)
def test_the_learned_tokens_are_the_outputs_and_one_end_token_each(of: str, words: str, tmp_path: Path) -> None:
    data = built(usable(EVERY_KIND, method(of)), tmp_path, method=method(of), wording=wording(words))
    found = check_every_output_is_learned_and_nothing_else(data, epochs=3)
    assert found["learned"] >= 3 * len(train(data)) or of == "unlikelihood"
    assert (found["unlearned"] > 0) == (of == "unlikelihood")


@pytest.mark.parametrize("place", ["user", "system"])
@pytest.mark.parametrize("style", sorted(TEMPLATES))
def test_the_same_is_true_under_every_chat_template(
    style: str, place: str, tokenizers: dict[str, str], tmp_path: Path
) -> None:
    for of in METHODS:
        rows = usable(EVERY_KIND, method(of))
        data = built(
            rows,
            tmp_path,
            method=method(of),
            wording=wording("varied"),
            tokenizer=tokenizers[style],
            prompt_format=FORMATS[place],
            max_prompt_tokens=200,
        )
        assert data.counts["train"].used == len(rows)
        check_every_output_is_learned_and_nothing_else(data, epochs=2)


def test_the_same_is_true_for_a_tokenizer_that_adds_a_space_before_every_text(
    tokenizers: dict[str, str], tmp_path: Path
) -> None:
    for of in METHODS:
        data = built(
            usable(EVERY_KIND, method(of)),
            tmp_path,
            method=method(of),
            tokenizer=tokenizers["sentencepiece"],
            max_prompt_tokens=200,
        )
        check_every_output_is_learned_and_nothing_else(data)


def test_no_text_of_people_becomes_a_special_token(tokenizers: dict[str, str], tmp_path: Path) -> None:
    for style in sorted(TEMPLATES):
        data = built(EVERY_KIND, tmp_path, tokenizer=tokenizers[style], max_prompt_tokens=200)
        special = set(data.tokenizer.all_special_ids)
        for one in train(data):
            for tokens in tokens_of(data, one):
                head = len(data.prompter.tokens.encoder.bos_ids)
                assert sum(int(i) in special for i in tokens.ids[head:]) == len(tokens.spans)


@pytest.mark.parametrize("shape", ["plain", "chat"])
@pytest.mark.parametrize("of", METHODS)
def test_training_begins_with_exactly_the_ids_of_inference(
    of: str, shape: str, tokenizers: dict[str, str], tmp_path: Path
) -> None:
    chosen = method(of)
    settings: dict[str, Any] = (
        {"tokenizer": tokenizers["chatml"], "prompt_format": FORMATS["user"]} if shape == "chat" else {}
    )
    rows = usable(EVERY_KIND, chosen)
    # held-out prompts have their ids from the same builder, so the training records serve as the test's
    held_out = [
        Records(
            write(
                tmp_path / "held_out.jsonl",
                [
                    row | {"prompt": "Held out. " + str(i)} if isinstance(row["prompt"], str) else row
                    for i, row in enumerate(rows)
                ],
            )
        )
    ]
    data = built(rows, tmp_path, method=chosen, test_sources=held_out, **settings)
    requests = data.requests()
    assert len(requests) == len(data.splits["test"]) * len(data.prompter.conditions(data.splits["test"][0].record))
    compared = 0
    by_record = {one.record.id: one for one in data.splits["test"]}
    for request in requests:
        one = by_record[request.prompt_id]
        for chain in data.planner.chains(one):
            tokens = data.prompter.tokens.chain(one.prompt, chain)
            begin = tokens.ids[: tokens.spans[0].start].tolist()
            assert (begin == request.prompt_ids.tolist()) == (chain[0].marker == request.marker)
            compared += chain[0].marker == request.marker
    if chosen.sentences in ("none", "polarity", "ranking"):  # rated and criticized outputs have sentences of their own
        assert compared >= len(by_record)


# Rows and steps


def paths_of(row: Row, start: int, stop: int) -> dict[tuple[int, ...], int]:
    """Every token of a tree by the ids from the root down to it."""
    paths: dict[tuple[int, ...], int] = {}
    at: dict[int, tuple[int, ...]] = {}
    for token in range(start, stop):
        parent = int(row.parents[token])
        at[token] = (*(at[parent] if parent != token else ()), int(row.ids[token]))
        assert at[token] not in paths, "a token is twice in the tree"
        paths[at[token]] = token
    return paths


def check_row(data: CoHDataModule, planned: PlannedRow, row: Row, epoch: int, *, weigh: float) -> Counter[str]:
    """Each tree of the row has its chains, every prefix once, with the sum of their weights; returns the weight of each
    record.
    """
    weights: Counter[str] = Counter()
    assert len(row.bounds) == len(planned.members) + 1
    for number, start, stop in zip(planned.members, row.bounds[:-1].tolist(), row.bounds[1:].tolist(), strict=True):
        item = data.plan.items[number]
        one = train(data)[item.record]
        chains = [tokens for i, tokens in enumerate(tokens_of(data, one, epoch)) if i in item.chains]
        paths = paths_of(row, start, stop)
        learned: Counter[tuple[int, ...]] = Counter()
        unlearned: Counter[tuple[int, ...]] = Counter()
        for tokens in chains:
            for i in range(len(tokens)):
                prefix = tuple(tokens.ids[: i + 1].tolist())
                learned[prefix] += tokens.learned[i]
                unlearned[prefix] += tokens.unlearned[i]
        assert set(paths) == set(learned)
        for prefix, token in paths.items():
            assert row.learned[token] == pytest.approx(weigh * learned[prefix], abs=1e-15)
            assert row.unlearned[token] == pytest.approx(weigh * unlearned[prefix], abs=1e-15)
        weights[one.record.id] += sum(float(tokens.learned.sum() + tokens.unlearned.sum()) for tokens in chains)
    end = row.bounds[-1]
    assert not row.learned[end:].any() and not row.unlearned[end:].any()
    return weights


def check_epochs(data: CoHDataModule, epochs: int) -> int:
    """Every epoch: the coefficients of a step add up to 1, those of its pretraining text to lambda, and every record's
    whole weight is there once. Counts empty rows.
    """
    empty = 0
    for epoch in range(epochs):
        whole: Counter[str] = Counter()
        for step in range(data.plan.steps_per_epoch):
            planned = data.plan.step(epoch, step)
            rows = [data.rows.train_row(one, epoch) for one in planned]
            total = {True: 0.0, False: 0.0}
            for plan, row in zip(planned, rows, strict=True):
                total[plan.pretraining] += float(row.learned.sum() + row.unlearned.sum())
                if not plan.pretraining:
                    whole += check_row(data, plan, row, epoch, weigh=1 / plan.total)
                    empty += not plan.members
            assert total[False] == pytest.approx(1.0, abs=1e-12)
            assert total[True] == pytest.approx(
                data.pretraining_weight if data.pretraining_rows_per_step else 0.0, abs=1e-12
            )
        for one in train(data):
            expected = sum(
                float(tokens.learned.sum() + tokens.unlearned.sum()) for tokens in tokens_of(data, one, epoch)
            )
            assert whole[one.record.id] == pytest.approx(expected)
            assert expected > 0
        assert len(whole) == len(train(data))
    return empty


@pytest.mark.parametrize("of", METHODS)
def test_the_coefficients_of_a_step_add_up_to_one_and_every_record_weighs_its_own_once_an_epoch(
    of: str, tmp_path: Path
) -> None:
    chosen = method(of)
    text = tmp_path / "plain.txt"
    text.write_text(
        "\n".join(f"A paragraph of plain text, number {i}." * (1 + i % 3) for i in range(12)), encoding="utf-8"
    )
    data = built(
        usable(EVERY_KIND, chosen),
        tmp_path,
        method=chosen,
        wording=wording("varied"),
        pretraining_text=[str(text)],
        pretraining_rows_per_step=2,
        pretraining_weight=0.7,
        rows_per_step=3,
        fcm_range=(0.0, 0.0),
    )
    check_epochs(data, 2)


@pytest.mark.parametrize("words", ["varied", "paper", "attributes"])
@pytest.mark.parametrize("of", ["coh", "coh_ranking", "coh_ratings", "coh_critique", "reviewed", "coh+reviewed"])
def test_no_wording_of_any_epoch_overflows_the_planned_rows(of: str, words: str, tmp_path: Path) -> None:
    chosen = method(of)
    data = built(
        [*usable(EVERY_KIND, chosen), *(pairs(12) if of == "coh" else [])],
        tmp_path,
        method=chosen,
        wording=wording(words),
        row_tokens=300,
        rows_per_step=3,
    )
    check_epochs(data, 5)


def rankings(n: int) -> list[dict[str, Any]]:
    """Outputs of very different lengths, so that a chain in another order has other prefixes and other cuts."""
    return [
        {
            "id": str(i),
            "prompt": f"Say {i}.",
            "completions": [{"text": f"{i} " + "x" * (7 * j + i), "rank": (i + j) % 4} for j in range(4)],
        }
        for i in range(n)
    ]


def test_shuffled_orders_never_overflow_the_planned_rows(tmp_path: Path) -> None:
    data = built(rankings(12), tmp_path, method=method("coh_ranking"), row_tokens=256, rows_per_step=3)
    check_epochs(data, 5)


def test_shuffled_orders_keep_their_weight_where_chains_are_cut(tmp_path: Path) -> None:
    data = built(
        rankings(12),
        tmp_path,
        method=method("coh_ranking"),
        max_chain_tokens=110,
        max_prompt_tokens=32,
        row_tokens=256,
        rows_per_step=3,
    )
    assert data.counts["train"].links_cut + data.counts["train"].chains_dropped > 0
    check_epochs(data, 5)


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_with_loss_on_the_last_output_a_shuffled_chain_weighs_what_that_output_weighs(
    layout: Any, tmp_path: Path
) -> None:
    settings = {
        "max_chain_tokens": 200,
        "max_prompt_tokens": 32,
        "row_tokens": 256,
        "rows_per_step": 3,
        "layout": layout,
        "fcm_range": (0.0, 0.0),
    }
    data = built(rankings(12), tmp_path, method=method("coh_ranking", loss_on="last"), **settings)
    check_epochs(data, 3)
    weights = [sum(len(row.members) and row.total for row in data.plan.step(epoch, 0)) for epoch in range(3)]
    assert len(set(weights)) == 3, "the last outputs must differ from epoch to epoch for this test to tell"


def test_two_orders_cut_to_the_same_first_output_share_its_sentence(tmp_path: Path) -> None:
    """Both have the middle output first, which is compared with nothing now."""
    rows = [{"id": "0", "prompt": "Go.", "completions": [{"text": f"{i}" * 30, "rank": i} for i in (1, 2, 3)]}]
    data = built(
        rows,
        tmp_path,
        method=Method(orders=("ascending", "descending"), sentences="ranking"),
        max_chain_tokens=110,
        max_prompt_tokens=32,
    )
    one = train(data)[0]
    assert [first for _, first in one.kept] == [1, 1]
    middle = ("A fair answer:", "2" * 30)
    assert [[(link.marker, link.text) for link in chain] for chain in data.planner.chains(one)] == [
        [middle, ("The best answer:", "1" * 30)],
        [middle, ("The worst answer:", "3" * 30)],
    ]
    assert one.sizes[0][0] == one.sizes[1][0]
    check_epochs(data, 1)


COMPARED = ("better", "worse", "equal", "say of it")


@pytest.mark.parametrize("words", ["default", "varied"])
@pytest.mark.parametrize("of", ["coh_ranking", "coh_critique", "revised"])
def test_no_chain_begins_with_a_comparison_to_a_missing_output(of: str, words: str, tmp_path: Path) -> None:
    """Cut or not, in every epoch, in the plan and in the tokens alike."""
    critiques = [
        {
            "id": f"c{i}",
            "prompt": f"Spell {i}.",
            "completions": [{"text": "x" * (30 + 5 * i), "critique": "not a word", "revision": "word " * (2 + i)}],
        }
        for i in range(8)
    ]
    rows = rankings(12) if of == "coh_ranking" else critiques
    settings = {"max_chain_tokens": 110, "max_prompt_tokens": 32, "row_tokens": 256, "rows_per_step": 3}
    pairs_of_words = Wording(pairs=(MarkerPair("Good:", "Bad:"), MarkerPair("A really good one:", "A really bad one:")))
    chosen = Method(orders=("revised",), sentences="critique") if of == "revised" else method(of)
    data = built(rows, tmp_path, method=chosen, wording=pairs_of_words if words == "varied" else Wording(), **settings)
    count = data.counts["train"]
    assert (count.chains_dropped if of == "coh_critique" else count.links_cut) > 3, (
        "cut revisions are then the same as single ones of coh_critique"
    )
    for epoch in range(4):
        for one in train(data):
            for chain in data.planner.chains(one, epoch):
                assert not any(word in chain[0].marker for word in COMPARED)
    check_epochs(data, 4)


def test_without_feedback_sentences_the_prompt_still_has_its_room(tmp_path: Path) -> None:
    """Here the prompt's end is longer before an output than before a sentence."""
    data = built(
        pairs(4),
        tmp_path,
        method=method("sft"),
        prompt_format=PromptFormat(before_marker=" ", before_output="\n### Answer:\n"),
    )
    check_epochs(data, 1)


def test_a_chain_that_is_cut_to_another_of_its_record_is_dropped_whatever_the_order(tmp_path: Path) -> None:
    for orders in (("pn", "n"), ("n", "pn")):
        data = built(pairs(1), tmp_path, method=Method(orders=orders), max_chain_tokens=45, max_prompt_tokens=30)
        assert [len(chain) for chain in data.planner.chains(train(data)[0])] == [1]
        assert data.counts["train"].chains_dropped == 1


def test_long_chains_lose_links_from_their_front_and_rows_still_fit(tmp_path: Path) -> None:
    data = built(
        pairs(10),
        tmp_path,
        wording=wording("varied"),
        max_chain_tokens=90,
        max_prompt_tokens=64,
        row_tokens=200,
        rows_per_step=3,
    )
    assert data.counts["train"].chains_dropped > 0
    check_epochs(data, 3)
    for one in train(data):
        for chain, tokens in zip(data.planner.chains(one), tokens_of(data, one), strict=True):
            assert len(tokens) <= 90
            assert tokens.learned[tokens.spans[-1].start :].all(), "the last output is never cut"
            assert len(chain) == len(tokens.spans)


def test_a_tree_longer_than_a_row_is_split_and_loses_no_weight(tmp_path: Path) -> None:
    whole = built(rankings(6), tmp_path, method=method("coh_ranking"), row_tokens=1024, rows_per_step=2)
    split = built(rankings(6), tmp_path, method=method("coh_ranking"), row_tokens=256, rows_per_step=2)
    assert len(split.plan.items) > len(whole.plan.items) == 6
    assert (
        sum(item.weight for item in split.plan.items)
        == sum(item.weight for item in whole.plan.items)
        == whole.counts["train"].tokens_in_loss
    )
    check_epochs(split, 2)


def test_an_epoch_that_its_steps_do_not_divide_ends_in_empty_rows(tmp_path: Path) -> None:
    data = built(pairs(9), tmp_path, rows_per_step=4)
    assert data.plan.num_rows % 4
    empty = check_epochs(data, 2)
    assert empty == 2 * (4 - data.plan.num_rows % 4)
    batches = list(data.train_dataloader())
    assert len(batches) == data.plan.steps_per_epoch * 4
    assert {batch["input_ids"].shape for batch in batches} == {(1, 256)}
    assert not batches[-1]["learned"].any() and not len(batches[-1]["label_cell"])


def test_the_coefficients_add_up_to_one_however_small_the_weights_are(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {i}.", "completions": [{"text": "No", "thumb": False}]} for i in range(4)]
    data = built(rows, tmp_path, method=method("unlikelihood"), rows_per_step=1)
    assert data.plan.step(0, 0)[0].total < 1
    check_epochs(data, 1)


@pytest.mark.parametrize("layout", ["tree", "separate"])
def test_held_out_trees_share_rows_and_separate_chains_do_not(layout: Any, tmp_path: Path) -> None:
    data = built(pairs(40), tmp_path, train_only=False, validation_share=0.3, test_share=0.0, layout=layout)
    rows, chains = data.rows.held_out_rows("validation"), data.counts["validation"].chains
    assert data.counts["validation"].rows == len(rows)
    assert sorted(number for row in rows for number in row) == list(range(len(data.rows.items["validation"])))
    if layout == "separate":
        assert len(rows) == chains and all(len(row) == 1 for row in rows)
    else:
        assert len(rows) < data.counts["validation"].used <= chains
        assert all(
            sum(data.rows.items["validation"][number].length for number in row) <= data.row_tokens for row in rows
        )


def test_separate_rows_have_one_chain_each_of_exactly_its_length(tmp_path: Path) -> None:
    data = built(EVERY_KIND, tmp_path, layout="separate", rows_per_step=4)
    check_epochs(data, 2)
    together = built(EVERY_KIND, tmp_path, rows_per_step=4)
    assert (
        sum(item.weight for item in data.plan.items)
        == sum(item.weight for item in together.plan.items)
        == together.counts["train"].tokens_in_loss
    )
    rows = [data.rows.train_row(planned, 0) for planned in data.plan.step(0, 0)]
    assert all(row.causal and row.bounds[-1] == len(row.ids) for row in rows)
    assert len(rows[0].ids) == max(len(tokens) for one in train(data) for tokens in tokens_of(data, one)), (
        "the longest runs first"
    )


# Hiding


def hidden_shares(data: CoHDataModule, epochs: int) -> list[float]:
    """Of every tree: the share of its tokens, but the first, that nothing but themselves sees though something follows
    below them.
    """
    shares = []
    for epoch in range(epochs):
        for step in range(data.plan.steps_per_epoch):
            for planned in data.plan.step(epoch, step):
                row = data.rows.train_row(planned, epoch)
                trees = [data.rows.tree(data.plan.items[number], "train", epoch) for number in planned.members]
                for tree, start in zip(trees, row.bounds[:-1].tolist(), strict=True):
                    seen = row.seen_until[start : start + tree.tokens] - start
                    changed = seen != tree.subtree_end
                    assert not changed[0], "the first token is never hidden"
                    assert (seen[changed] == np.flatnonzero(changed) + 1).all(), (
                        "a hidden token is seen by itself alone"
                    )
                    inner = tree.subtree_end > np.arange(tree.tokens) + 1
                    shares.append(float(changed[1:].sum() / inner[1:].sum()))
    return shares


def test_past_tokens_are_hidden_at_rates_between_0_and_5_percent(tmp_path: Path) -> None:
    data = built(
        pairs(60, good="The long answer is {i} " + "word " * 20),
        tmp_path,
        row_tokens=512,
        max_chain_tokens=512,
        fcm_range=(0.0, 0.05),
    )
    shares = hidden_shares(data, 8)
    assert np.mean(shares) == pytest.approx(0.025, abs=0.002)
    assert np.std(shares) > 0.012, "a rate of its own for each tree, not one for all"
    assert max(shares) < 0.15


def test_hiding_depends_on_record_and_epoch_alone(tmp_path: Path) -> None:
    def hidden(data: CoHDataModule, epoch: int) -> dict[str, list[int]]:
        found = {}
        for step in range(data.plan.steps_per_epoch):
            for planned in data.plan.step(epoch, step):
                row = data.rows.train_row(planned, epoch)
                for number, start, stop in zip(
                    planned.members, row.bounds[:-1].tolist(), row.bounds[1:].tolist(), strict=True
                ):
                    found[train(data)[data.plan.items[number].record].record.id] = (
                        row.seen_until[start:stop] - start
                    ).tolist()
        return found

    short, long = (
        built(pairs(12), tmp_path, row_tokens=256),
        built(pairs(12), tmp_path, row_tokens=600, rows_per_step=1),
    )
    assert hidden(short, 1) == hidden(long, 1)
    assert hidden(short, 1) != hidden(short, 2)


def test_nothing_is_hidden_in_the_pretraining_text_unless_asked_nor_in_held_out_rows(tmp_path: Path) -> None:
    text = tmp_path / "plain.txt"
    text.write_text("\n".join("A long paragraph of plain text. " * 6 for _ in range(6)), encoding="utf-8")

    def first(**settings: Any) -> Row:
        data = built(
            pairs(30),
            tmp_path,
            train_only=False,
            validation_share=0.3,
            test_share=0.2,
            pretraining_text=[str(text)],
            pretraining_rows_per_step=1,
            fcm_range=(0.2, 0.3),
            **settings,
        )
        for loader in (*data.val_dataloader(), *data.test_dataloader()):
            for batch in loader:
                if "requests" in batch:
                    continue
                for one in batch.get("rows", [batch]):
                    seen = one["seen_until"][0]
                    alone = (seen == torch.arange(len(seen)) + 1).double()[: int(seen[0])]
                    assert alone.mean() < 0.1, "in a held-out tree only the leaves are seen by themselves alone"
        planned = data.plan.step(0, 0)[0]
        assert planned.pretraining
        return data.rows.train_row(planned, 0)

    plain = first()
    end = plain.bounds[1]
    assert (plain.seen_until[:end] == end).all()
    hidden = first(fcm_on_pretraining=True)
    assert 0.1 < (hidden.seen_until[1 : end - 1] != end).mean() < 0.4


# The same batches, whoever asks


def same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def test_batches_do_not_depend_on_workers_or_on_the_global_random_state(tmp_path: Path) -> None:
    data = built(EVERY_KIND, tmp_path, wording=wording("varied"))
    torch.manual_seed(1)
    np.random.seed(1)
    first = list(data.train_dataloader())
    torch.manual_seed(2)
    np.random.seed(2)
    state = torch.get_rng_state()
    again = list(built(EVERY_KIND, tmp_path, wording=wording("varied")).train_dataloader())
    other = list(built(EVERY_KIND, tmp_path, wording=wording("varied"), num_workers=2).train_dataloader())
    assert len(first) == len(again) == len(other)
    assert all(same(a, b) and same(a, c) for a, b, c in zip(first, again, other, strict=True))
    del state


def test_another_seed_gives_other_batches_and_another_epoch_too(tmp_path: Path) -> None:
    def ids(seed: int, epoch: int) -> list[list[int]]:
        loader = built(pairs(12), tmp_path, wording=wording("varied"), seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [batch["input_ids"].flatten().tolist() for batch in loader]

    assert ids(0, 0) == ids(0, 0) != ids(1, 0)
    assert ids(0, 1) != ids(0, 0)


# What is left out


def reasons(data: CoHDataModule) -> dict[str, str]:
    return {one.id.split("/")[-1]: one.reason for one in data.rejected}


def test_records_that_a_method_can_not_use_are_rejected_with_the_reason(tmp_path: Path) -> None:
    long_prompt = {
        "id": "long",
        "prompt": [{"text": "word " * 200, "cut": "never"}],
        "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}],
    }
    long_output = {
        "id": "output",
        "prompt": "Go.",
        "completions": [{"text": "a " * 300, "rank": 1}, {"text": "b " * 300, "rank": 2}],
    }
    data = built([*pairs(10), TIE, IDENTICAL, SILENT, long_prompt, long_output], tmp_path)
    found = reasons(data)
    assert found.pop("long").startswith("the prompt has ")
    assert found == {
        "tie": "tie",
        "identical": "identical completions",
        "silent": "one completion without a clear polarity",
        "output": "no chain fits data.max_chain_tokens (256)",
    }
    assert (data.counts["train"].records, data.counts["train"].used) == (15, 10)
    data.write_report(tmp_path / "run")
    report = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))
    assert report["rejected"]["tie"] == 1 and sum(report["rejected"].values()) == 5
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {line["reason"] for line in lines} == set(report["rejected"])
    assert all(line["where"].endswith(tuple(f"feedback.jsonl:{n}" for n in range(11, 16))) for line in lines)


def test_a_record_with_nothing_to_learn_is_rejected_not_silently_kept(tmp_path: Path) -> None:
    """Under `loss_on: last` and weights of nought a chain could be all reading; such a record must not fill rows."""
    data = built(pairs(4), tmp_path, method=Method(loss_on="last"))
    check_epochs(data, 1)
    for one in train(data):
        for tokens in tokens_of(data, one):
            assert len(runs(tokens.learned)) == 1 and runs(tokens.learned)[0][1] == len(tokens)


def test_more_than_half_lost_stops_with_the_most_common_reason(tmp_path: Path) -> None:
    rows = [*pairs(3), *({**TIE, "id": f"tie{i}", "prompt": f"Pick {i}."} for i in range(4))]
    with pytest.raises(
        InputError,
        match=r"can.t use 4 of 7 training records, most often \(4 times, first .*feedback\.jsonl:\d\) because of: tie",
    ):
        built(rows, tmp_path)


def test_tokens_in_the_loss_are_counted_whatever_their_weight(tmp_path: Path) -> None:
    data = built(pairs(4), tmp_path, method=method("unlikelihood"))
    tokens = [tokens for one in train(data) for tokens in tokens_of(data, one)]
    assert data.counts["train"].tokens_in_loss == sum(
        int(((one.learned > 0) | (one.unlearned > 0)).sum()) for one in tokens
    )


def test_completions_in_no_chain_are_counted(tmp_path: Path) -> None:
    middle = {
        "id": "middle",
        "prompt": "Rank.",
        "completions": [{"text": text, "rank": rank} for rank, text in enumerate("abc")],
    }
    unrated = {"id": "unrated", "prompt": "Rate.", "completions": [{"text": "a", "thumb": True}, {"text": "b"}]}
    data = built([middle, unrated], tmp_path)
    assert (
        data.counts["train"].completions_unused == 2 and "(2 completions are in none)" in dict(data.summary())["chains"]
    )
    assert built([middle], tmp_path, method=method("coh_ranking")).counts["train"].completions_unused == 0


def test_a_completion_too_long_to_compare_drops_only_its_own_pairs_and_is_counted(
    tmp_path: Path,
) -> None:
    texts = ["fine", "so so", "long " * 100]
    row = {"id": "0", "prompt": "Go.", "completions": [{"text": text, "rank": rank} for rank, text in enumerate(texts)]}
    held_out = write(tmp_path / "held_out.jsonl", [row])
    data = built(pairs(4), tmp_path, train_only=False, test_sources=[Records(held_out)], validation_share=0.0)
    assert (data.counts["test"].pairs, data.counts["test"].pairs_too_long) == (1, 2)
    (batch,) = data.test_dataloader()[1]
    assert list(map(list, batch["pairs"])) == [[0, 1]] and [row["outputs"] for row in batch["rows"]] == [4]


def test_ties_get_their_sentence_where_the_method_says_so(tmp_path: Path) -> None:
    data = built([*pairs(3), TIE], tmp_path, method=Method(ties="sentence"))
    assert not data.rejected and "tie_1" in data.kinds
    check_epochs(data, 1)


def test_a_long_prompt_is_cut_once_and_counted(tmp_path: Path) -> None:
    rows = [
        *pairs(3),
        {
            "id": "long",
            "prompt": "w " * 200 + "end.",
            "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}],
        },
    ]
    data = built(rows, tmp_path, max_prompt_tokens=64)
    assert data.counts["train"].prompts_cut == 1 and data.counts["train"].prompt_tokens_cut > 100
    one = next(one for one in train(data) if one.record.id.endswith("long"))
    begins = {tuple(tokens.ids[: one.prompt.tokens].tolist()) for tokens in tokens_of(data, one)}
    assert one.prompt.tokens == 64 and len(begins) == 1
    assert data.prompter.tokens.encoder.decode(begins.pop()).rstrip().endswith("end.")


def test_the_feedback_named_world_is_the_embedded_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    records = load([Records(write(tmp_path / "f.jsonl", pairs(4)))], seed=0)
    monkeypatch.setattr(
        "coh_lightning.world.feedback.world_feedback", lambda **settings: asked.append(settings) or records
    )
    split = CoHDataModule("world", seed=3, cache_dir=tmp_path).records_by_split()
    assert asked == [{"posts": 800, "samples": 4, "seed": 3, "cache_dir": tmp_path, "kind": "habits"}]
    assert sum(map(len, split.values())) == 4


def test_the_pretraining_text_may_mix_files_with_the_embedded_worlds_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, str]] = []
    monkeypatch.setattr(
        "coh_lightning.world.pretraining.pretraining_text",
        lambda number, *, seed, kind: asked.append((number, seed, kind)) or ["from the world"],
    )
    (tmp_path / "text.txt").write_text("from the file", encoding="utf-8")
    data = built(
        pairs(4), tmp_path, pretraining_text=["world", str(tmp_path / "text.txt")], pretraining_rows_per_step=1, seed=7
    )
    assert asked == [(4000, 7, "habits")]
    decode = data.prompter.tokens.encoder.decode
    assert [decode(ids[:-1]) for ids in data.rows.texts] == ["from the world", "from the file"]
    assert all(ids[-1] == data.prompter.stop_ids[0] for ids in data.rows.texts)


def test_counts_of_a_split_are_sums_over_its_records(tmp_path: Path) -> None:
    ranking = [
        {
            "id": f"k{i}",
            "prompt": "Rank. " * (1 + 9 * i),
            "completions": [{"text": f"{'so ' * j}{i}", "rank": min(j, 4)} for j in range(7)],
        }
        for i in range(8)
    ]
    data = built(
        [*pairs(30), *ranking, TIE],
        tmp_path,
        train_only=False,
        validation_share=0.3,
        test_share=0.0,
        method=method("coh_ranking"),
        max_prompt_tokens=40,
        max_chain_tokens=90,
    )
    assert {stage: count.records for stage, count in data.counts.items()}["test"] == 0
    for stage in ("train", "validation"):
        count, records = data.counts[stage], data.splits[stage]
        assert count.records == count.used + count.rejected and count.rejected == len(data.rejected_of[stage])
        assert (count.used, count.chains) == (len(records), sum(len(data.planner.chains(one)) for one in records))
        assert count.chains > count.used > 4
        assert count.tokens_plain >= sum(len(tokens.ids) for one in records for tokens in tokens_of(data, one))
        assert (
            count.tokens_in_loss
            >= sum(int((tokens.learned != 0).sum()) for one in records for tokens in tokens_of(data, one))
            > 0
        )
        for name, each in (
            ("links_cut", [one.links_cut for one in records]),
            ("chains_dropped", [one.chains_dropped for one in records]),
            ("completions_unused", [one.completions_unused for one in records]),
            ("prompts_cut", [one.prompt.cut > 0 for one in records]),
            ("prompt_tokens_cut", [one.prompt.cut for one in records]),
            ("tokens_plain", [one.tokens_plain for one in records]),
            ("tokens_in_loss", [one.tokens_in_loss for one in records]),
            ("pairs", [len(data.comparer.pairs(one)[0]) if stage == "validation" else 0 for one in records]),
            ("pairs_too_long", [data.comparer.pairs(one)[1] if stage == "validation" else 0 for one in records]),
        ):
            assert getattr(count, name) == sum(each), name
        assert min(count.links_cut, count.prompts_cut, count.prompt_tokens_cut - count.prompts_cut) > 0


def test_settings_of_another_shape_in_a_checkpoint_are_refused_with_both(tmp_path: Path) -> None:
    data = built(pairs(2), tmp_path)
    for other in (None, "coh"):
        with pytest.raises(
            InputError, match=rf"data\.method is {{'name': .*, but the checkpoint was trained with {other!r}; "
        ):
            data.agree_with({**data.settings(), "method": other})


def test_rows_of_comparisons_have_no_padding(tmp_path: Path) -> None:
    data = built(pairs(12), tmp_path, train_only=False, validation_share=0.5, test_share=0.0)
    rows = data.held_out("validation")[1].build(0)["rows"]
    outputs = sum(row["outputs"] for row in rows)
    assert sum(int((row["input_ids"] == data.prompter.stop_ids[0]).sum()) for row in rows) == outputs == 4, (
        "each output ends once, and nothing else does"
    )
    assert all(row["input_ids"].shape[1] < data.row_tokens for row in rows)


def test_requests_stay_where_they_are_and_rows_are_moved(tmp_path: Path) -> None:
    data, meta = built(pairs(2), tmp_path), torch.device("meta")
    requests = {"requests": ["r"], "ids": torch.ones(2)}
    assert data.transfer_batch_to_device(requests, meta, 0) is requests and requests["ids"].device.type == "cpu"
    assert data.transfer_batch_to_device({"input_ids": torch.ones(2)}, meta, 0)["input_ids"].device.type == "meta"


@pytest.mark.parametrize("pad", [None, "<pad>"])
def test_rows_are_padded_with_the_tokenizers_own_pad_or_the_end(tmp_path: Path, pad: str | None) -> None:
    tokenizer = byte_level()
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = built(pairs(2), tmp_path, tokenizer=str(tmp_path / "tokenizer"))
    assert data.prompter.pad_id == (data.prompter.stop_ids[0] if pad is None else data.tokenizer.pad_token_id)
    assert (data.prompter.pad_id != data.prompter.stop_ids[0]) == (pad is not None)


def test_splits_never_share_a_prompt(tmp_path: Path) -> None:
    rows = [
        row | {"id": f"{copy}-{row['id']}", "prompt": row["prompt"].upper() if copy else row["prompt"]}
        for row in pairs(60)
        for copy in range(2)
    ]
    data = built(rows, tmp_path, train_only=False, validation_share=0.2, test_share=0.2)
    keys = {name: {feedback_key(one.record) for one in records} for name, records in data.splits.items()}
    assert all(len(found) > 3 for found in keys.values())
    assert (
        not keys["train"] & keys["validation"]
        and not keys["train"] & keys["test"]
        and not keys["validation"] & keys["test"]
    )
    assert sum(len(records) for records in data.splits.values()) == 120


def test_prompts_of_held_out_sources_are_taken_out_of_the_training_data(tmp_path: Path) -> None:
    held_out = write(tmp_path / "held_out.jsonl", pairs(3))
    data = built(pairs(10), tmp_path, train_only=False, test_sources=[Records(held_out)], validation_share=0.0)
    assert len(train(data)) == 7 and len(data.splits["test"]) == 3
    assert Counter(one.reason for one in data.rejected) == {"the prompt is also in the held-out data": 3}


def test_every_record_is_counted_whatever_its_id(tmp_path: Path) -> None:
    """Ids that look like those of copies; a source that its weight repeats; rows that can't be read, and records that
    the method can't use.
    """
    rows = [row | {"id": f"doc~{number}"} for number, row in enumerate(pairs(100))]
    ties = [{**TIE, "id": f"tie#{number}", "prompt": f"Pick {number}."} for number in range(10)]
    unread = [{"prompt": "p", "completions": []}] * 5
    few = write(tmp_path / "few.jsonl", [row | {"prompt": f"Few: {row['prompt']}"} for row in pairs(20)])
    sources = [Records(write(tmp_path / "many.jsonl", [*rows, *ties, *unread]), weight=1), Records(few, weight=1)]
    data = CoHDataModule(
        sources=sources,
        tokenizer="world",
        validation_share=0.3,
        test_share=0.3,
        on_bad_record="skip",
        cache_dir=str(tmp_path / "cache"),
    )
    data.setup()
    report = data.report()
    splits = report["splits"].values()
    assert all(split["records"] == split["used"] + split["rejected"] for split in splits)
    assert sum(split["records"] - split["copies"] for split in splits) == 100 + 10 + 20
    assert sum(split["records"] + split["copies_left_out"] for split in splits) == 110 + 110
    assert sum(split["copies"] + split["copies_left_out"] for split in splits) == 90
    lost = Counter[str]()
    for of_split in report["sources"].values():
        for entry in of_split.values():
            lost.update(entry["rejected"])
    assert lost == {"unreadable": 5, "tie": 10} == report["rejected"]
    assert report["sources"]["train"]["many"]["rejected"]["unreadable"] == 5
    assert report["files"] == {
        name: {"read": [str(tmp_path / f"{name}.jsonl")], "passed_over": {}} for name in ("many", "few")
    }


def test_a_file_of_trl_is_recognized_by_its_keys(tmp_path: Path) -> None:
    records = pairs(6)
    forms = {
        "pairs (chosen, rejected)": [
            {"prompt": row["prompt"], "chosen": "An apple.", "rejected": "A stone."} for row in records
        ],
        "unpaired rows (label)": [
            {"prompt": row["prompt"], "completion": "An apple.", "label": True} for row in records
        ],
    }
    for form, rows in forms.items():
        path = write(tmp_path / f"{form.split()[0]}.jsonl", rows)
        data = CoHDataModule(
            path, tokenizer="world", validation_share=0.0, test_share=0.0, cache_dir=str(tmp_path / "cache")
        )
        data.setup()
        assert data.counts["train"].used == 6
        assert data.notes == [f"{path} is read as {form.replace(' (', ' of TRL (')}, by the columns of its first row."]
    dialogues = [
        {
            "chosen": f"\n\nHuman: {row['prompt']}\n\nAssistant: Yes",
            "rejected": f"\n\nHuman: {row['prompt']}\n\nAssistant: No",
        }
        for row in records
    ]
    data = CoHDataModule(
        write(tmp_path / "hh.jsonl", dialogues), tokenizer="world", validation_share=0.0, test_share=0.0
    )
    assert {one.candidates[0].text for one in data.records_by_split()["train"]} == {
        "Yes"
    } and "dialogues of HH" in data.notes[0]
    data = CoHDataModule(write(tmp_path / "own.jsonl", records), tokenizer="world")
    assert sum(map(len, data.records_by_split().values())) == 6 and data.notes == []


def test_the_message_for_long_records_names_limits_that_fit(tmp_path: Path) -> None:
    rows = [row | {"prompt": "word " * 300 + row["prompt"]} for row in pairs(6)]
    with pytest.raises(InputError) as caught:
        built(rows, tmp_path, max_prompt_tokens=120, max_chain_tokens=122, row_tokens=512)
    assert "can't use 6 of 6 training records" in str(caught.value)
    found = re.search(
        r"of 6 records that it could use 0 fit now, 6 with data\.max_prompt_tokens=(\d+), "
        r"6 with data\.max_chain_tokens=(\d+)\)",
        str(caught.value),
    )
    assert found
    for limits in ({"max_prompt_tokens": int(found[1])}, {"max_chain_tokens": int(found[2])}):
        assert (
            built(rows, tmp_path, **({"max_prompt_tokens": 120, "max_chain_tokens": 122, "row_tokens": 512} | limits))
            .counts["train"]
            .used
            == 6
        )
    kept = [
        row | {"prompt": [{"text": "word " * (20 + number), "cut": "never"}, {"text": row["prompt"]}]}
        for number, row in enumerate(pairs(6))
    ]
    with pytest.raises(InputError) as caught:
        built(kept, tmp_path, max_prompt_tokens=60, max_chain_tokens=100, row_tokens=512)
    assert "most often (6 times, first" in str(caught.value) and re.search(
        r"tokens, \d+ of them in parts that are never cut", str(caught.value)
    )
    prompt, chain = re.findall(r"6 with data\.max_prompt_tokens=(\d+) data\.max_chain_tokens=(\d+)", str(caught.value))[
        -1
    ]
    assert (
        built(kept, tmp_path, max_prompt_tokens=int(prompt), max_chain_tokens=int(chain), row_tokens=512)
        .counts["train"]
        .used
        == 6
    )
    with pytest.raises(InputError, match="choose a method that fits the feedback, or raise"):
        built([*pairs(1), *({**TIE, "id": f"tie{i}", "prompt": f"Pick {i}."} for i in range(4))], tmp_path)


def test_one_cache_serves_every_wording_and_method(tmp_path: Path) -> None:
    built(EVERY_KIND, tmp_path)
    files = sorted((tmp_path / "cache").glob("*.npz"))
    stamps = [file.stat().st_mtime_ns for file in files]
    built(EVERY_KIND, tmp_path, wording=wording("paper"), method=method("csft"))
    assert sorted((tmp_path / "cache").glob("*.npz")) == files and [file.stat().st_mtime_ns for file in files] == stamps


# Asking


def test_an_unknown_condition_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'good'"):
        built(pairs(4), tmp_path, conditions=["goood"])


def test_bad_may_be_the_only_condition(tmp_path: Path) -> None:
    data = built(pairs(20), tmp_path, train_only=False, test_share=0.4, conditions=["bad"])
    assert list(data.prompter.conditions(data.splits["test"][0].record)) == ["bad"]
    comparisons = list(data.test_dataloader()[1])
    assert comparisons and all(batch["pairs"] for batch in comparisons), (
        "preferences are measured under the good sentence all the same"
    )


def test_single_attributes_can_be_conditions(tmp_path: Path) -> None:
    rows = [EVERY_KIND[4] | {"id": str(i), "prompt": f"Post {i}"} for i in range(20)]
    data = built(
        rows,
        tmp_path,
        train_only=False,
        test_share=0.4,
        method=method("coh_ratings"),
        wording=wording("attributes"),
        conditions=["good accuracy", "bad"],
    )
    assert list(data.prompter.conditions(data.splits["test"][0].record)) == ["good accuracy", "bad"]
    assert {request.marker for request in data.requests()} == {
        "This summary has excellent accuracy:",
        "This summary has very poor accuracy and very poor coverage:",
    }


def test_a_checkpoints_settings_that_disagree_are_refused_with_both(tmp_path: Path) -> None:
    saved = json.loads(json.dumps(built(pairs(4), tmp_path).settings()))
    built(pairs(4), tmp_path).agree_with(saved)
    for changes, message in (
        ({"wording": wording("paper")}, "data.wording.name is 'paper', but the checkpoint was trained with 'default'"),
        ({"method": method("csft")}, "data.method.name is 'csft', but the checkpoint was trained with 'coh'"),
        ({"wording": Wording(pairs=wording("binary").pairs)}, "data.wording.pairs is "),
        (
            {"prompt_format": PromptFormat(before_marker="\n")},
            "data.prompt_format.before_marker is '\\n', but the checkpoint was trained with '\\n\\n'",
        ),
        ({"max_prompt_tokens": 64}, "data.max_prompt_tokens is 64, but the checkpoint was trained with 128"),
    ):
        with pytest.raises(InputError) as refused:
            built(pairs(4), tmp_path, **changes).agree_with(saved)
        assert message in str(refused.value)


def test_the_attributes_of_the_checkpoint_are_used_whatever_is_rated_now(tmp_path: Path) -> None:
    rows = [EVERY_KIND[4] | {"id": str(i), "prompt": f"Post {i}"} for i in range(6)]
    saved = json.loads(json.dumps(built(rows, tmp_path, method=method("coh_ratings")).settings()))
    other = [
        {
            "prompt": f"Post {i}",
            "scale": [0, 1],
            "completions": [{"text": "a", "rating": {"style": 1}}, {"text": "b", "rating": {"style": 0}}],
        }
        for i in range(9)
    ]
    data = built(other, tmp_path, train_only=False, test_share=0.4, validation_share=0.0, method=method("coh_ratings"))
    data.agree_with(saved)
    assert {request.marker for request in data.requests()} == {
        "An answer with excellent accuracy and excellent coverage:",
        "An answer with very poor accuracy and very poor coverage:",
    }


def test_a_tokenizer_other_than_the_checkpoints_is_refused(tokenizers: dict[str, str], tmp_path: Path) -> None:
    saved = built(pairs(4), tmp_path).settings()
    with pytest.raises(InputError, match=r"trained with.*data\.tokenizer"):
        built(pairs(4), tmp_path, tokenizer=tokenizers["chatml"]).agree_with(saved)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_prompt_tokens": 256}, "the prompt must leave room"),
        ({"max_prompt_tokens": 0}, "the prompt must leave room"),
        ({"row_tokens": 200}, "data.row_tokens 200"),
        ({"fcm_range": (0.1, 0.05)}, "it must be .low, high"),
        ({"fcm_range": (-0.1, 0.05)}, "it must be .low, high"),
        ({"fcm_range": (0.1, 1.0)}, "it must be .low, high"),
        ({"validation_share": 0.6, "test_share": 0.5}, "leave something to train on"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave something to train on"),
        ({"validation_share": -0.1, "test_share": 0.5}, "leave something to train on"),
        ({"validation_share": 0.5, "test_share": -0.1}, "leave something to train on"),
        ({"pretraining_weight": -1.0}, "can't be negative"),
        ({"pretraining_rows_per_step": 1}, "there is no pretraining text"),
        ({"rows_per_step": 0}, "at least 1 and 0"),
        ({"tokenizer": "/no/such/folder"}, "can't be loaded"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        built(pairs(4), tmp_path, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_prompt_tokens": 255},
        {"fcm_range": (0.0, 0.0)},
        {"fcm_range": (0.3, 0.99)},
        {"validation_share": 0.0, "test_share": 0.99},
        {"pretraining_weight": 0.0},
    ],
)
def test_the_ends_of_their_ranges_are_allowed(settings: dict[str, Any], tmp_path: Path) -> None:
    data = data_of(pairs(4), tmp_path, **settings)
    assert {name: getattr(data, name) for name in settings} == settings


def test_feedback_is_never_the_embedded_worlds_unless_it_is_named() -> None:
    for settings in ({}, {"tokenizer": "world"}, {"validation_sources": [Records("f.jsonl")]}):
        with pytest.raises(InputError, match=r"^data\.feedback is not set; .*data\.feedback=world"):
            CoHDataModule(**settings)


def test_the_defaults_are_those_of_the_paper_and_of_the_documentation() -> None:
    data = CoHDataModule("world")
    assert data.compare_under == "both"
    assert (data.validation_share, data.test_share, data.max_test_prompts, data.max_validation_prompts) == (
        0.05,
        0.05,
        256,
        64,
    )
    assert (data.max_prompt_tokens, data.max_chain_tokens, data.row_tokens, data.rows_per_step, data.layout) == (
        512,
        1024,
        1024,
        8,
        "tree",
    )
    assert (data.fcm_range, data.fcm_on_pretraining, data.pretraining_rows_per_step, data.pretraining_weight) == (
        (0.0, 0.05),
        False,
        0,
        1.5,
    )
    assert (data.on_bad_record, data.max_unusable_fraction, data.seed, data.num_workers) == ("stop", 0.5, 0, 0)


def test_an_unreadable_row_stops_or_is_skipped_and_counted(tmp_path: Path) -> None:
    rows = [*pairs(4), {"prompt": "x"}]
    with pytest.raises(InputError, match=r"feedback\.jsonl:5"):
        built(rows, tmp_path)
    data = built(rows, tmp_path, on_bad_record="skip")
    assert [one.where.rsplit(":")[-1] for one in data.rejected if one.unreadable] == ["5"]


def test_the_data_is_built_once_however_often_it_is_set_up(tmp_path: Path) -> None:
    data = data_of([*pairs(8), TIE], tmp_path)
    data.prepare_data()
    plan = data.plan
    data.setup("fit")
    data.setup("test")
    assert data.plan is plan and len(data.rejected) == 1
