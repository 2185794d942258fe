"""A record -> what the plan must know: token counts, and limits under which records that are too long would fit."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import TooLong, Unusable
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.limits import Size, limits_that_fit
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import RecordPlanner
from coh_lightning.sequences.wording import Wording
from helpers.feedback import EVERY_KIND, METHODS, built, method, usable
from helpers.tokenizers import CHATML, byte_level, character, sentencepiece


@cache
def encoder(make: Any, template: str | None = None) -> Encoder:
    return Encoder(make(template))


def planner(
    tokenizer: Encoder, chosen: Method, *, prompt: int, chain: int = 10_000, form: PromptFormat | None = None
) -> RecordPlanner:
    shapes = {"marked": chosen.sentences != "none", "reviews": chosen.reviews}
    tokens = ChainTokenizer(tokenizer, form or PromptFormat(), max_prompt_tokens=prompt, **shapes)
    return RecordPlanner(tokens, chosen, Wording(), seed=0, max_chain_tokens=chain, row_tokens=10_000)


@pytest.mark.parametrize("of", METHODS)
@pytest.mark.parametrize(
    "make, kind", [(character, "plain"), (sentencepiece, "plain"), (sentencepiece, "chat"), (byte_level, "chat")]
)
def test_a_prompt_that_fits_is_whole_and_one_token_too_long_loses_one_token(make: Any, kind: Any, of: str) -> None:
    form = PromptFormat(kind=kind)
    chosen = method(of)
    for row in usable(EVERY_KIND, chosen):
        record = Feedback.from_json(dict(row), "here")
        record = replace(record, prompt=(Turn("user", (Part("The dog sleeps and it rained a lot.", "front"),)),))
        free = planner(encoder(make, CHATML), chosen, prompt=1000, form=form)
        whole = free.plan(record)
        tokens = {
            sum(
                len(free.tokens.encoder.segment_ids(segment))
                for segment in free.tokens.segments(whole.prompt, chain)
                if segment.kind == "prompt"
            )
            for chain in free.chains(whole)
        }
        room = whole.prompt.tokens
        assert max(tokens) == room
        assert len(tokens) == 1 or "+reviewed" in of, "chains without a sentence have other text around the prompt"
        assert planner(encoder(make, CHATML), chosen, prompt=room, form=form).plan(record).prompt.cut == 0
        less = planner(encoder(make, CHATML), chosen, prompt=room - 1, form=form).plan(record)
        assert (less.prompt.tokens, less.prompt.cut) == (room - 1, 1)


# What is too long


def pair(number: int, prompt: str, output: str, *, cut: Any = "front") -> Feedback:
    candidates = (RatedCompletion(output + "a", rank=0), RatedCompletion(output + "bb", rank=1))
    return Feedback(str(number), (Turn("user", (Part("Q:"), Part(prompt, cut))),), candidates)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.sampled_from(["front", "never"])), min_size=1, max_size=8
    ),
    prompt=st.integers(8, 40),
    room=st.integers(1, 60),
    joined=st.booleans(),
)
def test_as_many_records_fit_under_other_limits_as_the_message_says(
    sizes: list[tuple[int, int, Any]], prompt: int, room: int, joined: bool
) -> None:
    chosen = Method(orders=("pn",)) if joined else Method(orders=("p",), sentences="none")
    records = [pair(i, "x" * length, "y" * output, cut=cut) for i, (length, output, cut) in enumerate(sizes)]

    def used(max_prompt: int, max_chain: int) -> int:
        tried = planner(encoder(character), chosen, prompt=max_prompt, chain=max_chain)
        number = 0
        for record in records:
            try:
                tried.plan(record)
            except TooLong:
                continue
            number += 1
        return number

    now = used(prompt, prompt + room)
    said = planner(encoder(character), chosen, prompt=prompt, chain=prompt + room).limits_that_fit(
        records, row_tokens=10_000
    )
    if now == len(records):
        assert not said
        return
    assert said.startswith(f"set other limits (of {len(records)} records that it could use {now} fit now, ")
    found = re.findall(r"(\d+) with (?:data\.max_prompt_tokens=(\d+))? ?(?:data\.max_chain_tokens=(\d+))?", said)
    assert found and max(int(number) for number, _, _ in found) == len(records), "some limits let all of them in"
    for number, max_prompt, max_chain in found:
        limits = int(max_prompt or prompt), int(max_chain or prompt + room)
        assert used(*limits) == int(number) > now
        assert limits[0] < limits[1]


def test_the_limits_are_named_with_the_numbers_of_records_that_they_let_in() -> None:
    sizes = [*[Size(20, 600, 300)] * 18, Size(20, 600, 3000), Size(700, 900, 100)]
    assert limits_that_fit(sizes, max_prompt_tokens=512, max_chain_tokens=800, row_tokens=1000) == (
        "set other limits (of 20 records that it could use 0 fit now, 18 with data.max_prompt_tokens=500, 18 with "
        "data.max_chain_tokens=812, "
        "19 with data.max_chain_tokens=3512 data.row_tokens=3512, 19 with data.max_prompt_tokens=700 "
        "data.max_chain_tokens=900, "
        "20 with data.max_prompt_tokens=700 data.max_chain_tokens=3600 data.row_tokens=3600)"
    )
    assert limits_that_fit([Size(20, 30, 40)], max_prompt_tokens=512, max_chain_tokens=800, row_tokens=1000) == ""


def test_a_record_that_the_method_can_not_use_is_not_called_too_long() -> None:
    tie = Feedback(
        "0", (Turn("user", (Part("x" * 100),)),), (RatedCompletion("a", rank=0), RatedCompletion("b", rank=0))
    )
    with pytest.raises(Unusable, match=r"^tie$"):
        planner(encoder(character), Method(), prompt=20).plan(tie)


def test_records_that_are_too_long_stop_the_run_with_limits_under_which_they_fit(tmp_path: Path) -> None:
    texts = [{"text": "good " * 40, "rank": 1}, {"text": "bad " * 40, "rank": 2}]
    rows = [{"id": str(i), "prompt": f"{i} " + "word " * 60, "completions": texts} for i in range(6)]
    sizes = {"max_prompt_tokens": 100, "max_chain_tokens": 120, "row_tokens": 120}
    with pytest.raises(InputError) as stopped:
        built(rows, tmp_path, **sizes)
    message = str(stopped.value)
    assert "can't use 6 of 6 training records" in message and "choose a method" not in message and "\n" not in message
    [(prompt, chain)] = re.findall(
        r"6 with data.max_prompt_tokens=(\d+), 6 with data.max_chain_tokens=(\d+) data.row_tokens=\2\)", message
    )
    assert built(rows, tmp_path, **(sizes | {"max_prompt_tokens": int(prompt)})).counts["train"].used == 6
    longer = {"max_chain_tokens": int(chain), "row_tokens": int(chain)}
    assert built(rows, tmp_path, **(sizes | longer)).counts["train"].used == 6
