"""What users' scorers and critics return is checked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coh_lightning.errors import InputError
from coh_lightning.generation.scorers import TAKEN, load_critic, load_scorer, score
from coh_lightning.generation.text_metrics import completion_values
from helpers.completions import completion


@pytest.fixture
def raters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with a user's module of scorers."""
    (tmp_path / "my_raters.py").write_text(
        """
import math
def length(completion):
    return {"length": len(completion.text)}
def both(completions):
    return [{"length": len(one.text), "a": completion_number} for completion_number, one in enumerate(completions)]
both.batched = True
def short(completions):
    return [{"length": 1}]
short.batched = True
def text(completion):
    return {"length": "long"}
def nan(completion):
    return {"length": math.nan if completion.text == "b" else 1}
def truth(completion):
    return {"polite": True}
def bare(completion):
    return 3.0
def changing(completion):
    return {"a": 1, completion.text: 2}
def slash(completion):
    return {"a/b": 1}
def wrong(completion):
    return {"x": 1 / 0}
def words(completion):
    return {"words": 1}
def remark(completion):
    return "  it is short " if completion.text == "a" else ""
LIMIT = 3
class Rater:
    def polite(self, completion):
        return {"polite": 1}
rater = Rater()
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_raters", None)


A, B = completion("a", number=0), completion("b", number=1)


def test_a_function_is_found_by_its_import_path_with_a_colon_or_a_dot(raters: Path) -> None:
    for path in ("my_raters:length", "my_raters.length"):
        assert load_scorer(path)([A, B]) == [{"length": 1.0}, {"length": 1.0}]
    assert load_scorer("my_raters:rater.polite")([A]) == [{"polite": 1.0}]


def test_scores_are_added_to_a_copy_of_the_completion(raters: Path) -> None:
    once = score([A, B], load_scorer("my_raters:length"))
    twice = score(once, load_scorer("my_raters:truth"))
    assert [one.scores for one in twice] == [{"length": 1.0, "polite": 1.0}] * 2
    assert A.scores == {} and once[0].scores == {"length": 1.0}
    assert [one.id for one in twice] == ["r0:good:0", "r1:good:0"]
    assert score([], load_scorer("my_raters:nan")) == []


def test_a_batched_function_gets_all_completions_at_once(raters: Path) -> None:
    assert load_scorer("my_raters:both")([A, B]) == [{"length": 1.0, "a": 0.0}, {"length": 1.0, "a": 1.0}]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_raters", "'my_raters' is not an import path; give package.module:function"),
        ("my raters:length", "is not an import path"),
        ("wrld", "such as my_scorers:polite; did you mean 'world'?"),
        ("raters.py:length", "no module 'raters' to import 'raters.py:length' from"),
        ("not_there:length", "no module 'not_there' to import"),
        ("my_raters:lenght", "The module 'my_raters' has no 'lenght'; did you mean 'length'?"),
        ("my_raters:LIMIT", "'my_raters:LIMIT' is int 3, not a function"),
        ("my_raters:Rater", "not a function; name a function that takes a Completion"),
    ],
)
def test_a_wrong_import_path_is_refused_with_the_reason(raters: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=".*".join(message.split("*")).replace("?", r"\?")):
        load_scorer(path)


def test_a_module_that_fails_to_import_keeps_its_own_error(raters: Path) -> None:
    (raters / "broken_raters.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_scorer("broken_raters:length")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "text",
            "my_raters:text returned str 'long' as 'length' of the completion 'r0:good:0'; a score must be",
        ),
        ("nan", "my_raters:nan returned float nan as 'length' of the completion 'r1:good:0'"),
        ("bare", "my_raters:bare returned float 3.0 for the completion 'r0:good:0'; it must return a mapping"),
        ("changing", "returned the names a and b for the completion 'r1:good:0', but a before"),
        ("slash", "a score named str 'a/b'"),
        ("short", "returned 1 result for 2 completions"),
    ],
)
def test_a_bad_result_of_a_scorer_is_refused_with_the_completion(raters: Path, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_scorer(f"my_raters:{function}")([A, B])


def test_names_stay_the_same_from_call_to_call(raters: Path) -> None:
    scorer = load_scorer("my_raters:changing")
    scorer([A])
    with pytest.raises(InputError, match="returned the names a and b for the completion 'r1:good:0', but a before"):
        scorer([B])


def test_an_error_inside_a_scorer_names_the_completion(raters: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        load_scorer("my_raters:wrong")([A])
    assert caught.value.__notes__ == ["my_raters:wrong raised this, given the completion 'r0:good:0'"]


def test_two_scorers_never_overwrite_each_other_or_a_completions_figures(raters: Path) -> None:
    once = score([A], load_scorer("my_raters:length"))
    with pytest.raises(
        InputError, match="returned 'length' for the completion 'r0:good:0', but an earlier scorer has that name"
    ):
        score(once, load_scorer("my_raters:length"))
    with pytest.raises(InputError, match=r"returned 'words' .* but a figure of every completion has that name"):
        score([A], load_scorer("my_raters:words"))


def test_scores_cannot_have_the_name_of_any_figure_of_a_completion() -> None:
    assert set(TAKEN) == {*completion_values("a", tokens=1, ended=True, reference="a"), "distinct", "copied"}


def test_a_critic_returns_a_remark_on_each_completion(raters: Path) -> None:
    critic = load_critic("my_raters:remark")
    assert critic(A) == "it is short"
    with pytest.raises(InputError, match="The critic my_raters:remark returned str '' for the completion 'r1:good:0'"):
        critic(B)


POST = "post : Anna went to the market . it was Monday . she wanted bread ."


def test_the_embedded_worlds_rater_is_a_scorer_and_a_critic() -> None:
    one = completion("Anna went to the market on Friday .", POST)
    assert load_scorer("world")([one]) == [
        {"accuracy": 2 / 3, "coverage": 0.5, "coherence": 1.0, "overall": pytest.approx((2 / 3 + 0.5 + 1) / 3)}
    ]
    assert load_critic("world")(one) == "it gets the day wrong and leaves out the reason"
    with pytest.raises(
        InputError,
        match=r"world.evaluate:score, given the completion 'r0:good:0': .* is not a post of the embedded world",
    ):
        load_scorer("world")([completion("Anna went .", "Name a fruit.")])


def test_scorers_of_the_world_need_no_torch() -> None:
    code = (
        "import sys; from coh_lightning.generation.scorers import load_scorer; load_scorer('world'); print('torch' in "
        "sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
