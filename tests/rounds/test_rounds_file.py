"""A rounds file: what it may say, and the line of what it says wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.rounds.rounds_file import RoundsFile, read_rounds
from coh_lightning.yaml_text import dump

ROOT = Path(__file__).parents[2]

SETTINGS: dict[str, Any] = {
    "config": "conf/quickstart.yaml",
    "prompts": "world",
    "test": {"prompts": "world", "count": 20},
    "steps": 5,
    "rate": {"scorers": ["world"]},
}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def read(folder: Path, settings: dict[str, Any]) -> RoundsFile:
    path = folder / "mine.yaml"
    path.write_text(dump(settings))
    return read_rounds(path)


def test_what_a_file_states_and_what_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, SETTINGS)
    assert (found.name, found.rounds, found.samples, found.start, found.older) == ("mine", 3, 4, "newest", 1.0)
    assert (found.test.count, found.test.temperature, found.offline, found.seeds) == (20, 0.7, True, (0,))


def test_the_packaged_file_is_right() -> None:
    found = read_rounds(ROOT / "conf" / "rounds" / "world.yaml")
    assert found.rate is not None and found.rate["critic"] == "world"


def test_with_people_there_is_no_offline_comparison(tmp_path: Path) -> None:
    people = {key: value for key, value in SETTINGS.items() if key != "rate"} | {"study": {"raters": 2}}
    assert read(tmp_path, people).offline is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "mine.yaml:6: steps: int 0 is not a whole number of at least 1."),
        ({"samples": 1}, "samples: int 1 is not a whole number of at least 2."),
        ({"older": 1.5}, "older: older is 1.5; it is a share from 0 to 1."),
        ({"start": "new"}, "start: there is no start new; did you mean 'newest'?"),
        ({"prompts": "none.jsonl"}, "prompts: there is no file none.jsonl."),
        ({"test": {"count": 5}}, "test: it needs prompts: a file of records, or a world."),
        ({"rate": {}}, "rate: it needs scorers, a reward_model or a critic."),
        ({"rate": {"scorer": ["world"]}}, "rate.scorer: there is no such key; did you mean 'scorers'?"),
        ({"rate": {"scorers": ["world"], "scale": {"a": [1]}}}, "rate.scale.a: it is list [1]; give two numbers"),
        ({"study": {"raters": 1}}, "it has both of rate (raters in code) and study (people); give one of them."),
        ({"rate": None}, "it has neither of rate (raters in code) and study (people); give one of them."),
        ({"rate": None, "study": {"raters": 1}, "seeds": [0, 1]}, "seeds: with people as raters there is one seed"),
        ({"answered": 0.5}, "answered: it is about people's sheets"),
        ({"rate": {"scorers": ["wrld"]}}, "rate.scorers.0: "),
        ({"rate": {"scorers": ["world"], "critic": "nope:x"}}, "rate.critic: "),
        ({"rate": None, "study": {"raterz": 1}}, "study.raterz: there is no such key; did you mean 'raters'?"),
        ({"rate": None, "study": {"output": "x"}}, "study.output: there is no such key"),
        ({"settings": {"trainer.max_steps": 3}}, "the number of steps is the key steps; leave it out here."),
        ({"seeds": [1, 1]}, "seeds: seeds has 1 twice."),
        ({"round": 2}, "round: there is no such key; did you mean 'rounds'?"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, {**SETTINGS, **change})
    assert message in str(error.value) and "mine.yaml:" in str(error.value)
