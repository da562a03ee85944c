"""The loss on examples that training does not see."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import data
from score_sde.core.arrays import Array
from score_sde.objective.loss_of_batch import Batch, Objective, step_key
from score_sde.parallel import Jit

_REPEATS = 2


class HeldOut:
    """The mean loss over a whole split, each example at the same times and noises at every call.

    Args:
        objective: the loss.
        parallel: the devices.
        source: the examples.
        batch_size: examples per compiled batch; the last one is padded, and padding has no weight.
        seed: of the times and noises.
    """

    def __init__(self, objective: Objective, parallel: Jit, source: data.Source, batch_size: int, seed: int) -> None:
        self._objective = objective
        self._key = step_key(seed, 2**32 - 2)
        examples = data.all_examples(source)
        n = len(examples["label"]) * _REPEATS
        place = np.arange(-(-n // batch_size) * batch_size)
        padded = {name: np.resize(values, (len(place), *values.shape[1:])) for name, values in examples.items()}
        padded |= {"index": place.astype(np.uint32), "weight": (place < n).astype(np.float32)}
        cuts = range(0, len(place), batch_size)
        self._batches = [
            jax.device_put({k: v[i : i + batch_size] for k, v in padded.items()}, parallel.sharded) for i in cuts
        ]
        self._total = jax.jit(self._weighted_sum)

    def __call__(self, params: Any) -> float:
        """The mean loss with these parameters, dropout off."""
        sums = jnp.stack([self._total(params, batch, self._key) for batch in self._batches])
        total, weight = np.asarray(sums, np.float64).sum(axis=0)
        return float(total / weight)

    def _weighted_sum(self, params: Any, batch: Batch, key: Array) -> Array:
        losses = self._objective(self._objective.blueprint.denoiser(params), batch, key, train=False)
        return jnp.stack([jnp.sum(losses * batch["weight"]), jnp.sum(batch["weight"])])
