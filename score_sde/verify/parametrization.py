"""Is a parametrisation one: both halves of x from one output, labels, and what an ideal network under it gives."""

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
_LAWS = ("VP", "VE", "RectifiedFlow")  # where an ideal network is sampled, too
_SERVES = "SDEs that it serves"
_HALVES = "alpha x_0 + sigma noise is x_t"


def questions(parametrization: Parametrization, data: Mixture, sdes: Mapping[str, SDE]) -> list[Question]:
    """What is asked of a parametrisation."""
    refused = {name: _refusal(parametrization, sde) for name, sde in sdes.items()}
    serves = [name for name, reason in refused.items() if not reason]
    lacking = "; ".join(reason for reason in refused.values() if reason)
    found = [Question(_SERVES, "", lambda: (len(serves), lacking), 1, "check() refuses all of them", at_least=True)]
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
            return f"{name} has no finite coefficients where {type(sde).__name__} has alpha = 0: say so in its check()"
    except InputError as error:
        return str(error)
    except Exception:  # it shows when it is asked
        return ""
    return ""


def _on_one(parametrization: Parametrization, name: str, sde: SDE, data: Mixture) -> list[Question]:
    model = laws.model_of(sde, data)
    ideal = _Ideal(model, parametrization)

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str, *needs: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=(_SERVES, *needs))

    halves = "of x_0 = a x + b F and noise = c x + d F, alpha a + sigma c must be 1 and alpha b + sigma d 0"
    labels = "labels must rise, or fall, with t"
    found = [
        ask(_HALVES, lambda: _contradiction(parametrization, sde), 1e-6, halves),
        ask("the label tells all times apart", lambda: _label(parametrization, sde), 0, labels),
        ask("the input's scale is positive", lambda: _scale(parametrization, sde), 0, "input_scale must be positive"),
        ask(
            "halves of an ideal network, float32",
            lambda: _precision(ideal, model),
            0.02,
            "rounding: have each half in closed form, neither by subtracting the other",
            _HALVES,
        ),
    ]  # fmt: skip
    if name in _LAWS:
        bound = laws.moments_bound(data)
        drawn = functools.cache(lambda: _draw(ideal, model))
        lost = "an ideal network under it gives another law"
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
    """What the parametrisation makes of the output F that gives the exact halves."""

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
        # From the half that F says more of: by the other one all digits may be lost.
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
    """How many neighbouring times have labels that are equal, turn back, or are not finite."""
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
    """The largest error of a half had from F in float32, relative to that half's size, where sigma > alpha / 1000."""
    found = []
    times = _times(model.sde, 12)[:: 1 if model.sde.levels is None else 25]
    # Nearer to the data the noise is less than float32 keeps of x, and a half may be had from it.
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
