"""Denoising score matching: teach a denoiser to tell x_0 from noise."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, is_concrete, per_example_mean, to_time
from score_sde.core.errors import InputError
from score_sde.denoiser import Cond, Denoiser
from score_sde.sde import SDE

Weight = Callable[[SDE, Array], Array]
Times = Callable[[SDE, Array], Array]
WEIGHTS = ("unit",)  # what a config may name
TIMES = ("uniform_times",)
TARGETS = ("noise", "x0", "velocity")


def unit(sde: SDE, t: Array) -> Array:
    """The weight 1 at every time, shape of t."""
    return jnp.ones_like(t)


def uniform_times(sde: SDE, keys: Array) -> Array:
    """Times uniform on [t_min, t_max], one for each key: (batch,) -> (batch,)."""
    return sde.t_min + (sde.t_max - sde.t_min) * keys_.draw(jax.random.uniform, keys, ())


def denoising_loss(
    denoiser: Denoiser,
    x0: Array,
    keys: Array,
    *,
    t: ArrayLike,
    target: str = "noise",
    weight: Weight = unit,
    cond: Cond = None,
    train: bool = True,
) -> Array:
    """weight(t) times the mean squared error of the prediction of `target`, one value per example.

    With x_t = alpha x_0 + sigma noise, the targets are noise (the objective of Song et al. 2021,
    Eq. 7, with lambda = sigma^2), x_0, and the velocity alpha' x_0 + sigma' noise. The caller draws t.

    Args:
        denoiser: the model; gradients pass through it.
        x0: data, shape (batch, *shape).
        keys: one key per example, shape (batch,), for its noise and its dropout.
        t: times, shape () or (batch,), within [t_min, t_max] of the SDE.
        target: 'noise', 'x0' or 'velocity'.
        weight: a function (sde, t) -> shape of t.
        cond: None, or a pytree with leading axis batch.
        train: whether dropout is on.

    Returns:
        Shape (batch,): the mean over an example's dimensions.
    """
    _check(denoiser.sde, x0, keys, t, target)
    sde, t = denoiser.sde, to_time(t)
    noise = keys_.normal(keys_.fold(keys, 0), x0.shape[1:], x0.dtype)
    x_t = sde.perturb(x0, noise, t)
    predicted = denoiser.predict(x_t, t, cond, keys=keys_.fold(keys, 1) if train else None)
    error_x0, error_noise = predicted.x0 - x0, predicted.noise - noise
    if target == "velocity":
        alpha_rate, sigma_rate = sde.velocity_rates(t)
        error = expand(alpha_rate, x0) * error_x0 + expand(sigma_rate, x0) * error_noise
    else:
        error = error_noise if target == "noise" else error_x0
    return weight(sde, t) * per_example_mean(error**2)


def _check(sde: SDE, x0: Array, keys: Array, t: ArrayLike, target: str) -> None:
    if target not in TARGETS:
        raise InputError(f"target is {target!r}; expected one of {', '.join(TARGETS)}.")
    if keys.shape != x0.shape[:1]:
        raise InputError(
            f"keys have shape {keys.shape} for {len(x0)} examples; expected one key per example, as from "
            "jax.random.split(jax.random.key(seed), batch)."
        )
    if is_concrete(sde, t):
        times = np.asarray(t)
        if times.shape not in ((), x0.shape[:1]):
            raise InputError(f"t has shape {times.shape}; expected () or ({len(x0)},), one time per example.")
        low, high = np.asarray([sde.t_min, sde.t_max], times.dtype if times.dtype.kind == "f" else float)
        bad = times[~((times >= low) & (times <= high))]
        if bad.size:
            raise InputError(f"t contains {bad.flat[0]:g}; expected times within [t_min, t_max] = [{low:g}, {high:g}].")


__all__ = ["denoising_loss", "uniform_times", "unit"]
