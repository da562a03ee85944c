"""This module selects the examples that are held out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_sde.core.conditions import ABSENT
from score_sde.core.errors import InputError
from score_sde.readers.pictures import Collection

DIGEST_BYTES = 16


def row_digest(values: np.ndarray) -> np.ndarray:
    """Return the digest of an example's values, uint8 (16,)."""
    return np.frombuffer(hashlib.blake2b(values.tobytes(), digest_size=DIGEST_BYTES).digest(), np.uint8)


def alike(digests: np.ndarray) -> np.ndarray:
    """Return for each example the number of the first example with an equal digest; digests are uint8 (n, bytes)."""
    rows = np.ascontiguousarray(digests).view(np.dtype((np.void, digests.shape[1]))).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    return first[group.ravel()]


def held_out(names: Sequence[str], firsts: np.ndarray, labels: np.ndarray | None, share: float) -> np.ndarray:
    """Return which examples are held out: bool (n,).

    An example is held out if the hash of its name is below `share`, so that a new example moves no other example. Equal
    examples use the smallest of their names. All examples of a class are held out only if each class has one example.
    Neither split is empty, unless all examples are equal.

    Args:
        names: names of the examples.
        firsts: for each example the number of the first equal example, as `alike` returns.
        labels: class of each example, or None.
        share: share of examples to hold out, between 0 and 1.
    """
    smallest: dict[int, str] = {}
    for first, name in zip(firsts.tolist(), names, strict=True):
        smallest[first] = min(smallest.get(first, name), name)
    hashes = {first: _hash(name) for first, name in smallest.items()}
    place = np.asarray([hashes[first] for first in firsts.tolist()])
    chosen = place < share
    if not chosen.any():
        chosen = place == place.min()
    for label in [] if labels is None else np.unique(labels):
        mine = labels == label
        if chosen[mine].all():
            chosen[np.isin(firsts, firsts[mine & (place == place[mine].max())])] = False
    if not chosen.any():  # each class has one example
        chosen = place == place.min()
    if chosen.all():
        chosen = place != place.max()
    return chosen


def test_part(
    collection: Collection, columns: Mapping[str, Any], rows: np.ndarray, firsts: np.ndarray, share: float
) -> np.ndarray:
    """Return which rows of a collection are held out: as in its source, otherwise a share by the hash of the names.

    Args:
        collection: the examples.
        columns: conditions of the examples, as `as_arrays` returns.
        rows: numbers of the examples that can be read.
        firsts: for each row the position of the first equal row.
        share: share of examples to hold out.

    Raises:
        InputError: if a split would be empty.
    """
    numbers = rows.tolist()
    if collection.splits is not None:
        is_test = np.asarray([collection.splits[number] == "test" for number in numbers], bool)
    elif len(set(firsts.tolist())) < 2:
        raise InputError(f"{len(numbers):,} examples are all equal; expected two that differ, to hold one out.")
    else:
        known = isinstance(columns.get("label"), np.ndarray) and "label" not in columns.get(ABSENT, {})
        labels = columns["label"][rows] if known else None
        is_test = held_out([collection.names[number] for number in numbers], firsts, labels, share)
    if is_test.all() or not is_test.any():
        raise InputError(f"the split {'train' if is_test.all() else 'test'!r} has no example that can be read.")
    return is_test


def _hash(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64
