"""This module finds the training examples nearest to samples, which a model that memorises repeats."""

from __future__ import annotations

import dataclasses

import numpy as np

from score_sde import data

_MOST = 50_000  # the largest number of training examples to search
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """`Neighbours` holds the nearest training examples of some examples.

    Attributes:
        distances: root mean square differences of each example to its nearest training examples, ascending, (n, k).
        numbers: the numbers of these training examples, (n, k).
        searched: the number of training examples that were searched.
        of: the number of all training examples.
    """

    distances: np.ndarray
    numbers: np.ndarray
    searched: int
    of: int


def nearest(examples: np.ndarray, train: data.Examples, k: int) -> Neighbours:
    """Return the nearest training examples, among the first 50,000 at most.

    Distances are computed by |a - b|^2 = |a|^2 - 2 a.b + |b|^2 in float64.

    Args:
        examples: the examples on the data's own scale, (n, *shape).
        train: the training examples.
        k: the number of neighbours.
    """
    ours = np.asarray(examples, np.float64).reshape(len(examples), -1)
    searched, k = min(len(train), _MOST), min(k, len(train))
    best = np.full((len(ours), k), np.inf)
    numbers = np.zeros((len(ours), k), np.int64)
    for low in range(0, searched, _CHUNK):
        rows = np.arange(low, min(low + _CHUNK, searched))
        theirs = np.asarray(train.batch(rows)["values"], np.float64).reshape(len(rows), -1)
        squares = (ours**2).sum(1)[:, None] - 2 * ours @ theirs.T + (theirs**2).sum(1)
        both = np.concatenate([best, np.maximum(squares, 0)], axis=1)
        which = np.concatenate([numbers, np.broadcast_to(rows, squares.shape)], axis=1)
        order = np.argsort(both, axis=1, kind="stable")[:, :k]
        best, numbers = np.take_along_axis(both, order, 1), np.take_along_axis(which, order, 1)
    return Neighbours(np.sqrt(best / ours.shape[1]), numbers, searched, len(train))
