"""The road that a user walks: two completions files, `human-eval export`, sheets filled in, `human-eval import`,
judgments.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coh_lightning.__main__ import main
from coh_lightning.human_eval.study import read_study
from helpers.completions import lines_of, table


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> tuple[Path, Path]:
    a = lines_of(
        folder / "a.jsonl",
        ({"id": f"p{n}", "prompt": f"Q{n}", "completion": f"- long answer {n}", "system": "old"} for n in range(3)),
    )
    b = lines_of(
        folder / "new.jsonl", ({"id": f"p{n}", "prompt": f"Q{n}", "completion": f"=short {n}"} for n in (0, 1, 2, 9))
    )
    return a, b


def test_from_completions_to_judgments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = files(tmp_path)
    folder = tmp_path / "study"
    words = [
        "--output",
        str(folder),
        "--raters",
        "2",
        "--overlap",
        "1",
        "--attributes",
        "overall",
        "coherence",
        "--seed",
        "5",
        "--swaps",
        "0",
        "--identical",
        "0",
    ]
    assert main(["human-eval", "export", str(a), str(b), *words]) == 0
    said = capsys.readouterr().out
    assert "3 items of 3 prompts, comparing new and old" in said
    assert "1 prompt of 'new' had no counterpart; left out: p9." in said

    expected = []
    for rater in ("rater-1", "rater-2"):
        path = folder / "sheets" / f"{rater}.csv"
        rows = table(path)
        assert {row["answer_a"][:2] for row in rows} | {row["answer_b"][:2] for row in rows} == {"'-", "'="}
        for number, row in enumerate(rows):
            # overall goes to the longer answer; coherence is a tie in the first row, and left open in the others
            longer = "A" if len(row["answer_a"]) > len(row["answer_b"]) else "B"
            row |= {
                "overall": longer,
                "coherence": "=" if number == 0 else "",
                "seconds": "30",
                "comment": "hm" if number else "",
            }
            systems = ["old", "new"] if longer == "A" else ["new", "old"]
            item = next(one.item for one in read_study(folder).rows if one.row == row["row_id"])
            common = {"item": item, "row": row["row_id"], "prompt_id": f"p{row['prompt'][1:]}", "rater": rater}
            about = {"systems": systems, "check": "", "seconds": 30.0, "comment": "hm" if number else ""}
            for attribute, choice in (("overall", "old"), ("coherence", "tie")):
                if attribute == "overall" or number == 0:
                    expected.append(common | {"attribute": attribute, "choice": choice} | about)
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
        path.write_bytes(out.getvalue().encode("utf-16"))

    sheets = [str(folder / "sheets" / f"rater-{number}.csv") for number in (1, 2)]
    assert main(["human-eval", "import", str(folder), *sheets]) == 0
    assert capsys.readouterr().out.startswith("6 of 8 judgments, 6 of them new\nmissing: 2\n")
    assert lines(folder / "judgments.jsonl") == expected
    assert main(["human-eval", "import", str(folder), sheets[0]]) == 0
    assert lines(folder / "judgments.jsonl") == expected

    bad = Path(sheets[0])
    bad.write_text(bad.read_text(encoding="utf-16").replace(";A;", ";best;").replace(";B;", ";best;"), encoding="utf-8")
    assert main(["human-eval", "import", str(folder), str(bad)]) == 1
    assert f"{bad}:2: 'best' is not a choice for overall; write A, tie or B." in capsys.readouterr().out
    assert lines(folder / "judgments.jsonl") == expected


def test_every_form_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    a, b = files(tmp_path)
    folder = tmp_path / "study"
    words = ["--raters", "3", "--overlap", "9", "--attributes", "overall", "--forms", "xlsx", "label-studio", "potato"]
    assert main(["human-eval", "export", str(a), str(b), "--output", str(folder), *words]) == 0
    study = read_study(folder)

    book = openpyxl.load_workbook(folder / "forms" / "rater-1.xlsx")
    sheet = next(each for each in book.worksheets if each.cell(2, 1).value == "row_id")
    column = [cell.value for cell in sheet[2]].index("overall") + 1
    for number in range(3, sheet.max_row + 1):
        sheet.cell(number, column).value = "A"
    book.save(tmp_path / "one.xlsx")

    tasks = json.loads((folder / "forms" / "label_studio" / "rater-2.json").read_text(encoding="utf-8"))
    for task in tasks:
        result = [{"type": "choices", "from_name": "overall", "to_name": "answer_a", "value": {"choices": ["tie"]}}]
        task["annotations"] = [{"result": result, "lead_time": 4.5, "completed_by": 1}]
    (tmp_path / "two.json").write_text(json.dumps(tasks))

    three = [row for row, _ in study.rater_rows("rater-3")]
    labels = {row.row: [[{"schema": "comparison", "name": "overall"}, "B"]] for row in three}
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "user_state.json").write_text(json.dumps({"instance_id_to_label_to_value": labels}))

    capsys.readouterr()
    assert (
        main(
            [
                "human-eval",
                "import",
                str(folder),
                str(tmp_path / "one.xlsx"),
                str(tmp_path / "two.json"),
                str(tmp_path / "three"),
            ]
        )
        == 0
    )
    assert (
        capsys.readouterr().out == f"{len(study.rows)} of {len(study.rows)} judgments, {len(study.rows)} of them new\n"
    )
    for line in lines(folder / "judgments.jsonl"):
        systems = line["systems"]
        assert isinstance(systems, list)
        assert line["choice"] == {"rater-1": systems[0], "rater-2": "tie", "rater-3": systems[1]}[str(line["rater"])]


def test_an_error_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["human-eval", "export", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'a.jsonl'}: there is no such file.\n"
    a, b = files(tmp_path)
    assert main(["human-eval", "export", str(a), str(b), "--output", str(tmp_path / "s"), "--define", "overall"]) == 2
    assert capsys.readouterr().err == "error: --define 'overall' has no '='; give NAME=SENTENCE.\n"
    assert main(["human-eval", "import", str(tmp_path / "s"), str(a)]) == 2
    assert "items.jsonl: no such file; give the folder that human-eval export wrote" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["exprot"], ["export"], ["import", "x"]])
def test_unknown_subcommands_and_options_are_refused_in_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["human-eval", *words]) == 2
    error = capsys.readouterr().err
    named = " ".join(["human-eval", *(word for word in words if word in ("export", "import"))])
    assert (
        error.startswith(f"error: {named}: ")
        and error.endswith("; --help lists the options.\n")
        and error.count("\n") == 1
    )


@pytest.mark.parametrize("part", ["plan", "export", "import", "report"])
def test_each_part_has_its_help(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["human-eval", part, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: coh human-eval {part}")


def test_export_and_import_load_no_scipy_pandas_or_torch(tmp_path: Path) -> None:
    a, b = files(tmp_path)
    code = f"""
import sys
from coh_lightning.__main__ import main
main(["human-eval", "export", {str(a)!r}, {str(b)!r}, "--output", {str(tmp_path / "s")!r}])
main(["human-eval", "import", {str(tmp_path / "s")!r}, {str(tmp_path / "s/sheets/rater-1.csv")!r}])
print("loaded", *sorted({{name.split(".")[0] for name in sys.modules}}))"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (
        set(done.stdout.splitlines()[-1].split())
        & {"torch", "lightning", "transformers", "datasets", "scipy", "pandas", "numpy", "matplotlib", "openpyxl"}
        == set()
    )
