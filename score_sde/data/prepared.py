"""Examples decoded once, into arrays on the disk that training maps into memory."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from score_sde.core import files
from score_sde.core.conditions import ABSENT
from score_sde.core.errors import InputError
from score_sde.core.progress import Progress
from score_sde.data.declared import Declared, as_arrays
from score_sde.data.parting import alike, held_out
from score_sde.data.rows import Rows
from score_sde.data.survey import in_parallel, told
from score_sde.readers.pictures import Collection, Unreadable

_VERSION = 1  # of what is in a prepared folder
_TODO, _DONE, _BROKEN = 0, 1, 2
_DIGEST = 16  # bytes
_FLUSH_EVERY = 16  # chunks
_ROWS = "rows/"  # no condition has a name with a slash


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is made of a collection.

    Attributes:
        shape, dtype: of an example's values.
        decode: from what a collection has of an example to its values.
        settings: all that `decode` depends on, in plain values.
        declared: the conditions.
        share: of the examples, held out where the source does not say which.
        skip_broken: whether examples that cannot be read are left out; otherwise they are an error.
    """

    shape: tuple[int, ...]
    dtype: Any
    decode: Callable[[Any], np.ndarray]
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
        told_by = repr((*plain, dataclasses.asdict(recipe.declared), recipe.share, recipe.skip_broken))
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in collection.where.stem)[:40] or "data"
        self.folder = root / f"{name}-{hashlib.blake2b(told_by.encode('utf-8', 'replace'), digest_size=8).hexdigest()}"

    @property
    def is_ready(self) -> bool:
        return (self.folder / "manifest.json").exists()

    @property
    def manifest(self) -> dict[str, Any]:
        """What is in the folder: counts of each part, digests, and what was left out."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
            return found
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder}/manifest.json cannot be read: delete {self.folder}.") from error

    def prepare(self) -> None:
        """Decode what is not decoded yet, and decide which examples are held out.

        Raises:
            InputError: for examples that cannot be read, unless they are to be left out; for a full disk; and where
                another process prepares the same.
        """
        if self.is_ready:
            return
        with files.exclusive(self.folder):
            if self.is_ready:
                return
            values, digests, state = (self._array(*each) for each in self._arrays())
            self._decode(values, digests, state)
            self._finish(digests, state)

    def rows(self, split: str) -> Rows:
        """The examples of a part of the data, which is prepared if need be."""
        self.prepare()
        manifest = self.manifest
        try:
            arrays: dict[str, Any] = {"values": np.load(self.folder / "values.npy", mmap_mode="r")}
            with np.load(self.folder / "columns.npz") as columns:
                for name in columns.files:
                    first, _, second = name.partition(".")
                    if second:
                        arrays.setdefault(first, {})[second] = columns[name]
                    elif not name.startswith(_ROWS):
                        arrays[name] = columns[name]
                numbers = columns[_ROWS + split]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"The prepared data in {self.folder} cannot be read ({type(error).__name__}): delete that folder, and "
                "they are prepared again."
            ) from error
        return Rows(arrays, numbers, manifest["digests"][split])

    def _arrays(self) -> tuple[tuple[str, tuple[int, ...], Any], ...]:
        n = len(self._collection)
        return (
            ("values", (n, *self._recipe.shape), self._recipe.dtype),
            ("digests", (n, _DIGEST), np.uint8),
            ("state", (n,), np.uint8),
        )

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array on the disk, made with all its room: a full disk would end a process that writes into a hole."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            aside = self.folder / f".{name}.npy"
            try:
                array = np.lib.format.open_memmap(aside, mode="w+", dtype=np.dtype(dtype), shape=shape)
                array.flush()
                del array
                if hasattr(os, "posix_fallocate"):
                    with aside.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, aside.stat().st_size)
            except OSError as error:
                aside.unlink(missing_ok=True)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                need = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
                free = shutil.disk_usage(self.folder).free
                raise InputError(
                    f"{self.folder} needs {need:,} bytes for prepared data, and {free:,} are free: make room, or name "
                    "another folder with --config.data.dir."
                ) from error
            os.replace(aside, path)
        return np.load(path, mmap_mode="r+")

    def _decode(self, values: np.ndarray, digests: np.ndarray, state: np.ndarray) -> None:
        todo = np.flatnonzero(state != _DONE)
        n = len(self._collection)
        with Progress("examples", n, n - len(todo), max(len(todo), 1)) as progress:
            broken: list[tuple[str, str]] = []
            for chunk, (numbers, results) in enumerate(in_parallel(self._one, n, todo.tolist()), 1):
                for number, result in zip(numbers, results, strict=True):
                    if isinstance(result, str):
                        broken.append((self._collection.names[number], result))
                    else:
                        values[number] = result
                        digests[number] = np.frombuffer(
                            hashlib.blake2b(result.tobytes(), digest_size=_DIGEST).digest(), np.uint8
                        )
                # Values are on the disk before they are called done.
                if chunk % _FLUSH_EVERY == 0 or numbers[-1] == todo[-1]:
                    values.flush()  # type: ignore[attr-defined]
                    digests.flush()  # type: ignore[attr-defined]
                state[numbers] = [_BROKEN if isinstance(result, str) else _DONE for result in results]
                progress.add(len(numbers))
            state.flush()  # type: ignore[attr-defined]
        if broken and (not self._recipe.skip_broken or len(broken) == n):
            raise InputError(
                f"{len(broken):,} of {n:,} examples of {self._collection.where} cannot be read: {told(broken)}. Mend "
                "or remove them, or leave them out with --config.data.broken=skip."
            )
        self._broken = broken

    def _one(self, number: int) -> np.ndarray | str:
        try:
            return self._recipe.decode(self._collection.get(number))
        except (Unreadable, InputError) as error:
            return str(error)

    def _finish(self, digests: np.ndarray, state: np.ndarray) -> None:
        """Decide which examples are held out, and write columns.npz and manifest.json."""
        good = np.flatnonzero(state == _DONE)
        columns = as_arrays(self._collection.columns, self._recipe.declared)
        firsts = alike(np.asarray(digests[good]))
        if self._collection.splits is None:
            lacking = columns.get(ABSENT, {}).get("label")
            labels = columns["label"][good] if "label" in columns and lacking is None else None
            is_test = held_out([self._collection.names[i] for i in good.tolist()], firsts, labels, self._recipe.share)
        else:
            is_test = np.asarray([self._collection.splits[i] == "test" for i in good.tolist()])
        parts = {"train": good[~is_test], "test": good[is_test]}
        flat = {key: value for name, column in columns.items() for key, value in _flat(name, column)}
        with files.atomic_file(self.folder / "columns.npz") as file:
            np.savez(file, **flat, **{_ROWS + name: rows for name, rows in parts.items()})  # type: ignore[arg-type]
        total = {
            name: hashlib.blake2b(np.asarray(digests[rows]).tobytes(), digest_size=16) for name, rows in parts.items()
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
            "broken": [list(pair) for pair in self._broken[:100]],
            "broken_count": len(self._broken),
            "settings": self._recipe.settings,
        }
        files.write_text(self.folder / "names.json", json.dumps(list(self._collection.names)))
        files.write_text(self.folder / "manifest.json", json.dumps(manifest, indent=1))


def _flat(name: str, column: Any) -> list[tuple[str, np.ndarray]]:
    if isinstance(column, dict):
        return [(f"{name}.{part}", np.asarray(values)) for part, values in column.items()]
    return [(name, np.asarray(column))]
