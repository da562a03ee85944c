"""This module maps an array of an npz file into memory, so that a large file is read row by row."""

from __future__ import annotations

import os
import pathlib
import struct
import zipfile
from typing import IO

import numpy as np

_MOST_BYTES = 4 * 2**30
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name


def check_size(file: str | os.PathLike[str] | IO[bytes]) -> None:
    """Raise ValueError if the arrays of an npz file need more than 4 GiB, whatever their compressed size is."""
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MOST_BYTES:
        raise ValueError(f"its arrays need {size / 2**30:.0f} GiB, more than 4 GiB")
    if not isinstance(file, str | os.PathLike):
        file.seek(0)


def mapped(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Return an array of an npz file as a read-only map of the file.

    An array that is compressed, or in Fortran order, is read into memory instead.

    Raises:
        KeyError: if the file has no array of this name.
        ValueError, zipfile.BadZipFile: if the file is damaged, or if the array needs pickle.
    """
    path = pathlib.Path(path)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{name}.npy")
        with archive.open(entry) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(member)
            header = member.tell()
    if entry.compress_type != zipfile.ZIP_STORED or fortran or dtype.hasobject or 0 in shape:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(_LOCAL_HEADER)
    name_length, extra_length = struct.unpack_from("<HH", local, 26)
    begin = entry.header_offset + _LOCAL_HEADER + name_length + extra_length + header
    return np.memmap(path, dtype, mode="r", offset=begin, shape=shape)
