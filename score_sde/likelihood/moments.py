"""This module measures the second moment of the predicted noise, from which the optimal reverse variance follows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import given
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, as_array, per_example_mean
from score_sde.core.conditions import Cond
from score_sde.core.errors import InputError
from score_sde.core.jit import module_jit
from score_sde.denoisers import Denoiser
from score_sde.denoisers.inputs import as_denoiser, as_points, check_shape
from score_sde.likelihood.density import check_keys


def noise_moments(denoiser: Denoiser, x0: ArrayLike, keys: Array, times: ArrayLike, cond: Cond = None) -> np.ndarray:
    """Return |E[noise | x_t]|^2 / D of each example at each time, float64 (batch, n), with x_t drawn from x_0.

    Their mean over the data is Gamma(t) of a `MomentTable` (Bao et al. 2022, arXiv:2201.06503, Eq. 8).

    Args:
        denoiser: the model.
        x0: data on the model's scale, shape (batch, *shape).
        keys: one random key per example, shape (batch,).
        times: times with noise, (n,).
        cond: None, or conditions by name as `denoiser.reads` declares them.
    """
    denoiser, x0 = as_denoiser(denoiser), as_points(x0, "x0")
    check_shape(denoiser, x0.shape[1:], "x0")
    check_keys(keys, len(x0), "moments")
    cond = given.checked(cond, denoiser.reads, len(x0))
    at = as_array(times, "times")
    if at.ndim != 1 or at.dtype.kind not in "iuf":
        raise InputError(f"times are {times!r}; expected numbers, (n,).")
    denoiser.sde.check_times(at, "times")
    return np.asarray(_moments(denoiser, jnp.asarray(at, x0.dtype), x0, keys, cond), np.float64).T


def _moments_of(denoiser: Denoiser, times: Array, x0: Array, keys: Array, cond: Cond) -> Array:
    def at(_: None, place: tuple[Array, Array]) -> tuple[None, Array]:
        t, k = place
        noise = keys_.normal(keys_.fold(keys_.fold(keys, "moments"), k), x0.shape[1:], x0.dtype)
        predicted = denoiser.predict(denoiser.sde.perturb(x0, noise, t), jnp.broadcast_to(t, x0.shape[:1]), cond)
        return None, per_example_mean(predicted.noise**2)

    return jax.lax.scan(at, None, (times, jnp.arange(len(times))))[1]


_moments = module_jit(_moments_of)

__all__ = ["noise_moments"]
