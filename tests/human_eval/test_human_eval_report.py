"""From judgments to report.json, report.md, report.html and figures: exact numbers of small studies, the truth of
simulated ones, and nothing that a name can break.
"""

from __future__ import annotations

import argparse
import base64
import doctest
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from scipy.stats import binomtest
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from coh_lightning.errors import InputError
from coh_lightning.human_eval import analysis, report_tables
from coh_lightning.human_eval.evidence import EXTREMES
from coh_lightning.human_eval.figures import (
    plain,
    position_length_figure,
    ranking_figure,
    styled,
    votes_figure,
    win_rates_figure,
)
from coh_lightning.human_eval.rater_checks import excluded_raters, rater_table
from coh_lightning.human_eval.report import add_arguments, report_numbers, run, write_report
from coh_lightning.human_eval.report_blocks import findings
from coh_lightning.human_eval.report_method import method_paragraph
from coh_lightning.human_eval.report_tables import percent
from coh_lightning.human_eval.results import read_results
from coh_lightning.pages.page import DARK
from helpers.browser import Browser
from helpers.studies import BASELINE, MODEL, TIE, World, draw, write_study

FILES = {"report.json", "report.md", "report.html", "figures"}


def votes(*prompts: str, left: bool | list[list[bool]] = True) -> tuple[np.ndarray, np.ndarray]:
    """A string per prompt, a letter per rater: b(aseline), t(ie), m(odel), - (not asked); and whether the model stood
    left.
    """
    table = np.array(
        [[{"b": BASELINE, "t": TIE, "m": MODEL, "-": -1}[letter] for letter in prompt] for prompt in prompts]
    )
    return table, np.broadcast_to(np.array(left), table.shape)


def numbers_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """The numbers of a study of one pair: attribute -> (votes, left)."""
    tables = changes.pop("tables")
    return report_numbers(
        read_results(write_study(folder, {name: [("old", "new", *table)] for name, table in tables.items()}, **changes))
    )


def check(kind: str, rater: int, number: int, passed: bool, **changes: Any) -> dict[str, Any]:
    """The judgment of one check."""
    names = ["old", "old"] if kind == "identical" else ["old", "new"]
    choice = "tie" if kind == "identical" and passed else "old"
    line = {
        "item": f"{kind}-{number}",
        "row": f"{kind}-{number}-{rater}",
        "prompt_id": f"c{number}",
        "rater": f"rater-{rater}",
        "attribute": "overall",
    }
    return line | {"choice": choice, "systems": names, "check": kind, "passed": passed} | changes


def test_docstring_examples() -> None:
    assert doctest.testmod(analysis) == doctest.TestResults(failed=0, attempted=1)
    assert doctest.testmod(report_tables) == doctest.TestResults(failed=0, attempted=3)


# ------------------------------------------------------------------------------------------------------------ numbers


def test_votes_become_the_papers_row_and_the_average_is_the_plain_mean(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, tables={"accuracy": votes(*"bbtttmmmmm"), "overall": votes(*"bttttttttt"[:5])})
    pair = numbers["analyses"]["all"]["pairs"][0]
    assert (pair["baseline"], pair["model"]) == ("old", "new")
    accuracy = pair["attributes"]["accuracy"]
    assert accuracy["counts"] == {"baseline": 2, "tie": 3, "model": 5}
    assert accuracy["row"] == "20.0/30.0/50.0 (30.0)"
    assert accuracy["ties_as_half"]["value"] == pytest.approx(0.65)
    assert accuracy["ties_excluded"]["value"] == pytest.approx(5 / 7)
    assert accuracy["difference"]["value"] == pytest.approx(30)
    assert accuracy["difference"]["low"] == pytest.approx(200 * accuracy["ties_as_half"]["low"] - 100)
    assert accuracy["sign_test"]["p"] == pytest.approx(binomtest(5, 7).pvalue, abs=1e-9)
    low, high = proportion_confint(5, 7, method="wilson")
    assert accuracy["by_prompt"]["win_rate"] == pytest.approx({"value": 5 / 7, "low": low, "high": high}, abs=1e-9)
    assert pair["attributes"]["overall"]["row"] == "20.0/80.0/0.0 (-20.0)"
    assert pair["average"]["row"] == "20.0/55.0/25.0 (5.0)"
    assert pair["average"]["ties_as_half"]["value"] == pytest.approx((0.65 + 0.4) / 2)


def test_raters_of_one_prompt_have_one_vote_in_the_sign_test_and_each_their_own_in_the_percentages(
    tmp_path: Path,
) -> None:
    numbers = numbers_of(tmp_path, tables={"overall": votes("mmm", "mmb", "mtt", "bbt", "mbt", "m--")})
    entry = numbers["analyses"]["all"]["pairs"][0]["attributes"]["overall"]
    assert entry["counts"] == {"baseline": 4, "tie": 4, "model": 8}
    by_prompt = entry["by_prompt"]
    assert (by_prompt["baseline"], by_prompt["tie"], by_prompt["model"]) == (1, 1, 4)
    assert entry["sign_test"]["decided"] == 5


def test_holm_runs_over_all_attributes_and_pairs(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, tables={"accuracy": votes(*"mmmmmmmmb"), "overall": votes(*"mmmmmmmbb")})
    tests = [entry["sign_test"] for entry in numbers["analyses"]["all"]["pairs"][0]["attributes"].values()]
    p = [binomtest(8, 9).pvalue, binomtest(7, 9).pvalue]
    assert [test["p_holm"] for test in tests] == pytest.approx([2 * p[0], p[1]], abs=1e-9)


def test_unanimous_prompts_still_give_an_interval(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, tables={"overall": votes(*"m" * 30)})
    low, _ = proportion_confint(30, 30, method="wilson")
    assert numbers["analyses"]["all"]["pairs"][0]["attributes"]["overall"]["ties_as_half"] == pytest.approx(
        {"value": 1, "low": low, "high": 1}, abs=1e-9
    )


def test_votes_that_are_all_ties_have_no_decided_win_rate(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes(*"tttt"))]})
    write_report(folder)
    entry = json.loads((folder / "report.json").read_text())["analyses"]["all"]["pairs"][0]["attributes"]["overall"]
    assert entry["ties_excluded"] == {"value": None, "low": None, "high": None}
    assert entry["sign_test"] == {"p": 1.0, "p_holm": 1.0, "decided": 0}


def test_agreement_is_over_items_that_several_rated_and_kappa_is_for_two(tmp_path: Path) -> None:
    table, left = votes("mm", "mb", "bb", "tt", "tm", "m-", "-b")
    entry = numbers_of(tmp_path / "two", tables={"overall": (table, left)})["analyses"]["all"]["pairs"][0][
        "attributes"
    ]["overall"]["agreement"]
    assert (entry["items"], entry["raters"], entry["raw"]["value"]) == (5, 2, 0.6)
    pairs = np.zeros((3, 3))
    for one, other in table[:5]:
        pairs[one, other] += 1
    assert entry["kappa"] == pytest.approx(cohens_kappa(pairs, return_results=False), abs=1e-9)
    assert entry["alpha"]["low"] < entry["alpha"]["value"] < entry["alpha"]["high"]
    three = numbers_of(tmp_path / "three", tables={"overall": votes("mmm", "mbt", "bbb")})["analyses"]["all"]["pairs"][
        0
    ]["attributes"]["overall"]["agreement"]
    assert three["kappa"] is None
    alone = numbers_of(tmp_path / "one", tables={"overall": votes(*"mbt")})["analyses"]["all"]["pairs"][0][
        "attributes"
    ]["overall"]["agreement"]
    assert (alone["items"], alone["alpha"]["value"]) == (0, None)


def test_the_left_answers_wins_are_counted_by_attribute_and_by_row(tmp_path: Path) -> None:
    sides = [[True], [True], [False], [False]]
    position = numbers_of(
        tmp_path, tables={"accuracy": votes(*"mbmt", left=sides), "overall": votes(*"mmmb", left=sides)}
    )["analyses"]["all"]["position"]
    # accuracy: left, right, right, tie; overall: left, left, right, left; rows: left, even, right, left
    assert position["attributes"]["accuracy"] | {"low": 0, "high": 0} == {
        "value": pytest.approx(1 / 3),
        "low": 0,
        "high": 0,
        "decided": 3,
    }
    assert position["attributes"]["overall"]["value"] == pytest.approx(3 / 4)
    assert (position["rows"]["value"], position["rows"]["decided"]) == (pytest.approx(2 / 3), 3)


def test_win_rates_are_given_by_thirds_of_the_length_difference(tmp_path: Path) -> None:
    lengths = {"old": [10] * 6, "new": [1, 2, 9, 12, 20, 30]}
    length = numbers_of(tmp_path, tables={"overall": votes(*"bbtmmm")}, texts=lengths)["analyses"]["all"]["pairs"][0][
        "length"
    ]
    assert [third["items"] for third in length["terciles"]] == [2, 2, 2]
    assert [third["ties_as_half"]["value"] for third in length["terciles"]] == [0, 0.75, 1]
    assert length["terciles"][0]["longer_by"] == [-45, -40]  # words of five characters
    assert (length["chose_longer"]["value"], length["chose_longer"]["votes"]) == (1.0, 5)


def test_a_rows_seconds_count_once(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, tables={"accuracy": votes(*"mbt"), "overall": votes(*"mbt")}, seconds=12.0)
    assert numbers["raters"]["rater-1"]["seconds"] == {
        "rows": 3,
        "median": 12,
        "lower_quartile": 12,
        "upper_quartile": 12,
    }
    untimed = numbers_of(tmp_path / "untimed", tables={"overall": votes(*"mbt")}, seconds=None)
    assert untimed["raters"]["rater-1"]["seconds"] == {
        "rows": 0,
        "median": None,
        "lower_quartile": None,
        "upper_quartile": None,
    }


# ------------------------------------------------------------------------------------------------------------ checks
# and exclusion


def test_checks_are_no_votes_and_are_counted_by_rater(tmp_path: Path) -> None:
    checks = [
        check("swap", 1, 0, True),
        check("swap", 1, 1, False),
        check("identical", 1, 0, True),
        check("gold", 2, 0, False),
    ]
    numbers = numbers_of(tmp_path, tables={"overall": votes("mm", "bb")}, checks=checks)
    assert numbers["analyses"]["all"]["votes"] == 4
    assert numbers["raters"]["rater-1"]["checks"] == {
        "swap": {"right": 1, "of": 2, "share": 0.5},
        "identical": {"right": 1, "of": 1, "share": 1.0},
        "gold": {"right": 0, "of": 0, "share": None},
    }
    assert numbers["raters"]["rater-2"]["checks"]["gold"] == {"right": 0, "of": 1, "share": 0.0}


def test_excluded_raters_are_named_with_reasons_and_both_sets_of_numbers_given(
    tmp_path: Path,
) -> None:
    checks = [check("identical", 1, 0, True), *(check("identical", 2, number, number == 0) for number in range(3))]
    folder = write_study(
        tmp_path,
        {"overall": [("old", "new", *votes("mb", "mb", "mb"))]},
        checks=checks,
        key={"exclusion": {"min_identical": 0.5, "min_consistency": None}},
    )
    write_report(folder)
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers["exclusion"]["excluded"] == {"rater-2": ["1 of 3 identical pairs called a tie (33 %), below 50 %"]}
    assert numbers["analyses"]["all"]["pairs"][0]["attributes"]["overall"]["row"] == "50.0/0.0/50.0 (0.0)"
    assert numbers["analyses"]["kept"]["pairs"][0]["attributes"]["overall"]["row"] == "0.0/0.0/100.0 (100.0)"
    assert (
        "rater-2 is left out: 1 of 3 identical pairs called a tie (33 %), below 50 %."
        in (folder / "report.md").read_text()
    )


def test_too_few_check_answers_exclude_nobody(tmp_path: Path) -> None:
    answers = read_results(
        write_study(
            tmp_path,
            {"overall": [("old", "new", *votes("m"))]},
            checks=[check("gold", 1, number, False) for number in range(3)],
        )
    )
    table = rater_table(answers)
    assert excluded_raters(table, {"min_gold": 0.8, "min_check_answers": 4}) == {}
    assert excluded_raters(table, {"min_gold": 0.8, "min_check_answers": 3}) == {
        "rater-1": ["0 of 3 gold items answered correctly (0 %), below 80 %"]
    }
    assert excluded_raters(table, {"min_median_seconds": 30}) == {
        "rater-1": ["a median of 20.0 seconds per row, below 30"]
    }


def test_an_unknown_exclusion_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"key.json: unknown exclusion rule 'min_mood'; this report knows min_gold, "):
        numbers_of(tmp_path, tables={"overall": votes("m")}, key={"exclusion": {"min_mood": 1}})


def test_if_all_raters_are_excluded_the_numbers_of_all_are_given(tmp_path: Path) -> None:
    numbers = numbers_of(tmp_path, tables={"overall": votes("m", "b")}, key={"exclusion": {"min_median_seconds": 99}})
    assert [*numbers["analyses"]] == ["all"]
    assert "The exclusion rules exclude every rater; the numbers are those of all raters." in numbers["warnings"]


# ------------------------------------------------------------------------------------------------------------ warnings
# and refusals


def test_warnings_name_sampling_unmatched_prompts_and_missing_rows(tmp_path: Path) -> None:
    key = {
        "sampling": {"old": {"temperature": 1.0, "top_k": 50}, "new": {"temperature": 0.7, "top_k": 50}},
        "unmatched": {"old": ["q1", "q2"], "new": []},
    }
    folder = write_study(
        tmp_path,
        {"overall": [("old", "new", *votes("m", "b"))]},
        key=key | {"rows": {name: {"check": ""} for name in "abcde"}},
    )
    assert report_numbers(read_results(folder))["warnings"] == [
        "Sampling differs in temperature: old 1.0, new 0.7; the comparison is of model and sampling together.",
        "2 prompts of old had no counterpart; not rated (first: q1).",
        "3 of 5 rows are not answered yet.",
    ]


def test_unknown_sampling_settings_give_a_warning(tmp_path: Path) -> None:
    numbers = numbers_of(
        tmp_path, tables={"overall": votes("m")}, key={"sampling": {"old": None, "new": {"top_k": 50}}}
    )
    assert numbers["warnings"] == ["The sampling of old is unknown and can't be compared with new."]


def test_the_exports_warnings_come_first_and_once(tmp_path: Path) -> None:
    key = {
        "warnings": ["'old' and 'new' were sampled unlike: top_k 5 and 50."],
        "sampling": {"old": {"top_k": 5}, "new": {"top_k": 50}},
    }
    assert numbers_of(tmp_path, tables={"overall": votes("m")}, key=key)["warnings"] == key["warnings"]


def test_the_baseline_is_the_system_of_against_or_else_the_first(tmp_path: Path) -> None:
    against = numbers_of(tmp_path, tables={"overall": votes("m")}, key={"against": "new"})
    pair = against["analyses"]["all"]["pairs"][0]
    assert (pair["baseline"], pair["model"], pair["attributes"]["overall"]["row"]) == (
        "new",
        "old",
        "100.0/0.0/0.0 (-100.0)",
    )


def changed(folder: Path, **changes: Any) -> Path:
    """The study with its first judgment changed."""
    path = folder / "judgments.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(lines[0]) | changes), *lines[1:]]) + "\n")
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"item": "x"}, ":1: item 'x' is not in key.json and items.jsonl"),
        (
            {"choice": "else"},
            ":1: the choice 'else' between ['new', 'old'] doesn't fit item 'i-01-0', which compares ['new', 'old']",
        ),
        (
            {"systems": ["new", "else"]},
            ":1: the choice 'new' between ['new', 'else'] doesn't fit item 'i-01-0', which compares ['new', 'old']",
        ),
        ({"row": "i-01-1-r1"}, ":2: row 'i-01-1-r1' has two answers to 'overall', the first at "),
    ],
)
def test_judgments_of_another_study_are_refused_naming_the_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = changed(write_study(tmp_path, {"overall": [("old", "new", *votes("m", "b"))]}), **changes)
    with pytest.raises(InputError) as caught:
        read_results(tmp_path)
    assert str(caught.value).startswith(f"{path}{says}")


def test_a_folder_without_judgments_is_refused_with_the_next_step(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes("m"))]})
    (folder / "judgments.jsonl").unlink()
    with pytest.raises(InputError, match=r"no such file; import the raters' files first: human-eval import .* FILES\."):
        write_report(folder)
    only = write_study(tmp_path / "checks", {}, checks=[check("gold", 1, 0, True)])
    with pytest.raises(InputError, match="all 1 answers are checks, none is a vote; import more sheets"):
        write_report(only)


# ------------------------------------------------------------------------------------------------------------ three
# systems


def three(folder: Path, seed: int = 0) -> Path:
    """A study of three systems, the third the best."""
    random, strength = np.random.default_rng(seed), {"old": 0.0, "mid": 0.5, "new": 1.0}
    pairs = [("old", "mid"), ("old", "new"), ("mid", "new")]
    tables = [
        (one, two, *draw(World(strength[two] - strength[one], 0.5, 0.3, (0.1, 0.1)), random, 60)) for one, two in pairs
    ]
    return write_study(folder, {"helpful": tables, "overall": tables}, systems=[*strength])


def test_three_systems_are_compared_in_pairs_and_ranked(tmp_path: Path) -> None:
    folder = three(tmp_path)
    assert write_report(folder) == json.loads((folder / "report.json").read_text())
    analysis = json.loads((folder / "report.json").read_text())["analyses"]["all"]
    assert [(pair["baseline"], pair["model"]) for pair in analysis["pairs"]] == [
        ("old", "mid"),
        ("old", "new"),
        ("mid", "new"),
    ]
    assert analysis["tests"] == 6
    ranking = analysis["ranking"]["overall"]
    assert [(entry["rank"], entry["system"]) for entry in ranking["systems"]] == [(1, "new"), (2, "mid"), (3, "old")]
    assert sum(entry["log_strength"]["value"] for entry in ranking["systems"]) == pytest.approx(0, abs=1e-9)
    for entry in ranking["systems"]:
        assert entry["log_strength"]["low"] < entry["log_strength"]["value"] < entry["log_strength"]["high"]
    assert (folder / "figures" / "ranking.svg").exists()


def test_unconnected_systems_get_no_ranking_but_a_report(
    tmp_path: Path,
) -> None:
    tables = [("a", "b", *votes("m", "b", "t")), ("c", "d", *votes("m", "b", "t"))]
    folder = write_study(tmp_path, {"overall": tables}, systems=["a", "b", "c", "d"])
    write_report(folder)
    analysis = json.loads((folder / "report.json").read_text())["analyses"]["all"]
    assert analysis["ranking"] == {
        "overall": {
            "refused": "the systems can't be ranked: the comparisons fall into 2 parts (a, b; c, d); compare across "
            "them."
        }
    }
    assert len(analysis["pairs"]) == 2
    assert "2 parts (a, b; c, d)" in (folder / "report.html").read_text()
    assert not (folder / "figures" / "ranking.svg").exists()


def test_two_systems_have_no_ranking(tmp_path: Path) -> None:
    assert numbers_of(tmp_path, tables={"overall": votes("m", "b")})["analyses"]["all"]["ranking"] is None


# ------------------------------------------------------------------------------------------------------------ files and
# pages


def test_the_intervals_of_report_json_contain_the_truth(tmp_path: Path) -> None:
    worlds = {"accuracy": World(0.4, 0.7, 0.4, (0.2, 0.0, -0.1)), "overall": World(0.0, 0.9, 0.3, (0.3, 0.3, 0.0))}
    random = np.random.default_rng(5)
    folder = write_study(
        tmp_path, {name: [("old", "new", *draw(world, random, 400, 200))] for name, world in worlds.items()}
    )
    write_report(folder)
    analysis = json.loads((folder / "report.json").read_text())["analyses"]["all"]
    for name, world in worlds.items():
        baseline, tie, model = world.chances()
        entry = analysis["pairs"][0]["attributes"][name]
        for interval, truth in [
            (entry["ties_as_half"], model + tie / 2),
            (entry["ties_excluded"], model / (model + baseline)),
            (entry["share"]["tie"], tie),
            (entry["difference"], 100 * (model - baseline)),
            (entry["agreement"]["alpha"], world.alpha()),
            (analysis["position"]["attributes"][name], world.left_share()),
        ]:
            assert interval["low"] < truth < interval["high"]
            assert interval["high"] - interval["low"] < (
                20 if interval is entry["difference"] else 0.25
            )  # and it tells something
    assert analysis["pairs"][0]["attributes"]["accuracy"]["sign_test"]["p_holm"] < 0.001


def test_the_same_judgments_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        write_study(tmp_path / name, {"overall": [("old", "new", *votes("mm", "bt", "tm"))]})
        for name in ("first", "second")
    )
    for folder in (first, second):
        write_report(folder)
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert {name.name for name in names} >= {
        "report.json",
        "report.md",
        "report.html",
        "votes.png",
        "votes.svg",
        "win_rates.png",
        "position_length.svg",
    }
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []
    write_report(first)
    assert {path.name for path in first.iterdir()} == {"key.json", "items.jsonl", "judgments.jsonl", *FILES}


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$x^{",
    "| a | [b](javascript:c) *d*\n# e",
    "</title><style>*{}</style>",
    "\x00\u202e\x1b[31m",
]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_escaped_in_every_form_of_the_report(tmp_path: Path, name: str) -> None:
    tables = {f"q {name}": [("old", name, *votes("mm", "bt", "tm"))]}
    folder = write_study(
        tmp_path,
        tables,
        systems=["old", name],
        key={"unmatched": {name: [name]}, "sampling": {"old": {name: 1}, name: {name: name}}},
    )
    write_report(folder)
    seen = Page((folder / "report.html").read_text(encoding="utf-8"))
    known = {
        "html",
        "head",
        "link",
        "main",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "figure",
        "img",
        "figcaption",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "picture",
        "source",
        "article",
        "section",
        "h3",
        "h4",
        "span",
        "label",
        "select",
        "option",
        "input",
        "script",
    }
    assert {tag for tag, _ in seen.tags} == known
    assert {key for _, attributes in seen.tags for key in attributes} == {
        "lang",
        "rel",
        "href",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "alt",
        "src",
        "media",
        "srcset",
        "id",
        "hidden",
        "value",
        "type",
        "placeholder",
        "role",
        "dir",
        "data-kinds",
    }
    assert sum(tag == "style" for tag, _ in seen.tags) == 1 == sum(tag == "script" for tag, _ in seen.tags)
    assert plain(name, 1000)[:10] in "".join(seen.words)
    assert all(not set("\x00\u202e\x1b") & set(words) for words in seen.words)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    live = re.sub(r"\\.", "", markdown)  # without what is escaped
    assert "<" not in live and "](javascript" not in live and "*d*" not in live
    assert not set("\x00\u202e\x1b") & set(markdown)


def test_the_report_page_loads_nothing(tmp_path: Path) -> None:
    write_report(write_study(tmp_path, {"overall": [("old", "new", *votes("m", "b"))]}))
    text = (tmp_path / "report.html").read_text()
    seen = Page(text)
    (policy,) = [
        attributes["content"]
        for _, attributes in seen.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    style = text.split("<style>")[1].split("</style>")[0]
    script = text.split("<script>")[1].split("</script>")[0]
    sha, own = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in (style, script))
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{sha}'; script-src 'sha256-{own}'; img-src data:; base-uri 'none'; "
        "form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    sources = [attributes["src"] or "" for tag, attributes in seen.tags if tag == "img"]
    sources += [attributes["srcset"] or "" for tag, attributes in seen.tags if tag == "source"]
    assert len(sources) == len(set(sources)) == 6 and all(
        source.startswith("data:image/svg+xml;base64,") for source in sources
    )
    assert "http://" not in text.split("<body>")[0] and "@import" not in style


def test_the_markdown_has_the_papers_table(tmp_path: Path) -> None:
    write_report(
        write_study(
            tmp_path,
            {"accuracy": [("old", "new", *votes(*"bbtttmmmmm"))], "overall": [("old", "new", *votes(*"bbtttmmmmm"))]},
        )
    )
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "|  | accuracy | overall | average |" in lines
    assert "| new vs old | 20.0/30.0/50.0 (30.0) | 20.0/30.0/50.0 (30.0) | 20.0/30.0/50.0 (30.0) |" in lines


def test_findings_name_what_differs_after_holm_and_what_does_not(tmp_path: Path) -> None:
    numbers = numbers_of(
        tmp_path, tables={"accuracy": votes(*"m" * 20), "coherence": votes(*"b" * 20), "overall": votes(*"mb" * 10)}
    )
    (sentence,) = findings(numbers["analyses"]["all"])
    assert sentence == (
        "new against old is preferred on accuracy 100 % (84 to 100); loses on coherence 0 % (0 to 16); "
        "shows no clear difference on overall "
        f"{percent(numbers['analyses']['all']['pairs'][0]['attributes']['overall']['ties_as_half'])}."
    )


def test_the_command_prints_the_table_and_where_the_report_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes(*"bbtttmmmmm"))]})
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(folder)])) == 0
    out = capsys.readouterr().out
    assert "new vs old  20.0/30.0/50.0 (30.0)" in out
    assert out.endswith(f"wrote {folder / 'report.html'}, report.md, report.json and figures/\n")


def test_without_matplotlib_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes("m", "b"))]})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError) as caught:
        write_report(folder)
    assert "matplotlib is not installed" in str(caught.value)
    assert "pip install 'coh_lightning[study]'" in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ judges


def verdicts(*choices: str, rater: str = "judge:m", swapped: str = "") -> list[dict[str, Any]]:
    """What a judge would write: a verdict on each prompt, and in the other order the same, or that of `swapped`."""
    words = {"b": "old", "t": "tie", "m": "new"}
    return [
        {
            "item": f"i-01-{number}",
            "row": f"{rater}-{number}-{check}",
            "prompt_id": f"p{number}",
            "rater": rater,
            "attribute": "overall",
            "choice": words[choice],
            "systems": ["old", "new"],
            "check": check,
        }
        for number, letter in enumerate(choices)
        for check, choice in (("", letter), ("swap", swapped[number] if swapped else letter))
    ]


def judged(folder: Path, people: dict[str, Any], lines: list[dict[str, Any]], **key: Any) -> Path:
    write_study(folder, people, key=key)
    with (folder / "judgments.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def test_a_judge_is_no_person_and_changes_no_number_of_people(tmp_path: Path) -> None:
    people = {"overall": [("old", "new", *votes("mm", "bt", "tb", "mb"))]}
    rows = {f"i-01-{prompt}-r{rater}": {"check": ""} for prompt in range(4) for rater in (1, 2)}
    alone = report_numbers(read_results(judged(tmp_path / "alone", people, [], rows=rows)))
    folder = judged(tmp_path / "both", people, verdicts(*"mmbt", swapped="mbbt"), rows=rows)
    both = report_numbers(read_results(folder))
    assert both | {"judges": {}} == alone
    assert (both["rows"], [*both["raters"]]) == ({"asked": 8, "answered": 8}, ["rater-1", "rater-2"])
    # people: model, baseline, baseline, tie; the judge: model, tie (by the order), baseline, tie
    ((pair,),) = both["judges"].values()
    entry = pair["attributes"]["overall"]
    assert (entry["votes"], entry["row"]) == (4, "25.0/50.0/25.0 (0.0)")
    assert (entry["with_people"]["value"], entry["with_people"]["of"]) == (0.75, 4)
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "4 prompts, 2 raters, 8 votes, 8 of 8 rows answered." in page
    assert "None of their verdicts is in any other number" in page and "judge:m" in page


def test_a_report_of_a_judge_alone_says_that_no_person_rated(tmp_path: Path) -> None:
    folder = judged(tmp_path, {"overall": [("old", "new", *votes("-", "-"))]}, verdicts(*"mb"))
    numbers = write_report(folder)
    assert numbers["raters_are"] == "judges" and numbers["judges"] == {}
    page = (folder / "report.html").read_text()
    assert "2 prompts, 1 judge (language models), no person, 2 verdicts." in page
    assert "Language models compared the outputs of old and new" in page and "Human raters" not in page


# ------------------------------------------------------------------------------------------------------------ evidence


def test_items_are_shown_for_a_reason_from_the_largest_win_to_the_largest_loss(tmp_path: Path) -> None:
    tables = {"accuracy": votes("mm", "mb", "bb", "tt", "tm"), "overall": votes("mm", "mb", "tb", "tt", "tt")}
    folder = write_study(tmp_path, {name: [("old", "new", *table)] for name, table in tables.items()})
    lines = [json.loads(line) for line in (folder / "judgments.jsonl").read_text().splitlines()]
    for line in lines:
        if line["item"] == "i-01-3" and line["rater"] == "rater-2":
            line["comment"] = "Both say nothing."  # one row: one comment, whatever its attributes
    (folder / "judgments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = write_report(folder)["evidence"]
    assert [(one["item"], one["lead"], one["opposed"], one["comments"], one["kinds"]) for one in shown] == [
        ("i-01-0", 1.0, 0, 0, ["win"]),
        ("i-01-4", 0.25, 0, 0, ["win"]),
        ("i-01-1", 0.0, 2, 0, ["disagree"]),
        ("i-01-3", 0.0, 0, 1, ["comment"]),
        ("i-01-2", -0.75, 0, 0, ["loss"]),
    ]
    assert shown[0]["counts"] == {"new": 4, "tie": 0, "old": 0}
    markdown = (folder / "report.md").read_text()
    assert "## Raters disagree\n\nItem i-01-1, votes: new 2, tie 0, old 2." in markdown
    assert "rater-2 (A is new): Both say nothing." in markdown


def test_only_the_largest_wins_and_losses_are_shown(tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes(*"m" * 12, *"b" * 13, "t"))]})
    shown = write_report(folder)["evidence"]
    assert [one["kinds"] for one in shown] == [["win"]] * EXTREMES + [["loss"]] * EXTREMES


def test_the_method_paragraph_has_design_numbers_raters_exclusions_and_tests(tmp_path: Path) -> None:
    tables = {"accuracy": votes("mmm", "bbm", "mtb"), "overall": votes("mmm", "mbm", "mtb")}
    folder = write_study(
        tmp_path,
        {name: [("old", "new", *table)] for name, table in tables.items()},
        checks=[check("identical", 1, 0, True), *(check("identical", 2, number, False) for number in range(2))],
        key={
            "design": {"raters": 3, "overlap": 2, "votes": 1, "swaps": 0.05, "identical": 0.02},
            "exclusion": {"min_identical": 0.5, "min_median_seconds": 3, "min_gold": None},
        },
    )
    text = method_paragraph(write_report(folder))
    alphas = [
        entry["agreement"]["alpha"]["value"]
        for entry in json.loads((folder / "report.json").read_text())["analyses"]["all"]["pairs"][0][
            "attributes"
        ].values()
    ]
    for part in (
        "Human raters compared the outputs of old and new in a blind pairwise study.",
        "on accuracy and overall.",
        "3 raters gave 18 votes on 3 items of 3 prompts; 2 items went to every rater and each other item to 1 rater.",
        "Attention was checked with pairs of identical answers (1 of 3 answers right).",
        "fixed before unblinding (less than 50 % of identical pairs called a tie; a median of less than 3 seconds a "
        "row); 1 rater met one of them.",
        "(4,000 resamples, each prompt with all its votes)",
        "exact two-sided sign test on one vote per prompt (the majority of its votes, without ties), adjusted by Holm "
        "for 2 tests.",
        f"Krippendorff's alpha on items with several raters was between {min(alphas):.2f} and {max(alphas):.2f}.",
    ):
        assert part in text
    assert text in (folder / "report.html").read_text().replace("&#39;", "'")
    assert "min_gold" not in text and "gold items" not in text
    key = json.loads((folder / "key.json").read_text())
    key["exclusion"] |= {"min_gold": 0.8, "min_check_answers": 12}  # no gold items, and too few answers to checks
    (folder / "key.json").write_text(json.dumps(key))
    text = method_paragraph(write_report(folder))
    assert "seconds a row; a share counts from 12 answers of a rater to checks of its kind); no rater met one" in text
    assert "gold items" not in text


def shown_items(browser: Browser) -> list[str]:
    code = "return [...document.querySelectorAll('article')].filter(each => !each.hidden).map(each => each.id || each"
    return list(browser.js(f"{code}.querySelector('h3').textContent.split(' ')[0])"))


def test_the_items_can_be_searched_and_chosen(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path, {"overall": [("old", "new", *votes("mm", "mb", "bb", "tb"))]})
    write_report(folder)
    browser.forget()
    browser.show((folder / "report.html").as_uri())
    assert shown_items(browser) == ["p0", "p1", "p3", "p2"]
    browser.keys("/", "Q", "u", "e", "s", "t", "i", "o", "n", " ", "3")
    assert shown_items(browser) == ["p3"] and browser.js("return document.querySelector('.count').textContent") == (
        "1 of 4 items"
    )
    choose = (
        "const it = document.querySelector('select'); it.value = arguments[0]; it.dispatchEvent(new Event('change'))"
    )
    browser.js("const it = document.querySelector('input'); it.value = ''; it.dispatchEvent(new Event('input'))")
    for kind, items in (("disagree", ["p1"]), ("loss", ["p2", "p3"]), ("", ["p0", "p1", "p3", "p2"])):
        browser.js(choose, kind)
        assert shown_items(browser) == items
    assert browser.console() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_label_of_the_report_has_contrast(browser: Browser, tmp_path: Path, scheme: str) -> None:
    folder = judged(tmp_path, {"overall": [("old", "new", *votes("mm", "mb", "bb", "tb"))]}, verdicts(*"mmbt"))
    write_report(folder)
    with browser.scheme(scheme):
        browser.show((folder / "report.html").as_uri())
        assert browser.faint_texts() == []
        paper = browser.js("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == (scheme == "dark")
        source = browser.js("return document.querySelector('img').currentSrc")
        assert (b"#1c1f23" in base64.b64decode(source.split(",")[1])) == (scheme == "dark")


def test_the_measure_of_contrast_finds_what_is_faint(browser: Browser, tmp_path: Path) -> None:
    style = "p { color: #777 } b { color: #767676; } i { background: #000; color: #fff8 } u { color: #fff }"
    (tmp_path / "a.html").write_text(f"<style>{style}</style><p>gray<b>dark</b><i>half</i><u>white</u></p>")
    browser.show((tmp_path / "a.html").as_uri())
    assert browser.faint_texts() == ["gray: 4.48", "white: 1.00"]


@pytest.mark.parametrize("dark", [False, True])
def test_every_label_of_the_figures_has_contrast(tmp_path: Path, dark: bool) -> None:
    numbers = write_report(three(tmp_path))["analyses"]["all"]
    seen = 0
    for draw_it in (votes_figure, win_rates_figure, position_length_figure, ranking_figure):
        with styled():
            for text, ink, ground in labels(draw_it(numbers)):
                seen += 1
                shades = [DARK[each] if dark else each for each in (ink, ground)]
                assert contrast(*shades) >= 4.5, (draw_it.__name__, text, *shades)
    assert seen > 60


def labels(figure: Any) -> list[tuple[str, str, str]]:
    """(text, its color, the color below it) of every label of a figure."""
    found = []
    for axes in figure.axes:
        names = [axes.title, axes._left_title, axes._right_title, axes.xaxis.label]
        found += [(each.get_text(), to_hex(each.get_color()), "#ffffff") for each in names if each.get_text()]
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        found += [(each.get_text(), to_hex(each.get_color()), "#ffffff") for each in ticks]
        for text in axes.texts:
            x, y = text.get_position()
            shift = {"left": 0.5, "center": 0, "right": -0.5}[text.get_ha()]
            below = [bar for bar in axes.patches if bar.get_xy()[0] <= x + shift <= bar.get_xy()[0] + bar.get_width()]
            below = [bar for bar in below if bar.get_xy()[1] <= y <= bar.get_xy()[1] + bar.get_height()]
            found.append((text.get_text(), to_hex(text.get_color()), to_hex(below[-1].get_facecolor())))
    return found


def contrast(*colors: str) -> float:
    """The contrast of two colors (WCAG 2.2)."""
    light = []
    for color in colors:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_importing_the_report_imports_no_numpy() -> None:
    code = "import sys, coh_lightning.human_eval.report; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {"numpy", "scipy", "matplotlib", "torch"} & set(done.stdout.split()) == set()
