"""This module defines the objective that learns the schedule of the SDE beside the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from score_sde.core.arrays import Array
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.denoisers import NetworkDenoiser
from score_sde.losses.denoising import Denoising, Noised, squared_error
from score_sde.losses.objective import Across, Losses, Parts
from score_sde.losses.weighting import unit
from score_sde.sde import SDE


class LearnedSchedule(Denoising):
    """`LearnedSchedule` minimises the bound in continuous time, and the variance of its estimate over the schedule.

    With t uniform, the loss in bits per dimension is

        L(t) = -(t_max - t_min) log_snr'(t) / 2 |noise - predicted noise|^2,

    whose mean is the diffusion term of the bound and does not depend on the schedule between its ends (Kingma et al.
    2021, arXiv:2107.00630, Sec. 5.1). The network minimises the mean of L. The parameters that the SDE names in
    `learned` are the group `schedule`; they minimise the mean of L^2, and so the variance of L (App. I.2). `load`
    returns a model on the learned SDE.

    Args:
        parts: objects that the config makes; the SDE has learned parameters, as `LearnedVP` has.
        stratified: whether the times of a whole batch are spread evenly.
    """

    SCHEDULE = "schedule"
    dequantises = False

    def __init__(self, parts: Parts, stratified: bool = True) -> None:
        super().__init__(parts, times="uniform", stratified=stratified)

    def check(self) -> None:
        if not self._names():
            raise InputError(
                f"LearnedSchedule trains the schedule, and {type(self.parts.sde).__name__} has no learned parameters; "
                "expected sde.name='LearnedVP', or an SDE with the attribute `learned`."
            )
        super().check()

    def init(self, key: Array) -> tuple[dict[str, Any], Any]:
        params, state = super().init(key)
        values = {name: jnp.asarray(getattr(self.parts.sde, name)) for name in self._names()}
        return params | {self.SCHEDULE: values}, state

    def sde(self, params: Mapping[str, Any]) -> SDE:
        """Return the SDE with these parameters by group."""
        names, values = self._names(), params[self.SCHEDULE]
        changed: SDE = eqx.tree_at(
            lambda sde: [getattr(sde, name) for name in names], self.parts.sde, [values[name] for name in names]
        )
        return changed

    def denoiser(self, params: Mapping[str, Any]) -> NetworkDenoiser:
        parts = self.parts
        return NetworkDenoiser(self.sde(params), parts.parametrization, parts.network, params[self.GROUP])

    def measured(self, sde: SDE, t: Array, noised: Noised, bins: Any) -> Array:
        _, slope = jax.jvp(sde.log_snr, (t,), (jnp.ones_like(t),))
        squared = squared_error(sde, t, noised, "noise", unit, "half_sum")
        return -(sde.t_max - sde.t_min) * slope * squared / self.parts.nats_per_bit

    def __call__(
        self,
        params: dict[str, Any],
        state: Any,
        batch: Batch,
        key: Array,
        *,
        step: Array,
        averages: Mapping[str, dict[str, Any]],
        frozen: Mapping[str, Any],
        across: Across,
        train: bool,
    ) -> tuple[Losses, Any, dict[str, Array]]:
        t, _ = self.drawn(batch, key, state, train)
        loss = self.at_time(t, params, batch, key, frozen=frozen, train=train)
        return {self.GROUP: loss, self.SCHEDULE: loss**2}, state, {}

    def total(self, losses: Losses) -> Array:
        """Return L for each example."""
        return losses[self.GROUP]

    def _names(self) -> tuple[str, ...]:
        return tuple(getattr(self.parts.sde, "learned", ()))


__all__ = ["LearnedSchedule"]
