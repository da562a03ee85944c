"""This module defines the base of the samplers that read a measurement, and the part of x that a measurement knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand
from score_sde.core.checks import shown
from score_sde.core.conditions import Cond, Conditions
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser
from score_sde.inverse.measurement import MEASURED
from score_sde.inverse.operators import Mask, Operator
from score_sde.inverse.posterior import check_range, measured_values, measurement
from score_sde.sampling import Sampler
from score_sde.sampling.base import State
from score_sde.sampling.checks import check_sampler, own_removed
from score_sde.sde import SDE


@dataclasses.dataclass(frozen=True)
class Measuring(Sampler):
    """`Measuring` is the base of samplers that read cond['y'] and the conditions of an operator.

    Attributes:
        operator: A.
        limits: the range of the data on the model's scale, with which the scale of y is checked; None for no check.
    """

    operator: Operator = dataclasses.field(default_factory=Mask, kw_only=True)
    limits: tuple[float, float] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.operator, Operator):
            name = type(self).__name__
            raise InputError(f"operator of {name} is {shown(self.operator)}; expected an Operator, such as Mask().")

    @property
    def takes_temperature(self) -> bool:
        return False

    def check_cond(self, cond: Cond) -> None:
        if self.limits is not None:
            check_range(self.operator, self.limits, getattr(self, "noise_std", 0.0), cond)

    def finish(
        self, keys: Array, denoiser: Denoiser, x: Array, t: Array, state: State, cond: Cond, denoise: bool
    ) -> tuple[Array, Array]:
        return super().finish(keys, denoiser, x, t, state, self.inner(denoiser, x, cond), denoise)

    def reads(self, shape: tuple[int, ...]) -> Conditions:
        return Conditions(dict(self.operator.reads(shape)) | {MEASURED: measurement(self.operator, shape)})

    def inner(self, denoiser: Denoiser, x: Array, cond: Cond) -> Cond:
        """Return the conditions for the denoiser."""
        return own_removed(denoiser, self.reads(x.shape[1:]), cond)


def check_inner(name: str, sampler: Any) -> None:
    """Raise InputError unless `sampler` is a sampler that reads no measurement itself."""
    check_sampler(sampler, Sampler)
    if isinstance(sampler, Measuring):
        raise InputError(f"sampler of {name} is {shown(sampler)}, which reads y too; expected one without measurement.")


def replaced(operator: Operator, sde: SDE, x: Array, t: Array, cond: Cond, keys: Array | None) -> Array:
    """Return x_t in which the measured part is alpha y + sigma z; without keys return x_0 in which it is y.

    The operator has A A^T = c I, so that x + A^T (y' - A x) / c has the measured part y'. z has the distribution of A n
    for the noise n of x_t.
    """
    y = measured_values(cond, x.dtype)
    scale = orthogonal_scale(operator, x.shape[1:])
    if keys is not None:
        z = keys_.normal(keys, y.shape[1:], x.dtype)
        y = expand(sde.alpha(t), y) * y + expand(sde.sigma(t), y) * jnp.sqrt(jnp.asarray(scale, x.dtype)) * z
    _, forward = jax.linearize(lambda x: operator(x, cond), x)
    (change,) = jax.linear_transpose(forward, x)(operator.residual(x, y, cond))
    return x + change / scale


def orthogonal_scale(operator: Operator, shape: tuple[int, ...]) -> float:
    """Return c of A A^T = c I, or raise InputError if the rows of A are not orthogonal and equally long."""
    scale = operator.scale(shape)
    if scale is None:
        raise InputError(
            f"{type(operator).__name__} has rows that are not orthogonal; expected Mask(), Gray(), or an averaging "
            "Downsample: use Posterior for other operators."
        )
    return scale


def repeated(cond: Cond, count: int) -> Any:
    """Return the conditions with each example `count` times in a row."""
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), count, axis=0), cond)
