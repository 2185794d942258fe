"""Files are written atomically, and an error while writing becomes one sentence."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.records import Rejected
from coh_lightning.io import atomic_write, explain_os_error, put_in_place


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data.json"
    with atomic_write(path) as aside:
        aside.write_text("half")
        assert (
            not path.exists()
            and aside.parent == path.parent
            and aside.name.startswith(".")
            and aside.name.endswith(".part")
        )
    assert path.read_text() == "half" and os.listdir(path.parent) == ["data.json"]


def test_the_old_file_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["data.json"]


def test_a_folder_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "study"
    for number in ("one", "two"):
        with atomic_write(path) as aside:
            (aside / "sheets").mkdir(parents=True)
            (aside / "sheets" / number).write_text(number)
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == [
        "study",
        "study/sheets",
        "study/sheets/two",
    ]


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with (
        pytest.raises(
            InputError, match=r"folder can't be written \(Is a directory\); a folder has this name: choose another"
        ),
        atomic_write(tmp_path / "folder") as aside,
    ):
        aside.write_text("x")
    with (
        pytest.raises(InputError, match=r"file can't be written \(Not a directory\)"),
        atomic_write(tmp_path / "file") as aside,
    ):
        aside.mkdir()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_text() == "kept"


def test_the_old_folder_stays_if_renaming_fails(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "never written", tmp_path / "old")
    assert os.listdir(tmp_path) == ["old"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EROFS, "choose a writable folder"),
        (errno.EACCES, "permissions"),
    ],
)
def test_an_error_of_the_disk_names_the_path_and_the_remedy(code: int, words: str, tmp_path: Path) -> None:
    with (
        pytest.raises(
            InputError, match=rf"data.json can't be written \(.*\); .*{words}.*, and run the same command again\.$"
        ),
        atomic_write(tmp_path / "data.json"),
    ):
        raise OSError(code, os.strerror(code))


def test_an_oserror_without_a_remedy_is_raised_unchanged(tmp_path: Path) -> None:
    bug = OSError(errno.EBADF, "Bad file descriptor")
    assert explain_os_error(tmp_path, bug) is bug


def test_the_same_records_give_the_same_compressed_bytes(tmp_path: Path) -> None:
    rows = [Rejected("tie", "file:1", "source", "7")]
    one, other = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    assert write_jsonl(one, rows) == write_jsonl(other, rows) == 1
    assert one.read_bytes() == other.read_bytes() and b"tie" in gzip.decompress(one.read_bytes())


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_permissions_of_the_umask_whichever_library_wrote_it(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "model") as aside:
            (aside / "deep").mkdir(parents=True)
            for name in ("a", "deep/b"):
                (aside / name).touch(0o600)
            aside.chmod(0o700)
        with atomic_write(tmp_path / "data.json") as aside:
            os.close(os.open(aside, os.O_CREAT | os.O_WRONLY, 0o600))
        modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"model": folder, "model/a": file, "model/deep": folder, "model/deep/b": file, "data.json": file}
