"""This module defines distributions in closed form, exact samples of them, and distances from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.denoisers import GaussianMixture, Mixture
from score_sde.sde import SDE
from score_sde.verify.report import NotAsked

N = 20_000  # samples for means and covariances
COMPARED = 3_000  # samples for energy distances, which use all pairs
BIAS = 0.03  # allowed bias of fine steps, in units of the standard deviation


def default_mixture() -> Mixture:
    """Return a mixture of two separate Gaussians in the plane."""
    return Mixture(np.asarray([0.3, 0.7]), np.asarray([[1.5, 0.0], [-0.8, 0.6]]), np.asarray([0.3, 0.5]))


def model_of(sde: SDE, data: Mixture) -> GaussianMixture:
    """Return the exact denoiser of these data."""
    return GaussianMixture(sde, data.weights, data.means, data.stds)


@jax.jit
def _draw(marginal: Mixture, key: Array) -> Array:
    # The number is always N, because compilation for another number takes longer than the draws.
    return marginal.sample(keys_.examples(key, jnp.arange(N)))


def exact(model: GaussianMixture, t: float, seed: int, n: int = N) -> np.ndarray:
    """Return n samples of the marginal at time t, shape (n, *shape); n is at most N."""
    return np.asarray(_draw(model.marginal(t), keys_.stream(seed, "verify"))[:n])


def moments(x: np.ndarray, law: Mixture) -> float:
    """Return the largest error of a mean or covariance of x, in units of the standard deviations of `law`."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    mean, covariance = np.asarray(law.mean(), np.float64), np.asarray(law.covariance(), np.float64)
    std = np.sqrt(np.diag(covariance))
    of_mean = np.abs(x.mean(axis=0) - mean) / std
    of_covariance = np.abs(np.atleast_2d(np.cov(x.T)) - covariance) / np.outer(std, std)
    return float(max(of_mean.max(), of_covariance.max()))


def moments_bound(data: Mixture, n: int = N) -> float:
    """Return the bound of `moments` for n samples: four standard errors plus BIAS.

    The standard error of a mean is 1 / sqrt(n), and that of a covariance is at most sqrt((kurtosis - 1) / n). No
    marginal has longer tails than the data.
    """
    x = np.asarray(_draw(data, keys_.stream(0, "verify")), np.float64).reshape(N, -1)
    fourth = np.mean(((x - x.mean(axis=0)) / x.std(axis=0)) ** 4, axis=0).max()
    return float(4 * (max(3.0, 1.5 * fourth) / n) ** 0.5 + BIAS)


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """Return the energy distance of two sets of samples, divided by its mean for equal distributions.

    The energy distance (Szekely & Rizzo 2013) is 2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs. For n and n samples
    of one distribution its mean is 2 E|X - Y| / n.
    """
    x, y = (np.asarray(z[:COMPARED], np.float64).reshape(min(len(z), COMPARED), -1) for z in (x, y))
    between = cdist(x, y).mean()
    return float((2 * between - cdist(x, x).mean() - cdist(y, y).mean()) / (2 * between / len(x)))


ENERGY_BOUND = 5.0  # equal distributions exceed 5 times the mean far less often than once in a thousand


def start_of(sde: SDE) -> float:
    """Return t_max, or a slightly smaller time if no signal is left at t_max."""
    return float(sde.t_max) * (1.0 if float(sde.alpha(sde.t_max)) > 0 else 0.99)


def first_of(sde: SDE) -> float:
    """Return t_min, or a slightly larger time if t_min has no noise and so an infinite log-SNR."""
    low, high = float(sde.t_min), float(sde.t_max)
    return low if float(sde.variance(low)) > 0 else low + 1e-5 * (high - low)


def stop_of(sde: SDE) -> float:
    """Return the larger of t_stop and first_of(sde)."""
    return max(float(sde.t_stop), first_of(sde))


def part_of(sde: SDE) -> tuple[float, float]:
    """Return the ends of the middle of the time range, at 4/5 and 1/5, where every method is defined."""
    low, high = float(sde.t_min), float(sde.t_max)
    return low + 0.8 * (high - low), low + 0.2 * (high - low)


def smooth(sde: SDE) -> SDE:
    """Return the SDE at every time; raise NotAsked if a chain cannot be smoothed."""
    try:
        return sde.smooth()
    except InputError as reason:  # a chain whose last level has no signal
        raise NotAsked(str(reason)) from reason


def fine_grid(sde: SDE, steps: int, start: float | None = None, stop: float | None = None) -> np.ndarray:
    """Return times evenly spaced in log-SNR, by default from start_of to stop_of; for a chain return its levels."""
    start = start_of(sde) if start is None else start
    stop = stop_of(sde) if stop is None else stop
    if sde.levels is not None:
        between = np.arange(sde.levels, 0, -1) / sde.levels
        return between[(between <= start + 1e-6) & (between >= stop - 1e-6)]
    with jax.enable_x64(True):
        first, last = np.asarray(sde.log_snr(np.asarray([start, stop])), np.float64)
    times = _time_of(sde, np.linspace(first, last, steps + 1))
    times[0], times[-1] = start, stop
    return times


def _time_of(sde: SDE, log_snr: np.ndarray) -> np.ndarray:
    """Return sde.time_of(log_snr) in float64, computed on the host to avoid compilation."""
    low, high = np.full(log_snr.shape, first_of(sde)), np.full(log_snr.shape, float(sde.t_max))
    with jax.enable_x64(True):
        for _ in range(70):
            middle = (low + high) / 2
            early = np.asarray(sde.log_snr(middle)) > log_snr
            low, high = np.where(early, middle, low), np.where(early, high, middle)
    return (low + high) / 2


def time_at(sde: SDE, log_snr: float) -> float:
    """Return the time, or the nearest level, at which log-SNR has this value, clipped to the range of the SDE."""
    time = np.clip(_time_of(sde, np.asarray([log_snr])), stop_of(sde), start_of(sde))
    return float(np.ravel(sde.nearest(time))[0])


def times_of(sde: SDE, n: int = 1001) -> np.ndarray:
    """Return times over the whole range, dense near both ends; for a chain return its levels."""
    if sde.levels is not None:
        return np.arange(1, sde.levels + 1) / sde.levels
    low, high = float(sde.t_min), float(sde.t_max)
    near = np.geomspace(1e-4, 0.5, n // 2)
    return low + (high - low) * np.unique(np.r_[0, near, 1 - near[:-1], 1])
