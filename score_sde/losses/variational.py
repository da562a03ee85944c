"""This module defines objectives that contain the variational bound: the hybrid loss, and the bound alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.denoisers.bound_terms import data_term, step_term
from score_sde.losses import time_sampling
from score_sde.losses.denoising import Denoising, Noised, squared_error
from score_sde.losses.heads import Headed, with_stopped_mean
from score_sde.losses.objective import Parts
from score_sde.losses.weighting import unit
from score_sde.sde import SDE

Bins = tuple[Array, Array] | None


def level_term(sde: SDE, t: Array, noised: Noised, bins: Bins, kind: str) -> Array:
    """Return the term of the bound at the levels t of a chain, in nats, (batch,): L_0 at level 1, otherwise L_t."""
    levels = sde.levels
    assert levels is not None
    level = jnp.round(t * levels)
    # At level 1 the step term is computed from level 2 and not used, so that no gradient is NaN.
    later = jnp.maximum(level, 2) / levels
    steps = step_term(sde, later - 1 / levels, later, noised.x0, noised.predicted, kind)
    return jnp.where(level <= 1, data_term(sde, t, noised.x0, noised.predicted, kind, bins), steps)


class Hybrid(Headed):
    """`Hybrid` is L_simple + bound_weight L_vlb of Nichol & Dhariwal 2021 (arXiv:2102.09672, Eq. 16), on a chain.

    L_simple trains the mean. L_vlb, the variational bound in bits per dimension, trains the variance and not the mean.
    One level is drawn for each example, so L_vlb is N times the term of this level; the prior's term L_T is constant.
    Quantised data are the middles of their bins, without dequantisation noise, as in L_0.

    Args:
        parts: objects that the config makes; the parametrisation has a variance.
        bound_weight: lambda, the weight of the bound; 0.001 in the paper.
        head_only: whether the variance alone is trained, on frozen weights.
        target, weight, times, stratified, reduction: arguments of L_simple, as in `Denoising`; times is 'knots' or a
            `LossAware`.
    """

    dequantises = False

    def __init__(
        self,
        parts: Parts,
        bound_weight: float = 0.001,
        head_only: bool = False,
        target: str = "noise",
        weight: str | Mapping[str, Any] = "unit",
        times: str | Mapping[str, Any] = "knots",
        stratified: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(parts, head_only, target, weight, times, stratified, reduction)
        self.bound_weight = bound_weight

    def check(self) -> None:
        _check_chain("Hybrid", self.parts)
        super().check()
        if not (isinstance(self.bound_weight, int | float) and self.bound_weight > 0):
            raise InputError(f"objective.bound_weight is {self.bound_weight!r}; expected a positive number.")

    def of_variance(self, sde: SDE, t: Array, noised: Noised, bins: Bins) -> Array:
        assert sde.levels is not None
        stopped = noised._replace(predicted=with_stopped_mean(noised.predicted))
        bits = level_term(sde, t, stopped, bins, "learned") / self.parts.nats_per_bit
        return self.bound_weight * sde.levels * bits


class Variational(Denoising):
    """`Variational` is the variational bound alone, in bits per dimension, as an estimate from one level per example.

    On a chain the loss is N times L_t at a level t, with L_0 at level 1 (Ho et al. 2020, arXiv:2006.11239, Eq. 5;
    Nichol & Dhariwal 2021). The variance is the learned one if the parametrisation has a variance, otherwise
    `variance`. The gradient is noisy, so that `times=dict(name='LossAware')` helps. On an SDE in continuous time the
    loss is

        (log SNR(t_min) - log SNR(t_max)) / 2 |noise - predicted noise|^2,

    at times even in log-SNR (Kingma et al. 2021, arXiv:2107.00630, Eq. 17); no variance takes part. The prior's term is
    constant. Quantised data are the middles of their bins.

    Args:
        parts: objects that the config makes.
        variance: 'posterior' or 'forward', the variance of a chain without a learned one.
        times: 'knots' or a `LossAware` on a chain; 'importance' on an SDE in continuous time, which is the default.
        stratified: whether the levels of a whole batch are spread evenly.
    """

    dequantises = False

    def __init__(
        self,
        parts: Parts,
        variance: str = "posterior",
        times: str | Mapping[str, Any] | None = None,
        stratified: bool = True,
    ) -> None:
        usual = "knots" if parts.sde.levels is not None else "importance"
        super().__init__(parts, times=usual if times is None else times, stratified=stratified)
        self.variance = "learned" if parts.parametrization.variance is not None else variance

    def check(self) -> None:
        if self.variance not in ("posterior", "forward", "learned"):
            raise InputError(f"objective.variance is {self.variance!r}; expected 'posterior' or 'forward'.")
        if self.parts.sde.levels is None and self.times is not time_sampling.importance:
            raise InputError("Variational in continuous time draws times even in log-SNR; expected times='importance'.")
        if self.parts.sde.levels is None and self.parts.parametrization.variance is not None:
            raise InputError(
                f"The bound of {type(self.parts.sde).__name__} in continuous time does not depend on the variance of a "
                "step; expected a chain such as DDPM, parametrization.variance=None, or the objective PixelVariance."
            )
        super().check()

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: Bins) -> Array:
        if sde.levels is not None:
            nats = sde.levels * level_term(sde, t, noised, bins, self.variance)
        else:
            # The factor of 'importance' is proportional to sigma^2 / g^2, so that the product is the same at all times.
            rate = sde.diffusion_squared(t) / sde.variance(t)
            squared = squared_error(sde, t, noised, "noise", unit, "half_sum")
            nats = (sde.t_max - sde.t_min) * rate * squared
        return nats / self.parts.nats_per_bit


def _check_chain(name: str, parts: Parts) -> None:
    if parts.sde.levels is None:
        raise InputError(
            f"{name} needs the levels of a chain, and {type(parts.sde).__name__} has none; expected DDPM or "
            "CosineDDPM, or the objectives SecondMoment and PixelVariance, which train a variance in continuous time."
        )


__all__ = ["Hybrid", "Variational"]
