"""Feedback + a method -> chains: exact lists."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.sequences.chains import Chain, Unusable, build_chains, first_links, without_front
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.preferences import strict_pairs
from coh_lightning.sequences.wording import MarkerPair, Wording

WORDING = Wording(
    pairs=(MarkerPair("G", "B"), MarkerPair("G2", "B2")),
    tie="T",
    best="best",
    middle="middle",
    better="better",
    equal="equal",
    worse="worse",
    worst="worst",
)


def record(*candidates: RatedCompletion, id: str = "r", **fields: object) -> Feedback:
    return Feedback(id, (Turn("user", (Part("Q"),)),), candidates, **fields)  # type: ignore[arg-type]


def shown(chains: tuple[Chain, ...]) -> list[str]:
    """'G a | B b': marker and text of each link; read-only links in brackets, unlearned ones with a minus."""
    out = []
    for chain in chains:
        links = []
        for link in chain:
            text = f"{link.marker} {link.text}".strip()
            links.append(f"-{text}" if link.unlearned else text if link.learned else f"[{text}]")
        out.append(" | ".join(links))
    return out


def first_wording(wording: Wording = WORDING) -> Wording:
    return Wording(
        pairs=wording.pairs[:1],
        tie="T",
        best="best",
        middle="middle",
        better="better",
        equal="equal",
        worse="worse",
        worst="worst",
        critique="says {critique}:",
        revise="said {critique}, better:",
        review="and?",
        improve="again",
    )


PAIR = record(RatedCompletion("g", rank=0), RatedCompletion("b", rank=1))


def test_coh_makes_four_chains_of_a_comparison() -> None:
    assert shown(build_chains(PAIR, Method(), first_wording())) == ["G g", "B b", "G g | B b", "B b | G g"]


def test_the_loss_may_be_on_the_last_output_only() -> None:
    assert shown(build_chains(PAIR, Method(loss_on="last"), first_wording())) == [
        "G g",
        "B b",
        "[G g] | B b",
        "[B b] | G g",
    ]


def test_sft_has_no_sentence_and_no_bad_output() -> None:
    assert shown(build_chains(PAIR, Method(orders=("p",), sentences="none"), WORDING)) == ["g"]
    assert shown(build_chains(PAIR, Method(orders=("each",), sentences="none"), WORDING)) == ["g", "b"]


def test_unlikelihood_unlearns_the_bad_output_with_its_weight() -> None:
    chains = build_chains(PAIR, Method(orders=("p", "n"), sentences="none", unlikelihood=0.02), WORDING)
    assert shown(chains) == ["g", "-b"]
    assert (chains[1][0].learned, chains[1][0].unlearned) == (0.0, 0.02)


def test_good_and_bad_wording_belong_together_and_change_with_the_epoch() -> None:
    seen = set()
    for epoch in range(12):
        line = shown(build_chains(PAIR, Method(orders=("pn",)), WORDING, epoch=epoch))[0]
        assert line in ("G g | B b", "G2 g | B2 b")
        assert line == shown(build_chains(PAIR, Method(orders=("pn",)), WORDING, epoch=epoch))[0]
        seen.add(line)
    assert len(seen) == 2


def test_a_ranking_compares_each_output_with_the_one_before_it() -> None:
    ranked = record(
        RatedCompletion("a", rank=0),
        RatedCompletion("b", rank=1),
        RatedCompletion("c", rank=1),
        RatedCompletion("d", rank=3),
    )
    method = Method(orders=("ascending", "descending"), sentences="ranking")
    assert shown(build_chains(ranked, method, WORDING)) == [
        "worst d | better b | equal c | best a",
        "best a | worse b | equal c | worst d",
    ]


def test_shuffled_chains_have_all_outputs_and_a_new_order_each_epoch() -> None:
    ranked = record(*(RatedCompletion(str(i), rank=i) for i in range(5)))
    lines = {
        shown(build_chains(ranked, Method(orders=("shuffled",), sentences="ranking"), WORDING, epoch=e))[0]
        for e in range(20)
    }
    assert len(lines) > 10
    assert all(sorted(link.split()[1] for link in line.split(" | ")) == list("01234") for line in lines)


def test_the_first_output_of_a_shuffled_ranking_is_compared_with_nothing() -> None:
    ranked = record(*(RatedCompletion(str(i), rank=i) for i in range(4)))
    heads = {
        shown(build_chains(ranked, Method(orders=("shuffled",), sentences="ranking"), WORDING, epoch=e))[0].split(
            " | "
        )[0]
        for e in range(40)
    }
    assert heads == {"best 0", "middle 1", "middle 2", "worst 3"}


@given(
    ranks=st.lists(st.integers(0, 3), min_size=2, max_size=6),
    epoch=st.integers(0, 5),
    cut=st.integers(0, 5),
    last=st.booleans(),
)
def test_a_ranking_cut_at_its_front_calls_its_first_output_by_its_rank_in_the_record(
    ranks: list[int], epoch: int, cut: int, last: bool
) -> None:
    ranked = record(*(RatedCompletion(f"{i}", rank=rank) for i, rank in enumerate(ranks)))
    method = Method(
        orders=("ascending", "descending", "shuffled"), sentences="ranking", loss_on="last" if last else "all"
    )
    try:
        chains = build_chains(ranked, method, WORDING, epoch=epoch)
    except Unusable:
        assert len(set(ranks)) == 1
        return
    for whole in chains:
        for chain in (whole, without_front(whole, min(cut, len(whole) - 1))):
            said = {min(ranks): "best", max(ranks): "worst"}
            assert chain[0].marker == said.get(ranks[int(chain[0].text)], "middle")
            assert chain[0].marker in chain[0].alternatives
            assert [link.text for link in chain] == [link.text for link in whole[-len(chain) :]]
            assert [link.marker for link in chain[1:]] == [link.marker for link in whole[-len(chain) :]][1:]
            assert [link.learned for link in chain] == [0.0 if last else 1.0] * (len(chain) - 1) + [1.0]


def test_a_revision_whose_first_output_is_cut_gets_a_sentence_of_its_own() -> None:
    method = Method(orders=("revised",), sentences="critique")
    wording = first_wording()
    critic = record(RatedCompletion("bad text", critique="it is late.", revision="mended"))
    pair = record(RatedCompletion("g", rank=0), RatedCompletion("b", rank=1, critique="dull"))
    scales = {"overall": (0.0, 1.0)}
    poor = record(
        RatedCompletion("g", ratings={"overall": 0.2}),
        RatedCompletion("b", ratings={"overall": 0.1}, critique="dull"),
        scales=scales,
    )
    for feedback, first in ((critic, "G mended"), (pair, "G g"), (poor, "B g")):
        (chain,) = build_chains(feedback, method, wording)
        assert shown((without_front(chain, 1),)) == [first]
    varied = replace(wording, pairs=(MarkerPair("G", "B"), MarkerPair("G2", "B2")))
    heads = {without_front(build_chains(critic, method, varied, epoch=epoch)[0], 1)[0] for epoch in range(12)}
    assert {link.marker for link in heads} == {"G", "G2"} and {link.alternatives for link in heads} == {("G", "G2")}


@pytest.mark.parametrize(
    "method",
    [
        Method(ties="sentence"),
        Method(orders=("ascending",), sentences="rating"),
        Method(orders=("ascending",), sentences="critique"),
    ],
)
def test_sentences_that_compare_with_nothing_stay_when_a_chain_is_cut(method: Method) -> None:
    scales = {"overall": (1.0, 5.0)}
    tie = record(RatedCompletion("a", rank=0), RatedCompletion("b", rank=0))
    rated = record(
        RatedCompletion("a", ratings={"overall": 1}, critique="bad"),
        RatedCompletion("b", ratings={"overall": 4}, critique="good"),
        scales=scales,
    )
    for chain in build_chains(tie if method.ties == "sentence" else rated, method, WORDING):
        assert without_front(chain, len(chain) - 1) == chain[-1:]


def test_a_text_is_never_called_better_than_itself() -> None:
    method = Method(orders=("ascending",), sentences="ranking")
    twice = record(
        RatedCompletion("a", rank=0),
        RatedCompletion("same", rank=1),
        RatedCompletion("b", rank=2),
        RatedCompletion("same", rank=3),
        RatedCompletion("b", rank=2),
    )
    assert shown(build_chains(twice, method, WORDING)) == ["worst b | best a"]
    with pytest.raises(Unusable, match="identical completions"):
        build_chains(record(RatedCompletion("a", rank=0), RatedCompletion("a", rank=1)), method, WORDING)
    with pytest.raises(Unusable, match="one completion, and these orders compare several"):
        build_chains(record(RatedCompletion("a", thumb=True)), method, WORDING)


def test_a_shuffled_chain_never_equals_another_so_every_epoch_has_as_many_chains() -> None:
    rated = record(*(RatedCompletion(str(i), ratings={"overall": i}) for i in range(3)), scales={"overall": (0.0, 2.0)})
    for sentences in ("ranking", "rating"):
        method = Method(orders=("ascending", "descending", "shuffled"), sentences=sentences)
        every = [shown(build_chains(rated, method, WORDING, epoch=epoch)) for epoch in range(30)]
        assert {len(lines) for lines in every} == {3}
    assert any(lines[2] in lines[:2] for lines in every), "the draw may be one of the other two orders"


def test_an_output_without_a_revision_is_followed_by_the_best_of_the_better_ones() -> None:
    ranked = record(
        RatedCompletion("second", rank=1),
        RatedCompletion("first", rank=0),
        RatedCompletion("bad", rank=2, critique="dull"),
    )
    assert shown(build_chains(ranked, Method(orders=("revised",), sentences="critique"), first_wording())) == [
        "B bad | said dull, better: first"
    ]


def test_an_output_without_a_better_one_does_not_block_another_outputs_revision() -> None:
    mixed = record(
        RatedCompletion("plain"),
        RatedCompletion("odd", critique="unclear"),
        RatedCompletion("same", revision="same"),
        RatedCompletion("old", revision="new"),
    )
    assert shown(build_chains(mixed, Method(orders=("revised",)), first_wording())) == ["B old | better new"]


def test_two_outputs_have_no_third_order() -> None:
    method = Method(orders=("ascending", "descending", "shuffled"), sentences="ranking")
    assert shown(build_chains(PAIR, method, WORDING)) == ["worst b | best g", "best g | worst b"]
    assert len(build_chains(PAIR, Method(orders=("shuffled",), sentences="ranking"), WORDING)) == 1


def test_a_ranking_gives_its_ends_or_all_strict_pairs() -> None:
    ranked = record(RatedCompletion("a", rank=0), RatedCompletion("b", rank=1), RatedCompletion("c", rank=1))
    assert shown(build_chains(ranked, Method(orders=("pn",)), first_wording())) == ["G a | B b"]
    assert shown(build_chains(ranked, Method(orders=("p", "pn"), pairs="all"), first_wording())) == [
        "G a",
        "G a | B b",
        "G a | B c",
    ]
    assert strict_pairs(ranked, Method()) == [(0, 1), (0, 2)]


def test_a_text_that_is_best_and_worst_is_paired_with_the_next_text() -> None:
    method = Method(orders=("pn",))
    liked, disliked = RatedCompletion("a", thumb=True), RatedCompletion("a", thumb=False)
    assert shown(build_chains(record(liked, disliked, RatedCompletion("b", thumb=False)), method, first_wording())) == [
        "G a | B b"
    ]
    assert shown(build_chains(record(liked, disliked, RatedCompletion("b", thumb=True)), method, first_wording())) == [
        "G b | B a"
    ]
    ranked = record(
        RatedCompletion("a", rank=1),
        RatedCompletion("b", rank=2),
        RatedCompletion("c", rank=4),
        RatedCompletion("a", rank=5),
    )
    assert shown(build_chains(ranked, method, first_wording())) == ["G a | B c"]
    assert strict_pairs(ranked, method) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    # what both people said counts on both sides: neither order of two such texts is the right one
    assert strict_pairs(
        record(liked, disliked, RatedCompletion("b", thumb=True), RatedCompletion("b", thumb=False)), method
    ) == [
        (0, 3),
        (2, 1),
    ]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.integers(0, 4), st.floats(0, 4))), min_size=2, max_size=6)
)
def test_the_extremes_are_a_pair_wherever_there_is_one(ranks: list[tuple[str, float]]) -> None:
    ranked = record(*(RatedCompletion(text, rank=rank) for text, rank in ranks))
    pairs = strict_pairs(ranked, Method())
    if not pairs:
        with pytest.raises(Unusable):
            build_chains(ranked, Method(orders=("pn",)), first_wording())
        return
    ((better, worse),) = [
        [link.text for link in chain] for chain in build_chains(ranked, Method(orders=("pn",)), first_wording())
    ]
    widest = max(ranks[j][1] - ranks[i][1] for i, j in pairs)
    assert (better, worse) in {(ranks[i][0], ranks[j][0]) for i, j in pairs if ranks[j][1] - ranks[i][1] == widest}
    best, worst = min(ranks, key=lambda one: one[1]), max(ranks, key=lambda one: one[1])
    assert best[0] == worst[0] or (better, worse) == (best[0], worst[0])


def test_a_critique_of_a_text_that_others_liked_is_answered_by_the_next_better_text() -> None:
    said = record(
        RatedCompletion("a", rank=1), RatedCompletion("b", rank=2), RatedCompletion("a", rank=3, critique="dull")
    )
    (chain,) = build_chains(said, Method(orders=("revised",), sentences="critique"), first_wording())
    assert [link.text for link in chain] == ["a", "b"]


def test_every_liked_and_every_disliked_output_counts() -> None:
    thumbs = record(
        RatedCompletion("a", thumb=True), RatedCompletion("b", thumb=True), RatedCompletion("c", thumb=False)
    )
    assert shown(build_chains(thumbs, Method(orders=("p", "n", "pn")), first_wording())) == [
        "G a",
        "G b",
        "B c",
        "G a | B c",
    ]


def test_unpaired_feedback_gives_single_chains() -> None:
    assert shown(build_chains(record(RatedCompletion("a", thumb=True)), Method(), first_wording())) == ["G a"]
    assert shown(build_chains(record(RatedCompletion("a", thumb=False)), Method(), first_wording())) == ["B a"]
    scales = {"overall": (1.0, 5.0)}
    assert shown(
        build_chains(
            record(RatedCompletion("a", ratings={"overall": 4}), scales=scales), Method(good_above=0.7), first_wording()
        )
    ) == ["G a"]
    with pytest.raises(Unusable, match="one completion without a clear polarity"):
        build_chains(record(RatedCompletion("a", ratings={"overall": 3}), scales=scales), Method(), first_wording())


def test_ratings_in_words_precede_their_outputs() -> None:
    scales = {"accuracy": (0.0, 1.0)}
    rated = record(
        RatedCompletion("a", ratings={"accuracy": 0.1}), RatedCompletion("b", ratings={"accuracy": 0.9}), scales=scales
    )
    lines = shown(build_chains(rated, Method(orders=("each", "ascending"), sentences="rating"), Wording()))
    bad, good = "An answer with very poor accuracy: a", "An answer with excellent accuracy: b"
    assert lines == [bad, good, f"{bad} | {good}"]


def test_a_critique_precedes_its_output_or_separates_it_from_the_revision() -> None:
    wording = first_wording()
    critic = record(RatedCompletion("bad text", critique="it is late.", revision="mended"))
    assert shown(build_chains(critic, Method(orders=("each", "revised"), sentences="critique"), wording)) == [
        "says it is late: bad text",
        "G mended",
        "B bad text | said it is late, better: mended",
    ]
    pair = record(RatedCompletion("g", rank=0), RatedCompletion("b", rank=1, critique="dull"))
    assert shown(build_chains(pair, Method(orders=("revised",), sentences="critique"), wording)) == [
        "B b | said dull, better: g"
    ]


def test_an_output_that_people_liked_is_not_called_bad_before_its_revision() -> None:
    method = Method(orders=("each", "revised"), sentences="critique")
    liked = record(RatedCompletion("fine", thumb=True, critique="one word too many", revision="better"))
    assert shown(build_chains(liked, method, first_wording())) == [
        "says one word too many: fine",
        "G fine | said one word too many, better: better",
    ]
    ranked = record(RatedCompletion("g", rank=0, revision="g+"), RatedCompletion("b", rank=1))
    assert shown(build_chains(ranked, method, first_wording())) == ["G g", "B b", "G g | better g+"]


def test_a_rating_on_the_threshold_is_neither_good_nor_bad_whatever_its_binary_fraction() -> None:
    halfway = record(RatedCompletion("a", ratings={"overall": 0.3}), scales={"overall": (0.1, 0.5)})
    with pytest.raises(Unusable, match="without a clear polarity"):
        build_chains(halfway, Method(), WORDING)


def test_a_revision_is_better_than_what_it_revises() -> None:
    assert shown(
        build_chains(record(RatedCompletion("old", revision="new")), Method(orders=("pn", "np")), first_wording())
    ) == ["G new | B old", "B old | G new"]


def test_ties_are_skipped_or_get_the_tie_sentence() -> None:
    tie = record(RatedCompletion("a", rank=0), RatedCompletion("b", rank=0))
    with pytest.raises(Unusable, match=r"^tie$"):
        build_chains(tie, Method(), WORDING)
    assert shown(build_chains(tie, Method(ties="sentence"), WORDING)) == ["T a", "T b", "T a | T b", "T b | T a"]


def test_identical_completions_are_not_compared() -> None:
    with pytest.raises(Unusable, match="identical completions"):
        build_chains(record(RatedCompletion("a", rank=0), RatedCompletion("a", rank=1)), Method(), WORDING)


def test_one_record_may_mix_kinds_of_feedback_and_the_judge_may_be_named() -> None:
    mixed = record(RatedCompletion("a", rank=0, thumb=False), RatedCompletion("b", rank=1, thumb=True))
    assert shown(build_chains(mixed, Method(orders=("p",), sentences="none", preference_from="rank"), WORDING)) == ["a"]
    assert shown(build_chains(mixed, Method(orders=("p",), sentences="none", preference_from="thumb"), WORDING)) == [
        "b"
    ]


def test_with_one_rank_alone_ratings_or_thumbs_decide() -> None:
    method = Method(orders=("p", "n", "pn"))
    thumbs = record(RatedCompletion("a", rank=1, thumb=False), RatedCompletion("b", thumb=True))
    assert shown(build_chains(thumbs, method, first_wording())) == ["G b", "B a", "G b | B a"]
    scales = {"overall": (0.0, 1.0)}
    rated = record(
        RatedCompletion("a", rank=1, ratings={"overall": 0.1}),
        RatedCompletion("b", ratings={"overall": 0.9}),
        scales=scales,
    )
    assert shown(build_chains(rated, method, first_wording())) == ["G b", "B a", "G b | B a"]
    assert strict_pairs(thumbs, method) == strict_pairs(rated, method) == [(1, 0)]


def test_an_unrated_output_is_called_bad_before_its_revision() -> None:
    unsaid = record(RatedCompletion("a", critique="dull", revision="a+"), RatedCompletion("b", thumb=True))
    (chain,) = build_chains(unsaid, Method(orders=("revised",), sentences="critique"), first_wording())
    assert shown((chain,)) == ["B a | said dull, better: a+"] and chain[0].kind == "bad"


def test_a_text_that_was_liked_and_disliked_is_learned_and_unlearned() -> None:
    both = record(
        RatedCompletion("a", thumb=True), RatedCompletion("a", thumb=False), RatedCompletion("b", thumb=False)
    )
    method = Method(orders=("p", "n"), sentences="none", unlikelihood=0.5)
    assert shown(build_chains(both, method, WORDING)) == ["a", "-b", "-a"]


def test_the_number_of_chains_is_the_same_in_every_epoch() -> None:
    same_words = Wording(pairs=(MarkerPair("G", "B"), MarkerPair("x", "x")))
    method = Method(orders=("p", "n", "pn", "np"))
    assert {len(build_chains(PAIR, method, same_words, epoch=e)) for e in range(10)} == {4}


REVIEWED = Method(orders=("reviewed",), sentences="none", feedback_weight=0.5)
JUDGED = record(
    RatedCompletion("g", rank=0, critique=" It is right. "),
    RatedCompletion("m", rank=1, critique="dull", revision="m!"),
    RatedCompletion("b", rank=2, critique="late"),
    RatedCompletion("silent", rank=3),
)


def test_an_output_is_reviewed_in_peoples_words_then_follows_its_revision_or_the_best_of_the_better_ones() -> None:
    chains = build_chains(JUDGED, REVIEWED, first_wording())
    assert shown(chains) == ["g | and? It is right.", "m | and? dull | again m!", "b | and? late | again g"]
    assert [[(link.learned, link.kind) for link in chain] for chain in chains] == [
        [(1.0, "good"), (0.5, "review")],
        [(1.0, "output"), (0.5, "review"), (1.0, "revision")],
        [(1.0, "output"), (0.5, "review"), (1.0, "revision")],
    ]


def test_without_a_feedback_weight_reviews_are_only_read() -> None:
    chains = build_chains(JUDGED, replace(REVIEWED, feedback_weight=0.0), first_wording())
    assert shown(chains) == ["g | [and? It is right.]", "m | [and? dull] | again m!", "b | [and? late] | again g"]


def test_loss_on_the_last_output_leaves_reviews_their_weight() -> None:
    chains = build_chains(JUDGED, replace(REVIEWED, loss_on="last"), first_wording())
    assert shown(chains) == ["g | and? It is right.", "[m] | and? dull | again m!", "[b] | and? late | again g"]


def test_a_text_that_several_people_judged_has_a_review_of_each_and_equal_ones_are_one() -> None:
    texts = (("a", "dull"), ("a", "late"), ("a", "dull"))
    judged = record(*(RatedCompletion(text, critique=critique) for text, critique in texts))
    assert shown(build_chains(judged, REVIEWED, first_wording())) == ["a | and? dull", "a | and? late"]


def test_reviews_go_beside_other_orders_and_their_chains_begin_without_a_sentence() -> None:
    mixed = Method(orders=("p", "n", "reviewed"), sentences="critique", unlikelihood=0.25)
    assert shown(build_chains(JUDGED, mixed, first_wording())) == [
        "says It is right: g",
        "-B silent",
        "g | [and? It is right.]",
        "m | [and? dull] | again m!",
        "b | [and? late] | again g",
    ]


def test_a_review_is_cut_with_the_output_that_it_judges() -> None:
    for chain in build_chains(JUDGED, REVIEWED, first_wording()):
        assert first_links(chain) == ([0] if len(chain) == 2 else [0, 2])
        assert (
            shown((without_front(chain, first_links(chain)[-1]),))[0].split()[0] == chain[-1 if chain[2:] else 0].text
        )


def test_a_record_without_a_critique_can_not_be_reviewed() -> None:
    with pytest.raises(Unusable, match=r"^no completion has a critique$"):
        build_chains(PAIR, REVIEWED, first_wording())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"orders": ()}, "orders is empty"),
        ({"orders": ("pp",)}, "'pp'; known are"),
        ({"orders": ("pn",), "sentences": "none"}, "a chain of several outputs"),
        ({"good_above": 0.3}, "bad_below is 0.5 and method.good_above 0.3"),
        ({"unlikelihood": -1.0}, "can't be negative"),
        ({"orders": ("reviewed",), "feedback_weight": -1.0}, "feedback_weight is -1.0; a weight can't be negative"),
        ({"feedback_weight": 1.0}, "method.orders has no 'reviewed'"),
    ],
)
def test_a_method_that_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Method(**fields)
