"""How raters are asked: questions by task, warnings of those that don't fit, languages, names, instructions."""

from __future__ import annotations

import json
import string
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.human_eval.export import export_study, notes
from coh_lightning.human_eval.form import QUESTION_SETS, languages, page_words, question_set, set_of_tasks
from coh_lightning.human_eval.ratings import import_ratings
from coh_lightning.human_eval.study import DEFINITIONS, Study, read_study
from helpers.browser import Browser
from helpers.completions import filled, lines_of, save
from helpers.rating_page import Rating


def export(folder: Path, *, prompt: str = "Name a fruit.", task: str = "", number: int = 4, **options: Any) -> Study:
    files = [
        lines_of(
            folder / f"{name}.jsonl",
            (
                {"id": f"p{n}", "prompt": f"{prompt} {n}", "completion": f"{name}, which is my answer number {n}."}
                | ({"task": task} if task else {})
                for n in range(number)
            ),
        )
        for name in ("apple", "pear")
    ]
    return export_study(files, folder / "study", **({"raters": 1, "overlap": 9} | options))


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("summary", "summary"),
        ("response", "dialogue"),
        ("code", "code"),
        ("answer", "instruction"),
        ("poem", "instruction"),
        ("", "instruction"),
    ],
)
def test_the_questions_follow_the_datas_task(tmp_path: Path, task: str, name: str) -> None:
    study = export(tmp_path, task=task, prompt="A text that is long enough for every answer. " * 3)
    assert study.form.questions == name and dict(study.definitions) == question_set(name)
    assert study.attributes == tuple(question_set(name)) and notes(study) == []
    assert read_study(tmp_path / "study") == study


def test_dialogues_and_mixed_tasks_have_their_questions() -> None:
    assert set_of_tasks(["answer"], dialogues=True) == "dialogue"
    assert set_of_tasks(["summary", "code"], dialogues=False) == "instruction"


def test_questions_can_be_chosen_by_name_or_written_in_a_file(tmp_path: Path) -> None:
    assert export(tmp_path, questions="code", attributes=["readable", "overall"]).attributes == ("readable", "overall")
    own = tmp_path / "own.yaml"
    own.write_text("taste: Which fruit tastes better?\nprice: Which is cheaper?\n")
    study = export(tmp_path, questions=str(own), define={"price": "Which costs less?"}, overwrite=True)
    assert dict(study.definitions) == {"taste": "Which fruit tastes better?", "price": "Which costs less?"}
    assert study.form.questions == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "'own.yml' is neither a file nor one of our question sets, summary, dialogue, instruction, code"),
        ("", "it has no questions; give lines of NAME: SENTENCE."),
        ("- a", "it has no questions; give lines of NAME: SENTENCE."),
        ("taste: ''", "'taste' has no sentence; give lines of NAME: SENTENCE."),
        ("taste: 3", "'taste' has no sentence; give lines of NAME: SENTENCE."),
        ("taste: Is apple better?", "The definition of 'taste' mentions the system 'apple'"),
    ],
)
def test_a_question_set_that_is_none_is_refused(
    tmp_path: Path, text: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("own.yml").write_text(text)
    with pytest.raises(InputError) as caught:
        export(tmp_path, questions="own.yml")
    assert says in str(caught.value) and not (tmp_path / "study").exists()


def test_a_question_about_what_the_prompt_says_is_warned_of_where_prompts_say_less_than_answers(tmp_path: Path) -> None:
    assert notes(export(tmp_path, questions="summary")) == [
        "accuracy and coverage ask what the prompt says, but in 4 of 4 items the prompt is shorter than an answer "
        "(such as 'Name a fruit. 0'); questions that need no source text: --questions instruction."
    ]
    german = export(tmp_path, questions="summary", language="de", attributes=["accuracy"], overwrite=True)
    assert notes(german)[0].startswith("accuracy asks what the prompt says, but in 4 of 4 items")
    own = {"accuracy": "Is it so?", "coverage": "Is all of it there?"}
    assert notes(export(tmp_path, questions="summary", define=own, overwrite=True)) == []


def test_our_definitions_are_those_of_the_sets() -> None:
    assert {name for each in QUESTION_SETS for name in question_set(each)} == set(DEFINITIONS)
    assert DEFINITIONS["accuracy"] == question_set("summary")["accuracy"]


# --- languages


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", languages())
def test_every_language_has_all_words_with_the_same_places_and_all_questions(language: str) -> None:
    words, english = page_words(language), page_words("en")
    assert words.keys() == english.keys() and all(words.values())
    assert [places(words[name]) for name in english] == [places(text) for text in english.values()]
    for name in QUESTION_SETS:
        assert question_set(name, language).keys() == question_set(name).keys()
        assert language == "en" or set(question_set(name, language).values()).isdisjoint(question_set(name).values())


def test_the_languages_are_the_files_beside_each_other() -> None:
    assert languages() == ("de", "en", "es", "zh")
    with pytest.raises(InputError, match="no words in the language 'dee', only in de, en, es, zh; did you mean 'de'"):
        export_study([], Path("nowhere"), language="dee")


@pytest.mark.parametrize("language", languages())
def test_the_page_speaks_one_language(browser: Browser, tmp_path: Path, language: str) -> None:
    study = export(tmp_path, language=language, prompt="7 ", contact="study@example.org")
    rating = Rating(browser)
    rating.open(study)
    words = page_words(language)
    assert rating.js("return document.documentElement.lang") == language
    seen = [rating.js("return document.body.innerText")]
    assert "study@example.org" in seen[0] and words["title"] in seen[0]
    rating.keys("ENTER", "1", "?")
    seen.append(rating.js("return document.body.innerText"))
    assert rating.text(
        "count"
    ) == f"{words['item'].format(number=1)} {words['of'].format(count=len(study.rows))} · " + (
        words["rated"].format(count=0)
    )
    assert all(sentence in seen[0] for sentence in study.definitions.values())
    for text in seen:
        assert "{" not in text and "undefined" not in text and "built-in" not in text
        if language != "en":  # no word of the English page is left
            english = [value for name, value in page_words("en").items() if value != words[name] and len(value) > 9]
            assert [value for value in english if value in text] == []


def test_votes_given_in_another_language_are_the_same_votes(browser: Browser, tmp_path: Path) -> None:
    study = export(tmp_path, language="zh")
    rating = Rating(browser)
    rating.open(study)
    rating.keys("ENTER", "1", "2", "3", "1", "ENTER")
    (tmp_path / "saved.csv").write_bytes(rating.saved())
    assert import_ratings(tmp_path / "study", [tmp_path / "saved.csv"]).judgments == 4


# --- names, instructions, contact


def test_raters_have_their_own_names(tmp_path: Path) -> None:
    study = export(tmp_path, rater_names=["Ana López", "王-2"], forms=["xlsx", "potato"])
    assert study.raters == ("Ana López", "王-2")
    assert {path.name for path in (tmp_path / "study/sheets").glob("*.csv")} == {"Ana López.csv", "王-2.csv"}
    cells = filled(study, "王-2", lambda *_: "A")
    imported = import_ratings(tmp_path / "study", [save(tmp_path / "s.csv", cells)])
    assert imported.judgments == len(study.rater_rows("王-2")) * len(study.attributes)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a/b"], "The rater 'a/b' can't name a sheet"),
        (["judge:m"], "The rater 'judge:m' can't name a sheet"),
        ([".."], "The rater '..' can't name a sheet"),
        (["Ana", "ana"], "The rater 'ana' is given twice"),
        (["Instructions"], "is the name of another file"),
        (["x" * 61], "can't name a sheet"),
    ],
)
def test_names_that_are_no_names_of_files_are_refused(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        export(tmp_path, rater_names=names)
    assert says in str(caught.value)


def test_own_instructions_and_a_contact_stand_in_every_form(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text("# Read\n\n<script>alert(1)</script> Take *your* time.\n")
    study = export(
        tmp_path, instructions=tmp_path / "own.md", contact="write to <me>", forms=["xlsx", "label-studio", "potato"]
    )
    folder = tmp_path / "study"
    assert read_study(folder).form == study.form
    for path in (folder / "sheets/instructions.txt", folder / "study.json"):
        text = path.read_text()
        assert "Take *your* time." in text and "write to <me>" in text
    potato = (folder / "forms/potato/config.yaml").read_text()
    assert "<script>" not in potato and "Take *your* time." in potato
    assert "Take *your* time." in (folder / "forms/label_studio/rater-1.xml").read_text()
    rating = Rating(browser)
    rating.open(study)
    for shown in ("start", "keys"):  # as Markdown, without HTML
        assert "<script>alert(1)</script> Take your time." in rating.text(shown)
        assert "write to <me>" in rating.text(shown)
    assert rating.js("return document.querySelectorAll('#start script, #keys script').length") == 0
    assert rating.js("return document.querySelector('#start .own h1').textContent") == "Read"


def test_instructions_that_name_a_system_or_say_nothing_are_refused(tmp_path: Path) -> None:
    for text, says in (("The apple is better.", "The instructions mentions the system 'apple'"), (" \n", "is empty")):
        (tmp_path / "own.md").write_text(text)
        with pytest.raises(InputError, match=says):
            export(tmp_path, instructions=tmp_path / "own.md")


def test_a_study_of_an_earlier_version_has_the_default_form(tmp_path: Path) -> None:
    export(tmp_path, task="summary")
    path = tmp_path / "study/study.json"
    old = json.loads(path.read_text())
    assert old.pop("form") == {"questions": "summary"}
    path.write_text(json.dumps(old))
    assert read_study(tmp_path / "study").form.language == "en"
    path.write_text(json.dumps(old | {"form": {"language": "xx"}}))
    with pytest.raises(InputError, match="there are no words in the language 'xx'"):
        read_study(tmp_path / "study")


def test_the_words_and_questions_are_installed() -> None:
    folder = resources.files("coh_lightning.human_eval")
    assert all(folder.joinpath("questions", f"{name}.yaml").is_file() for name in QUESTION_SETS)
