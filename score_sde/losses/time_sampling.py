"""How training draws its times.

A rule maps u, uniform on [0, 1), to a time and the factor that importance sampling puts on its loss (1 for
most), each in the shape of u. Being quantile functions, all of them can be stratified: u = (i + v) / n for
example i of n spreads a batch's times evenly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.checks import check_types
from score_sde.core.errors import InputError
from score_sde.sde import SDE

Times = Callable[[SDE, Array], tuple[Array, Array]]


def uniform(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Uniform on [t_min, t_max] (Song et al. 2021, Eq. 7)."""
    return sde.t_min + (sde.t_max - sde.t_min) * u, jnp.ones_like(u)


def knots(sde: SDE, u: Array) -> tuple[Array, Array]:
    """The levels 1..N of a chain, each as often as the others."""
    levels = sde.levels
    if levels is None:
        raise InputError(f"{type(sde).__name__} has no levels: draw times by 'uniform'.")
    return (jnp.minimum(jnp.floor(u * levels), levels - 1) + 1) / levels, jnp.ones_like(u)


def importance(sde: SDE, u: Array) -> tuple[Array, Array]:
    """Importance sampling for the likelihood weighting (Song et al. 2021b, arXiv:2101.09258, Sec. 5).

    Times of density p proportional to g^2 / sigma^2, with the factor 1 / (p (t_max - t_min)), so that the
    mean loss is that of uniform times and its variance less. As g^2 / sigma^2 = -log_snr', these times are
    uniform in log-SNR, for any SDE.
    """
    high, low = sde.log_snr(jnp.asarray(sde.t_min, u.dtype)), sde.log_snr(jnp.asarray(sde.t_max, u.dtype))
    t = sde.time_of(high + (low - high) * u)
    rate = sde.diffusion_squared(t) / sde.variance(t)
    return t, (high - low) / ((sde.t_max - sde.t_min) * rate)


@dataclasses.dataclass(frozen=True)
class LogNormal:
    """log(sigma / alpha) ~ N(mean, std^2), outside moved to t_min and t_max (Karras et al. 2022, Table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        return sde.time_of(-2 * (self.mean + self.std * _normal(u))), jnp.ones_like(u)


@dataclasses.dataclass(frozen=True)
class LogitNormal:
    """logit((t - t_min) / (t_max - t_min)) ~ N(mean, std^2) (Esser et al. 2024, arXiv:2403.03206, Eq. 19)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        _check_std(self.std)

    def __call__(self, sde: SDE, u: Array) -> tuple[Array, Array]:
        part = jax.nn.sigmoid(self.mean + self.std * _normal(u))
        return sde.t_min + (sde.t_max - sde.t_min) * part, jnp.ones_like(u)


def _normal(u: Array) -> Array:
    """The normal quantile of u, finite."""
    tiny = jnp.finfo(u.dtype).eps
    return jax.scipy.special.ndtri(jnp.clip(u, tiny, 1 - tiny))


def _check_std(std: float) -> None:
    if not std > 0:
        raise InputError(f"std is {std!r}; expected a positive number.")


__all__ = ["LogNormal", "LogitNormal", "importance", "knots", "uniform"]
