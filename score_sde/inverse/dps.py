"""This module defines diffusion posterior sampling as published, for comparison."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, per_example_sum
from score_sde.core.checks import is_number, shown
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser, Guide, Prediction
from score_sde.inverse.known import Measuring, check_inner
from score_sde.inverse.posterior import check_measurement, measured_values
from score_sde.sampling import Ancestral, Sampler
from score_sde.sampling.base import State
from score_sde.sampling.counting import own_vjps
from score_sde.sde import SDE


class _Known(Guide):
    """`_Known` returns a prediction that has been computed."""

    prediction: Prediction

    def __init__(self, denoiser: Denoiser, prediction: Prediction) -> None:
        super().__init__(denoiser)
        self.prediction = prediction

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        return self.prediction


class _Nothing(Denoiser):
    """`_Nothing` predicts 0 for both halves."""

    def predict(self, x: Array, t: ArrayLike, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        return Prediction(jnp.zeros_like(x), jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class DPS(Measuring):
    """`DPS` is diffusion posterior sampling as published (Chung et al. 2022, arXiv:2209.14687, Alg. 1), for comparison.

    After each step of the sampler, x_s moves by -zeta grad |y - A x_0|, where the gradient of the norm, not of its
    square, is taken at x_t through the network, for each example by itself. The length of the move does not depend on
    the noise level, the number of steps or the noise of y, so that the samples have no posterior: for few measurements
    the move is a jitter of length zeta, and the spread is several times wrong (docs/inverse.md). `Posterior` with
    variance=None is the score of the paper.

    Attributes:
        zeta: the length of a move: 0.5 for inpainting and 0.3 for other operators in the paper, with 1000 steps.
        sampler: the sampler that takes the step, with one evaluation.
        operator: A, which may be nonlinear.
    """

    zeta: float = 0.3
    sampler: Sampler = dataclasses.field(default_factory=Ancestral)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_inner("DPS", self.sampler)
        if not is_number(self.zeta) or not 0 < self.zeta < np.inf:
            raise InputError(f"DPS got zeta={shown(self.zeta)}; expected a positive number.")

    @property
    def computes_vjps(self) -> bool:
        return True

    def init(self, x: Array) -> State:
        return self.sampler.init(x)

    def check(self, sde: SDE, grid: np.ndarray) -> None:
        self.sampler.check(sde, grid)
        x = jnp.zeros((1, 1))
        nothing = _Nothing(sde)
        t, s = (jnp.asarray(time, x.dtype) for time in grid[:2])
        nfe = self.sampler.step(
            keys_.examples(keys_.stream(0, "sample"), np.arange(1)), nothing, x, t, s, self.sampler.init(x)
        )[2]
        if int(nfe[0]) != 1:
            raise InputError(
                f"sampler of DPS is {self.sampler}, which takes {int(nfe[0])} evaluations in a step; expected one with "
                "1, such as Ancestral()."
            )

    def step(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, s: Array, state: State, cond: Cond = None
    ) -> tuple[Array, State, Array]:
        inner, y = self.inner(denoiser, x, cond), measured_values(cond, x.dtype)

        def distance(x: Array) -> tuple[Array, Prediction]:
            predicted = denoiser.predict(x, t, inner)
            check_measurement(self.operator, y, self.operator(predicted.x0, cond))
            square = per_example_sum(self.operator.residual(predicted.x0, y, cond) ** 2)
            return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0), predicted

        value, pull, predicted = jax.vjp(distance, x, has_aux=True)
        (gradient,) = pull(jnp.ones_like(value))
        moved, state, nfe = self.sampler.step(keys, _Known(denoiser, predicted), x, t, s, state, inner)
        return moved - expand(self.zeta, x) * gradient, state, nfe + own_vjps(x, 1)

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        return self.sampler.finish(keys, denoiser, x, t, state, self.inner(denoiser, x, cond), denoise)


__all__ = ["DPS"]
