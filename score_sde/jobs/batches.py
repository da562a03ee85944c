"""This module computes columns of numbered examples in padded batches, on the devices of one process."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from score_sde.core import keys as keys_
from score_sde.data import Batch, Examples
from score_sde.jobs import runner
from score_sde.jobs.evaluation import Context
from score_sde.jobs.parts import Columns
from score_sde.parallel import processes


class OfBatch(abc.ABC):
    """`OfBatch` computes columns of at most `size` examples; a subclass defines `columns`.

    Args:
        at: arguments of the evaluation.
        size: number of examples of a batch, rounded up to a multiple of the devices.
        examples: the examples; None for those of the split 'test'.
    """

    def __init__(self, at: Context, size: int, examples: Examples | None = None) -> None:
        self.at, self.devices = at, at.devices.local
        self.denoiser = at.denoiser(self.devices)
        self._size = self.devices.padded(size)
        self.trained_dequantised = bool(getattr(at.experiment.objective, "dequantises", True))
        self._examples = at.examples if examples is None else examples

    @abc.abstractmethod
    def columns(self, values: jax.Array, cond: Any, keys: jax.Array, numbers: np.ndarray) -> Columns:
        """Return arrays with one row for each example.

        Args:
            values, cond: data on their own scale and conditions, on the devices.
            keys: random keys of the examples in the stream 'likelihood', which depend on (eval.seed, number) alone.
            numbers: numbers of the examples; the padding repeats the last one.
        """

    def __call__(self, numbers: np.ndarray) -> Columns:
        batch: Batch = self._examples.batch(numbers)
        # The batch is padded with its last example; the results of the padding are cut off below.
        place = np.minimum(np.arange(self._size), len(numbers) - 1)
        values, cond = self.devices.place_sharded(
            jax.tree.map(lambda leaf: leaf[place], (batch["values"], batch["cond"]))
        )
        keys = keys_.examples(keys_.stream(self.at.seed, "likelihood"), numbers[place])
        keys = self.devices.place_sharded(keys)
        values, cond = self.at.experiment.conditioning(values, cond, keys, train=False)
        label = {} if batch["cond"] is None or "label" not in batch["cond"] else {"label": batch["cond"]["label"]}
        columns = self.columns(values, cond, keys, numbers[place])
        return label | {name: column[: len(numbers)] for name, column in columns.items()}


def measured(
    at: Context, name: str, n: int, make: Callable[[int], OfBatch]
) -> tuple[OfBatch, dict[str, np.ndarray], float] | None:
    """Return (the computation, its columns of n examples, seconds), resumed from its parts; None but for process 0.

    The columns are also in `name`.npz of the evaluation's folder.

    Args:
        at: arguments of the evaluation.
        name: name of the evaluation.
        n: number of examples, numbered from 0.
        make: returns the computation for batches of a given size.
    """
    parts, archive = at.parts(name), at.folder / f"{name}.npz"
    size = runner.equal_batches(n, at.batch_size)
    compute = make(size)
    runner.run(parts, n, size, compute, "examples")
    if not processes.is_first():
        return None
    seconds = parts.merge(archive, n)
    with np.load(archive) as arrays:
        return compute, {column: arrays[column] for column in arrays.files}, seconds
