"""Which files a path means: splits, numbered parts, hidden files, descriptions, saved datasets; and the notes on those
that are not read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.sources import TRLPairs, load
from coh_lightning.feedback.sources.files import read_rows
from coh_lightning.feedback.sources.folders import chosen_files, file_notes
from coh_lightning.feedback.sources.notes import SourceNotes

ROW = {"prompt": "p", "chosen": "c", "rejected": "r"}


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(ROW) + "\n")
    return folder


def read(folder: Path, **options: Any) -> list[str]:
    return [str(file.relative_to(folder)) for file in chosen_files(str(folder), **options).files]


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        chosen_files(str(folder), **options)
    return str(caught.value)


PREFERENCES = ("train_prefs.jsonl", "train_sft.jsonl", "test_prefs.jsonl")


def test_a_split_that_could_be_several_is_refused_with_the_list(tmp_path: Path) -> None:
    fill(tmp_path, *PREFERENCES)
    assert refused(tmp_path) == (
        f"{tmp_path}: the split 'train' could be train_prefs or train_sft; set split to one of them, or give a "
        f"pattern such as {tmp_path}/train_prefs*."
    )
    assert read(tmp_path, split="train_sft") == ["train_sft.jsonl"]
    assert read(tmp_path, split="test") == ["test_prefs.jsonl"]  # the only candidate
    assert (
        refused(tmp_path, split="dev")
        == f"{tmp_path}: no file of the split 'dev'; there is test_prefs, train_prefs, train_sft."
    )
    fill(tmp_path, "train.jsonl")
    assert read(tmp_path) == ["train.jsonl"]


@pytest.mark.parametrize(
    "name", ["train_test_split/a.jsonl", "x/Test-Train/a.jsonl", "train.dev.jsonl", "valid_test-00000-of-00001.jsonl"]
)
def test_a_name_with_two_splits_is_read_for_neither(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    label = (
        {"t": "train_test_split", "x": "test-train"}.get(name[0], "")
        if "/" in name
        else name.split(".jsonl")[0].removesuffix("-00000-of-00001")
    )
    if name.startswith("train_"):
        message = refused(tmp_path, split="test")
        assert "train_test_split has the split 'test' and also train (train_test_split/a.jsonl)" in message
        assert "set split to 'train_test_split'" in message
    for split in ("train", "validation", "valid", "dev", "test"):
        says = refused(tmp_path, split=split)
        assert (
            f"the name {label} has the split {split!r} and also" in says
            or f"no file of the split {split!r}; there is {label}." in says
        )
    assert read(tmp_path, split=label) == [name]  # asked for by its whole name


def test_files_of_one_split_in_a_folder_with_two_are_read(tmp_path: Path) -> None:
    fill(tmp_path, "train_test_split/train.jsonl", "train_test_split/test/a.jsonl")
    assert read(tmp_path) == ["train_test_split/train.jsonl"]
    assert read(tmp_path, split="test") == ["train_test_split/test/a.jsonl"]
    assert read(tmp_path / "train_test_split") == ["train.jsonl"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["train", "train_prefs", "train-sft", "test", "dev", "validation_gen"]), min_size=1, unique=True
    ),
    st.sampled_from(["train", "test", "dev"]),
)
def test_only_one_split_is_read_and_all_other_files_are_listed(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], split: str
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    files = {f"{name}-{part:05d}-of-00002.jsonl" for name in names for part in range(2)}
    fill(folder, *files)
    try:
        chosen = chosen_files(str(folder), split=split)
    except InputError:
        assert split not in names
        return
    assert len({file.name.rsplit("-", 3)[0] for file in chosen.files}) == 1 and len(chosen.files) == 2
    assert {file.name for file in chosen.files} | {Path(name).name for name in chosen.passed_over} == files
    assert split not in names or chosen.files[0].name.startswith(f"{split}-0")


@pytest.mark.parametrize(
    "hidden",
    [
        "._train.jsonl",
        ".ipynb_checkpoints/train-checkpoint.jsonl",
        ".cache/huggingface/train.jsonl",
        "a/.b/c/train.jsonl",
    ],
)
def test_names_that_begin_with_a_dot_are_passed_over(tmp_path: Path, hidden: str) -> None:
    fill(tmp_path, "train.jsonl", hidden)
    (tmp_path / hidden).write_bytes(b"\x00\x05\x16\x07 no text \xff")
    assert read(tmp_path) == ["train.jsonl"]
    chosen = chosen_files(str(tmp_path))
    assert file_notes(chosen, str(tmp_path)) == [
        "1 file was read: train.jsonl",
        f"1 passed over (the name begins with a dot): {hidden}",
    ]
    assert [file.name for file in chosen_files(f"{tmp_path}/**/*.jsonl").files] == ["train.jsonl"]


def test_a_pattern_may_match_names_that_begin_with_a_dot(tmp_path: Path) -> None:
    fill(tmp_path, "train.jsonl", ".cache/train.jsonl", ".cache/.b/train.jsonl")
    assert len(chosen_files(f"{tmp_path}/.*/*.jsonl").files) == 1
    assert [str(file.relative_to(tmp_path)) for file in chosen_files(f"{tmp_path}/.cache/**/*.jsonl").files] == [
        ".cache/train.jsonl"
    ]


def test_a_dot_in_the_path_that_was_given_is_fine(tmp_path: Path) -> None:
    folder = fill(tmp_path / ".cache/x", "train.jsonl")
    assert read(folder) == ["train.jsonl"]
    assert [file.name for file in chosen_files(f"{folder}/*.jsonl").files] == ["train.jsonl"]


def test_files_that_describe_the_data_have_no_rows(tmp_path: Path) -> None:
    fill(tmp_path, "train.json", "dataset_info.json", "state.json", "dataset_dict.json", "README.md", "LICENSE.txt")
    assert read(tmp_path) == ["train.json"]
    assert chosen_files(str(tmp_path)).passed_over == {
        str(tmp_path / "dataset_info.json"): "it describes data or a model",
        str(tmp_path / "state.json"): "it describes data or a model",
        str(tmp_path / "dataset_dict.json"): "it describes data or a model",
        str(tmp_path / "README.md"): "not a data file",
        str(tmp_path / "LICENSE.txt"): "plain text beside files of rows",
    }


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], "train"),
        (["train-00001-of-00002.jsonl", "train-00002-of-00002.jsonl"], "train"),  # counted from 1
        (["data/train-00000-of-00001-a09b74b3ef9c3b56.jsonl"], "train"),  # as the hub used to name them
        (["train.1.jsonl", "train.2.jsonl", "train3.jsonl"], "train"),
        (["train/part-0.jsonl", "train/part-1.jsonl"], "train"),
        (["one/train.jsonl", "two/train.jsonl"], "train"),
        (["a.jsonl", "b.jsonl"], "train"),
        (["train-2023-05.jsonl", "train-2023-06.jsonl"], "train"),
        (["train-v2.jsonl"], "train"),
        (["test/train.jsonl"], "train"),  # the file's name takes precedence over the folder's
    ],
)
def test_all_parts_of_a_split_are_read(tmp_path: Path, names: list[str], split: str) -> None:
    fill(tmp_path, *names)
    assert read(tmp_path, split=split) == names


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1), st.data())
def test_a_set_of_parts_that_is_not_whole_is_refused(
    tmp_path_factory: pytest.TempPathFactory, total: int, base: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    gone = data.draw(st.sets(st.integers(0, total - 1), max_size=total - 1))
    fill(folder, *(f"train-{number + base:05d}-of-{total:05d}.jsonl" for number in range(total) if number not in gone))
    try:
        found = read(folder)
    except InputError as error:
        assert gone and f"train-*-of-{total} has {total - len(gone)} of its {total} parts" in str(error)
        return
    assert not gone and len(found) == total


def test_a_part_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl")
    assert refused(tmp_path).startswith(f"{tmp_path}: train-*-of-3 has 2 of its 3 parts, not number 1; download")
    fill(tmp_path, "train-00001-of-00003.jsonl.part")
    assert "number 1 (train-00001-of-00003.jsonl.part is there, but not a data file)" in refused(tmp_path)
    chosen = chosen_files(f"{tmp_path}/train-*.jsonl")
    assert (
        file_notes(chosen, f"{tmp_path}/train-*.jsonl")[0]
        == "the pattern takes 2 of the 3 parts of train-*-of-3 (not 1)"
    )
    fill(tmp_path, "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "train-00001-of-00003.jsonl")
    assert "train has two sets of parts, of 2 and of 3" in refused(tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train.jsonl", "train.jsonl.gz"), "train.jsonl and train.jsonl.gz look like the same rows twice"),
        (("train.jsonl", "train.csv"), "train.csv and train.jsonl look like the same rows twice"),
        (("a.jsonl", "report.json"), "files of several kinds (.jsonl: a.jsonl; .json: report.json)"),
    ],
)
def test_the_same_rows_in_two_kinds_of_files_are_refused(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    assert says in refused(fill(tmp_path, *names))


def test_a_split_in_an_unreadable_kind_of_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train.xlsx", "test.jsonl")
    assert refused(tmp_path) == f"{tmp_path}: no file of the split 'train'; there is test (train.xlsx can't be read)."


def test_saved_datasets_are_read_by_split(tmp_path: Path) -> None:
    rows = [ROW | {"prompt": f"p{number}"} for number in range(3)]
    datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows), "other": datasets.Dataset.from_list(rows[:1])}
    ).save_to_disk(tmp_path / "d", num_shards={"train": 2, "other": 1})
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "one")

    def prompts(folder: str, **options: Any) -> list[str]:
        files = chosen_files(str(tmp_path / folder), **options).files
        return [row["prompt"] for file in files for _, row in read_rows(file) if isinstance(row, dict)]

    assert prompts("d") == prompts("one") == prompts("d", subset="train") == ["p0", "p1", "p2"]
    assert prompts("d", split="other") == ["p0"]
    assert refused(tmp_path / "d", split="test") == f"{tmp_path}/d: no file of the split 'test'; there is train, other."
    assert len(load([TRLPairs(str(tmp_path / "d"))], seed=0)) == 3
    (next((tmp_path / "one").glob("*.arrow"))).write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"one: this folder of a saved dataset can't be read \("):
        list(read_rows(tmp_path / "one"))


def test_files_and_repeated_records_are_noted(tmp_path: Path) -> None:
    fill(tmp_path, "one/train.jsonl", "two/train.jsonl", "one/test.jsonl")
    noticed: list[SourceNotes] = []
    load([TRLPairs(str(tmp_path), name="n")], seed=0, noticed=noticed)
    assert noticed[0].lines() == [
        "n: 2 files were read: one/train.jsonl, two/train.jsonl",
        "n: 1 passed over (of the split test): one/test.jsonl",
        f"n: the record is identical to an earlier one (1 time in 2 rows, first {tmp_path}/two/train.jsonl:1)",
    ]
    assert noticed[0].files == [f"{tmp_path}/one/train.jsonl", f"{tmp_path}/two/train.jsonl"]


@pytest.mark.parametrize("place", ["", "data", "data/deeper"])
def test_the_suggested_pattern_reads_the_split(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train_prefs-00000-of-00001.jsonl", "train_sft.jsonl"):
        (folder / name).write_text("{}\n")
    with pytest.raises(InputError) as caught:
        chosen_files(str(tmp_path))
    pattern = str(caught.value).split("such as ")[1].removesuffix(".")
    assert chosen_files(pattern).files == [folder / "train_prefs-00000-of-00001.jsonl"]


@pytest.mark.parametrize("held_out", ["val", "eval", "evaluation", "testing", "dev", "test"])
def test_held_out_files_by_any_usual_name_are_not_trained_on(tmp_path: Path, held_out: str) -> None:
    (tmp_path / f"{held_out}.jsonl").write_text("{}\n")
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(
        InputError,
        match=f"no file of the split 'train'; there is {held_out}; without a split: a.jsonl",
    ):
        chosen_files(str(tmp_path))
    (tmp_path / "a.jsonl").rename(tmp_path / "training.jsonl")
    chosen = chosen_files(str(tmp_path))
    assert chosen.files == [tmp_path / "training.jsonl"]
    assert chosen.passed_over == {str(tmp_path / f"{held_out}.jsonl"): f"of the split {held_out}"}
