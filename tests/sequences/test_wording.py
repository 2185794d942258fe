"""Feedback -> sentences: exact strings."""

from dataclasses import asdict

import pytest
import yaml

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.sequences.wording import MarkerPair, Wording, conditions_for, markers


def record(*candidates: RatedCompletion, **fields: object) -> Feedback:
    return Feedback("r", (Turn("user", (Part("Q"),)),), candidates or (RatedCompletion("x"),), **fields)  # type: ignore[arg-type]


def test_a_pair_of_sentences_speaks_of_the_aspect_then_of_the_task_then_generally() -> None:
    wording = Wording(
        pairs=(MarkerPair("good", "bad"),),
        tasks={"summary": (MarkerPair("good {task}", "bad {task}"),)},
        aspects={"harmless": (MarkerPair("safe", "unsafe"),)},
    )
    assert wording.polarity(record(), True) == ("good",)
    assert wording.polarity(record(task="summary"), False) == ("bad summary",)
    assert wording.polarity(record(task="summary", aspect="harmless"), True) == ("safe",)
    assert wording.polarity(record(aspect="brevity"), True) == ("good",)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1, "very poor"),
        (1.7, "very poor"),
        (1.9, "poor"),
        (3, "fair"),
        (4.1, "good"),
        (4.2, "excellent"),
        (5, "excellent"),
    ],
)
def test_levels_divide_a_scale_into_equal_parts(value: float, word: str) -> None:
    assert Wording().level(value, 1, 5) == word


def test_a_scale_may_run_downwards() -> None:
    assert Wording().level(1, 5, 1) == "excellent"


def test_a_rating_on_the_bound_of_two_levels_belongs_to_the_better_one_whatever_its_binary_fraction() -> None:
    assert [Wording().level(value, 1, 10) for value in (2.8, 4.6, 6.4, 8.2)] == ["poor", "fair", "good", "excellent"]


def test_ratings_are_named_in_the_order_of_the_alphabet_and_the_nameless_one_is_quality() -> None:
    scales = {"coverage": (0.0, 1.0), "accuracy": (0.0, 1.0), "overall": (1.0, 5.0)}
    rated = RatedCompletion("x", ratings={"coverage": 0.1, "accuracy": 0.9})
    assert Wording().rated(record(scales=scales), rated) == "An answer with excellent accuracy and very poor coverage:"
    assert (
        Wording().rated(record(scales=scales), RatedCompletion("x", ratings={"overall": 3}))
        == "An answer with fair quality:"
    )


def test_peoples_words_are_never_read_as_placeholders() -> None:
    assert (
        Wording().criticized(record(), " it says {task} and {0}. ")
        == "An answer of which people say that it says {task} and {0}:"
    )
    assert Wording().revised(record(), "it trails off...") == "People say of it that it trails off.... A better answer:"


def test_the_conditions_at_inference() -> None:
    wording = Wording()
    assert conditions_for(wording, "none", record(), ()) == {"good": ""}
    assert conditions_for(wording, "polarity", record(), ()) == {
        "good": "A helpful answer:",
        "bad": "An unhelpful answer:",
    }
    assert conditions_for(wording, "ranking", record(), ()) == {"good": "The best answer:", "bad": "The worst answer:"}
    assert (
        conditions_for(wording, "critique", record(), ())["good"]
        == "An answer of which people say that it is right and complete:"
    )
    rated = conditions_for(wording, "rating", record(), ("coverage", "accuracy"))
    assert rated["bad"] == "An answer with very poor accuracy and very poor coverage:"
    assert rated["good accuracy"] == "An answer with excellent accuracy:"
    with pytest.raises(InputError, match=r"wording\.attributes"):
        conditions_for(wording, "rating", record(), ())


def test_inference_uses_the_first_of_several_wordings() -> None:
    pairs = (MarkerPair("good 1", "bad 1"), MarkerPair("good 2", "bad 2"), MarkerPair("good 3", "bad 3"))
    of_task, of_aspect = ((MarkerPair(f"{name} good", f"{name} bad"), *pairs) for name in ("task", "aspect"))
    wording = Wording(pairs=pairs, tasks={"summary": of_task}, aspects={"harmless": of_aspect})
    for asked_record, sentences in (
        (record(), {"good": "good 1", "bad": "bad 1"}),
        (record(task="summary"), {"good": "task good", "bad": "task bad"}),
        (record(task="summary", aspect="harmless"), {"good": "aspect good", "bad": "aspect bad"}),
    ):
        assert conditions_for(wording, "polarity", asked_record, ()) == sentences


@pytest.mark.parametrize("levels", range(2, 12))
def test_the_bounds_of_levels_are_exact_for_any_number_of_them(levels: int) -> None:
    wording = Wording(levels=tuple(map(str, range(levels))))
    for worst, best in ((0, levels), (levels, 0), (1, 1 + 3 * levels)):
        step = (best - worst) / levels
        assert [wording.level(worst + i * step, worst, best) for i in range(levels)] == [str(i) for i in range(levels)]
        below = [wording.level(worst + (i - 1e-3) * step, worst, best) for i in range(1, levels + 1)]
        assert below == [str(i) for i in range(levels)]


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        ("none", ()),
        ("polarity", ("G", "B", "G2 summary", "B2", "T")),
        ("ranking", ("best", "worst", "middle", "better summary", "equal", "worse", "T")),
        ("rating", ("rated top wit", "rated low wit")),
        (
            "critique",
            ("says summary fine:", "says summary poor:", "G", "G2 summary", "B", "B2", "T", "says summary", "after"),
        ),
    ],
)
def test_markers_are_all_fixed_sentences_of_the_method(sentences: str, expected: tuple[str, ...]) -> None:
    wording = Wording(
        pairs=(MarkerPair("G", "B"), MarkerPair("G2 {task}", "B2")), tie="T", best="best", better="better {task}",
        equal="equal", worse="worse", middle="middle", worst="worst", rating="rated {ratings}",
        rating_item="{level} {attribute}", levels=("low", "top"), critique="says {task} {critique}:", praise="fine",
        blame="poor", revise="after {critique} better", review="review of the {task}", improve="improve",
    )  # fmt: skip
    assert markers(wording, sentences, record(task="summary"), ("wit",)) == expected
    asked = ("review of the summary", "improve")
    assert markers(wording, sentences, record(task="summary"), ("wit",), reviews=True) == (*expected, *asked)


def test_the_default_wording_is_part_of_the_interface() -> None:
    assert asdict(Wording()) == {
        "name": "default", "pairs": ({"good": "A helpful answer:", "bad": "An unhelpful answer:"},), "tasks": {},
        "aspects": {}, "tie": "One of two equally good answers:", "best": "The best answer:",
        "better": "A better answer:", "equal": "An equally good answer:", "middle": "A fair answer:",
        "worse": "A worse answer:", "worst": "The worst answer:", "rating": "An answer with {ratings}:",
        "rating_item": "{level} {attribute}", "levels": ("very poor", "poor", "fair", "good", "excellent"),
        "critique": "An answer of which people say that {critique}:", "praise": "it is right and complete",
        "blame": "it is wrong and leaves much out", "revise": "People say of it that {critique}. A better answer:",
        "review": "What do people say of this answer?", "improve": "Please write a better answer.", "attributes": (),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    "tie best middle better equal worse worst rating rating_item critique revise review improve".split(),
)
def test_every_sentence_may_name_the_task_and_nothing_that_its_place_does_not_have(name: str) -> None:
    text = getattr(Wording(), name)
    assert getattr(Wording(**{name: f"{text} {{task}}"}), name) == f"{text} {{task}}"
    assert getattr(Wording(**{name: f"{{{{}}}} {text}"}), name) == f"{{{{}}}} {text}", "doubled braces are text"
    for wrong in (f"{text} {{other}}", f"{text} {{}}", " "):
        with pytest.raises(InputError, match=rf"wording\.{name} of 'default' is"):
            Wording(**{name: wrong})
    for good, bad in ((" ", "b"), ("g", " "), ("{x}", "b"), ("g", "{x}")):
        with pytest.raises(InputError, match=r"wording\.pairs of 'default' is"):
            Wording(tasks={"summary": (MarkerPair(good, bad),)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"critique": "no place for words"}, r"wording.critique .* must have \['critique'\]"),
        ({"better": "A {quality} one"}, "wording.better"),
        ({"middle": ""}, "wording.middle of 'x' is empty"),
        ({"best": "A { brace"}, "braces do not match"),
        ({"tie": "  "}, "wording.tie of 'x' is empty"),
        ({"pairs": ()}, "empty list of pairs"),
        ({"levels": ("one",)}, "1 level"),
    ],
)
def test_a_wording_with_wrong_placeholders_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Wording(name="x", **fields)


def test_swapped_rows_of_the_printed_table_are_corrected() -> None:
    for pairs in [p for k in ("tasks",) for p in yaml.safe_load(open("conf/wording/paper.yaml"))[k].values()]:
        for pair in pairs:
            assert not any(
                word in pair["good"].split()
                for word in ("bad:", "bad", "worse", "unhelpful", "disrespectful", "harmful")
            ), pair
            assert pair["good"] != pair["bad"]
