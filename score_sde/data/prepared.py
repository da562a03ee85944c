"""Examples decoded once, into arrays on the disk that training maps into memory."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from score_sde.core import files
from score_sde.core.errors import InputError
from score_sde.core.progress import Progress
from score_sde.data.declared import Declared, as_arrays
from score_sde.data.parting import DIGEST_BYTES, alike, row_digest, test_part
from score_sde.data.rows import Rows
from score_sde.data.survey import in_parallel, read_or_told, told
from score_sde.readers.pictures import Collection

_VERSION = 1  # of what is in a prepared folder
_TODO, _DONE, _BROKEN = 0, 1, 2
_FLUSH_EVERY = 16  # chunks
_KEYS = {"counts", "digests", "duplicates", "on_both_sides", "broken", "broken_count"}  # of a manifest
_TOO_LARGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is made of a collection.

    Attributes:
        shape, dtype: of an example's values.
        decoding: of a number of examples, makes a function that maps what a collection has of examples to their values;
            an error in the place of an example is handed on, and Unreadable says why values cannot be had.
        settings: all that the values depend on, in plain values.
        declared: the conditions.
        share: of the examples, held out where the source does not say which.
        skip_broken: whether examples that cannot be read are left out; otherwise they are an error.
    """

    shape: tuple[int, ...]
    dtype: Any
    decoding: Callable[[int], AbstractContextManager[Callable[[Iterable[Any]], Iterator[np.ndarray | Exception]]]]
    settings: dict[str, Any]
    declared: Declared
    share: float
    skip_broken: bool


class Prepared:
    """The examples of a collection, decoded, in a folder of their own.

    The folder is named by a digest of the collection and of the recipe, so that what was prepared otherwise is never
    taken for it. Decoding goes on where it was stopped. manifest.json is written last.

    Args:
        root: the folder in which such folders are.
        collection: the examples.
        recipe: what is made of them.
    """

    def __init__(self, root: pathlib.Path, collection: Collection, recipe: Recipe) -> None:
        self._collection, self._recipe = collection, recipe
        plain = (_VERSION, collection.digest(), recipe.settings, recipe.shape, str(np.dtype(recipe.dtype)))
        told_by = repr((*plain, dataclasses.asdict(recipe.declared), recipe.share))
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in collection.where.stem)[:40] or "data"
        self.folder = root / f"{name}-{hashlib.blake2b(told_by.encode('utf-8', 'replace'), digest_size=8).hexdigest()}"

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What is in the folder: counts of each part, digests, what was left out; None for one that is not ready."""
        path = self.folder / "manifest.json"
        try:
            found = json.loads(path.read_bytes())
            if not set(found) >= _KEYS:
                raise ValueError
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read: delete {self.folder}, and it is prepared again.") from error
        return dict(found)

    def prepare(self) -> dict[str, Any]:
        """Decode what is not decoded yet, decide which examples are held out, and return the manifest.

        Raises:
            InputError: for examples that cannot be read, unless they are to be left out; for a full disk, or one that
                cannot be written; and where another process prepares the same.
        """
        try:
            if self.manifest is None:
                with files.exclusive(self.folder):
                    if self.manifest is None:
                        values, digests, state = self._open()
                        self._decode(values, digests, state)
                        self._finish(digests, state)
        except files.Busy as error:
            raise InputError(f"Another process prepares {self.folder}: wait until it has ended.") from error
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be written ({error.strerror or error}): name another folder with "
                "--config.data.dir."
            ) from error
        manifest = self.manifest
        assert manifest is not None
        if manifest["broken_count"] and not self._recipe.skip_broken:
            raise InputError(self._told(manifest["broken"], manifest["broken_count"]))
        return manifest

    def rows(self, split: str) -> Rows:
        """The examples of a part of the data, which is prepared if need be."""
        manifest = self.prepare()
        arrays: dict[str, Any] = {}
        try:
            arrays["values"] = np.load(self.folder / "values.npy", mmap_mode="r")
            with np.load(self.folder / "columns.npz") as columns:
                for name in columns.files:
                    kind, _, called = name.partition("/")
                    first, _, second = called.partition(".")
                    if kind == "rows":
                        continue
                    if second:
                        arrays.setdefault(first, {})[second] = columns[name]
                    else:
                        arrays[called] = columns[name]
                numbers = columns[f"rows/{split}"]
            digest = manifest["digests"][split]
        except Exception as error:  # whatever a damaged file makes NumPy raise
            raise InputError(
                f"The prepared data in {self.folder} cannot be read ({type(error).__name__}): delete that folder, and "
                "they are prepared again."
            ) from error
        return Rows(arrays, numbers, digest)

    def _open(self) -> list[np.ndarray]:
        """The arrays of values, digests and states; all are made anew where one is missing or damaged."""
        paths = [self.folder / f"{name}.npy" for name, _, _ in self._arrays()]
        try:
            found = [np.load(path, mmap_mode="r+") for path in paths]
            if all(array.shape == shape for array, (_, shape, _) in zip(found, self._arrays(), strict=True)):
                return found
        except (OSError, ValueError, EOFError):
            pass
        for path in paths:
            path.unlink(missing_ok=True)
        return [self._array(*each) for each in self._arrays()]

    def _told(self, broken: Sequence[str], count: int) -> str:
        n, where = len(self._collection), self._collection.where
        remedy = "" if count == n else ", or leave them out with --config.data.broken=skip"
        few = told(broken, count)
        return f"{count:,} of {n:,} examples of {where} cannot be read: {few}. Mend or remove them{remedy}."

    def _arrays(self) -> tuple[tuple[str, tuple[int, ...], Any], ...]:
        n = len(self._collection)
        return (
            ("values", (n, *self._recipe.shape), self._recipe.dtype),
            ("digests", (n, DIGEST_BYTES), np.uint8),
            ("state", (n,), np.uint8),
        )

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array on the disk, made with all its room: a full disk would end a process that writes into a hole."""
        path, aside = self.folder / f"{name}.npy", self.folder / f".{name}.npy"
        try:
            array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.dtype(dtype), shape=shape)
            array.flush()
            del array
            if hasattr(os, "posix_fallocate"):
                with aside.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
        except (OSError, ValueError, OverflowError) as error:
            aside.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno not in _TOO_LARGE:
                raise
            need = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
            free = shutil.disk_usage(self.folder).free
            raise InputError(
                f"{self.folder} needs {need:,} bytes for prepared data, and {free:,} are free: make room, use a "
                "smaller size, or name another folder with --config.data.dir."
            ) from error
        os.replace(aside, path)
        return np.load(path, mmap_mode="r+")

    def _decode(self, values: Any, digests: Any, state: Any) -> None:
        todo = np.flatnonzero(state != _DONE)
        n = len(self._collection)
        # Plain views: a memmap makes an object of its own for each row.
        rows, marks = np.asarray(values), np.asarray(digests)

        broken: list[str] = []
        progress_of = Progress("examples", n, n - len(todo), max(len(todo), 1))
        with progress_of as progress, self._recipe.decoding(len(todo)) as decode:

            def write(numbers: list[int]) -> list[str | None]:
                failures: list[str | None] = []
                for number, found in zip(numbers, read_or_told(self._collection, numbers, decode), strict=True):
                    failures.append(found if isinstance(found, str) else None)
                    if not isinstance(found, str):
                        rows[number] = found
                        marks[number] = row_digest(found)
                return failures

            for chunk, (numbers, failures) in enumerate(in_parallel(write, todo.tolist()), 1):
                broken += [failure for failure in failures if failure is not None]
                # Values are on the disk before they are called done.
                if chunk % _FLUSH_EVERY == 0 or numbers[-1] == todo[-1]:
                    values.flush()
                    digests.flush()
                state[numbers] = [_DONE if failure is None else _BROKEN for failure in failures]
                progress.add(len(numbers))
            state.flush()
        if broken and (not self._recipe.skip_broken or len(broken) == n):
            raise InputError(self._told(broken, len(broken)))
        self._broken = broken

    def _finish(self, digests: np.ndarray, state: np.ndarray) -> None:
        """Decide which examples are held out, and write columns.npz and manifest.json."""
        good = np.flatnonzero(state == _DONE)
        collection = self._collection
        firsts = alike(np.asarray(digests[good]))
        try:
            columns = as_arrays(collection.columns, self._recipe.declared, collection.classes)
            is_test = test_part(collection, columns, good, firsts, self._recipe.share)
        except InputError as error:
            raise InputError(f"{collection.where}: {error}") from error
        parts = {"train": good[~is_test], "test": good[is_test]}
        flat = {key: value for name, column in columns.items() for key, value in _flat(name, column)}
        named = {f"column/{name}": column for name, column in flat.items()}
        named |= {f"rows/{name}": rows for name, rows in parts.items()}
        with files.atomic_file(self.folder / "columns.npz") as file:
            np.savez(file, **named)  # type: ignore[arg-type]
        total = {
            name: hashlib.blake2b(np.asarray(digests[rows]).tobytes(), digest_size=DIGEST_BYTES)
            for name, rows in parts.items()
        }
        for name, rows in parts.items():
            for key in sorted(flat):
                total[name].update(key.encode() + np.ascontiguousarray(flat[key][rows]).tobytes())
        both = np.isin(firsts[is_test], firsts[~is_test]).sum() if self._collection.splits is not None else 0
        manifest = {
            "version": _VERSION,
            "source": str(self._collection.where),
            "kind": self._collection.kind,
            "counts": {name: len(rows) for name, rows in parts.items()},
            "digests": {name: one.hexdigest() for name, one in total.items()},
            "duplicates": int(len(good) - len(np.unique(firsts))),
            "on_both_sides": int(both),
            "broken": self._broken[:100],
            "broken_count": len(self._broken),
            "settings": self._recipe.settings,
        }
        files.write_text(self.folder / "manifest.json", json.dumps(manifest, indent=1))


def _flat(name: str, column: Any) -> list[tuple[str, np.ndarray]]:
    if isinstance(column, dict):
        return [(f"{name}.{part}", np.asarray(values)) for part, values in column.items()]
    return [(name, np.asarray(column))]
