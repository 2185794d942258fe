"""`preview`: what it prints, exactly; that people's text stays text; and how mistakes end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.__main__ import main
from helpers.browser import Browser
from helpers.tokenizers import CHATML, byte_level, character

ROOT = Path(__file__).parents[2]

TWO = [
    {"id": "one", "prompt": "Q", "completions": [{"text": "a", "rank": 1}, {"text": "bc", "rank": 2}]},
    {"id": "two", "prompt": "Z", "completions": [{"text": "d", "thumb": False}]},
]
NASTY = "<script>alert(1)</script> [bold red]x[/] \x1b[31m \x9b2J \u202e &amp; :smile:"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with the character tokenizer in `characters` and short sentences in short.yaml."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    character().save_pretrained(tmp_path / "characters")
    pairs = "pairs: [{good: 'G', bad: 'B'}]"
    (tmp_path / "short.yaml").write_text(
        f"data:\n  tokenizer: characters\n  wording: {{{pairs}}}\n  prompt_format: {{before_marker: '>', "
        f"before_output: ':'}}\n"
        f"  cache_dir: {tmp_path / 'cache'}\n  max_prompt_tokens: 8\n  max_chain_tokens: 64\n  row_tokens: 64\n"
    )
    return tmp_path


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path.name


def preview(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["preview", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that ends with 2 and prints nothing."""
    capsys.readouterr()
    assert main(["preview", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "Traceback" not in err
    return line


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in preview(capsys, *words, "--json").splitlines()]


def test_json_is_exactly_one_line_per_chain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder / "two.jsonl", TWO)
    found = lines(capsys, file, "--config", "short.yaml")
    # the ids of the character tokenizer: <s> 1, </s> 2, "\n" 3, then " " 4 and so on
    ids = {text: 4 + ord(text) - 32 for text in "Q>GB:abcdZ"} | {"<s>": 1, "</s>": 2}

    def line(record: str, chain: int, *segments: tuple[str, float]) -> dict[str, Any]:
        tokens = [(token, weight) for text, weight in segments for token in ([text] if text.startswith("<") else text)]
        return {
            "record": record,
            "chain": chain,
            "segments": [{"text": text, "weight": weight} for text, weight in segments],
            "ids": [ids[token] for token, _ in tokens],
            "weights": [weight for _, weight in tokens],
        }

    start, good, bad, end = (("<s>", 0.0), ("Q>", 0.0)), ("a", 1.0), ("bc", 1.0), ("</s>", 1.0)
    assert found == [
        line("two/one", 0, *start, ("G:", 0.0), good, end),
        line("two/one", 1, *start, ("B:", 0.0), bad, end),
        line("two/one", 2, *start, ("G:", 0.0), good, end, (">B:", 0.0), bad, end),
        line("two/one", 3, *start, ("B:", 0.0), bad, end, (">G:", 0.0), good, end),
        line("two/two", 0, ("<s>", 0.0), ("Z>", 0.0), ("B:", 0.0), ("d", 1.0), end),
    ]


def test_unlearned_tokens_have_a_negative_weight(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder / "two.jsonl", TWO[:1])
    found = lines(capsys, file, "--config", "short.yaml", "--data.method.unlikelihood=0.25", "--data.method.orders=[n]")
    assert [(segment["text"], segment["weight"]) for segment in found[0]["segments"]][-2:] == [
        ("bc", -0.25),
        ("</s>", -0.25),
    ]


@pytest.mark.parametrize(
    "settings", [[], ["--data.method.loss_on=last"], ["--data.prompt_format.kind=chat", "--data.tokenizer=chat"]]
)
def test_decoded_learned_segments_are_the_outputs(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: list[str]
) -> None:
    byte_level(CHATML).save_pretrained(folder / "chat")
    outputs = {"An apple, of course.", f"日本 {NASTY}"}
    file = write(
        folder / "f.jsonl",
        [
            {
                "prompt": "Name a fruit.",
                "completions": [{"text": text, "rank": rank} for rank, text in enumerate(sorted(outputs))],
            }
        ],
    )
    found = lines(capsys, file, *settings)
    assert len(found) == 4
    learned = [segment["text"] for line in found for segment in line["segments"] if segment["weight"]]
    assert set(learned[0::2]) == outputs and set(learned[1::2]) == {
        "<|im_end|>" if settings and "chat" in settings[0] else "<|end|>"
    }
    assert all(len(line["ids"]) == len(line["weights"]) for line in found)


def test_num_counts_records_and_zero_is_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        folder / "many.jsonl",
        [{"prompt": f"Q{number}", "completions": [{"text": "a", "thumb": True}]} for number in range(5)],
    )
    shown = [len(lines(capsys, file, "--config=short.yaml", *words)) for words in ([], ["--num=1"], ["--num", "0"])]
    assert shown == [3, 1, 5]


def test_the_text_shows_records_chains_tree_and_totals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tie = {"prompt": "T", "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}
    long = {
        "prompt": [{"text": "0123456789", "cut": "back"}],
        "completions": [{"text": "a", "rating": 5, "critique": "so so"}],
        "scale": [1, 5],
    }
    text = preview(capsys, write(folder / "f.jsonl", [*TWO, tie, long]), "--config=short.yaml")
    assert "\x1b" not in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for row in (
        "record 1 of 3 · f/one · f.jsonl:1",
        "answer 2 bc",
        "overall 5 (1 to 5) · “so so”",
        "chain 3 of 4 · 13 tokens, 5 learned (38%)",
        "prompt 3 read <s>Q>",
        "prompt 3 read as above",
        "sentence 2 read G:",
        "bad 3 learn 1 bc</s>",
        "tree · 23 tokens instead of 41 (1.8x fewer)",
        "├── sentence 2 read B:",
        "│ bad 3 learn 2 bc</s>",
        "└── sentence 2 read G:",
        "prompt 8 read <s>012345[✂ 4 tokens cut]>",
        "records 4, of which 3 are used",
        "cut 1 prompt lost 4 tokens (data.max_prompt_tokens 8)",
        "rejected 1",
        "1 tie (first: f.jsonl:3)",
    ):
        assert any(found.startswith(row) for found in rows), (row, text)


def test_tokens_that_are_learned_and_unlearned_show_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        folder / "f.jsonl", [{"prompt": "Q", "completions": [{"text": "xa", "rank": 1}, {"text": "xb", "rank": 2}]}]
    )
    text = preview(
        capsys,
        file,
        "--config=short.yaml",
        "--data.method.unlikelihood=0.5",
        "--data.method.orders=[p, n]",
        "--data.method.sentences=none",
    )
    assert "good/bad 1 +1 -0.5 x" in [" ".join(line.split()) for line in text.splitlines()]


def test_colors_distinguish_learned_read_and_unlearned(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    file = write(folder / "f.jsonl", TWO[:1])
    words = [file, "--config=short.yaml", "--data.method.unlikelihood=0.5"]
    text = preview(capsys, *words)
    assert (
        "\x1b[38;5;34ma\x1b[0m" in text
        and "\x1b[38;5;160mb\x1b[0m\x1b[38;5;167mc\x1b[0m" in text
        and "\x1b[2mQ" in text
    )
    judged = [{"prompt": "Q", "completions": [{"text": "a", "rank": 1}, {"text": "bc", "rank": 2, "critique": "de"}]}]
    reviewed = [write(folder / "r.jsonl", judged), "--config=short.yaml", "--data.method=conf/method/reviewed.yaml"]
    reviewed += ["--data.wording.review=R", "--data.wording.improve=S"]
    for weight in (1, 0):  # learned or only read
        text = preview(capsys, *reviewed, f"--data.method.feedback_weight={weight}")
        assert "\x1b[38;5;33md\x1b[0m\x1b[38;5;75me\x1b[0m" in text and "\x1b[38;5;34mb" in text
    preview(capsys, *reviewed, "--html", str(folder / "page.html"))
    assert '<tr class="review">' in (folder / "page.html").read_text(encoding="utf-8")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in preview(capsys, *words)


def test_peoples_text_is_neither_markup_nor_control_characters(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {
        "id": NASTY,
        "prompt": NASTY,
        "completions": [{"text": NASTY, "thumb": True, "critique": NASTY, "author": NASTY}],
    }
    text = preview(capsys, write(folder / "f.jsonl", [record]))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "[bold red]x[/] \\x1b[31m \\x9b2J \\u202e &amp; :smile:" in text.replace("\n", " ")


RIGHT_TO_LEFT = [
    {
        "id": "שאלה-7",
        "prompt": "מהו פרי? (עד 5 מילים)",
        "completions": [{"text": "תפוח, לדוגמה 3.", "rank": 1}, {"text": "An اكتب 12!", "rank": 2, "critique": "לא"}],
    }
]


def test_text_from_right_to_left_is_isolated_line_by_line_and_takes_no_more_room(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """⁦...⁩ left to right, ⁧...⁩ right to left."""
    from rich.cells import cell_len

    file = write(folder / "f.jsonl", [*RIGHT_TO_LEFT, TWO[0]])
    longer = [f"--data.{name}" for name in ("max_prompt_tokens=40", "max_chain_tokens=90", "row_tokens=90")]
    text = preview(capsys, file, "--config=short.yaml", *longer)
    own, other = text.split("record 2 of 2")
    assert not re.search("[\u2066-\u2069]", other)
    lines = [line for line in own.split("\n") if re.search("[\u0590-\u06ff]", line)]
    assert lines
    for line in lines:
        inside = "".join(re.findall("[\u2066\u2067](.*?)\u2069", line))
        letters = "[\u0590-\u06ff]"
        assert re.findall(letters, inside) == re.findall(letters, line), line  # all of them are in an isolate
        assert cell_len(line.rstrip()) <= 100
    assert re.search("user +\u2067מהו פרי", own) and re.search("answer 2 +\u2066An اكتب 12!", own)
    bare = re.sub("[\u2066-\u2069]", "", own)
    assert "· f/שאלה-7 · f.jsonl:1" in bare


def test_text_from_right_to_left_has_its_direction_on_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str], browser: Browser
) -> None:
    """The first letter is at the right of its text, the full stop at the left."""
    preview(capsys, write(folder / "f.jsonl", RIGHT_TO_LEFT), "--html", "page.html")
    browser.show((folder / "page.html").as_uri())
    places = browser.js(
        "const cell = [...document.querySelectorAll('.facts .text')][1].firstChild;"
        "return [0, cell.length - 1].map(place => {"
        "  const range = document.createRange(); range.setStart(cell, place); range.setEnd(cell, place + 1);"
        "  return range.getBoundingClientRect().left })"
    )
    assert places[0] > places[1]
    assert browser.js("return document.querySelectorAll('h2 bdi').length") == 3


def test_one_record_is_one_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["preview", write(folder / "f.jsonl", TWO[:1]), "--html=page.html"]) == 0
    assert "wrote page.html: 1 of 1 record\n" in capsys.readouterr().err
    assert "1 of 1 record. Tokens" in (folder / "page.html").read_text()


def test_one_of_a_thing_is_one_in_the_summary_of_a_run(folder: Path) -> None:
    """Four of the words of a prompt are too many, and one completion of three is in no chain."""
    from coh_lightning.data import CoHDataModule

    record = {
        "prompt": "x" * 9,
        "completions": [{"text": text, "rank": rank} for text, rank in (("a", 1), ("b", 2), ("c", 3))],
    }
    sizes = {"max_prompt_tokens": 9, "max_chain_tokens": 60, "row_tokens": 60, "tokenizer": "characters"}
    shares = {"validation_share": 0.0, "test_share": 0.0, "cache_dir": str(folder / "cache")}
    data = CoHDataModule(records=[record], **sizes, **shares)  # type: ignore[arg-type]
    data.setup()
    said = dict(data.summary())
    assert "(1 completion is in none)" in said["chains"] and "1 prompt cut by " in said["chains"]


def test_only_the_near_name_of_a_data_file_is_proposed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("feedback.log", "feedbacks.md", "other.jsonl"):
        (folder / name).write_text("")
    (folder / "feedbacks.jsonl").mkdir()
    assert refused(capsys, "feedback.jsonl") == "error: feedback.jsonl: there is no such file."
    (folder / "feedbck.csv.gz").write_text("")
    (folder / "feedback.json").write_text("")
    assert refused(capsys, "feedbak.jsonl") == (
        "error: feedbak.jsonl: there is no such file; did you mean 'feedback.json'?"
    )


def test_the_page_escapes_everything_and_loads_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {
        "id": NASTY,
        "prompt": NASTY,
        "completions": [{"text": NASTY, "rank": 1, "critique": NASTY}, {"text": "b", "rank": 2, "revision": NASTY}],
    }
    assert preview(capsys, write(folder / "f.jsonl", [record]), "--html", "page.html") == ""
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page and "\u202e" not in page
    assert not re.search(r"https?:|src=|href=|url\(|\son\w+=|style=", page.split("</style>")[1])
    assert "default-src 'none'; style-src 'sha256-" in page and "unsafe" not in page
    assert sorted(path.name for path in folder.glob("*page*")) == ["page.html"]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from coh_lightning.__main__ import main; status = main(['preview', '--help'])\n"
        "heavy = {'torch', 'lightning', 'transformers', 'datasets', 'jsonargparse', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ
    )
    assert run.returncode == 0, run.stderr
    for option in ("FEEDBACK_FILE", "--config", "--data.KEY", "--num", "--json", "--html"):
        assert option in run.stdout


def test_a_folder_and_a_pattern_are_previewed_as_they_are_trained_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "many").mkdir()
    write(folder / "many" / "f.jsonl", TWO)
    shown = [
        lines(capsys, words, "--config=short.yaml")
        for words in ("many/f.jsonl", "many", "many/*.jsonl", str(folder / "many"))
    ]
    texts = [[(one["chain"], one["segments"]) for one in chains] for chains in shown]
    assert texts == [texts[0]] * 4 and texts[0]
    assert refused(capsys, "none*.jsonl") == "error: none*.jsonl: no file matches this pattern."
    assert refused(capsys, "none") == "error: none: there is no such file."


def test_the_settings_of_fit_are_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fit.yaml").write_text(
        "run: {name: x}\ntrainer: {max_steps: 3, callbacks: [{class_path: nowhere.Thing}]}\n"
        "model: {name_or_path: characters}\ndata:\n  tokenizer: ${model.name_or_path}\n"
        "  feedback: gone.jsonl\n  cache_dir: cache\n"
    )
    file = write(folder / "two.jsonl", TWO)
    found = lines(
        capsys,
        file,
        "--config=fit.yaml",
        "--model.lr=1e-4",
        "--trainer.max_steps",
        "4",
        "--run.name=y",
        "--seed_everything=3",
    )
    assert len(found) == 5 and found[0]["segments"][0] == {"text": "<s>", "weight": 0.0}


def test_mistakes_end_in_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder / "two.jsonl", TWO)
    (folder / "broken.jsonl").write_text(json.dumps(TWO[0]) + '\n{"prompt": "Q", \n')
    (folder / "unknown.jsonl").write_text(json.dumps({"prompt": "Q", "completions": [{"text": "a", "rnak": 1}]}) + "\n")
    (folder / "typo.yaml").write_text("data:\n  row_token: 64\n")
    ties = write(
        folder / "ties.jsonl", [{"prompt": "T", "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}]
    )
    (folder / "empty.jsonl").write_text("")
    assert "gone.jsonl" in refused(capsys, "gone.jsonl")
    assert "empty.jsonl" in refused(capsys, "empty.jsonl")
    assert "broken.jsonl:2" in refused(capsys, "broken.jsonl")
    assert re.search(r"unknown.jsonl:1.*rnak.*rank", refused(capsys, "unknown.jsonl"))
    assert re.search(
        r"data.row_token; did you mean data.row_tokens\? \(typo.yaml:2\)",
        refused(capsys, file, "--config", "typo.yaml"),
    )
    assert "did you mean data.method.loss_on?" in refused(capsys, file, "--data.method.loss_onn=last")
    assert "did you mean '--json'?" in refused(capsys, file, "--jsn")
    assert "--num" in refused(capsys, file, "--num=many")
    assert "none of 1 record" in refused(capsys, ties) and "tie" in refused(capsys, ties)
    assert ".html" in refused(capsys, "--html", file) and (folder / file).read_text().startswith("{")
    assert "no folder" in refused(capsys, file, "--html", "no/where.html")


@pytest.mark.realdata
def test_real_dialogues_are_shown(folder: Path, capsys: pytest.CaptureFixture[str], real_data: Path) -> None:
    words = ["--config", str(ROOT / "tests/conf/hh_sample.yaml"), f"--data.cache_dir={folder / 'cache'}"]
    text = preview(capsys, *words, "--num=1")
    assert "record 1 of" in text and "in the loss" in text
    for line in lines(capsys, *words, "--num=20"):
        assert [segment["weight"] for segment in line["segments"][:1]] == [0.0] and sum(line["weights"]) > 0
