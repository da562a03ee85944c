"""Weights of a loss over time.

A weight is a function (sde, t) -> factor in the shape of t. Those of the literature are stated for the
squared error of one quantity, `of`; `denoising_loss` converts them to whatever target it measures, so that
a weight means the same for every target. A function of one's own without `of` multiplies the target's own
squared error, as `unit` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.errors import InputError
from score_sde.sde import SDE

Weight = Callable[[SDE, Array], Array]


def unit(sde: SDE, t: Array) -> Array:
    """1 at every time, whatever the target: for the noise, Ho et al. 2020 (arXiv:2006.11239), Eq. 14."""
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Array) -> Array:
    """g^2 on the score, that is g^2 / sigma^2 on the noise (Song et al. 2021b, arXiv:2101.09258, Eq. 7)."""
    return sde.diffusion_squared(t) / sde.variance(t)


likelihood.of = "noise"  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Karras:
    """1 / (variance of x_0 were x_t's noise and the data Gaussian) on x_0 (Karras et al. 2022, Table 1).

    (s^2 + data_std^2) / (s data_std)^2 with s = sigma / alpha: the loss of `Preconditioned`'s F is even.
    """

    data_std: float = 0.5
    of: ClassVar[str] = "x0"

    def __post_init__(self) -> None:
        check_types(self)
        if not self.data_std > 0:
            raise InputError(f"data_std is {self.data_std!r}; expected a positive number.")

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jnp.exp(sde.log_snr(t)) + 1 / self.data_std**2


@dataclasses.dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) on x_0, that is min(1, gamma / SNR) on the noise (Hang et al. 2023, arXiv:2303.09556)."""

    gamma: float = 5.0
    of: ClassVar[str] = "noise"  # finite where alpha = 0, as the same weight of x_0 put on the noise is not

    def __post_init__(self) -> None:
        check_types(self)
        if not self.gamma > 0:
            raise InputError(f"gamma is {self.gamma!r}; expected a positive number, such as 5.")

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jnp.minimum(1, self.gamma * jnp.exp(-sde.log_snr(t)))


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """The logistic function of (bias - log_snr), per unit of log-SNR, on the noise (Kingma & Gao 2023).

    arXiv:2303.00848: the loss is a mean over log-SNR, so that in t the weight is S(bias - log_snr) (-log_snr'), with
    -log_snr' = g^2 / sigma^2, the likelihood's weight.
    """

    bias: float = 2.0
    of: ClassVar[str] = "noise"

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jax.nn.sigmoid(self.bias - sde.log_snr(t)) * likelihood(sde, t)


def on(target: str, weight: Weight, sde: SDE, t: Array) -> Array:
    """The factor on the squared error of `target` that `weight` asks for, in the shape of t.

    The errors of both halves are bound by alpha error(x_0) + sigma error(noise) = 0, and so is the
    velocity's: each is a multiple of one and the same error.
    """
    of = getattr(weight, "of", None) or target
    factor = weight(sde, t)
    return factor if of == target else factor * _size(of, sde, t) / _size(target, sde, t)


def _size(target: str, sde: SDE, t: Array) -> Array:
    """The squared error of a target over that of (noise / alpha) = that of (x_0 / sigma)."""
    if target == "noise":
        return sde.alpha(t) ** 2
    if target == "x0":
        return sde.variance(t)
    alpha_rate, sigma_rate = sde.velocity_rates(t)
    return (sde.alpha(t) * sigma_rate - sde.sigma(t) * alpha_rate) ** 2


__all__ = ["Karras", "MinSNR", "Sigmoid", "likelihood", "unit"]
