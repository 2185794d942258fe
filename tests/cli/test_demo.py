"""The demo: what it says of runs on the embedded world, in the terminal, as Markdown and as a page."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest
from rich.console import Console

from coh_lightning.cli import demo
from coh_lightning.cli.demo import TEMPERATURES, base_of, judge, main
from coh_lightning.cli.demo_report import Report, Row, as_markdown, show
from coh_lightning.errors import InputError
from coh_lightning.pages.page import write_page
from coh_lightning.world import evaluate, posts, writers
from coh_lightning.world.feedback import HABITS_BASE, NOISE_BASE, TEST_SEED
from helpers.browser import Browser

MADE = posts.make_posts(20, seed=TEST_SEED, split="test")


def row(model: str, condition: str = "", guidance: float | None = None, writer: str = "fair", **more: object) -> Row:
    texts = {
        temperature: [
            writers.write_summary(post, writers.WRITERS[writer], random.Random(i)) for i, post in enumerate(MADE)
        ]
        for temperature in TEMPERATURES
    }
    scores = {
        temperature: [evaluate.rate(post, text) for post, text in zip(MADE, written, strict=True)]
        for temperature, written in texts.items()
    }
    values = {"ability": 0.975, "questions": 300, "epochs": 10.84, **more}
    return Row(model, condition, guidance, scores, texts, **values)  # type: ignore[arg-type]


TEXTS = [post.text for post in MADE]
ROWS = [
    row("base", epochs=None),
    row("sft_best", writer="good"),
    row("coh", "good", epochs=4.76),
    row("coh", "bad", writer="poor", epochs=4.76),
    row("coh", "good", 0.0, epochs=4.76),
    row("coh", "good", 2.0, writer="good", epochs=4.76),
]


@pytest.fixture(scope="module")
def report() -> Report:
    return Report.of(ROWS, TEXTS, shown=2)


def printed(report: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_row_has_a_score_at_each_temperature_and_its_model_once_questions_and_epochs(report: Report) -> None:
    head, lines = report.scores
    assert head == ["", "temperature 1", "temperature 0.7", "greedy", "questions", "epochs"]
    assert [line[0] for line in lines] == [
        "base", "sft_best", "coh: good", "coh: bad", "coh: good, cutoff alone", "coh: good, guidance 2"
    ]  # fmt: skip
    assert [line[4:] for line in lines] == [
        ["97.5% ±1.9%", ""], ["97.5% ±1.9%", "10.8"], ["97.5% ±1.9%", "4.8"], ["", ""], ["", ""], ["", ""]
    ]  # fmt: skip
    mean = sum(one["overall"] for one in ROWS[1].scores[0.7]) / 20
    assert lines[1][2].startswith(f"{mean:.3f} ±".removeprefix("0"))


def test_differences_are_to_sft_best_and_without_it_to_the_first_row(report: Report) -> None:
    head, lines = report.differences
    assert head[0] == "minus sft_best" and "sft_best" not in [line[0] for line in lines]
    assert (
        lines[0][1].startswith("-.")
        and dict((line[0], line[1]) for line in lines)["coh: good, guidance 2"] == "+.000 ±.000"
    )
    assert Report.of(ROWS[2:], TEXTS, shown=1).differences[0][0] == "minus coh: good"


def test_the_terminals_tables_fit_into_80_columns(report: Report) -> None:
    longest = [row("sft_faultless", writer="good"), row("coh_critiques", "good"), row("coh_critiques", "bad")]
    lines = printed(Report.of([*ROWS, *longest], TEXTS, shown=1)).splitlines()
    assert max(map(len, lines)) <= 80
    scores = [line for line in lines if "±" in line and "%" in line]
    assert [line.split()[0] for line in scores] == ["base", "sft_best", "coh:", "sft_faultless", "coh_critiques:"]
    assert all(line.count("±") == 4 and "97.5% ±1.9%" in line and "…" not in line for line in scores)


def test_the_markdown_has_all_tables_and_both_sentences_of_a_post(report: Report) -> None:
    text = as_markdown(report)
    assert text.count("| coh: good, guidance 2 |") == 5
    assert "| temperature 0.7 | accuracy | coverage | coherence | overall |" in text
    faulty = [i for i in range(20) if not ROWS[0].scores[0.0][i]["faultless"]]
    assert [post in text for post in TEXTS] == [i in faulty[:2] for i in range(20)]
    assert re.search(r"^  coh, good  [.\d]+  \w+ went", text, flags=re.MULTILINE)
    assert re.search(r"^  coh, bad  [.\d]+  \w+ went", text, flags=re.MULTILINE)


def test_the_page_has_a_dot_with_its_interval_for_every_row_and_temperature(
    report: Report, tmp_path: Path, browser: Browser
) -> None:
    page = write_page(tmp_path / "report.html", "demo.html.j2", **report.page())
    for width in (1280, 360):
        with browser.screen(width, 800):
            browser.show(page.as_uri())
            assert browser.js("return document.querySelectorAll('svg circle').length") == len(ROWS) * 3
            assert browser.js("return document.querySelectorAll('svg g.bad').length") == 3
            assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.console() == []


def test_the_dots_of_a_picture_are_where_their_scores_are(report: Report) -> None:
    panel = report.page()["panels"][0]
    dots = [dot for line in panel["lines"] for dot in line["dots"]]
    assert [line["name"] for line in panel["lines"]] == [
        "base",
        "sft_best",
        "coh",
        "coh, cutoff alone",
        "coh, guidance 2",
    ]
    assert all(dot["low"] <= dot["x"] <= dot["high"] for dot in dots)
    marks = {float(mark["label"]): mark["x"] for mark in panel["marks"]}
    (left, x_left), *_, (right, x_right) = sorted(marks.items())
    for dot in dots:
        assert dot["x"] == pytest.approx(
            x_left + (float(dot["value"]) - left) / (right - left) * (x_right - x_left), abs=0.6
        )


def test_text_of_a_run_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    nasty = Report.of([row("<script>alert(1)</script>")], TEXTS, shown=1)
    page = write_page(tmp_path / "report.html", "demo.html.j2", **nasty.page()).read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_base_model_is_judged_on_unseen_posts_at_every_temperature() -> None:
    [base] = judge(None, base=str(HABITS_BASE), prompts=4, questions=4)
    assert (base.label, base.epochs) == ("base", None) and 0 <= base.ability <= 1
    assert base.questions == 4
    assert {len(texts) for texts in base.texts.values()} == {4} and set(base.scores) == set(TEMPERATURES)
    assert base.scores[0.0][0] == evaluate.rate(MADE[0], base.texts[0.0][0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompts", "0"], "--prompts is 0; it must be at least 1"),
        (["--jobs", "0"], "--jobs is 0; it must be at least 1"),
    ],
)
def test_mistakes_end_in_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert main(["run", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_folders_without_a_finished_run_and_runs_of_different_bases_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / name for name in ("one", "two", "three", "four")]
    with pytest.raises(InputError, match=r"one has no data\.json; give the folder of a finished run"):
        base_of(runs)
    bases = {"one": "world", "two": "world:habits", "three": "world:noise", "four": None}
    for run in runs:
        (run / "checkpoints").mkdir(parents=True)
        (run / "data.json").write_text("{}")
    with pytest.raises(InputError, match=r"one has no checkpoints/last\.ckpt; give the folder of a finished run"):
        base_of(runs)
    for run in runs:
        (run / "checkpoints" / "last.ckpt").write_text("")
    monkeypatch.setattr(
        "coh_lightning.model.checkpoints.read_checkpoint_info", lambda path: {"base": bases[path.parts[-3]]}
    )
    assert base_of(runs[:2]) == str(HABITS_BASE) and base_of(runs[2:3]) == str(NOISE_BASE)
    with pytest.raises(InputError, match=r"one began from .*/habits, and .*three from .*/noise; compare runs from one"):
        base_of(runs[:3])
    with pytest.raises(InputError, match="four began from random weights"):
        base_of(runs[3:])


def test_guidance_is_shown_with_its_control_where_sentences_are_bare() -> None:
    assert demo._variants("none") == [("", None)]
    assert demo._variants("critique") == [("good", None), ("bad", None)]
    assert demo._variants("polarity") == [("good", None), ("bad", None), ("good", 0.0), ("good", 2.0)]
