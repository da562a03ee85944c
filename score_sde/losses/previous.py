"""This module defines the early loss of a chain, on x_s of the level before t."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from score_sde.core import conditions
from score_sde.core import keys as keys_
from score_sde.core.arrays import Array, expand, per_example_mean, to_time
from score_sde.core.errors import InputError
from score_sde.data import Batch
from score_sde.losses.denoising import Denoising
from score_sde.losses.objective import Parts


class PreviousSample(Denoising):
    """`PreviousSample` trains the mean of a reverse step on x_s itself, where s is the level before t of a chain.

    x_s is drawn from q(x_s | x_0), and x_t = r x_s + sqrt(v) z from q(x_t | x_s). The loss is the mean of
    (m - x_s)^2 / v, where m is the mean of the reverse step at the predicted x_0. Its minimiser is E[x_s | x_t], as for
    the loss on x_0 or on the noise, but the target x_s has noise of its own, so the gradient has a larger variance:
    Ho et al. 2020 (arXiv:2006.11239, Sec. 3.2) replaced x_s by its mean given x_t and x_0. `PreviousMean` is the
    parametrisation that predicts m.

    Args:
        parts: objects that the config makes; the SDE is a chain.
        times, stratified: as in `Denoising`.
    """

    def __init__(self, parts: Parts, times: str | Mapping[str, Any] = "knots", stratified: bool = False) -> None:
        super().__init__(parts, times=times, stratified=stratified)

    def check(self) -> None:
        if self.parts.sde.levels is None:
            raise InputError(
                f"PreviousSample needs the levels of a chain, and {type(self.parts.sde).__name__} has none; expected "
                "DDPM, CosineDDPM, DiscreteVP or SMLD."
            )
        super().check()

    def at_time(
        self,
        t: Any,
        params: dict[str, Any],
        batch: Batch,
        key: Array,
        *,
        frozen: Mapping[str, Any],
        train: bool = False,
    ) -> Array:
        keys, denoiser = keys_.examples(key, batch["index"]), self.denoiser(params)
        sde = denoiser.sde
        assert sde.levels is not None
        x0, _ = frozen["codec"].encode(batch["values"], keys_.fold(keys, "encode"))
        t = jnp.broadcast_to(to_time(t), x0.shape[:1])
        s = t - 1 / sde.levels
        r, v = sde.transition(s, t)
        noise = keys_.normal(keys_.fold(keys, "noise"), x0.shape[1:], x0.dtype)
        more = keys_.normal(keys_.fold(keys, "previous"), x0.shape[1:], x0.dtype)
        x_s = sde.perturb(x0, noise, s)
        x_t = expand(r, x0) * x_s + expand(jnp.sqrt(v), x0) * more
        cond = conditions.only(batch["cond"], denoiser.reads)
        predicted = denoiser.predict(x_t, t, cond, keys=keys_.fold(keys, "dropout") if train else None)
        pull = r * sde.variance(s) / sde.sigma(t)
        mean = expand(sde.alpha(s), x0) * predicted.x0 + expand(pull, x0) * predicted.noise
        return per_example_mean((mean - x_s) ** 2) / v


__all__ = ["PreviousSample"]
