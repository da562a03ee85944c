"""Is an SDE one: alpha and variance, what is said to follow from them, and what is simulated with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.analytic import Mixture
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.sde import SDE
from score_sde.verify import laws, simulated
from score_sde.verify.report import Question

SDES: dict[str, SDE] = {}  # an SDE is checked on itself alone
_VALID = "alpha and variance are finite"
_FALLS = "log-SNR falls"


def questions(sde: SDE, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """What is asked of an SDE."""
    first = [
        _ask(sde, _VALID, _invalid_times, 0, "alpha >= 0 and variance > 0 must hold after t_min")._replace(needs=()),
        _ask(
            sde,
            _FALLS,
            _largest_rise,
            0,
            "alpha^2 / variance must fall from t_min to t_max: noise cannot be taken away by an SDE",
        )._replace(needs=(_VALID,)),
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
        ask("drift is (log alpha)' x", _drift, 1e-3, "the stated drift belongs to another alpha"),
        ask("g^2 is variance' - 2 f variance", _diffusion, 1e-3, "the stated diffusion belongs to another variance"),
        ask("velocity rates are alpha' and sigma'", _rates, 1e-3, "the probability flow belongs to another SDE"),
    ]
    levels = [ask("levels lie on smooth()", _levels, 1e-5, "chain.smooth() leaves the chain's levels")]
    return [
        ask("float32 keeps alpha and variance", _precision, 0.1, "use expm1 and log1p where two numbers near 1 differ"),
        ask("log_alpha, sigma, log_snr, kernel, perturb", _derived, 1e-3, "these do not agree with alpha and variance"),
        ask("prior_std is sigma(t_max)", _prior_std, 1e-3, "the prior has another width than x at t_max"),
        ask("prior draws and density", _prior, 5.0, "not those of N(0, prior_std^2 I), each draw by its own key"),
        *(rates if sde.levels is None else levels),
    ]


def _of_what_is_simulated(sde: SDE, data: Mixture) -> list[Question]:
    ask = functools.partial(_ask, sde)
    forward = functools.cache(lambda: simulated.forward(sde, data))
    backward = functools.cache(lambda: simulated.reversal(sde, data))
    away = "from x at t_min, drift and diffusion lead to another law than alpha and variance say"
    back = "the reverse-time SDE does not lead back to the data"
    found = []
    for k, part in enumerate(("a third", "two thirds", "all")):
        name = f"forward simulation, {part} of it: moments"
        found.append(ask(name, functools.partial(_moments_at, forward, k), laws.MOMENTS_BOUND, away))
    return [
        *found,
        ask("forward simulation: energy distance", lambda _: laws.energy(*forward()[0][::2]), laws.ENERGY_BOUND, away),
        ask("time reversal: moments", lambda _: laws.moments(*backward()[:2]), laws.MOMENTS_BOUND, back),
        ask("time reversal: energy distance", lambda _: laws.energy(*backward()[::2]), laws.ENERGY_BOUND, back),
        ask(
            "likelihood against the closed form, nats",
            lambda sde: simulated.likelihood(sde, data),
            1e-2,
            "log p along the probability flow is not that of the mixture",
        ),
        ask(
            "order of convergence of Heun",
            lambda sde: simulated.order(sde, data),
            1.7,
            "alpha or variance is not smooth in t, so that no method is of second order",
        )._replace(at_least=True),
        ask(
            "sample i does not depend on the batch",
            lambda sde: simulated.invariance(sde, data),
            1e-4,
            "sample_prior must draw each example by its own key",
        ),
    ]


def _moments_at(forward: Callable[[], list[simulated.Law]], k: int, sde: SDE) -> float:
    return laws.moments(*forward()[k][:2])


def _inside(sde: SDE) -> np.ndarray:
    """Times in the open range where alpha has not all but gone, for derivatives."""
    times = laws.times_of(sde)[1:-1]
    alpha = np.asarray(sde.alpha(times), np.float64)
    return times[alpha > 1e-3 * alpha.max()]


def _in_float64(measure: Callable[[SDE], float | tuple[float, str]]) -> Callable[[SDE], float | tuple[float, str]]:
    @functools.wraps(measure)
    def wrapped(sde: SDE) -> float | tuple[float, str]:
        with jax.enable_x64(True):
            return measure(sde)

    return wrapped


@_in_float64
def _invalid_times(sde: SDE) -> tuple[float, str]:
    """How many times have an alpha or a variance that cannot be, and the first of them."""
    times = laws.times_of(sde)
    alpha, variance = np.asarray(sde.alpha(times)), np.asarray(sde.variance(times))
    shapes = [np.shape(f(t)) for f in (sde.alpha, sde.variance) for t in (times, times[3])]
    if shapes != [times.shape, ()] * 2:
        raise ValueError(f"alpha and variance have shapes {shapes} for times of shape {times.shape} and ()")
    good = np.isfinite(alpha) & np.isfinite(variance) & (alpha >= 0) & (variance >= 0)
    good &= (variance > 0) | (times == float(sde.t_min))
    bad = np.flatnonzero(~good)
    return len(bad), f"first at t = {times[bad[0]]:.4g}" if len(bad) else ""


@_in_float64
def _largest_rise(sde: SDE) -> tuple[float, str]:
    times = laws.times_of(sde)
    with np.errstate(divide="ignore"):
        log_snr = 2 * np.log(np.asarray(sde.alpha(times))) - np.log(np.asarray(sde.variance(times)))
    change = np.diff(log_snr)
    k = int(np.nanargmax(change))
    # A flat piece is a failure too: no time could be told from the next.
    return (float(change[k]) if change[k] != 0 else 1e-300), f"after t = {times[k]:.4g}"


def _precision(sde: SDE) -> tuple[float, str]:
    times = laws.times_of(sde).astype(np.float32)
    found: list[tuple[float, str]] = []
    for function in (sde.alpha, sde.variance):
        single = np.asarray(function(times), np.float64)
        with jax.enable_x64(True):
            double = np.asarray(function(times.astype(np.float64)))
        error = np.abs(single - double) / np.maximum(np.abs(double), 1e-12 * np.abs(double).max())
        # At alpha = 0 all that float32 has is rounding.
        error = np.where(np.abs(double) < 1e-6, np.minimum(np.abs(single - double), 1), error)
        k = int(np.argmax(error))
        found.append((float(error[k]), f"{function.__name__} at t = {times[k]:.3g}"))
    return max(found)


def _worst(pairs: dict[str, tuple[np.ndarray, np.ndarray]], times: np.ndarray) -> tuple[float, str]:
    """The largest relative difference of what is there from what should be, and where it is."""
    found = []
    for name, (there, expected) in pairs.items():
        there, expected = np.asarray(there, np.float64), np.asarray(expected, np.float64)
        scale = np.maximum(np.abs(expected), 1e-6 * np.abs(expected).max())
        error = np.where(there == expected, 0, np.abs(there - expected) / np.where(scale == 0, 1, scale))
        k = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        found.append((float(error[k]), f"{name} at t = {times[k]:.4g}: {there[k]:.5g}, expected {expected[k]:.5g}"))
    return max(found, key=lambda pair: np.inf if np.isnan(pair[0]) else pair[0])


@_in_float64
def _derived(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    s = np.concatenate([t[:1], t[:-1]])
    alpha, variance = np.asarray(sde.alpha(t)), np.asarray(sde.variance(t))
    alpha_s, variance_s = np.asarray(sde.alpha(s)), np.asarray(sde.variance(s))
    r, v = (np.asarray(part) for part in sde.transition(s, t))
    x0, noise = jnp.full((len(t), 2), 1.5), jnp.full((len(t), 2), -0.5)
    pairs = {
        "alpha against exp(log_alpha)": (np.exp(np.asarray(sde.log_alpha(t))), alpha),
        "sigma": (np.asarray(sde.sigma(t)), np.sqrt(variance)),
        "exp(log_snr)": (np.exp(np.asarray(sde.log_snr(t))), alpha**2 / variance),
        "kernel r": (r, alpha / alpha_s),
        "kernel variance": (v + variance, 2 * variance - (alpha / alpha_s) ** 2 * variance_s),
        "perturb": (np.asarray(sde.perturb(x0, noise, t))[:, 1], 1.5 * alpha - 0.5 * np.sqrt(variance)),
    }
    return _worst(pairs, t)


def _prior_std(sde: SDE) -> tuple[float, str]:
    sigma, prior = float(np.sqrt(np.asarray(sde.variance(sde.t_max)))), float(sde.prior_std)
    return abs(prior / sigma - 1), f"prior_std {prior:.6g}, sigma(t_max) {sigma:.6g}"


def _prior(sde: SDE) -> tuple[float, str]:
    """Of the draws' spread and of how they hang together, in standard errors; of the density, in units of 1e-3 nats."""
    n, std = 4096, float(sde.prior_std)
    x = np.asarray(sde.sample_prior(keys_.examples(keys_.root(3), jnp.arange(n)), (2, 2)), np.float64) / std
    spread = abs(np.mean(x**2) - 1) / np.sqrt(2 / x.size)
    together = abs(np.mean(x[1:] * x[:-1])) * np.sqrt(x.size)
    density = np.asarray(sde.prior_log_prob(jnp.asarray(std * x[:64], jnp.float32)), np.float64)
    exact = -0.5 * np.sum(x[:64] ** 2, axis=(1, 2)) - 4 * np.log(std) - 2 * np.log(2 * np.pi)
    off = np.abs(density - exact).max() / 1e-3
    return max((spread, "spread of draws"), (together, "correlation of draws"), (off, "density"))


def _slope(function: Callable[[np.ndarray], Array], sde: SDE, t: np.ndarray) -> np.ndarray:
    """The derivative in time by central differences, so that it owes nothing to how the SDE itself takes it."""
    h = 1e-4 * np.minimum(t - 0.999 * float(sde.t_min), float(sde.t_max) - t)
    return (np.asarray(function(t + h)) - np.asarray(function(t - h))) / (2 * h)


@_in_float64
def _drift(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    expected = _slope(sde.log_alpha, sde, t)
    drift = [np.asarray(sde.drift(jnp.full((len(t), 2), x), t))[:, 0] / x for x in (1.0, -2.0)]
    rate = np.asarray(sde.drift_rate(t))
    pairs = {"drift(x) / x": (drift[0], expected), "drift(-2 x)": (drift[1], expected), "drift_rate": (rate, expected)}
    return _worst(pairs, t)


@_in_float64
def _diffusion(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    expected = _slope(sde.variance, sde, t) - 2 * _slope(sde.log_alpha, sde, t) * np.asarray(sde.variance(t))
    found = {
        "diffusion_squared": (np.asarray(sde.diffusion_squared(t)), expected),
        "diffusion^2": (np.asarray(sde.diffusion(t)) ** 2, expected),
    }
    return _worst(found, t)


@_in_float64
def _rates(sde: SDE) -> tuple[float, str]:
    t = _inside(sde)
    alpha_rate, sigma_rate = sde.velocity_rates(t)
    sigma = np.sqrt(np.asarray(sde.variance(t)))
    expected = _slope(sde.alpha, sde, t), _slope(sde.variance, sde, t) / (2 * sigma)
    return _worst({"alpha'": (np.asarray(alpha_rate), expected[0]), "sigma'": (np.asarray(sigma_rate), expected[1])}, t)


@_in_float64
def _levels(sde: SDE) -> tuple[float, str]:
    t, curve = laws.times_of(sde), sde.smooth()
    pairs = {
        "alpha": (np.asarray(curve.alpha(t)), np.asarray(sde.alpha(t))),
        "variance": (np.asarray(curve.variance(t)), np.asarray(sde.variance(t))),
    }
    return _worst(pairs, t)
