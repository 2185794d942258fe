"""Text metrics on texts small enough to count by hand, and means that are equal however the values are split."""

from __future__ import annotations

import json
import math
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coh_lightning.generation.scorers import TAKEN
from coh_lightning.generation.text_metrics import (
    ROUGE,
    WeightedMeans,
    completion_values,
    copied,
    distinct,
    repetition,
    rouge,
)
from coh_lightning.words import words
from helpers.ranks import end_rank


def test_rouge_counts_by_hand() -> None:
    scores = rouge("the cat sat", "the cat ran off")
    assert scores["rouge1"] == pytest.approx(4 / 7, abs=1e-6)  # 2 of 3 and 2 of 4
    assert scores["rouge2"] == pytest.approx(2 / 5, abs=1e-6)  # 1 of 2 and 1 of 3
    assert scores["rougeL"] == pytest.approx(4 / 7, abs=1e-6)
    assert scores["rouge"] == pytest.approx((4 / 7 + 2 / 5 + 4 / 7) / 3, abs=1e-6)


def test_rouge_of_nothing_is_zero() -> None:
    assert (
        rouge("", "the cat") == rouge("the cat", "...") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "rouge": 0.0}
    )


def test_rouge_agrees_with_googles_package() -> None:
    oracle = pytest.importorskip(
        "rouge_score.rouge_scorer", reason="the rouge-score package is not installed"
    ).RougeScorer(["rouge1", "rouge2", "rougeL"])
    chance = np.random.default_rng(0)
    for _ in range(20):
        text, reference = (
            " ".join(chance.choice(["the", "Cat,", "sat", "on", "a", "mat.", "2"], size=chance.integers(1, 12)))
            for _ in range(2)
        )
        expected = {key: score.fmeasure for key, score in oracle.score(reference, text).items()}
        assert {key: value for key, value in rouge(text, reference).items() if key != "rouge"} == pytest.approx(
            expected, abs=1e-6
        )


@settings(max_examples=40)
@given(*(st.text(st.sampled_from("abrunig' 2_-.\n") | st.characters(max_codepoint=127), max_size=40) for _ in range(2)))
@example("running quickly_now isn't", "runs quick now isn t")
def test_rouge_of_ascii_text_equals_googles_package(text: str, reference: str) -> None:
    scorer = pytest.importorskip(
        "rouge_score.rouge_scorer", reason="the rouge-score package is not installed"
    ).RougeScorer
    expected = {key: score.fmeasure for key, score in scorer(ROUGE, use_stemmer=False).score(reference, text).items()}
    assert {key: value for key, value in rouge(text, reference).items() if key != "rouge"} == pytest.approx(
        expected, abs=1e-6
    )


def test_rouge_does_not_stem() -> None:
    assert rouge("running quickly", "runs quick") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "rouge": 0.0}


@pytest.mark.parametrize(
    "text",
    [
        "Привет, большой мир!",
        "यह हिन्दी में लिखा है।",
        "我喜欢苹果。",
        "これはペンです",
        "สวัสดีครับ",
        "ສະບາຍດີ",
        "ជំរាបសួរ",
        "မင်္ဂလာပါ",
    ],
)
def test_a_text_of_any_script_has_rouge_1_with_itself_and_repeats_itself(text: str) -> None:
    assert rouge(text, text) == pytest.approx({"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "rouge": 1.0})
    values = completion_values(f"{text} {text}", tokens=9, ended=True)
    assert values["words"] == 2 * len(words(text)) > 2 and values["repetition"] >= 0.25


def test_rouge_counts_characters_where_there_are_no_blanks() -> None:
    assert rouge("我喜欢梨", "我喜欢苹果")["rouge1"] == pytest.approx(2 * 3 / (4 + 5))


def test_rouge_never_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert rouge("One. Two.\nThree!", "One. Two.\nFour!")["rouge1"] == pytest.approx(2 / 3)


def test_repetition_is_the_share_of_grams_seen_before() -> None:
    assert repetition("a b c a b c") == 1 / 4
    assert repetition("a a a a a") == 2 / 3
    assert repetition("a b") == repetition("") == 0.0


def test_distinct_is_counted_over_all_the_texts() -> None:
    assert distinct(["a b c", "a b d"]) == 3 / 4
    assert distinct(["a b", "a b"], n=1) == 1 / 2
    assert distinct(["a", ""]) == 0.0


def test_copied_is_the_share_of_the_first_text_in_the_second() -> None:
    first = "the train was late because of snow"
    assert copied(first, first) == 1.0
    assert copied("the train was late today", first) == 2 / 3
    assert copied("nothing like it at all", first) == 0.0
    assert copied("late because", first) == 1.0  # shorter than three words: its two words are one gram
    assert copied("", first) == 0.0
    assert copied(first, "") == 0.0


def test_a_completion_gives_exactly_the_named_values() -> None:
    values = completion_values("a b c a b c.", tokens=8, ended=True, reference="a b c")
    assert tuple(values) == TAKEN[: len(values)], "scores can't take these names"
    assert (
        values["tokens"] == 8
        and values["words"] == 6
        and values["repetition"] == 0.25
        and values["ended"] == 1
        and values["empty"] == 0
    )
    assert completion_values(" \n", tokens=1, ended=False) == {
        "tokens": 1.0,
        "words": 0.0,
        "repetition": 0.0,
        "ended": 0.0,
        "empty": 1.0,
    }


def test_sums_are_divided_once() -> None:
    sums = WeightedMeans(["good", "bad", "never"])
    sums.add({"good": [1.0, 2.0]})
    sums.add({"good": 6.0, "bad": np.array([4.0])})
    sums.update({"bad": (3.0, 0.5)})
    assert {name: value.item() for name, value in sums.compute().items()} == {"good": 3.0, "bad": 7 / 1.5}
    sums.reset()
    sums.add({"never": 1})
    assert list(sums.compute()) == ["never"]


def test_merged_halves_equal_the_whole() -> None:
    names = ["a", "b", "c"]
    batches = [{name: np.random.default_rng(i).normal(size=i % 4) for name in names[: 1 + i % 3]} for i in range(12)]
    whole, left, right = WeightedMeans(names), WeightedMeans(names), WeightedMeans(names)
    for i, batch in enumerate(batches):
        whole.add(batch)
        (left if i < 5 else right).add(batch)
    left.merge_state(right)
    merged = left.compute()
    assert merged.keys() == whole.compute().keys()
    for name, value in whole.compute().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-12, atol=1e-12)


def test_sums_refuse_unknown_names_and_bad_numbers() -> None:
    sums = WeightedMeans(["good/words"])
    with pytest.raises(KeyError, match="did you mean 'good/words'"):
        sums.add({"good/word": 1.0})
    with pytest.raises(ValueError, match="'good/words' was given a value that is not finite"):
        sums.add({"good/words": [1.0, math.inf]})
    with pytest.raises(ValueError, match="must differ"):
        WeightedMeans(["a", "a"])


def _one_rank(rank: int, folder: str) -> None:
    """Rank 0 adds everything but one value; rank 1, which has hardly any work, that one; rank 1 alone knows of
    "late".
    """
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    sums = WeightedMeans(["words", "late", "never"])
    sums.add({"words": [1.0, 2.0, 3.0]} if rank == 0 else {"words": 10.0, "late": 7.0})
    means = {name: value.item() for name, value in sums.compute().items()}
    idle = WeightedMeans(["words"])
    if rank == 0:
        idle.add({"words": 5.0})
    Path(folder, f"{rank}.json").write_text(
        json.dumps([means, {name: value.item() for name, value in idle.compute().items()}])
    )
    end_rank()


def test_all_ranks_get_the_means_of_all_values(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        assert json.loads(Path(tmp_path, f"{rank}.json").read_text()) == [{"words": 4.0, "late": 7.0}, {"words": 5.0}]
