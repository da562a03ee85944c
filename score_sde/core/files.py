"""This module writes files completely or not at all, and locks folders for one process."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pathlib
import secrets
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from score_sde.core.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no fcntl
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file to write that gets its name when it is complete; after an error the file is removed."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}"
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file completely or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """Return a digest of the bytes of a file."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


class Busy(InputError):
    """`Busy` reports that another process holds the lock of a folder."""


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Lock a folder for this process; create the folder if it does not exist.

    The operating system releases the lock when the process ends, also if the process is killed.

    Raises:
        InputError: if another process holds the lock.
    """
    folder = pathlib.Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # The folder itself is locked, because a lock file would remain after its process.
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # a new folder is removed if nothing was written
                folder.rmdir()


def _lock(handle: int, folder: pathlib.Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(f"Another run uses {folder}: wait until that run has ended, or use another --workdir.") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise
        warnings.warn(f"{folder} cannot be locked ({error}): make sure that only one run writes there.", stacklevel=2)
