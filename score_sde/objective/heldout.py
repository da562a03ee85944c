"""The loss on examples that training does not see."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from score_sde import data
from score_sde.core.arrays import Array
from score_sde.objective.loss_of_batch import Batch, Objective, step_key
from score_sde.parallel import Jit

_REPEATS = 2


class HeldOut:
    """The loss over a whole split, each example at the same times and noises at every call.

    Args:
        objective: the loss.
        devices: where to compute.
        source: the examples.
        batch_size: examples per compiled batch; the last one is padded, and padding is not counted.
        seed: of the times and noises.
    """

    def __init__(self, objective: Objective, devices: Jit, source: data.Source, batch_size: int, seed: int) -> None:
        self._objective = objective
        self._key = step_key(seed, 2**32 - 2)
        self._examples = len(source)
        place = np.arange(-(-self._examples * _REPEATS // batch_size) * batch_size)
        rows = devices.rows(batch_size)
        self._batches = []
        for low in range(0, len(place), batch_size):
            mine = place[low + rows]
            batch = data.read(source, mine % self._examples) | {"index": mine.astype(np.uint32)}
            self._batches.append(devices.place_sharded(batch, batch_size))
        # Copied to every device, so that every process has every loss.
        self._each = jax.jit(self._losses, out_shardings=devices.replicated)

    def __call__(self, params: Any) -> float:
        """The mean loss with these parameters, dropout off."""
        return float(self.each(params).mean())

    def each(self, params: Any, t: ArrayLike | None = None) -> np.ndarray:
        """The loss of each example, a mean over its noises, float64 (n,); at time t, or at drawn times."""
        # One after another: programs in flight that wait for one another's devices can starve a small CPU.
        parts = [np.asarray(self._each(params, batch, self._key, t), np.float64) for batch in self._batches]
        return np.concatenate(parts)[: self._examples * _REPEATS].reshape(_REPEATS, -1).mean(axis=0)

    def _losses(self, params: Any, batch: Batch, key: Array, t: Array | None) -> Array:
        return self._objective(self._objective.blueprint.denoiser(params), batch, key, train=False, t=t)
