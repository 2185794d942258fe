"""Files and folders that are whole or not there: written beside their name, put on the disk, and renamed. Whatever ends
a process, nobody ever reads half of one.

And folders in which one process works at a time (`alone`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coh_lightning.errors import InputError

PART = ".part"
"""Ends the name of what is not whole; it also begins with a dot. A process that was killed may leave such a file, which
nothing reads.
"""

REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "have the limit of file sizes raised",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "name a folder that can be written to, or change its permissions",
    errno.EPERM: "name a folder that can be written to, or change its permissions",
    errno.ENOTDIR: "a file has the name of a folder: choose another",
    errno.EISDIR: "a folder has this name: choose another",
    errno.EIO: "look after the disk",
}
"""What a user can do about an OSError while something is written."""


@contextmanager
def written_aside(path: Path | str) -> Iterator[Path]:
    """A name beside `path` to write a file or a folder to. It takes the place of `path` at the end, and is gone where
    the body raises.

        with written_aside(folder / "data.json") as aside:
            aside.write_text("...", encoding="utf-8")

    Raises:
        InputError: the disk is full, the folder is read-only, ...: the path and what to do.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        put_in_place(aside, path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        remove(aside)


@contextmanager
def alone(folder: Path, busy: str) -> Iterator[int]:
    """Keeps every other process that asks for it out of a folder, until the body ends or the process does, whatever
    ends it. Gives the descriptor of the lock: a process that is given it holds the lock too. On a file system without
    locks nobody is kept out.

    Raises:
        InputError: another process is in the folder; `busy` is the message.
    """
    path = folder / f".lock{PART}"
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InputError(busy) from error
        except OSError:
            break
        if os.fstat(file.fileno()).st_nlink:  # else who held it has just removed it, and it keeps nobody out any longer
            break
        file.close()
    with file:
        try:
            yield file.fileno()
        finally:
            path.unlink(missing_ok=True)


def put_in_place(aside: Path, path: Path) -> None:
    """Rename `aside` to `path` once it is on the disk; the file, or the folder, that stood there is gone then. Raises
    OSError where one is a file and the other a folder.
    """
    for part in [*aside.rglob("*"), aside] if aside.is_dir() else [aside]:
        _allow(part)
        _sync(part)
    old = path.with_name(f".{path.name}.{os.urandom(4).hex()}.old{PART}")
    if aside.is_dir() and path.is_dir():  # a folder with something in it can't be replaced in one go
        os.replace(path, old)
    try:
        os.replace(aside, path)
    except OSError:
        if old.exists():
            os.replace(old, path)
        raise
    _sync(path.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unwritten(path: Path | str, error: OSError) -> OSError | InputError:
    """`error` as a sentence about `path` where it is one that a user can do something about, else `error` itself."""
    if error.errno not in REMEDIES:
        return error
    return InputError(
        f"{path} can't be written ({os.strerror(error.errno)}); {REMEDIES[error.errno]}, and run the same command "
        "again."
    )


def _allow(path: Path) -> None:
    """Gives a file or a folder the permissions of any new one: some libraries write files that only their owner may
    read (safetensors).
    """
    before = os.umask(0o077)
    os.umask(before)
    usual = 0o777 if path.is_dir() else 0o666 | (path.stat().st_mode & 0o111)
    with suppress(OSError):  # on a file system without permissions
        path.chmod(usual & ~before)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
