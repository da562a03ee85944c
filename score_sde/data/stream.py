"""This module defines the order in which training reads a data set: batch k is a function of (seed, k) alone."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator

import jax
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.conditions import Conditions
from score_sde.core.errors import InputError
from score_sde.data.base import Batch, Source
from score_sde.data.examples import Examples

_THREADS = 4


class _Stream:
    """`_Stream` returns batches by number; each epoch has its own order."""

    def __init__(self, examples: Examples, batch_size: int, seed: int, flip: bool, rows: np.ndarray) -> None:
        self._examples, self._batch_size, self._seed, self._flip, self._rows = examples, batch_size, seed, flip, rows
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)

    def __len__(self) -> int:
        return sys.maxsize // 2  # the stream is endless, but grain needs a length

    def __getitem__(self, number: int) -> Batch:
        epochs, places = np.divmod(number * self._batch_size + self._rows, len(self._examples))
        numbers = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            numbers[epochs == epoch] = self._order(int(epoch))[places[epochs == epoch]]
        batch = self._examples.batch(numbers)
        if self._flip:
            # The flips are drawn for the whole batch, so that a row does not depend on the process that reads it.
            drawn = keys_.host_stream(self._seed, "flip", number).random(self._batch_size)[self._rows] < 0.5
            images = batch["values"]
            if images.ndim != 4:
                raise InputError(
                    f"flip is True, and examples have values of shape {images.shape[1:]}; only images (height, width, "
                    "channels) can be mirrored: use flip=False."
                )
            batch["values"] = np.where(drawn.reshape(-1, 1, 1, 1), images[:, :, ::-1], images)
            for name, condition in self._examples.reads.items():
                values = batch["cond"][name]
                batch["cond"][name] = jax.tree.map(
                    lambda turned, leaf: np.where(drawn.reshape(-1, *[1] * (leaf.ndim - 1)), turned, leaf),
                    condition.mirrored(values),
                    values,
                )
        return batch | {"index": self._rows.astype(np.uint32)}

    def _draw_order(self, epoch: int) -> np.ndarray:
        return keys_.host_stream(self._seed, "order", epoch).permutation(len(self._examples))


def training_batches(
    source: Source | Examples,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    flip: bool = False,
    rows: np.ndarray | None = None,
    reads: Conditions = Conditions(),  # noqa: B008 (immutable)
) -> Iterator[Batch]:
    """Return an iterator over batches start, start + 1, ... of an endless stream with a new order in each epoch.

    A batch is {'values': (rows, *shape), 'cond': None or the conditions by name, 'index': positions of the rows in the
    whole batch}. The example in row r of batch k is a function of (seed, k batch_size + r) alone, and its flip is a
    function of (seed, k, r) alone. Sources that are not in memory are read in the background.

    Args:
        source: the examples; `Examples` checks each example when it is read.
        batch_size: number of examples per batch.
        seed: seed of the order and of the flips.
        start: number of the first batch.
        flip: whether each image is mirrored left to right with probability 1/2.
        rows: rows of each batch that are read and returned, for one of several processes; None for all rows.
        reads: conditions that are read from `source`, if `source` is not `Examples`.
    """
    examples = source if isinstance(source, Examples) else Examples(source, reads)
    if not len(examples):
        raise InputError("The data source is empty; expected at least one example.")
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    stream = _Stream(examples, batch_size, seed, flip, rows)
    if examples.in_memory:
        return map(stream.__getitem__, itertools.count(start))
    return _in_background(stream, start)


def _in_background(stream: _Stream, start: int) -> Iterator[Batch]:
    import grain  # imported here, because the import is slow and sampling does not need grain

    batches = grain.MapDataset.source(stream).slice(slice(start, None))
    yield from batches.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS))
