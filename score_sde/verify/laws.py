"""Laws that are known in closed form, draws of them, and distances from them."""

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

N = 20_000  # draws for means and covariances
COMPARED = 3_000  # draws for energy distances, which take all pairs
BIAS = 0.03  # what fine steps may leave, in units of the spread


def default_mixture() -> Mixture:
    """Two Gaussians in the plane, apart but not alone."""
    return Mixture(np.asarray([0.3, 0.7]), np.asarray([[1.5, 0.0], [-0.8, 0.6]]), np.asarray([0.3, 0.5]))


def model_of(sde: SDE, data: Mixture) -> GaussianMixture:
    """The exact denoiser of these data."""
    return GaussianMixture(sde, data.weights, data.means, data.stds)


@jax.jit
def _draw(marginal: Mixture, key: Array) -> Array:
    # Always as many, for compiling takes longer than drawing.
    return marginal.sample(keys_.examples(key, jnp.arange(N)))


def exact(model: GaussianMixture, t: float, seed: int, n: int = N) -> np.ndarray:
    """n draws of the marginal at time t, at most N, (n, *shape)."""
    return np.asarray(_draw(model.marginal(t), keys_.stream(seed, "verify"))[:n])


def moments(x: np.ndarray, law: Mixture) -> float:
    """The largest error of a mean or covariance of x, in units of the law's standard deviations."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    mean, covariance = np.asarray(law.mean(), np.float64), np.asarray(law.covariance(), np.float64)
    std = np.sqrt(np.diag(covariance))
    of_mean = np.abs(x.mean(axis=0) - mean) / std
    of_covariance = np.abs(np.atleast_2d(np.cov(x.T)) - covariance) / np.outer(std, std)
    return float(max(of_mean.max(), of_covariance.max()))


def moments_bound(data: Mixture, n: int = N) -> float:
    """Four standard errors of `moments` of n draws, and BIAS.

    A mean has the standard error 1 / sqrt(n) and a covariance at most sqrt((kurtosis - 1) / n); no marginal has longer
    tails than the data.
    """
    x = np.asarray(_draw(data, keys_.stream(0, "verify")), np.float64).reshape(N, -1)
    fourth = np.mean(((x - x.mean(axis=0)) / x.std(axis=0)) ** 4, axis=0).max()
    return float(4 * (max(3.0, 1.5 * fourth) / n) ** 0.5 + BIAS)


def energy(x: np.ndarray, y: np.ndarray) -> float:
    """The energy distance of two sets of draws (Szekely & Rizzo 2013), in units of what one law has on average.

    2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs; of n and n draws of one law it is 2 E|X - Y| / n on average.
    """
    x, y = (np.asarray(z[:COMPARED], np.float64).reshape(min(len(z), COMPARED), -1) for z in (x, y))
    between = cdist(x, y).mean()
    return float((2 * between - cdist(x, x).mean() - cdist(y, y).mean()) / (2 * between / len(x)))


ENERGY_BOUND = 5.0  # one law has more than 5 times its average far less often than once in a thousand


def start_of(sde: SDE) -> float:
    """t_max, or a little before it where no signal is left there."""
    return float(sde.t_max) * (1.0 if float(sde.alpha(sde.t_max)) > 0 else 0.99)


def first_of(sde: SDE) -> float:
    """t_min, or a little after it where there is no noise yet and log-SNR is infinite."""
    low, high = float(sde.t_min), float(sde.t_max)
    return low if float(sde.variance(low)) > 0 else low + 1e-5 * (high - low)


def stop_of(sde: SDE) -> float:
    """t_stop, but not before first_of."""
    return max(float(sde.t_stop), first_of(sde))


def part_of(sde: SDE) -> tuple[float, float]:
    """The middle of the way, from four fifths to one fifth of the time, where every method is defined."""
    low, high = float(sde.t_min), float(sde.t_max)
    return low + 0.8 * (high - low), low + 0.2 * (high - low)


def smooth(sde: SDE) -> SDE:
    """The SDE at every time."""
    try:
        return sde.smooth()
    except InputError as reason:  # a chain whose last level has no signal
        raise NotAsked(str(reason)) from reason


def fine_grid(sde: SDE, steps: int, start: float | None = None, stop: float | None = None) -> np.ndarray:
    """Times even in log-SNR, from start_of to t_stop; of a chain all its levels."""
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
    """sde.time_of in float64, on the host, where there is nothing to compile."""
    low, high = np.full(log_snr.shape, first_of(sde)), np.full(log_snr.shape, float(sde.t_max))
    with jax.enable_x64(True):
        for _ in range(70):
            middle = (low + high) / 2
            early = np.asarray(sde.log_snr(middle)) > log_snr
            low, high = np.where(early, middle, low), np.where(early, high, middle)
    return (low + high) / 2


def time_at(sde: SDE, log_snr: float) -> float:
    """The time, or the nearest level, at which log-SNR has this value, within the SDE's reach."""
    time = np.clip(_time_of(sde, np.asarray([log_snr])), stop_of(sde), start_of(sde))
    return float(np.ravel(sde.nearest(time))[0])


def times_of(sde: SDE, n: int = 1001) -> np.ndarray:
    """Times over the whole range, near both ends too; of a chain its levels."""
    if sde.levels is not None:
        return np.arange(1, sde.levels + 1) / sde.levels
    low, high = float(sde.t_min), float(sde.t_max)
    near = np.geomspace(1e-4, 0.5, n // 2)
    return low + (high - low) * np.unique(np.r_[0, near, 1 - near[:-1], 1])
