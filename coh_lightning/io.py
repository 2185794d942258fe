"""Atomic writes of files and folders, locks on folders, and the remedies of errors while writing."""

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
"""End of the name of an unfinished file. A killed process may leave one; nothing reads it."""

REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or have the quota raised",
    errno.EFBIG: "have the file size limit raised",
    errno.EROFS: "choose a writable folder",
    errno.EACCES: "choose a writable folder, or change its permissions",
    errno.EPERM: "choose a writable folder, or change its permissions",
    errno.ENOTDIR: "a file has the name of a folder: choose another",
    errno.EISDIR: "a folder has this name: choose another",
    errno.EIO: "check the disk",
}
"""What a user can do about an OSError while writing."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Write a file or folder atomically: yields a name beside `path`, which replaces `path` at the end. If the body
    raises, it is deleted and `path` stays as it was.

        with atomic_write(folder / "data.json") as aside:
            aside.write_text("...", encoding="utf-8")

    Raises:
        InputError: the disk is full, the folder is read-only, ...; naming the path and the remedy.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        put_in_place(aside, path)
    except OSError as error:
        raise explain_os_error(path, error) from error
    finally:
        remove(aside)


@contextmanager
def exclusive_lock(folder: Path, busy: str) -> Iterator[int]:
    """An exclusive lock on a folder until the body or the process ends; no effect on a file system without locks.
    Yields the lock's file descriptor: a process that inherits it has the lock too. Raises InputError if another process
    has the lock; `busy` is the message.
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
        if os.fstat(file.fileno()).st_nlink:  # else its holder has just deleted it
            break
        file.close()
    with file:
        try:
            yield file.fileno()
        finally:
            path.unlink(missing_ok=True)


def put_in_place(aside: Path, path: Path) -> None:
    """Sync `aside` to disk and rename it to `path`, which is replaced. Raises OSError if one is a file and the other a
    folder.
    """
    for part in [*aside.rglob("*"), aside] if aside.is_dir() else [aside]:
        _allow(part)
        _sync(part)
    old = path.with_name(f".{path.name}.{os.urandom(4).hex()}.old{PART}")
    if aside.is_dir() and path.is_dir():  # a non-empty folder can't be replaced by one rename
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
    """Delete a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def explain_os_error(path: Path | str, error: OSError) -> OSError | InputError:
    """`error` as an InputError about `path` if `REMEDIES` has it, else `error` itself."""
    if error.errno not in REMEDIES:
        return error
    remedy = f"{REMEDIES[error.errno]}, and run the same command again"
    return InputError(f"{path} can't be written ({os.strerror(error.errno)}); {remedy}.")


def _allow(path: Path) -> None:
    """Gives it the usual permissions of a new file: safetensors writes files that only their owner may read."""
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
