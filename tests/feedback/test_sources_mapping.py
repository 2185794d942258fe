"""Mappings: settings that compare by value, votes and preferences of every form, exact text, and the shapes of
published datasets, all from YAML.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser, set_parsing_settings

from coh_lightning.__main__ import main
from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources import Fields, Mapping, Source, TRLPairs, load
from helpers.feedback import record_of, rejection_of, roles_and_texts


def sources(text: str) -> list[Source]:
    """The sources of a YAML list, read by the parser of the command line."""
    set_parsing_settings(subclasses_enabled=[Source])
    parser = ArgumentParser(parser_mode="omegaconf+", exit_on_error=False)
    parser.add_argument("--sources", type=list[Source])
    found: list[Source] = parser.instantiate(parser.parse_object({"sources": yaml.safe_load(text)})).sources
    return found


def mapping(text: str, path: str = "m.jsonl") -> Mapping:
    """The Mapping of these settings in YAML."""
    (source,) = sources(
        yaml.safe_dump(
            [
                {
                    "class_path": "coh_lightning.feedback.sources.Mapping",
                    "init_args": {"path": path} | yaml.safe_load(text),
                }
            ],
            sort_keys=False,
        )
    )
    assert isinstance(source, Mapping)
    return source


mapping_once = cache(mapping)
"""For tests that don't look at notes: a parser takes its time to make."""


def record(text: str, row: dict[str, Any]) -> Feedback:
    return record_of(mapping_once(text), row)


def reason(text: str, row: dict[str, Any]) -> str:
    return rejection_of(mapping_once(text), row).reason


def refusal(text: str, row: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        mapping_once(text).feedback(row, "f:1")
    return str(caught.value)


def ranks(feedback: Feedback) -> list[float | None]:
    return [candidate.rank for candidate in feedback.candidates]


TWO = "{prompt: p, completions: [{text: a}, {text: b}], "
AB = {"p": "P", "a": "A", "b": "B"}

# --- settings go by value


@pytest.mark.parametrize(
    "keys",
    [
        "{1: 5, 2: 4, 3: 3, 4: 2, 5: 1}",
        "{'1': 5, '2': 4, '3': 3, '4': 2, '5': 1}",
        "{1.0: 5, '2.0': '4', ' 3': 3, 04: 2, 5: 1}",
    ],
)
@pytest.mark.parametrize("cell", [1, "1", 1.0, "1.0", " 1"])
def test_a_table_of_ratings_is_looked_up_across_types(keys: str, cell: Any) -> None:
    one = record(
        f"{{prompt: p, completions: [{{text: a, rating: s}}], values: {keys}, scales: {{overall: [1, 5]}}}}",
        {"p": "P", "a": "A", "s": cell},
    )
    assert one.candidates[0].ratings == {"overall": 5.0}


@pytest.mark.parametrize("up", ["[yes]", "['yes']", "['True']", "[true]", "['on']"])
@pytest.mark.parametrize("cell", ["yes", "Yes", "true", "True", True])
def test_a_thumb_in_words_is_looked_up_by_value(up: str, cell: Any) -> None:
    text = f"{{prompt: p, completions: [{{text: a, thumb: t, up: {up}, down: ['no']}}]}}"
    assert record(text, {"p": "P", "a": "A", "t": cell}).candidates[0].thumb is True
    assert record(text, {"p": "P", "a": "A", "t": "No"}).candidates[0].thumb is False
    assert (
        record(text.replace("completions", "missing: ['-1'], completions"), {"p": "P", "a": "A", "t": "-1"})
        .candidates[0]
        .thumb
        is None
    )


@pytest.mark.parametrize("cell", ["1", 1, 1.0, True, "true"])
def test_without_lists_a_thumb_is_true_or_1(cell: Any) -> None:
    assert (
        record("{prompt: p, completions: [{text: a, thumb: t}]}", {"p": "P", "a": "A", "t": cell}).candidates[0].thumb
        is True
    )


def test_a_boolean_cell_can_be_a_rating_and_a_boolean_entry_a_word() -> None:
    text = "{prompt: p, completions: [{text: a, rating: s}], values: {yes: 1, no: 0}, scales: {overall: [0, 1]}}"
    assert [
        record(text, {"p": "P", "a": "A", "s": cell}).candidates[0].ratings["overall"]
        for cell in (True, "yes", "NO", False)
    ] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "vote_for", ["{1: 0, 2: 1, 0: tie}", "{'1': 0, '2': 1, '0': tie}", "{1.0: '0', 2.0: '1', 0.0: tie}"]
)
@pytest.mark.parametrize("kind", [int, str, float])
def test_votes_are_looked_up_by_value(vote_for: str, kind: type) -> None:
    text = f"{TWO} votes: [v], vote_for: {vote_for}}}"
    assert [ranks(record(text, AB | {"v": kind(vote)})) for vote in (1, 2, 0)] == [[1, 2], [2, 1], [1, 1]]


@pytest.mark.parametrize("missing", ["[-1]", "['-1']", "[-1.0, NaN, .nan, 'N/A', null]"])
def test_missing_counts_for_ratings_votes_thumbs_texts_and_ids_alike(missing: str) -> None:
    for cell in (-1, "-1", "-1.0"):
        row = AB | {"s": [cell, 4], "v1": cell, "v2": "x", "t": cell, "c": [cell, "good"], "i": cell}
        text = f"""{{prompt: p, completions: [{{text: a, rating: s, thumb: t, critique: c, up: [1]}}, {{text: b}}],
                    votes: [v1, v2], vote_for: {{x: 1}},
                    missing: {missing}, scales: {{overall: [1, 5]}}, id: i}}"""
        one = record(text, row)
        assert one.candidates == (
            RatedCompletion("A", rank=2.0, ratings={"overall": 4.0}, critique="good"),
            RatedCompletion("B", rank=1.0),
        )
        assert len(one.id) == 16
        assert reason(text, row | {"v2": cell}) == "nobody said which completion is better"


def test_nan_can_be_missing_and_the_message_tells_how() -> None:
    text = "{prompt: p, completions: [{text: a, rating: s}], scales: {overall: [1, 5]}}"
    assert (
        refusal(text, {"p": "P", "a": "A", "s": math.nan})
        == "f:1: s is nan; that is not a number: 'missing: [.nan]' treats it as missing."
    )
    assert "missing: [.nan]" in refusal(text, {"p": "P", "a": math.nan, "s": 1})
    for name in (".nan", "nan", "'NaN'"):
        for cell in (math.nan, "nan", "NaN"):
            named = text.replace("scales", f"missing: [{name}], scales")
            assert record(named, {"p": "P", "a": "A", "s": cell}).candidates[0].ratings == {}


def test_equal_paths_are_compared_by_value() -> None:
    text = "{prompt: p, completions: [{text: a}], equal: [x, y]}"
    assert ranks(record(text, {"p": "P", "a": "A", "x": 1, "y": "1.0"})) == [None]
    assert reason(text, {"p": "P", "a": "A", "x": 1, "y": True}) == "x, y differ"


def test_numeric_ranks_ignore_the_table_of_ratings() -> None:
    text = (
        "{prompt: p, completions: [{text: a, rank: r, rating: r}], values: {1: 5, 2: 4, first: 1}, scales: "
        "{overall: [1, 5]}}"
    )
    one = record(text, {"p": "P", "a": "A", "r": "2"})
    assert (one.candidates[0].rank, one.candidates[0].ratings) == (2.0, {"overall": 4.0})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("values: {'1': 5, 1.0: 4}", "the entries 1 and 1.0 of 'values' are the same value, but mean 5.0 and 4.0"),
        ("values: {good: x}", r"values\['good'\] is 'x'; give a number"),
        ("values: {good: true}", r"values\['good'\] is True; give a number"),
        ("votes: [v], vote_for: {'yes': 0, true: 1}", "the entries yes and true of 'vote_for' are the same value"),
        ("votes: [v], vote_for: {x: 2}", r"vote_for\['x'\] is 2; give 'tie' or a place, 0 to 1"),
        ("votes: [v], vote_for: {x: true}", r"vote_for\['x'\] is True; give 'tie' or a place, 0 to 1"),
        ("votes: [v], vote_for: {x: 0}, strength: s", "'votes' and 'strength' each rank the completions; give one"),
        (
            "strength: s, strength_for: 2",
            "there are 2, and strength_for is 2",
        ),
        ("pairs: [{vote: v, sides: [0]}]", r"pairs\[0\]\.sides is \[0\]; give two"),
        ("pairs: [{vote: v, sides: [0, 2]}]", r"pairs\[0\]\.sides is \[0, 2\]; give two"),
        ("missing: [[1]]", r"an entry of 'missing' is \[1\]; give a text, a number or a boolean"),
        ("history: h, history_keys: [a]", "history_keys has 1 entries"),
        ("turn_markers: ['', x]", "turn_markers has 2 entries"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_at_once(options: str, says: str) -> None:
    with pytest.raises((InputError, ValueError), match=says):
        mapping(f"{TWO} {options}}}")


def test_a_value_in_both_lists_of_thumbs_is_refused() -> None:
    with pytest.raises((InputError, ValueError), match="'yes' is in 'up' and in 'down' of completions"):
        mapping("{prompt: p, completions: [{text: a, thumb: t, up: ['yes'], down: [true]}]}")
    with pytest.raises((InputError, ValueError), match="both a 'rank' and votes, pairs"):
        mapping("{prompt: p, completions: [{text: a, rank: 1}, {text: b, rank: 2}], votes: [v], vote_for: {x: 1}}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"values": [1]}, r"'values' is \[1\]; give an object, as in 'values: {value: meaning}'"),
        ({"missing": "N/A"}, "'missing' is 'N/A'; give a list of values"),
        ({"votes": ["v"], "vote_for": ["x"]}, r"'vote_for' is \['x'\]; give an object"),
        ({"completions": [Fields("a", thumb="t", up="yes")]}, "'up' is 'yes'; give a list of values"),  # type: ignore[arg-type]
    ],
)
def test_a_table_that_is_not_an_object_is_refused_in_python_too(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Mapping("m", **({"prompt": "p", "completions": [Fields("a"), Fields("b")]} | options))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_values_without_an_entry_are_counted_and_so_are_entries_without_a_value(tmp_path: Path) -> None:
    rows = [{"p": f"P{number}", "a": "A", "s": "4"} for number in range(9)] + [
        {"p": f"X{number}", "a": "A", "s": "awful"} for number in range(3)
    ]
    text = (
        "{prompt: p, completions: [{text: a, rating: s}], values: {4: 4, 5: 5, Good: 3}, missing: [N/A, 7, null, "
        "'null'], scales: {overall: [1, 5]}}"
    )
    source = mapping(text, write_csv(tmp_path / "f.csv", rows))
    for _ in range(2):  # the second reading starts counting again
        noticed: list[Any] = []
        assert len(load([source], seed=0, on_bad_record="skip", rejected=[], noticed=noticed)) == 9
        assert noticed[0].lines() == [
            "f: entries of 'values' that no row uses: 5, Good",
            "f: entries of 'missing' that no row uses: N/A, 7",
            "f: value 'awful' of 's' is in no entry of 'values' or 'missing' (3 times in 12 rows, first "
            f"{tmp_path}/f.csv:11)",
        ]
    with pytest.raises(
        InputError,
        match=r"f\.csv:11: s is 'awful'; it must be a number, .* \('values' has 4, 5, Good\)",
    ):
        load([source], seed=0)


def test_a_number_without_an_entry_is_refused_unless_all_entries_are_words() -> None:
    row = {"p": "P", "a": "A", "s": "3"}
    text = "{prompt: p, completions: [{text: a, rating: s}], values: {1: 5, 5: 1}, scales: {overall: [1, 5]}}"
    assert (
        refusal(text, row)
        == "f:1: s is '3'; it must be a number, or an entry of 'values' or 'missing' ('values' has 1, 5)."
    )
    assert record(text.replace("{1: 5, 5: 1}", "{Good: 5}"), row).candidates[0].ratings == {"overall": 3.0}


# --- through the
# command line


SETTINGS = """
data:
  sources:
  - class_path: coh_lightning.feedback.sources.Mapping
    init_args:
      path: f.csv
      prompt: q
      completions:
      - {text: a, rating: stars, thumb: ok, up: ["yes"], down: ["no"]}
      - {text: b}
      values: {1: 5, "2": 4, 3: 3, 4: 2, 5: 1}
      missing: ["-1", NaN]
      votes: [best]
      vote_for: {1: 0, "2": 1, tie: tie}
      scales: {overall: [1, 5]}
  validation_share: 0.0
  test_share: 0.0
"""
CELLS = [
    {"q": "Q1", "a": "  A1\n", "b": "B1", "stars": "1", "ok": "yes", "best": "1"},
    {"q": "Q2", "a": "A2", "b": " B2", "stars": "2", "ok": "No", "best": "2"},
    {"q": "Q3", "a": "A3", "b": "B3", "stars": "nan", "ok": "-1", "best": "tie"},
    {"q": "Q4", "a": "A4", "b": "B4", "stars": "1", "ok": "yes", "best": "-1"},
]


def test_the_command_line_reads_a_csv_with_the_settings_of_the_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "f.csv", CELLS)
    (tmp_path / "f.yaml").write_text(SETTINGS)
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(yaml.safe_load(SETTINGS)["data"]["sources"]))
    shares = ["--data.validation_share=0", "--data.test_share=0"]
    for words in (["--config", "f.yaml"], ["--data.sources=list.yaml", *shares]):
        assert main(["convert", *words, "--to", "records", "--output", "out.jsonl"]) == 0
        assert "f: entries of 'values' that no row uses: 3, 4, 5" in capsys.readouterr().err
        found = {
            line["prompt"][0]["content"]: line["completions"]
            for line in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
        }
        assert found == {
            "Q1": [
                {"text": "  A1\n", "rank": 1.0, "rating": {"overall": 5.0}, "thumb": True},
                {"text": "B1", "rank": 2.0},
            ],
            "Q2": [
                {"text": "A2", "rank": 2.0, "rating": {"overall": 4.0}, "thumb": False},
                {"text": " B2", "rank": 1.0},
            ],
            "Q3": [{"text": "A3", "rank": 1.0}, {"text": "B3", "rank": 1.0}],
        }


def test_a_printed_configuration_keeps_what_was_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.yaml").write_text(SETTINGS)
    printed = ""
    for _ in range(2):
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main(["fit", "--config", "f.yaml", "--print_config"])
        printed = capsys.readouterr().out
        (tmp_path / "f.yaml").write_text(printed)
    kept = yaml.safe_load(printed)["data"]["sources"][0]["init_args"]
    assert (kept["values"], kept["missing"], kept["vote_for"]) == (
        {1: 5, "2": 4, 3: 3, 4: 2, 5: 1},
        ["-1", "NaN"],
        {1: 0, "2": 1, "tie": "tie"},
    )
    assert (kept["completions"][0]["up"], kept["completions"][1]["down"]) == (["yes"], [False, 0])


def test_a_preview_shows_notes_and_refuses_a_contradictory_table_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "f.csv", CELLS)
    (tmp_path / "f.yaml").write_text(SETTINGS + f"  cache_dir: {tmp_path / 'cache'}\n")
    assert main(["preview", "--config", "f.yaml"]) == 0
    assert "entries of 'values' that no row uses: 3, 4, 5" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "f.yaml").write_text(SETTINGS.replace("vote_for: {1: 0", "vote_for: {'1.0': 1, 1: 0"))
    assert main(["preview", "--config", "f.yaml"]) == 2
    err = capsys.readouterr().err
    assert (
        "the entries 1.0 and 1 of 'vote_for' are the same value, but mean 1 and 0; keep one of them." in err
        and "Traceback" not in err
    )


# --- text to the
# character


texts = st.text(min_size=1).filter(str.strip)


@settings(deadline=None)
@given(prompt=texts, system=texts, completion=texts, critique=texts, revision=texts, reference=texts)
def test_a_mapping_changes_no_character(
    prompt: str, system: str, completion: str, critique: str, revision: str, reference: str
) -> None:
    row = {"p": prompt, "s": system, "a": completion, "c": critique, "r": revision, "f": reference}
    text = "{prompt: p, system: s, completions: [{text: a, critique: c, revision: r}], reference: f}"
    one = record_of(mapping_once(text), row)
    assert roles_and_texts(one.prompt) == [("system", system), ("user", prompt)]
    assert one.candidates == (RatedCompletion(completion, critique=critique, revision=revision),)
    assert one.reference == reference
    pieces = record_of(
        mapping_once("{prompt: [{text: '> ', field: p}, {field: s, cut: never}], completions: [{text: a}]}"), row
    )
    assert roles_and_texts(pieces.prompt) == [("user", "> " + prompt + system)]


@pytest.mark.parametrize(("given", "known"), [("rating: s", "overall"), ("ratings: {kind: s}", "kind")])
def test_a_scale_of_an_unknown_attribute_is_refused_with_the_known_ones(given: str, known: str) -> None:
    with pytest.raises(InputError, match=f"'scales' has 's'; the attributes are {known} "):
        mapping(f"{{prompt: p, completions: [{{text: a, {given}}}], scales: {{s: [1, 5], {known}: [1, 5]}}}}")


@given(texts, texts, texts)
def test_pairs_change_no_character(prompt: str, chosen: str, rejected: str) -> None:
    one = record_of(TRLPairs("t"), {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert (roles_and_texts(one.prompt), [candidate.text for candidate in one.candidates]) == (
        [("user", prompt)],
        [chosen, rejected],
    )


def test_code_is_learned_as_it_was_written() -> None:
    code = "    y = x\n    return y\n"
    assert record("{prompt: p, completions: [{text: a}]}", {"p": "def f(x):\n", "a": code}).candidates[0].text == code


def test_strip_removes_whitespace_at_the_ends_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    rows = [
        {"p": " P\n", "s": "S", "a": "\tA ", "c": "C", "r": " R", "f": "F\n"},
        {"p": "P", "s": "S", "a": "A\n  b", "c": None, "r": None, "f": None},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "{prompt: p, system: s, completions: [{text: a, critique: c, revision: r}], reference: f, strip: true}"
    noticed: list[Any] = []
    found = load([mapping(text, str(path))], seed=0, noticed=noticed)
    by_text = {one.candidates[0].text: one for one in found}
    assert set(by_text) == {"A", "A\n  b"}
    assert roles_and_texts(by_text["A"].prompt) == [("system", "S"), ("user", "P")]
    assert (by_text["A"].candidates[0].revision, by_text["A"].reference) == ("R", "F")
    assert noticed[0].lines() == [
        f"f: strip: whitespace was removed from the ends of a text (4 times in 2 rows, first {path}:1)"
    ]


def test_strip_keeps_whitespace_between_the_pieces_of_a_prompt() -> None:
    text = (
        "{prompt: [{text: '  '}, {field: a}, {text: \"\\n\\n\"}, {field: b, cut: never}, {text: ' '}], "
        "completions: [{text: b}], strip: true}"
    )
    one = record(text, {"a": " x ", "b": "y\n"})
    assert [part.text for part in one.prompt[0].parts] == ["", "x ", "\n\n", "y", ""]


# --- -
# drop_prompt, history


def test_drop_prompt_removes_a_repeated_prompt_and_is_counted(tmp_path: Path) -> None:
    rows = [
        {"p": "def f():\n", "a": "def f():\n    return 1\n", "b": "    return 2\n"},
        {"p": "Q ", "a": "Q A", "b": "Q  B"},
    ]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    noticed: list[Any] = []
    found = load([mapping(f"{TWO} drop_prompt: true}}", str(path))], seed=0, noticed=noticed)
    assert sorted(one.text for record in found for one in record.candidates) == [
        "    return 1\n",
        "    return 2\n",
        " B",
        "A",
    ]
    assert noticed[0].lines() == [
        f"f: drop_prompt: the prompt was removed from the front of a completion (3 times in 2 rows, first {path}:1)",
        "f: drop_prompt: a completion does not begin with the prompt, and was kept as it is (1 time in 2 rows, "
        f"first {path}:1)",
    ]


def test_drop_prompt_of_only_the_prompt_and_of_a_whole_conversation() -> None:
    assert reason(f"{TWO} drop_prompt: true}}", AB | {"a": "P"}) == "a completion is empty"
    text = '{prompt: p, turn_markers: ["U: ", "\\nA: "], completions: [{text: a}], drop_prompt: true}'
    one = record(text, {"p": "U: q", "a": "U: q\nA: b"})
    assert (roles_and_texts(one.prompt), one.candidates[0].text) == ([("user", "q")], "\nA: b")


@pytest.mark.parametrize(
    "history",
    [
        [["a", "b"], ["c", " d "]],
        [("a", "b"), ("c", " d ")],
        ["a", "b", "c", " d "],
        [{"user": "a", "assistant": "b"}, {"user": "c", "assistant": " d "}],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"from": "human", "value": "c"},
            {"from": "gpt", "value": " d "},
        ],
    ],
)
def test_history_comes_before_the_prompt_in_every_form(history: Any) -> None:
    text = "{prompt: p, system: s, history: h, completions: [{text: a}]}"
    row = {"p": "P", "s": "S", "h": history, "a": "A"}
    assert roles_and_texts(record(text, row).prompt) == [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", " d "),
        ("user", "P"),
    ]


def test_history_may_be_empty_has_keys_of_its_own_and_is_refused_by_entry() -> None:
    text = "{prompt: p, history: h, completions: [{text: a}], history_keys: [q, r]}"
    for nothing in (None, []):
        assert roles_and_texts(record(text, {"p": "P", "a": "A", "h": nothing}).prompt) == [("user", "P")]
    assert roles_and_texts(record(text, {"p": "P", "a": "A", "h": [{"q": "a", "r": "b"}]}).prompt) == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "P"),
    ]
    for bad, says in (
        ("x", "f:1: h is a str; it must be a list of earlier turns."),
        (["x"], "f:1: h has 1 texts; user and assistant alternate, so give an even number."),
        ([["x"]], "f:1: h[0] is ['x']; give [user's text, assistant's text], or a message."),
        ([["x", None]], "f:1: h[0][1] is None, a NoneType; it must be text."),
        ([{"q": "x"}], "f:1, h[0]: the column 'r' is missing (the row has q)."),
        ([{"role": "robot", "content": "x"}], "f:1: h[0].role is 'robot'; it must be one of "),
    ):
        assert refusal(text, {"p": "P", "a": "A", "h": bad}).startswith(says)


# --- preferences of
# every form


def test_systems_by_name_with_votes_on_their_names() -> None:
    text = (
        "{prompt: p, each: systems, completions: [{text: text, author: .key, rating: score}], votes: [best], "
        "vote_for: {draw: tie}, scales: {overall: [0, 9]}}"
    )
    row = {
        "p": "P",
        "systems": {
            "gpt-3.5": {"text": "A", "score": 3},
            "llama": {"text": "B", "score": 4},
            "3": {"text": "C", "score": 5},
        },
    }
    one = record(text, row | {"best": "llama"})
    assert one.candidates == (
        RatedCompletion("A", rank=2.0, ratings={"overall": 3.0}, author="gpt-3.5"),
        RatedCompletion("B", rank=1.0, ratings={"overall": 4.0}, author="llama"),
        RatedCompletion("C", rank=2.0, ratings={"overall": 5.0}, author="3"),
    )
    assert ranks(record(text, row | {"best": "draw"})) == [1, 1, 1]
    assert ranks(record(text, row | {"best": ["gpt-3.5", "gpt-3.5", "llama"]})) == [1, 2, 2]
    assert refusal(text, row | {"best": "bard"}) == "f:1: a vote is 'bard'; vote_for has draw."
    placed = text.replace("votes: [best], vote_for: {draw: tie}", "votes: [best], vote_for: {x: 3}")
    assert (
        refusal(placed, row | {"best": "x"}) == "f:1: the vote 'x' is for completion 3 (counted from 0); there are 3."
    )


def test_the_place_and_the_key_of_an_element() -> None:
    text = "{prompt: p, each: e, completions: [{text: ., rank: .place, author: .place}]}"
    assert record(text, {"p": "P", "e": ["A", "B"]}).candidates == (
        RatedCompletion("A", rank=1.0, author="1"),
        RatedCompletion("B", rank=2.0, author="2"),
    )
    assert record(text, {"p": "P", "e": {"x": "A", "y": "B"}}).candidates[1] == RatedCompletion(
        "B", rank=2.0, author="2"
    )
    says = "f:1, e[0]: e is a list, which has no .key; use .place."
    assert refusal(text.replace("author: .place", "author: .key"), {"p": "P", "e": ["A"]}) == says


def test_a_list_of_votes_in_one_column() -> None:
    text = f"{TWO} votes: ['annotators.*.choice'], vote_for: {{A: 0, B: 1, neither: tie}}, missing: [skip]}}"

    def row(*votes: Any) -> dict[str, Any]:
        return AB | {"annotators": [{"choice": vote} for vote in votes]}

    assert ranks(record(text, row("B", "B", "A", "skip", None))) == [2, 1]
    assert record(text, row("B", "skip")).extra == {"votes": ["B"]}
    assert ranks(record(text, row("A", "B"))) == [1, 1]
    assert reason(text, row("skip", None)) == reason(text, row()) == "nobody said which completion is better"
    assert refusal(text, row("C")) == "f:1: a vote is 'C'; vote_for has A, B, neither."
    assert refusal(text, row({"x": 1})).startswith("f:1: a vote is {'x': 1}; vote_for has")


@pytest.mark.parametrize(
    ("strength", "expected", "margin"),
    [
        (-3, [1, 2], 3),
        ("2", [2, 1], 2),
        (0, [1, 1], 0),
        ([-1, 1], [1, 1], 0),
        ([3, None, 2], [2, 1], 2.5),
        (-0.5, [1, 2], 0.5),
    ],
)
def test_a_strength_gives_ranks_and_keeps_its_margin(strength: Any, expected: list[float], margin: float) -> None:
    one = record(f"{TWO} strength: s}}", AB | {"s": strength})
    assert (ranks(one), one.extra) == (expected, {"margin": margin})
    turned = record(f"{TWO} strength: s, strength_for: 0}}", AB | {"s": strength})
    assert ranks(turned) == [expected[1], expected[0]]


def test_a_strength_needs_two_completions_also_with_each() -> None:
    text = "{prompt: p, each: e, completions: [{text: .}], strength: s}"
    assert ranks(record(text, {"p": "P", "e": ["A", "B"], "s": 2})) == [2, 1]
    says = "f:1: s says how strongly one of two completions was preferred; there are 3."
    assert refusal(text, {"p": "P", "e": ["A", "B", "C"], "s": 2}) == says


def test_a_strength_in_words_uses_the_table_and_a_missing_one_is_rejected() -> None:
    text = f"{TWO} strength: s, values: {{A is better: -1, same: 0}}, missing: [unsure]}}"
    assert ranks(record(text, AB | {"s": "A is better"})) == [1, 2]
    assert ranks(record(text, AB | {"s": ["A is better", "unsure"]})) == [1, 2]
    assert (
        reason(text, AB | {"s": "unsure"}) == reason(text, AB | {"s": None}) == "nobody said which completion is better"
    )


BATTLES = (
    "{prompt: p, each: systems, completions: [{text: ., author: .key}], pairs: [{each: battles, sides: [left, "
    "right], vote: winner, vote_for: {left: 0, right: 1, draw: tie}}]}"
)


def battles(*found: tuple[Any, Any, Any]) -> dict[str, Any]:
    return {
        "p": "P",
        "systems": {"x": "A", "y": "B", "z": "C"},
        "battles": [{"left": left, "right": right, "winner": winner} for left, right, winner in found],
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("x", "y", "left"), ("y", "z", "left"), ("z", "x", "right")], [1, 2, 3]),
        ([("x", "y", "left"), ("y", "z", "left"), ("z", "x", "left")], [1, 1, 1]),  # a circle
        ([("x", "y", "draw"), ("y", "z", "left"), ("x", "z", "left")], [1, 1, 2]),
        ([("x", "y", ["left", "right", "right"]), ("y", "z", "left"), ("x", "z", "left")], [2, 1, 3]),
        ([("x", "y", "y")], [2, 1, None]),  # the vote names a side; nobody compared z
        ([(0, "2", "left"), (0, 1, None)], [1, None, 2]),  # sides by place
        ([("x", "y", "draw")], [1, 1, None]),
    ],
)
def test_votes_on_pairs_become_one_ranking(found: list[Any], expected: list[Any]) -> None:
    assert ranks(record(BATTLES, battles(*found))) == expected


def test_invalid_comparisons_are_refused() -> None:
    assert (
        reason(BATTLES, battles())
        == reason(BATTLES, battles(("x", "y", None)))
        == "nobody said which completion is better"
    )
    assert refusal(BATTLES, battles(("x", "w", "left"))) == (
        "f:1, battles[0]: a side of a comparison is 'w'; it must be the author of a completion, or a place, 0 to 2."
    )
    assert (
        refusal(BATTLES, battles(("x", "x", "left")))
        == "f:1, battles[0]: both sides of a comparison are the completion 'x'."
    )
    assert (
        refusal(BATTLES, battles(("x", "y", "z")))
        == "f:1, battles[0]: a vote is 'z'; pairs[0].vote_for has left, right, draw."
    )
    assert refusal(BATTLES, battles() | {"battles": 3}) == "f:1: battles is an int; it must be a list of comparisons."


def test_pairs_in_wide_columns() -> None:
    text = """{prompt: p, completions: [{text: a}, {text: b}, {text: c}],
               pairs: [{sides: [0, 1], vote: ab, vote_for: {A: 0, B: 1}},
                       {sides: [1, 2], vote: bc, vote_for: {B: 0, C: 1}},
                       {sides: [0, 2], vote: ac, vote_for: {A: 0, C: 1}}]}"""
    assert ranks(record(text, AB | {"c": "C", "ab": "B", "bc": "C", "ac": "C"})) == [3, 2, 1]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([[0, 2, 3], [1, 0, 3], [0, 0, 0]], [1, 2, 3]),
        ([[None, 1, -1], [-1, None, -1], [1, 1, None]], [2, 3, 1]),
        ([[0, 0, 1], [0, 0, 0], [0, 0, 0]], [1, None, 2]),  # counts: nobody compared the second
        ([[0, 0, -1], [0, 0, 0], [1, 0, 0]], [3, 2, 1]),  # strengths: 0 is a tie
        ([["0", "0.5", "1"], ["0.5", "0", "1"], ["0", "0", "0"]], [1, 1, 2]),
        ({"x": {"y": 2, "z": 3}, "y": {"x": 1, "z": 3}, "z": {"x": 0, "y": 0}}, [1, 2, 3]),
        ({"x": {"z": 3}, "z": {"x": 0}}, [1, None, 2]),
    ],
)
def test_a_table_of_wins_becomes_one_ranking(table: Any, expected: list[Any]) -> None:
    text = "{prompt: p, each: systems, completions: [{text: ., author: .key}], matrix: wins}"
    assert ranks(record(text, battles() | {"wins": table})) == expected


def test_a_table_that_is_not_square_is_refused() -> None:
    text = "{prompt: p, each: systems, completions: [{text: ., author: .key}], matrix: wins}"
    for table, says in (
        ([[0, 1]], "f:1: wins has a list of 1; it must have a line and a column for each of the 3 completions."),
        ([[0], [0], [0]], "f:1: wins has a list of 1; it must have"),
        (3, "f:1: wins has an int; it must have"),
        ({"w": {}}, "f:1: wins is about 'w', which is the author of no completion."),
        (
            [[None, 1, 1], [None, None, 1], [1, 1, None]],
            "f:1: wins has a number for completions 0 and 1 in only one direction; give both.",
        ),
    ):
        assert refusal(text, battles() | {"wins": table}).startswith(says)
    assert (
        reason(text, battles() | {"wins": None})
        == reason(text, battles() | {"wins": [[0] * 3] * 3})
        == "nobody said which completion is better"
    )


def test_incomplete_comparisons_are_counted() -> None:
    source = mapping(BATTLES)
    source.feedback(battles(("x", "y", "left"), ("y", "z", "left")), "f:1")
    assert source.notes.lines()[0].startswith(
        ": not all pairs of completions were compared; they are ranked by those that were"
    )
    complete = mapping(BATTLES)
    complete.feedback(battles(("x", "y", "left")), "f:1")
    assert complete.notes.lines() == []


def test_winner_critique_goes_to_the_winner() -> None:
    text = (
        "{prompt: p, completions: [{text: a, critique: c}, {text: b}], votes: [v], vote_for: {A: 0, B: 1, T: tie}, "
        "winner_critique: why, loser_critique: [bad.*]}"
    )
    row = AB | {"c": "First.", "why": ["Kind.", None, " Short. "], "bad": ["Rude."]}
    assert record(text, row | {"v": "A"}).candidates == (
        RatedCompletion("A", rank=1.0, critique="First. Kind.  Short. "),
        RatedCompletion("B", rank=2.0, critique="Rude."),
    )
    assert record(text, row | {"v": "B"}).candidates == (
        RatedCompletion("A", rank=2.0, critique="First. Rude."),
        RatedCompletion("B", rank=1.0, critique="Kind.  Short. "),
    )
    source = mapping(text)
    tie = source.feedback(row | {"v": "T"}, "f:1")
    assert isinstance(tie, Feedback) and [one.critique for one in tie.candidates] == ["First.", None]
    assert sorted(source.notes.lines()) == [
        f": {name}_critique: no completion won, so the critique was left out (1 time in 0 rows, first f:1)"
        for name in ("loser", "winner")
    ]
    ranked = "{prompt: p, each: e, completions: [{text: t, rank: r}], winner_critique: why}"
    one = record(ranked, {"p": "P", "why": "W", "e": [{"t": "A", "r": 2}, {"t": "B", "r": 1}, {"t": "C", "r": None}]})
    assert [candidate.critique for candidate in one.candidates] == [None, "W", None]


DISSENT = "the critique of a rater who did not prefer the winner was left out"


@pytest.mark.parametrize(
    ("settings", "raters"),
    [
        ("strength: r.*.s", [-3, 1, -1, 0, None]),
        ("strength: o, rater_preference: r.*.s", [-2, 3, -1, 0, None]),
        ("votes: [r.*.s], vote_for: {A: 0, B: 1, T: tie}", ["A", "B", "A", "T", None]),
        ("votes: [o], vote_for: {A: 0, B: 1, T: tie, -1: 0}, rater_preference: r.*.s", ["A", "B", "A", "T", None]),
    ],
)
def test_a_critique_of_a_rater_who_did_not_prefer_the_winner_is_left_out(settings: str, raters: list[Any]) -> None:
    text = (
        f"{{prompt: p, completions: [{{text: a}}, {{text: b}}], {settings}, winner_critique: r.*.w, "
        f"loser_critique: r.*.l}}"
    )
    row = AB | {"o": -1, "r": [{"s": one, "w": f"w{number}", "l": f"l{number}"} for number, one in enumerate(raters)]}
    source = mapping(text)
    one = source.feedback(row, "f:1")
    assert isinstance(one, Feedback)
    assert [(candidate.rank, candidate.critique) for candidate in one.candidates] == [(1.0, "w0 w2"), (2.0, "l0 l2")]
    assert any(DISSENT in line for line in source.notes.lines())


def test_each_rater_has_one_preference() -> None:
    text = "{prompt: p, completions: [{text: a}, {text: b}], strength: o, rater_preference: s, winner_critique: w}"
    assert (
        refusal(text, AB | {"o": 1, "s": [1, 2], "w": ["x"]})
        == "f:1: s is a list of 2; it must have one preference for each of the 1 raters."
    )
    with pytest.raises(InputError, match="'rater_preference' needs 'votes' or a 'strength'"):
        mapping("{prompt: p, completions: [{text: a, rank: r}], rater_preference: s, winner_critique: w}")


def test_kept_values_can_be_written_as_json(tmp_path: Path) -> None:
    one = record(
        "{prompt: p, completions: [{text: a}], keep: [x, y.*.z]}",
        {"p": "P", "a": "A", "x": math.nan, "y": [{"z": math.inf}, {"z": {"k": (1, b"2")}}]},
    )
    assert json.loads(json.dumps(one.to_json(), allow_nan=False))["extra"] == {
        "x": None,
        "y.*.z": [None, {"k": [1, "b'2'"]}],
    }


def test_parallel_lists_are_read_by_place_or_by_key() -> None:
    text = """{prompt: p, each: answers,
               completions: [{text: ., author: .beside.models, rating: .beside.notes.*.score}],
               scales: {overall: [1, 5]}}"""
    row = {"p": "P", "answers": ["A", "B"], "models": ["x", "y"], "notes": [{"score": 5}, {"score": 3}]}
    want = (
        RatedCompletion("A", ratings={"overall": 5.0}, author="x"),
        RatedCompletion("B", ratings={"overall": 3.0}, author="y"),
    )
    assert record(text, row).candidates == want
    says = "f:1, answers[0]: models is a list of 1; it must have one entry for each of the 2 elements of answers."
    assert refusal(text, row | {"models": ["x"]}) == says
    assert refusal(text, row | {"models": "xy"}) == says.replace("a list of 1", "a str")
    named = text.replace("notes.*.score", "notes").replace(".beside.models", ".key")
    by_name = {"p": "P", "answers": {"x": "A", "y": "B"}, "notes": {"y": 3, "x": 5}}
    assert record(named, by_name).candidates == want
    assert refusal(named, by_name | {"notes": {"x": 5, "z": 3}}) == "f:1, answers['y']: notes has no 'y'."
    with pytest.raises((InputError, ValueError), match="mean elements of a list; name the list in 'each'"):
        mapping("{prompt: p, completions: [{text: a, rating: .beside.b}]}")


# --- whatever stands
# in a row


EVERYTHING = (
    "{prompt: p, history: h, system: s, completions: [{text: a, rating: r, thumb: t, critique: c, author: x}, {text: "
    "b}], votes: [v], vote_for: {1: 0, yes: 1}, missing: [0]}",
    "{prompt: p, completions: [{text: a}, {text: b}], strength: r, winner_critique: [c.*.d], loser_critique: c, "
    "keep: [v], drop_prompt: true, strip: true}",
    "{prompt: p.:-1, each: e, completions: [{text: a, author: x, rank: r}], equal: [p, v], id: x, reference: s}",
    "{prompt: [{text: x, field: p, optional: true}, {field: s}], each: e, completions: [{text: ., author: .place, "
    "rating: .beside.r}], matrix: v, scales: {overall: [0, 5]}}",
    "{prompt: p, turn_markers: [U, A], each: e, completions: [{text: ., rank: .place}], scalars_as_text: true}",
    "{prompt: p, each: e, completions: [{text: ., author: .key}], pairs: [{each: v, sides: [l, 0], vote: w, "
    "vote_for: {1: 0, 2: 1, 0: tie}}]}",
)
words = st.sampled_from(["", " ", "x", "y", "A", "UxA", "1", "yes", "0", "nan", "null", "2.5", "[1]"]) | st.text(
    max_size=5
)
scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | words
keys = st.sampled_from(["a", "b", "x", "y", "l", "w", "d", "role", "content", "user", "assistant", "0"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize("text", EVERYTHING)
@settings(deadline=None, max_examples=50)
@given(row=st.fixed_dictionaries({name: values for name in "aberstvxcph"}), plausible=st.booleans())
def test_any_row_becomes_a_record_or_a_rejection_or_an_error(text: str, row: dict[str, Any], plausible: bool) -> None:
    if plausible:
        row |= {
            "p": "UxA",
            "a": "A",
            "b": "B",
            "s": "S",
            "h": None,
            "e": {"x": "A", "y": "B"},
            "r": 1,
            "t": True,
            "c": "c",
            "x": "x",
        }
    try:
        result = mapping_once(text).feedback(row, "f:1")
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return
    assert isinstance(result, Feedback | Rejected)
    if isinstance(result, Feedback):
        again = Feedback.from_json(json.loads(json.dumps(result.to_json(), allow_nan=False)), "f:1")
        assert again.candidates == result.candidates and again.prompt == result.prompt
