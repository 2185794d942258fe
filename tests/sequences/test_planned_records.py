"""Planned records in columns are the records that were planned, and the ways that are faster give the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Unusable
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.planned_records import PlannedRecords
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import RecordPlanner
from coh_lightning.sequences.rows import pack
from helpers.feedback import EVERY_KIND, IDENTICAL, METHODS, SILENT, TIE, WORDINGS, method, wording
from helpers.tokenizers import CHATML, byte_level, sentencepiece

RECORDS = [Feedback.from_json(row, "here") for row in (*EVERY_KIND, TIE, IDENTICAL, SILENT)]
FORMATS = [
    (lambda: byte_level(), PromptFormat()),
    (lambda: sentencepiece(), PromptFormat(before_output=" ", before_marker="  ")),
    (lambda: byte_level(CHATML), PromptFormat("chat")),
    (lambda: byte_level(CHATML), PromptFormat("chat", marker_in="system")),
]


def planner(
    of: str, words: str, form: tuple[Any, PromptFormat], *, most: int = 600, prompt: int = 0, **changes: Any
) -> RecordPlanner:
    make, prompt_format = form
    chosen = method(of, **changes)
    tokens = ChainTokenizer(
        Encoder(make()),
        prompt_format,
        max_prompt_tokens=prompt or most // 2,
        marked=chosen.sentences != "none",
        reviews=chosen.reviews,
    )
    return RecordPlanner(tokens, chosen, wording(words), seed=0, max_chain_tokens=most, row_tokens=most + 40)


def planned(by: RecordPlanner, record: Feedback, *, by_shape: bool) -> Any:
    """The plan of a record, or why there is none."""
    try:
        return by.plan(record) if by_shape else by._planned(record, by.tokens.cut_prompt(record.prompt))
    except Unusable as unusable:
        return type(unusable), str(unusable)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("words", WORDINGS)
def test_chains_of_a_shape_are_planned_as_those_of_the_record(words: str, form: tuple[Any, PromptFormat]) -> None:
    for of in METHODS:
        if "reviewed" in of and form[1].kind == "chat":
            continue
        for changes in ({}, {"pairs": "all", "ties": "sentence"}, {"loss_on": "last"}):
            one = planner(of, words, form, most=90, **changes)
            for record in RECORDS * 2:  # the second time the shapes are known
                other = replace(one)  # and here nothing is
                expected = planned(other, record, by_shape=False)
                found = planned(one, record, by_shape=True)
                if not isinstance(found, tuple) or "max_prompt_tokens" not in found[1]:
                    assert found == expected, (of, record.id)


def test_records_of_one_shape_have_their_own_texts_and_sizes() -> None:
    one = planner("coh", "default", FORMATS[0])
    pair = RECORDS[0]
    longer = replace(pair, candidates=(replace(pair.candidates[0], text="An apple " * 9), pair.candidates[1]))
    plans = [one.plan(record) for record in (pair, longer, pair)]
    assert plans[0] == plans[2] and plans[0].tokens_in_loss < plans[1].tokens_in_loss
    assert plans[1] == one._planned(longer, one.tokens.cut_prompt(longer.prompt))


@pytest.mark.parametrize("form", FORMATS)
def test_columns_give_back_what_was_planned(form: tuple[Any, PromptFormat]) -> None:
    one = planner("coh", "varied", form, most=300, prompt=30 if form[1].kind == "plain" else 45)
    records = PlannedRecords(one, RECORDS)
    expected, items = [], []
    for place, record in enumerate(RECORDS):
        plan = planned(one, record, by_shape=True)
        if not isinstance(plan, tuple):
            items += one.items(len(expected), plan)
            expected.append(plan)
            records.append(place, plan)
    assert list(records) == expected and len(records) == len(expected) > 5
    assert any(plan.prompt.cut for plan in expected)
    assert list(records.items) == items and list(records.items[1:3]) == items[1:3]
    assert records.items.lengths.tolist() == [item.length for item in items]
    assert [(it.record, it.prompt, it.kept) for it in records.usable] == [
        (plan.record, plan.prompt, plan.kept) for plan in expected
    ]
    assert list(records[1:4]) == expected[1:4] and records[-1] == expected[-1]
    assert records.usable[2:][0].record == expected[2].record
    assert records.kinds == {kind for plan in expected for kind in plan.kinds}


def one_by_one(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Best fit decreasing as it is defined: the row with the least space that fits, of equal ones the latest."""
    rows: list[list[int]] = []
    changed: list[int] = []
    for time, item in enumerate(sorted(range(len(lengths)), key=lambda number: -lengths[number])):
        spaces = [row_tokens - sum(lengths[it] for it in row) for row in rows]
        fitting = [number for number, space in enumerate(spaces) if space >= lengths[item]]
        if fitting:
            row = min(fitting, key=lambda number: (spaces[number], -changed[number]))
            rows[row].append(item)
            changed[row] = time
        else:
            rows.append([item])
            changed.append(time)
    return rows


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40).flatmap(lambda row: st.tuples(st.just(row), st.lists(st.integers(1, row), max_size=60))))
def test_packing_by_lengths_is_that_of_one_item_after_another(given: tuple[int, list[int]]) -> None:
    row_tokens, lengths = given
    assert pack(lengths, row_tokens) == one_by_one(lengths, row_tokens)
