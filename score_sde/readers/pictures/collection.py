"""Examples that were found somewhere, not yet decoded."""

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
# What people call the two parts of a data set.
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing", "val", "valid", "validation", "eval", "dev", "heldout", "held_out"), TEST),
}
Columns = Mapping[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Collection:
    """Examples that were found somewhere, in a fixed order.

    Attributes:
        kind: what they were found in, in words, such as 'a folder of pictures'.
        where: its path.
        names: the name of each example, which no other has.
        get: example number i, as an encoded picture or as an array.
        stamp: of example number i, a text that changes when the example does.
        splits: 'train' or 'test' for each, where the source says so.
        columns: conditions by name, with an entry for each example; None where an example lacks it.
        classes: the names of the classes, where the column `label` holds their numbers.
        values: all examples as one array, (n, *shape), where they are arrays of one shape.
        notes: what was left out, and what was taken for what, in sentences.
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
        """A digest of names, stamps, splits and conditions: what is prepared from them is known by it."""
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
    """A collection of arrays, (n, *shape) each, one after another; `parts` gives each a name for its examples."""
    shapes = {name: array.shape[1:] for name, array in parts.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{where} has arrays of different shapes ({shown(shapes, 200)}); expected one shape.")
    values = next(iter(parts.values())) if len(parts) == 1 else np.concatenate(list(parts.values()))
    names = [f"{name}/{number:08d}" for name, array in parts.items() for number in range(len(array))]
    for name, column in columns.items():
        if len(column) != len(values):
            raise InputError(
                f"{where} has {len(values):,} examples and {len(column):,} entries of {name!r}; expected as many."
            )
    stamp = stamp_of(where)
    return Collection(
        kind, where, names, lambda number: np.asarray(values[number]), lambda number: stamp,
        splits, columns, classes, values, notes,
    )  # fmt: skip


def stamp_of(where: pathlib.Path) -> str:
    """A text that changes when a file does, or a file of a folder, however deep it lies."""
    paths = [where] if where.is_file() else [path for path in sorted(where.rglob("*")) if path.is_file()]
    found = [(str(path.relative_to(where)), os.stat(path)) for path in paths]
    return repr([(name, one.st_size, one.st_mtime_ns) for name, one in found])


def part_of_file(name: str) -> str:
    """The part of the data that a file (train-00000-of-00004), or a folder above it, is called after; '' for none."""
    for piece in reversed(name.lower().split("/")):
        words = re.split(r"[-_.\d]+", piece)
        called = next((SPLITS[word] for word in words if word in SPLITS), "")
        if called:
            return called
    return ""
