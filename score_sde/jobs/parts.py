"""This module stores the results of an unfinished job in parts; each part is one file, whole or absent."""

from __future__ import annotations

import pathlib
import shutil
import time
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.core.files import atomic_file
from score_sde.jobs import results

Columns = dict[str, np.ndarray]
_WAIT_S = 60.0


class Parts:
    """`Parts` manages a folder NAME.parts-DIGEST/; each file FIRST.npz holds the examples FIRST, FIRST + 1, ...

    Any tool that reads npz can read the files. A file holds arrays of equal length, among them `index` with the numbers
    of the examples, and the number `seconds`, the time spent on the examples. DIGEST is the digest of the identity, so
    results of other settings or of another checkpoint are in another folder.

    Args:
        folder: the folder of the results.
        name: the name of the results.
        identity: everything that the results depend on, as JSON can hold it.
    """

    def __init__(self, folder: pathlib.Path, name: str, identity: dict[str, Any]) -> None:
        self.folder = folder / f"{name}.parts-{results.digest(identity)}"

    def write(self, first: int, columns: Columns, seconds: float) -> None:
        """Write the results of the examples first, first + 1, ... as one part."""
        index = np.arange(first, first + len(next(iter(columns.values()))))
        with atomic_file(self.folder / f"{first:08d}.npz") as file:
            np.savez(file, index=index, seconds=np.float64(seconds), **columns)  # type: ignore[arg-type]

    def done(self, n: int) -> np.ndarray:
        """Return which of the examples 0 .. n - 1 have results: bool (n,)."""
        there = np.zeros(n, bool)
        for _, part in self._whole():
            there[part["index"][part["index"] < n]] = True
        return there

    def merge(self, path: pathlib.Path, n: int) -> float:
        """Write the results of the examples 0 .. n - 1 as one npz file, whole or not at all, and return their seconds.

        Only one part is in memory at a time. The file does not depend on how the results were divided into parts.

        Raises:
            InputError: unless every example has exactly one result.
        """
        found = self._all_of(n)
        with np.load(found[0][0]) as part:
            names = [name for name in part.files if name != "seconds"]
        with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
            for name in names:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_column(member, name, [file for file, _ in found], n)
        return sum(seconds for _, seconds in found)

    def _all_of(self, n: int) -> list[tuple[pathlib.Path, float]]:
        """Return the parts with the examples 0 .. n - 1, in order, and the seconds of each part."""
        end = time.monotonic() + _WAIT_S
        while True:
            found = [
                (file, part["index"], float(part["seconds"])) for file, part in self._whole() if part["index"][0] < n
            ]
            numbers = np.concatenate([index[index < n] for _, index, _ in found] or [np.zeros(0, int)])
            if np.array_equal(numbers, np.arange(n)):
                return [(file, seconds) for file, _, seconds in found]
            if len(np.unique(numbers)) < len(numbers):
                raise InputError(
                    f"{self.folder} holds {len(numbers)} results of {n} examples, some of them twice: move the "
                    "folder away, and run the same command again."
                )
            if time.monotonic() > end:
                raise InputError(
                    f"{self.folder} shows {len(numbers)} results of {n} examples on this host: run the same command "
                    "again; if the folder is on a network, check that all processes share the folder."
                )
            time.sleep(1.0)  # files of another host may appear here with a delay

    def remove(self) -> None:
        """Remove the folder after its results have been written elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self) -> Iterator[tuple[pathlib.Path, Columns]]:
        """Yield the whole parts in order; a part that cannot be read counts as absent and is computed again."""
        for file in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(file) as arrays:
                    part = {name: arrays[name] for name in arrays.files}  # reading verifies the checksums
                lengths = {len(column) for name, column in part.items() if name != "seconds"}
                if lengths != {len(part["index"])} or part["index"][0] != int(file.stem):
                    raise ValueError("lengths or example numbers do not match")
                float(part["seconds"])
            except Exception as error:  # a damaged file can make the reader raise any exception
                why = f"{type(error).__name__}: {str(error)[:80]}"
                warnings.warn(f"{file} cannot be read ({why}): its examples are computed again.", stacklevel=2)
                continue
            yield file, part


def _write_column(member: IO[bytes], name: str, files: list[pathlib.Path], n: int) -> None:
    """Write one column of the examples 0 .. n - 1 in the npy format, one part after another."""
    kind = None
    for file in files:
        with np.load(file) as part:
            column = np.ascontiguousarray(part[name][part["index"] < n])
        if kind is None:
            kind = (column.dtype, column.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(column.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(member, header | {"shape": (n, *column.shape[1:])})
        if (column.dtype, column.shape[1:]) != kind:
            raise InputError(
                f"{file} holds {name} of another dtype or shape than {files[0].name}: move the file away, and run "
                "the same command again."
            )
        member.write(column.tobytes())
