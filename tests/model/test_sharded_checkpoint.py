"""A folder of shards is read whole or refused; its metadata is checked against the files before memory is allocated."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

from coh_lightning.__main__ import main
from coh_lightning.errors import InputError
from coh_lightning.model import sharded_checkpoint as shards
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.sharded_checkpoint import METADATA, check_shards, read_shards
from coh_lightning.module import CoHModule
from helpers.feedback import data_of, pairs, tiny
from helpers.training import trainer

WEIGHTS = {
    "lm.a": torch.arange(12.0).reshape(3, 4),
    "lm.b": torch.arange(5).bfloat16(),
    "lm.c": torch.tensor(7.0),
    "lm.d": torch.zeros(0, 4),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as one process writes it, the optimizer's state in it too."""
    folder = tmp_path_factory.mktemp("shards") / "whole.ckpt"
    state = {
        "state_dict": WEIGHTS,
        "optimizer_0": {"state": {"lm.a": {"exp_avg": torch.ones(3, 4), "step": 2}}, "lr": 0.1},
    }
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.ckpt"))


def metadata(folder: Path) -> Metadata:
    found: Metadata = pickle.loads((folder / METADATA).read_bytes())
    return found


def change(folder: Path, with_it: Callable[[Metadata], object]) -> None:
    claim = metadata(folder)
    with_it(claim)
    (folder / METADATA).write_bytes(pickle.dumps(claim))


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == WEIGHTS.keys() and all(
        torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in WEIGHTS.items()
    )


def test_what_was_written_is_read(folder: Path) -> None:
    assert same(read_shards(folder))
    check_shards(folder)


def test_a_tensor_in_chunks_over_many_files_is_put_together(folder: Path) -> None:
    """Two ranks wrote two rows and one: the second file is a copy under another name."""
    other = folder / "__1_0.distcp"
    shutil.copy(folder / "__0_0.distcp", other)

    def spread(claim: Metadata) -> None:
        key = "state_dict.lm.a"
        place = claim.storage_data[MetadataIndex(key, torch.Size([0, 0]))]
        (folder / "__0_1.distcp").write_bytes(saved(WEIGHTS["lm.a"][:2]))
        (folder / "__1_0.distcp").write_bytes(saved(WEIGHTS["lm.a"][2:]))
        claim.state_dict_metadata[key].chunks = [
            ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([2, 4])),
            ChunkStorageMetadata(torch.Size([2, 0]), torch.Size([1, 4])),
        ]
        del claim.storage_data[MetadataIndex(key, torch.Size([0, 0]))]
        for start, name in ((0, "__0_1.distcp"), (2, "__1_0.distcp")):
            piece = copy.copy(place)
            piece.relative_path, piece.offset, piece.length = name, 0, (folder / name).stat().st_size
            claim.storage_data[MetadataIndex(key, torch.Size([start, 0]))] = piece

    change(folder, spread)
    assert same(read_shards(folder))
    change(folder, lambda claim: claim.state_dict_metadata["state_dict.lm.a"].chunks.pop())
    with pytest.raises(InputError, match=r"the chunks of 'state_dict.lm.a' don't add up to its size \[3, 4\]"):
        read_shards(folder)


def saved(tensor: Tensor) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(tensor.clone(), buffer)
    return buffer.getvalue()


def entry(claim: Metadata, key: str = "state_dict.lm.a") -> Any:
    return claim.state_dict_metadata[key]


def place(claim: Metadata, key: str = "state_dict.lm.a") -> Any:
    return next(value for index, value in claim.storage_data.items() if index.fqn == key)


HUGE = torch.Size([2**40, 2**20])


def swollen(claim: Metadata) -> None:
    entry(claim).size, entry(claim).chunks = HUGE, [ChunkStorageMetadata(torch.Size([0, 0]), HUGE)]


def swollen_in_both(claim: Metadata) -> None:
    swollen(claim)
    place(claim).length = 2**62


def many_of_one(claim: Metadata) -> None:
    """A thousand tensors in the bytes of one."""
    for number in range(1000):
        claim.state_dict_metadata[f"state_dict.lm.{number}"] = entry(claim)
        claim.storage_data[MetadataIndex(f"state_dict.lm.{number}", torch.Size([0, 0]))] = place(claim)


TAMPERED: dict[str, tuple[Callable[[Metadata], object], str]] = {
    "a larger size": (
        lambda claim: setattr(entry(claim), "size", HUGE),
        r"the chunks of 'state_dict.lm.a' don't add up to its size \[1099511627776, 1048576\]",
    ),
    "a larger size and chunk": (
        swollen,
        r"the metadata names 4,611,686,018,427,387,904 bytes of 'state_dict.lm.a' where [\d,]+ are "
        r"stored; the checkpoint is damaged",
    ),
    "a larger size, chunk and length": (
        swollen_in_both,
        r"has [\d,]+ bytes, but the metadata names [\d,]+ in it; it is truncated",
    ),
    "a wider type": (
        lambda claim: setattr(entry(claim, "state_dict.lm.b").properties, "dtype", torch.complex128),
        "can't be read|damaged",
    ),
    "many tensors in one place": (many_of_one, r"bytes, but the metadata names [\d,]+ in it"),
    "no chunks": (lambda claim: setattr(entry(claim), "chunks", []), "don't add up"),
    "a chunk outside": (
        lambda claim: setattr(entry(claim), "chunks", [ChunkStorageMetadata(torch.Size([1, 0]), torch.Size([3, 4]))]),
        "lies outside",
    ),
    "a negative size": (
        lambda claim: setattr(entry(claim), "chunks", [ChunkStorageMetadata((4, 0), (-3, -4))]),  # type: ignore[arg-type]
        "lies outside the tensor",
    ),
    "no place": (lambda claim: claim.storage_data.clear(), "is stored nowhere"),
    "another file": (
        lambda claim: setattr(place(claim), "relative_path", "__7_0.distcp"),
        r"the file __7_0.distcp is missing",
    ),
    "a file elsewhere": (
        lambda claim: setattr(place(claim), "relative_path", "../../secret"),
        r"names an impossible place \('../../secret'\)",
    ),
    "a negative offset": (lambda claim: setattr(place(claim), "offset", -1), "names an impossible place"),
    "compressed": (
        lambda claim: setattr(place(claim), "transform_descriptors", ["zstd"]),
        r"'state_dict.lm.a' is compressed \(zstd\)",
    ),
    "no tensors at all": (lambda claim: setattr(claim, "state_dict_metadata", None), "it may be damaged"),
    "numbers that are none": (lambda claim: setattr(place(claim), "length", "many"), "it may be damaged"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_metadata_that_does_not_match_the_files_is_refused_before_memory_is_allocated(what: str, folder: Path) -> None:
    tamper, message = TAMPERED[what]
    change(folder, tamper)
    with (
        mock.patch.object(shards, "load", side_effect=AssertionError("it reads")),
        pytest.raises(InputError, match=message) as refused,
    ):
        read_shards(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", pickle.dumps({"a": 1}), pickle.dumps(None), pickle.dumps(metadata)[:20]]
)
def test_invalid_metadata_is_refused(pickled: bytes, folder: Path) -> None:
    (folder / METADATA).write_bytes(pickled)
    for read in (read_shards, check_shards):
        with pytest.raises(InputError, match="can't be read as a checkpoint"):
            read(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "__0_0.distcp").unlink()
    for read in (read_shards, check_shards):
        with pytest.raises(
            InputError, match=r"the file __0_0.distcp is missing; copy the checkpoint again, with all its files"
        ):
            read(folder)


@pytest.fixture
def scratch(whole: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(whole, tmp_path / "scratch.ckpt"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.floats(0, 0.999), name=st.sampled_from([METADATA, "__0_0.distcp"]))
def test_a_folder_with_a_truncated_file_is_refused(end: float, name: str, scratch: Path, whole: Path) -> None:
    held = (whole / name).read_bytes()
    (scratch / name).write_bytes(held[: int(end * len(held))])
    try:
        with pytest.raises(InputError):
            read_shards(scratch)
        with pytest.raises(InputError):
            check_shards(scratch)
    finally:
        (scratch / name).write_bytes(held)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), byte=st.integers(1, 255), name=st.sampled_from([METADATA, "__0_0.distcp"]))
def test_a_changed_byte_gives_a_refusal_or_tensors_and_nothing_else(
    where: float, byte: int, name: str, scratch: Path, whole: Path
) -> None:
    held = bytearray((whole / name).read_bytes())
    held[int(where * len(held))] ^= byte
    (scratch / name).write_bytes(held)
    try:
        assert all(isinstance(value, Tensor) for value in read_shards(scratch).values())
    except InputError as refused:
        assert "\n" not in str(refused)
    finally:
        (scratch / name).write_bytes((whole / name).read_bytes())


# The roads to it


def test_a_truncated_checkpoint_is_refused_as_a_model_and_for_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(tiny(), datamodule=data_of(pairs(8), tmp_path))
    run.save_checkpoint(tmp_path / "one.ckpt")
    checkpoint, folder = torch.load(tmp_path / "one.ckpt", weights_only=True), tmp_path / "shards.ckpt"
    dcp.save({"state_dict": checkpoint.pop("state_dict")}, checkpoint_id=folder, no_dist=True)
    torch.save(checkpoint, folder / "meta.pt")
    ModelSpec(str(folder)).build()
    elsewhere = shutil.copytree(folder, tmp_path / "copied")  # known by what is in it, not by its name alone
    assert ModelSpec(str(elsewhere)).build().state_dict().keys() == ModelSpec(str(folder)).build().state_dict().keys()
    file = folder / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="it is truncated, so copy it again"):
        CoHModule(str(folder)).configure_model()
    strategy = (
        "--trainer.strategy={class_path: lightning.pytorch.strategies.ModelParallelStrategy, init_args: "
        "{data_parallel_size: 1, tensor_parallel_size: 1}}"
    )
    words = [
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        strategy,
        f"--run.folder={tmp_path / 'run'}",
        "--model.name_or_path=world",
        "--data.feedback=world",
    ]
    assert main(["test", *words, f"--ckpt_path={folder}"]) == 2
    assert "it is truncated, so copy it again" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
