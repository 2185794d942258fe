"""Constraints on answers: each rule by an answer that meets it and answers that don't, also hostile ones."""

from __future__ import annotations

import dataclasses

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.scorers import load_critic, load_scorer
from coh_lightning.world.constraints import EMPTY, FAULTLESS, RULES, Constraint, rate, read_constraints

ANSWERS: dict[tuple[str, str], tuple[list[str], list[tuple[str, str]]]] = {
    ("at_most", "3"): (
        ["One two three.", "- one\n- two", "don't go"],
        [
            (answer, "has 4 words where at most 3 were asked")
            for answer in ("one two three four", "我们喜欢", "a-b/c_d")
        ],
    ),
    ("at_least", "3"): (
        ["One, two; three!", "a b c d"],
        [("one", "has 1 word where at least 3 were asked"), ("one_two", "has 2 words where at least 3 were asked")],
    ),
    ("keywords", "'salt' and 'boat'"): (
        ["A Boat in SALT water", "salt, (boat)"],
        [
            ("salty boats", "lacks the words 'salt' and 'boat'"),
            ("the salt of a boathouse", "lacks the word 'boat'"),
            ("s.a.l.t boat", "lacks the word 'salt'"),
        ],
    ),
    ("without", "very"): (
        ["every day", "verye"],
        [(answer, "uses the word 'very'") for answer in ("It is VERY good", "*very*", "very-good", "Very")],
    ),
    ("bullets", "2"): (
        ["- one\n- two", "Here:\n* one\n  - two\nend"],
        [
            ("one\ntwo", "has no bullet points where 2 were asked"),
            ("- one", "has 1 bullet point where 2 were asked"),
            ("- one - two", "has 1 bullet point where 2 were asked"),
            ("-one\n-two", "has no bullet points where 2 were asked"),
            ("- a\n-\n- \n- b\n- c", "has 3 bullet points where 2 were asked"),
            ("1. one\n2. two", "has no bullet points where 2 were asked"),
        ],
    ),
    ("json", "'name' and 'place'"): (
        [
            '{"name": "sea", "place": null}',
            '```json\n{"name": 1, "place": {"a": []}, "more": 2}\n```',
            ' {"place":1,"name":2}\n',
        ],
        [
            ('{"name": "sea"}', "lacks the key 'place'"),
            ("{}", "lacks the keys 'name' and 'place'"),
            ('{"Name": 1, "place": 2}', "lacks the key 'name'"),
            ('["name", "place"]', "is not a JSON object"),
            ('Here: {"name": 1, "place": 2}', "is not a JSON object"),
            ("{'name': 1, 'place': 2}", "is not a JSON object"),
            ("[" * 100_000, "is not a JSON object"),
            ('{"name":' * 50_000, "is not a JSON object"),
            ('{"name": ' + "9" * 10_000 + ', "place": 1}', "is not a JSON object"),
            ("name place", "is not a JSON object"),
        ],
    ),
    ("language", "Spanish"): (
        ["El mar es una cosa que se ve con los ojos.", "la casa de los niños"],
        [
            ("The sea is salt and the waves are high.", "is not in Spanish"),
            ("Das Meer ist nicht nur Salz und Wasser.", "is not in Spanish"),
            ("mar " * 20 + "el", "is not in Spanish"),
            ("Spanish", "is not in Spanish"),
        ],
    ),
    ("language", "German"): (
        ["Das Meer ist nicht nur Salz und Wasser."],
        [("La mer est dans les yeux", "is not in German")],
    ),
    ("language", "French"): (
        ["La mer est une chose qui est dans les yeux."],
        [("La casa de la playa", "is not in French")],  # as many common words of French as of Spanish
    ),
    ("language", "Italian"): (
        ["Il mare è una cosa che si vede con gli occhi."],
        [("El mar es una cosa", "is not in Italian")],
    ),
    ("ending", "now you know"): (
        ["The sea is salt. Now you know.", "now you know", "x\n\nNow, you know!**"],
        [("now you know it", "does not end with 'now you know'"), ("you know", "does not end with 'now you know'")],
    ),
    ("lower_case", "everything"): (
        ["the sea, 3 miles; naïve", "我们"],
        [("The sea", "has capital letters"), ("naÏve", "has capital letters"), ("ǅ", "has capital letters")],
    ),
}


@pytest.mark.parametrize("given", ANSWERS, ids=" ".join)
def test_a_rule_tells_answers_that_meet_it_from_those_that_do_not(given: tuple[str, str]) -> None:
    met, failed = ANSWERS[given]
    assert {answer: Constraint(*given).fault(answer) for answer in met} == dict.fromkeys(met)
    assert [(answer, Constraint(*given).fault(answer)) for answer, _ in failed] == failed


def test_every_rule_has_answers() -> None:
    assert {kind for kind, _ in ANSWERS} == RULES.keys()


def test_constraints_are_read_from_the_prompt_in_order() -> None:
    every = [Constraint(*given) for given in ANSWERS if given[0] != "language" or given[1] == "German"]
    prompt = " ".join(["Describe the sea, in words.", *(one.sentence for one in every)])
    assert read_constraints(prompt) == tuple(every)
    assert read_constraints("\n".join(one.sentence for one in reversed(every))) == tuple(reversed(every))


@pytest.mark.parametrize("prompt", ["Describe the sea.", "", "Use at most forty words.", "Answer in Klingon."])
def test_a_prompt_without_constraints_is_refused(prompt: str) -> None:
    with pytest.raises(InputError, match=r"no constraint that world:constraints knows; make prompts with"):
        rate(prompt, "answer")


PROMPT = "Describe the sea. Use at most 4 words. Use the words 'salt' and 'boat'. Write everything in lower case."
FIVE = "it has 5 words where at most 4 were asked"


@pytest.mark.parametrize(
    ("answer", "overall", "critique"),
    [
        ("salt and boat", 1, FAULTLESS),
        ("Salt and boat", 2 / 3, "it has capital letters"),
        ("Salt is in every sea", 0, f"{FIVE}, lacks the word 'boat' and has capital letters"),
        ("the sea is a big salt boat", 2 / 3, "it has 7 words where at most 4 were asked"),
        ("salt", 2 / 3, "it lacks the word 'boat'"),
        ("", 0, EMPTY),
        ("*** ... \n", 0, EMPTY),
        ("Use at most 100 words.", 0, f"{FIVE}, lacks the words 'salt' and 'boat' and has capital letters"),
    ],
)
def test_overall_is_the_share_that_is_met_and_the_critique_names_the_rest(
    answer: str, overall: float, critique: str
) -> None:
    rating = rate(PROMPT, answer)
    assert (rating.overall, rating.critique) == (pytest.approx(overall), critique)
    assert rating.faultless == (overall == 1)
    assert sum(rating.met.values()) == pytest.approx(overall * 3)


def test_scorer_and_critic_are_found_by_name_and_rate_the_prompt_as_people_read_it() -> None:
    marked = f"<|im_start|>user\n{PROMPT} An answer of which people say that it lacks the word 'boat':"
    one = Completion("a", "p", "m", marked, "sha", "good", "marker", "salt", shown=PROMPT)
    assert load_scorer("world:constraints")([one]) == [{"overall": pytest.approx(2 / 3), "faultless": 0.0}]
    assert load_critic("world:constraints")(one) == "it lacks the word 'boat'"
    assert load_scorer("world:constraints")([dataclasses.replace(one, text="salt boat")])[0]["faultless"] == 1.0
