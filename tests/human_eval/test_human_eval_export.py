"""The folder of a study: whole or not at all, never over judgments, and blind but for its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.human_eval import export as module
from coh_lightning.human_eval.export import export_study, notes
from coh_lightning.human_eval.export_checks import EXCLUSION
from coh_lightning.human_eval.export_command import summary
from coh_lightning.human_eval.study import Study, read_study
from helpers.completions import completions, lines_of, own


def export(folder: Path, *, names: tuple[str, ...] = ("old", "new"), **options: Any) -> Study:
    return export_study(
        [completions(folder, name, options.pop("number", 12)) for name in names], folder / "study", **options
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_study_has_sheets_a_page_and_one_key(tmp_path: Path) -> None:
    study = export(tmp_path, raters=2)
    folder = tmp_path / "study"
    assert files(folder) == [
        "items.jsonl",
        "key.json",
        "rate.html",
        "sheets/instructions.txt",
        "sheets/rater-1.csv",
        "sheets/rater-2.csv",
        "study.json",
    ]
    assert read_study(folder) == study
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    export(tmp_path)
    first = {name: (tmp_path / "study" / name).read_bytes() for name in files(tmp_path / "study")}
    export(tmp_path)
    assert {name: (tmp_path / "study" / name).read_bytes() for name in files(tmp_path / "study")} == first


def test_raters_files_do_not_reveal_system_ask_marker_or_path(tmp_path: Path) -> None:
    a = lines_of(
        tmp_path / "secret-file.jsonl",
        [own(str(n), f"first {n}", system="secret-a", ask="secret-ask", marker="secret marker:") for n in range(9)],
    )
    b = lines_of(
        tmp_path / "secret-b.jsonl",
        [{"id": str(n), "prompt": f"Question {n}?", "completion": f"second {n}"} for n in range(9)],
    )
    export_study([a, b], tmp_path / "study", raters=2, seed=31415926)
    folder = tmp_path / "study"
    key = (folder / "key.json").read_text()
    assert "secret-a" in key and "secret-b" in key and "secret-ask" in key
    for name in files(folder):
        content = (folder / name).read_bytes()
        if name != "key.json":
            assert not [
                word for word in (b"secret", b"31415926", str(tmp_path).encode(), b"sha of") if word in content
            ], name


def test_a_completion_may_contain_a_systems_name(tmp_path: Path) -> None:
    a = lines_of(tmp_path / "a.jsonl", [{"id": "1", "prompt": "Who?", "completion": "I am <b>a</b>, not b."}])
    b = lines_of(tmp_path / "b.jsonl", [{"id": "1", "prompt": "Who?", "completion": "=b"}])
    study = export_study([a, b], tmp_path / "study", raters=1)
    assert {text for item in study.items for text in item.texts} == {"I am <b>a</b>, not b.", "=b"}


def test_the_key_has_rules_systems_sampling_and_unmatched_prompts(tmp_path: Path) -> None:
    a = completions(tmp_path, "a", 4, sampling={"temperature": 1.0, "seed": 4})
    b = completions(tmp_path, "b", 3)
    key = export_study(
        [a, b], tmp_path / "study", raters=1, exclusion={"min_gold": None, "min_consistency": 0.7}, against="b"
    ).key
    assert json.loads((tmp_path / "study" / "key.json").read_text()) == key
    assert key["exclusion"] == {
        **{name: bound for name, bound in EXCLUSION.items() if name != "min_gold"},
        "min_consistency": 0.7,
    }
    assert (key["systems"], key["against"]) == (["a", "b"], "b")
    assert key["sampling"] == {"a": {"temperature": 1.0}, "b": None}
    assert key["unmatched"] == {"a": ["p3"], "b": []}
    assert key["completions"] == {name: {"file": f"{name}.jsonl", "ask": "", "samples": 1} for name in "ab"}


def test_a_folder_with_judgments_is_never_replaced(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "study" / "judgments.jsonl").write_text("{}\n")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="the study there has judgments, which would lose their key"):
            export(tmp_path, seed=1, overwrite=overwrite)
    assert read_study(tmp_path / "study").seed == 0


def test_another_study_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    export(tmp_path)
    with pytest.raises(InputError, match=r"another study is there, .* without its key\.json"):
        export(tmp_path, seed=1)
    assert read_study(tmp_path / "study").seed == 0
    export(tmp_path, seed=1, overwrite=True)
    assert read_study(tmp_path / "study").seed == 1


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="the folder has other files and no study"):
        export(tmp_path, overwrite=True)
    (tmp_path / "study" / "thesis.tex").unlink()
    export(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is not a folder"):
        export_study([completions(tmp_path, "a"), completions(tmp_path, "b")], tmp_path / "file")


def test_an_interrupted_export_leaves_the_old_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path)

    def broken(study: Study, path: Path) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(module, "write_rating_page", broken)
    with pytest.raises(RuntimeError, match="interrupted"):
        export(tmp_path, seed=1, overwrite=True)
    assert read_study(tmp_path / "study").seed == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jsonl", "old.jsonl", "study"]


def test_against_references_makes_them_the_baseline(tmp_path: Path) -> None:
    a = completions(tmp_path, "a", reference="What people wrote.")
    key = export_study([a], tmp_path / "study", against_references=True).key
    assert (key["systems"], key["against"], key["sampling"]) == (
        ["a", "reference"],
        "reference",
        {"a": None, "reference": None},
    )
    with pytest.raises(InputError, match="References are single answers"):
        export_study([a], tmp_path / "study", against_references=True, dialogues=True)


@pytest.mark.parametrize("name", ["हिन्दी में सही", "व्याकरण-2", "точность", "有用", "می\u200cشود"])
def test_an_attribute_may_be_named_in_any_script(tmp_path: Path, name: str) -> None:
    study = export(tmp_path, attributes=(name, "overall"), define={name: "?"})
    assert study.attributes == (name, "overall")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attributes": ()}, "No attribute is given"),
        (
            {"attributes": ("wit",)},
            "Raters need a sentence for the attribute 'wit'; give --define 'wit=Which answer ...?'",
        ),
        ({"attributes": ("overall", "Overall")}, "The attribute 'Overall' is given twice"),
        ({"attributes": ("comment",)}, "'comment' is given twice, or is another column of the sheets"),
        ({"attributes": ("=1",)}, "The attribute '=1' can't name a column"),
        (
            {"define": {"corect": "?"}},
            "'corect' is defined but not among the attributes follows, correct, clear, overall; did you mean "
            "'correct'?",
        ),
        ({"define": {"overall": " "}}, "The definition of 'overall' is empty"),
        (
            {"define": {"overall": "Is New better?"}},
            "The definition of 'overall' mentions the system 'new', which raters must not know",
        ),
        ({"title": "old against all"}, "The title mentions the system 'old'"),
        ({"title": "比较old和其他"}, "The title mentions the system 'old'"),
        ({"title": "\ud800"}, "title has the lone surrogate U+D800"),
        (
            {"forms": ["xls"]},
            "There is no form 'xls'; give one of xlsx, label-studio, potato; did you mean 'xlsx'?",
        ),
        ({"exclusion": {"min_gould": 1}}, "There is no exclusion rule 'min_gould'"),
        ({"exclusion": {"min_gold": 2}}, "The exclusion rule min_gold is 2; it must be at least 0 and at most 1."),
        ({"max_prompts": 0}, "The number of prompts to keep is 0; it must be at least 1."),
        ({"names": ("one",)}, "A study compares two systems, but only one was given"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        export(tmp_path, **options)
    assert says in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_a_lone_surrogate_is_refused_by_completion_file_and_line(tmp_path: Path) -> None:
    a = completions(tmp_path, "a")
    b = lines_of(
        tmp_path / "b.jsonl",
        [
            {"id": "p0", "prompt": "Question 0?", "completion": "x"},
            {"id": "p1", "prompt": "Question 1?", "completion": "\udc00"},
        ],
    )
    with pytest.raises(
        InputError, match=r"b\.jsonl:2 \(completion of 'p1'\): completion has the lone surrogate U\+DC00"
    ):
        export_study([a, b], tmp_path / "study")


def test_custom_attributes_use_the_given_definitions(tmp_path: Path) -> None:
    study = export(tmp_path, attributes=("wit", "overall"), define={"wit": "Which answer is funnier?"})
    assert study.definitions["wit"] == "Which answer is funnier?"
    assert "wit: Which answer is funnier?" in (tmp_path / "study/sheets/instructions.txt").read_text()


def test_export_notes_sampling_unmatched_prompts_equal_and_long_texts(tmp_path: Path) -> None:
    a = completions(tmp_path, "a", 4, sampling={"temperature": 1})
    b = lines_of(
        tmp_path / "b.jsonl",
        [
            {
                "id": f"p{n}",
                "prompt": f"Question {n}?",
                "completion": "a's answer 0" if n == 0 else "b" * 40_000,
                "sampling": {"temperature": 2},
            }
            for n in range(3)
        ],
    )
    study = export_study([a, b], tmp_path / "study", raters=1, identical=0)
    assert notes(study) == [
        "'a' and 'b' were sampled differently: temperature 1 and 2.",
        "1 prompt of 'a' had no counterpart; left out: p3.",
        "In 1 of 3 items both systems wrote the same text, which is a tie.",
        "2 of 3 items have a text of more than 32,767 characters, which Excel cuts off; have them rated in rate.html.",
    ]
    assert (
        summary(study, tmp_path / "study").splitlines()[0]
        == f"study {study.id}: 3 items of 3 prompts, comparing a and b"
    )
