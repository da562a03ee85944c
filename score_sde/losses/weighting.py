"""This module defines weights of a loss over time.

A weight is a function (sde, t) -> factor in the shape of t. A weight of the literature is defined for the
squared error of one quantity, its attribute `of`; `denoising_loss` converts the weight to the target of the
loss, so that a weight means the same for every target. A user's function without `of` multiplies the
target's own squared error, as `unit` does.
"""

from __future__ import annotations

import abc
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


class Weighting(abc.ABC):
    """A `Weighting` is a weight with settings; a config names a class of the user by its dotted path.

    Attributes:
        of: the quantity whose squared error is weighted: 'noise', 'x0' or 'velocity'; None for the loss's own target.
    """

    of: ClassVar[str | None] = None

    @abc.abstractmethod
    def __call__(self, sde: SDE, t: Array) -> Array:
        """Return the factor of the squared error at time t, in the shape of t."""


def unit(sde: SDE, t: Array) -> Array:
    """Return 1 at every time, for any target; for the noise this is Ho et al. 2020 (arXiv:2006.11239), Eq. 14."""
    return jnp.ones_like(t)


def likelihood(sde: SDE, t: Array) -> Array:
    """Return g^2 / sigma^2, the weight on the noise, which is g^2 on the score.

    The source is Song et al. 2021b, arXiv:2101.09258, Eq. 7.
    """
    return sde.diffusion_squared(t) / sde.variance(t)


likelihood.of = "noise"  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Karras(Weighting):
    """`Karras` weights the error of x_0 by 1 / (posterior variance of x_0 given x_t, for Gaussian data).

    The source is Karras et al. 2022, Table 1. With s = sigma / alpha the weight is (s^2 + data_std^2) / (s data_std)^2,
    which gives the error of F in `Preconditioned` equal weight at all times.
    """

    data_std: float = 0.5
    of: ClassVar[str | None] = "x0"

    def __post_init__(self) -> None:
        check_types(self)
        if not self.data_std > 0:
            raise InputError(f"data_std is {self.data_std!r}; expected a positive number.")

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jnp.exp(sde.log_snr(t)) + 1 / self.data_std**2


@dataclasses.dataclass(frozen=True)
class MinSNR(Weighting):
    """`MinSNR` weights the error of x_0 by min(SNR, gamma), that is, the error of the noise by min(1, gamma / SNR).

    The source is Hang et al. 2023, arXiv:2303.09556.
    """

    gamma: float = 5.0
    of: ClassVar[str | None] = "noise"  # finite where alpha = 0; the conversion from x_0 to noise is not

    def __post_init__(self) -> None:
        check_types(self)
        if not self.gamma > 0:
            raise InputError(f"gamma is {self.gamma!r}; expected a positive number, such as 5.")

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jnp.minimum(1, self.gamma * jnp.exp(-sde.log_snr(t)))


@dataclasses.dataclass(frozen=True)
class Sigmoid(Weighting):
    """`Sigmoid` weights the error of the noise by the logistic function S(bias - log_snr), per unit of log-SNR.

    The source is Kingma & Gao 2023, arXiv:2303.00848. Their loss is a mean over log-SNR, so in t the weight is
    S(bias - log_snr) (-log_snr'), where -log_snr' = g^2 / sigma^2 is the weight `likelihood`.
    """

    bias: float = 2.0
    of: ClassVar[str | None] = "noise"

    def __call__(self, sde: SDE, t: Array) -> Array:
        return jax.nn.sigmoid(self.bias - sde.log_snr(t)) * likelihood(sde, t)


def on(target: str, weight: Weight, sde: SDE, t: Array) -> Array:
    """Return the factor that `weight` puts on the squared error of `target`, in the shape of t.

    The errors satisfy alpha error(x_0) + sigma error(noise) = 0, and the error of the velocity is a combination of
    both errors. So each error is a multiple of one common error.
    """
    of = getattr(weight, "of", None) or target
    factor = weight(sde, t)
    return factor if of == target else factor * _size(of, sde, t) / _size(target, sde, t)


def _size(target: str, sde: SDE, t: Array) -> Array:
    """Return the squared error of a target, divided by that of noise / alpha, which equals that of x_0 / sigma."""
    if target == "noise":
        return sde.alpha(t) ** 2
    if target == "x0":
        return sde.variance(t)
    alpha_rate, sigma_rate = sde.velocity_rates(t)
    return (sde.alpha(t) * sigma_rate - sde.sigma(t) * alpha_rate) ** 2


__all__ = ["Karras", "MinSNR", "Sigmoid", "Weighting", "likelihood", "unit"]
