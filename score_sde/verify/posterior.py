"""This module defines the checks of a posterior denoiser against posteriors in closed form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.core.arrays import Array, to_time
from score_sde.core.conditions import Cond
from score_sde.denoisers import Denoiser, GaussianMixture, Prediction
from score_sde.inverse import Linear, Posterior
from score_sde.inverse.measurement import MEASURED
from score_sde.sampling import Heun, sample
from score_sde.sde import SDE
from score_sde.verify import laws
from score_sde.verify.report import NotAsked, Question

_STD, _NOISE, _DRAWS = 0.5, 0.1, 4000
_COV = _STD**2 * np.array([[1.0, 0.9, 0.6], [0.9, 1.0, 0.8], [0.6, 0.8, 1.0]])
_MATRIX = np.eye(3)[:2]
_LAWS = ("VP", "VE")


class Gaussian(Denoiser):
    """`Gaussian` is the exact denoiser of data N(m, C): x_0 = m + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha m).

    Args:
        sde: the SDE.
        mean: shape (D,).
        cov: C, shape (D, D).
    """

    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    def __init__(self, sde: SDE, mean: np.ndarray, cov: np.ndarray) -> None:
        self.sde, self.mean = sde, mean
        self.values, self.vectors = np.linalg.eigh(cov)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean),)

    def predict(self, x: Array, t: Any, cond: Cond = None, *, keys: Array | None = None) -> Prediction:
        t = jnp.broadcast_to(to_time(t), x.shape[:1])[:, None]
        alpha, variance = self.sde.alpha(t), self.sde.variance(t)
        vectors = jnp.asarray(self.vectors, x.dtype)
        whitened = ((x - alpha * self.mean) @ vectors) / (alpha**2 * self.values + variance)
        x0 = jnp.asarray(self.mean + (alpha * self.values * whitened) @ vectors.T, x.dtype)
        return Prediction(x0, jnp.asarray(jnp.sqrt(variance) * whitened @ vectors.T, x.dtype))


def on_one(guide: Posterior, name: str, sde: SDE, needs: tuple[str, ...]) -> list[Question]:
    """Return the questions about the law of a posterior, whose operator and noise are replaced by known ones."""

    def ask(what: str, measure: Callable[[], Any], bound: float, meaning: str) -> Question:
        return Question(what, name, measure, bound, meaning, needs=needs)

    drawn = functools.cache(lambda: _errors(guide, sde))
    wrong = "the guided x_0 is not E[x_0 | x_t, y], in standard deviations of the posterior"
    found = [ask("Gaussian data: guided x_0", lambda: _pointwise(guide, sde), 0.05, wrong)]
    if name in _LAWS:
        stderr = 4 / np.sqrt(_DRAWS)
        found += [
            ask(
                "Gaussian data: spread of samples", lambda: abs(drawn()[0] - 1), 0.05 + stderr,
                "the samples are wider or narrower than the posterior",
            ),
            ask(
                "Gaussian data: bias of samples", lambda: drawn()[1], 0.05 + stderr,
                "the mean of the samples is not the posterior mean, in its standard deviations",
            ),
            ask(
                "two modes: probability of the upper one", lambda: _mode(guide, sde), 0.25,
                "far from the true probability; guided denoisers are not exact for modes (use Particles)",
            ),
        ]  # fmt: skip
    return found


def _moved(guide: Posterior, denoiser: Denoiser, matrix: np.ndarray, noise: float) -> Any:
    """Return the posterior around another denoiser, with another operator and noise."""
    if isinstance(guide.noise_std, str):
        raise NotAsked("noise_std is the name of a condition")

    def where(one: Any) -> list[Any]:
        return [one.sde, one.denoiser, one.operator, one.noise_std]

    return eqx.tree_at(where, guide, [denoiser.sde, denoiser, Linear(matrix), noise])


def _law(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior means (n, 3) and the posterior covariance for measurements y (n, 2)."""
    gain = _COV @ _MATRIX.T @ np.linalg.inv(_MATRIX @ _COV @ _MATRIX.T + _NOISE**2 * np.eye(2))
    return y @ gain.T, _COV - gain @ _MATRIX @ _COV


def _pointwise(guide: Posterior, sde: SDE) -> float:
    rng, worst = np.random.default_rng(0), 0.0
    y, x = 0.5 * rng.standard_normal((4, 2)), rng.standard_normal((4, 3))
    means, cov = _law(y)
    with jax.enable_x64(True):
        moved = _moved(guide, Gaussian(sde, np.zeros(3), _COV), _MATRIX, _NOISE)
        for level in (4.0, 0.0, -3.0):
            t = laws.time_at(sde, level)
            got = moved.predict(jnp.asarray(x), t, {MEASURED: jnp.asarray(y)})
            for i in range(4):
                exact = Gaussian(sde, means[i], cov).predict(jnp.asarray(x[i : i + 1]), t)
                error = np.abs(np.asarray(got.x0[i] - exact.x0[0])) / np.sqrt(np.diag(cov))
                worst = max(worst, float(error.max()))
    return worst


def _errors(guide: Posterior, sde: SDE) -> tuple[float, float]:
    """Return (spread farthest from 1, largest bias) of samples in posterior standard deviations, over 3 numbers."""
    rng = np.random.default_rng(1)
    y = rng.multivariate_normal(np.zeros(3), _COV, _DRAWS) @ _MATRIX.T + _NOISE * rng.standard_normal((_DRAWS, 2))
    means, cov = _law(y)
    moved = _moved(guide, Gaussian(sde, np.zeros(3), _COV), _MATRIX, _NOISE)
    grid = laws.fine_grid(sde, 40)
    x = sample(
        moved, Heun(), grid, (3,), n=_DRAWS, seed=0, cond={MEASURED: y}, denoise=False, batch_size=_DRAWS,
        x=_prior(sde, grid[0], (_DRAWS, 3)),
    ).x  # fmt: skip
    spreads, biases = [], []
    for i in range(3):
        error = (x - means)[:, i] / np.sqrt(cov[i, i])
        design = np.stack([np.ones(_DRAWS), means[:, i] / means[:, i].std()], axis=1)
        fit = np.linalg.lstsq(design, error, rcond=None)[0]
        spreads.append(float((error - design @ fit).std()))
        biases.append(float(np.abs(fit).max()))
    return max(spreads, key=lambda spread: abs(spread - 1)), max(biases)


def _mode(guide: Posterior, sde: SDE) -> tuple[float, str]:
    """Return the error of the probability of the mode at 1, given y = 0.3 and noise 0.5, with modes at -1 and 1."""
    modes = GaussianMixture(sde, np.ones(2), np.array([[-1.0], [1.0]]), 0.2)
    moved, grid = _moved(guide, modes, np.eye(1), 0.5), laws.fine_grid(sde, 40)
    cond = {MEASURED: np.full((_DRAWS, 1), 0.3)}
    start = _prior(sde, grid[0], (_DRAWS, 1))
    x = sample(moved, Heun(), grid, (1,), n=_DRAWS, seed=0, cond=cond, x=start, batch_size=_DRAWS).x
    variance = 0.2**2 + 0.5**2
    densities = np.exp(-((0.3 - np.array([-1.0, 1.0])) ** 2) / (2 * variance))
    truth, found = float(densities[1] / densities.sum()), float((x > 0).mean())
    return abs(found - truth), f"{found:.3f}, true {truth:.3f}"


def _prior(sde: SDE, t: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return draws of the noise at time t."""
    return np.asarray(np.random.default_rng(2).standard_normal(shape) * float(sde.sigma(t)), np.float32)
