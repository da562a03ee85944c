"""Denoising score matching: teach a denoiser to tell x_0 from noise."""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike

from score_sde import weights
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, is_concrete, per_example_mean, per_example_sum, to_time
from score_sde.core.errors import InputError
from score_sde.denoiser import Cond, Denoiser
from score_sde.sde import SDE
from score_sde.weights import Weight, unit

TARGETS = ("noise", "x0", "velocity")
REDUCTIONS = ("mean", "half_sum")


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
    reduction: str = "mean",
) -> Array:
    """weight(t) times the mean squared error of the prediction of `target`, one value per example.

    With x_t = alpha x_0 + sigma noise, the targets are noise (the objective of Song et al. 2021,
    Eq. 7, with lambda = sigma^2), x_0, and the velocity alpha' x_0 + sigma' noise. On `StraightLine` the
    velocity is noise - x_0, and matching it is flow matching (Lipman et al. 2023). The caller draws t.

    Args:
        denoiser: the model; gradients pass through it.
        x0: data, shape (batch, *shape).
        keys: one key per example, shape (batch,), for its noise and its dropout.
        t: times, shape () or (batch,), within [t_min, t_max] of the SDE.
        target: 'noise', 'x0' or 'velocity'.
        weight: a function (sde, t) -> shape of t, as in `weights`; one that is stated for another
            quantity (weight.of) is converted.
        cond: None, or a pytree with leading axis batch.
        train: whether dropout is on.
        reduction: 'mean' over an example's dimensions, or 'half_sum', half the sum over them: the
            settings reduce_mean=True and False of Song et al. 2021.

    Returns:
        Shape (batch,).
    """
    _check(denoiser.sde, x0, keys, t, target, reduction)
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
    size = per_example_mean(error**2) if reduction == "mean" else per_example_sum(error**2) / 2
    return weights.on(target, weight, sde, t) * size


def _check(sde: SDE, x0: Array, keys: Array, t: ArrayLike, target: str, reduction: str) -> None:
    for name, value, known in (("target", target, TARGETS), ("reduction", reduction, REDUCTIONS)):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
    if keys.shape != x0.shape[:1]:
        raise InputError(
            f"keys have shape {keys.shape} for {len(x0)} examples; expected one key per example, as from "
            "jax.random.split(jax.random.key(seed), batch)."
        )
    if is_concrete(sde, t):
        times = np.asarray(t)
        if times.shape not in ((), x0.shape[:1]):
            raise InputError(f"t has shape {times.shape}; expected () or ({len(x0)},), one time per example.")
        sde.check_times(times, "t")
        if not np.all(np.asarray(sde.variance(times)) > 0):
            raise InputError(f"t contains {times.min():g}, where {type(sde).__name__} has no noise to tell from data.")
    if is_concrete(x0) and not np.isfinite(x0).all():
        raise InputError("x0 contains NaN or infinity; expected finite data on the model's scale.")


__all__ = ["denoising_loss"]
