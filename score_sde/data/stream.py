"""The order in which training reads a data set: batch k is a function of (seed, k) alone."""

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
    """Batches by number; each epoch is read in an order of its own."""

    def __init__(self, examples: Examples, batch_size: int, seed: int, flip: bool, rows: np.ndarray) -> None:
        self._examples, self._batch_size, self._seed, self._flip, self._rows = examples, batch_size, seed, flip, rows
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)

    def __len__(self) -> int:
        return sys.maxsize // 2  # endless, but for readers that ask

    def __getitem__(self, number: int) -> Batch:
        epochs, places = np.divmod(number * self._batch_size + self._rows, len(self._examples))
        numbers = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            numbers[epochs == epoch] = self._order(int(epoch))[places[epochs == epoch]]
        batch = self._examples.batch(numbers)
        if self._flip:
            # Drawn for the whole batch, so that a row is the same whoever reads it.
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
    reads: Conditions = Conditions(),  # noqa: B008 (it cannot be changed)
) -> Iterator[Batch]:
    """Batches number start, start + 1, ... of an endless stream, each epoch in a new order.

    A batch is {'values': (rows, *shape), 'cond': None or the conditions by name, 'index': the rows' places in it}.

    Row r of batch k is a function of (seed, k batch_size + r) alone. Sources that are not in memory are
    read in the background.

    Args:
        source: the examples; `Examples` checks each as it is read.
        batch_size: examples per batch.
        seed: of the order and the flips.
        start: the number of the first batch.
        flip: whether each image is mirrored left to right with probability 1/2.
        rows: which rows of each batch are read and returned, as one process of several does; None for all.
        reads: the conditions that are wanted of the examples of a source.
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
    import grain  # imported late: it takes time that sampling need not spend

    batches = grain.MapDataset.source(stream).slice(slice(start, None))
    yield from batches.to_iter_dataset(grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS))
