"""The results of a job that is under way: parts, each a file of its own, whole or absent."""

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
    """A folder NAME.parts-DIGEST/ with files FIRST.npz, each of the examples FIRST, FIRST + 1, ...

    Any tool that reads npz can read them: arrays of equal length, `index` being the numbers of the
    examples, and `seconds`, what they took. The digest is that of what the results are of, so that those
    of other settings or another checkpoint are in another folder.

    Args:
        folder: where the results go.
        name: of the results.
        identity: what they are of, as JSON can hold it.
    """

    def __init__(self, folder: pathlib.Path, name: str, identity: dict[str, Any]) -> None:
        self.folder = folder / f"{name}.parts-{results.digest(identity)}"

    def write(self, first: int, columns: Columns, seconds: float) -> None:
        """Add the results of the examples first, first + 1, ..."""
        index = np.arange(first, first + len(next(iter(columns.values()))))
        with atomic_file(self.folder / f"{first:08d}.npz") as file:
            np.savez(file, index=index, seconds=np.float64(seconds), **columns)  # type: ignore[arg-type]

    def done(self, n: int) -> np.ndarray:
        """Which of the examples 0 .. n - 1 have results: bool (n,)."""
        there = np.zeros(n, bool)
        for _, part in self._whole():
            there[part["index"][part["index"] < n]] = True
        return there

    def merge(self, path: pathlib.Path, n: int) -> float:
        """Write the results of 0 .. n - 1 as one npz file, whole or not at all; returns the seconds they took.

        A part is in memory at a time, and the file is the same whatever parts it came in.

        Raises:
            InputError: unless every example is there exactly once.
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
        """The parts with the examples 0 .. n - 1, in order, and the seconds of each."""
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
                    f"{self.folder} holds {len(numbers)} results of {n} examples, some of them twice: move it away, "
                    "and give the same command again."
                )
            if time.monotonic() > end:
                raise InputError(
                    f"{self.folder} shows {len(numbers)} results of {n} examples here: give the same command again; if "
                    "it is on a network, see that all processes share it."
                )
            time.sleep(1.0)  # what another host has written may take its time to be seen here

    def remove(self) -> None:
        """Remove the folder, once its results are elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self) -> Iterator[tuple[pathlib.Path, Columns]]:
        """The parts in order; one that cannot be read is as good as absent, and is written anew."""
        for file in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(file) as arrays:
                    part = {name: arrays[name] for name in arrays.files}  # reading verifies the checksums
                lengths = {len(column) for name, column in part.items() if name != "seconds"}
                if lengths != {len(part["index"])} or part["index"][0] != int(file.stem):
                    raise ValueError("its columns do not fit")
                float(part["seconds"])
            except Exception as error:  # whatever a damaged file makes the reader raise
                why = f"{type(error).__name__}: {str(error)[:80]}"
                warnings.warn(f"{file} cannot be read ({why}): its examples are done again.", stacklevel=2)
                continue
            yield file, part


def _write_column(member: IO[bytes], name: str, files: list[pathlib.Path], n: int) -> None:
    """One column of 0 .. n - 1 in the format of npy, a part after the other."""
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
                f"{file} holds {name} of another type or shape than {files[0].name}: move it away, and give the same "
                "command again."
            )
        member.write(column.tobytes())
