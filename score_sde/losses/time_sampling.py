"""This module defines the rules that draw the times of training.

A rule maps u, uniform on [0, 1), to a time and the factor that importance sampling puts on its loss (1 for
most rules), each in the shape of u. All rules are quantile functions, so all can be stratified: u = (i + v) / n
for example i of n spreads a batch's times evenly.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.errors import InputError
from score_sde.sde import SDE

Times = Callable[[SDE, Array], tuple[Array, Array]]
_LAST = 1.0 - 2.0**-24  # the largest float32 number below 1


class TimeSampling(abc.ABC):
    """A `TimeSampling` is a rule of times with settings; a config names a class of the user by its dotted path."""

    @abc.abstractmethod
    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        """Return a time and the factor of its loss, both in the shape of u, for u uniform on [0, 1)."""


def draws(keys: Array, index: Array, batch_size: int | None) -> Array:
    """Return u of each example, uniform on [0, 1), (batch,), from one key per example.

    Args:
        keys: random keys of the examples, shape (batch,).
        index: the place of each example in the whole batch.
        batch_size: size of the whole batch, over which the numbers are spread evenly; None for independent numbers.
    """
    u = keys_.draw(jax.random.uniform, keys, ())
    return u if batch_size is None else jnp.minimum((index % batch_size + u) / batch_size, _LAST)


def uniform(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times that are uniform on [t_min, t_max] (Song et al. 2021, Eq. 7)."""
    return sde.t_min + (sde.t_max - sde.t_min) * u, jnp.ones_like(u)


def knots(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times of the levels 1..N of a chain, all with equal probability."""
    levels = sde.levels
    if levels is None:
        raise InputError(f"{type(sde).__name__} has no levels: draw times by 'uniform'.")
    return (jnp.minimum(jnp.floor(u * levels), levels - 1) + 1) / levels, jnp.ones_like(u)


def importance(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Return times and factors of importance sampling for the likelihood weighting (Song et al. 2021b, Sec. 5).

    The source is arXiv:2101.09258. The times have density p proportional to g^2 / sigma^2, and the factor is
    1 / (p (t_max - t_min)), so the mean loss is that of uniform times, with a smaller variance. As
    g^2 / sigma^2 = -log_snr', these times are uniform in log-SNR, for any SDE.
    """
    high, low = sde.log_snr(jnp.asarray(sde.t_min, u.dtype)), sde.log_snr(jnp.asarray(sde.t_max, u.dtype))
    t = sde.time_of(high + (low - high) * u)
    rate = sde.diffusion_squared(t) / sde.variance(t)
    return t, (high - low) / ((sde.t_max - sde.t_min) * rate)


@dataclasses.dataclass(frozen=True)
class LogNormal(TimeSampling):
    """`LogNormal` draws times with log(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, Table 1).

    Noise levels outside the range of the SDE give t_min or t_max.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        return sde.time_of(-2 * (self.mean + self.std * _normal(u))), jnp.ones_like(u)


@dataclasses.dataclass(frozen=True)
class LogitNormal(TimeSampling):
    """`LogitNormal` draws times with logit((t - t_min) / (t_max - t_min)) ~ N(mean, std^2).

    The source is Esser et al. 2024, arXiv:2403.03206, Eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        part = jax.nn.sigmoid(self.mean + self.std * _normal(u))
        return sde.t_min + (sde.t_max - sde.t_min) * part, jnp.ones_like(u)


def _normal(u: Array) -> Array:
    """Return the normal quantile of u, which is always finite."""
    tiny = jnp.finfo(u.dtype).eps
    return jax.scipy.special.ndtri(jnp.clip(u, tiny, 1 - tiny))


def _check_std(std: float) -> None:
    if not std > 0:
        raise InputError(f"std is {std!r}; expected a positive number.")


__all__ = ["LogNormal", "LogitNormal", "TimeSampling", "importance", "knots", "uniform"]
