"""This module defines collections of examples that were found at a path and are not decoded yet."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.errors import InputError
from score_sde.readers.refusal import shown

TRAIN, TEST = "train", "test"
# The usual names of the two splits of a data set.
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "eval", "dev", "heldout", "held_out"), TEST),
}
Columns = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Collection:
    """A `Collection` holds examples that were found at a path, in a fixed order.

    Attributes:
        kind: form of the source in words, such as 'a folder of pictures'.
        where: path of the source.
        names: unique name of each example.
        get: function that returns example number i as an encoded picture or as an array.
        stamp: function that returns for example number i a text that changes when the example changes.
        splits: 'train' or 'test' for each example; None if the source has no splits.
        columns: conditions by name, with an entry for each example; None if an example has no such condition.
        classes: names of the classes, if the column `label` holds their numbers.
        values: all examples as one array, (n, *shape), if the examples are arrays of one shape.
        notes: sentences that report what was omitted, and how the source was interpreted.
    """

    kind: str
    where: pathlib.Path
    names: Sequence[str]
    get: Callable[[int], bytes | np.ndarray]
    stamp: Callable[[int], str]
    splits: Sequence[str] | None = None
    columns: Columns = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    values: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Return a digest of names, stamps, splits and conditions, which identifies the data prepared from them."""
        total = hashlib.blake2b(digest_size=16)
        for number, name in enumerate(self.names):
            told = [repr(column[number]) for column in self.columns.values()]
            row = (name, self.stamp(number), self.splits and self.splits[number], told)
            total.update(repr(row).encode("utf-8", "replace"))
        total.update(repr((list(self.columns), self.classes, self.kind)).encode("utf-8", "replace"))
        return total.hexdigest()


def of_arrays(
    kind: str,
    where: pathlib.Path,
    parts: Mapping[str, np.ndarray],
    columns: Mapping[str, Sequence[Any]],
    splits: Sequence[str] | None = None,
    classes: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Collection:
    """Concatenate arrays, (n, *shape) each, into a collection; the names in `parts` begin the names of the examples."""
    shapes = {name: array.shape[1:] for name, array in parts.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{where} has arrays of different shapes ({shown(shapes, 200)}); expected one shape.")
    values = next(iter(parts.values())) if len(parts) == 1 else np.concatenate(list(parts.values()))
    names = [f"{name}/{number:08d}" for name, array in parts.items() for number in range(len(array))]
    for name, column in columns.items():
        if len(column) != len(values):
            raise InputError(
                f"{where} has {len(values):,} examples and {len(column):,} entries of {name!r}; expected equal numbers."
            )
    stamp = stamp_of(where)
    return Collection(
        kind, where, names, lambda number: np.asarray(values[number]), lambda number: stamp,
        splits, columns, classes, values, notes,
    )  # fmt: skip


def stamp_of(where: pathlib.Path) -> str:
    """Return a text that changes when a file changes, or when any file below a folder changes."""
    paths = [where] if where.is_file() else [path for path in sorted(where.rglob("*")) if path.is_file()]
    found = [(str(path.relative_to(where)), os.stat(path)) for path in paths]
    return repr([(name, one.st_size, one.st_mtime_ns) for name, one in found])


def part_of_file(name: str) -> str:
    """Return the split that a file (train-00000-of-00004), or a folder above the file, is named after; '' for none."""
    for piece in reversed(name.lower().split("/")):
        words = re.split(r"[-_.\d]+", piece)
        called = next((SPLITS[word] for word in words if word in SPLITS), "")
        if called:
            return called
    return ""
