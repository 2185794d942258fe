"""`CoHDataModule(records=...)`: feedback in memory gives what the same feedback in a file gives; what the module says
of itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from coh_lightning.cli.config_errors import keys_of
from coh_lightning.cli.preview import configured
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.feedback.sources.in_memory import in_memory
from helpers.feedback import EVERY_KIND, data_of, pairs, write

RECORDS = [dict(row) for row in EVERY_KIND] + pairs(6)
TRL_PAIRS = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": "no"} for n in range(5)]
UNPAIRED = [{"prompt": f"Say {n}", "completion": f"{n}", "label": n % 2 == 0} for n in range(6)]


def settings(folder: Path) -> dict[str, Any]:
    return {
        "tokenizer": "world",
        "validation_share": 0.2,
        "test_share": 0.0,
        "max_prompt_tokens": 128,
        "max_chain_tokens": 256,
        "row_tokens": 256,
        "rows_per_step": 2,
        "cache_dir": str(folder / "cache"),
    }


def set_up(data: CoHDataModule) -> CoHDataModule:
    data.setup()
    return data


def texts(data: CoHDataModule) -> list[Any]:
    """The records of all splits without their names."""
    return [
        (one.record.prompt, one.record.candidates, one.record.scales, one.record.task, one.record.aspect)
        for split in data.splits.values()
        for one in split.usable
    ]


@pytest.mark.parametrize("rows", [RECORDS, TRL_PAIRS, UNPAIRED], ids=["records", "pairs", "unpaired"])
def test_rows_in_memory_are_the_rows_of_a_file_of_that_name(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """The name of the source is a part of ids, and so of the order: `records` here, that of the file there."""
    (tmp_path / "a").mkdir()
    given = set_up(CoHDataModule(records=rows, **settings(tmp_path)))
    file = set_up(CoHDataModule(write(tmp_path / "a" / "records.jsonl", rows), **settings(tmp_path)))
    assert texts(given) == texts(file) and given.plan.digest == file.plan.digest
    assert [one.record.id for one in given.splits["train"].usable] == [
        one.record.id for one in file.splits["train"].usable
    ]


@pytest.mark.parametrize(
    "make", [datasets.Dataset.from_list, lambda rows: [Feedback.from_json(row, "here") for row in rows], tuple]
)
def test_a_dataset_and_records_as_objects_give_the_same(make: Callable[[Any], Any], tmp_path: Path) -> None:
    """A Dataset has every column in every row, empty where a record has no such key."""
    rows = [{**row, "id": str(number)} for number, row in enumerate(pairs(8))]
    rows[3]["completions"][0]["critique"] = "it is right"
    rows[0]["aspect"] = "helpful"  # a Dataset takes its columns from the first row
    one = set_up(CoHDataModule(records=rows, **settings(tmp_path)))
    other = set_up(CoHDataModule(records=make(rows), **settings(tmp_path)))
    assert texts(one) == texts(other) and one.plan.digest == other.plan.digest


def test_a_row_that_cannot_be_read_stops_or_is_counted(tmp_path: Path) -> None:
    rows = [*pairs(4), {"prompt": "Why?", "completions": []}]
    with pytest.raises(InputError, match=r"^records\[4\]: completions"):
        set_up(CoHDataModule(records=rows, **settings(tmp_path)))
    data = set_up(CoHDataModule(records=rows, on_bad_record="skip", **settings(tmp_path)))
    assert [one.where for one in data.rejected if one.unreadable] == ["records[4]"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("f.jsonl", "records is a str; give a list of records, or a Dataset; a file is given as feedback='f.jsonl'."),
        (
            {"train": [1], "test": [2]},
            "records has the splits train, test; give one of them, such as records['train'].",
        ),
        ([], "records is empty; give at least one record."),
        (iter([]), "records is a list_iterator; give a list of records, or a Dataset."),
        ([1], "records[0] is an int; it must be a dictionary or a Feedback."),
        (
            [{"question": "Why?"}],
            "records[0] has the columns question; give prompt and completions, chosen and rejected, or prompt, "
            "completion and label.",
        ),
    ],
)
def test_anything_else_is_refused_in_one_sentence(given: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        in_memory(given)
    assert str(error.value) == says


def test_records_and_feedback_exclude_each_other() -> None:
    with pytest.raises(InputError, match="records are given, and so are feedback or sources; give one of them"):
        CoHDataModule("f.jsonl", records=pairs(2))


def test_records_are_no_key_of_a_configuration(tmp_path: Path) -> None:
    """A list in memory can't stand in a file, and a new key would change what a configuration's hash is."""
    assert "records" not in list(keys_of(CoHDataModule)) and "sources" in list(keys_of(CoHDataModule))
    with pytest.raises(InputError, match=r"there is no key data\.records"):
        configured(["--data.records=[]"])


def test_the_module_says_what_it_reads_and_after_set_up_how_much(tmp_path: Path) -> None:
    data = data_of(pairs(10), tmp_path)
    assert repr(data) == (
        f"CoHDataModule('{tmp_path / 'feedback.jsonl'}', method coh, wording default, plain format, tree layout; not "
        "set up)"
    )
    data.setup()
    assert str(data).endswith(f"tree layout; 10 records for train; {data.plan.num_rows} rows of 256 tokens)")


@pytest.mark.parametrize(
    "use",
    [
        CoHDataModule.train_dataloader,
        CoHDataModule.val_dataloader,
        CoHDataModule.test_dataloader,
        CoHDataModule.predict_dataloader,
        CoHDataModule.requests,
        CoHDataModule.largest_batches,
        CoHDataModule.plan_settings,
    ],
)
def test_a_loader_before_set_up_says_so(use: Callable[[CoHDataModule], Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has read nothing yet; call its setup\(\) first \(a Trainer does\)\."):
        use(data_of(pairs(4), tmp_path))


def test_a_report_of_records_in_memory_names_them(tmp_path: Path) -> None:
    data = set_up(CoHDataModule(records=pairs(6), **settings(tmp_path)))
    assert json.dumps(data.report())
    assert data.own_feedback == "InMemory 'records'"
