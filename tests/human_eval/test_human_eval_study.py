"""Who rates what: even shares, even sides, checks that can't be told, and everything by the seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.human_eval.assignment import Design, make_study
from coh_lightning.human_eval.items import AnswerPair, GoldItem, MatchedPairs
from coh_lightning.human_eval.study import (
    DEFINITIONS,
    RatingRow,
    Study,
    StudyItem,
    digest,
    read_items,
    read_key,
    read_study,
    write_study,
)
from coh_lightning.human_eval.systems import GOLD

KEY: Mapping[str, Any] = {"systems": ["x", "y"], "sampling": {}}
ATTRIBUTES = ("accuracy", "coherence", "coverage", "overall")


def matched(number: int, pairs: tuple[tuple[str, str], ...] = (("x", "y"),)) -> MatchedPairs:
    return MatchedPairs(
        tuple(
            AnswerPair(f"p{n}", "", f"Prompt {n}", pair, (f"{pair[0]} {n}", f"{pair[1]} {n}"))
            for pair in pairs
            for n in range(number)
        ),
        {"x": ("q",)},
    )


def study_of(
    number: int = 40,
    seed: int = 0,
    gold: tuple[GoldItem, ...] = (),
    pairs: tuple[tuple[str, str], ...] = (("x", "y"),),
    **design: Any,
) -> Study:
    settings = Design(**({"raters": 3, "overlap": 10} | design))
    return make_study(
        matched(number, pairs), settings, seed=seed, attributes=ATTRIBUTES, definitions=DEFINITIONS, gold=gold, key=KEY
    )


def check(study: Study, row: RatingRow) -> str:
    return str(study.key["rows"][row.row]["check"])


def votes(study: Study, rater: str) -> list[RatingRow]:
    return [row for row, _ in study.rater_rows(rater) if not check(study, row)]


def left(study: Study, row: RatingRow) -> str:
    return str(study.key["items"][row.item]["systems"][row.left])


PAIRS = ((("x", "y"),), (("x", "y"), ("x", "z"), ("y", "z")))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(4, 30),
    st.integers(0, 9),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(1, 4),
    st.sampled_from(PAIRS),
)
def test_work_is_shared_evenly_and_sides_are_balanced(
    number: int, seed: int, raters: int, overlap: int, per_item: int, pairs: tuple[tuple[str, str], ...]
) -> None:
    per_item = min(per_item, raters)
    study = study_of(number, seed, pairs=pairs, raters=raters, overlap=overlap, votes=per_item)
    by_rater = {rater: votes(study, rater) for rater in study.raters}
    counts = Counter(row.item for rows in by_rater.values() for row in rows)
    total = number * len(pairs)
    assert len(counts) == total
    assert all(len({row.item for row in rows}) == len(rows) for rows in by_rater.values())
    common = min(overlap, total)
    assert sorted(counts.values()) == sorted([raters] * common + [per_item] * (total - common))
    assert max(map(len, by_rater.values())) - min(map(len, by_rater.values())) <= 1
    for rows in by_rater.values():
        for pair in pairs:
            own = [row for row in rows if set(study.key["items"][row.item]["systems"]) == set(pair)]
            assert abs(2 * sum(left(study, row) == pair[0] for row in own) - len(own)) <= 1


def test_default_numbers_of_checks() -> None:
    study = study_of(200, overlap=200, raters=2)
    assert [Counter(check(study, row) for row, _ in study.rater_rows(rater)) for rater in study.raters] == [
        {"": 200, "swap": 10, "identical": 4}
    ] * 2
    small = study_of(4, overlap=4, raters=1)
    assert Counter(check(small, row) for row in small.rows) == {"": 4, "swap": 2, "identical": 1}
    none = study_of(4, swaps=0, identical=0)
    assert {check(none, row) for row in none.rows} == {""}


def test_a_swapped_duplicate_has_the_same_texts_with_sides_swapped() -> None:
    study = study_of(100)
    rows = {row.row: row for row in study.rows}
    swaps = [row for row in study.rows if check(study, row) == "swap"]
    assert len(swaps) == 6
    for row in swaps:
        first = rows[study.key["rows"][row.row]["of"]]
        assert (first.rater, first.item, first.left) == (row.rater, row.item, 1 - row.left)


def test_an_identical_pair_repeats_one_text_and_expects_a_tie() -> None:
    study = study_of(100)
    items = {item.item: item for item in study.items}
    identical = [row for row in study.rows if check(study, row) == "identical"]
    assert identical
    for row in identical:
        about, item = study.key["items"][row.item], items[row.item]
        assert item.texts[0] == item.texts[1] == f"{about['systems'][0]} {about['prompt_id'][1:]}"
        assert (about["kind"], about["expected"], len(set(about["systems"]))) == ("identical", "tie", 1)
        assert item.prompt not in {items[vote.item].prompt for vote in votes(study, row.rater)}


def test_items_of_equal_texts_are_never_swapped() -> None:
    pairs = tuple(
        AnswerPair(f"p{n}", "", f"Prompt {n}", ("x", "y"), ("same", "same" if n else "other")) for n in range(20)
    )
    study = make_study(
        MatchedPairs(pairs, {}),
        Design(1, 20, swaps=0.5),
        seed=0,
        attributes=ATTRIBUTES,
        definitions=DEFINITIONS,
        key=KEY,
    )
    (swap,) = [row for row in study.rows if check(study, row) == "swap"]
    assert study.key["items"][swap.item]["prompt_id"] == "p0"


def test_every_rater_gets_every_gold_item_and_the_key_has_its_answer() -> None:
    study = study_of(gold=tuple(GoldItem(f"g{n}", f"{n} + 1?", str(n + 1), "no") for n in range(4)))
    items = {item.item: item for item in study.items}
    for rater in study.raters:
        rows = [row for row, _ in study.rater_rows(rater) if check(study, row) == "gold"]
        assert len(rows) == 4
        assert Counter(left(study, row) for row in rows) == {GOLD[0]: 2, GOLD[1]: 2}
        for row in rows:
            about = study.key["items"][row.item]
            assert about["systems"][about["expected"]] == GOLD[0]
            assert items[row.item].texts[about["expected"]] == str(int(about["prompt_id"][1:]) + 1)


@pytest.mark.parametrize("pairs", PAIRS)
def test_rows_of_one_prompt_are_not_adjacent(pairs: tuple[tuple[str, str], ...]) -> None:
    for seed in range(30):
        study = study_of(4, seed, pairs=pairs, raters=1, overlap=99, swaps=0.5)
        assert all(one.prompt != two.prompt for (_, one), (_, two) in pairwise(study.rater_rows("rater-1")))


def test_rows_of_one_prompt_are_adjacent_only_if_unavoidable() -> None:
    study = study_of(1, raters=1)
    assert len(study.rows) == 3


def distances(study: Study, rater: str) -> list[int]:
    """Places between each swapped duplicate of a rater and its original."""
    place = {row.row: number for number, (row, _) in enumerate(study.rater_rows(rater))}
    of = {id: about["of"] for id, about in study.key["rows"].items() if about["check"] == "swap" and id in place}
    return [abs(place[id] - place[first]) for id, first in of.items()]


@pytest.mark.parametrize("pairs", PAIRS)
def test_a_duplicate_never_stands_within_five_places_of_its_original(pairs: tuple[tuple[str, str], ...]) -> None:
    for number, swaps in ((9, 0.05), (12, 0.05), (15, 0.3), (40, 0.05), (40, 1.0)):
        for seed in range(25):
            study = study_of(number, seed, pairs=pairs, raters=1, overlap=999, swaps=swaps)
            found = distances(study, "rater-1")
            assert len(found) >= 2 and min(found) > 5, (number, swaps, seed)
            if number > 9:
                assert all(one.prompt != two.prompt for (_, one), (_, two) in pairwise(study.rater_rows("rater-1")))


def test_on_a_short_sheet_a_duplicate_stands_as_far_away_as_it_can() -> None:
    for seed in range(25):
        study = study_of(5, seed, raters=1, swaps=0.2, identical=0)
        assert len(study.rows) == 7 and min(distances(study, "rater-1")) >= 4


def test_order_ids_and_text_order_do_not_reveal_systems() -> None:
    study = study_of(200, raters=1, overlap=200)
    first = [
        study.key["items"][item.item]["systems"][0]
        for item in study.items
        if study.key["items"][item.item]["kind"] == "pair"
    ]
    assert 70 < first.count("x") < 130
    asked = [int(study.key["items"][row.item]["prompt_id"][1:]) for row in votes(study, "rater-1")]
    assert asked != sorted(asked)
    assert all(len(row.row) == 13 and row.row[0] == "r" for row in study.rows)
    assert len({row.row for row in study.rows}) == len(study.rows)


def test_the_order_of_attributes_differs_between_raters() -> None:
    study = study_of(raters=4)
    assert {order[0] for order in study.orders.values()} == set(ATTRIBUTES)
    assert all(sorted(order) == sorted(ATTRIBUTES) for order in study.orders.values())


def test_the_same_seed_gives_the_same_study() -> None:
    assert study_of() == study_of()
    one, other = study_of(), study_of(seed=1)
    assert one.id != other.id
    assert {row.row for row in one.rows}.isdisjoint(row.row for row in other.rows)
    assert {row.row for row in one.rows}.isdisjoint(row.row for row in study_of(overlap=11).rows)


@pytest.mark.parametrize(
    ("design", "says"),
    [
        ({"raters": 0}, "The number of raters is 0; a study needs at least 1."),
        ({"overlap": -1}, "The overlap is -1; it must be 0 or more items that every rater gets."),
        ({"votes": 4}, "Each item gets 4 votes; with 3 raters give 1 to 3."),
        ({"swaps": 1.5}, "The share of swapped duplicates is 1.5; it must be between 0 and 1."),
        (
            {"raters": 5, "overlap": 0},
            "There are 4 items for 5 raters, so rater-5 would have none; take fewer raters, or raise overlap or votes.",
        ),
    ],
)
def test_an_impossible_design_is_refused(design: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(4, **design)
    assert str(caught.value) == says


def test_the_text_hash_depends_on_prompt_texts_and_sides() -> None:
    item, row = StudyItem("i", "P", ("a", "b\ud800"), ""), RatingRow("r", "i", "rater-1", 1)
    assert row.text_hash(item) == "h" + digest("P", "b\ud800", "a") == "hae0b5818866a9afd"


def test_a_study_round_trips_through_its_files(tmp_path: Path) -> None:
    study = study_of()
    write_study(study, tmp_path)
    assert read_study(tmp_path) == study


def test_only_the_key_has_systems_checks_and_seed(tmp_path: Path) -> None:
    study = make_study(
        MatchedPairs(
            tuple(
                AnswerPair(f"p{n}", "sha", f"Prompt {n}", ("secret one", "secret two"), ("a", f"b{n}"))
                for n in range(20)
            ),
            {},
        ),
        Design(2, 10),
        seed=987654,
        attributes=ATTRIBUTES,
        definitions=DEFINITIONS,
        gold=[GoldItem("g", "2 + 2?", "4", "5")],
        key={"systems": ["secret one", "secret two"]},
    )
    write_study(study, tmp_path)
    for name in ("items.jsonl", "study.json"):
        text = (tmp_path / name).read_text()
        assert not [
            word
            for word in ("secret", "gold", "swap", "identical", "987654", "p11", '"sha":"sha"', "expected", "kind")
            if word in text
        ]
    assert "secret one" in (tmp_path / "key.json").read_text()


def changed(text: str, change: Any) -> str:
    content = json.loads(text)
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("items.jsonl", lambda text: text.replace("Prompt 1", "Prompt one", 1), "the texts of item .* were changed"),
        ("items.jsonl", lambda text: text + text.splitlines()[0], "it repeats item"),
        ("items.jsonl", lambda text: '{"item": 3}\n' + text, r"items\.jsonl:1: the line doesn't have item"),
        (
            "items.jsonl",
            lambda text: "\n".join(text.splitlines()[3:]),
            r"study\.json: rows\[\d+\], 'r\w+', has no item in items\.jsonl and key\.json",
        ),
        ("study.json", lambda text: text[:-9], r"study\.json:\d+: broken JSON at column"),
        (
            "study.json",
            lambda text: text.replace('"left": 1', '"left": 2', 1),
            r"rows\[\d+\] lacks row, item or rater, or its left is not 0 or 1",
        ),
        ("study.json", lambda text: "[]", "it is not a JSON object"),
        (
            "key.json",
            lambda text: json.dumps({**json.loads(text), "study": "other"}),
            "it is of study .*, the key.json beside it of other",
        ),
        (
            "key.json",
            lambda text: changed(
                text,
                lambda key: key["items"].update({next(iter(key["items"])): {"prompt_id": 7, "systems": ["a", "b"]}}),
            ),
            "no prompt id",
        ),
        (
            "key.json",
            lambda text: changed(
                text,
                lambda key: key["items"].update({next(iter(key["items"])): {"prompt_id": "p", "systems": ["a", []]}}),
            ),
            "no prompt id",
        ),
        (
            "key.json",
            lambda text: changed(text, lambda key: key["rows"].update({next(iter(key["rows"])): {}})),
            "has no known check",
        ),
        (
            "key.json",
            lambda text: changed(text, lambda key: key["rows"].update({row: {"check": "gold"} for row in key["rows"]})),
            "is a check without a right answer in key.json",
        ),
        (
            "key.json",
            lambda text: changed(text, lambda key: key.update(exclusion={"min_gold": "many"})),
            "exclusion.min_gold is str 'many'; it must be a number",
        ),
        (
            "key.json",
            lambda text: changed(text, lambda key: key.update(unmatched={"x": 5})),
            "the value of 'unmatched' has another type",
        ),
        (
            "study.json",
            lambda text: changed(text, lambda plan: plan.update(attributes=[["overall"]])),
            "this is not the file that export wrote",
        ),
        (
            "study.json",
            lambda text: changed(text, lambda plan: plan.update(orders={"rater-1": 5})),
            "this is not the file that export wrote",
        ),
        (
            "study.json",
            lambda text: changed(text, lambda plan: plan.update(title="1" * 9)).replace('"111111111"', "1" * 5000),
            "a number of too many digits",
        ),
        ("key.json", lambda text: "{}", "the key 'study' is missing or not of type str"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, change: Any, says: str) -> None:
    write_study(study_of(), tmp_path)
    (tmp_path / name).write_text(change((tmp_path / name).read_text()))
    with pytest.raises(InputError, match=says):
        read_study(tmp_path)


@pytest.mark.parametrize("name", ["items.jsonl", "study.json", "key.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_study(study_of(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file; give the folder that human-eval export wrote"):
        read_study(tmp_path)


def test_the_report_reads_items_and_key_alone(tmp_path: Path) -> None:
    study = study_of()
    write_study(study, tmp_path)
    (tmp_path / "study.json").unlink()
    assert tuple(read_items(tmp_path)) == study.items
    assert read_key(tmp_path) == study.key


def test_any_text_round_trips(tmp_path: Path) -> None:
    text = "a\r\n\x00\u2028\x85\ufeff=1"
    study = make_study(
        MatchedPairs((AnswerPair("p", "", text, ("x", "y"), (text, "")),), {}),
        Design(1),
        seed=0,
        attributes=("overall",),
        definitions=DEFINITIONS,
        key=KEY,
    )
    write_study(study, tmp_path)
    assert read_study(tmp_path).items == study.items
    assert replace(study, items=()) != study
