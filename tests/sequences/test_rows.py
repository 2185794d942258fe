"""Row: trees packed side by side, attention mask, random hiding, and the labels for the loss per kind."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from coh_lightning.errors import InputError
from coh_lightning.sequences.rows import Row, hide, lay_out, lay_out_alone, pack, runs_of
from coh_lightning.sequences.tokens import OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree


def chain(text: str, learned: str = "", unlearned: str = "", spans: tuple[OutputSpan, ...] = ()) -> Tokens:
    weights = [np.array([float(digit) for digit in digits.ljust(len(text), "0")]) for digits in (learned, unlearned)]
    return Tokens(np.array([ord(letter) for letter in text], np.int32), weights[0], weights[1], spans)


def tree(*texts: str) -> Tree:
    return Tree.from_chains([chain(text) for text in texts])


def two_trees(**options) -> Row:  # type: ignore[no-untyped-def]
    return lay_out([tree("Pab", "Pe"), tree("Qcd")], [1.0, 1.0], row_tokens=9, pad_id=45, **options)


def test_trees_are_side_by_side_and_padding_sees_only_itself() -> None:
    row = two_trees()
    assert "".join(map(chr, row.ids)) == "PabeQcd--"
    assert row.parents.tolist() == [0, 0, 1, 0, 4, 4, 5, 7, 8]
    assert row.depth.tolist() == [0, 1, 2, 1, 0, 1, 2, 0, 0]
    assert row.positions.tolist() == row.depth.tolist()
    assert row.seen_until.tolist() == [4, 3, 3, 4, 7, 7, 7, 8, 9]
    assert row.bounds.tolist() == [0, 4, 7]
    assert not row.causal


def test_a_branch_never_sees_its_sibling_nor_another_tree() -> None:
    row = two_trees()
    seen = {
        "PabeQcd--"[q] + str(q): "".join("PabeQcd--"[j] for j in range(q + 1) if q < row.seen_until[j])
        for q in range(9)
    }
    assert seen == {
        "P0": "P",
        "a1": "Pa",
        "b2": "Pab",
        "e3": "Pe",
        "Q4": "Q",
        "c5": "Qc",
        "d6": "Qcd",
        "-7": "-",
        "-8": "-",
    }


def test_coefficients_multiply_the_weights_of_their_tree() -> None:
    trees = [Tree.from_chains([chain("Pab", "012", "040")]), Tree.from_chains([chain("Qc", "03")])]
    row = lay_out(trees, [0.5, 0.1], row_tokens=6, pad_id=0)
    assert row.learned.tolist() == [0, 0.5, 1, 0, 3 * 0.1, 0]
    assert row.unlearned.tolist() == [0, 2, 0, 0, 0, 0]


def test_trees_that_do_not_fit_are_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match="2 trees of 7 tokens do not fit a row of 6"):
        lay_out([tree("Pab", "Pe"), tree("Qcd")], [1, 1], row_tokens=6, pad_id=0)


def test_a_plain_chain_alone_fills_its_row_and_is_causal() -> None:
    row = lay_out_alone(Tree.from_chains([chain("Pab", "011")]), 0.5)
    assert (len(row.ids), row.causal, row.learned.tolist(), row.depth.tolist()) == (3, True, [0, 0.5, 0.5], [0, 1, 2])


def test_a_tree_with_branches_is_not_a_plain_chain() -> None:
    with pytest.raises(InputError, match="one tree per chain"):
        lay_out_alone(tree("Pab", "Pe"), 1.0)


# Packing


def test_best_fit_decreasing() -> None:
    assert pack([5, 2, 4, 3, 6], 8) == [[4, 1], [0, 3], [2]]


def test_an_item_goes_to_the_fullest_row_that_still_takes_it() -> None:
    assert pack([6, 7, 2, 1], 8) == [[1, 3], [0, 2]]


def test_packing_loses_nothing_and_cuts_nothing() -> None:
    chance = random.Random(3)
    lengths = [chance.randint(1, 100) for _ in range(2000)]
    rows = pack(lengths, 128)
    assert sorted(item for row in rows for item in row) == list(range(2000))
    assert all(sum(lengths[item] for item in row) <= 128 for row in rows)
    assert sum(lengths) / (128 * len(rows)) > 0.99
    assert pack(lengths, 128) == rows


@pytest.mark.parametrize("length", [0, 9])
def test_an_item_that_fits_no_row_is_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"A tree of {length} tokens does not fit a row of 8"):
        pack([3, length], 8)


def test_packing_a_hundred_thousand_items_takes_about_a_second() -> None:
    chance = random.Random(0)
    lengths = [chance.randint(20, 900) for _ in range(100_000)]
    start = time.perf_counter()
    pack(lengths, 4096)
    assert time.perf_counter() - start < 5  # 0.2 s on an idle core


# Random hiding


def test_a_hidden_token_is_seen_by_itself_alone() -> None:
    row = hide(two_trees(), (1.0, 1.0), [np.random.default_rng(0), None])
    assert row.seen_until.tolist() == [4, 2, 3, 4, 7, 7, 7, 8, 9]


def test_the_first_token_of_a_tree_is_never_hidden() -> None:
    row = hide(two_trees(), (1.0, 1.0), [np.random.default_rng(0), np.random.default_rng(1)])
    assert row.seen_until[[0, 4]].tolist() == [4, 7]
    assert row.seen_until[[1, 5]].tolist() == [2, 6]


def test_hiding_changes_only_the_attention_mask() -> None:
    before, after = two_trees(), hide(two_trees(), (1.0, 1.0), [np.random.default_rng(0)] * 2)
    for name in ("ids", "parents", "depth", "learned", "unlearned", "bounds"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert before.seen_until.tolist() == [4, 3, 3, 4, 7, 7, 7, 8, 9]


def test_hidden_tokens_do_not_depend_on_the_row() -> None:
    long = Tree.from_chains([chain("P" + "abcdefgh" * 20)])

    def hidden(row: Row, start: int) -> list[int]:
        return [int(j) - start for j in range(start, start + long.tokens - 1) if row.seen_until[j] == j + 1]

    alone = hide(lay_out([long], [1.0], row_tokens=200, pad_id=0), (0.2, 0.4), [np.random.default_rng(7)])
    second = hide(
        lay_out([tree("Pab"), long], [1.0, 1.0], row_tokens=300, pad_id=0),
        (0.2, 0.4),
        [np.random.default_rng(1), np.random.default_rng(7)],
    )
    assert hidden(alone, 0) == hidden(second, 3) != []


def test_the_rate_is_drawn_uniformly_for_each_tree() -> None:
    long = Tree.from_chains([chain("P" + "a" * 4000)])
    shares = []
    for seed in range(300):
        row = hide(lay_out([long], [1.0], row_tokens=4001, pad_id=0), (0.0, 0.05), [np.random.default_rng(seed)])
        shares.append(np.mean(row.seen_until[1:-1] == np.arange(2, 4001)))
    assert 0.0 <= min(shares) < 0.005 and 0.045 < max(shares) < 0.065
    assert np.mean(shares) == pytest.approx(0.025, abs=0.003)  # 3.5 standard errors
    assert np.std(shares) == pytest.approx(0.05 / 12**0.5, abs=0.002)


def test_hiding_is_refused_with_the_models_own_mask() -> None:
    with pytest.raises(InputError, match="layout: tree"):
        hide(lay_out_alone(tree("Pab"), 1.0), (0.0, 0.05), [np.random.default_rng(0)])


# Labels and outputs


def labeled() -> list[Tree]:
    """P, F and G are a prompt and two markers; outputs a b and c d."""
    good, bad = OutputSpan(2, 4, "good", 0), OutputSpan(5, 7, "bad", 1)
    first = Tree.from_chains(
        [chain("PFab", "0011", spans=(good,)), chain("PFabGcd", "0011002", "0000010", spans=(good, bad))]
    )
    return [first, Tree.from_chains([chain("Qx", "01", spans=(OutputSpan(1, 2, "good", 0),))])]


KINDS = {("good", 0): 3, ("bad", 1): 1}


def test_every_weighted_token_of_every_chain_has_a_label() -> None:
    row = lay_out(labeled(), [0.5, 0.5], row_tokens=12, pad_id=0, kinds=KINDS)
    assert row.label_token.tolist() == [2, 3, 2, 3, 5, 6, 8]
    assert row.label_kind.tolist() == [3, 3, 3, 3, 1, 1, 3]
    assert row.label_weight.tolist() == [1, 1, 1, 1, 1, 2, 1]
    assert row.outputs == 0


def test_a_tree_of_coefficient_0_is_not_counted() -> None:
    row = lay_out(labeled(), [0.0, 0.5], row_tokens=12, pad_id=0, kinds=KINDS)
    assert row.label_token.tolist() == [8]
    assert np.flatnonzero(row.learned).tolist() == [8]


def test_without_kinds_there_are_no_labels() -> None:
    assert len(lay_out(labeled(), [1.0, 1.0], row_tokens=12, pad_id=0).label_token) == 0


def test_outputs_to_score_are_numbered_tree_by_tree_chain_by_chain() -> None:
    row = lay_out(labeled(), [0.0, 0.0], row_tokens=12, pad_id=0, scored=True)
    assert row.outputs == 4
    assert row.score_token.tolist() == [2, 3, 2, 3, 5, 6, 8]
    assert row.score_output.tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_runs_end_where_a_tree_branches() -> None:
    assert runs_of(two_trees().in_trees).tolist() == [[0, 1, -1], [1, 3, 0], [3, 4, 0], [4, 7, -1]]
    assert runs_of(lay_out([], [], row_tokens=4, pad_id=0).in_trees).tolist() == [[0, 1, -1]]


def test_a_run_continues_the_one_that_it_branches_from() -> None:
    row = lay_out([tree("Pabc", "Pabd", "Pae", "Pfg")], [1.0], row_tokens=8, pad_id=0)
    assert "".join(map(chr, row.ids)) == "Pabcdefg"
    assert runs_of(row.in_trees).tolist() == [
        [0, 1, -1],
        [1, 2, 0],
        [2, 3, 1],
        [3, 4, 2],
        [4, 5, 2],
        [5, 6, 1],
        [6, 8, 0],
    ]
