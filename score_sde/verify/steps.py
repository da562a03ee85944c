"""This module measures one step: the keys of its noise, and its factors on x_0 and noise."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array
from score_sde.core.conditions import Cond
from score_sde.core.jit import module_jit
from score_sde.denoisers import Denoiser, GaussianMixture, Guide, Prediction
from score_sde.sampling import Sampler
from score_sde.verify import laws
from score_sde.verify.report import NotAsked

# (model, keys (batch,), x (batch, *shape), t, s) -> x of the same shape
Step = Callable[[GaussianMixture, Any, Any, Any, Any], Any]
_DRAWS = 8192


def _take(step: Step, model: GaussianMixture, keys: Any, x: np.ndarray, t: float, s: float) -> np.ndarray:
    """Return the result of a step in float64."""
    with jax.enable_x64(True):
        return np.asarray(step(model, keys, jnp.asarray(x, float), jnp.asarray(t, float), jnp.asarray(s, float)))


def _keys(seed: int, n: int = _DRAWS) -> Any:
    return keys_.examples(keys_.stream(seed, "verify"), np.arange(n))


def _exact(model: GaussianMixture, t: float, seed: int) -> np.ndarray:
    return laws.exact(model, t, seed, _DRAWS).astype(np.float64)


def unhashable(thing: Any) -> int:
    """Return 1 if `thing` is not hashable, as the key of a compiled program must be, otherwise 0."""
    try:
        hash(thing)
    except TypeError:
        return 1
    return 0


def batch_dependence(step: Step, model: GaussianMixture, t: float, s: float) -> float:
    """Return the largest difference of examples in a large batch, alone, and in another order, relative to x."""
    x, keys = _exact(model, t, 20), _keys(21)
    together = _take(step, model, keys, x, t, s)
    turned = _take(step, model, keys[::-1], x[::-1], t, s)[::-1]
    some = range(3, _DRAWS, _DRAWS // 3)
    alone = np.concatenate([_take(step, model, keys[i : i + 1], x[i : i + 1], t, s) for i in some])
    error = max(np.abs(alone - together[some]).max(), np.abs(turned - together).max())
    return float(error / np.abs(together).max())


def ignored_condition(step: Step, conditional: Step, model: GaussianMixture, t: float, s: float) -> float:
    """Return the relative difference of a step with the first component's label and a step on this component alone."""
    alone = GaussianMixture(model.sde, np.ones(1), model.data.means[:1], model.data.stds[:1])
    x, keys = _exact(model, t, 27), _keys(28)
    error = _take(conditional, model, keys, x, t, s) - _take(step, alone, keys, x, t, s)
    return float(np.abs(error).max() / np.abs(x).max())


def _from_one_point(step: Step, model: GaussianMixture, t: float, s: float, seed: int) -> np.ndarray:
    """Return the results of many steps from one point, each with its own key: (draws, dimensions)."""
    x = np.broadcast_to(_exact(model, t, 22)[:1], (_DRAWS, *model.data.means.shape[1:]))
    return _take(step, model, _keys(seed), x, t, s).reshape(_DRAWS, -1)


def spread(step: Step, model: GaussianMixture, t: float, s: float) -> float:
    """Return the variance per dimension of the fresh noise of a step; 0 for a deterministic step."""
    variance = float(_from_one_point(step, model, t, s, 23).var(axis=0).mean())
    return variance if variance > _rounding(model, t) ** 2 else 0.0


def _rounding(model: GaussianMixture, t: float) -> float:
    """Return the spread that float32 rounding may give to a deterministic step, in case the step uses float32."""
    return 1e-5 * float(model.sde.sigma(t))


def shared_noise(step: Step, model: GaussianMixture, t: float, s: float) -> float:
    """Return the correlation of noise in standard errors: between samples, and over all samples of a call."""
    first, second = (_from_one_point(step, model, t, s, seed) for seed in (23, 24))
    size = float(np.sqrt(first.var(axis=0).mean()))
    apart = float(np.abs(first.mean(axis=0) - second.mean(axis=0)).max())
    if size <= _rounding(model, t):
        return 0.0 if apart <= _rounding(model, t) else float("inf")
    if np.array_equal(first, second):
        return float("inf")
    centred = (first - first.mean(axis=0)) / size
    neighbours = abs(float(np.mean(centred[1:] * centred[:-1]))) * np.sqrt(centred.size)
    return max(neighbours, apart / (size * np.sqrt(2 / _DRAWS)))


def halves(step: Step, model: GaussianMixture, t: float, s: float, most_noise: float = 0.06) -> tuple[float, float]:
    """Return the errors of the factors on x_0 and noise in a short step, against any SDE of the family.

    A step with fresh noise of variance v takes x_t = alpha_t x_0 + sigma_t n, to first order, to

        x_s = x_t + (alpha_s - alpha_t) x_0 + (sigma_s - sigma_t - v / (2 sigma_t)) n + fresh noise,

    where x_0 and n are the predicted x_0 and noise. Both factors are measured with pairs of points that share a key, so
    that the fresh noise cancels.

    Returns:
        (error of the factor on x_0, error of the factor on n), in units of the whole change of x.
    """
    variance = float(model.sde.variance(t))
    v = spread(step, model, t, s)
    if v > most_noise * variance:
        raise NotAsked(f"a short step draws noise of variance {v / variance:.2g} sigma^2, too much for the check")
    x, keys = _exact(model, t, 25), jnp.concatenate([_keys(26, _DRAWS // 2)] * 2)
    change = _take(step, model, keys, x, t, s) - x
    with jax.enable_x64(True):
        exact = model.predict(jnp.asarray(x), t)
        parts = [change, np.asarray(exact.x0), np.asarray(exact.noise)]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((float(model.sde.alpha(u)), float(model.sde.sigma(u))) for u in (t, s))
    differences = [(part[: _DRAWS // 2] - part[_DRAWS // 2 :]).ravel() for part in parts]
    (on_x0, on_noise), *_ = np.linalg.lstsq(np.stack(differences[1:], axis=1), differences[0], rcond=None)
    expected_x0, expected_noise = alpha_s - alpha_t, sigma_s - sigma_t - v / (2 * sigma_t)
    sizes = [float(np.sqrt(np.mean(part**2))) for part in differences[1:]]
    whole = abs(expected_x0) * sizes[0] + (abs(sigma_s - sigma_t) + v / (2 * sigma_t)) * sizes[1]
    if whole == 0:
        raise NotAsked("a call does not change x")
    return abs(on_x0 - expected_x0) * sizes[0] / whole, abs(on_noise - expected_noise) * sizes[1] / whole


class _Counted(Guide):
    """`_Counted` counts its evaluations, also inside compiled loops."""

    def predict(self, x: Array, t: Any, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        jax.debug.callback(functools.partial(_count, len(x)))
        return self.denoiser.predict(x, t, cond, keys=keys)


_counts = [0]


def _count(examples: int) -> None:
    _counts[0] += examples


@contextlib.contextmanager
def counting(model: Denoiser) -> Iterator[tuple[Denoiser, Callable[[], int]]]:
    """Yield (the model with a counter of evaluations per example, a function that returns the count)."""

    def evaluations() -> int:
        jax.effects_barrier()
        return _counts[0]

    jax.effects_barrier()
    _counts[0] = 0
    yield _Counted(model), evaluations  # type: ignore[arg-type, call-arg]


def walk(sampler: Sampler, model: GaussianMixture, x: Any, ends: tuple[float, float], n: int) -> Any:
    """Return x after n steps evenly spaced in log-SNR; one compiled program serves all n."""
    grid = np.resize(laws.fine_grid(model.sde, n, *ends), 257)
    return _walk(model, x, jnp.asarray(grid, x.dtype), jnp.asarray(n), sampler=sampler)


@functools.partial(module_jit, static_argnames=("sampler",))
def _walk(model: GaussianMixture, x: Any, grid: Any, n: Any, *, sampler: Sampler) -> Any:
    keys = keys_.examples(keys_.stream(7, "verify"), jnp.arange(len(x)))

    def step(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        x, state = carry
        x, state, _ = sampler.step(keys_.fold(keys, k + 1), model, x, grid[k], grid[k + 1], state)
        return x, state

    return jax.lax.fori_loop(0, n, step, (x, sampler.init(x)))[0]
