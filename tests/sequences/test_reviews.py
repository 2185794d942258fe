"""Reviews in chains: under every tokenizer and format, and under settings made up by hypothesis, the tree is its plain
chains, what is learned decodes to the texts, and the prompts of inference are what training chains begin with.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.prompter import Prompter
from coh_lightning.sequences.chains import REVIEW, Unusable, first_links
from coh_lightning.sequences.method import REVIEWED, Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import PlannedRecord, RecordPlanner
from coh_lightning.sequences.wording import Wording
from helpers.feedback import EVERY_KIND, WORDINGS, wording
from helpers.tokenizers import MAKERS, TEMPLATES

BUILDERS = [
    *[(name, None, "user") for name in MAKERS],
    *[(name, style, place) for name in MAKERS for style in TEMPLATES for place in ("user", "system")],
]
"""(tokenizer, chat template or None for plain, place of the sentence)."""
JUDGED: tuple[dict[str, Any], ...] = (
    *(row for row in EVERY_KIND if row["id"] in ("critique", "revised", "pair")),
    {
        "id": "system",
        "system": "You speak like a pirate.",
        "prompt": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Good day."},
            {"role": "user", "content": "Where are you?"},
        ],
        "completions": [{"text": "At sea.", "critique": "Fine", "thumb": True}, {"text": "  Here\n", "thumb": False}],
    },
    {
        "id": "judged",
        "prompt": [{"text": "It rained a lot on Tuesday. " * 4, "cut": "front"}, {"text": "\nTL;DR:"}],
        "task": "summary",
        "completions": [
            {"text": "rain on Tuesday", "rank": 1, "critique": " Right, and short.\n"},
            {"text": "rain", "rank": 2, "critique": "It leaves out the day </s>."},
            {"text": "rain", "rank": 2, "critique": "dull"},
            {"text": "  sun \n\n on Monday", "rank": 3},
        ],
    },
)


@cache
def tokenizer(make: str, template: str | None) -> Any:
    return MAKERS[make](TEMPLATES[template] if template is not None else None)


def prompter(make: str, template: str | None, place: Any, method: Method, words: Wording, *, limit: int) -> Prompter:
    form = PromptFormat() if template is None else PromptFormat(kind="chat", marker_in=place)
    return Prompter.make(tokenizer(make, template), method, words, form, max_prompt_tokens=limit)


def check(made: Prompter, planner: RecordPlanner, one: PlannedRecord, epoch: int) -> int:
    """All that this file promises, of one record; the number of its reviews."""
    tokens, encoder = made.tokens, made.tokens.encoder
    chains = planner.chains(one, epoch)
    plain = [tokens.chain(one.prompt, chain) for chain in chains]
    reviews = 0
    for chain, ids in zip(chains, plain, strict=True):
        assert len(ids) <= planner.max_chain_tokens
        assert 0 in first_links(chain), "a chain begins with an output"
        for before, link in pairwise(chain):
            assert link.kind != REVIEW or before.kind != REVIEW
        for place, (link, span) in enumerate(zip(chain, ids.spans, strict=True)):
            lead = tokens.output_lead(link.marker, place)
            assert encoder.decode(ids.ids[span.start : span.stop - 1]) == lead + link.text
            assert ids.ids[span.stop - 1] == tokens.stop_ids[0]
            assert set(ids.learned[span.start : span.stop]) == {link.learned}
            if link.kind == REVIEW:
                reviews += 1
                assert link.learned == planner.method.feedback_weight and not link.unlearned
                asked = made.review(one.record, chain[place - 1].text, "review 1")
                assert asked is not None and asked.answer == chain[place - 1].text
            elif place and chain[place - 1].kind == REVIEW:
                answer, review = chain[place - 2].text, chain[place - 1].text
                asked = made.improvement(one.record, answer, review, "refined 2")
            elif place == 0:
                asked = made.request(one.record, "any", link.marker)
            else:
                continue
            assert asked is not None and asked.prompt_ids.tolist() == ids.ids[: span.start].tolist()
            assert asked.marker == link.marker
        outside = np.ones(len(ids), bool)
        for span in ids.spans:
            outside[span.start : span.stop] = False
        assert not ids.learned[outside].any() and not ids.unlearned[outside].any()
    weight = 0.0
    seen: set[int] = set()
    for item in planner.items(0, one):
        tree = planner.tree(one, item, epoch)  # which compares its weight and length with the plan
        seen |= {*item.chains}
        weight += tree.learned.sum() + tree.unlearned.sum()
        for number, path in zip(item.chains, tree.paths, strict=True):
            assert tree.ids[path].tolist() == plain[number].ids.tolist()
            assert tree.depth[path].tolist() == list(range(len(path)))
    assert seen == set(range(len(chains)))
    assert weight == pytest.approx(sum(ids.learned.sum() + ids.unlearned.sum() for ids in plain))
    return reviews


@pytest.mark.parametrize(("make", "template", "place"), BUILDERS)
@pytest.mark.parametrize("sentences", ["none", "polarity", "critique"])
def test_trees_texts_and_prompts_are_exact_under_every_tokenizer_and_format(
    make: str, template: str | None, place: str, sentences: Any
) -> None:
    orders = (REVIEWED,) if sentences == "none" else ("each", "pn", "revised", REVIEWED)
    method = Method(orders=orders, sentences=sentences, feedback_weight=0.3)
    made = prompter(make, template, place, method, Wording(), limit=1000)
    planner = RecordPlanner(made.tokens, method, made.wording, seed=0, max_chain_tokens=2000, row_tokens=2000)
    reviews = 0
    for row in JUDGED:
        try:
            one = planner.plan(Feedback.from_json(row, "here"))
        except Unusable as unusable:
            assert str(unusable) == "no completion has a critique" and sentences == "none"
            continue
        assert one.reviews == check(made, planner, one, 0)
        assert one.completions_without_critique == sum("critique" not in it for it in row["completions"])
        reviews += one.reviews
    assert reviews == 7


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    builder=st.sampled_from(BUILDERS),
    orders=st.lists(st.sampled_from(["p", "n", "pn", "np", "each", "revised", "descending"]), unique=True),
    sentences=st.sampled_from(["none", "polarity", "ranking", "critique"]),
    loss_on=st.sampled_from(["all", "last"]),
    unlikelihood=st.sampled_from([0.0, 0.25]),
    feedback_weight=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    words=st.sampled_from(WORDINGS),
    row=st.sampled_from(JUDGED),
    limits=st.tuples(st.integers(20, 200), st.integers(40, 400), st.integers(0, 200)),
    epoch=st.integers(0, 2),
)
def test_they_are_exact_under_any_settings(
    builder: tuple[str, str | None, str],
    orders: list[Any],
    sentences: Any,
    loss_on: Any,
    unlikelihood: float,
    feedback_weight: float,
    words: str,
    row: dict[str, Any],
    limits: tuple[int, int, int],
    epoch: int,
) -> None:
    try:
        method = Method(
            orders=(*orders, REVIEWED),
            sentences=sentences,
            loss_on=loss_on,
            unlikelihood=unlikelihood,
            feedback_weight=feedback_weight,
        )
    except InputError:  # several outputs without sentences
        return
    prompt, chain, more = limits
    made = prompter(*builder, method, wording(words), limit=prompt)
    planner = RecordPlanner(made.tokens, method, made.wording, seed=1, max_chain_tokens=chain, row_tokens=chain + more)
    try:
        one = planner.plan(Feedback.from_json(row, "here"))
    except Unusable:
        return
    assert one.prompt.tokens <= prompt
    assert max(item.length for item in planner.items(0, one)) <= chain + more
    assert check(made, planner, one, epoch) == one.reviews
