"""Every file of conf/data and tests/conf builds its sources; those of real data are read with exact counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from omegaconf import OmegaConf

from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources import HH, Source, counts, load
from helpers.feedback import DATA

needs_real_data = pytest.mark.skipif(
    "COH_REAL_DATA" not in os.environ, reason="COH_REAL_DATA names no folder of real data"
)


def sources_of(name: str) -> list[Source]:
    config = OmegaConf.to_container(OmegaConf.load(DATA[name]), resolve=True)
    assert isinstance(config, dict)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--sources", type=list[Source])
    sources: list[Source] = parser.instantiate(parser.parse_object({"sources": config["data"]["sources"]})).sources
    return sources


@pytest.mark.parametrize("name", DATA)
def test_every_file_of_data_builds(name: str) -> None:
    assert all(isinstance(source, Source) for source in sources_of(name))


def one_row(name: str, row: dict[str, Any]) -> Feedback:
    (source,) = sources_of(name)
    result = source.feedback(row, "f:1")
    assert isinstance(result, Feedback)
    return result


def test_ultrafeedback_shaped_rows() -> None:
    def annotated(rating: str) -> dict[str, Any]:
        return {"Rating": rating, "Rationale": "because"}

    notes = {
        "instruction_following": annotated("5"),
        "honesty": annotated("N/A"),
        "truthfulness": annotated("3"),
        "helpfulness": annotated("4"),
    }
    completion = {
        "model": "m",
        "response": "a",
        "critique": "fine",
        "annotations": notes,
        "overall_score": 8.0,
        "custom_system_prompt": "s",
    }
    one = one_row(
        "ultrafeedback",
        {"source": "s", "instruction": "q", "models": ["m"], "completions": [completion], "correct_answers": ["None"]},
    )
    assert one.candidates == (
        RatedCompletion(
            "a",
            ratings={"instruction_following": 5.0, "truthfulness": 3.0, "helpfulness": 4.0},
            critique="fine",
            author="m",
        ),
    )


def test_helpsteer_shaped_rows() -> None:
    row = {
        "prompt": "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc",
        "response": "d",
        "helpfulness": 3,
        "correctness": 4,
        "coherence": 4,
        "complexity": 0,
    }
    one = one_row("helpsteer2", row | {"verbosity": 1})
    assert [(turn.role, turn.text) for turn in one.prompt] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert one.candidates[0].ratings == {
        "helpfulness": 3,
        "correctness": 4,
        "coherence": 4,
        "complexity": 0,
        "verbosity": 1,
    }


def real(name: str) -> tuple[list[Feedback], list[Rejected]]:
    rejected: list[Rejected] = []
    records = load(sources_of(name), seed=0, rejected=rejected)
    assert len({record.id for record in records}) == len(records)
    return records, rejected


def ks(records: list[Feedback], given: Callable[[RatedCompletion], bool]) -> dict[int, int]:
    return dict(Counter(sum(map(given, record.candidates)) for record in records))


@needs_real_data
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "records", "completions", "rejected"),
    [
        ("hh_sample", 997, 1994, {"a completion is empty": 3}),
        ("hh_helpful_ai", 363, 726, {}),
        ("pandalm", 197, 394, {"a completion is empty": 3}),
        ("llmbar", 100, 200, {}),
        ("oasst", 229, 659, {"answers without a rank and without a clear thumb": 25}),
        ("summeval", 20, 320, {}),
        ("feedbackqa", 519, 519, {}),
        ("defacto", 1000, 1000, {}),
        ("kto", 300, 300, {}),
        ("dpo", 300, 600, {}),
    ],
)
def test_real_files_load_with_exact_counts(name: str, records: int, completions: int, rejected: dict[str, int]) -> None:
    (entry,) = counts(*real(name)).values()
    assert entry == {"records": records, "copies": 0, "completions": completions, "rejected": rejected}


@needs_real_data
@pytest.mark.realdata
def test_real_hh_loses_no_character() -> None:
    source = HH(os.environ["COH_REAL_DATA"] + "/hh_harmless_1000.jsonl.gz")
    turns = 0
    for where, row in source.rows():
        assert isinstance(row, dict)
        one = source.feedback(row, where)
        if isinstance(one, Feedback):
            turns += len(one.prompt)
            for candidate, name in zip(one.candidates, ("chosen", "rejected"), strict=True):
                names = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
                again = (
                    "".join(names[turn.role] + turn.text for turn in one.prompt) + names["assistant"] + candidate.text
                )
                assert again == row[name]
                assert [turn.role for turn in one.prompt] == ["user", "assistant"] * (len(one.prompt) // 2) + ["user"]


@needs_real_data
@pytest.mark.realdata
def test_real_votes_become_ranks_and_ties() -> None:
    ranks = Counter(tuple(candidate.rank for candidate in record.candidates) for record in real("pandalm")[0])
    assert ranks == {(1.0, 2.0): 81, (2.0, 1.0): 87, (1.0, 1.0): 29}
    labels = Counter(tuple(candidate.rank for candidate in record.candidates) for record in real("llmbar")[0])
    assert labels == {(1.0, 2.0): 42, (2.0, 1.0): 58}


@needs_real_data
@pytest.mark.realdata
def test_real_trees_become_rankings_and_thumbs() -> None:
    records, _ = real("oasst")
    ranked = ks(records, lambda candidate: candidate.rank is not None)
    assert ranked == {0: 17, 2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1}
    assert sum(any(candidate.thumb is not None for candidate in record.candidates) for record in records) > 150
    assert {len(record.prompt) for record in records} == {1, 3, 5}


@needs_real_data
@pytest.mark.realdata
def test_real_ratings_critiques_revisions_and_thumbs() -> None:
    summeval, _ = real("summeval")
    assert ks(
        summeval, lambda candidate: set(candidate.ratings) == {"coherence", "consistency", "fluency", "relevance"}
    ) == {16: 20}
    assert all(record.reference and record.task == "summary" for record in summeval)
    feedbackqa, _ = real("feedbackqa")
    assert ks(feedbackqa, lambda candidate: "overall" in candidate.ratings and bool(candidate.critique)) == {1: 519}
    defacto, _ = real("defacto")
    said = Counter(
        (bool(one.candidates[0].thumb), one.candidates[0].critique is not None, one.candidates[0].revision is not None)
        for one in defacto
    )
    assert said == {(True, True, False): 296, (True, True, True): 3, (False, True, True): 701}
    kto, _ = real("kto")
    assert Counter(record.candidates[0].thumb for record in kto) == {True: 150, False: 150}
    dpo, _ = real("dpo")
    assert sum(record.prompt[0].role == "system" for record in dpo) == 80
