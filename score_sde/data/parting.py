"""Which examples are held out of training, where their source does not say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def alike(digests: np.ndarray) -> np.ndarray:
    """The number of the first example with the same digest, for each; digests are uint8 (n, bytes)."""
    rows = np.ascontiguousarray(digests).view(np.dtype((np.void, digests.shape[1]))).ravel()
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    return first[group.ravel()]


def held_out(names: Sequence[str], firsts: np.ndarray, labels: np.ndarray | None, share: float) -> np.ndarray:
    """Which examples are held out: bool (n,).

    An example is held out where the hash of a name is below `share`, so that a new example moves no other one. Equal
    examples go by the smallest of their names. A class is never held out as a whole, and neither part is empty.

    Args:
        names: of the examples.
        firsts: for each the number of the first one that equals it (`alike`).
        labels: the class of each, or None.
        share: between 0 and 1.
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
    if chosen.all():
        chosen = place != place.max()
    return chosen


def _hash(name: str) -> float:
    """A number in [0, 1) that is fixed by a name."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") / 2**64
