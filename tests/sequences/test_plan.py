"""Which trees are in which rows and steps: exact lists, and properties of every seed and epoch."""

from dataclasses import replace

import pytest

from coh_lightning.errors import InputError
from coh_lightning.sequences.plan import LinkSize, Plan, PlannedRow, PlannedTree, planned_trees
from coh_lightning.sequences.rows import pack

A, B = 0, 1


def chains_of_a_pair() -> list[list[LinkSize]]:
    good, bad = LinkSize(A, 3, 2.0), LinkSize(B, 4, 1.0)
    return [[good], [bad], [good, bad], [bad, good]]  # p, n, pn, np


def test_chains_that_begin_alike_share_their_links() -> None:
    assert planned_trees(7, 10, chains_of_a_pair(), 100) == [
        PlannedTree(7, (0, 1, 2, 3), 10 + 3 + 4 + 4 + 3, 2 + 1 + 3 + 3)
    ]


def test_a_tree_longer_than_a_row_is_split_between_branches_and_weighs_the_same() -> None:
    parts = planned_trees(7, 10, chains_of_a_pair(), 20)
    assert parts == [PlannedTree(7, (0, 2), 17, 5.0), PlannedTree(7, (1, 3), 17, 4.0)]


def test_a_chain_longer_than_a_row_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match="17 tokens does not fit a row of 16"):
        planned_trees(0, 10, chains_of_a_pair(), 16)


def plan(n: int = 21, *, rows_per_step: int = 3, seed: int = 0, **fields: object) -> Plan:
    items = [PlannedTree(i, (0,), 3 + i % 5, float(1 + i)) for i in range(n)]
    return Plan(items, seed, 10, rows_per_step, **fields)  # type: ignore[arg-type]


def rows_of(plan: Plan, epoch: int) -> list[PlannedRow]:
    """The rows of an epoch without the empty ones of its last step."""
    return [row for step in range(plan.steps_per_epoch) for row in plan.step(epoch, step) if row.members]


def test_every_item_is_in_every_epoch_once() -> None:
    p = plan()
    for epoch in range(4):
        rows = [row for step in range(p.steps_per_epoch) for row in p.step(epoch, step)]
        assert sorted(i for row in rows for i in row.members) == list(range(21))
        assert all(sum(p.items[i].length for i in row.members) <= 10 for row in rows)


def test_every_epoch_has_the_same_number_of_steps_and_of_rows_a_step() -> None:
    p = plan()
    assert {len(rows_of(p, epoch)) for epoch in range(10)} == {p.num_rows}
    assert p.num_rows % 3, "the test needs an epoch that is not divisible by its steps"
    last = p.step(0, p.steps_per_epoch - 1)
    assert len(last) == 3
    assert [row.members for row in last].count(()) == 3 - p.num_rows % 3


def test_the_rows_of_a_step_are_divided_by_the_weight_of_the_whole_step() -> None:
    p = plan()
    for step in range(p.steps_per_epoch):
        rows = p.step(1, step)
        assert {row.total for row in rows} == {sum(p.items[i].weight for row in rows for i in row.members)}


def test_the_plan_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    def members(p: Plan, epoch: int) -> list[tuple[int, ...]]:
        return [row.members for step in range(p.steps_per_epoch) for row in p.step(epoch, step)]

    one = plan()
    later = members(one, 3)
    members(one, 0)
    assert members(one, 3) == later == members(plan(), 3)
    assert members(plan(), 0) != members(plan(), 1)
    assert members(plan(), 0) != members(plan(seed=1), 0)


def test_every_epoch_has_its_own_packing_and_order() -> None:
    """The first epoch is left out: its largest row changes places, so that its order is one of its own whatever the
    draw.
    """
    p = plan(documents=[10] * 9, pretraining_rows_per_step=3)
    packed = [
        {row.members for step in range(p.steps_per_epoch) for row in p.step(epoch, step) if not row.pretraining}
        for epoch in range(1, 6)
    ]
    assert len({frozenset(rows) for rows in packed}) == 5
    # packing begins with long items, so that rows in the order of packing would have the same lengths in every epoch
    orders = [
        [
            row.members
            for step in range(p.steps_per_epoch)
            for row in p.step(epoch, step)
            if row.members and not row.pretraining
        ]
        for epoch in range(1, 6)
    ]
    assert len({tuple(max(p.items[i].length for i in row) for row in order) for order in orders}) == 5
    texts = [
        row.members
        for step in range(5 * 9 // 3)
        for row in p.step(step // p.steps_per_epoch, step % p.steps_per_epoch)
        if row.pretraining
    ]
    turns = {tuple(texts[start : start + 9]) for start in range(0, 45, 9)}
    assert len(turns) == 5 and all(sorted(turn) == sorted(texts[:9]) for turn in turns)


def test_the_digest_differs_exactly_where_plans_differ() -> None:
    p = plan(documents=[5, 4])
    assert p.digest == plan(documents=[5, 4]).digest
    others = [
        plan(),
        plan(20, documents=[5, 4]),
        plan(documents=[4, 5]),
        replace(p, items=[replace(p.items[0], weight=9.0), *p.items[1:]]),
    ]
    assert len({one.digest for one in [p, *others]}) == 5


def test_the_largest_row_of_text_is_the_one_with_most_to_learn() -> None:
    p = plan(
        documents=[4, 9, 5], pretraining_rows_per_step=1
    )  # 9 tokens alone, or 5 + 4: of two texts, the first tokens are not predicted
    assert p.largest_text() == PlannedRow(True, (1,), 8.0)


def test_the_row_with_most_in_the_loss_comes_first_of_all() -> None:
    p = plan()
    weights = [sum(p.items[i].weight for i in row.members) for row in rows_of(p, 0)]
    first = p.step(0, 0)[0]
    assert sum(p.items[i].weight for i in first.members) == max(weights)


def test_all_pretraining_text_is_used_once_before_any_is_used_twice() -> None:
    p = plan(documents=[10, 9, 8, 7, 6, 5, 4], pretraining_rows_per_step=2)
    stream = [
        row
        for step in range(40)
        for row in p.step(step // p.steps_per_epoch, step % p.steps_per_epoch)
        if row.pretraining
    ]
    rows = len(pack(list(p.documents), p.row_tokens))
    for start in range(0, len(stream) - rows, rows):
        assert sorted(i for row in stream[start : start + rows] for i in row.members) == list(range(7))
    for step in range(p.steps_per_epoch):
        texts = [row for row in p.step(0, step) if row.pretraining]
        assert {row.total for row in texts} == {sum(p.documents[i] - 1.0 for row in texts for i in row.members)}


def test_the_ranks_share_a_steps_rows_evenly_or_not_at_all() -> None:
    assert plan(rows_per_step=8).accumulate(4) == 2
    with pytest.raises(InputError, match="multiple of 4"):
        plan(rows_per_step=6).accumulate(4)


def test_separate_layout_has_one_chain_per_row() -> None:
    p = plan(separate=True)
    rows = [row for step in range(p.steps_per_epoch) for row in p.step(0, step)]
    assert all(len(row.members) <= 1 for row in rows)
    assert p.items[rows[0].members[0]].length == 7  # the longest first


def test_pretraining_texts_share_rows_in_the_tree_layout_only() -> None:
    sizes = [3, 3, 4]
    together = plan(documents=sizes, pretraining_rows_per_step=1)
    alone = plan(documents=sizes, pretraining_rows_per_step=1, separate=True)
    for p, rows in ((together, [[0, 1, 2]]), (alone, [[0], [1], [2]])):
        met = [row.members for step in range(p.steps_per_epoch) for row in p.step(0, step) if row.pretraining]
        assert {tuple(sorted(members)) for members in met} == set(map(tuple, rows))


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        Plan([], 0, 10, 1)
    with pytest.raises(InputError, match="no pretraining text"):
        plan(pretraining_rows_per_step=1)
