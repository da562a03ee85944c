"""This module defines discrete chains, which are SDEs at N noise levels only, and smooth curves through the levels.

Level i = 0 is data, and level i has the time t = i / N. In the tables of the papers level i has the index i - 1.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

from score_sde.core.arrays import Array, as_array, expm1, is_concrete, to_time
from score_sde.core.checks import require_number, require_whole, shown
from score_sde.core.errors import InputError
from score_sde.sde.base import SDE


class Chain(SDE):
    """`Chain` is the discrete process x_i | x_0 ~ N(alpha_i x_0, variance_i I) at the levels i = 1..N, with t = i / N.

    A chain is known at its levels only. Time grids contain levels only, and training draws levels only (times='knots').
    A method with derivatives in time (drift, velocity, Euler-Maruyama, Heun, the likelihood) needs `smooth()`.
    Level 0 is data, with alpha = 1 and variance 0; the last step of a sampling loop may go to level 0.

    Args:
        alpha: factors on x_0 from the lowest noise level to the highest, shape (N,), in [0, 1].
        variance: variances, shape (N,), positive.
        descending: True if the published labels count from the highest noise level, as in SMLD; False otherwise.

    Attributes:
        log_alphas, variances: tables from level 0 to level N, shape (N + 1,).
    """

    log_alphas: Any
    variances: Any
    descending: bool = eqx.field(static=True)
    arguments: tuple[tuple[str, Any], ...] = eqx.field(static=True)  # arguments of the constructor, for a config

    t_min = 0.0
    t_stop = property(lambda self: 1 / self.levels)  # the final denoising step leads from level 1 to data

    def __init__(self, alpha: ArrayLike, variance: ArrayLike, descending: bool = False, **arguments: Any) -> None:
        if is_concrete(alpha, variance):
            # The tables are float64 on the host, because alpha is almost 1 near the data.
            alphas, variances = _table("alpha", alpha), _table("variance", variance)
            _check_tables(alphas, variances, type(self).__name__)
            with np.errstate(divide="ignore"):
                self.log_alphas = np.concatenate([[0.0], np.log(alphas)])
            self.variances = np.concatenate([[0.0], variances])
        else:
            self.log_alphas = jnp.concatenate([jnp.zeros(1), jnp.log(alpha)])
            self.variances = jnp.concatenate([jnp.zeros(1), jnp.asarray(variance)])
        self.descending, self.arguments = descending, tuple(arguments.items())

    @property
    def levels(self) -> int:
        """Return N, the number of levels with noise."""
        return len(self.variances) - 1

    def level(self, t: ArrayLike) -> Array:
        """Return the level i nearest to time t, as int32 in the shape of t."""
        return jnp.clip(jnp.round(to_time(t) * self.levels), 0, self.levels).astype(jnp.int32)

    def label(self, t: ArrayLike) -> Array:
        """Return the label of a published network at time t: i - 1, or N - i if `descending` is True."""
        level = self.level(t)
        return (self.levels - level if self.descending else level - 1).astype(to_time(t).dtype)

    def log_alpha(self, t: ArrayLike) -> Array:
        return jnp.asarray(self.log_alphas, float)[self.level(t)]

    def variance(self, t: ArrayLike) -> Array:
        return jnp.asarray(self.variances, float)[self.level(t)]

    def smooth(self) -> SmoothChain:
        """Return a continuous-time SDE through the levels, which has derivatives in time; see `SmoothChain`."""
        return SmoothChain(self)

    def drift_rate(self, t: ArrayLike) -> Array:
        self._has_no("drift")

    def velocity_rates(self, t: ArrayLike) -> tuple[Array, Array]:
        self._has_no("velocity")

    def _has_no(self, what: str) -> NoReturn:
        raise InputError(
            f"{type(self).__name__} is known at its {self.levels} levels only, so it has no {what}: use "
            "chain.smooth(), a curve through the levels, or a sampler that steps from level to level, such as "
            "Ancestral or DDIM. In a loss, use a weight without g, such as MinSNR."
        )

    def time_of(self, log_snr: ArrayLike) -> Array:
        """Return the time of the level with the nearest log signal-to-noise ratio, in the shape of log_snr."""
        known = self.log_snr(jnp.arange(1, self.levels + 1) / self.levels)
        distance = jnp.abs(known - jnp.asarray(log_snr)[..., None])
        return (jnp.argmin(distance, axis=-1) + 1) / self.levels

    def nearest(self, times: np.ndarray) -> np.ndarray:
        """Return the times of the nearest levels, or raise InputError if two times have the same nearest level."""
        levels = np.clip(np.round(np.asarray(times) * self.levels), 0, self.levels)
        if len(np.unique(levels)) < len(levels):
            raise InputError(
                f"{type(self).__name__} has {self.levels} levels, and two of the {len(levels)} times are nearest "
                f"to the same level: use fewer steps (a uniform grid may have {self.levels - 1}), or chain.smooth()."
            )
        return levels / self.levels

    def check_times(self, times: np.ndarray, name: str) -> None:
        super().check_times(times, name)
        # In float32 the rounding error of a level grows with N, so the tolerance grows with N.
        off = times[np.abs(times * self.levels - np.round(times * self.levels)) > max(1e-3, self.levels * 2.0**-22)]
        if off.size:
            raise InputError(
                f"{name} contains {off.flat[0]:g}; expected levels i / {self.levels} of {type(self).__name__}, as "
                "time_grid returns them; or use chain.smooth(), which is known at any time."
            )


def _check_tables(alpha: np.ndarray, variance: np.ndarray, name: str) -> None:
    if alpha.ndim != 1 or alpha.shape != variance.shape or len(alpha) < 2:
        raise InputError(
            f"{name} got alpha of shape {alpha.shape} and variance of shape {variance.shape}; "
            "expected shape (N,) for both, with N >= 2."
        )
    if not (np.all((alpha >= 0) & (alpha <= 1)) and np.all(variance > 0) and np.isfinite(variance).all()):
        raise InputError(f"{name} needs alpha in [0, 1] and positive, finite variances.")
    snr = alpha**2 / variance
    rising = np.flatnonzero(np.diff(snr) >= 0)
    if rising.size:
        i = rising[0]
        raise InputError(
            f"{name}: the signal-to-noise ratio goes from {snr[i]:.6g} to {snr[i + 1]:.6g} after index {i}; expected "
            "it to fall from the first entry (least noise) to the last."
        )


class SmoothChain(SDE):
    """`SmoothChain` is the continuous-time SDE through the levels of a chain.

    log alpha is interpolated with monotone cubics (PCHIP) over t = i / N. On a variance-preserving chain the variance
    is 1 - alpha^2. On any other chain the log signal-to-noise ratio (SNR) is interpolated too, and
    variance = alpha^2 / SNR (where alpha = 1, this interpolates log sigma). So SNR falls between the levels as well,
    and g^2 = -variance (log SNR)' is never negative. Separate interpolation of alpha and the variance would not
    guarantee this. Time starts at level 1.

    Args:
        chain: the chain, with positive alpha at all levels.
    """

    alpha_pieces: Any  # (4, N): coefficients of the cubics of log alpha, highest power first
    snr_pieces: Any  # (4, N): coefficients for log SNR; None on a variance-preserving chain
    descending: bool = eqx.field(static=True)

    t_min = property(lambda self: 1 / self.alpha_pieces.shape[1])

    def __init__(self, chain: Chain) -> None:
        if not isinstance(chain, Chain):
            raise InputError(f"chain of SmoothChain is {shown(chain)}; expected a Chain, such as DDPM().")
        if not is_concrete(chain):
            raise InputError("chain.smooth() needs a chain whose tables are known: call it outside jit.")
        log_alpha = np.asarray(chain.log_alphas, np.float64)
        variance = np.asarray(chain.variances, np.float64)
        if not np.isfinite(log_alpha).all():
            i = int(np.flatnonzero(~np.isfinite(log_alpha))[0])
            raise InputError(f"The chain has alpha = 0 at level {i}, where log alpha is infinite: remove level {i}.")
        self.descending = chain.descending
        self.alpha_pieces, self.snr_pieces = _cubics(log_alpha), None
        if not np.allclose(variance, -np.expm1(2 * log_alpha), rtol=1e-9, atol=0):
            log_snr = 2 * log_alpha[1:] - np.log(variance[1:])
            # log SNR is infinite at level 0. Time starts at level 1, so a linear extrapolation to level 0 is enough.
            self.snr_pieces = _cubics(np.concatenate([[2 * log_snr[0] - log_snr[1]], log_snr]))

    def label(self, t: ArrayLike) -> Array:
        """Return the label at any time, also between the levels: N t - 1, or N (1 - t) if `descending` is True."""
        t, n = to_time(t), self.alpha_pieces.shape[1]
        return n * (1 - t) if self.descending else n * t - 1

    def log_alpha(self, t: ArrayLike) -> Array:
        return self._at(self.alpha_pieces, to_time(t))

    def variance(self, t: ArrayLike) -> Array:
        t = to_time(t)
        if self.snr_pieces is None:
            return -expm1(2 * self.log_alpha(t))
        return jnp.exp(2 * self.log_alpha(t) - self._at(self.snr_pieces, t))

    def _at(self, pieces: Any, t: Array) -> Array:
        place = t * pieces.shape[1]
        piece = jnp.clip(jnp.floor(place), 0, pieces.shape[1] - 1).astype(jnp.int32)
        a, b, c, d = jnp.asarray(pieces, float)[:, piece]
        u = place - piece
        return ((a * u + b) * u + c) * u + d


def _table(name: str, table: Any) -> np.ndarray:
    array = as_array(table, name)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} of a chain has dtype {array.dtype}; expected numbers, one for each level.")
    return array.astype(np.float64)


def _cubics(values: np.ndarray) -> np.ndarray:
    """Return the coefficients of the monotone cubics through `values` at the places 0, 1, 2 and so on."""
    return np.asarray(PchipInterpolator(np.arange(len(values)), values).c)


class DDPM(Chain):
    """`DDPM` is the chain of Ho et al. 2020 (arXiv:2006.11239), with beta_i linear in i.

    alpha_i^2 is the product of 1 - beta_1..i.

    Args:
        n: number of levels, T in the paper.
        beta_min, beta_max: first and last beta.
    """

    def __init__(self, n: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> None:
        _check_numbers(self, n, beta_min=beta_min, beta_max=beta_max)
        _from_betas(self, np.linspace(beta_min, beta_max, n), n=n, beta_min=beta_min, beta_max=beta_max)


class CosineDDPM(Chain):
    """`CosineDDPM` is the cosine chain (Nichol & Dhariwal 2021, arXiv:2102.09672, Eq. 17), with each beta clipped.

    Args:
        n: number of levels.
        s: offset of the cosine.
        clip: largest beta; without this limit the last alpha would be 0.
    """

    def __init__(self, n: int = 1000, s: float = 0.008, clip: float = 0.999) -> None:
        _check_numbers(self, n, s=s, clip=clip)
        bar = np.cos(math.pi / 2 * (np.arange(n + 1) / n + s) / (1 + s)) ** 2
        _from_betas(self, np.minimum(1 - bar[1:] / bar[:-1], clip), n=n, s=s, clip=clip)


class DiscreteVP(Chain):
    """`DiscreteVP` is the chain whose limit is `VP` (Song et al. 2021, App. B).

    beta_i is linear in i, from beta_min / N to beta_max / N.
    """

    def __init__(self, n: int = 1000, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        _check_numbers(self, n, beta_min=beta_min, beta_max=beta_max)
        _from_betas(self, np.linspace(beta_min / n, beta_max / n, n), n=n, beta_min=beta_min, beta_max=beta_max)


class SMLD(Chain):
    """`SMLD` is the chain of NCSN (Song & Ermon 2019, arXiv:1907.05600), with alpha = 1 and sigma a geometric sequence.

    The limit of SMLD is `VE`. A step from level 1 leads to sigma_0 = 0. Labels count from the highest noise level.
    """

    def __init__(self, n: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        _check_numbers(self, n, sigma_min=sigma_min, sigma_max=sigma_max)
        if not 0 < sigma_min < sigma_max < math.inf:
            raise InputError(
                f"SMLD got sigma_min={sigma_min}, sigma_max={sigma_max}; expected 0 < sigma_min < sigma_max."
            )
        variance = np.geomspace(sigma_min, sigma_max, n) ** 2
        Chain.__init__(self, np.ones(n), variance, descending=True, n=n, sigma_min=sigma_min, sigma_max=sigma_max)


_MOST_LEVELS = 10**7


def _check_numbers(chain: Chain, n: Any, **numbers: Any) -> None:
    require_whole("n, the levels of a chain,", n, 2)
    if n > _MOST_LEVELS:
        raise InputError(f"n, the levels of a chain, is {n}; expected at most {_MOST_LEVELS:,}.")
    for name, number in numbers.items():
        require_number(f"{name} of {type(chain).__name__}", number)


def _from_betas(chain: Chain, betas: np.ndarray, **arguments: Any) -> None:
    """Initialise a variance-preserving chain from its betas: alpha_i^2 is the product of 1 - beta_1..i."""
    if not np.all((betas > 0) & (betas < 1)):
        bad = betas[~((betas > 0) & (betas < 1))][0]
        raise InputError(f"{type(chain).__name__} has a beta of {bad:g}; expected every beta between 0 and 1.")
    log_alpha = np.cumsum(np.log1p(-betas)) / 2
    Chain.__init__(chain, np.exp(log_alpha), -np.expm1(2 * log_alpha), **arguments)


__all__ = ["DDPM", "SMLD", "Chain", "CosineDDPM", "DiscreteVP", "SmoothChain"]
