"""Several sources as one list: what stops, what is counted, how sources mix, and that no prompt is in two splits."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources import (
    Fields,
    Mapping,
    Records,
    TRLPairs,
    counts,
    load,
    split_by_prompt,
    stop_if_too_many_are_lost,
    without_prompts_of,
)
from coh_lightning.feedback.sources.notes import SourceNotes
from coh_lightning.feedback.sources.prompts import feedback_key, prompt_key
from coh_lightning.feedback.turns import Part, Turn


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def pairs(path: Path, count: int, *, empty: int = 0) -> str:
    rows = [{"prompt": f"p{number}", "chosen": "c", "rejected": "r"} for number in range(count)]
    return write(path, rows + [{"prompt": f"e{number}", "chosen": "", "rejected": "r"} for number in range(empty)])


def test_ids_are_unique_and_name_the_source(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    one, two = pairs(tmp_path / "a.jsonl", 2), pairs(tmp_path / "x/a.jsonl", 2)
    records = load([TRLPairs(one), TRLPairs(two)], seed=0)
    assert len({record.id for record in records}) == 4
    assert Counter(record.source for record in records) == {"a": 2, "a-2": 2}
    assert all(record.id.startswith(record.source + "/") for record in records)


def test_the_order_depends_on_seed_and_ids_alone(tmp_path: Path) -> None:
    sources = [TRLPairs(pairs(tmp_path / "a.jsonl", 20)), TRLPairs(pairs(tmp_path / "b.jsonl", 20))]
    order = [record.id for record in load(sources, seed=0)]
    assert [record.id for record in load(sources[::-1], seed=0)] == order
    again = [record.id for record in load(sources, seed=1)]
    assert again != order and sorted(again) == sorted(order)
    assert order != sorted(order)
    lines = Path(sources[0].path).read_text().splitlines()
    write(Path(sources[0].path), lines[::-1])
    assert [record.id for record in load(sources, seed=0)] == order


def test_a_bad_row_stops_or_is_skipped_and_counted(tmp_path: Path) -> None:
    good = {"prompt": "p", "completions": [{"text": "a"}]}
    path = write(tmp_path / "f.jsonl", [good, "{", good | {"completions": []}, good, good])
    with pytest.raises(InputError, match=f"{path}:2: broken JSON"):
        load([Records(path)], seed=0)
    rejected: list[Rejected] = []
    records = load([Records(path)], seed=0, on_bad_record="skip", rejected=rejected)
    assert len(records) == 3
    assert [(one.where, one.source, one.unreadable) for one in rejected] == [
        (f"{path}:2", "f", True),
        (f"{path}:3", "f", True),
    ]
    assert rejected[1].reason == f"{path}:3: completions is empty; a record needs at least one completion."
    assert counts(records, rejected) == {
        "f": {"records": 3, "copies": 0, "completions": 3, "rejected": {"unreadable": 2}}
    }
    with pytest.raises(InputError, match="on_bad_record is 'ignore'"):
        load([Records(path)], seed=0, on_bad_record="ignore")  # type: ignore[arg-type]


def test_a_damaged_file_stops_also_when_rows_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load([Records(str(tmp_path / "f.jsonl"))], seed=0, on_bad_record="skip")


def test_an_id_given_twice_is_a_bad_record(tmp_path: Path) -> None:
    path = write(tmp_path / "f.jsonl", [{"id": "a", "prompt": "p", "completions": [{"text": text}]} for text in "xy"])
    with pytest.raises(InputError, match=f"{path}:2: the id 'a' was already used at {path}:1"):
        load([Records(path)], seed=0)


def test_unusable_rows_are_counted_with_their_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = pairs(tmp_path / "a.jsonl", 3, empty=2)
    rejected: list[Rejected] = []
    records = load([TRLPairs(path)], seed=0, rejected=rejected)
    assert counts(records, rejected) == {
        "a": {"records": 3, "copies": 0, "completions": 6, "rejected": {"a completion is empty": 2}}
    }
    assert [one.where for one in rejected] == [f"{path}:4", f"{path}:5"]
    with caplog.at_level(logging.WARNING):
        load([TRLPairs(path)], seed=0)
    assert "a: 2 rows left out: a completion is empty" in caplog.text


class Noticing(TRLPairs):
    """Counts the values of a column, as a source does with values it doesn't know."""

    def feedback(self, row: dict[str, Any], where: str) -> Feedback | Rejected:
        if row["prompt"] != "p0":
            self.notes.count(f"value {row['prompt']!r} is in no entry", where)
        self.notes.count("a line\nwith \x1b[31mcolor", where)
        return super().feedback(row, where)

    def after_rows(self) -> None:
        self.notes.say(f"{self.notes.rows} rows")


def test_notes_of_a_source_are_counted_shown_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Noticing(pairs(tmp_path / "a.jsonl", 3))
    for _ in range(2):  # an earlier reading leaves nothing behind
        noticed: list[SourceNotes] = []
        load([source], seed=0, noticed=noticed)
        assert noticed[0].lines() == [
            "a: 3 rows",
            f"a: a line\\nwith \\x1b[31mcolor (3 times in 3 rows, first {tmp_path}/a.jsonl:1)",
            f"a: value 'p1' is in no entry (1 time in 3 rows, first {tmp_path}/a.jsonl:2)",
            f"a: value 'p2' is in no entry (1 time in 3 rows, first {tmp_path}/a.jsonl:3)",
        ]
    noticed = []
    load([source, source], seed=0, noticed=noticed)
    assert [one.lines()[0] for one in noticed] == ["a: 3 rows", "a-2: 3 rows"]
    with caplog.at_level(logging.WARNING):
        load([source], seed=0)
    assert "a: value 'p1' is in no entry (1 time" in caplog.text


def test_notes_beyond_the_limit_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.feedback.sources.notes.MOST_LINES", 2)
    monkeypatch.setattr("coh_lightning.feedback.sources.notes.MOST_KEPT", 3)
    notes = SourceNotes()
    for number in (0, 1, 2, 3, 0, 4):
        notes.count(f"n{number}", "w")
    assert [line.split(" (")[0] for line in notes.lines()] == [": n0", ": n1", ": and other notes of this kind"]
    assert notes.lines()[-1].endswith("(3 times)")


def test_more_than_half_lost_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load([TRLPairs(pairs(tmp_path / "a.jsonl", 2, empty=3))], seed=0)
    assert str(caught.value).startswith(
        f"3 of 5 rows can't be used, most often (3 times, first {tmp_path}/a.jsonl:3) because of: a completion "
        "is empty; check that the source's settings fit"
    )
    stop_if_too_many_are_lost(2, [Rejected("x")])


def test_no_source_and_half_given_weights_are_refused(tmp_path: Path) -> None:
    path = pairs(tmp_path / "a.jsonl", 1)
    with pytest.raises(InputError, match="sources is empty"):
        load([], seed=0)
    with pytest.raises(InputError, match="1 of 2 sources have a weight; give one to each, or to none"):
        load([TRLPairs(path, weight=1), TRLPairs(path)], seed=0)


def test_weights_are_shares_and_lose_nothing(tmp_path: Path) -> None:
    paths = [pairs(tmp_path / f"{name}.jsonl", count) for name, count in (("a", 100), ("b", 10), ("c", 8))]
    records = load([TRLPairs(path, weight=weight) for path, weight in zip(paths, (1, 1, 0.25), strict=True)], seed=0)
    shares = counts(records)
    assert {name: (entry["records"], entry["copies"]) for name, entry in shares.items()} == {
        "a": (100, 0),
        "b": (10, 90),
        "c": (8, 17),
    }
    assert len({record.id for record in records}) == len(records)
    times = Counter(record.id.split("~")[0] for record in records if record.source == "c")
    assert set(times.values()) == {3, 4}
    assert [
        record.id
        for record in load([TRLPairs(path, weight=w) for path, w in zip(paths, (1, 1, 0.25), strict=True)], seed=0)
    ] == [one.id for one in records]


def test_copies_stay_out_of_the_held_out_parts(tmp_path: Path) -> None:
    sources = [
        TRLPairs(pairs(tmp_path / "a.jsonl", 200), weight=1),
        TRLPairs(pairs(tmp_path / "b.jsonl", 50), weight=1),
    ]
    parts = split_by_prompt(load(sources, seed=0), {"validation": 0.2}, seed=0)
    assert counts(parts["validation"])["b"]["copies"] == 0 and counts(parts["train"])["b"]["copies"] > 0


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.from_regex(
    r"\A(a|doc)([~#:/]\d{1,2}){0,2}\Z"
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(ids, min_size=1, max_size=12, unique=True), min_size=2, max_size=3),
    st.sampled_from([(None, None, None), (1, 1, 1), (0.2, 3, 1)]),
    st.integers(0, 3),
)
def test_every_record_is_in_one_split_or_a_counted_copy(
    tmp_path_factory: pytest.TempPathFactory, ids_of: list[list[str]], weights: tuple[Any, ...], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    sources = []
    for number, own in enumerate(ids_of):
        rows = [
            {"id": id, "prompt": f"{number} {place}", "completions": [{"text": "a"}]} for place, id in enumerate(own)
        ]
        sources.append(Records(write(folder / f"f{number}.jsonl", rows), weight=weights[number]))
    records = load(sources, seed=seed)
    assert len({one.id for one in records}) == len(records)
    left_out: Counter[str] = Counter()
    parts = split_by_prompt(records, {"validation": 0.3, "test": 0.3}, seed=seed, copies_left_out=left_out)
    assert sum(map(len, parts.values())) + left_out.total() == len(records)
    originals = Counter(one.id for part in parts.values() for one in part if one.copy == 1)
    assert originals == Counter(f"f{number}/{id}" for number, own in enumerate(ids_of) for id in own)
    assert all(one.copy == 1 for name in ("validation", "test") for one in parts[name])
    assert sum(entry["records"] + entry["copies"] for part in parts.values() for entry in counts(part).values()) == sum(
        map(len, parts.values())
    )


def test_a_copy_never_takes_the_id_of_a_record(tmp_path: Path) -> None:
    rows = [{"id": id, "prompt": id, "completions": [{"text": "a"}]} for id in ("doc", "doc~2", "doc~2~")]
    many = write(
        tmp_path / "many.jsonl", [{"prompt": f"{number}", "completions": [{"text": "a"}]} for number in range(9)]
    )
    records = load([Records(write(tmp_path / "f.jsonl", rows), weight=1), Records(many, weight=1)], seed=0)
    own = [one for one in records if one.source == "f"]
    assert len({one.id for one in records}) == len(records) and Counter(one.copy for one in own) == {1: 3, 2: 3, 3: 3}
    assert {one.id for one in own if one.copy == 1} == {"f/doc", "f/doc~2", "f/doc~2~"}


def test_two_sources_with_the_same_id_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "p", "completions": [{"text": "a"}]}
    one, two = (write(tmp_path / f"{name}.jsonl", [row | {"id": id}]) for name, id in (("one", "b/c"), ("two", "c")))
    with pytest.raises(
        InputError, match="the sources 'a' and 'a/b' both have a record 'a/b/c'; give one of them another name"
    ):
        load([Records(one, name="a"), Records(two, name="a/b")], seed=0)


def test_max_unusable_fraction_limits_the_lost_rows(tmp_path: Path) -> None:
    source = TRLPairs(pairs(tmp_path / "a.jsonl", 2, empty=3))
    assert len(load([source], seed=0, max_unusable_fraction=0.6)) == 2
    with pytest.raises(InputError, match=r"3 of 5 rows .* or raise data\.max_unusable_fraction \(0\.59\)\."):
        load([source], seed=0, max_unusable_fraction=0.59)


def test_merge_prompts_gathers_rows_of_one_prompt(tmp_path: Path) -> None:
    rows = [{"p": p, "out": out, "stars": stars} for p, out, stars in (("q", "a", 4), ("r", "c", 3), ("q", "b", 2))]
    path = write(tmp_path / "h.jsonl", rows)
    source = Mapping(
        path,
        prompt="p",
        merge_prompts=True,
        completions=[Fields(text="out", rating="stars")],
        scales={"overall": [0, 4]},
    )
    records = {record.prompt[0].text: record for record in load([source], seed=0)}
    assert records["q"].candidates == (
        RatedCompletion("a", ratings={"overall": 4.0}),
        RatedCompletion("b", ratings={"overall": 2.0}),
    )
    assert records["q"].extra == {"merged": [f"{path}:1", f"{path}:3"]}
    assert len(records["r"].candidates) == 1
    with pytest.raises(InputError, match="merge_prompts can't merge rankings"):
        load([TRLPairs(pairs(tmp_path / "a.jsonl", 2), merge_prompts=True)], seed=0)


def test_limit_reads_only_the_first_rows(tmp_path: Path) -> None:
    assert len(load([TRLPairs(pairs(tmp_path / "a.jsonl", 9), limit=4)], seed=0)) == 4


# --- splits


def asked(text: str, *, id: str = "", system: str | None = None) -> Feedback:
    prompt = (Turn("user", (Part(text),)),)
    return Feedback(
        id=id or text,
        prompt=prompt if system is None else (Turn("system", (Part(system),)), *prompt),
        candidates=(RatedCompletion("a"),),
    )


def test_prompts_are_equal_up_to_case_whitespace_and_unicode_form() -> None:
    assert prompt_key(" \uff37hy\n\tIS  it? ") == "why is it?"
    assert feedback_key(asked("Why?", system="s")) == feedback_key(asked(" why? "))
    assert feedback_key(asked("Why?")) != feedback_key(asked("Why not?"))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1),
    st.integers(0, 5),
)
def test_no_prompt_is_in_two_splits_and_none_is_lost(texts: list[str], seed: int) -> None:
    records = [
        asked(form, id=f"{number}{place}")
        for number, text in enumerate(texts)
        for place, form in enumerate((text, f" {text}\n", text.casefold()))
    ]
    parts = split_by_prompt(records, {"validation": 0.3, "test": 0.3}, seed=seed)
    sides = [{feedback_key(one) for one in part} for part in parts.values()]
    assert list(parts) == ["train", "validation", "test"]
    assert sum(map(len, parts.values())) == len(records)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_shares_are_met_and_do_not_depend_on_the_others() -> None:
    records = [asked(f"prompt {number}") for number in range(4000)]
    parts = split_by_prompt(records, {"validation": 0.05, "test": 0.1}, seed=0)
    assert abs(len(parts["validation"]) - 200) < 50 and abs(len(parts["test"]) - 400) < 70
    assert split_by_prompt(records[:100], {"validation": 0.05, "test": 0.1}, seed=0)["test"] == [
        one for one in records[:100] if one in parts["test"]
    ]
    assert split_by_prompt(records, {"validation": 0.05, "test": 0.1}, seed=1) != parts


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"train": 0.5}, "name only the held-out splits"),
        ({"test": 1.0}, "the share 'test' is 1.0"),
        ({"a": 0.6, "b": 0.6}, "add up to 1.2"),
    ],
)
def test_impossible_shares_are_refused(shares: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        split_by_prompt([asked("a")], shares, seed=0)


def test_prompts_of_the_test_set_are_removed_from_training_and_counted() -> None:
    kept, lost = without_prompts_of([asked("a"), asked("b")], [asked(" A ", id="t")])
    assert [one.id for one in kept] == ["b"]
    assert [(one.id, one.reason) for one in lost] == [("a", "the prompt is also in the held-out data")]
