"""This module reads the values of a condition, one row for each sample, from a file that a user names."""

from __future__ import annotations

import functools
import pathlib
import zipfile
from typing import Any

import numpy as np

from score_sde.core import files, npz
from score_sde.core.errors import InputError


def is_file(value: Any) -> bool:
    """Return whether a value names a file of arrays: 'PATH.npy', 'PATH.npz', or 'PATH.npz:NAME'."""
    return isinstance(value, str) and _parts(value, "")[0].endswith((".npy", ".npz"))


def rows(value: str, name: str) -> np.ndarray:
    """Return the array of a file, (rows, ...), mapped into memory where the file allows it.

    Args:
        value: 'PATH.npy'; 'PATH.npz' for its array `name`; or 'PATH.npz:NAME' for its array NAME.
        name: the name of the condition.

    Raises:
        InputError: if the file or the array cannot be read.
    """
    path, array = _parts(value, name)
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False) if path.endswith(".npy") else npz.mapped(path, array)
    except KeyError as error:
        with np.load(path, allow_pickle=False) as arrays:
            known = ", ".join(arrays.files)
        raise InputError(f"{path} has no array {array!r}; it has {known}: name one as {path}:NAME.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as values of {name}: {error}.") from error
    if not found.ndim or not len(found):
        raise InputError(f"{value} has shape {found.shape}; expected one row of {name!r} for each sample.")
    return found


def digest(value: str) -> str:
    """Return the digest of the content of the file that a value names."""
    path = pathlib.Path(_parts(value, "")[0])
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return _digest(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: pathlib.Path, size: int, changed: int) -> str:
    return files.digest_of_file(path)


def _parts(value: str, name: str) -> tuple[str, str]:
    path, separator, array = value.rpartition(":")
    return (path, array) if separator and path.endswith(".npz") else (value, name)
