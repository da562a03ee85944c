"""This module opens gzipped files as seekable files."""

from __future__ import annotations

import gzip
import pathlib
import shutil
import tempfile
import zlib
from typing import IO

from score_sde.core.errors import InputError

_MOST_RATIO = 200  # pictures and arrays of bytes shrink by a smaller factor; the limit of gzip is about 1,030
_CHUNK = 2**20
_IN_MEMORY = 2**26


def is_gzip(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def seekable(path: pathlib.Path) -> IO[bytes]:
    """Open the content of a file; unpack a gzipped file into memory or a nameless temporary file.

    Raises:
        InputError: if the file cannot be read or unpacked, if it unpacks to more than 200 times its size, or if there
            is not enough space for the content.
    """
    try:
        if not is_gzip(path):
            return path.open("rb")
        most = max(path.stat().st_size * _MOST_RATIO, _CHUNK)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    unpacked: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (its user closes it)
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                if unpacked.tell() + len(chunk) > most:
                    raise InputError(f"{path} unpacks to more than {_MOST_RATIO} times its size; it is not used.")
                unpacked.write(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked ({str(error)[:100]}): get it again.") from error
    except OSError as error:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        raise InputError(
            f"{path} cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}; {free:,} bytes are free): make "
            "more space, set TMPDIR, or unpack it yourself."
        ) from error
    unpacked.seek(0)
    return unpacked
