"""This module defines the checks of a parametrisation: x_0 and noise, labels, and results of an ideal network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, expand, to_time
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.denoisers import Denoiser, GaussianMixture, Mixture, Parametrization, Prediction
from score_sde.sampling import Ancestral, sample
from score_sde.sde import EDM, SDE, VE, VP, CosineVP, DiscreteVP, RectifiedFlow, SubVP
from score_sde.verify import laws, simulated
from score_sde.verify.report import Question

SDES: dict[str, SDE] = {
    "VP": VP(),
    "SubVP": SubVP(),
    "VE": VE(sigma_max=20.0),
    "CosineVP": CosineVP(),
    "EDM": EDM(sigma_max=20.0),
    "RectifiedFlow": RectifiedFlow(),
    "DiscreteVP": DiscreteVP(250),
}
_LAWS = ("VP", "VE", "RectifiedFlow")  # on these SDEs an ideal network is sampled too
_SERVES = "SDEs that the parametrisation supports"
_HALVES = "alpha x_0 + sigma noise is x_t"


def questions(parametrization: Parametrization, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """Return the questions about a parametrisation."""
    refused = {name: _refusal(parametrization, sde) for name, sde in sdes.items()}
    serves = [name for name, reason in refused.items() if not reason]
    lacking = "; ".join(reason for reason in refused.values() if reason)
    found = [Question(_SERVES, "", lambda: (len(serves), lacking), 1, "check() rejects all the SDEs", at_least=True)]
    for name in serves:
        found += _on_one(parametrization, name, sdes[name], data)
    return found


def _refusal(parametrization: Parametrization, sde: SDE) -> str:
    try:
        parametrization.check(sde)
        last = jnp.asarray(float(sde.t_max))
        parametrization.label(sde, last)
        coefficients = jax.tree.leaves(parametrization.coefficients(sde, last))
        if float(sde.alpha(last)) == 0 and not np.all(np.isfinite(np.asarray(coefficients, float))):
            name = type(parametrization).__name__
            return f"{name} has no finite coefficients at alpha = 0 ({type(sde).__name__}): raise InputError in check()"
    except InputError as error:
        return str(error)
    except Exception:  # the checks report this error
        return ""
    return ""


def _on_one(parametrization: Parametrization, name: str, sde: SDE, data: Mixture) -> list[Question]:
    model = laws.model_of(sde, data)
    ideal = _Ideal(model, parametrization)

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str, *needs: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=(_SERVES, *needs))

    halves = "x_0 = a x + b F and noise = c x + d F need alpha a + sigma c = 1 and alpha b + sigma d = 0"
    labels = "labels must rise or fall strictly with t"
    found = [
        ask(_HALVES, lambda: _contradiction(parametrization, sde), 1e-6, halves),
        ask("the label is strictly monotone in t", lambda: _label(parametrization, sde), 0, labels),
        ask("the input scale is positive", lambda: _scale(parametrization, sde), 0, "input_scale must be positive"),
        ask(
            "x_0 and noise of an ideal network, float32",
            lambda: _precision(ideal, model),
            0.02,
            "rounding: compute x_0 and noise in closed form, not one by subtracting the other",
            _HALVES,
        ),
    ]  # fmt: skip
    if name in _LAWS:
        bound = laws.moments_bound(data)
        drawn = functools.cache(lambda: _draw(ideal, model))
        lost = "an ideal network does not give the marginal"
        error = functools.partial(simulated.likelihood_error, ideal, model, seed=2)
        found += [
            ask("likelihood of an ideal network, nats", error, 1e-2, lost, _HALVES),
            ask(
                "samples of an ideal network: moments",
                lambda: laws.moments(*drawn()[:2]),
                bound,
                lost,
            ),
            ask(
                "samples of an ideal network: energy distance",
                lambda: laws.energy(drawn()[0], drawn()[2]),
                laws.ENERGY_BOUND,
                lost,
            ),
        ]
    return found


class _Ideal(Denoiser):
    """`_Ideal` is the denoiser of a network whose output F gives the exact x_0 and noise."""

    model: GaussianMixture
    parametrization: Parametrization = eqx.field()

    def __init__(self, model: GaussianMixture, parametrization: Parametrization) -> None:
        self.sde, self.model, self.parametrization = model.sde, model, parametrization

    def predict(self, x: Array, t: Any, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])
        exact = self.model.predict(x, t)
        output = self.output(x, t, exact.x0, exact.noise) / expand(self.parametrization.output_scale(self.sde, t), x)
        return self.parametrization.predict(self.sde, x, t, output)

    def output(self, x: Array, t: Array, x0: Array, noise: Array) -> Array:
        halves = self.parametrization.coefficients(self.sde, t)
        (a, b), (c, d) = [[jnp.broadcast_to(jnp.asarray(each), t.shape) for each in half] for half in halves]
        # F is computed from x_0 or noise, whichever has the larger factor on F; the other may lose all digits.
        of_x0 = jnp.abs(b) >= jnp.abs(d)
        from_x0 = (x0 - expand(a, x) * x) / expand(jnp.where(of_x0, b, 1), x)
        from_noise = (noise - expand(c, x) * x) / expand(jnp.where(of_x0, 1, d), x)
        return jnp.where(expand(of_x0, x) > 0, from_x0, from_noise)


def _times(sde: SDE, n: int = 201) -> np.ndarray:
    if sde.levels is not None:
        return np.arange(1, sde.levels + 1) / sde.levels
    low, high = float(sde.t_min), float(sde.t_max)
    return low + (high - low) * np.unique(np.r_[0, np.geomspace(1e-4, 0.5, n), np.linspace(0.5, 1, n)])


def _contradiction(parametrization: Parametrization, sde: SDE) -> tuple[float, str]:
    with jax.enable_x64(True):
        t = jnp.asarray(_times(sde))
        (a, b), (c, d) = parametrization.coefficients(sde, t)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        on_x = np.asarray(alpha * a + sigma * c) - 1
        size = np.maximum(np.abs(alpha * b) + np.abs(sigma * d), 1e-300)
        on_output = np.asarray((alpha * b + sigma * d) / size)
    error = np.maximum(np.abs(on_x), np.abs(on_output))
    k = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    return float(error[k]), f"at t = {t[k]:.4g}: factors {on_x[k] + 1:.5g} on x_t and {on_output[k]:.3g} on F"


def _label(parametrization: Parametrization, sde: SDE) -> tuple[float, str]:
    """Return the number of neighbouring times whose labels are equal, change direction, or are not finite."""
    times = _times(sde)
    with jax.enable_x64(True):
        label = np.asarray(parametrization.label(sde, jnp.asarray(times)), np.float64)
    if label.shape != times.shape:
        raise ValueError(f"label has shape {label.shape} for times of shape {times.shape}")
    change = np.diff(label)
    bad = np.flatnonzero(~(np.isfinite(change) & (change * np.sign(np.nansum(change)) > 0)))
    return len(bad), f"first after t = {times[bad[0]]:.4g}" if len(bad) else ""


def _scale(parametrization: Parametrization, sde: SDE) -> float:
    scale = np.asarray(parametrization.input_scale(sde, jnp.asarray(_times(sde), jnp.float32)))
    return int(np.sum(~(np.isfinite(scale) & (scale > 0))))


def _precision(ideal: _Ideal, model: GaussianMixture) -> tuple[float, str]:
    """Return the largest relative error of x_0 or noise computed from F in float32, where sigma > alpha / 1000."""
    found = []
    times = _times(model.sde, 12)[:: 1 if model.sde.levels is None else 25]
    # Closer to the data a float32 x holds too few digits of the noise, and a prediction may be computed from x.
    for t in times[np.asarray(model.sde.log_snr(times)) < 14]:
        x = jnp.asarray(laws.exact(model, float(t), 1, 64))
        exact, there = model.predict(x, jnp.asarray(t, x.dtype)), ideal.predict(x, jnp.asarray(t, x.dtype))
        for name, mine, true in (("x_0", there.x0, exact.x0), ("noise", there.noise, exact.noise)):
            error = float(jnp.sqrt(jnp.mean((mine - true) ** 2) / jnp.mean(true**2)))
            found.append((error, f"{name} at t = {t:.4g}"))
    return max(found, key=lambda pair: np.inf if np.isnan(pair[0]) else pair[0])


def _draw(ideal: _Ideal, model: GaussianMixture) -> tuple[np.ndarray, Mixture, np.ndarray]:
    grid = laws.fine_grid(model.sde, 300)
    start = laws.exact(model, grid[0], 3)
    n = len(start)
    x = sample(ideal, Ancestral(), grid, start.shape[1:], n=n, seed=0, x=start, denoise=False, batch_size=n).x
    return x, model.marginal(grid[-1]), laws.exact(model, grid[-1], 4)
