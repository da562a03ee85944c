"""This module defines what the second half of a network's output means: the variance of reverse steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array, expand
from score_sde.denoisers.prediction import Prediction, ReverseVariance
from score_sde.denoisers.reverse_variance import BoundFraction, NoiseMoment, NoiseResidual, X0Variance
from score_sde.sde import SDE


class Scale(NamedTuple):
    """`Scale` holds what a parametrisation knows of the data on the model's scale.

    Attributes:
        data_std: standard deviation, or None.
        largest_variance: bound of Var[x_0 | x_t], or infinity.
    """

    data_std: Any = None
    largest_variance: float = math.inf


# (sde, t, output, mean, scale) -> the variance; t is (batch,), output and the mean's halves have the shape of x.
VarianceHead = Callable[[SDE, Array, Array, Prediction, Scale], ReverseVariance]


def fraction(sde: SDE, t: Array, output: Array, mean: Prediction, scale: Scale) -> BoundFraction:
    """Return the variance between its two fixed values, with the fraction (output + 1) / 2 (Nichol & Dhariwal 2021)."""
    return BoundFraction((output + 1) / 2)


def noise_moment(sde: SDE, t: Array, output: Array, mean: Prediction, scale: Scale) -> NoiseMoment:
    """Return the variance from output = E[noise^2 | x_t] (SN-DDPM, Bao et al. 2022)."""
    return NoiseMoment(output, jax.lax.stop_gradient(mean.noise), scale.largest_variance)


def noise_residual(sde: SDE, t: Array, output: Array, mean: Prediction, scale: Scale) -> NoiseResidual:
    """Return the variance from output = E[(noise - predicted noise)^2 | x_t] (NPR-DPM, Bao et al. 2022)."""
    return NoiseResidual(output, scale.largest_variance)


def log_x0(sde: SDE, t: Array, output: Array, mean: Prediction, scale: Scale) -> X0Variance:
    """Return Var[x_0 | x_t] = exp(output) s^2 sigma^2 / (alpha^2 s^2 + sigma^2), with s = data_std, or 1.

    At output 0 it is the variance of Gaussian data of standard deviation s.
    """
    std = 1.0 if scale.data_std is None else scale.data_std
    variance = sde.variance(t)
    gaussian = std**2 * variance / ((sde.alpha(t) * std) ** 2 + variance)
    return X0Variance(expand(gaussian, output) * jnp.exp(output))


VARIANCE_HEADS: dict[str, VarianceHead] = {
    "fraction": fraction,
    "noise_moment": noise_moment,
    "noise_residual": noise_residual,
    "log_x0": log_x0,
}
