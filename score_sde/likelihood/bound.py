"""This module computes the variational bound of -log p(x), as a sum of named terms in bits per dimension."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import given
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, mean_and_error, per_example_sum
from score_sde.core.checks import require_whole
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.core.precision import check_precision, products
from score_sde.data import Codec
from score_sde.denoisers import Denoiser
from score_sde.denoisers.bound_terms import data_term, prior_term, step_term
from score_sde.denoisers.inputs import as_denoiser, as_points, check_shape
from score_sde.denoisers.reverse_variance import check_kind, check_predicted
from score_sde.likelihood.bits import as_values
from score_sde.likelihood.density import check_keys
from score_sde.sde import SDE

_CONTINUOUS_DRAWS = 64
_IN_TIME = "continuous"  # the name of the diffusion term in continuous time, beside the kinds of variance


class Bound(NamedTuple):
    """`Bound` holds an upper bound of -log2 p(x) / D for each example, which holds in the mean over its random draws.

    Attributes:
        value: the bound in bits per dimension, float64 (batch,): the sum of the terms.
        terms: by name, each (batch,): `prior` (L_T), `diffusion` (the sum of L_t, or its integral), `data` (L_0), and
            the codec's terms, if the data are not quantised.
        levels: L_t of each step from the least noise to the most, (batch, n), if all levels were computed; otherwise
            None. Their sum is the term `diffusion`.
        times: times t of the levels, (n,); None if levels is None.
        nfe: network evaluations of each example, int32 (batch,).
    """

    value: np.ndarray
    terms: dict[str, np.ndarray]
    levels: np.ndarray | None
    times: np.ndarray | None
    nfe: np.ndarray

    def mean(self) -> tuple[float, float]:
        """Return the mean over the examples and its standard error, NaN for one example."""
        return mean_and_error(self.value)


def variational_bound(
    denoiser: Denoiser,
    x: ArrayLike,
    keys: Array,
    *,
    codec: Codec | None = None,
    grid: ArrayLike | None = None,
    variance: str | None = None,
    draws: int | None = None,
    dequantise: bool = False,
    cond: Cond = None,
    precision: str = "highest",
) -> Bound:
    """Compute an upper bound of -log2 p(x) / D, from the reverse chain of an SDE or from the SDE in continuous time.

    On a grid of levels t_1 < ... < t_n = T, with the Gaussian reverse steps p(x_s | x_t) that `Ancestral` draws,

        -log p(x_0) <= L_T + sum over t of L_t + L_0    (Ho et al. 2020, arXiv:2006.11239, Eq. 5),

    L_T = KL(q(x_T | x_0) || prior), L_t = KL(q(x_s | x_t, x_0) || p(x_s | x_t)), L_0 = -log p(x_0 | x_1). In continuous
    time the sum becomes the integral over log-SNR of |noise - predicted noise|^2 / 2, without a choice of variance
    (Kingma et al. 2021, arXiv:2107.00630, Eq. 17; Song et al. 2021b, arXiv:2101.09258, Theorem 3), and L_0 is taken at
    t_min. For Gaussian data and the exact denoiser, the bound with the optimal variance and the bound in continuous
    time equal -log p in the mean over the data.

    For quantised data p(x_0 | x_1) is the probability of the value's bin, with an open first and last bin, and x_0 is
    the middle of the bin. With `dequantise`, and for other data, L_0 is a density, and the codec's terms are added.

    Args:
        denoiser: the model.
        x: data on their own scale if there is a codec, otherwise on the model's scale; (batch, *shape).
        keys: one random key per example, shape (batch,).
        codec: map between the data's scale and the model's; None for the codec of a `denoiser` that is a model.
        grid: decreasing times from t_max, as `sample` takes them; None for all levels of a chain, and for continuous
            time on another SDE. A last time at level 0 of a chain is left out: L_0 is the step to data.
        variance: variance of the reverse steps: 'posterior', 'forward', 'learned' or 'optimal', as in `Ancestral`; None
            for 'learned' if the denoiser predicts a variance, otherwise 'posterior'.
        draws: number of levels drawn for each example, spread evenly, with the sum as their scaled mean; None for every
            level once, or for 64 times in continuous time.
        dequantise: whether quantised data get the codec's noise, as for the likelihood of the flow. A model that was
            trained on data with this noise (`Denoising`) knows no bins: without the noise its bound is far too large.
        cond: None, or conditions by name as `denoiser.reads` declares them.
        precision: precision of float32 products, as in `log_prob`.

    Returns:
        Bound; its value holds in the mean over the draws, so average over examples.
    """
    check_precision("precision", precision)
    if draws is not None:
        require_whole("draws", draws, 1)
    codec = getattr(denoiser, "codec", None) if codec is None else codec
    denoiser = as_denoiser(denoiser)
    x0, bins, extra = _encoded(x, codec, keys, dequantise)
    check_shape(denoiser, x0.shape[1:])
    check_keys(keys, len(x0), "bound")
    cond = given.checked(cond, denoiser.reads, len(x0))
    kind = _kind(denoiser, x0, cond, variance)
    sde = denoiser.sde
    in_time = grid is None and sde.levels is None
    if in_time:
        times = _ends(sde)
        kinds = (_IN_TIME, kind)
        draws = _CONTINUOUS_DRAWS if draws is None else draws
    else:
        times, kinds = _levels(sde, grid), (kind, kind)
    count = len(times) - 1 if draws is None else draws
    options = {"count": count, "kinds": kinds, "all_levels": draws is None, "precision": precision}
    levels, first, last, nfe = _terms(denoiser, jnp.asarray(times, x0.dtype), x0, bins, keys, cond, **options)
    size = math.prod(x0.shape[1:] if codec is None else codec.data_shape)
    scale = 1.0 if draws is None else (1 if in_time else len(times) - 1) / draws
    found = {"prior": last, "diffusion": levels, "data": first} | {name: -value for name, value in extra.items()}
    return _in_bits(found, scale, size, times[1:] if draws is None else None, nfe)


def _in_bits(found: dict[str, Any], scale: float, size: int, times: np.ndarray | None, nfe: Any) -> Bound:
    """Return the bound from its parts in nats; the diffusion term is `scale` times the sum of the rows of its part."""
    terms = {name: np.asarray(nats, np.float64) / (size * math.log(2)) for name, nats in found.items()}
    levels = terms["diffusion"]
    terms["diffusion"] = scale * levels.sum(axis=0)
    value = np.sum(list(terms.values()), axis=0)
    return Bound(value, terms, None if times is None else levels.T, times, np.asarray(nfe))


def _terms_of(
    denoiser: Denoiser,
    times: Array,
    x0: Array,
    bins: tuple[Array, Array] | None,
    keys: Array,
    cond: Cond,
    *,
    count: int,
    kinds: tuple[str, str],
    all_levels: bool,
    precision: str,
) -> tuple[Array, Array, Array, Array]:
    """Return (L_t of each draw (count, batch), L_0, L_T, evaluations), in nats; `kinds` are those of L_t and L_0."""
    sde, (kind, to_data) = denoiser.sde, kinds

    def predicted(t: Array, k: Array) -> tuple[Any, Array]:
        noise = keys_.normal(keys_.fold(keys_.fold(keys, "bound"), k), x0.shape[1:], x0.dtype)
        return denoiser.predict(sde.perturb(x0, noise, t), t, cond), noise

    def draw(nfe: Array, k: Array) -> tuple[Array, Array]:
        place = jnp.full(x0.shape[:1], k, x0.dtype)
        if not all_levels:
            u = keys_.draw(jax.random.uniform, keys_.fold(keys_.fold(keys, "levels"), k), ())
            place = (k + u) / count
        if kind == _IN_TIME:
            high, low = sde.log_snr(times[0]), sde.log_snr(times[1])
            t = sde.time_of(high + (low - high) * place)
            of_t, noise = predicted(t, k)
            term = (high - low) / 2 * per_example_sum((noise - of_t.noise) ** 2)
        else:
            steps = len(times) - 1
            level = k if all_levels else jnp.minimum(jnp.floor(place * steps), steps - 1).astype(jnp.int32)
            s, t = (jnp.broadcast_to(times[level + up], x0.shape[:1]) for up in (0, 1))
            of_t, _ = predicted(t, k)
            term = step_term(sde, s, t, x0, of_t, kind)
        return nfe + denoiser.evaluations(t), term

    with products(precision):
        nfe, levels = jax.lax.scan(draw, jnp.zeros(x0.shape[:1], jnp.int32), jnp.arange(count))
        least = jnp.broadcast_to(times[0], x0.shape[:1])
        of_least, _ = predicted(least, jnp.asarray(count))
        first = data_term(sde, least, x0, of_least, to_data, bins)
        return levels, first, prior_term(sde, x0), nfe + denoiser.evaluations(least)


_terms = module_jit(_terms_of, static_argnames=("count", "kinds", "all_levels", "precision"))


def _encoded(x: ArrayLike, codec: Codec | None, keys: Array, dequantise: bool) -> tuple[Array, Any, dict[str, Array]]:
    """Return (x_0 on the model's scale, bins of quantised data or None, further terms in nats)."""
    if codec is None:
        return as_points(x), None, {}
    values = as_values(x, codec)
    bins = None if dequantise else codec.bins(values)
    noisy = bins is None and codec.is_bound
    x0, terms = codec.encode(values, keys_.fold(keys, "encode") if noisy else None)
    if bins is not None:
        return x0, bins, {}
    missing = [name for name, value in terms.items() if value is None]
    if missing:
        raise InputError(
            f"{type(codec).__name__} gives no bound of its term {missing[0]!r}, so its data have no bits per dimension."
        )
    return x0, None, {name: value for name, value in terms.items() if value is not None}


def _kind(denoiser: Denoiser, x0: Array, cond: Cond, variance: str | None) -> str:
    """Return the variance of the reverse steps; raise InputError if the denoiser does not predict it."""
    t = jnp.full(x0.shape[:1], float(denoiser.sde.t_max), x0.dtype)
    predicted = jax.eval_shape(denoiser.predict, x0, t, cond)
    if variance is None:
        return "posterior" if predicted.variance is None else "learned"
    check_kind("variational_bound", variance)
    check_predicted(predicted, variance)
    return variance


def _ends(sde: SDE) -> np.ndarray:
    ends = np.asarray([float(sde.t_min), float(sde.t_max)])
    if not np.isfinite(np.asarray(sde.log_snr(ends))).all():
        name = type(sde).__name__
        raise InputError(
            f"{name} has alpha(t_max) = 0 or no noise at t_min, where log-SNR is infinite, so that the bound in "
            f"continuous time is not finite: use a smaller t_max, {name}(t_max={0.999 * ends[1]:g}), or a grid."
        )
    return ends


def _levels(sde: SDE, grid: ArrayLike | None) -> np.ndarray:
    """Return the increasing times of the chain, the least of them with noise."""
    if grid is None:
        assert sde.levels is not None
        return np.arange(1, sde.levels + 1) / sde.levels
    times = as_array(grid, "grid")
    if times.dtype.kind not in "iuf" or times.ndim != 1 or len(times) < 2 or not np.all(np.diff(times) < 0):
        raise InputError(f"grid is {times!r}; expected decreasing times, such as time_grid.uniform(sde, 100).")
    sde.check_times(times, "grid")
    if not np.isclose(times[0], float(sde.t_max), rtol=1e-5):
        raise InputError(f"grid starts at {times[0]:g}; expected t_max = {float(sde.t_max):g}, where the prior is.")
    noisy = times[np.asarray(sde.variance(times)) > 0]
    if len(noisy) < 2:
        raise InputError(f"grid has {len(noisy)} time with noise; expected at least 2.")
    return noisy[::-1]


__all__ = ["Bound", "variational_bound"]
