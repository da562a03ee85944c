"""This module computes the loss on held-out examples, which training does not use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from score_sde import data
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, split_arrays
from score_sde.core.errors import InputError
from score_sde.core.precision import products
from score_sde.data import Batch, Conditioning
from score_sde.losses.objective import Objective, WholeBatch
from score_sde.parallel import Jit

AT_TIME, RIGHT_AT_TIME = "at_time", "right_at_time"
_AT_TIMES = {AT_TIME: ("loss", "LossPerLevel"), RIGHT_AT_TIME: ("accuracy", "AccuracyPerLevel")}
_REPEATS = 2


class HeldOut:
    """`HeldOut` computes the loss over a whole split, with the same times and noise for each example at every call.

    Args:
        objective: the objective, which defines the loss.
        conditioning: transformation of the examples' conditions.
        examples: the examples, with the conditions that are read.
        frozen: argument `frozen` of the objective, as in training.
        devices: devices of the computation.
        batch_size: examples per compiled batch; the last batch is padded, and the padding is not counted.
        seed: seed of the times and the noise.
        precision: precision of float32 products, as in `core.precision.products`.
    """

    def __init__(
        self,
        objective: Objective,
        conditioning: Conditioning,
        examples: data.Examples,
        frozen: Mapping[str, Any],
        devices: Jit,
        batch_size: int,
        seed: int,
        precision: str = "highest",
    ) -> None:
        self._objective, self._conditioning, self._precision = objective, conditioning, precision
        arrays, self._join = split_arrays(dict(frozen))
        self._arrays = devices.place_state(arrays)
        self._key = keys_.stream(seed, "held out")
        self._examples = len(examples)
        if not self._examples:
            raise InputError(f"{examples.name} is empty; expected at least one example for the held-out loss.")
        place = np.arange(-(-self._examples * _REPEATS // batch_size) * batch_size)
        rows = devices.rows(batch_size)
        self._batches = []
        for low in range(0, len(place), batch_size):
            mine = place[low + rows]
            batch = examples.batch(mine % self._examples) | {"index": mine.astype(np.uint32)}
            self._batches.append(devices.place_sharded(batch, batch_size))
        # The losses are copied to every device, so that every process has every loss.
        self._each = jax.jit(self._losses, out_shardings=devices.replicated, static_argnames="of")

    def __call__(
        self, params: Any, state: Any = (), averages: Mapping[str, Any] | None = None, step: ArrayLike = 0
    ) -> float:
        """Return the mean loss with these parameters by group, without dropout."""
        return float(self.each(params, state, averages, step).mean())

    def each(
        self,
        params: Any,
        state: Any = (),
        averages: Mapping[str, Any] | None = None,
        step: ArrayLike = 0,
        t: ArrayLike | None = None,
        of: str = AT_TIME,
    ) -> np.ndarray:
        """Return the loss of each example, a mean over several random draws, as float64 of shape (n,).

        Args:
            params: the parameters by group.
            state: state of the objective.
            averages: {name: parameters by group}, for an objective that uses averages.
            step: number of updates so far.
            t: time of all losses; None for times that the objective draws.
            of: with a time t, the method of the objective that gives the values of the examples.
        """
        averages, step = averages or {}, np.asarray(step, np.int32)
        # The batches run one after another: concurrent programs that wait for shared devices can block a small CPU.
        common = (self._key, self._arrays, t)
        parts = [
            np.asarray(self._each(params, state, averages, step, batch, *common, of=of), np.float64)
            for batch in self._batches
        ]
        return np.concatenate(parts)[: self._examples * _REPEATS].reshape(_REPEATS, -1).mean(axis=0)

    def _losses(
        self,
        params: Any,
        state: Any,
        averages: Any,
        step: Array,
        batch: Batch,
        key: Array,
        arrays: Any,
        t: Array | None,
        of: str,
    ) -> Array:
        frozen = self._join(arrays)
        keys = keys_.examples(key, batch["index"])
        with products(self._precision):
            _, cond = self._conditioning(batch["values"], batch["cond"], keys, train=False)
            batch = batch | {"cond": cond}
            if t is not None:
                return at_time_of(self._objective, of)(t, params, batch, key, frozen=frozen)
            losses, _, _ = self._objective(
                params,
                state,
                batch,
                key,
                step=step,
                averages=averages,
                frozen=frozen,
                across=WholeBatch(),
                train=False,
            )
            return self._objective.total(losses)


def at_time_of(objective: Objective, method: str = AT_TIME) -> Callable[..., Array]:
    """Return the objective's method for values at a given time, or raise InputError if there is none."""
    at_time = getattr(objective, method, None)
    if at_time is None:
        values, remedy = _AT_TIMES[method]
        raise InputError(f"{type(objective).__name__} has no {values} at a given time ({method}): remove {remedy}.")
    found: Callable[..., Array] = at_time
    return found
