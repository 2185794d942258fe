"""Tree: chains of one record merged by common prefix, depth first, with weights that add up and a path per chain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.sequences.tokens import OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree


def chain(text: str, learned: str = "", unlearned: str = "", spans: tuple[OutputSpan, ...] = ()) -> Tokens:
    """One token per character; the weight of each as a digit."""
    weights = [np.array([float(digit) for digit in digits.ljust(len(text), "0")]) for digits in (learned, unlearned)]
    return Tokens(np.array([ord(letter) for letter in text], np.int32), weights[0], weights[1], spans)


def text(tree: Tree) -> str:
    return "".join(map(chr, tree.ids))


COMPARISON = [chain("PGg", "001"), chain("PBb", "001"), chain("PGgBb", "00101"), chain("PBbGg", "00101")]


def test_a_comparison_becomes_two_branches_under_one_prompt() -> None:
    tree = Tree.from_chains(COMPARISON)
    assert text(tree) == "PBbGgGgBb"
    assert tree.depth.tolist() == [0, 1, 2, 3, 4, 1, 2, 3, 4]
    assert tree.parent.tolist() == [0, 0, 1, 2, 3, 0, 5, 6, 7]
    assert tree.subtree_end.tolist() == [9, 5, 5, 5, 5, 9, 9, 9, 9]
    assert tree.learned.tolist() == [0, 0, 2, 0, 1, 0, 2, 0, 1]
    assert [path.tolist() for path in tree.paths] == [[0, 5, 6], [0, 1, 2], [0, 5, 6, 7, 8], [0, 1, 2, 3, 4]]
    assert tree.tokens == 9


def test_learned_and_unlearned_weight_of_a_shared_prefix_do_not_cancel() -> None:
    tree = Tree.from_chains([chain("Pabx", "0111"), chain("Paby", "0000", "0111")])
    assert text(tree) == "Pabxy"
    assert tree.learned.tolist() == [0, 1, 1, 1, 0]
    assert tree.unlearned.tolist() == [0, 1, 1, 0, 1]
    assert tree.subtree_end.tolist() == [5, 5, 5, 4, 5]


def test_an_output_that_is_a_prefix_of_another_ends_inside_its_branch() -> None:
    tree = Tree.from_chains([chain("Pab", "011"), chain("Pa", "01")])
    assert text(tree) == "Pab"
    assert tree.learned.tolist() == [0, 2, 1]
    assert [path.tolist() for path in tree.paths] == [[0, 1, 2], [0, 1]]


def test_equal_chains_share_all_nodes_and_add_their_weights() -> None:
    tree = Tree.from_chains([chain("Pa", "01"), chain("Pa", "01"), chain("Pa", "00", "02")])
    assert text(tree) == "Pa"
    assert (tree.learned.tolist(), tree.unlearned.tolist()) == ([0, 2], [0, 2])


def test_each_chain_keeps_its_own_weights_and_spans() -> None:
    span = OutputSpan(1, 2, "good", 0)
    tree = Tree.from_chains([chain("Pab", "010", "002", (span,)), chain("Pa", "03")])
    assert [weights.tolist() for weights in tree.weights] == [[0, 1, 2], [0, 3]]
    assert tree.spans == ((span,), ())


def test_ids_beyond_one_byte_are_ordered_by_value() -> None:
    chains = [Tokens(np.array([1, token], np.int32), np.zeros(2), np.zeros(2), ()) for token in (70000, 255, 256, 1)]
    assert Tree.from_chains(chains).ids.tolist() == [1, 1, 255, 256, 70000]


def test_a_weight_on_the_first_token_is_refused() -> None:
    with pytest.raises(InputError, match="first token of a chain carries weight 2"):
        Tree.from_chains([chain("Pa", "20")])


def test_chains_with_different_first_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="different tokens 80 and 81"):
        Tree.from_chains([chain("Pa"), chain("Qa")])


def test_no_chains_and_empty_chains_are_refused() -> None:
    with pytest.raises(InputError, match="at least one chain"):
        Tree.from_chains([])
    with pytest.raises(InputError, match="no empty ones"):
        Tree.from_chains([chain("Pa"), chain("")])


weights = st.sampled_from([0.0, 0.0, 1.0, 2.0])
bodies = st.lists(st.lists(st.tuples(st.integers(0, 2), weights, weights), max_size=7), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(bodies)
def test_a_tree_agrees_with_a_naive_trie_on_every_token(bodies: list[list[tuple[int, float, float]]]) -> None:
    chains = [
        Tokens(
            np.array([9, *(token for token, _, _ in body)], np.int32),
            np.array([0.0, *(learned for _, learned, _ in body)]),
            np.array([0.0, *(unlearned for _, _, unlearned in body)]),
            (),
        )
        for body in bodies
    ]
    tree = Tree.from_chains(chains)
    learned: dict[tuple[int, ...], float] = {}
    unlearned: dict[tuple[int, ...], float] = {}
    for tokens in chains:
        for end in range(1, len(tokens.ids) + 1):
            prefix = tuple(tokens.ids[:end].tolist())
            learned[prefix] = learned.get(prefix, 0) + tokens.learned[end - 1]
            unlearned[prefix] = unlearned.get(prefix, 0) + tokens.unlearned[end - 1]
    prefixes: list[tuple[int, ...]] = []
    for node in range(tree.tokens):
        prefixes.append((*(prefixes[tree.parent[node]] if node else ()), int(tree.ids[node])))
    assert sorted(prefixes) == sorted(learned)
    assert [learned[prefix] for prefix in prefixes] == tree.learned.tolist()
    assert [unlearned[prefix] for prefix in prefixes] == tree.unlearned.tolist()
    assert [len(prefix) - 1 for prefix in prefixes] == tree.depth.tolist()
    for tokens, path in zip(chains, tree.paths, strict=True):
        assert tree.ids[path].tolist() == tokens.ids.tolist()
    for q in range(tree.tokens):  # what is visible: exactly the tokens of its own prefix
        seen = [j for j in range(tree.tokens) if j <= q < tree.subtree_end[j]]
        assert tuple(tree.ids[seen].tolist()) == prefixes[q]


@settings(max_examples=50, deadline=None)
@given(bodies, st.randoms(use_true_random=False))
def test_the_order_of_the_chains_does_not_change_the_tree(bodies, random) -> None:  # type: ignore[no-untyped-def]
    chains = [
        Tokens(
            np.array([9, *(token for token, _, _ in body)], np.int32),
            np.zeros(len(body) + 1),
            np.zeros(len(body) + 1),
            (),
        )
        for body in bodies
    ]
    shuffled = list(chains)
    random.shuffle(shuffled)
    one, other = Tree.from_chains(chains), Tree.from_chains(shuffled)
    assert one.ids.tolist() == other.ids.tolist()
    assert one.subtree_end.tolist() == other.subtree_end.tolist()
