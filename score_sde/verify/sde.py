"""This module defines the checks of an SDE: alpha and variance, functions that depend on them, and simulations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.denoisers import Mixture
from score_sde.sampling import time_grid
from score_sde.sde import SDE
from score_sde.verify import laws, simulated
from score_sde.verify.report import NotAsked, Question

SDES: dict[str, SDE] = {}  # an SDE is checked on itself alone, without other SDEs
_VALID = "alpha and variance are valid"
_DRIFT, _DIFFUSION = "drift is (log alpha)' x", "g^2 is variance' - 2 f variance"
_RATES, _LEVELS = "velocity rates are alpha' and sigma'", "levels lie on smooth()"
_FALLS = "log-SNR falls"
_PRECISION, _DERIVED = "float32 keeps alpha and variance", "log_alpha, sigma, log_snr, kernel, perturb"
_FORWARD = "forward simulation, all steps: moments"


def questions(sde: SDE, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """Return the questions about an SDE."""
    valid = _ask(sde, _VALID, _invalid_times, 0, "expected alpha >= 0 and variance > 0 after t_min, in the shape of t")
    falls = "alpha^2 / variance must fall from t_min to t_max: an SDE cannot remove noise"
    first = [
        valid._replace(needs=()),
        _ask(sde, _FALLS, _largest_rise, 0, falls)._replace(needs=(_VALID,)),
    ]
    return first + _of_what_is_stated(sde) + _of_what_is_simulated(sde, data)


def _ask(
    sde: SDE, what: str, measure: Callable[[SDE], float | tuple[float, str]], bound: float, meaning: str
) -> Question:
    name = type(sde).__name__
    return Question(what, name, functools.partial(measure, sde), bound, meaning, needs=(_VALID, _FALLS))


def _of_what_is_stated(sde: SDE) -> list[Question]:
    ask = functools.partial(_ask, sde)
    rates = [
        ask(_DRIFT, _drift, 1e-3, "the drift, defined or derived, does not match alpha"),
        ask(_DIFFUSION, _diffusion, 1e-3, "the diffusion, defined or derived, does not match variance"),
        ask(_RATES, _rates, 1e-3, "velocity_rates do not match alpha and variance"),
    ]
    levels = [ask(_LEVELS, _levels, 1e-5, "chain.smooth() does not pass through the levels")]
    return [
        ask(_PRECISION, _precision, 0.1, "use expm1 and log1p to subtract numbers near 1"),
        ask(_DERIVED, _derived, 1e-3, "these functions do not match alpha and variance"),
        ask("prior_std is sigma(t_max)", _prior_std, 1e-3, "the prior is wider or narrower than the noise at t_max"),
        ask("time_of and the default grid", _grids, 1e-3, "time_of must invert log_snr, and a grid must decrease"),
        ask("prior draws and density", _prior, 1.0, "expected N(0, prior_std^2 I), with one key per draw"),
        *(rates if sde.levels is None else levels),
    ]


def _of_what_is_simulated(sde: SDE, data: Mixture) -> list[Question]:
    """Return the questions about simulations, which are skipped if a part fails, so that only the cause is reported."""
    continuous = sde.levels is None
    stated = (_PRECISION, _DERIVED, *((_DRIFT, _DIFFUSION) if continuous else ()))
    flow = (_DERIVED, _RATES if continuous else _LEVELS)

    def ask(needs: tuple[str, ...], *args: Any) -> Question:
        question = _ask(sde, *args)
        return question._replace(needs=(*question.needs, *needs))

    bound = laws.moments_bound(data)
    forward = functools.cache(lambda: simulated.forward(sde, data))
    backward = functools.cache(lambda: simulated.reversal(sde, data))
    away = "the simulation from t_min does not have the marginal given by alpha and variance"
    back = "the reverse-time SDE does not lead back to the data"
    reversed_ = (*stated, *(() if continuous else (_LEVELS,)), _FORWARD)
    thirds = ("forward simulation, 1/3 of steps: moments", "forward simulation, 2/3 of steps: moments", _FORWARD)
    return [
        *(ask(stated, name, functools.partial(_moments_at, forward, k), bound, away) for k, name in enumerate(thirds)),
        ask(
            stated,
            "forward simulation: energy distance",
            lambda _: laws.energy(*forward()[0][::2]),
            laws.ENERGY_BOUND,
            away,
        ),
        ask(reversed_, "time reversal: moments", lambda _: laws.moments(*backward()[:2]), bound, back),
        ask(
            reversed_,
            "time reversal: energy distance",
            lambda _: laws.energy(*backward()[::2]),
            laws.ENERGY_BOUND,
            back,
        ),
        ask(
            flow,
            "likelihood against the closed form, nats",
            lambda sde: simulated.likelihood(sde, data),
            1e-2,
            "log p from the probability-flow ODE is not log p of the mixture",
        ),
        ask(
            flow if continuous else (),
            "order of convergence of Heun",
            lambda sde: simulated.order(sde, data),
            1.7,
            "alpha or variance is not smooth in t, so no method is of order 2",
        )._replace(at_least=True),
        ask(
            (_PRECISION, _DERIVED),
            "sample i does not depend on the batch",
            lambda sde: simulated.invariance(sde, data),
            1e-4,
            "sample_prior must draw each example with the key of that example",
        ),
    ]


def _moments_at(forward: Callable[[], list[simulated.Law]], k: int, sde: SDE) -> float:
    return laws.moments(*forward()[k][:2])


def _inside(sde: SDE) -> np.ndarray:
    """Return times for derivatives: inside the time range, and where alpha is not almost 0."""
    times = laws.times_of(sde)[1:-1]
    alpha = np.asarray(sde.alpha(times), np.float64)
    return times[alpha > 1e-3 * alpha.max()]


def _in_float64(measure: Callable[[SDE], float | tuple[float, str]]) -> Callable[[SDE], float | tuple[float, str]]:
    @functools.wraps(measure)
    def wrapped(sde: SDE) -> float | tuple[float, str]:
        with jax.enable_x64(True):
            return measure(sde)

    return wrapped


def _invalid_times(sde: SDE) -> tuple[float, str]:
    """Return the number of times with an alpha or variance that is not valid, and the first, in the worse precision."""
    found = []
    for wide in (False, True):
        with jax.enable_x64(wide):
            times = jnp.asarray(laws.times_of(sde), float)
            alpha, variance = np.asarray(sde.alpha(times)), np.asarray(sde.variance(times))
            shapes = [np.shape(f(t)) for f in (sde.alpha, sde.variance) for t in (times, times[3])]
        if shapes != [times.shape, ()] * 2:
            raise ValueError(f"alpha and variance have shapes {shapes} for times of shape {times.shape} and ()")
        good = np.isfinite(alpha) & np.isfinite(variance) & (alpha >= 0) & (variance >= 0)
        # Near the data float32 may lose the variance; `_precision` checks this.
        good &= (variance > 0) | (np.asarray(times) == float(sde.t_min)) | (not wide)
        bad = np.flatnonzero(~good)
        where = f"first at t = {times[bad[0]]:.4g} in {times.dtype}" if len(bad) else ""
        found.append((len(bad), where))
    return max(found)


@_in_float64
def _largest_rise(sde: SDE) -> tuple[float, str]:
    times = laws.times_of(sde)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_snr = 2 * np.log(np.asarray(sde.alpha(times))) - np.log(np.asarray(sde.variance(times)))
        change = np.diff(log_snr)
    flat = np.flatnonzero(np.isnan(change) | (change == 0))
    if flat.size:  # alpha = 0 or log-SNR is constant on an interval: its times cannot be distinguished
        return 1.0, f"log-SNR is constant after t = {times[flat[0]]:.4g}"
    k = int(np.argmax(change))
    return float(change[k]), f"after t = {times[k]:.4g}"


def _largest(found: list[tuple[float, str]]) -> tuple[float, str]:
    """Return the largest figure, where NaN is larger than all numbers."""
    return max(found, key=lambda pair: np.inf if np.isnan(pair[0]) else pair[0])


def _precision(sde: SDE) -> tuple[float, str]:
    times = laws.times_of(sde).astype(np.float32)
    times = times[times > np.float32(sde.t_min) if float(sde.variance(sde.t_min)) == 0 else slice(None)]
    found: list[tuple[float, str]] = []
    for name in ("alpha", "variance"):
        single = np.asarray(getattr(sde, name)(times), np.float64)
        with jax.enable_x64(True):
            double = np.asarray(getattr(sde, name)(times.astype(np.float64)))
        # Where alpha goes to 0, the float32 value of alpha is only rounding error.
        error = np.abs(single - double) / np.maximum(double, 1e-6 if name == "alpha" else 0)
        k = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        found.append((float(error[k]), f"{name} at t = {times[k]:.3g}"))
    return _largest(found)


def _worst(pairs: Mapping[str, tuple[np.ndarray, ...]], times: np.ndarray) -> tuple[float, str]:
    """Return the largest relative difference of pairs (actual, expected) or (actual, expected, rounding error)."""
    found = []
    for name, (there, expected, *rounding) in pairs.items():
        there, expected = np.asarray(there, np.float64), np.asarray(expected, np.float64)
        scale = np.maximum(np.abs(expected), 1e-9 * np.abs(expected).max())
        scale = scale + 1e3 * rounding[0] if rounding else scale
        error = np.where(there == expected, 0, np.abs(there - expected) / np.where(scale == 0, 1, scale))
        k = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        found.append((float(error[k]), f"{name} at t = {times[k]:.4g}: {there[k]:.5g}, expected {expected[k]:.5g}"))
    return _largest(found)


@_in_float64
def _derived(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    s = t[np.arange(len(t)) // 2]  # s is near t close to the data, and far from t later
    alpha, variance = np.asarray(sde.alpha(t)), np.asarray(sde.variance(t))
    alpha_s, variance_s = np.asarray(sde.alpha(s)), np.asarray(sde.variance(s))
    r, v = (np.asarray(part) for part in sde.transition(s, t))
    x0, noise = jnp.full((len(t), 2), 1.5), jnp.full((len(t), 2), -0.5)
    pairs = {
        "alpha against exp(log_alpha)": (np.exp(np.asarray(sde.log_alpha(t))), alpha),
        "sigma": (np.asarray(sde.sigma(t)), np.sqrt(variance)),
        "exp(log_snr)": (np.exp(np.asarray(sde.log_snr(t))), alpha**2 / variance),
        "kernel r": (r, alpha / alpha_s),
        "kernel variance": (v[1:], (variance - (alpha / alpha_s) ** 2 * variance_s)[1:]),
        "perturb": (np.asarray(sde.perturb(x0, noise, t))[:, 1], 1.5 * alpha - 0.5 * np.sqrt(variance)),
    }
    return _worst(pairs, t)


def _prior_std(sde: SDE) -> tuple[float, str]:
    sigma, prior = float(np.sqrt(np.asarray(sde.variance(sde.t_max)))), float(sde.prior_std)
    return abs(prior / sigma - 1), f"prior_std {prior:.6g}, sigma(t_max) {sigma:.6g}"


@_in_float64
def _grids(sde: SDE) -> tuple[float, str]:
    """Return the error of log_snr(time_of(l)), or infinity if the default grid does not decrease."""
    grid = np.asarray(time_grid.default(sde, min(10, (sde.levels or 11) - 1)))
    if not np.all(np.diff(grid) < 0):
        return float("inf"), f"time_grid.default is {np.array2string(grid, precision=3)}"
    if sde.levels is not None:
        return 0.0, ""
    times = np.asarray([0.9, 0.5, 0.1, 0.01]) * (laws.start_of(sde) - laws.stop_of(sde)) + laws.stop_of(sde)
    log_snr = np.asarray(sde.log_snr(times))
    back = np.asarray(sde.log_snr(np.asarray(sde.time_of(log_snr))))
    return float(np.abs(back - log_snr).max()), f"time_of at log-SNR {log_snr[0]:.3g} gives log-SNR {back[0]:.3g}"


def _prior(sde: SDE) -> tuple[float, str]:
    """Return the largest error of prior draws of 2 x 2 numbers and of the density, in units of the allowed error."""
    std = float(sde.prior_std)
    keys = keys_.examples(keys_.stream(3, "verify"), jnp.arange(laws.N))
    x = np.asarray(sde.sample_prior(keys, (2, 2)), np.float64).reshape(laws.N, 4) / std
    normal = Mixture(np.ones(1), np.zeros((1, 4)), np.ones(1))
    exact = np.asarray(normal.sample(keys_.examples(keys_.stream(4, "verify"), jnp.arange(laws.COMPARED))))
    points = exact[:64].reshape(64, 2, 2)
    density = np.asarray(sde.prior_log_prob(jnp.asarray(std * points, jnp.float32)), np.float64)
    right = -0.5 * np.sum(points**2, axis=(1, 2)) - 4 * np.log(std) - 2 * np.log(2 * np.pi)
    return _largest(
        [
            (laws.moments(x, normal) / (4 * (3 / laws.N) ** 0.5), "mean and covariance of draws"),
            (laws.energy(x, exact) / laws.ENERGY_BOUND, "energy distance of draws"),
            (float(np.abs(density - right).max()) / 1e-3, "density"),
        ]
    )


def _slope(function: Callable[[np.ndarray], Array], sde: SDE, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (derivative in time, its rounding error) by central differences of order 4, not from the SDE itself."""
    h = 1e-3 * np.minimum(t - 0.999 * float(sde.t_min), float(sde.t_max) - t)
    values = [np.asarray(function(t + k * h)) for k in (-2, -1, 1, 2)]
    if values[0].dtype != np.float64:
        raise NotAsked(f"alpha or variance is {values[0].dtype} for float64 times, too coarse for derivatives")
    # The rounding error of alpha near 1 is 1e-16, even if log alpha is much smaller.
    size = np.maximum(np.abs(values[0]), 1.0 if function == sde.log_alpha else 0.0)
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h), 3e-16 * size / h


@_in_float64
def _drift(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    expected, rounding = _slope(sde.log_alpha, sde, t)
    drift = [np.asarray(sde.drift(jnp.full((len(t), 2), x), t))[:, 0] / x for x in (1.0, -2.0)]
    rate = np.asarray(sde.drift_rate(t))
    there = {"drift(x) / x": drift[0], "drift(-2 x) / (-2 x)": drift[1], "drift_rate": rate}
    return _worst({name: (value, expected, rounding) for name, value in there.items()}, t)


@_in_float64
def _diffusion(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    (f, f_rounding), (slope, rounding) = _slope(sde.log_alpha, sde, t), _slope(sde.variance, sde, t)
    variance = np.asarray(sde.variance(t))
    expected, rounding = slope - 2 * f * variance, rounding + 2 * f_rounding * variance
    there = {"diffusion_squared": sde.diffusion_squared(t), "diffusion^2": sde.diffusion(t) ** 2}
    return _worst({name: (np.asarray(value), expected, rounding) for name, value in there.items()}, t)


@_in_float64
def _rates(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    alpha_rate, sigma_rate = sde.velocity_rates(t)
    sigma = np.sqrt(np.asarray(sde.variance(t)))
    slope, rounding = _slope(sde.variance, sde, t)
    pairs = {
        "alpha'": (np.asarray(alpha_rate), *_slope(sde.alpha, sde, t)),
        "sigma'": (np.asarray(sigma_rate), slope / (2 * sigma), rounding / (2 * sigma)),
    }
    return _worst(pairs, t)


@_in_float64
def _levels(sde: SDE) -> tuple[float, str]:
    t, curve = laws.times_of(sde), laws.smooth(sde)
    pairs = {
        "alpha": (np.asarray(curve.alpha(t)), np.asarray(sde.alpha(t))),
        "variance": (np.asarray(curve.variance(t)), np.asarray(sde.variance(t))),
    }
    return _worst(pairs, t)
