"""This module decodes examples once, into arrays on the disk that training maps into memory."""

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

_VERSION = 1  # of the format of a prepared folder
_TODO, _DONE, _BROKEN = 0, 1, 2
_FLUSH_EVERY = 16  # chunks
_KEYS = {"counts", "digests", "duplicates", "on_both_sides", "broken", "broken_count"}  # required in a manifest
_TOO_LARGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe describes how the examples of a collection are prepared.

    Attributes:
        shape, dtype: shape and dtype of an example's values.
        decoding: function of the number of examples that returns a context manager, which provides a decoder. The
            decoder maps raw examples to values. The decoder passes on an error that is in the place of an example, and
            yields Unreadable, with the reason, for an example that cannot be decoded.
        settings: all settings that determine the values, in plain values.
        declared: declared conditions.
        share: share of examples that is held out if the source has no splits.
        skip_broken: whether examples that cannot be read are skipped; otherwise they raise InputError.
    """

    shape: tuple[int, ...]
    dtype: Any
    decoding: Callable[[int], AbstractContextManager[Callable[[Iterable[Any]], Iterator[np.ndarray | Exception]]]]
    settings: dict[str, Any]
    declared: Declared
    share: float
    skip_broken: bool


class Prepared:
    """`Prepared` holds the decoded examples of a collection in a separate folder.

    The name of the folder contains a digest of the collection and of the recipe, so that data of other examples or
    settings are never read instead. Interrupted decoding resumes. manifest.json is written last.

    Args:
        root: folder that contains the folders of prepared data.
        collection: the examples.
        recipe: how the examples are prepared.
    """

    def __init__(self, root: pathlib.Path, collection: Collection, recipe: Recipe) -> None:
        self._collection, self._recipe = collection, recipe
        plain = (_VERSION, collection.digest(), recipe.settings, recipe.shape, str(np.dtype(recipe.dtype)))
        told_by = repr((*plain, dataclasses.asdict(recipe.declared), recipe.share))
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in collection.where.stem)[:40] or "data"
        self.folder = root / f"{name}-{hashlib.blake2b(told_by.encode('utf-8', 'replace'), digest_size=8).hexdigest()}"

    @property
    def manifest(self) -> dict[str, Any] | None:
        """Return the contents of manifest.json: counts of each split, digests, skipped examples; None if not ready."""
        path = self.folder / "manifest.json"
        try:
            found = json.loads(path.read_bytes())
            if not set(found) >= _KEYS:
                raise ValueError
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read: delete {self.folder} to prepare the data again.") from error
        return dict(found)

    def prepare(self) -> dict[str, Any]:
        """Decode the remaining examples, decide which examples are held out, and return the manifest.

        Raises:
            InputError: if examples cannot be read and are not to be skipped; if the disk is full or cannot be written;
                if another process prepares the same folder.
        """
        try:
            if self.manifest is None:
                with files.exclusive(self.folder):
                    if self.manifest is None:
                        values, digests, state = self._open()
                        self._decode(values, digests, state)
                        self._finish(digests, state)
        except files.Busy as error:
            raise InputError(f"Another process prepares {self.folder}: wait until that process has ended.") from error
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
        """Return the examples of a split; prepare the data if necessary."""
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
        except Exception as error:  # with a damaged file NumPy may raise any exception
            raise InputError(
                f"The prepared data in {self.folder} cannot be read ({type(error).__name__}): delete that folder to "
                "prepare the data again."
            ) from error
        return Rows(arrays, numbers, digest)

    def _open(self) -> list[np.ndarray]:
        """Return the arrays of values, digests and states; create all three again if one is missing or damaged."""
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
        remedy = "" if count == n else ", or skip them with --config.data.broken=skip"
        few = told(broken, count)
        return f"{count:,} of {n:,} examples of {where} cannot be read: {few}. Repair or remove them{remedy}."

    def _arrays(self) -> tuple[tuple[str, tuple[int, ...], Any], ...]:
        n = len(self._collection)
        return (
            ("values", (n, *self._recipe.shape), self._recipe.dtype),
            ("digests", (n, DIGEST_BYTES), np.uint8),
            ("state", (n,), np.uint8),
        )

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Create an array on the disk with all its space allocated.

        Without the allocation, a full disk would end a process that writes into a sparse file.
        """
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
                f"{self.folder} needs {need:,} bytes for prepared data, and {free:,} bytes are free: delete other "
                "files, use a smaller size, or name another folder with --config.data.dir."
            ) from error
        os.replace(aside, path)
        return np.load(path, mmap_mode="r+")

    def _decode(self, values: Any, digests: Any, state: Any) -> None:
        todo = np.flatnonzero(state != _DONE)
        n = len(self._collection)
        # These are plain array views, because a memmap creates a new object for each row.
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
                # Values are written to the disk before the state of their examples becomes _DONE.
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
