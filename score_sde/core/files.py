"""Files that are whole or absent, and folders that one process has to itself."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from score_sde.core.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes its name when it is complete, and leaves nothing behind otherwise."""
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
    """Write a text file, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


class Busy(InputError):
    """Another process has a folder."""


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Have a folder to oneself, made if need be; the system lets go of it when the process ends, however it ends.

    Raises:
        InputError: where another process has it.
    """
    folder = pathlib.Path(folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # The folder itself is locked: a lock file would outlive its process.
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # gone again if nothing was written
                folder.rmdir()


def _lock(handle: int, folder: pathlib.Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Busy(f"Another run is at work in {folder}: wait until it has ended, or use another --workdir.") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
            raise
        warnings.warn(f"{folder} cannot be locked ({error}): take care that only one run writes there.", stacklevel=2)
